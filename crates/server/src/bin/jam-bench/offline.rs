//! `bench offline`: messages to receivers that are away, then the receivers come and get them.
//!
//! The receivers have been there once, with a session and a subscription, so that brokers that keep
//! messages for sessions only keep these.

use std::time::Instant;

use super::pairs::share;
use super::report::Stopwatch;
use super::swarm::{Handshake, IDLE, Swarm};
use super::{BenchError, Plan, Report};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Offline {
    /// How many pairs.
    pub(crate) pairs: usize,
    /// Messages of one sender that may be unacknowledged.
    pub(crate) window: u64,
    /// Messages of all senders.
    pub(crate) messages: u64,
}

/// Runs the workload: the stages `enqueue` and `drain`.
pub(crate) fn run(plan: &Plan, work: &Offline) -> Result<Report, BenchError> {
    if plan.qos as u8 == 0 {
        return Err(BenchError::new(
            "messages of QoS 0 wait for nobody; give --qos 1 or 2",
        ));
    }
    let mut swarm = Swarm::new(plan, plan.roster.take(2 * work.pairs)?)?;
    let senders: Vec<usize> = (0..swarm.len()).step_by(2).collect();
    let receivers: Vec<usize> = senders.iter().map(|sender| sender + 1).collect();
    let stay = Handshake {
        clean: false,
        subscribe: true,
    };
    swarm.connect(&receivers, stay)?;
    swarm.drop_links(&receivers);
    for (at, sender) in (0..).zip(&senders) {
        swarm.employ(*sender, work.window, false)?;
        swarm.stock(*sender, share(work.messages, work.pairs as u64, at));
    }
    let watch = Stopwatch::start("enqueue", plan)?;
    let leave = Handshake {
        clean: true,
        subscribe: false,
    };
    swarm.connect(&senders, leave)?;
    run_until(&mut swarm, "enqueue", work.messages, |swarm| {
        swarm.ledger.acknowledged
    });
    let enqueue = watch.stop(swarm.ledger.acknowledged, None)?;

    swarm.wait_for_arrival(true);
    let watch = Stopwatch::start("drain", plan)?;
    swarm.connect(&receivers, stay)?;
    let wanted = swarm.ledger.acknowledged - swarm.ledger.refused;
    run_until(&mut swarm, "drain", wanted, |swarm| swarm.ledger.delivered);
    let drain = watch.stop(swarm.ledger.delivered, None)?;
    let books = swarm.close_books();
    Ok(Report::new(
        "offline",
        plan,
        swarm.len(),
        vec![enqueue, drain],
        books,
    ))
}

/// Runs until the count is there, or has not moved for the plan's patience.
fn run_until(swarm: &mut Swarm<'_>, stage: &str, wanted: u64, count: impl Fn(&Swarm<'_>) -> u64) {
    let mut before = count(swarm);
    let mut moved = Instant::now();
    while before < wanted && moved.elapsed() < swarm.plan.patience {
        swarm.turn(IDLE);
        let now = count(swarm);
        if now != before {
            (before, moved) = (now, Instant::now());
        }
        swarm
            .progress
            .show(stage, now, wanted, || format!("{now} of {wanted}"));
    }
}
