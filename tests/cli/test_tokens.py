"""docs/data-format.md, tokens: SHA-256 in a database of the server's own, however it came about, and nobody is logged out by it."""

import json
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from harness import Server, User, run_cli

KEPT = {"clean": False, "props": {"session_expiry": 600}}


class Own:
    """The accounts database that the server makes by itself."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "data" / "jam.db"
        self.url = f"sqlite:{self.path}"

    def __call__(self, *arguments):
        done = run_cli(*arguments, "--data", self.folder / "data")
        assert done.returncode == 0, done
        return done.stdout

    def execute(self, sql, *values):
        with closing(sqlite3.connect(self.path, timeout=20, isolation_level=None)) as db:
            return db.execute(sql, values).fetchall()

    def add(self, user):
        return User(user, json.loads(self("user", "add", user, "--json"))["token"])

    def forms(self):
        """Types of the tokens that there are."""
        return {form for (form,) in self.execute("SELECT DISTINCT typeof(user_api_token) FROM accounts")}

    def make_older(self, tokens):
        """As it was before tokens were hashed."""
        self.execute("PRAGMA user_version = 0")
        with closing(sqlite3.connect(self.path)) as db:
            sql = "INSERT OR REPLACE INTO accounts (user_id, username, user_api_token) VALUES (?, ?, ?)"
            db.executemany(sql, [(user, f"user{user}", token) for user, token in tokens.items()])
            db.commit()


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


@pytest.fixture
def server(own):
    own("user", "add", "1")
    server = Server(own.folder, directory=own)
    yield server
    if server.process and server.process.poll() is None:
        server.kill()


def refused(server, user):
    client, connack = server.attempt(user, 5)
    assert connack.reason in (0x86, 0x87), connack
    client.closed()


def test_what_is_stolen_lets_nobody_in(own, server):
    me = own.add("7")
    assert me.token.encode() not in own.path.read_bytes()
    server.start()
    [(stolen,)] = own.execute("SELECT user_api_token FROM accounts WHERE user_id = 7")
    for offered in (stolen, stolen[10:], stolen[10:].hex(), stolen.hex(), stolen.decode("latin-1")):
        refused(server, User(me.id, offered))
    server.connect(me, 5).leave()
    server.stop()


@pytest.mark.parametrize("restart", ["stop", "kill"])
def test_a_session_outlives_the_hashing_of_its_token(own, server, version, restart):
    """A session belongs to the token that it was made with, and that is still the same."""
    me, friend = User("1", "in the clear 1"), User("2", "in the clear 2")
    own("user", "add", "2")
    own("friend", "add", "1", "2")
    server.start()
    own.execute("PRAGMA user_version = 0")
    for user in (me, friend):
        own.execute("UPDATE accounts SET user_api_token = ? WHERE user_id = ?", user.token, user.id)
    server.listener(me, version, **KEPT).leave()
    with server.connect(friend, version) as writer:
        assert writer.deliver(me.inbox, friend.message()) == 0
    assert own.forms() == {"text"}
    getattr(server, restart)()
    server.start()
    assert own.forms() == {"blob"}
    assert b"in the clear" not in own.path.read_bytes()
    with server.connect(me, version, **KEPT) as client:
        assert client.connack.session_present
        assert client.message(topic=me.inbox).payload == friend.message()
    server.stop()


def test_a_start_that_is_killed_has_hashed_all_or_none(own, server):
    tokens = {user: f"token-of-{user}" for user in range(1, 30_001)}
    found = set()
    for delay in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45):
        own.make_older(tokens)
        server.launch()
        time.sleep(delay)
        server.kill()
        forms = own.forms()
        found |= forms
        assert len(forms) == 1, f"after {delay} s"
    assert "text" in found, "no start was killed in time"
    server.start()
    assert own.forms() == {"blob"}
    for user in (1, 15_000, 30_000):
        server.connect(User(str(user), tokens[user]), 5).leave()
    server.stop()


def test_two_servers_that_start_at_once_on_one_database(own, server, tmp_path):
    tokens = {user: f"token-of-{user}" for user in range(1, 20_001)}
    own.make_older(tokens)
    other = Server(tmp_path / "other", directory=own)
    starts = [threading.Thread(target=it.start) for it in (server, other)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    for it in (server, other):
        it.connect(User("20000", tokens[20_000]), 5).leave()
        it.stop()
    assert own.forms() == {"blob"}
    assert own.execute("PRAGMA user_version") == [(1,)]


def test_a_backup_of_before_is_hashed_when_a_server_starts_on_it(own, server, tmp_path):
    me = User("1", "of the backup")
    own.make_older({1: me.token})
    own("backup", tmp_path / "backup")
    server.start()
    server.connect(me, 5).leave()
    own("user", "token", "1")
    refused(server, me)
    own("restore", tmp_path / "backup", "--accounts-only")
    assert own.forms() == {"text"}
    server.connect(me, 5).leave()
    server.stop()
    server.start()
    assert own.forms() == {"blob"}
    server.connect(me, 5).leave()
    server.stop()


def test_a_command_leaves_an_older_file_to_the_server(own):
    """The server that is running may be one that knows no hashes."""
    own("user", "add", "1")
    own.make_older({1: "in the clear"})
    own.add("2")
    assert own.forms() == {"text"}
