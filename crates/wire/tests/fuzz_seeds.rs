//! The bodies of the fuzz targets over their seeds and over the table of vectors, as ordinary tests.

mod table;

#[path = "../../../fuzz/bodies/decode.rs"]
mod decode;
#[path = "../../../fuzz/bodies/round_trip.rs"]
mod round_trip;

use std::fs;
use std::path::Path;

use jam_wire::packet::Version;
use table::{Stage, opening, vectors};

/// Runs a body over every file of `fuzz/seeds/<target>/`.
fn run_seeds(target: &str, body: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&directory).expect("the target has seeds") {
        let path = entry.expect("the seeds can be listed").path();
        body(&fs::read(path).expect("a seed can be read"));
        seeds += 1;
    }
    assert!(seeds > 0, "no seed in {}", directory.display());
}

#[test]
fn decode_seeds() {
    run_seeds("decode", decode::run);
}

#[test]
fn round_trip_seeds() {
    run_seeds("round_trip", round_trip::run);
}

/// A vector as a seed: the choice of the decoder, then what arrives.
fn conversation(stage: Stage, bytes: &[u8]) -> (u8, Vec<u8>) {
    let choice = |version| match version {
        Version::V3 => 1,
        Version::V4 => 2,
        Version::V5 => 3,
    };
    match stage {
        Stage::First => (0, bytes.to_vec()),
        Stage::Server(version) => (0, [opening(version), bytes].concat()),
        Stage::Client(version) => (choice(version), bytes.to_vec()),
    }
}

#[test]
fn the_vectors_are_seeds_too() {
    for vector in vectors() {
        let (choice, bytes) = conversation(vector.stage, &vector.bytes);
        for piece in [1, 5] {
            decode::run(&[&[choice, piece][..], &bytes].concat());
        }
        round_trip::run(&[&[choice][..], &bytes].concat());
    }
}
