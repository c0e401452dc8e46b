//! Retained messages, and what leaves because of its age: from memory and from the store together.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_core::ids::UserId;
use jam_core::{MAX_EPHEMERAL, MAX_RETAINED};
use jam_testkit::client::lasting;
use jam_testkit::disk::CrashingStore;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Connect, Packet, Publish, QoS, Version};

const DAY: Duration = Duration::from_secs(24 * 3600);
const QUALITIES: [QoS; 3] = [AtMostOnce, AtLeastOnce, ExactlyOnce];

/// A bench whose store does at once what it is told.
fn bench() -> Bench {
    let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
    disk(&bench).at_once(true);
    bench
}

fn disk(bench: &Bench) -> &CrashingStore {
    bench.disk().expect("a store with a file")
}

fn try_retain(
    client: &Client,
    topic: &str,
    payload: &str,
    qos: QoS,
    expiry_secs: Option<u32>,
) -> Option<u16> {
    client.publish_with(topic, payload.to_owned(), qos, |publish| {
        publish.retain = true;
        if expiry_secs.is_some() {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = expiry_secs;
        }
    })
}

fn retain(client: &Client, topic: &str, payload: &str, qos: QoS, expiry_secs: Option<u32>) {
    let id = try_retain(client, topic, payload, qos, expiry_secs);
    client.expect_accepted(qos, id);
}

fn answer(publish: &Publish) -> Ack {
    Ack::with_reason(publish.packet_id.expect("QoS 1 or 2"), ReasonCode::Success)
}

/// A lasting session that gets one message at a time.
fn one_at_a_time(connect: &mut Connect) {
    lasting(connect);
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
}

/// Nothing is left of anybody: in the store, in memory, or to be done at some time.
fn assert_nothing_is_left(bench: &Bench) {
    assert!(disk(bench).is_empty());
    let router = bench.router();
    assert_eq!((router.known_users(), router.pending_timers()), (0, 0));
}

#[test]
fn what_has_expired_leaves_the_store_by_itself() {
    for qos in QUALITIES {
        let bench = bench();
        let client = bench.client("1:phone", V5);
        client.connect();
        for n in 0..100 {
            retain(&client, &format!("/1/{n}"), "x", qos, Some(10));
        }
        retain(&client, "/1/later", "x", qos, Some(60));
        client.disconnect();
        assert_eq!(disk(&bench).retained().0, 101);
        bench.advance(Duration::from_secs(12));
        assert_eq!(disk(&bench).retained().0, 1);
        bench.advance(Duration::from_secs(50));
        assert_nothing_is_left(&bench);
    }
}

#[test]
fn what_has_expired_does_not_come_back_at_a_start() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect();
    retain(&client, "/1/x", "x", AtLeastOnce, Some(1));
    client.disconnect();
    bench.crash();
    bench.advance(Duration::from_secs(1));
    assert_nothing_is_left(&bench);
}

#[test]
fn what_has_expired_counts_in_no_limit() {
    let bench = Bench::with(|rules| rules.user.max_messages = 20);
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    bench.pass(Duration::from_millis(300));
    for n in 0..MAX_RETAINED {
        retain(&one, &format!("/1/{n}"), "x", AtMostOnce, Some(2));
    }
    let expiring = |qos| {
        let payload = packets::message("1", "x");
        one.publish_with("/2/inbox", payload, qos, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(2);
        })
    };
    for _ in 0..10 {
        one.expect_accepted(AtLeastOnce, expiring(AtLeastOnce));
    }
    two.connect();
    two.set_reading(false);
    for n in 0..MAX_EPHEMERAL {
        one.publish_with("/1/own", vec![b'x'; 5000], AtMostOnce, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(2 + u32::try_from(n % 2).unwrap());
        });
    }
    // Nobody has told the router that time has passed.
    bench.let_time_pass(Duration::from_secs(3));
    let id = try_retain(&one, "/1/more", "x", AtLeastOnce, None);
    one.expect_accepted(AtLeastOnce, id);
    one.expect_accepted(AtLeastOnce, expiring(AtLeastOnce));
}

