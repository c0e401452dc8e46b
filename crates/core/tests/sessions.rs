//! What outlives a connection (PROTOCOL.md, section 7.5 as far as memory goes), redelivery (7.3, 7.4), and
//! the windows of both directions.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::task::Waker;
use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::connection::{Connection, Progress};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];

fn id(publish: &Publish) -> u16 {
    publish.packet_id.map_or(0, PacketId::get)
}

/// A reader with a lasting session, subscribed to its inbox, and a friend who writes.
fn pair(bench: &Bench, version: Version, qos: QoS) -> (Client, Client) {
    let (one, two) = (
        bench.client("1:phone", version),
        bench.client("2:phone", version),
    );
    one.connect();
    two.connect_lasting();
    two.subscribe("/2/inbox", qos);
    (one, two)
}

#[test]
fn what_was_not_acknowledged_comes_again_in_order_with_the_same_ids() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = pair(&bench, version, ExactlyOnce);
        let mut ids = Vec::new();
        for (content, qos) in [("a", AtLeastOnce), ("b", ExactlyOnce), ("c", AtLeastOnce)] {
            one.write("2", content, qos);
            ids.push(id(&two.expect_message("1", content)));
        }
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[1], ids[2]);
        for _ in 0..3 {
            two.drop_connection();
            one.write("2", "new", AtMostOnce);
            two.connect_lasting();
            let again = ["a", "b", "c"].map(|content| id(&two.expect_again("1", content)));
            assert_eq!(again, ids[..]);
            two.expect_nothing();
        }
        two.drop_connection();
        one.write("2", "d", AtLeastOnce);
        two.connect_lasting();
        let again = ["a", "b", "c"].map(|content| two.expect_again("1", content));
        let new = two.expect_message("1", "d");
        assert!(!ids.contains(&id(&new)));
        again
            .iter()
            .chain([&new])
            .for_each(|publish| two.acknowledge(publish));
        two.drop_connection();
        two.connect_lasting();
        two.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn acknowledgements_out_of_order_leave_the_rest_in_order() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, V4, AtLeastOnce);
    let messages = ["a", "b", "c", "d"].map(|content| {
        one.write("2", content, AtLeastOnce);
        two.expect_message("1", content)
    });
    two.ack(&messages[2]);
    two.ack(&messages[0]);
    two.drop_connection();
    two.connect_lasting();
    two.expect_again("1", "b");
    two.expect_again("1", "d");
    two.expect_nothing();
}

#[test]
fn qos_2_to_the_receiver_is_exactly_once_at_each_step() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = pair(&bench, version, ExactlyOnce);
        one.write("2", "once", ExactlyOnce);
        let publish = two.expect_message("1", "once");
        let id = publish.packet_id.unwrap();
        // Before the PUBREC the message comes again; after it, the PUBREL.
        two.drop_connection();
        two.connect_lasting();
        two.expect_again("1", "once");
        for _ in 0..2 {
            two.send(Packet::PubRec(Ack::success(id)));
            two.expect(Packet::PubRel(Ack::success(id)));
        }
        for _ in 0..2 {
            two.drop_connection();
            two.connect_lasting();
            two.expect(Packet::PubRel(Ack::success(id)));
            two.expect_nothing();
        }
        two.send(Packet::PubComp(Ack::success(id)));
        two.send(Packet::PubComp(Ack::success(id)));
        two.drop_connection();
        two.connect_lasting();
        two.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn a_pubrec_for_nothing_is_answered_and_changes_nothing() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = pair(&bench, version, ExactlyOnce);
        let unknown = Ack::with_reason(packets::id(99), ReasonCode::PacketIdentifierNotFound);
        let unknown = if version == V5 {
            unknown
        } else {
            Ack::success(packets::id(99))
        };
        two.send(Packet::PubRec(Ack::success(packets::id(99))));
        two.expect(Packet::PubRel(unknown));
        two.send(Packet::PubAck(Ack::success(packets::id(99))));
        two.send(Packet::PubComp(Ack::success(packets::id(99))));
        two.expect_nothing();
        // A PUBACK is no answer to a QoS 2 message, a PUBREC none to a QoS 1 message.
        one.write("2", "x", ExactlyOnce);
        one.write("2", "y", AtLeastOnce);
        let (x, y) = (two.expect_message("1", "x"), two.expect_message("1", "y"));
        two.send(Packet::PubAck(Ack::success(x.packet_id.unwrap())));
        two.send(Packet::PubRec(Ack::success(y.packet_id.unwrap())));
        two.next();
        two.drop_connection();
        two.connect_lasting();
        two.expect_again("1", "x");
        two.expect_again("1", "y");
    }
}

