"""PROTOCOL.md, section 2: where errors go, once each, and that nothing else changes."""

import pytest
from harness import error
from harness.packets import PUBACK
from harness.refusals import FRIENDS, LEVELS, refused


def test_the_device_channel_needs_no_subscription(server, version):
    """The very first packet after CONNACK may be an error."""
    me, other = server.users(2)
    with server.connect(me, version) as client:
        client.publish(other.inbox, me.message(), 1, 7)
        expected = (
            b'{"type":"error","handler":"authorizePublish","category":"friends",'
            b'"message":"not friends with the receiver","messageId":7}'
        )
        assert client.error() == expected
        client.expect(PUBACK, packet_id=7)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_subscribing_to_it_does_not_double(server, version, qos):
    me = server.user()
    with server.connect(me, version) as client:
        assert client.subscribe(me.channel(), qos=qos) == [qos]
        refused(client, "willtopic", b"", LEVELS, qos)


def test_unsubscribing_from_it_does_not_end_it(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        client.subscribe(me.channel())
        client.unsubscribe(me.channel())
        refused(client, "willtopic", b"", LEVELS)


@pytest.mark.parametrize("rest", ["", ":", ":a:b", ":a/b", ":ü ☃"])
def test_the_channel_is_named_by_the_whole_client_id(server, version, rest):
    me = server.user()
    with server.connect(me, version, client_id=me.id + rest) as client:
        refused(client, "willtopic", b"", LEVELS)


def test_errors_are_not_retained_and_not_kept(server, version):
    """A session that comes back finds none of its old errors."""
    me = server.user()
    session = {"clean": False, "props": {"session_expiry": 60}}
    with server.connect(me, version, **session) as client:
        client.subscribe(me.channel())
        refused(client, "willtopic", b"", LEVELS)
    with server.connect(me, version, **session) as client:
        client.subscribe(me.channel())
        client.quiet()


def test_a_subscription_elsewhere_sees_no_errors(server, version):
    """Only the device that caused an error gets it, also when its channel is written to by hand."""
    me, friend = server.friends()
    with server.listener(friend, version) as near, server.connect(me, version) as client:
        near.subscribe(me.channel())
        near.error()
        refused(client, "willtopic", b"", LEVELS)
        near.quiet()


def test_a_publish_to_the_own_device_channel_arrives(server, version):
    """It is an own channel like any other, and the client is on it."""
    me = server.user()
    with server.connect(me, version) as client:
        assert client.deliver(me.channel(), b"note to self") == 0
        assert client.message(topic=me.channel()).payload == b"note to self"


def test_numbers_at_qos_0(server, version):
    me, other = server.users(2)
    with server.connect(me, version) as client:
        client.publish(other.inbox, me.message(), 0)
        assert client.error() == error(*FRIENDS[:2], None)
        client.ping()
