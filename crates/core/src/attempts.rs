//! Failed authentications (PROTOCOL.md, section 8, first bullet).
//!
//! A failure is logged at its source, with the user id it was for. A source whose log is over the limit is
//! refused whatever it asks for, so no user id there can be over it: one log serves both counts. A success
//! takes the failures of its own user id out and no others: a login of one's own wins no guesses at
//! somebody else's token.
//!
//! Invariants:
//! - an attempt is admitted and logged in one step, when its verdict is known: of guesses that are judged
//!   at the same time no more are answered than of guesses in a row (`guesses_that_arrive_together`);
//! - other sources are never held up, so nobody locks an owner out from elsewhere;
//! - [`MAX_SOURCES`] logs of at most `limit + 1` failures. A network has its place among
//!   `SOURCES_PER_BUCKET` others and displaces nothing beyond (`a_network_washes_out_its_own_bucket`).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::source::Source;
use crate::time::Time;

#[cfg(test)]
mod tests;

/// Groups of networks, by a hash that is this process's secret.
const BUCKETS: usize = 256;

/// Sources of such a group whose failures are remembered; beyond, the one that failed longest ago is
/// forgotten.
const SOURCES_PER_BUCKET: usize = 64;

/// Sources whose failures are remembered.
pub const MAX_SOURCES: usize = BUCKETS * SOURCES_PER_BUCKET;

/// The logs of failed authentications.
#[derive(Debug)]
pub struct Attempts {
    limit: usize,
    window: Duration,
    hasher: RandomState,
    buckets: Box<[Vec<Log>]>,
}

/// The failures of one source, the oldest first. Never empty.
#[derive(Debug)]
struct Log {
    source: Source,
    failures: VecDeque<Failure>,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    at: Time,
    /// A hash of the user id.
    user: u64,
}

/// What counts against a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// Failed attempts.
    pub failures: usize,
    /// Whether further attempts are refused.
    pub is_locked: bool,
    /// When so many of them no longer count that a lockout ends; without one, when the oldest does.
    pub until: Time,
}

/// There were too many failures: the attempt is refused, and its verdict is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyFailures;

impl Attempts {
    /// Refuses when there were more than `limit` failures within `window`.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit: limit as usize,
            window,
            hasher: RandomState::default(),
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
        }
    }

    /// From now on so many failures are too many, within this time. What is logged stays.
    pub fn set_limits(&mut self, limit: u32, window: Duration) {
        self.limit = limit as usize;
        self.window = window;
    }

    /// Whether attempts are looked at.
    ///
    /// # Errors
    /// [`TooManyFailures`]: the source has failed too often.
    pub fn check(&mut self, source: Source, now: Time) -> Result<(), TooManyFailures> {
        let (window, limit) = (self.window, self.limit);
        let bucket = self.bucket(source);
        let Some(index) = bucket.iter().position(|log| log.source == source) else {
            return Ok(());
        };
        let failures = &mut bucket[index].failures;
        failures.retain(|failure| now.since(failure.at) < window);
        let count = failures.len();
        if count == 0 {
            bucket.swap_remove(index);
        }
        if count > limit {
            Err(TooManyFailures)
        } else {
            Ok(())
        }
    }

    /// An attempt for a user id turned out wrong.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing is logged then.
    pub fn fail(&mut self, user: &str, source: Source, now: Time) -> Result<(), TooManyFailures> {
        self.check(source, now)?;
        let user = self.hasher.hash_one(user);
        let bucket = self.bucket(source);
        let known = bucket.iter().position(|log| log.source == source);
        let index = known.unwrap_or_else(|| {
            if bucket.len() >= SOURCES_PER_BUCKET {
                forget_the_longest_ago(bucket);
            }
            bucket.push(Log {
                source,
                failures: VecDeque::new(),
            });
            bucket.len() - 1
        });
        bucket[index].failures.push_back(Failure { at: now, user });
        Ok(())
    }

    /// An attempt for a user id turned out right.
    ///
    /// # Errors
    /// As [`Self::check`]; the attempt is not let in then.
    pub fn succeed(
        &mut self,
        user: &str,
        source: Source,
        now: Time,
    ) -> Result<(), TooManyFailures> {
        self.check(source, now)?;
        let user = self.hasher.hash_one(user);
        let bucket = self.bucket(source);
        if let Some(index) = bucket.iter().position(|log| log.source == source) {
            let failures = &mut bucket[index].failures;
            failures.retain(|failure| failure.user != user);
            if failures.is_empty() {
                bucket.swap_remove(index);
            }
        }
        Ok(())
    }

    /// What counts against a source by now; `None`: nothing.
    #[must_use]
    pub fn lockout(&self, source: Source, now: Time) -> Option<Lockout> {
        let bucket = &self.buckets[self.bucket_index(source)];
        let log = bucket.iter().find(|log| log.source == source)?;
        self.lockout_of(log, now)
    }

    /// Nothing counts against a source any more. Whether anything did.
    pub fn forget(&mut self, source: Source) -> bool {
        let bucket = self.bucket(source);
        let index = bucket.iter().position(|log| log.source == source);
        index.map(|index| bucket.swap_remove(index)).is_some()
    }

    /// The sources that are refused, in no order that means anything. Looks at all of them.
    pub(crate) fn locked_out(&self, now: Time) -> impl Iterator<Item = (Source, Lockout)> {
        let logs = self.buckets.iter().flatten();
        let found = logs.filter_map(move |log| Some((log.source, self.lockout_of(log, now)?)));
        found.filter(|(_, lockout)| lockout.is_locked)
    }

    fn lockout_of(&self, log: &Log, now: Time) -> Option<Lockout> {
        // The oldest comes first, so that those which no longer count stand before those which do.
        let old = log
            .failures
            .partition_point(|failure| now.since(failure.at) >= self.window);
        let failures = log.failures.len() - old;
        let is_locked = failures > self.limit;
        let last_to_go = if is_locked {
            log.failures.len() - 1 - self.limit
        } else {
            old
        };
        Some(Lockout {
            failures,
            is_locked,
            until: log.failures.get(last_to_go)?.at + self.window,
        })
    }

    fn bucket(&mut self, source: Source) -> &mut Vec<Log> {
        let index = self.bucket_index(source);
        &mut self.buckets[index]
    }

    fn bucket_index(&self, source: Source) -> usize {
        let hash = self.hasher.hash_one(source.network());
        usize::try_from(hash % BUCKETS as u64).expect("below BUCKETS")
    }
}

fn forget_the_longest_ago(bucket: &mut Vec<Log>) {
    let last = |log: &Log| log.failures.back().map(|failure| failure.at);
    let oldest = (0..bucket.len()).min_by_key(|index| last(&bucket[*index]));
    if let Some(index) = oldest {
        bucket.swap_remove(index);
    }
}
