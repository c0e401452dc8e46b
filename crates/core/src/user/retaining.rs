//! What new subscriptions to an own channel are sent first.
//!
//! A retained message is an entry of the log with its own number; here is which one is a topic's. A device that
//! subscribes *claims* it: the store has the claim of a session that outlives its connection until the message is on
//! its way, or the session is not to get it any more.
//!
//! Invariants, checked by `tests/retained.rs`: what is here is in the log; its content is stored once, and is in
//! memory only until the store has it; what is replaced, cleared or expired leaves the store when no device is being
//! sent it.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jam_wire::packet::QoS;
use smol_str::SmolStr;

use super::{Device, Effects, MAX_RETAINED, User, UserLimits};
use crate::mailbox::{DeviceSet, Entry, Kind, Mailbox};
use crate::message::Message;
use crate::policy::{Refusal, refusals};
use crate::store::{Seq, Sequence, SessionId, Write, Writes};
use crate::time::Time;

/// The number of the retained message of each topic that has one.
pub(super) type Topics = HashMap<SmolStr, Seq, RandomState>;

impl User {
    fn retained(&self, topic: &str) -> Option<&Entry> {
        self.mailbox.get(*self.retained.as_ref()?.get(topic)?)
    }

    /// Keeps or clears what new subscriptions to the topic are sent first: what the store is to know of that. `readers`
    /// get the message itself.
    pub(super) fn retain(
        &mut self,
        message: &Arc<Message>,
        readers: DeviceSet,
        limits: &UserLimits,
        numbers: &Sequence,
        effects: &mut Effects,
    ) -> Result<Writes, Refusal> {
        let clears = message.payload.is_empty();
        if !clears && !self.has_room_to_retain(message, limits) {
            self.expire(message.received_at, effects);
            if !self.has_room_to_retain(message, limits) {
                return Err(refusals::QUOTA);
            }
        }
        let mut writes = Writes::new();
        let unsent = self.end_retained(&message.topic, &mut writes);
        if clears {
            return Ok(writes);
        }
        let (seq, heirs) = (numbers.next(), unsent.without(readers));
        self.mailbox.append_retained(seq, message, heirs);
        let topics = self.retained.get_or_insert_default();
        topics.insert(SmolStr::new(&message.topic), seq);
        let (message, nobody) = (message.clone(), DeviceSet::default());
        let append = Mailbox::to_append(seq, &self.id, message, Kind::Retained, nobody);
        for device in self.devices.iter().filter(|it| heirs.contains(it.slot)) {
            writes.extend(device.claim(seq, &append.message));
            effects.wake.extend(device.link.clone());
        }
        writes.push(Write::Retain(append));
        Ok(writes)
    }

    fn has_room_to_retain(&self, message: &Message, limits: &UserLimits) -> bool {
        let topics = self.retained.as_ref().map_or(0, |topics| topics.len());
        let old = self.retained(&message.topic);
        let leaves = old.filter(|old| old.sent_to().is_empty());
        let bytes = self.mailbox.retained_bytes() - leaves.map_or(0, Entry::size);
        topics - usize::from(old.is_some()) < MAX_RETAINED
            && bytes + message.weight() <= limits.max_bytes
    }

    /// The topic has no retained message any more. Returns the devices that were to get it and have not been sent it.
    fn end_retained(&mut self, topic: &str, writes: &mut Writes) -> DeviceSet {
        let Some(topics) = &mut self.retained else {
            return DeviceSet::default();
        };
        let Some(seq) = topics.remove(topic) else {
            return DeviceSet::default();
        };
        if topics.is_empty() {
            self.retained = None;
        }
        let (unsent, gone) = self.mailbox.end_retained(seq);
        let devices = self.devices.iter();
        for device in devices.filter(|device| unsent.contains(device.slot)) {
            writes.extend(device.end_claim(seq));
        }
        writes.push(Write::Unretain(seq));
        writes.extend(gone.map(|gone| Write::Remove(gone.seq)));
        unsent
    }

    /// Nothing is retained any more, up to and with a number.
    pub(crate) fn clear_retained(&mut self, up_to: Seq, effects: &mut Effects) {
        self.end_retained_if(effects, |entry| entry.seq <= up_to);
    }

