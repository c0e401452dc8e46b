"""A PostgreSQL with the mailbox that is away: stopped, killed, frozen, full, without a place for a connection (docs/postgres.md).

Clients are told as on a full disk, stay connected, and go on within two seconds of the database.
"""

import contextlib
import signal
import time
from functools import partial

import psycopg
import pytest
from harness import packets, readiness, run_cli
from harness.directory import Directory
from harness.packets import PUBACK, PUBREC
from harness.postgres import PostgresServer
from harness.raw import error
from harness.small_disk import SmallPostgres

PATIENCE = 20
until = partial(readiness.until, patience=PATIENCE)
readyz = partial(readiness.readyz, patience=PATIENCE)
BACK = 2
NO_ROOM = "the server cannot keep messages at the moment"
NO_WRITING = "the mailbox cannot be written"
SESSION = {"clean": False, "props": {"session_expiry": 600}}


def kept_in(postgres, start, tmp_path, create="CREATE DATABASE jam"):
    """A server with its mailbox there, and its accounts in a file."""
    postgres.sql(create)
    url = postgres.url("jam")
    made = run_cli("cluster", "init", "--mailbox", url)
    assert made.returncode == 0, made.stderr
    return start(directory=Directory(tmp_path / "directory.db"), settings={"mailbox.url": url})


def refused(client, topic, body, qos):
    """The error, then the acknowledgement that the QoS asks for, and the connection lives on."""
    packet_id = client.publish(topic, body, qos)
    assert client.error() == error("mailbox", NO_ROOM, packet_id)
    got = client.expect(PUBACK if qos == 1 else PUBREC, packet_id=packet_id)
    if client.version == 5:
        assert got.reason == 0x83
    elif qos == 2:
        assert client.release(packet_id) == 0
    client.ping()


def taken_again(server, writer, topic, body):
    """Within two seconds from now; nothing of what was refused comes before it."""
    began = time.monotonic()
    while writer.deliver(topic, body) != 0:
        assert time.monotonic() - began < BACK
        writer.backlog.clear()
        time.sleep(0.02)
    assert time.monotonic() - began < BACK
    until("it is ready", lambda: readyz(server)[0] == 200)


def said_once(server):
    """That it began and that it is over."""
    log = server.log()
    assert log.count("cannot be written: ") == 1, log[-4000:]
    assert log.count("can be written again") == 1, log[-4000:]


class Stopped:
    """`pg_ctl stop`, and a start."""

    settings = ()
    told = 2

    def __init__(self, mode):
        self.mode = mode

    def take(self, postgres, server):
        postgres.stop(self.mode)

    def give(self, postgres):
        postgres.start()


class Killed(Stopped):
    def __init__(self):
        super().__init__("kill -9")

    def take(self, postgres, server):
        postgres.signal(signal.SIGKILL)


class Frozen(Stopped):
    told = 6  # nobody says that it is gone

    def __init__(self):
        super().__init__("SIGSTOP")

    def take(self, postgres, server):
        postgres.signal(signal.SIGSTOP)

    def give(self, postgres):
        postgres.signal(signal.SIGCONT)


class Crowded(Stopped):
    """Others have all connections that there are."""

    places = 16
    settings = (f"max_connections={places}", "superuser_reserved_connections=0")

    def __init__(self):
        super().__init__("max_connections")

    def take(self, postgres, server):
        self.others = contextlib.ExitStack()
        db = self.others.enter_context(contextlib.closing(postgres.connect("jam")))
        server.process.send_signal(signal.SIGSTOP)
        db.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name LIKE 'jam-%'")
        taken = 1
        while taken < self.places:
            with contextlib.suppress(psycopg.OperationalError):  # the one that had this place is about to end
                self.others.enter_context(contextlib.closing(postgres.connect("jam")))
                taken += 1
        server.process.send_signal(signal.SIGCONT)

    def give(self, postgres):
        self.others.close()


WAYS = [Stopped("fast"), Stopped("immediate"), Killed(), Frozen(), Crowded()]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.mode)
def test_a_database_that_is_pulled_away(way, version, tmp_path, start):
    with contextlib.closing(PostgresServer(*way.settings)) as postgres:
        server = kept_in(postgres, start, tmp_path)
        me, friend = server.friends()
        with server.listener(friend, version, qos=2, clean=False) as reader, server.connect(me, version) as writer:
            assert writer.deliver(friend.inbox, me.message("before"), qos=2) == 0
            reader.message(payload=me.message("before"))
            way.take(postgres, server)
            until("it is told", lambda: readyz(server)[0] == 503, patience=way.told)
            assert NO_WRITING in readyz(server)[1]
            for qos in (1, 2, 1):
                refused(writer, friend.inbox, me.message("refused"), qos)
            writer.publish(friend.inbox, me.message("who is there gets it"), 0)
            reader.message(payload=me.message("who is there gets it"), qos=0)
            way.give(postgres)
            taken_again(server, writer, friend.inbox, me.message("after"))
            reader.message(payload=me.message("after"))
            reader.quiet()
        said_once(server)


@pytest.mark.parametrize("whole", [False, True], ids=["tables", "all"])
def test_a_database_without_room(whole, tmp_path, start):
    """Those that wait are delivered, at QoS 1 as on a full disk; nothing flickers, and it goes on when there is room."""
    create = "CREATE DATABASE jam" if whole else "CREATE DATABASE jam TABLESPACE small"
    settings = ("max_wal_size=32MB", "min_wal_size=32MB", "wal_recycle=off") if whole else ()
    with contextlib.closing(SmallPostgres(*settings, whole=whole)) as postgres:
        if not whole:
            # A command of its own: it is no transaction.
            postgres.sql(f"CREATE TABLESPACE small LOCATION '{postgres.tables()}'")
        server = kept_in(postgres, start, tmp_path, create)
        me, friend = server.friends()
        with server.listener(friend, 5, **SESSION) as reader:
            reader.leave()
        with server.connect(me, 5) as writer:
            for number in range(5):
                assert writer.deliver(friend.inbox, me.message(f"{number}"), qos=2) == 0
            postgres.disk.fill()
            large = me.message("x" * 100_000)
            refused(writer, friend.inbox, large, 1)
            watched = time.monotonic()
            while time.monotonic() - watched < 3:
                assert readyz(server)[0] == 503
                refused(writer, friend.inbox, large, 2)
            with server.connect(friend, 5, **SESSION) as reader:
                # What cannot be kept may hold up SUBACK until the messages are acknowledged, and nothing is to be kept.
                reader.send(packets.subscribe(1, [(friend.inbox, 1)], 5))
                suback, numbers = None, []
                while suback is None or len(numbers) < 5:
                    got = reader.receive()
                    if got.kind == packets.SUBACK:
                        suback = got
                    else:
                        assert (got.kind, got.qos) == (packets.PUBLISH, 1)
                        reader.acknowledge(got)
                        numbers.append(got.payload)
                assert suback.codes == [1]
                assert numbers == [me.message(f"{number}") for number in range(5)]
                assert "make room on the database server's disk" in server.log()
                postgres.disk.empty()
                taken_again(server, writer, friend.inbox, large)
                reader.message(payload=large)
                reader.quiet()
        said_once(server)
