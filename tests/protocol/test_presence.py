"""PROTOCOL.md, section 10: what friends are told of each other's coming and going."""

import time

import pytest
from harness.channels import presence, told
from harness.directory import Directory

# How long somebody must be away before their friends are told, and what the server may need besides.
AWAY = 5
SLACK = 3
SESSION = {"clean": False, "props": {"session_expiry": 600}}


def watcher(server, user, version=4, **options):
    client = server.connect(user, version, **options)
    client.subscribe(presence(user))
    return client


def test_a_friend_comes_and_goes(server, version):
    me, friend = server.friends()
    with watcher(server, me, version) as watching:
        for _ in range(2):
            phone = server.connect(friend, version)
            told(watching, friend, True)
            phone.leave()
            gone = time.monotonic()
            told(watching, friend, False)
            assert AWAY - 0.1 < time.monotonic() - gone < AWAY + SLACK
        watching.quiet()


def test_nobody_else_is_told(server, version):
    """Neither a friend who does not subscribe, nor a stranger who does, nor the user."""
    me, friend = server.friends()
    third, witness = server.users(2)
    server.directory.befriend(friend, witness)
    # A friendship has two rows.
    server.directory.execute("INSERT INTO user_friends VALUES (?, ?, FALSE, FALSE)", third.id, friend.id)
    with (
        server.listener(me, version) as silent,
        watcher(server, third, version) as stranger,
        watcher(server, witness, version) as seeing,
    ):
        silent.subscribe(f"/{me.id}/presence/", f"/{me.id}/receipts")
        with watcher(server, friend, version) as phone:
            told(seeing, friend, True)
            seen = {phone.message(topic=presence(friend)).payload for _ in range(2)}
            assert {b'"user":"%s"' % user.id.encode() for user in (me, witness)} == {
                payload.split(b",")[1] for payload in seen
            }
            phone.quiet()
        told(seeing, friend, False)
        for client in (silent, stranger):
            client.quiet()


def test_upon_subscribing(server, version):
    """One for each friend who is online, for every SUBSCRIBE, and nothing for the others."""
    me, *friends = server.users(6)
    for friend in friends:
        server.directory.befriend(me, friend)
    online, blocking = friends[:3], friends[3]
    server.directory.block(blocking, me)
    clients = [server.connect(friend, version) for friend in [*online, blocking]]
    with watcher(server, me, version) as watching:
        for n in range(3):
            if n:
                watching.subscribe(presence(me))
            seen = [watching.message(topic=presence(me)).payload for _ in online]
            assert sorted(payload.split(b",")[1:3] for payload in seen) == sorted(
                [b'"user":"%s"' % friend.id.encode(), b'"online":true'] for friend in online
            )
            watching.quiet()
    for client in clients:
        client.close()


def test_no_flicker(server, version):
    """Reconnecting, taking over and changing the phone tell nobody anything."""
    me, friend = server.friends()
    with watcher(server, me, version) as watching:
        phone = server.connect(friend, version)
        told(watching, friend, True)
        for n in range(4):
            phone.stream.close() if n % 2 else phone.leave()
            time.sleep(0.3)
            phone = server.connect(friend, version)
        taken_over, phone = phone, server.connect(friend, version)
        new = server.connect(friend, version, device="new")
        time.sleep(AWAY + SLACK)
        watching.quiet()
        for client in (taken_over, phone, new):
            client.stream.close()
        told(watching, friend, False)


def test_two_devices_are_one_presence(start):
    server = start(settings={"sessions.devices": "many"})
    me, friend = server.friends()
    with watcher(server, me) as watching:
        phone, tablet = (server.connect(friend, device=name) for name in ("phone", "tablet"))
        told(watching, friend, True)
        with watcher(server, me, device="second") as second:
            told(second, friend, True)
            watching.quiet()
        phone.leave()
        time.sleep(AWAY + SLACK)
        watching.quiet()
        tablet.leave()
        told(watching, friend, False)


def test_a_block_counts_at_once(server, version):
    me, friend = server.friends()
    with watcher(server, me, version) as watching:
        phone = server.connect(friend, version)
        told(watching, friend, True)
        phone.leave()
        # Within the few seconds before it would have been told.
        server.directory.block(friend, me)
        time.sleep(AWAY + SLACK)
        watching.quiet()
        # Coming, and when the other one subscribes anew.
        with server.connect(friend, version):
            watching.subscribe(presence(me))
            time.sleep(1)
            watching.quiet()
            # A block itself, or its end, is no coming and no going.
            server.directory.unblock(friend, me)
            time.sleep(1)
            watching.quiet()
            watching.subscribe(presence(me))
            told(watching, friend, True)
            # The one who has blocked is told of the one who is blocked.
            server.directory.block(me, friend)
            watching.subscribe(presence(me))
            told(watching, friend, True)
            server.directory.execute(
                "DELETE FROM user_friends WHERE user_id = ?", friend.id
            )
            watching.subscribe(presence(me))
            time.sleep(0.5)
            watching.quiet()


def test_a_new_friendship(server):
    """To make friends is no coming; what happens from then on is told."""
    me, other = server.users(2)
    with watcher(server, me) as watching:
        phone = server.connect(other)
        time.sleep(0.5)
        server.directory.befriend(me, other)
        time.sleep(0.5)
        watching.quiet()
        phone.leave()
        told(watching, other, False)


def test_after_a_start_everybody_is_offline(start, version):
    """Nobody is told that those are gone who were there before."""
    server = start()
    me, friend = server.friends()
    with server.connect(friend, version, **SESSION):
        with watcher(server, me, version, **SESSION) as watching:
            told(watching, friend, True)
            watching.ping()
            server.kill()
    server.start()
    with server.connect(me, version, **SESSION) as watching:
        assert watching.connack.session_present
        time.sleep(AWAY + SLACK)
        watching.quiet()
        with server.connect(friend, version, **SESSION):
            told(watching, friend, True)


def test_not_kept_for_who_is_away(server, version):
    me, friend = server.friends()
    watcher(server, me, version, **SESSION).close()
    with server.connect(friend, version):
        time.sleep(0.5)
        with server.connect(me, version, **SESSION) as watching:
            time.sleep(0.5)
            watching.quiet()


def test_a_dead_connection(server):
    """Whose connection breaks has gone; so has who is no longer let in."""
    me, friend = server.friends()
    with watcher(server, me) as watching:
        phone = server.connect(friend)
        told(watching, friend, True)
        server.directory.set_token(friend, "another")
        phone.closed()
        told(watching, friend, False)


def test_a_locked_directory_delays_and_loses_nothing_else(start, tmp_path):
    server = start(directory=Directory(tmp_path / "directory.db", "delete"))
    me, friend = server.friends()
    with watcher(server, me) as watching, server.listener(friend) as phone:
        told(watching, friend, True)
        with server.directory.write_lock("EXCLUSIVE"):
            watching.subscribe(presence(me))
            time.sleep(0.5)
            watching.quiet()
            phone.quiet()
        told(watching, friend, True)


@pytest.mark.parametrize("qos", [0, 1])
def test_users_may_write_there_themselves(server, version, qos):
    me = server.user()
    with watcher(server, me, version) as watching:
        watching.publish(presence(me), b"x", qos)
        got = {watching.receive().kind for _ in range(1 + qos)}
        assert len(got) == 1 + qos
