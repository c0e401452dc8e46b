//! Clients that send whatever they like; see `jam_testkit::hostile` for what is checked.

use jam_testkit::hostile;
use jam_testkit::random::{Bytes, Random};

/// Seeds that failed once.
const PAST: &[u64] = &[];

/// Says which run it was, if that panics.
struct Seed(u64);

impl Drop for Seed {
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with the panic"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn run(seed: u64) {
    let _seed = Seed(seed);
    hostile::run(&mut Random::new(seed), 1000);
    hostile::run_with_crashes(&mut Random::new(seed), 1000);
}

#[test]
fn whatever_they_send() {
    (0..150).for_each(run);
}

#[test]
fn seeds_that_failed_once() {
    PAST.iter().copied().for_each(run);
}

#[test]
fn a_fuzzer_s_bytes() {
    let bytes: Vec<u8> = (0..20_000u32).map(|n| (n * n / 7 % 251) as u8).collect();
    hostile::run(&mut Bytes::new(&bytes), usize::MAX);
    hostile::run_with_crashes(&mut Bytes::new(&bytes), usize::MAX);
    hostile::run(&mut Bytes::new(&[]), usize::MAX);
}
