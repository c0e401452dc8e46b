//! The changes that a store is asked to keep.

use jam_wire::packet::PacketId;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::{
    Append, OwnerRecord, PushRecord, Seq, SessionId, SessionRecord, Subscription, WillId,
    WillRecord,
};
use crate::ids::UserId;
use crate::message::will_weight;

/// One change of what is kept.
#[derive(Debug, Clone)]
pub enum Write {
    /// A message joins the log of its receiver.
    Append(Append),
    /// A message waits for fewer devices (bits by slot), at least one of which has acknowledged it.
    Acknowledged {
        /// Which.
        seq: Seq,
        /// The devices that it still waits for.
        waits_for: u32,
    },
    /// A message leaves the log.
    Remove(Seq),
    /// A session begins or changes; takes the place of what was there. Its subscriptions and packet ids stay.
    Session(Box<SessionRecord>),
    /// A session ends, and with it its subscriptions and packet ids.
    EndSession(SessionId),
    /// A session has this subscription; takes the place of another one to the same topic.
    Subscribe(SessionId, Box<Subscription>),
    /// A session has unsubscribed from a topic.
    Unsubscribe(SessionId, SmolStr),
    /// A QoS 2 PUBLISH of this user, the sender of the message that is appended in the same call, was received.
    Received(UserId, SessionId, PacketId),
    /// Its PUBREL was received.
    Released(SessionId, PacketId),
    /// A PUBLISH is on its way to a device; takes the place of what the packet id stood for before.
    InFlight(SessionId, PacketId, OutboundState),
    /// Nothing is on its way under the packet id any more.
    EndInFlight(SessionId, PacketId),
    /// A message that new subscriptions to its topic are sent first. Unlike [`Self::Append`] it is tried again.
    Retain(Append),
    /// They no longer are.
    Unretain(Seq),
    /// A session has subscribed and is still to be sent a retained message.
    Claim(SessionId, Seq),
    /// That is over: the message is on its way, or has ceased to be retained.
    EndClaim(SessionId, Seq),
    /// A will is due. It leaves its session in the same call, and waits here until it is published.
    Will(Box<WillRecord>),
    /// A due will of this user, who may be another, has been published, in the same call, or dropped.
    EndWill(UserId, WillId),
    /// A push is owed or has been sent; takes the place of what was there for the same receiver and sender.
    Push(Box<PushRecord>),
    /// Nothing is known any more of pushes to the first user from the second.
    EndPush(UserId, UserId),
    /// A message of this user, who is another, may have its completion waiting: that is called after this call is
    /// committed, even if the message leaves before that and need not be kept.
    AnswerAfter(UserId, Seq),
    /// Whose everything is that is kept of a user id; takes the place of what was there.
    Owner(Box<OwnerRecord>),
    /// Nothing is kept of a user id any more.
    EndOwner(UserId),
}

impl Write {
    /// Bytes of content that it holds until it is kept: messages and wills as they weigh, and names.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match self {
            Self::Append(append) | Self::Retain(append) => append.message.weight(),
            Self::Session(record) => {
                let will = record.will.as_deref().map_or(0, will_weight);
                will + record.client.as_str().len() as u64
            }
            Self::Subscribe(_, subscription) => subscription.topic.len() as u64,
            Self::Unsubscribe(_, topic) => topic.len() as u64,
            Self::Will(due) => will_weight(&due.will),
            _ => 0,
        }
    }
}

/// What a packet id on its way to a device stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundState {
    /// A message of QoS 1, to be acknowledged with PUBACK.
    AwaitsPubAck(Seq),
    /// A message of QoS 2, to be acknowledged with PUBREC.
    AwaitsPubRec(Seq),
    /// A message that the device has; PUBREL is due.
    AwaitsPubComp,
}

/// What is on its way to a device, in the order of [`Write::InFlight`].
pub type OutboundStates = Vec<(PacketId, OutboundState)>;

/// Writes that are kept together.
pub type Writes = SmallVec<[Write; 2]>;

/// Whether these writes are refused together when they cannot be kept: they append a message, and leave what is
/// retained as it is. What is retained has changed when the call is made, and new subscriptions are sent it; so such a
/// call is tried again until it is kept, as one without an append is.
#[must_use]
pub fn is_refusable(writes: &[Write]) -> bool {
    let retains = |write: &Write| matches!(write, Write::Retain(_) | Write::Unretain(_));
    let appends = |write: &Write| matches!(write, Write::Append(_));
    writes.iter().any(appends) && !writes.iter().any(retains)
}
