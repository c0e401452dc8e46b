//! One device of the simulator: a well-behaved client, and what it knows that it may be sent.
//!
//! It does nothing by itself: what it has to answer waits in `todo` until it is told to act, so that
//! connections break between any two steps of a handshake.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU16;

use bytes::Bytes;
use jam_core::time::Time;
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

use super::{Message, Messages, SESSION};
use crate::bench::Bench;
use crate::client::{Client, lasting as ask_lasting};
use crate::packets;

/// Messages that the server may have on their way to a device: its own limit, and what 5.0 clients ask for.
const WINDOW: usize = 10;
const RECEIVE_MAXIMUM: u16 = 4;

/// A message on its way to the server.
#[derive(Debug)]
pub(super) struct Outgoing {
    id: PacketId,
    publish: Publish,
    number: usize,
    allowed: bool,
    /// The PUBREC has come.
    received: bool,
}

pub(super) struct Device {
    pub(super) client: Client,
    pub(super) version: Version,
    pub(super) user: &'static str,
    pub(super) connected: bool,
    lasting: bool,
    /// The server has not said anything yet by which it must have the session.
    unsure: bool,
    /// The same for its subscription to the inbox: packets that are not answered.
    unanswered_subscribes: usize,
    /// One of those was under way at a crash.
    maybe_subscribed: bool,
    /// An UNSUBSCRIBE waits behind others and what was published before it.
    unsubscribing: bool,
    /// A crash may have undone what the device had asked for.
    doubtful: bool,
    /// A server that has crashed may not know when the connection ended: when the session ends at most.
    ends_late: Option<Time>,
    /// A server that has crashed may not know that the session was taken up again: when it ends at least.
    ends_early: Option<Time>,
    /// What the next connection asks for, and then what this one has asked for, if it could.
    pub(super) receive_maximum: Option<u16>,
    /// The store may fail: what is allowed may be refused all the same.
    pub(super) fallible: bool,
    /// The server has crashed since the session began.
    crashed: bool,
    /// The server has a session, until then if the device is away.
    session: Option<Time>,
    subscribed: bool,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// Publishes of this connection that are not answered, in order.
    unanswered: VecDeque<PacketId>,
    /// Errors that have come, by message id.
    errors: HashSet<u16>,
    /// Answers to give.
    todo: VecDeque<Packet>,
    /// Packet ids on their way to the device, and which message it is.
    in_flight: HashMap<PacketId, Option<usize>>,
    /// Those of this connection.
    window: HashSet<PacketId>,
    /// QoS 2 ids received and not released.
    received: HashSet<PacketId>,
    /// What the session has brought so far, what of it was QoS 2, and what this connection has.
    seen: HashSet<usize>,
    seen_once: HashSet<usize>,
    seen_here: HashSet<usize>,
    last_of: HashMap<&'static str, usize>,
    /// What the session owes.
    owed: HashSet<usize>,
}