#[test]
fn qos_0_that_has_expired_makes_room_for_more() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect();
    two.subscribe_inbox();
    two.set_reading(false);
    let write = |content: &str| {
        let payload = packets::message("1", content);
        one.publish_with("/2/inbox", payload, AtMostOnce, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(2);
        });
    };
    // More than a connection takes that is not read, and more than there is room for.
    for _ in 0..3 * MAX_EPHEMERAL {
        write(&"x".repeat(1000));
    }
    bench.let_time_pass(Duration::from_secs(3));
    write("after");
    two.set_reading(true);
    bench.run();
    let mut last = None;
    while let Some(Packet::Publish(publish)) = two.next() {
        last = Some(publish.payload);
    }
    assert_eq!(last.unwrap(), packets::message("1", "after"));
}

#[test]
fn what_does_not_expire_is_retained_for_ever() {
    for qos in QUALITIES {
        let bench = bench();
        let client = bench.client("1:phone", V5);
        client.connect();
        retain(&client, "/1/x", "profile", qos, None);
        client.disconnect();
        for restart in [false, true] {
            bench.pass(400 * DAY);
            if restart {
                bench.crash();
            }
            for granted in QUALITIES {
                client.connect();
                client.subscribe("/1/x", granted);
                let publish = client.expect_payload("/1/x", b"profile");
                assert_eq!((publish.retain, publish.dup), (true, false));
                client.acknowledge(&publish);
                client.expect_nothing();
                client.disconnect();
            }
        }
        assert_eq!((disk(&bench).kept(), disk(&bench).retained()), (0, (1, 0)));
    }
}

#[test]
fn mail_that_nobody_fetches_leaves_when_it_has_expired() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::on_disk(|_| ());
        disk(&bench).at_once(true);
        let one = bench.client("1:phone", V5);
        one.connect();
        let id = one.publish_with("/2/inbox", packets::message("1", "x"), qos, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(60);
        });
        one.expect_accepted(qos, id);
        one.write("2", "without", qos);
        one.disconnect();
        assert_eq!(disk(&bench).kept(), 2);
        bench.advance(Duration::from_secs(62));
        assert_eq!(disk(&bench).kept(), 1);
        // By the age limit, in the same way, and after a restart too.
        bench.pass(29 * DAY);
        bench.crash();
        assert_eq!(disk(&bench).kept(), 1);
        bench.pass(DAY);
        assert_nothing_is_left(&bench);
    }
}

#[test]
fn what_is_on_its_way_leaves_with_the_session_when_it_has_expired() {
    let bench = Bench::on_disk(|_| ());
    disk(&bench).at_once(true);
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_lasting();
    two.subscribe_inbox();
    let id = one.publish_with(
        "/2/inbox",
        packets::message("1", "x"),
        AtLeastOnce,
        |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(60);
        },
    );
    one.expect_accepted(AtLeastOnce, id);
    one.disconnect();
    two.expect_message("1", "x");
    two.drop_connection();
    bench.advance(Duration::from_secs(120));
    // The phone may have it: the packet id stands for it until the session ends.
    assert_eq!(disk(&bench).kept(), 1);
    bench.pass(2 * DAY);
    bench.pass(Duration::from_secs(2));
    assert_nothing_is_left(&bench);
}

#[test]
fn what_expires_while_its_packet_id_waits_for_the_store_is_not_sent() {
    let bench = Bench::on_disk(|_| ());
    let disk = disk(&bench);
    disk.at_once(true);
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_lasting();
    two.subscribe("/2/inbox", ExactlyOnce);
    disk.at_once(false);
    let id = one.publish_with(
        "/2/inbox",
        packets::message("1", "x"),
        ExactlyOnce,
        |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(2);
        },
    );
    // The message, which is read again; its packet id waits.
    disk.flush();
    bench.run();
    disk.read();
    bench.run();
    one.expect_accepted(ExactlyOnce, id);
    assert_eq!((disk.kept(), disk.waiting()), (1, 1));
    two.expect_nothing();
    bench.pass(Duration::from_secs(3));
    disk.at_once(true);
    bench.run();
    two.expect_nothing();
    assert_eq!(disk.kept(), 0);
    one.write("2", "next", ExactlyOnce);
    two.expect_message("1", "next");
}

