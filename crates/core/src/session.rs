//! What the server remembers of a device from one connection to the next: subscriptions, packet ids on
//! their way, QoS 2 ids received (MQTT 5.0, section 4.1).
//!
//! Invariants: at most [`MAX_SUBSCRIPTIONS`] subscriptions; packet ids on their way to the device are
//! distinct and, in the order of `in_flight`, in the order in which they are sent; a QoS 2 PUBLISH and a
//! PUBREL of a session that outlives its connection are sent when the store has them, not before; a
//! packet id takes a place in the window of this connection only if its PUBLISH belongs to this connection.

use std::collections::{BTreeSet, VecDeque};

use jam_wire::packet::{PacketId, QoS};

use crate::store::{OutboundState, OutboundStates, Seq, Subscription};
use crate::time::{Ticks, Time};

mod subscriptions;
#[cfg(test)]
mod tests;

use subscriptions::Subscriptions;

/// Subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = jam_wire::decode::MAX_FILTERS;

/// What is to be done about a packet id on its way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendState {
    /// Nothing before the store has it.
    AwaitingStore,
    /// To be sent.
    Ready,
    /// Sent on this connection.
    Sent,
    /// Sent on a connection that has ended: to be sent again, with DUP.
    Resend,
    /// Sent on a connection that has ended, and larger than this one takes: for the next one.
    Parked,
}

/// A packet id on its way to the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) packet_id: PacketId,
    pub(crate) flight: OutboundState,
    pub(crate) send_state: SendState,
    /// Its PUBLISH was sent on this connection, or will be as soon as the store has it: it counts against
    /// the client's Receive Maximum until it is complete (MQTT 5.0, section 4.9).
    pub(crate) in_window: bool,
    /// When its message was published, if the device has been connected ever since: for the metrics.
    published_at: Option<Ticks>,
}

impl InFlight {
    fn is_publish(&self) -> bool {
        self.flight != OutboundState::AwaitsPubComp
    }

    fn is_due(&self) -> bool {
        !matches!(self.send_state, SendState::Sent | SendState::Parked)
    }

    /// A PUBLISH of an earlier connection that waits for a place in the window of this one.
    fn is_carried_over(&self) -> bool {
        self.is_publish() && self.is_due() && !self.in_window
    }
}

/// An acknowledgement that does not fit what is on its way under its packet id: a protocol error of the
/// client (MQTT 5.0, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongAck;

/// The session of one device.
#[derive(Debug, Default)]
pub(crate) struct Session {
    subscriptions: Subscriptions,
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
    /// How many of those are to be sent: [`InFlight::is_due`].
    due: u16,
    /// How many of those are [`InFlight::is_carried_over`].
    carried_over: u16,
    /// How many of those take a place in the window.
    in_window: u16,
    received: BTreeSet<PacketId>,
}

static NO_PACKETS: Packets = Packets {
    in_flight: VecDeque::new(),
    due: 0,
    carried_over: 0,
    in_window: 0,
    received: BTreeSet::new(),
};

