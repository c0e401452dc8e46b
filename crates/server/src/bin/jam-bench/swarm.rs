//! All clients, and the one loop that reads, answers and writes for them.
//!
//! Invariants: in a turn everything that has come in is read before anything is written; a sender never
//! has more messages under way than its window; a client that the broker dropped is counted and left.

mod coming;

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jam_wire::Packet;
use jam_wire::packet::{Ack, ConnectCode, Publish, QoS, Version};
use jam_wire::reason::ConnectReturnCode;
use mio::event::Event;
use mio::{Events, Poll, Token};

use super::handshake::put;
use super::ledger::{Arrival, Arrivals, Ledger};
use super::link::{Link, READ_BYTES};
use super::message::{Stamp, Template};
use super::outbound::Outbound;
use super::progress::Progress;
use super::users::User;
use super::{BenchError, Plan};

/// How many events one turn takes.
const EVENTS: usize = 1024;

/// Output that waits for the socket; above it a sender pauses.
const OUTPUT_ENOUGH: usize = 256 * 1024;

/// The longest delivery that is told apart from longer ones: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// How long a turn waits when nothing is due.
pub(super) const IDLE: Duration = Duration::from_millis(20);

/// How a client connects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handshake {
    /// Clean Session or Clean Start.
    pub(super) clean: bool,
    /// Whether it subscribes to its inbox.
    pub(super) subscribe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Connecting,
    Subscribing,
    Ready,
}

#[derive(Debug)]
struct Client {
    user: User,
    inbox: String,
    link: Option<Link>,
    phase: Phase,
    handshake: Handshake,
    outbound: Option<Outbound>,
    arrivals: Arrivals,
    /// Stands in the list of those with something to write.
    listed: bool,
}

/// The clients. The one at 2k is the friend of the one at 2k + 1.
pub(super) struct Swarm<'p> {
    pub(super) plan: &'p Plan,
    pub(super) ledger: Ledger,
    /// In nanoseconds, at most [`LONGEST_NS`]; a quantile is right to a thousandth.
    pub(super) latency: Histogram<u64>,
    pub(super) progress: Progress,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    listed: Vec<usize>,
    scratch: Box<[u8]>,
    packets: Vec<Packet>,
    start: Instant,
    /// Clients that are in the middle of a handshake.
    opening: usize,
    /// Handshakes that failed, and why the first did.
    failed: u64,
    failure: Option<String>,
}

