//! Operations of well-behaved clients against a model of their mailboxes: see `jam_testkit::simulator`.

use jam_testkit::random::Bytes;
use jam_testkit::simulator;

/// Operations in one run.
const STEPS: usize = 2000;

/// The first byte chooses whether a user's devices are connected side by side, and the world: one where nothing but
/// connections breaks, one with crashes, and one where clocks, accounts and their database do what they like besides.
pub(crate) fn run(data: &[u8]) {
    if let [choice, operations @ ..] = data {
        let many = choice % 2 == 1;
        let run = [
            simulator::run,
            simulator::run_with_crashes,
            simulator::run_in_the_world,
        ][usize::from(choice / 2 % 3)];
        run(&mut Bytes::new(operations), many, STEPS);
    }
}
