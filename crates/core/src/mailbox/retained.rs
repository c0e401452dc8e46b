//! Retained messages in the log.
//!
//! One is kept from the moment on at which it is published, and waits for the devices that have subscribed until
//! each has been sent it. When another one takes its place it ends for those that wait; a device that has been sent it may
//! still acknowledge it.

use super::{DeviceSet, Entry, Gone, Kind, Mailbox, Slot};
use crate::message::Message;
use crate::store::Seq;

impl Mailbox {
    /// Appends a retained message at the end. `seq` is larger than any before.
    pub(crate) fn append_retained(&mut self, seq: Seq, message: &Message, waits_for: DeviceSet) {
        debug_assert!(self.last() < seq);
        let entry = Entry::retained(seq, message, waits_for);
        self.push(entry, &message.sender);
    }

    /// A message that a store has found is still the retained one of its topic; whether there is such a message.
    pub(crate) fn restore_retained(&mut self, seq: Seq) -> bool {
        let Some(entry) = self.get_mut(seq) else {
            return false;
        };
        entry.kind = Kind::Retained;
        true
    }

    /// Bytes of what is retained, and of what was and is on its way.
    pub(crate) fn retained_bytes(&self) -> u64 {
        self.usage.retained_bytes()
    }

    /// A device has subscribed to the topic of a retained message; whether it does not wait for it already.
    pub(crate) fn claim_retained(&mut self, seq: Seq, slot: Slot) -> bool {
        let Some(entry) = self.get_mut(seq) else {
            return false;
        };
        let is_new = entry.kind == Kind::Retained && !entry.waits_for().contains(slot);
        if is_new {
            entry.wait_for(slot);
        }
        is_new
    }

    /// The message is no longer retained. Returns the devices that were to get it and have not been sent it, and the entry
    /// if it has left.
    pub(crate) fn end_retained(&mut self, seq: Seq) -> (DeviceSet, Option<Gone>) {
        let Some(index) = self.index(seq) else {
            return (DeviceSet::default(), None);
        };
        let entry = &mut self.entries[index];
        let unsent = entry.replace();
        let leaves = entry.may_leave();
        (unsent, leaves.then(|| self.remove_at(index)))
    }
}