impl Session {
    /// What a store has found.
    pub(crate) fn restore(
        subscriptions: Vec<Subscription>,
        received: Vec<PacketId>,
        flights: OutboundStates,
    ) -> Self {
        let mut known = Subscriptions::default();
        for subscription in subscriptions {
            known.insert(subscription);
        }
        let last_packet_id = flights.last().map_or(0, |(packet_id, _)| packet_id.get());
        let mut packets = Packets {
            received: received.into_iter().collect(),
            ..Packets::default()
        };
        for (packet_id, flight) in flights {
            packets.push(InFlight {
                packet_id,
                flight,
                send_state: SendState::Resend,
                in_window: false,
                published_at: None,
            });
        }
        Self {
            subscriptions: known,
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
        self.subscriptions.get(topic)
    }

    /// Adds or replaces a subscription; whether it is new. `None` if there is no room for a new one.
    pub(crate) fn subscribe(&mut self, new: Subscription) -> Option<bool> {
        self.subscriptions.insert(new)
    }

    /// Whether there was a subscription.
    pub(crate) fn unsubscribe(&mut self, topic: &str) -> bool {
        self.subscriptions.remove(topic)
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// How many packet ids stand for something that the device has not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.packets().in_flight.len()
    }

    /// How many packet ids count against the device's Receive Maximum.
    pub(crate) fn on_the_way(&self) -> usize {
        self.packets().in_window.into()
    }

    /// Whether a PUBLISH of an earlier connection waits to be sent on this one: nothing new goes before it.
    pub(crate) fn has_carried_over(&self) -> bool {
        self.packets().carried_over > 0
    }

    /// Whether there is a packet id for something new.
    pub(crate) fn has_free_packet_id(&self) -> bool {
        self.packets().in_flight.len() < usize::from(u16::MAX)
    }

    /// A message goes out for the first time, now or when the store has said so. There must be a free
    /// packet id.
    pub(crate) fn send(
        &mut self,
        seq: Seq,
        qos: QoS,
        send_state: SendState,
        published_at: Option<Ticks>,
    ) -> PacketId {
        let packet_id = self.free_packet_id();
        let flight = match qos {
            QoS::ExactlyOnce => OutboundState::AwaitsPubRec(seq),
            QoS::AtMostOnce | QoS::AtLeastOnce => OutboundState::AwaitsPubAck(seq),
        };
        self.packets_mut().push(InFlight {
            packet_id,
            flight,
            send_state,
            in_window: true,
            published_at,
        });
        packet_id
    }

    /// Whether a PUBLISH waits for the store; nothing may be sent before it.
    pub(crate) fn is_held_up(&self) -> bool {
        let packets = self.packets();
        packets.due > 0
            && packets
                .in_flight
                .iter()
                .any(|it| it.send_state == SendState::AwaitingStore && it.is_publish())
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
            .filter(move |it| match it.send_state {
                SendState::AwaitingStore => {
                    held_up |= it.is_publish();
                    false
                }
                SendState::Ready | SendState::Resend => !(it.is_publish() && held_up),
                SendState::Sent | SendState::Parked => false,
            })
    }

    /// What was due is on its way. A PUBLISH takes a place in the window; a PUBREL has the one of its
    /// PUBLISH, or needs none.
    pub(crate) fn sent(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            self.packets_mut().change(index, |it| {
                it.send_state = SendState::Sent;
                it.in_window |= it.is_publish();
            });
        }
    }

