//! The campaign in CI: fifty rounds with a seed of their own each time, which a failure prints.

use std::io;

use jam_tests_campaign::rounds::{self, Options};
use jam_tests_campaign::server::nanos;

/// Kills. `scripts/campaign` does thousands.
const ROUNDS: u32 = 60;

#[test]
fn nothing_that_was_acknowledged_is_lost() {
    let options = Options {
        rounds: ROUNDS,
        seed: nanos(),
        settle_every: 6,
    };
    let broken = rounds::run(options, &mut io::stdout()).err();
    if let Some(broken) = broken {
        panic!("{broken}");
    }
}
