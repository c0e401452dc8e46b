"""PROTOCOL.md, "A first session in bytes": exactly these bytes are sent, and exactly these come back."""

import re

from harness import Server
from harness.process import ROOT

BLOCK = r"```text\n(client .*?|server .*?)```"
HEX = re.compile(r"^  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  .*)?$")


def documented():
    """The sessions of the page: lists of (side, name, bytes)."""
    page = (ROOT / "PROTOCOL.md").read_text()
    section = page.split("## A first session in bytes\n")[1].split("\n## ")[0]
    return [packets(block) for block in re.findall(BLOCK, section, re.DOTALL)]


def packets(block):
    found = []
    for line in block.splitlines():
        if row := HEX.match(line):
            found[-1][2].extend(bytes.fromhex(row[1]))
        else:
            side, name = line.split(" ")
            found.append((side, name, bytearray()))
    return found


def exchange(client, session):
    for side, name, expected in session:
        if side == "client":
            client.send(bytes(expected))
        else:
            assert client.receive().raw == bytes(expected), name


def test_the_first_session_is_as_it_is_documented(tmp_path):
    sending, receiving = documented()
    assert [name for _, name, _ in sending] == (
        "CONNECT CONNACK SUBSCRIBE SUBACK PUBLISH PUBACK PUBLISH PUBLISH PUBACK DISCONNECT".split()
    )
    with Server(tmp_path) as server:
        one, two = server.directory.user("secret"), server.directory.user()
        server.directory.befriend(one, two)
        server.directory.user()
        assert (one.id, two.id) == ("1", "2")
        with server.dial() as client:
            exchange(client, sending)
            client.closed()
        with server.connect(two) as client:
            client.subscribe(two.inbox)
            exchange(client, receiving)
            client.ping()
            client.leave()
        # Had the acknowledgement not been one, the message would come again.
        with server.connect(two) as client:
            client.subscribe(two.inbox)
            client.quiet()
