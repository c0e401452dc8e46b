//! What waits for a user: one log, in the order of arrival, for all of his devices.
//!
//! An entry knows by a bit for each device who is still to get it. A message in the inbox that no device
//! is to get is *unclaimed*: it waits for the first device that subscribes (PROTOCOL.md, section 7.2).
//!
//! Invariants, checked by `mailbox/tests.rs`:
//! - *Kept*: an inbox message of QoS 1 or 2 leaves only when every device that was to get it has
//!   acknowledged it (at least one has), or when it expires.
//! - *Ephemeral*: a QoS 0 message leaves with the connection of the last device that was to get it.
//! - *Counted*: `kept` and `ephemeral` are the number and size of the entries that are and are not kept.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::QoS;

use crate::message::Message;
use crate::store::Seq;
use crate::time::Time;

#[cfg(test)]
mod tests;

/// A set of a user's devices, by their slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slots(u32);

/// The place of a device among a user's devices: below [`Slots::MAX`].
pub(crate) type Slot = u8;

impl Slots {
    /// Devices of one user with a session at a time.
    pub(crate) const MAX: usize = u32::BITS as usize;

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot;
    }

    fn remove(&mut self, slot: Slot) {
        self.0 &= !(1 << slot);
    }

    pub(crate) fn contains(self, slot: Slot) -> bool {
        self.0 & 1 << slot != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Why a message is in the log, and so what becomes of it when nobody is left who is to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the inbox: waits.
    Inbox,
    /// To an own channel, for who was subscribed then: leaves.
    Channel,
    /// Retained, for one new subscription: leaves.
    Retained,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    pub(crate) kind: Kind,
    /// Who is still to acknowledge it.
    waits_for: Slots,
    /// To whom of those it has been sent.
    sent_to: Slots,
    /// Whether anybody has acknowledged it.
    acknowledged: bool,
}

impl Entry {
    fn is_kept(&self) -> bool {
        self.message.qos != QoS::AtMostOnce && self.kind != Kind::Retained
    }

    /// Whether it may leave, nobody being left who is to get it.
    fn may_leave(&self) -> bool {
        self.waits_for.is_empty()
            && (self.acknowledged || self.kind != Kind::Inbox || !self.is_kept())
    }
}

/// The log of one user.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    entries: BTreeMap<Seq, Entry>,
    kept: Load,
    ephemeral: Load,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Load {
    fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.size();
    }

    fn subtract(&mut self, message: &Message) {
        self.messages -= 1;
        self.bytes -= message.size();
    }

    /// Whether one more message stays within both limits.
    pub(crate) fn has_room(self, message: &Message, max_messages: usize, max_bytes: u64) -> bool {
        self.messages < max_messages && self.bytes + message.size() <= max_bytes
    }
}

impl Mailbox {
    /// Appends at the end. `seq` is larger than any before.
    pub(crate) fn append(&mut self, seq: Seq, message: Arc<Message>, kind: Kind, waits_for: Slots) {
        let entry = Entry {
            message,
            kind,
            waits_for,
            sent_to: Slots::default(),
            acknowledged: false,
        };
        self.load_of(&entry).add(&entry.message);
        let before = self.entries.insert(seq, entry);
        debug_assert!(before.is_none(), "sequence numbers are never used twice");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is kept.
    pub(crate) fn kept(&self) -> Load {
        self.kept
    }

    /// What is not kept.
    pub(crate) fn ephemeral(&self) -> Load {
        self.ephemeral
    }

    fn load_of(&mut self, entry: &Entry) -> &mut Load {
        if entry.is_kept() {
            &mut self.kept
        } else {
            &mut self.ephemeral
        }
    }

    /// The entry with this number.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// The first entry after `after` that this device is to get and has not been sent.
    pub(crate) fn next(&self, slot: Slot, after: Seq) -> Option<(Seq, &Entry)> {
        self.entries
            .range((Bound::Excluded(after), Bound::Unbounded))
            .find(|(_, entry)| entry.waits_for.contains(slot) && !entry.sent_to.contains(slot))
            .map(|(seq, entry)| (*seq, entry))
    }

    /// The number of the last entry; 0 if there is none.
    pub(crate) fn last(&self) -> Seq {
        self.entries.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// The entry is on its way to a device.
    pub(crate) fn sent(&mut self, seq: Seq, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.sent_to.insert(slot);
        }
    }

    /// A device has acknowledged an entry; whether the entry has left with that.
    pub(crate) fn ack(&mut self, seq: Seq, slot: Slot) -> bool {
        let Some(entry) = self.entries.get_mut(&seq) else {
            return false;
        };
        if !entry.waits_for.contains(slot) {
            return false;
        }
        entry.waits_for.remove(slot);
        entry.sent_to.remove(slot);
        entry.acknowledged = true;
        self.remove_if(seq, Entry::may_leave)
    }

    /// A device has subscribed to the inbox: what nobody has claimed is its.
    pub(crate) fn claim(&mut self, slot: Slot) {
        for entry in self.entries.values_mut() {
            if entry.kind == Kind::Inbox && entry.waits_for.is_empty() {
                entry.waits_for.insert(slot);
            }
        }
    }

    /// A device no longer subscribes to the inbox: what it has not been sent is no longer its.
    pub(crate) fn disclaim(&mut self, slot: Slot, left: &mut Vec<Seq>) {
        self.give_up(slot, left, |entry| {
            entry.kind == Kind::Inbox && !entry.sent_to.contains(slot)
        });
    }

    /// A device's connection has ended: what is not kept is no longer its.
    pub(crate) fn disconnected(&mut self, slot: Slot, left: &mut Vec<Seq>) {
        if self.ephemeral.messages > 0 {
            self.give_up(slot, left, |entry| entry.message.qos == QoS::AtMostOnce);
        }
    }

    /// A device's session has ended: nothing is its.
    pub(crate) fn release(&mut self, slot: Slot, left: &mut Vec<Seq>) {
        self.give_up(slot, left, |_| true);
    }

    fn give_up(&mut self, slot: Slot, left: &mut Vec<Seq>, which: impl Fn(&Entry) -> bool) {
        let mut leaving: Vec<Seq> = Vec::new();
        for (seq, entry) in &mut self.entries {
            if entry.waits_for.contains(slot) && which(entry) {
                entry.waits_for.remove(slot);
                entry.sent_to.remove(slot);
                if entry.may_leave() {
                    leaving.push(*seq);
                }
            }
        }
        leaving.retain(|seq| self.remove_if(*seq, |_| true));
        left.append(&mut leaving);
    }

    /// What has expired or is older than `max_age`, and is not on its way to anybody, leaves.
    pub(crate) fn expire(&mut self, max_age: Duration, now: Time, left: &mut Vec<Seq>) {
        let mut expired: Vec<Seq> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                let message = &entry.message;
                let due = message.expires_at.min(message.received_at + max_age);
                due <= now && entry.sent_to.is_empty()
            })
            .map(|(seq, _)| *seq)
            .collect();
        expired.retain(|seq| self.remove_if(*seq, |_| true));
        left.append(&mut expired);
    }

    fn remove_if(&mut self, seq: Seq, which: impl Fn(&Entry) -> bool) -> bool {
        if !self.entries.get(&seq).is_some_and(which) {
            return false;
        }
        let entry = self
            .entries
            .remove(&seq)
            .expect("it was there a moment ago");
        self.load_of(&entry).subtract(&entry.message);
        true
    }
}
