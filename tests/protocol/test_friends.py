"""PROTOCOL.md, section 10: what users are told of who their friends are."""

import threading
import time
from contextlib import closing

import pytest
from harness.channels import friends, listed, shown
from harness.directory import Directory
from harness.packets import PUBLISH, SUBACK, connect, subscribe
from harness.raw import Closed

# Within which a change has to be there, and what a busy machine may need besides.
SECOND = 1
SLACK = 3
SESSION = {"clean": False, "props": {"session_expiry": 600}}


def watcher(server, user, version=4, **options):
    """A client of a user that has been told of the user's friends."""
    client = server.connect(user, version, **options)
    client.subscribe(friends(user), qos=0)
    listed(client)
    return client


def payloads(client):
    """Everything that has come by now, without timestamps."""
    client.ping()
    got, client.backlog = list(client.backlog), type(client.backlog)()
    return [(it.kind, it.topic, (it.payload or b"").split(b',"timestamp"')[0]) for it in got]


def test_a_block_by_the_other_side_never_shows(server, version):
    """Neither in a list, nor by one that comes, nor in what else the client is told."""
    me, friend, other = server.users(3)
    for one in (friend, other):
        server.directory.befriend(me, one)
    expected = [shown(friend), shown(other)]
    with server.connect(me, version) as watching:
        watching.subscribe(friends(me))
        assert listed(watching) == expected
        for blocked in (True, False, True):
            server.directory.block(friend, me, blocked)
            time.sleep(SECOND + SLACK / 2)
            assert payloads(watching) == []
            watching.subscribe(friends(me))
            assert listed(watching) == expected
        # What this user does shows, and nothing besides.
        for blocked in (True, False):
            server.directory.block(me, friend, blocked)
            assert listed(watching) == [shown(friend, blocked=blocked), shown(other)]
        time.sleep(SECOND + SLACK / 2)
        assert payloads(watching) == []
    # Who was blocked before the first look sees the same.
    with server.connect(me, version) as watching:
        watching.subscribe(friends(me))
        assert listed(watching) == expected
        watching.quiet()


def test_nobody_else_is_told(server, version):
    me, friend = server.friends()
    with server.listener(me, version) as silent, server.connect(friend, version) as stranger:
        silent.subscribe(f"/{me.id}/friends/", f"/{me.id}/friend", f"/{me.id}/Friends")
        for foreign, code in ((f"/{me.id}/friends", 0x87), ("/+/friends", 0xA2), (f"$share/g/{friends(friend)}", 0xA2)):
            assert stranger.subscribe(foreign) == [code if version == 5 else 0x80]
            stranger.message(topic=friend.channel())
        assert stranger.deliver(friends(me), b"x") not in (0, None)
        stranger.backlog.clear()
        server.directory.block(me, friend)
        time.sleep(SECOND + SLACK / 2)
        silent.quiet()
        stranger.quiet()


def test_after_every_suback(server, version, transport, home):
    me, friend = home.friends()
    with home.connect(me, version, transport=transport) as client:
        for packet_id in (7, 8, 9):
            client.send(subscribe(packet_id, [(friends(me), 1), ("/x", 0)], version))
            client.message(topic=me.channel())
            client.expect(SUBACK, packet_id=packet_id)
            assert listed(client) == [shown(friend)]
        client.quiet()


