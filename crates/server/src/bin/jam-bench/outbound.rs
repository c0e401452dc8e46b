//! A sender: what it has to send, and how much of it is under way.
//!
//! Invariant: never more messages are under way than the window.

use std::collections::VecDeque;

use super::message::Template;

/// What a sender has to do, and how far it is.
#[derive(Debug)]
pub(super) struct Outbound {
    template: Template,
    supply: Supply,
    window: u64,
    /// A message is under way until it is acknowledged, and with this until it has arrived, too.
    pub(super) to_arrival: bool,
    sent: u64,
    pub(super) acknowledged: u64,
    pub(super) delivered: u64,
    pub(super) refused: u64,
    last_id: u16,
}

/// Where a sender's messages come from.
#[derive(Debug)]
enum Supply {
    /// As many as are left, each due when there is room for it.
    Stock(u64),
    /// When each was due, in nanoseconds since the start.
    Due(VecDeque<u64>),
}

impl Outbound {
    /// A sender that has nothing to send yet.
    pub(super) fn new(template: Template, window: u64, to_arrival: bool) -> Self {
        Self {
            template,
            supply: Supply::Stock(0),
            window,
            to_arrival,
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            refused: 0,
            last_id: 0,
        }
    }

    /// So many messages to send, as the window allows.
    pub(super) fn stock(&mut self, count: u64) {
        self.supply = Supply::Stock(count);
    }

    /// One more message to send, which was due then.
    pub(super) fn push_due(&mut self, due: u64) {
        match &mut self.supply {
            Supply::Due(queue) => queue.push_back(due),
            Supply::Stock(_) => self.supply = Supply::Due(VecDeque::from([due])),
        }
    }

    /// Acknowledged, and neither arrived nor refused.
    pub(super) fn lost(&self) -> u64 {
        self.acknowledged
            .saturating_sub(self.delivered + self.refused)
    }

    /// How many messages count against the window.
    pub(super) fn under_way(&self) -> u64 {
        let arrived = self.delivered + self.refused;
        let done = if self.to_arrival {
            self.acknowledged.min(arrived)
        } else {
            self.acknowledged
        };
        self.sent.saturating_sub(done)
    }

    /// When the next message was due, if one may be sent now.
    pub(super) fn next_due(&mut self, now: u64) -> Option<u64> {
        if self.under_way() >= self.window {
            return None;
        }
        match &mut self.supply {
            Supply::Stock(left) => {
                *left = left.checked_sub(1)?;
                Some(now)
            }
            Supply::Due(due) => due.pop_front(),
        }
    }

    /// Appends the next message, which was due then.
    pub(super) fn put(&mut self, due: u64, output: &mut Vec<u8>) {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.template.put(self.sent, due, self.last_id, output);
        self.sent += 1;
    }

    /// Whether nothing is left to send.
    pub(super) fn is_exhausted(&self) -> bool {
        match &self.supply {
            Supply::Stock(left) => *left == 0,
            Supply::Due(due) => due.is_empty(),
        }
    }
}