/// A timer that a timer sets is not due yet: looking for what is due ends.
#[test]
fn what_expired_on_its_way_leaves_with_the_timer_that_ends_the_session() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect_with(|connect| {
        lasting(connect);
        connect.properties.session_expiry_secs = Some(60);
    });
    client.subscribe_inbox();
    let message = packets::message("1", "x");
    let id = client.publish_with("/1/inbox", message, AtLeastOnce, |publish| {
        let properties = publish.properties.get_or_insert_default();
        properties.message_expiry_secs = Some(30);
    });
    client.expect_message("1", "x");
    client.expect_accepted(AtLeastOnce, id);
    client.drop_connection();
    bench.advance(Duration::from_secs(40));
    assert_eq!(disk(&bench).kept(), 1);
    bench.let_time_pass(Duration::from_secs(30));
    let (router, now) = (bench.router(), bench.now());
    assert_eq!(router.pending_timers(), 1);
    assert!(router.handle_timeout(now));
    assert!(
        !router.handle_timeout(now),
        "it has set a timer that is due"
    );
    assert_nothing_is_left(&bench);
}

#[test]
fn a_retained_message_is_stored_once_however_often_it_is_asked_for() {
    for qos in QUALITIES {
        let bench = bench();
        let clients = ["1:a", "1:b"].map(|id| bench.client(id, V5));
        clients[0].connect_lasting();
        clients[1].connect();
        retain(&clients[0], "/1/x", &"x".repeat(10_000), qos, None);
        for client in &clients {
            client.set_reading(false);
            for _ in 0..80 {
                client.send_subscribe(vec![packets::filter("/1/x", qos)]);
            }
        }
        assert_eq!((disk(&bench).kept(), disk(&bench).retained().0), (0, 1));
        for client in &clients {
            client.set_reading(true);
            bench.run();
            let mut arrived = 0;
            while let Some(packet) = client.next() {
                match packet {
                    Packet::Publish(publish) => {
                        arrived += 1;
                        match qos {
                            AtMostOnce => {}
                            AtLeastOnce => client.ack(&publish),
                            ExactlyOnce => client.send(Packet::PubRec(answer(&publish))),
                        }
                    }
                    Packet::PubRel(ack) => client.send(Packet::PubComp(ack)),
                    other => assert!(matches!(other, Packet::SubAck(_)), "{other:?}"),
                }
            }
            assert!((1..80).contains(&arrived), "{qos:?}: {arrived}");
        }
        assert_eq!((disk(&bench).kept(), disk(&bench).retained()), (0, (1, 0)));
    }
}

#[test]
fn what_is_not_sent_yet_is_sent_once() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect_with(one_at_a_time);
    for topic in ["/1/a", "/1/b"] {
        retain(&client, topic, topic, AtLeastOnce, None);
    }
    client.subscribe("/1/a", AtLeastOnce);
    let first = client.expect_payload("/1/a", b"/1/a");
    for _ in 0..5 {
        client.subscribe("/1/b", AtLeastOnce);
    }
    assert_eq!(disk(&bench).retained(), (2, 1));
    client.ack(&first);
    let second = client.expect_payload("/1/b", b"/1/b");
    assert_eq!(disk(&bench).retained(), (2, 0));
    client.ack(&second);
    client.expect_nothing();
}

