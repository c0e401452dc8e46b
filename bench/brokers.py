"""The brokers that bench/run compares: how each is installed, set up and started.

Each gets a password for every user and rules about who may write where, as far as it has them; what
each has is said in `rules` and stands in the results. Nothing listens but on loopback.
"""

import base64
import hmac
import json
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
RIVALS = TARGET / "rivals"
HEADERS = Path("/usr/include")

EVERYTHING = ("saturated", "sparse", "offline", "idle", "reconnect")
START_SECONDS = 30
STOP_SECONDS = 15


# What else the machine does shall wait: a broker that waits for its core handles more at once, and
# looks cheaper than it is.
PRIORITY = -15


def first():
    """A command prefix that gives priority, where that is allowed."""
    return ["nice", "-n", str(PRIORITY)] if os.geteuid() == 0 else []


class Missing(Exception):
    """A broker cannot be had, or does not start."""


class Running:
    """A started broker; leaving the context stops it. `users` is a file of them, if their tokens are special; `database` is its own."""

    def __init__(self, command, port, core, cwd, environment, users=None, database=None):
        self.port = port
        self.users = users
        self.database = database
        self.log = (cwd / "log").open("wb+")
        self.process = subprocess.Popen(
            [*first(), "taskset", "-c", core, *map(str, command)],
            cwd=cwd, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        self.pid = self.process.pid  # nice and taskset become what they start

    def __enter__(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                time.sleep(0.3)
                return self
            except OSError:
                time.sleep(0.05)
        said = self.end()
        raise Missing(f"it does not start: {said}")

    def __exit__(self, *_):
        self.end()

    def end(self):
        """Stops it. Returns the last that it said."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.database:
            self.database.end()
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").strip().splitlines()
        self.log.close()
        return said[-1] if said else "it says nothing"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install_packages(needs, offline):
    """Debian's packages, each for a program or a header that is not there."""
    missing = [package for need, package in needs.items() if not (find_program(need) or (HEADERS / need).exists())]
    if not missing:
        return
    if offline:
        raise Missing(f"it needs {', '.join(missing)}, and --no-install was given")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "apt-get", "update", "-q"], check=True)
    # A service that starts by itself would be in the way of the measurement.
    subprocess.run([*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-qy",
                    "--no-install-recommends", *missing], check=True)


def find_program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def install_crate(name, version, offline, locked=True, needs=None):
    """A crate's binary below the target directory; returns its path. `needs` is what its build takes."""
    binary = RIVALS / "bin" / name
    stamp = RIVALS / f"{name}-{version}"
    if binary.exists() and stamp.exists():
        return binary
    if offline:
        raise Missing(f"{name} {version} is not installed, and --no-install was given")
    install_packages(needs or {}, offline)
    done = subprocess.run(
        ["cargo", "install", *(["--locked"] if locked else []), "--root", RIVALS, "--target-dir", RIVALS / "build",
         name, "--version", version],
        check=False,
    )
    if done.returncode != 0:
        raise Missing(f"cargo install {name} --version {version} failed with status {done.returncode}")
    shutil.rmtree(RIVALS / "build", ignore_errors=True)
    stamp.touch()
    return binary


class Floor:
    """Only moves the bytes between the same sockets."""

    name = "floor"
    version = ""
    rules = "none; keeps nothing"
    does = ("saturated", "sparse", "idle", "reconnect")

    def install(self, offline):
        flags = ["--offline"] if offline else []
        subprocess.run(["cargo", "build", "--release", "--locked", *flags, "--manifest-path",
                        ROOT / "bench/floor/Cargo.toml", "--target-dir", TARGET / "floor"], check=True)

    def start(self, data, _pairs, core):
        port = free_port()
        binary = TARGET / "floor" / "release" / "jam-bench-floor"
        return Running([binary, f"127.0.0.1:{port}"], port, core, data, {})


