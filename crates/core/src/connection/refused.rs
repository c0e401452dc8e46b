//! What a client that has been let in was refused, by value, for events and metrics: rows of the table with how often each.
//!
//! The rules tell the client; this is what an operator is told of it. Neither a topic nor a payload gets in here.
//!
//! Invariants: a connection that was refused nothing holds none of this; it is as long as the table at most, and is told
//! [`TELLINGS_A_SECOND`] times a second at most, however fast the client is (`a_flood_of_refusals_is_summed_up`).

use std::time::Duration;

use super::established::Established;
use super::{Connection, Phase};
use crate::policy::{Handler, Refusal};
use crate::time::Time;

/// So often [`Connection::take_refusals`] has something to tell, at most; what comes beyond is added up.
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

/// What has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    rows: Vec<RefusalCount>,
    /// Since when tellings are counted.
    since: Time,
    tellings: u32,
}

impl Refusals {
    fn note(&mut self, refusal: &Refusal) {
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

impl Established {
    /// Notes that something was refused.
    pub(super) fn note_refusal(&mut self, refusal: &Refusal) {
        let rare = self.rare.get_or_insert_default();
        rare.refusals.note(refusal);
    }

    /// What has not been told when the connection ends.
    pub(super) fn rest_of_refusals(&mut self) -> Vec<RefusalCount> {
        let rare = self.rare.as_mut();
        rare.map_or_else(Vec::new, |rare| std::mem::take(&mut rare.refusals.rows))
    }
}

impl Connection {
    /// What the client was refused since this was last told. Nothing when that was too often of late: it comes
    /// later, or with [`Ended`](super::Ended).
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
