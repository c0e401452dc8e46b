//! The independent log, and the judge.
//!
//! It knows nothing of the server: only what clients sent, what they were told, what arrived and what they
//! said about it. Numbers of messages ascend in the order in which they were published, so they are also
//! the order of each sender.
//!
//! What is checked at each arrival: it was allowed, it was for this user, nothing twice on one connection
//! unless its sender repeated it, QoS 2 once, DUP on what the session had been sent, first deliveries in
//! order. At [`Ledger::settle`]: nothing that was acknowledged is missing. While the database is away, and no longer, what is
//! allowed may be refused; what is sent again then has no order, for its refusal may not have been heard.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use jam_wire::packet::QoS;

/// The number of a message.
pub type Number = u64;

/// Broken promises after which there is no point in going on.
const ENOUGH: usize = 20;

/// Why what is allowed is refused while the database is away.
const WITHOUT_DATABASE: &[&str] = &[
    "the server cannot keep messages at the moment",
    "fatal database error",
];

/// The database is back for so long, and nothing is refused any more.
const RECOVERED: Duration = Duration::from_secs(10);

/// Something that a client did or was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// PUBLISH to the server: connection, packet id, DUP.
    Published(u64, u16, bool),
    /// PUBACK or PUBREC from the server.
    Acknowledged,
    /// The same, with a refusal.
    Refused,
    /// PUBLISH from the server: connection, packet id, DUP.
    Arrived(u64, u16, bool),
    /// PUBACK or PUBREC to the server.
    AcknowledgedBack(u64),
    /// The sender no longer has a session that knows of it.
    Forgotten,
}

/// An arrival as the receiving client saw it.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Whose client.
    pub user: u16,
    /// Which connection of all.
    pub connection: u64,
    /// Which session of all.
    pub session: u64,
    /// Whether the session is older than the connection.
    pub resumed: bool,
    /// The packet's.
    pub packet_id: u16,
    /// The packet's.
    pub dup: bool,
    /// The packet's.
    pub qos: QoS,
    /// A QoS 2 packet whose id was received and not released: the client takes no notice of it.
    pub again: bool,
    /// Whether the session goes on until the end of the campaign.
    pub lasting: bool,
}

#[derive(Debug)]
struct Message {
    sender: u16,
    receiver: u16,
    allowed: bool,
    acknowledged: bool,
    delivered: u32,
    /// The sender sent it again at QoS 1, or lost its session: there may be several of it.
    repeated: bool,
    /// It was sent again after it may have been refused: the server did not know that it would come.
    unordered: bool,
    at: Instant,
    arrivals: Vec<Arrival>,
    history: Vec<(Instant, Step)>,
}

/// What happened, and what was wrong with it.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    messages: BTreeMap<Number, Message>,
    next: Number,
    /// Everything below has been settled.
    settled: Number,
    events: Vec<(Instant, String)>,
    away: Away,
    /// The last first delivery, by sender and receiver.
    last: HashMap<(u16, u16), Number>,
    /// The last redelivery, by connection and sender.
    last_again: HashMap<(u64, u16), Number>,
    violations: Vec<String>,
    /// For the summary.
    pub counts: Counts,
}

/// The database, as far as clients may notice.
#[derive(Debug, Default, Clone, Copy)]
enum Away {
    /// It has always been there.
    #[default]
    Never,
    Now,
    /// It is back since then.
    Since(Instant),
    /// The same, and a message that was published after that has been acknowledged.
    Noticed(Instant),
}

/// How much happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Messages.
    pub published: u64,
    /// Of those, acknowledged to their senders.
    pub acknowledged: u64,
    /// First deliveries.
    pub delivered: u64,
    /// Deliveries with DUP.
    pub redelivered: u64,
    /// Connections made.
    pub connections: u64,
    /// Kills of the server.
    pub kills: u64,
    /// Faults of the database.
    pub faults: u64,
    /// Messages that were refused because of them.
    pub refused: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} connections, {} messages published, {} acknowledged, {} delivered, {} redelivered",
            self.kills,
            self.connections,
            self.published,
            self.acknowledged,
            self.delivered,
            self.redelivered
        )?;
        if self.faults > 0 {
            write!(
                f,
                ", {} faults of the database, {} refused meanwhile",
                self.faults, self.refused
            )?;
        }
        Ok(())
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            messages: BTreeMap::new(),
            next: 1,
            settled: 1,
            events: Vec::new(),
            away: Away::default(),
            last: HashMap::new(),
            last_again: HashMap::new(),
            violations: Vec::new(),
            counts: Counts::default(),
        }
    }
}

