//! Devices acknowledge what they were sent: PUBACK for QoS 1, PUBREC and PUBCOMP for QoS 2 (MQTT 5.0, section 4.3).
//!
//! Invariants, checked by `tests/acknowledging.rs` and `tests/promises.rs`: a message leaves the store in the same
//! batch in which its device comes to wait for PUBCOMP; a PUBREL goes out once that is stored.

use jam_wire::packet::PacketId;

use super::{Awaits, Device, Effects, User, Which};
use crate::link::LinkId;
use crate::mailbox::{Acked, Entry, Mailbox, Residence};
use crate::metrics::{Channel, Metrics};
use crate::session::{PubRecOutcome, SendState, WrongAck};
use crate::store::{OutboundState, Seq, Write, Writes};
use crate::time::{Ticks, Time};

/// What is counted of an acknowledgement.
pub(crate) struct Acknowledged {
    channel: Channel,
    /// When the message was published, if this is its first acknowledgement and the device was connected all the while.
    published_at: Option<Ticks>,
}

impl Acknowledged {
    #[inline]
    fn of(entry: &Entry, published_at: Option<Ticks>) -> Self {
        Self {
            channel: entry.kind.channel(),
            published_at: published_at.filter(|_| !entry.is_acknowledged()),
        }
    }

    #[inline]
    pub(crate) fn count(&self, metrics: &Metrics, now: Time) {
        let after = self.published_at.map(|published| published.until(now));
        metrics.acknowledged(self.channel, after);
    }
}

impl User {
    /// PUBACK from a device.
    pub(crate) fn pub_ack(
        &mut self,
        link: LinkId,
        packet_id: PacketId,
        effects: &mut Effects,
    ) -> Result<Option<Acknowledged>, WrongAck> {
        if let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
            && let Some((seq, published_at)) = device.session.pub_ack(packet_id)?
        {
            let mut acknowledged = None;
            let writes = acked(
                device,
                &mut self.mailbox,
                seq,
                Some(packet_id),
                effects,
                |entry| {
                    acknowledged = Some(Acknowledged::of(entry, published_at));
                },
            );
            effects.write_all(writes);
            self.was_heard_of(effects);
            return Ok(acknowledged);
        }
        Ok(None)
    }

    /// PUBREC from a device. The PUBREL is fetched, when the store has it, or that the message is gone: after
    /// PUBREL the message may not come again. While the store can keep nothing, a session that ends with its
    /// connection does not wait for it.
    pub(crate) fn pub_rec(
        &mut self,
        link: LinkId,
        packet_id: PacketId,
        refused: bool,
        can_store: bool,
        effects: &mut Effects,
    ) -> Result<(PubRecOutcome, Option<Acknowledged>), WrongAck> {
        let mut devices = self.devices.iter_mut();
        let Some(device) = devices.find(|device| device.is_linked(link)) else {
            return Ok((PubRecOutcome::Unknown, None));
        };
        let published_at = device.session.published_at(packet_id);
        let is_stored = match device.session.flight(packet_id) {
            Some(OutboundState::AwaitsPubRec(seq)) => {
                self.mailbox.get(seq).is_some_and(Entry::is_stored)
            }
            _ => false,
        };
        let waits = match device.id() {
            Some(id) => Some(Which::Lasting(id)),
            None => (is_stored && can_store).then_some(Which::Of(link)),
        };
        let due = if waits.is_some() {
            SendState::AwaitingStore
        } else {
            SendState::Ready
        };
        let received = device.session.pub_rec(packet_id, refused, due)?;
        let PubRecOutcome::Acked(seq) = received else {
            return Ok((received, None));
        };
        let mut acknowledged = None;
        let mut writes = acked(device, &mut self.mailbox, seq, None, effects, |entry| {
            acknowledged = Some(Acknowledged::of(entry, published_at));
        });
        if refused {
            writes.extend(end_in_flight(device, packet_id));
        } else if let Some(id) = device.id() {
            // Together: the device waits for PUBREL from the moment on at which the message is gone.
            writes.push(Write::InFlight(id, packet_id, OutboundState::AwaitsPubComp));
        }
        match waits.filter(|_| !refused) {
            Some(session) => {
                let awaits = Awaits::Device(session, Some(packet_id));
                effects.writes.push((writes, Some(awaits)));
            }
            None => effects.write_all(writes),
        }
        self.was_heard_of(effects);
        Ok((received, acknowledged.filter(|_| !refused)))
    }

    /// PUBCOMP from a device.
    pub(crate) fn pub_comp(
        &mut self,
        link: LinkId,
        packet_id: PacketId,
        effects: &mut Effects,
    ) -> Result<(), WrongAck> {
        if let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
            && device.session.pub_comp(packet_id)?
        {
            effects.write_all(end_in_flight(device, packet_id).into_iter().collect());
        }
        Ok(())
    }

    /// The store has what waited for it before it could be sent: under a packet id, or at all.
    pub(crate) fn flight_stored(
        &mut self,
        session: Which,
        packet_id: Option<PacketId>,
        effects: &mut Effects,
    ) {
        let is_it = |device: &&mut Device| match session {
            Which::Lasting(id) => device.id() == Some(id),
            Which::Of(link) => device.is_linked(link),
        };
        if let Some(device) = self.devices.iter_mut().find(is_it) {
            match packet_id {
                Some(packet_id) => device.session.stored(packet_id),
                None => device.maybe_sent_now_is_stored = true,
            }
            effects.wake.extend(device.link.clone());
        }
    }
}

pub(super) fn end_in_flight(device: &Device, packet_id: PacketId) -> Option<Write> {
    device.id().map(|id| Write::EndInFlight(id, packet_id))
}

/// A device has a message, or will not get it: what the store is to know of that. `look` sees the entry as it was before.
#[inline]
pub(super) fn acked(
    device: &Device,
    mailbox: &mut Mailbox,
    seq: Seq,
    packet_id: Option<PacketId>,
    effects: &mut Effects,
    look: impl FnOnce(&Entry),
) -> Writes {
    let entry = mailbox.get(seq);
    let stored = entry.is_some_and(Entry::is_stored);
    let is_retained = entry.is_some_and(Entry::is_retained);
    if let Some(entry) = entry {
        look(entry);
    }
    let mut writes = Writes::new();
    if is_retained {
        writes.extend(device.end_claim(seq));
    }
    match mailbox.ack(seq, device.slot) {
        // Claims and packet ids say which devices are to get it.
        Acked::Fewer(..) if is_retained => {}
        Acked::Fewer(waits_for, Residence::Committing | Residence::Stored) => {
            writes.push(Write::Acknowledged {
                seq,
                waits_for: waits_for.bits(),
            });
        }
        Acked::Gone(gone) if stored => writes.push(Write::Remove(gone.seq)),
        Acked::Gone(gone) => effects.gone(gone),
        Acked::Fewer(..) | Acked::No => {}
    }
    if stored {
        writes.extend(packet_id.and_then(|packet_id| end_in_flight(device, packet_id)));
    }
    writes
}
