"""docs/operations.md, commands: on a data directory, with the server running or not."""

import hashlib
import json
import re
import sqlite3
import subprocess
from contextlib import closing

import pytest
from harness import User, run_cli
from harness.process import BINARY, environment
from harness.refusals import FRIENDS, refused

COMMANDS = [
    "serve", "demo", "user", "user add", "user list", "user show", "user token", "user remove",
    "friend", "friend add", "friend remove", "friend list", "block", "unblock", "send", "listen",
    "mailbox", "mailbox list", "mailbox show", "mailbox purge", "mailbox salvage", "session", "session list",
    "session end", "lockout", "lockout list", "lockout lift", "health", "backup", "restore", "check", "completions",
]  # fmt: skip


class Data:
    """A data directory and commands on it."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *arguments, status=0, **options):
        done = run_cli(*arguments, "--data", self.folder, **options)
        assert done.returncode == status, f"{arguments}: {done}"
        return done.stdout if status == 0 else done.stderr

    def rows(self, sql):
        with closing(sqlite3.connect(self.folder / "jam.db")) as db:
            return db.execute(sql).fetchall()


@pytest.fixture
def jam(tmp_path):
    return Data(tmp_path / "jam-data")


def plain(stderr):
    """One line, and no trace of the machinery."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert not re.search(r"panicked|RUST_BACKTRACE|Err\(|\bSome\(", stderr)
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = run_cli(*command.split(), "--help")
    assert done.returncode == 0
    assert f"{BINARY.name} {command}" in done.stdout
    if command not in ("user", "friend", "mailbox", "session", "lockout"):
        assert "xample" in done.stdout, "no example"


@pytest.mark.parametrize("wrong", [["nonsense"], ["user", "add"], ["serve", "--nonsense"], []])
def test_wrong_use_is_2(wrong):
    done = run_cli(*wrong)
    assert done.returncode == 2
    assert "sage" in done.stderr


def test_version():
    done = run_cli("--version")
    assert re.fullmatch(r"jam-mqtt \d+\.\d+\.\d+.*\n", done.stdout)


def sha_256(token):
    return hashlib.sha256(token.encode()).digest()


def hashed(stored):
    """docs/data-format.md: a form that is no UTF-8, a mark, the hash."""
    assert stored[:2] == b"\xff\x01" and len(stored) == 42
    return stored[10:]


def test_users(jam):
    printed = jam("user", "add", "7", "--name", "Ada", "--token", "secret")
    assert printed.count("secret") == 1
    generated = json.loads(jam("user", "add", "8", "--json"))["token"]
    assert len(generated) >= 20
    stored = jam.rows("SELECT user_id, username, user_api_token FROM accounts")
    assert [(user, name) for user, name, _ in stored] == [(7, "Ada"), (8, None)]
    assert [hashed(token) for *_, token in stored] == [sha_256("secret"), sha_256(generated)]
    listed = jam("user", "list", "--json")
    assert [str(user["id"]) for user in json.loads(listed)] == ["7", "8"]
    assert "secret" not in listed + jam("user", "list") + jam("user", "show", "7")
    assert generated not in listed
    assert "Ada" in jam("user", "show", "7")
    assert str(json.loads(jam("user", "show", "7", "--json"))["id"]) == "7"
    renewed = json.loads(jam("user", "token", "7", "--json"))["token"]
    assert renewed not in ("secret", generated)
    [(stored,)] = jam.rows("SELECT user_api_token FROM accounts WHERE user_id = 7")
    assert hashed(stored) == sha_256(renewed)
    jam("user", "remove", "7")
    assert jam.rows("SELECT user_id FROM accounts") == [(8,)]


def test_removing_a_user_ends_its_friendships(jam):
    for name in "789":
        jam("user", "add", name)
    jam("friend", "add", "7", "8")
    jam("friend", "add", "8", "9")
    jam("user", "remove", "7")
    assert sorted(jam.rows("SELECT user_id, friend_id FROM user_friends")) == [(8, 9), (9, 8)]


def test_friends_and_blocks(jam):
    for name in "789":
        jam("user", "add", name)
    rows = "SELECT user_id, friend_id, blocked, been_blocked FROM user_friends ORDER BY 1, 2"
    jam("friend", "add", "7", "8")
    assert jam.rows(rows) == [(7, 8, 0, 0), (8, 7, 0, 0)]
    jam("block", "7", "8")
    assert jam.rows(rows) == [(7, 8, 1, 0), (8, 7, 0, 1)]
    jam("friend", "add", "7", "9")
    listed = json.loads(jam("friend", "list", "7", "--json"))
    assert [str(friend["id"]) for friend in listed] == ["8", "9"]
    jam("unblock", "7", "8")
    jam("friend", "remove", "9", "7")
    assert jam.rows(rows) == [(7, 8, 0, 0), (8, 7, 0, 0)]


def test_adding_a_friend_again_changes_nothing(jam):
    for name in "78":
        jam("user", "add", name)
    jam("friend", "add", "7", "8")
    jam("block", "8", "7")
    before = jam.rows("SELECT * FROM user_friends ORDER BY 1")
    assert "friends already" in jam("friend", "add", "8", "7")
    assert jam.rows("SELECT * FROM user_friends ORDER BY 1") == before


@pytest.mark.parametrize(
    "wrong",
    [
        ["user", "show", "9"],
        ["user", "token", "9"],
        ["user", "remove", "9"],
        ["user", "add", "7"],
        ["friend", "add", "7", "9"],
        ["friend", "add", "7", "7"],
        ["friend", "list", "9"],
        ["friend", "remove", "7", "8"],
        ["block", "7", "8"],
        ["unblock", "7", "8"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_1(jam, wrong):
    """In one plain line that names what is wrong; nothing is changed."""
    jam("user", "add", "7")
    jam("user", "add", "8")
    before = jam.rows("SELECT user_id, user_api_token FROM accounts")
    said = plain(jam(*wrong, status=1))
    assert wrong[-1] in said
    assert jam.rows("SELECT user_id, user_api_token FROM accounts") == before
    assert jam.rows("SELECT * FROM user_friends") == []


@pytest.mark.parametrize("name", ["", "a/b", "a+b", "#", "$x", "a:b", "u" * 65, "abc", "01", "-1"])
def test_user_ids_that_cannot_be(jam, name):
    """Not a user id at all, or not one of a jam database, whose ids are decimal integers."""
    done = run_cli("user", "add", "--data", jam.folder, "--", name)
    assert done.returncode in (1, 2)
    plain(done.stderr if done.returncode == 1 else "wrong use")


def test_they_take_effect_on_a_running_server(server, version):
    """With --directory instead of --data, at once for a publish."""
    me, friend = server.users(2)
    where = ["--directory", f"sqlite:{server.directory.path}"]
    with server.listener(friend, version) as reader, server.connect(me, version) as writer:
        refused(writer, friend.inbox, me.message(), FRIENDS)
        assert run_cli("friend", "add", me.id, friend.id, *where).returncode == 0
        assert writer.deliver(friend.inbox, me.message()) == 0
        assert reader.message().payload == me.message()
        assert run_cli("block", friend.id, me.id, *where).returncode == 0
        refused(writer, friend.inbox, me.message(), FRIENDS)
        assert run_cli("unblock", friend.id, me.id, *where).returncode == 0
        assert writer.deliver(friend.inbox, me.message()) == 0
        reader.message()
        done = run_cli("user", "token", me.id, "--json", *where)
        writer.closed(reason=0x87)
        changed = User(me.id, json.loads(done.stdout)["token"])
        server.connect(changed, version).leave()


# send and listen


def client(server, user, *arguments):
    """How the two are pointed at a server."""
    return [*arguments, "--user", user.id, "--server", f"127.0.0.1:{server.mqtt}"]


def test_send_and_listen(server):
    me, friend = server.friends()
    listening = subprocess.Popen(
        [BINARY, *client(server, friend, "listen")],
        env=environment({}) | {"JAM_TOKEN": friend.token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        done = run_cli(*client(server, me, "send"), "--token", me.token, "--to", friend.id, "hi ü☃")
        assert done.returncode == 0, done.stderr
        line = listening.stdout.readline()
        assert "hi ü☃" in line and me.id in line
    finally:
        listening.terminate()
        listening.wait(10)
        listening.stdout.close()
        listening.stderr.close()


def test_what_send_writes(server):
    """A message as the apps write them, from the sender, waiting for who has never connected."""
    me, friend = server.friends()
    done = run_cli(*client(server, me, "send"), "--token", me.token, "--to", friend.id, "hello")
    assert done.returncode == 0, done.stderr
    with server.listener(friend) as reader:
        message = json.loads(reader.message(topic=friend.inbox).payload)
    assert (message["from"], message["content"], message["type"]) == (me.id, "hello", 0)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", message["timestamp"])


@pytest.mark.parametrize("case", ["stranger", "wrong token", "no server"])
def test_what_send_says_when_it_cannot(server, case):
    me, friend = server.friends()
    other = server.user()
    to = other.id if case == "stranger" else friend.id
    token = "wrong" if case == "wrong token" else me.token
    where = client(server, me, "send")
    if case == "no server":
        where[-1] = "127.0.0.1:1"
    done = run_cli(*where, "--token", token, "--to", to, "hello")
    assert done.returncode == 1
    said = plain(done.stderr)
    expected = {
        "stranger": "not friends with the receiver",
        "wrong token": "wrong api token",
        "no server": "127.0.0.1:1",
    }
    assert expected[case] in said


def test_listen_shows_errors_and_ends_at_a_logout(server):
    me = server.user()
    listening = subprocess.Popen(
        [BINARY, *client(server, me, "listen"), "--token", me.token],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "listening to" in listening.stderr.readline()
    server.connect(me, device="another").leave()
    out, err = listening.communicate(timeout=20)
    assert listening.returncode == 1
    assert "a new device has connected" in out + err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell):
    done = run_cli("completions", shell)
    assert done.returncode == 0
    assert "print-config" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_output_into_a_closed_pipe():
    """`jam-mqtt completions bash | head -1` is not a panic."""
    line = f"set -o pipefail; '{BINARY}' completions bash | head -c 1 >/dev/null"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30)
    assert "panicked" not in done.stderr
