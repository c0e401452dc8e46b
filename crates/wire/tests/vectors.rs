//! The decoder against the table of verdicts, whole and byte by byte.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are the test")]

mod table;

use bytes::BytesMut;
use jam_wire::packet::Version;
use jam_wire::{DecodeError, Decoder, Packet, ReasonCode};
use table::{Stage, Vector, Verdict, opening, vectors};

const LIMIT: usize = 1 << 20;

fn decoder(stage: Stage) -> Decoder {
    match stage {
        Stage::First => Decoder::server(LIMIT),
        Stage::Client(version) => Decoder::client(version, LIMIT),
        Stage::Server(version) => {
            let mut decoder = Decoder::server(LIMIT);
            let mut connect = BytesMut::from(opening(version));
            assert!(matches!(
                decoder.decode(&mut connect),
                Ok(Some(Packet::Connect(_)))
            ));
            assert_eq!(decoder.version(), Some(version));
            decoder
        }
    }
}

/// What the decoder says of a vector. `None` is a packet that is not complete.
fn run(vector: &Vector, chunk: usize) -> Option<Result<Packet, DecodeError>> {
    let mut decoder = decoder(vector.stage);
    let mut buf = BytesMut::new();
    for bytes in vector.bytes.chunks(chunk) {
        buf.extend_from_slice(bytes);
        match decoder.decode(&mut buf) {
            Ok(None) => {}
            Ok(Some(packet)) => {
                assert!(buf.is_empty(), "{}: bytes are left", vector.what);
                return Some(Ok(packet));
            }
            Err(error) => {
                assert_eq!(decoder.decode(&mut buf), Err(error), "an error is final");
                return Some(Err(error));
            }
        }
    }
    None
}

fn verdict(result: &Option<Result<Packet, DecodeError>>) -> Option<Verdict> {
    Some(match result.as_ref()? {
        Ok(_) => Verdict::Accept,
        Err(DecodeError::Malformed(_)) => Verdict::Malformed,
        Err(DecodeError::Protocol(_)) => Verdict::Protocol,
        Err(DecodeError::UnsupportedVersion(level)) => Verdict::Unsupported(*level),
        Err(DecodeError::TooLarge { .. } | DecodeError::TooManyFilters) => return None,
    })
}

