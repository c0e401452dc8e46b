"""PROTOCOL.md, section 6: a jam database that another process writes while the server reads it."""

import json
import subprocess
import threading
import time

import pytest
from harness import Directory, run_cli
from harness.directory import SCHEMA
from harness.packets import CONNACK, PUBACK
from harness.refusals import FRIENDS, NOTIFICATION, refused


@pytest.fixture(scope="module", params=["wal", "delete", "truncate", "persist"])
def journal(request, tmp_path_factory):
    """A server on a database in this journal mode."""
    from harness import Server

    folder = tmp_path_factory.mktemp(request.param)
    directory = Directory(folder / "jam.db", request.param)
    with Server(folder, directory=directory) as running:
        yield running


def test_blocks_take_effect_at_once(journal, version):
    """Twenty changes, each followed at once by a publish that must see it."""
    me, friend = journal.friends()
    with journal.listener(friend, version) as reader, journal.connect(me, version) as writer:
        for n in range(20):
            journal.directory.block(friend, me)
            writer.publish(friend.inbox, me.message(n), 1)
            assert b'"not friends with the receiver"' in writer.error()
            writer.expect(PUBACK)
            journal.directory.unblock(friend, me)
            assert writer.deliver(friend.inbox, me.message(n)) == 0
            assert reader.message().payload == me.message(n)


def test_new_friendships_take_effect_at_once(journal, version):
    me, other = journal.users(2)
    with journal.listener(other, version) as reader, journal.connect(me, version) as writer:
        refused(writer, other.inbox, me.message(), FRIENDS)
        journal.directory.befriend(me, other)
        assert writer.deliver(other.inbox, me.message()) == 0
        assert reader.message().payload == me.message()
        journal.directory.execute(
            "DELETE FROM user_friends WHERE user_id IN (?, ?)", me.id, other.id
        )
        refused(writer, other.inbox, me.message(), FRIENDS)


def test_new_accounts_and_tokens_take_effect_at_once(journal, version):
    for _ in range(10):
        me = journal.user()
        journal.connect(me, version).leave()
        changed = journal.directory.set_token(me, "changed")
        client, answer = journal.attempt(me, version)
        assert answer.reason == (0x87 if version == 5 else 5)
        client.close()
        journal.connect(changed, version).leave()
        journal.directory.remove(me)
        client, answer = journal.attempt(changed, version)
        assert answer.reason == (0x87 if version == 5 else 5)
        client.close()


@pytest.mark.parametrize("change", ["new token", "no token", "empty token", "deleted"])
def test_open_connections_end_within_a_second(journal, version, change):
    me, friend = journal.friends()
    client, bystander = journal.listener(me, version), journal.listener(friend, version)
    match change:
        case "new token":
            journal.directory.set_token(me, "changed")
        case "no token":
            journal.directory.set_token(me, None)
        case "empty token":
            journal.directory.set_token(me, "")
        case "deleted":
            journal.directory.remove(me)
    changed = time.monotonic()
    client.closed(reason=0x87)
    assert time.monotonic() - changed <= 1.3
    bystander.quiet()
    bystander.close()


def test_other_changes_end_nothing(journal, version):
    me, friend = journal.friends()
    with journal.listener(me, version) as client:
        for sql in (
            "UPDATE accounts SET username = 'renamed' || user_id WHERE user_id = ?",
            "UPDATE accounts SET user_notification_token = 'x' WHERE user_id = ?",
            "UPDATE accounts SET user_api_token = user_api_token WHERE user_id = ?",
            "UPDATE accounts SET inactive = 1 WHERE user_id = ?",
        ):
            journal.directory.execute(sql, me.id)
        journal.directory.block(friend, me)
        with pytest.raises(TimeoutError):
            client.receive(timeout=1.2)
        client.quiet()


def test_while_another_process_holds_the_write_lock(journal, version):
    """Reading needs no write lock: publishing and connecting go on, as quickly as the disk lets them."""
    rounds = []
    me, friend = journal.friends()
    with journal.listener(friend, version) as reader, journal.connect(me, version) as writer:
        with journal.directory.write_lock() as other:
            other.execute("UPDATE accounts SET username = 'held' WHERE user_id = ?", (me.id,))
            while len(rounds) < 5 or sum(rounds) < 2.5:
                asked = time.monotonic()
                assert writer.deliver(friend.inbox, me.message()) == 0
                assert reader.message().payload == me.message()
                reader.close()
                reader = journal.listener(friend, version)
                rounds.append(time.monotonic() - asked)
        assert min(rounds) < 0.5  # each would wait alike; any may wait for the disk
        reader.quiet()
        reader.close()


