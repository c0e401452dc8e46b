"""What a service manager is told (sd_notify), and that the watchdog hears only of work that was proved."""

import signal
import socket
import time

import pytest
from harness import Directory, Server
from harness.process import ports
from harness.streams import Tcp

CONNECTIONS = "a thread that serves connections hangs"

WITHIN = 2.0  # of the watchdog: half of it between two pings


class Notified(Server):
    """With a socket for what it says. `hang_accept` and `hang_reads` are files as the shim wants them."""

    def __init__(self, folder, shim=None, watchdog=WITHIN, abstract=False, **more):
        super().__init__(folder, directory=Directory(folder / "jam.db", "delete"), **more)
        self.name = f"{folder}/notify"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind("\0" + self.name if abstract else self.name)
        self.abstract, self.watchdog, self.shim = abstract, watchdog, shim
        self.hang_reads, self.hang_accept = folder / "hang-reads", folder / "hang-accept"

    def more(self):
        said = {"NOTIFY_SOCKET": "@" * self.abstract + self.name}
        if self.watchdog:
            said["WATCHDOG_USEC"] = str(int(self.watchdog * 1e6))
        if self.shim:
            said |= {"LD_PRELOAD": self.shim, "HANG_READS": "jam.db"}
            said |= {"HANG_FLAG": self.hang_reads, "HANG_ACCEPT": self.hang_accept}
        return said

    def told(self, timeout):
        """The next message as a dictionary; None when there is none in time."""
        self.manager.settimeout(max(timeout, 0.001))
        try:
            lines = self.manager.recv(4096).decode().splitlines()
        except TimeoutError:
            return None
        return dict(line.split("=", 1) for line in lines)

    def until(self, *names, timeout=20):
        """What is told until all of these were, in this order."""
        deadline, messages = time.monotonic() + timeout, []
        for name in names:
            while True:
                message = self.told(deadline - time.monotonic())
                assert message is not None, f"{name} was not told: {messages}"
                messages.append(message)
                if name in message:
                    break
        return messages

    def drain(self):
        while self.told(0.001):
            pass

    def pings(self, seconds):
        """When pings came in that time."""
        began, came = time.monotonic(), []
        while (left := began + seconds - time.monotonic()) > 0:
            if "WATCHDOG" in (self.told(left) or ()):
                came.append(time.monotonic() - began)
        return came

    def until_quiet(self):
        """No ping for as long as the watchdog waits: it would fire."""
        deadline = time.monotonic() + 20
        while self.pings(WITHIN * 1.1):
            assert time.monotonic() < deadline, "pings go on"


def test_a_process_that_stands_still_pings_no_more(tmp_path):
    with Notified(tmp_path) as server:
        server.drain()
        came = server.pings(4 * WITHIN)
        assert len(came) >= 6
        server.process.send_signal(signal.SIGSTOP)
        server.until_quiet()
        server.process.send_signal(signal.SIGCONT)
        server.until("WATCHDOG")


def test_a_main_thread_that_hangs_pings_no_more(tmp_path, shim):
    """It hangs where it accepts."""
    with Notified(tmp_path, shim) as server:
        server.until("WATCHDOG")
        server.hang_accept.touch()
        newcomer = Tcp(("127.0.0.1", server.mqtt))
        server.until_quiet()
        server.hang_accept.unlink()
        server.until("WATCHDOG")
        newcomer.close()


def test_a_disk_that_does_not_answer_is_waited_for(tmp_path, shim):
    """To be started again would end who is served by other threads, and mend no disk."""
    with Notified(tmp_path, shim, threads=2) as server:
        me, friend = server.friends()
        writer, other = server.connect(me), server.connect(server.user())
        server.drain()
        server.hang_reads.write_text("connections")
        writer.publish(friend.inbox, me.message(), 1)  # the friendship has to be read
        while CONNECTIONS not in (server.until("STATUS")[-1]["STATUS"]):
            pass
        assert len(server.pings(3 * WITHIN)) >= 3
        other.ping()
        server.hang_reads.unlink()
        writer.receive()
        for client in (writer, other):
            client.close()


def test_a_start_that_hangs_asks_for_no_more_time(tmp_path, shim):
    server = Notified(tmp_path, shim)
    server.start()
    server.stop()
    server.drain()
    server.hang_reads.write_text("")
    server.launch()
    began = time.monotonic()
    said = []
    while time.monotonic() < began + 12:
        said.append(server.told(1) or {})
    assert {"STATUS": "opening the accounts database and the mailbox"} in said
    assert not any("EXTEND_TIMEOUT_USEC" in message or "READY" in message for message in said)
    server.stop()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_it_is_ready_when_it_serves_and_says_what_it_does(tmp_path, abstract):
    server = Notified(tmp_path, abstract=abstract)
    server.launch()
    ready = server.until("READY")
    assert sum("READY" in message for message in ready) == 1
    assert not any("WATCHDOG" in message for message in ready)
    while not (port := ports(server.log()).get("mqtt")):  # the log takes its time
        time.sleep(0.01)
    server.mqtt = port
    with server.connect(server.user()) as client:
        client.ping()
        while server.until("STATUS")[-1]["STATUS"] != "ready, 1 connections":
            pass
        server.process.send_signal(signal.SIGHUP)
        reloading = server.until("RELOADING", "READY")
        usec = next(int(message["MONOTONIC_USEC"]) for message in reloading if "RELOADING" in message)
        assert abs(usec / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 10
        server.drain()
        client.close()
    server.stop()
    last = server.until("STOPPING")[-1]
    assert last["STATUS"].startswith("stopping")


def test_without_a_watchdog_nothing_has_to_be_proved(tmp_path):
    with Notified(tmp_path, watchdog=None) as server:
        server.until("READY", "STATUS")
        assert server.pings(2) == []


@pytest.mark.parametrize("kind", ["does not read", "is gone"])
def test_a_manager_that_does_not_listen_holds_nothing_up(tmp_path, kind):
    server = Notified(tmp_path, watchdog=0.2)
    if kind == "is gone":
        server.manager.close()
    with server:
        if kind == "does not read":
            # Its queue holds some ten messages.
            time.sleep(5)
        with server.connect(server.user()) as client:
            client.ping()
        assert "the service manager cannot be notified" in server.log()
        assert server.log().count("the service manager cannot be notified") == 1
        began = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        server.stop()
        assert time.monotonic() - began < 10
        server.start()


def test_what_is_no_socket_is_said(tmp_path):
    server = Notified(tmp_path)
    server.name = "x" * 200
    with server:
        assert "NOTIFY_SOCKET names no socket" in server.log()
