//! Limits across connections: what an earlier connection has left on its way takes no place in the window
//! of the next one before it is sent there (MQTT 5.0, sections 3.1.2.11 and 4.9).

use std::num::NonZeroU16;

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Connect, Packet, PacketId, Publish, QoS, Version};

/// More than the small connections take.
const LARGE: usize = 500;

/// What a CONNECT becomes for a connection with these limits.
fn limits(window: u16, max_packet: Option<u32>) -> impl Fn(&mut Connect) {
    move |connect| {
        lasting(connect);
        connect.properties.receive_maximum = NonZeroU16::new(window);
        connect.properties.maximum_packet_size = max_packet;
    }
}

fn pair(bench: &Bench, qos: QoS) -> (Client, Client) {
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_with(limits(10, None));
    two.subscribe("/2/inbox", qos);
    (one, two)
}

fn large(n: usize) -> String {
    format!("{n} {}", "x".repeat(LARGE))
}

fn id(publish: &Publish) -> PacketId {
    publish.packet_id.expect("it has one")
}

#[test]
fn what_does_not_fit_takes_no_place_in_the_window() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::new();
        let (one, two) = pair(&bench, qos);
        (0..10).for_each(|n| one.write("2", &large(n), qos));
        let parked: Vec<_> = (0..10)
            .map(|n| id(&two.expect_message("1", &large(n))))
            .collect();
        two.drop_connection();
        one.write("2", "before", qos);
        // Each time another window is full of what is parked.
        for window in [10, 1, 3] {
            two.connect_with(limits(window, Some(300)));
            if window == 10 {
                two.read("1", "before");
            }
            one.write("2", "small", qos);
            two.read("1", "small");
            two.expect_nothing();
            two.drop_connection();
        }
        two.connect_with(limits(1, None));
        for (n, packet_id) in parked.iter().enumerate() {
            let publish = two.expect_again("1", &large(n));
            assert_eq!(id(&publish), *packet_id);
            two.acknowledge(&publish);
        }
        two.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn more_than_a_batch_that_does_not_fit_stops_nothing() {
    let bench = Bench::with(|rules| rules.inflight = 100);
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_with(limits(100, None));
    two.subscribe_inbox();
    (0..50).for_each(|n| one.write("2", &large(n), AtLeastOnce));
    (0..50).for_each(|n| drop(two.expect_message("1", &large(n))));
    two.drop_connection();
    one.write("2", "small", AtLeastOnce);
    two.connect_with(limits(100, Some(300)));
    two.read("1", "small");
}

#[test]
fn a_smaller_window_holds_for_what_comes_again() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, AtLeastOnce);
    (0..5).for_each(|n| one.write("2", &n.to_string(), AtLeastOnce));
    (0..5).for_each(|n| drop(two.expect_message("1", &n.to_string())));
    two.drop_connection();
    two.connect_with(limits(2, None));
    let mut ahead = two.expect_again("1", "0");
    for n in 1..5 {
        let next = two.expect_again("1", &n.to_string());
        two.expect_nothing();
        two.ack(&ahead);
        ahead = next;
    }
    two.expect_nothing();
}

#[test]
fn a_pubrel_needs_no_place_and_takes_none() {
    for store_is_slow in [false, true] {
        let bench = Bench::new();
        let (one, two) = pair(&bench, ExactlyOnce);
        (0..6).for_each(|n| one.write("2", &n.to_string(), ExactlyOnce));
        let sent: Vec<_> = (0..6)
            .map(|n| id(&two.expect_message("1", &n.to_string())))
            .collect();
        // The last ones have been received; their PUBRELs are lost.
        if store_is_slow {
            bench.store().hold(true);
        }
        for packet_id in &sent[2..] {
            two.send(Packet::PubRec(Ack::success(*packet_id)));
        }
        two.drop_connection();
        two.connect_with(limits(1, None));
        bench.store().hold(false);
        bench.store().release_all();
        bench.run();
        // One message, as many as the window takes, and all PUBRELs, in an order of their own.
        let mut pub_rels = Vec::new();
        let mut first = None;
        while let Some(packet) = two.next() {
            match packet {
                Packet::PubRel(ack) => pub_rels.push(ack.packet_id),
                Packet::Publish(publish) if first.is_none() => first = Some(publish),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pub_rels, sent[2..]);
        let first = first.expect("a window of one");
        assert_eq!(id(&first), sent[0]);
        two.acknowledge(&first);
        let second = two.expect_again("1", "1");
        one.write("2", "new", ExactlyOnce);
        two.expect_nothing();
        two.acknowledge(&second);
        // The PUBRELs are still without PUBCOMP: the window is open.
        two.read("1", "new");
        for packet_id in &sent[2..] {
            two.send(Packet::PubComp(Ack::success(*packet_id)));
        }
        two.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn a_message_that_waits_for_its_packet_id_obeys_the_window_of_the_next_connection() {
    let bench = Bench::new();
    let (one, two) = pair(&bench, ExactlyOnce);
    (0..5).for_each(|n| one.write("2", &n.to_string(), ExactlyOnce));
    (0..5).for_each(|n| drop(two.expect_message("1", &n.to_string())));
    bench.store().hold(true);
    two.drop_connection();
    two.connect_with(limits(2, None));
    bench.store().hold(false);
    bench.store().release_all();
    bench.run();
    (0..2).for_each(|n| drop(two.expect_again("1", &n.to_string())));
    two.expect_nothing();
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_ends_the_connection_and_frees_nothing() {
    for (qos, wrong) in [
        (AtLeastOnce, Packet::PubRec as fn(Ack) -> Packet),
        (AtLeastOnce, Packet::PubComp),
        (ExactlyOnce, Packet::PubAck),
        (ExactlyOnce, Packet::PubComp),
    ] {
        for version in [V4, V5] {
            let bench = Bench::new();
            let (one, two) = (
                bench.client("1:phone", version),
                bench.client("2:phone", version),
            );
            one.connect();
            two.connect_lasting();
            two.subscribe("/2/inbox", qos);
            one.write("2", "a", qos);
            let publish = two.expect_message("1", "a");
            two.send(wrong(Ack::success(id(&publish))));
            two.expect_ended(ReasonCode::ProtocolError);
            two.connect_lasting();
            let again = two.expect_again("1", "a");
            assert_eq!(id(&again), id(&publish));
            two.acknowledge(&again);
            assert_eq!(bench.store().kept(), 0);
        }
    }
}
