//! What waits for a user: one log, in the order of arrival, for all of their devices.
//!
//! The log owns the entries and what is counted of them (`usage`, `senders`). `entry` says what is known of one
//! message, `retained` what a retained one does here, `expiry` what leaves by itself. A message in the inbox that
//! no device is to get is *unclaimed*: it waits for the first device that subscribes (PROTOCOL.md, section 7.2).
//!
//! The retained message of a topic is an entry too, for as long as it is that: a device that subscribes waits for
//! it as for any other, so its content is stored once, however many devices get it and how often.
//!
//! Invariants, checked by `mailbox/tests.rs`:
//! - *Kept*: an inbox message of QoS 1 or 2 leaves when every device that was to get it has acknowledged it (at least
//!   one has), or when it expires.
//! - *Ephemeral*: a QoS 0 message leaves with the connection of the last device that was to get it.
//! - *Counted*: see `usage`.
//! - *Retained*: such an entry leaves when another one, or none, has taken its place, and it is on its way to no device.
//! - *Small*: at most `MAX_ENTRY_BYTES` for each entry, the log's spare room included.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::QoS;

use crate::ids::UserId;
use crate::message::Message;
use crate::store::{Append, RecoveredEntry, Seq};
use crate::time::Time;

mod device_set;
mod entry;
mod expiry;
mod retained;
mod senders;
#[cfg(test)]
mod tests;
mod usage;

pub use device_set::MAX_DEVICES;
pub(crate) use device_set::{DeviceSet, Slot};
pub(crate) use entry::{Entry, Gone, Kind, Residence};
pub(crate) use usage::Amount;
use usage::Usage;

/// Memory of a message that waits, its content being in the store.
#[cfg(test)]
const MAX_ENTRY_BYTES: usize = 48;

/// What an acknowledgement has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acked {
    /// Nothing.
    No,
    /// The message waits for fewer devices.
    Fewer(DeviceSet, Residence),
    /// It has left.
    Gone(Gone),
}

/// The log of one user. Entries are in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    entries: VecDeque<Entry>,
    usage: Usage,
    /// When something expires.
    next: expiry::NextExpiry,
}

impl Mailbox {
    /// Appends at the end. `seq` is larger than any before.
    pub(crate) fn append(
        &mut self,
        seq: Seq,
        message: Arc<Message>,
        kind: Kind,
        residence: Residence,
        waits_for: DeviceSet,
        max_age: Duration,
    ) {
        let sender = message.sender.clone();
        let entry = Entry::new(seq, message, kind, residence, waits_for, max_age);
        self.push(entry, &sender);
    }

    /// Puts in what a store has found, in any order; [`Self::restored`] is due when all of it is here.
    pub(crate) fn restore(&mut self, found: &RecoveredEntry, max_age: Duration) {
        let entry = Entry::recovered(found, max_age);
        self.push(entry, &found.sender);
    }

    /// Everything that a store has found is here. An entry waits for the devices that had a session at its number.
    pub(crate) fn restored(&mut self, slots_at: impl Fn(Seq) -> DeviceSet) {
        let entries = self.entries.make_contiguous();
        entries.sort_by_key(|entry| entry.seq);
        for entry in entries {
            entry.wait_only_for(slots_at(entry.seq));
        }
        self.entries.shrink_to_fit();
    }

