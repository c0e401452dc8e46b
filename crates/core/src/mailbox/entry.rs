//! One message of a log: where its content is, and which devices are still to get it.
//!
//! An entry is what has to be known of a message without its content: the content is here while the entry is the
//! only one that has it, then in the store. An entry has a bit for each device that is still to get it.
//!
//! Invariant, checked by `mailbox/tests.rs`: the devices that an entry was sent to are among those that it waits for.

use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::QoS;

use super::device_set::{DeviceSet, Slot};
use super::expiry::Expiry;
use super::senders::Number;
use crate::message::Message;
use crate::metrics::Channel;
use crate::store::{RecoveredEntry, Seq};
use crate::time::Time;

/// Why a message is in the log, and so what becomes of it when every device has got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the inbox: waits for an acknowledgement.
    Inbox,
    /// To an own channel, for the devices that were subscribed then: leaves.
    Channel,
    /// The retained message of its topic: stays until it is replaced.
    Retained,
    /// It was that, and is on its way to a device: leaves.
    Replaced,
}

impl Kind {
    pub(crate) fn channel(self) -> Channel {
        match self {
            Self::Inbox => Channel::Inbox,
            Self::Channel | Self::Retained | Self::Replaced => Channel::Own,
        }
    }
}

/// Where the content of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residence {
    /// In the entry, until it leaves: a crash ends it.
    MemoryOnly,
    /// In the entry, for a grace: it may be acknowledged before it has to be stored.
    Grace,
    /// On its way into the store; it is delivered once committed (QoS 2).
    Committing,
    /// In the store.
    Stored,
}

/// A device has acknowledged the message.
const ACKNOWLEDGED: u8 = 1;
/// The receipt for that has been made, if its sender wants one.
const RECEIPTED: u8 = 1 << 1;

/// One message of the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seq: Seq,
    /// The content, while the entry has it.
    pub(crate) message: Option<Arc<Message>>,
    /// The devices that are still to acknowledge it.
    waits_for: DeviceSet,
    /// Those of them that it has been sent to.
    sent_to: DeviceSet,
    size: u32,
    expires: Expiry,
    /// Who sent it, if it counts against the limits.
    sender: Number,
    pub(crate) kind: Kind,
    pub(crate) qos: QoS,
    pub(crate) residence: Residence,
    /// [`ACKNOWLEDGED`] and [`RECEIPTED`].
    flags: u8,
}

impl Entry {
    /// A message that has just been permitted.
    pub(super) fn new(
        seq: Seq,
        message: Arc<Message>,
        kind: Kind,
        residence: Residence,
        waits_for: DeviceSet,
        max_age: Duration,
    ) -> Self {
        let is_stored = matches!(residence, Residence::Committing | Residence::Stored);
        Self {
            seq,
            waits_for,
            sent_to: DeviceSet::default(),
            size: size_of_message(&message),
            // What is in memory only goes with the connection.
            expires: Expiry::at(match residence {
                Residence::MemoryOnly => message.expires_at,
                _ => message.expires_at.min(message.received_at + max_age),
            }),
            sender: 0,
            kind,
            qos: message.qos,
            residence,
            flags: 0,
            message: (!is_stored).then_some(message),
        }
    }

    /// A retained message that has just been permitted.
    pub(super) fn retained(seq: Seq, message: &Message, waits_for: DeviceSet) -> Self {
        Self {
            seq,
            message: None,
            waits_for,
            sent_to: DeviceSet::default(),
            size: size_of_message(message),
            expires: Expiry::at(message.expires_at),
            sender: 0,
            kind: Kind::Retained,
            qos: message.qos,
            residence: Residence::Stored,
            flags: 0,
        }
    }