class Jam:
    """This server, with every rule and promise of PROTOCOL.md; only the rate limit is off."""

    name = "jam-mqtt"
    version = ""
    rules = "tokens, friendships, sender's identity, acknowledged means kept"
    does = EVERYTHING
    limits = {"JAM_MQTT_LIMITS__PUBLISH_RATE": "0", "JAM_MQTT_LIMITS__CONNECTIONS_PER_ADDRESS": "100000"}

    def __init__(self, binaries=TARGET / "release"):
        self.binaries = binaries

    def install(self, offline):
        """It is built with the generator."""

    def start(self, data, pairs, core):
        subprocess.run([self.binaries / "jam-bench", "prepare", "--directory", f"sqlite:{data / 'jam.db'}", "--pairs", str(pairs)],
                       check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        command = [self.binaries / "jam-mqtt", "serve", "--data", data, "--mqtt", f"127.0.0.1:{port}", "--http", "", "--admin", "",
                   "--no-notification"]
        return Running(command, port, core, data, self.limits)


class JamPostgres(Jam):
    """The same on accounts and a mailbox in a PostgreSQL beside it, on no core of its own. Wants `./scripts/test install`."""

    name = "jam-mqtt-postgres"
    rules = "as jam-mqtt; accounts and mailbox in PostgreSQL, fsync and synchronous_commit on"
    does = ("saturated", "sparse", "offline")

    def install(self, offline):
        for packages in (TARGET / "venv/lib").glob("python*/site-packages"):
            site.addsitedir(packages)
        sys.path.insert(0, str(ROOT / "tests"))
        try:
            from harness.postgres import PostgresServer
        except ImportError as error:
            raise Missing(f"{error}: run ./scripts/test install") from error
        self.server = PostgresServer
        self.version = "PostgreSQL " + Database(self.server()).end().version

    def start(self, data, pairs, core):
        with super().start(data, pairs, core):
            pass  # which makes a mailbox, for `copy`
        database = Database(self.server())
        database.fill_from(self.binaries / "jam-mqtt", data)
        port = free_port()
        command = [self.binaries / "jam-mqtt", "serve", "--data", data / "served", "--mqtt", f"127.0.0.1:{port}", "--http", "",
                   "--admin", "", "--no-notification"]
        return Running(command, port, core, data, self.limits | database.settings, database=database)


class Database:
    """An empty database of a PostgreSQL that is there for it alone."""

    def __init__(self, server):
        self.server = server
        with server.connect("postgres") as db:
            db.execute("CREATE DATABASE jam")
        self.url = server.url("jam")
        self.settings = {"JAM_MQTT_DIRECTORY__URL": self.url, "JAM_MQTT_MAILBOX__URL": self.url}
        self.db = server.connect("jam")
        self.version = self.db.info.parameter_status("server_version").split()[0]
        self.postmaster = server.pid()

    def fill_from(self, binary, data):
        """With what is in a data directory."""
        where = ["--directory", self.url, "--mailbox", self.url]
        subprocess.run([binary, "cluster", "init", *where], check=True, capture_output=True)
        subprocess.run([binary, "copy", "--from", f"sqlite:{data}", "--to", self.url], check=True, capture_output=True)
        self.db.execute("CHECKPOINT")

    def used(self):
        """CPU seconds of all its processes, and bytes that it has written ahead, since it was started."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if stat.parent.name == str(self.postmaster):
                ticks += sum(map(int, fields[11:15]))  # its own, and those of its children that have ended
            elif int(fields[1]) == self.postmaster:
                ticks += sum(map(int, fields[11:13]))
        [(wal,)] = self.db.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchall()
        return {"cpu_seconds": ticks / os.sysconf("SC_CLK_TCK"), "wal_bytes": int(wal)}

    def end(self):
        self.db.close()
        self.server.close()
        return self


class Mosquitto:
    """Debian's Mosquitto with passwords, an access control list, and persistence."""

    name = "mosquitto"
    version = ""
    rules = "password_file, acl_file; persistence on, saved every 1800 s as by default"
    does = EVERYTHING

    def install(self, offline):
        install_packages({"mosquitto": "mosquitto"}, offline)
        said = subprocess.run([find_program("mosquitto"), "-h"], capture_output=True, text=True, check=False).stdout
        self.version = said.split("\n")[0].removeprefix("mosquitto version ")

    def start(self, data, pairs, core):
        port = free_port()
        passwords = data / "passwords"
        passwords.write_text("".join(f"{user}:token-{user}\n" for user in range(1, 2 * pairs + 1)))
        subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
        (data / "rules").write_text("pattern read /%u/inbox\npattern write /+/inbox\n")
        (data / "mosquitto.conf").write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {data}/rules\n"
            f"persistence true\npersistence_location {data}/\nmax_queued_messages 0\nset_tcp_nodelay true\n"
            "log_type error\nlog_dest stderr\n" + ("user root\n" if os.geteuid() == 0 else "")
        )
        return Running([find_program("mosquitto"), "-c", data / "mosquitto.conf"], port, core, data, {})


