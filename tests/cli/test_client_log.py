"""docs/logs.md: what is said of single clients, for people and for fail2ban."""

import json
import re
import time
from pathlib import Path

import pytest
from harness import packets

LOGS = Path(__file__).parents[2] / "docs/logs.md"


def lines(server, wanted=1, seconds=10):
    """What the log says of clients, as objects, once there are so many lines."""
    deadline = time.monotonic() + seconds
    while True:
        said = [json.loads(line) for line in server.log().splitlines() if '"jam_mqtt::clients"' in line]
        if len(said) >= wanted or time.monotonic() > deadline:
            return said
        time.sleep(0.05)


def told(line):
    return (line["level"], line["message"], line.get("client"), line.get("reason"))


def test_failed_logins_and_the_lockout(start):
    server = start(settings={"limits.failed_auth": 3})
    user = server.user()
    for _ in range(8):
        server.attempt(user, password="not-this-one")
    server.attempt(server.user(), client_id="nobody", password="x")
    said = lines(server, 5)
    client = user.client_id("phone")
    assert [told(line) for line in said][:5] == [("WARN", "failed login", client, "wrong_token")] * 4 + [
        ("WARN", "locked out", client, "spam")
    ]
    assert len(said) == 5, "a lockout is told once"
    assert all(line["address"] == "127.0.0.1" for line in said)
    assert "not-this-one" not in server.log()


def test_the_default_lockout_is_told(start):
    """Its failures alone are as many lines as one address may have."""
    server = start(settings={"limits.failed_auth": 10})
    user = server.user()
    for _ in range(14):
        server.attempt(user, password="not-this-one")
    said = [told(line)[:2] for line in lines(server, 11)]
    assert said == [("WARN", "failed login")] * 10 + [("WARN", "locked out")]


@pytest.mark.parametrize(
    "reason, options",
    [
        ("unknown_user", {"client_id": "99999:phone", "user": "99999"}),
        ("id", {"client_id": "1:phone", "user": "2"}),
        ("token_format", {"password": b""}),
    ],
)
def test_why_a_login_failed(start, version, reason, options):
    server = start()
    server.attempt(server.user(), version, **options)
    [line] = lines(server)
    assert (line["level"], line["message"], line["reason"]) == ("WARN", "failed login", reason)


def test_a_hostile_client_id_ends_no_line(start):
    server = start()
    user = server.user()
    hostile = '1:"}\n{"message":"failed login","address":"10.0.0.1"\x1b[2J' + "x" * 10_000
    server.attempt(user, client_id=hostile)
    [line] = lines(server)
    assert line["address"] == "127.0.0.1"
    assert re.fullmatch(r"1:\?{4}[\w?:.]+\.\.\.", line["client"]), line["client"]


def test_what_is_no_packet(start, version):
    server = start()
    user = server.user()
    client = server.connect(user, version)
    client.send(b"\x3f\xff\xff\xff\xff\xff")
    client.closed(0x81)
    stranger = server.dial(version)
    stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    stranger.closed()
    first, second = lines(server, 2)
    assert told(first)[:3] == ("INFO", "malformed packet", user.client_id("phone"))
    assert first["reason"].startswith("malformed packet")
    assert second["level"] == "INFO" and second["client"] == ""


def test_a_packet_that_is_not_allowed(start, version):
    server = start()
    user = server.user()
    client = server.connect(user, version)
    client.send(packets.connect(client.client_id, version=version))
    client.closed(0x82)
    [line] = lines(server)
    assert told(line)[:3] == ("INFO", "protocol error", user.client_id("phone"))


def test_logouts(start):
    server = start()
    user = server.user()
    first, second = server.connect(user), server.connect(user, device="tablet")
    first.expect(packets.PUBLISH)
    first.closed()
    server.directory.set_token(user, "another")
    second.closed()
    assert [told(line)[:3] for line in lines(server, 2)] == [
        ("INFO", "logged out: another device has connected", user.client_id("phone")),
        ("INFO", "logged out: the token is no longer valid", user.client_id("tablet")),
    ]


def test_comings_and_goings_at_debug(start):
    server = start(settings={"log": "info,jam_mqtt::clients=debug"})
    user = server.user()
    first = server.connect(user)
    second = server.connect(user)
    first.closed()
    second.leave()
    client = user.client_id("phone")
    said = [told(line) for line in lines(server, 4)]
    assert said.count(("DEBUG", "connected", client, None)) == 2
    assert ("DEBUG", "disconnected", client, "takeover") in said
    assert ("DEBUG", "disconnected", client, "client") in said


def test_a_flood_of_failures_is_bounded(start):
    server = start()
    user = server.user()
    for _ in range(40):
        server.attempt(user, password="wrong")
    assert len(lines(server, 10)) == 10


def test_the_filter_for_fail2ban_finds_what_is_written(start):
    server = start(settings={"limits.failed_auth": 2})
    user = server.user()
    for _ in range(4):
        server.attempt(user, password="wrong")
    lines(server, 4)
    pattern = re.search(r"^failregex = (.*)$", LOGS.read_text(), re.MULTILINE)[1]
    failregex = re.compile(pattern.replace("<ADDR>", r"(?P<ip>[0-9a-fA-F:.]+)"))
    found = [failregex.search(line) for line in server.log().splitlines()]
    assert [match["ip"] for match in found if match] == ["127.0.0.1"] * 4
    server.connect(user, source="127.0.0.2").leave()
    assert not any(failregex.search(line) for line in server.log().splitlines() if "127.0.0.2" in line)
