"""PROTOCOL.md, section 3: who is let in, with which code, and in which order it is checked."""

import pytest
from harness import error
from harness.packets import CONNACK, Will, connect, packet

ID = ("id", "client id and user id don't match", 4, 0x85)
FORMAT = ("api_token", "wrong api token format", 4, 0x86)
UNKNOWN = ("api_token", "unknown user id", 5, 0x87)
WRONG = ("api_token", "wrong api token", 5, 0x87)

ROWS = {
    "no user name": (ID, {"user": None, "password": None}),
    "foreign user name": (ID, {"user": "{other}"}),
    "client id of another": (ID, {"client_id": "{other}:phone"}),
    "empty client id": (ID, {"client_id": ""}),
    "client id of nobody": (ID, {"client_id": ":phone"}),
    "user id a prefix": (ID, {"client_id": "{me}0:phone"}),
    "user id a suffix": (ID, {"client_id": "0{me}:phone"}),
    "space before the client id": (ID, {"client_id": " {me}:phone"}),
    "whole client id as user name": (ID, {"user": "{me}:phone"}),
    "no password": (FORMAT, {"password": None}),
    "empty password": (FORMAT, {"password": ""}),
    "password not UTF-8": (FORMAT, {"password": b"\xff\xfe"}),
    "no such account": (UNKNOWN, {"user": "999999", "client_id": "999999:phone"}),
    "account id too large": (UNKNOWN, {"user": "9" * 30, "client_id": "9" * 30 + ":phone"}),
    "user id of 65 bytes": (UNKNOWN, {"user": "u" * 65, "client_id": "u" * 65 + ":phone"}),
    "user id with a slash": (UNKNOWN, {"user": "{me}/x", "client_id": "{me}/x:phone"}),
    "leading zero": (UNKNOWN, {"user": "0{me}", "client_id": "0{me}:phone"}),
    "plus sign": (UNKNOWN, {"user": "+{me}", "client_id": "+{me}:phone"}),
    "minus sign": (UNKNOWN, {"user": "-{me}", "client_id": "-{me}:phone"}),
    "trailing space": (UNKNOWN, {"user": "{me} ", "client_id": "{me} :phone"}),
    "leading space": (UNKNOWN, {"user": " {me}", "client_id": " {me}:phone"}),
    "decimal point": (UNKNOWN, {"user": "{me}.0", "client_id": "{me}.0:phone"}),
    "exponent": (UNKNOWN, {"user": "{me}e0", "client_id": "{me}e0:phone"}),
    "hexadecimal": (UNKNOWN, {"user": "0x1", "client_id": "0x1:phone"}),
    "Devanagari digit": (UNKNOWN, {"user": "\u0967", "client_id": "\u0967:phone"}),
    "an SQL expression": (UNKNOWN, {"user": "1 OR 1=1", "client_id": "1 OR 1=1:phone"}),
    "token differs": (WRONG, {"password": "not the token"}),
    "token a prefix": (WRONG, {"password": "token-of-"}),
    "token and more": (WRONG, {"password": "{token} "}),
    "token in another case": (WRONG, {"password": "TOKEN-OF-{me}"}),
    # A CONNECT that several rows refuse gets the first of them.
    "id before format": (ID, {"user": "{other}", "password": ""}),
    "id before unknown": (ID, {"user": "999999"}),
    "format before unknown": (
        FORMAT,
        {"user": "999999", "client_id": "999999:phone", "password": None},
    ),
}


def fill(options, me, other):
    names = {"me": me.id, "other": other.id, "token": me.token}
    return {
        key: value.format(**names) if isinstance(value, str) else value
        for key, value in options.items()
    }


def refuse(server, me, version, row, **options):
    category, message, code, reason = row
    client, connack = server.attempt(me, version, **options)
    assert not connack.session_present
    if version == 5:
        assert connack.reason == reason
        text = error(category, message, handler="authenticate").decode()
        assert connack.get("reason_string") == text
    else:
        assert connack.raw == bytes([0x20, 2, 0, code])
    client.closed()


@pytest.mark.parametrize("name", ROWS)
def test_refusals(server, version, name):
    row, options = ROWS[name]
    me, other = server.users(2)
    refuse(server, me, version, row, **fill(options, me, other))
    server.connect(me, version).leave()


@pytest.mark.parametrize("token", [None, ""], ids=["NULL", "empty"])
def test_an_account_without_a_token_lets_nobody_in(server, version, token):
    me = server.user()
    server.directory.set_token(me, token)
    refuse(server, me, version, WRONG)
    refuse(server, me, version, FORMAT, password="")


