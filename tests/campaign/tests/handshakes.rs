//! QoS 2 with the kill at every step of both handshakes. The client holds its packets to be exactly there.

use std::time::Duration;

use jam_testkit::random::{Random, Source};
use jam_tests_campaign::server::{House, Server, nanos};
use jam_tests_campaign::wire::{Wire, inbox, message, number, packet_id, publish};
use jam_wire::packet::{Ack, Packet, Publish, QoS, Version};

const QUIET: Duration = Duration::from_millis(150);
const VERSIONS: [Version; 2] = [Version::V4, Version::V5];
/// How often a case is told whose end depends on the moment.
const TRIES: usize = 4;

fn two() -> House {
    House::new(2, &[], &[])
}

fn sender(server: &Server, version: Version) -> (Wire, bool) {
    let (wire, conn_ack) = Wire::connect(server.port(), 1, "phone", version);
    (wire, conn_ack.session_present)
}

fn receiver(server: &Server, version: Version) -> (Wire, bool) {
    let (wire, conn_ack) = Wire::connect(server.port(), 2, "phone", version);
    (wire, conn_ack.session_present)
}

/// A PUBLISH of QoS 2 under id 7, sent before or not.
fn message_seven(dup: bool) -> Packet {
    let mut packet = publish(&inbox(2), &message(1, 7, 0), QoS::ExactlyOnce, packet_id(7));
    packet.dup = dup;
    Packet::Publish(packet)
}

fn seven() -> Ack {
    Ack::success(packet_id(7))
}

/// PUBREL, and PUBCOMP whatever its reason: the server may have forgotten the id already.
fn release_seven(wire: &mut Wire) {
    wire.send(&Packet::PubRel(seven()));
    match wire.expect_any() {
        Packet::PubComp(ack) => assert_eq!(ack.packet_id, packet_id(7)),
        other => panic!("expected a PUBCOMP, got {other:?}"),
    }
}

fn complete(wire: &mut Wire, publish: &Publish) {
    let ack = Ack::success(publish.packet_id.expect("a packet id"));
    wire.send(&Packet::PubRec(ack.clone()));
    wire.expect(&Packet::PubRel(ack.clone()));
    wire.send(&Packet::PubComp(ack));
    wire.sync();
}

/// The receiver, who has never connected before, gets message 7 once, and nothing else.
fn gets_seven_once(server: &Server, version: Version) {
    let (mut wire, _) = receiver(server, version);
    wire.subscribe(&inbox(2), QoS::ExactlyOnce);
    let publish = wire.expect_publish();
    assert_eq!(number(&publish.payload), Some(7));
    complete(&mut wire, &publish);
    assert_eq!(wire.next_within(QUIET), None);
}

/// A few moments, from none to more than a commit takes.
fn a_moment() {
    let mut random = Random::new(nanos());
    let micros = random.below(4000).unwrap_or(0);
    std::thread::sleep(Duration::from_micros(micros as u64));
}

#[test]
fn sender_s_leg_between_publish_and_pubrec() {
    for version in VERSIONS.repeat(TRIES) {
        let house = two();
        let server = house.start();
        let (mut wire, _) = sender(&server, version);
        wire.send(&message_seven(false));
        a_moment();
        server.kill();
        let server = house.start();
        let (mut wire, _) = sender(&server, version);
        wire.send(&message_seven(true));
        wire.expect(&Packet::PubRec(seven()));
        release_seven(&mut wire);
        gets_seven_once(&server, version);
    }
}

#[test]
fn sender_s_leg_between_pubrec_and_pubrel() {
    for version in VERSIONS {
        for repeats in [false, true] {
            let house = two();
            let server = house.start();
            let (mut wire, _) = sender(&server, version);
            wire.send(&message_seven(false));
            wire.expect(&Packet::PubRec(seven()));
            server.kill();
            let server = house.start();
            let (mut wire, present) = sender(&server, version);
            assert!(present);
            if repeats {
                // As one that has not seen the PUBREC.
                wire.send(&message_seven(true));
                wire.expect(&Packet::PubRec(seven()));
            }
            wire.send(&Packet::PubRel(seven()));
            wire.expect(&Packet::PubComp(seven()));
            gets_seven_once(&server, version);
        }
    }
}

