//! Where messages and sessions are kept.
//!
//! # Layout
//!
//! - [`MailboxStore`]: what a store is asked for, from the start to the end. [`StoreEvents`]: what it says by itself.
//! - `writes`: the changes that it keeps. `records`: what stands in it, and what is found when it is opened.
//!
//! The promise of PROTOCOL.md, section 7.1, is made here: what must survive goes through
//! [`MailboxStore::write`], and whatever is said to a client because of it waits for the [`Completion`].
//!
//! Invariants: the writes of one call are atomic, and calls are committed in their order; all that a store knows of a
//! completion is when to call it; each call names the user that it is about.

mod records;
mod writes;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ids::UserId;
use crate::message::Message;
use crate::time::Time;
use crate::timekeeping::ClockRecord;

pub use records::{
    Append, OwnerRecord, PushRecord, Recovered, RecoveredClaim, RecoveredEntry, RetainedTopic,
    SessionRecord, Subscription, WillRecord,
};
pub use writes::{OutboundState, OutboundStates, Write, Writes, is_refusable};

/// The place of a message in the order of all messages. Never 0, never used twice, ascending in each log.
pub type Seq = u64;

/// A session that outlives its connections. From the same numbers as [`Seq`].
pub type SessionId = u64;

/// A will that is due. From the same numbers as [`Seq`].
pub type WillId = u64;

/// Where the numbers come from: messages, sessions and wills share one sequence.
#[derive(Debug)]
pub struct Sequence(AtomicU64);

impl Default for Sequence {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Sequence {
    /// The next number. For an entry of a log it is taken under the lock of the log's user: the numbers of a log ascend.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// No number that is still to come is smaller.
    pub(crate) fn upcoming(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Every number up to and with `last` has been used before.
    pub fn skip_to(&self, last: u64) {
        self.0.fetch_max(last + 1, Ordering::Relaxed);
    }
}

/// What to do with messages that have been read: those that are gone are missing.
pub type OnLoaded = Box<dyn FnOnce(Vec<(Seq, Arc<Message>)>) + Send>;

/// What follows when the writes of a call are committed. Dropping it uncalled is safe: the client retransmits.
pub trait Completion: fmt::Debug + Send + Sync + 'static {
    /// The writes are durable, or obsolete.
    fn committed(self);

    /// The call could not be committed and is given up ([`is_refusable`]).
    fn rejected(self);
}

/// What a store says that it cannot do, in words that say what to do about it.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// What a store reports by itself, from a thread of its own, while it holds no lock.
pub trait StoreEvents: Send + Sync {
    /// The operator wants a user's messages removed up to and with a number, of one sender if there is `from`: those that
    /// are still there are to be.
    fn purge(&self, user: &UserId, up_to: Seq, from: Option<&UserId>);

    /// The operator wants everything of a user removed, up to and with a number.
    fn end(&self, user: &UserId, up_to: Seq);

    /// Writing fails from now on: what can go on without the store does.
    fn failing(&self);
}

/// How a store is doing, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreGauges {
    /// Bytes that wait to be kept.
    pub pending_bytes: u64,
    /// When the oldest message was received, retained ones apart; a few seconds old.
    pub oldest: Option<Time>,
    /// Rows that are deleted and not cleared away yet, in a store that leaves that for later.
    pub dead_rows: u64,
    /// For how long such a store has had to keep deleted rows for somebody who may still see them.
    pub oldest_snapshot: Duration,
}

/// What a store takes where it is, and what is left there; 0 where that is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUse {
    /// Bytes of what it keeps.
    pub bytes: u64,
    /// Bytes of the log of changes beside that.
    pub log_bytes: u64,
    /// Bytes that may still be written.
    pub available_bytes: u64,
}

/// Keeps messages and sessions.
///
/// A store is opened, by a function of its own, and gives what it has found ([`Recovered`]); the entries of the logs are
/// read next, then it is attached, then used. At the end it is flushed; dropping it closes it.
///
/// While it is used its methods queue and return, for they are called under a lock. Those that wait for I/O are for
/// operators, and say so.
pub trait MailboxStore<C: Completion>: Send + Sync + fmt::Debug {
    /// Reads what is to be known of each message of the logs, in any order, from any threads; before anything is written.
    /// How many there are.
    ///
    /// # Errors
    /// What was read is then not all there is.
    fn recover_entries(&self, take: &(dyn Fn(RecoveredEntry) + Sync)) -> Result<usize, StoreError>;

    /// What the store reports its events to. Called once, when everything is recovered; until then events wait, or for
    /// the next start.
    fn attach(&self, events: Box<dyn StoreEvents>);

    /// Keeps the writes, then calls the completion, which is after this has returned. Called under the lock of `user`: all
    /// writes are about that user, except those that name another: the order of calls about a user is the order of what
    /// happened to them.
    ///
    /// A call with a [`Write::Append`] is rejected as a whole when it cannot be committed, unless it also changes what is
    /// retained ([`is_refusable`]); any other is tried again until it can be.
    fn write(&self, user: &UserId, writes: Writes, completion: Option<C>);

    /// Reads messages of a user's log, kept or about to be, and hands them over in the order of `seqs`.
    fn load(&self, user: &UserId, seqs: Vec<Seq>, then: OnLoaded);

    /// Called after the lock is free: the time for a store in memory to call its completions.
    fn settle(&self) {}

    /// Whether sessions have ended whose end is still to be kept: a crash would bring them back.
    fn is_ending_sessions(&self) -> bool {
        false
    }

    /// Whether anything can be kept at the moment. If not, what can go on without the store does.
    fn is_writable(&self) -> bool {
        self.accepts()
    }

    /// Whether appends can be kept at the moment; if not, they are refused before they are tried.
    fn accepts(&self) -> bool {
        true
    }

    /// How often the thread that writes has come round, which goes on as long as it works, whether there is anything to
    /// write or not, and whether it can be written. `None`: the store has no such thread.
    fn turns(&self) -> Option<u64> {
        None
    }

    /// Why nothing can be kept any more however long one waits: another server has what is kept, or part of it is lost. The
    /// process is to end and start anew.
    fn ended(&self) -> Option<StoreError> {
        None
    }

    /// How the store is doing.
    fn gauges(&self) -> StoreGauges {
        StoreGauges::default()
    }

    /// When messages of users' logs were received, rounded down to a millisecond, as far as the store has them. Waits for
    /// the disk.
    ///
    /// # Errors
    /// If it cannot be read.
    fn received_at(&self, messages: &[(UserId, Seq)]) -> Result<Vec<(Seq, Time)>, StoreError>;

    /// What it takes and what is left. Waits for the disk.
    fn disk_use(&self) -> DiskUse {
        DiskUse::default()
    }

    /// Has this remembered of the clocks, some time soon and at the end: the next start finds it.
    fn keep_clock(&self, record: ClockRecord);

    /// Waits until everything written before is kept, rejected, or obsolete, and its completions are called; at most
    /// `timeout`. Whether it is.
    fn flush(&self, timeout: Duration) -> bool;
}