def test_while_another_process_shuts_readers_out(journal, version):
    """An exclusive lock for a second is waited for, not refused and not a reason to close."""
    me, friend = journal.friends()
    with journal.listener(friend, version) as reader, journal.connect(me, version) as writer:
        with journal.directory.write_lock("EXCLUSIVE"):
            writer.publish(friend.inbox, me.message(), 1)
            time.sleep(1)
        writer.expect(PUBACK, reason=0)
        assert reader.message().payload == me.message()


def test_under_a_storm_of_writes(journal, version):
    """Another process commits all the time; nothing is refused and nobody is closed."""
    me, friend = journal.friends()
    noise = journal.user()
    over = threading.Event()

    def write():
        while not over.is_set():
            journal.directory.set_token(noise, str(time.monotonic_ns()))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with journal.listener(friend, version) as reader, journal.connect(me, version) as writer:
            for n in range(100):
                assert writer.deliver(friend.inbox, me.message(n)) == 0
                assert reader.message().payload == me.message(n)
    finally:
        over.set()
        thread.join()


def test_writers_are_not_held_up_by_the_server(journal):
    """The server keeps no lock: every commit of another process goes through quickly."""
    users = journal.users(20)
    clients = [journal.listener(user) for user in users]
    for user in users:
        began = time.monotonic()
        journal.directory.execute("UPDATE accounts SET inactive = 0 WHERE user_id = ?", user.id)
        assert time.monotonic() - began < 1
    for client in clients:
        client.close()


def test_the_mode_of_the_database_may_change(start, version):
    server = start()
    me, friend = server.friends()
    with server.listener(friend, version) as reader, server.connect(me, version) as writer:
        server.directory.block(friend, me)
        refused(writer, friend.inbox, me.message(), FRIENDS)
        server.directory.unblock(friend, me)
        assert writer.deliver(friend.inbox, me.message()) == 0
        reader.message()


# What is missing in the database is said by name, before anything is served.

MISSING = {
    "accounts": "DROP TABLE accounts",
    "user_friends": "DROP TABLE user_friends",
    "user_api_token": "ALTER TABLE accounts DROP COLUMN user_api_token",
    "friend_id": "ALTER TABLE user_friends RENAME COLUMN friend_id TO friend",
    "blocked": "ALTER TABLE user_friends DROP COLUMN blocked",
    "been_blocked": "ALTER TABLE user_friends DROP COLUMN been_blocked",
}


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_what_is_missing_is_named(tmp_path, name, command):
    directory = Directory(tmp_path / "jam.db")
    directory.execute(MISSING[name])
    arguments = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", ""]
    done = run_cli(
        command,
        "--data",
        tmp_path / "data",
        "--directory",
        f"sqlite:{directory.path}",
        *(arguments if command == "serve" else ()),
    )
    assert done.returncode == (69 if command == "serve" else 1)  # EX_UNAVAILABLE
    assert name in done.stderr
    assert "panicked" not in done.stderr


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "jam.db").write_bytes(b"this is not a database" * 100)
    done = run_cli(
        "serve", "--data", tmp_path / "data", "--directory", f"sqlite:{tmp_path}/jam.db",
        "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "",
    )  # fmt: skip
    assert done.returncode == 69
    assert "jam.db" in done.stderr


@pytest.mark.parametrize("command", [["serve"], ["check"], ["user", "add", "1"], ["user", "list"], ["backup", "{}/b"]])
def test_a_database_that_is_named_and_missing_is_an_error(tmp_path, command):
    """A mistyped path is not served as a database without accounts, and nothing is made there."""
    path = tmp_path / "mistyped.db"
    where = ["--data", tmp_path / "data", "--directory", f"sqlite:{path}"]
    done = run_cli(*[part.format(tmp_path) for part in command], *where)
    assert done.returncode == (69 if command == ["serve"] else 1)
    assert f"there is no accounts database at {path}" in done.stderr
    assert not path.exists()
    env_file = tmp_path / "env"
    env_file.write_text(f"db_path={path}\n")
    done = run_cli("serve", "--data", tmp_path / "data", "--env-file", env_file)
    assert done.returncode == 69
    assert f"there is no accounts database at {path}" in done.stderr


