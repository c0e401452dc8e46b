"""PROTOCOL.md, section 8, and docs/operations.md, behind a proxy: where a connection comes from, as a PROXY header says."""

import socket
import struct
import time

import pytest
from harness import packets, streams
from harness.packets import CONNACK
from harness.raw import Client, Closed

LIMIT = 3
GONE = (Closed, ConnectionError)


def v1(source):
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {source} 4660 1883\r\n".encode()


def v2(source, tlvs=b""):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    address = socket.inet_pton(family, source)
    body = address + address + struct.pack(">HH", 4660, 1883) + tlvs
    kind = 0x21 if ":" in source else 0x11
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x21, kind, len(body)) + body


LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
UNKNOWN = b"PROXY UNKNOWN\r\n"


def with_tlvs(source):
    return v2(source, tlvs=b"\x04\x00\x64" + bytes(100))


class Proxied(streams.Tcp):
    """A header, then TLS if there is a CA."""

    def __init__(self, address, header, source=None, tls_ca=None):
        super().__init__(address, source)
        self.send(header)
        if tls_ca:
            self.begin_tls(tls_ca)


@pytest.fixture(params=[v1, v2, with_tlvs])
def header(request):
    return request.param


@pytest.fixture
def strict(start):
    def begin(trusted="mqtt", **options):
        settings = {
            "listen.proxy_protocol": trusted,
            "limits.failed_auth": LIMIT,
            "limits.connections_per_address": 5,
        }
        return start(settings=settings, **options)

    return begin


def logged(server, text):
    """The log is written by a thread of its own."""
    deadline = time.monotonic() + 5
    while text not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)


def attempt(server, owner, header, listener="mqtt", source=None, **login):
    ca = server.certificate / "ca.pem" if listener == "mqtts" else None
    client = Client(Proxied(("127.0.0.1", getattr(server, listener)), header, source, ca), 5)
    login = {"user": owner.id, "password": owner.token} | login
    client.send(packets.connect(owner.client_id("phone"), version=5, **login))
    return client, client.expect(CONNACK).reason


def test_failures_count_for_whom_the_proxy_names(strict, header):
    server = strict()
    me = server.user()
    for _ in range(LIMIT + 1):
        assert attempt(server, me, header("203.0.113.7"), password="wrong")[1] == 0x87
    assert attempt(server, me, header("203.0.113.7"))[1] == 0x9F
    client, reason = attempt(server, me, header("203.0.113.8"))
    assert reason == 0
    client.leave()
    for n in range(LIMIT + 1):
        assert attempt(server, me, header(f"2001:db8::{n}"), password="wrong")[1] == 0x87
    assert attempt(server, me, header("2001:db8::ffff"))[1] == 0x9F
    assert attempt(server, me, header("2001:db8:0:1::1"))[1] == 0


def test_connections_count_for_whom_the_proxy_names(strict, header):
    server = strict()
    clients = []
    for address in ("203.0.113.7", "203.0.113.8", "2001:db8::1"):
        for _ in range(5):
            client, reason = attempt(server, server.user(), header(address))
            assert reason == 0
            clients.append(client)
        with pytest.raises(GONE):
            attempt(server, server.user(), header(address))
    for client in clients:
        client.leave()


@pytest.mark.parametrize("own", [LOCAL, UNKNOWN])
def test_a_proxy_that_speaks_for_itself(strict, own):
    server = strict()
    me = server.user()
    client, reason = attempt(server, me, own)
    assert reason == 0
    client.leave()


def test_before_tls(strict, certificate, header):
    server = strict(trusted="mqtts", certificate=certificate)
    me = server.user()
    for _ in range(LIMIT + 1):
        attempt(server, me, header("203.0.113.7"), "mqtts", password="wrong")
    assert attempt(server, me, header("203.0.113.7"), "mqtts")[1] == 0x9F
    assert attempt(server, me, header("203.0.113.8"), "mqtts")[1] == 0


def test_without_a_header_from_a_proxy(strict):
    server = strict()
    with pytest.raises(GONE):
        server.connect(server.user())
    logged(server, "no PROXY header")


@pytest.mark.parametrize("trusted", ["mqtts", "mqtt=10.0.0.0/8", "http=127.0.0.2", ""])
def test_a_header_from_elsewhere_is_not_believed(strict, header, trusted, certificate):
    server = strict(trusted, certificate=certificate)
    me = server.user()
    with pytest.raises(GONE):
        attempt(server, me, header("203.0.113.7"))
    if trusted == "mqtt=10.0.0.0/8":
        logged(server, "listen.proxy_protocol does not name")
    # Who sends none is served, and counts for its own address.
    server.connect(me).leave()


def test_the_networks_that_are_named(strict, header):
    server = strict("mqtt=127.0.0.2, mqtt=127.0.1.0/24")
    me = server.user()
    for source in ("127.0.0.2", "127.0.1.9"):
        client, reason = attempt(server, me, header("203.0.113.7"), source=source)
        assert reason == 0
        client.leave()
    with pytest.raises(GONE):
        attempt(server, me, header("203.0.113.7"), source="127.0.0.3")
    server.connect(me, source="127.0.0.3").leave()


def test_a_slow_or_endless_header_ends(start):
    server = start(settings={"listen.proxy_protocol": "mqtt", "limits.connect_timeout": "1s"})
    for begins in (b"", b"PRO", b"PROXY TCP4 1.2.3.4", v2("1.2.3.4")[:20], b"PROXY TCP4 " + b"1" * 200):
        stream = streams.Tcp(("127.0.0.1", server.mqtt))
        stream.send(begins)
        assert stream.receive(5) == b""
        stream.close()


def test_health_over_http(strict, header):
    server = strict("http=127.0.0.2")
    for own in (header("203.0.113.7"), LOCAL):
        stream = streams.Tcp(("127.0.0.1", server.http), "127.0.0.2")
        stream.send(own + b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in stream.receive(5).split(b"\r\n")[0]
        stream.close()
