"""docs/metrics.md: each metric shows what it is named after. One server, to which everything happens that is counted; and one
with a mailbox in PostgreSQL, for what is shown of that alone."""

import time
from contextlib import closing

import pytest
from harness.channels import friends, presence, receipts
from harness.directory import Directory
from harness.office import Office, scrape
from harness.packets import Will, disconnect
from harness.process import in_postgres
from harness.push import PushService, answer
from harness.raw import Closed

PATIENCE = 75  # what stands in PostgreSQL is looked at each 30 s
AWAY = {"clean": False, "props": {"session_expiry": 600}}
ELSEWHERE = "127.0.0.9"
OF_POSTGRES = {"jam_postgres_dead_rows", "jam_postgres_oldest_snapshot_seconds"}
# Of a failover: tests/protocol/test_failover.py.
OF_FAILOVER = {"jam_mailbox_lost_batches_total"}
# Of a log that cannot be written: tests/cli/test_log.py.
OF_LOG = {"jam_log_lines_lost_total"}


class Seen:
    """The metrics that were not 0 whenever one looked."""

    def __init__(self, server):
        self.server = server
        self.all, self.moved = set(), set()
        self.look()

    def look(self):
        kinds = {}
        for line in scrape(self.server).splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                kinds[name] = kind
            elif not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                name = series.split("{")[0]
                if name not in kinds:
                    name = name.rsplit("_", 1)[0]
                if float(value) > 0:
                    self.moved.add(name)
        self.all |= set(kinds)

    def wait(self, name, provoke=lambda: None):
        """Looks until a metric is not 0; what provokes it comes before each look."""
        assert name in self.all
        deadline = time.monotonic() + PATIENCE
        while name not in self.moved:
            assert time.monotonic() < deadline, f"{name} stays 0"
            provoke()
            self.look()


def test_each_metric_moves(start, tmp_path, certificate):
    with PushService() as service:
        service.script(*[answer(503)] * 3)
        settings = {"limits.failed_auth": 2} | service.webhook()
        directory = Directory(tmp_path / "jam.db", "delete")
        server = start(admin=True, certificate=certificate, settings=settings, directory=directory)
        seen, office = Seen(server), Office(server)
        me, friend = server.friends()
        other = server.user()
        directory.befriend(me, other)
        directory.set_notification_token(friend, "a phone")

        writer = server.connect(me, 5)
        writer.subscribe(receipts(me), presence(me), friends(me))
        server.listener(friend, 5, **AWAY).leave()
        server.listener(other, 5, **AWAY).leave()
        writer.deliver(friend.inbox, me.message("is kept, and told by a push"))
        seen.wait("jam_pushes_owed")
        for name in ("oldest_timestamp_seconds", "messages", "bytes"):
            seen.wait(f"jam_mailbox_{name}")
        seen.wait("jam_pushes_total")

        # Many bytes on their way to the disk, and some in their grace.
        large = me.message("x" * 1_000_000)
        seen.wait("jam_mailbox_pending_bytes", lambda: writer.publish(other.inbox, large, qos=1))
        with server.connect(friend, 5, device="tablet") as reader:
            reader.subscribe(friend.inbox)
            seen.wait("jam_mailbox_grace_bytes", lambda: writer.publish(friend.inbox, me.message(), qos=1))
        reader = server.listener(friend, 5, **AWAY)
        while not {"jam_receipts_total", "jam_presence_total", "jam_delivery_seconds"} <= seen.moved:
            writer.publish(friend.inbox, me.message(), qos=1)
            reader.message()
            seen.look()
        # What is on its way to a device does not expire: the server has seen that it is gone.
        reader.send(disconnect(5))
        with pytest.raises(Closed):
            while True:
                reader.receive()

        writer.deliver(friend.inbox, me.message("expires"), props={"message_expiry": 1})
        seen.wait("jam_expired_total")
        assert office.ask("DELETE", f"users/{friend.id}/mailbox")[0] == 200
        seen.wait("jam_purged_total")
        server.connect(other, 5, will=Will(f"/{server.user().id}/inbox", b"of no friend", 1)).close()
        seen.wait("jam_dropped_total")

        writer.publish(server.user().inbox, me.message("of no friend"))
        server.open(source=ELSEWHERE).send(b"not MQTT at all")
        seen.wait("jam_connections_refused_total")
        stranger = server.user()
        with directory.write_lock("EXCLUSIVE"):
            server.attempt(stranger)
            seen.wait("jam_store_errors_total")
        for _ in range(3):
            server.attempt(me, source=ELSEWHERE, password="wrong")
        seen.wait("jam_lockouts")
        seen.look()
        assert seen.all - seen.moved == OF_POSTGRES | OF_FAILOVER | OF_LOG


def test_what_piles_up_in_postgres_is_shown_until_it_is_cleared_away(start):
    directory = in_postgres("mailbox.url")
    server = start(admin=True, directory=directory, settings={"mailbox.url": directory.url})
    seen = Seen(server)
    me, friend = server.friends()
    server.listener(friend, **AWAY).leave()
    with closing(directory.open()) as other, server.connect(me) as writer:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM message")
        for number in range(200):
            writer.deliver(friend.inbox, me.message(number))
        for name in ("commit_seconds", "mailbox_oldest_timestamp_seconds", "mailbox_file_bytes"):
            seen.wait(f"jam_{name}")
        with server.connect(friend, **AWAY) as reader:
            for _ in range(200):
                reader.message()
        for name in OF_POSTGRES:
            seen.wait(name)
        other.execute("COMMIT")
        deadline = time.monotonic() + PATIENCE
        while not (number_of(server, "jam_postgres_dead_rows") < 100 and number_of(server, "jam_postgres_oldest_snapshot_seconds") == 0):
            assert time.monotonic() < deadline, scrape(server)
            other.execute("VACUUM message, in_flight, session")
            time.sleep(0.2)


def number_of(server, name):
    [value] = [line.split()[1] for line in scrape(server).splitlines() if line.startswith(f"{name} ")]
    return float(value)
