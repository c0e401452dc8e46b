"""The friendship story as Debian's mosquitto_pub, mosquitto_sub and mosquitto_rr tell it.

They speak TCP and TLS; WebSocket they do not.
"""

import queue
import shutil
import subprocess
import threading

import pytest
from harness import error
from harness.raw import LOGOUT

PATIENCE = 30


@pytest.fixture(params=["tcp", "tls"])
def transport(request):
    return request.param


@pytest.fixture(params=["mqttv31", "mqttv311", "mqttv5"])
def version(request):
    return request.param


@pytest.fixture
def mosquitto(home, version, transport):
    """Starts a command as a user: mosquitto("sub", user, "-t", topic). Ends it after the test."""
    running = []

    def start(command, user, *arguments, device="phone", token=None, client_id=None, **options):
        program = shutil.which(f"mosquitto_{command}")
        assert program, f"mosquitto_{command} is missing: install Debian's mosquitto-clients"
        # A line at a time: into a pipe its debug lines would wait for a full buffer.
        line = ["stdbuf", "-oL", program, "-V", version, "-i", client_id or user.client_id(device)]
        line += ["-h", "localhost", "-u", user.id, "-P", token or user.token]
        if transport == "tls":
            line += ["-p", str(home.mqtts), "--cafile", str(home.certificate / "ca.pem")]
        else:
            line += ["-p", str(home.mqtt)]
        one = Command([*line, *arguments], **options)
        running.append(one)
        return one

    yield start
    for one in running:
        one.end()


class Command:
    """A running command; `lines` are what it has printed so far, debug lines included."""

    def __init__(self, line, stdin=None):
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip(b"\n"))
        self.lines.put(None)

    def write(self, line):
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def line(self):
        line = self.lines.get(timeout=PATIENCE)
        assert line is not None, f"ended with {self.process.wait()}"
        return line

    def until(self, words):
        seen = []
        while words not in (seen[-1] if seen else b""):
            seen.append(self.line())
        return seen[-1]

    def wait(self):
        """Its exit status, and what it printed that was not read yet."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        status = self.process.wait(PATIENCE)
        rest = []
        while (line := self.lines.get(timeout=PATIENCE)) is not None:
            rest.append(line)
        return status, rest

    def end(self):
        """By SIGKILL: at SIGTERM they disconnect in the signal's handler, and hang if it came amid a write."""
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


def listening(mosquitto, user, *arguments, device="phone"):
    """mosquitto_sub on the inbox, subscribed. Messages come as lines `topic payload`."""
    one = mosquitto("sub", user, "-d", "-q", "1", "-t", user.inbox, "-v", *arguments, device=device)
    one.until(b"SUBACK")
    return one


def message(one, topic, payload):
    """The next line that is a message, not debug output."""
    while (line := one.line()).startswith((b"Client ", b"Subscribed ")):
        pass
    assert line == topic.encode() + b" " + payload


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_friends(home, mosquitto, qos):
    alice, bob = home.friends()
    reader = listening(mosquitto, bob)
    for n in range(3):
        body = alice.message(f"{n} ü☃")
        writer = mosquitto("pub", alice, "-t", bob.inbox, "-q", qos, "-m", body)
        assert writer.wait() == (0, [])
        message(reader, bob.inbox, body)


def test_a_stranger_gets_the_error(home, mosquitto):
    """mosquitto_rr prints what comes on the device channel; the receiver gets nothing."""
    alice, bob = home.friends()
    stranger = home.user()
    reader = listening(mosquitto, bob)
    asking = mosquitto(
        "rr", stranger, "-q", "1", "-t", bob.inbox, "-m", stranger.message(),
        "-e", stranger.channel(),
    )  # fmt: skip
    status, lines = asking.wait()
    assert status == 0
    got = lines[-1]
    head, tail = error("friends", "not friends with the receiver", 0).rsplit(b"0", 1)
    assert got.startswith(head) and got.endswith(tail)
    assert got[len(head) : -len(tail)].isdigit()
    assert mosquitto("pub", alice, "-t", bob.inbox, "-q", "1", "-m", alice.message()).wait()[0] == 0
    message(reader, bob.inbox, alice.message())


