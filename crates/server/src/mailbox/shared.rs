//! What the callers of the mailbox and its two threads share.
//!
//! Invariants: [`State`] is locked for memory work only, never for I/O and never while a completion
//! is called; whatever was pushed is in `pending`, in `committing` or in the file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use jam_core::message::Message;
use jam_core::store::{Completion, OnLoaded, Seq, StoreEvents, StoreGauges, Writes};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;

use super::kept::Kept;
use super::pending::{Call, Pending};

/// Bytes of memory that may wait for a commit before appends are refused.
pub const MAX_PENDING_BYTES: usize = 256 << 20;

/// Messages to read, and who wants them.
pub(super) struct Load {
    /// The part of the user in whose log they are; 0 in a kind of store that has no parts.
    pub(super) part: u16,
    pub(super) seqs: Vec<Seq>,
    pub(super) then: OnLoaded,
    /// How often it has been tried in vain.
    pub(super) tries: u32,
    pub(super) not_before: Option<Instant>,
}

/// A batch and its calls, out of the buffer.
pub(super) struct Batch<C> {
    pub(super) ops: Arc<Pending<C>>,
    pub(super) calls: Vec<Call<C>>,
    pub(super) early: Vec<C>,
    /// Completions of appends that came too late: the disk is in trouble.
    pub(super) refused: Vec<C>,
    pub(super) clock: Option<ClockRecord>,
    /// How many calls had been pushed when it was taken.
    upto: u64,
}

#[derive(Debug)]
pub(super) struct State<C> {
    pub(super) pending: Pending<C>,
    committing: Option<Arc<Pending<C>>>,
    pub(super) kept: Kept,
    /// What is to be remembered of the clocks, if it is not in the file yet.
    pub(super) clock: Option<ClockRecord>,
    /// An empty buffer with room.
    spare: Pending<C>,
    /// The writer waits for work.
    asleep: bool,
    /// Nothing more will be pushed.
    stopping: bool,
    /// Calls ever pushed, and those of them that are kept, rejected, or no longer needed.
    pushed: u64,
    done: u64,
}

#[derive(Debug)]
pub(super) struct MailboxShared<C> {
    state: Mutex<State<C>>,
    work: Condvar,
    progress: Condvar,
    loads: Mutex<Loads>,
    more_loads: Condvar,
    /// Appends are refused: there is no room on the disk, or the last commit failed.
    pub(super) trouble: AtomicBool,
    /// The last commit failed.
    pub(super) failing: AtomicBool,
    crowded: AtomicBool,
    early: AtomicUsize,
    /// When the oldest message in the file was received, when that was last looked at; 0: there was none.
    pub(super) oldest: AtomicU64,
    ending: AtomicBool,
    /// How often the writer has come round.
    pub(super) turns: AtomicU64,
    /// Where events are reported.
    pub(super) events: OnceLock<EventSink>,
}

/// Where events are reported.
pub(super) struct EventSink(pub(super) Box<dyn StoreEvents>);

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

/// The router asks for one load of a connection at a time, so there are at most as many as connections.
#[derive(Default)]
struct Loads {
    queue: VecDeque<Load>,
    stopping: bool,
}

impl std::fmt::Debug for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loads({})", self.queue.len())
    }
}