    fn push(&mut self, mut entry: Entry, sender: &UserId) {
        if self.entries.len() == self.entries.capacity() {
            // By an eighth, not to twice the size: most of what waits for long waits in long logs.
            self.entries.reserve_exact(self.entries.len() / 8 + 4);
        }
        entry.set_sender(self.usage.add(&entry, sender));
        self.next.note(&entry);
        self.entries.push_back(entry);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is room to keep a message of this sender: in the mailbox, and in the half of it that one sender may
    /// take. One message of each may be larger than that.
    pub(crate) fn has_room(
        &self,
        sender: &UserId,
        bytes: u64,
        max_messages: usize,
        max_bytes: u64,
    ) -> bool {
        self.usage.has_room(sender, bytes, max_messages, max_bytes)
    }

    /// What is kept.
    pub(crate) fn kept(&self) -> Amount {
        self.usage.kept()
    }

    /// The number of what has been kept for longest.
    pub(crate) fn oldest(&self) -> Option<Seq> {
        let mut entries = self.entries.iter();
        let oldest = entries.find(|entry| entry.is_counted())?;
        Some(oldest.seq)
    }

    /// What is in memory only.
    pub(crate) fn ephemeral(&self) -> Amount {
        self.usage.ephemeral()
    }

    /// How many entries there are, of whatever kind.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn get_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        self.index(seq).map(|index| &mut self.entries[index])
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        // Most look-ups are about the oldest entries.
        if self.entries.front().is_some_and(|front| front.seq == seq) {
            return Some(0);
        }
        self.entries
            .binary_search_by_key(&seq, |entry| entry.seq)
            .ok()
    }

