"""PROTOCOL.md, section 8, first bullet: nobody locks out anybody else.

Here more than 3 failures are too many, in a minute or, where a test waits for its end, in 4 seconds.
"""

import time

import pytest
from harness import error

LIMIT, WINDOW = 3, 4


@pytest.fixture
def strict(start):
    return start(settings={"limits.failed_auth": LIMIT, "limits.failed_auth_window": "1m"})


@pytest.fixture
def brief(start):
    return start(
        settings={"limits.failed_auth": LIMIT, "limits.failed_auth_window": f"{WINDOW}s"}
    )


def attempt(server, owner, /, version=4, **options):
    client, answer = server.attempt(owner, version, **options)
    if answer.reason:
        client.closed()
    client.close()
    return answer


def is_spam(answer, version):
    if version == 4:
        return answer.raw == b"\x20\x02\x00\x04"
    text = error("spam", "too many failed auth attempts", handler="preConnect").decode()
    return answer.reason == 0x9F and answer.get("reason_string") == text


def wrong(server, owner, /, version=4, **options):
    return attempt(server, owner, version, password="wrong", **options)


def test_over_the_limit(brief, version):
    """More failures than allowed: the right token is refused too, until the window has passed."""
    me = brief.user()
    for _ in range(LIMIT + 1):
        assert wrong(brief, me, version).reason == (0x87 if version == 5 else 5)
    last = time.monotonic()
    assert is_spam(wrong(brief, me, version), version)
    assert is_spam(attempt(brief, me, version), version)
    while is_spam(attempt(brief, me, version), version):
        assert time.monotonic() < last + 2 * WINDOW
        time.sleep(0.1)
    assert time.monotonic() >= last
    brief.connect(me, version).leave()


def test_at_the_limit(strict, version):
    me = strict.user()
    for _ in range(LIMIT):
        wrong(strict, me, version)
    strict.connect(me, version).leave()


def test_spam_comes_before_every_other_check(strict, version):
    me = strict.user()
    for _ in range(LIMIT + 1):
        wrong(strict, me, version)
    for options in ({"user": "999999"}, {"password": None}, {"user": None, "password": None}):
        assert is_spam(attempt(strict, me, version, **options), version)


def test_every_kind_of_failure_counts(strict):
    me = strict.user()
    for options in (
        {"password": "wrong"},
        {"password": None},
        {"user": "999999"},
        {"user": None, "password": None},
    ):
        assert attempt(strict, me, 5, **options).reason in (0x85, 0x86, 0x87)
    assert is_spam(attempt(strict, me, 5), 5)


def test_the_right_token_from_another_address(strict, version):
    """Somebody else's wrong guesses hold nobody up."""
    me = strict.user()
    for _ in range(LIMIT + 3):
        wrong(strict, me, version, source="127.0.0.2")
    assert is_spam(attempt(strict, me, version, source="127.0.0.2"), version)
    strict.connect(me, version, source="127.0.0.3").leave()


def test_a_connected_phone_stays(strict, version):
    me, friend = strict.friends()
    with strict.listener(me, version) as phone, strict.connect(friend, version) as writer:
        for _ in range(LIMIT + 3):
            wrong(strict, me, version, source="127.0.0.2")
        phone.quiet()
        writer.deliver(me.inbox, friend.message())
        assert phone.message().payload == friend.message()


def test_per_address(strict, version):
    """Failures under many client ids from one address add up."""
    users = strict.users(LIMIT + 2)
    for user in users[:-1]:
        wrong(strict, user, version, source="127.0.0.4")
    assert is_spam(attempt(strict, users[-1], version, source="127.0.0.4"), version)
    strict.connect(users[-1], version, source="127.0.0.5").leave()


def test_a_success_clears_the_count(strict, version):
    me = strict.user()
    for _ in range(3):
        for _ in range(LIMIT):
            assert wrong(strict, me, version).reason == (0x87 if version == 5 else 5)
        strict.connect(me, version).leave()


def test_the_window_passes(brief, version):
    me = brief.user()
    for _ in range(LIMIT + 1):
        wrong(brief, me, version)
    time.sleep(WINDOW + 0.5)
    for _ in range(LIMIT + 1):
        assert wrong(brief, me, version).reason == (0x87 if version == 5 else 5)
    assert is_spam(wrong(brief, me, version), version)


def test_the_default_is_more_than_ten(start, version):
    server = start(settings={"limits.failed_auth": 10})
    me = server.user()
    for _ in range(11):
        assert not is_spam(wrong(server, me, version), version)
    assert is_spam(wrong(server, me, version), version)