impl<'p> Swarm<'p> {
    pub(super) fn new(plan: &'p Plan, users: &[User]) -> Result<Self, BenchError> {
        let clients = users.iter().map(|user| Client {
            user: user.clone(),
            inbox: format!("/{}/inbox", user.id),
            link: None,
            phase: Phase::Closed,
            handshake: Handshake {
                clean: true,
                subscribe: false,
            },
            outbound: None,
            arrivals: Arrivals::default(),
            listed: false,
        });
        Ok(Self {
            plan,
            ledger: Ledger::default(),
            latency: Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("at most five digits"),
            progress: Progress::new(plan.progress),
            poll: Poll::new().map_err(|error| BenchError::new(error.to_string()))?,
            events: Events::with_capacity(EVENTS),
            clients: clients.collect(),
            listed: Vec::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            packets: Vec::new(),
            start: Instant::now(),
            opening: 0,
            failed: 0,
            failure: None,
        })
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Makes a client a sender of messages to its friend, with none to send yet.
    pub(super) fn employ(
        &mut self,
        sender: usize,
        window: u64,
        to_arrival: bool,
    ) -> Result<(), BenchError> {
        let (from, to) = (
            &self.clients[sender].user.id,
            &self.clients[sender ^ 1].user.id,
        );
        let template = Template::new(from, to, self.plan.size, self.plan.qos, self.plan.version)?;
        self.clients[sender].outbound = Some(Outbound::new(template, window, to_arrival));
        Ok(())
    }

    /// Gives a sender so many messages to send, as its window allows.
    pub(super) fn stock(&mut self, sender: usize, count: u64) {
        if let Some(outbound) = &mut self.clients[sender].outbound {
            outbound.stock(count);
            self.list(sender);
        }
    }

    /// Gives a sender one more message to send, which was due then.
    pub(super) fn push_due(&mut self, sender: usize, due: u64) {
        let Some(outbound) = &mut self.clients[sender].outbound else {
            return;
        };
        outbound.push_due(due);
        self.list(sender);
    }

    /// Whether every sender has sent all it had, and every message is where it should be.
    pub(super) fn is_done(&self) -> bool {
        let mut senders = self
            .clients
            .iter()
            .filter_map(|client| client.outbound.as_ref());
        senders.all(|outbound| outbound.is_exhausted() && outbound.under_way() == 0)
    }

    /// From now on a message is under way until it has arrived, or until it is acknowledged.
    pub(super) fn wait_for_arrival(&mut self, to_arrival: bool) {
        for client in &mut self.clients {
            if let Some(outbound) = &mut client.outbound {
                outbound.to_arrival = to_arrival;
            }
        }
    }

    /// Runs until every message is where it should be, or none has moved for the plan's patience.
    pub(super) fn settle(&mut self) {
        let mut before = (0, 0);
        let mut moved = Instant::now();
        while !self.is_done() && moved.elapsed() < self.plan.patience {
            self.turn(IDLE);
            let now = (self.ledger.acknowledged, self.ledger.delivered);
            if now != before {
                (before, moved) = (now, Instant::now());
            }
        }
    }

    /// The ledger, with what is lost.
    pub(super) fn close_books(&mut self) -> Ledger {
        let senders = self
            .clients
            .iter()
            .filter_map(|client| client.outbound.as_ref());
        self.ledger.lost = senders.map(Outbound::lost).sum();
        self.ledger.clone()
    }

    /// Waits for events up to `timeout`, reads everything, then writes everything.
    pub(super) fn turn(&mut self, timeout: Duration) {
        self.write_listed();
        let mut events = mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            // A signal; the next turn will tell.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.failure = Some(error.to_string()),
            Ok(()) => {
                for event in &events {
                    self.handle_event(event);
                }
            }
        }
        self.events = events;
        self.write_listed();
    }

    fn list(&mut self, at: usize) {
        if !mem::replace(&mut self.clients[at].listed, true) {
            self.listed.push(at);
        }
    }

    fn write_listed(&mut self) {
        let now = self.now();
        let mut listed = mem::take(&mut self.listed);
        for at in listed.drain(..) {
            self.clients[at].listed = false;
            self.write(at, now);
        }
        if self.listed.is_empty() {
            self.listed = listed; // its memory
        }
    }

    fn write(&mut self, at: usize, now: u64) {
        let client = &mut self.clients[at];
        let Some(link) = &mut client.link else { return };
        if let (Some(outbound), Phase::Ready) = (&mut client.outbound, client.phase) {
            while link.waiting() < OUTPUT_ENOUGH {
                let Some(due) = outbound.next_due(now) else {
                    break;
                };
                outbound.put(due, link.output());
                self.ledger.sent += 1;
                if self.plan.qos == QoS::AtMostOnce {
                    outbound.acknowledged += 1;
                    self.ledger.acknowledged += 1;
                }
            }
        }
        if let Err(error) = link.flush() {
            self.lose(at, &error.to_string());
        }
    }

    fn handle_event(&mut self, event: &Event) {
        let Token(at) = event.token();
        let Some(link) = &mut self.clients[at].link else {
            return;
        };
        if event.is_writable()
            && let Err(error) = link.handle_writable()
        {
            return self.lose(at, &error.to_string());
        }
        if event.is_writable() {
            self.list(at); // it may have been held back
        }
        if !event.is_readable() && !event.is_read_closed() {
            return;
        }
        let mut packets = mem::take(&mut self.packets);
        let ended = event.is_read_closed() || event.is_error();
        let Some(link) = &mut self.clients[at].link else {
            return;
        };
        let read = link.read(&mut self.scratch, &mut packets, ended);
        let now = self.now();
        for packet in packets.drain(..) {
            self.handle_packet(at, packet, now);
        }
        self.packets = packets;
        match read {
            Ok(true) => {}
            Ok(false) => self.lose(at, "the broker ended the connection"),
            Err(error) => self.lose(at, &error.to_string()),
        }
    }

