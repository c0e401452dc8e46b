//! Which byte becomes which field: one packet of each kind with everything in it, written out by hand
//! from the standard's tables, and its bytes again from the encoder. A round trip alone would not see
//! two identifiers that were exchanged in the decoder and in the encoder alike.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are the test")]

mod table;

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use jam_wire::packet::*;
use jam_wire::reason::{ConnectReturnCode, ReasonCode};
use jam_wire::{ByteString, Decoder, encode};
use table::{opening, packet, with_properties};

const LIMIT: usize = 1 << 20;

fn s(text: &'static str) -> Option<ByteString> {
    Some(ByteString::from_static(text))
}

fn b(bytes: &'static [u8]) -> Option<Bytes> {
    Some(Bytes::from_static(bytes))
}

fn id(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).unwrap()
}

fn user() -> UserProperties {
    [("k", "v"), ("k", "w")].into()
}

/// `k=v` and `k=w`.
const USER: &[u8] = b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01w";

fn reason_properties() -> ReasonProperties {
    ReasonProperties {
        reason_string: s("why"),
        user: user(),
    }
}

fn both_ways(mut decoder: Decoder, version: Version, bytes: &[u8], expected: &Packet) {
    let decoded = decoder.decode(&mut BytesMut::from(bytes));
    assert_eq!(decoded.as_ref(), Ok(&Some(expected.clone())));
    let mut encoded = BytesMut::new();
    encode(expected, version, &mut encoded).unwrap();
    assert_eq!(
        encoded.escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
}

fn to_server(version: Version, bytes: &[u8], expected: &Packet) {
    let mut decoder = Decoder::server(LIMIT);
    decoder
        .decode(&mut BytesMut::from(opening(version)))
        .unwrap()
        .unwrap();
    both_ways(decoder, version, bytes, expected);
}

fn to_client(version: Version, bytes: &[u8], expected: &Packet) {
    both_ways(Decoder::client(version, LIMIT), version, bytes, expected);
}

fn will(version: Version) -> Will {
    let mut will = Will {
        topic: ByteString::from_static("/w"),
        payload: Bytes::from_static(b"bye"),
        qos: QoS::ExactlyOnce,
        retain: false,
        delay_secs: None,
        properties: PublishProperties::default(),
    };
    if version == Version::V5 {
        will.delay_secs = Some(0x0102_0304);
        will.properties = PublishProperties {
            payload_is_utf8: Some(true),
            message_expiry_secs: Some(5),
            response_topic: s("/r"),
            correlation_data: b(b"\0\xFF"),
            user: user(),
            content_type: s("text"),
            ..PublishProperties::default()
        };
    }
    will
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 0x0102,
        client_id: ByteString::from_static("u:d"),
        will: Some(Box::new(will(version))),
        user_name: s("u"),
        password: b(b"pw"),
        properties: ConnectProperties::default(),
    }
}

#[test]
fn connect_of_3() {
    let rest = b"\xD6\x01\x02\0\x03u:d\0\x02/w\0\x03bye\0\x01u\0\x02pw";
    for (version, head) in [
        (Version::V3, &b"\0\x06MQIsdp\x03"[..]),
        (Version::V4, b"\0\x04MQTT\x04"),
    ] {
        let bytes = packet(0x10, [head, rest].concat());
        let expected = Packet::Connect(Box::new(connect(version)));
        both_ways(Decoder::server(LIMIT), version, &bytes, &expected);
    }
}

#[test]
fn connect_of_5() {
    let mut expected = connect(Version::V5);
    expected.properties = ConnectProperties {
        session_expiry_secs: Some(0x0102_0304),
        receive_maximum: Some(id(0x0506)),
        maximum_packet_size: Some(0x0708_090A),
        topic_alias_maximum: Some(0x0B0C),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        user: user(),
        authentication_method: s("m"),
        authentication_data: b(b"\0d"),
    };
    let properties = [
        b"\x11\x01\x02\x03\x04\x21\x05\x06\x27\x07\x08\x09\x0A\x22\x0B\x0C\x19\x01\x17\x00",
        USER,
        b"\x15\0\x01m\x16\0\x02\0d",
    ]
    .concat();
    let will = [
        &b"\x18\x01\x02\x03\x04\x01\x01\x02\0\0\0\x05\x08\0\x02/r\x09\0\x02\0\xFF"[..],
        USER,
        b"\x03\0\x04text",
    ]
    .concat();
    let payload = with_properties(b"\0\x03u:d", will, b"\0\x02/w\0\x03bye\0\x01u\0\x02pw");
    let bytes = packet(
        0x10,
        with_properties(b"\0\x04MQTT\x05\xD6\x01\x02", properties, payload),
    );
    let expected = Packet::Connect(Box::new(expected));
    both_ways(Decoder::server(LIMIT), Version::V5, &bytes, &expected);
}

