//! What each user's mailbox weighs, counted without the server: at least, at most, and what follows for the next message.
//!
//! A message weighs its topic, its properties but for the expiry interval, and its payload (PROTOCOL.md, section 7.7). It
//! weighs until every device that is to get it has acknowledged it, or it has expired and is on its way to nobody. Where
//! the model cannot know (an answer that was not read, a crash before a commit), the least is too little and the most too
//! much.

use std::time::Duration;

use jam_core::time::Time;
use jam_wire::packet::PublishProperties;

use super::device::Device;
use super::{Message, Simulator, USERS};

/// The limits of a mailbox in runs in which they are met.
pub(super) const MAX_MESSAGES: usize = 20;
pub(super) const MAX_BYTES: u64 = 2500;
/// So much more weighs a message that is large: more than [`MAX_PACKET`].
const LARGE: usize = 400;
/// What some connections take at most.
pub(super) const MAX_PACKET: u32 = 350;
/// Between the end of a message and the moment at which the server looks.
const LATE: Duration = Duration::from_secs(3);
const CONTENT_TYPE: &str = "text/plain";

/// When a message ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry {
    first: Time,
    /// Later than that by less than a millisecond, or for ever if it was sent again.
    last: Time,
}

/// Messages and bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Load {
    messages: usize,
    bytes: u64,
}

impl Load {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn has_room(self, bytes: u64, share: u64) -> bool {
        let messages = u64::try_from(self.messages).unwrap_or(u64::MAX);
        messages < MAX_MESSAGES as u64 / share && self.bytes + bytes <= MAX_BYTES / share
    }
}

impl Message {
    /// What some weigh more, and how long they last.
    pub(super) fn dress(
        &mut self,
        is_large: bool,
        secs: Option<u32>,
        is_typed: bool,
    ) -> (String, Option<Box<PublishProperties>>) {
        let mut properties = PublishProperties::default();
        if let Some(secs) = secs {
            let end = self.published_at + Duration::from_secs(secs.into());
            self.expires = Some(Expiry {
                first: end,
                // The server keeps milliseconds, rounded up: a message ends at the next one, if not at once.
                last: Time::from_millis(end.as_millis_up()),
            });
            properties.message_expiry_secs = Some(secs);
        }
        if is_typed {
            properties.content_type = Some(CONTENT_TYPE.into());
            // An identifier and its own length, without that of all properties.
            self.weight += 3 + CONTENT_TYPE.len() as u64;
        }
        self.is_unordered |= is_large;
        let padding = if is_large {
            " ".repeat(LARGE)
        } else {
            String::new()
        };
        let is_dressed = secs.is_some() || is_typed;
        (padding, is_dressed.then(|| Box::new(properties)))
    }

    /// It goes to the server once more, which may keep it then.
    pub(super) fn is_sent_again(&mut self) {
        (self.sent_again, self.is_doubtful) = (true, true);
        if let Some(expiry) = &mut self.expires {
            expiry.last = Time::NEVER;
        }
    }

    /// Whether it is too late for it to be sent for the first time.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.expires.is_some_and(|it| it.last + LATE <= now)
    }

    /// Whether it is there for certain.
    fn is_there(&self, now: Time) -> bool {
        let lasts = self.expires.is_none_or(|it| now < it.first);
        self.accepted && !self.acknowledged && !self.excused && !self.gone && lasts
    }

    /// Whether it may be there, as far as it does not depend on its receiver's devices.
    fn may_be_there(&self) -> bool {
        self.allowed && !self.gone && !self.refused
    }
}

impl Device {
    /// Whether a message to its user may wait for it.
    fn may_wait_for(&self, number: usize, message: &Message, now: Time, slack: Duration) -> bool {
        if !self.has_session() || self.acked.contains(&number) {
            return false;
        }
        let is_expired = message.expires.is_some_and(|it| it.last + slack <= now);
        let may_be_on_its_way = self.has_seen(number) || self.may_have_missed();
        // What was on its way when it unsubscribed stays so, whether it has seen it or not.
        let may_be_its = self.may_be_its(number) || self.may_have_missed();
        may_be_its && (!is_expired || may_be_on_its_way)
    }
}

