//! What is known of pushes from one sender to one receiver: what runs, is owed, was sent, and may still go out.

use std::collections::VecDeque;

use super::bucket::Bucket;
use crate::ids::UserId;
use crate::mailbox::Mailbox;
use crate::push::PushRules;
use crate::store::{PushRecord, Seq, Write};
use crate::time::Time;

/// A push that is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwedPush {
    /// Since when.
    pub(super) since: Time,
    pub(super) state: OwedState,
}

/// How far a push that is owed has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwedState {
    /// The store has none of the messages that it is about; one of them is in [`Pushes`](super::Pushes)`::unstored`.
    AwaitingStore,
    /// The router's queue has it, or an older one of the pair in its place.
    Queued,
    /// It has been handed out to be sent, and will be settled.
    UnderWay,
}

/// It is idle, and is forgotten, when nothing runs or is owed, none was sent lately, and the bucket is full.
#[derive(Debug, Default)]
pub(super) struct Pair {
    /// Messages whose deadline runs, together if they came together, since when.
    pub(super) running: VecDeque<(Time, Span)>,
    /// The push that is owed.
    pub(super) owed: Option<OwedPush>,
    /// When one was sent.
    pub(super) sent: Option<Time>,
    /// What the push that is owed is about; the newest also of what runs.
    pub(super) about: Span,
    /// When the message that the push is about expires, if that is not kept.
    pub(super) unkept_until: Time,
    /// What may still go out.
    pub(super) bucket: Bucket,
}

/// Some messages of one sender. Others' may lie between them: as long as those are not acknowledged, a device that
/// acknowledges in order (MQTT 5.0, section 4.6) has not acknowledged the newest of these either.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    /// 0 if it is not kept.
    pub(super) oldest: Seq,
    pub(super) newest: Seq,
}

impl Span {
    pub(super) fn of(seq: Seq) -> Self {
        Self {
            oldest: seq,
            newest: seq,
        }
    }

    /// One whose grace has ended comes after the one that has ended it.
    pub(super) fn take(&mut self, seq: Seq) {
        self.oldest = self.oldest.min(seq);
        self.newest = self.newest.max(seq);
    }

    /// Whether one still waits for somebody to acknowledge it, and has not expired.
    pub(super) fn waits(self, mailbox: &Mailbox, now: Time) -> bool {
        mailbox.is_silent_about(self.oldest, self.newest, now)
    }
}

impl Pair {
    /// A push is owed since `since`.
    pub(super) fn owe(&mut self, since: Time, state: OwedState) {
        self.owed = Some(OwedPush { since, state });
    }

    /// Whether the push that is owed since `since` has been handed out.
    pub(super) fn is_under_way(&self, since: Time) -> bool {
        let state = OwedState::UnderWay;
        self.owed == Some(OwedPush { since, state })
    }

    /// The push that is owed joins the router's queue, unless it is there or has been handed out: since when it is owed.
    pub(super) fn queue(&mut self) -> Option<Time> {
        let awaits = |owed: &&mut OwedPush| owed.state == OwedState::AwaitingStore;
        let owed = self.owed.as_mut().filter(awaits)?;
        owed.state = OwedState::Queued;
        Some(owed.since)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.owed.is_none()
            && self.sent.is_none()
            && self.bucket.full_at().is_none()
    }

    /// What was sent long after now was sent before the clock was set back.
    pub(super) fn was_just_sent(&self, now: Time, rules: &PushRules) -> bool {
        let window = rules.collapse;
        self.sent
            .is_some_and(|sent| now < sent + window && sent < now + window)
    }

    /// Whether there is something to tell.
    pub(super) fn is_wanted(&self, mailbox: &Mailbox, now: Time) -> bool {
        (self.about.oldest == 0 && now < self.unkept_until) || self.about.waits(mailbox, now)
    }

    /// When something changes by itself.
    pub(super) fn due(&self, rules: &PushRules) -> Time {
        let running = self.running.front().map(|(at, _)| *at + rules.deadline);
        let sent = self.sent.map(|sent| sent + rules.collapse);
        let times = running.into_iter().chain(sent).chain(self.bucket.full_at());
        times.min().unwrap_or(Time::NEVER)
    }

    /// What the store is to keep of it.
    pub(super) fn record(&self, receiver: &UserId, sender: &UserId) -> Write {
        let owed = self.owed.map(|owed| (owed.since, self.about));
        let owed = owed.or(self.running.front().copied());
        let (sent, at, seq) = match (self.sent, owed) {
            (Some(at), _) => (true, at, 0),
            (None, Some((at, about))) => (false, at, about.oldest),
            (None, None) => return Write::EndPush(receiver.clone(), sender.clone()),
        };
        Write::Push(Box::new(PushRecord {
            receiver: receiver.clone(),
            sender: sender.clone(),
            seq,
            sent,
            at,
            expires_at: if sent || seq != 0 {
                Time::NEVER
            } else {
                self.unkept_until
            },
        }))
    }
}
