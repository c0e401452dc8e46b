//! Whose receipts are due (PROTOCOL.md, section 10): those of the messages that this user's devices
//! acknowledge, and whether this user wants those of his own.

use jam_wire::packet::{PacketId, QoS};

use super::User;
use crate::link::LinkId;
use crate::store::{Flight, Seq};

impl User {
    /// Whether a device subscribes to this user's receipts.
    pub(crate) fn wants_receipts(&self) -> bool {
        self.devices.iter().any(|device| device.listening.receipts)
    }

    /// A device is about to acknowledge what is on its way under a packet id, by PUBACK or by PUBREC: which message, and
    /// whether it is in the store, if it is one whose sender has not been told yet. From now on he has.
    pub(crate) fn claim_receipt(
        &mut self,
        link: LinkId,
        packet_id: PacketId,
        qos: QoS,
    ) -> Option<(Seq, bool)> {
        let (session, _) = self.session(link)?;
        match (session.flight(packet_id)?, qos) {
            (Flight::AwaitsPubAck(seq), QoS::AtLeastOnce)
            | (Flight::AwaitsPubRec(seq), QoS::ExactlyOnce) => {
                let is_stored = self.mailbox.claim_receipt(seq)?;
                Some((seq, is_stored))
            }
            _ => None,
        }
    }
}
