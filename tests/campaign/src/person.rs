//! A client as real ones are: a session of its own, sent again what was not acknowledged.
//!
//! Each user has one client, which publishes to its friends and reads its inbox. What it does and when is
//! decided by its [`Habits`] and by chance; it never waits.
//!
//! Invariants: nothing new is published before what a resumed session owes was sent again, in order; QoS 2
//! ids are remembered from PUBLISH to PUBREL exactly as section 4.3.3 of the standard says.

mod traffic;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use jam_testkit::random::{Random, Source};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, ConnAck, Disconnect, Packet, Publish, QoS, Version};

use crate::ledger::{Ledger, Number, Step};
use crate::wire::{self, Wire, packet_id};

/// Packet ids that are used: few, so that they come round.
const IDS: u16 = 100;

/// How a client lives.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// What it speaks.
    pub version: Version,
    /// Whether its session outlives its connections.
    pub lasting: bool,
    /// At what it subscribes to its inbox.
    pub qos: QoS,
    /// What it takes at once; 5.0 only.
    pub receive_maximum: u16,
    /// How long it takes to acknowledge, at most, in milliseconds.
    pub slowness_millis: usize,
    /// How many rounds of ten it is there in.
    pub presence: usize,
    /// Between two publishes, on average, in microseconds; 0 never publishes.
    pub pause_micros: usize,
    /// How often its connection breaks in a second, on average.
    pub breaks: usize,
    /// Whether another device takes its place now and then.
    pub changes_phones: bool,
}

/// What all clients need of the world.
#[derive(Debug)]
pub struct World {
    /// What happens is noted there.
    pub ledger: Ledger,
    /// What happens is decided there.
    pub random: Random,
    /// Where the server is.
    pub port: u16,
    /// Users `1..=users`.
    pub users: u16,
    /// Who may not write to each other.
    pub strangers: Vec<(u16, u16)>,
    /// No new messages and no accidents: everybody fetches what is theirs.
    pub settling: bool,
    /// Connections and sessions so far.
    pub next: u64,
}

