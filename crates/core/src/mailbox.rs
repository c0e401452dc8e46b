//! What waits for a user: one log, in the order of arrival, for all of his devices.
//!
//! An entry is what has to be known of a message without its content: the content is here as long as
//! nobody else has it, then in the store. An entry knows by a bit for each device who is still to get it.
//! A message in the inbox that no device is to get is *unclaimed*: it waits for the first device that
//! subscribes (PROTOCOL.md, section 7.2).
//!
//! The retained message of a topic is an entry too, for as long as it is that: a device that subscribes waits for
//! it as for any other, so its content is stored once, whoever gets it and how often (`retained`). `expiry` has what
//! leaves by itself.
//!
//! Invariants, checked by `mailbox/tests.rs`:
//! - *Kept*: an inbox message of QoS 1 or 2 leaves only when every device that was to get it has
//!   acknowledged it (at least one has), or when it expires.
//! - *Ephemeral*: a QoS 0 message leaves with the connection of the last device that was to get it.
//! - *Counted*: `kept` and `ephemeral` are the number and size of the entries that are and are not kept, `senders` those
//!   of each sender that are; `retained_bytes` is the size of those that are retained messages, or were and are on their
//!   way, and count nowhere else.
//! - *Retained*: such an entry leaves when another one, or none, has taken its place, and it is on its way to nobody.
//! - *Small*: at most `MAX_ENTRY_BYTES` for each entry, the log's spare room included.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::QoS;

use crate::ids::UserId;
use crate::message::Message;
use crate::store::{Append, RecoveredEntry, Seq};
use crate::time::Time;
use expiry::Expiry;

mod expiry;
mod retained;
mod senders;
#[cfg(test)]
mod tests;

use senders::{Number, Senders};

/// Memory of a message that waits, its content being in the store.
#[cfg(test)]
const MAX_ENTRY_BYTES: usize = 48;

/// A set of a user's devices, by their slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeviceSet(u32);

/// The place of a device among a user's devices: below [`DeviceSet::MAX`].
pub(crate) type Slot = u8;

impl DeviceSet {
    /// Devices of one user with a session at a time.
    pub(crate) const MAX: usize = u32::BITS as usize;

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

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

    fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Why a message is in the log, and so what becomes of it when nobody is left who is to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the inbox: waits.
    Inbox,
    /// To an own channel, for who was subscribed then: leaves.
    Channel,
    /// The retained message of its topic: stays until it is replaced.
    Retained,
    /// It was that, and is on its way to somebody: leaves.
    Replaced,
}

/// Who has the content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residence {
    /// Nobody but the entry, for ever: it is not kept.
    MemoryOnly,
    /// Nobody but the entry, for a grace: it may be acknowledged before it has to be stored.
    Grace,
    /// The store, which has not said yet that it is safe; it must not be delivered before (QoS 2).
    Committing,
    /// The store.
    Stored,
}

/// Somebody has acknowledged the message.
const ACKNOWLEDGED: u8 = 1;
/// Its sender has been told of that, if that was wanted.
const RECEIPTED: u8 = 1 << 1;

/// One message of the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seq: Seq,
    /// The content, while nobody else has it.
    pub(crate) message: Option<Arc<Message>>,
    /// Who is still to acknowledge it.
    waits_for: DeviceSet,
    /// To whom of those it has been sent.
    sent_to: DeviceSet,
    size: u32,
    expires: Expiry,
    /// Who sent it, if it is kept and not retained.
    sender: Number,
    pub(crate) kind: Kind,
    pub(crate) qos: QoS,
    pub(crate) residence: Residence,
    /// [`ACKNOWLEDGED`] and [`RECEIPTED`].
    flags: u8,
}

impl Entry {
    /// Whether a crash does not end it.
    fn is_kept(&self) -> bool {
        self.residence != Residence::MemoryOnly
    }

