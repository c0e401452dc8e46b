"""PROTOCOL.md, section 8: connections that do not log in keep nobody out, by whatever listener they come."""

import socket
import time

import pytest
from harness import process

PLACES = 20

UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

# The listener, and what a connection to it begins with before it falls silent.
BEGINNINGS = {
    "nothing": ("mqtt", b""),
    "half a CONNECT": ("mqtt", b"\x10\x7f\x00\x04MQTT\x04"),
    "half a request": ("http", b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n"),
    "a request, answered": ("http", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "WebSocket without a CONNECT": ("http", UPGRADE),
    "TLS: nothing": ("mqtts", b""),
    "TLS: half a ClientHello": ("mqtts", CLIENT_HELLO),
}


def begin(server, beginning, count):
    listener, first = BEGINNINGS[beginning]
    streams = []
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", getattr(server, listener)), timeout=10)
        stream.sendall(first)
        streams.append(stream)
    return streams


def end(stream):
    """Waits until the server has closed it."""
    try:
        while stream.recv(65536):
            pass
    except ConnectionResetError:
        pass


@pytest.fixture
def small(start, certificate):
    """Few places; only what TLS needs a certificate for has one."""

    def begin(beginning, **settings):
        tls = certificate if beginning.startswith("TLS") else None
        settings = {"limits.connections": PLACES, "limits.connect_timeout": "1m"} | settings
        return start(settings=settings, certificate=tls)

    return begin


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_who_does_not_log_in_keeps_nobody_out(small, beginning):
    server = small(beginning)
    me, friend = server.friends()
    with server.listener(me) as phone:
        idle = begin(server, beginning, 3 * PLACES)
        for stream in idle[: 2 * PLACES]:
            end(stream)  # all have been accepted, and these made room
        before = time.monotonic()
        with server.connect(friend) as writer:
            assert time.monotonic() - before < 5
            writer.deliver(me.inbox, friend.message())
            assert phone.message().payload == friend.message()
        for stream in idle:
            stream.close()


@pytest.mark.parametrize("beginning", ["nothing", "WebSocket without a CONNECT"])
def test_nor_of_its_own_address(small, beginning):
    server = small(beginning, **{"limits.connections_per_address": 5})
    me, friend = server.friends()
    with server.listener(me) as phone:
        idle = begin(server, beginning, 12)
        with server.connect(friend) as writer:
            writer.deliver(me.inbox, friend.message())
            assert phone.message().payload == friend.message()
        for stream in idle:
            stream.close()


def test_who_has_logged_in_stays(small):
    server = small("nothing", **{"limits.connections_per_address": 5})
    phones = [server.connect(server.user(), source="127.0.0.9") for _ in range(5)]
    streams = begin(server, "nothing", 3 * PLACES)
    for phone in phones:
        phone.ping()
    sixth = socket.create_connection(("127.0.0.1", server.mqtt), 10, ("127.0.0.9", 0))
    assert sixth.recv(1) == b"", "closed as soon as it is accepted"
    for stream in [*streams, sixth]:
        stream.close()
    for phone in phones:
        phone.leave()


def test_descriptors_are_places(start, tmp_path, monkeypatch):
    """`limits.connections` is a million, and there are 256 descriptors."""
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n 256\nexec {process.BINARY} "$@"\n')
    limited.chmod(0o755)
    monkeypatch.setattr(process, "BINARY", limited)
    server = start()
    me, friend = server.friends()
    with server.listener(me) as phone:
        idle = [stream for n in range(4) for stream in begin(server, "nothing", 100)]
        with server.connect(friend) as writer:
            writer.deliver(me.inbox, friend.message())
            assert phone.message().payload == friend.message()
        for stream in idle:
            stream.close()
    server.stop()  # the log is written by a thread of its own, up to the end
    assert "cannot accept" not in server.log()
    assert "made room for others" in server.log()