    /// The entry with this number.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Entry> {
        self.index(seq).map(|index| &self.entries[index])
    }

    /// The entries after `after` that this device is to get and has not been sent.
    pub(crate) fn unsent(&self, slot: Slot, after: Seq) -> impl Iterator<Item = &Entry> {
        let start = self.entries.partition_point(|entry| entry.seq <= after);
        self.entries.range(start..).filter(move |entry| {
            entry.waits_for().contains(slot) && !entry.sent_to().contains(slot)
        })
    }

    /// The number of the last entry; 0 if there is none.
    pub(crate) fn last(&self) -> Seq {
        self.entries.back().map_or(0, |entry| entry.seq)
    }

    /// Whether an entry of the inbox, from the number `first` to `last`, is still valid and waits for its first
    /// acknowledgement.
    pub(crate) fn is_silent_about(&self, first: Seq, last: Seq, now: Time) -> bool {
        let start = self.entries.partition_point(|entry| entry.seq < first);
        let waits = |entry: &Entry| {
            entry.is_kept_in_inbox() && !entry.is_acknowledged() && !entry.is_expired(now)
        };
        let mut entries = self.entries.range(start..);
        entries
            .by_ref()
            .take_while(|entry| entry.seq <= last)
            .any(waits)
    }

    /// The entry is on its way to a device.
    pub(crate) fn sent(&mut self, seq: Seq, slot: Slot) {
        if let Some(entry) = self.get_mut(seq) {
            entry.send_to(slot);
        }
    }

    /// The entry is on its way to a device, so a store has found; whether there is such an entry.
    pub(crate) fn restore_sent(&mut self, seq: Seq, slot: Slot) -> bool {
        let Some(entry) = self.get_mut(seq) else {
            return false;
        };
        entry.wait_for(slot);
        entry.send_to(slot);
        true
    }

    /// The grace is over, or the store has said that it is safe. Returns the content in the first case.
    pub(crate) fn move_to(&mut self, seq: Seq, residence: Residence) -> Option<Arc<Message>> {
        let index = self.index(seq)?;
        let entry = &mut self.entries[index];
        entry.residence = residence;
        self.next.note(entry);
        entry.message.take()
    }

    /// A device has acknowledged an entry.
    pub(crate) fn ack(&mut self, seq: Seq, slot: Slot) -> Acked {
        let Some(index) = self.index(seq) else {
            return Acked::No;
        };
        let entry = &mut self.entries[index];
        if !entry.ack(slot) {
            return Acked::No;
        }
        if entry.may_leave() {
            return Acked::Gone(self.remove_at(index));
        }
        self.next.note(entry);
        Acked::Fewer(entry.waits_for(), entry.residence)
    }

    /// A device is about to acknowledge a message to the inbox: whether the store has that, if its sender is
    /// to be told. They are told once.
    pub(crate) fn claim_receipt(&mut self, seq: Seq) -> Option<bool> {
        let entry = self.get_mut(seq)?;
        entry.claim_receipt().then(|| entry.is_stored())
    }

    /// The entry leaves, also if devices wait for it.
    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Gone> {
        let index = self.index(seq)?;
        Some(self.remove_at(index))
    }

    /// A device has subscribed to the inbox: what is unclaimed is for it.
    pub(crate) fn claim(&mut self, slot: Slot) {
        for entry in &mut self.entries {
            if entry.kind == Kind::Inbox && entry.waits_for().is_empty() {
                entry.wait_for(slot);
            }
        }
    }

    /// A device no longer subscribes to the inbox: what it has not been sent is no longer its.
    pub(crate) fn disclaim(&mut self, slot: Slot, gone: &mut Vec<Gone>) {
        self.give_up(slot, gone, |entry| {
            entry.kind == Kind::Inbox && !entry.sent_to().contains(slot)
        });
    }

    /// A device's connection has ended: QoS 0 is no longer its.
    pub(crate) fn disconnected(&mut self, slot: Slot, gone: &mut Vec<Gone>) {
        if self.ephemeral().messages > 0 || self.retained_bytes() > 0 {
            self.give_up(slot, gone, |entry| entry.qos == QoS::AtMostOnce);
        }
    }

    /// A device's session has ended: nothing is its.
    pub(crate) fn release(&mut self, slot: Slot, gone: &mut Vec<Gone>) {
        self.give_up(slot, gone, |_| true);
    }

    fn give_up(&mut self, slot: Slot, gone: &mut Vec<Gone>, which: impl Fn(&Entry) -> bool) {
        let mut some_leave = false;
        for entry in &mut self.entries {
            if entry.waits_for().contains(slot) && which(entry) {
                entry.give_up(slot);
                self.next.note(entry);
                some_leave |= entry.may_leave();
            }
        }
        // What leaves does so when the last device gives it up, so there is none besides.
        if some_leave {
            self.retain(gone, |entry| !entry.may_leave());
        }
    }

    /// What waits in the inbox leaves, up to and with a number; of one sender only, if there is `from`.
    pub(crate) fn purge(&mut self, up_to: Seq, from: Option<&UserId>, gone: &mut Vec<Gone>) {
        let number = match from.map(|from| self.usage.number_of(from)) {
            Some(None) => return,
            Some(number) => number,
            None => None,
        };
        self.retain(gone, |entry| {
            let is_meant =
                number.is_none_or(|number| entry.is_counted() && entry.sender() == number);
            entry.seq > up_to || entry.kind != Kind::Inbox || !is_meant
        });
    }

    /// Everything leaves, up to and with a number.
    pub(crate) fn clear(&mut self, up_to: Seq, gone: &mut Vec<Gone>) {
        self.retain(gone, |entry| entry.seq > up_to);
    }

    /// What a store has found leaves if no device is left to get it.
    pub(crate) fn drop_leavers(&mut self, gone: &mut Vec<Gone>) {
        self.retain(gone, |entry| !entry.may_leave());
    }

    fn retain(&mut self, gone: &mut Vec<Gone>, which: impl Fn(&Entry) -> bool) {
        let usage = &mut self.usage;
        self.entries.retain(|entry| {
            let stays = which(entry);
            if !stays {
                usage.subtract(entry);
                gone.push(Gone::of(entry));
            }
            stays
        });
        self.give_back();
    }

    fn remove_at(&mut self, index: usize) -> Gone {
        let entry = self
            .entries
            .remove(index)
            .expect("the index was looked up a moment ago");
        self.usage.subtract(&entry);
        self.give_back();
        Gone::of(&entry)
    }

    /// A log that has become short gives its memory back.
    fn give_back(&mut self) {
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if capacity > 64 && len < capacity / 4 {
            self.entries.shrink_to(len * 2);
        }
        if len == 0 {
            self.usage.give_back();
        }
    }

    /// What the store is to keep of an entry.
    pub(crate) fn to_append(
        seq: Seq,
        user: &UserId,
        message: Arc<Message>,
        kind: Kind,
        waits_for: DeviceSet,
    ) -> Append {
        let user = user.clone();
        Append {
            seq,
            user,
            message,
            inbox: kind == Kind::Inbox,
            retained: matches!(kind, Kind::Retained | Kind::Replaced),
            waits_for: waits_for.bits(),
        }
    }

    /// Bytes of memory that the entries take.
    #[cfg(test)]
    fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}
