//! `bench reconnect`: all clients lose their connections at once and come back, over and over.
//!
//! After each storm every first of a pair writes to its friend, which shows that sessions and
//! subscriptions are as they were.

use super::report::Stopwatch;
use super::swarm::{Handshake, Swarm};
use super::{BenchError, Plan, Report};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Reconnect {
    /// How many pairs.
    pub(crate) pairs: usize,
    /// How often they go and come back.
    pub(crate) rounds: u32,
}

/// Runs the workload: a stage `reconnect` over all rounds.
pub(crate) fn run(plan: &Plan, work: &Reconnect) -> Result<Report, BenchError> {
    let mut swarm = Swarm::new(plan, plan.roster.take(2 * work.pairs)?)?;
    let everybody: Vec<usize> = (0..swarm.len()).collect();
    let senders: Vec<usize> = everybody.iter().copied().step_by(2).collect();
    for sender in &senders {
        swarm.employ(*sender, 1, true)?;
    }
    let subscribe = Handshake {
        clean: false,
        subscribe: true,
    };
    let resume = Handshake {
        subscribe: false,
        ..subscribe
    };
    swarm.connect(&everybody, subscribe)?;
    let watch = Stopwatch::start("reconnect", plan)?;
    for _ in 0..work.rounds {
        swarm.drop_links(&everybody);
        swarm.connect(&everybody, resume)?;
        for sender in &senders {
            swarm.stock(*sender, 1);
        }
        swarm.settle();
    }
    let count = everybody.len() as u64 * u64::from(work.rounds);
    let stage = watch.stop(count, Some(&swarm.latency))?;
    let books = swarm.close_books();
    Ok(Report::new(
        "reconnect",
        plan,
        swarm.len(),
        vec![stage],
        books,
    ))
}
