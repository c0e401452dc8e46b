//! The thread that owns the connection by which the database is changed.
//!
//! A batch is what came while the last one was committed. One that the database refuses is rolled back: its appends are
//! rejected, the rest is tried again. One of which nobody knows what became (no answer within
//! [`COMMIT_TIMEOUT`](super::chain::COMMIT_TIMEOUT), a connection that broke, a COMMIT with a warning) is held as it is, with
//! its completions, until the chain says whether it is there; what comes meanwhile is refused.
//!
//! Of appends that the database has refused, for want of room as a rule, none is taken before one would be kept: that is tried
//! with one that goes as it comes. The rest is kept meanwhile.
//!
//! Invariants: no completion is called before the commit, or under a lock; they are called in the order of the calls; a batch
//! that is held is sent again unchanged, or found, and nothing is sent before that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jam_core::store::Completion;
use jam_core::timekeeping::ClockRecord;
use jam_wire::EncodeError;
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval};

use super::chain::{Chain, Commit, LastBatch, Link};
use super::error::failure;
use super::fence::{self, NODE};
use super::purging::PurgeRequest;
use super::rows::{self, BatchStatement};
use super::station::Station;
use super::tenure::Ended;
use super::watch::PURGE_INTERVAL;
use crate::mailbox::clock;
use crate::mailbox::pending::Pending;
use crate::mailbox::shared::{Batch, Waited};
use crate::mailbox::values::{self as val, EVERYTHING};
use crate::postgres::{FailureKind, PostgresError};

/// How often a database that could not be written is tried again.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How often it is tried whether there is room again.
pub(super) const ROOM_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes of the message by which it is tried whether there is room.
const TRIAL_BYTES: usize = 64 << 10;

/// How often a held batch is sent again that another connection seems to have sent.
const TRIES: u32 = 3;

/// A thread that waits for PostgreSQL says so often that it works.
const TURN_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct DatabaseWriter<C> {
    station: Arc<Station<C>>,
    runtime: Runtime,
    link: Option<Link>,
    chain: Chain,
    /// The next `in_flight.position`.
    position: i64,
    /// A batch of which nobody knows what became.
    held: Option<Held<C>>,
    /// What operators asked for and the router has done, until that is kept.
    purged: Vec<PurgeRequest>,
    /// What the database remembers of the clocks.
    clock: Option<ClockRecord>,
    /// The database has refused a batch; when it was last tried whether it takes a message.
    refused: Option<Instant>,
}

/// A batch and what was sent with it.
struct Held<C> {
    batch: Batch<C>,
    purged: Vec<PurgeRequest>,
    position: i64,
    began: Instant,
}

impl<C: Completion> DatabaseWriter<C> {
    pub(super) fn new(
        station: Arc<Station<C>>,
        runtime: Runtime,
        (link, chain): (Link, Chain),
        position: i64,
        clock: Option<ClockRecord>,
    ) -> Self {
        Self {
            station,
            runtime,
            link: Some(link),
            chain,
            position,
            held: None,
            purged: Vec::new(),
            clock,
            refused: None,
        }
    }

