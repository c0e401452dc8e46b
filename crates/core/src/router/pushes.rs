//! The pushes that are owed, in the order in which they are due.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use foldhash::fast::RandomState;

use super::Router;
use super::shard::lock;
use crate::ids::UserId;
use crate::push::{DuePush, MAX_PUSHES, PushOrder, PushOutcome, PushRules};
use crate::time::Time;
use crate::user::Turn;

/// Pushes that wait to be sent: for each receiver and sender one at most. There are at most as many as remembered pairs,
/// whose number has a bound.
///
/// Each is a hint: what is owed is looked up when its turn comes. So a push that becomes due while an older one of the
/// same pair waits is sent with that.
#[derive(Debug, Default)]
pub(super) struct PushQueue {
    /// By the time before which they are not to be sent, and a number for those of the same time.
    waiting: BTreeMap<(Time, u64), DuePush>,
    /// Where in `waiting` those are that have neither been tried nor deferred.
    untried: BTreeSet<(Time, u64)>,
    /// Where in `waiting` the push of a receiver and a sender is.
    places: HashMap<(UserId, UserId), (Time, u64), RandomState>,
    next: u64,
    /// Wakes the task that sends them, once there is one.
    waker: Option<Waker>,
}

impl PushQueue {
    /// The earlier one stays, if there are two of a pair.
    fn insert(&mut self, push: DuePush, not_before: Time) {
        self.next += 1;
        let place = (not_before, self.next);
        match self.places.entry(pair_of(&push)) {
            Entry::Occupied(other) if other.get().0 <= not_before => return,
            Entry::Occupied(mut later) => {
                let later = later.insert(place);
                self.waiting.remove(&later);
                self.untried.remove(&later);
            }
            Entry::Vacant(free) => {
                free.insert(place);
            }
        }
        if !push.is_behind {
            self.untried.insert(place);
        }
        self.waiting.insert(place, push);
    }

    /// It was taken at `now`, and its turn comes at `at`.
    fn put_back(&mut self, push: DuePush, at: Time, now: Time) {
        let not_before = at.again_after(now, &push);
        self.insert(push, not_before);
    }

    fn take(&mut self, now: Time, order: PushOrder) -> Option<DuePush> {
        let newest = match order {
            PushOrder::OldestFirst => None,
            PushOrder::NewestFirst => self.untried.range(..=(now, u64::MAX)).next_back().copied(),
        };
        let oldest = || self.waiting.first_key_value().map(|(place, _)| *place);
        let place = newest.or_else(oldest).filter(|(due, _)| *due <= now)?;
        let push = self.waiting.remove(&place)?;
        self.untried.remove(&place);
        self.places.remove(&pair_of(&push));
        Some(push)
    }
}

fn pair_of(push: &DuePush) -> (UserId, UserId) {
    (push.receiver.clone(), push.sender.clone())
}

impl Router {
    /// The push that is due first, in this order. `Pending` wakes when a new one is due; for one that is to be
    /// tried again later, ask again when it is time.
    pub fn poll_push(&self, context: &Context<'_>, now: Time, order: PushOrder) -> Poll<DuePush> {
        // It ends: each round takes one that is due by now, and puts back none.
        loop {
            let mut push = {
                let mut pushes = self.pushes();
                let Some(push) = pushes.take(now, order) else {
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
                    self.pushes().put_back(push, at, now);
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
        push.is_behind = true;
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

    /// Whether all room for pushes is taken: another receiver who is away gets none.
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

    fn pushes(&self) -> MutexGuard<'_, PushQueue> {
        lock(&self.pushes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(7);

    fn push(receiver: &str) -> DuePush {
        let [receiver, sender] = [receiver, "1"].map(|id| UserId::parse(id).unwrap());
        DuePush::new(&receiver, &sender, NOW)
    }

    #[test]
    fn the_newest_is_the_last_that_is_due_of_those_that_have_not_been_tried() {
        let second = std::time::Duration::from_secs(1);
        let mut queue = PushQueue::default();
        for (receiver, due) in [
            ("2", NOW - second),
            ("3", NOW),
            ("4", NOW),
            ("5", NOW + second),
        ] {
            queue.insert(push(receiver), due);
        }
        let mut tried = push("6");
        tried.is_behind = true;
        queue.insert(tried, NOW);
        // An earlier one takes the place of a later one.
        queue.insert(push("5"), NOW - second);
        let mut next = |order| queue.take(NOW, order).map(|it| it.receiver.to_string());
        assert_eq!(next(PushOrder::NewestFirst).as_deref(), Some("4"));
        assert_eq!(next(PushOrder::NewestFirst).as_deref(), Some("3"));
        assert_eq!(next(PushOrder::OldestFirst).as_deref(), Some("2"));
        assert_eq!(next(PushOrder::NewestFirst).as_deref(), Some("5"));
        assert_eq!(next(PushOrder::NewestFirst).as_deref(), Some("6"));
        assert_eq!(next(PushOrder::NewestFirst), None);
        assert!(queue.waiting.is_empty() && queue.untried.is_empty() && queue.places.is_empty());
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "has just been dealt with"))]
    fn what_is_put_back_is_not_taken_again_at_once() {
        let mut queue = PushQueue::default();
        queue.put_back(push("2"), NOW, NOW);
        assert_eq!(queue.take(NOW, PushOrder::OldestFirst), None);
    }
}
