//! One device of the simulator: a well-behaved client, and what it knows that it may be sent.
//!
//! It does nothing by itself: what it has to answer waits in `todo` until it is told to act, so that
//! connections break between any two steps of a handshake.

mod acks;
mod ending;
mod receiving;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU16;

use jam_core::time::Time;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

use super::Messages;
use super::wills::{Fate, Testament};
use crate::bench::Bench;
use crate::client::{Client, lasting as ask_lasting};
use crate::packets;

/// Messages that the server may have on their way to a device: its own limit, and what 5.0 clients ask for.
const WINDOW: usize = 10;
const RECEIVE_MAXIMUM: u16 = 4;
/// What is published on own channels.
pub(super) const NOISE: &str = "noise";

/// A message on its way to the server.
#[derive(Debug)]
pub(super) struct Outgoing {
    id: PacketId,
    publish: Publish,
    number: usize,
    allowed: bool,
    /// Whether it is refused for want of room.
    refusal: Option<bool>,
    /// It was not, and is now: it may have been refused.
    was_refused: bool,
    /// The PUBREC has come.
    received: bool,
    /// The store has failed before it was answered.
    may_be_rejected: bool,
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
    /// A server that has crashed may not know that the session was resumed: when it ends at least.
    ends_early: Option<Time>,
    /// What the next connection asks for, and then what this one has asked for, if it could.
    pub(super) receive_maximum: Option<u16>,
    pub(super) token: String,
    /// What is not acknowledged to its sender may not get to the server.
    pub(super) is_unpromised: bool,
    /// The will that the next connection leaves with the server, and the one that this one has, or that has a delay.
    pub(super) next_will: Option<Testament>,
    will: Option<Testament>,
    /// When the will's delay is over, of a device that is away.
    will_at: Option<Time>,
    /// What has become of wills.
    pub(super) fates: Vec<(usize, Fate)>,
    /// The server does not look at what the device sends.
    pub(super) waits: bool,
    /// The device looks at what the server writes.
    pub(super) reads: bool,
    /// A connection of the session has ended with output that the device has not read, or may have.
    missed: bool,
    /// Bytes of a packet that this connection takes.
    pub(super) max_packet: Option<u32>,
    /// The mailboxes may be full.
    pub(super) is_tight: bool,
    pub(super) now: Time,
    /// What comes may have been written some time ago.
    pub(super) is_late: bool,
    /// What the session has acknowledged, as far as the server has handled that, and what it has not.
    pub(super) acked: HashSet<usize>,
    late_acks: Vec<usize>,
    /// Those of which the store may not know.
    fresh_acks: Vec<usize>,
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
        let user = user.expect("a device of one of the users");
        Self {
            client: bench.client(id, version),
            version,
            user,
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
            token: packets::token(user),
            is_unpromised: false,
            next_will: None,
            will: None,
            will_at: None,
            fates: Vec::new(),
            waits: false,
            reads: true,
            missed: false,
            max_packet: None,
            is_tight: false,
            now: Time::NEVER,
            is_late: false,
            acked: HashSet::new(),
            late_acks: Vec::new(),
            fresh_acks: Vec::new(),
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
        self.look_at_will(now);
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
            connect.will = self.next_will.as_ref().map(|it| it.will.clone());
            connect.password = Some(self.token.clone().into());
            if connect.version == Version::V5 {
                connect.properties.receive_maximum = self.receive_maximum.and_then(NonZeroU16::new);
                connect.properties.maximum_packet_size = self.max_packet;
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
        if present && self.will.is_some() {
            self.is_no_will();
        }
        if !present {
            self.end_session_at(now);
            self.unsure = true;
        }
        self.session = Some(Time::NEVER);
        (self.connected, self.lasting) = (true, lasting);
        self.will = self.next_will.take();
        for index in 0..self.outgoing.len() {
            let outgoing = &mut self.outgoing[index];
            messages[outgoing.number].is_unordered |=
                self.missed || self.is_tight || outgoing.may_be_rejected;
            if outgoing.received {
                self.client.send(Packet::PubRel(Ack::success(outgoing.id)));
                continue;
            }
            outgoing.publish.dup = true;
            let message = &mut messages[outgoing.number];
            message.repeated |= outgoing.publish.qos == QoS::AtLeastOnce;
            message.resent += usize::from(outgoing.publish.qos == QoS::AtLeastOnce);
            message.is_sent_again();
            self.unanswered.push_back(outgoing.id);
            self.client.send(Packet::Publish(outgoing.publish.clone()));
        }
    }

    /// What is on its way to the server was not allowed, and is now.
    pub(super) fn is_allowed_now(&mut self, number: usize) {
        let outgoing = self.outgoing.iter_mut();
        for it in outgoing.filter(|it| it.number == number) {
            (it.allowed, it.was_refused) = (true, true);
        }
    }

    /// Whether a message is on its way to the server, or will be again.
    pub(super) fn is_publishing(&self, number: usize) -> bool {
        self.outgoing.iter().any(|it| it.number == number)
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
        // What was written before is still to be read.
        (self.subscribed, self.maybe_subscribed) = (on, !on && !self.reads);
        self.unsubscribing = !on && self.unanswered_subscribes > 0;
        self.is_subscribing();
    }

    /// A SUBSCRIBE, or the opposite, is on its way.
    pub(super) fn is_subscribing(&mut self) {
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
            let mut publish = packets::publish(&topic, NOISE, QoS::AtMostOnce, None);
            publish.retain = retain;
            self.send(Packet::Publish(publish));
        }
    }

    /// `refusal` is whether the mailbox has no room for it, if that is known.
    pub(super) fn publish(
        &mut self,
        mut publish: Publish,
        number: usize,
        allowed: bool,
        refusal: Option<bool>,
    ) {
        if publish.qos != QoS::AtMostOnce {
            let used = |id: &PacketId| self.outgoing.iter().any(|other| other.id == *id);
            publish.packet_id = (0..).map(|_| self.client.take_id()).find(|id| !used(id));
        }
        if let Some(id) = publish.packet_id {
            self.unanswered.push_back(id);
            self.outgoing.push_back(Outgoing {
                id,
                publish: publish.clone(),
                number,
                allowed,
                refusal,
                was_refused: false,
                received: false,
                may_be_rejected: false,
            });
        }
        self.send(Packet::Publish(publish));
    }

    /// The store has failed: what it had not kept of this is refused. Who does not hear of that, and sends it again, sends
    /// it after what was sent meanwhile.
    pub(super) fn may_be_rejected(&mut self) {
        for it in &mut self.outgoing {
            it.may_be_rejected |= !it.received;
        }
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
                    self.has_acked(number, messages);
                }
            }
            Packet::PubRec(ack) => {
                if let Some(number) = self.in_flight.get(&ack.packet_id).copied().flatten() {
                    messages[number].acknowledged = true;
                    self.has_acked(number, messages);
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
        let owed = self.owed.iter();
        let mut missing =
            owed.filter(|it| !self.seen.contains(it) && messages[**it].expires.is_none());
        let missing = missing.find(|number| {
            !(self.fallible || self.crashed || self.is_unpromised) || messages[**number].accepted
        });
        assert_eq!(missing, None, "{} has not got it", self.client.id());
    }
}
