//! Where messages and sessions are kept.
//!
//! The promise of PROTOCOL.md, section 7.1, is made here and nowhere else: what must survive goes through
//! [`MailboxStore::write`], and whatever is said to a client because of it waits for the [`Receipt`].
//!
//! Invariants: writes of one call are kept together or not at all, and calls are kept in their order; a
//! receipt is resolved when no lock of the router is held.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use jam_wire::packet::{PacketId, QoS, Will};
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::directory::{Life, Mark};
use crate::ids::{ClientId, UserId};
use crate::link::{Link, LinkId, Ticket};
use crate::message::{Message, will_weight};
use crate::policy::Refusal;
use crate::push::PushRecord;
use crate::router::Router;
use crate::time::Time;
use crate::user::DueWill;

/// The place of a message in the order of all messages. Never 0, never used twice, ascending in each log.
pub type Seq = u64;

/// A session that outlives its connections. From the same numbers as [`Seq`].
pub type SessionId = u64;

/// A will that is due. From the same numbers as [`Seq`].
pub type WillId = u64;

/// Where the numbers come from: messages, sessions and wills share one sequence.
#[derive(Debug)]
pub struct Sequence(AtomicU64);

impl Default for Sequence {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Sequence {
    /// The next number. For an entry of a log it is taken under the lock of the log's user: the numbers of a log ascend.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Every number up to and with `last` has been used before.
    pub fn skip_to(&self, last: u64) {
        self.0.fetch_max(last + 1, Ordering::Relaxed);
    }
}

/// One change of what is kept.
#[derive(Debug, Clone)]
pub enum Write {
    /// A message joins the log of its receiver.
    Append(Append),
    /// A message waits for fewer devices (bits by slot), at least one of which has acknowledged it.
    Acknowledged {
        /// Which.
        seq: Seq,
        /// Whom it still waits for.
        waits_for: u32,
    },
    /// A message leaves the log.
    Remove(Seq),
    /// A session begins or changes; takes the place of what was there, but for its subscriptions and packet ids.
    Session(Box<SessionRecord>),
    /// A session ends, and with it its subscriptions and packet ids.
    EndSession(SessionId),
    /// A session has this subscription; takes the place of another one to the same topic.
    Subscribe(SessionId, Box<Subscription>),
    /// A session no longer subscribes to a topic.
    Unsubscribe(SessionId, SmolStr),
    /// A QoS 2 PUBLISH was received.
    Received(SessionId, PacketId),
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
    /// It is not any more: the message is on its way, or no longer retained.
    EndClaim(SessionId, Seq),
    /// A will is due. It leaves its session in the same call, and waits here until it is published.
    Will(Box<WillRecord>),
    /// A due will has been published, in the same call, or dropped.
    EndWill(WillId),
    /// A push is owed or has been sent; takes the place of what was there for the same receiver and sender.
    Push(Box<PushRecord>),
    /// Nothing is known any more of pushes to the first user from the second.
    EndPush(UserId, UserId),
    /// Whoever waits for this message to be kept is not answered before this call is, even if the message leaves
    /// before that and need not be kept.
    AnswerAfter(Seq),
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

/// What is remembered of a session, but for its packet ids.
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
    /// Up to this number, a message of QoS 1 may have been sent without its [`Write::InFlight`] having
    /// been kept: the client is connected, or the server was killed when it was.
    pub maybe_sent_before_crash: Seq,
    /// Its subscriptions, when a store has found it; otherwise empty: [`Write::Subscribe`] says each by itself.
    pub subscriptions: Vec<Subscription>,
    /// Of the token that it was made with; `None` if that was not kept yet when it was written.
    pub token: Option<Mark>,
}

/// A will that is due and not published.
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
    /// Since when there is no such account, if it was not seen how it went.
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

/// What a store finds when it is opened, in ascending order of numbers; but for the messages of the logs,
/// of which there may be so many that they are not kept twice: [`RecoveredEntry`].
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every session with the QoS 2 ids received, and what is on its way in the order of `InFlight`.
    pub sessions: Vec<(SessionRecord, Vec<PacketId>, OutboundStates)>,
    /// The topics that have a retained message.
    pub retained: Vec<RetainedTopic>,
    /// Retained messages that sessions are still to be sent.
    pub claims: Vec<RecoveredClaim>,
    /// Wills that are due and not published.
    pub wills: Vec<WillRecord>,
    /// Pushes owed or sent.
    pub pushes: Vec<PushRecord>,
    /// Whose all of this is, as far as it is known.
    pub owners: Vec<OwnerRecord>,
    /// The highest number ever used, or higher.
    pub last_seq: Seq,
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

/// A message of a log, without its content: one after another to [`Router::restore_entry`].
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

/// What waits for writes to be kept. One that is dropped says nothing to anybody: the client asks again.
#[derive(Debug)]
pub struct Receipt(Waiting);

#[derive(Debug)]
enum Waiting {
    /// A client waits for the answer to a packet.
    Client(Client),
    /// A packet to a device waits, or all that are to come.
    Device {
        router: Weak<Router>,
        user: UserId,
        session: Which,
        packet_id: Option<PacketId>,
    },
    /// A message may not be delivered before it is kept; the sender may wait too.
    Message {
        router: Weak<Router>,
        user: UserId,
        seq: Seq,
        client: Option<Client>,
        origin: Origin,
    },
}

/// A client that waits for the answer to a packet.
#[derive(Debug)]
enum Client {
    /// For one thing.
    Alone(Arc<Link>, Ticket),
    /// For two.
    Half(Arc<Halves>),
    /// For two, of which this one may be refused: it is not what the client has asked for.
    LesserHalf(Arc<Halves>),
}

/// A client that waits for two things.
#[derive(Debug)]
struct Halves {
    client: Mutex<Option<(Arc<Link>, Ticket)>>,
    left: AtomicU8,
}

impl Client {
    fn stored(self) {
        match self {
            Self::Alone(link, ticket) => link.resolve(ticket, Ok(())),
            Self::Half(halves) | Self::LesserHalf(halves) => {
                if halves.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    halves.resolve(Ok(()));
                }
            }
        }
    }

