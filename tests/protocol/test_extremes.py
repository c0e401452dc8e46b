"""Fields at the ends of what the standard allows, from the first byte to the last (MQTT 5.0, 1.5 and 3.1)."""

import time

import pytest
from harness import error
from harness.packets import SUBACK, Will, connect, subscribe

ID = error("id", "client id and user id don't match", handler="authenticate")
FORMAT = error("api_token", "wrong api token format", handler="authenticate")
WRONG = error("api_token", "wrong api token", handler="authenticate")
FOREVER = 0xFFFFFFFF
KEPT = {"clean": False, "props": {"session_expiry": FOREVER}}


def refused(server, me, version, said, reason, code, **options):
    client, answer = server.attempt(me, version, **options)
    if version == 5:
        assert (answer.reason, answer.get("reason_string")) == (reason, said.decode())
    else:
        assert answer.raw == bytes([0x20, 2, 0, code])
    client.closed()


@pytest.mark.parametrize("length", [257, 4_096, 65_000])
def test_a_client_id_that_is_too_long(server, version, length):
    """Section 1: at most 256 bytes; the answer is the first row of `authenticate`, and holds nothing of it."""
    me = server.user()
    longest = f"{me.id}:".ljust(256, "x")
    server.connect(me, version, client_id=longest).leave()
    refused(server, me, version, ID, 0x85, 4, client_id=longest.ljust(length, "x"))
    server.connect(me, version).leave()


@pytest.mark.parametrize("field", ["client_id", "user", "password"])
def test_a_connect_that_is_larger_than_any(server, version, field):
    """The largest string there is makes a CONNECT of more than 64 KiB: nobody is let in by it, and it is told or closed."""
    me = server.user()
    options = {"client_id": me.client_id(), "user": me.id, "password": me.token}
    options[field] = options[field].ljust(65_535, "x")
    client = server.dial(version)
    client.send(connect(version=version, **options))
    seen = b""
    while more := client.stream.receive(8):
        seen += more
    assert seen == b"" or (seen[0] == 0x20 and seen[3] != 0 and b"xxx" not in seen), seen
    server.connect(me, version).leave()


def test_long_tokens(server, version):
    """What is allowed as a token lets its owner in."""
    me = server.user()
    token = me.token
    for length in (1, 60_000):
        server.directory.set_token(me, "t" * length)
        server.connect(me, version, password="t" * length).leave()
    for wrong in ("t" * 59_999, "t" * 60_001, "u" * 60_000):
        refused(server, me, version, WRONG, 0x87, 5, password=wrong)
    refused(server, me, version, FORMAT, 0x86, 4, password="")
    server.directory.set_token(me, token)


@pytest.mark.parametrize("share", ["$share/g//{me}/inbox", "$share//{me}/inbox", "$share/g", "$share/+/x", "$share/", "$share"])
def test_shared_subscriptions_are_not_there(server, version, share):
    """Section 5: the filter is refused, whatever becomes of its syntax, and nothing else is."""
    me, friend = server.friends()
    share = share.format(me=me.id)
    with server.connect(me, version) as client, server.connect(friend, version) as writer:
        client.send(subscribe(3, [(share, 1), (me.inbox, 1)], version))
        assert client.error() == error(share, "wildcards are not allowed in topic", handler="authorizeSubscribe")
        assert client.expect(SUBACK, packet_id=3).codes == [0xA2 if version == 5 else 0x80, 1]
        codes = client.unsubscribe(share)
        assert codes == [0x11] if version == 5 else not codes
        writer.deliver(me.inbox, friend.message())
        assert client.message().payload == friend.message()
        client.quiet()


@pytest.mark.parametrize("number", [1, 127, 128, 16_384, 2_097_152, 268_435_455])
def test_subscription_identifiers_of_all_lengths(server, number):
    me = server.user()
    topic = f"/{me.id}/x"
    with server.connect(me, 5) as client:
        client.subscribe(topic, props={"subscription_id": 7})
        client.subscribe(topic, props={"subscription_id": number})
        client.deliver(topic, b"x")
        assert client.message(topic=topic).all("subscription_id") == [number], "the later one takes its place"
        client.subscribe(topic)
        client.deliver(topic, b"x")
        assert client.message(topic=topic).all("subscription_id") == []


@pytest.mark.parametrize(
    "props, reason",
    [([("subscription_id", 0)], 0x82), ([("subscription_id", 1), ("subscription_id", 2)], 0x82), ([("subscription_id", 1 << 28)], 0x81)],
    ids=["zero", "twice", "five bytes"],
)
def test_subscription_identifiers_that_are_none(server, props, reason):
    """3.8.2.1.2, and 1.5.5 for its length."""
    me = server.user()
    client = server.connect(me, 5)
    client.send(subscribe(1, [(me.inbox, 1)], 5, props))
    client.closed(reason=reason)


def test_a_topic_alias_at_the_maximum(server):
    """3.3.2.3.4: from 1 to the maximum of the CONNACK, and none beyond."""
    me = server.user()
    with server.connect(me, 5) as client:
        most = client.connack.get("topic_alias_maximum")
        for alias in (1, most):
            topic = f"/{me.id}/{alias}"
            client.subscribe(topic)
            client.deliver(topic, b"by name", props={"topic_alias": alias})
            client.deliver("", b"by alias", props={"topic_alias": alias})
            assert [client.message(topic=topic).payload for _ in range(2)] == [b"by name", b"by alias"]
    client = server.connect(me, 5)
    client.publish(topic, b"x", props={"topic_alias": most + 1})
    client.closed(reason=0x94)


def test_a_will_that_is_delayed_for_ever_goes_with_its_session(start):
    """3.1.3.2.2: the delay of 136 years ends with the session, whose expiry has a maximum."""
    server = start(settings={"sessions.expiry": "2s"})
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("gone"), 1, properties={"will_delay": FOREVER})
    with server.listener(friend, 5) as reader:
        client = server.connect(me, 5, will=will, **KEPT)
        assert client.connack.get("session_expiry") == 2
        gone = time.monotonic()
        client.close()
        assert reader.message().payload == me.message("gone")
        assert 1.5 <= time.monotonic() - gone <= 5


def test_a_will_that_is_delayed_for_ever_waits(server):
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("gone"), 1, properties={"will_delay": FOREVER})
    with server.listener(friend, 5) as reader:
        server.connect(me, 5, will=will, **KEPT).close()
        with server.connect(me, 5, **KEPT) as client:
            assert client.connack.session_present
            reader.quiet()
            client.leave()
        reader.quiet()


def test_a_session_expiry_for_ever_at_the_goodbye(start):
    """3.14.2.2.2: a DISCONNECT may change the session's expiry, up to our maximum."""
    server = start(settings={"sessions.expiry": "1s"})
    me = server.user()
    client = server.connect(me, 5, clean=False, props={"session_expiry": 1})
    client.leave(reason=0, props={"session_expiry": FOREVER})
    with server.connect(me, 5, clean=False, props={"session_expiry": 1}) as client:
        assert client.connack.session_present
        client.leave(reason=0, props={"session_expiry": FOREVER})
    time.sleep(2)
    with server.connect(me, 5, clean=False, props={"session_expiry": 1}) as client:
        assert not client.connack.session_present