def test_a_stranger_stays_connected(home, mosquitto):
    """One connection, three lines: refused, and delivered once the two are friends."""
    bob, stranger = home.users(2)
    reader = listening(mosquitto, bob)
    writer = mosquitto("pub", stranger, "-d", "-t", bob.inbox, "-q", "1", "-l")
    for n in range(2):
        writer.write(stranger.message(n))
        writer.until(b"received PUBACK")
    home.directory.befriend(stranger, bob)
    writer.write(stranger.message("now"))
    writer.until(b"received PUBACK")
    assert writer.wait()[0] == 0
    message(reader, bob.inbox, stranger.message("now"))


def test_a_block_takes_effect(home, mosquitto):
    alice, bob = home.friends()
    reader = listening(mosquitto, bob)
    writer = mosquitto("pub", alice, "-d", "-t", bob.inbox, "-q", "2", "-l")
    for n in range(3):
        if n == 1:
            home.directory.block(bob, alice)
        if n == 2:
            home.directory.unblock(bob, alice)
        writer.write(alice.message(n))
        writer.until(b"received PUBREC")
    assert writer.wait()[0] == 0
    message(reader, bob.inbox, alice.message(0))
    message(reader, bob.inbox, alice.message(2))


def test_the_second_phone_logs_the_first_one_out(home, mosquitto):
    """The first prints the logout; since it then tries again, it is told to stop at one message."""
    alice = home.user()
    first = listening(mosquitto, alice, "-t", alice.channel(), "-C", "1")
    second = listening(mosquitto, alice, device="new")
    message(first, alice.channel(), LOGOUT)
    assert first.wait()[0] == 0
    bob = home.user()
    home.directory.befriend(alice, bob)
    mosquitto("pub", bob, "-t", alice.inbox, "-q", "1", "-m", bob.message())
    message(second, alice.inbox, bob.message())


def test_the_will_topic_of_deployed_apps(home, mosquitto):
    alice, bob = home.friends()
    reader = listening(mosquitto, bob, "--will-topic", "willtopic", "--will-payload", "gone")
    mosquitto("pub", alice, "-t", bob.inbox, "-q", "1", "-m", alice.message())
    message(reader, bob.inbox, alice.message())


@pytest.mark.parametrize("case", ["wrong token", "foreign client id"])
def test_who_is_not_let_in(home, mosquitto, version, case):
    """The program's exit status is CONNACK's code in 3.1.1; in 5.0 the reason is printed."""
    alice, bob = home.users(2)
    options = {"token": "wrong"} if case == "wrong token" else {"client_id": bob.client_id()}
    one = mosquitto("pub", alice, "-t", alice.inbox, "-m", alice.message(), **options)
    status, lines = one.wait()
    printed = b"\n".join(lines)
    if version == "mqttv5":
        assert status == (0x87 if case == "wrong token" else 0x85), printed
    else:
        assert status == (5 if case == "wrong token" else 4), printed


def test_an_inbox_of_another_cannot_be_read(home, mosquitto, version):
    alice, bob = home.friends()
    one = mosquitto("sub", alice, "-d", "-t", bob.inbox, "-t", "#")
    subscribed = one.until(b"Subscribed").rsplit(b":", 1)[1]
    codes = [int(code) for code in subscribed.split(b",")]
    assert codes == ([0x87, 0xA2] if version == "mqttv5" else [128, 128])
    status, lines = one.wait()
    assert status == 0 and b"All subscription requests were denied." in lines


def test_a_picture(home, mosquitto, tmp_path):
    alice, bob = home.friends()
    reader = listening(mosquitto, bob)
    body = alice.message([n % 256 for n in range(300_000)])
    (tmp_path / "picture").write_bytes(body)
    one = mosquitto("pub", alice, "-t", bob.inbox, "-q", "1", "-f", str(tmp_path / "picture"))
    assert one.wait()[0] == 0
    message(reader, bob.inbox, body)
