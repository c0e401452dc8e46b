"""PROTOCOL.md, section 4: the publishing table, row by row and in its order."""

import json

import pytest
from harness import error
from harness.packets import PUBACK, PUBREC
from harness.refusals import FOREIGN, FRIENDS, JSON, LEVELS, SENDER, WILDCARDS, refused

# What {me} sends to {friend}, a friend, and {other}, a stranger. Payloads: `good` is what every
# row allows, `wrong` names another sender, `text` is no JSON.
ROWS = {
    "one level": (LEVELS, "/{me}", "good"),
    "no slash at all": (LEVELS, "willtopic", "good"),
    "only a slash": (LEVELS, "/", "good"),
    "two words": (LEVELS, "{me}/inbox", "good"),
    "hash": (WILDCARDS, "/{me}/#", "good"),
    "plus": (WILDCARDS, "/{me}/+", "good"),
    "plus inside a level": (WILDCARDS, "/{me}/a+b", "good"),
    "dollar": (WILDCARDS, "/{me}/$x", "good"),
    "dollar first": (WILDCARDS, "$SYS/broker/x", "good"),
    "dollar in the middle of a name": (WILDCARDS, "/{me}/costs5$", "good"),
    "a plus as receiver": (WILDCARDS, "/+/inbox", "good"),
    "another's device channel": (FOREIGN, "/{friend}/devices/{friend}:phone", "good"),
    "another's own channel": (FOREIGN, "/{friend}/receipts", "good"),
    "below another's inbox": (FOREIGN, "/{friend}/inbox/x", "good"),
    "slash after the inbox": (FOREIGN, "/{friend}/inbox/", "good"),
    "inbox in capitals": (FOREIGN, "/{friend}/INBOX", "good"),
    "two slashes first": (FOREIGN, "//{friend}/inbox", "good"),
    "no slash first, own": (FOREIGN, "{me}/x/y", "good"),
    "no slash first, another's": (FOREIGN, "{friend}/inbox/x", "good"),
    "a word before the inbox": (FOREIGN, "x/{friend}/inbox", "good"),
    "own id as a prefix": (FOREIGN, "/{me}0/x", "good"),
    "no JSON": (JSON, "/{friend}/inbox", "text"),
    "empty": (JSON, "/{friend}/inbox", "empty"),
    "another sender": (SENDER, "/{friend}/inbox", "wrong"),
    "a stranger's inbox": (FRIENDS, "/{other}/inbox", "good"),
    "nobody's inbox": (FRIENDS, "/999999/inbox", "good"),
    "an inbox that is no number": (FRIENDS, "/nobody/inbox", "good"),
    "friend with a leading zero": (FRIENDS, "/0{friend}/inbox", "good"),
    "friend with a space": (FRIENDS, "/{friend} /inbox", "good"),
    "friend with a decimal point": (FRIENDS, "/{friend}.0/inbox", "good"),
    "own id with a leading zero": (FRIENDS, "/0{me}/inbox", "good"),
    # What several rows refuse gets the first of them.
    "levels before wildcards": (LEVELS, "/#", "good"),
    "levels before foreign": (LEVELS, "/{friend}", "good"),
    "wildcards before foreign": (WILDCARDS, "/{friend}/+", "good"),
    "wildcards before JSON": (WILDCARDS, "/{friend}/inbox/#", "text"),
    "foreign before JSON": (FOREIGN, "/{friend}/other", "text"),
    "foreign before sender": (FOREIGN, "/{friend}/other", "wrong"),
    "foreign before friends": (FOREIGN, "/{other}/other", "good"),
    "JSON before sender": (JSON, "/{friend}/inbox", "wrong and cut"),
    "JSON before friends": (JSON, "/{other}/inbox", "text"),
    "sender before friends": (SENDER, "/{other}/inbox", "wrong"),
    "sender before nobody": (SENDER, "/999999/inbox", "wrong"),
}


@pytest.fixture(scope="module")
def people(server):
    """me, a friend of mine, and a stranger."""
    me, friend = server.friends()
    return me, friend, server.user()