#[test]
fn the_bits_of_the_connect_flags() {
    // User name, password, will retain, will QoS (2), will, clean start.
    for flags in [0x82, 0xC2, 0x26, 0x0C, 0x14, 0x04, 0x02, 0x00] {
        let tail: [&[u8]; 3] = [
            if flags & 0x04 == 0 {
                b""
            } else {
                b"\0\x02/w\0\0"
            },
            if flags & 0x80 == 0 { b"" } else { b"\0\x01u" },
            if flags & 0x40 == 0 { b"" } else { b"\0\x01p" },
        ];
        let body = [
            b"\0\x04MQTT\x04",
            &[flags][..],
            b"\0\0\0\x01c",
            &tail.concat(),
        ]
        .concat();
        let decoded = Decoder::server(LIMIT).decode(&mut BytesMut::from(&packet(0x10, body)[..]));
        let Ok(Some(Packet::Connect(connect))) = decoded else {
            panic!("{flags:#x}: {decoded:?}")
        };
        assert_eq!(connect.clean_start, flags & 0x02 != 0);
        let will = connect
            .will
            .as_deref()
            .map(|will| (will.qos as u8, will.retain));
        let expected = ((flags >> 3) & 3, flags & 0x20 != 0);
        assert_eq!(will, Some(expected).filter(|_| flags & 0x04 != 0));
        assert_eq!(connect.user_name, s("u").filter(|_| flags & 0x80 != 0));
        assert_eq!(connect.password, b(b"p").filter(|_| flags & 0x40 != 0));
    }
}

#[test]
fn connack() {
    let refused = ConnAck {
        session_present: false,
        code: ConnectCode::V3(ConnectReturnCode::BadUserNameOrPassword),
        properties: ConnAckProperties::default(),
    };
    to_client(
        Version::V4,
        b"\x20\x02\0\x04",
        &Packet::ConnAck(Box::new(refused)),
    );
    let expected = ConnAck {
        session_present: true,
        code: ConnectCode::V5(ReasonCode::Success),
        properties: ConnAckProperties {
            session_expiry_secs: Some(0x0102_0304),
            receive_maximum: Some(id(0x0506)),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            maximum_packet_size: Some(0x0708_090A),
            assigned_client_id: s("id"),
            topic_alias_maximum: Some(0x0B0C),
            reason_string: s("why"),
            user: user(),
            wildcard_subscription_available: Some(false),
            subscription_ids_available: Some(true),
            shared_subscription_available: Some(false),
            server_keep_alive_secs: Some(0x0D0E),
            response_information: s("info"),
            server_reference: s("else"),
            authentication_method: s("m"),
            authentication_data: b(b"\0d"),
        },
    };
    let properties = [
        &b"\x11\x01\x02\x03\x04\x21\x05\x06\x24\x01\x25\x00\x27\x07\x08\x09\x0A\x12\0\x02id"[..],
        b"\x22\x0B\x0C\x1F\0\x03why",
        USER,
        b"\x28\x00\x29\x01\x2A\x00\x13\x0D\x0E\x1A\0\x04info\x1C\0\x04else\x15\0\x01m\x16\0\x02\0d",
    ]
    .concat();
    let bytes = packet(0x20, with_properties(b"\x01\0", properties, b""));
    to_client(Version::V5, &bytes, &Packet::ConnAck(Box::new(expected)));
}

#[test]
fn publish() {
    let mut expected = Publish {
        dup: true,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: ByteString::from_static("/a/inbox"),
        packet_id: Some(id(0x0102)),
        properties: None,
        payload: Bytes::from_static(b"{}"),
    };
    let bytes = packet(0x3A, b"\0\x08/a/inbox\x01\x02{}");
    to_server(Version::V4, &bytes, &Packet::Publish(expected.clone()));
    expected.properties = Some(Box::new(PublishProperties {
        payload_is_utf8: Some(false),
        message_expiry_secs: Some(0x0102_0304),
        topic_alias: Some(id(0x0506)),
        response_topic: s("/r"),
        correlation_data: b(b"\0\xFF"),
        user: user(),
        subscription_ids: vec![1, 268_435_455],
        content_type: s("text"),
    }));
    let properties = [
        &b"\x23\x05\x06\x01\x00\x02\x01\x02\x03\x04\x08\0\x02/r\x09\0\x02\0\xFF"[..],
        USER,
        b"\x03\0\x04text\x0B\x01\x0B\xFF\xFF\xFF\x7F",
    ]
    .concat();
    let body = with_properties(b"\0\x08/a/inbox\x01\x02", properties, b"{}");
    to_client(Version::V5, &packet(0x3A, body), &Packet::Publish(expected));
}

#[test]
fn the_flags_of_a_publish() {
    for (first, qos, retain, dup) in [
        (0x30, QoS::AtMostOnce, false, false),
        (0x31, QoS::AtMostOnce, true, false),
        (0x32, QoS::AtLeastOnce, false, false),
        (0x34, QoS::ExactlyOnce, false, false),
        (0x3D, QoS::ExactlyOnce, true, true),
    ] {
        let packet_id = Some(id(9)).filter(|_| qos != QoS::AtMostOnce);
        let id_bytes: &[u8] = if packet_id.is_some() { b"\0\x09" } else { b"" };
        let expected = Packet::Publish(Publish {
            dup,
            qos,
            retain,
            topic: ByteString::from_static("/a"),
            packet_id,
            properties: None,
            payload: Bytes::from_static(b"x"),
        });
        to_server(
            Version::V4,
            &packet(first, [b"\0\x02/a", id_bytes, b"x"].concat()),
            &expected,
        );
    }
}

