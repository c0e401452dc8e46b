//! [`Station`]: what the threads of a mailbox on PostgreSQL share, and how they say that something is wrong.
//!
//! Invariants: the log says once that trouble began and once that it ended, and holds no content; what has ended stays so;
//! nothing is sent that is not written down before `cluster.lock` says so.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::failure;
use super::fence::ServerLock;
use super::purging::PurgeRequest;
use super::tenure::{Ended, Tenure};
use crate::mailbox::shared::MailboxShared;
use crate::metrics::ServerMetrics;
use crate::postgres::{Address, FailureKind, PostgresError};

/// So long after a recovery what was sent before it has been written down.
const WRITTEN_DOWN: Duration = Duration::from_secs(1);

/// What the threads share.
pub(super) struct Station<C> {
    pub(super) shared: Arc<MailboxShared<C>>,
    pub(super) address: Address,
    pub(super) incarnation: i64,
    pub(super) metrics: Arc<ServerMetrics>,
    /// The highest batch that is known to be kept.
    pub(super) kept: AtomicI64,
    /// Bytes of the tables, when that was last looked at.
    pub(super) bytes: AtomicU64,
    /// Deleted rows that are still there, and for how long they have had to be, when that was last looked at.
    pub(super) dead_rows: AtomicU64,
    pub(super) oldest_snapshot_millis: AtomicU64,
    /// The last beat could not be kept: another server may take over.
    is_silent: AtomicBool,
    /// Locked as long as this is there.
    lock: Mutex<Note>,
    /// What operators have asked for and nobody has done yet.
    purges: Mutex<Vec<PurgeRequest>>,
    /// How often requests of operators have been forgotten: what was read before that may name them.
    forgotten: AtomicU64,
    ended: OnceLock<Ended>,
    stop: watch::Sender<bool>,
}

/// What `cluster.lock` says of this process.
struct Note {
    lock: ServerLock,
    /// Messages may have been sent of which the database does not say so.
    is_unwritten: bool,
    /// Since then nothing is sent like that.
    recovered: Option<Instant>,
}

impl<C> fmt::Debug for Station<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Station({})", self.incarnation)
    }
}

impl<C> Station<C> {
    pub(super) fn new(
        shared: Arc<MailboxShared<C>>,
        address: Address,
        incarnation: i64,
        metrics: Arc<ServerMetrics>,
        lock: ServerLock,
    ) -> Self {
        Self {
            shared,
            address,
            incarnation,
            metrics,
            kept: AtomicI64::new(0),
            bytes: AtomicU64::new(0),
            dead_rows: AtomicU64::new(0),
            oldest_snapshot_millis: AtomicU64::new(0),
            is_silent: AtomicBool::new(false),
            lock: Mutex::new(Note {
                lock,
                is_unwritten: false,
                recovered: None,
            }),
            purges: Mutex::default(),
            forgotten: AtomicU64::new(0),
            ended: OnceLock::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// Nothing can be written, or so it seems.
    pub(super) fn fail(&self, error: &PostgresError) {
        self.metrics.mailbox_failed(failure(error.kind()));
        let is_news = !self.refuse();
        if !is_news {
            return;
        }
        let advice = match error.kind() {
            FailureKind::Unreachable => "; look at the database server and the network",
            _ => "",
        };
        tracing::error!(
            "the mailbox in {} cannot be written: {error}{advice}. Until then messages are refused, what is in memory is \
             delivered, and it is tried again each second",
            self.address
        );
    }

    /// Has appends refused from now on, and nothing wait that can do without. Whether that was so.
    fn refuse(&self) -> bool {
        let is_new = self.begin_failing();
        let was_in_trouble = self.shared.trouble.swap(true, Ordering::Relaxed);
        if is_new && let Some(events) = self.shared.events() {
            events.failing();
        }
        was_in_trouble
    }

    /// Whether nothing was failing before.
    fn begin_failing(&self) -> bool {
        let mut note = self.note();
        if self.is_failing() {
            return false;
        }
        note.recovered = None;
        if !note.is_unwritten {
            note.is_unwritten = true;
            self.write_down(&note);
        }
        self.shared.failing.store(true, Ordering::Relaxed);
        true
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        self.lock.lock().expect("no code under this lock can panic")
    }

    fn write_down(&self, note: &Note) {
        if let Err(error) = note.lock.note(self.incarnation, note.is_unwritten) {
            tracing::warn!(%error, "cluster.lock in the data directory cannot be written; look at the disk");
        }
    }

    /// What became of a beat.
    pub(super) fn heard(&self, beat: Result<(), PostgresError>) {
        self.is_silent.store(beat.is_err(), Ordering::Relaxed);
        if let Err(error) = beat
            && !self.is_failing()
        {
            self.fail(&error);
        }
    }

    /// Something has been written: if the beat is kept too, what waits is kept, and if there is `room`, appends are taken again.
    pub(super) fn recover(&self, room: bool) {
        if self.is_silent.load(Ordering::Relaxed) || self.ended().is_some() {
            return;
        }
        if self.is_failing() {
            let mut note = self.note();
            note.recovered = Some(Instant::now());
            self.shared.failing.store(false, Ordering::Relaxed);
        }
        if room && self.shared.trouble.swap(false, Ordering::Relaxed) {
            tracing::info!("the mailbox can be written again; messages are taken again");
        }
    }

    /// What had come is written: a moment after a recovery also what was sent before that.
    pub(super) fn wrote_all(&self) {
        let mut note = self.note();
        let is_over = |at: Instant| at.elapsed() > WRITTEN_DOWN;
        if note.recovered.is_some_and(is_over) {
            (note.recovered, note.is_unwritten) = (None, false);
            self.write_down(&note);
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }

    /// Nothing is kept any more.
    pub(super) fn end(&self, why: Ended) {
        self.refuse();
        if self.ended.set(why).is_ok() {
            tracing::error!("the mailbox in {}: {why}", self.address);
        }
    }

    /// Ends it if a look at the database says that it has to. `kept` is the highest batch that was known to be kept before
    /// that look.
    pub(super) fn judge(&self, tenure: Tenure, kept: i64) -> Option<Ended> {
        tenure.ended(kept)?;
        // What has been kept since is gone too.
        let why = tenure.ended(self.kept.load(Ordering::Acquire))?;
        self.end(why);
        Some(why)
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.get().copied()
    }

    /// Requests of operators that are done have been forgotten, if there were `any`.
    pub(super) fn forgot(&self, any: bool) {
        self.forgotten.fetch_add(any.into(), Ordering::AcqRel);
    }

    /// To be asked before requests are read.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Adds what is not there yet of what was read after `forgotten`.
    pub(super) fn ask(&self, asked: Vec<PurgeRequest>, forgotten: u64) {
        let mut purges = self.purges();
        if self.forgotten() != forgotten {
            return;
        }
        for purge in asked {
            if !purges.contains(&purge) {
                purges.push(purge);
            }
        }
    }

    pub(super) fn take_purges(&self) -> Vec<PurgeRequest> {
        std::mem::take(&mut *self.purges())
    }

    fn purges(&self) -> MutexGuard<'_, Vec<PurgeRequest>> {
        self.purges
            .lock()
            .expect("no code under this lock can panic")
    }

    /// Ends what the reader and the watch wait for.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for that.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender is in `self`.
        drop(stop.wait_for(|&stop| stop).await);
    }
}
