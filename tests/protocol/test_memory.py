"""Memory while clients do their worst stays within what docs/limits.md says."""

import re
import socket
import threading
import time
from pathlib import Path

from harness.process import ROOT

MIB = 1 << 20
SIZES = {"bytes": 1, "KiB": 1 << 10, "MiB": MIB}
RECEIVERS = 12
SLACK = 8 * MIB  # what the allocator keeps


def bound(of, what):
    row = re.search(rf"^\| {of} \| {what}[^|]*\|[^|]*\| (\d+) (\w+) \|$", (ROOT / "docs/limits.md").read_text(), re.M)
    return int(row[1]) * SIZES[row[2]]


def memory(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.M)[1]) * 1024


class Peak:
    """The most memory that the server has while this is entered."""

    def __init__(self, server):
        self.server, self.most, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, memory(self.server))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def test_many_come_back_to_large_messages_and_do_not_read(start):
    server = start()
    me, *friends = server.users(1 + RECEIVERS)
    with server.connect(me, 5) as writer:
        for friend in friends:
            server.directory.befriend(me, friend)
            for n in range(7):
                assert writer.deliver(friend.inbox, me.message(f"{n}" * 4_000_000)) == 0
    before = memory(server)
    connection, loaded = bound("one connection", "memory"), bound("the server", "content that is read")
    with Peak(server) as peak:
        readers = [server.connect(friend, 5) for friend in friends]
        for friend, reader in zip(friends, readers):
            reader.subscribe(friend.inbox)
        time.sleep(2)
    for reader in readers:
        reader.close()
    grown = peak.most - before
    assert grown <= loaded + RECEIVERS * connection + SLACK, f"{grown / MIB:.0f} MiB"
    assert grown < 7 * 4_000_000 * RECEIVERS / 2, "far less than what waits"


def test_properties_take_the_memory_of_their_bytes(server):
    """4 MB of empty User Properties, 40 times, to a friend who does not read."""
    me, friend = server.friends()
    topic = friend.inbox.encode()
    rest = len(topic).to_bytes(2, "big") + topic + b"\x80\x92\xf4\x01" + b"\x26\0\0\0\0" * 800_000 + me.message()
    size = len(rest)
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    with server.connect(me, 5) as writer, server.connect(friend, 5) as reader:
        reader.subscribe(friend.inbox)
        before = memory(server)
        with Peak(server) as peak:
            for _ in range(40):
                writer.send(b"\x30" + length + rest)
                assert writer.receive().topic == me.channel()
        grown = peak.most - before
        reader.quiet()
    assert grown <= bound("one connection", "memory") + SLACK, f"{grown / MIB:.0f} MiB"


def test_one_address_holds_so_much_before_anybody_has_logged_in(start):
    """A CONNECT of nearly 64 KiB, all but its last byte, on each connection that one address may have."""
    server = start(settings={"limits.connect_timeout": "5m"})
    connections = 1000
    size = 65_000  # with three bytes for the length
    begun = b"\x10" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + b"\0\4MQTT\4\x02\0\x3c"
    begun += (size - 12).to_bytes(2, "big") + b"x" * (size - 13)
    before = memory(server)
    streams = []
    with Peak(server) as peak:
        for _ in range(connections):
            stream = socket.create_connection(("127.0.0.1", server.mqtt), timeout=60)
            stream.sendall(begun)
            streams.append(stream)
        held = 0
        while peak.most > held:
            held = peak.most
            time.sleep(2)
    grown = peak.most - before
    for stream in streams:
        stream.close()
    assert grown <= bound("one address", "memory before anybody") + SLACK, f"{grown / MIB:.0f} MiB"
    assert grown > connections * size / 2, "they are held"