#[test]
fn a_receiver_that_refuses_a_message_has_had_it() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, V5, ExactlyOnce);
    one.write("2", "x", ExactlyOnce);
    one.write("2", "y", AtLeastOnce);
    let refused =
        |publish: &Publish| Ack::with_reason(publish.packet_id.unwrap(), ReasonCode::QuotaExceeded);
    let (x, y) = (two.expect_message("1", "x"), two.expect_message("1", "y"));
    two.send(Packet::PubRec(refused(&x)));
    two.send(Packet::PubAck(refused(&y)));
    two.expect_nothing();
    two.drop_connection();
    two.connect_lasting();
    two.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn an_acknowledgement_before_the_redelivery_counts() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, V4, ExactlyOnce);
    for content in ["a", "b", "c"] {
        one.write("2", content, AtLeastOnce);
    }
    let messages = ["a", "b", "c"].map(|content| two.expect_message("1", content));
    two.drop_connection();
    two.open();
    let mut connect = packets::connect("2:phone", V4);
    lasting(&mut connect);
    let ack = Packet::PubAck(Ack::success(messages[1].packet_id.unwrap()));
    two.send_all(&[Packet::Connect(Box::new(connect)), ack]);
    assert!(matches!(two.next(), Some(Packet::ConnAck(_))));
    let mut got = Vec::new();
    while let Some(Packet::Publish(publish)) = two.next() {
        two.ack(&publish);
        got.push(publish.payload);
    }
    assert!(got.len() <= 3);
    two.drop_connection();
    two.connect_lasting();
    two.expect_nothing();
}

#[test]
fn no_more_are_on_their_way_than_the_receiver_takes() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::new();
        let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
        one.connect();
        let few = |connect: &mut jam_wire::packet::Connect| {
            lasting(connect);
            connect.properties.receive_maximum = NonZeroU16::new(3);
        };
        two.connect_with(few);
        two.subscribe("/2/inbox", qos);
        (0..8).for_each(|n| one.write("2", &n.to_string(), qos));
        let first = [0, 1, 2].map(|n| two.expect_message("1", &n.to_string()));
        two.expect_nothing();
        // A place in the window is free when the exchange is over: with PUBACK, with PUBCOMP.
        two.acknowledge(&first[1]);
        let third = two.expect_message("1", "3");
        two.expect_nothing();
        let mut ids: Vec<_> = [&first[0], &first[2], &third].map(id).into();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        // On the next connection the window holds for what comes again, too.
        two.drop_connection();
        two.connect_with(|connect| {
            lasting(connect);
            connect.properties.receive_maximum = NonZeroU16::new(2);
        });
        let (a, b) = (two.expect_again("1", "0"), two.expect_again("1", "2"));
        two.expect_nothing();
        two.acknowledge(&a);
        let c = two.expect_again("1", "3");
        two.expect_nothing();
        let mut seen = Vec::new();
        answer(&two, &b);
        answer(&two, &c);
        while let Some(packet) = two.next() {
            match packet {
                Packet::Publish(publish) => {
                    answer(&two, &publish);
                    seen.push(publish.payload);
                }
                Packet::PubRel(ack) => two.send(Packet::PubComp(ack)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            seen,
            [4, 5, 6, 7].map(|n| packets::message("1", &n.to_string()))
        );
    }
}