impl Simulator<'_> {
    /// What a mailbox weighs at least and at most, all of it or what is of one sender. What has expired for less than
    /// `slack` may still be there.
    fn load(&self, user: &str, sender: Option<&str>, slack: Duration) -> [Load; 2] {
        let now = self.bench.now();
        let [mut least, mut most] = [Load::default(); 2];
        for (number, message) in self.messages.iter().enumerate() {
            let is_meant = message.receiver == user && sender.is_none_or(|it| it == message.sender);
            if !is_meant || !message.is_kept() {
                continue;
            }
            if message.is_there(now) {
                least.add(message.weight);
            }
            let mut devices = self.devices.iter().filter(|it| it.user == user);
            let waits = devices.any(|it| it.may_wait_for(number, message, now, slack));
            let is_expired = message.expires.is_some_and(|it| it.last + slack <= now);
            let is_unclaimed = !message.acknowledged && !is_expired;
            let is_left = waits || is_unclaimed || message.is_doubtful;
            let lingers = message.excused && self.accounts.lingering.contains(user);
            if lingers || (message.may_be_there() && is_left) {
                let copies = 1 + message.resent;
                (0..copies).for_each(|_| most.add(message.weight));
            }
        }
        [least, most]
    }

    /// Whether a message that the server judges at once, before it counts as one, is refused because the mailbox is full;
    /// `None` if that cannot be known.
    pub(super) fn is_refused(&self, message: &Message) -> Option<bool> {
        if !self.is_tight || !message.is_kept() {
            return Some(false);
        }
        let (user, weight) = (message.receiver, message.weight);
        let all = self.load(user, None, Duration::ZERO);
        let own = self.load(user, Some(message.sender), Duration::ZERO);
        let fits = |which: usize| {
            let (all, own): (Load, Load) = (all[which], own[which]);
            all.has_room(weight, 1) && (own.messages == 0 || own.has_room(weight, 2))
        };
        match [fits(0), fits(1)] {
            [_, true] => Some(false),
            [false, _] => Some(true),
            [true, false] => None,
        }
    }

    /// Of a device to which everything has been sent by now nothing waits but what is on its way.
    fn note_caught_up(&mut self) {
        for which in 0..self.devices.len() {
            self.devices[which].acks_are_kept();
            if !self.devices[which].is_caught_up() {
                continue;
            }
            let user = self.devices[which].user;
            let mut others = self.devices.iter().filter(|it| it.user == user);
            let are_all = others.all(|it| !it.has_session() || it.is_caught_up());
            let on_its_way = self.devices[which].on_its_way();
            for number in 0..self.messages.len() {
                let is_meant = self.messages[number].receiver == user;
                let is_coming = self.messages[number].is_will
                    || self.devices.iter().any(|it| it.is_publishing(number));
                if is_meant && !is_coming && !on_its_way.contains(&number) {
                    self.devices[which].acked.insert(number);
                    let message = &mut self.messages[number];
                    let mut others = self.devices.iter().filter(|it| it.user == user);
                    if !are_all || others.any(|it| it.is_on_its_way(number)) {
                        continue; // it may be for another one only
                    }
                    message.is_doubtful = false;
                    message.refused |= !message.acknowledged && !message.accepted;
                }
            }
        }
    }

    /// The store has everything by now: what it has of each user weighs what the model says, and is within the limits.
    pub(super) fn weigh(&mut self) {
        self.note_caught_up();
        let Some(disk) = self.bench.disk() else {
            return;
        };
        for user in USERS {
            let stored = disk.weights(user);
            let [least, most] = self.load(user, None, LATE);
            let messages = least.messages..=most.messages;
            let bytes = least.bytes..=most.bytes;
            assert!(
                messages.contains(&stored.messages) && bytes.contains(&stored.bytes),
                "{user} has {stored:?}, and not {messages:?} of {bytes:?} bytes"
            );
            assert_eq!(stored.pending_bytes, 0, "something waits to be written");
            assert!(
                !self.is_tight || (stored.messages <= MAX_MESSAGES && stored.bytes <= MAX_BYTES),
                "{user} has {stored:?}"
            );
            let noise = format!("/{user}/x").len() as u64 + super::device::NOISE.len() as u64;
            assert!(stored.retained_bytes <= noise, "{user} retains {stored:?}");
            let wills = self.devices.iter().filter(|it| it.user == user);
            let wills: u64 = wills.map(Device::will_weight).sum();
            assert!(
                stored.will_bytes <= wills || !self.bench.directory().is_answering(),
                "{user} has {stored:?}, and wills of {wills} bytes"
            );
        }
    }
}
