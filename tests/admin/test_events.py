"""The admin API's events: what happened to a user, what came of pushes, and the stream of all of it."""

import re
import socket
import threading
import time

import pytest
from harness import packets
from harness.events import TOKEN, Stream, get, of_user, request, told
from harness.push import PushService, refused, sent

READERS = 16


@pytest.fixture
def office(start):
    def begin(settings=None, **options):
        return start(admin=True, settings={"admin.token": TOKEN} | (settings or {}), **options)

    return begin


def go(client):
    """Ends a connection, whatever it has been sent."""
    client.send(packets.disconnect())
    client.close()


def problem(answer, status):
    got, headers, body = answer
    assert got == status and headers["Content-Type"] == "application/problem+json", (got, body)
    assert body["status"] == status and body["detail"]
    return body["detail"]


def test_nothing_without_the_token(office):
    server = office()
    for path in ("events", "pushes", f"users/{server.user().id}/events"):
        for token in (None, "wrong", TOKEN[:-1]):
            problem(get(server, path, token=token), 401)


def test_what_is_not_understood_is_refused(office):
    server = office()
    me = server.user()
    for path in (
        "events?types=",
        "events?types=refused,",
        "events?types=Refused",
        "events?types=*",
        "events?user=",
        "events?user=a/b",
        "events?user=" + 65 * "x",
        "events?type=refused",
        "events?limit=1",
        "pushes?outcome=",
        "pushes?outcome=Sent",
        "pushes?limit=0",
        f"users/{me.id}/events?limit=1",
    ):
        problem(get(server, path), 422)
    for last in ("", "x", "-1", "1", "1.", ".1", "1.1.1", "0.18446744073709551616"):
        problem(get(server, "events", headers={"Last-Event-ID": last}), 422)
    problem(get(server, "pushes?after=x"), 404)
    assert "no user" in problem(get(server, "users/99999/events"), 404)
    problem(get(server, "users/a%2Fb/events"), 404)
    status, headers, body = get(server, "pushes")
    assert (status, body) == (200, {"items": [], "next": None})


def test_who_asks_why_nothing_comes_sees_it(office, version):
    """A wrong token, a publish to a stranger, a foreign filter, a logout: with address, client and row."""
    server = office()
    me, stranger = server.users(2)
    server.attempt(me, version, password="not-this-one")
    client = server.connect(me, version)
    client.deliver(stranger.inbox, b'{"from":"%s"}' % me.id.encode())
    client.publish(stranger.inbox, b"secret payload")
    client.subscribe(f"/{stranger.id}/inbox")
    there = server.connect(me, version, device="tablet")
    newest = of_user(server, me, 7)
    client.close()
    there.close()
    phone, tablet = me.client_id("phone"), me.client_id("tablet")
    assert [told(event) for event in reversed(newest)] == [
        ("refused", "connect", "wrong_token", 1),
        ("connect", None, None, 1),
        ("refused", "publish", "not_friends", 1),
        ("refused", "publish", "payload_not_json", 1),
        ("refused", "subscribe", "filter_foreign", 1),
        *sorted([("connect", None, None, 1), ("logout", None, None, 1)], key=lambda it: (it[0] == newest[0]["type"],)),
    ]
    assert {event["client"] for event in newest} == {phone, tablet}
    assert {event["user"] for event in newest} == {me.id}
    assert {event["address"] for event in newest} == {"127.0.0.1"}
    for event in newest:
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        text = str(event)
        for hidden in ("secret payload", "not-this-one", me.token, "inbox"):
            assert hidden not in text, event
    assert of_user(server, stranger, 0) == [], "nothing has happened to them"


def test_every_end_says_why(office):
    server = office({"limits.failed_auth": 2})
    me = server.user()
    ends = []

    def ended(reason, end):
        client = server.connect(me)
        end(client)
        if reason != "lost":
            client.closed()
        client.close()
        ends.append(("disconnect", None, reason, 1))

    ended("client", lambda client: client.send(packets.disconnect()))
    ended("lost", lambda client: None)
    ended("protocol", lambda client: client.send(packets.connect(client.client_id)))
    ended("protocol", lambda client: client.send(b"\x00\x00"))
    server.connect(me, keepalive=1).closed(timeout=5)
    ends.append(("disconnect", None, "keepalive", 1))
    first = server.connect(me)
    second = server.connect(me)
    first.closed()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        events = [told(event) for event in reversed(of_user(server, me, 12))]
        if sum(event[0] == "disconnect" for event in events) == 6:
            break
    assert sorted(event for event in events if event[0] == "disconnect") == sorted(
        [*ends, ("disconnect", None, "takeover", 1)]
    )
    second.close()
    for _ in range(4):
        server.attempt(me, password="wrong")
    deadline = time.monotonic() + 10
    while ("lockout", "connect", "spam", 1) not in events:
        assert time.monotonic() < deadline, events
        events = [told(event) for event in of_user(server, me, 1)]


