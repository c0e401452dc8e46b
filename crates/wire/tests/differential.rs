//! Two other codecs are given what this one is given: the vectors of the table, packets of our own
//! encoder, and both with bytes changed by a seeded generator. Each kind of disagreement stands in
//! `EXPLAINED` with the reason why ours is right; one that does not stand there fails the test, and so
//! does an explanation that explains nothing any more.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are the test")]

mod arbitrary;
mod explained;
mod table;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use explained::EXPLAINED;
use flowsdk::mqtt_serde::parser::stream::MqttParser;
use jam_wire::packet::Version;
use jam_wire::{Decoder, encode};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rmqtt_codec::version::{ProtocolVersion, VersionCodec};
use rmqtt_codec::{v3, v5};
use table::{Stage, opening, packet, vectors};
use tokio_util::codec::Decoder as _;

const LIMIT: usize = 1 << 20;
const MUTATIONS: usize = 100_000;

/// One packet for one stage of a connection.
#[derive(Debug, Clone)]
struct Case {
    stage: Stage,
    bytes: Vec<u8>,
}

/// What a codec does with a case; `Err` says why it does not take it as one whole packet.
type Outcome = Result<(), String>;

type Peer = fn(&Case) -> Outcome;

fn ours(case: &Case) -> Outcome {
    let mut decoder = match case.stage {
        Stage::First => Decoder::server(LIMIT),
        Stage::Client(version) => Decoder::client(version, LIMIT),
        Stage::Server(version) => {
            let mut decoder = Decoder::server(LIMIT);
            decoder
                .decode(&mut BytesMut::from(opening(version)))
                .unwrap()
                .unwrap();
            decoder
        }
    };
    let mut buf = BytesMut::from(&case.bytes[..]);
    match decoder.decode(&mut buf) {
        Ok(Some(_)) if buf.is_empty() => Ok(()),
        Ok(_) => Err("not one packet".to_owned()),
        Err(error) => Err(without_numbers(&error.to_string())),
    }
}

fn level(version: Version) -> u8 {
    match version {
        Version::V3 => 3,
        Version::V4 => 4,
        Version::V5 => 5,
    }
}

