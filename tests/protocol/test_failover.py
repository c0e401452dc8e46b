"""Accounts and mailbox in a PostgreSQL that fails over, or comes back as it was before (docs/postgres.md; complaint T16)."""

import shutil
import signal
import subprocess
import time
from functools import partial

import pytest
from harness import User, readiness, run_cli
from harness.office import scrape
from harness.packets import PUBACK
from harness.postgres import PostgresServer, as_user
from harness.raw import Closed, error

PATIENCE = 30
until = partial(readiness.until, patience=PATIENCE)
SESSION = {"clean": False, "props": {"session_expiry": 600}}
ME, FRIEND, OTHER = User("1", "a"), User("2", "b"), User("3", "c")
LOST = "jam_mailbox_lost_batches_total"


class Database:
    """Accounts and mailbox in the first of these servers that can be written."""

    def __init__(self, *servers):
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        self.url = f"postgres://postgres@{hosts}/jam"
        servers[0].sql("CREATE DATABASE jam")
        at = ["--directory", self.url]
        self.run("cluster", "init", *at, settings={"mailbox.url": self.url})
        for user in (ME, FRIEND, OTHER):
            self.run("user", "add", user.id, "--token", user.token, *at)
        self.run("friend", "add", ME.id, FRIEND.id, *at)

    @staticmethod
    def run(*command, **options):
        done = run_cli(*command, **options)
        assert done.returncode == 0, done.stderr

    def served(self, start, **options):
        return start(directory=self, admin=True, settings={"mailbox.url": self.url}, **options)


@pytest.fixture
def postgres():
    """Starts servers of the test's own."""
    started = []

    def begin(*settings, **options):
        started.append(PostgresServer(*settings, **options))
        return started[-1]

    yield begin
    for server in started:
        server.close()


def status(server):
    return readiness.readyz(server, PATIENCE)[0]


def lost(server):
    [line] = [line for line in scrape(server).splitlines() if line.startswith(f"{LOST} ")]
    return int(line.split()[1])


def require_standby(primary, name):
    primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    primary.sql("SELECT pg_reload_conf()")
    is_so = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    until("a standby is synchronous", lambda: primary.sql(is_so) == [(1,)])


def detach(standby, primary):
    """Ends the standby's receiver, for good."""
    standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
    standby.sql("SELECT pg_reload_conf()")
    until("the receiver has ended", lambda: primary.sql("SELECT count(*) FROM pg_stat_replication") == [(0,)])


def caught_up(standby, primary):
    [(at,)] = primary.sql("SELECT pg_current_wal_flush_lsn()")
    is_there = f"SELECT pg_last_wal_replay_lsn() >= '{at}'"
    until("the standby has it all", lambda: standby.sql(is_there) == [(True,)])


def promote(standby):
    assert standby.sql("SELECT pg_promote()") == [(True,)]


def refused(writer, message):
    """An answer that is not yes, as long as the database is gone: whichever of the two stores is missed first."""
    answer = writer.deliver(FRIEND.inbox, message)
    return answer != 0


def accepted(writer, message):
    """Publishes until it is taken. How long that took."""
    began = time.monotonic()
    until("it is taken again", lambda: not refused(writer, message))
    return time.monotonic() - began


def ready(server):
    until("it is ready", lambda: status(server) == 200)


def backlog(server, messages):
    """FRIEND gets these, once and in this order, and nothing else."""
    ready(server)
    with server.connect(FRIEND, 5, **SESSION) as reader:
        for message in messages:
            reader.message(payload=message)
        reader.subscribe(FRIEND.inbox)
        reader.quiet()


def away(server):
    """FRIEND has a session, and is gone: messages are stored."""
    with server.listener(FRIEND, 5, **SESSION) as reader:
        reader.leave()


def test_t16_a_standby_that_stops_keeps_messages_from_being_acknowledged(postgres, start):
    primary = postgres()
    standby = postgres(of=primary)
    require_standby(primary, "*")
    server = Database(primary).served(start)
    away(server)
    with server.connect(ME, 4) as writer:
        assert writer.deliver(FRIEND.inbox, ME.message(0)) == 0
        standby.stop("fast")
        began = time.monotonic()
        waiting = writer.publish(FRIEND.inbox, ME.message(1), 1)
        until("it is told", lambda: status(server) == 503)
        assert time.monotonic() - began < 8
        later = writer.publish(FRIEND.inbox, ME.message(2), 1)
        assert writer.error() == error("mailbox", "the server cannot keep messages at the moment", later)
        standby.start()
        began = time.monotonic()
        writer.expect(PUBACK, packet_id=waiting)
        writer.expect(PUBACK, packet_id=later)
        until("it is ready again", lambda: status(server) == 200)
        assert time.monotonic() - began < 10  # the standby has to connect first
        assert writer.deliver(FRIEND.inbox, ME.message(3)) == 0
    backlog(server, [ME.message(n) for n in (0, 1, 3)])
    assert lost(server) == 0


