//! `bench idle`: clients connect with a session and a subscription, and then do nothing.

use std::time::{Duration, Instant};

use super::report::Stopwatch;
use super::swarm::{Handshake, IDLE, Swarm};
use super::{BenchError, Plan, Report};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Idle {
    /// How many clients.
    pub(crate) connections: usize,
    /// How long they stay.
    pub(crate) hold: Duration,
}

/// Runs the workload: the stages `connect` and `hold`.
pub(crate) fn run(plan: &Plan, work: &Idle) -> Result<Report, BenchError> {
    let mut swarm = Swarm::new(plan, plan.roster.take(work.connections)?)?;
    let everybody: Vec<usize> = (0..swarm.len()).collect();
    let stay = Handshake {
        clean: false,
        subscribe: true,
    };
    let watch = Stopwatch::start("connect", plan)?;
    swarm.connect(&everybody, stay)?;
    let connect = watch.stop(work.connections as u64, None)?;
    let watch = Stopwatch::start("hold", plan)?;
    let begun = Instant::now();
    while begun.elapsed() < work.hold {
        swarm.turn(IDLE);
        let (done, all) = (begun.elapsed().as_secs(), work.hold.as_secs());
        swarm
            .progress
            .show("hold", done, all, || format!("{done} of {all} s"));
    }
    let hold = watch.stop(work.connections as u64, None)?;
    let books = swarm.close_books();
    Ok(Report::new(
        "idle",
        plan,
        swarm.len(),
        vec![connect, hold],
        books,
    ))
}
