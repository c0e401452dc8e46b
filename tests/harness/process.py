"""The release binary as a process: started on free ports, stopped, killed, its log kept."""

import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from . import packets, streams
from .directory import Directory
from .raw import Client

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("JAM_MQTT_BIN") or ROOT / "target/release/jam-mqtt")
CERTIFICATE = Path(__file__).parent / "certificate"
ANY_PORT = "127.0.0.1:0"
START_SECONDS = 90
STOP_SECONDS = 12


def environment(settings):
    """`{"limits.failed_auth": 3}` as JAM_MQTT_LIMITS__FAILED_AUTH=3, and nothing inherited."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    for name, value in settings.items():
        kept["JAM_MQTT_" + name.upper().replace(".", "__")] = str(value)
    return kept


def run_cli(*arguments, settings=None, stdin=None, timeout=30, cwd=None, env=None):
    """One command of the binary to its end: returncode, stdout, stderr."""
    if arguments[:1] == ("check",):
        # Whether the usual addresses are free is the machine's business.
        settings = {"listen.mqtt": ANY_PORT, "listen.http": ANY_PORT, "listen.admin": ANY_PORT} | (settings or {})
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        env=environment(settings or {}) | (env or {}),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
    )


def in_postgres(*others):
    """A jam database in PostgreSQL, with the tables that the command makes; `others`: settings of what else is to be there."""
    from .postgres import PostgresDirectory  # only the tests that need it need PostgreSQL

    def make(url):
        made = run_cli("cluster", "init", "--directory", url, settings={name: url for name in others})
        assert made.returncode == 0, made.stderr

    return PostgresDirectory(make)


def new_stores(folder):
    """What a server runs on that no test has chosen: the accounts, and settings of the mailbox. JAM_TEST_STORES=postgres has
    both of all of these in PostgreSQL.
    """
    if os.environ.get("JAM_TEST_STORES") == "postgres":
        directory = in_postgres("mailbox.url")
        return directory, {"mailbox.url": directory.url}
    return Directory(folder / "directory.db"), {}


def ports(log):
    """{"mqtt": 1883, ...}: where a server listens that was told port 0, as it logged."""
    said = re.findall(r'"serving (\w+)","address":"[^"]*:(\d+)"', log)
    return {name: int(port) for name, port in said}


class Server:
    """`certificate` is a directory made by `harness/certificate`: with it, mqtts and wss are on.

    Machines differ in how many threads they would serve with: unless told, it is one and several in turn, and
    connections begin on each in turn. The log says how many; JAM_TEST_THREADS makes it always so many.
    `admin`: with the admin address.
    """

    THREADS = itertools.cycle((1, 3))
    # Tests fail to log in on purpose, from one address, and publish as fast as they can: the rules for that have
    # tests and servers of their own.
    DEFAULTS = {"limits.failed_auth": 1_000_000, "limits.publish_rate": 0}

    def __init__(self, folder, certificate=None, settings=None, arguments=(), directory=None, threads=None, admin=False):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate = certificate
        self.directory, stores = (directory, {}) if directory else new_stores(self.folder)
        self.settings = self.DEFAULTS | stores | (settings or {})
        if certificate:
            self.settings |= {
                "tls.cert": certificate / "server.pem",
                "tls.key": certificate / "server.key",
            }
        self.arguments = list(arguments)
        self.threads = threads
        self.serves_admin = admin
        self.listen_mqtt = ANY_PORT
        self.log_path = self.folder / "server.log"
        self.process = None

    def launch(self):
        """Starts the process and waits for nothing. Where its log begins."""
        command = [BINARY, "serve", "--data", self.folder / "data"]
        command += ["--mqtt", self.listen_mqtt, "--mqtts", ANY_PORT if self.certificate else ""]
        command += ["--http", ANY_PORT, "--admin", ANY_PORT if self.serves_admin else "", "--directory", self.directory.url]
        threads = self.threads or os.environ.get("JAM_TEST_THREADS") or next(self.THREADS)
        before = len(self.log()) if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.within(), *map(str, command), *self.arguments],
                env=environment({"listen.threads": threads, "listen.fill_percent": 0} | self.settings) | self.more(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.passed(),
            )
        return before

    def start(self):
        before = self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = ports(self.log()[before:])
            names = ("mqtt", "mqtts", "https" if self.certificate else "http")
            self.mqtt, self.mqtts, self.http = map(found.get, names)
            self.admin = found.get("admin")
            if self.http and self._ready():
                return self
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not start:\n{self.log()[-4000:]}")

    def more(self):
        """What else stands in the environment."""
        return {}

    def passed(self):
        """Descriptors that the process inherits."""
        return ()

    def within(self):
        """What the command line begins with."""
        return []

    def _ready(self):
        ca = self.certificate and self.certificate / "ca.pem"
        try:
            stream = streams.Tcp(("127.0.0.1", self.http), tls_ca=ca)
            stream.send(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = stream.receive(5)
            stream.close()
        except OSError:
            return False
        return b" 200 " in status.split(b"\r\n")[0]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        """SIGTERM: must drain and end with status 0. Also fails when it had ended before."""
        assert self.process.poll() is None, f"the server ended by itself:\n{self.log()[-4000:]}"
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end it in {STOP_SECONDS} s") from None
        assert status == 0, f"exit status {status}:\n{self.log()[-4000:]}"
        assert "panicked" not in self.log(), self.log()[-4000:]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        elif self.process.poll() is None:
            self.kill()

    # The directory's makers, since nearly every test begins with them.

    def user(self, **options):
        return self.directory.user(**options)

    def users(self, count):
        return self.directory.users(count)

    def friends(self):
        return self.directory.friends()

    def open(self, transport="tcp", source=None):
        """A stream to the listener that serves this transport."""
        ca = self.certificate and self.certificate / "ca.pem"
        match transport:
            case "tcp":
                return streams.Tcp(("127.0.0.1", self.mqtt), source)
            case "tls":
                return streams.Tcp(("127.0.0.1", self.mqtts), source, tls_ca=ca)
            case "ws" | "wss":
                return streams.WebSocket(
                    ("127.0.0.1", self.http), source, tls_ca=ca if transport == "wss" else None
                )
        raise ValueError(transport)

    def dial(self, version=4, transport="tcp", source=None):
        """A client that has not sent anything yet."""
        return Client(self.open(transport, source), version)

    def attempt(self, owner, /, version=4, device="phone", source=None, transport="tcp", **options):
        """Sends CONNECT; returns the client and the CONNACK, whatever it says."""
        client = self.dial(version, transport, source)
        client.user = owner
        client.client_id = options.pop("client_id", owner.client_id(device))
        login = {"user": owner.id, "password": owner.token} | options
        client.send(packets.connect(client.client_id, version=version, **login))
        return client, client.expect(packets.CONNACK)

    def connect(self, owner, /, version=4, **options):
        """A client that is in. Its CONNACK is in `connack`."""
        client, client.connack = self.attempt(owner, version, **options)
        assert client.connack.reason == 0, f"not let in: {client.connack}"
        return client

    def listener(self, user, version=4, qos=1, **options):
        """A client that is in and subscribed to its inbox."""
        client = self.connect(user, version, **options)
        client.subscribe(user.inbox, qos=qos)
        return client