impl Ledger {
    /// A message is about to be published.
    pub fn publish(&mut self, sender: u16, receiver: u16, allowed: bool) -> Number {
        let number = self.next;
        self.next += 1;
        self.counts.published += 1;
        let message = Message {
            sender,
            receiver,
            allowed,
            acknowledged: false,
            delivered: 0,
            repeated: false,
            unordered: false,
            at: Instant::now(),
            arrivals: Vec::new(),
            history: Vec::new(),
        };
        self.messages.insert(number, message);
        number
    }

    /// Notes a step in the life of a message.
    pub fn step(&mut self, number: Number, step: Step) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.history.push((Instant::now(), step));
        }
    }

    /// There may be several of it from now on: its sender repeats it at QoS 1, or without its session.
    pub fn repeated(&mut self, number: Number) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.repeated = true;
        }
    }

    /// Its sender sends it again, on another connection.
    pub fn sent_again(&mut self, number: Number) {
        let away = self.away;
        if let Some(message) = self.messages.get_mut(&number) {
            message.unordered |= match away {
                Away::Never => false,
                Away::Now => true,
                Away::Since(at) | Away::Noticed(at) => message.at < at + RECOVERED,
            };
        }
    }

    /// The sender was told that the server has it.
    pub fn acknowledged(&mut self, number: Number) {
        self.step(number, Step::Acknowledged);
        let away = self.away;
        let Some(message) = self.messages.get_mut(&number) else {
            return;
        };
        if !message.acknowledged {
            message.acknowledged = true;
            self.counts.acknowledged += 1;
        }
        if let Away::Since(back) = away
            && message.allowed
            && message.at > back
        {
            self.away = Away::Noticed(back);
        }
    }

    /// The sender was told that it is not kept, and why.
    pub fn refused(&mut self, number: Number, why: &str) {
        self.step(number, Step::Refused);
        let is_allowed = self.messages.get(&number).is_none_or(|it| it.allowed);
        if !is_allowed {
            return;
        }
        self.counts.refused += 1;
        if !self.may_fail() {
            self.violation(number, &format!("is allowed and was refused: {why}"));
        } else if !WITHOUT_DATABASE.iter().any(|text| why.contains(text)) {
            self.violation(number, &format!("was refused as {why}"));
        }
    }

    /// Something befalls the database.
    pub fn database_is_away(&mut self, how: &str) {
        self.counts.faults += 1;
        self.events.push((Instant::now(), how.to_owned()));
        self.away = Away::Now;
    }

    /// It is as before.
    pub fn database_is_back(&mut self) {
        let now = Instant::now();
        self.events.push((now, "the database is back".to_owned()));
        self.away = Away::Since(now);
    }

    /// Whether a message was acknowledged that had been published after that.
    #[must_use]
    pub fn is_taken_again(&self) -> bool {
        matches!(self.away, Away::Never | Away::Noticed(_))
    }

    /// Whether the database is away, or was a moment ago.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        match self.away {
            Away::Never => false,
            Away::Now => true,
            Away::Since(at) | Away::Noticed(at) => at.elapsed() < RECOVERED,
        }
    }

    /// The server was killed.
    pub fn crash(&mut self) {
        self.counts.kills += 1;
        let what = "the server was killed".to_owned();
        self.events.push((Instant::now(), what));
    }

    /// A PUBLISH in an inbox.
    pub fn arrived(&mut self, number: Number, it: Arrival) {
        self.step(number, Step::Arrived(it.connection, it.packet_id, it.dup));
        let Some(message) = self.messages.get_mut(&number) else {
            let known = if number < self.settled {
                "settled"
            } else {
                "unknown"
            };
            self.violation(number, &format!("is {known}, and arrived: {it:?}"));
            return;
        };
        let mut wrong = message.judge(&it);
        message.arrivals.push(it);
        if !it.again {
            message.delivered += 1;
        }
        let (sender, repeated, first) = (message.sender, message.repeated, message.delivered == 1);
        let ordered = !message.unordered;
        self.counts.redelivered += u64::from(it.dup);
        if first && !it.again {
            self.counts.delivered += 1;
            let last = self.last.entry((sender, it.user)).or_default();
            if *last > number && ordered {
                wrong.push(format!("was delivered after message {last}"));
            }
            *last = number.max(*last);
        }
        if it.dup && !repeated && ordered {
            let last = self.last_again.insert((it.connection, sender), number);
            if last.is_some_and(|last| last > number) {
                wrong.push(format!(
                    "was redelivered after message {}",
                    last.unwrap_or(0)
                ));
            }
        }
        wrong.iter().for_each(|what| self.violation(number, what));
    }

    /// Everybody has fetched what was theirs: whether nothing is missing yet.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.messages.values().any(Message::is_missing)
    }

    /// Says what is missing, and forgets the rest.
    pub fn settle(&mut self) {
        let missing = self
            .messages
            .iter()
            .filter(|(_, message)| message.is_missing());
        let missing: Vec<_> = missing.map(|(number, _)| *number).collect();
        for number in missing {
            self.violation(number, "was acknowledged to its sender, and is lost");
        }
        self.settled = self.next;
        self.messages.clear();
        self.last_again.clear();
    }

    /// A promise was broken.
    pub fn violation(&mut self, number: Number, what: &str) {
        if self.violations.len() >= ENOUGH {
            return;
        }
        let mut text = format!("message {number} {what}");
        if let Some(message) = self.messages.get(&number) {
            text.push_str(&message.tell(self.began, &self.events));
        }
        self.violations.push(text);
    }

    /// Something else went wrong.
    pub fn trouble(&mut self, what: String) {
        if self.violations.len() < ENOUGH {
            self.violations.push(what);
        }
    }

    /// What was wrong so far.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

