//! Whether somebody has to be told that there is a message for this user (PROTOCOL.md, section 9).
//!
//! For each sender there may be messages whose *deadline* runs, because the user is connected and has
//! not acknowledged them; a push that is *owed*; one that was *sent* a short time ago; and the *bucket* out of
//! which each push takes a token before it goes out. Only senders with
//! one of these are in here. A message that is acknowledged within its grace makes no entry.
//!
//! Invariants, checked by `tests/pushing.rs`: a push is owed for a message that is kept only when it is
//! kept, and goes out only while one waits that has not expired; one that is owed is under way once at a time, and what
//! is owed and not under way is in the router's queue or waits for the store; what the store has of a pair is owed, or
//! sent, or nothing, as it is here; a sender with nothing left is forgotten, at the latest at
//! the alarm; the alarm that is set when one rings is later.

mod bucket;
mod pair;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bucket::Bucket;
use foldhash::fast::RandomState;
use pair::{OwedState, Pair, Span};

use super::{Alarm, Effects, User};
use crate::ids::UserId;
use crate::message::Message;
use crate::push::{DuePush, PushOutcome, PushRules};
use crate::store::{PushRecord, Seq, Write};
use crate::time::Time;

/// How long a push waits at a time for an account that is gone to come back.
const HIDDEN_REST: Duration = Duration::from_secs(60);

/// Messages of one sender that come within this part of the deadline are looked at together.
const TOGETHER: u32 = 40;

/// What is known of pushes to one user.
#[derive(Debug)]
pub(super) struct Pushes {
    by_sender: HashMap<UserId, Pair, RandomState>,
    /// Owed for messages that the store does not have yet.
    unstored: Vec<(Seq, UserId)>,
    /// Whether something was sent since the user was last heard of.
    seemed_away: bool,
    /// For when the router's timer is set.
    alarm: Time,
}

/// Whether it is a push's turn to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is.
    Now,
    /// It will be.
    Later(Time),
    /// There is nothing to tell any more.
    Never,
}

impl Default for Pushes {
    fn default() -> Self {
        Self {
            by_sender: HashMap::default(),
            unstored: Vec::new(),
            seemed_away: false,
            alarm: Time::NEVER,
        }
    }
}

impl Pushes {
    /// The pair whose push this is that was under way, if it is still owed.
    fn pair_of(&mut self, push: &DuePush) -> Option<&mut Pair> {
        let pair = self.by_sender.get_mut(&push.sender)?;
        pair.is_under_way(push.since).then_some(pair)
    }

    /// The pair that a push is owed to for a message that the store does not have yet; no longer so.
    fn unstored(&mut self, seq: Seq) -> Option<(UserId, &mut Pair)> {
        let index = self.unstored.iter().position(|(of, _)| *of == seq)?;
        let sender = self.unstored[index].1.clone();
        self.unstored.retain(|(of, _)| *of != seq);
        let pair = self.by_sender.get_mut(&sender)?;
        Some((sender, pair))
    }

    /// Has the alarm ring at `due` at the latest; [`Time::NEVER`] stops it.
    fn ring_at(&mut self, due: Time, effects: &mut Effects) {
        if due >= self.alarm && due != Time::NEVER {
            return;
        }
        if self.alarm != Time::NEVER {
            effects.rare().unset.push((self.alarm, Alarm::Pushes));
        }
        if due != Time::NEVER {
            effects.rare().set.push((due, Alarm::Pushes));
        }
        self.alarm = due;
    }
}

impl User {
    /// How many senders something is known of.
    pub(crate) fn push_pairs(&self) -> usize {
        self.pushes
            .as_ref()
            .map_or(0, |pushes| pushes.by_sender.len())
    }

