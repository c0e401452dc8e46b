"""PROTOCOL.md, section 9: what is sent to a push service, and what follows from its answers."""

import hashlib
import hmac
import time
from datetime import datetime

import pytest
from harness import Directory, run_cli
from harness.push import (
    CLOSE,
    ENDLESS,
    NOISE,
    RESET,
    SILENCE,
    PushService,
    access_token,
    answer,
    refused,
)

TOKEN = "a-phone:that-must-not-be-logged"


@pytest.fixture
def service():
    with PushService() as running:
        yield running


@pytest.fixture
def server(start, service, tmp_path):
    """Pushes through Firebase; no two of them collapse."""
    return start(settings=service.firebase(tmp_path) | {"push.collapse": "0s"})


def friends(server, token=TOKEN):
    """One who writes, and one who is away and has a phone."""
    me, friend = server.friends()
    server.directory.set_notification_token(friend, token)
    return me, friend


def test_through_firebase(server, service, version):
    me, friend = friends(server)
    before = int(time.time())
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message("for nobody else's eyes"))
        [push] = service.pushes(1)
    [token] = service.tokens()
    assert token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert push.path == "/v1/projects/jam-test/messages:send"
    assert push.headers["authorization"] == "Bearer access-token"
    assert push.headers["content-type"].startswith("application/json")
    expiration = int(push.message["apns"]["headers"].pop("apns-expiration"))
    assert before <= expiration - 24 * 3600 <= time.time()
    assert push.json == {
        "message": {
            "token": TOKEN,
            "data": {"fromId": me.id},
            "android": {"priority": "high", "ttl": "86400s", "collapse_key": me.id},
            "apns": {
                "headers": {
                    "apns-push-type": "background",
                    "apns-priority": "5",
                    "apns-expiration": str(expiration),
                    "apns-collapse-id": me.id,
                },
                "payload": {"aps": {"content-available": 1}},
            },
        }
    }
    assert TOKEN not in server.log() and "access-token" not in server.log()


@pytest.mark.parametrize("secret", ["s", "a longer secret, ü"])
def test_through_a_webhook(start, service, version, secret):
    """No notification token is needed, nor the column."""
    service.usual = answer(204)
    server = start(settings=service.webhook(secret))
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message())
        [push] = service.pushes(1)
    assert push.path == "/hook" and push.headers["content-type"] == "application/json"
    assert list(push.json) == ["to", "fromId", "timestamp"]
    assert (push.json["to"], push.json["fromId"]) == (friend.id, me.id)
    assert abs(time.time() - _seconds(push.json["timestamp"])) < 10
    digest = hmac.new(secret.encode(), push.body, hashlib.sha256).hexdigest()
    assert push.headers["x-jam-signature"] == f"sha256={digest}"
    assert secret not in server.log() or len(secret) == 1


def _seconds(timestamp):
    assert timestamp.endswith("Z") and timestamp[-5] == ".", "UTC, with milliseconds"
    return datetime.fromisoformat(timestamp).timestamp()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_dead_token_is_cleared_beside_another_process(start, service, tmp_path, mode):
    directory = Directory(tmp_path / "jam.db", mode)
    server = start(settings=service.firebase(tmp_path), directory=directory)
    me, friend = friends(server)
    service.script(refused(404, "UNREGISTERED"))
    with directory.write_lock(), server.connect(me) as writer:
        writer.publish(friend.inbox, me.message(), qos=0)
        service.pushes(1)
        time.sleep(0.5)
        assert directory.notification_token(friend) == TOKEN, "it waits for the lock"
    deadline = time.monotonic() + 5
    while directory.notification_token(friend) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert directory.execute("PRAGMA journal_mode") == [(mode,)]


@pytest.mark.parametrize(
    "reply",
    [refused(400, "INVALID_ARGUMENT"), refused(403, "SENDER_ID_MISMATCH"), answer(404, body="<html>")],
    ids=["400", "403", "404"],
)
def test_what_is_refused_is_not_sent_again(server, service, reply):
    me, friend = friends(server)
    other = server.user()
    server.directory.befriend(me, other)
    server.directory.set_notification_token(other, "another-phone")
    service.script(reply, reply)
    with server.connect(me) as writer:
        writer.deliver(friend.inbox, me.message())
        writer.deliver(other.inbox, me.message())
        service.pushes(2)
        time.sleep(2.5)
    assert len(service.pushes()) == 2
    assert server.log().count("refuses a push") == 1
    assert server.directory.notification_token(friend) == TOKEN


