"""A PostgreSQL, and a jam database in it that this process writes while a server reads it.

It is this machine's Debian package, or what the folder of programs is of that JAM_TEST_POSTGRES names. One for each test
process, started when it is first needed. It ends with that process, however that ends.
"""

import contextlib
import functools
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from .directory import Directory, User

VERSIONS = Path("/usr/lib/postgresql")
START_SECONDS = 60

# PROTOCOL.md: within a second, as a rule within milliseconds. Tests that go on at once wait for the rule.
SETTLE = 0.25

# Ends the server when its input ends, which the test process holds.
KEEPER = """
trap "" INT TERM HUP
folder=$1; shift
"$@" </dev/null &
server=$!
cat >/dev/null
kill -CONT $server; kill -QUIT $server; wait $server
rm -rf "$folder"
"""


def as_user():
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []


def parent():
    """A folder for files of the user that PostgreSQL runs as: root's temporary one may be root's alone."""
    for folder in map(Path, (tempfile.gettempdir(), "/dev/shm", "/tmp")):
        if os.geteuid() != 0 or all(above.stat().st_mode & 0o001 for above in (folder, *folder.parents)):
            return folder
    raise AssertionError("the user postgres has no folder for its files")


def programs():
    """The folder of `postgres`, `initdb` and the others."""
    if named := os.environ.get("JAM_TEST_POSTGRES"):
        assert (Path(named) / "postgres").exists(), f"JAM_TEST_POSTGRES: {named} has no postgres"
        return Path(named)
    versions = sorted(VERSIONS.glob("*/bin/postgres"), key=lambda path: float(path.parents[1].name))
    assert versions, f"{VERSIONS} has no PostgreSQL: run ./scripts/test install"
    return versions[-1].parent


class PostgresServer:
    """`of`: it is a standby of this one, made of a base backup. `settings`: as on the command line of `postgres`."""

    def __init__(self, *settings, of=None):
        self.programs, self.settings = programs(), settings
        self.folder = Path(tempfile.mkdtemp(prefix="jam-postgres-", dir=parent()))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self.data, self.keepers = self.folder / "data", []
        self.prepare()
        if of:
            self.run("pg_basebackup", "-D", self.data, "-h", "127.0.0.1", "-p", of.port, "-U", "postgres", "-R", "-c", "fast")
        else:
            self.run("initdb", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D", self.data)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def prepare(self):
        """What there has to be before it is made."""

    def within(self):
        """What its command lines begin with."""
        return []

    def run(self, program, *arguments):
        """One of its programs, to the end."""
        command = [*self.within(), *as_user(), self.programs / program, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def start(self):
        """Starts it, and waits until it answers."""
        command = [self.programs / "postgres", "-D", self.data, "-k", self.folder, "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "max_connections=200", *self.settings):
            command += ["-c", setting]
        with open(self.folder / "log", "ab") as log:
            keeper = ["sh", "-c", KEEPER, "keeper", self.folder, *command]
            command = [*self.within(), *as_user(), *keeper]
            self.keepers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, cwd="/"))
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def pid(self):
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def processes(self):
        first = self.pid()
        children = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True).stdout.split()
        return [first, *map(int, children)]

    def signal(self, which):
        """All of its processes, the first one first: it would start others."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)

    def stop(self, mode="immediate"):
        """`pg_ctl stop`: what it has in memory is lost if it is `immediate`."""
        self.run("pg_ctl", "stop", "-D", self.data, "-m", mode)

    def close(self):
        """Ends it before the test process does, and removes its files."""
        for keeper in reversed(self.keepers):
            keeper.stdin.close()
            keeper.wait()

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def connect(self, database):
        return psycopg.connect(self.url(database), autocommit=True)

    def sql(self, sql, database="postgres"):
        with self.connect(database) as db:
            done = db.execute(sql)
            return done.fetchall() if done.description else []


@functools.cache
def shared():
    return PostgresServer()


def of_sqlite(sql):
    """A statement with `?` for values, as psycopg has it."""
    return sql.replace("%", "%%").replace("?", "%s")


class LikeSqlite:
    """A connection that is used as one of `sqlite3` is: `?` for values, and each statement is a transaction unless one is begun."""

    def __init__(self, connection):
        self.connection = connection
        self.close = connection.close

    def execute(self, sql, values=()):
        return self.connection.execute(of_sqlite(sql), values)

    def executemany(self, sql, rows):
        with self.connection.cursor() as cursor:
            cursor.executemany(of_sqlite(sql), rows)


class PostgresDirectory(Directory):
    """A jam database in PostgreSQL, made by `jam-mqtt cluster init`. Statements have `?` for values, as with SQLite."""

    NUMBERS = itertools.count(1)

    def __init__(self, make):
        """`make`: has the command made the tables."""
        self.name = f"jam_{next(self.NUMBERS)}"
        with shared().connect("postgres") as db:
            db.execute(f"CREATE DATABASE {self.name}")
        self.url = shared().url(self.name)
        make(self.url)
        self.db = shared().connect(self.name)

    def open(self):
        return LikeSqlite(shared().connect(self.name))

    def execute(self, sql, *values):
        done = LikeSqlite(self.db).execute(sql, values)
        if done.description:
            return done.fetchall()
        time.sleep(SETTLE)
        return []

    def tables(self):
        """The names of those that PROTOCOL.md has: the others are a server's own."""
        return ["accounts", "user_devices", "user_friends"]

    def user(self, token=None):
        sql = "INSERT INTO accounts (inactive) VALUES (false) RETURNING user_id"
        [(number,)] = self.db.execute(sql).fetchall()
        user = User(str(number), token or f"token-of-{number}")
        sql = "UPDATE accounts SET username = %s, user_api_token = %s WHERE user_id = %s"
        self.db.execute(sql, (f"user{number}", user.token, number))
        return user  # nothing is in anybody's memory of an id that is new

    def befriend(self, a, b):
        sql = "INSERT INTO user_friends (user_id, friend_id) VALUES (?, ?), (?, ?)"
        self.execute(sql, a.id, b.id, b.id, a.id)

    def block(self, who, whom, blocked=True):
        with self.db.transaction():
            for column, pair in (("blocked", (who, whom)), ("been_blocked", (whom, who))):
                sql = f"UPDATE user_friends SET {column} = %s WHERE user_id = %s AND friend_id = %s"
                self.db.execute(sql, (blocked, pair[0].id, pair[1].id))
        time.sleep(SETTLE)
