"""The friendship story as paho-mqtt tells it: 3.1.1 and 5.0 over TCP, TLS and WebSocket."""

import queue
import threading

import paho.mqtt.client as paho
import pytest
from harness import error
from harness.raw import LOGOUT
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 30


class Phone:
    """One paho client on its network thread. Everything that happens to it is in `events`."""

    def __init__(self, server, user, version, transport, device="phone", token=None, **options):
        self.user, self.version = user, version
        self.events = queue.Queue()
        self.reasons = {}
        self.client_id = options.pop("client_id", user.client_id(device))
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=paho.MQTTv5 if version == 5 else paho.MQTTv311,
            transport="websockets" if transport in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
        )
        self.client.username_pw_set(user.id, token or user.token)
        if transport in ("tls", "wss"):
            self.client.tls_set(ca_certs=server.certificate / "ca.pem")
        if transport in ("ws", "wss"):
            self.client.ws_set_options(path="/mqtt")
        if "will" in options:
            self.client.will_set(options["will"], b"gone")
        self.client.on_connect = lambda c, u, flags, reason, p: self.events.put(("in", reason))
        self.client.on_message = lambda c, u, message: self.events.put(("message", message))
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.events.put(("subscribed", codes))
        self.client.on_publish = self.published
        self.client.on_disconnect = lambda c, u, flags, reason, p: self.events.put(("out", reason))
        port = {"tcp": "mqtt", "tls": "mqtts", "ws": "http", "wss": "http"}[transport]
        self.client.connect("localhost", getattr(server, port), keepalive=30)
        self.client.loop_start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def published(self, client, _, mid, reason, properties):
        self.reasons[mid] = reason

    def expect(self, kind):
        got, value = self.events.get(timeout=PATIENCE)
        assert got == kind, f"expected {kind}, got {got}: {value}"
        return value

    def login(self):
        assert self.expect("in").value == 0
        return self

    def subscribe(self, topic, qos=1):
        self.client.subscribe(topic, qos)
        return [code.value for code in self.expect("subscribed")]

    def publish(self, topic, payload, qos=1, properties=None):
        info = self.client.publish(topic, payload, qos, properties=properties)
        info.wait_for_publish(PATIENCE)
        assert info.is_published()
        return info.mid

    def message(self):
        return self.expect("message")

    def error(self):
        message = self.message()
        assert message.topic == f"/{self.user.id}/devices/{self.client_id}"
        return message.payload

    def quiet(self):
        self.publish(self.user.inbox, self.user.message("marker"))
        assert self.message().payload == self.user.message("marker")


@pytest.fixture
def phone(home, version, transport):
    """phone(user, device=..., ...): a client of this test's version over its transport."""
    open_phones = []

    def start(user, **options):
        open_phones.append(Phone(home, user, version, transport, **options))
        return open_phones[-1]

    yield start
    for one in open_phones:
        one.__exit__()


def listening(phone, user, **options):
    one = phone(user, **options).login()
    assert one.subscribe(user.inbox, 2) == [2]
    return one


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_friends(home, phone, qos):
    alice, bob = home.friends()
    a, b = listening(phone, alice), listening(phone, bob)
    body = alice.message(["hello", "ü☃😀", list(range(256))])
    a.publish(bob.inbox, body, qos)
    got = b.message()
    assert (got.topic, got.payload, got.qos, got.retain) == (bob.inbox, body, qos, False)
    b.publish(alice.inbox, bob.message("hi"), qos)
    assert a.message().payload == bob.message("hi")
    a.quiet()
    b.quiet()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_stranger_is_refused_and_stays(home, phone, version, qos):
    alice, bob = home.friends()
    stranger = home.user()
    b, s = listening(phone, bob), listening(phone, stranger)
    mid = s.publish(bob.inbox, stranger.message(), qos)
    expected = error("friends", "not friends with the receiver", mid if qos else None)
    assert s.error() == expected
    if version == 5 and qos == 1:
        assert s.reasons[mid].value == 0x87
    s.quiet()
    b.quiet()
    home.directory.befriend(stranger, bob)
    s.publish(bob.inbox, stranger.message("now"), qos)
    assert b.message().payload == stranger.message("now")


