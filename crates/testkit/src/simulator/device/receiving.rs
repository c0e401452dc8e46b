//! What a device is sent, held against what it may be sent.

use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};
use jam_wire::{ReasonCode, encode};

use super::{Device, WINDOW};
use crate::simulator::{Message, Messages};

impl Device {
    pub(in crate::simulator) fn drain(&mut self, in_order: bool, messages: &mut Messages) {
        if !self.connected {
            return;
        }
        if self.is_heard() {
            self.acks_are_heard();
        }
        while let Some(packet) = self.client.next() {
            self.check_size(&packet);
            match packet {
                Packet::Publish(publish) => self.take(&publish, in_order, messages),
                Packet::PubAck(ack) => self.answered(&ack, QoS::AtLeastOnce, messages),
                Packet::PubRec(ack) => self.answered(&ack, QoS::ExactlyOnce, messages),
                Packet::PubComp(ack) => self
                    .outgoing
                    .retain(|outgoing| outgoing.id != ack.packet_id),
                Packet::PubRel(ack) => {
                    self.received.remove(&ack.packet_id);
                    self.todo
                        .push_back(Packet::PubComp(Ack::success(ack.packet_id)));
                }
                Packet::SubAck(_) | Packet::UnsubAck(_) => {
                    self.unanswered_subscribes = self.unanswered_subscribes.saturating_sub(1);
                    self.unsubscribing &= self.unanswered_subscribes > 0;
                    (self.unsure, self.doubtful, self.ends_early) = (false, false, None);
                }
                Packet::PingResp => {}
                other => panic!("{} did not expect {other:?}", self.client.id()),
            }
        }
        self.is_late &= !self.reads;
        assert!(
            !self.client.is_closed(),
            "{} was disconnected",
            self.client.id()
        );
    }

    /// No packet is larger than the connection takes.
    fn check_size(&self, packet: &Packet) {
        if let Some(max) = self.max_packet.filter(|_| self.version == Version::V5) {
            let len = encode::encoded_len(packet, self.version).expect("a packet");
            assert!(len <= max as usize, "{} got {packet:?}", self.client.id());
        }
    }

    /// PUBACK or PUBREC.
    fn answered(&mut self, ack: &Ack, qos: QoS, messages: &mut Messages) {
        let id = ack.packet_id;
        assert_eq!(
            self.unanswered.pop_front(),
            Some(id),
            "acknowledgements out of order"
        );
        let index = self.outgoing.iter().position(|outgoing| outgoing.id == id);
        let index = index.expect("an acknowledgement of something on its way");
        let outgoing = &mut self.outgoing[index];
        assert_eq!(
            outgoing.publish.qos, qos,
            "the wrong kind of acknowledgement"
        );
        let known = outgoing.allowed || self.errors.contains(&id.get()) || outgoing.publish.dup;
        assert!(known, "a refusal was acknowledged before its error");
        let told = self.errors.remove(&id.get());
        let success = !told && ack.reason == ReasonCode::Success;
        let (number, is_first) = (outgoing.number, !outgoing.publish.dup);
        messages[number].refused |= !success && is_first;
        if is_first && outgoing.allowed && !outgoing.was_refused {
            let refusal = outgoing.refusal;
            self.check_refusal(!success, refusal, &messages[number]);
        }
        let outgoing = &mut self.outgoing[index];
        if self.version == Version::V5
            && !outgoing.publish.dup
            && !self.fallible
            && !outgoing.was_refused
            && !self.is_tight
        {
            assert_eq!(success, outgoing.allowed, "{outgoing:?}");
        }
        if outgoing.allowed && success {
            messages[outgoing.number].accepted = true;
        }
        if qos == QoS::AtLeastOnce || ack.reason.is_error() {
            self.outgoing.remove(index);
        } else {
            outgoing.received = true;
            self.todo.push_back(Packet::PubRel(Ack::success(id)));
        }
    }

