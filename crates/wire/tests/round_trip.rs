//! What is encoded is what is decoded, however the bytes arrive; and no bytes at all make the decoder
//! panic or reserve more than its limit.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are the test")]

mod arbitrary;
mod table;

use std::num::NonZeroU16;

use arbitrary::{connect, later, version};
use bytes::{Bytes, BytesMut};
use jam_wire::packet::{
    Ack, ConnAck, ConnAckProperties, ConnectCode, Disconnect, Publish, QoS, SubAck, Version,
};
use jam_wire::reason::ConnectReturnCode;
use jam_wire::{
    ByteString, DecodeError, Decoder, EncodeError, Packet, ReasonCode, encode,
    encode_publish_header, encoded_len,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const LIMIT: usize = 1 << 20;

/// Decodes what arrives in fragments cut at these places.
fn decode_in_fragments(decoder: &mut Decoder, bytes: &[u8], cuts: &[Index]) -> Vec<Packet> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut packets = Vec::new();
    let mut buf = BytesMut::new();
    let mut start = 0;
    for end in ends {
        buf.extend_from_slice(&bytes[start..end]);
        start = end;
        while let Some(packet) = decoder
            .decode(&mut buf)
            .expect("encoded packets are packets")
        {
            packets.push(packet);
        }
    }
    assert!(buf.is_empty());
    packets
}

fn encode_all(packets: &[Packet], version: Version) -> BytesMut {
    let mut bytes = BytesMut::new();
    for packet in packets {
        let before = bytes.len();
        encode(packet, version, &mut bytes).unwrap();
        assert_eq!(encoded_len(packet, version), Ok(bytes.len() - before));
        if let Packet::Publish(publish) = packet {
            let mut header = BytesMut::new();
            encode_publish_header(publish, version, &mut header).unwrap();
            assert_eq!([&header[..], &publish.payload].concat(), bytes[before..]);
        }
    }
    bytes
}

fn from_client() -> impl Strategy<Value = (Version, Vec<Packet>)> {
    version().prop_flat_map(|version| {
        (connect(version), vec(later(version, false), 0..6)).prop_map(move |(first, mut rest)| {
            rest.insert(0, first);
            (version, rest)
        })
    })
}

fn from_server() -> impl Strategy<Value = (Version, Vec<Packet>)> {
    version().prop_flat_map(|version| (Just(version), vec(later(version, true), 1..6)))
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..12)
}