#[test]
fn acknowledgements() {
    let all = with_properties(b"\x01\x02\x91", [&b"\x1F\0\x03why"[..], USER].concat(), b"");
    let ack = |reason| Ack {
        packet_id: id(0x0102),
        reason,
        properties: reason_properties(),
    };
    let in_use = ack(ReasonCode::PacketIdentifierInUse);
    to_server(
        Version::V5,
        &packet(0x40, &all),
        &Packet::PubAck(in_use.clone()),
    );
    to_server(Version::V5, &packet(0x50, &all), &Packet::PubRec(in_use));
    let mut all = all;
    all[2] = 0x92;
    let not_found = ack(ReasonCode::PacketIdentifierNotFound);
    to_server(
        Version::V5,
        &packet(0x62, &all),
        &Packet::PubRel(not_found.clone()),
    );
    to_server(
        Version::V5,
        &packet(0x70, &all),
        &Packet::PubComp(not_found),
    );
}

#[test]
fn subscribe_and_suback() {
    let filter = |filter, qos| Filter {
        filter: ByteString::from_static(filter),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let mut expected = Subscribe {
        packet_id: id(0x0102),
        subscription_id: None,
        user: UserProperties::default(),
        filters: vec![
            filter("/a", QoS::AtLeastOnce),
            filter("/b", QoS::ExactlyOnce),
        ],
    };
    let bytes = packet(0x82, b"\x01\x02\0\x02/a\x01\0\x02/b\x02");
    to_server(
        Version::V4,
        &bytes,
        &Packet::Subscribe(Box::new(expected.clone())),
    );
    expected.subscription_id = Some(321);
    expected.user = user();
    expected.filters[0].no_local = true;
    expected.filters[0].retain_handling = RetainHandling::SendIfNew;
    expected.filters[1].retain_as_published = true;
    expected.filters[1].retain_handling = RetainHandling::DoNotSend;
    let properties = [&b"\x0B\xC1\x02"[..], USER].concat();
    let body = with_properties(b"\x01\x02", properties, b"\0\x02/a\x15\0\x02/b\x2A");
    to_server(
        Version::V5,
        &packet(0x82, body),
        &Packet::Subscribe(Box::new(expected)),
    );

    let expected = SubAck {
        packet_id: id(0x0102),
        properties: reason_properties(),
        codes: vec![ReasonCode::GrantedQoS2, ReasonCode::TopicFilterInvalid],
    };
    let properties = [&b"\x1F\0\x03why"[..], USER].concat();
    let body = with_properties(b"\x01\x02", properties, b"\x02\x8F");
    to_client(
        Version::V5,
        &packet(0x90, body),
        &Packet::SubAck(Box::new(expected)),
    );
}

#[test]
fn unsubscribe_and_unsuback() {
    let expected = Unsubscribe {
        packet_id: id(0x0102),
        user: user(),
        filters: vec![ByteString::from_static("/a"), ByteString::from_static("/b")],
    };
    let body = with_properties(b"\x01\x02", USER, b"\0\x02/a\0\x02/b");
    to_server(
        Version::V5,
        &packet(0xA2, body),
        &Packet::Unsubscribe(Box::new(expected)),
    );

    let expected = UnsubAck {
        packet_id: id(0x0102),
        properties: reason_properties(),
        codes: vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted],
    };
    let properties = [&b"\x1F\0\x03why"[..], USER].concat();
    let body = with_properties(b"\x01\x02", properties, b"\x00\x11");
    to_client(
        Version::V5,
        &packet(0xB0, body),
        &Packet::UnsubAck(Box::new(expected)),
    );
}

#[test]
fn disconnect_and_auth() {
    let expected = Disconnect {
        reason: ReasonCode::DisconnectWithWill,
        session_expiry_secs: Some(0x0102_0304),
        server_reference: s("else"),
        properties: reason_properties(),
    };
    let properties = [
        &b"\x11\x01\x02\x03\x04\x1F\0\x03why"[..],
        USER,
        b"\x1C\0\x04else",
    ]
    .concat();
    let bytes = packet(0xE0, with_properties(b"\x04", properties, b""));
    to_server(Version::V5, &bytes, &Packet::Disconnect(Box::new(expected)));

    let expected = Auth {
        reason: ReasonCode::ContinueAuthentication,
        authentication_method: s("m"),
        authentication_data: b(b"\0d"),
        properties: reason_properties(),
    };
    let properties = [&b"\x15\0\x01m\x16\0\x02\0d\x1F\0\x03why"[..], USER].concat();
    let bytes = packet(0xF0, with_properties(b"\x18", properties, b""));
    to_server(Version::V5, &bytes, &Packet::Auth(Box::new(expected)));
}