    fn take(&mut self, publish: &Publish, in_order: bool, messages: &mut Messages) {
        if publish.topic == self.client.channel() {
            self.errors.extend(message_id(&publish.payload));
            return;
        }
        let number = (publish.topic == self.client.inbox()).then(|| number(&publish.payload));
        let again = publish
            .packet_id
            .is_some_and(|id| self.received.contains(&id));
        if let Some(id) = publish.packet_id {
            self.take_id(id, publish, number);
        }
        let Some(number) = number else {
            return;
        };
        let message = &messages[number];
        let who = self.client.id();
        assert_eq!(message.receiver, self.user, "{who} got {message:?}");
        assert!(message.allowed && !message.gone, "{who} got {message:?}");
        assert_eq!(publish.qos, message.qos);
        assert!(!publish.retain);
        // What waits for the store under its packet id already still comes (MQTT 5.0, section 3.10.4).
        let started = publish.dup || publish.qos != QoS::AtMostOnce;
        let subscribed = self.subscribed || self.maybe_subscribed || self.unsubscribing;
        assert!(subscribed || started, "{who} has not subscribed");
        if self.version == Version::V5 {
            let from = [("from", message.sender)].into();
            let properties = publish.properties.as_ref();
            assert!(properties.is_some_and(|it| it.user == from));
        }
        assert!(
            publish.dup || self.is_late || !message.is_over(self.now),
            "{who} got {message:?} when it was over"
        );
        // It may have been another device's before.
        self.acked.remove(&number);
        let first = self.seen.insert(number);
        assert!(
            !publish.dup || !first || self.crashed || self.missed,
            "{who}: message {number} was never sent before"
        );
        assert!(
            publish.dup || first || publish.qos != QoS::AtLeastOnce || message.repeated,
            "{who}: message {number} was sent before"
        );
        let in_order = in_order && !messages[number].is_unordered;
        // One that went with its receiver's account, or has expired (MQTT 5.0, section 3.3.2.3.3), and is sent again,
        // comes after what was sent meanwhile.
        let message = &messages[number];
        let is_late = message.excused || (message.expires.is_some() && message.sent_again);
        let is_ordered = in_order && publish.qos != QoS::AtMostOnce && !is_late;
        if is_ordered && !messages[number].arrived {
            let (sender, receiver) = (messages[number].sender, messages[number].receiver);
            let is_later =
                |it: &&Message| it.arrived && it.sender == sender && it.receiver == receiver;
            let later = messages[number..].iter().find(is_later);
            assert!(
                later.is_none(),
                "{who} got message {number} after {later:?}"
            );
            messages[number].arrived = true;
        }
        let message = &messages[number];
        let first_here = self.seen_here.insert(number);
        assert!(
            first_here || message.repeated,
            "{who} got message {number} twice"
        );
        if publish.qos == QoS::ExactlyOnce && !again {
            assert!(
                self.seen_once.insert(number),
                "{who} got message {number} twice at QoS 2"
            );
        }
        if in_order && !message.repeated && !is_late {
            let last = self.last_of.insert(message.sender, number);
            assert!(
                last < Some(number),
                "{who} got message {number} after {last:?}"
            );
        }
    }

    /// Messages that may be on their way to it at once.
    pub(super) fn most_in_window(&self) -> usize {
        let asked = self.receive_maximum.filter(|_| self.version == Version::V5);
        asked.map_or(WINDOW, usize::from)
    }

    /// A packet id on its way to the device.
    fn take_id(&mut self, id: PacketId, publish: &Publish, number: Option<usize>) {
        assert!(self.window.insert(id), "packet id {id} is on its way twice");
        let window = self.most_in_window();
        // A message that was refused when it was on its way already has left the server's window.
        assert!(
            self.window.len() <= window || self.fallible,
            "more on their way than the window"
        );
        if let Some(before) = self.in_flight.insert(id, number) {
            assert_eq!(
                before, number,
                "packet id {id} stands for something else now"
            );
            assert!(publish.dup, "packet id {id} was on its way");
        }
        let ack = Ack::success(id);
        if publish.qos == QoS::ExactlyOnce {
            self.received.insert(id);
            self.todo.push_back(Packet::PubRec(ack));
        } else {
            self.todo.push_back(Packet::PubAck(ack));
        }
    }
}

/// The number of a message, which is its content.
fn number(payload: &[u8]) -> usize {
    digits_after(payload, r#""content":""#).expect("a message of the simulator's")
}

/// The message id of an error, if it has one.
fn message_id(payload: &[u8]) -> Option<u16> {
    digits_after(payload, r#""messageId":"#).and_then(|id| u16::try_from(id).ok())
}

fn digits_after(payload: &[u8], what: &str) -> Option<usize> {
    let (_, rest) = std::str::from_utf8(payload).ok()?.split_once(what)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}
