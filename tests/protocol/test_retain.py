"""RETAIN is honoured on own channels and has no effect on an inbox (PROTOCOL.md, section 4)."""

import pytest


def own(user):
    return f"/{user.id}/status"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_kept_for_later_subscriptions(server, version, qos):
    me = server.user()
    with server.connect(me, version) as client:
        client.deliver(own(me), b"first", qos, retain=True)
        client.deliver(own(me), b"second", qos, retain=True)
        client.subscribe(own(me), qos=2)
        got = client.message(topic=own(me), payload=b"second")
        assert (got.retain, got.qos) == (True, qos)
        client.quiet()


def test_live_ones_are_not_marked(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        client.subscribe(own(me))
        client.deliver(own(me), b"x", retain=True)
        assert client.message(payload=b"x").retain is False


def test_an_empty_payload_clears(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        client.deliver(own(me), b"x", retain=True)
        client.subscribe(own(me))
        client.message(payload=b"x")
        client.deliver(own(me), b"", retain=True)
        assert client.message(payload=b"").retain is False
        client.subscribe(own(me))
        client.quiet()


def test_without_the_flag_nothing_is_kept(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        client.deliver(own(me), b"kept", retain=True)
        client.deliver(own(me), b"not kept")
        client.subscribe(own(me))
        assert client.message().payload == b"kept"
        client.quiet()


def test_it_outlives_its_connection(server, version):
    me = server.user()
    with server.connect(me, version) as client:
        client.deliver(own(me), b"x", retain=True)
    with server.connect(me, version, device="new") as client:
        client.subscribe(own(me))
        assert client.message(payload=b"x").retain is True


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_effect_on_an_inbox(server, version, qos):
    me, friend = server.friends()
    with server.listener(friend, version, qos=qos) as reader, server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message(), qos, retain=True)
        assert reader.message(payload=me.message()).retain is False
        reader.subscribe(friend.inbox)
        reader.quiet()
        writer.subscribe(me.inbox, qos=qos)
        writer.deliver(me.inbox, me.message("own"), qos, retain=True)
        assert writer.message(payload=me.message("own")).retain is False
        writer.subscribe(me.inbox)
        writer.quiet()


def test_no_effect_on_an_inbox_while_nobody_is_there(server, version):
    """Kept as any message is: it comes once, unmarked."""
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message(), retain=True)
    with server.listener(friend, version) as reader:
        assert reader.message(payload=me.message()).retain is False
        reader.subscribe(friend.inbox)
        reader.quiet()


def test_refused_ones_are_not_kept(server, version):
    me, friend = server.friends()
    with server.connect(me, version) as writer, server.connect(friend, version) as other:
        writer.deliver(own(friend), b"not mine", retain=True)
        writer.error()
        other.subscribe(own(friend))
        other.quiet()


# Subscription options of 5.0 (3.8.3.1): bits 4 and 5 retain handling, bit 3 retain as published.


@pytest.mark.parametrize("handling", [0, 1, 2])
def test_retain_handling(server, handling):
    me = server.user()
    with server.connect(me, 5) as client:
        client.deliver(own(me), b"x", retain=True)
        expected = {0: [1, 1], 1: [1, 0], 2: [0, 0]}[handling]
        for count in expected:
            client.subscribe((own(me), 1 | handling << 4))
            for _ in range(count):
                assert client.message(payload=b"x").retain
            client.quiet()


def test_retain_as_published(server):
    me = server.user()
    with server.connect(me, 5) as client:
        client.subscribe((own(me), 1 | 8))
        client.deliver(own(me), b"kept", retain=True)
        client.deliver(own(me), b"not", retain=False)
        assert client.message(payload=b"kept").retain is True
        assert client.message(payload=b"not").retain is False


def test_retained_properties_pass(server):
    me = server.user()
    with server.connect(me, 5) as client:
        props = {"content_type": "text/plain", "message_expiry": 100}
        client.deliver(own(me), b"x", retain=True, props=props)
        client.subscribe(own(me))
        got = client.message(payload=b"x")
        assert got.get("content_type") == "text/plain"
        assert 95 <= got.get("message_expiry") <= 100