@pytest.mark.parametrize(
    "reply",
    [
        answer(500),
        answer(503, body="<html>"),
        answer(429, {"Retry-After": "1"}),
        answer(302, {"Location": "/elsewhere"}),
        answer(200, body="<html>Log in, please</html>"),
        RESET,
        NOISE,
        ENDLESS,
    ],
    ids=["500", "503", "429", "302", "garbage", "reset", "noise", "endless"],
)
def test_what_is_sent_again(server, service, reply):
    me, friend = friends(server)
    service.script(reply)
    with server.connect(me) as writer:
        writer.deliver(friend.inbox, me.message())
        first, second = service.pushes(2)
        assert second.at - first.at >= 0.9
        assert first.pair == second.pair == (TOKEN, me.id)
        assert first.path == second.path
        time.sleep(1)
    assert len(service.pushes()) == 2


@pytest.mark.parametrize("through", ["firebase", "webhook"])
def test_a_connection_that_was_closed_meanwhile_costs_nothing(start, service, tmp_path, through):
    """As servers do with those that are idle: the push goes out on a new one, at once."""
    settings = service.firebase(tmp_path) if through == "firebase" else service.webhook()
    server = start(settings=settings | {"push.collapse": "0s"})
    me, friend = friends(server)
    with server.connect(me) as writer:
        writer.deliver(friend.inbox, me.message())
        service.pushes(1)
        service.script(CLOSE)
        time.sleep(0.5)
        began = time.monotonic()
        writer.deliver(friend.inbox, me.message())
        *_, again = service.pushes(3)
        assert again.at - began < 0.7
        time.sleep(1)
    assert len(service.pushes()) == 3
    assert "does not answer" not in server.log()


@pytest.mark.parametrize("through", ["firebase", "webhook"])
@pytest.mark.parametrize(
    "reply",
    [
        answer(429, {"Retry-After": "3600"}),
        answer(429, {"Retry-After": "Fri, 06 Nov 2054 08:49:37 GMT"}),
        answer(429),
        answer(503, {"Retry-After": "3600"}),
        NOISE,
        SILENCE,
    ],
    ids=["429", "429-date", "429-bare", "503", "noise", "silence"],
)
def test_one_phones_trouble_holds_up_nobody_else(start, service, tmp_path, through, reply):
    settings = service.firebase(tmp_path) if through == "firebase" else service.webhook()
    server = start(settings=settings)
    me, busy = friends(server, "the-busy-phone")
    others = [server.user() for _ in range(8)]
    for number, other in enumerate(others):
        server.directory.befriend(me, other)
        server.directory.set_notification_token(other, f"phone-{number}")
    service.when("the-busy-phone" if through == "firebase" else f'"to":"{busy.id}"', reply)
    with server.connect(me) as writer:
        writer.deliver(busy.inbox, me.message())
        service.pushes(1)
        for count, other in enumerate(others, 1):
            time.sleep(0.2)
            began = time.monotonic()
            writer.deliver(other.inbox, me.message())
            told = service.pushes(count + 1)  # and further tries for the busy one, perhaps
            assert time.monotonic() - began < 1, told
    assert "does not answer" not in server.log()


def test_no_earlier_than_the_service_asks(server, service):
    me, friend = friends(server)
    service.script(answer(429, {"Retry-After": "3"}))
    with server.connect(me) as writer:
        writer.deliver(friend.inbox, me.message())
        first, second = service.pushes(2)
    assert 3 <= second.at - first.at < 6


def test_an_access_token_is_shared_and_renewed(server, service):
    me, friend = friends(server)
    service.script_tokens(access_token("one"), access_token("two"))
    with server.connect(me) as writer:
        for _ in range(3):
            writer.deliver(friend.inbox, me.message())
            time.sleep(0.1)
        count = len(service.pushes(1))
        service.script(refused(401, "UNSPECIFIED_ERROR"))
        writer.deliver(friend.inbox, me.message())
        *_, revoked, again = service.pushes(count + 2)
    assert revoked.headers["authorization"] == "Bearer one"
    assert again.headers["authorization"] == "Bearer two"
    assert len(service.tokens()) == 2


