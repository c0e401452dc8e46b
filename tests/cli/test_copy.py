"""docs/postgres.md: accounts and mailbox go from files to PostgreSQL and back, and nothing on the way is lost or told anew."""

import json
import sqlite3
from contextlib import closing

import pytest
from harness import Server, run_cli
from harness.directory import Directory
from harness.process import in_postgres

KEPT = {"clean": False, "props": {"session_expiry": 600}}


def copy(source, target, *more, status=0):
    done = run_cli("copy", "--from", source, "--to", target, *more)
    assert done.returncode == status, done
    if status:
        assert len(done.stderr.strip().splitlines()) == 1 and "panicked" not in done.stderr, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture
def filled(tmp_path):
    """A server with files that has stopped: three friends of `me`, one of them blocked; mail, a session, a retained message."""
    server = Server(tmp_path / "files")
    me, friend, other, blocked = server.users(4)
    for one in (friend, other, blocked):
        server.directory.befriend(me, one)
    server.directory.block(me, blocked)
    with server:
        with server.connect(me, 5) as writer:
            assert writer.deliver(other.inbox, me.message("to one who has never connected"), 2) == 0
        with server.listener(me, 5, **KEPT) as phone:
            phone.deliver(f"/{me.id}/notes", b"remember", retain=True)
        with server.connect(friend, 5) as writer:
            for n in range(20):
                assert writer.deliver(me.inbox, friend.message(f"{n}" * 100 * n)) == 0
    server.people = me, friend, other, blocked
    return server


def has_it_all(server, people):
    """As it was left, under the tokens of before; and goes on."""
    me, friend, other, blocked = people
    with server.connect(me, 5, **KEPT) as phone:
        assert phone.connack.session_present
        for n in range(20):
            assert phone.message(topic=me.inbox).payload == friend.message(f"{n}" * 100 * n)
        phone.quiet()
        phone.subscribe(f"/{me.id}/notes")
        assert phone.message(topic=f"/{me.id}/notes").payload == b"remember"
        with server.connect(friend, 5) as writer, server.connect(blocked, 5) as refused:
            assert writer.deliver(me.inbox, friend.message("and on")) == 0
            assert phone.message(topic=me.inbox).payload == friend.message("and on")
            assert refused.deliver(me.inbox, blocked.message()) == 0x87
        phone.quiet()
    with server.listener(other, 5) as reader:
        assert reader.message(topic=other.inbox).payload == me.message("to one who has never connected")
        reader.quiet()


def on(folder, directory, **settings):
    return Server(folder, directory=directory, settings=settings)


def test_to_postgresql_and_back(filled, tmp_path):
    me, *_ = filled.people
    database = in_postgres("mailbox.url")
    said = json.loads(copy(
        f"sqlite:{filled.folder / 'data'}", database.url, "--directory", filled.directory.url, "--json"
    ))
    assert said["accounts"] == {"accounts": 4, "friends": 6, "devices": 0}
    assert (said["mailbox"]["messages"], said["mailbox"]["sessions"], said["mailbox"]["retained"]) == (22, 1, 1)

    # Back first: nothing of it has been delivered yet.
    back = tmp_path / "back"
    assert json.loads(copy(database.url, f"sqlite:{back}", "--json")) == said
    with on(tmp_path / "server1", database, **{"mailbox.url": database.url}) as server:
        has_it_all(server, filled.people)
        added = server.user()
        assert int(added.id) > int(filled.people[-1].id)
    accounts = Directory(back / "jam.db", schema="")
    server = Server(tmp_path / "server2", directory=accounts)
    (server.folder / "data").symlink_to(back)
    with server:
        has_it_all(server, filled.people)
    # A copy has what was there when it was made.
    with closing(sqlite3.connect(back / "jam.db")) as db:
        tokens = db.execute("SELECT typeof(user_api_token) FROM accounts WHERE user_id = ?", (me.id,)).fetchall()
    assert tokens == [("blob",)], "hashed"


def test_numbers_of_a_database_that_has_been_served_often(filled, tmp_path):
    """Each start has numbers of its own, also above those that came from another database."""
    first, second = in_postgres("mailbox.url"), in_postgres("mailbox.url")
    copy(f"sqlite:{filled.folder / 'data'}", first.url, "--directory", filled.directory.url)
    _, friend, other, _ = filled.people
    for n in range(3):
        with on(tmp_path / f"server{n}", first, **{"mailbox.url": first.url}) as server:
            with server.connect(other, 5) as writer:
                assert writer.deliver(filled.people[0].inbox, other.message(f"start {n}")) == 0
    held = json.loads(copy(first.url, f"sqlite:{tmp_path / 'back'}", "--json"))["mailbox"]
    assert json.loads(copy(f"sqlite:{tmp_path / 'back'}", second.url, "--json"))["mailbox"] == held
    with on(tmp_path / "again", second, **{"mailbox.url": second.url}) as server:
        with server.connect(other, 5) as writer:
            assert writer.deliver(filled.people[0].inbox, other.message("the last")) == 0
        with server.connect(filled.people[0], 5, **KEPT) as phone:
            got = [phone.message(topic=filled.people[0].inbox).payload for _ in range(24)]
            assert got[20:] == [other.message(it) for it in ("start 0", "start 1", "start 2", "the last")]
            phone.quiet()


def test_no_error_shows_a_password(filled):
    for url in ("postgress://jam:hidden@db/jam", "postgres://jam:hidden@db:x/jam", "postgres://jam:hid@den@db/jam", "postgres://jam:1/hidden@db/jam"):
        for command in (["copy", "--from", url, "--to", "sqlite:x"], ["check", "--directory", url], ["check", "--mailbox", url]):
            done = run_cli(*command)
            assert done.returncode == 2, done
            assert "hid" not in done.stdout + done.stderr, done


def test_what_is_not_empty_is_left_alone(filled):
    database = in_postgres("mailbox.url")
    source = f"sqlite:{filled.folder / 'data'}"
    database.user()
    said = copy(source, database.url, "--directory", filled.directory.url, status=1)
    assert "not empty" in said
    assert database.execute("SELECT count(*) FROM accounts") == [(1,)]
    assert "not empty" in copy(database.url, source, status=1)


def test_what_is_not_there_is_no_empty_mailbox(tmp_path):
    database = in_postgres("mailbox.url")
    assert "there is no mailbox" in copy(f"sqlite:{tmp_path / 'mistyped'}", database.url, status=1)
    assert database.execute("SELECT count(*) FROM accounts") == [(0,)]
    for url in ("sqlite:", "mysql://x", str(tmp_path)):
        assert "sqlite:DIR" in run_cli("copy", "--from", url, "--to", database.url).stderr


def test_a_server_that_runs_is_not_copied_from(filled):
    database = in_postgres("mailbox.url")
    with filled:
        said = copy(f"sqlite:{filled.folder / 'data'}", database.url, "--directory", filled.directory.url, status=1)
    assert "in use" in said
    # Nothing stands in the way of the next try.
    copy(f"sqlite:{filled.folder / 'data'}", database.url, "--directory", filled.directory.url)
