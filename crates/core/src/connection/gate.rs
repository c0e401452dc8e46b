//! Whether messages may go out: after the CONNACK, and after the SUBACKs that wait for the store.
//!
//! Invariants, checked by the tests below and by `tests/subscribing.rs`: no message goes out before the CONNACK,
//! and none before a SUBACK that waits for the store, as long as the store can write. MQTT allows
//! messages before a SUBACK (5.0, section 3.8.4), and what is there is delivered whatever the disk does.

use jam_wire::packet::Packet;

/// The gate that deliveries go through.
pub(super) struct DeliveryGate {
    connack_sent: bool,
    deferred_subacks: u16,
}

impl DeliveryGate {
    /// Of a connection whose CONNACK is written at once.
    pub(super) fn open() -> Self {
        Self {
            connack_sent: true,
            deferred_subacks: 0,
        }
    }

    /// The CONNACK waits for the store.
    pub(super) fn defer_connack(&mut self) {
        self.connack_sent = false;
    }

    /// A SUBACK waits for the store.
    pub(super) fn defer_suback(&mut self) {
        self.deferred_subacks += 1;
    }

    /// A reply that waited is written; whether it was one that held messages up.
    pub(super) fn replied(&mut self, packet: &Packet) -> bool {
        match packet {
            Packet::ConnAck(_) => self.connack_sent = true,
            Packet::SubAck(_) => self.deferred_subacks -= 1,
            _ => return false,
        }
        true
    }

    pub(super) fn connack_sent(&self) -> bool {
        self.connack_sent
    }

    pub(super) fn is_open(&self, can_store: bool) -> bool {
        self.connack_sent && (self.deferred_subacks == 0 || !can_store)
    }
}

#[cfg(test)]
mod tests {
    use jam_wire::ConnectReturnCode;
    use jam_wire::packet::{
        ConnAck, ConnAckProperties, ConnectCode, PacketId, ReasonProperties, SubAck,
    };

    use super::*;

    fn sub_ack() -> Packet {
        Packet::SubAck(Box::new(SubAck {
            packet_id: PacketId::new(1).unwrap(),
            properties: ReasonProperties::default(),
            codes: Vec::new(),
        }))
    }

    #[test]
    fn a_message_waits_for_each_deferred_suback_while_the_store_can_write() {
        let mut gate = DeliveryGate::open();
        assert!(gate.is_open(true));
        gate.defer_suback();
        gate.defer_suback();
        assert!(gate.replied(&sub_ack()));
        assert_eq!((gate.is_open(true), gate.is_open(false)), (false, true));
        assert!(!gate.replied(&Packet::PingResp));
        assert!(!gate.is_open(true));
        assert!(gate.replied(&sub_ack()));
        assert!(gate.is_open(true));
    }

    #[test]
    fn nothing_goes_out_before_the_connack() {
        let mut gate = DeliveryGate::open();
        gate.defer_connack();
        assert!(!gate.connack_sent() && !gate.is_open(true) && !gate.is_open(false));
        let conn_ack = Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            code: ConnectCode::V3(ConnectReturnCode::Accepted),
            properties: ConnAckProperties::default(),
        }));
        assert!(gate.replied(&conn_ack));
        assert!(gate.connack_sent() && gate.is_open(true));
    }
}
