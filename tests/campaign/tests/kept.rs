//! Told cases of what a mailbox keeps across a kill.

use std::time::Duration;

use jam_tests_campaign::server::House;
use jam_tests_campaign::wire::{Wire, inbox, message, number, packet_id, publish};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PublishProperties, QoS, Version, Will};

const QUIET: Duration = Duration::from_millis(150);
const WINDOW: u64 = 16;

/// User 1 writes messages `from..=to` to user 2, `WINDOW` at a time, and has each acknowledged.
fn write(wire: &mut Wire, from: u64, to: u64, padding: usize) {
    let (mut sent, mut acknowledged) = (from - 1, from - 1);
    while acknowledged < to {
        while sent < to && sent - acknowledged < WINDOW {
            sent += 1;
            let id = u16::try_from(sent % 60_000 + 1).expect("below 60,001");
            wire.publish(&inbox(2), &message(1, sent, padding), QoS::AtLeastOnce, id);
        }
        match wire.expect_any() {
            Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::Success),
            other => panic!("expected a PUBACK, got {other:?}"),
        }
        acknowledged += 1;
    }
}

/// Expects messages `from..=to` in this order and acknowledges them.
fn read(wire: &mut Wire, from: u64, to: u64) {
    for expected in from..=to {
        let publish = wire.expect_publish();
        assert_eq!(number(&publish.payload), Some(expected));
        wire.ack(&publish);
    }
}

#[test]
fn five_hundred_to_a_user_who_never_connected() {
    let house = House::new(2, &[], &[]);
    let server = house.start();
    let (mut wire, _) = Wire::connect(server.port(), 1, "phone", Version::V4);
    write(&mut wire, 1, 500, 300);
    server.kill();
    let server = house.start();
    let (mut wire, conn_ack) = Wire::connect(server.port(), 2, "phone", Version::V5);
    assert!(!conn_ack.session_present);
    wire.subscribe(&inbox(2), QoS::AtLeastOnce);
    read(&mut wire, 1, 500);
    assert_eq!(wire.next_within(QUIET), None);
}

#[test]
fn the_new_phone_gets_what_the_old_one_has_not_acknowledged() {
    let house = House::new(2, &[], &[]);
    let server = house.start();
    let (mut old, _) = Wire::connect(server.port(), 2, "old", Version::V4);
    old.subscribe(&inbox(2), QoS::AtLeastOnce);
    let (mut writer, _) = Wire::connect(server.port(), 1, "phone", Version::V4);
    for number in 1..=6 {
        let id = u16::try_from(number).expect("a small number");
        writer.publish(&inbox(2), &message(1, number, 0), QoS::AtLeastOnce, id);
    }
    let arrived: Vec<_> = (0..6).map(|_| old.expect_publish()).collect();
    old.ack(&arrived[0]);
    old.ack(&arrived[1]);
    old.sync();
    // Kept by now, one way or the other.
    for id in 1..=6 {
        writer.expect(&Packet::PubAck(Ack::success(packet_id(id))));
    }
    server.kill();
    let server = house.start();
    let (mut new, _) = Wire::connect(server.port(), 2, "new", Version::V5);
    new.subscribe(&inbox(2), QoS::AtLeastOnce);
    let mut got: Vec<_> = (0..4).map(|_| new.expect_publish()).collect();
    got.extend(std::iter::from_fn(|| match new.next_within(QUIET) {
        Some(Packet::Publish(publish)) => Some(publish),
        _ => None,
    }));
    let numbers: Vec<_> = got
        .iter()
        .filter_map(|publish| number(&publish.payload))
        .collect();
    // That the first two were acknowledged may have been lost with the server.
    assert!(
        numbers.ends_with(&[3, 4, 5, 6]) && numbers.is_sorted(),
        "{numbers:?}"
    );
    assert!(got.iter().all(|publish| !publish.dup));
}

#[test]
fn a_receiver_that_never_reads_costs_no_memory() {
    let house = House::new(2, &[], &[]);
    let server = house.start();
    let (mut reader, _) = Wire::connect(server.port(), 2, "phone", Version::V4);
    reader.subscribe(&inbox(2), QoS::AtLeastOnce);
    let (mut writer, _) = Wire::connect(server.port(), 1, "phone", Version::V4);
    write(&mut writer, 1, 2000, 5000);
    let mebibytes = server.resident_bytes() >> 20;
    assert!(mebibytes < 300, "{mebibytes} MiB");
    read(&mut reader, 1, 2000);
}