    /// A message of another user goes to the store (or, with number 0, nowhere): its deadline runs, or a
    /// push is owed if no device is connected. Returns what is to be kept of that together with the message.
    pub(super) fn expect_ack(
        &mut self,
        message: &Message,
        seq: Seq,
        rules: &PushRules,
        effects: &mut Effects,
    ) -> Option<Write> {
        let (sender, expires_at) = (&message.sender, message.expires_at);
        let now = message.received_at;
        let connected = self.is_connected();
        let pushes = self.pushes.get_or_insert_default();
        if !pushes.by_sender.contains_key(sender) {
            pushes.by_sender.insert(sender.clone(), Pair::default());
        }
        let pair = pushes.by_sender.get_mut(sender)?;
        if connected {
            let oldest = pair.running.front().map(|(_, span)| span.oldest);
            // The store has a pair while one of these three is there; its bucket is memory's alone.
            let is_recorded = oldest.is_some() || pair.owed.is_some() || pair.sent.is_some();
            let is_news = !is_recorded || oldest.is_some_and(|oldest| seq < oldest);
            pair.about.newest = pair.about.newest.max(seq);
            match pair.running.back_mut() {
                Some((since, span)) if now.since(*since) < rules.deadline / TOGETHER => {
                    span.take(seq);
                }
                _ => pair.running.push_back((now, Span::of(seq))),
            }
            let record = is_news.then(|| pair.record(&self.id, sender));
            pushes.ring_at(now + rules.deadline, effects);
            return record;
        }
        if pair.owed.is_some() || pair.was_just_sent(now, rules) {
            let mut is_news = pair.owed.is_some() && seq != 0 && seq < pair.about.oldest;
            pair.about.newest = pair.about.newest.max(seq);
            if is_news {
                // Its grace has ended; it is written before those that were there already.
                pair.about.oldest = seq;
                pushes.unstored.push((seq, sender.clone()));
            }
            if seq == 0 && expires_at > pair.unkept_until {
                pair.unkept_until = expires_at;
                is_news = pair.owed.is_some() && pair.about.oldest == 0;
            }
            return is_news.then(|| pair.record(&self.id, sender));
        }
        (pair.sent, pair.about) = (None, Span::of(seq));
        pair.unkept_until = expires_at;
        if seq == 0 {
            pair.owe(now, OwedState::Queued);
            let push = DuePush::new(&self.id, sender, now);
            effects.rare().pushes.push(push);
        } else {
            pair.owe(now, OwedState::AwaitingStore);
            pushes.unstored.push((seq, sender.clone()));
        }
        Some(pair.record(&self.id, sender))
    }

    /// The store has a message: the push that is owed for it may go out.
    pub(super) fn push_when_stored(&mut self, seq: Seq, effects: &mut Effects) {
        let Some((sender, pair)) = self.pushes.as_mut().and_then(|it| it.unstored(seq)) else {
            return;
        };
        if let Some(since) = pair.queue() {
            let push = DuePush::new(&self.id, &sender, since);
            effects.rare().pushes.push(push);
        }
    }

    /// The store could not keep a message: there is nothing to tell.
    pub(super) fn no_push_for(&mut self, seq: Seq, effects: &mut Effects) {
        let Some(pushes) = self.pushes.as_mut() else {
            return;
        };
        if let Some((sender, pair)) = pushes.unstored(seq) {
            // Others of this sender may wait. What came before is kept, or told of when it is; what came since, when the
            // last of it is kept. Whether it has expired is looked at when it is.
            // What is under way is settled.
            let waits = pair.about.waits(&self.mailbox, Time::default());
            pair.owed = (pair.owed).filter(|owed| waits || owed.state == OwedState::UnderWay);
            effects.write(pair.record(&self.id, &sender));
            let newest = pair.owed.map(|_| pair.about.newest);
            let since = newest.filter(|newest| *newest > seq);
            pushes.unstored.extend(since.map(|it| (it, sender)));
        }
        // What was to be kept of a pair was to be kept with its oldest message.
        for (sender, pair) in &mut pushes.by_sender {
            let Some((_, span)) = pair.running.front().filter(|(_, it)| it.oldest == seq) else {
                continue;
            };
            if span.newest == seq {
                pair.running.pop_front();
            }
            effects.write(pair.record(&self.id, sender));
        }
        self.forget_idle_pairs(effects);
    }

