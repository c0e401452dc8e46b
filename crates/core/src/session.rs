//! What the server remembers of a device from one connection to the next: subscriptions, packet ids on
//! their way, QoS 2 ids received (MQTT 5.0, section 4.1).
//!
//! Invariants: at most [`MAX_SUBSCRIPTIONS`] subscriptions; packet ids on their way to the device are
//! distinct and, in the order of `in_flight`, in the order in which they were first sent.

use std::collections::{HashSet, VecDeque};

use bytestring::ByteString;
use foldhash::fast::RandomState;
use jam_wire::packet::{PacketId, QoS};

use crate::store::Seq;

#[cfg(test)]
mod tests;

/// Subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = 256;

/// A subscription to one topic, by its exact name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topic: ByteString,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<u32>,
}

/// Which answer a packet id on its way to the device waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaits {
    Ack(Seq),
    Rec(Seq),
    Comp,
}

/// A packet id on its way to the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) packet_id: PacketId,
    pub(crate) awaits: Awaits,
    /// The connection it was sent on has ended: it is to be sent again, with DUP.
    pub(crate) resend: bool,
}

/// The session of one device.
#[derive(Debug, Default)]
pub(crate) struct Session {
    subscriptions: Vec<Subscription>,
    in_flight: VecDeque<InFlight>,
    to_resend: usize,
    last_packet_id: u16,
    received: HashSet<PacketId, RandomState>,
    /// Everything up to here has been looked at for this device.
    pub(crate) cursor: Seq,
}

impl Session {
    pub(crate) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions
            .iter()
            .find(|subscription| subscription.topic == topic)
    }

    /// Adds or replaces a subscription; whether it is new. `None` if there is no room for a new one.
    pub(crate) fn subscribe(&mut self, new: Subscription) -> Option<bool> {
        if let Some(old) = self
            .subscriptions
            .iter_mut()
            .find(|old| old.topic == new.topic)
        {
            *old = new;
            return Some(false);
        }
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return None;
        }
        self.subscriptions.push(new);
        Some(true)
    }

    /// Whether there was a subscription.
    pub(crate) fn unsubscribe(&mut self, topic: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions
            .retain(|subscription| subscription.topic != topic);
        self.subscriptions.len() < before
    }

    /// How many packet ids are on their way on this connection, out of those that count against the
    /// device's Receive Maximum.
    pub(crate) fn on_the_way(&self) -> usize {
        self.in_flight.len() - self.to_resend
    }

    /// A message goes out for the first time.
    pub(crate) fn send(&mut self, seq: Seq, qos: QoS) -> PacketId {
        let packet_id = self.free_packet_id();
        let awaits = match qos {
            QoS::ExactlyOnce => Awaits::Rec(seq),
            QoS::AtMostOnce | QoS::AtLeastOnce => Awaits::Ack(seq),
        };
        self.in_flight.push_back(InFlight {
            packet_id,
            awaits,
            resend: false,
        });
        packet_id
    }

    /// Whether something is to be sent again.
    pub(crate) fn has_to_resend(&self) -> bool {
        self.to_resend > 0
    }

    /// The next packet id that is to be sent again, in the order of the first sending.
    pub(crate) fn resend(&mut self) -> Option<InFlight> {
        if self.to_resend == 0 {
            return None;
        }
        let next = self
            .in_flight
            .iter_mut()
            .find(|in_flight| in_flight.resend)?;
        next.resend = false;
        self.to_resend -= 1;
        Some(*next)
    }

    /// PUBACK: which message it was.
    pub(crate) fn pub_ack(&mut self, packet_id: PacketId) -> Option<Seq> {
        match self.find(packet_id)? {
            (index, Awaits::Ack(seq)) => {
                self.remove(index);
                Some(seq)
            }
            _ => None,
        }
    }

    /// PUBREC: which message it was. Its packet id waits for PUBCOMP unless the device refused it.
    pub(crate) fn pub_rec(&mut self, packet_id: PacketId, refused: bool) -> Received {
        match self.find(packet_id) {
            Some((index, Awaits::Rec(seq))) => {
                if refused {
                    self.remove(index);
                } else {
                    self.in_flight[index].awaits = Awaits::Comp;
                }
                Received::First(seq)
            }
            Some((index, Awaits::Comp)) => {
                if refused {
                    self.remove(index);
                }
                Received::Again
            }
            Some((_, Awaits::Ack(_))) | None => Received::Unknown,
        }
    }

    /// PUBCOMP: whether it ended anything.
    pub(crate) fn pub_comp(&mut self, packet_id: PacketId) -> bool {
        match self.find(packet_id) {
            Some((index, Awaits::Comp)) => {
                self.remove(index);
                true
            }
            _ => false,
        }
    }

    /// Whether a QoS 2 PUBLISH with this id was received and not released.
    pub(crate) fn has_received(&self, packet_id: PacketId) -> bool {
        self.received.contains(&packet_id)
    }

    /// A QoS 2 PUBLISH was received.
    pub(crate) fn receive(&mut self, packet_id: PacketId) {
        self.received.insert(packet_id);
    }

    /// PUBREL: whether the id was known.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> bool {
        self.received.remove(&packet_id)
    }

    /// QoS 2 ids received and not released.
    pub(crate) fn received(&self) -> usize {
        self.received.len()
    }

    /// The connection has ended.
    pub(crate) fn disconnected(&mut self) {
        for in_flight in &mut self.in_flight {
            in_flight.resend = true;
        }
        self.to_resend = self.in_flight.len();
    }

    fn find(&self, packet_id: PacketId) -> Option<(usize, Awaits)> {
        let index = self
            .in_flight
            .iter()
            .position(|it| it.packet_id == packet_id)?;
        Some((index, self.in_flight[index].awaits))
    }

    fn remove(&mut self, index: usize) {
        if self
            .in_flight
            .remove(index)
            .is_some_and(|removed| removed.resend)
        {
            self.to_resend -= 1;
        }
    }

    fn free_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_packet_id)
                && !self
                    .in_flight
                    .iter()
                    .any(|in_flight| in_flight.packet_id == id)
            {
                return id;
            }
        }
    }
}

/// What a PUBREC was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// A message, whose device has it now.
    First(Seq),
    /// A message that the device had acknowledged before.
    Again,
    /// Nothing that is on its way.
    Unknown,
}