def test_the_last_64_of_a_user_are_remembered(office):
    """Whatever the flood: a user's ring, and in it the room of each kind, are bounded."""
    server = office()
    me, other = server.users(2)
    quiet = server.connect(other)
    client = server.connect(me, 5)
    for _ in range(300):
        client.publish(me.inbox, b"no JSON" + 50 * b"x")
    client.ping()
    quiet.publish(other.inbox, b"no JSON")
    quiet.ping()
    with Stream(server, last=0) as stream:
        refusal = stream.next(type="refused", user=other.id)
        assert refusal["reason"] == "payload_not_json"
    events = of_user(server, me, 2)
    assert len(events) <= 10, "refused and connected"
    go(client)
    deadline = time.monotonic() + 10
    while sum(event["count"] for event in events if event["type"] == "refused") < 300:
        assert time.monotonic() < deadline + 60, events
        time.sleep(0.5)
        events = of_user(server, me, 2)


def test_the_stream_as_it_happens(office):
    server = office()
    me, other = server.users(2)
    with Stream(server) as every, Stream(server, "?types=refused,lockout") as refusals, Stream(server, f"?user={me.id}") as mine:
        for stream in (every, refusals, mine):
            assert stream.status == 200
            assert stream.headers["Content-Type"] == "text/event-stream"
            assert "no-cache" in stream.headers["Cache-Control"]
            assert stream.headers["X-Accel-Buffering"] == "no"
        for user in (other, me):
            client = server.connect(user)
            client.publish("/x", b"{}")
            go(client)
        assert every.next()["user"] == other.id
        first = refusals.next()
        assert (first["user"], first["type"]) == (other.id, "refused")
        assert mine.next()["user"] == me.id
        last = every.next(user=me.id, type="disconnect")
        assert refusals.next()["user"] == me.id
        assert [mine.next()["type"] for _ in range(2)] == ["refused", "disconnect"]
    # Whoever comes back misses nothing, and sees nothing twice.
    server.connect(other).leave()
    with Stream(server, last=last["id"]) as stream:
        assert [stream.next()["type"] for _ in range(2)] == ["connect", "disconnect"]
    with Stream(server, last=0) as stream:
        assert stream.next()["id"].endswith(".1")
        assert stream.next(type="disconnect", user=me.id) == last


def test_a_comment_when_nothing_happens(office):
    server = office()
    began = time.monotonic()
    with Stream(server) as stream:
        assert stream.block(20) == {"": ""}
    assert 14 < time.monotonic() - began < 18


def test_sixteen_readers_and_a_stop_ends_them(office):
    server = office()
    readers = [Stream(server) for _ in range(READERS)]
    assert "16 readers" in problem(get(server, "events"), 503)
    readers.pop().close()
    deadline = time.monotonic() + 5
    while (next_one := Stream(server)).status == 503 and time.monotonic() < deadline:
        next_one.close()
        time.sleep(0.05)
    assert next_one.status == 200, "a place is free once its reader is gone"
    readers.append(next_one)
    began = time.monotonic()
    ends = []

    def read(stream):
        while stream.block() is not None:
            pass
        ends.append(time.monotonic() - began)

    threads = [threading.Thread(target=read, args=(stream,)) for stream in readers]
    for thread in threads:
        thread.start()
    server.stop()
    for thread in threads:
        thread.join(5)
    assert len(ends) == READERS and max(ends) < 5


def test_after_a_restart_the_ids_are_others(office):
    server = office()
    me = server.user()
    with Stream(server) as stream:
        for _ in range(3):
            server.connect(me).leave()
        last = [stream.next(type="disconnect") for _ in range(3)][-1]
    server.stop()
    server.start()
    server.connect(me).leave()
    with Stream(server, last=last["id"]) as stream:
        first = stream.next()
        assert first["type"] == "connect" and first["id"] != last["id"]
        assert first["id"].endswith(".1")


