//! Random operations of several users and devices, checked against a model.
//!
//! What is checked, at every packet that a device gets: nothing from strangers and nothing refused
//! arrives; nothing twice on one connection; QoS 2 once in a session; the order of each sender; packet
//! ids that are on their way are distinct and fit the window; errors before acknowledgements, and these
//! in the order of their publishes. At the end: nothing that was acknowledged to its sender is lost, and
//! the store is empty. `device` has the model of one device, `pushes` that of pushes.
//!
//! A decision is a number from a [`Source`], so that a seed or a fuzzer's bytes give a run.

mod accounts;
mod backlogs;
mod coming;
mod device;
mod ending;
mod pushes;
mod storing;
mod weights;
mod wills;
mod world;

use std::time::Duration;

use jam_core::push::PushAudience;
use jam_core::router::Rules;
use jam_core::time::Time;
use jam_wire::packet::{Packet, Publish, PublishProperties, QoS, Version};

use crate::bench::{Bench, rules};
use crate::packets;
use crate::random::Source;
use accounts::Accounts;
use device::Device;
use pushes::Pushes;
use weights::Expiry;
use wills::Wills;

/// Client ids and versions. 1 is a friend of 2 and of 3; 2 and 3 are strangers to each other.
const DEVICES: &[(&str, Version)] = &[
    ("1:a", Version::V4),
    ("1:b", Version::V5),
    ("2:a", Version::V5),
    ("2:b", Version::V4),
    ("2:c", Version::V3),
    ("3:a", Version::V5),
];
const USERS: [&str; 3] = ["1", "2", "3"];
/// How long a lasting session outlives its connection.
const SESSION: Duration = Duration::from_secs(24 * 3600);
/// In the world: a message's age, and how far the wall clock steps when it is far off.
const MAX_AGE: Duration = Duration::from_secs(100 * 24 * 3600);
const FAR_MILLIS: i64 = 150 * 24 * 3_600_000;
/// So many operations are between two of the world's, on average.
const WORLD_ONCE_IN: usize = 15;
/// The largest window of a device in the world.
const MOST_IN_WINDOW: usize = 8;
/// Messages on their way from a device, below the server's limit.
const OUTGOING: usize = 8;

/// A message that was published to an inbox.
#[derive(Debug)]
struct Message {
    sender: &'static str,
    receiver: &'static str,
    qos: QoS,
    published_at: Time,
    allowed: bool,
    /// It is not, but for its receiver's account not being there at the moment.
    is_to_hidden: bool,
    is_will: bool,
    /// What it weighs in its receiver's mailbox.
    weight: u64,
    expires: Option<Expiry>,
    /// Times that it was sent again at QoS 1, which may be so many more copies.
    resent: usize,
    /// Its sender was told that it is refused.
    refused: bool,
    /// A crash may have undone its acknowledgement by a session that has ended, or it was sent again after that.
    is_doubtful: bool,
    /// It comes when it comes: it is large, or a will, or its sender may not have seen that it was refused.
    is_unordered: bool,
    /// The sender has been told that it is kept.
    accepted: bool,
    /// The sender has sent it again: its copies may come in any order.
    repeated: bool,
    /// The same, at whatever QoS. With a store that fails, the sender may not have heard that it was refused.
    sent_again: bool,
    /// A device has acknowledged it.
    acknowledged: bool,
    /// A device has got it at QoS 1 or 2; not noted of devices side by side.
    arrived: bool,
    /// Its receiver's account has ended since: nothing is promised any more.
    excused: bool,
    /// And nobody may get it: its sender has had an answer and does not send it again.
    gone: bool,
}

impl Message {
    fn new(sender: &'static str, receiver: &'static str, qos: QoS, now: Time) -> Self {
        Self {
            sender,
            receiver,
            qos,
            published_at: now,
            allowed: false,
            is_to_hidden: false,
            is_will: false,
            weight: 0,
            expires: None,
            resent: 0,
            refused: false,
            is_doubtful: false,
            is_unordered: false,
            accepted: false,
            repeated: false,
            sent_again: false,
            acknowledged: false,
            arrived: false,
            excused: false,
            gone: false,
        }
    }

