//! What a client of MQTT 5 has to take, to refuse and to send, as `client-vectors.json`: for codecs that are not written in
//! Rust, first of all that of jam.js (`tests/jamjs/codec.test.mjs`).
//!
//! The file is what the table of verdicts and this crate's own decoder and encoder say. The test fails when it says
//! something else; `UPDATE_VECTORS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are the test")]

mod table;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::num::NonZeroU16;
use std::path::Path;
use std::{env, fs};

use bytes::{Bytes, BytesMut};
use jam_wire::packet::{
    Ack, ConnAck, ConnAckProperties, Connect, ConnectCode, ConnectProperties, Disconnect, Filter,
    Publish, PublishProperties, QoS, ReasonProperties, RetainHandling, SubAck, Subscribe,
    UserProperties, Version,
};
use jam_wire::{ByteString, Decoder, Packet, ReasonCode, encode};
use table::{Stage, vectors};

const FILE: &str = "tests/client-vectors.json";
const LIMIT: usize = 1 << 20;

#[test]
fn the_file_says_what_the_decoder_and_the_encoder_do() {
    let mut text = String::from("{\n\"decode\": [\n");
    text.push_str(&decoded().join(",\n"));
    text.push_str("\n],\n\"encode\": [\n");
    text.push_str(&encoded().join(",\n"));
    text.push_str("\n]\n}\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if env::var_os("UPDATE_VECTORS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "{FILE} is stale: UPDATE_VECTORS=1 cargo test -p jam-wire --test client_vectors"
    );
}

/// Every vector of version 5 as a client's decoder takes it, and what this server's own packets may hold.
fn decoded() -> Vec<String> {
    let mut known = BTreeSet::new();
    let of_table = vectors()
        .into_iter()
        .filter(|vector| {
            matches!(
                vector.stage,
                Stage::Client(Version::V5) | Stage::Server(Version::V5)
            )
        })
        .map(|vector| (vector.bytes, vector.what, vector.clause));
    let own = from_the_server()
        .into_iter()
        .map(|(what, packet)| (bytes_of(&packet), what, "this server"));
    of_table
        .chain(own)
        .filter(|(bytes, ..)| known.insert(bytes.clone()))
        .filter_map(|(bytes, what, clause)| {
            let mut decoder = Decoder::client(Version::V5, LIMIT);
            let verdict = match decoder.decode(&mut BytesMut::from(&bytes[..])) {
                Ok(None) => return None,
                Ok(Some(packet)) => described(&packet),
                Err(_) => "null".to_owned(),
            };
            Some(format!(
                "{{\"what\": {}, \"clause\": {}, \"bytes\": \"{}\", \"packet\": {verdict}}}",
                json(what),
                json(clause),
                hex(&bytes)
            ))
        })
        .collect()
}