def test_who_never_reads_costs_the_others_nothing(office):
    """A thousand that ask for the stream and read nothing of it, and a flood of events for them: messages go on."""
    server = office({"limits.connections_per_address": 5000})
    sender, receiver = server.friends()
    reader = server.listener(receiver)
    writer = server.connect(sender)

    def p99(messages=300):
        times = []
        for _ in range(messages):
            began = time.monotonic()
            writer.deliver(receiver.inbox, b'{"from":"%s"}' % sender.id.encode())
            reader.message()
            times.append(time.monotonic() - began)
        return sorted(times)[messages * 99 // 100]

    p99()
    before = p99()
    silent = []
    for _ in range(1000):
        # The listener has 128 places: the others wait in its backlog, or are not taken at all.
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.setblocking(False)
        stream.connect_ex(("127.0.0.1", server.admin))
        silent.append(stream)
    time.sleep(0.5)
    head = f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    for stream in silent:
        try:
            stream.send(head)
        except OSError:
            pass  # not taken
    noisy = server.users(30)
    stop = threading.Event()

    def make_noise():
        while not stop.is_set():
            for user in noisy:
                client = server.connect(user)
                client.publish("/x", b"{}")
                go(client)

    noise = threading.Thread(target=make_noise)
    noise.start()
    try:
        during = p99()
    finally:
        stop.set()
        noise.join()
        for stream in silent:
            stream.close()
    assert during < before + 0.1, (before, during)
    deadline = time.monotonic() + 20
    while (status := get(server, "pushes")[0]) != 200:
        assert time.monotonic() < deadline, status
    with Stream(server) as stream:
        assert stream.status == 200, "their places are free"


def test_a_slow_reader_is_told_how_much_it_has_missed(office):
    server = office({"limits.publish_rate": 0})
    stream = request(server, receive_buffer=2048)
    head = stream.recv(2048)
    assert b" 200 " in head, head
    users = server.users(700)
    for number, user in enumerate(users):
        for _ in range(7):
            server.connect(user).leave()
    text = head
    stream.settimeout(10)
    while b"event: dropped" not in text:
        more = stream.recv(65536)
        assert more, "the stream goes on"
        text += more
    while not (found := re.search(rb'event: dropped\ndata: \{"count":(\d+)\}', text)):
        text += stream.recv(65536)
    seen = text[: found.start()].count(b"\nid: ") + text.startswith(b"id: ")
    assert int(found[1]) > 0 and seen > 0
    stream.close()


def test_pushes_and_what_came_of_them(office, tmp_path):
    with PushService() as service:
        server = office(service.firebase(tmp_path))
        sender, receiver = server.friends()
        server.directory.set_notification_token(receiver, "a-token")
        writer = server.connect(sender)
        write = lambda: writer.deliver(receiver.inbox, b'{"from":"%s","content":"secret"}' % sender.id.encode())
        service.script(sent())
        write()
        with Stream(server, "?types=push", last=0) as stream:
            first = stream.next()
        assert (first["reason"], first["user"], first["sender"]) == ("sent", receiver.id, sender.id)
        service.script(refused(404, "UNREGISTERED"))
        other, another = server.friends()
        server.directory.set_notification_token(another, "b-token")
        server.connect(other).deliver(another.inbox, b'{"from":"%s"}' % other.id.encode())
        [event] = [it for it in of_user(server, another, 1) if it["type"] == "push"]
        assert event["reason"] == "token_dead"
        status, _, body = get(server, "pushes")
        assert [push["reason"] for push in body["items"]] == ["token_dead", "sent"]
        status, _, page = get(server, "pushes?limit=1")
        assert [push["reason"] for push in page["items"]] == ["token_dead"]
        status, _, page = get(server, f"pushes?limit=1&after={page['next']}")
        assert [push["reason"] for push in page["items"]] == ["sent"] and page["next"] is None
        assert [push["reason"] for push in get(server, "pushes?outcome=sent")[2]["items"]] == ["sent"]
        assert get(server, "pushes?outcome=retry")[2]["items"] == []
        assert "token" not in str(body).replace("token_dead", "") and "secret" not in str(body)