#[test]
fn sender_s_leg_between_pubrel_and_pubcomp() {
    for version in VERSIONS.repeat(TRIES) {
        let house = two();
        let server = house.start();
        let (mut wire, _) = sender(&server, version);
        wire.send(&message_seven(false));
        wire.expect(&Packet::PubRec(seven()));
        wire.send(&Packet::PubRel(seven()));
        a_moment();
        server.kill();
        let server = house.start();
        let (mut wire, present) = sender(&server, version);
        assert!(present);
        release_seven(&mut wire);
        gets_seven_once(&server, version);
    }
}

/// A receiver with a session, and message 7 on its way to it.
fn seven_is_on_its_way(house: &House, version: Version) -> (Server, Wire, Publish) {
    let server = house.start();
    let (mut reader, _) = receiver(&server, version);
    reader.subscribe(&inbox(2), QoS::ExactlyOnce);
    let (mut writer, _) = sender(&server, version);
    writer.send(&message_seven(false));
    writer.expect(&Packet::PubRec(seven()));
    writer.send(&Packet::PubRel(seven()));
    writer.expect(&Packet::PubComp(seven()));
    let publish = reader.expect_publish();
    assert_eq!((publish.qos, publish.dup), (QoS::ExactlyOnce, false));
    (server, reader, publish)
}

#[test]
fn receiver_s_leg_between_publish_and_pubrec() {
    for version in VERSIONS {
        let house = two();
        let (server, _reader, first) = seven_is_on_its_way(&house, version);
        server.kill();
        let server = house.start();
        let (mut reader, present) = receiver(&server, version);
        assert!(present);
        let again = reader.expect_publish();
        assert!(again.dup, "{again:?}");
        assert_eq!(
            (again.packet_id, &again.payload),
            (first.packet_id, &first.payload)
        );
        complete(&mut reader, &again);
        assert_eq!(reader.next_within(QUIET), None);
    }
}

#[test]
fn receiver_s_leg_between_pubrec_and_pubrel() {
    for version in VERSIONS.repeat(TRIES) {
        let house = two();
        let (server, mut reader, first) = seven_is_on_its_way(&house, version);
        let ack = Ack::success(first.packet_id.expect("a packet id"));
        reader.send(&Packet::PubRec(ack.clone()));
        a_moment();
        server.kill();
        let server = house.start();
        let (mut reader, present) = receiver(&server, version);
        assert!(present);
        // The server may have kept the PUBREC or not. In no case may the id stand for anything new.
        match reader.expect_any() {
            Packet::PubRel(release) => assert_eq!(release, ack),
            Packet::Publish(again) => {
                assert!(again.dup && again.packet_id == first.packet_id, "{again:?}");
                assert_eq!(again.payload, first.payload);
                reader.send(&Packet::PubRec(ack.clone()));
                reader.expect(&Packet::PubRel(ack.clone()));
            }
            other => panic!("got {other:?}"),
        }
        reader.send(&Packet::PubComp(ack));
        reader.sync();
        assert_eq!(reader.next_within(QUIET), None);
    }
}

#[test]
fn receiver_s_leg_between_pubrel_and_pubcomp() {
    for version in VERSIONS {
        let house = two();
        let (server, mut reader, first) = seven_is_on_its_way(&house, version);
        let ack = Ack::success(first.packet_id.expect("a packet id"));
        reader.send(&Packet::PubRec(ack.clone()));
        reader.expect(&Packet::PubRel(ack.clone()));
        server.kill();
        let server = house.start();
        let (mut reader, present) = receiver(&server, version);
        assert!(present);
        reader.expect(&Packet::PubRel(ack.clone()));
        reader.send(&Packet::PubComp(ack));
        reader.sync();
        server.kill();
        let server = house.start();
        let (mut reader, _) = receiver(&server, version);
        // Whether PUBCOMP was kept or not: the message does not come again.
        let next = reader.next_within(QUIET);
        assert!(matches!(next, None | Some(Packet::PubRel(_))), "{next:?}");
    }
}