class Rumqttd:
    """rumqttd with a password for each user; it has no rules about topics."""

    name = "rumqttd"
    version = "0.20.0"
    rules = "passwords; no access rules; keeps nothing on disk"
    does = EVERYTHING

    def install(self, offline):
        # Its lock file holds a version of `metrics` that today's compiler refuses.
        self.binary = install_crate("rumqttd", self.version, offline, locked=False)

    def start(self, data, pairs, core):
        port = free_port()
        passwords = "".join(f'"{user}" = "token-{user}"\n' for user in range(1, 2 * pairs + 1))
        (data / "rumqttd.toml").write_text(
            "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n"
            "max_segment_size = 104857600\nmax_segment_count = 10\n"
            f'[v4.1]\nname = "v4-1"\nlisten = "127.0.0.1:{port}"\nnext_connection_delay_ms = 0\n'
            "[v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\n"
            f"max_inflight_count = 100\ndynamic_filters = true\n[v4.1.connections.auth]\n{passwords}"
        )
        return Running([self.binary, "-c", data / "rumqttd.toml", "-q"], port, core, data, {})


class Rmqttd:
    """rmqttd with a signed token and an access control list for each user; passwords would need a server to ask.

    Both ways are worth a row: its session storage saves a message after the acknowledgment, and drops the
    save when too many wait, so that the busier it is, the less it keeps and the cheaper it looks.
    """

    version = "0.24.0"
    does = EVERYTHING

    # All users have the same list: the placeholder is filled in when one connects.
    LIST = (
        {"permission": "allow", "action": "publish", "topic": "/+/inbox"},
        {"permission": "allow", "action": "subscribe", "topic": "/${username}/inbox"},
    )
    SECRET = "of the benchmark"

    def __init__(self, name, storage):
        self.name = name
        self.storage = storage
        kept = ("session storage in sled: saved after the acknowledgment, and not if 10,000 saves wait"
                if storage else "keeps nothing on disk")
        self.rules = f"signed tokens (JWT) with an access control list; {kept}"

    def install(self, offline):
        self.binary = install_crate("rmqttd", self.version, offline, needs={
            "protoc": "protobuf-compiler",  # protocols of its cluster and its bridges, which cannot be left out
            "cmake": "cmake", "c++": "g++", "make": "make", "zlib.h": "zlib1g-dev",  # librdkafka
            "pkg-config": "pkg-config", "openssl/ssl.h": "libssl-dev",  # others of its bridges
        })

    def start(self, data, pairs, core):
        port = free_port()
        plugins = data / "plugins"
        plugins.mkdir()
        users = data / "users"
        users.write_text("".join(f"{user},{self.token(user)}\n" for user in range(1, 2 * pairs + 1)))
        (plugins / "rmqtt-auth-jwt.toml").write_text(
            f'from = "password"\nencrypt = "hmac-based"\nhmac_secret = "{self.SECRET}"\nhmac_base64 = false\n'
            'validate_claims.sub = "${username}"\n'
        )
        # What the token's list does not allow.
        (plugins / "rmqtt-acl.toml").write_text('rules = [["deny", "all"]]\n')
        startups = ["rmqtt-auth-jwt", *(["rmqtt-session-storage"] if self.storage else [])]
        # Not read unless the plugin is started.
        (plugins / "rmqtt-session-storage.toml").write_text(
            f'storage.type = "sled"\nstorage.sled.path = "{data}/sessions"\nstorage.sled.cache_capacity = "1G"\n'
        )
        (data / "rmqtt.toml").write_text(
            f'[node]\nid = 1\n[node.busy]\ncheck_enable = false\n[rpc]\nserver_addr = "127.0.0.1:{free_port()}"\n'
            f'[log]\nto = "console"\nlevel = "error"\n[plugins]\ndir = "{plugins}/"\n'
            f"default_startups = {json.dumps(startups)}\n"
            'disabled_default_startups = ["rmqtt-http-api"]\n'
            f'[listener.tcp.external]\naddr = "127.0.0.1:{port}"\nnodelay = true\nallow_anonymous = false\n'
            "max_handshaking_limit = 5000\nmax_mqueue_len = 100000\n"
        )
        return Running([self.binary, "-f", data / "rmqtt.toml"], port, core, data, {}, users)

    def token(self, user):
        parts = [encode_base64(json.dumps(part).encode())
                 for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": str(user), "acl": self.LIST})]
        signature = hmac.digest(self.SECRET.encode(), ".".join(parts).encode(), "sha256")
        return ".".join([*parts, encode_base64(signature)])


def encode_base64(data):
    """As JSON Web Tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


ALL = [Floor(), Jam(), JamPostgres(), Rumqttd(), Mosquitto(), Rmqttd("rmqttd", storage=False), Rmqttd("rmqttd-sled", storage=True)]