    /// A message that a store has found.
    pub(super) fn recovered(found: &RecoveredEntry, max_age: Duration) -> Self {
        Self {
            seq: found.seq,
            message: None,
            waits_for: DeviceSet::from_bits(found.waits_for),
            sent_to: DeviceSet::default(),
            size: found.size,
            expires: Expiry::at(if found.retained {
                found.expires_at
            } else {
                // It was received before the end of that millisecond.
                let received_before = found.received_at + Duration::from_millis(1);
                found.expires_at.min(received_before + max_age)
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
        }
    }

    /// Whether it survives a crash.
    pub(super) fn is_kept(&self) -> bool {
        self.residence != Residence::MemoryOnly
    }

    /// Whether it counts against the limits of the mailbox.
    pub(super) fn is_counted(&self) -> bool {
        self.is_kept() && !self.is_retained()
    }

    /// Whether it is a retained message, or was.
    pub(crate) fn is_retained(&self) -> bool {
        matches!(self.kind, Kind::Retained | Kind::Replaced)
    }

    /// Whether only an acknowledgement, or its expiry, removes it.
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

    /// The devices that are still to acknowledge it.
    pub(crate) fn waits_for(&self) -> DeviceSet {
        self.waits_for
    }

    /// The devices among [`Self::waits_for`] that it has been sent to.
    pub(crate) fn sent_to(&self) -> DeviceSet {
        self.sent_to
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.into()
    }

    pub(super) fn expires_at(&self) -> Time {
        self.expires.time()
    }

    pub(crate) fn is_expired(&self, now: Time) -> bool {
        self.expires_at() <= now
    }

    /// The number of its sender; of an entry that is counted.
    pub(super) fn sender(&self) -> Number {
        self.sender
    }

    pub(super) fn set_sender(&mut self, number: Number) {
        self.sender = number;
    }

    /// Whether it may leave: every device that was to get it has, and it stays for no other reason.
    pub(super) fn may_leave(&self) -> bool {
        self.waits_for.is_empty()
            && self.kind != Kind::Retained
            && (self.is_acknowledged() || self.kind != Kind::Inbox || !self.is_kept())
    }

    /// A device is to get it.
    pub(super) fn wait_for(&mut self, slot: Slot) {
        self.waits_for.insert(slot);
    }

    /// Of the devices that it waits for, those in the set remain.
    pub(super) fn wait_only_for(&mut self, devices: DeviceSet) {
        self.waits_for = self.waits_for.intersection(devices);
    }

    /// It is on its way to a device.
    pub(super) fn send_to(&mut self, slot: Slot) {
        debug_assert!(self.waits_for.contains(slot));
        self.sent_to.insert(slot);
    }

    /// A device acknowledges it; whether that was awaited.
    pub(super) fn ack(&mut self, slot: Slot) -> bool {
        let is_awaited = self.waits_for.contains(slot);
        if is_awaited {
            self.give_up(slot);
            self.flags |= ACKNOWLEDGED;
        }
        is_awaited
    }

    /// A device is no longer to get it.
    pub(super) fn give_up(&mut self, slot: Slot) {
        self.waits_for.remove(slot);
        self.sent_to.remove(slot);
    }

    /// Another one, or none, is retained in its place: the devices that it has been sent to remain. Says which others
    /// were to get it.
    pub(super) fn replace(&mut self) -> DeviceSet {
        let unsent = self.waits_for.without(self.sent_to);
        self.wait_only_for(self.sent_to);
        self.kind = Kind::Replaced;
        unsent
    }

    /// A device acknowledges a message to the inbox: whether its sender is to be told. True once.
    pub(super) fn claim_receipt(&mut self) -> bool {
        let is_claimed = self.kind == Kind::Inbox && self.flags & RECEIPTED == 0;
        if is_claimed {
            self.flags |= RECEIPTED;
        }
        is_claimed
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
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            seq: entry.seq,
            residence: entry.residence,
            size: entry.size(),
            kind: entry.kind,
        }
    }
}

fn size_of_message(message: &Message) -> u32 {
    u32::try_from(message.weight()).expect("a packet has at most 2^28 bytes")
}
