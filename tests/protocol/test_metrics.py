"""`/metrics` black box: what promtool says of it, errors of the accounts database, and each refusal under the slug of its
row; docs/metrics.md."""

import subprocess
import time

import pytest
from harness import Directory, error
from harness.directory import SCHEMA
from harness.office import scrape
from harness.packets import PUBACK, PUBLISH
from harness.push import PushService
from harness.raw import LOGOUT
from harness.small_disk import Small


def value(text, series):
    found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.rsplit(" ", 1)[0] == series]
    assert len(found) == 1, f"{series}: {found}"
    return float(found[0])


def refusals(server):
    """{(handler, reason): count} of every row."""
    begin = 'jam_refusals_total{handler="'
    lines = [line for line in scrape(server).splitlines() if line.startswith(begin)]
    rows = [line[len(begin) :].replace('",reason="', " ").replace('"} ', " ").split() for line in lines]
    return {(handler, reason): int(count) for handler, reason, count in rows}


def test_promtool_has_nothing_to_say(start):
    text = scrape(start(admin=True))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def store_errors(server):
    """{kind: count} of the accounts database."""
    kinds = ("full", "io", "busy", "corrupt")
    text = scrape(server)
    return {kind: value(text, f'jam_store_errors_total{{store="directory",kind="{kind}"}}') for kind in kinds}


def store_errors_once(server, kind):
    """The same, as soon as there is one of this kind."""
    deadline = time.monotonic() + 20
    while not (found := store_errors(server))[kind]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_errors_of_the_accounts_database_are_counted(start, tmp_path, mode):
    server = start(admin=True, directory=Directory(tmp_path / "jam.db", mode))
    me, friend = server.friends()
    with server.connect(me) as client:
        client.deliver(friend.inbox, me.message())
    assert set(store_errors(server).values()) == {0}
    if mode == "delete":
        with server.directory.write_lock("EXCLUSIVE"):
            found = store_errors_once(server, "busy")
        assert found["full"] == found["io"] == found["corrupt"] == 0
    server.directory.execute("ALTER TABLE accounts RENAME TO others")
    server.attempt(me)[0].close()
    found = store_errors_once(server, "corrupt")
    assert found["full"] == found["io"] == 0
    server.directory.execute("ALTER TABLE others RENAME TO accounts")
    server.connect(me).close()


# What provokes each row of the protocol's tables once: takes a server, and sees what the client is told.


def refused_login(server, me, category, message, handler="authenticate", **options):
    client, connack = server.attempt(me, 5, **options)
    assert connack.get("reason_string").encode() == error(category, message, handler=handler)
    client.close()


def login(category, message, **options):
    return lambda server: refused_login(server, server.user(), category, message, **options)


def spam(server):
    me = server.user()
    for _ in range(3):
        server.attempt(me, password="wrong")[0].close()
    refused_login(server, me, "spam", "too many failed auth attempts", "preConnect")


def login_without_accounts(server):
    me = server.user()
    server.directory.execute("ALTER TABLE accounts RENAME TO others")
    refused_login(server, me, "api_token", "fatal database error")


def logout(server):
    me = server.user()
    with server.connect(me) as first, server.connect(me, device="tablet"):
        assert first.error() == LOGOUT
        first.closed()


def refused_publish(client, topic, payload, category, message, **options):
    packet_id = client.publish(topic, payload, 1, **options)
    assert client.error() == error(category, message, packet_id)
    client.await_reply(PUBACK, packet_id)


def publish(category, message, of, **options):
    """`of` makes topic and payload of a user and a friend who is away."""

    def provoke(server):
        me, friend = server.friends()
        with server.connect(me, 5) as client:
            refused_publish(client, *of(me, friend), category, message, **options)

    return provoke


def own(levels):
    return lambda me, friend: (f"/{me.id}/{levels}", b"{}")


def to_friend(me, friend):
    return friend.inbox, me.message()


def to_stranger(server):
    me, stranger = server.users(2)
    with server.connect(me, 5) as client:
        refused_publish(client, stranger.inbox, me.message(), "friends", "not friends with the receiver")


def publish_without_friendships(server):
    me, friend = server.friends()
    with server.connect(me, 5) as client:
        server.directory.execute("ALTER TABLE user_friends RENAME TO others")
        refused_publish(client, friend.inbox, me.message(), "friends", "fatal database error")


def full_inbox(server):
    me, friend = server.friends()
    with server.connect(me, 5) as client:
        client.deliver(friend.inbox, me.message())
        refused_publish(client, friend.inbox, me.message(), "quota", "the receiver's inbox is full")


def until_refused(client, topic, payload, category, message):
    """Publishes until it is refused, once."""
    for _ in range(500):
        packet_id = client.publish(topic, payload, 1)
        got = client.receive()
        if got.kind == PUBLISH:
            assert got.payload == error(category, message, packet_id)
            client.await_reply(PUBACK, packet_id)
            return
    raise AssertionError("it was never refused")


