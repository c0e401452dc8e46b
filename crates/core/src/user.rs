//! One user: his devices, his mailbox and his retained messages.
//!
//! Every method runs under the router's lock of the user's shard and does no I/O; what others have to
//! be told is collected in [`Effects`] and done when the lock is free.
//!
//! Invariants: a client id has at most one device here; with `devices = "one"` there is at most one
//! device; a device without a connection has a session that outlives connections, or a will to come.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use jam_wire::packet::{PacketId, QoS, RetainHandling, Will};
use smallvec::SmallVec;

use crate::ids::{ClientId, UserId};
use crate::link::{Eviction, Link, LinkId};
use crate::mailbox::{Kind, Mailbox, Slot, Slots};
use crate::message::{Message, Terms};
use crate::policy::{Destination, Identity, Refusal, refusals};
use crate::session::{Awaits, Received, Session, Subscription};
use crate::store::Seq;
use crate::time::Time;

/// Topics with a retained message, for each user.
pub const MAX_RETAINED: usize = 256;
/// QoS 0 messages on their way to a user's devices; beyond, new ones are dropped as QoS 0 may be.
pub const MAX_EPHEMERAL: usize = 1024;
/// Bytes of those messages.
pub const MAX_EPHEMERAL_BYTES: u64 = 8 * 1024 * 1024;
/// A message to a live device that is further behind than this is copied out of the receive buffer.
const KEEPING_UP: usize = 64;

/// Limits of a mailbox, and how many devices a user may have.
#[derive(Debug, Clone)]
pub struct UserLimits {
    /// Whether devices are connected side by side.
    pub many_devices: bool,
    /// Kept messages.
    pub max_messages: usize,
    /// Bytes of kept payloads.
    pub max_bytes: u64,
    /// Age of a kept message.
    pub max_age: Duration,
}

/// A will that is due: to be judged and published as any PUBLISH of that client.
#[derive(Debug)]
pub struct DueWill {
    pub(crate) user: UserId,
    pub(crate) will: Box<Will>,
}

/// What is to be done when the lock is free.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) wake: SmallVec<[Arc<Link>; 2]>,
    pub(crate) wills: Vec<DueWill>,
    /// Entries that have left the log.
    pub(crate) left: Vec<Seq>,
    /// Timers that are no longer wanted, and new ones.
    pub(crate) unset: Vec<(Time, ClientId)>,
    pub(crate) set: Option<(Time, ClientId)>,
}

/// What a new connection brings.
pub(crate) struct Attach {
    pub(crate) identity: Identity,
    pub(crate) link: Arc<Link>,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: Duration,
    pub(crate) will: Option<Box<Will>>,
}

/// What a connection finds when it has been let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) session_present: bool,
    /// QoS 2 ids that the session has received and not released.
    pub(crate) received: usize,
}

/// One thing to send to a device.
#[derive(Debug)]
pub(crate) enum Delivery {
    Publish(Arc<Message>, Terms),
    PubRel(PacketId),
}

/// What [`User::fetch`] found.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) deliveries: SmallVec<[Delivery; 16]>,
    /// There is more, and the window is closed.
    pub(crate) held_back: bool,
}

#[derive(Debug)]
struct Device {
    client: ClientId,
    slot: Slot,
    channel: ByteString,
    session: Session,
    session_expiry: Duration,
    link: Option<Arc<Link>>,
    will: Option<Box<Will>>,
    /// When the will is due and when the session ends, of a device without a connection.
    will_at: Time,
    ends_at: Time,
}

impl Device {
    fn is_linked(&self, link: LinkId) -> bool {
        self.link.as_ref().is_some_and(|own| own.id() == link)
    }

    /// What this device is to get of a topic; its own device channel needs no subscription.
    fn reads(&self, topic: &str) -> Option<(QoS, bool)> {
        let explicit = self.session.subscription(topic);
        explicit
            .map(|subscription| (subscription.qos, subscription.no_local))
            .or_else(|| {
                (self.link.is_some() && self.channel == topic).then_some((QoS::AtMostOnce, false))
            })
    }

    fn timer(&self) -> Option<(Time, ClientId)> {
        let due = self.will_at.min(self.ends_at);
        (due != Time::NEVER).then(|| (due, self.client.clone()))
    }
}

