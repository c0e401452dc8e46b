"""docs/operations.md: a backup is put in place right by construction, with a server on the accounts or not."""

import json
import sqlite3
import time
from contextlib import closing

import pytest
from harness import Server, User, run_cli
from harness.directory import Directory


@pytest.fixture
def own(tmp_path):
    server = Server(tmp_path / "own")
    yield server
    if server.process and server.process.poll() is None:
        server.kill()


def jam(server, *arguments, status=0):
    done = run_cli(*arguments, "--data", server.folder / "data", "--directory", f"sqlite:{server.directory.path}")
    assert done.returncode == status, f"{arguments}: {done}"
    said = done.stdout if status == 0 else done.stderr
    if status:
        assert len(said.strip().splitlines()) == 1 and "panicked" not in said, said
    return said


def show(server, user):
    return json.loads(jam(server, "mailbox", "show", user.id, "--json"))


def fill(server, sender, receiver, count=5):
    payloads = [sender.message(f"{n}") for n in range(count)]
    with server.connect(sender) as writer:
        for payload in payloads:
            assert writer.deliver(receiver.inbox, payload) == 0
    return payloads


def drain(server, user, count):
    with server.listener(user, device="after") as reader:
        payloads = [reader.message(topic=user.inbox).payload for _ in range(count)]
        reader.quiet()
    return payloads


def token_of(path, user):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT user_api_token FROM accounts WHERE user_id = ?", (user.id,)).fetchone()[0]


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("held", [True, False])
def test_the_accounts_of_a_running_server(own, tmp_path, mode, held):
    """What was committed since, in a log that another program has open, is not read with what is restored."""
    own.directory = Directory(tmp_path / f"{mode}.db", mode)
    path = own.directory.path
    own.start()
    me, friend = own.friends()
    backup = tmp_path / "backup"
    jam(own, "backup", backup)
    web = sqlite3.connect(path)
    web.execute("PRAGMA wal_autocheckpoint = 0")
    web.execute("UPDATE accounts SET user_api_token = 'later' WHERE user_id = ?", (me.id,))
    web.commit()
    if not held:
        web.close()
    assert "restored" in jam(own, "restore", backup, "--accounts-only")
    assert token_of(path, me) == me.token
    own.connect(me).leave()
    assert own.attempt(User(me.id, "later"))[1].reason == 5
    # Whatever is committed from now on counts.
    own.connect(own.directory.set_token(me, "newest")).leave()
    own.directory.set_token(me, me.token)
    if held:
        assert web.execute("SELECT user_api_token FROM accounts WHERE user_id = ?", (me.id,)).fetchone()[0] == me.token
        web.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_who_is_missing_in_what_is_restored_loses_nothing(own, tmp_path):
    """An older accounts database may be restored by mistake, and then the right one."""
    own.start()
    me, friend = own.friends()
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for backup in (right, wrong):
        jam(own, "backup", backup)
    with closing(sqlite3.connect(wrong / "jam.db")) as db:
        db.execute("DELETE FROM accounts WHERE user_id = ?", (friend.id,))
        db.commit()
    payloads = fill(own, me, friend)
    for backup in (wrong, right):
        jam(own, "restore", backup, "--accounts-only")
        time.sleep(1)
    assert drain(own, friend, len(payloads)) == payloads


def test_a_mailbox_is_restored_only_without_a_server(own, tmp_path):
    own.start()
    me, friend = own.friends()
    payloads = fill(own, me, friend)
    backup = tmp_path / "backup"
    jam(own, "backup", backup)
    drain(own, friend, len(payloads))
    jam(own, "user", "token", friend.id)
    token = token_of(own.directory.path, friend)
    assert "in use" in jam(own, "restore", backup, status=1)
    assert token_of(own.directory.path, friend) == token, "nothing has changed"
    own.stop()
    jam(own, "restore", backup)
    assert token_of(own.directory.path, friend) == friend.token
    assert sorted(path.name for path in (own.folder / "data").iterdir()) == ["mailbox", "mailbox.before-1"]
    own.start()
    assert show(own, friend)["messages"] == len(payloads)
    assert drain(own, friend, len(payloads)) == payloads


@pytest.mark.parametrize("what", ["nothing", "empty", "text", "another database", "damaged mailbox", "no mailbox"])
def test_what_is_no_backup_is_refused(own, tmp_path, what):
    own.start()
    me, friend = own.friends()
    fill(own, me, friend)
    backup = tmp_path / "backup"
    jam(own, "backup", backup)
    own.stop()
    match what:
        case "nothing":
            backup = tmp_path / "elsewhere"
        case "empty":
            backup = tmp_path / "empty"
            backup.mkdir()
        case "text":
            (backup / "jam.db").write_bytes(b"this is text" * 1000)
        case "another database":
            (backup / "jam.db").unlink()
            with closing(sqlite3.connect(backup / "jam.db")) as db:
                db.execute("CREATE TABLE x (y)")
        case "damaged mailbox":
            path = backup / "mailbox" / "mailbox.db"
            path.write_bytes(path.read_bytes()[:5000])
        case "no mailbox":
            (backup / "mailbox" / "mailbox.db").unlink()
    before = own.directory.path.read_bytes()
    jam(own, "restore", backup, status=1)
    assert own.directory.path.read_bytes() == before
    assert [path.name for path in (own.folder / "data").iterdir()] == ["mailbox"]
    own.start()
    assert show(own, friend)["messages"] == 5


def test_into_an_empty_place(own, tmp_path):
    """A log that was left behind by a database that is gone is not read with the one that takes its place."""
    own.start()
    me, friend = own.friends()
    payloads = fill(own, me, friend)
    backup = tmp_path / "backup"
    jam(own, "backup", backup)
    own.stop()
    new = tmp_path / "new"
    new.mkdir()
    (new / "jam.db-wal").write_bytes(b"left behind")
    done = run_cli("restore", backup, "--data", new)
    assert done.returncode == 0, done
    listed = run_cli("user", "list", "--data", new)
    assert listed.returncode == 0 and f"{friend.id} " in listed.stdout
    shown = run_cli("mailbox", "show", friend.id, "--data", new)
    assert f"{len(payloads)} messages" in shown.stdout


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("command", [["mailbox", "purge", "{}", "--all"], ["user", "remove", "{}"]])
def test_everything_of_a_user_goes(own, running, command):
    own.start()
    me, friend = own.friends()
    own.listener(friend, clean=False).close()
    with own.connect(friend, clean=False) as client:
        assert client.deliver(f"/{friend.id}/x", b"retained", retain=True) == 0
    fill(own, me, friend)
    if not running:
        own.stop()
    jam(own, *[part.format(friend.id) for part in command])
    if running:
        time.sleep(1)
        own.stop()
    with closing(sqlite3.connect(own.folder / "data" / "mailbox" / "mailbox.db")) as db:
        for table in ("message", "session", "retained", "owner", "push", "purge", "will"):
            assert db.execute(f"SELECT count(*) FROM {table} WHERE user = ?", (friend.id,)).fetchone() == (0,), table
