"""QoS 0, 1 and 2 in both directions; order; windows, aliases and sizes (MQTT sections 3.3, 4.3-4.9)."""

import pytest
from harness.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, acknowledgement, packet

SESSION = {"clean": False, "props": {"session_expiry": 600}}


@pytest.mark.parametrize("sent", [0, 1, 2])
@pytest.mark.parametrize("asked", [0, 1, 2])
def test_the_lower_qos_counts(server, version, sent, asked):
    me, friend = server.friends()
    with server.listener(friend, version, qos=asked) as reader, server.connect(me, version) as me_:
        assert me_.deliver(friend.inbox, me.message(), sent) == 0
        got = reader.message(topic=friend.inbox, payload=me.message())
        assert (got.qos, got.dup, got.retain) == (min(sent, asked), False, False)
        reader.quiet()


@pytest.mark.parametrize("versions", [(3, 4), (3, 5), (4, 5), (5, 4), (5, 3)], ids=str)
def test_between_protocol_versions(server, versions):
    me, friend = server.friends()
    with (
        server.listener(friend, versions[1], qos=2) as reader,
        server.connect(me, versions[0]) as writer,
    ):
        for qos in (0, 1, 2):
            assert writer.deliver(friend.inbox, me.message(str(qos)), qos) == 0
            assert reader.message(payload=me.message(str(qos))).qos == qos


def test_acknowledgements_are_exact(server):
    me, friend = server.friends()
    with server.listener(friend), server.connect(me) as writer:
        writer.publish(friend.inbox, me.message(), 1, 258)
        assert writer.receive().raw == b"\x40\x02\x01\x02"
        writer.publish(friend.inbox, me.message(), 2, 259)
        assert writer.receive().raw == b"\x50\x02\x01\x03"
        writer.send(acknowledgement(PUBREL, 259))
        assert writer.receive().raw == b"\x70\x02\x01\x03"
        writer.ping()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_three_hundred_in_order_and_once(server, version, qos):
    me, friend = server.friends()
    with server.listener(friend, version, qos=qos) as reader, server.connect(me, version) as writer:
        window = writer.connack.get("receive_maximum", 64) if version == 5 else 64
        for first in range(0, 300, 50):
            assert window >= 50
            ids = [
                writer.publish(friend.inbox, me.message(n), qos) for n in range(first, first + 50)
            ]
            for n in range(first, first + 50):
                assert reader.message(payload=me.message(n)).dup is False
            for packet_id in ids if qos else ():
                if qos == 1:
                    writer.await_reply(PUBACK, packet_id)
                else:
                    writer.await_reply(PUBREC, packet_id)
                    writer.release(packet_id)
        reader.quiet()


def test_qos_2_repeated(server, version):
    """The same id again before PUBREL is the same message; after PUBCOMP it is a new one."""
    me, friend = server.friends()
    with server.listener(friend, version, qos=2) as reader, server.connect(me, version) as writer:
        for dup in (False, True, True):
            writer.publish(friend.inbox, me.message("one"), 2, 5, dup=dup)
            writer.expect(PUBREC, packet_id=5, reason=0 if version == 4 else 0)
        writer.release(5)
        writer.deliver(friend.inbox, me.message("two"), 2, packet_id=5)
        assert reader.message().payload == me.message("one")
        assert reader.message().payload == me.message("two")
        reader.quiet()


def test_qos_2_across_a_reconnect(server, version):
    """PUBREC was lost: the sender repeats PUBLISH in its new connection, and it counts once."""
    me, friend = server.friends()
    with server.listener(friend, version, qos=2) as reader:
        with server.connect(me, version, **SESSION) as writer:
            writer.publish(friend.inbox, me.message(), 2, 77)
            writer.expect(PUBREC, packet_id=77)
        with server.connect(me, version, **SESSION) as writer:
            assert writer.connack.session_present
            writer.publish(friend.inbox, me.message(), 2, 77, dup=True)
            writer.expect(PUBREC, packet_id=77)
            assert writer.release(77) == 0
        assert reader.message().payload == me.message()
        reader.quiet()


def test_pubrel_for_an_unknown_id(server, version):
    with server.connect(server.user(), version) as client:
        assert client.release(1234) == (0x92 if version == 5 else 0)
        client.quiet()


