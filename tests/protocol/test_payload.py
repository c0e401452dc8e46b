"""PROTOCOL.md, sections 1 and 4: what counts as a message, and that it passes byte for byte."""

import json
import random

import pytest
from harness import error
from harness.packets import PUBACK
from harness.refusals import JSON, SENDER, refused

# `@` stands for the sender's id.
NOT_JSON = {
    "empty": b"",
    "space": b" ",
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a string": b'"from"',
    "an array": b"[]",
    "an array of a message": b'[{"from":"@"}]',
    "byte order mark": b'\xef\xbb\xbf{"from":"@"}',
    "UTF-16": '{"from":"@"}'.encode("utf-16"),
    "trailing letter": b'{"from":"@"}x',
    "trailing NUL": b'{"from":"@"}\0',
    "second object": b'{"from":"@"}{}',
    "second object on a line": b'{"from":"@"}\n{"from":"@"}',
    "trailing comma outside": b'{"from":"@"},',
    "trailing comma": b'{"from":"@",}',
    "leading comma": b'{,"from":"@"}',
    "no closing brace": b'{"from":"@"',
    "closing brace too many": b'{"from":"@"}}',
    "no quotes round the key": b'{from:"@"}',
    "single quotes": b"{'from':'@'}",
    "single quotes inside": b"{\"from\":\"@\",\"content\":'x'}",
    "comment": b'{"from":"@"/* x */}',
    "NaN": b'{"from":"@","content":NaN}',
    "Infinity": b'{"from":"@","content":-Infinity}',
    "leading zero": b'{"from":"@","content":01}',
    "leading minus zero": b'{"from":"@","content":-01}',
    "plus": b'{"from":"@","content":+1}',
    "no digit before the point": b'{"from":"@","content":.5}',
    "no digit after the point": b'{"from":"@","content":5.}',
    "no exponent": b'{"from":"@","content":5e}',
    "hexadecimal": b'{"from":"@","content":0x10}',
    "minus alone": b'{"from":"@","content":-}',
    "True": b'{"from":"@","content":True}',
    "undefined": b'{"from":"@","content":undefined}',
    "invalid UTF-8 in a value": b'{"from":"@","content":"\xff"}',
    "invalid UTF-8 in a key": b'{"from":"@","\xc3":1}',
    "overlong UTF-8": b'{"from":"@","content":"\xc0\x80"}',
    "surrogate in UTF-8": b'{"from":"@","content":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"from":"@","content":"\xf4\x90\x80\x80"}',
    "cut UTF-8": b'{"from":"@","content":"\xe2\x82"}',
    "control character": b'{"from":"@","content":"a\nb"}',
    "NUL in a string": b'{"from":"@","content":"a\0b"}',
    "unknown escape": b'{"from":"@","content":"\\x41"}',
    "short escape": b'{"from":"@","content":"\\u12"}',
    "no colon": b'{"from" "@"}',
    "no comma": b'{"from":"@" "content":1}',
    "key without a value": b'{"from":"@","content"}',
    "form feed as white space": b'\x0c{"from":"@"}',
    "no-break space": b'\xc2\xa0{"from":"@"}',
    "wrong brackets": b'{"from":"@","content":[1}',
    "open array": b'{"from":"@","content":[',
    "deep and open": b'{"from":"@","content":' + b"[" * 100_000,
    "deep objects and open": b'{"from":"@","content":' + b'{"a":' * 100_000,
}

WRONG_SENDER = {
    "empty object": b"{}",
    "missing": b'{"content":"x"}',
    "a number": b'{"from":@}',
    "null": b'{"from":null}',
    "true": b'{"from":true}',
    "an array": b'{"from":["@"]}',
    "an object": b'{"from":{"from":"@"}}',
    "only nested": b'{"content":{"from":"@"}}',
    "only in an array": b'{"content":[{"from":"@"}]}',
    "empty string": b'{"from":""}',
    "another": b'{"from":"999999"}',
    "longer": b'{"from":"@0"}',
    "leading zero": b'{"from":"0@"}',
    "space": b'{"from":"@ "}',
    "NUL": b'{"from":"@\\u0000"}',
    "capital": b'{"From":"@"}',
    "space in the key": b'{"from ":"@"}',
    "sender": b'{"sender":"@"}',
    "prototype": b'{"__proto__":{"from":"@"}}',
    "twice, both right": b'{"from":"@","from":"@"}',
    "twice, first right": b'{"from":"@","from":"999999"}',
    "twice, last right": b'{"from":"999999","from":"@"}',
    "twice, far apart": b'{"from":"@","content":[1,2,{"a":"b"}],"from":"@"}',
    "twice, by escape": b'{"from":"@","\\u0066rom":"999999"}',
    "twice, by escape, right": b'{"\\u0066\\u0072\\u006F\\u006d":"@","from":"@"}',
    "twice, second a number": b'{"from":"@","from":1}',
    "twice, second null": b'{"from":"@","from":null}',
    "twice, second an object": b'{"from":"@","from":{}}',
    "surrogate after it": b'{"from":"@\\ud800"}',
}