impl Message {
    fn is_missing(&self) -> bool {
        self.allowed && self.acknowledged && self.delivered == 0
    }

    /// What is wrong with an arrival of this message alone.
    fn judge(&self, it: &Arrival) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.allowed {
            wrong.push("was to be refused, and arrived".to_owned());
        }
        if self.receiver != it.user {
            wrong.push(format!("arrived in the inbox of {}", it.user));
        }
        if it.dup && !it.resumed {
            wrong.push("came with DUP to a session that is new".to_owned());
        }
        let here = self
            .arrivals
            .iter()
            .any(|other| other.connection == it.connection);
        if here && !self.repeated {
            wrong.push("came twice on one connection".to_owned());
        }
        let once = it.qos == QoS::ExactlyOnce;
        if once && it.lasting && !it.again && !self.repeated && self.delivered > 0 {
            wrong.push("was delivered twice at QoS 2".to_owned());
        }
        let mut before = self.arrivals.iter();
        let again = before.any(|other| other.session == it.session);
        if again && !it.dup && !self.repeated {
            wrong.push("came again without DUP".to_owned());
        }
        wrong
    }

    /// The message's history, with what fell into it.
    fn tell(&self, began: Instant, events: &[(Instant, String)]) -> String {
        let mut lines: Vec<(Instant, String)> = Vec::new();
        for (at, step) in &self.history {
            lines.push((*at, format!("{step:?}")));
        }
        let first = lines.first().map(|(at, _)| *at);
        let events = events
            .iter()
            .filter(|(at, _)| first.is_some_and(|first| *at >= first));
        lines.extend(events.cloned());
        lines.sort_by_key(|(at, _)| *at);
        let mut text = format!(
            " (from {} to {}, allowed: {}, repeated: {})",
            self.sender, self.receiver, self.allowed, self.repeated
        );
        for (at, line) in lines {
            let millis = (at - began).as_micros();
            text.push_str(&format!("\n    {millis:>12} us  {line}"));
        }
        text
    }
}
