//! What becomes of an entry whose turn it is: whether and how it is sent, and what the store has to have before.

use std::sync::Arc;

use jam_wire::packet::QoS;

use super::Room;
use crate::mailbox::Entry;
use crate::message::{Message, Terms};
use crate::session::{InFlight, SendState};
use crate::time::Time;
use crate::user::{Device, Reads};

/// What becomes of the next entry of a device.
pub(super) enum Next {
    /// It is to be sent, under a packet id if its QoS needs one.
    Send(Arc<Message>, Terms),
    /// Its content is in the store.
    Load,
    /// This connection goes on behind it. It stays in the log, or its age ends it.
    PassBy,
    /// It counts as delivered.
    GiveUp,
}

impl Next {
    pub(super) fn of(device: &Device, entry: &Entry, room: Room, now: Time) -> Self {
        if entry.is_expired(now) {
            return Self::PassBy;
        }
        let Some(message) = content(device, entry) else {
            return Self::Load;
        };
        let Some(reads) = device.reads(&message.topic) else {
            return Self::GiveUp;
        };
        let terms = terms(device, entry, &message, reads, reads.qos.min(message.qos));
        if room.takes(&message, terms, now) {
            Self::Send(message, terms)
        } else if entry.is_kept_in_inbox() {
            // MQTT 5.0, section 3.1.2.11.4. It waits on, for a connection that takes it.
            Self::PassBy
        } else {
            Self::GiveUp
        }
    }
}

/// What the store has to have before an entry is sent, in a session that outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredFirst {
    Nothing,
    /// The packet id: the device may remember it, whatever becomes of the message.
    PacketId,
    /// That everything up to this entry may have been sent.
    MaybeSentNow,
}

impl StoredFirst {
    pub(super) fn of(device: &Device, entry: &Entry, qos: QoS, room: Room) -> Self {
        let is_stored = || device.maybe_sent_now_is_stored && entry.seq <= device.maybe_sent_now;
        match qos {
            _ if device.id().is_none() => Self::Nothing,
            QoS::ExactlyOnce => Self::PacketId,
            QoS::AtLeastOnce if !room.can_store => Self::Nothing,
            // It may be older than what the device has been sent, so its number does not say whether it may have been.
            QoS::AtLeastOnce if entry.is_retained() => Self::PacketId,
            QoS::AtLeastOnce if entry.is_stored() && !is_stored() => Self::MaybeSentNow,
            QoS::AtMostOnce | QoS::AtLeastOnce => Self::Nothing,
        }
    }
}

/// The content of an entry, if it is in memory.
pub(super) fn content(device: &Device, entry: &Entry) -> Option<Arc<Message>> {
    let message = entry.message.as_ref();
    message.or_else(|| device.loaded(entry.seq)).cloned()
}

/// How a message goes to a device: RETAIN says that it is a retained one, or, for a
/// subscription that asked for it, what its publisher said (MQTT 5.0, section 3.3.1.3).
fn terms(device: &Device, entry: &Entry, message: &Message, reads: Reads, qos: QoS) -> Terms {
    Terms {
        packet_id: None,
        qos,
        dup: qos == QoS::AtLeastOnce
            && entry.seq <= device.maybe_sent_before_crash
            && !entry.is_retained(),
        retain: entry.is_retained() || (reads.retain_as_published && message.retain),
        subscription_id: reads.subscription_id,
        channel: entry.kind.channel(),
    }
}

/// The same, under a packet id that exists. A subscription that has ended meanwhile has no say any more.
pub(super) fn terms_under_id(
    device: &Device,
    entry: &Entry,
    message: &Message,
    it: InFlight,
    qos: QoS,
) -> Terms {
    let reads = device.reads(&message.topic).unwrap_or_default();
    let terms = terms(device, entry, message, reads, qos);
    Terms {
        packet_id: Some(it.packet_id),
        dup: terms.dup || it.send_state == SendState::Resend,
        ..terms
    }
}
