//! What stands in a store: what is written there, and what is found when it is opened.

use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::{PacketId, QoS, Will};
use smol_str::SmolStr;

use super::{OutboundStates, Seq, SessionId, WillId};
use crate::directory::{Life, Mark};
use crate::ids::{ClientId, UserId};
use crate::message::Message;
use crate::time::Time;
use crate::timekeeping::ClockRecord;

/// A message of a log.
#[derive(Debug, Clone)]
pub struct Append {
    /// Its number.
    pub seq: Seq,
    /// Whose log it is in.
    pub user: UserId,
    /// The message.
    pub message: Arc<Message>,
    /// Whether it is in the inbox; otherwise on an own channel.
    pub inbox: bool,
    /// Whether it is, or was, the retained message of its topic.
    pub retained: bool,
    /// The devices that are to get it, bits by slot.
    pub waits_for: u32,
}

/// What is remembered of a session; its packet ids are kept beside it.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Its number.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// Which client's.
    pub client: ClientId,
    /// The device's bit in `waits_for`.
    pub slot: u8,
    /// How long it outlives its connection.
    pub expiry: Duration,
    /// When it ends; `None` while the client is connected.
    pub ends_at: Option<Time>,
    /// What is published when the connection is lost.
    pub will: Option<Box<Will>>,
    /// When that is due; `None` while the client is connected.
    pub will_at: Option<Time>,
    /// Up to this number, a message of QoS 1 may have been sent without its [`Write::InFlight`](super::Write::InFlight) having
    /// been kept: the client is connected, or the server was killed when it was.
    pub maybe_sent_before_crash: Seq,
    /// Its subscriptions, when a store has found it; otherwise empty: [`Write::Subscribe`](super::Write::Subscribe) says each by itself.
    pub subscriptions: Vec<Subscription>,
    /// Of the token that it was made with; `None` if a version before these marks has written it.
    pub token: Option<Mark>,
}

/// A will that is due and waits to be published.
#[derive(Debug, Clone)]
pub struct WillRecord {
    /// Its number.
    pub id: WillId,
    /// Whose client left it.
    pub user: UserId,
    /// What is published.
    pub will: Box<Will>,
    /// As of its session.
    pub token: Option<Mark>,
}

/// Whose everything is that is kept of a user id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRecord {
    /// The user id.
    pub user: UserId,
    /// The account that it belonged to.
    pub life: Life,
    /// Since when the account is missing, if it may come back.
    pub gone_since: Option<Time>,
}

/// A subscription to one topic, by its exact name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: SmolStr,
    /// Highest QoS of what is sent.
    pub qos: QoS,
    /// Not what the connection itself published.
    pub no_local: bool,
    /// RETAIN as it was published.
    pub retain_as_published: bool,
    /// The Subscription Identifier.
    pub id: Option<u32>,
}

/// What a store finds when it is opened, in ascending order of numbers. The messages of the logs may be so many that they
/// are handed over one by one: [`RecoveredEntry`].
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every session with the QoS 2 ids received, and what is on its way in the order of `InFlight`.
    pub sessions: Vec<(SessionRecord, Vec<PacketId>, OutboundStates)>,
    /// The topics that have a retained message.
    pub retained: Vec<RetainedTopic>,
    /// Retained messages that sessions are still to be sent.
    pub claims: Vec<RecoveredClaim>,
    /// Wills that are due and wait to be published.
    pub wills: Vec<WillRecord>,
    /// Pushes owed or sent.
    pub pushes: Vec<PushRecord>,
    /// Whose all of this is, as far as it is known.
    pub owners: Vec<OwnerRecord>,
    /// The highest number ever used, or higher.
    pub last_seq: Seq,
    /// What was remembered of the clocks; `None` of a new store.
    pub clock: Option<ClockRecord>,
}

/// A topic that has a retained message.
#[derive(Debug, Clone)]
pub struct RetainedTopic {
    /// Whose channel it is.
    pub user: UserId,
    /// The topic.
    pub topic: SmolStr,
    /// The message's number.
    pub seq: Seq,
}

/// A retained message that a session is still to be sent.
#[derive(Debug, Clone)]
pub struct RecoveredClaim {
    /// Whose.
    pub user: UserId,
    /// The session's number.
    pub session: SessionId,
    /// The message's number.
    pub seq: Seq,
}

/// A message of a log, without its content.
#[derive(Debug, Clone)]
pub struct RecoveredEntry {
    /// Its number.
    pub seq: Seq,
    /// Whose log it is in.
    pub user: UserId,
    /// Who sent it.
    pub sender: UserId,
    /// Whether it is in the inbox.
    pub inbox: bool,
    /// Whether it is, or was, the retained message of its topic.
    pub retained: bool,
    /// 1 or 2; of a retained message also 0.
    pub qos: QoS,
    /// Bytes, as it weighs.
    pub size: u32,
    /// The devices that are to get it, bits by slot.
    pub waits_for: u32,
    /// Whether a device has acknowledged it.
    pub acknowledged: bool,
    /// When it expires by itself.
    pub expires_at: Time,
    /// When it was received, rounded down to a millisecond.
    pub received_at: Time,
}

/// What is kept of the pushes from one sender to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRecord {
    /// The receiver of the messages, and of the push.
    pub receiver: UserId,
    /// Who wrote.
    pub sender: UserId,
    /// The oldest message that the push is about; 0 if that is in memory only (QoS 0), or the push has been sent.
    pub seq: Seq,
    /// Whether it has been sent; otherwise it is owed, at the latest when the receiver is gone.
    pub sent: bool,
    /// Since when it is owed, or when it was sent.
    pub at: Time,
    /// When the message expires that is in memory only, and the push with it; [`Time::NEVER`] of others.
    pub expires_at: Time,
}