/// A packet as JSON; of one that this server never sends to a client of QoS 1, its name only.
fn described(packet: &Packet) -> String {
    match packet {
        Packet::ConnAck(connack) => format!(
            "{{\"type\": \"connack\", \"sessionPresent\": {}, \"code\": {}, \"sessionExpiry\": {}, \"receiveMaximum\": {}, \"maximumPacketSize\": {}, \"keepAlive\": {}, \"reason\": {}}}",
            connack.session_present,
            u8::from(connack.code),
            number(connack.properties.session_expiry_secs),
            number(connack.properties.receive_maximum),
            number(connack.properties.maximum_packet_size),
            number(connack.properties.server_keep_alive_secs),
            text(connack.properties.reason_string.as_ref())
        ),
        Packet::Publish(publish) if publish.qos != QoS::ExactlyOnce => {
            let properties = publish.properties.as_deref();
            let from = properties.and_then(|properties| {
                properties
                    .user
                    .iter()
                    .filter(|(name, _)| *name == "from")
                    .map(|(_, value)| value.to_owned())
                    .last()
            });
            format!(
                "{{\"type\": \"publish\", \"topic\": {}, \"id\": {}, \"dup\": {}, \"qos\": {}, \"retain\": {}, \"topicAlias\": {}, \"from\": {}, \"payload\": \"{}\"}}",
                json(&publish.topic),
                number(publish.packet_id),
                publish.dup,
                publish.qos as u8,
                publish.retain,
                number(properties.and_then(|properties| properties.topic_alias)),
                from.map_or_else(|| "null".to_owned(), |from| json(&from)),
                hex(&publish.payload)
            )
        }
        Packet::PubAck(ack) => format!(
            "{{\"type\": \"puback\", \"id\": {}, \"code\": {}, \"reason\": {}}}",
            ack.packet_id,
            u8::from(ack.reason),
            text(ack.properties.reason_string.as_ref())
        ),
        Packet::SubAck(suback) => format!(
            "{{\"type\": \"suback\", \"id\": {}, \"codes\": {:?}}}",
            suback.packet_id,
            suback
                .codes
                .iter()
                .map(|&code| u8::from(code))
                .collect::<Vec<_>>()
        ),
        Packet::PingResp => "{\"type\": \"pingresp\"}".to_owned(),
        Packet::Disconnect(disconnect) if disconnect.reason != ReasonCode::DisconnectWithWill => {
            format!(
                "{{\"type\": \"disconnect\", \"code\": {}, \"reason\": {}}}",
                u8::from(disconnect.reason),
                text(disconnect.properties.reason_string.as_ref())
            )
        }
        _ => "{\"type\": \"other\"}".to_owned(),
    }
}

fn from_the_server() -> Vec<(&'static str, Packet)> {
    let publish = |topic: &'static str, payload: &'static [u8], from: &str| {
        let mut user = UserProperties::default();
        user.push("app", "x").unwrap();
        user.push("from", from).unwrap();
        Packet::Publish(Publish {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: ByteString::from(topic),
            packet_id: NonZeroU16::new(0x0102),
            properties: Some(Box::new(PublishProperties {
                message_expiry_secs: Some(60),
                user,
                ..PublishProperties::default()
            })),
            payload: Bytes::from_static(payload),
        })
    };
    vec![
        (
            "CONNACK of this server",
            Packet::ConnAck(Box::new(ConnAck {
                session_present: true,
                code: ConnectCode::V5(ReasonCode::Success),
                properties: ConnAckProperties {
                    session_expiry_secs: Some(2_592_000),
                    receive_maximum: NonZeroU16::new(64),
                    maximum_packet_size: Some(4 << 20),
                    topic_alias_maximum: Some(16),
                    wildcard_subscription_available: Some(false),
                    shared_subscription_available: Some(false),
                    ..ConnAckProperties::default()
                },
            })),
        ),
        (
            "message with its sender",
            publish("/1/inbox", b"{\"from\":\"2\"}", "2"),
        ),
        (
            "sender that is not ASCII",
            publish(
                "/\u{e9}\u{20ac}\u{1f600}/inbox",
                b"\xFF\xFE",
                "\u{feff}\u{e9}\u{20ac}\u{1f600}",
            ),
        ),
        ("message without content", publish("/1/inbox", b"", "")),
        (
            "SUBACK of four filters",
            Packet::SubAck(Box::new(SubAck {
                packet_id: NonZeroU16::MAX,
                properties: ReasonProperties::default(),
                codes: vec![
                    ReasonCode::GrantedQoS1,
                    ReasonCode::Success,
                    ReasonCode::NotAuthorized,
                    ReasonCode::QuotaExceeded,
                ],
            })),
        ),
    ]
}

