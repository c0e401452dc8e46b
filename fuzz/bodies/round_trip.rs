//! What decodes can be encoded, in the length announced, and decodes to the same packet.

use bytes::BytesMut;
use jam_wire::packet::Version;
use jam_wire::{Decoder, Packet, encode, encode_publish_header, encoded_len};

const LIMIT: usize = 1 << 20;

/// The first byte chooses the decoder; the rest is what arrives.
pub(crate) fn run(data: &[u8]) {
    let [choice, bytes @ ..] = data else {
        return;
    };
    let mut decoder = match choice % 4 {
        0 => Decoder::server(LIMIT),
        1 => Decoder::client(Version::V3, LIMIT),
        2 => Decoder::client(Version::V4, LIMIT),
        _ => Decoder::client(Version::V5, LIMIT),
    };
    let is_server = choice.is_multiple_of(4);
    let mut buf = BytesMut::from(bytes);
    while let Ok(Some(packet)) = decoder.decode(&mut buf) {
        let version = match (&packet, decoder.version()) {
            (Packet::Connect(connect), _) => connect.version,
            (_, Some(version)) => version,
            (_, None) => panic!("a packet before the version"),
        };
        comes_back(&packet, version, is_server);
    }
}

fn comes_back(packet: &Packet, version: Version, is_server: bool) {
    let mut bytes = BytesMut::new();
    encode(packet, version, &mut bytes).expect("what decodes can be encoded");
    assert_eq!(encoded_len(packet, version), Ok(bytes.len()));
    if let Packet::Publish(publish) = packet {
        let mut header = BytesMut::new();
        encode_publish_header(publish, version, &mut header).expect("what decodes can be encoded");
        assert_eq!([&header[..], &publish.payload].concat(), bytes);
    }
    let mut decoder = match packet {
        Packet::Connect(_) => Decoder::server(LIMIT),
        _ if is_server => opened(version),
        _ => Decoder::client(version, LIMIT),
    };
    let again = decoder.decode(&mut bytes);
    assert_eq!(
        again.as_ref(),
        Ok(&Some(packet.clone())),
        "it came back different"
    );
    assert!(bytes.is_empty());
}

/// A server's decoder after a CONNECT of that version.
fn opened(version: Version) -> Decoder {
    let connect: &[u8] = match version {
        Version::V3 => b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01a",
        Version::V4 => b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01a",
        Version::V5 => b"\x10\x0E\0\x04MQTT\x05\x02\0\x3C\0\0\x01a",
    };
    let mut decoder = Decoder::server(LIMIT);
    assert!(matches!(
        decoder.decode(&mut BytesMut::from(connect)),
        Ok(Some(_))
    ));
    decoder
}
