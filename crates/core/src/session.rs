//! What the server remembers of a device from one connection to the next: subscriptions, packet ids on
//! their way, QoS 2 ids received (MQTT 5.0, section 4.1).
//!
//! Invariants: at most [`MAX_SUBSCRIPTIONS`] subscriptions; packet ids on their way to the device are
//! distinct and, in the order of `in_flight`, in the order in which they are sent; a QoS 2 PUBLISH and a
//! PUBREL of a session that outlives its connection are sent when the store has them, not before.

use std::collections::{BTreeSet, VecDeque};

use jam_wire::packet::{PacketId, QoS};
use smallvec::SmallVec;

use crate::store::{Flight, Flights, Seq, Subscription};
use crate::time::Time;

#[cfg(test)]
mod tests;

/// Subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = 256;

/// What is to be done about a packet id on its way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before the store has it.
    Storing,
    /// To be sent.
    Fresh,
    /// Sent on this connection.
    Sent,
    /// Sent on a connection that has ended: to be sent again, with DUP.
    Again,
}

/// A packet id on its way to the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) packet_id: PacketId,
    pub(crate) flight: Flight,
    pub(crate) due: Due,
}

/// The session of one device.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Most have one for ever, to the inbox.
    pub(crate) subscriptions: SmallVec<[Subscription; 1]>,
    /// `None` until there is one, and again from a connection that ends without any.
    packets: Option<Box<Packets>>,
    last_packet_id: u16,
    /// Everything up to here has been looked at for this device.
    pub(crate) cursor: Seq,
}

/// Packet ids that stand for something.
#[derive(Debug, Default)]
struct Packets {
    in_flight: VecDeque<InFlight>,
    /// How many of those are not [`Due::Sent`].
    due: u16,
    /// How many of those are [`Due::Again`].
    again: u16,
    received: BTreeSet<PacketId>,
}

static NO_PACKETS: Packets = Packets {
    in_flight: VecDeque::new(),
    due: 0,
    again: 0,
    received: BTreeSet::new(),
};

impl Session {
    /// What a store has found.
    pub(crate) fn restore(
        subscriptions: Vec<Subscription>,
        received: Vec<PacketId>,
        flights: Flights,
    ) -> Self {
        let last_packet_id = flights.last().map_or(0, |(packet_id, _)| packet_id.get());
        let in_flight: VecDeque<_> = flights
            .into_iter()
            .map(|(packet_id, flight)| InFlight {
                packet_id,
                flight,
                due: Due::Again,
            })
            .collect();
        let again = count(in_flight.len());
        let packets = Packets {
            due: again,
            again,
            in_flight,
            received: received.into_iter().collect(),
        };
        Self {
            subscriptions: subscriptions.into(),
            packets: (!packets.is_empty()).then(|| Box::new(packets)),
            last_packet_id,
            cursor: 0,
        }
    }

    fn packets(&self) -> &Packets {
        self.packets.as_deref().unwrap_or(&NO_PACKETS)
    }

    fn packets_mut(&mut self) -> &mut Packets {
        self.packets.get_or_insert_default()
    }

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

    /// How many packet ids count against the device's Receive Maximum: those that have been sent on this
    /// connection, or will be as soon as the store has them.
    pub(crate) fn on_the_way(&self) -> usize {
        self.packets().in_flight.len() - usize::from(self.packets().again)
    }

    /// Whether something was sent on a connection that has ended, and not since.
    pub(crate) fn has_to_resend(&self) -> bool {
        self.packets().again > 0
    }

    /// A message goes out for the first time, now or when the store has said so.
    pub(crate) fn send(&mut self, seq: Seq, qos: QoS, due: Due) -> PacketId {
        let packet_id = self.free_packet_id();
        let flight = match qos {
            QoS::ExactlyOnce => Flight::AwaitsPubRec(seq),
            QoS::AtMostOnce | QoS::AtLeastOnce => Flight::AwaitsPubAck(seq),
        };
        let packets = self.packets_mut();
        packets.in_flight.push_back(InFlight {
            packet_id,
            flight,
            due,
        });
        packets.due += u16::from(due != Due::Sent);
        packet_id
    }

    /// Whether a PUBLISH waits for the store; nothing may be sent before it.
    pub(crate) fn is_held_up(&self) -> bool {
        let packets = self.packets();
        packets.due > 0
            && packets
                .in_flight
                .iter()
                .any(|it| it.due == Due::Storing && it.flight != Flight::AwaitsPubComp)
    }

    /// Whether a packet id waits to be sent, now or when the store has something.
    pub(crate) fn has_due(&self) -> bool {
        self.packets().due > 0
    }

    /// The packet ids that may be sent now, in their order.
    pub(crate) fn due(&self) -> impl Iterator<Item = InFlight> {
        let packets = self.packets();
        let count = if packets.due == 0 {
            0
        } else {
            packets.in_flight.len()
        };
        let mut held_up = false;
        packets
            .in_flight
            .iter()
            .take(count)
            .copied()
            .filter(move |it| {
                let is_publish = it.flight != Flight::AwaitsPubComp;
                match it.due {
                    Due::Storing => {
                        held_up |= is_publish;
                        false
                    }
                    Due::Fresh | Due::Again => !(is_publish && held_up),
                    Due::Sent => false,
                }
            })
    }