    /// Whether it counts against the limits of the mailbox.
    fn is_counted(&self) -> bool {
        self.is_kept() && !self.is_retained()
    }

    /// Whether it is a retained message, or was.
    pub(crate) fn is_retained(&self) -> bool {
        matches!(self.kind, Kind::Retained | Kind::Replaced)
    }

    /// Whether nothing but an acknowledgement, or its expiry, removes it.
    pub(crate) fn is_kept_in_inbox(&self) -> bool {
        self.kind == Kind::Inbox && self.is_kept()
    }

    /// Whether the store has it, or is about to.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.residence, Residence::Committing | Residence::Stored)
    }

    /// Whether a device has acknowledged it.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.flags & ACKNOWLEDGED != 0
    }

    pub(crate) fn waits_for(&self) -> DeviceSet {
        self.waits_for
    }

    pub(crate) fn sent_to(&self) -> DeviceSet {
        self.sent_to
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.into()
    }

    /// Whether it may leave, nobody being left who is to get it.
    fn may_leave(&self) -> bool {
        self.waits_for.is_empty()
            && self.kind != Kind::Retained
            && (self.is_acknowledged() || self.kind != Kind::Inbox || !self.is_kept())
    }
}

/// An entry that has left the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) seq: Seq,
    pub(crate) residence: Residence,
    pub(crate) size: u64,
    pub(crate) kind: Kind,
}

impl Gone {
    fn of(entry: &Entry) -> Self {
        Self {
            seq: entry.seq,
            residence: entry.residence,
            size: entry.size(),
            kind: entry.kind,
        }
    }
}

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

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Load {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: u64) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// Whether one more message of this many bytes stays within both limits.
    pub(crate) fn has_room(self, bytes: u64, max_messages: usize, max_bytes: u64) -> bool {
        self.messages < max_messages && self.bytes + bytes <= max_bytes
    }
}

