//! Messages join the log.

use std::sync::Arc;

use jam_wire::packet::{PacketId, QoS};
use smallvec::SmallVec;

use super::tally::count;
use super::{Effects, MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES, User, UserLimits};
use crate::directory::{Life, LifeFact};
use crate::ids::UserId;
use crate::link::LinkId;
use crate::mailbox::{DeviceSet, Gone, Kind, Mailbox, Residence};
use crate::message::{ENTRY_BYTES, Message};
use crate::policy::{Destination, Refusal, refusals};
use crate::push::PushRules;
use crate::store::{Append, Seq, Sequence, SessionId, Write, Writes};

/// Devices that are further behind than this do not keep up: what is for them goes to the store at once, and nothing
/// that waits for them holds the buffer that it came in. It holds for messages that are kept, and for QoS 0, each.
pub const KEEPING_UP: usize = 64;

/// A permitted message.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) message: Message,
    pub(crate) destination: Destination,
    /// The connection it came on.
    pub(crate) origin: Option<LinkId>,
    /// Whether it may stay in memory for a grace.
    pub(crate) may_wait: bool,
    /// Whether a push may be sent for it.
    pub(crate) may_push: bool,
    /// Of the receiver's account, if the directory was asked.
    pub(crate) life: Option<LifeFact>,
    /// The account that it is for: it is dropped if another one has the receiver's id by now.
    pub(crate) only_for: Option<Life>,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It need not be kept in the log. It may be kept as the retained message of its topic.
    NotKept(Writes),
    /// It is in the log for a grace, with this number, and takes so many bytes of memory.
    Grace(Seq, u64),
    /// It is to be stored, in one call with what it changes in what is retained, and with what is said of pushes for it.
    Store {
        append: Append,
        retained: Writes,
        pushes: Writes,
    },
}

impl User {
    /// Appends a permitted message.
    pub(crate) fn append(
        &mut self,
        new: New,
        limits: &UserLimits,
        numbers: &Sequence,
        effects: &mut Effects,
    ) -> Result<Appended, Refusal> {
        let mut message = new.message;
        let kept = message.qos != QoS::AtMostOnce;
        let kind = match new.destination {
            Destination::Inbox => {
                message.retain = false;
                Kind::Inbox
            }
            Destination::OwnChannel => Kind::Channel,
        };
        let (readers, live) = self.readers(&message, new.origin, effects);
        let wanted = !readers.is_empty() || (kept && kind == Kind::Inbox);
        if wanted && kept && !self.has_room(&message, limits, effects) {
            return Err(refusals::QUOTA);
        }
        if kept {
            self.keep_sessions(readers, effects);
        }
        if !live || message.retain {
            message.detach();
        }
        let message = Arc::new(message);
        let retained = if message.retain {
            self.retain(&message, readers, limits, numbers, effects)?
        } else {
            Writes::new()
        };
        let push = Some(&limits.push).filter(|_| new.may_push);
        if !kept && !self.is_connected() {
            let push = push.and_then(|rules| self.expect_ack(&message, 0, rules, effects));
            push.into_iter().for_each(|push| effects.write(push));
        }
        if !wanted {
            return Ok(Appended::NotKept(retained));
        }
        if !kept && !self.has_room_for_ephemeral(&message, effects) {
            effects.rare().tally.dropped += 1;
            return Ok(Appended::NotKept(retained));
        }
        // That its readers have it does not keep a retained message for devices that subscribe later.
        let may_wait = live && new.may_wait && retained.is_empty();
        let residence = residence(message.qos, may_wait);
        let seq = numbers.next();
        let copy = message.clone();
        self.mailbox
            .append(seq, copy, kind, residence, readers, limits.max_age);
        Ok(match residence {
            Residence::MemoryOnly => Appended::NotKept(retained),
            Residence::Grace => Appended::Grace(seq, message.weight() + ENTRY_BYTES),
            Residence::Committing | Residence::Stored => {
                let push = push.and_then(|rules| self.expect_ack(&message, seq, rules, effects));
                Appended::Store {
                    append: Mailbox::to_append(seq, &self.id, message, kind, readers),
                    retained,
                    pushes: push.into_iter().collect(),
                }
            }
        })
    }

    pub(super) fn has_room(
        &mut self,
        message: &Message,
        limits: &UserLimits,
        effects: &mut Effects,
    ) -> bool {
        let fits = |mailbox: &Mailbox| {
            let (messages, bytes) = (limits.max_messages, limits.max_bytes);
            mailbox.has_room(&message.sender, message.weight(), messages, bytes)
        };
        if !fits(&self.mailbox) {
            self.expire(message.received_at, effects);
        }
        fits(&self.mailbox)
    }

    pub(super) fn has_room_for_ephemeral(
        &mut self,
        message: &Message,
        effects: &mut Effects,
    ) -> bool {
        let fits = |mailbox: &Mailbox| {
            let load = mailbox.ephemeral();
            load.has_room(message.weight(), MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES)
        };
        if !fits(&self.mailbox) {
            self.expire(message.received_at, effects);
        }
        fits(&self.mailbox)
    }

