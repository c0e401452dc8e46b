//! Operations of clients that send whatever they like: see `jam_testkit::hostile`.

use jam_testkit::hostile;
use jam_testkit::random::Bytes;

/// Operations in one run.
const STEPS: usize = 2000;

/// The first byte chooses whether the server is killed now and then, and started on what its store has kept.
pub(crate) fn run(data: &[u8]) {
    if let [choice, operations @ ..] = data {
        let run = [hostile::run, hostile::run_with_crashes][usize::from(choice % 2)];
        run(&mut Bytes::new(operations), STEPS);
    }
}
