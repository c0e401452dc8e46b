"""MQTT 3.1, 3.1.1 and 5.0 packets to bytes and back, written by hand.

Builders take what a test wants to send, valid or not, and check nothing. `decode` is strict about
what the server writes: a byte too many is an error.
"""

from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

NAMES = (
    "RESERVED CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP "
    "SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH"
).split()

PROPERTIES = {
    "payload_format": (0x01, "byte"),
    "message_expiry": (0x02, "four"),
    "content_type": (0x03, "text"),
    "response_topic": (0x08, "text"),
    "correlation_data": (0x09, "binary"),
    "subscription_id": (0x0B, "varint"),
    "session_expiry": (0x11, "four"),
    "assigned_client_id": (0x12, "text"),
    "server_keep_alive": (0x13, "two"),
    "auth_method": (0x15, "text"),
    "auth_data": (0x16, "binary"),
    "request_problem": (0x17, "byte"),
    "will_delay": (0x18, "four"),
    "request_response": (0x19, "byte"),
    "response_information": (0x1A, "text"),
    "server_reference": (0x1C, "text"),
    "reason_string": (0x1F, "text"),
    "receive_maximum": (0x21, "two"),
    "topic_alias_maximum": (0x22, "two"),
    "topic_alias": (0x23, "two"),
    "maximum_qos": (0x24, "byte"),
    "retain_available": (0x25, "byte"),
    "user": (0x26, "pair"),
    "maximum_packet_size": (0x27, "four"),
    "wildcard_available": (0x28, "byte"),
    "subscription_id_available": (0x29, "byte"),
    "shared_available": (0x2A, "byte"),
}
BY_NUMBER = {number: (name, kind) for name, (number, kind) in PROPERTIES.items()}


def to_bytes(value):
    return value.encode() if isinstance(value, str) else value


def varint(number):
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(value):
    value = to_bytes(value)
    return len(value).to_bytes(2, "big") + value


def property_bytes(name, value):
    number, kind = PROPERTIES[name]
    head = varint(number)
    match kind:
        case "byte":
            return head + bytes([value])
        case "two":
            return head + value.to_bytes(2, "big")
        case "four":
            return head + value.to_bytes(4, "big")
        case "varint":
            return head + varint(value)
        case "pair":
            return head + text(value[0]) + text(value[1])
        case _:
            return head + text(value)


def properties(pairs, version):
    """The property block: a dict, or a list of (name, value) where order or repetition matters."""
    if version < 5:
        return b""
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    body = b"".join(property_bytes(name, value) for name, value in pairs)
    return varint(len(body)) + body


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


@dataclass
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: dict = field(default_factory=dict)


def connect(
    client_id, user=None, password=None, version=4, clean=True, keepalive=60, will=None, props=()
):
    flags = 0x02 if clean else 0
    tail = text(client_id)
    if will:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        tail += properties(will.properties, version) + text(will.topic) + text(will.payload)
    if user is not None:
        flags |= 0x80
        tail += text(user)
    if password is not None:
        flags |= 0x40
        tail += text(password)
    name = "MQIsdp" if version == 3 else "MQTT"
    head = text(name) + bytes([version, flags]) + keepalive.to_bytes(2, "big")
    return packet(CONNECT, 0, head + properties(props, version) + tail)


def publish(
    topic, payload=b"", qos=0, packet_id=None, retain=False, dup=False, version=4, props=()
):
    flags = (8 if dup else 0) | qos << 1 | (1 if retain else 0)
    head = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    return packet(PUBLISH, flags, head + properties(props, version) + to_bytes(payload))


def acknowledgement(kind, packet_id, reason=None):
    body = packet_id.to_bytes(2, "big") + (b"" if reason is None else bytes([reason]))
    return packet(kind, 2 if kind == PUBREL else 0, body)