impl World {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound.max(1)).unwrap_or(0)
    }

    fn are_strangers(&self, a: u16, b: u16) -> bool {
        self.strangers
            .iter()
            .any(|pair| *pair == (a, b) || *pair == (b, a))
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A message on its way to the server.
#[derive(Debug)]
struct Outgoing {
    number: Number,
    publish: Publish,
    /// PUBREC has come: PUBREL is due.
    received: bool,
}

/// What the client remembers from connection to connection.
#[derive(Debug, Default)]
struct Session {
    number: u64,
    /// The server has said that it has it.
    confirmed: bool,
    outgoing: VecDeque<Outgoing>,
    /// QoS 2 ids received and not released.
    received: HashMap<u16, Number>,
    last_id: u16,
    /// What errors on the device channel have said of packet ids that are not acknowledged yet.
    errors: HashMap<u16, String>,
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    number: u64,
    accepted: bool,
    resumed: bool,
    subscribed: bool,
    /// Acknowledgements to give, and when.
    todo: VecDeque<(Instant, Packet, Option<Number>)>,
    /// Packet ids of PUBLISHes to this client that are not acknowledged to their end.
    window: usize,
}

/// The client of one user.
#[derive(Debug)]
pub struct Person {
    user: u16,
    habits: Habits,
    device: usize,
    /// Whether it is there at present.
    pub present: bool,
    connection: Option<Connection>,
    session: Session,
    /// Whether the server may know a session of this client id that this client has not.
    uncertain: bool,
    connect_at: Instant,
    publish_at: Instant,
    break_at: Instant,
}

impl Person {
    /// Someone who has never connected.
    #[must_use]
    pub fn new(user: u16, habits: Habits) -> Self {
        let now = Instant::now();
        Self {
            user,
            habits,
            device: 0,
            present: false,
            connection: None,
            session: Session::default(),
            uncertain: false,
            connect_at: now,
            publish_at: now,
            break_at: now,
        }
    }

    /// How this one lives.
    #[must_use]
    pub fn habits(&self) -> &Habits {
        &self.habits
    }

    /// Whether the client has nothing more to say, and no QoS 2 id waits for its PUBREL.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let connection = self.connection.as_ref();
        self.session.outgoing.is_empty()
            && self.session.received.is_empty()
            && connection.is_some_and(|it| it.subscribed && it.todo.is_empty() && it.window == 0)
    }

    /// What is still going on, for who waits in vain.
    #[must_use]
    pub fn state(&self) -> String {
        let connection = self.connection.as_ref();
        let outgoing: Vec<_> = self
            .session
            .outgoing
            .iter()
            .map(|it| (it.number, it.received))
            .collect();
        format!(
            "user {}: on their way (number, PUBREC came) {outgoing:?}, accepted {:?}, subscribed {:?}, to acknowledge {:?}, window {:?}",
            self.user,
            connection.map(|it| it.accepted),
            connection.map(|it| it.subscribed),
            connection.map(|it| it.todo.len()),
            connection.map(|it| it.window),
        )
    }

    /// The server is gone, and the connection with it.
    pub fn server_was_killed(&mut self, world: &mut World) {
        // What the server had sent is read first, as far as the kernel has it.
        while self.take_packets(world) {}
        self.lose(world, 100);
    }

    /// Does what there is to do; whether there was anything.
    pub fn turn(&mut self, world: &mut World) -> bool {
        let now = Instant::now();
        let Some(connection) = &mut self.connection else {
            let wanted = (self.present || world.settling) && now >= self.connect_at;
            return wanted && self.connect(world);
        };
        if !connection.accepted || !connection.wire.is_open() {
            let busy = self.take_packets(world);
            return self.check_open(world) || busy;
        }
        let leaves = !self.present && !world.settling;
        if !world.settling && (leaves || now >= self.break_at) {
            self.leave(world);
            return true;
        }
        let mut busy = self.take_packets(world);
        busy |= self.acknowledge_back(now, world);
        if now >= self.publish_at && !world.settling {
            busy |= self.publish(world);
        }
        self.check_open(world) || busy
    }

    fn check_open(&mut self, world: &mut World) -> bool {
        let Some(connection) = &self.connection else {
            return true;
        };
        if !connection.wire.is_open() {
            world.ledger.trouble(format!(
                "the server has closed the connection of user {}",
                self.user
            ));
            self.lose(world, 100);
            return true;
        }
        false
    }

    // Coming and going.

    fn connect(&mut self, world: &mut World) -> bool {
        let Some(mut wire) = Wire::open(world.port, self.habits.version) else {
            self.connect_at = Instant::now() + Duration::from_millis(2);
            return false;
        };
        if self.habits.changes_phones && world.below(4) == 0 {
            self.device += 1;
            self.forget_session(world);
            // Its first CONNECT may have been taken without an answer that arrived.
            self.uncertain = true;
        }
        let device = format!("phone-{}", self.device);
        let mut connect =
            wire::connect(self.user, &device, self.habits.version, self.habits.lasting);
        if self.habits.version == Version::V5 {
            connect.properties.receive_maximum = NonZeroU16::new(self.habits.receive_maximum);
        }
        wire.send(&Packet::Connect(Box::new(connect)));
        world.ledger.counts.connections += 1;
        self.connection = Some(Connection {
            wire,
            number: world.take_number(),
            accepted: false,
            resumed: false,
            subscribed: false,
            todo: VecDeque::new(),
            window: 0,
        });
        let breaks = self.habits.breaks;
        let until = 2000_usize.checked_div(breaks);
        let until = until.map_or(3_600_000, |most| 1 + world.below(most));
        self.break_at = Instant::now() + Duration::from_millis(until as u64);
        true
    }

    /// Leaves, politely or not.
    fn leave(&mut self, world: &mut World) {
        if let Some(connection) = &mut self.connection
            && world.below(3) == 0
        {
            let disconnect = Disconnect::with_reason(ReasonCode::Success);
            connection
                .wire
                .send(&Packet::Disconnect(Box::new(disconnect)));
        }
        self.lose(world, 60);
    }

    /// The connection has ended.
    fn lose(&mut self, world: &mut World, pause_millis: usize) {
        if self.connection.take().is_none() {
            return;
        }
        let pause = if world.settling {
            1
        } else {
            world.below(pause_millis)
        };
        self.connect_at = Instant::now() + Duration::from_millis(pause as u64);
        if !self.habits.lasting {
            self.forget_session(world);
        }
    }

    /// The client knows nothing any more; what was not acknowledged is never sent again.
    fn forget_session(&mut self, world: &mut World) {
        for outgoing in &self.session.outgoing {
            world.ledger.repeated(outgoing.number);
            world.ledger.step(outgoing.number, Step::Forgotten);
        }
        self.session = Session::default();
    }

    fn accepted(&mut self, conn_ack: &ConnAck, world: &mut World) {
        if u8::from(conn_ack.code) != 0 {
            // Nobody is told that the token is wrong because it cannot be looked up.
            if !world.ledger.may_fail() || wire::is_about_login(conn_ack) {
                world
                    .ledger
                    .trouble(format!("user {} was not let in: {conn_ack:?}", self.user));
            }
            self.lose(world, 200);
            return;
        }
        let present = conn_ack.session_present;
        let known = self.session.confirmed;
        if present != known
            && !(self.habits.lasting && (self.uncertain || !known && self.session.number != 0))
        {
            world.ledger.trouble(format!(
                "session present is {present} to user {}, who has one: {known}",
                self.user
            ));
        }
        if !present || self.session.number == 0 {
            self.session_is_new(world);
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.accepted = true;
        connection.resumed = present;
        self.uncertain &= !present || !known;
        for outgoing in &mut self.session.outgoing {
            if outgoing.received {
                let id = outgoing.publish.packet_id.unwrap_or(packet_id(1));
                connection.wire.send(&Packet::PubRel(Ack::success(id)));
                continue;
            }
            outgoing.publish.dup = true;
            world.ledger.sent_again(outgoing.number);
            if outgoing.publish.qos == QoS::AtLeastOnce {
                world.ledger.repeated(outgoing.number);
            }
            let id = outgoing.publish.packet_id.map_or(0, |id| id.get());
            world.ledger.step(
                outgoing.number,
                Step::Published(connection.number, id, true),
            );
            connection
                .wire
                .send(&Packet::Publish(outgoing.publish.clone()));
        }
        if known && present && world.below(20) != 0 {
            connection.subscribed = true;
        } else {
            let topic = wire::inbox(self.user);
            connection
                .wire
                .send(&wire::subscribe(packet_id(60_000), &topic, self.habits.qos));
        }
    }

    /// The server has no session: what it has acknowledged is done, and the rest is new to it.
    fn session_is_new(&mut self, world: &mut World) {
        let number = world.take_number();
        let mut outgoing = std::mem::take(&mut self.session.outgoing);
        outgoing.retain(|it| !it.received);
        for it in &outgoing {
            world.ledger.repeated(it.number);
        }
        self.session = Session {
            number,
            outgoing,
            ..Session::default()
        };
    }
}

impl Session {
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % IDS + 1;
            let id = Some(packet_id(self.last_id));
            if !self.outgoing.iter().any(|it| it.publish.packet_id == id) {
                return self.last_id;
            }
        }
    }
}
