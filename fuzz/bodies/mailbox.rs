//! Operations of well-behaved clients against a model of their mailboxes: see `jam_testkit::simulator`.

use jam_testkit::random::Bytes;
use jam_testkit::simulator;

/// Operations in one run.
const STEPS: usize = 2000;

/// The first byte chooses whether a user's devices are connected side by side.
pub(crate) fn run(data: &[u8]) {
    if let [choice, operations @ ..] = data {
        simulator::run(&mut Bytes::new(operations), choice % 2 == 1, STEPS);
    }
}
