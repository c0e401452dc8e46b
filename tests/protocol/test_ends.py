"""How connections end: judged by what the client has sent, not by what the server has read.

What had arrived counts, whatever ends the connection and whatever it stood behind; and silence is
what the server has looked for and not found.
"""

import contextlib
import signal
import socket
import struct
import threading
import time

import pytest
from harness import streams
from harness.directory import Directory
from harness.packets import CONNACK, PING, PUBLISH, Will, connect, disconnect, publish
from harness.raw import Client, Closed

BACKLOG = 10
BODY = "x" * 1_000_000


@pytest.fixture
def backlog(server):
    """A user and a friend who has written much more than a connection holds."""
    me, friend = server.friends()
    with server.connect(friend) as writer:
        for n in range(BACKLOG):
            writer.deliver(me.inbox, friend.message(f"{n} {BODY}"))
    return me, friend


def narrow(server, me, version, transport="tcp", keepalive=60, will=None, **options):
    """A client that takes little at a time, with the backlog on its way to it."""
    client = server.dial(version, transport)
    tcp = client.stream if isinstance(client.stream, streams.Tcp) else client.stream.tcp
    tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.send(
        connect(
            me.client_id(), me.id, me.token, version, keepalive=keepalive, will=will, **options
        )
    )
    client.expect(CONNACK, reason=0)
    client.subscribe(me.inbox)
    time.sleep(0.3)
    return client, tcp


def last_words(me, friend, version):
    return publish(friend.inbox, me.message("last"), 1, 9, version=version) + disconnect(version)


def reset(tcp):
    linger = struct.pack("ii", 1, 0)
    tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    tcp.close()


ENDS = ["nothing", "close", "reset", "half-closed", "takeover", "logout"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("transport", ["tcp", "ws"])
def test_last_words_behind_output_that_nobody_reads(server, backlog, version, transport, end):
    me, friend = backlog
    with server.listener(friend, version) as reader:
        will = Will(friend.inbox, me.message("will"), 1)
        client, tcp = narrow(server, me, version, transport, will=will)
        client.send(last_words(me, friend, version))
        match end:
            case "close":
                client.stream.close()
            case "reset":
                time.sleep(0.05)
                reset(tcp)
            case "half-closed":
                tcp.socket.shutdown(socket.SHUT_WR)
            case "takeover":
                server.connect(me, version).leave()
            case "logout":
                server.connect(me, version, device="tablet").leave()
        assert reader.message().payload == me.message("last")
        reader.quiet()


def test_last_words_behind_requests_without_end(server, backlog, version):
    """Of a client that never reads the answers to what it asks."""
    me, friend = backlog
    with server.listener(friend, version) as reader:
        client, _ = narrow(server, me, version, will=Will(friend.inbox, me.message("will"), 1))
        client.send(PING * 50_000, last_words(me, friend, version))
        time.sleep(0.5)
        server.connect(me, version).leave()
        assert reader.message().payload == me.message("last")
        reader.quiet()


def test_last_words_behind_a_ping_that_cannot_be_answered(server, version):
    """A WebSocket's, whose client is gone before the server can answer it."""
    me, friend = server.friends()
    with server.listener(friend, version) as reader:
        will = Will(friend.inbox, me.message("will"), 1)
        client = server.connect(me, version, transport="ws", will=will)
        long = publish(f"/{me.id}/x", b"z" * 40_000, version=version)
        server.process.send_signal(signal.SIGSTOP)
        client.stream.raw(streams.frame(b"", opcode=9) + streams.frame(long))
        client.send(last_words(me, friend, version))
        reset(client.stream.tcp)
        server.process.send_signal(signal.SIGCONT)
        assert reader.message().payload == me.message("last")
        reader.quiet()


@pytest.mark.parametrize("end", ["reset", "takeover", "stop"])
def test_last_words_behind_frames_that_hold_nothing(start, version, end):
    server = start()
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("will"), 1)
    client = server.connect(me, version, transport="ws", will=will)
    server.process.send_signal(signal.SIGSTOP)
    client.stream.raw(streams.frame(b"") * 5000 + streams.frame(b"", opcode=10) * 3000)
    client.send(last_words(me, friend, version))
    if end == "reset":
        reset(client.stream.tcp)
    if end == "stop":
        server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    if end == "takeover":
        server.connect(me, version).leave()
    if end == "stop":
        server.process.wait(12)
        server.start()
    with server.listener(friend, version) as reader:
        assert reader.message().payload == me.message("last")
        reader.quiet()


