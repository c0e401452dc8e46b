//! Receipts: telling the sender of a message that a device of its receiver has it (PROTOCOL.md, section 10).
//!
//! Invariants: without a subscriber a receipt costs one look at a number; a receipt is handed to the store, if
//! its message was, before the acknowledgement is, and the sender is told that the message is kept when the
//! receipt is kept too, or acknowledged, or goes out with that answer: after a crash there may be two, always at least one
//! (`tests/receipts.rs`).

use bytes::Bytes;
use jam_wire::packet::{PacketId, Publish, QoS};

use super::Router;
use super::shard::{InGrace, lock};
use crate::directory::Life;
use crate::ids::UserId;
use crate::link::{LinkId, Responder};
use crate::message::Message;
use crate::metrics::Dropped;
use crate::payload;
use crate::policy::Permit;
use crate::time::{Stamp, Time};
use crate::user::{New, Origin, RECEIPTS, User};

/// What a receipt will say of a message that is on its way.
#[derive(Debug)]
pub(crate) struct Owed {
    sender: UserId,
    /// The account that wrote it, if that is known: a later account with the same id gets no receipt.
    sender_life: Option<Life>,
    /// As it stands in the payload.
    id: Option<Box<str>>,
    published_as: Option<PacketId>,
}

impl Owed {
    fn payload(&self, receiver: &UserId, timestamp: Stamp) -> Bytes {
        let to = serde_json::to_string(receiver.as_str()).expect("a string always serialises");
        let id = self.id.as_deref().unwrap_or("null");
        let message_id = self
            .published_as
            .map_or_else(|| "null".to_owned(), |id| id.to_string());
        let json = format!(
            r#"{{"type":"receipt","status":"delivered","to":{to},"id":{id},"messageId":{message_id},"timestamp":"{timestamp}"}}"#
        );
        json.into()
    }
}

impl Router {
    /// Whether anybody subscribes to receipts.
    pub(crate) fn writes_receipts(&self) -> bool {
        self.listening.receipts()
    }

    /// What is to be remembered of a message that goes to its receiver's inbox, if its sender wants a receipt.
    pub(crate) fn owe_receipt(&self, message: &Message) -> Option<Owed> {
        let sender = message.sender();
        let hash = self.hash(sender);
        let wants = lock(self.shard(hash))
            .users
            .find(sender, hash)
            .or_nothing()
            .is_some_and(User::wants_receipts);
        wants.then(|| Owed {
            sender: sender.clone(),
            sender_life: message.sender_life,
            id: payload::message_id(&message.payload).map(Into::into),
            published_as: message.packet_id(),
        })
    }

    /// A device is about to acknowledge a message, by PUBACK or by PUBREC. To be called before that is done.
    pub(crate) fn write_receipt(
        &self,
        receiver: &UserId,
        link: LinkId,
        packet_id: PacketId,
        qos: QoS,
        owed: &Owed,
        now: Time,
    ) {
        let claimed = self.with_shard(receiver, |user, in_grace, _| {
            let (seq, is_stored) = user.claim_receipt(link, packet_id, qos)?;
            let waiting = in_grace.iter_mut().find(|it| it.seq == seq);
            Some((seq, is_stored, waiting.and_then(InGrace::wait_for_more)))
        });
        let Some((seq, is_stored, mut publisher)) = claimed else {
            return;
        };
        let permit = Permit::for_server(&owed.sender);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: permit.own_topic(RECEIPTS),
            packet_id: None,
            properties: None,
            payload: owed.payload(receiver, self.adjustments.stamp(now)),
        };
        let destination = permit.destination();
        let (sender, owner) = permit.into_users();
        let new = New {
            message: Message::new(publish, sender, now),
            destination,
            origin: None,
            // A message that is in memory only has a publisher who is answered after this, wherever it is; one that the
            // store has leaves it with the acknowledgement, and this must be there before.
            may_wait: !is_stored && self.may_wait(),
            may_push: false,
            life: None,
            only_for: owed.sender_life,
        };
        let origin = if is_stored {
            Origin::ReceiptOf(receiver.clone(), seq)
        } else {
            Origin::Plain
        };
        // The same write has both then, the answer first.
        let goes_out = publisher.as_ref().and_then(Responder::waiting_link);
        let goes_out = goes_out.is_some_and(|link| self.takes_receipts_at_once(&owner, link));
        let mut waits = publisher.take_if(|_| !goes_out);
        // A mailbox without room drops a receipt, which nobody waits for.
        match self.append(&owner, new, &mut waits, origin, now) {
            Ok(_) => self.metrics.wrote_receipt(),
            Err(_) => self.metrics.dropped(Dropped::Receipt, 1),
        }
        waits
            .or(publisher)
            .into_iter()
            .for_each(Responder::unwritten);
    }

    fn takes_receipts_at_once(&self, user: &UserId, link: LinkId) -> bool {
        let hash = self.hash(user);
        lock(self.shard(hash))
            .users
            .find(user, hash)
            .or_nothing()
            .is_some_and(|user| user.takes_receipts_at_once(link))
    }
}
