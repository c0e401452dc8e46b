"""Wills: checked when they are due as any PUBLISH of their client (PROTOCOL.md, section 3)."""

import time

import pytest
from harness.packets import DISCONNECT, Will

SESSION = {"clean": False, "props": {"session_expiry": 600}}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_to_a_friend(server, version, qos):
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("gone"), qos)
    with server.listener(friend, version, qos=qos) as reader:
        server.connect(me, version, will=will).close()
        got = reader.message(topic=friend.inbox, payload=me.message("gone"))
        assert (got.qos, got.retain) == (qos, False)
        reader.quiet()


@pytest.mark.parametrize("body", ["text", "wrong", "good"])
def test_refused_ones_are_dropped(server, version, body):
    """No JSON, another's name in it, a stranger's inbox."""
    me, friend = server.friends()
    stranger = server.user()
    who = stranger if body == "good" else friend
    payload = {"text": b"gone", "wrong": friend.message(), "good": me.message()}[body]
    with server.listener(who, version) as reader:
        server.connect(me, version, will=Will(who.inbox, payload, 1)).close()
        server.connect(me, version).leave()
        reader.quiet()


def test_the_friendship_of_the_moment_counts(server, version):
    me, friend = server.friends()
    with server.listener(friend, version) as reader:
        client = server.connect(me, version, will=Will(friend.inbox, me.message(), 1))
        server.directory.block(friend, me)
        client.close()
        server.connect(me, version).leave()
        reader.quiet()


def test_on_an_own_channel(server, version):
    me = server.user()
    topic = f"/{me.id}/status"
    server.connect(me, version, will=Will(topic, b"offline", 1, True)).close()
    with server.connect(me, version) as client:
        deadline = time.monotonic() + 5
        retained = False
        while not retained:
            assert time.monotonic() < deadline
            client.subscribe(topic)
            client.ping()
            while client.backlog:
                retained = client.message(topic=topic, payload=b"offline").retain
            client.unsubscribe(topic)


def test_a_normal_disconnect_discards_it(server, version):
    me, friend = server.friends()
    with server.listener(friend, version) as reader:
        server.connect(me, version, will=Will(friend.inbox, me.message(), 1)).leave()
        reader.quiet()


def test_disconnect_with_will(server):
    me, friend = server.friends()
    with server.listener(friend, 5) as reader:
        server.connect(me, 5, will=Will(friend.inbox, me.message(), 1)).leave(reason=0x04)
        assert reader.message().payload == me.message()


@pytest.mark.parametrize("how", ["garbage", "keep alive", "takeover", "logout"])
def test_every_other_end_sends_it(server, version, how):
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("gone"), 1)
    with server.listener(friend, version) as reader:
        client = server.connect(me, version, will=will, keepalive=1 if how == "keep alive" else 60)
        match how:
            case "garbage":
                client.send(b"\x00\x00")
            case "takeover":
                server.connect(me, version).leave()
            case "logout":
                server.connect(me, version, device="new").leave()
        assert reader.message().payload == me.message("gone")
        reader.quiet()


def test_a_will_of_an_old_token_is_not_sent(server, version):
    """A session belongs to the token it was made with, and its will does too."""
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("gone"), 1)
    with server.listener(friend, version) as reader:
        server.connect(me, version, will=will)
        server.directory.set_token(me, "changed")
        time.sleep(1.2)
        reader.quiet()


def test_delay(server):
    """Not before the delay has passed (3.1.3.2.2)."""
    me, friend = server.friends()
    will = Will(friend.inbox, me.message(), 1, properties={"will_delay": 1})
    with server.listener(friend, 5) as reader:
        client = server.connect(me, 5, will=will, **SESSION)
        gone = time.monotonic()
        client.close()
        assert reader.message().payload == me.message()
        assert 0.9 <= time.monotonic() - gone <= 2.5


def test_who_is_back_in_time_sends_no_will(server):
    me, friend = server.friends()
    will = Will(friend.inbox, me.message(), 1, properties={"will_delay": 3})
    with server.listener(friend, 5) as reader:
        server.connect(me, 5, will=will, **SESSION).close()
        with server.connect(me, 5, **SESSION):
            time.sleep(3.8)
            reader.quiet()


@pytest.mark.parametrize("how", ["expiry", "clean start"])
def test_the_end_of_the_session_does_not_wait_for_the_delay(server, how):
    me, friend = server.friends()
    will = Will(friend.inbox, me.message(), 1, properties={"will_delay": 600})
    options = SESSION if how == "clean start" else {"props": {"session_expiry": 0}}
    with server.listener(friend, 5) as reader:
        server.connect(me, 5, will=will, **options).close()
        if how == "clean start":
            server.connect(me, 5, clean=True).leave()
        assert reader.message().payload == me.message()


def test_its_properties_pass(server):
    me, friend = server.friends()
    passed = {"content_type": "application/json", "correlation_data": b"\x00\x01"}
    given = [*passed.items(), ("user", ("from", "someone")), ("user", ("a", "b"))]
    will = Will(friend.inbox, me.message(), 1)
    will.properties = given
    with server.listener(friend, 5) as reader:
        server.connect(me, 5, will=will).leave(reason=0x04)
        got = reader.message()
        assert {name: got.get(name) for name in passed} == passed
        assert sorted(got.all("user")) == [("a", "b"), ("from", me.id)]


def test_a_will_of_a_session_taken_over_in_5_0(server):
    """3.1.3.2.2: a new connection before the delay has passed cancels it, a takeover included."""
    me, friend = server.friends()
    will = Will(friend.inbox, me.message(), 1, properties={"will_delay": 600})
    with server.listener(friend, 5) as reader:
        first = server.connect(me, 5, will=will, **SESSION)
        with server.connect(me, 5, **SESSION):
            first.expect(DISCONNECT, reason=0x8E)
            first.closed()
            reader.quiet()
