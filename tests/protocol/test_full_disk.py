"""A disk that is full when the server is started (docs/operations.md, "A full disk"): a small file system of its own."""

import time

import pytest
from harness import Server
from harness.packets import PUBACK
from harness.raw import error
from harness.small_disk import Small

REFUSED = error("mailbox", "the server cannot keep messages at the moment", 1)
SESSION = {"clean": False, "props": {"session_expiry": 600}}


@pytest.fixture
def small(tmp_path):
    server = Small(tmp_path / "server")
    yield server
    if server.process and server.process.poll() is None:
        server.stop()
    server.unmount()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_start_on_a_full_disk(small, end):
    small.start()
    me, friend = small.friends()
    with small.listener(friend, 5, **SESSION) as reader:
        reader.leave()
    with small.connect(me) as writer:
        for number in range(5):
            writer.deliver(friend.inbox, me.message(f"{number}"), qos=1 + number % 2)
    getattr(small, end)()
    small.fill()
    checked = small.run("check")
    assert checked.returncode == 1 and "is full" in checked.stderr, checked

    small.status = 503
    small.start()
    with small.connect(me) as writer:
        writer.publish(friend.inbox, me.message(), 1, 1)
        assert writer.error() == REFUSED
        writer.await_reply(PUBACK, 1)
        with small.listener(friend, 5, **SESSION) as reader:
            for number in range(5):
                reader.message(payload=me.message(f"{number}"))
        assert small.answers() == 503
        small.empty()
        deadline = time.monotonic() + 20
        while small.answers() != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        writer.deliver(friend.inbox, me.message("room"))


def test_a_first_start_on_a_full_disk(small):
    small.fill()
    refused = small.run("serve", "--mqtt", "127.0.0.1:0", "--http", "", "--admin", "", "--no-notification")
    assert refused.returncode == 69
    assert "the disk is full; make room" in refused.stderr, refused
    small.empty()
    small.start()


class UnderQuota(Server):
    """Its mailbox has a disk quota, which the file system says nothing of."""

    def __init__(self, folder, shim):
        super().__init__(folder)
        self.shim, self.quota = shim, folder / "quota"
        self.mailbox = self.folder / "data/mailbox"

    def more(self):
        return {"LD_PRELOAD": self.shim, "QUOTA_FOLDER": self.mailbox.resolve(), "QUOTA_FILE": self.quota}

    def used(self):
        return sum(file.stat().st_size for file in self.mailbox.iterdir())

    def allow(self, bytes):
        draft = self.quota.with_suffix(".draft")
        draft.write_text(str(bytes))
        draft.rename(self.quota)


def test_a_quota_that_is_used_up(tmp_path, quota_shim):
    """As a full disk: messages are refused with an error that says so, those that wait are delivered in the reserve, and it
    goes on by itself when the quota is raised."""
    with UnderQuota(tmp_path, quota_shim) as server:
        me, friend = server.friends()
        reserve = server.mailbox / "mailbox.reserve"
        with server.listener(friend, 5, qos=2, **SESSION) as reader:
            reader.leave()
        with server.connect(me) as writer:
            for number in range(5):
                writer.deliver(friend.inbox, me.message(f"{number}"), qos=2)
            assert reserve.exists()
            server.allow(server.used() + 10_000)
            large = me.message("x" * 100_000)
            writer.publish(friend.inbox, large, 1, 1)
            assert writer.error() == REFUSED
            writer.await_reply(PUBACK, 1)
            assert not reserve.exists(), "it is for what has to be written now"
            # QoS 2 is written on the way to the receiver too.
            with server.listener(friend, 5, qos=2, **SESSION) as reader:
                for number in range(5):
                    reader.message(payload=me.message(f"{number}"))
            server.quota.unlink()
            deadline = time.monotonic() + 20
            while writer.deliver(friend.inbox, large) != 0:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert reserve.exists()