#[test]
fn what_takes_the_place_of_a_retained_message_goes_out_in_its_stead() {
    for cleared in [false, true] {
        let bench = bench();
        let (client, other) = (bench.client("1:phone", V5), bench.client("1:other", V5));
        other.connect();
        client.connect_with(one_at_a_time);
        for topic in ["/1/a", "/1/b"] {
            retain(&other, topic, "old", AtLeastOnce, None);
        }
        client.subscribe("/1/a", AtLeastOnce);
        let first = client.expect_payload("/1/a", b"old");
        client.subscribe("/1/b", AtLeastOnce);
        // One is on its way, the other is not.
        let (now, text): (_, &[u8]) = if cleared { ("", b"") } else { ("new", b"new") };
        for topic in ["/1/a", "/1/b"] {
            retain(&other, topic, now, AtLeastOnce, None);
        }
        client.drop_connection();
        bench.crash();
        let count = usize::from(!cleared) * 2;
        assert_eq!(disk(&bench).retained(), (count, 0));
        client.connect_with(one_at_a_time);
        let again = client.expect_publish();
        assert!(again.dup && again.retain && again.payload == first.payload);
        assert_eq!(again.packet_id, first.packet_id);
        client.ack(&again);
        // As messages like any other, for it has subscribed.
        for topic in ["/1/a", "/1/b"] {
            let publish = client.expect_payload(topic, text);
            assert!(!publish.retain);
            client.ack(&publish);
        }
        client.expect_nothing();
        assert_eq!(
            (disk(&bench).kept(), disk(&bench).retained()),
            (0, (count, 0))
        );
    }
}

#[test]
fn who_does_not_get_the_new_one_as_a_message_gets_it_as_the_retained_one() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect_with(one_at_a_time);
    for topic in ["/1/a", "/1/b"] {
        retain(&client, topic, "old", AtLeastOnce, None);
    }
    let subscribe = |topic: &str| {
        let mut filter = packets::filter(topic, AtLeastOnce);
        filter.no_local = true;
        client.subscribe_with(vec![filter]);
    };
    subscribe("/1/a");
    let first = client.expect_payload("/1/a", b"old");
    subscribe("/1/b");
    retain(&client, "/1/b", "new", AtLeastOnce, None);
    assert_eq!(disk(&bench).retained(), (2, 1));
    client.ack(&first);
    let second = client.expect_payload("/1/b", b"new");
    assert!(second.retain);
    client.ack(&second);
    client.expect_nothing();
}

#[test]
fn what_is_retained_is_bounded_in_bytes_what_is_on_its_way_included() {
    let bench = Bench::on_disk(|rules| rules.user.max_bytes = 30_000);
    disk(&bench).at_once(true);
    let client = bench.client("1:phone", V5);
    client.connect();
    let text = "x".repeat(14_000);
    for _ in 0..3 {
        retain(&client, "/1/a", &text, AtLeastOnce, None);
        retain(&client, "/1/b", &text, AtLeastOnce, None);
    }
    let refused = |topic: &str| {
        let id = try_retain(&client, topic, &text, AtLeastOnce, None);
        client.expect_refusal("quota", "the receiver's inbox is full", id);
        client.expect_answered(AtLeastOnce, id, ReasonCode::QuotaExceeded);
    };
    refused("/1/c");
    // Replaced while it is on its way, it still takes its room.
    let mut filter = packets::filter("/1/a", AtLeastOnce);
    filter.no_local = true;
    client.subscribe_with(vec![filter]);
    let publish = client.expect_payload("/1/a", text.as_bytes());
    refused("/1/a");
    client.ack(&publish);
    retain(&client, "/1/a", &text, AtLeastOnce, None);
    // An inbox that is full is no obstacle, nor the other way round.
    client.disconnect();
    let one = bench.client("2:phone", V4);
    one.connect();
    for _ in 0..2 {
        one.write("1", &"x".repeat(7_000), AtLeastOnce);
    }
    client.connect();
    retain(&client, "/1/a", &"y".repeat(14_000), AtLeastOnce, None);
}