/// The first answer to a message.
fn answer(client: &Client, publish: &Publish) {
    let ack = Ack::success(publish.packet_id.expect("a packet id"));
    client.send(match publish.qos {
        ExactlyOnce => Packet::PubRec(ack),
        _ => Packet::PubAck(ack),
    });
}

#[test]
fn qos_0_does_not_overtake_what_comes_again() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_lasting();
    two.subscribe("/2/inbox", AtLeastOnce);
    ["a", "b"]
        .iter()
        .for_each(|content| one.write("2", content, AtLeastOnce));
    two.expect_message("1", "a");
    two.expect_message("1", "b");
    two.drop_connection();
    two.connect_with(|connect| {
        lasting(connect);
        connect.properties.receive_maximum = NonZeroU16::new(1);
    });
    let a = two.expect_again("1", "a");
    one.write("2", "c", AtMostOnce);
    two.expect_nothing();
    two.ack(&a);
    two.expect_again("1", "b");
    two.expect_message("1", "c");
}

#[test]
fn who_publishes_more_than_the_server_takes_is_disconnected() {
    let bench = Bench::with(|rules| rules.inflight = 3);
    let one = bench.client("1:phone", V5);
    let conn_ack = one.connect();
    assert_eq!(conn_ack.properties.receive_maximum, NonZeroU16::new(3));
    // A QoS 2 exchange counts until its PUBCOMP.
    let publish = || {
        one.publish("/2/inbox", packets::message("1", "x"), ExactlyOnce)
            .unwrap()
    };
    let ids = [(); 3].map(|()| packets::id(publish()));
    ids.iter()
        .for_each(|id| one.expect(Packet::PubRec(Ack::success(*id))));
    one.send(Packet::PubRel(Ack::success(ids[1])));
    one.expect(Packet::PubComp(Ack::success(ids[1])));
    let id = packets::id(publish());
    one.expect(Packet::PubRec(Ack::success(id)));
    publish();
    one.expect_ended(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn who_cannot_know_the_windows_is_not_disconnected_but_waits() {
    let bench = Bench::with(|rules| rules.inflight = 3);
    let one = bench.client("1:phone", V4);
    one.connect();
    bench.store().hold(true);
    let ids: Vec<_> = (0..5)
        .filter_map(|_| one.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce))
        .collect();
    assert_eq!(bench.store().held(), 3);
    assert!(!one.is_wanted());
    bench.store().release(0);
    bench.run();
    assert_eq!(bench.store().held(), 3);
    bench.store().hold(false);
    bench.store().release_all();
    bench.run();
    ids.iter()
        .for_each(|id| one.expect_accepted(AtLeastOnce, Some(*id)));
}

#[test]
fn the_server_s_window_is_new_on_each_connection() {
    let bench = Bench::with(|rules| rules.inflight = 2);
    let one = bench.client("1:phone", V5);
    one.connect_with(lasting);
    let publish = |n: u16| {
        let payload = packets::message("1", "x");
        let publish = packets::publish("/2/inbox", payload, ExactlyOnce, PacketId::new(n));
        one.send(Packet::Publish(publish));
        one.expect(Packet::PubRec(Ack::success(packets::id(n))));
    };
    publish(1);
    publish(2);
    one.drop_connection();
    one.connect_with(lasting);
    // MQTT 5.0, section 4.9: a PUBREL that is sent again takes no place.
    publish(3);
    publish(4);
    for n in [1, 2, 3, 4] {
        one.send(Packet::PubRel(Ack::success(packets::id(n))));
        one.expect(Packet::PubComp(Ack::success(packets::id(n))));
    }
    publish(5);
    publish(6);
    one.publish("/2/inbox", packets::message("1", "x"), ExactlyOnce);
    one.expect_ended(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn session_present_says_so() {
    for version in [V4, V5] {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        let keep = |clean: bool, expiry: u32| {
            client.connect_with(|connect| {
                connect.clean_start = clean;
                connect.properties.session_expiry_secs = (version == V5).then_some(expiry);
            })
        };
        assert!(!keep(false, 60).session_present);
        client.drop_connection();
        assert!(keep(false, 60).session_present);
        client.disconnect();
        client.drop_connection();
        assert!(keep(false, 60).session_present);
        client.drop_connection();
        // A clean start ends it, even if nothing else would.
        assert!(!keep(true, 60).session_present);
        client.drop_connection();
        assert_eq!(keep(false, 0).session_present, version == V5);
        client.drop_connection();
        assert_eq!(keep(false, 0).session_present, version == V4);
    }
}

#[test]
fn a_session_remembers_its_subscriptions() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = pair(&bench, version, AtLeastOnce);
        two.subscribe("/2/x", AtLeastOnce);
        two.subscribe("/2/y", AtMostOnce);
        two.drop_connection();
        one.write("2", "while away", AtLeastOnce);
        let other = bench.client("2:phone", version);
        other.connect_lasting();
        other.read("1", "while away");
        for topic in ["/2/x", "/2/y"] {
            other.publish(topic, "z", AtMostOnce);
            other.expect_payload(topic, b"z");
        }
    }
}

#[test]
fn own_channels_are_kept_for_who_subscribed_at_qos_1_or_2() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    a.connect();
    b.connect_lasting();
    b.subscribe("/1/x", AtLeastOnce);
    b.subscribe("/1/y", AtMostOnce);
    b.drop_connection();
    for topic in ["/1/x", "/1/y", "/1/z", "/1/devices/1:b"] {
        let id = a.publish(topic, "kept?", AtLeastOnce);
        a.expect_accepted(AtLeastOnce, id);
    }
    b.connect_lasting();
    let publish = b.expect_payload("/1/x", b"kept?");
    b.ack(&publish);
    b.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn a_session_ends_when_it_expires() {
    let day = Duration::from_secs(24 * 3600);
    for version in [V4, V5] {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect_lasting();
        // Not while the connection holds.
        bench.pass(day * 3);
        client.drop_connection();
        bench.pass(day - Duration::from_millis(1));
        assert!(client.connect_lasting().session_present);
        client.drop_connection();
        bench.pass(day);
        assert!(!client.connect_lasting().session_present);
    }
}

/// A hundred thousand may: who handles them lets messages in between.
#[test]
fn sessions_that_end_at_once_are_ended_one_by_one() {
    let bench = Bench::new();
    for id in ["1:phone", "2:phone", "3:phone"] {
        let client = bench.client(id, V4);
        client.connect_lasting();
        client.drop_connection();
    }
    let router = bench.router();
    let later = bench.now() + Duration::from_secs(3 * 24 * 3600);
    for left in [2, 1, 0] {
        assert!(router.handle_timeout(later));
        assert_eq!(router.known_users(), left);
    }
    assert!(!router.handle_timeout(later));
}

#[test]
fn a_5_0_client_may_change_its_session_expiry_when_it_leaves() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    let leave = |asked: u32, on_leaving: Option<u32>| {
        client.connect_with(|connect| {
            connect.properties.session_expiry_secs = Some(asked);
        });
        client.disconnect_with(|disconnect| disconnect.session_expiry_secs = on_leaving);
        client.expect_closed();
    };
    let is_there = || {
        client
            .connect_with(|connect| connect.clean_start = false)
            .session_present
    };
    leave(100, Some(10));
    bench.pass(Duration::from_secs(10));
    assert!(!is_there());
    leave(10, Some(100));
    bench.pass(Duration::from_secs(99));
    assert!(is_there());
    leave(100, Some(0));
    assert!(!is_there());
    leave(10, Some(u32::MAX));
    bench.pass(Duration::from_secs(24 * 3600 - 1));
    assert!(is_there());
    leave(10, None);
    bench.pass(Duration::from_secs(10));
    assert!(!is_there());
}