    fn is_kept(&self) -> bool {
        self.qos != QoS::AtMostOnce
    }
}

/// What a message without properties weighs.
fn plain_weight(receiver: &str, payload: &[u8]) -> u64 {
    (format!("/{receiver}/inbox").len() + payload.len()) as u64
}

/// Everything that is known of the messages so far; a message's number is its content.
type Messages = Vec<Message>;

/// What makes a message weigh more: padding in its content, properties.
type Dress = (String, Option<Box<PublishProperties>>);

struct Simulator<'a> {
    bench: Bench,
    many: bool,
    /// Whether the store fails now and then.
    fails: bool,
    /// Whether the machine's clocks do what clocks do, windows change from connection to connection, and, if the store
    /// fails now and then, so does the directory.
    worldly: bool,
    /// Whether mailboxes are small enough to be full now and then.
    is_tight: bool,
    /// Whether everybody fetches what is theirs.
    is_ending: bool,
    devices: Vec<Device>,
    messages: Messages,
    pushes: Pushes,
    accounts: Accounts,
    wills: Wills,
    source: &'a mut dyn Source,
}

/// Runs at most so many operations, then everybody comes and fetches what is theirs. `many` is whether devices
/// are connected side by side.
///
/// # Panics
/// If a promise is broken.
pub fn run(source: &mut dyn Source, many: bool, steps: usize) {
    let bench = Bench::with(|rules| set(rules, many));
    run_on(bench, source, many, false, steps);
}

/// As [`run`], on a store with a file, which commits, fails and answers when chance will have it, and with a
/// server that is killed now and then: what was not committed is lost, and the promises hold all the same.
///
/// # Panics
/// If a promise is broken.
pub fn run_with_crashes(source: &mut dyn Source, many: bool, steps: usize) {
    let bench = Bench::on_disk(|rules| set(rules, many));
    if source.below(2) == Some(0) {
        bench.be_graceful();
    }
    let fails = source.below(2) == Some(0);
    run_on(bench, source, many, fails, steps);
}

/// As [`run_with_crashes`], on a machine that sleeps and whose wall clock is wrong and steps, also while the server is
/// down; with clients whose windows change, accounts that end and begin anew, and a directory that does not answer now and
/// then.
///
/// # Panics
/// If a promise is broken.
pub fn run_in_the_world(source: &mut dyn Source, many: bool, steps: usize) {
    let is_tight = source.below(2) == Some(0);
    let bench = Bench::on_disk(|rules| {
        set(rules, many);
        if is_tight {
            (rules.user.max_messages, rules.user.max_bytes) =
                (weights::MAX_MESSAGES, weights::MAX_BYTES);
        }
        // More than can pass in a run, and less than the wall clock steps by.
        rules.user.max_age = MAX_AGE;
        rules.failed_auth = u32::MAX;
    });
    if source.below(2) == Some(0) {
        bench.be_graceful();
    }
    let fails = source.below(2) == Some(0);
    let mut simulator = Simulator::new(bench, source, many, fails);
    (simulator.worldly, simulator.is_tight) = (true, is_tight);
    for device in &mut simulator.devices {
        (device.is_unpromised, device.is_tight) = (true, is_tight);
    }
    simulator.run(steps);
}

fn set(rules: &mut Rules, many: bool) {
    rules.user.many_devices = many;
    rules.user.max_messages = usize::MAX;
    rules.user.max_age = Duration::from_secs(u64::from(u32::MAX));
    rules.session_expiry = SESSION;
    rules.longest_rival_wait = Duration::ZERO; // a client here is answered at once
    rules.user.push.audience = PushAudience::Everybody;
}