/// What jam.js sends: the function of its codec, the argument, the bytes.
fn encoded() -> Vec<String> {
    let connect = |client_id: &'static str, user: &'static str, token: &'static str| {
        Packet::Connect(Box::new(Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_secs: 30,
            client_id: ByteString::from(client_id),
            will: None,
            user_name: Some(ByteString::from(user)),
            password: Some(Bytes::from_static(token.as_bytes())),
            properties: ConnectProperties {
                session_expiry_secs: Some(2_592_000),
                receive_maximum: NonZeroU16::new(16),
                maximum_packet_size: Some(16 << 20),
                ..ConnectProperties::default()
            },
        }))
    };
    let connect_argument = |client_id: &str, user: &str, token: &str| {
        format!(
            "{{\"clientId\": {}, \"user\": {}, \"token\": {}, \"keepAlive\": 30, \"sessionExpiry\": 2592000, \"receiveMaximum\": 16, \"maximumPacketSize\": 16777216}}",
            json(client_id),
            json(user),
            json(token)
        )
    };
    let publish = |dup, payload: &[u8]| {
        Packet::Publish(Publish {
            dup,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: ByteString::from("/2/inbox"),
            packet_id: NonZeroU16::new(0xABCD),
            properties: None,
            payload: Bytes::copy_from_slice(payload),
        })
    };
    let publish_argument = |dup: bool, payload: &[u8]| {
        format!(
            "{{\"topic\": \"/2/inbox\", \"id\": 43981, \"dup\": {dup}, \"payload\": \"{}\"}}",
            hex(payload)
        )
    };
    let filter = |filter: &'static str, qos| Filter {
        filter: ByteString::from(filter),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let long = vec![b'x'; 20_000];
    let mut end = Disconnect::with_reason(ReasonCode::Success);
    end.session_expiry_secs = Some(0);
    let mut cases = vec![
        (
            "connect",
            connect_argument("1:web-0123456789abcdef", "1", "secret"),
            connect("1:web-0123456789abcdef", "1", "secret"),
        ),
        (
            "connect",
            connect_argument("\u{e9}:\u{1f600}", "\u{e9}", "\u{20ac}"),
            connect("\u{e9}:\u{1f600}", "\u{e9}", "\u{20ac}"),
        ),
        (
            "subscribe",
            "{\"id\": 65535, \"filters\": [[\"/1/inbox\", 1], [\"/1/presence\", 0]]}".to_owned(),
            Packet::Subscribe(Box::new(Subscribe {
                packet_id: NonZeroU16::MAX,
                subscription_id: None,
                user: UserProperties::default(),
                filters: vec![
                    filter("/1/inbox", QoS::AtLeastOnce),
                    filter("/1/presence", QoS::AtMostOnce),
                ],
            })),
        ),
        (
            "puback",
            "258".to_owned(),
            Packet::PubAck(Ack::success(NonZeroU16::new(258).unwrap())),
        ),
        ("pingreq", "null".to_owned(), Packet::PingReq),
        (
            "disconnect",
            "{\"code\": 0}".to_owned(),
            Packet::Disconnect(Box::new(Disconnect::with_reason(ReasonCode::Success))),
        ),
        (
            "disconnect",
            "{\"code\": 129}".to_owned(),
            Packet::Disconnect(Box::new(Disconnect::with_reason(
                ReasonCode::MalformedPacket,
            ))),
        ),
        (
            "disconnect",
            "{\"code\": 0, \"sessionExpiry\": 0}".to_owned(),
            Packet::Disconnect(Box::new(end)),
        ),
    ];
    for (dup, payload) in [
        (false, &b"{}"[..]),
        (true, b""),
        (false, &long[..200]),
        (false, &long),
    ] {
        cases.push((
            "publish",
            publish_argument(dup, payload),
            publish(dup, payload),
        ));
    }
    cases
        .iter()
        .map(|(name, argument, packet)| {
            format!(
                "{{\"call\": \"{name}\", \"argument\": {argument}, \"bytes\": \"{}\"}}",
                hex(&bytes_of(packet))
            )
        })
        .collect()
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(packet, Version::V5, &mut bytes).unwrap();
    bytes.to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn number(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn text(value: Option<&ByteString>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| json(value))
}

/// A JSON string: whatever is no plain ASCII is escaped as UTF-16.
fn json(text: &str) -> String {
    let mut quoted = String::from("\"");
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ 0x20..0x7F) if byte != b'"' && byte != b'\\' => quoted.push(char::from(byte)),
            _ => write!(quoted, "\\u{unit:04x}").unwrap(),
        }
    }
    quoted.push('"');
    quoted
}
