//! How much there is in a mailbox, and whether there is room for more (PROTOCOL.md, section 7.7).
//!
//! Invariant: *Counted*: `kept` and `ephemeral` are the number and size of the entries that are and are not kept,
//! `senders` those of each sender that are; `retained_bytes` is the size of those that are retained messages, or were
//! and are on their way, and count nowhere else. Checked by `mailbox/tests.rs` after every operation.

use super::senders::{Number, Senders};
use super::{Entry, Residence};
use crate::ids::UserId;

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    pub(super) fn subtract(&mut self, bytes: u64) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// A part of it has changed.
    #[inline]
    pub(crate) fn follow(&mut self, before: Self, now: Self) {
        let messages = now.messages.wrapping_sub(before.messages);
        self.messages = self.messages.wrapping_add(messages);
        let bytes = now.bytes.wrapping_sub(before.bytes);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// Whether one more message of this many bytes stays within both limits.
    pub(crate) fn has_room(self, bytes: u64, max_messages: usize, max_bytes: u64) -> bool {
        self.messages < max_messages && self.bytes + bytes <= max_bytes
    }
}

/// How much there is in a mailbox.
#[derive(Debug, Default)]
pub(super) struct Usage {
    kept: Amount,
    ephemeral: Amount,
    senders: Senders,
    retained_bytes: u64,
}

impl Usage {
    /// An entry joins the log. Its sender's number is the entry's until it leaves; 0 if it counts for no sender.
    pub(super) fn add(&mut self, entry: &Entry, sender: &UserId) -> Number {
        let size = entry.size();
        match self.load_of(entry) {
            Some(load) => load.add(size),
            None => self.retained_bytes += size,
        }
        if entry.is_counted() {
            self.senders.add(sender, size)
        } else {
            0
        }
    }

    /// An entry leaves the log.
    pub(super) fn subtract(&mut self, entry: &Entry) {
        let size = entry.size();
        match self.load_of(entry) {
            Some(load) => load.subtract(size),
            None => self.retained_bytes -= size,
        }
        if entry.is_counted() {
            self.senders.subtract(entry.sender(), size);
        }
    }

    /// `None` of what is or was retained.
    fn load_of(&mut self, entry: &Entry) -> Option<&mut Amount> {
        match entry.residence {
            _ if entry.is_retained() => None,
            Residence::MemoryOnly => Some(&mut self.ephemeral),
            Residence::Grace | Residence::Committing | Residence::Stored => Some(&mut self.kept),
        }
    }

    /// What is kept.
    pub(super) fn kept(&self) -> Amount {
        self.kept
    }

    /// What is in memory only.
    pub(super) fn ephemeral(&self) -> Amount {
        self.ephemeral
    }

    /// Bytes of what is retained, and of what was and is on its way.
    pub(super) fn retained_bytes(&self) -> u64 {
        self.retained_bytes
    }

    /// The number of a sender who has a message waiting.
    pub(super) fn number_of(&self, sender: &UserId) -> Option<Number> {
        self.senders.find(sender)
    }

    /// Whether there is room to keep a message of this sender: in the mailbox, and in the half of it that one sender may
    /// take. One message of each may be larger than that.
    pub(super) fn has_room(
        &self,
        sender: &UserId,
        bytes: u64,
        max_messages: usize,
        max_bytes: u64,
    ) -> bool {
        let (half_messages, half_bytes) = (max_messages / 2, max_bytes / 2);
        if self.kept.has_room(bytes, half_messages, half_bytes) {
            return true;
        }
        let own = self.senders.load(sender);
        self.kept.has_room(bytes, max_messages, max_bytes)
            && (own.messages == 0 || own.has_room(bytes, half_messages, half_bytes))
    }

    /// The log is empty: gives the memory of many senders back.
    pub(super) fn give_back(&mut self) {
        self.senders.give_back();
    }
}