@pytest.mark.parametrize("kind", [PUBACK, PUBREC, PUBCOMP])
def test_acknowledgements_of_nothing(server, version, kind):
    """A PUBREC for an unknown id is answered in 5.0 (3.6.2.1, 0x92); others are passed over."""
    me = server.user()
    with server.connect(me, version) as client:
        client.send(acknowledgement(kind, 4321))
        if kind == PUBREC:
            got = client.expect(PUBREL, packet_id=4321)
            assert got.reason == (0x92 if version == 5 else 0)
            client.send(acknowledgement(PUBCOMP, 4321))
        client.quiet()


def test_qos_2_receiver_resumes_with_pubrel(server, version):
    """After PUBREC the message is never sent again, only PUBREL."""
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        with server.listener(friend, version, qos=2, **SESSION) as reader:
            writer.deliver(friend.inbox, me.message(), 2)
            got = reader.message(ack=False)
            reader.send(acknowledgement(PUBREC, got.packet_id))
            reader.expect(PUBREL, packet_id=got.packet_id)
        with server.connect(friend, version, **SESSION) as reader:
            reader.reads_inbox = True
            reader.expect(PUBREL, packet_id=got.packet_id)
            reader.send(acknowledgement(PUBCOMP, got.packet_id))
            reader.quiet()


def test_a_receiver_that_refuses(server):
    """A PUBREC of 0x80 or more ends the exchange in 5.0: no PUBREL follows (4.3.3)."""
    me, friend = server.friends()
    with server.listener(friend, 5, qos=2) as reader, server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), 2)
        got = reader.message(ack=False)
        reader.send(acknowledgement(PUBREC, got.packet_id, 0x83))
        reader.quiet()


@pytest.mark.parametrize("qos", [1, 2])
def test_the_receivers_receive_maximum(server, qos):
    me, friend = server.friends()
    limit = {"receive_maximum": 2}
    with server.listener(friend, 5, qos=qos, props=limit) as reader, server.connect(me, 5) as writer:
        for n in range(5):
            writer.deliver(friend.inbox, me.message(n), qos)
        waiting = [reader.message(ack=False, payload=me.message(n)) for n in range(2)]
        reader.ping()
        assert not reader.backlog, "more than two unacknowledged"
        for n in range(2, 5):
            if qos == 2:
                reader.send(acknowledgement(PUBREC, waiting[0].packet_id))
                reader.expect(PUBREL, packet_id=waiting[0].packet_id)
                reader.ping()
                assert not reader.backlog, "PUBREC does not open the window, PUBCOMP does"
                reader.send(acknowledgement(PUBCOMP, waiting.pop(0).packet_id))
            else:
                reader.send(acknowledgement(PUBACK, waiting.pop(0).packet_id))
            waiting.append(reader.message(ack=False, payload=me.message(n)))
            reader.ping()
            assert not reader.backlog
        assert len({got.packet_id for got in waiting}) == 2


def test_a_full_window_keeps_the_order(server):
    """QoS 0 has no part in the window, but one sender's messages keep their order (section 7.3)."""
    me, friend = server.friends()
    with (
        server.listener(friend, 5, qos=1, props={"receive_maximum": 1}) as reader,
        server.connect(me, 5) as writer,
    ):
        writer.deliver(friend.inbox, me.message("first"), 1)
        first = reader.message(ack=False, payload=me.message("first"))
        writer.deliver(friend.inbox, me.message("second"), 1)
        writer.deliver(friend.inbox, me.message("third"), 0)
        reader.acknowledge(first)
        assert reader.message(qos=1).payload == me.message("second")
        assert reader.message(qos=0).payload == me.message("third")
        reader.quiet()


def test_our_receive_maximum(start):
    """More unreleased QoS 2 messages than CONNACK allows: 0x93."""
    server = start(settings={"limits.inflight": 4})
    me, friend = server.friends()
    writer = server.connect(me, 5)
    assert writer.connack.get("receive_maximum") == 4
    for packet_id in range(1, 5):
        writer.publish(friend.inbox, me.message(), 2, packet_id)
        writer.expect(PUBREC, packet_id=packet_id, reason=0)
    writer.publish(friend.inbox, me.message(), 2, 5)
    writer.closed(reason=0x93)


def test_receive_maximum_of_zero(server):
    me = server.user()
    client, answer = server.attempt(me, 5, props={"receive_maximum": 0})
    assert answer.reason == 0x82
    client.closed()