#[test]
fn a_full_mailbox_refuses_and_takes_again() {
    // One sender takes half of it.
    let house = House::new(2, &[], &[("MAILBOX__MAX_MESSAGES", "100")]);
    let server = house.start();
    let (mut writer, _) = Wire::connect(server.port(), 1, "phone", Version::V5);
    write(&mut writer, 1, 50, 0);
    for round in 0..2 {
        writer.publish(&inbox(2), &message(1, 51, 0), QoS::AtLeastOnce, 900);
        let error = writer.expect_publish();
        assert_eq!(error.topic, "/1/devices/1:phone");
        let text = r#"{"type":"error","handler":"authorizePublish","category":"quota","message":"the receiver's inbox is full","messageId":900}"#;
        assert_eq!(
            error.payload,
            text.as_bytes(),
            "{}",
            error.payload.escape_ascii()
        );
        let refused = Ack::with_reason(packet_id(900), ReasonCode::QuotaExceeded);
        writer.expect(&Packet::PubAck(refused));
        if round == 0 {
            writer.sync();
        }
    }
    server.kill();
    let server = house.start();
    let (mut writer, _) = Wire::connect(server.port(), 1, "phone", Version::V5);
    writer.publish(&inbox(2), &message(1, 51, 0), QoS::AtLeastOnce, 901);
    writer.expect_publish();
    let refused = Ack::with_reason(packet_id(901), ReasonCode::QuotaExceeded);
    writer.expect(&Packet::PubAck(refused));
    let (mut reader, _) = Wire::connect(server.port(), 2, "phone", Version::V4);
    reader.subscribe(&inbox(2), QoS::AtLeastOnce);
    read(&mut reader, 1, 50);
    reader.sync();
    write(&mut writer, 52, 60, 0);
    read(&mut reader, 52, 60);
}

#[test]
fn a_retained_message_survives() {
    let house = House::new(1, &[], &[]);
    let server = house.start();
    let (mut wire, _) = Wire::connect(server.port(), 1, "phone", Version::V4);
    wire.subscribe("/1/mood", QoS::AtLeastOnce);
    let mut packet = publish("/1/mood", "fine", QoS::AtLeastOnce, packet_id(1));
    packet.retain = true;
    wire.send(&Packet::Publish(packet));
    // Acknowledged by its only reader, so that nothing but the retained message needs to be kept.
    for _ in 0..2 {
        match wire.expect_any() {
            Packet::Publish(arrived) => wire.ack(&arrived),
            other => assert_eq!(other, Packet::PubAck(Ack::success(packet_id(1)))),
        }
    }
    server.kill();
    let server = house.start();
    let (mut wire, _) = Wire::connect_with(server.port(), 1, "tablet", Version::V5, |connect| {
        connect.clean_start = true;
    });
    wire.subscribe("/1/mood", QoS::AtMostOnce);
    let retained = wire.expect_publish();
    assert!(
        retained.retain && retained.payload == "fine",
        "{retained:?}"
    );
}

#[test]
fn a_delayed_will_survives() {
    let house = House::new(2, &[], &[]);
    let server = house.start();
    let (mut reader, _) = Wire::connect(server.port(), 2, "phone", Version::V4);
    reader.subscribe(&inbox(2), QoS::AtLeastOnce);
    let (wire, _) = Wire::connect_with(server.port(), 1, "phone", Version::V5, |connect| {
        connect.will = Some(Box::new(Will {
            topic: inbox(2).into(),
            payload: message(1, 99, 0).into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_secs: Some(1),
            properties: PublishProperties::default(),
        }));
    });
    drop(wire);
    // That the connection has ended may be lost with the server: then the restart is its end.
    std::thread::sleep(Duration::from_millis(100));
    server.kill();
    let server = house.start();
    let (mut reader, conn_ack) = Wire::connect(server.port(), 2, "phone", Version::V4);
    assert!(conn_ack.session_present);
    read(&mut reader, 99, 99);
}

#[test]
fn message_expiry_goes_on_while_the_server_is_down() {
    let house = House::new(2, &[], &[]);
    let server = house.start();
    let (mut writer, _) = Wire::connect(server.port(), 1, "phone", Version::V5);
    for (id, expiry_secs) in [(1, 1), (2, 100)] {
        let text = message(1, id.into(), 0);
        let mut packet = publish(&inbox(2), &text, QoS::AtLeastOnce, packet_id(id));
        packet
            .properties
            .get_or_insert_default()
            .message_expiry_secs = Some(expiry_secs);
        writer.send(&Packet::Publish(packet));
        writer.expect(&Packet::PubAck(Ack::success(packet_id(id))));
    }
    server.kill();
    std::thread::sleep(Duration::from_millis(2100));
    let server = house.start();
    let (mut reader, _) = Wire::connect(server.port(), 2, "phone", Version::V5);
    reader.subscribe(&inbox(2), QoS::AtLeastOnce);
    let publish = reader.expect_publish();
    assert_eq!(number(&publish.payload), Some(2));
    let left = publish
        .properties
        .as_ref()
        .and_then(|it| it.message_expiry_secs);
    assert!(
        left.is_some_and(|left| (90..=98).contains(&left)),
        "{left:?}"
    );
    reader.ack(&publish);
    assert_eq!(reader.next_within(QUIET), None);
}

#[test]
fn a_second_server_on_the_same_data_refuses_to_start() {
    let house = House::new(1, &[], &[]);
    let server = house.start();
    let before = house.log().len();
    let mut second = house.spawn();
    let status = second.wait();
    assert!(!status.success());
    let log = house.log().split_off(before);
    assert!(log.contains("mailbox"), "{log}");
    assert!(
        log.contains("another") || log.contains("in use") || log.contains("locked"),
        "{log}"
    );
    let (mut wire, _) = Wire::connect(server.port(), 1, "phone", Version::V4);
    wire.sync();
    server.kill();
    drop(house.start());
}
