//! Any bytes to a decoder: no panic, no more memory than the limit, the same packets whether they
//! arrive at once or in pieces, and an error that stays.

use bytes::BytesMut;
use jam_wire::packet::Version;
use jam_wire::{DecodeError, Decoder, Packet};

const LIMIT: usize = 4096;

/// The first byte chooses the decoder, the second the size of the pieces; the rest is what arrives.
pub(crate) fn run(data: &[u8]) {
    let [choice, piece, bytes @ ..] = data else {
        return;
    };
    let decoder = || match choice % 4 {
        0 => Decoder::server(LIMIT),
        1 => Decoder::client(Version::V3, LIMIT),
        2 => Decoder::client(Version::V4, LIMIT),
        _ => Decoder::client(Version::V5, LIMIT),
    };
    let whole = decode(decoder(), bytes, bytes.len().max(1));
    let pieces = decode(decoder(), bytes, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "pieces make a difference");
}

fn decode(
    mut decoder: Decoder,
    bytes: &[u8],
    piece: usize,
) -> (Vec<Packet>, Option<DecodeError>, Option<Version>) {
    let mut packets = Vec::new();
    let mut buf = BytesMut::new();
    for bytes in bytes.chunks(piece) {
        buf.extend_from_slice(bytes);
        let given = buf.capacity();
        loop {
            let result = decoder.decode(&mut buf);
            assert!(
                buf.capacity() <= given.max(LIMIT),
                "reserved {}",
                buf.capacity()
            );
            match result {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buf), Err(error), "an error is final");
                    // A CONNECT over the limit tells its version only if that has arrived.
                    let version = match error {
                        DecodeError::TooLarge { .. } => None,
                        _ => decoder.version(),
                    };
                    return (packets, Some(error), version);
                }
            }
        }
    }
    (packets, None, decoder.version())
}
