"""PROTOCOL.md, section 10: what senders are told of their messages."""

import json

import pytest
from harness.channels import receipt, receipts
from harness.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, acknowledgement

SESSION = {"clean": False, "props": {"session_expiry": 600}}


def sender(server, user, version=4, qos=1, **options):
    client = server.connect(user, version, **options)
    client.subscribe(receipts(user), qos=qos)
    return client


@pytest.mark.parametrize("qos", [1, 2])
def test_nobody_else_gets_any(server, version, qos):
    """Neither a sender who does not subscribe, nor the receiver, nor a third who does."""
    me, friend = server.friends()
    third = server.user()
    with (
        server.listener(me, version, qos=2) as writer,
        server.listener(friend, version, qos=2) as reader,
        sender(server, third, version) as other,
    ):
        reader.subscribe(receipts(friend))
        writer.deliver(friend.inbox, me.message(), qos)
        reader.message(payload=me.message())
        for client in (writer, reader, other):
            client.quiet()


def test_at_the_acknowledgement_and_not_before(server, version):
    me, friend = server.friends()
    with sender(server, me, version) as writer, server.listener(friend, version) as reader:
        writer.publish(friend.inbox, me.message(), 1, 4711)
        writer.await_reply(PUBACK, 4711)
        got = reader.message(ack=False, payload=me.message())
        writer.quiet()
        reader.acknowledge(got)
        receipt(writer, friend, 4711)
        reader.acknowledge(got)
        reader.quiet()
        writer.quiet()


def test_pubrec_is_the_acknowledgement_of_qos_2(server, version):
    me, friend = server.friends()
    with sender(server, me, version) as writer, server.listener(friend, version, qos=2) as reader:
        packet_id = writer.publish(friend.inbox, me.message(), 2)
        writer.await_reply(PUBREC, packet_id)
        writer.release(packet_id)
        got = reader.message(ack=False, qos=2)
        writer.quiet()
        reader.send(acknowledgement(PUBREC, got.packet_id))
        reader.await_reply(PUBREL, got.packet_id)
        receipt(writer, friend, packet_id)
        reader.send(acknowledgement(PUBREC, got.packet_id))
        reader.await_reply(PUBREL, got.packet_id)
        reader.send(acknowledgement(PUBCOMP, got.packet_id))
        reader.quiet()
        writer.quiet()


def test_nobody_acknowledges_qos_0(server, version):
    me, friend = server.friends()
    with sender(server, me, version) as writer, server.listener(friend, version) as reader:
        writer.deliver(friend.inbox, me.message("0"), 0)
        reader.message(payload=me.message("0"))
        reader.subscribe(friend.inbox, qos=0)
        writer.deliver(friend.inbox, me.message("1"), 1)
        reader.message(payload=me.message("1"), qos=0)
        reader.quiet()
        writer.quiet()


@pytest.mark.parametrize(
    "members, own_id",
    [
        ({"id": "b3c1-17"}, '"b3c1-17"'),
        ({"id": 17}, "17"),
        ({"id": -0.5}, "-0.5"),
        ({"id": 'quote " and \u00e9'}, '"quote \\" and \\u00e9"'),
        ({"id": "x" * 254}, '"' + "x" * 254 + '"'),
        ({"id": "x" * 255}, "null"),
        ({"id": None}, "null"),
        ({"id": True}, "null"),
        ({"id": {"id": 1}}, "null"),
        ({"content": {"id": 1}}, "null"),
        ({}, "null"),
    ],
)
def test_the_messages_own_id(server, members, own_id):
    me, friend = server.friends()
    with sender(server, me) as writer, server.listener(friend) as reader:
        packet_id = writer.publish(friend.inbox, json.dumps({"from": me.id} | members), 1)
        writer.await_reply(PUBACK, packet_id)
        reader.message()
        receipt(writer, friend, packet_id, own_id)


def test_a_redelivery_has_no_second_receipt(server, version):
    me, friend = server.friends()
    with sender(server, me, version) as writer:
        with server.listener(friend, version, **SESSION) as reader:
            packet_id = writer.publish(friend.inbox, me.message(), 1)
            writer.await_reply(PUBACK, packet_id)
            reader.message(ack=False)
        with server.connect(friend, version, **SESSION) as reader:
            got = reader.message(ack=False, dup=True)
            writer.quiet()
            reader.acknowledge(got)
            receipt(writer, friend, packet_id)
        with server.connect(friend, version, **SESSION) as reader:
            reader.ping()
        writer.quiet()


def test_two_devices_and_one_receipt(start, version):
    server = start(settings={"sessions.devices": "many"})
    me, friend = server.friends()
    with (
        sender(server, me, version) as writer,
        server.listener(friend, version) as phone,
        server.listener(friend, version, device="tablet") as tablet,
    ):
        packet_id = writer.publish(friend.inbox, me.message(), 1)
        got = tablet.message(ack=False)
        phone.message()
        # One order: the acknowledgement of the publish, when the first device has it, or the receipt.
        writer.await_reply(PUBACK, packet_id)
        receipt(writer, friend, packet_id)
        tablet.acknowledge(got)
        tablet.ping()
        writer.quiet()


