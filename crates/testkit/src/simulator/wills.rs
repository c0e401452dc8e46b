//! Wills: who said goodbye leaves none, whatever stood before the goodbye; all others come once.

use std::time::Duration;

use jam_core::time::Time;
use jam_wire::packet::{QoS, Will};

use super::{Message, Simulator, USERS, are_strangers, plain_weight};
use crate::packets;

/// The delay of a will that has one.
const DELAY: Duration = Duration::from_secs(5);

/// A will that a client has left with the server, and the message that it becomes.
#[derive(Debug, Clone)]
pub(super) struct Testament {
    pub(super) number: usize,
    pub(super) delay: Duration,
    pub(super) will: Box<Will>,
}

/// What becomes of a will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is written, as of this moment.
    Due(Time),
    /// It is not, for its client has said goodbye, or is back.
    Never,
}

/// Wills whose fate the store may not have yet.
#[derive(Debug, Default)]
pub(super) struct Wills {
    due: Vec<usize>,
    never: Vec<usize>,
}

impl Simulator<'_> {
    /// A will for a device that is about to connect, or none.
    pub(super) fn make_will(&mut self, which: usize) -> Option<Testament> {
        // A full mailbox drops a will without a word.
        if !self.worldly || self.is_tight || self.source.below(2)? == 0 {
            return None;
        }
        let receiver = USERS[self.source.below(USERS.len())?];
        let qos = QoS::from_bits(u8::try_from(self.source.below(3)?).ok()?)?;
        let is_delayed = self.source.below(3)? == 0;
        let sender = self.devices[which].user;
        let number = self.messages.len();
        let mut message = Message::new(sender, receiver, qos, self.bench.now());
        message.allowed = !are_strangers(sender, receiver);
        (message.is_will, message.is_unordered, message.gone) = (true, true, true);
        self.messages.push(message);
        let mut will = packets::will(&format!("/{receiver}/inbox"), "");
        will.payload = packets::message(sender, &number.to_string());
        self.messages[number].weight = plain_weight(receiver, &will.payload);
        will.qos = qos;
        let is_delayed = is_delayed && self.devices[which].version == jam_wire::packet::Version::V5;
        let delay = if is_delayed { DELAY } else { Duration::ZERO };
        will.delay_secs = is_delayed.then_some(5);
        Some(Testament {
            number,
            delay,
            will,
        })
    }

    /// Notes what has become of wills since this was last called.
    pub(super) fn judge_wills(&mut self) {
        let hidden = self.accounts.hidden;
        for device in &mut self.devices {
            for (number, fate) in device.fates.drain(..) {
                let message = &mut self.messages[number];
                match fate {
                    Fate::Due(at) => {
                        (message.gone, message.published_at) = (false, at);
                        let parties = [message.sender, message.receiver];
                        if !parties.map(Some).contains(&hidden) {
                            self.wills.due.push(number);
                        }
                    }
                    Fate::Never => self.wills.never.push(number),
                }
            }
        }
    }

    /// The store has everything by now: a will that is due is promised.
    pub(super) fn wills_are_kept(&mut self) {
        self.judge_wills();
        self.wills.never.clear();
        let is_promised = !self.fails && self.bench.directory().is_answering();
        for number in self.wills.due.drain(..) {
            let message = &mut self.messages[number];
            message.accepted |= is_promised && message.allowed;
        }
    }

    /// Nothing is promised any more of wills that are due.
    pub(super) fn wills_are_doubtful(&mut self) {
        self.judge_wills();
        self.wills.due.clear();
    }

    /// The server was killed, and may not know who has said goodbye.
    pub(super) fn wills_after_crash(&mut self) {
        self.wills_are_doubtful();
        for number in self.wills.never.drain(..) {
            self.messages[number].gone = false;
        }
    }
}