    /// A device has connected. Pushes that were sent have done their work; what is owed has a deadline again, for
    /// the device may get the message now.
    pub(super) fn has_come(&mut self, now: Time, rules: &PushRules, effects: &mut Effects) {
        let Some(pushes) = self.pushes.as_mut() else {
            return;
        };
        for (sender, pair) in &mut pushes.by_sender {
            if pair.about.oldest != 0 && pair.owed.take().is_some() {
                pair.running = VecDeque::from([(now, pair.about)]);
                effects.write(pair.record(&self.id, sender));
            }
        }
        pushes.ring_at(now + rules.deadline, effects);
        self.was_heard_of(effects);
    }

    /// A device has connected or acknowledged a message: the user is not away.
    pub(super) fn was_heard_of(&mut self, effects: &mut Effects) {
        let Some(pushes) = self.pushes.as_mut().filter(|pushes| pushes.seemed_away) else {
            return;
        };
        pushes.seemed_away = false;
        for (sender, pair) in &mut pushes.by_sender {
            if pair.sent.take().is_some() {
                effects.write(pair.record(&self.id, sender));
            }
        }
        self.forget_idle_pairs(effects);
    }

    /// A connection has ended. If it was the last, what is not acknowledged will not be.
    pub(crate) fn has_gone(&mut self, now: Time, rules: &PushRules, effects: &mut Effects) {
        if !self.is_connected() {
            self.end_deadlines(now, now, rules, effects);
        }
    }

    /// The alarm rings.
    pub(super) fn look_at_pushes(&mut self, now: Time, rules: &PushRules, effects: &mut Effects) {
        if let Some(pushes) = self.pushes.as_mut() {
            pushes.alarm = Time::NEVER;
        }
        self.end_deadlines(now, now - rules.deadline, rules, effects);
        if let Some(pushes) = self.pushes.as_mut() {
            let due = pushes.by_sender.values().map(|pair| pair.due(rules)).min();
            let due = due.unwrap_or(Time::NEVER);
            // Were something due now that has just been looked at, it would be looked at for ever.
            debug_assert!(due > now, "what is due at {now:?} has been dealt with");
            pushes.ring_at(due, effects);
        }
    }

    /// A push is owed for what came before `before` and is not acknowledged.
    fn end_deadlines(&mut self, now: Time, before: Time, rules: &PushRules, effects: &mut Effects) {
        let Some(pushes) = self.pushes.as_mut() else {
            return;
        };
        for (sender, pair) in &mut pushes.by_sender {
            let was = (pair.running.len(), pair.owed, pair.sent);
            let mut silent = None;
            while let Some((_, span)) = pair.running.pop_front_if(|(since, _)| *since <= before) {
                silent = silent.or(Some(span.oldest).filter(|_| span.waits(&self.mailbox, now)));
            }
            pair.bucket.refill(now);
            if !pair.was_just_sent(now, rules) {
                pair.sent = None;
                if let Some(oldest) = silent
                    && pair.owed.is_none()
                {
                    // It tells of everything that is there.
                    pair.running.clear();
                    pair.about.oldest = oldest;
                    pair.owe(now, OwedState::Queued);
                    let push = DuePush::new(&self.id, sender, now);
                    effects.rare().pushes.push(push);
                }
            }
            if was != (pair.running.len(), pair.owed, pair.sent) {
                effects.write(pair.record(&self.id, sender));
            }
        }
        self.forget_idle_pairs(effects);
    }

    /// Whether a push that is due goes out now; then it has taken a token. Not if the message has been
    /// acknowledged, has expired or is gone.
    pub(crate) fn push_turn(
        &mut self,
        push: &mut DuePush,
        now: Time,
        rules: &PushRules,
        effects: &mut Effects,
    ) -> Turn {
        if self.is_hidden() {
            // The id may be another's, and so may be the phone.
            return Turn::Later(now + HIDDEN_REST);
        }
        let Some(pushes) = self.pushes.as_mut() else {
            return Turn::Never;
        };
        let Some(pair) = pushes.by_sender.get_mut(&push.sender) else {
            return Turn::Never;
        };
        let Some(owed) = pair.owed else {
            return Turn::Never;
        };
        if owed.state != OwedState::Queued {
            // It is queued when the store has a message, or when the try that is under way has failed.
            return Turn::Never;
        }
        if owed.since != push.since {
            // The receiver has come and gone since; another is owed now.
            *push = DuePush::new(&self.id, &push.sender, owed.since);
        }
        if !pair.is_wanted(&self.mailbox, now) {
            pair.owed = None;
            effects.write(pair.record(&self.id, &push.sender));
            self.forget_idle_pairs(effects);
            return Turn::Never;
        }
        if let Err(available_at) = pair.bucket.take(now, rules.collapse) {
            return Turn::Later(available_at);
        }
        pair.owe(owed.since, OwedState::UnderWay);
        if let Some(full_at) = pair.bucket.full_at() {
            pushes.ring_at(full_at, effects);
        }
        Turn::Now
    }