#[test]
fn a_session_of_no_length_cannot_be_made_longer_when_leaving() {
    for asked in [None, Some(0)] {
        let bench = Bench::new();
        let client = bench.client("1:phone", V5);
        client.connect_with(|connect| connect.properties.session_expiry_secs = asked);
        client.disconnect_with(|disconnect| disconnect.session_expiry_secs = Some(10));
        client.expect_ended(ReasonCode::ProtocolError);
        assert!(
            !client
                .connect_with(|connect| connect.clean_start = false)
                .session_present
        );
    }
}

#[test]
fn a_takeover_hands_the_session_on_in_the_middle_of_things() {
    for version in [V4, V5] {
        let bench = Bench::new();
        let (one, two) = pair(&bench, version, AtLeastOnce);
        one.write("2", "a", AtLeastOnce);
        two.expect_message("1", "a");
        let again = bench.client("2:phone", version);
        assert!(again.connect_lasting().session_present);
        let publish = again.expect_again("1", "a");
        two.expect_ended(ReasonCode::SessionTakenOver);
        // The end of the old socket is not the end of the new connection.
        two.drop_connection();
        again.ack(&publish);
        one.write("2", "b", AtLeastOnce);
        again.read("1", "b");
        // A takeover with a clean start leaves the session behind, but not the mail.
        one.write("2", "c", AtLeastOnce);
        again.expect_message("1", "c");
        two.connect();
        two.expect_nothing();
        two.subscribe_inbox();
        two.read("1", "c");
        two.expect_nothing();
    }
}