    /// The devices that are to get a message, and whether all of them keep up. The live ones are woken.
    fn readers(
        &self,
        message: &Message,
        origin: Option<LinkId>,
        effects: &mut Effects,
    ) -> (DeviceSet, bool) {
        let mut readers = DeviceSet::default();
        let waiting = [self.mailbox.kept(), self.mailbox.ephemeral()];
        let mut live = waiting.iter().all(|load| load.messages < KEEPING_UP);
        for device in &self.devices {
            let Some(reads) = device.reads(&message.topic) else {
                continue;
            };
            if reads.no_local && origin.is_some_and(|origin| device.is_linked(origin)) {
                continue;
            }
            match &device.link {
                Some(link) => effects.wake.push(link.clone()),
                None if message.qos == QoS::AtMostOnce => continue,
                None if reads.qos == QoS::AtMostOnce && !self.id.is_inbox(&message.topic) => {
                    continue;
                }
                None => live = false,
            }
            readers.insert(device.slot);
        }
        (readers, live && !readers.is_empty())
    }

    /// The grace of a message is over: what is to be stored of it and of its being on its way. The user is
    /// told, by `push`, if they do not get it soon.
    pub(crate) fn hand_over(
        &mut self,
        seq: Seq,
        push: Option<&PushRules>,
        effects: &mut Effects,
    ) -> Option<Writes> {
        let message = self
            .mailbox
            .move_to(seq, Residence::Stored)?
            .into_detached();
        let entry = self.mailbox.get(seq)?;
        let (kind, waits_for) = (entry.kind, entry.waits_for());
        let append = Mailbox::to_append(seq, &self.id, message.clone(), kind, waits_for);
        let mut writes: Writes = SmallVec::from_iter([Write::Append(append)]);
        if entry.is_acknowledged() {
            let waits_for = waits_for.bits();
            writes.push(Write::Acknowledged { seq, waits_for });
        }
        for device in &self.devices {
            if entry.sent_to().contains(device.slot)
                && let Some(id) = device.id()
                && let Some((packet_id, flight)) = device.session.outbound_of(seq)
            {
                writes.push(Write::InFlight(id, packet_id, flight));
            }
        }
        if let Some(rules) = push
            && kind == Kind::Inbox
            && message.sender != self.id
            && !entry.is_acknowledged()
        {
            writes.extend(self.expect_ack(&message, seq, rules, effects));
        }
        Some(writes)
    }

    /// The store has a message that could not be delivered before.
    pub(crate) fn message_stored(&mut self, seq: Seq, effects: &mut Effects) {
        self.push_when_stored(seq, effects);
        let Some(entry) = self
            .mailbox
            .get(seq)
            .filter(|entry| entry.residence == Residence::Committing)
        else {
            return;
        };
        let waits_for = entry.waits_for();
        self.mailbox.move_to(seq, Residence::Stored);
        let devices = self
            .devices
            .iter()
            .filter(|device| waits_for.contains(device.slot));
        effects
            .wake
            .extend(devices.filter_map(|device| device.link.clone()));
    }

    /// What waits in the inbox leaves, of one sender if there is `from`, but for what comes after a number. How many
    /// messages that are.
    pub(crate) fn purge(
        &mut self,
        up_to: Seq,
        from: Option<&UserId>,
        effects: &mut Effects,
    ) -> usize {
        let mut gone = Vec::new();
        self.mailbox.purge(up_to, from, &mut gone);
        if !gone.is_empty() {
            effects.rare().tally.purged += count(&gone);
        }
        self.land_gone(&gone, effects);
        let purged = gone.len();
        effects.all_gone(gone);
        purged
    }

    /// What has left is not on its way to any device any more.
    pub(super) fn land_gone(&mut self, gone: &[Gone], effects: &mut Effects) {
        for entry in gone {
            for device in &mut self.devices {
                if let Some((packet_id, _)) = device.session.outbound_of(entry.seq) {
                    device.session.complete(packet_id);
                    effects.write_all(
                        device
                            .id()
                            .map(|id| Write::EndInFlight(id, packet_id))
                            .into_iter()
                            .collect(),
                    );
                }
            }
        }
    }

    /// The store could not keep a message, or no longer has it: it was never here.
    pub(crate) fn forget(&mut self, seq: Seq, effects: &mut Effects) {
        self.lose_retained(seq, effects);
        self.mailbox.remove(seq);
        self.no_push_for(seq, effects);
        for device in &mut self.devices {
            if let Some((packet_id, _)) = device.session.outbound_of(seq) {
                device.session.complete(packet_id);
            }
        }
    }

    /// The store could not keep what this user has published: it was never received.
    pub(crate) fn publish_rejected(&mut self, session: SessionId, packet_id: PacketId) {
        let mut devices = self.devices.iter_mut();
        if let Some(device) = devices.find(|device| device.id() == Some(session)) {
            device.session.release(packet_id);
        }
    }
}

/// Where a message begins. At QoS 1 it may wait in memory for its readers; at QoS 2 it is delivered once it is stored.
fn residence(qos: QoS, may_wait: bool) -> Residence {
    match qos {
        QoS::AtMostOnce => Residence::MemoryOnly,
        QoS::AtLeastOnce if may_wait => Residence::Grace,
        QoS::AtLeastOnce => Residence::Stored,
        QoS::ExactlyOnce => Residence::Committing,
    }
}
