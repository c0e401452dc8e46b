"""The publishing table of PROTOCOL.md, section 4: category, message, 5.0 reason code."""

from .packets import PUBACK, PUBREC
from .raw import error

LEVELS = ("topic", "not enough topic levels", 0x90)
WILDCARDS = ("topic", "wildcards are not allowed in topic", 0x90)
FOREIGN = ("topic", "can't publish to other user's channel except inbox", 0x87)
JSON = ("payload", "payload is not valid json", 0x99)
SENDER = ("payload", "payload sender id mismatch", 0x87)
FRIENDS = ("friends", "not friends with the receiver", 0x87)
NOTIFICATION = ("notification_token", "fatal database error", 0x83)
QUOTA = ("quota", "the receiver's inbox is full", 0x97)


def refused(client, topic, body, row, qos=1):
    """The error, then the acknowledgement that the QoS asks for, and the connection lives on."""
    category, message, reason = row
    packet_id = client.publish(topic, body, qos)
    assert client.error() == error(category, message, packet_id)
    if qos:
        kind = PUBACK if qos == 1 else PUBREC
        got = client.expect(kind, packet_id=packet_id)
        if client.version == 5:
            assert got.reason == reason
        else:
            assert got.raw == bytes([kind << 4, 2]) + packet_id.to_bytes(2, "big")
            assert qos == 1 or client.release(packet_id) == 0
    client.quiet()
