"""PROTOCOL.md, sections 2 and 3: one device at a time, takeover, and impostors."""

import select
import time

import pytest
from harness.packets import CONNACK, DISCONNECT, connect
from harness.raw import LOGOUT, PATIENCE


def test_the_second_phone_logs_the_first_one_out(server, version):
    me, friend = server.friends()
    first = server.listener(me, version)
    with server.listener(me, version, device="new") as second:
        assert first.error() == LOGOUT
        first.closed(reason=0x8E)
        with server.connect(friend, version) as writer:
            writer.deliver(me.inbox, friend.message())
        assert second.message().payload == friend.message()
        second.quiet()


@pytest.mark.parametrize("way", ["ws", "tls", "wss"])
def test_over_every_transport(server, tls_server, version, way):
    """Over TLS the end is announced (close_notify), or it could be anybody's."""
    home = server if way == "ws" else tls_server
    me = home.user()
    first = home.connect(me, version, transport=way)
    with home.connect(me, version, transport=way, device="new") as second:
        assert first.error() == LOGOUT
        first.closed(reason=0x8E)
        second.quiet()


def test_the_logout_text():
    assert LOGOUT == (
        b'{"type":"error","handler":"authenticate","category":"logout",'
        b'"message":"a new device has connected","messageId":null}'
    )


@pytest.mark.parametrize("versions", [(4, 5), (5, 4), (3, 5)], ids=str)
def test_across_protocol_versions(server, versions):
    me = server.user()
    first = server.connect(me, versions[0])
    with server.connect(me, versions[1], device="new") as second:
        assert first.error() == LOGOUT
        first.closed(reason=0x8E)
        second.quiet()


def test_a_chain_of_phones(server, version):
    """Each logs out the one before it, and only that one."""
    me = server.user()
    previous = server.connect(me, version, device="phone0")
    for n in range(1, 10):
        client = server.connect(me, version, device=f"phone{n}")
        assert previous.error() == LOGOUT
        previous.closed(reason=0x8E)
        previous = client
    previous.quiet()


def test_no_logout_for_the_same_client_id(server, version):
    """MQTT's ordinary takeover: the first connection just ends."""
    me = server.user()
    first = server.listener(me, version)
    with server.listener(me, version) as second:
        first.closed(reason=0x8E)
        second.quiet()


def test_the_first_devices_session_ends_with_its_logout(server, version):
    me = server.user()
    session = {"clean": False, "props": {"session_expiry": 600}}
    first = server.listener(me, version, **session)
    second = server.listener(me, version, device="new", **session)
    assert first.error() == LOGOUT
    first.closed(reason=0x8E)
    with server.connect(me, version, **session) as again:
        assert not again.connack.session_present
        assert second.error() == LOGOUT
        again.quiet()


def test_a_session_left_behind_ends_too(server, version):
    """Also when the first device was not connected when the second came."""
    me = server.user()
    session = {"clean": False, "props": {"session_expiry": 600}}
    server.listener(me, version, **session).close()
    server.connect(me, version, device="new", **session).close()
    with server.connect(me, version, **session) as again:
        assert not again.connack.session_present


def test_users_do_not_log_out_each_other(server, version):
    """Neither same device ids nor ids that begin alike have anything to do with each other."""
    users = server.users(12)
    clients = [server.listener(user, version) for user in users]
    for client in clients:
        client.quiet()


IMPOSTORS = {
    "wrong token": {"password": "wrong"},
    "empty token": {"password": ""},
    "no password": {"password": None},
    "no user name": {"user": None, "password": None},
    "foreign user name": {"user": "{other}", "password": "{token}"},
    "foreign user name, wrong token": {"user": "{other}", "password": "wrong"},
}


@pytest.mark.parametrize("device", ["phone", "another"])
@pytest.mark.parametrize("name", IMPOSTORS)
def test_impostors(server, version, name, device):
    """Who fails to log in with a connected phone's client id gets the answer; its owner nothing."""
    me, other = server.friends()
    options = {
        key: value and value.format(other=other.id, token=other.token)
        for key, value in IMPOSTORS[name].items()
    }
    with server.listener(me, version) as owner:
        for impostor_version in (3, 4, 5):
            impostor, answer = server.attempt(me, impostor_version, device, **options)
            assert answer.reason != 0
            impostor.closed()
        owner.quiet()
        with server.connect(other, version) as writer:
            writer.deliver(me.inbox, other.message())
        assert owner.message().payload == other.message()


def test_many_devices(start, version):
    """`devices = "many"`: side by side, each gets each message once."""
    server = start(settings={"sessions.devices": "many"})
    me, friend = server.friends()
    with (
        server.listener(me, version) as phone,
        server.listener(me, version, device="tablet") as tablet,
        server.connect(friend, version) as writer,
    ):
        writer.deliver(me.inbox, friend.message())
        for client in (phone, tablet):
            assert client.message().payload == friend.message()
        phone.publish("willtopic", b"", 0)
        phone.error()
        tablet.ping()
        assert not tablet.backlog
        phone.deliver(me.inbox, me.message("to my tablet"))
        assert tablet.message().payload == me.message("to my tablet")


def whoever_is_told(clients):
    """The first of these that gets something."""
    sockets = {client.stream.socket: client for client in clients}
    ready, _, _ = select.select(list(sockets), [], [], PATIENCE)
    assert ready, "nobody was told anything"
    return sockets[ready[0]]


def test_two_logins_at_once(server, version):
    """However they race, one is in and the other is told."""
    me = server.user()
    for _ in range(10):
        clients = [server.dial(version), server.dial(version)]
        for n, client in enumerate(clients):
            client.user, client.client_id = me, me.client_id(f"phone{n}")
        for client in clients:
            client.send(connect(client.client_id, me.id, me.token, version))
        for client in clients:
            client.expect(CONNACK, reason=0)
        loser = whoever_is_told(clients)
        clients.remove(loser)
        assert loser.receive().payload == LOGOUT
        if version == 5:
            loser.expect(DISCONNECT, reason=0x8E)
        loser.closed()
        clients[0].quiet()


def test_phones_that_log_each_other_out_for_ever_are_slowed(start, version):
    """Eight logouts are free; then the next phone waits, 1 s at first, and longer each time. Others do not."""
    server = start()
    me, other = server.users(2)
    begun, connected = time.monotonic(), []
    while time.monotonic() - begun < 6:
        client = server.connect(me, version, device=f"phone{len(connected) % 2}")
        connected.append((time.monotonic() - begun, client))
        before = time.monotonic()
        server.connect(other, version).leave()
        assert time.monotonic() - before < 1
    times = [at for at, _ in connected]
    # Eight logouts at once, then 1, 2 and 4 s apart.
    assert 10 <= len(times) <= 14, times
    waits = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert max(waits[:8]) < 0.9 < waits[8] < waits[9]
    assert "held back" in server.log()
    for _, client in connected:
        client.close()
