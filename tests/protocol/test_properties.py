"""What of a message's 5.0 properties reaches the receiver (PROTOCOL.md, section 4; MQTT 3.3.2.3)."""

import time

import pytest


def users_of(got):
    return [pair for pair in got.all("user") if pair[0] != "from"]


@pytest.mark.parametrize("sender_version", [3, 4, 5])
def test_from_is_set_by_the_server(server, sender_version):
    me, friend = server.friends()
    with server.listener(friend, 5) as reader, server.connect(me, sender_version) as writer:
        for qos in (0, 1, 2):
            writer.deliver(friend.inbox, me.message(), qos)
            assert reader.message().all("user") == [("from", me.id)]


def test_a_clients_from_is_removed(server):
    me, friend = server.friends()
    given = [("user", ("from", friend.id)), ("user", ("from", me.id)), ("user", ("from", ""))]
    with server.listener(friend, 5) as reader, server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), props=given)
        assert reader.message().all("user") == [("from", me.id)]


def test_other_user_properties_keep_their_order(server):
    me, friend = server.friends()
    pairs = [("b", "1"), ("a", "2"), ("From", "x"), ("b", "3"), ("", ""), ("ü", "☃"), ("b", "1")]
    given = [("user", pair) for pair in pairs]
    given.insert(3, ("user", ("from", "someone")))
    with server.listener(friend, 5) as reader, server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), props=given)
        got = reader.message()
        assert users_of(got) == pairs
        assert got.all("user").count(("from", me.id)) == 1
        assert len(got.all("user")) == len(pairs) + 1


def test_from_on_own_channels(server):
    me = server.user()
    topic = f"/{me.id}/notes"
    with server.connect(me, 5) as client:
        client.subscribe(topic)
        client.deliver(topic, b"x", props=[("user", ("from", "someone")), ("user", ("a", "b"))])
        assert sorted(client.message().all("user")) == [("a", "b"), ("from", me.id)]


@pytest.mark.parametrize("kept", [False, True], ids=["live", "kept"])
def test_the_others_pass_untouched(server, kept):
    me, friend = server.friends()
    given = {
        "payload_format": 1,
        "content_type": "application/json; x=\u00fc",
        "response_topic": me.inbox,
        "correlation_data": bytes(range(256)),
    }
    if kept:
        with server.connect(me, 5) as writer:
            writer.deliver(friend.inbox, me.message(), props=given)
    with server.listener(friend, 5) as reader:
        if not kept:
            with server.connect(me, 5) as writer:
                writer.deliver(friend.inbox, me.message(), props=given)
        got = reader.message(payload=me.message())
        assert {name: got.get(name) for name in given} == given
        assert len(got.props) == len(given) + 1


def test_a_3_1_1_receiver_gets_the_message_without_them(server):
    me, friend = server.friends()
    with server.listener(friend, 4) as reader, server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), props={"content_type": "x", "topic_alias": 1})
        assert reader.message().payload == me.message()


def test_what_is_left_of_the_expiry(server):
    me, friend = server.friends()
    with server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), props={"message_expiry": 100})
        time.sleep(2.1)
        with server.listener(friend, 5) as reader:
            assert 90 <= reader.message().get("message_expiry") <= 98


def test_a_live_message_keeps_its_expiry(server):
    me, friend = server.friends()
    with server.listener(friend, 5) as reader, server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), props={"message_expiry": 100})
        assert 98 <= reader.message().get("message_expiry") <= 100


def test_what_has_expired_does_not_come(server, version):
    me, friend = server.friends()
    with server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message("old"), props={"message_expiry": 1})
        writer.deliver(friend.inbox, me.message("new"))
        time.sleep(2.1)
        with server.listener(friend, version) as reader:
            assert reader.message().payload == me.message("new")
            reader.quiet()


def test_no_reason_strings_for_who_wants_none(server):
    """Request Problem Information 0: no Reason String on anything but CONNACK and DISCONNECT."""
    me, other = server.users(2)
    with server.connect(me, 5, props={"request_problem": 0}) as client:
        client.deliver(other.inbox, me.message())
        assert b"not friends" in client.error()
        client.publish(other.inbox, me.message(), 2)
        client.error()
        assert client.receive().props == []
