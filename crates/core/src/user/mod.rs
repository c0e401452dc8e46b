//! One user: their devices, mailbox and retained messages.
//!
//! Every method runs under the router's lock of the user's shard and does no I/O; what others have to
//! be told is collected in [`Effects`].
//!
//! Invariants: a client id has at most one device here; with `devices = "one"` there is at most one
//! device; a device without a connection has a session that outlives connections, and only such a
//! session has a number in the store.

mod acknowledging;
mod appending;
mod devices;
mod effects;
mod expiring;
mod fetching;
mod friends;
mod inspection;
mod listening;
mod lives;
mod loading;
mod outlook;
mod presence;
mod pushing;
mod receipts;
mod restoring;
mod retaining;
mod subscribing;
mod tally;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::{QoS, Will};
use smallvec::SmallVec;

use crate::directory::Mark;
use crate::ids::{ClientId, UserId};
use crate::link::{Link, LinkId};
use crate::mailbox::{Amount, Mailbox, Slot};
use crate::message::{ENTRY_BYTES, will_weight};
use crate::push::PushRules;
use crate::session::Session;
use crate::store::{Seq, Sequence, SessionId, SessionRecord, WillId, WillRecord, Write};
use crate::time::Time;

pub use appending::KEEPING_UP;
pub(crate) use appending::{Appended, New};
pub(crate) use devices::{Attach, Attached, NotAttached};
pub(crate) use effects::{Alarm, Awaits, Effects, Origin, RareEffects, Which};
pub(crate) use fetching::{Delivery, Fetched, Room};
pub(crate) use friends::Watching;
pub use inspection::{DevicePresence, DeviceView, Kicked, MailboxView, UserView};
use listening::Listening;
pub(crate) use listening::{FRIENDS, Listeners, PRESENCE, RECEIPTS};
pub(crate) use lives::Outdated;
use lives::Owner;
pub use lives::{EndedAccounts, VANISHED_KEPT};
use loading::Loaded;
pub use outlook::Outlook;
pub use presence::AWAY;
use presence::Presence;
pub(crate) use presence::Telling;
use pushing::Pushes;
pub(crate) use pushing::Turn;

/// Topics with a retained message, for each user; in bytes, [`UserLimits::max_bytes`], apart from what is in the log
/// otherwise.
pub const MAX_RETAINED: usize = 256;
/// QoS 0 messages on their way to a user's devices; beyond, new ones are dropped as QoS 0 may be.
pub const MAX_EPHEMERAL: usize = 1024;
/// Bytes of those messages, as they weigh.
pub const MAX_EPHEMERAL_BYTES: u64 = 8 * 1024 * 1024;

/// Limits of a mailbox, and how many devices a user may have.
#[derive(Debug, Clone)]
pub struct UserLimits {
    /// Whether devices are connected side by side.
    pub many_devices: bool,
    /// Kept messages.
    pub max_messages: usize,
    /// Bytes of kept messages, as they weigh; and of retained ones, apart from those.
    pub max_bytes: u64,
    /// Age of a kept message. What is retained has none.
    pub max_age: Duration,
    /// When a push is sent, and how often.
    pub push: PushRules,
}

/// A will that is due: to be judged and published as any PUBLISH of that client.
#[derive(Debug, Clone)]
pub struct DueWill {
    /// Its number in the store, if its session was kept there.
    pub(crate) id: Option<WillId>,
    pub(crate) user: UserId,
    pub(crate) will: Box<Will>,
    /// Of the token that its session was made with.
    pub(crate) token: Option<Mark>,
    /// Whether it has been counted against the user's rate of publishes.
    pub(crate) is_counted: bool,
}

impl DueWill {
    /// Whose client left it.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> u64 {
        will_weight(&self.will) + ENTRY_BYTES
    }

    fn record(&self) -> Option<WillRecord> {
        let Self {
            id,
            user,
            will,
            token,
            is_counted: _,
        } = self.clone();
        id.map(|id| WillRecord {
            id,
            user,
            will,
            token,
        })
    }
}

#[derive(Debug)]
struct Device {
    client: ClientId,
    slot: Slot,
    /// Of the token that the session was made with; `None` of one that the store has from before that was kept.
    token: Option<Mark>,
    /// What it subscribes to of what the server writes.
    listening: Listening,
    /// Whether it has subscribed to presence and has not been told who is online.
    awaits_presence: bool,
    /// Whether it watches the user's friends and is to be told of all of them, whatever it has been told.
    awaits_friends: bool,
    session: Session,
    /// The number of a session that outlives its connection.
    number: Option<NonZeroU64>,
    /// Whether the store has been told of that session.
    recorded: bool,
    /// How long the session outlives its connection.
    expiry_millis: u64,
    link: Option<Arc<Link>>,
    will: Option<Box<Will>>,
    /// When the will is due and when the session ends, of a device without a connection.
    will_at: Time,
    ends_at: Time,
    /// Up to this number, a message may have been sent although the store does not know of its packet id: the server
    /// was killed when the client was connected. It goes out with DUP.
    maybe_sent_before_crash: Seq,
    /// Up to this number, messages of QoS 1 may be sent on this connection before the store has their packet ids.
    maybe_sent_now: Seq,
    /// Whether the store has that: after a crash it is known what may have been sent.
    maybe_sent_now_is_stored: bool,
    /// Whether the window of this connection was open when it last fetched.
    has_room: bool,
    /// What was read from the store for this device; `None` if there is nothing.
    loaded: Option<Box<Loaded>>,
    /// Whether the store is reading for this device.
    loading: bool,
}

