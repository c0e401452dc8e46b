//! Random operations of many parties against a model; see `jam_testkit::simulator` for what is checked.
//!
//! A failure prints its seed: add it to [`PAST`] with a word on what it was.

use std::ops::Range;

use jam_testkit::random::{Bytes, Random};
use jam_testkit::simulator;

/// Operations in one run.
const STEPS: usize = 1000;
/// Runs of each kind without crashes.
const RUNS: u64 = 150;
/// Runs of each kind with crashes, and in the world, where there are crashes too: a million operations together.
/// `JAM_SIMULATOR_RUNS` asks for another number of each, or for the seeds `from..to`.
const RUNS_WITH_CRASHES: u64 = 300;
const RUNS_IN_THE_WORLD: u64 = 200;
/// Seeds that failed once.
const PAST: &[(u64, bool)] = &[];

/// Says which run it was, if that panics.
struct Seed(u64, bool);

impl Drop for Seed {
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with the panic"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, many devices: {}", self.0, self.1);
        }
    }
}

fn run(seed: u64, many: bool, steps: usize) {
    let _seed = Seed(seed, many);
    simulator::run(&mut Random::new(seed), many, steps);
}

#[test]
fn one_device_at_a_time() {
    (0..RUNS).for_each(|seed| run(seed, false, STEPS));
}

#[test]
fn many_devices() {
    (0..RUNS).for_each(|seed| run(seed, true, STEPS));
}

#[test]
fn seeds_that_failed_once() {
    PAST.iter()
        .for_each(|(seed, many)| run(*seed, *many, STEPS));
}

#[test]
fn a_fuzzer_s_bytes() {
    let bytes: Vec<u8> = (0..20_000u32).map(|n| (n * n / 7 % 251) as u8).collect();
    for many in [false, true] {
        simulator::run(&mut Bytes::new(&bytes), many, usize::MAX);
        simulator::run(&mut Bytes::new(&[]), many, usize::MAX);
    }
}

/// So many, unless others are asked for.
fn runs(usual: u64) -> Range<u64> {
    let Ok(asked) = std::env::var("JAM_SIMULATOR_RUNS") else {
        return 0..usual;
    };
    let (from, to) = asked.split_once("..").unwrap_or(("0", &asked));
    let number = |text: &str| {
        text.parse()
            .expect("JAM_SIMULATOR_RUNS is a number or from..to")
    };
    number(from)..number(to)
}

#[test]
fn crashes_with_one_device_at_a_time() {
    for seed in runs(RUNS_WITH_CRASHES) {
        let _seed = Seed(seed, false);
        simulator::run_with_crashes(&mut Random::new(seed), false, STEPS);
    }
}

#[test]
fn crashes_with_many_devices() {
    for seed in runs(RUNS_WITH_CRASHES) {
        let _seed = Seed(seed, true);
        simulator::run_with_crashes(&mut Random::new(seed), true, STEPS);
    }
}

fn in_the_world(many: bool) {
    for seed in runs(RUNS_IN_THE_WORLD) {
        let _seed = Seed(seed, many);
        simulator::run_in_the_world(&mut Random::new(seed), many, STEPS);
    }
}

#[test]
fn the_world_with_one_device_at_a_time() {
    in_the_world(false);
}

#[test]
fn the_world_with_many_devices() {
    in_the_world(true);
}