def test_a_block_takes_effect(home, phone):
    alice, bob = home.friends()
    a, b = listening(phone, alice), listening(phone, bob)
    a.publish(bob.inbox, alice.message())
    b.message()
    home.directory.block(bob, alice)
    mid = a.publish(bob.inbox, alice.message("blocked"))
    assert a.error() == error("friends", "not friends with the receiver", mid)
    b.quiet()
    home.directory.unblock(bob, alice)
    a.publish(bob.inbox, alice.message("again"))
    assert b.message().payload == alice.message("again")


def test_the_second_phone_logs_the_first_one_out(home, phone, version):
    alice = home.user()
    first = listening(phone, alice)
    second = listening(phone, alice, device="new")
    assert first.error() == LOGOUT
    reason = first.expect("out")
    assert version == 4 or reason.value == 0x8E
    second.quiet()


def test_the_will_topic_of_deployed_apps(home, phone):
    alice, bob = home.friends()
    a, b = listening(phone, alice, will="willtopic"), listening(phone, bob)
    a.publish(bob.inbox, alice.message())
    assert b.message().payload == alice.message()


@pytest.mark.parametrize("case", ["wrong token", "foreign client id"])
def test_who_is_not_let_in(home, phone, version, case):
    alice, bob = home.users(2)
    if case == "wrong token":
        # paho reports 3.1.1 codes as the 5.0 reasons they became: 5 is 0x87, 4 is 0x86.
        reason = phone(alice, token="wrong").expect("in")
        assert reason.value == 0x87
    else:
        reason = phone(alice, client_id=bob.client_id()).expect("in")
        assert reason.value == (0x85 if version == 5 else 0x86)


def test_filters_are_judged_one_by_one(home, phone, version):
    alice, bob = home.friends()
    a = phone(alice).login()
    a.client.subscribe([("#", 0), (alice.inbox, 1), (bob.inbox, 2), ("x", 0)])
    for name, message in (
        ("#", "wildcards are not allowed in topic"),
        (bob.inbox, "not authorized"),
        ("x", "not enough topic levels"),
    ):
        assert a.error() == error(name, message, handler="authorizeSubscribe")
    codes = [code.value for code in a.expect("subscribed")]
    assert codes == ([0xA2, 1, 0x87, 0x8F] if version == 5 else [0x80, 1, 0x80, 0x80])


def test_a_picture(home, phone):
    alice, bob = home.friends()
    a, b = listening(phone, alice), listening(phone, bob)
    body = alice.message([n % 256 for n in range(300_000)])
    assert len(body) > 1_000_000
    a.publish(bob.inbox, body)
    assert b.message().payload == body


def test_user_properties(home, transport):
    """5.0: `from` is the server's word, the others pass in order."""
    alice, bob = home.friends()
    with Phone(home, alice, 5, transport).login() as a, Phone(home, bob, 5, transport).login() as b:
        b.subscribe(bob.inbox)
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("x", "1"), ("from", bob.id), ("x", "2")]
        properties.ContentType = "application/json"
        a.publish(bob.inbox, alice.message(), properties=properties)
        got = b.message().properties
        assert got.ContentType == "application/json"
        assert [pair for pair in got.UserProperty if pair[0] != "from"] == [("x", "1"), ("x", "2")]
        assert got.UserProperty.count(("from", alice.id)) == 1


def test_both_write_at_once(home, phone):
    """Two hundred each way from two threads: all of them, once, in order."""
    alice, bob = home.friends()
    a, b = listening(phone, alice), listening(phone, bob)

    def write(one, user, to):
        for n in range(200):
            one.client.publish(to.inbox, user.message(n), 1)

    threads = [
        threading.Thread(target=write, args=(a, alice, bob)),
        threading.Thread(target=write, args=(b, bob, alice)),
    ]
    for thread in threads:
        thread.start()
    for n in range(200):
        assert a.message().payload == bob.message(n)
        assert b.message().payload == alice.message(n)
    for thread in threads:
        thread.join()
    a.quiet()
    b.quiet()