#[test]
fn what_is_taken_up_late_on_a_connection_that_was_taken_over_is_not_looked_at() {
    for version in [V4, V5] {
        let bench = Bench::on_disk(|_| ());
        let disk = bench.disk().expect("a store with a file");
        disk.at_once(true);
        let two = bench.at_inbox("2:phone", version);
        // By hand: a bench lets a connection know at once that it has been taken over.
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut old = Connection::new(bench.router(), address, Waker::noop().clone(), bench.now());
        let mut connect = packets::connect("1:phone", version);
        lasting(&mut connect);
        assert_eq!(
            old.handle_packet(Packet::Connect(Box::new(connect)), bench.now()),
            Progress::Ready
        );
        let again = bench.client("1:phone", version);
        again.open();
        let mut connect = packets::connect("1:phone", version);
        lasting(&mut connect);
        again.send(Packet::Connect(Box::new(connect)));
        again.expect_nothing();
        bench.pass(Duration::ZERO); // the old one does not answer, and is not waited for
        assert!(matches!(again.next(), Some(Packet::ConnAck(ack)) if ack.session_present));
        let send = |content: &str| {
            let payload = packets::message("1", content);
            packets::publish("/2/inbox", payload, ExactlyOnce, Some(packets::id(7)))
        };
        let mut publish = send("a");
        publish.dup = true;
        again.send(Packet::Publish(publish));
        again.expect_accepted(ExactlyOnce, Some(7));
        two.read("1", "a");
        assert_eq!(
            old.handle_packet(Packet::Publish(send("a")), bench.now()),
            Progress::Ready
        );
        bench.pass(Duration::ZERO);
        two.expect_nothing();
        disk.flush();
        // Nor has the store heard of it: the id is free.
        bench.crash();
        again.connect_lasting();
        two.connect();
        two.subscribe_inbox();
        again.send(Packet::Publish(send("b")));
        again.expect_accepted(ExactlyOnce, Some(7));
        two.read("1", "b");
        two.expect_nothing();
    }
}

#[test]
fn an_id_that_is_released_again_is_free_when_the_store_knows() {
    for version in [V4, V5] {
        let bench = Bench::on_disk(|_| ());
        let disk = bench.disk().expect("a store with a file");
        disk.at_once(true);
        let (one, two) = pair(&bench, version, AtLeastOnce);
        one.connect_lasting();
        let id = packets::id(7);
        let send = |content: &str| {
            let payload = packets::message("1", content);
            Packet::Publish(packets::publish("/2/inbox", payload, ExactlyOnce, Some(id)))
        };
        one.send(send("a"));
        one.expect(Packet::PubRec(Ack::success(id)));
        two.read("1", "a");
        disk.at_once(false);
        // The PUBCOMP does not arrive, and the client asks again.
        one.send(Packet::PubRel(Ack::success(id)));
        one.expect_nothing();
        assert!(one.connect_lasting().session_present);
        one.send(Packet::PubRel(Ack::success(id)));
        one.expect_nothing();
        disk.at_once(true);
        bench.pass(Duration::ZERO);
        assert!(matches!(one.next(), Some(Packet::PubComp(ack)) if ack.packet_id == id));
        bench.crash();
        one.connect_lasting();
        two.connect_lasting();
        one.send(send("b"));
        one.expect_accepted(ExactlyOnce, Some(7));
        two.read("1", "b");
    }
}