    fn refused(self, refusal: Refusal) {
        match self {
            Self::Alone(link, ticket) => link.resolve(ticket, Err(refusal)),
            Self::Half(halves) => halves.resolve(Err(refusal)),
            half @ Self::LesserHalf(_) => half.stored(),
        }
    }
}

impl Halves {
    fn client(&self) -> MutexGuard<'_, Option<(Arc<Link>, Ticket)>> {
        self.client.lock().expect("nothing panics under this lock")
    }

    /// Only the first time.
    fn resolve(&self, outcome: Result<(), Refusal>) {
        let client = self.client().take();
        if let Some((link, ticket)) = client {
            link.resolve(ticket, outcome);
        }
    }
}

/// Which session of a user: by its number, or, of one that ends with its connection, by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Lasting(SessionId),
    Of(LinkId),
}

/// What is kept together with a message, and has to be undone if that cannot be kept.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Nothing.
    Plain,
    /// It was published at QoS 2, under an id of a session of this user.
    Received(UserId, SessionId, PacketId),
    /// It is a will, which is due again.
    Will(DueWill),
    /// It says that this message, which is with the store, has arrived.
    ReceiptOf(Seq),
}

impl Origin {
    pub(crate) fn write(&self) -> Option<Write> {
        match self {
            Self::Plain => None,
            Self::Received(_, session, packet_id) => Some(Write::Received(*session, *packet_id)),
            Self::Will(due) => due.id.map(Write::EndWill),
            Self::ReceiptOf(seq) => Some(Write::AnswerAfter(*seq)),
        }
    }
}

impl Receipt {
    pub(crate) fn for_client(link: Arc<Link>, ticket: Ticket) -> Self {
        Self(Waiting::Client(Client::Alone(link, ticket)))
    }

    pub(crate) fn for_device(
        router: Weak<Router>,
        user: UserId,
        session: Which,
        packet_id: Option<PacketId>,
    ) -> Self {
        Self(Waiting::Device {
            router,
            user,
            session,
            packet_id,
        })
    }

