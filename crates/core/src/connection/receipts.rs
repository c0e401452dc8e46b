//! The receipts (PROTOCOL.md, section 10) that senders are owed for what is on its way to this client.
//!
//! What a receipt will say is remembered from the sending of a message to its acknowledgement, which come on one
//! connection. Invariant: there are no more of them than messages may be on their way. `tests/receipts.rs` checks it.

use std::collections::VecDeque;

use jam_wire::packet::PacketId;

use crate::router::Owed;

/// By packet id; no more than may be on their way.
#[derive(Default)]
pub(super) struct Receipts(VecDeque<(PacketId, Owed)>);

impl Receipts {
    pub(super) fn insert(&mut self, packet_id: PacketId, owed: Owed, most: usize) {
        self.remove(packet_id);
        if self.0.len() >= most {
            // It was taken back on its way, by a purge say, or the client breaks the rules.
            self.0.pop_front();
        }
        self.0.push_back((packet_id, owed));
    }

    pub(super) fn remove(&mut self, packet_id: PacketId) -> Option<Owed> {
        let index = self.0.iter().position(|(id, _)| *id == packet_id)?;
        self.0.remove(index).map(|(_, owed)| owed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