@pytest.mark.parametrize("transport", ["tls", "wss"])
def test_last_words_before_a_reset_through_tls(tls_server, version, transport):
    """Of a client that says all it has to say and is gone, with the last flight of its handshake if it can."""
    me, friend = tls_server.friends()
    with tls_server.listener(friend, version) as reader:
        for n in range(10):
            client = tls_server.dial(version, transport)
            client.send(
                connect(me.client_id(), me.id, me.token, version),
                publish(friend.inbox, me.message(str(n)), 1, 9, version=version),
                disconnect(version),
            )
            tcp = client.stream if transport == "tls" else client.stream.tcp
            reset(tcp)
            assert reader.message().payload == me.message(str(n))


def slow_line(server, takes):
    """An address: what is sent there reaches the server 8 KB at a time, and so many bytes come back."""
    listening = socket.create_server(("127.0.0.1", 0))

    def carry():
        near, far = listening.accept()[0], streams.Tcp(("127.0.0.1", server.mqtt)).socket
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        threading.Thread(target=back, args=(far, near), daemon=True).start()
        with near, far, contextlib.suppress(OSError):
            while some := near.recv(8192):
                far.sendall(some)
                time.sleep(0.03)

    def back(far, near):
        carried = 0
        with contextlib.suppress(OSError):
            while carried < takes and (some := far.recv(takes)):
                carried += len(some)
                near.sendall(some)

    threading.Thread(target=carry, daemon=True).start()
    return listening.getsockname()


def test_last_words_that_there_was_no_room_for(server, backlog, version):
    """The server does not read while it has much to answer: what a slow line then still holds was sent before, too."""
    me, friend = backlog
    with server.listener(friend, version) as reader:
        client = Client(streams.Tcp(slow_line(server, takes=3000)), version)
        will = Will(friend.inbox, me.message("will"), 1)
        client.send(connect(me.client_id(), me.id, me.token, version, will=will))
        client.expect(CONNACK, reason=0)
        client.subscribe(me.inbox)
        client.stream.socket.settimeout(60)
        said = PING * 200_000 + last_words(me, friend, version)
        speaks = threading.Thread(target=client.stream.socket.sendall, args=(said,), daemon=True)
        speaks.start()
        time.sleep(3)
        server.connect(me, version).leave()
        assert reader.message().payload == me.message("last")
        reader.quiet()


@pytest.mark.parametrize("end", ["close", "takeover", "logout"])
def test_acknowledgements_before_the_end_count(server, version, end):
    """Sent together with the end: the message does not come again."""
    me, friend = server.friends()
    session = {"clean": False, "props": {"session_expiry": 600}}
    with server.connect(friend, version) as writer:
        for n in range(6):  # devices that log each other out more often have to wait
            client = server.connect(me, version, **session)
            client.subscribe(me.inbox)
            writer.deliver(me.inbox, friend.message(str(n)))
            got = client.message(ack=False)
            assert got.payload == friend.message(str(n)) and not got.dup
            client.acknowledge(got)
            if end == "close":
                client.stream.close()
            if end == "logout":
                server.connect(me, version, device="tablet").leave()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [100, 300_000])
def test_an_app_that_starts_anew_at_once(start, version, threads, size):
    """Publishes, says goodbye, closes, and is back under the same client id before that was read."""
    server = start(threads=threads)
    me, friend = server.friends()
    with server.listener(friend, version, qos=0) as reader:
        for n in range(20):
            will = Will(friend.inbox, me.message("will"))
            client = server.connect(me, version, will=will)
            body = me.message(f"{n} " + "y" * size)
            client.send(publish(friend.inbox, body, version=version), disconnect(version))
            client.stream.close()
            server.connect(me, version).leave()
            assert reader.message().payload == body
        reader.quiet()