def payload(kind, me, friend):
    return {
        "good": me.message(),
        "wrong": friend.message(),
        "wrong and cut": friend.message()[:-1],
        "text": b"hello",
        "empty": b"",
    }[kind]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("name", ROWS)
def test_refusals(server, people, version, name, qos):
    row, topic, kind = ROWS[name]
    me, friend, other = people
    topic = topic.format(me=me.id, friend=friend.id, other=other.id)
    with (
        server.listener(friend) as near,
        server.listener(other) as far,
        server.connect(me, version) as client,
    ):
        refused(client, topic, payload(kind, me, friend), row, qos)
        near.quiet()
        far.quiet()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_one_connection_takes_every_refusal(server, people, version, qos):
    """All rows on one connection, and after them a message still goes through."""
    me, friend, other = people
    with server.listener(friend) as reader, server.connect(me, version) as client:
        for row, topic, kind in ROWS.values():
            topic = topic.format(me=me.id, friend=friend.id, other=other.id)
            refused(client, topic, payload(kind, me, friend), row, qos)
        assert client.deliver(friend.inbox, me.message("after all"), qos) == 0
        assert reader.message().payload == me.message("after all")
        reader.quiet()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("who", ["receiver", "sender"])
def test_a_block_and_its_end(server, version, who, qos):
    """Either of the two may block; it holds both ways, at once, while both are connected."""
    me, friend = server.friends()
    pair = (friend, me) if who == "receiver" else (me, friend)
    with server.listener(friend, version) as theirs, server.listener(me, version) as mine:
        assert mine.deliver(friend.inbox, me.message("1"), qos) == 0
        assert theirs.message().payload == me.message("1")
        server.directory.block(*pair)
        refused(mine, friend.inbox, me.message("2"), FRIENDS, qos)
        refused(theirs, me.inbox, friend.message("2"), FRIENDS, qos)
        server.directory.unblock(*pair)
        assert mine.deliver(friend.inbox, me.message("3"), qos) == 0
        assert theirs.message().payload == me.message("3")


@pytest.mark.parametrize("column", ["blocked", "been_blocked"])
def test_the_receivers_row_decides(server, version, column):
    """A message from s to r is allowed when row (r, s) has neither mark."""
    me, friend = server.friends()
    server.directory.execute(
        f"UPDATE user_friends SET {column} = TRUE WHERE user_id = ? AND friend_id = ?",
        friend.id,
        me.id,
    )
    with server.connect(me, version) as client:
        refused(client, friend.inbox, me.message(), FRIENDS, 1)


def test_a_friendship_of_one_row(server, version):
    """Only the receiver's row counts; without it nothing passes."""
    me, friend = server.friends()
    server.directory.execute(
        "DELETE FROM user_friends WHERE user_id = ? AND friend_id = ?", friend.id, me.id
    )
    with server.listener(me, version) as mine, server.connect(friend, version) as theirs:
        refused(mine, friend.inbox, me.message(), FRIENDS, 1)
        assert theirs.deliver(me.inbox, friend.message()) == 0
        assert mine.message().payload == friend.message()


def test_message_ids_are_those_of_the_packets(server, people, version):
    me, _, other = people
    with server.connect(me, version) as client:
        for packet_id in (1, 7, 255, 256, 65535):
            client.publish(other.inbox, me.message(), 1, packet_id)
            assert client.error() == error(*FRIENDS[:2], packet_id)
            client.expect(PUBACK, packet_id=packet_id)


def test_each_error_stands_before_its_own_acknowledgement(server, people, version):
    """Twenty PUBLISH packets in one segment, every other one refused."""
    me, friend, other = people
    with server.listener(friend) as reader, server.connect(me, version) as client:
        for packet_id in range(1, 21):
            to = other if packet_id % 2 else friend
            client.publish(to.inbox, me.message(str(packet_id)), 1, packet_id)
        seen = [client.receive() for _ in range(30)]
        for packet_id in range(1, 21):
            (at,) = [i for i, got in enumerate(seen) if got.packet_id == packet_id]
            wrong = [i for i, got in enumerate(seen) if got.payload == error(*FRIENDS[:2], packet_id)]
            assert len(wrong) == packet_id % 2
            assert all(i < at for i in wrong)
        for packet_id in range(2, 21, 2):
            assert reader.message().payload == me.message(str(packet_id))
        reader.quiet()