GOOD = {
    "least": b'{"from":"@"}',
    "key by escape": b'{"\\u0066rom":"@"}',
    "white space all over": b' \t\r\n{ "from" :\n"@"\t, "content" : [ ] } \r\n',
    "from last": b'{"content":"x","type":0,"from":"@"}',
    "others nested": b'{"content":{"from":"999999","x":[{"from":1}]},"from":"@"}',
    "other keys twice": b'{"from":"@","content":1,"content":2}',
    "lone surrogate": b'{"from":"@","content":"\\ud800"}',
    "lone low surrogate": b'{"from":"@","content":"\\udc00x"}',
    "surrogate in a key": b'{"\\ud83d":1,"from":"@"}',
    "surrogate pair": b'{"from":"@","content":"\\ud83d\\ude00"}',
    "NUL by escape": b'{"from":"@","content":"\\u0000"}',
    "every escape": b'{"from":"@","content":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00fc"}',
    "four-byte UTF-8": '{"from":"@","content":"😀\U0010ffff"}'.encode(),
    "DEL and separators": b'{"from":"@","content":"\x7f\xe2\x80\xa8"}',
    "numbers": b'{"from":"@","content":[-0,0.0,1e400,-1E-400,123456789012345678901234567890]}',
    "prototype": b'{"from":"@","__proto__":{"from":"999999"},"constructor":null}',
    "empty keys": b'{"":"","from":"@"}',
    "deep arrays": b'{"from":"@","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"from":"@","content":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
}


@pytest.fixture(scope="module")
def pair(server):
    return server.friends()


def written_by(body, user):
    return body.replace(b"@", user.id.encode())


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object(server, pair, version, name):
    me, friend = pair
    with server.listener(friend) as reader, server.connect(me, version) as writer:
        refused(writer, friend.inbox, written_by(NOT_JSON[name], me), JSON, 1)
        reader.quiet()


@pytest.mark.parametrize("name", WRONG_SENDER)
def test_what_names_no_or_another_sender(server, pair, version, name):
    me, friend = pair
    with server.listener(friend) as reader, server.connect(me, version) as writer:
        refused(writer, friend.inbox, written_by(WRONG_SENDER[name], me), SENDER, 1)
        reader.quiet()


@pytest.mark.parametrize("name", GOOD)
def test_what_passes_passes_byte_for_byte(server, pair, version, name):
    me, friend = pair
    body = written_by(GOOD[name], me)
    with server.listener(friend, version) as reader, server.connect(me, version) as writer:
        assert writer.deliver(friend.inbox, body) == 0
        assert reader.message().payload == body


def test_escaped_sender_value(server, pair):
    """"1" may be written as "\\u0031": it is the same string."""
    me, friend = pair
    value = "".join(f"\\u{ord(c):04x}" for c in me.id)
    body = f'{{"from":"{value}"}}'.encode()
    with server.listener(friend) as reader, server.connect(me) as writer:
        assert writer.deliver(friend.inbox, body) == 0
        assert reader.message().payload == body


@pytest.mark.parametrize("name", ["empty", "second object", "UTF-16"])
def test_own_inbox_wants_json_too(server, pair, version, name):
    me, _ = pair
    with server.listener(me, version) as client:
        refused(client, me.inbox, written_by(NOT_JSON[name], me), JSON, 1)


@pytest.mark.parametrize("megabytes", [1, 3])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_pictures(home, transport, megabytes, qos):
    """A JSON array of byte values, as the deployed apps send it."""
    me, friend = home.friends()
    values = random.Random(7).randbytes(megabytes * 1024 * 1024 * 10 // 36)
    body = me.message(list(values))
    assert len(body) > megabytes * 1_000_000
    options = {"transport": transport}
    with home.listener(friend, qos=qos, **options) as reader, home.connect(me, **options) as writer:
        writer.publish(friend.inbox, body, qos)
        got = reader.message(timeout=30, topic=friend.inbox)
        assert got.payload == body
        assert json.loads(got.payload)["content"][:3] == list(values[:3])


def test_a_refused_picture(server, pair, version):
    me, friend = pair
    body = me.message([255] * 500_000)[:-1]
    with server.listener(friend) as reader, server.connect(me, version) as writer:
        packet_id = writer.publish(friend.inbox, body, 1)
        assert writer.error() == error(*JSON[:2], packet_id)
        writer.expect(PUBACK, packet_id=packet_id)
        reader.quiet()