@pytest.mark.parametrize("device", ["phone", "tablet"])
def test_a_flood_holds_up_no_newcomer(server, version, device):
    """Who displaces a connection waits for it, but not for long."""
    me = server.user()
    old = server.connect(me, version)
    old.stream.socket.settimeout(0.01)
    flood = publish(f"/{me.id}/x", "z" * 1000, version=version) * 50
    began = time.monotonic()
    new = server.dial(version)
    new.send(connect(me.client_id(device), me.id, me.token, version))
    new.stream.socket.setblocking(False)
    while time.monotonic() - began < 6:
        try:
            old.send(flood[: len(flood) // 3])
        except (TimeoutError, OSError):
            pass
        try:
            if new.stream.socket.recv(4):
                break
        except BlockingIOError:
            pass
    took = time.monotonic() - began
    assert took < 4, f"{took:.1f} s"
    old.stream.close()
    new.close()


@pytest.mark.parametrize("opcode", [2, 9], ids=["empty", "ping"])
def test_frames_that_hold_nothing_hold_up_nobody(start, version, opcode):
    """Neither who takes the connection's place nor others, though one thread serves them all."""
    server = start(threads=1)
    me, other = server.user(), server.connect(server.user(), version)
    old = server.connect(me, version, transport="ws")
    frames = streams.frame(b"", opcode) * 20_000

    def flood():
        with contextlib.suppress(OSError):
            while True:
                old.stream.raw(frames)

    threading.Thread(target=flood, daemon=True).start()
    time.sleep(0.2)
    began = time.monotonic()
    server.dial(version).send(connect(me.client_id(), me.id, me.token, version))
    waits = []
    while time.monotonic() - began < 2:
        asked = time.monotonic()
        other.ping()
        waits.append(time.monotonic() - asked)
    assert max(waits) < 1, f"{max(waits):.1f} s"
    server.connect(me, version).leave()
    assert time.monotonic() - began < 8


def test_an_idle_connection_holds_up_no_newcomer(server, version):
    me = server.user()
    server.connect(me, version)
    began = time.monotonic()
    for n in range(6):
        server.connect(me, version, device=f"device{n}")
    assert time.monotonic() - began < 3


def test_a_stop_hears_what_has_arrived(start, version):
    server = start()
    me, friend = server.friends()
    client = server.connect(me, version, will=Will(friend.inbox, me.message("will"), 1))
    server.process.send_signal(signal.SIGSTOP)
    client.send(last_words(me, friend, version))
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    server.process.wait(12)
    server.start()
    with server.listener(friend, version) as reader:
        assert reader.message().payload == me.message("last")
        reader.quiet()


@pytest.mark.parametrize("transport", ["tcp", "ws"])
def test_a_stop_hears_what_waits_for_the_directory(start, tmp_path, version, transport):
    """A message whose friendship has to be asked for, and a goodbye behind it."""
    directory = Directory(tmp_path / "directory.db", journal_mode="delete")
    server = start(directory=directory)
    me, friend = server.friends()
    will = Will(friend.inbox, me.message("will"), 1)
    client = server.connect(me, version, transport=transport, will=will)
    with directory.write_lock("EXCLUSIVE"):
        client.send(last_words(me, friend, version))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    server.process.wait(12)
    server.start()
    with server.listener(friend, version) as reader:
        assert reader.message().payload == me.message("last")
        reader.quiet()


# Silence


def closes_within(client, earliest, latest):
    began = time.monotonic()
    try:
        while True:
            client.receive(latest)
    except Closed:
        pass
    took = time.monotonic() - began
    assert earliest <= took <= latest, f"closed after {took:.1f} s"


def test_pings_are_heard_behind_output_that_nobody_reads(server, backlog, version):
    me, _ = backlog
    client, tcp = narrow(server, me, version, keepalive=2)
    for _ in range(8):
        time.sleep(1)
        client.send(PING)
    tcp.socket.settimeout(5)
    assert tcp.socket.recv(1), "closed although it pinged"
    # Who neither reads nor pings is gone after its time: a ping meets a reset.
    time.sleep(4.5)
    with pytest.raises(OSError):
        for _ in range(100):
            client.send(PING)
            time.sleep(0.02)


def test_a_process_that_was_stopped_cuts_nobody(start, version):
    server = start()
    clients = [server.connect(user, version, keepalive=2) for user in server.users(20)]
    silent = server.connect(server.user(), version, keepalive=2)
    server.process.send_signal(signal.SIGSTOP)
    for n in range(6):
        time.sleep(1)
        for client in clients:
            client.send(PING)
    server.process.send_signal(signal.SIGCONT)
    for client in clients:
        client.ping()
    # Who has really sent nothing goes as ever, a little later.
    closes_within(silent, 0, 6)


def test_the_directorys_lock_is_not_the_clients_silence(start, tmp_path, version):
    directory = Directory(tmp_path / "directory.db", journal_mode="delete")
    server = start(directory=directory)
    me, friend = server.friends()
    client = server.connect(me, version, keepalive=1)
    with directory.write_lock("EXCLUSIVE"):
        client.send(publish("/nobody-yet/inbox", me.message(), 1, 1, version=version))
        for _ in range(10):
            client.send(PING)
            time.sleep(0.4)
    client.send(PING)
    while client.receive().kind == PUBLISH:
        pass


SLOW = ["tcp", "ws", "tls", "wss"]


@pytest.mark.parametrize("transport", SLOW)
def test_a_slow_upload_is_no_silence_and_one_that_stops_is(home, version, transport):
    me, friend = home.friends()
    client = home.connect(me, version, transport=transport, keepalive=1)
    whole = publish(friend.inbox, me.message("x" * 100_000), 0, version=version)
    stream = client.stream
    if transport in ("ws", "wss"):
        whole, stream = streams.frame(whole), stream.tcp
    for at in range(0, 60_000, 2000):
        stream.send(whole[at : at + 2000])
        time.sleep(0.1)
    closes_within(client, 0.5, 5)