def test_a_refused_qos_2_id_is_free_again_in_5_0(server, people):
    """MQTT 5.0, 4.3.3: a PUBREC of 0x80 or more ends the exchange."""
    me, friend, other = people
    with server.listener(friend) as reader, server.connect(me, 5) as client:
        refused(client, other.inbox, me.message(), FRIENDS, 2)
        assert client.release(client.last_id) == 0x92
        assert client.deliver(friend.inbox, me.message("x"), 2, packet_id=client.last_id) == 0
        assert reader.message().payload == me.message("x")


def test_a_repeated_refused_qos_2_publish_is_never_delivered(server, version):
    """Also when the two became friends between the first try and its repetition."""
    me, other = server.users(2)
    with server.listener(other, version) as reader, server.connect(me, 4) as client:
        client.publish(other.inbox, me.message(), 2, 9)
        assert client.error() == error(*FRIENDS[:2], 9)
        client.expect(PUBREC, packet_id=9)
        server.directory.befriend(me, other)
        client.publish(other.inbox, me.message(), 2, 9, dup=True)
        client.await_reply(PUBREC, 9)
        client.release(9)
        reader.quiet()


@pytest.mark.parametrize("body", [b"", b"text", b"\xff\x00", b"{", b'{"from":"someone"}'])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_own_channels_take_anything(server, version, body, qos):
    me = server.user()
    topic = f"/{me.id}/notes/today"
    with server.connect(me, version) as client:
        assert client.subscribe(topic, qos=qos) == [qos]
        assert client.deliver(topic, body, qos) == 0
        got = client.message(topic=topic, payload=body)
        assert (got.qos, got.retain, got.dup) == (qos, False, False)


@pytest.mark.parametrize("rest", ["/x", "//", "/", "/a/b/c/d", "/inbox/x", "/ü/☃", "/devices/x"])
def test_own_channels_have_any_name(server, version, rest):
    me = server.user()
    topic = f"/{me.id}{rest}"
    with server.connect(me, version) as client:
        client.subscribe(topic)
        assert client.deliver(topic, b"x") == 0
        assert client.message(topic=topic).payload == b"x"


def test_matching_is_exact(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        client.subscribe(f"/{me.id}/a", f"/{me.id}/b/", f"/{me.id}/c/d")
        for rest in ("a/", "A", "a/b", "b", "c", "c/d/e", "/a"):
            assert client.deliver(f"/{me.id}/{rest}", b"x") == 0
        client.quiet()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_own_inbox(server, version, qos):
    """The payload rules hold there, the friends rule does not."""
    me, friend = server.friends()
    with server.listener(me, version, qos=qos) as client:
        assert client.deliver(me.inbox, me.message(), qos) == 0
        assert client.message(topic=me.inbox).payload == me.message()
        refused(client, me.inbox, b"text", JSON, qos)
        refused(client, me.inbox, friend.message(), SENDER, qos)


def test_too_many_publishes_are_refused(start, version):
    """Section 8: five a second with a burst of fifty. Each is acknowledged, the error of a refused one first."""
    server = start(settings={"limits.publish_rate": 5})
    me, friend = server.friends()
    with server.connect(me, version) as client:
        ids = [client.publish(friend.inbox, me.message(), 1) for _ in range(100)]
        told, acknowledged, reasons = [], [], {}
        while len(acknowledged) < len(ids):
            got = client.receive()
            if got.kind == PUBACK:
                acknowledged.append(got.packet_id)
                reasons[got.packet_id] = got.reason
                continue
            refused_id = json.loads(got.payload)["messageId"]
            assert refused_id not in reasons
            assert got.payload == error("rate", "sending too fast", refused_id)
            told.append(refused_id)
        assert acknowledged == ids
        assert 50 <= len(ids) - len(told) <= 60
        assert ids.index(told[0]) >= 50
        for packet_id in ids:
            wanted = 0x97 if version == 5 and packet_id in told else 0
            assert reasons[packet_id] in (wanted, None)
