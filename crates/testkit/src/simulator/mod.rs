//! Random operations of several users and devices, checked against a model.
//!
//! What is checked, at every packet that a device gets: nothing from strangers and nothing refused
//! arrives; nothing twice on one connection; QoS 2 once in a session; the order of each sender; packet
//! ids that are on their way are distinct and fit the window; errors before acknowledgements, and these
//! in the order of their publishes. At the end: nothing that was acknowledged to its sender is lost, and
//! the store is empty. `device` has the model of one device, `pushes` that of pushes.
//!
//! A decision is a number from a [`Source`], so that a seed or a fuzzer's bytes give a run.

mod device;
mod pushes;

use std::time::Duration;

use jam_core::push::PushAudience;
use jam_core::router::{GRACE, Rules};
use jam_core::time::Time;
use jam_wire::packet::{Packet, QoS, Version};

use crate::bench::{Bench, rules};
use crate::disk::CrashingStore;
use crate::packets;
use crate::random::Source;
use device::Device;
use pushes::Pushes;

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
/// So many operations are between two of the clocks', on average.
const WORLD_ONCE_IN: usize = 40;
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
    fn is_kept(&self) -> bool {
        self.qos != QoS::AtMostOnce
    }
}

/// Everything that is known of the messages so far; a message's number is its content.
type Messages = Vec<Message>;

struct Simulator<'a> {
    bench: Bench,
    many: bool,
    /// Whether the store fails now and then.
    fails: bool,
    /// Whether the machine's clocks do what clocks do, windows change from connection to connection, and, if the store
    /// fails now and then, so does the directory.
    worldly: bool,
    devices: Vec<Device>,
    messages: Messages,
    pushes: Pushes,
    source: &'a mut dyn Source,
}

/// Runs at most so many operations, then everybody comes and fetches what is his. `many` is whether devices
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
    let bench = Bench::on_disk(|rules| {
        set(rules, many);
        // More than can pass in a run, and less than the wall clock steps by.
        rules.user.max_age = MAX_AGE;
    });
    if source.below(2) == Some(0) {
        bench.be_graceful();
    }
    let fails = source.below(2) == Some(0);
    let mut simulator = Simulator::new(bench, source, many, fails);
    simulator.worldly = true;
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
            devices,
            messages: Vec::new(),
            pushes: Pushes::new(rules().user.push.collapse),
            source,
        };
        for device in &mut simulator.devices {
            device.fallible = fails;
        }
        simulator
    }

    fn run(mut self, steps: usize) {
        for _ in 0..steps {
            if self.step().is_none() {
                break;
            }
        }
        self.finish();
    }
}

