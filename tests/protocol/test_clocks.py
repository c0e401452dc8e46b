"""Wall clocks that are wrong and that step (docs/adr/0014): libfaketime shows the server another CLOCK_REALTIME."""

import datetime
import json
import os
import time
from pathlib import Path

import pytest
from harness import Server
from harness.channels import presence, receipts
from harness.packets import PUBACK

SESSION = {"clean": False, "props": {"session_expiry": 86400}}
DAY = 86400
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Clocked(Server):
    """A server whose wall clock is off by so many seconds, and can be stepped."""

    def set(self, seconds):
        new = self.folder / "offset.new"
        new.write_text(f"{seconds:+}\n")
        os.replace(new, self.folder / "offset")
        self.offset = seconds

    def more(self):
        assert FAKETIME, "libfaketime is missing: scripts/test installs it"
        return {
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / "offset"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def start_at(self, seconds):
        self.set(seconds)
        return self.start()

    def shows(self, payload):
        """Whether a payload is stamped with what the wall clock shows."""
        stamp = datetime.datetime.fromisoformat(json.loads(payload)["timestamp"])
        return abs(stamp.timestamp() - time.time() - self.offset) < 20

    def warnings(self):
        lines = map(json.loads, self.log().splitlines())
        return [line for line in lines if line["target"] == "jam_mqtt::clock"]


@pytest.fixture
def clocked(tmp_path):
    server = Clocked(tmp_path / "server")
    yield server
    if server.process and server.process.poll() is None:
        server.stop()


def fill(server):
    """What waits: two messages for a device that is away, one of which expires, and a retained message."""
    me, friend = server.friends()
    with server.listener(friend, 5, **SESSION) as reader:
        reader.leave()
    with server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message("waits"))
        writer.deliver(friend.inbox, me.message("expires"), props={"message_expiry": 3600})
        writer.deliver(f"/{me.id}/own", b"kept", retain=True)
    return me, friend


def check(server, me, friend):
    """All of it is there, and nothing else."""
    with server.connect(me, 5) as writer:
        writer.subscribe(f"/{me.id}/own")
        writer.message(payload=b"kept")
    with server.connect(friend, 5, **SESSION) as reader:
        assert reader.connack.session_present
        reader.message(payload=me.message("waits"))
        reader.message(payload=me.message("expires"))
        reader.quiet()


@pytest.mark.parametrize("days", [-400, -40, -2, 2, 40, 400])
@pytest.mark.parametrize("how", ["steps", "starts", "kill"])
def test_a_clock_that_is_wrong_and_put_right(clocked, days, how):
    clocked.start_at(days * DAY)
    me, friend = fill(clocked)
    if how == "steps":
        clocked.set(0)
        time.sleep(1)
    clocked.kill() if how == "kill" else clocked.stop()
    clocked.start_at(0)
    check(clocked, me, friend)


def test_one_start_far_ahead(clocked):
    clocked.start_at(0)
    me, friend = fill(clocked)
    clocked.stop()
    clocked.start_at(365 * DAY)
    (warning,) = clocked.warnings()
    assert (warning["messages"], warning["sessions"], warning["retained"]) == (2, 1, 0)
    clocked.stop()
    clocked.start_at(0)
    check(clocked, me, friend)


@pytest.mark.parametrize("seconds", [-DAY * 40, -5000, 5000, DAY * 40])
def test_stamps_follow_the_clock_and_nobody_is_cut(clocked, seconds):
    clocked.start_at(0)
    me, friend = clocked.friends()
    with clocked.connect(me, 5, keepalive=60) as writer:
        writer.subscribe(receipts(me))
        writer.subscribe(presence(me), qos=0)
        for offset in (0, seconds, 0):
            clocked.set(offset)
            time.sleep(0.6)
            with clocked.listener(friend, 5) as reader:
                assert clocked.shows(writer.message(topic=presence(me)).payload)
                writer.publish(friend.inbox, me.message(), 1, 1)
                writer.await_reply(PUBACK, 1)
                reader.message(payload=me.message())
                got = writer.message(topic=receipts(me))
                assert clocked.shows(got.payload)
                reader.leave()
            assert clocked.shows(writer.message(topic=presence(me)).payload)
            writer.ping()


@pytest.mark.parametrize("seconds", [-400 * DAY, -5000, 5000, 400 * DAY])
def test_a_step_within_the_grace_of_messages(clocked, seconds):
    """The receiver acknowledges one after the next, and leaves the last: whatever the clock says, each is answered."""
    clocked.start_at(0)
    me, friend = clocked.friends()
    texts = [str(number) for number in range(200)]
    with clocked.listener(friend, 5, **SESSION) as reader, clocked.connect(me, 5) as writer:
        for number, text in enumerate(texts):
            clocked.set(seconds if number % 8 < 4 else 0)
            writer.publish(friend.inbox, me.message(text), 1, 1, props={"message_expiry": 600})
            reader.message(payload=me.message(text), ack=text != texts[-1])
            writer.await_reply(PUBACK, 1)
    clocked.kill()
    clocked.start_at(0)
    with clocked.connect(friend, 5, **SESSION) as reader:
        assert reader.connack.session_present
        reader.message(payload=me.message(texts[-1]))
        reader.quiet()


def test_what_has_passed_while_nobody_looked_counts(clocked):
    """A day at most: the machine was off, or a virtual one was paused."""
    clocked.start_at(0)
    me, friend = fill(clocked)
    clocked.stop()
    clocked.start_at(10 * 3600)
    with clocked.listener(friend, 5, **SESSION) as reader:
        reader.message(payload=me.message("waits"))
        reader.quiet()
