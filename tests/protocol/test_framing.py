"""Bytes: split anywhere, glued together, in WebSocket frames, malformed, and mutated."""

import random

import pytest
from harness import streams
from harness.packets import (
    CONNACK,
    PING,
    PINGRESP,
    PUBACK,
    PUBREC,
    PUBREL,
    SUBACK,
    Will,
    acknowledgement,
    connect,
    disconnect,
    packet,
    publish,
    subscribe,
    text,
    unsubscribe,
)

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])


def conversation(me, friend, version):
    """CONNECT, SUBSCRIBE, PUBLISH at every QoS, PINGREQ: all of it without waiting."""
    login = connect(me.client_id(), me.id, me.token, version, will=Will("willtopic", b"x"))
    return [
        login,
        subscribe(1, [(me.inbox, 1), (me.channel(), 0)], version),
        publish(friend.inbox, me.message("0"), 0, version=version),
        publish(friend.inbox, me.message("1"), 1, 2, version=version),
        publish(friend.inbox, me.message("2"), 2, 3, version=version),
        PING,
    ]


def check_answers(client):
    """CONNACK comes first; MQTT 4.6 asks for no order among the other answers."""
    client.expect(CONNACK, reason=0)
    seen = {(got.kind, got.packet_id): got for got in (client.receive() for _ in range(4))}
    assert set(seen) == {(SUBACK, 1), (PUBACK, 2), (PUBREC, 3), (PINGRESP, None)}
    assert seen[SUBACK, 1].codes == [1, 0]
    assert not any(got.reason for got in seen.values())
    assert client.release(3) == 0


@VERSIONS
def test_all_in_one_segment(home, transport, version):
    me, friend = home.friends()
    with home.listener(friend) as reader, home.dial(version, transport) as client:
        client.send(*conversation(me, friend, version))
        check_answers(client)
        assert [reader.message().payload for _ in "012"] == [me.message(n) for n in "012"]
        reader.quiet()


@VERSIONS
@pytest.mark.parametrize("transport", ["tcp", "ws", "tls"])
def test_byte_by_byte(home, transport, version):
    me, friend = home.friends()
    with home.listener(friend) as reader, home.dial(version, transport) as client:
        for byte in b"".join(conversation(me, friend, version)):
            client.send(bytes([byte]))
        check_answers(client)
        assert [reader.message().payload for _ in "012"] == [me.message(n) for n in "012"]


@VERSIONS
def test_split_at_every_byte(server, version):
    """A pause at each place in turn: what has come so far answers, the rest is waited for."""
    me, friend = server.friends()
    whole = b"".join(conversation(me, friend, version))
    with server.listener(friend, qos=0) as reader:
        for at in range(1, len(whole)):
            client = server.dial(version)
            client.send(whole[:at])
            client.send(whole[at:])
            check_answers(client)
            client.send(disconnect(version))
            client.closed()
            client.close()
            assert [reader.message().payload for _ in "012"] == [me.message(n) for n in "012"]
        reader.quiet()


# WebSocket (MQTT 6)


def test_the_subprotocol_is_answered(server):
    assert server.open("ws").headers["sec-websocket-protocol"] == "mqtt"


@pytest.mark.parametrize("offered", ["mqttv3.1, mqtt", "mqtt, other"])
def test_the_subprotocol_among_others(server, offered):
    stream = streams.WebSocket(("127.0.0.1", server.http), protocol=offered)
    assert (stream.status, stream.headers["sec-websocket-protocol"]) == (101, "mqtt")


def test_other_paths_are_no_mqtt(server):
    with pytest.raises(KeyError):
        stream = streams.WebSocket(("127.0.0.1", server.http), path="/nothing")
        assert stream.status != 101
        stream.headers["upgrade"]


@VERSIONS
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_packets_straddle_websocket_messages(server, version, size):
    me, friend = server.friends()
    whole = b"".join(conversation(me, friend, version))
    with server.listener(friend) as reader, server.dial(version, "ws") as client:
        for at in range(0, len(whole), size):
            client.send(whole[at : at + size])
        check_answers(client)
        assert [reader.message().payload for _ in "012"] == [me.message(n) for n in "012"]


@VERSIONS
def test_a_packet_in_many_frames_of_one_message(server, version):
    """Continuation frames, with empty ones and a ping of WebSocket's own among them."""
    me, friend = server.friends()
    whole = b"".join(conversation(me, friend, version))
    with server.listener(friend) as reader, server.dial(version, "ws") as client:
        client.stream.raw(streams.frame(whole[:5], opcode=2, final=False))
        client.stream.raw(streams.frame(b"", opcode=0, final=False))
        client.stream.raw(streams.frame(b"hello", opcode=9))
        client.stream.raw(streams.frame(whole[5:40], opcode=0, final=False))
        client.stream.raw(streams.frame(whole[40:], opcode=0, final=True))
        check_answers(client)
        assert [reader.message().payload for _ in "012"] == [me.message(n) for n in "012"]


