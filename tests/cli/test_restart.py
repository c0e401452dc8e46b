"""Started by a service manager that holds the listening sockets, as systemd does with a socket unit."""

import socket
import subprocess
import sys
import threading
import time

import pytest
from harness import Client, Server, packets, streams
from harness.packets import CONNACK, PUBACK
from harness.process import BINARY, environment
from harness.raw import Closed

# What systemd does between fork and exec: the sockets are 3, 4, ..., and the variables say so.
PASS_ON = """
import os, sys
names, count = sys.argv[1], int(sys.argv[2])
held = [os.dup(int(fd)) for fd in sys.argv[3 : 3 + count]]
high = [os.dup2(fd, 100 + number) for number, fd in enumerate(held)]
for number, fd in enumerate(high):
    os.dup2(fd, 3 + number, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.argv[3 + count], sys.argv[3 + count :])
"""


def pass_on(names, sockets):
    """What a command line begins with."""
    fds = [str(one.fileno()) for one in sockets]
    return [sys.executable, "-c", PASS_ON, names, str(len(fds)), *fds]


class Activated(Server):
    """On sockets that are held here: `{"mqtt": socket, ...}`."""

    def __init__(self, folder, sockets, **more):
        super().__init__(folder, **more)
        self.sockets = sockets

    def dial_held(self):
        """Also while there is no process."""
        return Client(streams.Tcp(self.sockets["mqtt"].getsockname()), 4)

    def passed(self):
        return [one.fileno() for one in self.sockets.values()]

    def within(self):
        return pass_on(":".join(self.sockets), self.sockets.values())


def listen(address="127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, 0), family=family, backlog=4096, dualstack_ipv6=":" in address)


def serve_on(sockets, names, settings, *arguments):
    """A start that must fail: exit status and the last line."""
    command = [*pass_on(names, sockets), BINARY, "serve", "--http", "", "--admin", "", *arguments]
    done = subprocess.run(
        list(map(str, command)),
        env=environment(settings),
        pass_fds=[one.fileno() for one in sockets],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stderr.splitlines()[-1]


def test_sockets_that_cannot_be_served_stop_the_start(tmp_path):
    data = {"data": tmp_path / "data", "listen.mqtt": "127.0.0.1:0"}
    one, other = listen(), listen()
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "socket"))
    local.listen()
    for sockets, names, why in [
        ([one], "mqtts", "needs tls.cert"),
        ([one, other], "mqtt:mqtt", "two sockets for mqtt"),
        ([one], "jam-mqtt.socket", "no setting has that address"),
        ([one], "", "no setting has that address"),
        ([bound], "mqtt", "does not listen"),
        ([datagrams], "mqtt", "cannot be served"),
        ([local], "mqtt", "cannot be served"),
    ]:
        status, line = serve_on(sockets, names, data)
        assert status == 78 and why in line, (names, why, line)
    assert not (tmp_path / "data/mailbox").exists()


@pytest.mark.parametrize("address", ["127.0.0.1", "::"])
def test_what_is_passed_on_is_served_and_the_rest_is_bound(tmp_path, address):
    """Sockets come before settings; one without a name goes by its port."""
    mqtt, admin = listen(address), listen()
    own = mqtt.getsockname()[1]
    server = Activated(tmp_path, {"jam-mqtt.socket": mqtt, "admin": admin})
    server.listen_mqtt = f"0.0.0.0:{own}"
    with server:
        assert (server.mqtt, f"127.0.0.1:{admin.getsockname()[1]}") == (own, server_admin(server))
        assert server.http not in (own, None)
        me = server.user()
        with server.connect(me) as client:
            client.ping()


def server_admin(server):
    """Where the log says that the admin address is served."""
    return server.log().split('"serving admin","address":"')[1].split('"')[0]


class Party(threading.Thread):
    """Comes again at once whenever the server goes. Its connections may be ended, and are never refused."""

    def __init__(self, server, me, going, **login):
        super().__init__()
        self.server, self.me, self.going, self.login = server, me, going, login
        self.trouble, self.connections, self.daemon = None, 0, True

    def run(self):
        try:
            while self.going.is_set():
                client = self.server.dial_held()  # must succeed
                try:
                    self.log_in(client)
                    self.connections += 1
                    self.talk(client)
                except (Closed, BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    client.stream.close()
        except BaseException as error:
            self.trouble = error
            raise

    def log_in(self, client):
        me = self.me
        client.user, client.client_id = me, me.client_id()
        login = {"user": me.id, "password": me.token} | self.login
        client.send(packets.connect(client.client_id, version=4, **login))
        assert client.expect(CONNACK).reason == 0

    def talk(self, client):
        """A newcomer leaves at once."""


class Sender(Party):
    def __init__(self, server, me, friend, going):
        super().__init__(server, me, going)
        self.friend, self.number, self.acknowledged = friend, 0, []

    def talk(self, client):
        while self.going.is_set():
            payload = self.me.message(f"number {self.number}")
            client.await_reply(PUBACK, client.publish(self.friend.inbox, payload, 1))
            assert not client.backlog, client.backlog[0]
            self.acknowledged.append(payload)
            self.number += 1
            time.sleep(0.005)  # the receiver is no faster


class Receiver(Party):
    def __init__(self, server, me, going):
        super().__init__(server, me, going, clean=False)
        self.got = set()

    def talk(self, client):
        if self.connections == 1:
            client.subscribe(self.me.inbox)
        while self.going.is_set():
            try:
                self.got.add(client.message(timeout=0.2).payload)
            except TimeoutError:
                pass


def test_a_restart_under_load_refuses_no_connection_and_loses_nothing(tmp_path):
    server = Activated(tmp_path, {"mqtt": listen(), "http": listen()}, threads=2)
    sending, receiving = threading.Event(), threading.Event()
    sending.set()
    receiving.set()
    with server:
        pairs = [server.friends() for _ in range(6)]
        receivers = [Receiver(server, friend, receiving) for _, friend in pairs]
        senders = [Sender(server, me, friend, sending) for me, friend in pairs]
        newcomers = [Party(server, server.user(), sending) for _ in range(2)]
        for party in receivers:
            party.start()
        while not all(party.connections for party in receivers):
            time.sleep(0.01)
        time.sleep(0.5)  # subscribed
        for party in senders + newcomers:
            party.start()
        for _ in range(3):
            before = [party.connections for party in senders]
            time.sleep(1)
            server.stop()
            time.sleep(0.3)  # as long as nobody serves, the kernel does
            server.start()
            deadline = time.monotonic() + 30
            while any(now.connections == then for now, then in zip(senders, before)):
                assert time.monotonic() < deadline and not any(party.trouble for party in senders)
                time.sleep(0.05)
        time.sleep(1)
        sending.clear()
        for party in senders + newcomers:
            party.join(60)
        deadline = time.monotonic() + 30
        for sender, receiver in zip(senders, receivers):
            assert len(sender.acknowledged) > 10
            while missing := set(sender.acknowledged) - receiver.got:
                assert time.monotonic() < deadline, f"{len(missing)} acknowledged messages were lost"
                time.sleep(0.05)
        receiving.clear()
        for party in receivers:
            party.join(60)
        for party in senders + newcomers + receivers:
            assert party.trouble is None and not party.is_alive()
        assert all(party.connections > 10 for party in newcomers)
