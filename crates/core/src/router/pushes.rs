//! The pushes that are owed, in the order in which they are due.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use foldhash::fast::RandomState;

use super::Router;
use super::shard::lock;
use crate::ids::UserId;
use crate::push::{DuePush, MAX_PUSHES, PushOutcome, PushRules};
use crate::time::Time;
use crate::user::Turn;

/// Pushes that nobody is sending yet: for each receiver and sender one at most. There are no more than pairs that are
/// remembered, and those have a bound.
///
/// Each is a hint: what is owed is looked up when its turn comes. So none is lost that comes while an older one of the
/// same pair waits.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    /// By the time before which they are not to be sent, and a number for those of the same time.
    waiting: BTreeMap<(Time, u64), DuePush>,
    /// Where in `waiting` the push of a receiver and a sender is.
    places: HashMap<(UserId, UserId), (Time, u64), RandomState>,
    next: u64,
    /// Who sends them, when there was none.
    waker: Option<Waker>,
}

impl Pushes {
    /// The earlier one stays, if there are two of a pair.
    fn insert(&mut self, push: DuePush, not_before: Time) {
        self.next += 1;
        let place = (not_before, self.next);
        match self.places.entry(pair_of(&push)) {
            Entry::Occupied(other) if other.get().0 <= not_before => return,
            Entry::Occupied(mut later) => {
                self.waiting.remove(&later.insert(place));
            }
            Entry::Vacant(free) => {
                free.insert(place);
            }
        }
        self.waiting.insert(place, push);
    }

    fn take(&mut self, now: Time) -> Option<DuePush> {
        let first = self.waiting.first_entry()?;
        let push = (first.key().0 <= now).then(|| first.remove())?;
        self.places.remove(&pair_of(&push));
        Some(push)
    }
}

fn pair_of(push: &DuePush) -> (UserId, UserId) {
    (push.receiver.clone(), push.sender.clone())
}

impl Router {
    /// The push that has waited for longest. `Pending` wakes when a new one is due; for one that is to be
    /// tried again later, ask again when it is time.
    pub fn poll_push(&self, context: &Context<'_>, now: Time) -> Poll<DuePush> {
        // It ends: each round takes one that is due by now, and puts back none.
        loop {
            let mut push = {
                let mut pushes = self.pushes();
                let Some(push) = pushes.take(now) else {
                    pushes.waker = Some(context.waker().clone());
                    return Poll::Pending;
                };
                push
            };
            let receiver = push.receiver.clone();
            let rules = &self.rules.user.push;
            match self.with_user(&receiver, |user, effects| {
                user.push_turn(&mut push, now, rules, effects)
            }) {
                Turn::Now => return Poll::Ready(push),
                Turn::Later(at) => {
                    debug_assert!(at > now, "a push that is due now is deferred to {at:?}");
                    let later = at.max(now.next());
                    self.pushes().insert(push, later);
                }
                Turn::Never => {}
            }
        }
    }

    /// What came of a push.
    pub fn push_settled(&self, mut push: DuePush, outcome: PushOutcome, now: Time) {
        let receiver = push.receiver.clone();
        let again = self.with_user(&receiver, |user, effects| {
            user.push_settled(&push, outcome, now, &self.rules.user.push, effects)
        });
        if !again {
            return;
        }
        match outcome {
            PushOutcome::Later(not_before) => {
                push.attempts = push.attempts.saturating_add(1);
                self.pushes().insert(push, not_before);
            }
            PushOutcome::Deferred(not_before) => self.pushes().insert(push, not_before),
            PushOutcome::Sent | PushOutcome::Dropped => {}
        }
    }

    /// How many pushes wait to be sent.
    #[must_use]
    pub fn waiting_pushes(&self) -> usize {
        self.pushes().waiting.len()
    }

    /// Pairs of a sender and a receiver with something known of pushes.
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

    /// The rules by which the receiver of a message is told, if they can be told and there is room to remember
    /// it.
    pub(super) fn push_rules(&self) -> Option<&PushRules> {
        let rules = &self.rules.user.push;
        (rules.audience.is_served() && !self.pushes_are_full()).then_some(rules)
    }

    fn pushes(&self) -> MutexGuard<'_, Pushes> {
        lock(&self.pushes)
    }
}
