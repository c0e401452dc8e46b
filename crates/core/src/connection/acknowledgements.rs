//! The PUBACKs and PUBRECs that a client is owed.
//!
//! Invariants, checked by the tests below and by `tests/acknowledging.rs`: each PUBLISH has one place, in the order of
//! arrival; an acknowledgement leaves when it is the first and its outcome is known. Places are numbered from 0 for as
//! long as the connection lasts, so that an outcome finds its own place however many have left before.

use std::collections::VecDeque;

use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, QoS};

use crate::metrics::{Metrics, Path};
use crate::time::{Ticks, Time};

/// The queue of acknowledgements.
#[derive(Default)]
pub(super) struct Acknowledgements {
    queue: VecDeque<Place>,
    /// The number of the first in the queue, which is how many have left.
    first: u64,
}

/// The place of one PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    /// Whether it was received on an earlier connection: then the session says what has become of it.
    pub(super) is_repeated: bool,
    /// `None` until it is known.
    outcome: Option<(ReasonCode, Path)>,
    /// When it came.
    came: Ticks,
}

impl Place {
    /// The acknowledgement that leaves from here.
    fn packet(&self, reason: ReasonCode) -> Packet {
        let ack = Ack::with_reason(self.packet_id, reason);
        match self.qos {
            QoS::ExactlyOnce => Packet::PubRec(ack),
            QoS::AtMostOnce | QoS::AtLeastOnce => Packet::PubAck(ack),
        }
    }

    /// A message that was taken is answered.
    fn count(&self, reason: ReasonCode, path: Path, metrics: &Metrics, now: Time) {
        if !reason.is_error() && !self.is_repeated {
            metrics.answered(path, self.came.until(now));
        }
    }
}

impl Acknowledgements {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many are for a PUBLISH of QoS 1.
    pub(super) fn len_of_qos1(&self) -> usize {
        let is_qos1 = |place: &&Place| place.qos == QoS::AtLeastOnce;
        self.queue.iter().filter(is_qos1).count()
    }

    /// Whether the PUBREC of this packet id is among them.
    pub(super) fn awaits_pub_rec(&self, packet_id: PacketId) -> bool {
        self.position_of_pub_rec(packet_id).is_some()
    }

    /// How many have left when the last PUBREC of this packet id has; 0 if there is none in the queue.
    pub(super) fn through_pub_rec(&self, packet_id: PacketId) -> u64 {
        self.position_of_pub_rec(packet_id)
            .map_or(0, |position| self.first + position as u64 + 1)
    }

    fn position_of_pub_rec(&self, packet_id: PacketId) -> Option<usize> {
        let is_it = |place: &Place| place.packet_id == packet_id && place.qos == QoS::ExactlyOnce;
        self.queue.iter().rposition(is_it)
    }

    /// How many have left.
    pub(super) fn left(&self) -> u64 {
        self.first
    }

    /// A PUBLISH takes the last place; its number.
    pub(super) fn push(&mut self, packet_id: PacketId, qos: QoS, now: Time) -> u64 {
        self.push_place(packet_id, qos, false, now)
    }

    /// A PUBLISH of QoS 2 that an earlier connection has received takes the last place; its number.
    pub(super) fn push_repeated(&mut self, packet_id: PacketId, now: Time) -> u64 {
        self.push_place(packet_id, QoS::ExactlyOnce, true, now)
    }

    fn push_place(&mut self, packet_id: PacketId, qos: QoS, is_repeated: bool, now: Time) -> u64 {
        self.queue.push_back(Place {
            packet_id,
            qos,
            is_repeated,
            outcome: None,
            came: now.ticks(),
        });
        self.first + self.queue.len() as u64 - 1
    }

    /// The place with this number, if its acknowledgement has not left.
    pub(super) fn get(&self, number: u64) -> Option<Place> {
        self.index(number).map(|index| self.queue[index])
    }

    /// The outcome of the PUBLISH with this number.
    pub(super) fn settle(&mut self, number: u64, outcome: ReasonCode, path: Path) {
        if let Some(index) = self.index(number) {
            self.queue[index].outcome = Some((outcome, path));
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = number.checked_sub(self.first)?.try_into().ok()?;
        (index < self.queue.len()).then_some(index)
    }

    /// The next acknowledgement, if its outcome is known.
    pub(super) fn pop(&mut self, metrics: &Metrics, now: Time) -> Option<Packet> {
        let first = self.queue.front()?;
        let (reason, path) = first.outcome?;
        let packet = first.packet(reason);
        first.count(reason, path, metrics, now);
        self.queue.pop_front();
        self.first += 1;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    const NOW: Time = Time::from_millis(1);

    fn pop(acknowledgements: &mut Acknowledgements) -> Option<Packet> {
        acknowledgements.pop(&Metrics::default(), NOW)
    }

    fn pub_ack(packet_id: u16) -> Packet {
        Packet::PubAck(Ack::success(id(packet_id)))
    }

    #[test]
    fn they_leave_in_the_order_of_the_publishes() {
        let mut acknowledgements = Acknowledgements::default();
        let one = acknowledgements.push(id(1), QoS::AtLeastOnce, NOW);
        let two = acknowledgements.push(id(2), QoS::AtLeastOnce, NOW);
        acknowledgements.settle(two, ReasonCode::Success, Path::Grace);
        assert_eq!(pop(&mut acknowledgements), None);
        acknowledgements.settle(one, ReasonCode::Success, Path::Grace);
        assert_eq!(pop(&mut acknowledgements), Some(pub_ack(1)));
        assert_eq!(pop(&mut acknowledgements), Some(pub_ack(2)));
        assert_eq!(
            (pop(&mut acknowledgements), acknowledgements.left()),
            (None, 2)
        );
    }

    #[test]
    fn an_outcome_finds_its_place_after_others_have_left() {
        let mut acknowledgements = Acknowledgements::default();
        let one = acknowledgements.push(id(1), QoS::AtLeastOnce, NOW);
        acknowledgements.settle(one, ReasonCode::Success, Path::Grace);
        let _ = pop(&mut acknowledgements);
        let two = acknowledgements.push(id(2), QoS::ExactlyOnce, NOW);
        acknowledgements.settle(one, ReasonCode::QuotaExceeded, Path::Grace);
        assert_eq!(acknowledgements.get(one), None);
        assert_eq!(pop(&mut acknowledgements), None);
        acknowledgements.settle(two, ReasonCode::QuotaExceeded, Path::Grace);
        let ack = Ack::with_reason(id(2), ReasonCode::QuotaExceeded);
        assert_eq!(pop(&mut acknowledgements), Some(Packet::PubRec(ack)));
    }

    #[test]
    fn a_packet_id_is_found_among_those_of_qos_2() {
        let mut acknowledgements = Acknowledgements::default();
        acknowledgements.push(id(7), QoS::AtLeastOnce, NOW);
        assert!(!acknowledgements.awaits_pub_rec(id(7)));
        assert_eq!(acknowledgements.through_pub_rec(id(7)), 0);
        let number = acknowledgements.push_repeated(id(7), NOW);
        assert!(acknowledgements.get(number).unwrap().is_repeated);
        acknowledgements.push(id(8), QoS::AtLeastOnce, NOW);
        assert!(acknowledgements.awaits_pub_rec(id(7)));
        assert_eq!(acknowledgements.through_pub_rec(id(7)), 2);
        let counts = (acknowledgements.len(), acknowledgements.len_of_qos1());
        assert_eq!(counts, (3, 2));
    }
}
