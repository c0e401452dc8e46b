//! The campaign in CI: some rounds on each store, on PostgreSQL always the same ones; on files with a seed of their own each
//! time, which a failure prints. `scripts/campaign` does thousands.

use std::io;

use jam_tests_campaign::rounds::{self, Options};
use jam_tests_campaign::server::{Store, nanos};

fn run(store: Store, rounds: u32, seed: u64) {
    let options = Options {
        rounds,
        seed,
        store,
        settle_every: 6,
    };
    let broken = rounds::run(options, &mut io::stdout()).err();
    if let Some(broken) = broken {
        panic!("{broken}");
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost() {
    run(Store::Sqlite, 60, nanos());
}

#[test]
fn nothing_that_was_acknowledged_is_lost_in_postgresql() {
    run(Store::Postgres, 40, 1);
}