#[test]
fn the_last_place_for_a_retained_message_can_be_filled_anew() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    bench.pass(Duration::from_millis(300));
    for n in 0..MAX_RETAINED {
        retain(&client, &format!("/1/{n}"), "x", AtMostOnce, None);
    }
    let id = try_retain(&client, "/1/more", "x", AtLeastOnce, None);
    client.expect_refusal("quota", "the receiver's inbox is full", id);
    client.expect_answered(AtLeastOnce, id, ReasonCode::QuotaExceeded);
    retain(&client, "/1/0", "y", AtLeastOnce, None);
}

#[test]
fn a_store_in_trouble_retains_nothing_more() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    bench.store().trouble(true);
    for qos in [AtMostOnce, AtLeastOnce] {
        let id = try_retain(&client, "/1/x", "x", qos, None);
        client.expect_refusal(
            "mailbox",
            "the server cannot keep messages at the moment",
            id,
        );
        client.expect_answered(qos, id, ReasonCode::ImplementationSpecificError);
    }
    bench.store().trouble(false);
    client.subscribe("/1/x", AtMostOnce);
    client.expect_nothing();
}

/// A commit fails that has a retained message, or the end of one, and the copies for those who read the topic.
#[test]
fn what_is_retained_is_never_changed_by_what_is_refused() {
    for (payload, qos, reads) in [
        ("new", AtLeastOnce, true),
        ("new", ExactlyOnce, true),
        ("new", AtLeastOnce, false),
        ("", AtLeastOnce, true),
        ("", ExactlyOnce, true),
    ] {
        for is_killed in [false, true] {
            let bench = bench();
            let (writer, reader) = (bench.client("1:phone", V5), bench.client("1:other", V5));
            writer.connect_with(lasting);
            retain(&writer, "/1/x", "old", AtLeastOnce, None);
            reader.connect_with(lasting);
            if reads {
                reader.subscribe("/1/x", AtLeastOnce);
                reader.acknowledge(&reader.expect_payload("/1/x", b"old"));
            }
            disk(&bench).at_once(false);
            let id = try_retain(&writer, "/1/x", payload, qos, None);
            disk(&bench).fail();
            bench.run();
            let case = format!("{payload:?} {qos:?} {reads} {is_killed}");
            // Who is told no sees nothing change; who sees the change is told no such thing.
            assert_eq!(writer.next(), None, "{case}: refused");
            let expected = if is_killed { "old" } else { payload };
            if is_killed {
                bench.crash();
            }
            disk(&bench).at_once(true);
            bench.run();
            if !is_killed {
                writer.expect_accepted(qos, id);
                if reads {
                    reader.acknowledge(&reader.expect_payload("/1/x", payload.as_bytes()));
                }
                bench.crash();
                bench.run();
            }
            let third = bench.client("1:third", V5);
            third.connect();
            third.subscribe("/1/x", AtMostOnce);
            let arrived = std::iter::from_fn(|| third.next()).find_map(|packet| match packet {
                Packet::Publish(it) => Some(it.payload),
                _ => None,
            });
            assert_eq!(arrived.unwrap_or_default(), expected, "{case}");
            assert_eq!(disk(&bench).kept(), 0, "{case}");
        }
    }
}

#[test]
fn claims_end_with_their_session() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect_with(one_at_a_time);
    let topics = ["/1/a", "/1/b", "/1/c"];
    for topic in topics {
        retain(&client, topic, topic, ExactlyOnce, None);
    }
    let filters = topics.map(|topic| packets::filter(topic, ExactlyOnce));
    client.subscribe_with(filters.into());
    client.drop_connection();
    assert_eq!(disk(&bench).retained(), (3, 2));
    bench.pass(2 * DAY);
    assert_eq!((disk(&bench).kept(), disk(&bench).retained()), (0, (3, 0)));
    // A session in the same place has no part in it.
    bench.crash();
    let other = bench.client("1:other", V5);
    other.connect_lasting();
    other.expect_nothing();
}