/// The state of one user.
#[derive(Debug)]
pub(crate) struct User {
    id: UserId,
    inbox: ByteString,
    mailbox: Mailbox,
    retained: Vec<Arc<Message>>,
    devices: SmallVec<[Device; 1]>,
}

impl User {
    pub(crate) fn new(id: UserId) -> Self {
        let inbox = id.inbox();
        Self {
            id,
            inbox,
            mailbox: Mailbox::default(),
            retained: Vec::new(),
            devices: SmallVec::new(),
        }
    }

    /// Whether nothing would be lost if this were forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        self.devices.is_empty() && self.mailbox.is_empty() && self.retained.is_empty()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.devices.iter().any(|device| device.link.is_some())
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.devices
            .iter()
            .filter_map(|device| device.link.as_ref())
    }

    /// A client has been let in: others of this user make room, and it finds its session or a new one.
    /// `None` if the user has [`Slots::MAX`] devices already.
    pub(crate) fn attach(
        &mut self,
        new: Attach,
        limits: &UserLimits,
        effects: &mut Effects,
    ) -> Option<Attached> {
        if !limits.many_devices {
            while let Some(other) = self
                .devices
                .iter()
                .position(|device| device.client != *new.identity.client())
            {
                self.end_session(other, Some(Eviction::Logout), effects);
            }
        }
        let known = self
            .devices
            .iter()
            .position(|device| device.client == *new.identity.client());
        let known = known.and_then(|index| self.take_over(index, new.clean_start, effects));
        let session_present = known.is_some();
        let index = match known {
            Some(index) => index,
            None => self.new_device(new.identity.client().clone())?,
        };
        let device = &mut self.devices[index];
        device.link = Some(new.link);
        device.will = new.will;
        device.session_expiry = new.session_expiry;
        Some(Attached {
            session_present,
            received: device.session.received(),
        })
    }

    /// The same client connects again. Returns where its session is, if that goes on.
    fn take_over(&mut self, index: usize, clean: bool, effects: &mut Effects) -> Option<usize> {
        let device = &mut self.devices[index];
        effects.unset.extend(device.timer());
        (device.will_at, device.ends_at) = (Time::NEVER, Time::NEVER);
        if clean || (device.link.is_some() && device.session_expiry.is_zero()) {
            self.end_session(index, Some(Eviction::TakenOver), effects);
            return None;
        }
        if let Some(old) = device.link.take() {
            old.evict(Eviction::TakenOver);
            // MQTT 5.0, section 3.1.2.5: with a delay, the will of a client that is back is not sent.
            let will = device
                .will
                .take()
                .filter(|will| will.delay_secs.unwrap_or(0) == 0);
            effects.wills.extend(will.map(|will| DueWill {
                user: self.id.clone(),
                will,
            }));
            device.session.disconnected();
            self.mailbox.disconnected(device.slot, &mut effects.left);
        }
        device.will = None;
        Some(index)
    }

    fn new_device(&mut self, client: ClientId) -> Option<usize> {
        let mut taken = Slots::default();
        self.devices
            .iter()
            .for_each(|device| taken.insert(device.slot));
        let slot = (0..).take(Slots::MAX).find(|slot| !taken.contains(*slot))?;
        self.devices.push(Device {
            channel: client.device_channel(),
            client,
            slot,
            session: Session::default(),
            session_expiry: Duration::ZERO,
            link: None,
            will: None,
            will_at: Time::NEVER,
            ends_at: Time::NEVER,
        });
        Some(self.devices.len() - 1)
    }

    /// A device's session ends; so does its connection, if it has one.
    fn end_session(&mut self, index: usize, why: Option<Eviction>, effects: &mut Effects) {
        let mut device = self.devices.remove(index);
        effects.unset.extend(device.timer());
        if let (Some(link), Some(why)) = (device.link.take(), why) {
            link.evict(why);
        }
        let will = device.will.take();
        effects.wills.extend(will.map(|will| DueWill {
            user: self.id.clone(),
            will,
        }));
        self.mailbox.release(device.slot, &mut effects.left);
        self.pass_on(effects);
    }

    /// What a device has left unclaimed goes to another one that reads the inbox, if there is one.
    fn pass_on(&mut self, effects: &mut Effects) {
        let heir = self
            .devices
            .iter_mut()
            .find(|other| other.reads(&self.inbox).is_some());
        if let Some(heir) = heir {
            heir.session.cursor = 0;
            self.mailbox.claim(heir.slot);
            effects.wake.extend(heir.link.clone());
        }
    }

    /// A connection has ended. `goodbye` is a DISCONNECT that discards the will.
    pub(crate) fn detach(
        &mut self,
        link: LinkId,
        goodbye: bool,
        session_expiry: Option<Duration>,
        now: Time,
        effects: &mut Effects,
    ) {
        let Some(index) = self
            .devices
            .iter()
            .position(|device| device.is_linked(link))
        else {
            return;
        };
        let device = &mut self.devices[index];
        device.link = None;
        device.session_expiry = session_expiry.unwrap_or(device.session_expiry);
        if goodbye {
            device.will = None;
        }
        if device.session_expiry.is_zero() {
            self.end_session(index, None, effects);
            return;
        }
        device.session.disconnected();
        device.ends_at = now + device.session_expiry;
        if let Some(will) = &device.will {
            device.will_at = now + Duration::from_secs(will.delay_secs.unwrap_or(0).into());
            if device.will_at <= now {
                device.will_at = Time::NEVER;
                let will = device.will.take();
                effects.wills.extend(will.map(|will| DueWill {
                    user: self.id.clone(),
                    will,
                }));
            }
        }
        effects.set = device.timer();
        self.mailbox.disconnected(device.slot, &mut effects.left);
    }

    /// A timer of a device has run out.
    pub(crate) fn handle_timeout(&mut self, client: &ClientId, now: Time, effects: &mut Effects) {
        let Some(index) = self
            .devices
            .iter()
            .position(|device| device.client == *client)
        else {
            return;
        };
        let device = &mut self.devices[index];
        if device.ends_at <= now {
            self.end_session(index, None, effects);
        } else if device.will_at <= now {
            device.will_at = Time::NEVER;
            let will = device.will.take();
            effects.wills.extend(will.map(|will| DueWill {
                user: self.id.clone(),
                will,
            }));
            effects.set = device.timer();
        }
    }

    /// Appends a permitted message. The message is returned if it has to be kept.
    pub(crate) fn append(
        &mut self,
        seq: Seq,
        mut message: Message,
        destination: Destination,
        origin: Option<LinkId>,
        limits: &UserLimits,
        effects: &mut Effects,
    ) -> Result<Option<Arc<Message>>, Refusal> {
        let kept = message.qos != QoS::AtMostOnce;
        let kind = match destination {
            Destination::Inbox => {
                message.topic = self.inbox.clone();
                message.retain = false;
                Kind::Inbox
            }
            Destination::OwnChannel => Kind::Channel,
        };
        let (readers, live) = self.readers(&message, origin, effects);
        let wanted = !readers.is_empty() || (kept && kind == Kind::Inbox);
        if wanted && kept && !self.has_room(&message, limits, effects) {
            return Err(refusals::QUOTA);
        }
        if !live || message.retain {
            message.detach();
        }
        let message = Arc::new(message);
        if message.retain {
            self.retain(&message, limits)?;
        }
        if !wanted || (!kept && !self.has_room_for_ephemeral(&message)) {
            return Ok(None);
        }
        self.mailbox.append(seq, message.clone(), kind, readers);
        Ok(kept.then_some(message))
    }

    fn has_room(&mut self, message: &Message, limits: &UserLimits, effects: &mut Effects) -> bool {
        let fits = |mailbox: &Mailbox| {
            mailbox
                .kept()
                .has_room(message, limits.max_messages, limits.max_bytes)
        };
        if !fits(&self.mailbox) {
            self.mailbox
                .expire(limits.max_age, message.received_at, &mut effects.left);
        }
        fits(&self.mailbox)
    }

    fn has_room_for_ephemeral(&self, message: &Message) -> bool {
        self.mailbox
            .ephemeral()
            .has_room(message, MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES)
    }

    /// The devices that are to get a message, and whether all of them keep up. The live ones are woken.
    fn readers(
        &self,
        message: &Message,
        origin: Option<LinkId>,
        effects: &mut Effects,
    ) -> (Slots, bool) {
        let mut readers = Slots::default();
        let mut live = self.mailbox.kept().messages < KEEPING_UP;
        for device in &self.devices {
            let Some((qos, no_local)) = device.reads(&message.topic) else {
                continue;
            };
            if no_local && origin.is_some_and(|origin| device.is_linked(origin)) {
                continue;
            }
            match &device.link {
                Some(link) => effects.wake.push(link.clone()),
                None if message.qos == QoS::AtMostOnce => continue,
                None if qos == QoS::AtMostOnce && message.topic != self.inbox => continue,
                None => live = false,
            }
            readers.insert(device.slot);
        }
        (readers, live && !readers.is_empty())
    }

    /// Keeps or clears what new subscriptions to an own channel are sent first.
    fn retain(&mut self, message: &Arc<Message>, limits: &UserLimits) -> Result<(), Refusal> {
        let others = || {
            self.retained
                .iter()
                .filter(|other| other.topic != message.topic)
        };
        let (count, bytes) = others().fold((0, 0), |(n, b), other| (n + 1, b + other.size()));
        let clears = message.payload.is_empty();
        if !clears && (count >= MAX_RETAINED || bytes + message.size() > limits.max_bytes) {
            return Err(refusals::QUOTA);
        }
        self.retained.retain(|other| other.topic != message.topic);
        if !clears {
            self.retained.push(message.clone());
        }
        Ok(())
    }

    /// Subscribes a connected device; retained messages follow under numbers from `next_seq`. Whether
    /// there was room, `None` if the connection is no longer the device's.
    pub(crate) fn subscribe(
        &mut self,
        link: LinkId,
        subscription: Subscription,
        retain_handling: RetainHandling,
        now: Time,
        next_seq: impl FnOnce() -> Seq,
    ) -> Option<bool> {
        let device = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))?;
        let topic = subscription.topic.clone();
        let Some(is_new) = device.session.subscribe(subscription) else {
            return Some(false);
        };
        if topic == self.inbox {
            self.mailbox.claim(device.slot);
            device.session.cursor = 0;
        }
        let wanted = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        self.retained.retain(|message| message.expires_at > now);
        let retained = self.retained.iter().find(|it| wanted && it.topic == topic);
        if let Some(message) = retained
            && self
                .mailbox
                .ephemeral()
                .has_room(message, MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES)
        {
            let mut reader = Slots::default();
            reader.insert(device.slot);
            self.mailbox
                .append(next_seq(), message.clone(), Kind::Retained, reader);
        }
        Some(true)
    }

    /// Whether there was such a subscription.
    pub(crate) fn unsubscribe(&mut self, link: LinkId, topic: &str, effects: &mut Effects) -> bool {
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return false;
        };
        let existed = device.session.unsubscribe(topic);
        if existed && self.inbox == topic {
            self.mailbox.disclaim(device.slot, &mut effects.left);
            self.pass_on(effects);
        }
        existed
    }

    /// The next things to send on a connection, in order: at most `count`, and those with a packet id
    /// only while fewer than `window` are on their way.
    pub(crate) fn fetch(
        &mut self,
        link: LinkId,
        window: usize,
        count: usize,
        limits: &UserLimits,
        now: Time,
        effects: &mut Effects,
    ) -> Fetched {
        let mut fetched = Fetched::default();
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return fetched;
        };
        resend(device, &self.mailbox, window, count, &mut fetched);
        if device.session.has_to_resend() {
            // Nothing new, of whatever QoS, overtakes what comes again (PROTOCOL.md, section 7.3).
            return fetched;
        }
        let slot = device.slot;
        while fetched.deliveries.len() < count {
            let Some((seq, entry)) = self.mailbox.next(slot, device.session.cursor) else {
                // What others are to get is not looked at again at each fetch.
                device.session.cursor = self.mailbox.last().max(device.session.cursor);
                break;
            };
            let message = entry.message.clone();
            let expires_at = message.expires_at.min(message.received_at + limits.max_age);
            let reads = device.reads(&message.topic).filter(|_| expires_at > now);
            let Some((granted, _)) = reads else {
                device.session.cursor = seq;
                effects
                    .left
                    .extend(self.mailbox.ack(seq, slot).then_some(seq));
                continue;
            };
            let mut terms = terms(device, entry.kind, &message, granted.min(message.qos));
            if terms.qos == QoS::AtMostOnce {
                // It cannot be acknowledged: to be sent is all that it can hope for.
                effects
                    .left
                    .extend(self.mailbox.ack(seq, slot).then_some(seq));
            } else if device.session.on_the_way() >= window {
                fetched.held_back = true;
                break;
            } else {
                terms.packet_id = Some(device.session.send(seq, terms.qos));
                self.mailbox.sent(seq, slot);
            }
            device.session.cursor = seq;
            fetched.deliveries.push(Delivery::Publish(message, terms));
        }
        fetched
    }

    /// The device will never take the message: it counts as sent and acknowledged (MQTT 5.0, section
    /// 3.1.2.11.4, about packets over the client's Maximum Packet Size).
    pub(crate) fn skip(&mut self, link: LinkId, packet_id: PacketId, effects: &mut Effects) {
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return;
        };
        let session = &mut device.session;
        let seq = session
            .pub_ack(packet_id)
            .or_else(|| match session.pub_rec(packet_id, true) {
                Received::First(seq) => Some(seq),
                Received::Again | Received::Unknown => None,
            });
        let left = seq.filter(|seq| self.mailbox.ack(*seq, device.slot));
        effects.left.extend(left);
    }

    /// PUBACK from a device.
    pub(crate) fn pub_ack(&mut self, link: LinkId, packet_id: PacketId, effects: &mut Effects) {
        if let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
            && let Some(seq) = device.session.pub_ack(packet_id)
            && self.mailbox.ack(seq, device.slot)
        {
            effects.left.push(seq);
        }
    }

    /// PUBREC from a device: whether a PUBREL is due.
    pub(crate) fn pub_rec(
        &mut self,
        link: LinkId,
        packet_id: PacketId,
        refused: bool,
        effects: &mut Effects,
    ) -> Received {
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return Received::Unknown;
        };
        let received = device.session.pub_rec(packet_id, refused);
        if let Received::First(seq) = received
            && self.mailbox.ack(seq, device.slot)
        {
            effects.left.push(seq);
        }
        received
    }

    /// The session behind a connection, while the connection is the device's.
    pub(crate) fn session(&mut self, link: LinkId) -> Option<&mut Session> {
        let device = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))?;
        Some(&mut device.session)
    }
}

