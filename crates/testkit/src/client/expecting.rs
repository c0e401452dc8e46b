//! What a client expects to be sent: each method fails its test if something else comes.

use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Disconnect, Packet, PacketId, Publish, QoS, Version};

use super::Client;
use crate::packets;

impl Client {
    /// Expects this packet next.
    #[track_caller]
    pub fn expect(&self, packet: Packet) {
        let next = self.next();
        assert_eq!(next, Some(packet));
    }

    /// Expects that there is nothing more, and that the connection is open.
    #[track_caller]
    pub fn expect_nothing(&self) {
        assert_eq!(self.next(), None);
        assert!(!self.is_closed(), "the server has closed the connection");
    }

    /// Expects a PUBLISH next.
    #[track_caller]
    pub fn expect_publish(&self) -> Publish {
        match self.next() {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("expected a PUBLISH, got {other:?}"),
        }
    }

    /// Expects a PUBLISH with this topic and payload next, not marked as sent before.
    #[track_caller]
    pub fn expect_payload(&self, topic: &str, payload: &[u8]) -> Publish {
        let publish = self.expect_publish();
        assert_eq!(publish.topic, topic);
        assert_eq!(
            publish.payload,
            payload,
            "{}",
            publish.payload.escape_ascii()
        );
        assert!(!publish.dup, "{publish:?}");
        publish
    }

    /// Expects a friend's message in the inbox next.
    #[track_caller]
    pub fn expect_message(&self, from: &str, content: &str) -> Publish {
        self.expect_payload(&self.inbox(), &packets::message(from, content))
    }

    /// Expects a friend's message again: DUP is set.
    #[track_caller]
    pub fn expect_again(&self, from: &str, content: &str) -> Publish {
        let publish = self.expect_publish();
        assert_eq!(publish.payload, packets::message(from, content));
        assert!(publish.dup, "{publish:?}");
        publish
    }

    /// Expects a friend's message next and acknowledges it.
    #[track_caller]
    pub fn read(&self, from: &str, content: &str) {
        let publish = self.expect_message(from, content);
        self.acknowledge(&publish);
    }

    /// Expects an error on the device channel next, byte for byte as section 2 says.
    #[track_caller]
    pub fn expect_error(&self, handler: &str, category: &str, message: &str, id: Option<u16>) {
        let error = packets::error(handler, category, message, id);
        let publish = self.expect_payload(&self.channel(), error.as_bytes());
        assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, false));
    }

    /// Expects an `authorizePublish` error next.
    #[track_caller]
    pub fn expect_refusal(&self, category: &str, message: &str, id: Option<u16>) {
        self.expect_error("authorizePublish", category, message, id);
    }

    /// Expects that the server has nothing more to say and has closed the connection.
    #[track_caller]
    pub fn expect_closed(&self) {
        assert_eq!(self.next(), None);
        assert!(self.is_closed(), "the connection is still open");
    }

    /// Expects the end: a DISCONNECT with this reason in 5.0, nothing before.
    #[track_caller]
    pub fn expect_ended(&self, reason: ReasonCode) {
        if self.version == Version::V5 {
            self.expect(Packet::Disconnect(Box::new(Disconnect::with_reason(
                reason,
            ))));
        }
        self.expect_closed();
    }

    /// Expects the server's part of the handshake of a publish and completes it.
    #[track_caller]
    pub fn expect_accepted(&self, qos: QoS, id: Option<u16>) {
        self.expect_answered(qos, id, ReasonCode::Success);
    }

    /// As [`Self::expect_accepted`], with a reason; a 5.0 exchange ends with an error in PUBREC.
    #[track_caller]
    pub fn expect_answered(&self, qos: QoS, id: Option<u16>, reason: ReasonCode) {
        let Some(id) = id.and_then(PacketId::new) else {
            assert_eq!(qos, QoS::AtMostOnce);
            return;
        };
        let reason = if self.version == Version::V5 {
            reason
        } else {
            ReasonCode::Success
        };
        if qos == QoS::AtLeastOnce {
            self.expect(Packet::PubAck(Ack::with_reason(id, reason)));
            return;
        }
        self.expect(Packet::PubRec(Ack::with_reason(id, reason)));
        if !reason.is_error() {
            self.send(Packet::PubRel(Ack::success(id)));
            self.expect(Packet::PubComp(Ack::success(id)));
        }
    }

    /// Expects a SUBACK and returns its codes.
    #[track_caller]
    pub fn expect_sub_ack(&self) -> Vec<ReasonCode> {
        match self.next() {
            Some(Packet::SubAck(sub_ack)) => sub_ack.codes,
            other => panic!("expected a SUBACK, got {other:?}"),
        }
    }
}