def test_bytes(server):
    """A list as it is on the wire."""
    me, friend = server.friends()
    with server.connect(me) as client:
        client.send(subscribe(1, [(friends(me), 0)], 4))
        got = [client.expect(SUBACK), client.expect(PUBLISH)][1].raw
    topic = friends(me).encode()
    body = (
        b'{"type":"friends","friends":[{"user":"%(id)s","name":"user%(id)s","blocked":false,"publicKey":null}],'
        b'"part":1,"parts":1,"timestamp":"' % {b"id": friend.id.encode()}
    )
    rest = bytes([0, len(topic)]) + topic + body
    assert got[:3] == bytes([0x30, (len(rest) + 26) % 128 + 128, (len(rest) + 26) // 128])
    assert got[3 : 3 + len(rest)] == rest
    assert got.endswith(b'Z"}')


def test_a_burst_of_subscribes_has_one_list_after_the_last(server, version):
    me, _ = server.friends()
    with server.connect(me, version) as client:
        client.send(*(subscribe(packet_id, [(friends(me), 0)], version) for packet_id in range(1, 201)))
        kinds = []
        while kinds.count(SUBACK) < 200:
            kinds.append(client.receive().kind)
        time.sleep(SECOND)
        client.ping()
        kinds += [got.kind for got in client.backlog]
        client.backlog.clear()
        last = len(kinds) - kinds[::-1].index(SUBACK)
        assert kinds[last:] == [PUBLISH]
        assert kinds.count(PUBLISH) <= 5


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_changes_by_another_process_within_a_second(start, tmp_path, mode, version):
    server = start(directory=Directory(tmp_path / "jam.db", mode))
    me, friend, other = server.users(3)
    server.directory.befriend(me, friend)

    def sql(statement, *values):
        return lambda: server.directory.execute(statement, *values)

    changes = [
        (lambda: server.directory.befriend(me, other), [shown(friend), shown(other)]),
        (lambda: server.directory.block(me, friend), [shown(friend, blocked=True), shown(other)]),
        (lambda: server.directory.unblock(me, friend), [shown(friend), shown(other)]),
        (
            sql("UPDATE accounts SET username = ? WHERE user_id = ?", 'b"é\n', friend.id),
            [shown(friend, 'b"é\n'), shown(other)],
        ),
        (
            sql("UPDATE accounts SET public_key = ? WHERE user_id = ?", "-----BEGIN", friend.id),
            [shown(friend, 'b"é\n', key="-----BEGIN"), shown(other)],
        ),
        (lambda: server.directory.remove(other), [shown(friend, 'b"é\n', key="-----BEGIN")]),
        (sql("DELETE FROM user_friends WHERE user_id = ?", friend.id), []),
    ]
    with watcher(server, me, version) as watching, watcher(server, friend, version) as witness:
        late = []
        for change, expected in changes:
            change()
            committed = time.monotonic()
            assert listed(watching) == expected
            late.append(time.monotonic() - committed)
        assert max(late) < SECOND + SLACK, late
        assert sorted(late)[len(late) // 2] < SECOND, late
        # The friend is told of the friendship's end and of nothing else: names and keys are the others'.
        assert listed(witness) == []
        watching.quiet()
        witness.quiet()


def test_five_thousand_friends(start, version):
    server = start()
    me = server.user()
    with closing(server.directory.open()) as db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO accounts (user_id, username) VALUES (?, ?)", [(n, f"user{n}") for n in range(10, 5010)])
        db.executemany("INSERT INTO user_friends VALUES (?, ?, FALSE, FALSE)", [(int(me.id), n) for n in range(10, 5010)])
        db.executemany("INSERT INTO user_friends VALUES (?, ?, FALSE, FALSE)", [(n, int(me.id)) for n in range(10, 5010)])
        db.execute("COMMIT")
    with server.connect(me, version) as client:
        client.subscribe(friends(me))
        assert [it["user"] for it in listed(client)] == [str(n) for n in range(10, 5010)]
        client.quiet()
        server.directory.execute("UPDATE accounts SET username = 'zoe' WHERE user_id = 4321")
        assert [it["user"] for it in listed(client) if it["name"] == "zoe"] == ["4321"]
        client.quiet()


def test_small_packets_small_parts(server):
    """Maximum Packet Size is kept to, and all friends come."""
    me, *others = server.users(31)
    for other in others:
        server.directory.befriend(me, other)
    for most in (300, 1000):
        with server.connect(me, 5, props={"maximum_packet_size": most}) as client:
            client.subscribe(friends(me), props={"subscription_id": 268_435_455})
            client.ping()
            time.sleep(SECOND)
            client.ping()
            assert len(client.backlog) > 1 and max(len(got.raw) for got in client.backlog) <= most
            assert [it["user"] for it in listed(client)] == [other.id for other in others]


def test_a_session_that_goes_on(start, version):
    """Who comes back to a subscription is told after CONNACK, also by a server that has been killed."""
    server = start()
    me, friend = server.friends()
    watcher(server, me, version, **SESSION).close()
    server.directory.block(me, friend)
    with server.connect(me, version, **SESSION) as client:
        assert client.connack.session_present
        assert listed(client) == [shown(friend, blocked=True)]
        client.quiet()
        server.kill()
    server.directory.unblock(me, friend)
    server.start()
    with server.connect(me, version, **SESSION) as client:
        assert client.connack.session_present
        assert listed(client) == [shown(friend)]
        client.unsubscribe(friends(me))
    with server.connect(me, version, **SESSION) as client:
        assert client.connack.session_present
        time.sleep(SECOND)
        client.quiet()


def test_a_client_that_subscribes_as_it_comes_back_is_told_once(server, version):
    me, friend = server.friends()
    watcher(server, me, version, **SESSION).close()
    time.sleep(SECOND)
    with server.dial(version) as client:
        client.user, client.client_id = me, me.client_id()
        hello = connect(me.client_id(), me.id, me.token, version=version, **SESSION)
        client.send(hello, subscribe(1, [(friends(me), 0)], version))
        client.receive()
        time.sleep(SECOND)
        client.ping()
        kinds = [got.kind for got in client.backlog]
        assert kinds.index(SUBACK) < len(kinds) - 1 and kinds.count(PUBLISH) <= 2


def test_two_devices(start):
    server = start(settings={"sessions.devices": "many"})
    me, friend = server.friends()
    with watcher(server, me, 5) as phone, watcher(server, me, 4, device="tablet") as tablet:
        phone.quiet()
        server.directory.block(me, friend)
        for device in (phone, tablet):
            assert listed(device) == [shown(friend, blocked=True)]
            device.unsubscribe(friends(me))
        server.directory.unblock(me, friend)
        time.sleep(SECOND)
        phone.quiet()


def test_a_storm_of_changes(start):
    """A thousand rows a second: whose list changes is told at a pace and to the end, the others nothing."""
    server = start()
    me, friend, other = server.users(3)
    server.directory.befriend(me, friend)
    lists = 0
    with watcher(server, me) as watching, watcher(server, other) as calm:
        over = threading.Event()

        def storm():
            with closing(server.directory.open()) as db:
                number = 0
                while not over.wait(0.001):
                    number += 1
                    db.execute("UPDATE accounts SET username = ? WHERE user_id = ?", (f"storm{number}", friend.id))
                db.execute("UPDATE accounts SET username = 'calm' WHERE user_id = ?", (friend.id,))

        writer = threading.Thread(target=storm)
        writer.start()
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            try:
                listed(watching, timeout=ends - time.monotonic())
                lists += 1
            except (TimeoutError, OSError):
                break
        over.set()
        writer.join()
        ended = time.monotonic()
        while listed(watching)[0]["name"] != "calm":
            lists += 1
        assert time.monotonic() - ended < SECOND + SLACK
        assert 1 <= lists <= 4 / 0.4 + 3
        watching.quiet()
        calm.quiet()


def test_a_client_that_does_not_read_holds_up_nobody(start):
    """It asks for a long list again and again; the others are told, and messages go their way."""
    server = start()
    me, friend, other = server.users(3)
    server.directory.befriend(friend, other)
    with closing(server.directory.open()) as db:
        db.execute("BEGIN")
        key = "k" * 500
        numbers = range(100, 4100)
        db.executemany("INSERT INTO accounts (user_id, public_key) VALUES (?, ?)", [(n, key) for n in numbers])
        db.executemany("INSERT INTO user_friends VALUES (?, ?, FALSE, FALSE)", [(int(me.id), n) for n in numbers])
        db.executemany("INSERT INTO user_friends VALUES (?, ?, FALSE, FALSE)", [(n, int(me.id)) for n in numbers])
        db.execute("COMMIT")
    with server.connect(me) as hostile, watcher(server, friend) as calm, server.listener(other) as reader:
        over = threading.Event()

        def flood():
            packet_id = 0
            while not over.wait(0.005):
                packet_id = packet_id % 65_535 + 1
                try:
                    hostile.send(subscribe(packet_id, [(friends(me), 0)], 4))
                except (OSError, Closed):
                    return

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            for blocked in (True, False, True, False):
                server.directory.block(friend, other, blocked)
                assert listed(calm, SECOND + SLACK) == [shown(other, blocked=blocked)]
            message = friend.message("through")
            assert calm.deliver(other.inbox, message) == 0
            assert reader.message().payload == message
        finally:
            over.set()
            hostile.stream.close()
            flooding.join()


def test_a_locked_accounts_database_delays(start, tmp_path):
    server = start(directory=Directory(tmp_path / "directory.db", "delete"))
    me, friend = server.friends()
    with watcher(server, me) as watching:
        time.sleep(SECOND)
        with server.directory.write_lock("EXCLUSIVE"):
            watching.subscribe(friends(me))
            time.sleep(0.5)
            watching.quiet()
        assert listed(watching) == [shown(friend)]


def test_a_database_without_names_and_keys(start, tmp_path):
    old = """CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT, inactive BOOLEAN, username TEXT);
        CREATE TABLE user_friends (user_id INTEGER, friend_id INTEGER, blocked BOOLEAN, been_blocked BOOLEAN,
            PRIMARY KEY (user_id, friend_id));"""
    server = start(directory=Directory(tmp_path / "old.db", schema=old))
    me, friend = server.friends()
    server.directory.execute("ALTER TABLE accounts DROP COLUMN username")
    with server.connect(me) as client:
        client.subscribe(friends(me))
        assert listed(client) == [{"user": friend.id, "name": None, "blocked": False, "publicKey": None}]


@pytest.mark.parametrize("qos", [0, 1])
def test_users_may_write_there_themselves(server, version, qos):
    me = server.user()
    with watcher(server, me, version) as watching:
        watching.publish(friends(me), b"x", qos)
        got = {watching.receive().kind for _ in range(1 + qos)}
        assert len(got) == 1 + qos