def subscribe(packet_id, filters, version=4, props=()):
    """`filters`: (filter, options byte) pairs; in 3.1.1 the options byte is the QoS."""
    body = b"".join(text(name) + bytes([options]) for name, options in filters)
    return packet(SUBSCRIBE, 2, packet_id.to_bytes(2, "big") + properties(props, version) + body)


def unsubscribe(packet_id, filters, version=4):
    body = b"".join(text(name) for name in filters)
    return packet(UNSUBSCRIBE, 2, packet_id.to_bytes(2, "big") + properties((), version) + body)


PING = packet(PINGREQ, 0, b"")


def disconnect(version=4, reason=None, props=()):
    body = b""
    if version == 5 and reason is not None:
        body = bytes([reason]) + (properties(props, 5) if props else b"")
    return packet(DISCONNECT, 0, body)


@dataclass
class Packet:
    """One packet from the server. `raw` is the whole of it as it came."""

    raw: bytes
    kind: int
    flags: int
    packet_id: int | None = None
    reason: int | None = None
    session_present: bool | None = None
    codes: list | None = None
    topic: str | None = None
    payload: bytes | None = None
    props: list = field(default_factory=list)

    qos = property(lambda self: self.flags >> 1 & 3)
    dup = property(lambda self: bool(self.flags & 8))
    retain = property(lambda self: bool(self.flags & 1))

    def all(self, name):
        return [value for key, value in self.props if key == name]

    def get(self, name, default=None):
        return next(iter(self.all(name)), default)

    def __str__(self):
        shown = self.raw if len(self.raw) <= 300 else self.raw[:300] + b"..."
        return f"{NAMES[self.kind]} {shown!r}"


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data), f"packet too short: {self.data!r}"
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "big")

    def binary(self):
        return self.take(self.number(2))

    def text(self):
        return self.binary().decode()

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def rest(self):
        return self.take(len(self.data) - self.at)

    def properties(self):
        inner = Reader(self.take(self.varint()))
        found = []
        read = {
            "byte": lambda: inner.number(1),
            "two": lambda: inner.number(2),
            "four": lambda: inner.number(4),
            "varint": inner.varint,
            "text": inner.text,
            "binary": inner.binary,
            "pair": lambda: (inner.text(), inner.text()),
        }
        while inner.at < len(inner.data):
            name, kind = BY_NUMBER[inner.varint()]
            found.append((name, read[kind]()))
        return found


def decode(raw, version):
    """The packet that `raw` is, exactly: header, body and nothing after it."""
    header = Reader(raw)
    first = header.number(1)
    length = header.varint()
    body = Reader(header.take(length))
    assert header.at == len(raw)
    out = Packet(raw, first >> 4, first & 15)
    match out.kind:
        case 2:
            flags = body.number(1)
            assert flags in (0, 1), f"CONNACK flags {flags}"
            out.session_present, out.reason = bool(flags), body.number(1)
            out.props = body.properties() if version == 5 else []
        case 3:
            out.topic = body.text()
            assert out.qos < 3
            out.packet_id = body.number(2) if out.qos else None
            out.props = body.properties() if version == 5 else []
            out.payload = body.rest()
        case 4 | 5 | 6 | 7:
            out.packet_id, out.reason = body.number(2), 0
            if version == 5 and body.at < len(body.data):
                out.reason = body.number(1)
                out.props = body.properties() if body.at < len(body.data) else []
        case 9 | 11:
            out.packet_id = body.number(2)
            out.props = body.properties() if version == 5 else []
            out.codes = list(body.rest())
        case 13:
            pass
        case 14:
            assert version == 5, "only 5.0 servers send DISCONNECT"
            out.reason = body.number(1) if body.data else 0
            out.props = body.properties() if body.at < len(body.data) else []
        case _:
            raise AssertionError(f"a server never sends {NAMES[out.kind]}: {raw!r}")
    assert body.at == len(body.data), f"{NAMES[out.kind]} has trailing bytes: {raw!r}"
    return out