fn run_on(bench: Bench, source: &mut dyn Source, many: bool, fails: bool, steps: usize) {
    Simulator::new(bench, source, many, fails).run(steps);
}

/// Steps from one look at everything to the next, which takes as long as many of them.
const STOCK_EVERY: usize = 512;

impl<'a> Simulator<'a> {
    fn new(bench: Bench, source: &'a mut dyn Source, many: bool, fails: bool) -> Self {
        bench.directory().befriend("1", "3");
        let devices = DEVICES
            .iter()
            .map(|(id, version)| match bench.disk() {
                // 3.1 has no word for whether a session is there, which a crash may make doubtful.
                Some(_) => Device::new(&bench, id, (*version).max(Version::V4)),
                None => Device::new(&bench, id, *version),
            })
            .collect();
        let mut simulator = Self {
            bench,
            many,
            fails,
            worldly: false,
            is_tight: false,
            is_ending: false,
            devices,
            messages: Vec::new(),
            pushes: Pushes::new(rules().user.push.collapse),
            accounts: Accounts::default(),
            wills: Wills::default(),
            source,
        };
        for device in &mut simulator.devices {
            device.fallible = fails;
        }
        simulator
    }

    fn run(mut self, steps: usize) {
        for step in 0..steps {
            if self.step().is_none() {
                break;
            }
            if step % STOCK_EVERY == 0 {
                self.take_stock();
            }
        }
        self.take_stock();
        self.finish();
    }
}