def rate(server):
    me = server.user()
    with server.connect(me, 5) as client:
        until_refused(client, f"/{me.id}/x", b"{}", "rate", "sending too fast")


def full_disk(server):
    me, friend = server.friends()
    with server.connect(me, 5) as client:
        client.deliver(friend.inbox, me.message())
        server.fill()
        words = ("mailbox", "the server cannot keep messages at the moment")
        until_refused(client, friend.inbox, me.message("x" * 200_000), *words)


def subscribe(topic, message):
    def provoke(server):
        me = server.user()
        with server.connect(me, 5) as client:
            client.subscribe(topic.format(me=me.id))
            told = client.error()
            assert b'"handler":"authorizeSubscribe"' in told and message.encode() in told

    return provoke


PROVOKE = {
    ("connect", "spam"): spam,
    ("connect", "id"): login("id", "client id and user id don't match", client_id="somebody:else"),
    ("connect", "token_format"): login("api_token", "wrong api token format", password=""),
    ("connect", "unknown_user"): login("api_token", "unknown user id", user="987654", client_id="987654:phone"),
    ("connect", "wrong_token"): login("api_token", "wrong api token", password="wrong"),
    ("connect", "database"): login_without_accounts,
    ("connect", "logout"): logout,
    ("publish", "topic_too_long"): publish("topic", "topic is too long", own("x" * 1100)),
    ("publish", "topic_levels"): publish("topic", "not enough topic levels", lambda me, friend: (me.id, b"{}")),
    ("publish", "topic_wildcards"): publish("topic", "wildcards are not allowed in topic", own("+")),
    ("publish", "topic_foreign"): publish(
        "topic",
        "can't publish to other user's channel except inbox",
        lambda me, friend: (f"/{friend.id}/other", me.message()),
    ),
    ("publish", "properties"): publish(
        "properties", "too many user properties", to_friend, props=[("user", ("a", "b"))] * 65
    ),
    ("publish", "payload_not_json"): publish(
        "payload", "payload is not valid json", lambda me, friend: (friend.inbox, b"{")
    ),
    ("publish", "payload_sender"): publish(
        "payload", "payload sender id mismatch", lambda me, friend: (friend.inbox, friend.message())
    ),
    ("publish", "not_friends"): to_stranger,
    ("publish", "notification_token"): publish("notification_token", "fatal database error", to_friend),
    ("publish", "database"): publish_without_friendships,
    ("publish", "inbox_full"): full_inbox,
    ("publish", "rate"): rate,
    ("publish", "store"): full_disk,
    ("subscribe", "filter_too_long"): subscribe("/{me}/" + "x" * 1100, "topic is too long"),
    ("subscribe", "filter_wildcards"): subscribe("/{me}/#", "wildcards are not allowed in topic"),
    ("subscribe", "filter_levels"): subscribe("inbox", "not enough topic levels"),
    ("subscribe", "filter_foreign"): subscribe("/0/inbox", "not authorized"),
}

SETTINGS = {
    "spam": {"limits.failed_auth": 2},
    "inbox_full": {"mailbox.max_messages": 2},  # one sender fills half of it
    "rate": {"limits.publish_rate": 1},
}


@pytest.fixture
def firebase(tmp_path):
    with PushService() as service:
        yield service.firebase(tmp_path)


@pytest.fixture
def server_for(start, tmp_path, firebase):
    """A server on which a row can be provoked."""
    small = []

    def begin(reason):
        if reason == "store":
            small.append(Small(tmp_path / "small", admin=True))
            return small[0].start()
        options = {"settings": SETTINGS.get(reason, {})}
        if reason == "notification_token":
            schema = SCHEMA.replace("user_notification_token TEXT,", "")
            options["directory"] = Directory(tmp_path / "jam.db", schema=schema)
            options["settings"] = firebase
        return start(admin=True, **options)

    yield begin
    for server in small:
        server.empty()
        server.stop()
        server.unmount()


@pytest.mark.parametrize("row", PROVOKE, ids="-".join)
def test_each_refusal_is_counted_once_under_its_row(server_for, row):
    server = server_for(row[1])
    before = refusals(server)
    assert before == dict.fromkeys(PROVOKE, 0), "every row there is has its provocation"
    PROVOKE[row](server)
    expected = before | {row: 1}
    if row[1] == "spam":
        expected[("connect", "wrong_token")] = 3
    assert refusals(server) == expected


def test_a_refused_login_is_an_outcome_too(start):
    server = start(admin=True)
    server.attempt(server.user(), password="wrong")[0].close()
    assert value(scrape(server), 'jam_connects_total{outcome="wrong_token",version="3.1.1"}') == 1