def test_the_least_that_a_database_needs(start, tmp_path, version):
    """No notification token, nothing that only the web server uses: fine while push is off."""
    schema = SCHEMA.replace("user_notification_token TEXT,", "")
    for column in ("user_email TEXT UNIQUE,", "user_password_hash TEXT,"):
        schema = schema.replace(column, "")
    directory = Directory(tmp_path / "jam.db", schema=schema)
    server = start(directory=directory, arguments=["--no-notification"])
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        assert writer.deliver(friend.inbox, me.message()) == 0
        with server.listener(friend, version) as reader:
            assert reader.message().payload == me.message()


def test_more_than_a_database_needs(start, tmp_path, version):
    """Columns and tables of its own, text in integer columns, a view, a trigger: left alone."""
    directory = Directory(tmp_path / "jam.db")
    directory.execute("ALTER TABLE accounts ADD COLUMN colour TEXT DEFAULT 'red'")
    directory.execute("CREATE TABLE other (x)")
    directory.execute("CREATE VIEW everyone AS SELECT user_id FROM accounts")
    before = directory.execute("SELECT sql FROM sqlite_master ORDER BY name")
    server = start(directory=directory)
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        assert writer.deliver(friend.inbox, me.message()) == 0
    assert directory.execute("SELECT sql FROM sqlite_master ORDER BY name") == before


def service_account(folder):
    """A key file as Firebase hands it out, whose token address leads nowhere."""
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    path = folder / "key.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "jam-test",
                "private_key_id": "1",
                "private_key": key,
                "client_email": "push@jam-test.example",
                "client_id": "1",
                "token_uri": "http://127.0.0.1:9/token",
            }
        )
    )
    return path


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_notification_token_column_while_push_is_on(start, tmp_path, version, qos):
    """Section 4, last row: only a push that is due needs the column."""
    schema = SCHEMA.replace("user_notification_token TEXT,", "")
    server = start(
        directory=Directory(tmp_path / "jam.db", schema=schema),
        settings={"push.fcm_key": service_account(tmp_path), "push.fcm_url": "http://127.0.0.1:9"},
    )
    me, friend = server.friends()
    stranger = server.user()
    with server.connect(me, version) as writer:
        refused(writer, friend.inbox, me.message("lost"), NOTIFICATION, qos)
        refused(writer, stranger.inbox, me.message("friends first"), FRIENDS, qos)
        with server.listener(friend, version, qos=qos) as reader:
            assert writer.deliver(friend.inbox, me.message(), qos) == 0
            assert reader.message().payload == me.message()
            reader.quiet()


def test_the_database_is_only_read(start, version):
    server = start()
    me, friend = server.friends()
    everything = ("accounts", "user_friends", "user_devices", "sqlite_sequence", "sqlite_master")
    before = [server.directory.execute(f"SELECT * FROM {name}") for name in everything]
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message())
        with server.listener(friend, version) as reader:
            reader.message()
    server.stop()
    assert [server.directory.execute(f"SELECT * FROM {name}") for name in everything] == before


def test_a_database_made_by_the_server(tmp_path, version):
    """Missing at the start: created as a jam database, which its web server can write to."""
    path = tmp_path / "new" / "jam.db"
    done = run_cli("user", "add", "7", "--token", "secret", "--data", path.parent)
    assert done.returncode == 0, done.stderr
    tables = Directory(path, schema="").execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%user%' OR name = 'accounts'"
    )
    assert {"accounts", "user_friends", "user_devices"} <= {name for (name,) in tables}


def test_connack_waits_for_the_lock(journal, version):
    """A CONNECT that arrives under an exclusive lock is answered after it."""
    me = journal.user()
    client = journal.dial(version)
    client.user, client.client_id = me, me.client_id()
    with journal.directory.write_lock("EXCLUSIVE"):
        from harness.packets import connect

        client.send(connect(me.client_id(), me.id, me.token, version))
        time.sleep(0.7)
    assert client.expect(CONNACK).reason == 0
    client.leave()
