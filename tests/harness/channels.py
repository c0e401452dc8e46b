"""What the server writes to a user's own channels (PROTOCOL.md, section 10), byte for byte."""

import json
import re
from datetime import UTC, datetime, timedelta

TIMESTAMP = re.compile(rb'"timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"}$')


def _without_timestamp(payload):
    """What stands before the timestamp, which must be the last and of now."""
    found = TIMESTAMP.search(payload)
    assert found, payload
    written = datetime.strptime(found[1].decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=10), payload
    return payload[: found.start()]


def receipts(user):
    return f"/{user.id}/receipts"


def presence(user):
    return f"/{user.id}/presence"


def receipt(client, to, message_id, own_id="null", qos=1, **fields):
    """The next packet of `client`, which must be this receipt."""
    got = client.message(topic=receipts(client.user), qos=qos, retain=False, **fields)
    message_id = "null" if message_id is None else message_id
    assert _without_timestamp(got.payload).decode() == (
        f'{{"type":"receipt","status":"delivered","to":"{to.id}","id":{own_id},'
        f'"messageId":{message_id},'
    )
    return got


def told(client, friend, online, timeout=20):
    """The next packet of `client`, which must say that a friend is online, or is not."""
    got = client.message(timeout, topic=presence(client.user), qos=0, retain=False, dup=False)
    assert _without_timestamp(got.payload).decode() == (
        f'{{"type":"presence","user":"{friend.id}","online":{str(online).lower()},'
    )
    return got


def friends(user):
    return f"/{user.id}/friends"


def shown(friend, name=None, blocked=False, key=None):
    """A friend in a list. Names are as `Directory.user` gives them."""
    return {"user": friend.id, "name": name or f"user{friend.id}", "blocked": blocked, "publicKey": key}


def listed(client, timeout=20):
    """The friends in the next packets of `client`, which must be all parts of one list, byte for byte as JSON without spaces."""
    found, stamps = [], set()
    part = parts = 0
    while part < max(parts, 1):
        got = client.message(timeout, topic=friends(client.user), qos=0, retain=False, dup=False)
        assert client.version != 5 or got.get("user") == ("from", client.user.id)
        body = json.loads(got.payload)
        part += 1
        parts = parts or body["parts"]
        some = json.dumps(body["friends"], separators=(",", ":"), ensure_ascii=False)
        expected = f'{{"type":"friends","friends":{some},"part":{part},"parts":{parts},'
        assert _without_timestamp(got.payload).decode() == expected
        assert len(body["friends"]) <= 500
        stamps.add(body["timestamp"])
        found += body["friends"]
    assert len(stamps) == 1
    return found