#[test]
fn nothing_is_left_of_an_account_that_is_gone() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect_with(one_at_a_time);
    let topics = ["/1/a", "/1/b"];
    for topic in topics {
        retain(&client, topic, topic, AtLeastOnce, None);
    }
    let filters = topics.map(|topic| packets::filter(topic, AtLeastOnce));
    client.subscribe_with(filters.into());
    client.expect_payload("/1/a", b"/1/a");
    bench.directory().remove_account("1");
    bench.recheck();
    assert_nothing_is_left(&bench);
}

#[test]
fn a_purge_of_the_inbox_leaves_what_is_retained() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect();
    retain(&client, "/1/a", "a", AtLeastOnce, None);
    bench
        .router()
        .purge(&UserId::parse("1").unwrap(), u64::MAX, None);
    client.subscribe("/1/a", AtLeastOnce);
    client.expect_payload("/1/a", b"a");
}

#[test]
fn a_push_record_leaves_with_a_message_that_has_expired() {
    let bench = Bench::on_disk(|rules| {
        rules.user.push.audience = jam_core::push::PushAudience::Everybody;
    });
    disk(&bench).at_once(true);
    let one = bench.client("1:phone", V5);
    one.connect();
    let id = one.publish_with(
        "/2/inbox",
        packets::message("1", "x"),
        AtLeastOnce,
        |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(60);
        },
    );
    one.expect_accepted(AtLeastOnce, id);
    one.disconnect();
    assert_eq!(disk(&bench).pushes().len(), 1);
    bench.advance(Duration::from_secs(62));
    assert_eq!(bench.send_pushes(), []);
    assert_nothing_is_left(&bench);
}

/// The server is killed at each step of what its store does while one retained message takes the place of another that
/// a session is still to be sent.
#[test]
fn a_crash_loses_no_retained_message_and_leaves_none_behind() {
    for steps in 0..30 {
        let bench = bench();
        let (client, other) = (bench.client("1:phone", V5), bench.client("1:other", V5));
        client.connect_with(one_at_a_time);
        other.connect();
        for topic in ["/1/a", "/1/b"] {
            retain(&client, topic, "old", AtLeastOnce, None);
        }
        disk(&bench).at_once(false);
        let filters = ["/1/a", "/1/b"].map(|topic| {
            let mut filter = packets::filter(topic, AtLeastOnce);
            filter.no_local = true;
            filter
        });
        client.send_subscribe(filters.into());
        let id = try_retain(&client, "/1/b", "new", AtLeastOnce, None);
        let (mut granted, mut acknowledged) = (false, false);
        for _ in 0..steps {
            while let Some(packet) = client.next() {
                match packet {
                    Packet::SubAck(_) => granted = true,
                    Packet::PubAck(ack) => acknowledged |= Some(ack.packet_id.get()) == id,
                    // Its acknowledgement does not reach the server.
                    Packet::Publish(publish) => assert_eq!(publish.topic, "/1/a"),
                    other => panic!("did not expect {other:?}"),
                }
            }
            let disk = disk(&bench);
            if disk.unanswered() > 0 {
                disk.answer(0);
            } else if disk.waiting() > 0 {
                disk.commit(1);
            } else {
                disk.read();
            }
            bench.run();
        }
        bench.crash();
        client.drop_connection();
        disk(&bench).at_once(true);
        assert!(client.connect_with(one_at_a_time).session_present);
        let mut arrived = Vec::new();
        while let Some(Packet::Publish(publish)) = client.next() {
            assert!(publish.retain);
            client.ack(&publish);
            arrived.push((publish.topic.to_string(), publish.payload));
        }
        assert!(!granted || arrived.len() == 2, "{steps}: {arrived:?}");
        let kept = if acknowledged { "new" } else { "old" };
        let is_kept = |(topic, payload): &(String, bytes::Bytes)| {
            topic == "/1/a" || payload == kept || (!acknowledged && payload == "new")
        };
        assert!(arrived.iter().all(is_kept), "{steps}: {arrived:?}");
        assert_eq!((disk(&bench).kept(), disk(&bench).retained()), (0, (2, 0)));
    }
}