/// Sends again what was on its way when the last connection ended, in its order, before anything new.
fn resend(
    device: &mut Device,
    mailbox: &Mailbox,
    window: usize,
    count: usize,
    fetched: &mut Fetched,
) {
    while fetched.deliveries.len() < count {
        if device.session.on_the_way() >= window {
            fetched.held_back |= device.session.has_to_resend();
            return;
        }
        let Some(again) = device.session.resend() else {
            return;
        };
        let (seq, qos) = match again.awaits {
            Awaits::Comp => {
                fetched.deliveries.push(Delivery::PubRel(again.packet_id));
                continue;
            }
            Awaits::Ack(seq) => (seq, QoS::AtLeastOnce),
            Awaits::Rec(seq) => (seq, QoS::ExactlyOnce),
        };
        let entry = mailbox
            .get(seq)
            .expect("what is on its way stays in the log");
        let mut terms = terms(device, entry.kind, &entry.message, qos);
        (terms.packet_id, terms.dup) = (Some(again.packet_id), true);
        fetched
            .deliveries
            .push(Delivery::Publish(entry.message.clone(), terms));
    }
}

/// How a message goes to a device: RETAIN says that it is a retained one, or what its publisher said to
/// who asked for that (MQTT 5.0, section 3.3.1.3).
fn terms(device: &Device, kind: Kind, message: &Message, qos: QoS) -> Terms {
    let subscription = device.session.subscription(&message.topic);
    let as_published = subscription.is_some_and(|subscription| subscription.retain_as_published);
    Terms {
        packet_id: None,
        qos,
        dup: false,
        retain: kind == Kind::Retained || (as_published && message.retain),
        subscription_id: subscription.and_then(|subscription| subscription.id),
    }
}
