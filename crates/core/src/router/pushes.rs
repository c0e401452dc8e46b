//! The pushes that are owed, in the order in which they are due.

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::task::{Context, Poll, Waker};

use super::Router;
use super::shard::lock;
use crate::push::{DuePush, PushOutcome};
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
        let mut pushes = self.pushes();
        match pushes.take(now) {
            Some(push) => Poll::Ready(push),
            None => {
                pushes.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What came of a push.
    pub fn push_settled(&self, mut push: DuePush, outcome: PushOutcome) {
        if let PushOutcome::Later(not_before) = outcome {
            push.attempts += 1;
            self.pushes().insert(push, not_before);
        }
    }

    /// How many pushes wait to be sent.
    #[must_use]
    pub fn waiting_pushes(&self) -> usize {
        self.pushes().waiting.len()
    }

    /// A push is due.
    pub(super) fn owe_push(&self, push: DuePush) {
        let waker = {
            let mut pushes = self.pushes();
            let since = push.since;
            pushes.insert(push, since);
            pushes.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn pushes(&self) -> MutexGuard<'_, Pushes> {
        lock(&self.pushes)
    }
}