/// Encodes a conversation, breaks some bytes and gives it to a decoder, which may do what it likes
/// but panic or take more memory than it may.
fn survive(mut decoder: Decoder, limit: usize, bytes: &[u8], chunk: usize) {
    let mut buf = BytesMut::new();
    for bytes in bytes.chunks(chunk) {
        let mut filled = BytesMut::with_capacity(buf.len() + bytes.len());
        filled.extend_from_slice(&buf);
        filled.extend_from_slice(bytes);
        buf = filled;
        let given = buf.capacity();
        loop {
            let result = decoder.decode(&mut buf);
            assert!(
                buf.capacity() <= given.max(limit),
                "reserved {}",
                buf.capacity()
            );
            match result {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

proptest! {
    #[test]
    fn clients_packets_come_back((version, packets) in from_client(), cuts in cuts()) {
        let bytes = encode_all(&packets, version);
        let mut decoder = Decoder::server(LIMIT);
        prop_assert_eq!(decode_in_fragments(&mut decoder, &bytes, &cuts), packets);
        prop_assert_eq!(decoder.version(), Some(version));
    }

    #[test]
    fn servers_packets_come_back((version, packets) in from_server(), cuts in cuts()) {
        let bytes = encode_all(&packets, version);
        let mut decoder = Decoder::client(version, LIMIT);
        prop_assert_eq!(decode_in_fragments(&mut decoder, &bytes, &cuts), packets);
    }

    #[test]
    fn random_bytes_are_survived(
        bytes in vec(any::<u8>(), 0..300), chunk in 1..40_usize, limit in 2..5000_usize,
        version in version(),
    ) {
        survive(Decoder::server(limit), limit, &bytes, chunk);
        survive(Decoder::client(version, limit), limit, &bytes, chunk);
    }

    #[test]
    fn broken_packets_are_survived(
        (version, packets) in from_client(), limit in 2..5000_usize, chunk in 1..400_usize,
        breaks in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode_all(&packets, version);
        for (index, byte) in breaks {
            let len = bytes.len();
            bytes[index.index(len)] = byte;
        }
        survive(Decoder::server(limit), limit, &bytes, chunk);
        survive(Decoder::client(version, limit), limit, &bytes, chunk);
    }

    #[test]
    fn what_a_version_cannot_say_leaves_no_bytes(
        (version, packets) in from_server(), other in version(),
    ) {
        // Packets of one version encoded as another: written if they can be, or nothing is written.
        for packet in &packets {
            let mut bytes = BytesMut::from(&b"before"[..]);
            match encode(packet, other, &mut bytes) {
                Ok(()) => {
                    let mut rest = bytes.split_off(6);
                    let mut decoder = Decoder::client(other, LIMIT);
                    prop_assert!(matches!(decoder.decode(&mut rest), Ok(Some(_))), "{version:?}");
                }
                Err(error) => {
                    prop_assert_eq!(&bytes[..], b"before");
                    prop_assert_eq!(encoded_len(packet, other), Err(error));
                }
            }
        }
    }
}

#[test]
fn what_the_table_accepts_comes_back() {
    for vector in table::vectors() {
        let (mut decoder, version) = match vector.stage {
            table::Stage::First => (Decoder::server(LIMIT), None),
            table::Stage::Client(version) | table::Stage::Server(version) => {
                (Decoder::client(version, LIMIT), Some(version))
            }
        };
        let Ok(Some(packet)) = decoder.decode(&mut BytesMut::from(&vector.bytes[..])) else {
            continue;
        };
        let Some(version) = version.or(decoder.version()) else {
            panic!("{}: no version", vector.what);
        };
        let mut bytes = BytesMut::new();
        encode(&packet, version, &mut bytes).unwrap();
        let mut again = Decoder::client(version, LIMIT);
        assert_eq!(
            again.decode(&mut bytes),
            Ok(Some(packet)),
            "{}",
            vector.what
        );
    }
}

fn publish(topic: ByteString, payload: Bytes) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: None,
        payload,
    }
}

fn refused(packet: &Packet, version: Version) -> EncodeError {
    let mut bytes = BytesMut::from(&b"before"[..]);
    let error = encode(packet, version, &mut bytes).unwrap_err();
    assert_eq!(&bytes[..], b"before");
    error
}

#[test]
fn what_is_too_long_is_refused() {
    let topic = ByteString::from("t".repeat(65_536));
    let error = refused(&Packet::Publish(publish(topic, Bytes::new())), Version::V4);
    assert_eq!(error, EncodeError::StringTooLong { len: 65_536 });
    let longest = ByteString::from("t".repeat(65_535));
    let packet = Packet::Publish(publish(longest, Bytes::new()));
    assert_eq!(encoded_len(&packet, Version::V4), Ok(4 + 2 + 65_535));
    // The payload is not looked at, so untouched zeroed pages do.
    let payload = Bytes::from(vec![0; 268_435_455]);
    let largest = publish(ByteString::from_static("t"), payload.slice(3..));
    assert_eq!(
        encoded_len(&Packet::Publish(largest), Version::V4),
        Ok(5 + 268_435_455)
    );
    let larger = publish(ByteString::from_static("t"), payload.slice(2..));
    let error = refused(&Packet::Publish(larger), Version::V4);
    assert_eq!(error, EncodeError::PacketTooLarge { size: 268_435_456 });
}

#[test]
fn what_the_standard_does_not_have_is_refused() {
    let id = NonZeroU16::MIN;
    let of_v5 = ConnectCode::V5(ReasonCode::Success);
    let of_v3 = ConnectCode::V3(ConnectReturnCode::Accepted);
    let connack = |code| {
        let properties = ConnAckProperties::default();
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            code,
            properties,
        }))
    };
    let mut without_id = publish(ByteString::from_static("t"), Bytes::new());
    without_id.qos = QoS::AtLeastOnce;
    let cases = [
        (connack(of_v5), Version::V4),
        (connack(of_v3), Version::V5),
        (
            Packet::PubAck(Ack::with_reason(id, ReasonCode::MessageRateTooHigh)),
            Version::V5,
        ),
        (
            Packet::PubRel(Ack::with_reason(id, ReasonCode::NotAuthorized)),
            Version::V5,
        ),
        (Packet::Publish(without_id), Version::V4),
        (
            Packet::Publish(publish(ByteString::new(), Bytes::new())),
            Version::V5,
        ),
    ];
    for (packet, version) in cases {
        assert!(
            matches!(refused(&packet, version), EncodeError::Invalid(_)),
            "{packet:?}"
        );
    }
}