impl<C> MailboxShared<C> {
    pub(super) fn new(kept: Kept) -> Self {
        Self {
            state: Mutex::new(State {
                pending: Pending::default(),
                committing: None,
                kept,
                clock: None,
                spare: Pending::default(),
                asleep: false,
                stopping: false,
                pushed: 0,
                done: 0,
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            loads: Mutex::default(),
            more_loads: Condvar::new(),
            trouble: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            early: AtomicUsize::new(0),
            oldest: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            events: OnceLock::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state
            .lock()
            .expect("no code under this lock can panic")
    }

    /// Takes a call about a user in `part`.
    pub(super) fn push(&self, part: u16, writes: Writes, completion: Option<C>) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.pending.push(&state.kept, part, writes, completion);
        state.pushed += 1;
        self.publish_flags(state);
        let wake = std::mem::take(&mut state.asleep);
        drop(guard);
        if wake {
            self.work.notify_one();
        }
    }

    /// Publishes what is read often, so that reading it needs no lock.
    fn publish_flags(&self, state: &State<C>) {
        let State {
            pending,
            committing,
            ..
        } = state;
        self.early.store(pending.early(), Ordering::Relaxed);
        let crowded = pending.bytes() > MAX_PENDING_BYTES;
        self.crowded.store(crowded, Ordering::Relaxed);
        let ends = pending.ends() + committing.as_ref().map_or(0, |batch| batch.ends());
        self.ending.store(ends > 0, Ordering::Relaxed);
    }

    /// Whether sessions have ended of which the file does not say so yet.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn is_writable(&self) -> bool {
        !self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn accepts(&self) -> bool {
        !self.trouble.load(Ordering::Relaxed) && !self.crowded.load(Ordering::Relaxed)
    }

    pub(super) fn events(&self) -> Option<&dyn StoreEvents> {
        self.events.get().map(|events| &*events.0)
    }

    /// Waits until what was pushed before is kept, rejected or no longer needed, and its completions have been
    /// called. Whether it is.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let state = self.state();
        let upto = state.pushed;
        let (_state, outcome) = self
            .progress
            .wait_timeout_while(state, timeout, |state| state.done < upto)
            .expect("no code under this lock can panic");
        !outcome.timed_out()
    }

    /// Waits until there is a batch, at most for `patience`.
    pub(super) fn wait_for_work(&self, patience: Duration) -> Waited {
        let (mut state, _) = self
            .work
            .wait_timeout_while(self.state(), patience, |state| {
                // Each time: what woke it may leave nothing to write, and the next `push` is to wake it too.
                state.asleep = state.pending.is_empty() && !state.stopping;
                state.asleep
            })
            .expect("no code under this lock can panic");
        state.asleep = false;
        match (state.pending.is_empty(), state.stopping) {
            (false, _) => Waited::Work,
            (true, false) => Waited::Idle,
            (true, true) => Waited::Stop,
        }
    }

    /// Waits for all of `pause` before the next try, whatever comes meanwhile; only a stop cuts it short.
    pub(super) fn wait_before_retry(&self, pause: Duration) -> Waited {
        let (state, _) = self
            .work
            .wait_timeout_while(self.state(), pause, |state| !state.stopping)
            .expect("no code under this lock can panic");
        if state.stopping && state.pending.is_empty() {
            Waited::Stop
        } else {
            Waited::Work
        }
    }

    pub(super) fn gauges(&self) -> StoreGauges {
        let state = self.state();
        let committing = state.committing.as_ref().map_or(0, |ops| ops.bytes());
        StoreGauges {
            pending_bytes: (state.pending.bytes() + committing) as u64,
            oldest: match self.oldest.load(Ordering::Relaxed) {
                0 => None,
                millis => Some(Time::from_millis(millis)),
            },
            ..StoreGauges::default()
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Takes what waits, as one batch; in trouble without the appends: those that came before have been refused, and a message
    /// is not kept before an earlier one of its sender, which comes again (PROTOCOL.md, section 7.3).
    pub(super) fn take(&self) -> Batch<C> {
        let mut guard = self.state();
        let state = &mut *guard;
        let refused = if self.trouble.load(Ordering::Relaxed) {
            state.pending.refuse(&mut state.kept)
        } else {
            Vec::new()
        };
        let spare = std::mem::take(&mut state.spare);
        let mut batch = std::mem::replace(&mut state.pending, spare);
        batch.note(&mut state.kept);
        let (calls, early) = (batch.take_calls(), batch.take_early());
        let ops = Arc::new(batch);
        state.committing = Some(Arc::clone(&ops));
        self.publish_flags(state);
        Batch {
            ops,
            calls,
            early,
            refused,
            clock: state.clock,
            upto: state.pushed,
        }
    }

    /// Takes the appends that wait, to be refused at once: nothing can be written, and nobody knows for how long.
    pub(super) fn refuse(&self) -> Vec<C> {
        let mut guard = self.state();
        let state = &mut *guard;
        let refused = state.pending.refuse(&mut state.kept);
        self.publish_flags(state);
        refused
    }

    /// The record is in the file, unless there is a newer one.
    pub(super) fn clock_kept(&self, record: ClockRecord) {
        let mut state = self.state();
        state.clock = state.clock.filter(|newest| *newest != record);
    }

    /// The batch is in the file.
    pub(super) fn committed(&self, ops: Arc<Pending<C>>) {
        self.state().committing = None;
        // Usually the reader does not hold it: the room is used again, and messages end out of the lock.
        let spare = Arc::try_unwrap(ops).map(|mut ops| {
            ops.clear();
            ops
        });
        let mut state = self.state();
        if let Ok(spare) = spare {
            state.spare = spare;
        }
        self.publish_flags(&state);
    }

    /// The completions of the first `upto` calls have been called.
    pub(super) fn completed(&self, upto: u64) {
        let mut state = self.state();
        state.done = state.done.max(upto);
        drop(state);
        self.progress.notify_all();
    }

    /// The batch is not in the file. What can be tried again waits again, before what came since. Says what is to be
    /// rejected, and whether nothing waits.
    pub(super) fn failed(&self, batch: Batch<C>) -> (Vec<C>, bool) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.committing = None;
        let (mut again, rejected) = batch.ops.retry(batch.calls, &mut state.kept);
        again.absorb(&state.kept, std::mem::take(&mut state.pending));
        state.pending = again;
        self.publish_flags(state);
        (rejected, state.pending.is_empty())
    }

    /// Messages that are not in the file yet, and those that will not be; the rest is in the file.
    pub(super) fn in_memory(&self, seqs: &[Seq]) -> Vec<(Seq, Whereabouts)> {
        let state = self.state();
        let places = [Some(&state.pending), state.committing.as_deref()];
        let find = |seq| {
            let mut places = places.iter().flatten();
            places
                .find_map(|place| {
                    let message = place
                        .message(seq)
                        .map(|message| Whereabouts::Here(message.clone()));
                    message.or_else(|| place.removes(seq).then_some(Whereabouts::Gone))
                })
                .unwrap_or(Whereabouts::InFile)
        };
        seqs.iter().map(|&seq| (seq, find(seq))).collect()
    }

    pub(super) fn push_load(&self, load: Load) {
        let mut loads = self.loads();
        loads.queue.push_back(load);
        drop(loads);
        self.more_loads.notify_one();
    }

    /// The loads that are due, after waiting for one; `None` when there will be none.
    pub(super) fn take_loads(&self) -> Option<Vec<Load>> {
        let mut loads = self.loads();
        loop {
            if loads.stopping {
                return None;
            }
            let now = Instant::now();
            let is_due = |load: &Load| load.not_before.is_none_or(|at| at <= now);
            let (due, rest): (VecDeque<_>, _) = std::mem::take(&mut loads.queue)
                .into_iter()
                .partition(is_due);
            loads.queue = rest;
            if !due.is_empty() {
                return Some(due.into());
            }
            let next = loads.queue.iter().filter_map(|load| load.not_before).min();
            let patience = next.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
            let wait = self
                .more_loads
                .wait_timeout(loads, patience.min(Duration::from_secs(3600)));
            loads = wait.expect("no code under this lock can panic").0;
        }
    }

    pub(super) fn stop_reading(&self) {
        self.loads().stopping = true;
        self.more_loads.notify_all();
    }

    pub(super) fn stop_writing(&self) {
        self.state().stopping = true;
        self.work.notify_all();
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        self.loads
            .lock()
            .expect("no code under this lock can panic")
    }
}

impl<C: Completion> MailboxShared<C> {
    /// Completes calls that have become obsolete.
    pub(super) fn complete_early(&self) {
        if self.early.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut state = self.state();
        let early = state.pending.take_early();
        self.early.store(0, Ordering::Relaxed);
        drop(state);
        early.into_iter().for_each(C::committed);
    }
}

impl<C> Batch<C> {
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }
}

impl<C: Completion> Batch<C> {
    /// Answers those of whom nothing is written any more.
    pub(super) fn answer_unwritten(&mut self) {
        self.early.drain(..).for_each(C::committed);
        self.refused.drain(..).for_each(C::rejected);
    }
}

/// What became of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is a batch.
    Work,
    /// There was nothing for the whole time.
    Idle,
    /// There will be nothing more.
    Stop,
}

/// Where a message is.
#[derive(Debug)]
pub(super) enum Whereabouts {
    Here(Arc<Message>),
    InFile,
    Gone,
}

#[cfg(test)]
mod tests;