    pub(super) fn end_expired_retained(&mut self, now: Time, effects: &mut Effects) {
        self.end_retained_if(effects, |entry| entry.is_expired(now));
    }

    fn end_retained_if(&mut self, effects: &mut Effects, which: impl Fn(&Entry) -> bool) {
        let Some(topics) = &self.retained else { return };
        let is_it = |seq: &Seq| self.mailbox.get(*seq).is_none_or(&which);
        let ending = topics.iter().filter(|(_, seq)| is_it(seq));
        let ending: Vec<SmolStr> = ending.map(|(topic, _)| topic.clone()).collect();
        for topic in ending {
            let mut writes = Writes::new();
            self.end_retained(&topic, &mut writes);
            effects.write_all(writes);
        }
    }

    /// A device has subscribed: it is to get what is retained. What the store is to know of that.
    pub(super) fn claim_retained(&mut self, index: usize, topic: &str, now: Time) -> Option<Write> {
        let entry = self.retained(topic).filter(|it| !it.is_expired(now))?;
        let (seq, qos) = (entry.seq, entry.qos);
        let device = &mut self.devices[index];
        if !self.mailbox.claim_retained(seq, device.slot) {
            return None;
        }
        device.session.cursor = device.session.cursor.min(seq - 1);
        device.claim_at(topic, seq, qos)
    }

    /// What the store has of a message cannot be read.
    pub(super) fn lose_retained(&mut self, seq: Seq, effects: &mut Effects) {
        let Some(entry) = self.mailbox.get(seq).filter(|it| it.is_retained()) else {
            return;
        };
        let devices = self.devices.iter();
        for device in devices.filter(|device| entry.waits_for().contains(device.slot)) {
            effects.write_all(device.end_claim(seq).into_iter().collect());
        }
        if let Some(topics) = &mut self.retained {
            topics.retain(|_, other| *other != seq);
            if topics.is_empty() {
                self.retained = None;
            }
        }
    }

    /// A retained message that a store has found. Of two for one topic the later is.
    pub(crate) fn restore_retained(&mut self, topic: SmolStr, seq: Seq, effects: &mut Effects) {
        let topics = self.retained.get_or_insert_default();
        let latest = topics.get(&topic).copied().unwrap_or(0).max(seq);
        let before = topics.insert(topic, latest);
        if let Some(before) = before {
            effects.write(Write::Unretain(before.min(seq)));
        }
    }

    /// The log is complete: what is retained is in it.
    pub(super) fn restored_retained(&mut self, effects: &mut Effects) {
        let Some(topics) = &mut self.retained else {
            return;
        };
        topics.retain(|_, seq| {
            let is_here = self.mailbox.restore_retained(*seq);
            if !is_here {
                effects.write(Write::Unretain(*seq));
            }
            is_here
        });
        if topics.is_empty() {
            self.retained = None;
        }
    }

    /// A claim that a store has found, after the log.
    pub(crate) fn restore_claim(&mut self, session: SessionId, seq: Seq, effects: &mut Effects) {
        let device = self.devices.iter().find(|it| it.id() == Some(session));
        let is_due = device.is_some_and(|it| self.mailbox.claim_retained(seq, it.slot));
        if !is_due {
            effects.write(Write::EndClaim(session, seq));
        }
    }
}

impl Device {
    fn claim(&self, seq: Seq, message: &Message) -> Option<Write> {
        self.claim_at(&message.topic, seq, message.qos)
    }

    /// What the store is to know of the device's waiting for a retained message: of QoS 0, nothing.
    fn claim_at(&self, topic: &str, seq: Seq, qos: QoS) -> Option<Write> {
        let granted = self.reads(topic)?.qos;
        let id = self.id().filter(|_| granted.min(qos) != QoS::AtMostOnce)?;
        Some(Write::Claim(id, seq))
    }

    /// The device is not to be sent a retained message any more, or it is on its way.
    pub(super) fn end_claim(&self, seq: Seq) -> Option<Write> {
        self.id().map(|id| Write::EndClaim(id, seq))
    }
}