    /// What was due is on its way.
    pub(crate) fn sent(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            self.set_due(index, Due::Sent);
        }
    }

    /// What waits for a store that cannot write is not held up, but for QoS 2 of a session that `lasts`, which may not
    /// come twice.
    pub(crate) fn let_go(&mut self, lasts: bool) {
        for index in 0..self.packets().in_flight.len() {
            let it = self.packets().in_flight[index];
            let waits_in_vain = match it.flight {
                Flight::AwaitsPubAck(_) => true,
                Flight::AwaitsPubRec(_) | Flight::AwaitsPubComp => !lasts,
            };
            if it.due == Due::Storing && waits_in_vain {
                self.set_due(index, Due::Fresh);
            }
        }
    }

    /// The store has what waited for it under this packet id.
    pub(crate) fn stored(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id)
            && self.packets().in_flight[index].due == Due::Storing
        {
            self.set_due(index, Due::Fresh);
        }
    }

    /// Nothing is on its way under this packet id any more.
    pub(crate) fn landed(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            self.set_due(index, Due::Sent);
            self.packets_mut().in_flight.remove(index);
        }
    }

    /// What a packet id on its way stands for.
    pub(crate) fn flight(&self, packet_id: PacketId) -> Option<Flight> {
        self.find(packet_id)
            .map(|index| self.packets().in_flight[index].flight)
    }

    /// The packet id under which a message is on its way.
    pub(crate) fn flight_of(&self, seq: Seq) -> Option<(PacketId, Flight)> {
        let it = self.packets().in_flight.iter().find(|it| {
            matches!(it.flight, Flight::AwaitsPubAck(of) | Flight::AwaitsPubRec(of) if of == seq)
        })?;
        Some((it.packet_id, it.flight))
    }

    /// PUBACK: which message it was.
    pub(crate) fn pub_ack(&mut self, packet_id: PacketId) -> Option<Seq> {
        match self.packets().in_flight[self.find(packet_id)?].flight {
            Flight::AwaitsPubAck(seq) => {
                self.landed(packet_id);
                Some(seq)
            }
            Flight::AwaitsPubRec(_) | Flight::AwaitsPubComp => None,
        }
    }

    /// PUBREC: which message it was. PUBREL is due, unless the device refused the message.
    pub(crate) fn pub_rec(&mut self, packet_id: PacketId, refused: bool, due: Due) -> Received {
        let Some(index) = self.find(packet_id) else {
            return Received::Unknown;
        };
        let received = match self.packets().in_flight[index].flight {
            Flight::AwaitsPubAck(_) => return Received::Unknown,
            Flight::AwaitsPubRec(seq) => {
                self.packets_mut().in_flight[index].flight = Flight::AwaitsPubComp;
                self.set_due(index, due);
                Received::First(seq)
            }
            Flight::AwaitsPubComp => {
                if self.packets().in_flight[index].due == Due::Sent {
                    self.set_due(index, Due::Fresh);
                }
                Received::Again
            }
        };
        if refused {
            self.landed(packet_id);
        }
        received
    }

    /// PUBCOMP: whether it ended anything.
    pub(crate) fn pub_comp(&mut self, packet_id: PacketId) -> bool {
        let index = self.find(packet_id);
        let ends =
            index.is_some_and(|it| self.packets().in_flight[it].flight == Flight::AwaitsPubComp);
        if ends {
            self.landed(packet_id);
        }
        ends
    }

    /// Whether a QoS 2 PUBLISH with this id was received and not released.
    pub(crate) fn has_received(&self, packet_id: PacketId) -> bool {
        self.packets().received.contains(&packet_id)
    }

    /// A QoS 2 PUBLISH was received.
    pub(crate) fn receive(&mut self, packet_id: PacketId) {
        self.packets_mut().received.insert(packet_id);
    }

    /// PUBREL: whether the id was known.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> bool {
        let packets = self.packets.as_mut();
        packets.is_some_and(|packets| packets.received.remove(&packet_id))
    }

    /// QoS 2 ids received and not released.
    pub(crate) fn received(&self) -> u16 {
        count(self.packets().received.len())
    }

    /// The connection has ended.
    pub(crate) fn disconnected(&mut self) {
        for index in 0..self.packets().in_flight.len() {
            if self.packets().in_flight[index].due == Due::Sent {
                self.set_due(index, Due::Again);
            }
        }
        if self.packets().is_empty() {
            self.packets = None;
        }
    }

    fn find(&self, packet_id: PacketId) -> Option<usize> {
        let mut in_flight = self.packets().in_flight.iter();
        in_flight.position(|it| it.packet_id == packet_id)
    }

    fn set_due(&mut self, index: usize, due: Due) {
        let packets = self.packets_mut();
        let old = std::mem::replace(&mut packets.in_flight[index].due, due);
        packets.due -= u16::from(old != Due::Sent);
        packets.due += u16::from(due != Due::Sent);
        packets.again -= u16::from(old == Due::Again);
        packets.again += u16::from(due == Due::Again);
    }

    /// After a crash it is not known which packet ids went out last. Going on anywhere else keeps a late
    /// acknowledgement of one of those from being taken for that of another message.
    pub(crate) fn skip_packet_ids(&mut self, now: Time) {
        let [.., high, low] = now.as_millis().wrapping_mul(0x9E37_79B9).to_be_bytes();
        self.last_packet_id = u16::from_be_bytes([high, low]);
    }

    fn free_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_packet_id)
                && self.find(id).is_none()
            {
                return id;
            }
        }
    }
}

impl Packets {
    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.received.is_empty()
    }
}

/// How many packet ids.
fn count(len: usize) -> u16 {
    u16::try_from(len).expect("there are 65,535 packet ids, and each is here once")
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
