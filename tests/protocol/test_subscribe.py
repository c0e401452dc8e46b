"""PROTOCOL.md, section 5: each filter of a SUBSCRIBE is judged for itself."""

import pytest
from harness import error
from harness.packets import SUBACK, UNSUBACK, subscribe, unsubscribe

WILDCARDS = ("wildcards are not allowed in topic", 0xA2)
LEVELS = ("not enough topic levels", 0x8F)
FOREIGN = ("not authorized", 0x87)

ROWS = {
    "hash": (WILDCARDS, "#"),
    "plus": (WILDCARDS, "/+/inbox"),
    "own with hash": (WILDCARDS, "/{me}/#"),
    "hash inside a level": (WILDCARDS, "/{me}/a#b"),
    "plus inside a level": (WILDCARDS, "/{me}/a+b"),
    "dollar": (WILDCARDS, "/{me}/$x"),
    "system": (WILDCARDS, "$SYS/broker/uptime"),
    "shared": (WILDCARDS, "$share/group//{me}/inbox"),
    "no slash": (LEVELS, "inbox"),
    "own id alone": (LEVELS, "{me}"),
    "only a slash": (FOREIGN, "/"),
    "another's inbox": (FOREIGN, "/{other}/inbox"),
    "another's device channel": (FOREIGN, "/{other}/devices/{other}:phone"),
    "another's id alone": (FOREIGN, "/{other}"),
    "no slash first": (FOREIGN, "{me}/inbox"),
    "two slashes first": (FOREIGN, "//{me}/inbox"),
    "own id as a prefix": (FOREIGN, "/{me}0/inbox"),
    "leading zero": (FOREIGN, "/0{me}/inbox"),
    "needs escapes": (FOREIGN, '/x/"quoted"\\ü'),
    "wildcards before levels": (WILDCARDS, "+"),
    "wildcards before foreign": (WILDCARDS, "/{other}/#"),
    "levels before foreign": (LEVELS, "{other}"),
}


def answer(row, version):
    return row[1] if version == 5 else 0x80


@pytest.mark.parametrize("name", ROWS)
def test_refusals(server, version, name):
    row, topic_filter = ROWS[name]
    me, other = server.users(2)
    topic_filter = topic_filter.format(me=me.id, other=other.id)
    with server.connect(me, version) as client:
        client.send(subscribe(7, [(topic_filter, 1)], version))
        assert client.error() == error(topic_filter, row[0], handler="authorizeSubscribe")
        got = client.expect(SUBACK, packet_id=7)
        assert got.codes == [answer(row, version)]
        assert version == 5 or got.raw == b"\x90\x03\x00\x07\x80"
        client.subscribe(me.inbox)
        client.quiet()


def test_filters_are_judged_one_by_one(server, version):
    me, other = server.friends()
    filters = [
        (f"/{me.id}/a", 0),
        ("#", 1),
        (me.inbox, 1),
        ("x", 0),
        (other.inbox, 2),
        (f"/{me.id}", 2),
        (me.channel(), 1),
    ]
    with server.connect(me, version) as client:
        client.send(subscribe(300, filters, version))
        for name, row in (("#", WILDCARDS), ("x", LEVELS), (other.inbox, FOREIGN)):
            assert client.error() == error(name, row[0], handler="authorizeSubscribe")
        no = [answer(row, version) for row in (WILDCARDS, LEVELS, FOREIGN)]
        codes = [0, no[0], 1, no[1], no[2], 2, 1]
        assert client.expect(SUBACK, packet_id=300).codes == codes
        with server.connect(other, version) as writer:
            writer.deliver(me.inbox, other.message())
        assert client.message().payload == other.message()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_granted_qos_is_what_was_asked(server, version, qos):
    me = server.user()
    with server.connect(me, version) as client:
        assert client.subscribe(me.inbox, f"/{me.id}/x", qos=qos) == [qos, qos]


def test_a_refused_filter_gets_nothing(server, version):
    me, friend = server.friends()
    with server.connect(me, version) as spy, server.connect(friend, version) as client:
        spy.subscribe(friend.inbox, f"/{friend.id}/x", "/+/x", "#")
        for _ in range(4):
            spy.receive()
        client.deliver(f"/{friend.id}/x", b"own")
        client.deliver(friend.inbox, friend.message())
        spy.quiet()


def test_subscribing_again_replaces(server, version):
    """MQTT 3.8.4: the same filter again replaces the first, so a message comes once."""
    me = server.user()
    topic = f"/{me.id}/x"
    with server.connect(me, version) as client:
        client.subscribe(topic, qos=0)
        client.subscribe((topic, 0), (topic, 1))
        client.deliver(topic, b"x")
        assert client.message(payload=b"x").qos == 1
        client.quiet()


def test_unsubscribing(server, version):
    me = server.user()
    topics = [f"/{me.id}/a", f"/{me.id}/b"]
    with server.connect(me, version) as client:
        client.subscribe(*topics)
        client.send(unsubscribe(9, [topics[0], "#", "/nobody/x"], version))
        got = client.expect(UNSUBACK, packet_id=9)
        assert got.codes == ([0, 0x11, 0x11] if version == 5 else [])
        client.deliver(topics[0], b"not wanted")
        client.deliver(topics[1], b"wanted")
        assert client.message().payload == b"wanted"
        client.quiet()


def test_unsubscribing_the_inbox(server, version):
    """What comes meanwhile is kept, and delivered upon subscribing again."""
    me, friend = server.friends()
    with server.listener(me, version) as client, server.connect(friend, version) as writer:
        client.unsubscribe(me.inbox)
        writer.deliver(me.inbox, friend.message("kept"))
        client.quiet()
        client.subscribe(me.inbox)
        assert client.message().payload == friend.message("kept")


def test_many_filters_in_one_packet(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        topics = [f"/{me.id}/{n}" for n in range(100)]
        assert client.subscribe(*topics) == [1] * 100
        client.deliver(topics[50], b"x")
        assert client.message(topic=topics[50]).payload == b"x"


def test_subscription_identifiers(server):
    me, friend = server.friends()
    with server.connect(me, 5) as client, server.connect(friend, 5) as writer:
        if client.connack.get("subscription_id_available", 1) == 0:
            client.send(subscribe(1, [(me.inbox, 1)], 5, {"subscription_id": 5}))
            client.closed(reason=0xA1)
            return
        client.subscribe(me.inbox, props={"subscription_id": 268_435_455})
        writer.deliver(me.inbox, friend.message())
        assert client.message().get("subscription_id") == 268_435_455


def test_no_local(server):
    me = server.user()
    topic = f"/{me.id}/x"
    with server.connect(me, 5) as client:
        client.subscribe((topic, 0x05))
        client.deliver(topic, b"my own")
        client.quiet()