fn flowsdk(case: &Case) -> Outcome {
    let known = match case.stage {
        Stage::First => 0,
        Stage::Client(version) | Stage::Server(version) => level(version),
    };
    let mut parser = MqttParser::new(0, known);
    parser.feed(&case.bytes);
    parser.set_mqtt_vsn(0).map_err(|error| error.to_string())?;
    match parser.next_packet() {
        Ok(Some(_)) if parser.buffer_mut().is_empty() => Ok(()),
        Ok(_) => Err("not one packet".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn rmqtt(case: &Case) -> Outcome {
    let mut buf = BytesMut::from(&case.bytes[..]);
    let version = match case.stage {
        Stage::First => VersionCodec
            .decode(&mut buf)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "not one packet".to_owned())?,
        Stage::Client(Version::V5) | Stage::Server(Version::V5) => ProtocolVersion::MQTT5,
        Stage::Client(_) | Stage::Server(_) => ProtocolVersion::MQTT3,
    };
    let decoded = match version {
        ProtocolVersion::MQTT3 => v3::Codec::new(0)
            .decode(&mut buf)
            .map(|packet| packet.is_some()),
        ProtocolVersion::MQTT5 => v5::Codec::new(0, 0)
            .decode(&mut buf)
            .map(|packet| packet.is_some()),
    };
    match decoded {
        Ok(true) if buf.is_empty() => Ok(()),
        Ok(_) => Err("not one packet".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A reason without the numbers in it, so that it can be the name of a kind.
fn without_numbers(reason: &str) -> String {
    let mut out = String::new();
    for c in reason.chars() {
        match c {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            c => out.push(c),
        }
    }
    out
}

/// The kind of a disagreement: who, which way, and why the one that refuses refuses.
fn kind(peer: &str, case: &Case, ours: &Outcome, theirs: &Outcome) -> Option<String> {
    let (way, reason) = match (ours, theirs) {
        (Ok(()), Err(reason)) => ("refuses", reason),
        (Err(reason), Ok(())) => ("takes", reason),
        _ => return None,
    };
    let reason = without_numbers(reason);
    let packet = NAMES[usize::from(case.bytes[0] >> 4)];
    let version = match case.stage {
        Stage::First => connect_version(&case.bytes),
        Stage::Client(version) | Stage::Server(version) => format!("{version:?}"),
    };
    if packet == "CONNECT" && version != connect_version(&case.bytes) {
        // A second CONNECT of another version: the standard does not say by whose rules it is read.
        return None;
    }
    Some(format!("{peer} {way} {version} {packet}: {reason}"))
}

const NAMES: [&str; 16] = [
    "0",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

/// The version a CONNECT tells, or `?`.
fn connect_version(bytes: &[u8]) -> String {
    let mut decoder = Decoder::server(LIMIT);
    // Only the version is asked for; what is wrong with the rest is not.
    let _ = decoder.decode(&mut BytesMut::from(bytes));
    decoder
        .version()
        .map_or("?".to_owned(), |version| format!("{version:?}"))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        // Small numbers are the interesting ones: lengths, flags, identifiers.
        let byte = self.next().to_le_bytes();
        if byte[1] & 1 == 0 {
            byte[0] & 0x2F
        } else {
            byte[0]
        }
    }
}

/// Changes a few bytes of the body, and now and then of the first byte, and puts the right length
/// before what has come of it: wrong lengths have their vectors.
fn mutate(case: &Case, random: &mut Random) -> Case {
    let length_bytes = case.bytes[1..]
        .iter()
        .take_while(|&&byte| byte & 0x80 != 0)
        .count()
        + 1;
    let mut first = case.bytes[0];
    let mut body = case
        .bytes
        .get(1 + length_bytes..)
        .unwrap_or_default()
        .to_vec();
    if random.below(10) == 0 {
        first ^= 1 << random.below(4);
    }
    for _ in 0..=random.below(3) {
        let at = random.below(body.len());
        let byte = random.byte();
        match random.below(5) {
            0 => body.insert(at, byte),
            1 if !body.is_empty() => drop(body.remove(at)),
            2 => body.truncate(at.max(1)),
            3 if !body.is_empty() => body[at] ^= 1 << random.below(8),
            _ if !body.is_empty() => body[at] = byte,
            _ => body.push(byte),
        }
    }
    Case {
        stage: case.stage,
        bytes: packet(first, body),
    }
}

/// Packets of our own encoder, the same ones in every run.
fn encoded() -> Vec<Case> {
    let mut runner = TestRunner::deterministic();
    let mut cases = Vec::new();
    let mut add = |stage, version, strategy: &dyn Fn() -> proptest::strategy::BoxedStrategy<_>| {
        for _ in 0..300 {
            let packet = strategy().new_tree(&mut runner).unwrap().current();
            let mut bytes = BytesMut::new();
            encode(&packet, version, &mut bytes).unwrap();
            cases.push(Case {
                stage,
                bytes: bytes.to_vec(),
            });
        }
    };
    for version in [Version::V3, Version::V4, Version::V5] {
        add(Stage::First, version, &|| {
            arbitrary::connect(version).boxed()
        });
        add(Stage::Server(version), version, &|| {
            arbitrary::later(version, false)
        });
        add(Stage::Client(version), version, &|| {
            arbitrary::later(version, true)
        });
    }
    cases
}

fn corpus() -> Vec<Case> {
    let mut cases: Vec<Case> = vectors()
        .into_iter()
        .map(|vector| Case {
            stage: vector.stage,
            bytes: vector.bytes,
        })
        .chain(encoded())
        .collect();
    let mut random = Random(1883);
    let originals = cases.len();
    for index in 0..MUTATIONS {
        let mutated = mutate(&cases[index % originals], &mut random);
        cases.push(mutated);
    }
    cases
}

#[test]
fn every_disagreement_with_the_neighbours_is_explained() {
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut kinds: BTreeMap<String, (usize, Case)> = BTreeMap::new();
    for case in corpus() {
        let ours = ours(&case);
        let peers: [(&str, Peer); 2] = [("flowsdk", flowsdk), ("rmqtt", rmqtt)];
        for (name, peer) in peers {
            let theirs = catch_unwind(AssertUnwindSafe(|| peer(&case)))
                .unwrap_or_else(|_| Err("panics".to_owned()));
            if let Some(kind) = kind(name, &case, &ours, &theirs) {
                kinds.entry(kind).or_insert_with(|| (0, case.clone())).0 += 1;
            }
        }
    }
    std::panic::set_hook(silent);
    let mut unexplained = Vec::new();
    for (kind, (count, case)) in &kinds {
        if !EXPLAINED
            .iter()
            .any(|(pattern, _)| explained::matches(pattern, kind))
        {
            let bytes = case.bytes.escape_ascii();
            unexplained.push(format!("{kind} ({count})\n      {:?} {bytes}", case.stage));
        }
    }
    assert!(
        unexplained.is_empty(),
        "unexplained:\n{}",
        unexplained.join("\n")
    );
    for (pattern, _) in EXPLAINED {
        let used = kinds.keys().any(|kind| explained::matches(pattern, kind));
        assert!(used, "explains nothing: {pattern}");
    }
}