/// The log of one user. Entries are in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    entries: VecDeque<Entry>,
    kept: Load,
    ephemeral: Load,
    senders: Senders,
    retained_bytes: u64,
    /// When something expires.
    next: expiry::Next,
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
        let stored = matches!(residence, Residence::Committing | Residence::Stored);
        debug_assert!(self.last() < seq);
        let sender = message.sender.clone();
        let entry = Entry {
            seq,
            waits_for,
            sent_to: DeviceSet::default(),
            size: size_of_message(&message),
            // What is not kept goes with the connection.
            expires: Expiry::at(match residence {
                Residence::MemoryOnly => message.expires_at,
                _ => message.expires_at.min(message.received_at + max_age),
            }),
            sender: 0,
            kind,
            qos: message.qos,
            residence,
            flags: 0,
            message: (!stored).then_some(message),
        };
        self.push(entry, &sender);
    }

    /// Puts in what a store has found, in any order; [`Self::restored`] is due when all of it is here.
    pub(crate) fn restore(&mut self, found: &RecoveredEntry, max_age: Duration) {
        let entry = Entry {
            seq: found.seq,
            message: None,
            waits_for: DeviceSet::from_bits(found.waits_for),
            sent_to: DeviceSet::default(),
            size: found.size,
            expires: Expiry::at(if found.retained {
                found.expires_at
            } else {
                found.expires_at.min(found.received_at + max_age)
            }),
            sender: 0,
            kind: match (found.inbox, found.retained) {
                (true, _) => Kind::Inbox,
                // Until it is known to be one still.
                (false, true) => Kind::Replaced,
                (false, false) => Kind::Channel,
            },
            qos: found.qos,
            residence: Residence::Stored,
            flags: if found.acknowledged {
                ACKNOWLEDGED | RECEIPTED
            } else {
                0
            },
        };
        self.push(entry, &found.sender);
    }

    /// Everything that a store has found is here. DeviceSet that no session had at a message's number are not
    /// waited for.
    pub(crate) fn restored(&mut self, slots_at: impl Fn(Seq) -> DeviceSet) {
        let entries = self.entries.make_contiguous();
        entries.sort_by_key(|entry| entry.seq);
        for entry in entries {
            entry.waits_for = entry.waits_for.intersection(slots_at(entry.seq));
        }
        self.entries.shrink_to_fit();
    }

    fn push(&mut self, mut entry: Entry, sender: &UserId) {
        if self.entries.len() == self.entries.capacity() {
            // By an eighth, not to twice the size: most of what waits for long waits in long logs.
            self.entries.reserve_exact(self.entries.len() / 8 + 4);
        }
        let size = entry.size();
        match self.load_of(entry.kind, entry.residence) {
            Some(load) => load.add(size),
            None => self.retained_bytes += size,
        }
        if entry.is_counted() {
            entry.sender = self.senders.add(sender, size);
        }
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
        let (half_messages, half_bytes) = (max_messages / 2, max_bytes / 2);
        if self.kept.has_room(bytes, half_messages, half_bytes) {
            return true;
        }
        let own = self.senders.load(sender);
        self.kept.has_room(bytes, max_messages, max_bytes)
            && (own.messages == 0 || own.has_room(bytes, half_messages, half_bytes))
    }

    /// What is kept.
    pub(crate) fn kept(&self) -> Load {
        self.kept
    }

    /// What is not kept.
    pub(crate) fn ephemeral(&self) -> Load {
        self.ephemeral
    }

    /// `None` of what is or was retained.
    fn load_of(&mut self, kind: Kind, residence: Residence) -> Option<&mut Load> {
        match (kind, residence) {
            (Kind::Retained | Kind::Replaced, _) => None,
            (_, Residence::MemoryOnly) => Some(&mut self.ephemeral),
            _ => Some(&mut self.kept),
        }
    }

    fn count_gone(&mut self, gone: &Gone) {
        match self.load_of(gone.kind, gone.residence) {
            Some(load) => load.subtract(gone.size),
            None => self.retained_bytes -= gone.size,
        }
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
        self.entries
            .range(start..)
            .filter(move |entry| entry.waits_for.contains(slot) && !entry.sent_to.contains(slot))
    }

    /// The number of the last entry; 0 if there is none.
    pub(crate) fn last(&self) -> Seq {
        self.entries.back().map_or(0, |entry| entry.seq)
    }

    /// Whether nobody has acknowledged some entry of the inbox that has not expired, from the number `first`
    /// to `last`.
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
        if let Some(index) = self.index(seq) {
            self.entries[index].sent_to.insert(slot);
        }
    }

    /// The entry is on its way to a device, so a store has found; whether there is such an entry.
    pub(crate) fn restore_sent(&mut self, seq: Seq, slot: Slot) -> bool {
        let index = self.index(seq);
        if let Some(index) = index {
            self.entries[index].waits_for.insert(slot);
            self.entries[index].sent_to.insert(slot);
        }
        index.is_some()
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
        if !entry.waits_for.contains(slot) {
            return Acked::No;
        }
        entry.waits_for.remove(slot);
        entry.sent_to.remove(slot);
        entry.flags |= ACKNOWLEDGED;
        if entry.may_leave() {
            return Acked::Gone(self.remove_at(index));
        }
        self.next.note(entry);
        Acked::Fewer(entry.waits_for, entry.residence)
    }

    /// A device is about to acknowledge a message to the inbox: whether the store has that, if its sender is
    /// to be told. He is told once.
    pub(crate) fn claim_receipt(&mut self, seq: Seq) -> Option<bool> {
        let index = self.index(seq)?;
        let entry = &mut self.entries[index];
        if entry.kind != Kind::Inbox || entry.flags & RECEIPTED != 0 {
            return None;
        }
        entry.flags |= RECEIPTED;
        Some(entry.is_stored())
    }

    /// The entry leaves, whoever waits for it.
    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Gone> {
        let index = self.index(seq)?;
        Some(self.remove_at(index))
    }

    /// A device has subscribed to the inbox: what nobody has claimed is its.
    pub(crate) fn claim(&mut self, slot: Slot) {
        for entry in &mut self.entries {
            if entry.kind == Kind::Inbox && entry.waits_for.is_empty() {
                entry.waits_for.insert(slot);
            }
        }
    }

    /// A device no longer subscribes to the inbox: what it has not been sent is no longer its.
    pub(crate) fn disclaim(&mut self, slot: Slot, gone: &mut Vec<Gone>) {
        self.give_up(slot, gone, |entry| {
            entry.kind == Kind::Inbox && !entry.sent_to.contains(slot)
        });
    }

    /// A device's connection has ended: QoS 0 is no longer its.
    pub(crate) fn disconnected(&mut self, slot: Slot, gone: &mut Vec<Gone>) {
        if self.ephemeral.messages > 0 || self.retained_bytes > 0 {
            self.give_up(slot, gone, |entry| entry.qos == QoS::AtMostOnce);
        }
    }

    /// A device's session has ended: nothing is its.
    pub(crate) fn release(&mut self, slot: Slot, gone: &mut Vec<Gone>) {
        self.give_up(slot, gone, |_| true);
    }

    fn give_up(&mut self, slot: Slot, gone: &mut Vec<Gone>, which: impl Fn(&Entry) -> bool) {
        for entry in &mut self.entries {
            if entry.waits_for.contains(slot) && which(entry) {
                entry.waits_for.remove(slot);
                entry.sent_to.remove(slot);
                self.next.note(entry);
            }
        }
        self.retain(gone, |entry| !entry.may_leave());
    }

    /// What waits in the inbox leaves, up to and with a number; of one sender only, if there is `from`.
    pub(crate) fn purge(&mut self, up_to: Seq, from: Option<&UserId>, gone: &mut Vec<Gone>) {
        let number = match from.map(|from| self.senders.find(from)) {
            Some(None) => return,
            Some(number) => number,
            None => None,
        };
        self.retain(gone, |entry| {
            let is_meant = number.is_none_or(|number| entry.is_counted() && entry.sender == number);
            entry.seq > up_to || entry.kind != Kind::Inbox || !is_meant
        });
    }

    /// Everything leaves, up to and with a number.
    pub(crate) fn clear(&mut self, up_to: Seq, gone: &mut Vec<Gone>) {
        self.retain(gone, |entry| entry.seq > up_to);
    }

    /// What a store has found and nobody is left to get leaves.
    pub(crate) fn drop_leavers(&mut self, gone: &mut Vec<Gone>) {
        self.retain(gone, |entry| !entry.may_leave());
    }

    fn retain(&mut self, gone: &mut Vec<Gone>, which: impl Fn(&Entry) -> bool) {
        let before = gone.len();
        let senders = &mut self.senders;
        self.entries.retain(|entry| {
            let stays = which(entry);
            if !stays {
                if entry.is_counted() {
                    senders.subtract(entry.sender, entry.size());
                }
                gone.push(Gone::of(entry));
            }
            stays
        });
        for gone in &gone[before..] {
            self.count_gone(gone);
        }
        self.give_back();
    }

    fn remove_at(&mut self, index: usize) -> Gone {
        let entry = self
            .entries
            .remove(index)
            .expect("the index was looked up a moment ago");
        if entry.is_counted() {
            self.senders.subtract(entry.sender, entry.size());
        }
        let gone = Gone::of(&entry);
        self.count_gone(&gone);
        self.give_back();
        gone
    }

    /// A log that has become short gives its memory back.
    fn give_back(&mut self) {
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if capacity > 64 && len < capacity / 4 {
            self.entries.shrink_to(len * 2);
        }
        if len == 0 {
            self.senders.give_back();
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

fn size_of_message(message: &Message) -> u32 {
    u32::try_from(message.weight()).expect("a packet has at most 2^28 bytes")
}