impl Simulator<'_> {
    /// One operation; `None` if there are no more decisions.
    fn step(&mut self) -> Option<()> {
        if self.worldly && self.source.below(WORLD_ONCE_IN)? == 0 {
            match self.source.below(8)? {
                0 | 1 => self.clocks()?,
                2..4 => self.backlog()?,
                4 => {
                    let which = self.source.below(self.devices.len())?;
                    self.try_in_vain(which);
                }
                _ => self.directory()?,
            }
            // What was written by now is no answer to what is asked next.
            self.drain();
        }
        let which = self.source.below(self.devices.len())?;
        let operation = self.source.below(32)?;
        match operation {
            0..8 => self.publish(which)?,
            8..18 => self.act(which)?,
            18..20 if self.devices[which].connected => self.leave(which)?,
            18..23 if !self.devices[which].connected => self.connect(which)?,
            23 if self.devices[which].connected => self.take_over(which)?,
            24..26 => self.subscribe(which, operation == 24)?,
            26 => self.pass()?,
            27..30 if self.bench.disk().is_some() => self.disk(operation)?,
            27 => self.bench.store().hold(true),
            28..30 => self.release()?,
            30 => self.own_channel(which)?,
            31 => self.push()?,
            _ => self.devices[which].send(Packet::PingReq),
        }
        self.drain();
        Some(())
    }

    /// What is counted is what there is.
    fn take_stock(&self) {
        let router = self.bench.router();
        assert_eq!(router.counted_stock(), router.stocktake());
    }

    fn publish(&mut self, which: usize) -> Option<()> {
        let receiver = USERS[self.source.below(USERS.len())?];
        let qos = QoS::from_bits(u8::try_from(self.source.below(3)?).ok()?)?;
        let forged = self.source.below(16)? == 0;
        let device = &mut self.devices[which];
        if !device.connected || device.outgoing.len() >= OUTGOING {
            return Some(());
        }
        let sender = device.user;
        let strangers = are_strangers(sender, receiver);
        let is_to_hidden = self.is_hidden(receiver);
        let allowed = !strangers && !forged && !is_to_hidden;
        let number = self.messages.len();
        let mut message = Message::new(sender, receiver, qos, self.bench.now());
        message.allowed = allowed;
        message.is_to_hidden = is_to_hidden && !strangers && !forged;
        let (padding, properties) = self.dress(which, &mut message)?;
        let from = if forged { "9" } else { sender };
        let payload = packets::message(from, &format!("{number}{padding}"));
        message.weight += plain_weight(receiver, &payload);
        let is_judged_now = self.worldly && !self.fails && self.devices[which].is_heard();
        let is_judged_now = is_judged_now && self.bench.directory().is_answering();
        let refusal = if is_judged_now {
            self.is_refused(&message)
        } else {
            None
        };
        self.messages.push(message);
        if allowed && qos != QoS::AtMostOnce {
            let readers = self
                .devices
                .iter_mut()
                .filter(|device| device.user == receiver);
            readers.for_each(|reader| reader.is_to_get(number));
        }
        let publish = packets::publish(&format!("/{receiver}/inbox"), payload, qos, None);
        let publish = Publish {
            properties,
            ..publish
        };
        self.devices[which].publish(publish, number, allowed, refusal);
        Some(())
    }

    /// Some messages weigh more than others, and some do not last.
    fn dress(&mut self, which: usize, message: &mut Message) -> Option<Dress> {
        if !self.worldly {
            return Some(Dress::default());
        }
        let is_large = self.source.below(4)? == 0;
        let secs = self.source.below(20)?;
        let is_typed = self.source.below(4)? == 0;
        let device = &self.devices[which];
        let can_tell = device.version == Version::V5;
        // It counts from when the server has it.
        let is_heard = device.is_heard() && self.bench.directory().is_answering();
        let secs = u32::try_from(secs)
            .ok()
            .filter(|secs| (1..5).contains(secs));
        let secs = secs.filter(|_| can_tell && is_heard);
        Some(message.dress(is_large, secs, is_typed && can_tell))
    }

    /// A device does one of the things that it has to do: acknowledges, releases, completes.
    fn act(&mut self, which: usize) -> Option<()> {
        let any = self.source.below(4)? == 0;
        let nth = if any { self.source.below(8)? } else { 0 };
        self.devices[which].act(nth, &mut self.messages);
        self.pushes.heard_of(self.devices[which].user);
        Some(())
    }

    /// Pushes are taken, and sent, or cannot be, or stay under way until pushes are sent again.
    fn push(&mut self) -> Option<()> {
        let (count, how) = (self.source.below(4)?, self.source.below(4)?);
        for _ in 0..count {
            let Some(push) = self.bench.next_push() else {
                break;
            };
            self.pushes.take(push);
        }
        if how > 1 {
            self.pushes.settle(&self.bench, how == 2);
        } else {
            // What is owed from now on is told from these by its time.
            self.bench.pass(Duration::from_micros(1));
            self.age();
        }
        Some(())
    }

    fn subscribe(&mut self, which: usize, on: bool) -> Option<()> {
        let off = self.source.below(3)? == 0;
        let device = &mut self.devices[which];
        // What is not handled yet has no say yet.
        if device.is_heard() && (on || off) {
            device.subscribe(on);
        }
        Some(())
    }

    /// Something on an own channel, which the model takes no notice of.
    fn own_channel(&mut self, which: usize) -> Option<()> {
        let (subscribe, retain) = (self.source.below(2)? == 0, self.source.below(2)? == 0);
        let device = &mut self.devices[which];
        if device.is_heard() {
            device.own_channel(subscribe, retain);
        }
        Some(())
    }

    /// Everybody looks at what they were sent, until nobody was sent anything.
    fn drain(&mut self) {
        self.drain_others("");
    }

    /// All but one user's devices.
    fn drain_others(&mut self, user: &str) {
        self.judge_wills();
        let now = self.bench.now();
        let in_order = !self.many;
        for device in self.devices.iter_mut().filter(|it| it.user != user) {
            device.now = now;
            device.drain(in_order, &mut self.messages);
        }
        let behind = self.devices.iter();
        let behind = behind.filter(|it| it.connected && !it.is_heard());
        self.pushes.are_behind(behind.map(|it| it.user));
    }
}

fn are_strangers(a: &str, b: &str) -> bool {
    [a, b] == ["2", "3"] || [a, b] == ["3", "2"]
}
