//! What became of the messages: of each sender, and in all.
//!
//! Invariants: a number that comes for the first time is delivered once, whatever comes when; one that
//! comes after a later one was out of order; one that comes again is a duplicate, unless it has DUP set,
//! which makes it a redelivery (`tests::numbers`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// How many refusal categories are told apart; an error's text is the broker's, so it is bounded here.
const CATEGORIES: usize = 32;

/// What has arrived from one sender.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    next: u64,
    /// Below `next` and not here yet.
    missing: BTreeSet<u64>,
}

/// What an arrival is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the first time, and after all before it.
    InOrder,
    /// For the first time, but a later one was here before it.
    Late,
    /// Not for the first time.
    Again,
}

impl Arrivals {
    pub(crate) fn record(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            Arrival::InOrder
        } else if self.missing.remove(&number) {
            Arrival::Late
        } else {
            Arrival::Again
        }
    }
}

/// Counts of all senders together.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Ledger {
    /// PUBLISH packets written.
    pub(crate) sent: u64,
    /// Acknowledged to the sender (QoS 0: sent).
    pub(crate) acknowledged: u64,
    /// Arrived, each counted once.
    pub(crate) delivered: u64,
    /// Refused, as the errors or the reason codes say.
    pub(crate) refused: u64,
    /// Errors by handler and category.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Acknowledged, not refused, not delivered.
    pub(crate) lost: u64,
    /// Arrived again without DUP.
    pub(crate) duplicates: u64,
    /// Arrived again with DUP: what QoS 1 allows after a broken connection.
    pub(crate) redelivered: u64,
    /// Arrived after a later message of the same sender.
    pub(crate) out_of_order: u64,
    /// Arrived in a wrong inbox, or not as it was sent.
    pub(crate) foreign: u64,
    /// Connections that the broker ended.
    pub(crate) dropped_connections: u64,
}

/// An error on a device channel.
#[derive(serde::Deserialize)]
struct ErrorMessage<'a> {
    handler: &'a str,
    category: &'a str,
}

impl Ledger {
    /// Counts an error of a device channel. Returns whether it refuses a PUBLISH.
    pub(crate) fn record_error(&mut self, payload: &[u8]) -> bool {
        let Ok(error) = serde_json::from_slice::<ErrorMessage<'_>>(payload) else {
            self.foreign += 1;
            return false;
        };
        let name = format!("{}/{}", error.handler, error.category);
        if self.refusals.len() < CATEGORIES || self.refusals.contains_key(&name) {
            *self.refusals.entry(name).or_default() += 1;
        }
        error.handler == "authorizePublish"
    }

    /// What is wrong, if anything is.
    pub(crate) fn faults(&self, loss_allowed: bool) -> Vec<String> {
        let lost = if loss_allowed { 0 } else { self.lost };
        let mut faults: Vec<String> = [
            (lost, "lost"),
            (self.duplicates, "delivered twice"),
            (self.out_of_order, "out of order"),
            (self.foreign, "not as they were sent"),
            (self.dropped_connections, "connections ended by the broker"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        if self.sent > 0 && self.delivered == 0 {
            faults.push("nothing was delivered".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Arrivals, Ledger};

    #[test]
    fn numbers() {
        let mut arrivals = Arrivals::default();
        let expected = [
            (0, Arrival::InOrder),
            (1, Arrival::InOrder),
            (1, Arrival::Again),
            (5, Arrival::InOrder),
            (3, Arrival::Late),
            (3, Arrival::Again),
            (6, Arrival::InOrder),
        ];
        for (number, expected) in expected {
            assert_eq!(arrivals.record(number), expected, "{number}");
        }
    }

    #[test]
    fn refusals_are_counted_by_category() {
        let mut ledger = Ledger::default();
        let refusal = br#"{"type":"error","handler":"authorizePublish","category":"rate","message":"sending too fast","messageId":7}"#;
        assert!(ledger.record_error(refusal));
        assert!(ledger.record_error(refusal));
        assert!(!ledger.record_error(b"{}"));
        assert_eq!(ledger.refusals["authorizePublish/rate"], 2);
        assert_eq!(ledger.faults(false), ["1 not as they were sent"]);
    }

    #[test]
    fn loss_counts_from_qos_1_on() {
        let ledger = Ledger {
            sent: 2,
            delivered: 1,
            lost: 1,
            ..Ledger::default()
        };
        assert_eq!(ledger.faults(false), ["1 lost"]);
        assert!(ledger.faults(true).is_empty());
    }
}