    /// This connection does not take it: it keeps its packet id for the next one, and no place in the window.
    pub(crate) fn park(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            self.packets_mut().change(index, |it| {
                (it.send_state, it.in_window) = (SendState::Parked, false);
            });
        }
    }

    /// What waits for a store that cannot write is not held up, but for QoS 2 of a session that `lasts`, which may not
    /// come twice.
    pub(crate) fn let_go(&mut self, lasts: bool) {
        for index in 0..self.packets().in_flight.len() {
            let it = self.packets().in_flight[index];
            let waits_in_vain = match it.flight {
                OutboundState::AwaitsPubAck(_) => true,
                OutboundState::AwaitsPubRec(_) | OutboundState::AwaitsPubComp => !lasts,
            };
            if it.send_state == SendState::AwaitingStore && waits_in_vain {
                self.set_due(index, SendState::Ready);
            }
        }
    }

    /// The store has what waited for it under this packet id.
    pub(crate) fn stored(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id)
            && self.packets().in_flight[index].send_state == SendState::AwaitingStore
        {
            self.set_due(index, SendState::Ready);
        }
    }

    /// Nothing is on its way under this packet id any more.
    pub(crate) fn complete(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            self.packets_mut().remove(index);
        }
    }

    /// What a packet id on its way stands for.
    pub(crate) fn flight(&self, packet_id: PacketId) -> Option<OutboundState> {
        self.find(packet_id)
            .map(|index| self.packets().in_flight[index].flight)
    }

    /// The packet id under which a message is on its way.
    pub(crate) fn outbound_of(&self, seq: Seq) -> Option<(PacketId, OutboundState)> {
        let it = self.packets().in_flight.iter().find(|it| {
            matches!(it.flight, OutboundState::AwaitsPubAck(of) | OutboundState::AwaitsPubRec(of) if of == seq)
        })?;
        Some((it.packet_id, it.flight))
    }

    /// When the message was published that is on its way under this packet id, if the device has been connected ever
    /// since.
    pub(crate) fn published_at(&self, packet_id: PacketId) -> Option<Ticks> {
        let index = self.find(packet_id)?;
        self.packets().in_flight[index].published_at
    }

    /// PUBACK: which message it was, if any is on its way under this packet id, and as [`Self::published_at`].
    pub(crate) fn pub_ack(
        &mut self,
        packet_id: PacketId,
    ) -> Result<Option<(Seq, Option<Ticks>)>, WrongAck> {
        let Some(index) = self.find(packet_id) else {
            return Ok(None);
        };
        let it = self.packets().in_flight[index];
        match it.flight {
            OutboundState::AwaitsPubAck(seq) => {
                self.packets_mut().remove(index);
                Ok(Some((seq, it.published_at)))
            }
            OutboundState::AwaitsPubRec(_) | OutboundState::AwaitsPubComp => Err(WrongAck),
        }
    }

    /// PUBREC: which message it was. PUBREL is due, unless the device refused the message.
    pub(crate) fn pub_rec(
        &mut self,
        packet_id: PacketId,
        refused: bool,
        send_state: SendState,
    ) -> Result<PubRecOutcome, WrongAck> {
        let Some(index) = self.find(packet_id) else {
            return Ok(PubRecOutcome::Unknown);
        };
        let packets = self.packets_mut();
        let received = match packets.in_flight[index].flight {
            OutboundState::AwaitsPubAck(_) => return Err(WrongAck),
            OutboundState::AwaitsPubRec(seq) => {
                packets.change(index, |it| {
                    (it.flight, it.send_state) = (OutboundState::AwaitsPubComp, send_state);
                });
                PubRecOutcome::Acked(seq)
            }
            OutboundState::AwaitsPubComp => {
                if packets.in_flight[index].send_state == SendState::Sent {
                    packets.change(index, |it| it.send_state = SendState::Ready);
                }
                PubRecOutcome::Repeated
            }
        };
        if refused {
            packets.remove(index);
        }
        Ok(received)
    }

    /// PUBCOMP: whether it ended anything. Before its PUBREL was sent there can be none.
    pub(crate) fn pub_comp(&mut self, packet_id: PacketId) -> Result<bool, WrongAck> {
        let Some(index) = self.find(packet_id) else {
            return Ok(false);
        };
        let packets = self.packets_mut();
        let it = packets.in_flight[index];
        if it.is_publish() || it.send_state == SendState::AwaitingStore {
            return Err(WrongAck);
        }
        packets.remove(index);
        Ok(true)
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
            self.packets_mut().change(index, |it| {
                (it.in_window, it.published_at) = (false, None);
                if !it.is_due() {
                    it.send_state = SendState::Resend;
                }
            });
        }
        if self.packets().is_empty() {
            self.packets = None;
        }
    }

    fn find(&self, packet_id: PacketId) -> Option<usize> {
        let mut in_flight = self.packets().in_flight.iter();
        in_flight.position(|it| it.packet_id == packet_id)
    }

    fn set_due(&mut self, index: usize, send_state: SendState) {
        self.packets_mut()
            .change(index, |it| it.send_state = send_state);
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

    fn push(&mut self, it: InFlight) {
        self.in_flight.push_back(it);
        self.count(&it, 1);
    }

    fn remove(&mut self, index: usize) {
        if let Some(it) = self.in_flight.remove(index) {
            self.count(&it, u16::MAX);
        }
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut InFlight)) {
        let it = &mut self.in_flight[index];
        let before = *it;
        change(it);
        let after = *it;
        self.count(&before, u16::MAX);
        self.count(&after, 1);
    }

    /// Adds one to what the packet id counts in, or takes one off: `by` is 1 or, wrapping, -1.
    fn count(&mut self, it: &InFlight, by: u16) {
        for (counter, counts) in [
            (&mut self.due, it.is_due()),
            (&mut self.carried_over, it.is_carried_over()),
            (&mut self.in_window, it.in_window),
        ] {
            *counter = counter.wrapping_add(if counts { by } else { 0 });
        }
    }
}

/// How many packet ids.
fn count(len: usize) -> u16 {
    u16::try_from(len).expect("there are 65,535 packet ids, and each is here once")
}

/// What a PUBREC was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PubRecOutcome {
    /// A message, whose device has it now.
    Acked(Seq),
    /// A message that the device had acknowledged before.
    Repeated,
    /// Nothing that is on its way.
    Unknown,
}