@pytest.mark.parametrize("final", [True, False])
def test_packets_joined_beyond_the_packet_limit(server, version, final):
    """What mqtt.js does with what it has queued offline: one message of everything."""
    me, friend = server.friends()
    body = me.message("x" * 1_500_000)
    joined = b"".join(
        publish(friend.inbox, body, 1, n, version=version) for n in (1, 2, 3, 4)
    )
    assert len(joined) > 4 * 1024 * 1024
    with server.connect(me, version, transport="ws") as client:
        if final:
            client.stream.raw(streams.frame(joined))
        else:
            half = len(joined) // 2
            client.stream.raw(streams.frame(joined[:half], final=False))
            client.stream.raw(streams.frame(joined[half:], opcode=0))
        for n in (1, 2, 3, 4):
            client.expect(PUBACK, packet_id=n)


# What is no WebSocket, and the code of the Close frame that answers it.
BAD_FRAMES = {
    "text": (streams.frame(b"hello", opcode=1), 1003),
    "unmasked": (b"\x82\x02\xc0\x00", 1002),
    "reserved bits": (b"\xc2" + streams.frame(b"\xc0\x00")[1:], 1002),
    "unknown opcode": (streams.frame(b"x", opcode=3), 1002),
    "continuation of nothing": (streams.frame(b"x", opcode=0), 1002),
    "fragmented ping": (streams.frame(b"x", opcode=9, final=False), 1002),
    "long ping": (streams.frame(b"x" * 126, opcode=9), 1002),
    "close that is not UTF-8": (streams.frame(b"\x03\xe8\xff", opcode=8), 1007),
    "close with a code for nobody": (streams.frame(b"\x03\xed", opcode=8), 1002),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frames_are_answered_and_close_their_own_connection(server, version, name):
    """MQTT 6 and RFC 6455, section 7: what came before is handled, then DISCONNECT and Close."""
    bad, code = BAD_FRAMES[name]
    me, friend = server.friends()
    with server.listener(me, version, transport="ws") as bystander:
        client = server.connect(friend, version, transport="ws")
        client.stream.raw(streams.frame(PING) + bad)
        client.expect(PINGRESP)
        client.closed(0x81 if version == 5 else None)
        assert client.stream.close_code == code
        bystander.quiet()


@pytest.mark.parametrize("name", ["text", "unmasked"])
def test_bad_frames_before_the_connect(server, name):
    bad, code = BAD_FRAMES[name]
    stream = server.open("ws")
    stream.raw(bad)
    assert stream.receive(5) == b"" and stream.close_code == code


def test_what_is_wrong_in_the_packets_is_said_by_the_close_frame_too(server, version):
    me, friend = server.friends()
    for bad, reason, code in [(packet(0, 0, b""), 0x81, 1002), (b"\x30\xff\xff\xff\x7f", 0x95, 1009)]:
        client = server.connect(me, version, transport="ws")
        client.send(bad)
        client.closed(reason if version == 5 else None)
        assert client.stream.close_code == code


def test_a_client_that_leaves_gets_an_ordinary_close(server, version):
    client = server.connect(server.user(), version, transport="ws")
    client.send(disconnect(version))
    client.closed()
    assert client.stream.close_code == 1000


def test_a_flood_of_pings_holds_up_nobody(server):
    """Of pings that nobody reads the answers to, one is answered."""
    me, friend = server.friends()
    flooder = server.connect(me, transport="ws")
    pings = streams.frame(b"x" * 125, opcode=9) * 1000
    flooder.stream.tcp.socket.settimeout(0.2)
    try:
        for _ in range(50):
            flooder.stream.raw(pings)
    except TimeoutError:
        pass
    with server.listener(friend) as reader, server.connect(me, device="b") as writer:
        writer.deliver(friend.inbox, me.message())
        assert reader.message().payload == me.message()
    flooder.close()


def test_a_websocket_close_is_the_end_of_the_connection(server, version):
    """Without DISCONNECT before it the will is due."""
    me, friend = server.friends()
    will = Will(friend.inbox, me.message(), 1)
    with server.listener(friend, version) as reader:
        client = server.connect(me, version, transport="ws", will=will)
        client.stream.raw(streams.frame(b"\x03\xe8", opcode=8))
        assert reader.message().payload == me.message()
        client.closed()


# Malformed packets. Each closes its own connection, in 5.0 with a reason code; nothing else.

BAD_AFTER_CONNECT = {
    "reserved packet type": packet(0, 0, b""),
    "CONNACK from a client": packet(2, 0, b"\0\0"),
    "SUBACK from a client": packet(9, 0, b"\0\1\0"),
    "PINGRESP from a client": packet(13, 0, b""),
    "PUBLISH at QoS 3": packet(3, 6, text("/x/y") + b"\0\1"),
    "PUBLISH with DUP at QoS 0": packet(3, 8, text("/x/y") + b"\0"),
    "PUBLISH with packet id 0": packet(3, 2, text("/x/y") + b"\0\0\0"),
    "PUBLISH without a packet id": packet(3, 2, text("/x/y")),
    "PUBLISH with NUL in its topic": packet(3, 0, text("/x/\0") + b"\0"),
    "PUBLISH with a topic not UTF-8": packet(3, 0, text(b"/x/\xff") + b"\0"),
    "PUBLISH with a surrogate in its topic": packet(3, 0, text(b"/x/\xed\xa0\x80") + b"\0"),
    "PUBLISH with a topic cut short": packet(3, 0, b"\0\x10/x"),
    "PUBLISH without a topic": packet(3, 0, text("") + b"\0"),
    "PUBLISH of nothing": packet(3, 0, b""),
    "PUBACK with flags": b"\x42\x02\0\1",
    "PUBACK with packet id 0": b"\x40\x02\0\0",
    "PUBACK cut short": b"\x40\x01\0",
    "PUBREL without its flags": b"\x60\x02\0\1",
    "SUBSCRIBE without its flags": b"\x80" + subscribe(1, [("/x", 0)])[1:],
    "SUBSCRIBE with packet id 0": subscribe(0, [("/x", 0)], 5),
    "SUBSCRIBE of nothing": subscribe(1, [], 5),
    "SUBSCRIBE at QoS 3": subscribe(1, [("/x", 3)], 5),
    "SUBSCRIBE with reserved options": subscribe(1, [("/x", 0xC0)], 5),
    "SUBSCRIBE with an empty filter": subscribe(1, [("", 0)], 5),
    "SUBSCRIBE with a filter not UTF-8": subscribe(1, [(b"/\xff", 0)], 5),
    "UNSUBSCRIBE of nothing": unsubscribe(1, [], 5),
    "UNSUBSCRIBE without its flags": b"\xa0" + unsubscribe(1, ["/x"])[1:],
    "PINGREQ with a body": packet(12, 0, b"x"),
    "PINGREQ with flags": packet(12, 1, b""),
    "DISCONNECT with flags": packet(14, 1, b""),
    "five-byte length": b"\x30\xff\xff\xff\xff\x01",
    "length not minimal": b"\xc0\x80\x00",
}


@pytest.mark.parametrize("name", BAD_AFTER_CONNECT)
def test_malformed_after_connect(server, version, name):
    bad = BAD_AFTER_CONNECT[name]
    if version == 4 and name in ("SUBSCRIBE of nothing", "UNSUBSCRIBE of nothing"):
        bad = bad[:1] + b"\x02" + bad[2:4]
    me, friend = server.friends()
    with server.listener(me, version) as bystander:
        client = server.connect(friend, version)
        client.send(bad)
        if version == 5:
            got = client.receive()
            assert got.kind == 14 and got.reason >= 0x80, f"no DISCONNECT with a reason: {got}"
        client.closed()
        bystander.quiet()


def connects(me):
    good = connect(me.client_id(), me.id, me.token, 4)
    five = connect(me.client_id(), me.id, me.token, 5)
    will = connect(me.client_id(), me.id, me.token, 4, will=Will("a/b/c", b"x"))
    variable = 8  # offset of the level byte: header 2, protocol name 6
    return {
        "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        "zeros": b"\0" * 100,
        "ones": b"\xff" * 100,
        "a line": b"hello\n",
        "PINGREQ first": PING,
        "SUBSCRIBE first": subscribe(1, [(me.inbox, 1)]),
        "CONNECT with flags": b"\x11" + good[1:],
        "another protocol name": good.replace(b"MQTT", b"MQTX"),
        "reserved connect flag": good[: variable + 1] + b"\xc3" + good[variable + 2 :],
        "will flags without a will": good[: variable + 1] + b"\xca" + good[variable + 2 :],
        "will QoS 3": will[: variable + 1] + b"\xde" + will[variable + 2 :],
        "cut short": good[:1] + bytes([good[1] - 5]) + good[2:-5],
        "trailing bytes": good[:1] + bytes([good[1] + 1]) + good[2:] + b"x",
        "client id not UTF-8": connect(b"\xff", me.id, me.token, 4),
        "user name with NUL": connect(me.client_id(), "a\0b", me.token, 4),
        "unknown property": five[:12] + b"\x02\x7f\x00" + five[13:],
        "property twice": connect(
            me.client_id(), me.id, me.token, 5,
            props=[("session_expiry", 1), ("session_expiry", 1)],
        ),
        "property of another packet": connect(
            me.client_id(), me.id, me.token, 5, props={"topic_alias": 1}
        ),
        "over 64 KiB": connect(me.client_id(), me.id, "x" * 65_535, 4),
        "announcing 256 MB": b"\x10\xff\xff\xff\x7f\x00\x04MQTT",
    }


@pytest.mark.parametrize("name", connects(type("Nobody", (), {
    "id": "1", "token": "t", "inbox": "/1/inbox", "client_id": lambda self: "1:x"})()))
def test_malformed_before_connect(server, name):
    """Nothing but, at most, a refusing CONNACK comes back; then the connection ends."""
    me, friend = server.friends()
    with server.listener(me) as owner:
        stream = server.open()
        stream.send(connects(me)[name])
        seen = b""
        while more := stream.receive(5):
            seen += more
        assert seen == b"" or (seen[0] == 0x20 and seen[3] != 0 and len(seen) == seen[1] + 2)
        owner.quiet()


def test_connections_that_say_nothing_or_half(server):
    """Fifty half-open ones cost the others nothing."""
    me, friend = server.friends()
    half = [server.dial() for _ in range(50)]
    for n, client in enumerate(half):
        client.send(connect("1:x", "1", "x", 4)[: n % 20])
    with server.listener(me) as reader, server.connect(friend) as writer:
        writer.deliver(me.inbox, friend.message())
        assert reader.message().payload == friend.message()
    for client in half:
        client.close()


def mutate(random_, data):
    data = bytearray(data)
    for _ in range(random_.randrange(1, 5)):
        at = random_.randrange(len(data))
        match random_.randrange(6):
            case 0:
                data[at] ^= 1 << random_.randrange(8)
            case 1:
                data[at] = random_.randrange(256)
            case 2:
                del data[at : at + random_.randrange(1, 9)]
            case 3:
                data[at:at] = random_.randbytes(random_.randrange(1, 9))
            case 4:
                data[at : at + 2] = random_.choice([b"\0\0", b"\xff\xff", b"\0\1", b"\x80\x01"])
            case 5:
                piece = data[at : at + random_.randrange(1, 60)]
                data[at:at] = piece
        data = data or bytearray(b"\0")
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_streams(server, seed):
    """Fifty streams a seed, 400 in all, by somebody with an account and friends."""
    random_ = random.Random(seed)
    a, b = server.friends()
    mallory, friend = server.friends()
    with server.listener(a, 4) as first, server.listener(b, 5) as second:
        for n in range(50):
            version = random_.choice([3, 4, 5])
            parts = conversation(mallory, friend, version)
            parts += [acknowledgement(PUBREL, 3)]
            parts += [publish(a.inbox, mallory.message(), 1, 9, version=version)]
            parts += [unsubscribe(10, [mallory.inbox], version), disconnect(version)]
            whole = b"".join(parts)
            start = len(parts[0]) if random_.random() < 0.7 else 0
            stream = server.open("ws" if n % 5 == 0 else "tcp")
            try:
                stream.send(whole[:start] + mutate(random_, whole[start:]))
                if random_.random() < 0.5:
                    stream.receive(0.05)
            except OSError:
                pass
            stream.close()
        first.deliver(b.inbox, a.message("still here"))
        assert second.message(payload=a.message("still here")).get("user") == ("from", a.id)
        second.deliver(a.inbox, b.message("so am I"))
        assert first.message().payload == b.message("so am I")
        first.quiet()
        second.quiet()


def test_a_reader_that_never_reads(server):
    """It is somebody else's problem only if the sender notices; it must not."""
    me, friend = server.friends()
    stuck = server.listener(friend, qos=0)
    with server.connect(me) as writer:
        body = me.message("x" * 100_000)
        for _ in range(100):
            assert writer.deliver(friend.inbox, body, 0) == 0
        for n in range(20):
            assert writer.deliver(friend.inbox, body, 1) == 0
    stuck.close()


def test_unfinished_packets_wait(server, version):
    """Half a PUBLISH is nothing; its other half makes it a message."""
    me, friend = server.friends()
    whole = publish(friend.inbox, me.message(), 1, 1, version=version)
    with server.listener(friend) as reader, server.connect(me, version) as writer:
        writer.send(whole[:10])
        reader.quiet()
        writer.send(whole[10:])
        writer.expect(PUBACK, packet_id=1)
        assert reader.message().payload == me.message()


def test_half_a_publish_is_no_publish(server, version):
    me, friend = server.friends()
    whole = publish(friend.inbox, me.message(), 1, 1, version=version)
    with server.listener(friend) as reader:
        writer = server.connect(me, version)
        writer.send(whole[:-1])
        writer.close()
        server.connect(me, version).leave()
        reader.quiet()


