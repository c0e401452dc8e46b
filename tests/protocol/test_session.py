"""Sessions: what survives a connection and what doesn't (MQTT 3.1.2.4, 4.1, 4.4)."""

import time

import pytest
from harness.packets import PUBACK, acknowledgement


def kept(expiry=600):
    return {"clean": False, "props": {"session_expiry": expiry}}


def test_session_present(server, version):
    me = server.user()
    for clean, expected in ((True, False), (False, False), (False, True), (True, False)):
        options = kept() | {"clean": clean} if not clean else {"clean": True}
        with server.connect(me, version, **options) as client:
            assert client.connack.session_present is expected
    with server.connect(me, version, **kept()) as client:
        assert not client.connack.session_present


def test_session_present_upon_takeover(server, version):
    me = server.user()
    first = server.connect(me, version, **kept())
    with server.connect(me, version, **kept()) as second:
        assert second.connack.session_present
        first.closed(reason=0x8E)


def test_without_an_expiry_a_5_0_session_ends_with_its_connection(server):
    me = server.user()
    server.connect(me, 5, clean=False).leave()
    with server.connect(me, 5, **kept()) as client:
        assert not client.connack.session_present


def test_subscriptions_survive(server, version):
    me, friend = server.friends()
    notes = f"/{me.id}/notes"
    with server.listener(me, version, **kept()) as client:
        client.subscribe(notes, qos=2)
    with (
        server.connect(me, version, **kept()) as client,
        server.connect(friend, version) as writer,
    ):
        writer.deliver(me.inbox, friend.message())
        assert client.message().payload == friend.message()
        client.deliver(notes, b"x", qos=2)
        assert client.message(topic=notes).qos == 2


def test_messages_wait_for_the_session(server, version):
    me, friend = server.friends()
    with server.listener(me, version, **kept()) as client:
        client.leave()
    with server.connect(friend, version) as writer:
        for n in range(20):
            writer.deliver(me.inbox, friend.message(n))
    with server.connect(me, version, **kept()) as client:
        client.reads_inbox = True
        assert client.connack.session_present
        for n in range(20):
            assert client.message(payload=friend.message(n)).dup is False
        client.quiet()


@pytest.mark.parametrize("qos", [1, 2])
def test_redelivery(server, version, qos):
    """DUP set, the same packet ids, the same order; what was acknowledged does not come back."""
    me, friend = server.friends()
    with server.connect(friend, version) as writer:
        with server.listener(me, version, qos=qos, **kept()) as client:
            for n in range(4):
                writer.deliver(me.inbox, friend.message(n), qos)
            client.message(payload=friend.message(0))
            first = [client.message(ack=False) for _ in range(3)]
            client.ping()
        with server.connect(me, version, **kept()) as client:
            client.reads_inbox = True
            for before in first:
                got = client.message(payload=before.payload)
                assert (got.packet_id, got.dup, got.qos) == (before.packet_id, True, qos)
            client.quiet()


def test_redelivery_upon_takeover(server, version):
    me, friend = server.friends()
    first = server.listener(me, version, **kept())
    with server.connect(friend, version) as writer:
        writer.deliver(me.inbox, friend.message())
    before = first.message(ack=False)
    with server.connect(me, version, **kept()) as second:
        got = second.message(payload=friend.message())
        assert (got.packet_id, got.dup) == (before.packet_id, True)


def test_nothing_is_sent_again_within_a_connection(server, version):
    """MQTT 4.4: only a new connection is a reason to send again."""
    me, friend = server.friends()
    with server.listener(me, version) as client, server.connect(friend, version) as writer:
        writer.deliver(me.inbox, friend.message())
        got = client.message(ack=False)
        with pytest.raises(TimeoutError):
            client.receive(timeout=2)
        client.acknowledge(got)
        client.quiet()


def test_a_late_acknowledgement_counts(server, version):
    """Acknowledged in the second connection by the packet id of the first."""
    me, friend = server.friends()
    with server.connect(friend, version) as writer:
        with server.listener(me, version, **kept()) as client:
            writer.deliver(me.inbox, friend.message())
            before = client.message(ack=False)
        with server.connect(me, version, **kept()) as client:
            client.send(acknowledgement(PUBACK, before.packet_id))
            client.ping()
        with server.connect(me, version, **kept()) as client:
            client.reads_inbox = True
            client.quiet()


def test_expiry(server):
    me = server.user()
    server.connect(me, 5, **kept()).leave()
    with server.connect(me, 5, **kept(1)) as client:
        assert client.connack.session_present
    time.sleep(1.8)
    with server.connect(me, 5, **kept(1)) as client:
        assert not client.connack.session_present


def test_the_clock_runs_only_while_it_is_away(server):
    me = server.user()
    with server.connect(me, 5, **kept(3)) as client:
        time.sleep(3.8)
        client.ping()
    with server.connect(me, 5, **kept(3)) as client:
        assert client.connack.session_present


def test_disconnect_may_change_the_expiry(server):
    me = server.user()
    server.connect(me, 5, **kept(600)).leave(reason=0, props={"session_expiry": 0})
    with server.connect(me, 5, **kept(600)) as client:
        assert not client.connack.session_present
    client = server.connect(me, 5, clean=False)
    client.send(bytes([0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]))
    client.closed(reason=0x82)


def test_our_maximum_is_said(start):
    """Section 7: as the client asks, up to a maximum (`sessions.expiry`)."""
    server = start(settings={"sessions.expiry": "1h"})
    with server.connect(server.user(), 5, **kept(0xFFFFFFFF)) as client:
        assert client.connack.get("session_expiry") == 3600
    with server.connect(server.user(), 5, **kept(60)) as client:
        assert client.connack.get("session_expiry") in (None, 60)


def test_expiry_of_3_1_1_is_ours(start):
    server = start(settings={"sessions.expiry": "1s"})
    me = server.user()
    server.connect(me, **kept()).leave()
    time.sleep(1.8)
    with server.connect(me, **kept()) as client:
        assert not client.connack.session_present


def test_keep_alive(server, version):
    """One and a half times the keep alive without a packet ends it; a packet in time doesn't."""
    me = server.user()
    client = server.connect(me, version, keepalive=2)
    for _ in range(3):
        time.sleep(1.2)
        silent_since = time.monotonic()
        client.ping()
    client.closed(reason=0x8D)
    assert 2.8 <= time.monotonic() - silent_since <= 4.5


def test_no_keep_alive(server, version):
    with server.connect(server.user(), version, keepalive=0) as client:
        time.sleep(2.5)
        client.ping()


def test_disconnect(server, version):
    """Nothing comes after it, and the server closes."""
    me = server.user()
    client = server.connect(me, version)
    client.leave()
