"""A jam database in PostgreSQL that another program writes while the server reads it (PROTOCOL.md, section 6; docs/postgres.md)."""

import signal
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from harness import Server, User, readiness, run_cli
from harness.packets import PUBACK
from harness.postgres import PostgresServer, shared
from harness.process import in_postgres
from harness.refusals import FRIENDS, refused

PATIENCE = 10
until = partial(readiness.until, patience=PATIENCE)
readyz = partial(readiness.readyz, patience=PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("postgres"), directory=in_postgres()) as running:
        yield running


def test_what_a_web_server_commits_is_in_force_within_a_second(server, version):
    """Each change by plain SQL on a connection of its own, and judged by what a client is told."""
    me, friend = server.friends()
    with server.listener(friend, version) as reader, server.connect(me, version) as writer, closing(server.directory.open()) as db:
        for n in range(10):
            db.execute("UPDATE user_friends SET blocked = true WHERE user_id = ?", (friend.id,))
            time.sleep(1)
            refused(writer, friend.inbox, me.message(n), FRIENDS)
            db.execute("UPDATE user_friends SET blocked = false WHERE user_id = ?", (friend.id,))
            time.sleep(1 if n == 0 else 0.2)
            assert writer.deliver(friend.inbox, me.message(n)) == 0
            assert reader.message().payload == me.message(n)


def test_open_connections_end_with_their_token(server, version):
    for change in ("UPDATE accounts SET user_api_token = NULL", "DELETE FROM accounts"):
        me = server.user()
        client = server.connect(me, version)
        server.directory.execute(f"{change} WHERE user_id = ?", me.id)
        client.closed(0x87)
        client, answer = server.attempt(me, version)
        assert answer.reason == (0x87 if version == 5 else 5)
        client.close()


def test_no_token_stands_in_the_database_in_the_clear(server):
    me = server.directory.user("a token that nobody else has")
    [(stored,)] = server.directory.execute("SELECT user_api_token FROM accounts WHERE user_id = ?", me.id)
    assert stored.startswith("sha256$") and me.token not in stored
    server.connect(me, 4).leave()
    client, answer = server.attempt(User(me.id, stored), 4)
    assert answer.reason == 5
    client.close()


def test_commands_and_the_server_see_the_same(server):
    at = ["--directory", server.directory.url]
    for command in (["user", "add", "77", "--token", "x"], ["user", "add", "78", "--token", "y"], ["friend", "add", "77", "78"]):
        done = run_cli(*command, *at)
        assert done.returncode == 0, done.stderr
    me, friend = User("77", "x"), User("78", "y")
    time.sleep(1)
    with server.listener(friend, 5) as reader, server.connect(me, 5) as writer:
        assert writer.deliver(friend.inbox, me.message()) == 0
        assert reader.message().payload == me.message()
        assert run_cli("block", "78", "77", *at).returncode == 0
        time.sleep(1)
        refused(writer, friend.inbox, me.message(), FRIENDS)
        assert run_cli("user", "remove", "78", *at).returncode == 0
        reader.closed(0x87)


def test_no_password_is_printed(tmp_path):
    url = f"postgres://postgres:hidden@127.0.0.1:{shared().port}/nowhere?options=hidden"
    settings = {"directory.url": url, "data": tmp_path / "data"}
    for command in (["serve", "--print-config"], ["check"], ["user", "list"], ["serve"]):
        done = run_cli(*command, settings=settings)
        assert "hidden" not in done.stdout + done.stderr, command
    assert "postgres://(not shown)@127.0.0.1" in run_cli("serve", "--print-config", settings=settings).stdout


def test_check_says_what_is_wrong(tmp_path):
    at = {"directory.url": in_postgres().url, "data": tmp_path / "data"}
    done = run_cli("check", settings=at)
    assert done.returncode == 0 and "0 accounts" in done.stdout
    with shared().connect("postgres") as db:
        db.execute("CREATE DATABASE empty")
    done = run_cli("check", settings=at | {"directory.url": shared().url("empty")})
    assert done.returncode == 1 and "jam-mqtt cluster init" in done.stderr


