//! Decode and encode, against the two codecs of the differential tests, in one run.
//!
//! `cargo bench -p jam-wire` prints nanoseconds per packet (the median of the rounds) and what the
//! others need in proportion. Buffers are filled outside the measured time; a decoded packet is
//! dropped inside it. A round takes turns, so that a slow moment of the machine hits all three.
//! flowsdk decodes from a slice, so it is spared the buffer's bookkeeping and pays for its copies.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark is a test that prints"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use flowsdk::mqtt_serde::control_packet::MqttPacket;
use flowsdk::mqtt_serde::parser::ParseOk;
use jam_wire::packet::Version;
use jam_wire::{Decoder, Packet, encode};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder as _, Encoder as _};

const ROUNDS: usize = 401;
const PACKETS_PER_ROUND: u32 = 1024;
const LIMIT: usize = 1 << 20;

/// Bytes of one kind of packet, as many to a buffer as arrive at once.
struct Case {
    name: &'static str,
    version: Version,
    bytes: Vec<u8>,
    per_buffer: u32,
}

impl Case {
    fn buffers(&self) -> Vec<BytesMut> {
        let batch = self.bytes.repeat(usize::try_from(self.per_buffer).unwrap());
        let buffers = PACKETS_PER_ROUND / self.per_buffer;
        (0..buffers).map(|_| BytesMut::from(&batch[..])).collect()
    }

    fn decoder(&self) -> Decoder {
        Decoder::client(self.version, LIMIT)
    }

