"""A raw MQTT client: it sends bytes, and tells packet by packet what came back, in wire order."""

import json
import time
from collections import deque

from . import packets
from .packets import (
    DISCONNECT,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
)

# For what must come. A machine with other work may take long.
PATIENCE = 30
# For an end that must come: below `limits.connect_timeout`, which ends a client that says nothing.
END_PATIENCE = 8


class Closed(Exception):
    """The server closed the connection."""


def error(category, message, message_id=None, handler="authorizePublish"):
    """The exact bytes of an error (PROTOCOL.md, section 2)."""
    body = {
        "type": "error",
        "handler": handler,
        "category": category,
        "message": message,
        "messageId": message_id,
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


LOGOUT = error("logout", "a new device has connected", handler="authenticate")


class Client:
    def __init__(self, stream, version):
        self.stream, self.version = stream, version
        self.user = self.client_id = self.connack = None
        self.buffer = b""
        self.backlog = deque()
        self.last_id = 0
        self.reads_inbox = False
        self.unread = False  # acknowledgements that the server may not have read yet

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.unread = self.unread and kind is None
        self.close()

    def close(self):
        """Closes the socket without DISCONNECT.

        The server is given time to read what was acknowledged: a new connection of the same user
        could otherwise overtake it, and the message would rightly come again.
        """
        try:
            if self.unread:
                self.ping()
        except (Closed, OSError):
            pass
        self.stream.close()

    def leave(self, reason=None, props=()):
        """DISCONNECT, then waits for the server to close."""
        self.send(packets.disconnect(self.version, reason, props))
        self.closed()
        self.close()

    def send(self, *data):
        self.stream.send(b"".join(data))

    def next_id(self):
        self.last_id += 1
        return self.last_id

    # Reading

    def receive(self, timeout=PATIENCE):
        """The next packet from the server."""
        return self.backlog.popleft() if self.backlog else self._from_wire(timeout)

    def _from_wire(self, timeout):
        deadline = time.monotonic() + timeout
        while (size := self._complete()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no packet within {timeout} s, only {self.buffer!r}")
            more = self.stream.receive(left)
            if not more:
                assert not self.buffer, f"closed in the middle of a packet: {self.buffer!r}"
                raise Closed
            self.buffer += more
        raw, self.buffer = self.buffer[:size], self.buffer[size:]
        return packets.decode(raw, self.version)

    def _complete(self):
        size = 0
        for at in range(1, 5):
            if at >= len(self.buffer):
                return None
            size |= (self.buffer[at] & 0x7F) << 7 * (at - 1)
            if self.buffer[at] < 0x80:
                return at + 1 + size if len(self.buffer) >= at + 1 + size else None
        raise AssertionError(f"a length of more than four bytes: {self.buffer[:8]!r}")

    def expect(self, kind, timeout=PATIENCE, **fields):
        """The next packet, which must be of this kind and have these fields."""
        got = self.receive(timeout)
        assert got.kind == kind, f"expected {packets.NAMES[kind]}, got {got}"
        for name, value in fields.items():
            assert getattr(got, name) == value, f"{name} is not {value!r}: {got}"
        return got

    def await_reply(self, kind, packet_id=None, timeout=PATIENCE):
        """The next packet of this kind and id; what comes before it stays to be received."""
        kept = []
        deadline = time.monotonic() + timeout
        while True:
            got = self.receive(deadline - time.monotonic())
            if got.kind == kind and packet_id in (None, got.packet_id):
                self.backlog.extendleft(reversed(kept))
                return got
            kept.append(got)

    def closed(self, reason=None, timeout=END_PATIENCE):
        """The server ends the connection: nothing more but, in 5.0, DISCONNECT with `reason`."""
        if self.version == 5 and reason is not None:
            self.expect(DISCONNECT, timeout=timeout, reason=reason)
        try:
            got = self.receive(timeout)
        except Closed:
            return
        raise AssertionError(f"expected the end of the connection, got {got}")

    def message(self, timeout=PATIENCE, ack=True, **fields):
        """The next packet, which must be a PUBLISH; acknowledged as its QoS asks."""
        got = self.expect(PUBLISH, timeout, **fields)
        if ack:
            self.acknowledge(got)
        return got

    def acknowledge(self, got):
        self.unread = got.qos > 0
        if got.qos == 1:
            self.send(packets.acknowledgement(PUBACK, got.packet_id))
        elif got.qos == 2:
            self.send(packets.acknowledgement(PUBREC, got.packet_id))
            assert self.await_reply(PUBREL, got.packet_id).flags == 2
            self.send(packets.acknowledgement(PUBCOMP, got.packet_id))

    def error(self):
        """The payload of the next packet, which must be an error on the device channel."""
        channel = f"/{self.user.id}/devices/{self.client_id}"
        return self.expect(PUBLISH, topic=channel, qos=0, retain=False, dup=False).payload

    # Writing

    def subscribe(self, *filters, qos=1, props=()):
        """Returns SUBACK's codes. A filter is a string, or a pair with its options byte."""
        pairs = [(f, qos) if isinstance(f, (str, bytes)) else f for f in filters]
        packet_id = self.next_id()
        self.send(packets.subscribe(packet_id, pairs, self.version, props))
        codes = self.await_reply(SUBACK, packet_id).codes
        assert len(codes) == len(pairs)
        if self.user and any(f == self.user.inbox and c < 3 for (f, _), c in zip(pairs, codes)):
            self.reads_inbox = True
        return codes

    def unsubscribe(self, *filters):
        packet_id = self.next_id()
        self.send(packets.unsubscribe(packet_id, filters, self.version))
        if self.user.inbox in filters:
            self.reads_inbox = False
        return self.await_reply(UNSUBACK, packet_id).codes

    def publish(self, topic, payload=b"", qos=0, packet_id=None, **options):
        """Sends a PUBLISH and waits for nothing. Returns its packet id (None at QoS 0)."""
        packet_id = (packet_id or self.next_id()) if qos else None
        self.send(
            packets.publish(topic, payload, qos, packet_id, version=self.version, **options)
        )
        return packet_id

    def deliver(self, topic, payload=b"", qos=1, **options):
        """Publishes and completes the exchange; returns the reason code, or the error as it came."""
        packet_id = self.publish(topic, payload, qos, **options)
        if qos == 0:
            self.ping()
            reason = 0
        elif qos == 1:
            reason = self.await_reply(PUBACK, packet_id).reason
        else:
            reason = self.await_reply(PUBREC, packet_id).reason
            if reason < 0x80:
                self.release(packet_id)
        ours = b'"messageId":%s}' % str(packet_id or "null").encode()
        errors = [got.payload for got in self.backlog if got.payload and got.payload.endswith(ours)]
        return reason or next(iter(errors), 0)

    def release(self, packet_id):
        """PUBREL, answered by PUBCOMP."""
        self.send(packets.acknowledgement(PUBREL, packet_id))
        return self.await_reply(PUBCOMP, packet_id).reason

    def ping(self):
        self.send(packets.PING)
        self.await_reply(PINGRESP)
        self.unread = False

    def quiet(self):
        """Nothing is on its way to this client: what it writes to itself now comes back first."""
        marker = self.user.message(f"marker {time.monotonic_ns()}")
        topic = self.user.inbox if self.reads_inbox else f"/{self.user.id}/devices/{self.client_id}"
        packet_id = self.publish(topic, marker, qos=1)
        waiting = {PUBACK, PUBLISH}
        while waiting:
            got = self.receive()
            assert got.kind in waiting, f"not quiet: {got}"
            if got.kind == PUBACK:
                assert (got.packet_id, got.reason) == (packet_id, 0), f"not quiet: {got}"
            else:
                assert got.payload == marker, f"not quiet: {got}"
                self.acknowledge(got)
            waiting.remove(got.kind)