impl Simulator<'_> {
    /// One operation; `None` if there are no more decisions.
    fn step(&mut self) -> Option<()> {
        if self.worldly && self.source.below(WORLD_ONCE_IN)? == 0 {
            match self.source.below(4)? {
                0 if self.fails => self.lose_directory(),
                1 => self.end_account()?,
                _ => self.clocks()?,
            }
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
            31 if which == 0 => self.push()?,
            _ => self.devices[which].send(Packet::PingReq),
        }
        self.drain();
        Some(())
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
        let strangers = [sender, receiver] == ["2", "3"] || [sender, receiver] == ["3", "2"];
        let allowed = !strangers && !forged;
        let number = self.messages.len();
        self.messages.push(Message {
            sender,
            receiver,
            qos,
            published_at: self.bench.now(),
            allowed,
            accepted: false,
            repeated: false,
            sent_again: false,
            acknowledged: false,
            arrived: false,
            excused: false,
            gone: false,
        });
        let from = if forged { "9" } else { sender };
        let payload = packets::message(from, &number.to_string());
        if allowed && qos != QoS::AtMostOnce {
            let readers = self
                .devices
                .iter_mut()
                .filter(|device| device.user == receiver);
            readers.for_each(|reader| reader.is_to_get(number));
        }
        self.devices[which].publish(receiver, payload, qos, number, allowed);
        Some(())
    }

    /// A device does one of the things that it has to do: acknowledges, releases, completes.
    fn act(&mut self, which: usize) -> Option<()> {
        let any = self.source.below(4)? == 0;
        let nth = if any { self.source.below(8)? } else { 0 };
        self.devices[which].act(nth, &mut self.messages);
        self.pushes.heard_of(self.devices[which].user);
        Some(())
    }

    fn leave(&mut self, which: usize) -> Option<()> {
        let polite = self.source.below(3)? == 0;
        let now = self.bench.now();
        self.devices[which].leave(polite, now);
        Some(())
    }

    fn connect(&mut self, which: usize) -> Option<()> {
        let (lasting, clean) = (self.source.below(4)? != 0, self.source.below(6)? == 0);
        self.hear_out(which);
        self.make_room(which);
        self.let_in(which, lasting, clean);
        self.check_evicted(which);
        Some(())
    }

    fn let_in(&mut self, which: usize, lasting: bool, clean: bool) {
        self.bench.directory().fail(false);
        if self.worldly {
            let most = self.source.below(MOST_IN_WINDOW);
            self.devices[which].receive_maximum = most.and_then(|it| u16::try_from(it + 1).ok());
        }
        // The CONNACK of a connection that ends a session waits for the store, and this client for it.
        if let Some(disk) = self.bench.disk() {
            disk.at_once(true);
        } else {
            self.bench.store().hold(false);
        }
        let now = self.bench.now();
        self.devices[which].connect(lasting, clean, now, &mut self.messages);
        if let Some(disk) = self.bench.disk() {
            disk.at_once(false);
        }
        self.pushes.heard_of(self.devices[which].user);
    }

    /// Pushes are sent, or cannot be.
    fn push(&mut self) -> Option<()> {
        let (count, fails) = (self.source.below(4)?, self.source.below(4)? == 0);
        for _ in 0..count {
            let Some(push) = self.bench.next_push() else {
                break;
            };
            self.pushes.settle(&self.bench, push, fails);
        }
        Some(())
    }

    /// What is due by now, or would be soon, is sent.
    fn push_all(&mut self) {
        for _ in 0..2 {
            self.flush();
            self.drain();
            self.bench.pass(rules().user.push.deadline);
        }
        self.flush();
        self.drain();
        while let Some(push) = self.bench.next_push() {
            self.pushes.settle(&self.bench, push, false);
        }
        self.pushes.check_complete(&self.messages);
    }

    /// The same device connects again while its connection is still there.
    fn take_over(&mut self, which: usize) -> Option<()> {
        let (lasting, clean) = (self.source.below(4)? != 0, self.source.below(6)? == 0);
        if self.bench.disk().is_some() {
            // What the store brings about goes to the old connection as long as it is looked at.
            self.flush();
            self.drain();
        }
        self.hear_out(which);
        let now = self.bench.now();
        let fresh = self
            .bench
            .client(self.devices[which].client.id(), self.devices[which].version);
        let old = std::mem::replace(&mut self.devices[which].client, fresh);
        self.devices[which].lose_connection(now);
        self.let_in(which, lasting, clean);
        assert!(old.is_closed(), "the old connection is still there");
        old.drop_connection();
        Some(())
    }

    /// A client that comes waits until the server has handled what those had sent that make way. What they wait for is the
    /// store: it answers now.
    fn hear_out(&mut self, which: usize) {
        let user = self.devices[which].user;
        let is_held_up =
            |device: &Device| device.user == user && device.connected && !device.client.is_wanted();
        if self.devices.iter().any(is_held_up) {
            self.flush();
            self.drain();
        }
    }

    /// With one device at a time, the session of every other device of the user ends.
    fn make_room(&mut self, which: usize) {
        if self.many {
            return;
        }
        let user = self.devices[which].user;
        for (index, other) in self.devices.iter_mut().enumerate() {
            if index != which && other.user == user {
                other.end_session();
            }
        }
    }

    /// Whoever had to make room has been told and is out.
    fn check_evicted(&mut self, which: usize) {
        let user = self.devices[which].user;
        for (index, other) in self.devices.iter_mut().enumerate() {
            if !self.many && index != which && other.user == user && other.connected {
                other.expect_logout();
            }
        }
    }

    fn subscribe(&mut self, which: usize, on: bool) -> Option<()> {
        let off = self.source.below(3)? == 0;
        let device = &mut self.devices[which];
        if device.connected && (on || off) {
            device.subscribe(on);
        }
        Some(())
    }

    fn pass(&mut self) -> Option<()> {
        let by = match self.source.below(8)? {
            0 => SESSION,
            1 => SESSION / 2,
            n => Duration::from_secs(n as u64),
        };
        if by >= SESSION / 2 {
            // When a connection has ended is not forgotten after so long.
            self.flush();
            self.drain();
        }
        self.bench.pass(by);
        if by >= SESSION / 2 {
            self.flush();
        }
        let now: Time = self.bench.now();
        self.devices
            .iter_mut()
            .for_each(|device| device.expire(now));
        Some(())
    }

    /// The directory does not answer any more, and what was known of it is not believed: until somebody comes.
    fn lose_directory(&mut self) {
        self.bench.directory().forget();
        self.bench.directory().fail(true);
    }

    /// An account ends, and another one gets its id, and, as it happens, its token.
    fn end_account(&mut self) -> Option<()> {
        let user = USERS[self.source.below(USERS.len())?];
        let is_seen_between = self.source.below(2)? == 0;
        self.drain();
        self.bench.directory().fail(false);
        self.bench.directory().remove_account(user);
        if is_seen_between {
            self.bench.recheck();
        }
        let token = packets::token(user);
        self.bench.directory().set_account(user, Some(&token));
        self.bench.recheck();
        self.drain_others(user);
        for (number, message) in self.messages.iter_mut().enumerate() {
            if message.receiver == user {
                let is_sent_again = |device: &Device| device.is_publishing(number);
                message.excused = true;
                message.gone = !self.devices.iter().any(is_sent_again);
            }
        }
        for device in self.devices.iter_mut().filter(|it| it.user == user) {
            device.end_life();
        }
        self.pushes.end_life(user);
        Some(())
    }

    /// The machine's clocks do something that is not the server's doing.
    fn clocks(&mut self) -> Option<()> {
        let (what, hours) = (self.source.below(6)?, self.source.below(24)?);
        let is_killed = self.source.below(4)? == 0;
        let millis = i64::try_from(hours).ok()? * 3_600_000;
        let far = millis * 24 + FAR_MILLIS;
        // When a connection has ended is not forgotten after so long.
        self.flush();
        self.drain();
        match what {
            0 => self.bench.sleep(Duration::from_secs(hours as u64 * 60)),
            1 => self.bench.step_wall_clock(millis / 24),
            2 => self.bench.step_wall_clock(-millis),
            3 => self.bench.step_wall_clock(far),
            _ => self.bench.step_wall_clock(-far),
        }
        if is_killed {
            self.crash();
        } else {
            self.bench.pass(GRACE);
        }
        self.flush();
        let now = self.bench.now();
        self.devices
            .iter_mut()
            .for_each(|device| device.expire(now));
        Some(())
    }

    fn crash(&mut self) {
        self.bench.crash();
        let now = self.bench.now();
        self.devices.iter_mut().for_each(|device| device.crash(now));
        self.pushes.crash();
    }

    fn release(&mut self) -> Option<()> {
        let held = self.bench.store().held();
        if self.source.below(2)? == 0 {
            self.bench.store().hold(false);
            self.bench.store().release_all();
        } else if held > 0 {
            let which = self.source.below(held)?;
            self.bench.store().release(which);
        }
        self.bench.run();
        Some(())
    }

    /// The store does something, or the server is killed.
    fn disk(&mut self, operation: usize) -> Option<()> {
        let choice = self.source.below(8)?;
        let some = self.source.below(8)?;
        if let (27, 0..2) = (operation, choice) {
            self.crash();
            self.bench.run();
            return Some(());
        }
        let Some(disk) = self.bench.disk() else {
            return Some(());
        };
        match (operation, choice) {
            (27, 2) if self.fails => disk.fail(some),
            (27, _) => {
                let _ = disk.read();
            }
            (28, _) => disk.commit(some),
            (_, 0) => {
                let _ = disk.flush();
            }
            _ => {
                for _ in 0..some.min(disk.unanswered()) {
                    disk.answer(self.source.below(disk.unanswered())?);
                }
            }
        }
        self.bench.run();
        Some(())
    }

    /// Nothing waits for the store any more.
    fn flush(&self) {
        if let Some(disk) = self.bench.disk() {
            self.bench.pass(GRACE);
            while disk.flush() {
                self.bench.run();
            }
            return;
        }
        self.bench.store().hold(false);
        self.bench.store().release_all();
        self.bench.run();
    }

    /// Something on an own channel, which the model takes no notice of.
    fn own_channel(&mut self, which: usize) -> Option<()> {
        let (subscribe, retain) = (self.source.below(2)? == 0, self.source.below(2)? == 0);
        let device = &mut self.devices[which];
        if device.connected {
            device.own_channel(subscribe, retain);
        }
        Some(())
    }

    /// Everybody looks at what he was sent, until nobody was sent anything.
    fn drain(&mut self) {
        self.drain_others("");
    }

    /// All but one user's devices.
    fn drain_others(&mut self, user: &str) {
        let in_order = !self.many;
        for device in self.devices.iter_mut().filter(|it| it.user != user) {
            device.drain(in_order, &mut self.messages);
        }
    }

    fn finish(&mut self) {
        self.bench.directory().fail(false);
        self.push_all();
        for which in 0..self.devices.len() {
            let device = &self.devices[which];
            let last_of_user = !self.devices[which + 1..]
                .iter()
                .any(|other| other.user == device.user);
            if !device.connected && (device.has_session() || last_of_user) {
                self.make_room(which);
                self.let_in(which, true, false);
                self.check_evicted(which);
            }
            if self.devices[which].connected && last_of_user {
                self.devices[which].subscribe(true);
            }
        }
        for device in &mut self.devices {
            device.catch_up();
        }
        for _ in 0..=self.messages.len() * 4 + 1000 {
            self.flush();
            self.drain();
            let messages = &mut self.messages;
            let acted = self
                .devices
                .iter_mut()
                .map(|device| device.act(0, messages));
            if acted.filter(|acted| *acted).count() == 0 {
                break;
            }
        }
        for device in &self.devices {
            device.check_complete(&self.messages);
        }
        for (number, message) in self.messages.iter().enumerate() {
            let promised = message.accepted && message.qos != QoS::AtMostOnce && !message.excused;
            assert!(
                !promised || message.acknowledged,
                "message {number} is lost: {message:?}"
            );
        }
        self.flush();
        let kept = self.bench.disk().map(CrashingStore::kept);
        let kept = kept.unwrap_or_else(|| self.bench.store().kept());
        assert_eq!(kept, 0, "the store keeps what nobody is to get");
    }
}