impl Device {
    pub(super) fn new(bench: &Bench, id: &str, version: Version) -> Self {
        let user = super::USERS.into_iter().find(|user| id.starts_with(user));
        Self {
            client: bench.client(id, version),
            version,
            user: user.expect("a device of one of the users"),
            connected: false,
            lasting: false,
            unsure: false,
            unanswered_subscribes: 0,
            maybe_subscribed: false,
            unsubscribing: false,
            doubtful: false,
            ends_late: None,
            ends_early: None,
            receive_maximum: Some(RECEIVE_MAXIMUM),
            fallible: false,
            crashed: false,
            session: None,
            subscribed: false,
            outgoing: VecDeque::new(),
            unanswered: VecDeque::new(),
            errors: HashSet::new(),
            todo: VecDeque::new(),
            in_flight: HashMap::new(),
            window: HashSet::new(),
            received: HashSet::new(),
            seen: HashSet::new(),
            seen_once: HashSet::new(),
            seen_here: HashSet::new(),
            last_of: HashMap::new(),
            owed: HashSet::new(),
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn send(&self, packet: Packet) {
        if self.connected {
            self.client.send(packet);
        }
    }

    // Coming and going.

    pub(super) fn connect(
        &mut self,
        lasting: bool,
        clean: bool,
        now: Time,
        messages: &mut Messages,
    ) {
        // 3.1.1 has one flag for both.
        let clean = if self.version == Version::V5 {
            clean
        } else {
            !lasting
        };
        let conn_ack = self.client.connect_with(|connect| {
            if lasting {
                ask_lasting(connect);
            }
            connect.clean_start = clean;
            if connect.version == Version::V5 {
                connect.properties.receive_maximum = self.receive_maximum.and_then(NonZeroU16::new);
            }
        });
        let mut present = self.session.is_some() && !clean;
        if self.version != Version::V3 {
            if conn_ack.session_present != present {
                let early = self.crashed && self.ends_early.is_some_and(|at| at <= now);
                let doubtful = self.doubtful || early || self.ends_late.is_some();
                assert!(doubtful && !clean, "{}: {conn_ack:?}", self.client.id());
            }
            present = conn_ack.session_present;
        }
        self.ends_late = None;
        self.ends_early = self.ends_early.or(self.session);
        if !present {
            self.end_session();
            self.unsure = true;
        }
        self.session = Some(Time::NEVER);
        (self.connected, self.lasting) = (true, lasting);
        for index in 0..self.outgoing.len() {
            let outgoing = &mut self.outgoing[index];
            if outgoing.received {
                self.client.send(Packet::PubRel(Ack::success(outgoing.id)));
                continue;
            }
            outgoing.publish.dup = true;
            messages[outgoing.number].sent_again = true;
            messages[outgoing.number].repeated |= outgoing.publish.qos == QoS::AtLeastOnce;
            self.unanswered.push_back(outgoing.id);
            self.client.send(Packet::Publish(outgoing.publish.clone()));
        }
    }

    pub(super) fn leave(&mut self, polite: bool, now: Time) {
        if polite {
            self.client.disconnect();
        }
        self.client.drop_connection();
        self.lose_connection(now);
    }

    /// The connection has ended; the session goes on if it was asked to.
    pub(super) fn lose_connection(&mut self, now: Time) {
        self.connected = false;
        self.unanswered.clear();
        self.errors.clear();
        self.todo.clear();
        self.window.clear();
        self.seen_here.clear();
        self.last_of.clear();
        self.session = Some(now + SESSION);
        if !self.lasting {
            self.end_session();
        }
    }

    /// The server was killed and started again.
    pub(super) fn crash(&mut self, now: Time) {
        self.client.drop_connection();
        let late = now + SESSION;
        self.doubtful |= self.unsure;
        if self.connected {
            self.lose_connection(now);
        } else if self.session.is_some() {
            self.ends_late = Some(late);
        }
        if self.unanswered_subscribes > 0 {
            self.owed.clear();
            (self.subscribed, self.maybe_subscribed) = (false, true);
            self.unanswered_subscribes = 0;
        }
        // Only QoS 2 ids are remembered on this side.
        let received = &self.received;
        self.in_flight.retain(|id, _| received.contains(id));
        self.crashed = true;
    }

    /// The account has ended, and everything of it.
    pub(super) fn end_life(&mut self) {
        if self.connected {
            assert!(
                self.client.is_closed(),
                "{} is still there",
                self.client.id()
            );
            self.client.drop_connection();
            self.lasting = false;
            self.lose_connection(Time::NEVER);
        }
        self.end_session();
    }

    /// Whether a message is on its way to the server, or will be again.
    pub(super) fn is_publishing(&self, number: usize) -> bool {
        self.outgoing.iter().any(|it| it.number == number)
    }

    pub(super) fn expire(&mut self, now: Time) {
        let until = self.ends_late.max(self.session);
        if !self.connected && until.is_some_and(|until| until <= now) {
            self.end_session();
        }
    }

    /// The server forgets the session, and so does the device.
    pub(super) fn end_session(&mut self) {
        self.session = None;
        (self.unsure, self.doubtful, self.crashed) = (false, false, false);
        (self.ends_late, self.ends_early) = (None, None);
        self.unanswered_subscribes = 0;
        self.maybe_subscribed = false;
        self.unsubscribing = false;
        self.subscribed = false;
        self.outgoing.clear();
        self.in_flight.clear();
        self.received.clear();
        self.seen.clear();
        self.seen_once.clear();
        self.owed.clear();
    }

    /// Another device of the user has come.
    pub(super) fn expect_logout(&mut self) {
        let mut told = false;
        while let Some(packet) = self.client.next() {
            if let Packet::Publish(publish) = packet {
                let error =
                    packets::error("authenticate", "logout", "a new device has connected", None);
                told |= publish.topic == self.client.channel() && publish.payload == error;
            }
        }
        assert!(
            told,
            "{} was not told that it is logged out",
            self.client.id()
        );
        assert!(
            self.client.is_closed(),
            "{} is still there",
            self.client.id()
        );
        self.client.drop_connection();
        self.lasting = false;
        self.lose_connection(Time::NEVER);
    }

    // Doing something.

    pub(super) fn subscribe(&mut self, on: bool) {
        let (id, inbox) = (self.client.take_id(), self.client.inbox());
        if on {
            let filters = vec![packets::filter(&inbox, QoS::ExactlyOnce)];
            self.send(Packet::Subscribe(Box::new(packets::subscribe(id, filters))));
        } else {
            self.send(Packet::Unsubscribe(Box::new(packets::unsubscribe(
                id,
                &[&inbox],
            ))));
            // What was not sent goes to somebody else.
            self.owed.clear();
        }
        (self.subscribed, self.maybe_subscribed) = (on, false);
        self.unsubscribing = !on && self.unanswered_subscribes > 0;
        self.unanswered_subscribes += 1;
    }

    pub(super) fn own_channel(&mut self, subscribe: bool, retain: bool) {
        let topic = format!("/{}/x", self.user);
        if subscribe {
            let filters = vec![packets::filter(&topic, QoS::AtLeastOnce)];
            let subscribe = packets::subscribe(self.client.take_id(), filters);
            self.unanswered_subscribes += 1;
            self.send(Packet::Subscribe(Box::new(subscribe)));
        } else {
            let mut publish = packets::publish(&topic, "noise", QoS::AtMostOnce, None);
            publish.retain = retain;
            self.send(Packet::Publish(publish));
        }
    }

    pub(super) fn publish(
        &mut self,
        receiver: &str,
        payload: Bytes,
        qos: QoS,
        number: usize,
        allowed: bool,
    ) {
        let mut id = None;
        if qos != QoS::AtMostOnce {
            let used = |id: &PacketId| self.outgoing.iter().any(|other| other.id == *id);
            id = (0..).map(|_| self.client.take_id()).find(|id| !used(id));
        }
        let publish = packets::publish(&format!("/{receiver}/inbox"), payload, qos, id);
        if let Some(id) = id {
            self.unanswered.push_back(id);
            let publish = publish.clone();
            let received = false;
            self.outgoing.push_back(Outgoing {
                id,
                publish,
                number,
                allowed,
                received,
            });
        }
        self.send(Packet::Publish(publish));
    }

    /// The session is to bring this message.
    pub(super) fn is_to_get(&mut self, number: usize) {
        if self.session.is_some() && self.subscribed {
            self.owed.insert(number);
        }
    }

    /// Gives one answer that is due, if there is one.
    pub(super) fn act(&mut self, nth: usize, messages: &mut Messages) -> bool {
        let nth = nth.min(self.todo.len().saturating_sub(1));
        let Some(packet) = self.todo.remove(nth).filter(|_| self.connected) else {
            return false;
        };
        match &packet {
            Packet::PubAck(ack) => {
                self.window.remove(&ack.packet_id);
                if let Some(number) = self.in_flight.remove(&ack.packet_id).flatten() {
                    messages[number].acknowledged = true;
                }
            }
            Packet::PubRec(ack) => {
                if let Some(number) = self.in_flight.get(&ack.packet_id).copied().flatten() {
                    messages[number].acknowledged = true;
                }
            }
            Packet::PubComp(ack) => {
                self.window.remove(&ack.packet_id);
                self.in_flight.remove(&ack.packet_id);
            }
            _ => {}
        }
        self.client.send(packet);
        true
    }

    /// Nothing stands in the way of what is owed any more.
    pub(super) fn catch_up(&mut self) {
        self.send(Packet::PingReq);
    }

    /// The session has brought what it owed.
    pub(super) fn check_complete(&self, messages: &Messages) {
        // What was not acknowledged to its sender may have been lost in a crash, or refused by the store.
        let mut missing = self.owed.difference(&self.seen);
        let missing =
            missing.find(|number| !(self.fallible || self.crashed) || messages[**number].accepted);
        assert_eq!(missing, None, "{} has not got it", self.client.id());
    }

    // Being sent something.

    pub(super) fn drain(&mut self, in_order: bool, messages: &mut Messages) {
        if !self.connected {
            return;
        }
        while let Some(packet) = self.client.next() {
            match packet {
                Packet::Publish(publish) => self.take(&publish, in_order, messages),
                Packet::PubAck(ack) => self.answered(&ack, QoS::AtLeastOnce, messages),
                Packet::PubRec(ack) => self.answered(&ack, QoS::ExactlyOnce, messages),
                Packet::PubComp(ack) => self
                    .outgoing
                    .retain(|outgoing| outgoing.id != ack.packet_id),
                Packet::PubRel(ack) => {
                    self.received.remove(&ack.packet_id);
                    self.todo
                        .push_back(Packet::PubComp(Ack::success(ack.packet_id)));
                }
                Packet::SubAck(_) | Packet::UnsubAck(_) => {
                    self.unanswered_subscribes = self.unanswered_subscribes.saturating_sub(1);
                    self.unsubscribing &= self.unanswered_subscribes > 0;
                    (self.unsure, self.doubtful, self.ends_early) = (false, false, None);
                }
                Packet::PingResp => {}
                other => panic!("{} did not expect {other:?}", self.client.id()),
            }
        }
        assert!(
            !self.client.is_closed(),
            "{} was disconnected",
            self.client.id()
        );
    }

    /// PUBACK or PUBREC.
    fn answered(&mut self, ack: &Ack, qos: QoS, messages: &mut Messages) {
        let id = ack.packet_id;
        assert_eq!(
            self.unanswered.pop_front(),
            Some(id),
            "acknowledgements out of order"
        );
        let index = self.outgoing.iter().position(|outgoing| outgoing.id == id);
        let index = index.expect("an acknowledgement of something on its way");
        let outgoing = &mut self.outgoing[index];
        assert_eq!(
            outgoing.publish.qos, qos,
            "the wrong kind of acknowledgement"
        );
        let known = outgoing.allowed || self.errors.contains(&id.get()) || outgoing.publish.dup;
        assert!(known, "a refusal was acknowledged before its error");
        let told = self.errors.remove(&id.get());
        let success = !told && ack.reason == ReasonCode::Success;
        if self.version == Version::V5 && !outgoing.publish.dup && !self.fallible {
            assert_eq!(success, outgoing.allowed, "{outgoing:?}");
        }
        if outgoing.allowed && success {
            messages[outgoing.number].accepted = true;
        }
        if qos == QoS::AtLeastOnce || ack.reason.is_error() {
            self.outgoing.remove(index);
        } else {
            outgoing.received = true;
            self.todo.push_back(Packet::PubRel(Ack::success(id)));
        }
    }

    fn take(&mut self, publish: &Publish, in_order: bool, messages: &mut Messages) {
        if publish.topic == self.client.channel() {
            self.errors.extend(message_id(&publish.payload));
            return;
        }
        let number = (publish.topic == self.client.inbox()).then(|| number(&publish.payload));
        let again = publish
            .packet_id
            .is_some_and(|id| self.received.contains(&id));
        if let Some(id) = publish.packet_id {
            self.take_id(id, publish, number);
        }
        let Some(number) = number else {
            return;
        };
        let message = &messages[number];
        let who = self.client.id();
        assert_eq!(message.receiver, self.user, "{who} got {message:?}");
        assert!(message.allowed && !message.gone, "{who} got {message:?}");
        assert_eq!(publish.qos, message.qos);
        assert!(!publish.retain);
        // What waits for the store under its packet id already still comes (MQTT 5.0, section 3.10.4).
        let started = publish.dup || publish.qos != QoS::AtMostOnce;
        let subscribed = self.subscribed || self.maybe_subscribed || self.unsubscribing;
        assert!(subscribed || started, "{who} has not subscribed");
        if self.version == Version::V5 {
            let from = [("from", message.sender)].into();
            let properties = publish.properties.as_ref();
            assert!(properties.is_some_and(|it| it.user == from));
        }
        let first = self.seen.insert(number);
        assert!(
            !publish.dup || !first || self.crashed,
            "{who}: message {number} was never sent before"
        );
        assert!(
            publish.dup || first || publish.qos != QoS::AtLeastOnce || message.repeated,
            "{who}: message {number} was sent before"
        );
        // One that went with its receiver's account, or was refused unheard, and is sent again, comes after what was
        // sent meanwhile.
        let message = &messages[number];
        let is_late = message.excused || (self.fallible && message.sent_again);
        let is_ordered = in_order && publish.qos != QoS::AtMostOnce && !is_late;
        if is_ordered && !messages[number].arrived {
            let (sender, receiver) = (messages[number].sender, messages[number].receiver);
            let is_later =
                |it: &&Message| it.arrived && it.sender == sender && it.receiver == receiver;
            let later = messages[number..].iter().find(is_later);
            assert!(
                later.is_none(),
                "{who} got message {number} after {later:?}"
            );
            messages[number].arrived = true;
        }
        let message = &messages[number];
        let first_here = self.seen_here.insert(number);
        assert!(
            first_here || message.repeated,
            "{who} got message {number} twice"
        );
        if publish.qos == QoS::ExactlyOnce && !again {
            assert!(
                self.seen_once.insert(number),
                "{who} got message {number} twice at QoS 2"
            );
        }
        if in_order && !message.repeated && !is_late {
            let last = self.last_of.insert(message.sender, number);
            assert!(
                last < Some(number),
                "{who} got message {number} after {last:?}"
            );
        }
    }

    /// A packet id on its way to the device.
    fn take_id(&mut self, id: PacketId, publish: &Publish, number: Option<usize>) {
        assert!(self.window.insert(id), "packet id {id} is on its way twice");
        let window = if self.version == Version::V5 {
            self.receive_maximum.map_or(WINDOW, usize::from)
        } else {
            WINDOW
        };
        // A message that was refused when it was on its way already has left the server's window.
        assert!(
            self.window.len() <= window || self.fallible,
            "more on their way than the window"
        );
        if let Some(before) = self.in_flight.insert(id, number) {
            assert_eq!(
                before, number,
                "packet id {id} stands for something else now"
            );
            assert!(publish.dup, "packet id {id} was on its way");
        }
        let ack = Ack::success(id);
        if publish.qos == QoS::ExactlyOnce {
            self.received.insert(id);
            self.todo.push_back(Packet::PubRec(ack));
        } else {
            self.todo.push_back(Packet::PubAck(ack));
        }
    }
}

/// The number of a message, which is its content.
fn number(payload: &[u8]) -> usize {
    digits_after(payload, r#""content":""#).expect("a message of the simulator's")
}

/// The message id of an error, if it has one.
fn message_id(payload: &[u8]) -> Option<u16> {
    digits_after(payload, r#""messageId":"#).and_then(|id| u16::try_from(id).ok())
}

fn digits_after(payload: &[u8], what: &str) -> Option<usize> {
    let (_, rest) = std::str::from_utf8(payload).ok()?.split_once(what)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}
