//! What this connection's client is to be sent has senders who want a receipt: what theirs will say is
//! remembered from the sending to the acknowledgement, which come on one connection.

use std::collections::VecDeque;

use jam_wire::packet::{Packet, PacketId, QoS};

use super::inbound::Established;
use crate::message::Message;
use crate::router::{Owed, Router};
use crate::time::Time;

/// By packet id; no more than may be on their way.
#[derive(Default)]
pub(super) struct Receipts(VecDeque<(PacketId, Owed)>);

impl Receipts {
    fn insert(&mut self, packet_id: PacketId, owed: Owed, most: usize) {
        self.remove(packet_id);
        if self.0.len() >= most {
            // It was taken back on its way, by a purge say, or the client breaks the rules.
            self.0.pop_front();
        }
        self.0.push_back((packet_id, owed));
    }

    fn remove(&mut self, packet_id: PacketId) -> Option<Owed> {
        let index = self.0.iter().position(|(id, _)| *id == packet_id)?;
        self.0.remove(index).map(|(_, owed)| owed)
    }
}

impl Established {
    /// A message goes out.
    pub(super) fn owe_receipt(&mut self, message: &Message, packet_id: PacketId, router: &Router) {
        if self.link.user().own_channel(message.topic()) != Some("inbox") {
            return;
        }
        if let Some(owed) = router.owe_receipt(message) {
            let receipts = self.receipts.get_or_insert_default();
            receipts.insert(packet_id, owed, self.window.into());
        }
    }

    /// The client acknowledges something. A refusal is no delivery.
    pub(super) fn write_receipt(&mut self, packet: &Packet, router: &Router, now: Time) {
        let Some(receipts) = &mut self.receipts else {
            return;
        };
        let (ack, qos) = match packet {
            Packet::PubAck(ack) => (ack, QoS::AtLeastOnce),
            Packet::PubRec(ack) => (ack, QoS::ExactlyOnce),
            _ => return,
        };
        let Some(owed) = receipts.remove(ack.packet_id) else {
            return;
        };
        if receipts.0.is_empty() {
            self.receipts = None;
        }
        if !ack.reason.is_error() {
            let (user, link) = (self.link.user(), self.link.id());
            router.write_receipt(user, link, ack.packet_id, qos, &owed, now);
        }
    }
}
