"""docs/logs.md: a line may be lost, and nothing else."""

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from socket import create_connection, socket

import pytest
from harness import Directory, Server, readiness, run_cli
from harness.office import scrape
from harness.process import BINARY, STOP_SECONDS, environment

PIPE_BYTES = 4096


class Unread:
    """A pipe whose reader can be slow, gone, or come back."""

    def __init__(self):
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def read(self, seconds):
        """All that comes until nothing has come for so long."""
        os.set_blocking(self.read_end, False)
        text, last = b"", time.monotonic()
        while time.monotonic() - last < seconds:
            try:
                some = os.read(self.read_end, 65536)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            if not some:
                break
            text, last = text + some, time.monotonic()
        return text.decode()

    def close(self):
        for end in (self.read_end, self.write_end):
            if end is not None:
                os.close(end)
        self.read_end = self.write_end = None


class LoggingTo(Server):
    """A server whose standard error is something else; its ports are known beforehand."""

    def __init__(self, folder, stderr, settings=None, **options):
        super().__init__(folder, settings=settings, **options)
        self.stderr = stderr

    def start(self):
        with socket() as one, socket() as two, socket() as three:
            for free in (one, two, three):
                free.bind(("127.0.0.1", 0))
            self.mqtt, self.http, self.admin = (free.getsockname()[1] for free in (one, two, three))
        self.folder.mkdir(exist_ok=True)
        command = [BINARY, "serve", "--data", self.folder / "data", "--mqtt", f"127.0.0.1:{self.mqtt}"]
        command += ["--http", f"127.0.0.1:{self.http}", "--admin", f"127.0.0.1:{self.admin}"]
        command += ["--directory", f"sqlite:{self.directory.path}"]
        self.process = subprocess.Popen(
            [*map(str, command), *self.arguments],
            env=environment(self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                create_connection(("127.0.0.1", self.mqtt), 1).close()
                if self._ready():
                    return self
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise AssertionError("the server did not start")

    def log(self):
        return ""


@pytest.fixture
def pipe():
    made = Unread()
    yield made
    made.close()


@pytest.fixture
def logging_to(tmp_path):
    running = []

    def begin(stderr, **options):
        # Not in WAL mode: a file that is replaced is all of it.
        directory = Directory(tmp_path / "directory.db", "delete")
        running.append(LoggingTo(tmp_path / "server", stderr, directory=directory, **options).start())
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.kill()


def serves(server, sender, receiver):
    alice, bob = server.connect(sender), server.listener(receiver)
    assert alice.deliver(receiver.inbox, sender.message()) == 0
    bob.message()
    for client in (alice, bob):
        client.leave()


def lost_lines(server):
    lines = scrape(server).splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("jam_log_lines_lost_total "))


def replace_directory(server):
    """Makes the server log a line."""
    new = server.directory.path.with_suffix(".new")
    shutil.copy(server.directory.path, new)
    new.rename(server.directory.path)


def test_the_reader_goes_away(logging_to, pipe):
    server = logging_to(pipe.write_end)
    os.close(pipe.read_end)
    os.close(pipe.write_end)
    pipe.read_end = pipe.write_end = None
    sender, receiver = server.friends()
    serves(server, sender, receiver)
    replace_directory(server)
    time.sleep(1)
    serves(server, sender, receiver)
    server.stop()


def test_the_device_is_full(logging_to):
    with open("/dev/full", "w") as full:
        server = logging_to(full)
        sender, receiver = server.friends()
        before = lost_lines(server)
        assert before > 0
        replace_directory(server)
        readiness.until("it is counted", lambda: lost_lines(server) > before, patience=10)
        serves(server, sender, receiver)
        server.stop()


def test_the_file_may_not_grow(logging_to, tmp_path):
    """`ulimit -f`: the kernel sends a signal then, which ends a program that does not expect it."""
    limit = 200 << 20  # of no other file
    with open(tmp_path / "log", "wb") as log:
        server = logging_to(log)
        sender, receiver = server.friends()
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        log.truncate(limit)
        log.seek(limit)
        replace_directory(server)
        time.sleep(1)
        serves(server, sender, receiver)
        server.stop()


def test_the_reader_stalls_and_comes_back(logging_to, pipe):
    """At trace level everything that happens makes lines; a pipe takes few of them."""
    server = logging_to(pipe.write_end, settings={"log": "trace"})
    sender, receiver = server.friends()
    alice, bob = server.connect(sender), server.listener(receiver)
    for n in range(20):
        assert alice.deliver(receiver.inbox, sender.message(str(n))) == 0
        bob.message()
        replace_directory(server)
        time.sleep(0.3)
    assert server._ready()
    # What changes is seen, though nobody reads what is said of it.
    server.directory.set_token(sender, "another")
    alice.closed(timeout=3)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(STOP_SECONDS) == 0
    assert time.monotonic() - began < 10
    os.close(pipe.write_end)
    pipe.write_end = None
    for line in pipe.read(0.5).splitlines()[:-1]:
        json.loads(line)


def test_closed_from_the_beginning(tmp_path):
    """The first file that is opened must not become standard error."""
    server = Server(tmp_path)
    data = tmp_path / "data"
    command = f"exec '{BINARY}' serve --data '{data}' --mqtt 127.0.0.1:0 --http '' --admin '' 0<&- 1>&- 2>&-"
    process = subprocess.Popen(["sh", "-c", command], env=environment(server.settings))
    try:
        deadline = time.monotonic() + 30
        while not (data / "mailbox" / "mailbox.db").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        assert process.poll() is None
        for number in (0, 1, 2):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0
    for file in data.rglob("*"):
        assert not file.is_file() or b"jam_mqtt" not in file.read_bytes()


def test_why_it_does_not_start_comes_last(tmp_path):
    (tmp_path / "jam.db").write_text("no database at all")
    done = run_cli("serve", "--data", tmp_path, "--mqtt", "127.0.0.1:0", "--http", "", "--admin", "")
    assert done.returncode == 69  # EX_UNAVAILABLE
    *before, last = done.stderr.splitlines()
    assert before and all(json.loads(line) for line in before)
    assert last.startswith("jam-mqtt: ")


@pytest.mark.parametrize("command", [["user", "list"], ["--help"], ["completions", "bash"]])
def test_nobody_reads_the_results(tmp_path, command):
    """As in `jam-mqtt user list | head -1`."""
    jam = ["--data", str(tmp_path)]
    run_cli("user", "add", "1", *jam)
    reads, writes = os.pipe()
    os.close(reads)
    arguments = command + (jam if command == ["user", "list"] else [])
    done = subprocess.run([BINARY, *arguments], stdout=writes, stderr=subprocess.PIPE, env=environment({}), timeout=30)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", [["user", "list"], ["--help"], ["completions", "bash"]])
def test_results_on_a_full_disk(tmp_path, command):
    jam = ["--data", str(tmp_path)]
    run_cli("user", "add", "1", *jam)
    arguments = command + (jam if command == ["user", "list"] else [])
    with open("/dev/full", "w") as full:
        done = subprocess.run([BINARY, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment({}), timeout=30)
    assert done.returncode == 1
    assert b"cannot print" in done.stderr


@pytest.mark.parametrize("wrong", [["nonsense"], ["user", "show", "1"]])
def test_nobody_reads_the_errors(tmp_path, wrong):
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([BINARY, *wrong], stderr=writes, cwd=tmp_path, env=environment({}), timeout=30)
    os.close(writes)
    assert done.returncode in (1, 2)
