"""PROTOCOL.md, section 7: a mailbox belongs to the user, not to a session."""

import pytest
from harness.raw import LOGOUT
from harness.refusals import QUOTA, refused


@pytest.mark.parametrize("qos", [1, 2])
def test_a_user_who_has_never_connected(server, version, qos):
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        for n in range(10):
            assert writer.deliver(friend.inbox, me.message(n), qos) == 0
    with server.connect(friend, version) as reader:
        reader.quiet()
        reader.subscribe(friend.inbox, qos=2)
        for n in range(10):
            got = reader.message(topic=friend.inbox, payload=me.message(n))
            assert (got.qos, got.dup, got.retain) == (qos, False, False)
        reader.quiet()


def test_a_clean_session_leaves_what_it_did_not_acknowledge(server, version):
    me, friend = server.friends()
    with server.connect(friend, version) as writer:
        with server.listener(me, version, clean=True) as reader:
            for n in range(3):
                writer.deliver(me.inbox, friend.message(n))
            reader.message(payload=friend.message(0))
            reader.message(ack=False, payload=friend.message(1))
            reader.ping()
        with server.listener(me, version, clean=True) as reader:
            for n in (1, 2):
                reader.message(payload=friend.message(n))
            reader.quiet()
        with server.listener(me, version, clean=True) as reader:
            reader.quiet()


def test_a_new_phone_gets_what_the_old_one_left(server, version):
    me, friend = server.friends()
    session = {"clean": False, "props": {"session_expiry": 600}}
    with server.connect(friend, version) as writer:
        old = server.listener(me, version, **session)
        for n in range(3):
            writer.deliver(me.inbox, friend.message(n))
        old.message(payload=friend.message(0))
        left = [old.message(ack=False).payload for _ in range(2)]
        old.ping()
        with server.listener(me, version, device="new", **session) as new:
            assert old.error() == LOGOUT
            old.closed(reason=0x8E)
            assert [new.message().payload for _ in left] == left
            new.quiet()


def test_a_new_phone_while_the_old_one_is_away(server, version):
    me, friend = server.friends()
    session = {"clean": False, "props": {"session_expiry": 600}}
    with server.listener(me, version, **session):
        pass
    with server.connect(friend, version) as writer:
        writer.deliver(me.inbox, friend.message())
    with server.listener(me, version, device="new", **session) as new:
        assert new.message().payload == friend.message()
        new.quiet()


def test_qos_0_is_not_kept(server, version):
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message("now or never"), 0)
        writer.deliver(friend.inbox, me.message("kept"), 1)
    with server.listener(friend, version) as reader:
        assert reader.message().payload == me.message("kept")
        reader.quiet()


def test_a_subscription_at_qos_0_takes_what_it_is_sent(server, version):
    """Nothing acknowledges there; once written it counts as delivered."""
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message())
    with server.listener(friend, version, qos=0) as reader:
        assert reader.message(qos=0).payload == me.message()
        reader.subscribe(friend.inbox, qos=0)
        reader.quiet()


def test_several_senders(server, version):
    """Each sender's messages in their order, none lost, none twice."""
    me = server.user()
    senders = server.users(5)
    for sender in senders:
        server.directory.befriend(me, sender)
    for n in range(10):
        for sender in senders:
            with server.connect(sender, version) as writer:
                writer.deliver(me.inbox, sender.message(n))
    with server.listener(me, version) as reader:
        seen = [reader.message().payload for _ in range(50)]
        reader.quiet()
    for sender in senders:
        own = [sender.message(n) for n in range(10)]
        assert [payload for payload in seen if payload in own] == own


def test_a_block_does_not_take_back_what_was_accepted(server, version):
    """Acknowledged means kept: only an acknowledgement or its expiry removes a message."""
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        writer.deliver(friend.inbox, me.message())
    server.directory.block(friend, me)
    with server.listener(friend, version) as reader:
        assert reader.message().payload == me.message()


@pytest.mark.parametrize("limit", ["messages", "bytes"])
def test_a_full_mailbox_refuses(start, version, limit):
    """One sender fills half of it."""
    settings = {
        "messages": {"mailbox.max_messages": 6},
        "bytes": {"mailbox.max_bytes": "7000B", "limits.packet": "2000B"},
    }
    server = start(settings=settings[limit])
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        for n in range(3):
            assert writer.deliver(friend.inbox, me.message(f"{n}" * 900)) == 0
        refused(writer, friend.inbox, me.message("x" * 900), QUOTA)
        with server.listener(friend, version) as reader:
            for n in range(3):
                assert reader.message().payload == me.message(f"{n}" * 900)
            reader.quiet()
        assert writer.deliver(friend.inbox, me.message("room again")) == 0


def test_one_sender_leaves_room_for_the_others(start, version):
    server = start(settings={"mailbox.max_messages": 6})
    me, friend = server.friends()
    other = server.directory.user()
    server.directory.befriend(other, friend)
    for writer in (me, other):
        with server.connect(writer, version) as client:
            for n in range(3):
                assert client.deliver(friend.inbox, writer.message(n)) == 0
            refused(client, friend.inbox, writer.message("x"), QUOTA)


def test_more_than_a_window(server, version):
    """Five hundred wait; the receiver's window and the packet ids cope."""
    me, friend = server.friends()
    with server.connect(me, version) as writer:
        for n in range(500):
            assert writer.deliver(friend.inbox, me.message(n)) == 0
    with server.listener(friend, version) as reader:
        for n in range(500):
            assert reader.message().payload == me.message(n)
        reader.quiet()