#[test]
fn a_message_expires_while_it_waits_and_says_what_is_left() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, V5, AtLeastOnce);
    two.drop_connection();
    for secs in [10, 60, u32::MAX] {
        let payload = packets::message("1", &secs.to_string());
        let id = one.publish_with("/2/inbox", payload, AtLeastOnce, |publish| {
            publish
                .properties
                .get_or_insert_default()
                .message_expiry_secs = Some(secs);
        });
        one.expect_accepted(AtLeastOnce, id);
    }
    one.write("2", "no end", AtLeastOnce);
    bench.pass(Duration::from_secs(10));
    two.connect_lasting();
    for secs in [60, u32::MAX] {
        let publish = two.expect_message("1", &secs.to_string());
        let properties = publish.properties.unwrap();
        assert_eq!(properties.message_expiry_secs, Some(secs - 10));
    }
    assert_eq!(
        two.expect_message("1", "no end")
            .properties
            .unwrap()
            .message_expiry_secs,
        None
    );
    two.expect_nothing();
}

#[test]
fn what_is_left_of_an_expiry_is_rounded_down() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, V5, AtLeastOnce);
    two.drop_connection();
    for secs in [3, 4] {
        let id = one.publish_with(
            "/2/inbox",
            packets::message("1", "x"),
            AtLeastOnce,
            |publish| {
                publish
                    .properties
                    .get_or_insert_default()
                    .message_expiry_secs = Some(secs);
            },
        );
        one.expect_accepted(AtLeastOnce, id);
    }
    bench.pass(Duration::from_millis(2_001));
    two.connect_lasting();
    for left in [0, 1] {
        let publish = two.expect_message("1", "x");
        assert_eq!(publish.properties.unwrap().message_expiry_secs, Some(left));
    }
    two.expect_nothing();
}

#[test]
fn packet_ids_wrap_around_and_never_meet() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, V4, AtLeastOnce);
    one.write("2", "stays", AtLeastOnce);
    let stays = two.expect_message("1", "stays");
    for _ in 0..66_000 {
        one.send(Packet::Publish(packets::publish(
            "/2/inbox",
            packets::message("1", "x"),
            AtLeastOnce,
            PacketId::new(1),
        )));
        one.next();
        let publish = two.expect_message("1", "x");
        assert_ne!(publish.packet_id, stays.packet_id);
        two.ack(&publish);
    }
}

#[test]
fn who_takes_very_many_gets_no_more_than_the_server_allows() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_with(|connect| connect.properties.receive_maximum = NonZeroU16::new(100));
    two.subscribe("/2/inbox", AtLeastOnce);
    (0..12).for_each(|n| one.write("2", &n.to_string(), AtLeastOnce));
    (0..10).for_each(|n| drop(two.expect_message("1", &n.to_string())));
    two.expect_nothing();
}

/// A purge leaves no packet id without its message.
#[test]
fn what_is_purged_on_its_way_does_not_come_again() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::new();
        let (one, two) = pair(&bench, V5, qos);
        one.write("2", "gone", qos);
        two.expect_message("1", "gone");
        let user = jam_core::ids::UserId::parse("2").expect("an id");
        assert_eq!(bench.router().purge(&user, u64::MAX, None), 1);
        two.drop_connection();
        two.connect_with(lasting);
        two.expect_nothing();
        one.write("2", "next", qos);
        two.read("1", "next");
    }
}