    fn handle_packet(&mut self, at: usize, packet: Packet, now: u64) {
        match packet {
            Packet::Publish(publish) => self.handle_message(at, &publish, now),
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.handle_acknowledged(at, &ack),
            Packet::PubRec(ack) if ack.reason.is_error() => self.handle_acknowledged(at, &ack),
            Packet::PubRec(ack) => self.answer(at, &Packet::PubRel(Ack::success(ack.packet_id))),
            Packet::PubRel(ack) => self.answer(at, &Packet::PubComp(Ack::success(ack.packet_id))),
            Packet::ConnAck(ack) => match ack.code {
                ConnectCode::V3(ConnectReturnCode::Accepted) => self.handle_connected(at),
                ConnectCode::V5(reason) if !reason.is_error() => self.handle_connected(at),
                ConnectCode::V3(code) => {
                    self.lose(at, &format!("the broker refused the login: {code}"));
                }
                ConnectCode::V5(code) => {
                    self.lose(at, &format!("the broker refused the login: {code}"));
                }
            },
            Packet::SubAck(ack) => match ack.codes.first() {
                Some(code) if !code.is_error() => self.handle_ready(at),
                code => {
                    let code = code.map_or_else(String::new, |code| format!(": {code}"));
                    self.lose(at, &format!("the broker refused the subscription{code}"));
                }
            },
            Packet::Disconnect(disconnect) => {
                self.lose(
                    at,
                    &format!("the broker ended the connection: {}", disconnect.reason),
                );
            }
            _ => {}
        }
    }

    fn handle_message(&mut self, at: usize, publish: &Publish, now: u64) {
        if let Some(id) = publish.packet_id {
            let answer = match publish.qos {
                QoS::ExactlyOnce => Packet::PubRec(Ack::success(id)),
                _ => Packet::PubAck(Ack::success(id)),
            };
            self.answer(at, &answer);
        }
        if &*publish.topic != self.clients[at].inbox.as_str() {
            if self.ledger.record_error(&publish.payload) {
                // In 5.0 the acknowledgement says so, too, and is what counts.
                if self.plan.version != Version::V5 {
                    self.handle_refused(at);
                }
            }
            return;
        }
        let friend = at ^ 1;
        let stamp = Stamp::read(&publish.payload)
            .filter(|stamp| stamp.from == self.clients[friend].user.id.as_bytes())
            .filter(|_| publish.payload.len() == self.plan.size);
        let Some(stamp) = stamp else {
            self.ledger.foreign += 1;
            return;
        };
        match self.clients[at].arrivals.record(stamp.number) {
            Arrival::InOrder => {}
            Arrival::Late => self.ledger.out_of_order += 1,
            Arrival::Again if publish.dup => {
                self.ledger.redelivered += 1;
                return;
            }
            Arrival::Again => {
                self.ledger.duplicates += 1;
                return;
            }
        }
        self.latency
            .saturating_record(now.saturating_sub(stamp.time));
        self.ledger.delivered += 1;
        if let Some(outbound) = &mut self.clients[friend].outbound {
            outbound.delivered += 1;
        }
        self.list(friend);
    }

    fn handle_acknowledged(&mut self, at: usize, ack: &Ack) {
        let Some(outbound) = &mut self.clients[at].outbound else {
            return;
        };
        outbound.acknowledged += 1;
        self.ledger.acknowledged += 1;
        if ack.reason.is_error() {
            self.handle_refused(at);
        }
        self.list(at);
    }

    fn handle_refused(&mut self, at: usize) {
        self.ledger.refused += 1;
        if let Some(outbound) = &mut self.clients[at].outbound {
            outbound.refused += 1;
        }
    }

    /// Appends a packet to what the client writes at the end of this turn.
    fn answer(&mut self, at: usize, packet: &Packet) {
        if let Some(link) = &mut self.clients[at].link {
            put(packet, self.plan.version, link.output());
            self.list(at);
        }
    }
}