    /// Whoever waits for this waits for something else as well, which is not what they have asked for: this, and
    /// what to resolve for that. Of the receipt of a client only.
    pub(crate) fn and_also(self) -> (Self, Option<Self>) {
        let Waiting::Client(Client::Alone(link, ticket)) = self.0 else {
            return (self, None);
        };
        let halves = Arc::new(Halves {
            client: Mutex::new(Some((link, ticket))),
            left: AtomicU8::new(2),
        });
        let lesser = Self(Waiting::Client(Client::LesserHalf(halves.clone())));
        (Self(Waiting::Client(Client::Half(halves))), Some(lesser))
    }

    /// The connection of the client that waits for two things, as long as it does.
    pub(crate) fn client(&self) -> Option<LinkId> {
        let Waiting::Client(Client::LesserHalf(halves)) = &self.0 else {
            return None;
        };
        let client = halves.client();
        client.as_ref().map(|(link, _)| link.id())
    }

    /// Takes the place of the sender's own receipt, if there is one.
    pub(crate) fn for_message(
        router: Weak<Router>,
        user: UserId,
        seq: Seq,
        sender: Option<Self>,
        origin: Origin,
    ) -> Self {
        let client = sender.and_then(|sender| match sender.0 {
            Waiting::Client(client) => Some(client),
            Waiting::Device { .. } | Waiting::Message { .. } => None,
        });
        Self(Waiting::Message {
            router,
            user,
            seq,
            client,
            origin,
        })
    }

    /// The writes are kept, or nobody needs them any more.
    pub fn stored(self) {
        match self.0 {
            Waiting::Client(client) => client.stored(),
            Waiting::Device {
                router,
                user,
                session,
                packet_id,
            } => {
                if let Some(router) = router.upgrade() {
                    router.flight_stored(&user, session, packet_id);
                }
            }
            Waiting::Message {
                router,
                user,
                seq,
                client,
                origin: _,
            } => {
                if let Some(client) = client {
                    client.stored();
                }
                if let Some(router) = router.upgrade() {
                    router.message_stored(&user, seq);
                }
            }
        }
    }

    /// An append could not be kept: the message leaves its log and its sender is told why.
    pub fn refused(self, refusal: Refusal) {
        match self.0 {
            Waiting::Client(client) => client.refused(refusal),
            Waiting::Message {
                router,
                user,
                seq,
                client,
                origin,
            } => {
                if let Some(router) = router.upgrade() {
                    router.message_refused(&user, seq);
                    match origin {
                        Origin::Plain | Origin::ReceiptOf(_) => {}
                        Origin::Received(sender, session, packet_id) => {
                            router.publish_refused(&sender, session, packet_id);
                        }
                        Origin::Will(due) => router.put_back_will(due),
                    }
                }
                if let Some(client) = client {
                    client.refused(refusal);
                }
            }
            Waiting::Device { .. } => {}
        }
    }
}

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

/// What to do with messages that have been read: those that are gone are missing.
pub type OnLoaded = Box<dyn FnOnce(Vec<(Seq, Arc<Message>)>) + Send>;

/// Keeps messages and sessions. Its methods queue and return: nobody waits for I/O under a lock.
pub trait MailboxStore: Send + Sync + fmt::Debug {
    /// Keeps the writes, then resolves the receipt, never before this returns. Called under the lock of
    /// one user, so that the order of calls about a user is the order of what happened to them.
    ///
    /// A call with a [`Write::Append`] is refused as a whole when it cannot be kept, unless it also changes what is
    /// retained ([`is_refusable`]); any other is tried again until it can be.
    fn write(&self, writes: Writes, receipt: Option<Receipt>);

    /// Reads messages, kept or about to be, and hands them over in the order of `seqs`.
    fn load(&self, seqs: Vec<Seq>, then: OnLoaded);

    /// Called after the lock is free: the time for a store that keeps nothing to resolve its receipts.
    fn settle(&self) {}

    /// Whether sessions have ended that a crash would bring back, for that is not kept yet.
    fn is_ending_sessions(&self) -> bool {
        false
    }

    /// Whether anything can be kept at the moment. If not, nothing waits for it that can do without.
    fn is_writable(&self) -> bool {
        self.accepts()
    }

    /// Whether appends can be kept at the moment; if not, they are refused before they are tried.
    fn accepts(&self) -> bool {
        true
    }
}