    /// Until the mailbox is dropped.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.station.shared);
        loop {
            shared.turns.fetch_add(1, Ordering::Relaxed);
            self.do_purges();
            let waited = if self.station.is_failing() {
                shared.refuse().into_iter().for_each(C::rejected);
                shared.wait_before_retry(PROBE_INTERVAL)
            } else {
                shared.wait_for_work(PURGE_INTERVAL)
            };
            let is_last = shared.is_stopping();
            if self.station.ended().is_some() {
                if is_last {
                    return;
                }
                continue;
            }
            let goes_on = match waited {
                Waited::Stop if self.held.is_none() => {
                    self.keep_clock(true);
                    self.leave();
                    return;
                }
                Waited::Idle if self.held.is_none() => {
                    self.keep_clock(false);
                    true
                }
                _ => self.write_all(),
            };
            if goes_on {
                self.station.wrote_all();
            }
            self.find_room();
            if !goes_on && is_last {
                tracing::error!("the mailbox stops without having kept everything");
                return;
            }
        }
    }

    /// Whether what is held, and then what waits, is kept.
    fn write_all(&mut self) -> bool {
        if let Some(held) = self.held.take()
            && !self.settle(held)
        {
            return false;
        }
        let batch = self.station.shared.take();
        self.write(batch)
    }

    /// Whether the batch is kept.
    fn write(&mut self, mut batch: Batch<C>) -> bool {
        batch.answer_unwritten();
        // Something has to be written to find out whether it can be.
        let is_needed =
            !batch.ops.is_idle() || self.station.is_failing() || !self.purged.is_empty();
        let held = Held {
            batch,
            purged: std::mem::take(&mut self.purged),
            position: self.position,
            began: Instant::now(),
        };
        if !is_needed {
            self.kept(held, false);
            return true;
        }
        match self.link() {
            Ok(()) => {}
            Err(error) => return self.refused(held, &error),
        }
        let outcome = self.send(&held);
        self.follow(held, outcome)
    }

    /// Has a connection, on which nothing is in doubt.
    fn link(&mut self) -> Result<(), PostgresError> {
        if self.link.as_ref().is_some_and(|link| !link.is_closed()) {
            return Ok(());
        }
        match self.open()? {
            // A batch that had been rolled back is not there, and none is held.
            LastBatch::Missing | LastBatch::There => Ok(()),
            LastBatch::Lost(batches) => Err(self.end(Ended::Lost(batches))),
            LastBatch::Fenced => Err(self.end(Ended::Fenced)),
        }
    }

    fn open(&mut self) -> Result<LastBatch, PostgresError> {
        let link = self.link.take();
        let (station, chain) = (Arc::clone(&self.station), &mut self.chain);
        let open = async {
            if let Some(link) = link {
                link.give_up().await;
            }
            Link::open(&station.address, chain).await
        };
        let (link, found) = waited(&self.runtime, &station, open)?;
        self.link = Some(link);
        Ok(found)
    }

    fn end(&self, why: Ended) -> PostgresError {
        self.station.end(why);
        PostgresError::new(FailureKind::Other, why.to_string())
    }

    /// Sends a batch on the connection that is there.
    fn send(&mut self, held: &Held<C>) -> Commit {
        let requests = match requests(held) {
            Ok((requests, position)) => {
                self.position = position;
                requests
            }
            // What came as a packet goes into one, so this is a defect; it must not look like a full disk.
            Err(error) => return Commit::Refused(defect(&error)),
        };
        let Some(link) = &self.link else {
            return Commit::Unknown(super::connection::no_answer(Duration::ZERO));
        };
        let commit = link.commit(&mut self.chain, requests, held.batch.ops.bytes());
        waited(&self.runtime, &self.station, commit)
    }

    /// Whether the batch is kept.
    fn follow(&mut self, held: Held<C>, outcome: Commit) -> bool {
        match outcome {
            Commit::Kept => {
                self.kept(held, true);
                true
            }
            Commit::Refused(error) => {
                if error.kind() == FailureKind::Busy {
                    self.give_up();
                }
                self.refused = Some(Instant::now());
                self.refused(held, &error)
            }
            Commit::Unknown(error) => {
                self.station.fail(&error);
                self.give_up();
                self.held = Some(held);
                false
            }
            Commit::Fenced => {
                self.end(Ended::Fenced);
                false
            }
        }
    }

    /// Nothing more is said on the connection: closing the socket is no cancel. The next one ends what is left of it.
    fn give_up(&mut self) {
        if let Some(link) = self.link.take() {
            self.runtime.block_on(link.give_up());
        }
    }

    /// Finds out what became of a batch, and has it kept. Whether it is.
    fn settle(&mut self, held: Held<C>) -> bool {
        for _ in 0..TRIES {
            let found = match self.open() {
                Ok(found) => found,
                Err(error) => {
                    self.station.fail(&error);
                    self.held = Some(held);
                    return false;
                }
            };
            let outcome = match found {
                LastBatch::Missing => self.send(&held),
                // It is kept if another batch is after it.
                LastBatch::There => self.send_empty(),
                LastBatch::Lost(batches) => {
                    self.end(Ended::Lost(batches));
                    return false;
                }
                LastBatch::Fenced => {
                    self.end(Ended::Fenced);
                    return false;
                }
            };
            match outcome {
                // Another connection has been faster, and has ended by now: look again.
                Commit::Unknown(error) if is_met_already(&error) => {}
                Commit::Refused(error) if found == LastBatch::There => {
                    // The batch itself is there, and stays.
                    self.station.fail(&error);
                    self.held = Some(held);
                    return false;
                }
                outcome => return self.follow(held, outcome),
            }
        }
        let error = PostgresError::new(
            FailureKind::Constraint,
            "a batch meets rows that are there already, though it is not there itself",
        );
        self.give_up();
        self.refused(held, &error)
    }

    /// A batch of no changes.
    fn send_empty(&mut self) -> Commit {
        let Some(link) = &self.link else {
            return Commit::Unknown(super::connection::no_answer(Duration::ZERO));
        };
        let commit = link.commit(&mut self.chain, Vec::new(), 0);
        waited(&self.runtime, &self.station, commit)
    }

    fn kept(&mut self, held: Held<C>, wrote: bool) {
        let shared = &self.station.shared;
        let Held {
            batch,
            purged,
            began,
            ..
        } = held;
        let upto = batch.upto();
        if wrote {
            self.station
                .kept
                .store(self.chain.kept(), Ordering::Release);
            self.station.forgot(!purged.is_empty());
            self.station
                .metrics
                .committed(batch.ops.changes(), began.elapsed());
            self.station.recover(self.refused.is_none());
            if let Some(record) = batch.clock {
                self.clock = Some(record);
                shared.clock_kept(record);
            }
        }
        shared.committed(batch.ops);
        batch
            .calls
            .into_iter()
            .filter_map(|call| call.completion)
            .for_each(C::committed);
        shared.completed(upto);
    }

    /// Has appends taken again that were refused, if one would be kept.
    fn find_room(&mut self) {
        let is_due = self
            .refused
            .is_some_and(|tried| tried.elapsed() >= ROOM_INTERVAL);
        if !is_due || self.station.is_failing() || self.station.ended().is_some() {
            return;
        }
        self.refused = Some(Instant::now());
        if let Err(error) = self.link() {
            return self.station.fail(&error);
        }
        let Some(link) = &self.link else { return };
        let trial = link.commit(&mut self.chain, rows::trial(TRIAL_BYTES), TRIAL_BYTES);
        match waited(&self.runtime, &self.station, trial) {
            Commit::Kept => {
                self.refused = None;
                self.station.recover(true);
            }
            Commit::Refused(error) => {
                self.station.metrics.mailbox_failed(failure(error.kind()));
                if error.kind() == FailureKind::Busy {
                    self.give_up();
                }
            }
            Commit::Fenced => drop(self.end(Ended::Fenced)),
            // If it is there, it has changed nothing, and the next connection finds it.
            Commit::Unknown(error) => {
                self.station.fail(&error);
                self.give_up();
            }
        }
    }

    /// The batch is not in the database, and never will be. `false`.
    fn refused(&mut self, held: Held<C>, error: &PostgresError) -> bool {
        self.station.fail(error);
        let Held {
            batch,
            purged,
            position,
            ..
        } = held;
        (self.purged, self.position) = (purged, position);
        let upto = batch.upto();
        let (rejected, nothing_waits) = self.station.shared.failed(batch);
        rejected.into_iter().for_each(C::rejected);
        if nothing_waits {
            self.station.shared.completed(upto);
        }
        false
    }

    /// Writes down what is to be remembered of the clocks when there is no batch to do it with.
    fn keep_clock(&mut self, is_last: bool) {
        let record = self.station.shared.state().clock;
        let is_news = |it: &ClockRecord| is_last || clock::is_news(it, self.clock.as_ref());
        if record.is_none_or(|record| !is_news(&record)) || self.link().is_err() {
            return;
        }
        let mut requests = Vec::new();
        if let Some(record) = &record {
            rows::clock(NODE, record, &mut requests);
        }
        let Some(link) = &self.link else { return };
        let commit = link.commit(&mut self.chain, requests, 0);
        match waited(&self.runtime, &self.station, commit) {
            Commit::Kept => {
                self.clock = record;
                record
                    .into_iter()
                    .for_each(|record| self.station.shared.clock_kept(record));
            }
            Commit::Fenced => drop(self.end(Ended::Fenced)),
            // If it is there, the next connection finds it, and nobody waits for it.
            Commit::Refused(error) | Commit::Unknown(error) => {
                self.station.fail(&error);
                self.give_up();
            }
        }
    }

    /// Has the router remove what operators want removed, and forgets the requests in the batch that keeps that: it is done
    /// once, and a crash undoes both or neither.
    fn do_purges(&mut self) {
        if self.station.ended().is_some() {
            return;
        }
        let Some(events) = self.station.shared.events() else {
            return;
        };
        let mut done = Vec::new();
        for purge in self.station.take_purges() {
            let held = self.held.iter().flat_map(|held| &held.purged);
            if self.purged.iter().chain(held).any(|it| *it == purge) {
                continue;
            }
            let (user, up_to) = (val::user(&purge.user), val::from_number(purge.up_to));
            let from = val::user(&purge.sender).ok();
            if let (Ok(user), Ok(up_to)) = (user, up_to) {
                if purge.sender == EVERYTHING {
                    events.end(&user, up_to);
                } else if from.is_some() || purge.sender.is_empty() {
                    events.purge(&user, up_to, from.as_ref());
                }
            }
            done.push(purge);
        }
        if done.is_empty() {
            return;
        }
        self.purged.append(&mut done);
        if !self.station.is_failing() && self.held.is_none() {
            let batch = self.station.shared.take();
            self.write(batch);
        }
    }

    /// The last thing: the next start does not have to wait.
    fn leave(&mut self) {
        let Some(link) = self.link.take() else { return };
        let me = self.chain.incarnation;
        self.runtime.block_on(async {
            if let Err(error) = fence::leave(link.database(), me).await {
                tracing::debug!(%error, "the next start waits for some seconds");
            }
            link.close().await;
        });
    }
}

/// What is sent is there, or what comes after it.
fn is_met_already(error: &PostgresError) -> bool {
    matches!(error.kind(), FailureKind::Raised | FailureKind::Constraint)
}

/// What comes of it; the thread is seen to work meanwhile.
fn waited<C, T>(runtime: &Runtime, station: &Station<C>, what: impl Future<Output = T>) -> T {
    runtime.block_on(async {
        let mut what = std::pin::pin!(what);
        let mut turn = interval(TURN_INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                came = &mut what => return came,
                _ = turn.tick() => {
                    station.shared.turns.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    })
}

fn requests<C>(held: &Held<C>) -> Result<(Vec<BatchStatement<'_>>, i64), EncodeError> {
    let ops: &Pending<C> = &held.batch.ops;
    let (mut requests, position) = rows::requests(ops, held.position)?;
    rows::forget(&held.purged, &mut requests);
    if let Some(record) = &held.batch.clock {
        rows::clock(NODE, record, &mut requests);
    }
    Ok((requests, position))
}

fn defect(error: &EncodeError) -> PostgresError {
    PostgresError::new(
        FailureKind::Other,
        format!("a message cannot be encoded: {error}"),
    )
}