def test_an_own_inbox_and_own_channels(start):
    server = start(settings={"sessions.devices": "many"})
    me = server.user()
    with sender(server, me) as writer, server.listener(me, device="tablet") as tablet:
        tablet.subscribe(f"/{me.id}/notes")
        packet_id = writer.publish(me.inbox, me.message(), 1)
        writer.await_reply(PUBACK, packet_id)
        tablet.message(payload=me.message())
        receipt(writer, me, packet_id)
        writer.deliver(f"/{me.id}/notes", b"x")
        tablet.message(payload=b"x")
        writer.quiet()


def test_in_5_0_it_is_in_the_users_own_name(server):
    me, friend = server.friends()
    with sender(server, me, 5) as writer, server.listener(friend, 5) as reader:
        packet_id = writer.publish(friend.inbox, me.message(), 1)
        writer.await_reply(PUBACK, packet_id)
        reader.message()
        got = receipt(writer, friend, packet_id)
        assert got.get("user") == ("from", me.id)


@pytest.mark.parametrize("qos", [1, 2])
def test_kept_while_the_sender_is_away(server, version, qos):
    me, friend = server.friends()
    with sender(server, me, version, **SESSION) as writer:
        ids = [writer.publish(friend.inbox, me.message(n), qos) for n in range(3)]
        for packet_id in ids:
            writer.await_reply({1: PUBACK, 2: PUBREC}[qos], packet_id)
            if qos == 2:
                writer.release(packet_id)
    with server.listener(friend, version, qos=2) as reader:
        for n in range(3):
            reader.message(payload=me.message(n))
        reader.ping()
    with server.connect(me, version, **SESSION) as writer:
        for packet_id in ids:
            receipt(writer, friend, packet_id, dup=False)
        writer.quiet()


def test_not_kept_without_a_session_nor_at_qos_0(server, version):
    me, friend = server.friends()
    for qos, options in [(1, {"clean": True}), (0, SESSION)]:
        with sender(server, me, version, qos, **options) as writer:
            writer.deliver(friend.inbox, me.message(qos), 1)
        with server.listener(friend, version) as reader:
            reader.message(payload=me.message(qos))
            reader.ping()
        with server.connect(me, version, **options) as writer:
            writer.quiet()


def test_within_the_limits_of_the_mailbox(start, version):
    """A full mailbox drops the receipt and holds up nothing."""
    server = start(settings={"mailbox.max_messages": 6})
    me, friend = server.friends()
    third = server.user()
    server.directory.befriend(me, third)
    with sender(server, me, version, **SESSION) as writer:
        for n in range(3):
            writer.deliver(friend.inbox, me.message(n), 1)
    # Two, for one sender takes at most half.
    with server.connect(third, version) as other:
        for n in range(2):
            other.deliver(me.inbox, third.message(n), 1)
    with server.connect(friend, version) as reader:
        for n in range(3):
            reader.deliver(me.inbox, friend.message(n), 1)
        reader.subscribe(friend.inbox)
        for n in range(3):
            reader.message(payload=me.message(n))
        reader.quiet()
    with server.connect(me, version, **SESSION) as writer:
        receipt(writer, friend, 2)
        writer.quiet()


@pytest.mark.parametrize("qos", [1, 2])
def test_through_kill_9(start, version, qos):
    """Both what a receipt needs of a message that waits, and a receipt that waits."""
    server = start()
    me, friend = server.friends()
    message = json.dumps({"from": me.id, "id": "m-1"}).encode()
    with sender(server, me, version, **SESSION) as writer:
        writer.last_id = 300
        packet_id = writer.publish(friend.inbox, message, qos)
        writer.await_reply({1: PUBACK, 2: PUBREC}[qos], packet_id)
        if qos == 2:
            writer.release(packet_id)
    server.kill()
    server.start()
    with server.listener(friend, version, qos=2) as reader:
        reader.message(payload=message)
        # What is answered after it: the server has taken the acknowledgement, and kept what follows.
        reader.unsubscribe(friend.inbox)
        reader.deliver(me.inbox, friend.message(), 2)
    server.kill()
    server.start()
    with server.connect(me, version, **SESSION) as writer:
        receipt(writer, friend, packet_id, '"m-1"', dup=False)
        writer.quiet()


def test_killed_at_any_moment_there_is_one_or_more(start):
    """The receiver acknowledges, and the server is killed at once."""
    server = start()
    for n in range(8):
        me, friend = server.friends()
        with sender(server, me, **SESSION) as writer:
            packet_id = writer.publish(friend.inbox, me.message(n), 1)
            writer.await_reply(PUBACK, packet_id)
        reader = server.listener(friend, **SESSION)
        reader.message(payload=me.message(n))
        if n % 2:
            reader.ping()
        server.kill()
        reader.stream.close()
        server.start()
        with server.listener(friend, **SESSION) as reader:
            reader.deliver(friend.inbox, friend.message("marker"), 0)
            while (got := reader.message()).payload != friend.message("marker"):
                assert got.payload == me.message(n)
            reader.ping()
        with server.connect(me, **SESSION) as writer:
            receipt(writer, friend, packet_id)


def test_the_device_channel_stays_as_it_was(server, version):
    """An app takes what is there for a logout: neither errors of receipts nor anything else is."""
    me, friend = server.friends()
    with (
        server.connect(me, version) as writer,
        server.listener(friend, version) as reader,
    ):
        writer.subscribe(me.channel(), receipts(me))
        for n in range(3):
            packet_id = writer.publish(friend.inbox, me.message(n), 1)
            writer.await_reply(PUBACK, packet_id)
            reader.message()
            receipt(writer, friend, packet_id)
        writer.quiet()