def test_password_without_user_name(server):
    """3.1.1 calls it malformed; 5.0 allows it, so there the table answers."""
    me = server.user()
    client = server.dial(4)
    client.send(connect(me.client_id(), password=me.token))
    client.closed()
    refuse(server, me, 5, ID, user=None)


@pytest.mark.parametrize("rest", ["", ":", ":phone", ":a:b:c", ":\u00fc\u2603", ":a/b", ": "])
def test_client_ids_that_belong_to_the_user(server, version, rest):
    me = server.user()
    server.connect(me, version, client_id=me.id + rest).leave()


def test_version_3_1_is_welcome(server):
    me, friend = server.friends()
    with server.listener(friend) as reader, server.connect(me, 3) as writer:
        assert writer.connack.raw == b"\x20\x02\x00\x00"
        writer.deliver(friend.inbox, me.message())
        assert reader.message().payload == me.message()
    refuse(server, me, 3, WRONG, password="x")
    refuse(server, me, 3, ID, client_id="")


@pytest.mark.parametrize("level", [0, 1, 2, 6, 7, 66, 127, 255])
def test_unknown_protocol_levels(server, level):
    me = server.user()
    client = server.dial(4)
    body = connect(me.client_id(), me.id, me.token)
    client.send(body[:8] + bytes([level]) + body[9:])
    answer = client.stream.receive(5)
    accepted = [b"\x20\x02\x00\x01"] if level < 6 else [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"]
    assert answer in accepted
    client.closed()


def test_what_is_not_there_is_said(server):
    with server.connect(server.user(), 5) as client:
        assert client.connack.get("wildcard_available") == 0
        assert client.connack.get("shared_available") == 0
        assert client.connack.get("retain_available", 1) == 1
        assert client.connack.get("maximum_qos") is None
        assert client.connack.get("maximum_packet_size") == 4 * 1024 * 1024
        assert client.connack.get("assigned_client_id") is None


def test_3_1_1_connack_is_four_bytes(server):
    with server.connect(server.user()) as client:
        assert client.connack.raw == b"\x20\x02\x00\x00"


@pytest.mark.parametrize("topic", ["willtopic", "/other/inbox", "$SYS/x", "a/#/b"])
def test_a_will_that_is_not_authorised_does_not_keep_anyone_out(server, version, topic):
    me, friend = server.friends()
    with server.connect(me, version, will=Will(topic, b"gone")) as client:
        client.deliver(friend.inbox, me.message())
        client.quiet()


def test_a_reason_string_that_the_client_cannot_take_is_left_out(server):
    """MQTT 5.0, 3.2.2.3.9: not sent when it makes the packet larger than the client's maximum."""
    me = server.user()
    client, connack = server.attempt(
        me, 5, password="wrong", props={"maximum_packet_size": 30}
    )
    assert (connack.reason, connack.props) == (0x87, [])
    client.closed()


def test_nothing_is_served_before_connect(server, version):
    me = server.user()
    with server.listener(me, version) as bystander:
        client = server.dial(version)
        client.publish(me.inbox, me.message())
        client.closed()
        bystander.quiet()


def test_a_second_connect_closes_the_connection(server, version):
    me = server.user()
    client = server.connect(me, version)
    client.send(connect(me.client_id(), me.id, me.token, version))
    client.closed(reason=0x82)


def test_an_extended_authentication_is_refused(server):
    me = server.user()
    client, connack = server.attempt(me, 5, props={"auth_method": "SCRAM"})
    assert connack.reason == 0x8C
    client.closed()


def test_connect_must_come_in_time(start):
    server = start(settings={"limits.connect_timeout": "1s"})
    silent, slow = server.dial(), server.dial()
    slow.send(packet(1, 0, b"\0" * 20)[:5])
    silent.closed()
    slow.closed()


def test_connack_comes_first(server, version):
    """Whatever waits for the client, and whatever it sends along, CONNACK is the first packet."""
    me, friend = server.friends()
    with server.listener(me, version, clean=False, props={"session_expiry": 100}):
        pass
    with server.connect(friend, version) as writer:
        writer.deliver(me.inbox, friend.message())
    client = server.dial(version)
    login = connect(me.client_id(), me.id, me.token, version, False)
    client.send(login)
    assert client.expect(CONNACK, reason=0).session_present
    assert client.message().payload == friend.message()