/// The shortest forms, byte for byte.
#[test]
fn short_forms() {
    let id = NonZeroU16::MIN;
    let refusal = Packet::PubAck(Ack::with_reason(id, ReasonCode::NotAuthorized));
    let normal = Packet::Disconnect(Box::new(Disconnect::with_reason(ReasonCode::Success)));
    let taken = Disconnect::with_reason(ReasonCode::SessionTakenOver);
    let taken = Packet::Disconnect(Box::new(taken));
    let suback = Packet::SubAck(Box::new(SubAck {
        packet_id: id,
        properties: Default::default(),
        codes: vec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized],
    }));
    let cases: [(&Packet, Version, &[u8]); 9] = [
        (
            &Packet::PubAck(Ack::success(id)),
            Version::V5,
            b"\x40\x02\0\x01",
        ),
        (&refusal, Version::V5, b"\x40\x03\0\x01\x87"),
        (&refusal, Version::V4, b"\x40\x02\0\x01"),
        (&normal, Version::V5, b"\xE0\x00"),
        (&taken, Version::V5, b"\xE0\x02\x8E\0"),
        (&taken, Version::V4, b"\xE0\x00"),
        (&suback, Version::V5, b"\x90\x05\0\x01\0\x01\x87"),
        (&suback, Version::V4, b"\x90\x04\0\x01\x01\x80"),
        (&suback, Version::V3, b"\x90\x04\0\x01\x01\x80"),
    ];
    for (packet, version, expected) in cases {
        let mut bytes = BytesMut::new();
        encode(packet, version, &mut bytes).unwrap();
        assert_eq!(&bytes[..], expected, "{packet:?} in {version:?}");
    }
}

#[test]
fn a_packet_in_single_bytes_is_reserved_once() {
    let packet = Packet::Publish(publish(
        ByteString::from_static("/a"),
        Bytes::from(vec![7; 5000]),
    ));
    let mut bytes = BytesMut::new();
    encode(&packet, Version::V4, &mut bytes).unwrap();
    let mut decoder = Decoder::client(Version::V4, LIMIT);
    let mut buf = BytesMut::new();
    let mut places = Vec::new();
    let mut decoded = None;
    for &byte in &bytes[..] {
        buf.extend_from_slice(&[byte]);
        decoded = decoder.decode(&mut buf).unwrap();
        if decoded.is_none() && buf.len() > 2 {
            assert_eq!(buf.capacity(), bytes.len());
            places.push(buf.as_ptr());
        }
    }
    assert_eq!(decoded, Some(packet));
    places.dedup();
    assert_eq!(places.len(), 1, "the packet moved while it arrived");
}

#[test]
fn an_error_holds_nothing_that_was_received() {
    let mut decoder = Decoder::client(Version::V4, LIMIT);
    let error = decoder
        .decode(&mut BytesMut::from(&b"\x30\x08\0\x05secr\xFF\0"[..]))
        .unwrap_err();
    assert_eq!(error, DecodeError::Malformed("string is not UTF-8"));
    assert_eq!(error.to_string(), "malformed packet: string is not UTF-8");
}