def test_a_phone_that_comes_and_goes_gets_three_at_once(start, service, tmp_path):
    server = start(settings=service.firebase(tmp_path) | {"push.collapse": "3s"})
    me, friend = friends(server)
    began = time.monotonic()
    with server.connect(me) as writer:
        for number in range(15):
            writer.deliver(friend.inbox, me.message(str(number)))
            with server.listener(friend) as phone:
                phone.message(payload=me.message(str(number)))
            time.sleep(0.02)
        assert time.monotonic() - began < 2.5
        assert len(service.pushes()) == 3
        writer.deliver(friend.inbox, me.message("the last"))
        *_, fourth = service.pushes(4)
        assert fourth.at - began >= 2.9
        time.sleep(1)
    assert len(service.pushes()) == 4


def test_an_expired_message_causes_no_push(server, service):
    me, friend = friends(server)
    service.script(answer(429, {"Retry-After": "3"}))
    with server.connect(me, 5) as writer:
        writer.deliver(friend.inbox, me.message(), props={"message_expiry": 1})
        service.pushes(1)
        time.sleep(4.5)
        assert len(service.pushes()) == 1
        writer.deliver(friend.inbox, me.message())
        service.pushes(2)


def test_a_push_survives_kill_9(server, service):
    me, friend = friends(server)
    service.usual = SILENCE
    with server.connect(me) as writer:
        writer.deliver(friend.inbox, me.message())
        service.pushes(1)
    server.kill()
    service.usual = answer(200, body={})
    server.start()
    assert service.pushes(2)[1].pair == (TOKEN, me.id)
    time.sleep(0.3)
    one, other = server.friends()
    with server.connect(one) as writer:
        writer.deliver(other.inbox, one.message())  # acknowledged, so what came before it is on disk too
    server.kill()
    server.start()
    time.sleep(1)
    assert len(service.pushes()) == 2, "what has been sent is not sent again"


def test_a_service_that_comes_back(server, service):
    """Nobody at the address: said once, few tries, and all pushes arrive when there is."""
    me = server.user()
    phones = [server.user() for _ in range(50)]
    for number, phone in enumerate(phones):
        server.directory.befriend(me, phone)
        server.directory.set_notification_token(phone, f"phone-{number}")
    service.stop()
    with server.connect(me) as writer:
        for phone in phones:
            writer.deliver(phone.inbox, me.message())
        time.sleep(2)
        assert server.log().count("the push service does not answer") == 1
        service.start(service.port)
        deadline = time.monotonic() + 20
        while len({push.pair for push in service.pushes()}) < 50:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert server.log().count("the push service answers again") == 1


def test_a_hanging_service_slows_nobody_down(server, service):
    me = server.user()
    phones = [server.user() for _ in range(100)]
    for number, phone in enumerate(phones):
        server.directory.befriend(me, phone)
        server.directory.set_notification_token(phone, f"phone-{number}")
    service.usual = SILENCE
    with server.connect(me) as writer:
        for phone in phones:
            writer.deliver(phone.inbox, me.message())
        assert len(service.pushes()) <= 64
        began = time.monotonic()
        with server.listener(phones[0]) as reader:
            reader.message()
            writer.deliver(phones[0].inbox, me.message("more"))
            reader.message(payload=me.message("more"))
        assert time.monotonic() - began < 2
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5


def test_a_key_that_cannot_be_used(tmp_path):
    key = tmp_path / "key.json"
    key.write_text('{"project_id": "p", "private_key": "hidden"}')
    for command in ("check", "serve"):
        done = run_cli(command, "--data", tmp_path / "data", settings={"push.fcm_key": key})
        assert done.returncode == (1 if command == "check" else 78)
        assert "has no client_email" in done.stderr and "hidden" not in done.stderr
        assert "panicked" not in done.stderr


def test_check_says_where_pushes_would_go(service, tmp_path):
    for settings, said in [
        (service.firebase(tmp_path), "would go to Firebase, project jam-test"),
        (service.webhook(), "would go to the webhook at 127.0.0.1"),
        ({}, "no push is sent"),
        ({"push.enabled": "false"}, "off"),
    ]:
        done = run_cli("check", "--data", tmp_path / "data", settings=settings)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert not service.pushes() and not service.tokens(), "check asks no network"
