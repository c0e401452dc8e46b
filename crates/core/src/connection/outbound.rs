//! What a client that has been let in is sent: errors, and what waits for its device.

use std::num::NonZeroU32;

use bytes::Bytes;
use jam_wire::encode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

use super::OUTPUT_ENOUGH;
use super::established::Established;
use crate::message::Message;
use crate::output::Output;
use crate::policy::Refusal;
use crate::router::Router;
use crate::time::Time;
use crate::user::{Delivery, Fetched, Room};

/// Deliveries that are fetched at once.
const BATCH: usize = 16;

impl Established {
    /// Appends a packet, unless it is larger than the client takes; whether it was appended.
    pub(super) fn push(&self, packet: &Packet, output: &mut Output) -> bool {
        self.fits(packet) && output.push(packet, self.version).is_ok()
    }

    /// Whether the client takes a packet of this size.
    pub(super) fn fits(&self, packet: &Packet) -> bool {
        self.max_packet.is_none_or(|max| {
            encode::encoded_len(packet, self.version).is_ok_and(|len| len <= max.get() as usize)
        })
    }

    /// Writes an error to the device channel (PROTOCOL.md, section 2).
    pub(super) fn tell(&self, refusal: &Refusal, message_id: Option<u16>, output: &mut Output) {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: self.link.identity().client().device_channel(),
            packet_id: None,
            properties: None,
            payload: Bytes::from(refusal.to_json(message_id)),
        };
        self.push(&Packet::Publish(publish), output);
    }

    /// Sends what waits for the device, as long as there is room for it here and there. Whether that is
    /// something that the client has to acknowledge.
    pub(super) fn deliver(&mut self, router: &Router, output: &mut Output, now: Time) -> bool {
        let link = self.link.id();
        self.has_mail = true;
        if !self.gate.is_open(router.can_store()) {
            return false;
        }
        let mut is_awaited = false;
        let mut holds_loaded = false;
        let mut room = Room {
            window: self.window.into(),
            live_from: self.live_from,
            count: BATCH,
            bytes: 0,
            can_store: router.can_store(),
            max_packet: self.max_packet.map(NonZeroU32::get),
        };
        while output.len() < OUTPUT_ENOUGH {
            room.bytes = (OUTPUT_ENOUGH - output.len()) as u64;
            let mut fetched = Fetched::default();
            router.fetch(self.link.user(), link, room, now, &mut fetched);
            holds_loaded = fetched.holds_loaded;
            let is_last = fetched.is_all || fetched.deliveries.is_empty();
            // If something is held back, the acknowledgement that opens the window asks again.
            self.has_mail = !is_last || fetched.held_back;
            for delivery in fetched.deliveries.drain(..) {
                let packet = match delivery {
                    Delivery::PubRel(packet_id) => {
                        is_awaited = true;
                        Packet::PubRel(Ack::success(packet_id))
                    }
                    Delivery::Publish(message, terms) => {
                        is_awaited |= terms.packet_id.is_some();
                        if let Some(packet_id) = terms.packet_id
                            && router.writes_receipts()
                        {
                            self.owe_receipt(&message, packet_id, router);
                        }
                        router
                            .metrics()
                            .delivered(terms.channel, terms.qos, terms.dup);
                        Packet::Publish(message.to_publish(terms, self.version == Version::V5, now))
                    }
                };
                self.push(&packet, output);
            }
            if is_last {
                break;
            }
        }
        if holds_loaded && output.len() >= OUTPUT_ENOUGH {
            // It would be held for as long as the client does not read.
            router.unload(self.link.user(), link);
        }
        is_awaited
    }

    /// A message goes out, whose sender may want a receipt.
    fn owe_receipt(&mut self, message: &Message, packet_id: PacketId, router: &Router) {
        if self.link.user().own_channel(message.topic()) != Some("inbox") {
            return;
        }
        if let Some(owed) = router.owe_receipt(message) {
            let receipts = self.receipts.get_or_insert_default();
            receipts.insert(packet_id, owed, self.window.into());
        }
    }
}