def test_t16_what_was_acknowledged_is_on_the_standby_that_is_promoted(postgres, start):
    """One message is on the primary alone, its connection cut while its COMMIT waits: it is not acknowledged before the
    new primary has it. Clients stay connected all the time."""
    primary = postgres()
    standby = postgres(of=primary)
    require_standby(primary, "*")
    server = Database(primary, standby).served(start)
    away(server)
    with server.connect(ME, 5) as writer, server.connect(OTHER, 4) as bystander:
        kept = [ME.message(n) for n in range(20)]
        for message in kept:
            assert writer.deliver(FRIEND.inbox, message) == 0
        detach(standby, primary)
        waiting = writer.publish(FRIEND.inbox, ME.message("waits"), 1)
        waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name LIKE 'jam-%-writer'"
        until("the COMMIT waits", lambda: primary.sql(waits))
        primary.sql(f"SELECT pg_terminate_backend(({waits}))")
        until("it is told", lambda: status(server) == 503)
        primary.stop("immediate")
        promote(standby)
        took = accepted(writer, ME.message("after"))
        assert took < 3, took
        assert writer.await_reply(PUBACK, waiting).reason == 0
        bystander.ping()
        print(f"accepted {took:.2f} s after the promotion")
    backlog(server, [*kept, ME.message("waits"), ME.message("after")])
    assert lost(server) == 0


def begins_anew(server, clients):
    """The connections end, and the server serves again on the same addresses, as the same process."""
    began = time.monotonic()
    for client in clients:
        with pytest.raises((Closed, OSError)):
            while True:
                client.receive()
    until("it is ready again", lambda: server.process.poll() is None and status(server) == 200)
    assert time.monotonic() - began < 15
    assert "the server begins anew" in server.log()
    assert "of the batches that it had confirmed" in server.log()


def test_a_failover_that_loses_commits_is_told_and_counted_and_everything_is_read_anew(postgres, start):
    primary = postgres()
    standby = postgres(of=primary)
    server = Database(primary, standby).served(start)
    away(server)
    with server.connect(ME, 5) as writer, server.connect(OTHER, 4) as bystander:
        assert writer.deliver(FRIEND.inbox, ME.message("there")) == 0
        caught_up(standby, primary)
        detach(standby, primary)
        for n in range(3):
            assert writer.deliver(FRIEND.inbox, ME.message(f"lost {n}")) == 0
        primary.stop("immediate")
        promote(standby)
        begins_anew(server, [writer, bystander])
    assert lost(server) >= 3
    with server.connect(ME, 5) as writer:
        assert writer.deliver(FRIEND.inbox, ME.message("after")) == 0
    backlog(server, [ME.message("there"), ME.message("after")])


def copied(source, to):
    subprocess.run([*as_user(), "cp", "-a", source, to], check=True, cwd="/")


@pytest.mark.parametrize("copy", ["while it serves", "before it starts"])
def test_a_database_that_comes_back_as_it_was_is_read_anew(postgres, start, copy):
    """Noticed while nobody writes; twice, and the count goes on."""
    one = postgres()
    database = Database(one)
    earlier = one.folder / "earlier"

    def take_copy():
        one.stop("fast")
        copied(one.data, earlier)
        one.start()

    if copy == "before it starts":
        take_copy()
    server = database.served(start)
    messages = []
    if copy == "while it serves":
        away(server)
        with server.connect(ME, 5) as writer:
            messages.append(ME.message("there"))
            assert writer.deliver(FRIEND.inbox, messages[0]) == 0
        take_copy()
        until("it is ready again", lambda: status(server) == 200)
    for n in range(2):
        ready(server)
        before = lost(server)
        with server.connect(ME, 5) as writer:
            accepted(writer, ME.message(f"lost {n}"))
            assert writer.deliver(FRIEND.inbox, ME.message("lost")) == 0
            one.stop("fast")
            shutil.rmtree(one.data)
            copied(earlier, one.data)
            one.start()
            begins_anew(server, [writer])
        assert lost(server) >= before + 2
    if messages:
        backlog(server, messages)


def test_a_server_that_another_one_has_fenced_ends(postgres, start):
    one = postgres()
    database = Database(one)
    first = database.served(start)
    first.process.send_signal(signal.SIGSTOP)

    def beat():
        time.sleep(1)
        return one.sql("SELECT beat FROM node", "jam")

    until("its last beat is in", lambda: beat() == beat())
    second = database.served(start)
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(PATIENCE) == 69
    assert "another server has taken the mailbox over" in first.log()
    assert lost(second) == 0
