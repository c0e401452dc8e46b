"""docs/operations.md: `mailbox list`, `session list` and `session end`, with the server running, stopped or killed."""

import json
import re
import time

import pytest
from harness import Server, run_cli
from harness.packets import Will


@pytest.fixture
def own(tmp_path):
    return Server(tmp_path / "own", admin=True)


def jam(server, *arguments, status=0, **options):
    settings = server.settings | {"listen.admin": f"127.0.0.1:{server.admin}"} | options
    where = ["--data", server.folder / "data", "--directory", f"sqlite:{server.directory.path}"]
    done = run_cli(*arguments, *where, settings=settings)
    assert done.returncode == status, f"{arguments}: {done}"
    return done.stdout if status == 0 else done.stderr


def sessions(server, user, **options):
    return json.loads(jam(server, "session", "list", user.id, "--json", **options))


def session_of(server, user, device="phone"):
    """A device with a subscription, which is away."""
    with server.connect(user, device=device, clean=False) as phone:
        assert phone.subscribe(user.inbox, qos=1) == [1]
        return phone.client_id


def comes_back(server, user, device="phone"):
    """Whether its session goes on."""
    with server.connect(user, device=device, clean=False) as phone:
        return phone.connack.session_present


def test_mailbox_list(own):
    with own:
        me, friend = own.friends()
        other = own.user()
        own.directory.befriend(me, other)
        with own.connect(me) as writer:
            for user, text in ((other, "earlier and large " * 100), (friend, "x"), (friend, "y")):
                assert writer.deliver(user.inbox, me.message(text)) == 0
                time.sleep(0.01)  # times are kept in milliseconds
        running = json.loads(jam(own, "mailbox", "list", "--json"))
    stopped = json.loads(jam(own, "mailbox", "list", "--json"))
    assert [(it["user"], it["messages"], it["retained"]) for it in stopped] == [(other.id, 1, 0), (friend.id, 2, 0)]
    assert [it["bytes"] for it in running] == [it["bytes"] for it in stopped]
    assert stopped[0]["bytes"] > 1000 and 0 <= stopped[0]["oldest_secs"] < 120
    oldest = json.loads(jam(own, "mailbox", "list", "--json", "--sort", "oldest", "--limit", "1"))
    assert [it["user"] for it in oldest] == [other.id]
    heads, *rows = jam(own, "mailbox", "list").splitlines()
    assert heads.split() == ["USER", "MESSAGES", "BYTES", "OLDEST", "RETAINED"] and len(rows) == 2
    assert re.match(rf"{other.id} +1 ", rows[0])
    assert jam(own, "mailbox", "list", "--limit", "0", status=2)


@pytest.mark.parametrize("state", ["running", "stopped", "killed"])
def test_a_session_is_listed_and_ended(own, state):
    """What waited for the device alone goes with it; what waits in the inbox stays for the next."""
    own.settings["sessions.expiry"] = "2h"
    with own:
        me, friend = own.friends()
        client = session_of(own, friend)
        payload = me.message("waits")
        with own.connect(me) as writer:
            assert writer.deliver(friend.inbox, payload) == 0
        if state == "killed":
            phone = own.connect(friend, device="phone", clean=False)
            phone.subscribe(friend.inbox)  # its SUBACK waits until the store has it that the phone is connected
            own.kill()
            phone.close()
        if state == "stopped":
            own.stop()
        (found,) = sessions(own, friend)
        assert (found["client"], found["connected"], found["subscriptions"]) == (client, False, 1)
        # Of a client that was connected when the server was killed, it counts from the next start.
        left = found["session_ends_in_secs"]
        assert left == 7200 if state == "killed" else 7000 < left <= 7200
        (shown,) = json.loads(jam(own, "mailbox", "show", friend.id, "--json"))["sessions"]
        assert not shown["connected"] and left - 5 <= shown["ends_in_secs"] <= left
        assert client in jam(own, "session", "list", friend.id)
        said = json.loads(jam(own, "session", "end", friend.id, client, "--json"))
        by = "server" if state == "running" else "command"
        assert said == {"user": friend.id, "ended": 1, "by": by}
        assert sessions(own, friend) == []
        assert client in jam(own, "session", "end", friend.id, client, status=1)
        assert jam(own, "session", "end", friend.id).startswith(f"0 sessions of user {friend.id} ended")
        if state != "running":
            own.start()
        assert comes_back(own, friend) is False
        with own.listener(friend, device="phone") as reader:
            assert reader.message(topic=friend.inbox).payload == payload


def test_the_will_of_a_session_that_is_ended_in_the_store_is_sent(own):
    with own:
        me, friend = own.friends()
        session_of(own, friend)
        will = Will(friend.inbox, me.message("gone"), 1, properties={"will_delay": 3600})
        phone = own.connect(me, 5, clean=False, will=will, props={"session_expiry": 7200})
        own.kill()
        phone.close()
        client = phone.client_id
        assert json.loads(jam(own, "session", "end", me.id, client, "--json"))["ended"] == 1
        own.start()
        with own.connect(friend, device="phone", clean=False) as reader:
            assert reader.message(topic=friend.inbox).payload == me.message("gone")


def test_all_of_a_user_s_devices(start):
    server = start(admin=True, settings={"sessions.devices": "many"})
    me = server.user()
    phone = server.connect(me, 5, device="phone", clean=False, props={"session_expiry": 600})
    tablet = server.connect(me, device="tablet", clean=True)
    found = {device["client"]: device for device in sessions(server, me)}
    assert set(found) == {phone.client_id, tablet.client_id}, "one without a session too"
    assert all(device["connected"] and device["address"] for device in found.values())
    assert found[phone.client_id]["version"] == "5.0"
    assert jam(server, "session", "end", me.id) == f"2 sessions of user {me.id} ended by the server\n"
    phone.closed(reason=0x98)
    tablet.closed()
    assert sessions(server, me) == []


def test_what_cannot_be_ended_is_said(start):
    server = start(admin=True)
    me = server.user()
    assert "there is no user 999" in jam(server, "session", "list", "999", status=1)
    assert "there is no user 999" in jam(server, "session", "end", "999", status=1)
    assert f"session list {me.id}" in jam(server, "session", "end", me.id, "999:phone", status=2)
    client = session_of(server, me)
    off = {"listen.admin": ""}
    assert "listen.admin is off" in jam(server, "session", "end", me.id, client, status=2, **off)
    assert [device["client"] for device in sessions(server, me, **off)] == [client]
    assert comes_back(server, me)