def test_topic_aliases(server):
    me, friend = server.friends()
    with server.listener(friend, 5) as reader, server.connect(me, 5) as writer:
        assert writer.connack.get("topic_alias_maximum", 0) >= 1
        alias = {"topic_alias": 1}
        writer.deliver(friend.inbox, me.message("1"), props=alias)
        writer.deliver("", me.message("2"), props=alias)
        writer.deliver(me.channel(), b"moved", props=alias)
        assert writer.message(topic=me.channel()).payload == b"moved"
        writer.deliver("", b"here too", props=alias)
        assert writer.message(topic=me.channel()).payload == b"here too"
        for n in ("1", "2"):
            got = reader.message(topic=friend.inbox, payload=me.message(n))
            assert got.get("topic_alias") is None
        reader.quiet()


def test_a_refused_topic_is_refused_by_its_alias_too(server):
    me, other = server.users(2)
    with server.connect(me, 5) as writer:
        for topic in (other.inbox, ""):
            packet_id = writer.publish(topic, me.message(), 1, props={"topic_alias": 1})
            assert b"not friends" in writer.error()
            writer.expect(PUBACK, packet_id=packet_id, reason=0x87)


def test_aliases_end_with_the_connection(server):
    me = server.user()
    with server.connect(me, 5, **SESSION) as client:
        client.deliver(f"/{me.id}/x", b"", props={"topic_alias": 1})
    client = server.connect(me, 5, **SESSION)
    client.publish("", b"", props={"topic_alias": 1})
    client.closed(reason=0x82)


@pytest.mark.parametrize("alias, reason", [(0, 0x82), (65535, 0x94)])
def test_aliases_out_of_range(server, alias, reason):
    """0 is a protocol error, too large a number is an invalid alias (3.3.2.3.4)."""
    me = server.user()
    client = server.connect(me, 5)
    client.publish(f"/{me.id}/x", b"", props={"topic_alias": alias})
    client.closed(reason=reason)


def test_the_receivers_maximum_packet_size(server):
    """MQTT 5.0, 3.1.2.11.4: what is too large is not sent. Section 7.1: it is kept all the same."""
    me, friend = server.friends()
    with (
        server.listener(friend, 5, props={"maximum_packet_size": 300}) as reader,
        server.connect(me, 5) as writer,
    ):
        assert writer.deliver(friend.inbox, me.message("x" * 1000)) == 0
        assert writer.deliver(friend.inbox, me.message("small")) == 0
        assert reader.message().payload == me.message("small")
        reader.quiet()
    with server.listener(friend, 5) as reader:
        assert reader.message().payload == me.message("x" * 1000)
        reader.quiet()


def test_packets_over_our_limit(start, version):
    """Refused by the header alone, before the body is sent."""
    server = start(settings={"limits.packet": "100KiB"})
    me, friend = server.friends()
    with server.listener(friend, version) as reader:
        writer = server.connect(me, version)
        if version == 5:
            assert writer.connack.get("maximum_packet_size") == 100 * 1024
        assert writer.deliver(friend.inbox, me.message("x" * 100_000)) == 0
        assert reader.message().payload == me.message("x" * 100_000)
        writer.send(packet(PUBLISH, 2, b"\0" * 110_000)[:8])
        writer.closed(reason=0x95)
        reader.quiet()


def test_order_among_what_is_kept_and_what_comes(server, version):
    """Messages of one sender keep their order also while the receiver comes and goes."""
    me, friend = server.friends()
    reader = server.listener(friend, version, **SESSION)
    with server.connect(me, version) as writer:
        seen = []
        for n in range(100):
            writer.deliver(friend.inbox, me.message(n))
            if n % 10 == 5:
                reader.close()
                reader = server.connect(friend, version, **SESSION)
            if n % 10 == 9:
                while not seen or seen[-1] != me.message(n):
                    seen.append(reader.message().payload)
    order = list(dict.fromkeys(seen))
    assert order == [me.message(n) for n in range(100)]
    reader.close()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_at_an_everyday_pace_small_packets_are_answered(home, transport, version):
    """Some hundred messages a second: what the receiver says in a few bytes may be taken up with the next message.

    It is taken up all the same when there is no next message, and so is a PINGREQ.
    """
    me, friend = home.friends()
    with (
        home.listener(friend, version, transport=transport) as reader,
        home.connect(me, version, transport=transport) as writer,
    ):
        for _ in range(6):
            ids = []
            for n in range(50):
                ids.append(writer.publish(friend.inbox, me.message(n), 1))
                assert reader.message(payload=me.message(n)).dup is False
            reader.ping()
            for packet_id in ids:
                writer.await_reply(PUBACK, packet_id)
        for n in range(300):
            packet_id = writer.publish(friend.inbox, me.message(n), 1)
            assert reader.message(payload=me.message(n)).dup is False
            writer.await_reply(PUBACK, packet_id)
        reader.quiet()