#[test]
fn every_vector_gets_the_verdict_of_the_standard() {
    let vectors = vectors();
    assert!(vectors.len() > 150, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        for chunk in [usize::MAX, 1, 3] {
            let result = run(vector, chunk);
            if verdict(&result) != Some(vector.verdict) {
                wrong.push(format!("{vector:?}\n  chunks of {chunk}: {result:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong verdicts:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_vector_is_accepted_or_refused_in_one_plain_line() {
    for vector in vectors() {
        if let Some(Err(error)) = run(&vector, usize::MAX) {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
            assert!(error.reason().is_error());
        }
    }
}

#[test]
fn the_version_is_known_once_the_level_was_read() {
    let cases: [(&[u8], Option<Version>); 5] = [
        (
            b"\x10\x0E\0\x04MQTT\x05\x03\0\x3C\0\0\x01a",
            Some(Version::V5),
        ),
        (
            b"\x10\x0D\0\x04MQTT\x04\x03\0\x3C\0\x01a",
            Some(Version::V4),
        ),
        (
            b"\x11\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01a",
            Some(Version::V4),
        ),
        (b"\x10\x0D\0\x04MQTT\x06\x02\0\x3C\0\x01a", None),
        (b"\x10\x0D\0\x04HTTP\x04\x02\0\x3C\0\x01a", None),
    ];
    for (bytes, version) in cases {
        let mut decoder = Decoder::server(LIMIT);
        assert!(decoder.decode(&mut BytesMut::from(bytes)).is_err());
        assert_eq!(decoder.version(), version);
    }
}

#[test]
fn a_packet_over_the_limit_is_refused_from_its_header() {
    let mut decoder = Decoder::client(Version::V4, 100);
    let mut buf = BytesMut::from(&b"\x30\x62"[..]);
    assert_eq!(
        decoder.decode(&mut buf),
        Ok(None),
        "100 bytes are within the limit"
    );
    let mut decoder = Decoder::client(Version::V4, 100);
    let mut buf = BytesMut::from(&b"\x30\x63"[..]);
    let error = DecodeError::TooLarge {
        size: 101,
        limit: 100,
    };
    assert_eq!(decoder.decode(&mut buf), Err(error));
    assert_eq!(error.reason(), ReasonCode::PacketTooLarge);
    let mut decoder = Decoder::client(Version::V4, 100);
    decoder.set_max_packet(101);
    assert_eq!(
        decoder.decode(&mut BytesMut::from(&b"\x30\x63"[..])),
        Ok(None)
    );
}

#[test]
fn a_connect_over_the_limit_tells_its_version_if_it_is_there() {
    let mut decoder = Decoder::server(100);
    let mut buf = BytesMut::from(&b"\x10\xFF\x7F\0\x04MQTT\x05\x02"[..]);
    assert!(matches!(
        decoder.decode(&mut buf),
        Err(DecodeError::TooLarge { .. })
    ));
    assert_eq!(decoder.version(), Some(Version::V5));
}

#[test]
fn properties_by_the_million_take_the_memory_of_their_bytes() {
    const EMPTY: &[u8] = b"\x26\0\0\0\0";
    let properties = EMPTY.repeat(800_000);
    let mut body = b"\0\x02/a\x80\x92\xF4\x01".to_vec();
    assert_eq!(properties.len(), 0x12 << 7 | 0x74 << 14 | 0x01 << 21);
    body.extend_from_slice(&properties);
    let mut decoder = Decoder::client(Version::V5, 1 << 23);
    let mut buf = BytesMut::from(&table::packet(0x30, &body)[..]);
    let within = buf.as_ptr_range();
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buf) else {
        panic!("not a PUBLISH");
    };
    let user = &publish.properties.as_ref().unwrap().user;
    assert_eq!(user.as_bytes(), properties);
    assert!(within.contains(&user.as_bytes().as_ptr()));
    assert_eq!(user.iter().count(), 800_000);
}

#[test]
fn properties_that_stand_apart_keep_their_order() {
    let properties =
        b"\x26\0\x01a\0\x01b\x01\x01\x26\0\0\0\x01c\x03\0\x01t\x26\0\x01a\0\0\x26\0\x01d\0\0";
    let mut body = b"\0\x02/a".to_vec();
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    let mut buf = BytesMut::from(&table::packet(0x30, &body)[..]);
    let mut decoder = Decoder::client(Version::V5, LIMIT);
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buf) else {
        panic!("not a PUBLISH");
    };
    let mut user = publish.properties.unwrap().user;
    let pairs: Vec<_> = user.iter().collect();
    assert_eq!(pairs, [("a", "b"), ("", "c"), ("a", ""), ("d", "")]);
    user.retain(|name, _| name != "a");
    user.push("e", "f").unwrap();
    assert_eq!(user, [("", "c"), ("d", ""), ("e", "f")].into());
    assert!(user.push(&"x".repeat(65_536), "").is_err());
    assert_eq!(user.iter().count(), 3);
}

#[test]
fn a_packet_has_at_most_256_filters() {
    for (first, filter) in [(0x82, &b"\0\x01a\0"[..]), (0xA2, b"\0\x01a")] {
        for (count, fits) in [(256, true), (257, false), (60_000, false)] {
            let body = [b"\0\x01\0", &filter.repeat(count)[..]].concat();
            let mut decoder = Decoder::client(Version::V5, LIMIT);
            let result = decoder.decode(&mut BytesMut::from(&table::packet(first, &body)[..]));
            match result {
                Ok(Some(_)) => assert!(fits),
                other => {
                    assert_eq!(other, Err(DecodeError::TooManyFilters));
                    assert!(!fits);
                }
            }
        }
    }
}

#[test]
fn strings_and_payloads_are_slices_of_the_buffer() {
    let mut decoder = Decoder::client(Version::V5, LIMIT);
    let mut buf = BytesMut::from(&b"\x32\x10\0\x02/a\0\x01\x07\x26\0\x01k\0\x01vhi"[..]);
    let within = buf.as_ptr_range();
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buf) else {
        panic!("not a PUBLISH");
    };
    assert_eq!(&publish.payload[..], b"hi");
    let user = &publish.properties.as_ref().unwrap().user;
    let (name, value) = user.iter().next().unwrap();
    for slice in [
        publish.topic.as_bytes(),
        name.as_bytes(),
        value.as_bytes(),
        &publish.payload,
    ] {
        assert!(within.contains(&slice.as_ptr()));
    }
}

#[test]
fn nul_is_found_wherever_it_stands() {
    // Neighbours that differ from NUL in one bit.
    for fill in [b'\x01', b' ', b'@', b'\x7F'] {
        for len in 1..40 {
            for nul in (0..len).map(Some).chain([None]) {
                let mut body = vec![0, u8::try_from(len).unwrap()];
                body.resize(2 + len, fill);
                if let Some(nul) = nul {
                    body[2 + nul] = 0;
                }
                let mut decoder = Decoder::client(Version::V4, LIMIT);
                let decoded = decoder.decode(&mut BytesMut::from(&table::packet(0x30, body)[..]));
                assert_eq!(
                    decoded.is_err(),
                    nul.is_some(),
                    "{len} bytes, NUL at {nul:?}"
                );
            }
        }
    }
}