def test_commands_on_a_database_without_tables_say_what_to_do_and_change_nothing(tmp_path):
    """Of the accounts, and of the mailbox alone."""
    accounts = in_postgres().url
    with shared().connect("postgres") as db:
        db.execute("CREATE DATABASE no_tables")
    nowhere = shared().url("no_tables")
    assert run_cli("user", "add", "1", "--directory", accounts).returncode == 0
    of_accounts = [["user", "add", "1"], ["user", "list"], ["user", "show", "1"], ["user", "token", "1"], ["user", "remove", "1"]]
    of_accounts += [["friend", "add", "1", "2"], ["friend", "remove", "1", "2"], ["friend", "list", "1"], ["block", "1", "2"], ["unblock", "1", "2"]]
    of_mailbox = [["mailbox", "list"], ["mailbox", "show", "1"], ["mailbox", "purge", "1"], ["mailbox", "purge", "1", "--all"]]
    of_mailbox += [["session", "list", "1"], ["session", "end", "1"], ["user", "remove", "1"]]
    without_accounts = {"directory.url": nowhere, "data": tmp_path / "data"}
    without_mailbox = {"directory.url": accounts, "mailbox.url": nowhere, "data": tmp_path / "data"}
    for commands, settings, said in ((of_accounts, without_accounts, "accounts"), (of_mailbox, without_mailbox, "mailbox")):
        for command in commands:
            done = run_cli(*command, settings=settings)
            last = done.stderr.strip().splitlines()[-1]
            assert done.returncode == 1, (command, done)
            assert "`jam-mqtt cluster init`" in last and said in last, (command, last)
    assert run_cli("user", "show", "1", "--directory", accounts).returncode == 0, "it was not removed"


def test_a_database_that_stands_still_or_dies_is_told_and_taken_up_again(tmp_path, start):
    postgres = PostgresServer()
    made = postgres.url("postgres")
    assert run_cli("cluster", "init", "--directory", made).returncode == 0
    for command in (["user", "add", "1", "--token", "a"], ["user", "add", "2", "--token", "b"], ["friend", "add", "1", "2"]):
        assert run_cli(*command, "--directory", made).returncode == 0

    class At:
        url = made

    me, friend = User("1", "a"), User("2", "b")
    server = start(directory=At())
    with server.listener(friend, 5) as reader, server.connect(me, 5) as writer:
        assert writer.deliver(friend.inbox, me.message(0)) == 0
        reader.message()
        postgres.signal(signal.SIGSTOP)
        until("it is told", lambda: readyz(server)[0] == 503)
        assert "accounts database does not answer" in readyz(server)[1]
        writer.publish(friend.inbox, me.message(1), 1)
        assert b"database" in writer.error()
        writer.expect(PUBACK)
        postgres.signal(signal.SIGCONT)
        began = time.monotonic()
        until("it is ready again", lambda: readyz(server)[0] == 200)
        assert time.monotonic() - began < 2
        assert writer.deliver(friend.inbox, me.message(2)) == 0
        assert reader.message().payload == me.message(2)
        assert "accounts database answers" in server.log()


def init(postgres):
    """A database of its own with the tables of accounts and mailbox, and its address."""
    url = postgres.url("postgres")
    done = run_cli("cluster", "init", "--directory", url, settings={"mailbox.url": url})
    assert done.returncode == 0, done.stderr
    return url


def test_t2_server_and_database_are_killed_at_once_and_everything_is_there(start):
    postgres = PostgresServer()
    made = init(postgres)
    for command in (["user", "add", "1", "--token", "a"], ["user", "add", "2", "--token", "b"], ["friend", "add", "1", "2"]):
        assert run_cli(*command, "--directory", made).returncode == 0

    class At:
        url = made

    me, friend = User("1", "a"), User("2", "b")
    server = start(directory=At(), settings={"mailbox.url": made})
    server.listener(friend, clean=False).leave()
    with server.connect(me) as writer:
        for n in range(20):
            assert writer.deliver(friend.inbox, me.message(n)) == 0
        processes = postgres.processes()
        postgres.signal(signal.SIGKILL)
        server.kill()
    # While one is left, its shared memory keeps another server from starting.
    until("all have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    postgres.start()
    server.start()
    with server.connect(friend, clean=False) as reader:
        assert reader.connack.session_present
        for n in range(20):
            assert reader.message().payload == me.message(n)


def test_t15_check_refuses_what_acknowledges_too_early_and_says_what_else_may(tmp_path):
    at = lambda url: {"directory.url": url, "mailbox.url": url, "data": tmp_path / "data"}
    done = run_cli("check", settings=at(init(PostgresServer("fsync=off", "synchronous_commit=off"))))
    assert done.returncode == 1
    assert "fsync is off" in done.stderr, done.stderr
    done = run_cli("check", settings=at(init(PostgresServer("synchronous_commit=off"))))
    assert done.returncode == 0, done
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    for said in ("synchronous_commit=off", "synchronous_standby_names is empty"):
        assert any(said in line for line in warnings), done.stdout
