//! [`PostgresShared`]: what is in memory of the database, whether it may be believed now, and the connections.
//!
//! Memory is believed for [`LEASE`] after a query was sent that has been answered over the connection that LISTENs: a
//! notification of what had been committed before comes before that answer. So a change is in force within [`LEASE`] whatever becomes
//! of the connection, and as a rule as soon as its notification arrives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use super::super::cache::Cache;
use super::DirectoryError;
use super::session::ServerSession;
use crate::metrics::{ServerMetrics, StoreFailure};

/// How old the question may be whose answer memory is believed by (PROTOCOL.md, section 6: within a second).
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// From here on a database that has not answered counts as silent: questions are not waited for any more.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// What look-ups and the directory's thread both use.
pub(super) struct PostgresShared {
    pub(super) cache: Arc<Cache>,
    /// `None` while there is no connection.
    pub(super) session: watch::Sender<Option<Arc<ServerSession>>>,
    /// When the last query was sent that was answered, in microseconds of [`now`]; of what the latest begin of a session was.
    looked: AtomicU64,
    /// When the database last answered anything, in microseconds of [`now`].
    heard: AtomicU64,
    /// Changes with each answer: the time at which its question was sent.
    pub(super) answered: watch::Sender<u64>,
    /// Somebody waits for the next answer.
    pub(super) wanted: Notify,
    /// Statements may be of tables that are others by now.
    pub(super) stale: Notify,
    /// How often another database was found.
    pub(super) replacements: AtomicU64,
    /// Why there is no connection.
    trouble: Mutex<Option<DirectoryError>>,
    /// What a server counts in.
    pub(super) metrics: OnceLock<Arc<ServerMetrics>>,
}

/// Microseconds of a clock that goes on while the machine sleeps.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (secs, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    secs * 1_000_000 + nanos / 1000
}

fn age(of: u64) -> Duration {
    Duration::from_micros(now().saturating_sub(of))
}

impl PostgresShared {
    pub(super) fn new() -> Self {
        Self {
            cache: Arc::new(Cache::new()),
            session: watch::Sender::new(None),
            looked: AtomicU64::new(0),
            heard: AtomicU64::new(now()),
            answered: watch::Sender::new(0),
            wanted: Notify::new(),
            stale: Notify::new(),
            replacements: AtomicU64::new(0),
            trouble: Mutex::new(None),
            metrics: OnceLock::new(),
        }
    }

    /// Whether memory may be believed now.
    pub(super) fn is_fresh(&self) -> bool {
        age(self.looked.load(Ordering::Acquire)) < LEASE
    }

    /// The database has answered a query that was sent then.
    pub(super) fn believe(&self, sent: u64) {
        self.looked.store(sent, Ordering::Release);
        self.hear();
        self.answered.send_replace(sent);
    }

    /// Nothing of before is believed, whatever may still be answered to somebody.
    pub(super) fn doubt(&self) {
        self.looked.store(0, Ordering::Release);
        self.cache.invalidate();
    }

    /// A sign of life of the database.
    pub(super) fn hear(&self) {
        self.heard.store(now(), Ordering::Relaxed);
    }

    /// For how long there has been none.
    pub(super) fn silent_for(&self) -> Duration {
        age(self.heard.load(Ordering::Relaxed))
    }

    /// Whether nobody waits for it.
    pub(super) fn is_silent(&self) -> bool {
        self.silent_for() >= SILENCE
    }

    /// Comes back when it is silent.
    pub(super) async fn fell_silent(&self) {
        while let Some(left) = SILENCE
            .checked_sub(self.silent_for())
            .filter(|it| !it.is_zero())
        {
            tokio::time::sleep(left).await;
        }
    }

    pub(super) fn set_trouble(&self, trouble: Option<DirectoryError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// What is told to who asks a silent database.
    pub(super) fn silence(&self) -> DirectoryError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().unwrap_or_else(|| {
            let why = format!("PostgreSQL has not answered for {} s", SILENCE.as_secs());
            DirectoryError::of(StoreFailure::Io, why)
        })
    }

    /// Counts what somebody who asked is told.
    pub(super) fn count(&self, error: DirectoryError) -> DirectoryError {
        if let Some(metrics) = self.metrics.get() {
            metrics.directory_failed(error.failure);
        }
        error
    }
}

impl std::fmt::Debug for PostgresShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresShared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn belief_is_counted_from_when_the_question_was_sent() {
        let shared = PostgresShared::new();
        assert!(!shared.is_fresh());
        shared.believe(now());
        assert!(shared.is_fresh());
        shared.believe(now() - u64::try_from(LEASE.as_micros()).unwrap());
        assert!(!shared.is_fresh() && !shared.is_silent());
        shared.believe(now());
        shared.doubt();
        assert!(!shared.is_fresh());
    }
}
