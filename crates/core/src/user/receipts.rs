//! Whose receipts are due (PROTOCOL.md, section 10): those of the messages that this user's devices
//! acknowledge, and whether this user wants receipts too.

use jam_wire::packet::{PacketId, QoS};

use super::User;
use crate::link::LinkId;
use crate::store::{OutboundState, Seq};

impl User {
    /// Whether a device subscribes to this user's receipts.
    pub(crate) fn wants_receipts(&self) -> bool {
        self.devices
            .iter()
            .any(|device| device.listening.receipts())
    }

    /// Whether a receipt goes out at once on a connection, and there alone: its own device is the only one that wants
    /// any, its window is open, and nothing waits for it.
    pub(crate) fn takes_receipts_at_once(&self, link: LinkId) -> bool {
        let mut devices = self
            .devices
            .iter()
            .filter(|device| device.listening.receipts());
        let Some(device) = devices.next().filter(|device| device.is_linked(link)) else {
            return false;
        };
        let session = &device.session;
        devices.next().is_none()
            && device.has_room
            && !session.has_due()
            && self
                .mailbox
                .unsent(device.slot, session.cursor)
                .next()
                .is_none()
    }

    /// A device is about to acknowledge what is on its way under a packet id, by PUBACK or by PUBREC: which message, and
    /// whether it is in the store, if it is one whose sender has not been told yet. From now on they have.
    pub(crate) fn claim_receipt(
        &mut self,
        link: LinkId,
        packet_id: PacketId,
        qos: QoS,
    ) -> Option<(Seq, bool)> {
        let (session, _) = self.session(link)?;
        match (session.flight(packet_id)?, qos) {
            (OutboundState::AwaitsPubAck(seq), QoS::AtLeastOnce)
            | (OutboundState::AwaitsPubRec(seq), QoS::ExactlyOnce) => {
                let is_stored = self.mailbox.claim_receipt(seq)?;
                Some((seq, is_stored))
            }
            _ => None,
        }
    }
}
