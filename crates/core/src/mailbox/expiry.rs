//! What leaves by itself.
//!
//! Invariants: what has expired leaves, unless it is in flight: a device may have it then; *Next*: the first expiry is at
//! `next` or later, so that asking whether something has expired costs no look at the log.

use super::{Entry, Gone, Kind, Mailbox, Residence};
use crate::time::Time;

/// When an entry expires: milliseconds of the server's time, rounded up as in the store, in 48 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry([u8; 6]);

impl Expiry {
    const NEVER: u64 = (1 << 48) - 1;

    /// A time that does not fit (in 8,900 years) is never.
    pub(super) fn at(time: Time) -> Self {
        let [_, _, bytes @ ..] = time.as_millis_up().min(Self::NEVER).to_be_bytes();
        Self(bytes)
    }

    pub(super) fn time(self) -> Time {
        let [a, b, c, d, e, f] = self.0;
        match u64::from_be_bytes([0, 0, a, b, c, d, e, f]) {
            Self::NEVER => Time::NEVER,
            millis => Time::from_millis(millis),
        }
    }
}

/// When something expires.
#[derive(Debug)]
pub(super) struct NextExpiry(Time);

impl Default for NextExpiry {
    fn default() -> Self {
        Self(Time::NEVER)
    }
}

impl NextExpiry {
    /// An entry is here, or may leave. What is in its grace does not stay for long enough.
    pub(super) fn note(&mut self, entry: &Entry) {
        if entry.residence != Residence::Grace {
            self.0 = self.0.min(entry.expires_at());
        }
    }
}

impl Mailbox {
    /// When to look for what has expired.
    pub(crate) fn next_expiry(&self) -> Time {
        if self.entries.is_empty() {
            return Time::NEVER;
        }
        self.next.0
    }

    /// Whether to look for what has expired.
    pub(crate) fn may_have_expired(&self, now: Time) -> bool {
        self.next.0 <= now
    }

    /// The entries that expire after one time and not after another, later one.
    pub(crate) fn expiring(&self, after: Time, until: Time) -> impl Iterator<Item = &Entry> {
        let expires = move |entry: &&Entry| entry.is_expired(until) && !entry.is_expired(after);
        self.entries.iter().filter(expires)
    }

    /// What has expired, and is not on its way to anybody, leaves. Retained messages that have expired are no longer
    /// retained when this is called.
    pub(crate) fn expire(&mut self, now: Time, gone: &mut Vec<Gone>) {
        let stays = |entry: &Entry| !entry.is_expired(now) || !entry.sent_to().is_empty();
        self.retain(gone, stays);
        self.next = NextExpiry::default();
        for entry in &self.entries {
            // What is on its way is looked at again when it no longer is.
            if entry.kind == Kind::Retained || !entry.is_expired(now) {
                self.next.note(entry);
            }
        }
    }
}
