//! Operations of clients that send whatever they like: see `jam_testkit::hostile`.

use jam_testkit::hostile;
use jam_testkit::random::Bytes;

/// Operations in one run.
const STEPS: usize = 2000;

pub(crate) fn run(data: &[u8]) {
    hostile::run(&mut Bytes::new(data), STEPS);
}
