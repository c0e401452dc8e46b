"""What brought other brokers down or past their rules, by the names under which it was published.

Each test says what must happen here: the connection that does it ends (in 5.0 with which reason), memory stays
within a bound, and others notice nothing.
"""

import os
import resource
import signal
import time

import pytest
from harness import User, packets
from harness.packets import CONNACK, DISCONNECT, PUBCOMP, PUBLISH, PUBREC, PUBREL, Will, packet, text
from harness.raw import Closed

MIB = 1024 * 1024

MALFORMED, PROTOCOL_ERROR, NOT_AUTHORIZED = 0x81, 0x82, 0x87
RECEIVE_MAXIMUM_EXCEEDED, PACKET_TOO_LARGE = 0x93, 0x95


def memory(server):
    """Bytes that the process holds in memory."""
    with open(f"/proc/{server.process.pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


class Bystanders:
    """Two friends, one writes and the other reads: that goes on, whatever somebody else does."""

    def __init__(self, server):
        me, friend = server.friends()
        self.me, self.friend = me, friend
        self.writer, self.reader = server.connect(me), server.listener(friend)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.notice_nothing()
        self.writer.close()
        self.reader.close()

    def notice_nothing(self):
        assert self.writer.deliver(self.friend.inbox, self.me.message()) == 0
        self.reader.message(timeout=5, payload=self.me.message())


@pytest.fixture
def bystanders(server):
    with Bystanders(server) as both:
        yield both


def ended(client, reason):
    """The server ends the connection; in 5.0 it says why."""
    client.closed(reason if client.version == 5 else None)


# Names that are somebody else's.


def test_nats_2026_33215_another_users_client_id(server, version):
    """An account of one's own and the client id of somebody else: refused. The owner's connection, session, will and
    mail are left alone, and the owner is told nothing."""
    thief = server.user()
    owner, friend = server.friends()
    will = Will(friend.inbox, owner.message("the will"), 1)
    lasting = {} if version == 4 else {"props": {"session_expiry": 60}}
    with server.listener(friend) as witness:
        phone = server.connect(owner, version, clean=False, will=will, **lasting)
        phone.subscribe(owner.inbox)
        for login in (
            {"user": thief.id, "password": thief.token},
            {"user": owner.id, "password": thief.token},
            {"user": None, "password": None},
        ):
            for clean in (True, False):
                attempt = server.dial(version)
                attempt.send(
                    packets.connect(owner.client_id(), version=version, clean=clean, **login)
                )
                refusal = attempt.expect(CONNACK)
                assert refusal.reason in ((4, 5) if version == 4 else (0x85, 0x86, 0x87))
                attempt.closed()
        phone.quiet()
        witness.quiet()
        phone.leave()
    with server.connect(friend) as writer:
        writer.deliver(owner.inbox, friend.message("for the owner"))
    with server.connect(owner, version, clean=False, **lasting) as phone:
        assert phone.connack.session_present
        phone.message(payload=friend.message("for the owner"))


# QoS 2.


def next_message(client):
    """The next message. What the client completed just before a crash may be released again."""
    while (got := client.receive()).kind == PUBREL:
        client.send(packets.acknowledgement(PUBCOMP, got.packet_id))
    assert got.kind == PUBLISH and not got.dup, got
    client.acknowledge(got)
    return got.payload


def no_message(client):
    client.ping()
    assert all(got.kind == PUBREL for got in client.backlog), client.backlog


@pytest.mark.parametrize("reader_is_there", [True, False])
def test_emqx_2026_8741_qos_2_before_its_id_is_durable(start, version, reader_is_there):
    """A PUBREC says that the packet id is on the disk, and nothing is delivered before it is: after kill -9 the same
    PUBLISH again is the same message."""
    server = start()
    me, friend = server.friends()
    lasting = {} if version == 4 else {"props": {"session_expiry": 60}}
    writer = server.connect(me, version, clean=False, **lasting)
    reader = server.connect(friend, version, clean=False, **lasting)
    reader.subscribe(friend.inbox, qos=2)
    if not reader_is_there:
        reader.leave()
    seen = []
    for number in range(5):
        payload = me.message(str(number))
        writer.publish(friend.inbox, payload, qos=2, packet_id=7)
        assert writer.expect(PUBREC, packet_id=7).reason == 0
        if reader_is_there:
            seen.append(next_message(reader))
        server.kill()
        server.start()
        writer = server.connect(me, version, clean=False, **lasting)
        assert writer.connack.session_present
        writer.publish(friend.inbox, payload, qos=2, packet_id=7, dup=True)
        assert writer.expect(PUBREC, packet_id=7).reason == 0
        assert writer.release(7) == 0
        reader = server.connect(friend, version, clean=False, **lasting)
        if not reader_is_there:
            seen.append(next_message(reader))
        no_message(reader)
        if not reader_is_there:
            reader.leave()
    assert seen == [me.message(str(number)) for number in range(5)]


def test_mosquitto_2023_28366_one_qos_2_id_for_ever(server, version, bystanders):
    """The same id again and again, never released: one message, PUBRECs and nothing else, no memory. Repetitions that
    come before the first is answered are answered together."""
    me, friend = server.friends()
    client = server.connect(me, version)
    reader = server.listener(friend, qos=2)
    once = packets.publish(friend.inbox, me.message(), 2, 1, version=version)
    again = packets.publish(friend.inbox, me.message(), 2, 1, dup=True, version=version)
    client.send(once)
    assert client.expect(PUBREC, packet_id=1).reason == 0
    before = memory(server)
    for _ in range(100):
        client.send(again * 200)
        answers = [client.expect(PUBREC)]
        client.ping()
        answers += [client.receive() for _ in range(len(client.backlog))]
        assert len(answers) <= 200
        assert all((it.kind, it.packet_id, it.reason) == (PUBREC, 1, 0) for it in answers)
    assert memory(server) - before < 8 * MIB
    reader.message(payload=me.message())
    reader.quiet()
    assert client.release(1) == 0
    client.close()
    reader.close()


def test_mosquitto_2023_28366_all_qos_2_ids(start, version):
    """Ever new ids, never released: the receive maximum bounds them in 5.0; 3.1.1 waits for its own."""
    server = start()
    me, friend = server.friends()
    with Bystanders(server):
        client = server.connect(me, version)
        maximum = client.connack.get("receive_maximum") if version == 5 else 64
        before = memory(server)
        message = me.message("x" * 1000)
        for first in range(1, 2001, 100):
            try:
                for packet_id in range(first, first + 100):
                    client.publish(friend.inbox, message, 2, packet_id)
            except OSError:
                break
        got = []
        try:
            while True:
                got.append(client.receive(2))
        except (Closed, TimeoutError, AssertionError):
            pass
        recs = [it for it in got if it.kind == PUBREC]
        if version == 5:
            assert len(recs) <= maximum
            assert got[-1].kind == DISCONNECT and got[-1].reason == RECEIVE_MAXIMUM_EXCEEDED
        assert memory(server) - before < 32 * MIB
        client.close()


# Lengths.

LIES = {
    "more than there is": lambda good: good[:1] + packets.varint(len(good) + 500) + good[2:],
    "less than there is": lambda good: good[:1] + packets.varint(good[1] - 5) + good[2:],
    "nothing": lambda good: good[:1] + b"\0" + good[2:],
    "256 MB": lambda good: good[:1] + b"\xff\xff\xff\x7f" + good[2:],
}


@pytest.mark.parametrize("first", [True, False], ids=["CONNECT", "PUBLISH"])
@pytest.mark.parametrize("lie", LIES)
def test_nanomq_2026_25627_websocket_frame_whose_length_lies(server, version, bystanders, lie, first):
    """The frame's length says nothing of the packet's: what is missing is waited for, what is too much is the next
    packet, what is too large ends the connection."""
    me, friend = server.friends()
    before = memory(server)
    clients = []
    for _ in range(20):
        client = server.dial(version, "ws")
        clients.append(client)
        hello = packets.connect(me.client_id(), me.id, me.token, version)
        if first:
            client.send(LIES[lie](hello))
            continue
        client.send(hello)
        assert client.expect(CONNACK).reason == 0
        client.send(LIES[lie](packets.publish(friend.inbox, b"{}", 1, 1, version=version)))
    for client in clients[-1:] if not first else clients:
        if lie == "more than there is":
            with pytest.raises(TimeoutError):
                client.receive(0.1)
        else:
            over = PACKET_TOO_LARGE if lie == "256 MB" else None
            got = []
            try:
                while True:
                    got.append(client.receive(8))
            except Closed:
                pass
            if version == 5 and not first:
                assert got[-1].kind == DISCONNECT and got[-1].reason >= 0x80
                assert over is None or got[-1].reason == over
    for client in clients:
        client.close()
    assert memory(server) - before < 8 * MIB


FIVE = b"\xff\xff\xff\xff\x01"
FIVE_BYTES = {
    "remaining length": b"\x30" + FIVE,
    "remaining length of zero": b"\xc0\x80\x80\x80\x80\0",
    "property length": packet(PUBLISH, 0, text("/x/y") + FIVE),
    "subscription identifier": packet(8, 2, b"\0\1\6\x0b" + FIVE + text("/x") + b"\0"),
    "property identifier": packet(PUBLISH, 0, text("/x/y") + b"\5" + FIVE),
}


@pytest.mark.parametrize("transport", ["tcp", "ws"])
@pytest.mark.parametrize("where", FIVE_BYTES)
def test_nanomq_2026_21888_five_byte_varint(server, bystanders, where, transport):
    """Four bytes at most (MQTT 5.0, 1.5.5): anything longer is malformed, before and after CONNECT."""
    stranger = server.dial(5, transport)
    stranger.send(FIVE_BYTES[where])
    try:
        assert stranger.receive(8).reason >= 0x80
        stranger.closed()
    except Closed:
        pass
    client = server.connect(server.user(), 5, transport=transport)
    client.send(FIVE_BYTES[where])
    client.closed(MALFORMED)


@pytest.mark.parametrize("kind", ["CONNECT", "PUBLISH"])
def test_mosquitto_2023_0809_huge_first_packet(server, bystanders, kind):
    """A first packet other than CONNECT, or one larger than a CONNECT can be, is refused by its first bytes. Nothing
    is reserved for it."""
    before = memory(server)
    head = {"CONNECT": b"\x10", "PUBLISH": b"\x30"}[kind]
    clients = [server.dial(4) for _ in range(100)]
    for client in clients:
        client.send(head + b"\xff\xff\xff\x7f")
    for client in clients:
        client.closed(timeout=8)
        client.close()
    assert memory(server) - before < 4 * MIB


def test_mosquitto_2017_7651_large_lengths_before_authentication(server, bystanders):
    """Who has not logged in makes the server hold what was sent, at most 64 KiB a connection, and not what was
    announced."""
    before = memory(server)
    clients = [server.dial(4) for _ in range(200)]
    for client in clients:
        client.send(b"\x10" + packets.varint(60_000) + text("MQTT") + b"\4\xc2\0\0")
    time.sleep(0.5)
    assert memory(server) - before < 200 * 16 * 1024 + 4 * MIB, "what was announced"
    filler = b"x" * 50_000
    for client in clients:
        client.send(filler)
    time.sleep(0.5)
    assert memory(server) - before < 200 * 128 * 1024 + 8 * MIB, "more than twice what was sent"
    bystanders.notice_nothing()
    for client in clients:
        client.close()


# Packets that say what they may not.

BAD_WILL_PROPERTIES = {
    "of another packet": packets.property_bytes("topic_alias", 1),
    "of CONNECT": packets.property_bytes("session_expiry", 1),
    "twice": packets.property_bytes("content_type", "a") * 2,
    "unknown": b"\x7f\1",
    "cut short": packets.property_bytes("correlation_data", b"x" * 100)[:50],
    "no such value": packets.property_bytes("payload_format", 2),
    "not UTF-8": b"\x03" + text(b"\xff" * 1000),
    "half a pair": b"\x26" + text(b"name"),
}


@pytest.mark.parametrize("what", BAD_WILL_PROPERTIES)
def test_mosquitto_2023_3592_bad_will_properties(server, bystanders, what):
    """Refused with 0x81 or 0x82; nothing of the will is kept, or sent."""
    me, friend = server.friends()
    will = packets.varint(len(BAD_WILL_PROPERTIES[what])) + BAD_WILL_PROPERTIES[what]
    body = text("MQTT") + b"\5\xce\0\x3c" + b"\0" + text(me.client_id()) + will
    body += text(friend.inbox) + text(me.message("x" * 10_000)) + text(me.id) + text(me.token)
    with server.listener(friend) as reader:
        for round in range(300):
            client = server.dial(5)
            client.send(packet(1, 0, body))
            try:
                assert client.receive(8).reason in (MALFORMED, PROTOCOL_ERROR)
                client.closed()
            except Closed:
                pass
            client.close()
            if round == 50:
                before = memory(server)
        assert memory(server) - before < 4 * MIB
        reader.quiet()


def test_mosquitto_2021_34432_empty_topic(server, version, bystanders):
    """A PUBLISH without a topic ends its connection: also where an alias could stand for it, but does not."""
    me = server.user()
    for qos in (0, 1, 2):
        client = server.connect(me, version)
        client.publish("", b"x", qos)
        ended(client, PROTOCOL_ERROR)
    for topic in ("/", "//", "///"):
        client = server.connect(me, version)
        assert client.deliver(topic, b"x", 1) != 0, "refused, and the connection goes on"
        client.ping()
        client.close()


def test_mosquitto_2021_28166_connack_from_a_client(server, version, bystanders):
    """What only a server sends ends the connection that sends it."""
    only_servers = {
        "CONNACK": packet(2, 0, b"\0\0" + (b"\0" if version == 5 else b"")),
        "CONNACK with a session": packet(2, 0, b"\1\0" + (b"\0" if version == 5 else b"")),
        "SUBACK": packet(9, 0, b"\0\1" + (b"\0" if version == 5 else b"") + b"\0"),
        "UNSUBACK": packet(11, 0, b"\0\1" + (b"\0\0" if version == 5 else b"")),
        "PINGRESP": packet(13, 0, b""),
    }
    for name, bytes_ in only_servers.items():
        client = server.connect(server.user(), version)
        client.send(bytes_)
        if version == 5:
            assert client.expect(DISCONNECT).reason in (MALFORMED, PROTOCOL_ERROR), name
        client.closed()


# What was allowed, and is no more.


@pytest.mark.parametrize("change", ["token", "removed"])
def test_mosquitto_2021_34434_subscriptions_survive_revocation(server, version, change):
    """Whose token is gone is off within a second, and reads nothing that comes after that; the session that was made
    with it is gone too."""
    me, friend = server.friends()
    lasting = {} if version == 4 else {"props": {"session_expiry": 60}}
    thief = server.connect(friend, version, clean=False, **lasting)
    thief.subscribe(friend.inbox, f"/{friend.id}/x")
    if change == "token":
        friend = server.directory.set_token(friend, "another-token")
    else:
        server.directory.remove(friend)
    began = time.monotonic()
    ended(thief, NOT_AUTHORIZED)
    assert time.monotonic() - began < 1.5
    with server.connect(me) as writer:
        writer.deliver(friend.inbox, me.message("not for the thief"))
    if change == "token":
        owner = server.connect(friend, version, clean=False, **lasting)
        assert not owner.connack.session_present, "the thief's session goes on"
        owner.subscribe(friend.inbox)
        owner.message(payload=me.message("not for the thief"))
        owner.close()


def test_mosquitto_2021_34434_a_block_counts_for_connections_that_are_open(server, version):
    """Who is blocked writes to the subscription no more, from that moment on."""
    me, friend = server.friends()
    with server.connect(me, version) as writer, server.listener(friend, version) as reader:
        assert writer.deliver(friend.inbox, me.message("before")) == 0
        reader.message(payload=me.message("before"))
        server.directory.block(friend, me)
        for qos in (0, 1, 2):
            assert writer.deliver(friend.inbox, me.message("after"), qos) != 0
        reader.quiet()


@pytest.mark.parametrize("change", ["token", "removed"])
def test_mosquitto_2018_12546_retained_after_revocation(server, version, change):
    """What an account that is gone has retained is gone, whatever account gets its id. A new token leaves the owner what is the
    owner's. And no friend ever leaves anything retained at all."""
    me, friend = server.friends()
    topic = f"/{me.id}/profile"
    with server.connect(me, version) as writer:
        writer.deliver(topic, b"a picture", retain=True)
        writer.deliver(friend.inbox, me.message(), retain=True)
    with server.listener(friend, version) as reader:
        reader.message(payload=me.message(), retain=False)
    server.directory.block(friend, me)
    with server.listener(friend, version) as reader:
        reader.quiet()
    if change == "token":
        me = server.directory.set_token(me, "another-token")
        with server.connect(me, version) as owner:
            owner.subscribe(topic)
            owner.message(payload=b"a picture", retain=True)
        return
    server.directory.remove(me)
    time.sleep(1.5)
    server.directory.execute(
        "INSERT INTO accounts (user_id, username, user_api_token, inactive) VALUES (?, ?, ?, FALSE)",
        me.id, f"new-{me.id}", "new-owner",
    )
    me = User(me.id, "new-owner")
    with server.connect(me, version) as owner:
        owner.subscribe(topic)
        owner.quiet()


def test_mosquitto_2018_12543_dollar_topics(server, version, bystanders):
    """`$` has no meaning here but this: no topic and no filter has it."""
    me, friend = server.friends()
    refusal = "wildcards are not allowed in topic"
    with server.connect(me, version) as client, server.connect(friend, version) as other:
        for topic in ("$SYS/broker/x", "/$SYS/broker", f"/{me.id}/$x", f"$share/{me.id}/inbox", "$//"):
            for qos in (0, 1, 2):
                for retain in (False, True):
                    code = client.deliver(topic, b"x", qos, retain=retain)
                    assert code != 0, topic
            assert other.subscribe(topic)[0] >= 0x80, topic
        for topic in ("$", "$SYS", "$share"):
            assert client.deliver(topic, b"x") != 0, "too few levels"
            assert other.subscribe(topic)[0] >= 0x80
        for last in list(client.backlog):
            assert last.kind == PUBLISH and b'"authorizePublish"' in last.payload
        assert any(refusal.encode() in it.payload for it in client.backlog)
        client.backlog.clear()
        other.backlog.clear()
        client.ping()


# No descriptors.


def test_mosquitto_2017_7652_reload_without_descriptors(start):
    """While no descriptor is left, and after SIGHUP then, every rule stays: a token that was changed lets nobody in and
    ends what it let in, a block counts. With descriptors again, all is as before."""
    server = start()
    me, friend = server.friends()
    thief = server.user()
    pid = server.process.pid
    writer = server.connect(me, 5)
    stolen = server.connect(thief, 5)
    held = len(os.listdir(f"/proc/{pid}/fd"))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (held + 4, hard))
    crowd = [server.open() for _ in range(20)]
    time.sleep(0.5)
    server.process.send_signal(signal.SIGHUP)
    robbed = server.directory.set_token(thief, "another-token")
    server.directory.block(friend, me)
    stolen.closed(NOT_AUTHORIZED, timeout=5)
    code = writer.deliver(friend.inbox, me.message())
    assert code != 0, "a blocked friend writes"
    server.process.send_signal(signal.SIGHUP)
    writer.ping()
    for stream in crowd:
        stream.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    deadline = time.monotonic() + 10
    while True:
        try:
            late, connack = server.attempt(thief, 5)
            break
        except (Closed, OSError, TimeoutError):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert connack.reason == NOT_AUTHORIZED
    server.connect(robbed, 5).close()
    server.directory.unblock(friend, me)
    assert writer.deliver(friend.inbox, me.message()) == 0
    writer.close()
