//! The pushes that are owed, in the order in which they are due.

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::Router;
use super::shard::lock;
use crate::push::{DuePush, MAX_PUSHES, PushOutcome, PushRules};
use crate::time::Time;

/// Pushes that nobody is sending yet. No larger than the number of those owed, which has a bound.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    /// By the time before which they are not to be sent, and a number for those of the same time.
    waiting: BTreeMap<(Time, u64), DuePush>,
    next: u64,
    /// Who sends them, when there was none.
    waker: Option<Waker>,
}

impl Pushes {
    fn insert(&mut self, push: DuePush, not_before: Time) {
        self.next += 1;
        self.waiting.insert((not_before, self.next), push);
    }

    fn take(&mut self, now: Time) -> Option<DuePush> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

impl Router {
    /// The push that has waited for longest. `Pending` wakes when a new one is due; for one that is to be
    /// tried again later, ask again when it is time.
    pub fn poll_push(&self, context: &Context<'_>, now: Time) -> Poll<DuePush> {
        loop {
            let push = {
                let mut pushes = self.pushes();
                let Some(push) = pushes.take(now) else {
                    pushes.waker = Some(context.waker().clone());
                    return Poll::Pending;
                };
                push
            };
            let receiver = push.receiver.clone();
            if self.with_user(&receiver, |user, effects| user.is_push_due(&push, effects)) {
                return Poll::Ready(push);
            }
        }
    }

    /// What came of a push.
    pub fn push_settled(&self, mut push: DuePush, outcome: PushOutcome, now: Time) {
        let receiver = push.receiver.clone();
        let again = self.with_user(&receiver, |user, effects| {
            user.push_settled(&push, outcome, now, &self.rules.user.push, effects)
        });
        if let PushOutcome::Later(not_before) = outcome
            && again
        {
            push.attempts += 1;
            self.pushes().insert(push, not_before);
        }
    }

    /// How many pushes wait to be sent.
    #[must_use]
    pub fn waiting_pushes(&self) -> usize {
        self.pushes().waiting.len()
    }

    /// Senders and receivers of whom something is known of pushes, in pairs.
    #[must_use]
    pub fn remembered_pushes(&self) -> usize {
        self.push_pairs.load(Ordering::Relaxed)
    }

    /// Whether there is no room to remember another push: who is away is not told.
    #[must_use]
    pub fn pushes_are_full(&self) -> bool {
        self.remembered_pushes() >= MAX_PUSHES
    }

    /// Pushes that have come to be due.
    pub(super) fn push_soon(&self, due: Vec<DuePush>) {
        let waker = {
            let mut pushes = self.pushes();
            for push in due {
                let since = push.since;
                pushes.insert(push, since);
            }
            pushes.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// The rules by which the receiver of a message is told, if he can be told and there is room to remember
    /// it.
    pub(super) fn push_rules(&self) -> Option<&PushRules> {
        let rules = &self.rules.user.push;
        (rules.reach.is_served() && !self.pushes_are_full()).then_some(rules)
    }

    fn pushes(&self) -> MutexGuard<'_, Pushes> {
        lock(&self.pushes)
    }
}
