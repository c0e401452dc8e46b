"""`/metrics` black box: what promtool says of it, and each refusal under the slug of its row; docs/metrics.md."""

import subprocess
import urllib.request

import pytest
from harness.packets import PUBACK
from harness.process import Server


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path, admin=True, settings={"limits.failed_auth": 4, "limits.publish_rate": 20}) as server:
        yield server


def scrape(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.read().decode()


def value(text, series):
    found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.rsplit(" ", 1)[0] == series]
    assert len(found) == 1, f"{series}: {found}"
    return float(found[0])


def refusals(server, handler):
    """{slug: count} of those that are not 0."""
    begin = f'jam_refusals_total{{handler="{handler}",reason="'
    lines = [line[len(begin) :].split('"} ') for line in scrape(server).splitlines() if line.startswith(begin)]
    return {slug: int(count) for slug, count in lines if count != "0"}


def test_promtool_has_nothing_to_say(server):
    done = subprocess.run(["promtool", "check", "metrics"], input=scrape(server), text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_refused_publish_is_under_its_row(server):
    (me, friend), stranger = server.friends(), server.user()
    with server.connect(me) as client:
        rows = {
            "topic_too_long": (friend.inbox + "x" * 1100, me.message()),
            "topic_levels": ("1", me.message()),
            "topic_wildcards": (f"/{friend.id}/+", me.message()),
            "topic_foreign": (f"/{friend.id}/other", me.message()),
            "payload_not_json": (friend.inbox, b"{"),
            "payload_sender": (friend.inbox, friend.message()),
            "not_friends": (stranger.inbox, me.message()),
        }
        for number, (topic, payload) in enumerate(rows.values(), 1):
            client.publish(topic, payload, 1, number)
            client.error()
            client.await_reply(PUBACK, number)
        assert refusals(server, "publish") == dict.fromkeys(rows, 1)


def test_each_refused_subscription_is_under_its_row(server):
    (me, friend) = server.friends()
    with server.connect(me) as client:
        rows = {
            "filter_too_long": me.inbox + "x" * 1100,
            "filter_wildcards": f"/{me.id}/#",
            "filter_levels": "inbox",
            "filter_foreign": friend.inbox,
        }
        for topic in rows.values():
            client.subscribe(topic)
        assert refusals(server, "subscribe") == dict.fromkeys(rows, 1)


def test_each_refused_login_is_under_its_row(server):
    me = server.user()
    attempts = {
        "id": {"client_id": "somebody:else"},
        "token_format": {"password": ""},
        "unknown_user": {"user": "987654", "client_id": "987654:phone"},
        "wrong_token": {"password": "wrong"},
    }
    for options in attempts.values():
        server.attempt(me, **options)[0].close()
    assert refusals(server, "connect") == dict.fromkeys(attempts, 1)
    server.attempt(me, password="wrong")[0].close()
    server.attempt(me)[0].close()
    found = refusals(server, "connect")
    assert found["spam"] >= 1
    assert value(scrape(server), 'jam_connects_total{outcome="spam",version="3.1.1"}') == found["spam"]