    /// What came of a push whose turn it was: whether it is to be tried again.
    pub(crate) fn push_settled(
        &mut self,
        push: &DuePush,
        outcome: PushOutcome,
        now: Time,
        rules: &PushRules,
        effects: &mut Effects,
    ) -> bool {
        let Some(pushes) = self.pushes.as_mut() else {
            return false;
        };
        // Also of a push that is owed no more, because the receiver has come and gone since.
        if outcome != PushOutcome::Sent
            && let Some(pair) = pushes.by_sender.get_mut(&push.sender)
        {
            pair.bucket.give_back(rules.collapse);
            pair.bucket.refill(now);
        }
        let Some(pair) = pushes.pair_of(push) else {
            self.forget_idle_pairs(effects);
            return false;
        };
        match outcome {
            PushOutcome::Later(_) | PushOutcome::Deferred(_) => {
                pair.owe(push.since, OwedState::Queued);
                return true;
            }
            PushOutcome::Sent => (pair.owed, pair.sent) = (None, Some(now)),
            PushOutcome::Dropped => pair.owed = None,
        }
        effects.write(pair.record(&self.id, &push.sender));
        if outcome == PushOutcome::Sent {
            pushes.seemed_away = true;
            pushes.ring_at(now + rules.collapse, effects);
        }
        self.forget_idle_pairs(effects);
        false
    }

    /// What a store has found of pushes from one sender, after all messages.
    pub(crate) fn restore_push(
        &mut self,
        found: PushRecord,
        now: Time,
        rules: &PushRules,
        effects: &mut Effects,
    ) {
        // The store knows the oldest only.
        let mut pair = Pair {
            about: Span {
                oldest: found.seq,
                newest: self.mailbox.last(),
            },
            unkept_until: found.expires_at,
            ..Pair::default()
        };
        // Before the clock was set back, perhaps.
        let at = found.at.min(now);
        if rules.audience.is_served() {
            if found.sent {
                pair.sent = Some(found.at);
                pair.sent = pair.sent.filter(|_| pair.was_just_sent(now, rules));
                if let Some(sent) = pair.sent {
                    pair.bucket = Bucket::taken_at(sent, rules.collapse);
                }
            } else if pair.is_wanted(&self.mailbox, now) {
                pair.owe(at, OwedState::Queued);
                let push = DuePush::new(&self.id, &found.sender, at);
                effects.rare().pushes.push(push);
            }
        }
        if pair.is_idle() {
            effects.write(pair.record(&self.id, &found.sender));
            return;
        }
        let pushes = self.pushes.get_or_insert_default();
        pushes.seemed_away |= pair.sent.is_some();
        pushes.ring_at(pair.due(rules), effects);
        pushes.by_sender.insert(found.sender, pair);
    }

    /// Nothing is owed to an account that is gone.
    pub(super) fn end_pushes(&mut self, effects: &mut Effects) {
        let Some(mut pushes) = self.pushes.take() else {
            return;
        };
        pushes.ring_at(Time::NEVER, effects);
        for sender in pushes.by_sender.into_keys() {
            effects.write(Write::EndPush(self.id.clone(), sender));
        }
    }

    fn forget_idle_pairs(&mut self, effects: &mut Effects) {
        let Some(pushes) = self.pushes.as_mut() else {
            return;
        };
        pushes.by_sender.retain(|_, pair| !pair.is_idle());
        if pushes.by_sender.is_empty() {
            pushes.ring_at(Time::NEVER, effects);
            self.pushes = None;
        }
    }
}
