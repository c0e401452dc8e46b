//! `bench pairs`: friends write to each other's inboxes, as fast as their windows allow or at a rate.
//!
//! At a rate (open loop) latency counts from when a message was due, not from when there was room for
//! it, so that a broker that stalls is charged for everything that had to wait.

use std::time::{Duration, Instant};

use super::report::Stopwatch;
use super::swarm::{Handshake, IDLE, Swarm};
use super::{BenchError, Plan, Report};

/// How many messages of one sender may be under way at a rate.
const OPEN_LOOP_WINDOW: u64 = 1000;

/// Messages of one sender that are due and wait for room; beyond it the broker does not keep up.
const LATE_AT_MOST: u64 = 100_000;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Pairs {
    /// How many pairs.
    pub(crate) pairs: usize,
    /// Messages of one sender that may be under way.
    pub(crate) window: u64,
    /// Messages a second of all senders; none is as fast as the windows allow.
    pub(crate) rate: Option<u64>,
    /// Whether both of a pair write, or only the first.
    pub(crate) both: bool,
    /// How long is measured.
    pub(crate) time: Duration,
    /// How long messages go before it is measured.
    pub(crate) warmup: Duration,
    /// Messages of all senders at most.
    pub(crate) messages: u64,
}

/// Runs the workload.
pub(crate) fn run(plan: &Plan, work: &Pairs) -> Result<Report, BenchError> {
    let mut swarm = Swarm::new(plan, plan.roster.take(2 * work.pairs)?)?;
    let everybody: Vec<usize> = (0..swarm.len()).collect();
    let senders: Vec<usize> = match work.both {
        true => everybody.clone(),
        false => everybody.iter().copied().step_by(2).collect(),
    };
    let window = work.rate.map_or(work.window, |_| OPEN_LOOP_WINDOW);
    for sender in &senders {
        swarm.employ(*sender, window, true)?;
    }
    let how = Handshake {
        clean: true,
        subscribe: true,
    };
    swarm.connect(&everybody, how)?;

    let mut source = Source::new(work, &senders, &mut swarm);
    source.run(&mut swarm, "warming up", work.warmup)?;
    swarm.latency.reset();
    let (before, watch) = (swarm.ledger.delivered, Stopwatch::start("messages", plan)?);
    source.run(&mut swarm, "messages", work.time)?;
    let stage = watch.stop(swarm.ledger.delivered - before, Some(&swarm.latency))?;
    source.stop(&mut swarm);
    swarm.settle();
    let books = swarm.close_books();
    Ok(Report::new("pairs", plan, swarm.len(), vec![stage], books))
}

/// Where the messages come from.
struct Source<'a> {
    senders: &'a [usize],
    limit: u64,
    /// Nanoseconds between two messages; none at the windows' own pace.
    pace: Option<Pace>,
}

/// An even pace over all senders in turn.
struct Pace {
    rate: u64,
    begun: u64,
    released: u64,
}

impl<'a> Source<'a> {
    fn new(work: &Pairs, senders: &'a [usize], swarm: &mut Swarm<'_>) -> Self {
        if work.rate.is_none() {
            for (at, sender) in (0..).zip(senders) {
                swarm.stock(*sender, share(work.messages, senders.len() as u64, at));
            }
        }
        Self {
            senders,
            limit: work.messages,
            pace: work.rate.map(|rate| Pace {
                rate,
                begun: swarm.now(),
                released: 0,
            }),
        }
    }

    /// Lets messages go for so long.
    fn run(
        &mut self,
        swarm: &mut Swarm<'_>,
        stage: &str,
        time: Duration,
    ) -> Result<(), BenchError> {
        let begun = Instant::now();
        let before = swarm.ledger.delivered;
        // At a rate it never sleeps: the poll's shortest sleep is longer than the pace of a busy load.
        let pause = if self.pace.is_some() {
            Duration::ZERO
        } else {
            IDLE
        };
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= time || (self.pace.is_none() && swarm.is_done()) {
                return Ok(());
            }
            self.release(swarm)?;
            swarm.turn(pause);
            let delivered = swarm.ledger.delivered - before;
            let (done, all) = (millis(elapsed), millis(time));
            swarm.progress.show(stage, done, all, || {
                format!("{:.0} messages/s", delivered as f64 / elapsed.as_secs_f64())
            });
        }
    }

    fn release(&mut self, swarm: &mut Swarm<'_>) -> Result<(), BenchError> {
        let Some(pace) = &mut self.pace else {
            return Ok(());
        };
        let senders = self.senders.len() as u64;
        let passed = u128::from(swarm.now() - pace.begun);
        let due = passed * u128::from(pace.rate) / 1_000_000_000 + 1; // the first one at once
        let due = u64::try_from(due).unwrap_or(u64::MAX).min(self.limit);
        while pace.released < due {
            let time = pace.begun + pace.released * 1_000_000_000 / pace.rate;
            let turn = usize::try_from(pace.released % senders).expect("less than a length");
            swarm.push_due(self.senders[turn], time);
            pace.released += 1;
        }
        if pace.released - swarm.ledger.sent > LATE_AT_MOST {
            return Err(BenchError::new(format!(
                "the broker does not keep up with {} messages a second; lower --rate",
                pace.rate
            )));
        }
        Ok(())
    }

    /// Nothing more is sent but what was due.
    fn stop(&self, swarm: &mut Swarm<'_>) {
        if self.pace.is_none() {
            for sender in self.senders {
                swarm.stock(*sender, 0);
            }
        }
    }
}

/// The part of the sender at `at` of so many messages.
pub(super) fn share(messages: u64, senders: u64, at: u64) -> u64 {
    messages / senders + u64::from(at < messages % senders)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