impl Device {
    /// The number of a session that outlives its connection.
    fn id(&self) -> Option<SessionId> {
        self.number.map(NonZeroU64::get)
    }

    fn is_linked(&self, link: LinkId) -> bool {
        self.link.as_ref().is_some_and(|own| own.id() == link)
    }

    /// What this device is to get of a topic; its own device channel needs no subscription.
    fn reads(&self, topic: &str) -> Option<Reads> {
        if let Some(subscription) = self.session.subscription(topic) {
            return Some(Reads {
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                subscription_id: subscription.id,
            });
        }
        let is_own = self.link.is_some() && self.client.is_device_channel(topic);
        is_own.then_some(Reads::default())
    }

    /// Whether this device is to get what comes to the user's inbox.
    fn reads_inbox(&self, user: &UserId) -> bool {
        self.session.subscription(&user.inbox()).is_some()
    }

    /// The will is due; the session has it no more.
    fn leave(&self, will: Box<Will>, user: &UserId, numbers: &Sequence) -> DueWill {
        DueWill {
            id: (self.number.is_some() && self.recorded).then(|| numbers.next()),
            user: user.clone(),
            will,
            token: self.token,
            is_counted: false,
        }
    }

    fn session_expiry(&self) -> Duration {
        Duration::from_millis(self.expiry_millis)
    }

    fn set_session_expiry(&mut self, expiry: Duration) {
        self.expiry_millis = millis(expiry);
    }

    /// Of a device without a connection.
    fn away_since(&self) -> Time {
        self.ends_at - self.session_expiry()
    }

    fn timer(&self) -> Option<(Time, Alarm)> {
        let due = self.will_at.min(self.ends_at);
        (due != Time::NEVER).then(|| (due, Alarm::Device(self.client.clone())))
    }

    /// What the store is to keep of the session, if it outlives its connection.
    fn record(&mut self, user: &UserId) -> Option<Write> {
        self.recorded = self.number.is_some();
        let some = |time: Time| (time != Time::NEVER).then_some(time);
        let record = SessionRecord {
            id: self.id()?,
            user: user.clone(),
            client: self.client.clone(),
            slot: self.slot,
            expiry: self.session_expiry(),
            ends_at: some(self.ends_at),
            will: self.will.clone(),
            will_at: some(self.will_at),
            maybe_sent_before_crash: self.maybe_sent_before_crash.max(self.maybe_sent_now),
            subscriptions: Vec::new(),
            token: self.token,
        };
        Some(Write::Session(Box::new(record)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How a device gets what comes under a topic: as its subscription says, if there is one.
#[derive(Debug, Clone, Copy)]
struct Reads {
    /// The highest.
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    subscription_id: Option<u32>,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            subscription_id: None,
        }
    }
}

/// The state of one user.
#[derive(Debug)]
pub(crate) struct User {
    id: UserId,
    mailbox: Mailbox,
    /// Whose all of this is, once it is known.
    owner: Option<Box<Owner>>,
    /// `None` if no topic has one.
    retained: Option<Box<retaining::Topics>>,
    devices: SmallVec<[Device; 1]>,
    /// `None` if nothing is known of any sender.
    pushes: Option<Box<Pushes>>,
    presence: Presence,
    /// For when the router's timer is set, because something expires.
    expiry_alarm: Time,
}

impl User {
    pub(crate) fn new(id: UserId) -> Self {
        Self {
            id,
            mailbox: Mailbox::default(),
            owner: None,
            retained: None,
            devices: SmallVec::new(),
            pushes: None,
            presence: Presence::default(),
            expiry_alarm: Time::NEVER,
        }
    }

    pub(crate) fn id(&self) -> &UserId {
        &self.id
    }

    /// Whether nothing would be lost if this were forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        self.devices.is_empty()
            && self.mailbox.is_empty()
            && self.retained.is_none()
            && self.pushes.is_none()
            && self.presence.is_idle()
    }

    /// How much is kept for them, but for what is retained.
    #[inline]
    pub(crate) fn kept(&self) -> Amount {
        self.mailbox.kept()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.devices.iter().any(|device| device.link.is_some())
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.devices
            .iter()
            .filter_map(|device| device.link.as_ref())
    }

    /// The session behind a connection, while the connection is the device's, and its number.
    pub(crate) fn session(&mut self, link: LinkId) -> Option<(&mut Session, Option<SessionId>)> {
        let device = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))?;
        let id = device.id();
        Some((&mut device.session, id))
    }
}