    fn level(&self) -> u8 {
        if self.version == Version::V5 { 5 } else { 4 }
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn decode_ours(case: &Case) -> Duration {
    let mut buffers = case.buffers();
    let mut decoder = case.decoder();
    timed(|| {
        for buf in &mut buffers {
            while let Ok(Some(packet)) = &decoder.decode(buf) {
                black_box(packet);
            }
            assert!(buf.is_empty());
        }
    })
}

fn decode_flowsdk(case: &Case) -> Duration {
    let buffers = case.buffers();
    let level = case.level();
    timed(|| {
        for buf in &buffers {
            let mut rest = &buf[..];
            while !rest.is_empty() {
                let parsed = MqttPacket::from_bytes_with_version(rest, level);
                let Ok(ParseOk::Packet(packet, len)) = &parsed else {
                    panic!("not a packet");
                };
                black_box(packet);
                rest = &rest[*len..];
            }
        }
    })
}

fn decode_rmqtt(case: &Case) -> Duration {
    let mut buffers = case.buffers();
    if case.version == Version::V5 {
        let mut codec = v5::Codec::new(0, 0);
        timed(|| {
            for buf in &mut buffers {
                while let Ok(Some(packet)) = &codec.decode(buf) {
                    black_box(packet);
                }
                assert!(buf.is_empty());
            }
        })
    } else {
        let mut codec = v3::Codec::new(0);
        timed(|| {
            for buf in &mut buffers {
                while let Ok(Some(packet)) = &codec.decode(buf) {
                    black_box(packet);
                }
                assert!(buf.is_empty());
            }
        })
    }
}

/// Writes each packet after the one before it, `per_buffer` of them, and starts over.
fn encode_ours(case: &Case) -> Duration {
    let packet = case
        .decoder()
        .decode(&mut BytesMut::from(&case.bytes[..]))
        .unwrap()
        .unwrap();
    let mut out = BytesMut::with_capacity(1 << 16);
    timed(|| {
        for _ in 0..PACKETS_PER_ROUND / case.per_buffer {
            for _ in 0..case.per_buffer {
                encode(black_box::<&Packet>(&packet), case.version, &mut out).unwrap();
            }
            black_box(&out);
            out.clear();
        }
    })
}

fn encode_flowsdk(case: &Case) -> Duration {
    use flowsdk::mqtt_serde::control_packet::MqttControlPacket;
    let ParseOk::Packet(packet, _) =
        MqttPacket::from_bytes_with_version(&case.bytes, case.level()).unwrap()
    else {
        panic!("not a packet");
    };
    let mut out = Vec::with_capacity(1 << 16);
    timed(|| {
        for _ in 0..PACKETS_PER_ROUND / case.per_buffer {
            for _ in 0..case.per_buffer {
                match black_box::<&MqttPacket>(&packet) {
                    MqttPacket::Publish5(p) => p.encode_to_buffer(&mut out),
                    MqttPacket::Publish3(p) => p.encode_to_buffer(&mut out),
                    MqttPacket::PubAck5(p) => p.encode_to_buffer(&mut out),
                    MqttPacket::PubAck3(p) => p.encode_to_buffer(&mut out),
                    MqttPacket::Connect5(p) => p.encode_to_buffer(&mut out),
                    MqttPacket::Connect3(p) => p.encode_to_buffer(&mut out),
                    _ => panic!("not a packet of the benchmark"),
                }
                .unwrap();
            }
            black_box(&out);
            out.clear();
        }
    })
}

/// Its encoder takes packets by value; they are cloned outside the measured time.
fn encode_rmqtt(case: &Case) -> Duration {
    let mut bytes = BytesMut::from(&case.bytes[..]);
    let mut out = BytesMut::with_capacity(1 << 16);
    let n = usize::try_from(case.per_buffer).unwrap();
    if case.version == Version::V5 {
        let mut codec = v5::Codec::new(0, 0);
        let (packet, _) = codec.decode(&mut bytes).unwrap().unwrap();
        let mut packets = vec![packet; usize::try_from(PACKETS_PER_ROUND).unwrap()];
        timed(|| {
            while !packets.is_empty() {
                for packet in packets.drain(packets.len() - n..) {
                    codec.encode(packet, &mut out).unwrap();
                }
                black_box(&out);
                out.clear();
            }
        })
    } else {
        let mut codec = v3::Codec::new(0);
        let (packet, _) = codec.decode(&mut bytes).unwrap().unwrap();
        let mut packets = vec![packet; usize::try_from(PACKETS_PER_ROUND).unwrap()];
        timed(|| {
            while !packets.is_empty() {
                for packet in packets.drain(packets.len() - n..) {
                    codec.encode(packet, &mut out).unwrap();
                }
                black_box(&out);
                out.clear();
            }
        })
    }
}

/// Median nanoseconds per packet of each.
fn measure(case: &Case, work: [fn(&Case) -> Duration; 3]) -> [f64; 3] {
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (times, work) in times.iter_mut().zip(work) {
            times.push(work(case));
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64() * 1e9 / f64::from(PACKETS_PER_ROUND)
    })
}

fn print(what: &str, case: &Case, [ours, flowsdk, rmqtt]: [f64; 3]) {
    println!(
        "{what} {:<32} {ours:>8.1} {flowsdk:>8.1} ({:>5.2}x) {rmqtt:>8.1} ({:>5.2}x)",
        case.name,
        flowsdk / ours,
        rmqtt / ours,
    );
}

/// A PUBLISH of 300 bytes of payload at QoS 1 to a friend's inbox.
fn publish(version: Version) -> Vec<u8> {
    let topic = b"/1234567/inbox";
    let properties: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
    let len = u8::try_from(topic.len()).unwrap();
    let body = [&[0, len][..], topic, b"\0\x07", properties, &[b'x'; 300]].concat();
    framed(0x32, &body)
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let header = if len < 0x80 {
        vec![first, u8::try_from(len).unwrap()]
    } else {
        let low = u8::try_from(len & 0x7F).unwrap() | 0x80;
        vec![first, low, u8::try_from(len >> 7).unwrap()]
    };
    [&header[..], body].concat()
}

fn connect(version: Version) -> Vec<u8> {
    let head: &[u8] = match version {
        Version::V5 => b"\0\x04MQTT\x05\xC2\0\x3C\x08\x11\0\0\0\x3C\x21\0\x14",
        Version::V3 | Version::V4 => b"\0\x04MQTT\x04\xC2\0\x3C",
    };
    let token = [&b"\0\x40"[..], &[b't'; 64]].concat();
    framed(
        0x10,
        &[head, b"\0\x0F1234567:device1\0\x071234567", &token].concat(),
    )
}

fn main() {
    let mut cases = Vec::new();
    for (version, names) in [
        (
            Version::V4,
            [
                "3.1.1 PUBLISH 300 B QoS 1",
                "3.1.1 16 PUBLISH in a buffer",
                "3.1.1 PUBACK",
                "3.1.1 16 PUBACK in a buffer",
                "3.1.1 CONNECT",
            ],
        ),
        (
            Version::V5,
            [
                "5.0 PUBLISH 300 B QoS 1",
                "5.0 16 PUBLISH in a buffer",
                "5.0 PUBACK",
                "5.0 16 PUBACK in a buffer",
                "5.0 CONNECT",
            ],
        ),
    ] {
        let puback = framed(0x40, b"\0\x07");
        let bytes = [
            publish(version),
            publish(version),
            puback.clone(),
            puback,
            connect(version),
        ];
        for ((name, bytes), per_buffer) in names.into_iter().zip(bytes).zip([1, 16, 1, 16, 1]) {
            cases.push(Case {
                name,
                version,
                bytes,
                per_buffer,
            });
        }
    }
    println!("ns per packet                               ours  flowsdk             rmqtt-codec");
    for case in &cases {
        print(
            "decode",
            case,
            measure(case, [decode_ours, decode_flowsdk, decode_rmqtt]),
        );
    }
    for case in &cases {
        print(
            "encode",
            case,
            measure(case, [encode_ours, encode_flowsdk, encode_rmqtt]),
        );
    }
}
