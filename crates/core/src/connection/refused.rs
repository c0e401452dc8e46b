//! Which rules have refused something of a connected client, and how often: what operators see in events and metrics.
//!
//! A refusal is its row of the table and a count; topics and payloads stay out of it.
//!
//! Invariants: the first refusal makes this, so that most connections hold nothing; it has at most as many rows as the
//! table; it is reported at most [`TELLINGS_A_SECOND`] times a second, however fast the client is
//! (`a_flood_of_refusals_is_summed_up`).

use std::time::Duration;

use super::{Connection, Phase};
use crate::policy::{Handler, Refusal};
use crate::time::Time;

/// How often in a second [`Connection::take_refusals`] reports; refusals in between are added up.
pub const TELLINGS_A_SECOND: u32 = 8;

const SECOND: Duration = Duration::from_secs(1);

/// A row of the table, and how often it has refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCount {
    /// Which handler refused.
    pub handler: Handler,
    /// See [`Refusal::slug`].
    pub slug: &'static str,
    /// How often.
    pub count: u64,
}

/// What has yet to be reported.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    rows: Vec<RefusalCount>,
    /// Since when tellings are counted.
    since: Time,
    tellings: u32,
}

impl Refusals {
    /// Counts one.
    pub(super) fn note(&mut self, refusal: &Refusal) {
        let (handler, slug) = (refusal.handler, refusal.slug);
        let mut rows = self.rows.iter_mut();
        match rows.find(|row| row.handler == handler && row.slug == slug) {
            Some(row) => row.count += 1,
            None => self.rows.push(RefusalCount {
                handler,
                slug,
                count: 1,
            }),
        }
    }

    /// What is still unreported when the connection ends.
    pub(super) fn take_rest(&mut self) -> Vec<RefusalCount> {
        std::mem::take(&mut self.rows)
    }

    fn take(&mut self, now: Time) -> Vec<RefusalCount> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        if now.since(self.since) >= SECOND || now < self.since {
            (self.since, self.tellings) = (now, 0);
        }
        if self.tellings >= TELLINGS_A_SECOND {
            return Vec::new();
        }
        self.tellings += 1;
        std::mem::take(&mut self.rows)
    }
}

impl Connection {
    /// The refusals since the last report. Empty while reports have been too frequent: these refusals come with a later one,
    /// at the latest with [`Ended`](super::Ended).
    pub fn take_refusals(&mut self, now: Time) -> Vec<RefusalCount> {
        match &mut self.phase {
            Phase::Established(established) | Phase::Authorizing(established, ..) => {
                let rare = established.rare.as_mut();
                rare.map_or_else(Vec::new, |rare| rare.refusals.take(now))
            }
            Phase::Fresh(_) | Phase::Authenticating(..) | Phase::Closing(_) => Vec::new(),
        }
    }
}
