//! One receiver's trouble is that receiver's: what is known of receivers while pushes for them are on their way
//! or have failed.
//!
//! A receiver whose push failed is *held* until it is time for another try, for pushes of all senders; then one
//! of them tries. Nobody else's push waits for it: such tries take [`MAX_RETRIES`] places, and leave the rest to receivers
//! of whom no trouble is known. When the service has answered others between two failures of a receiver, it is well: the
//! trouble is the receiver's *own*. Invariants: [`MAX_RECEIVERS`] are known at most; of one that is not, each push waits for
//! itself.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jam_core::ids::UserId;
use tokio::time::Instant;

use super::Scope;
use super::pace::{MAX_IN_FLIGHT, backoff};

/// Pushes for one receiver that are on their way at a time: a phone that the service is slow to reach leaves the
/// others their places.
const MAX_ON_THEIR_WAY: u32 = 4;

/// How long a push waits for the places of its receiver to become free.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// Receivers who are tried again at a time: one that the service does not reach takes a place until the request's time is
/// over.
const MAX_RETRIES: usize = MAX_IN_FLIGHT / 2;

/// Receivers that something is known of.
pub(crate) const MAX_RECEIVERS: usize = 10_000;

/// Between two searches for receivers that need not be known any more.
const SWEEP_AFTER: Duration = Duration::from_secs(1);

/// What is known of receivers.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    known: HashMap<UserId, Receiver>,
    /// Those who are being tried again.
    retried: HashSet<UserId>,
    swept: Option<Instant>,
    /// How often the service has answered.
    answers: u64,
}

/// What a failed try says of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// Whether it is the first of several in a row.
    pub(super) is_news: bool,
    /// Whether the service has answered others since the one before.
    pub(super) is_own: bool,
    /// How long the receiver's pushes wait.
    pub(super) wait: Duration,
}

impl Failed {
    /// What it says of others, if the try itself says `scope`.
    pub(super) fn scope(self, scope: Scope) -> Scope {
        if self.is_own { Scope::Receiver } else { scope }
    }
}

#[derive(Debug, Default)]
struct Receiver {
    on_their_way: u32,
    /// Tries that failed, one after another.
    failures: u32,
    held_until: Option<Instant>,
    /// [`Receivers::answers`] at the last failure.
    answers: u64,
}

impl Receiver {
    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }
}

impl Receivers {
    /// Takes a place for a push; `Err` says how long it waits to ask again.
    pub(super) fn start(&mut self, id: &UserId, now: Instant) -> Result<(), Duration> {
        let receiver = self.known.entry(id.clone()).or_default();
        if let Some(until) = receiver.held_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        let is_free = if receiver.failures > 0 {
            receiver.on_their_way == 0 && self.retried.len() < MAX_RETRIES
        } else {
            receiver.on_their_way < MAX_ON_THEIR_WAY
        };
        if !is_free {
            return Err(PLACE_WAIT);
        }
        if receiver.failures > 0 {
            self.retried.insert(id.clone());
        }
        receiver.on_their_way += 1;
        Ok(())
    }

    /// The service has answered: nothing is wrong with this receiver.
    pub(super) fn answered(&mut self, id: &UserId) {
        self.answers += 1;
        if let Some(receiver) = self.end_try(id) {
            (receiver.failures, receiver.held_until) = (0, None);
        }
        self.forget_if_idle(id);
    }

    /// The try says nothing of this receiver.
    pub(super) fn undecided(&mut self, id: &UserId) {
        self.end_try(id);
        self.forget_if_idle(id);
    }

    /// The try has failed, the push's own `attempts` before.
    pub(super) fn failed(
        &mut self,
        id: &UserId,
        attempts: u32,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Failed {
        let answers = self.answers;
        let before = self.end_try(id).map(|it| (it.failures, it.answers));
        let (failures, answers_before) = before.unwrap_or((0, answers));
        let wait = backoff(failures.max(attempts)).max(retry_after.unwrap_or_default());
        if let Some(receiver) = self.known.get_mut(id) {
            (receiver.failures, receiver.answers) = (failures.saturating_add(1), answers);
            let until = now + wait;
            receiver.held_until = Some(receiver.held_until.map_or(until, |it| it.max(until)));
        }
        self.keep_bound(id, now);
        Failed {
            is_news: failures == 0,
            is_own: failures > 0 && answers > answers_before,
            wait,
        }
    }

    fn end_try(&mut self, id: &UserId) -> Option<&mut Receiver> {
        self.retried.remove(id);
        let receiver = self.known.get_mut(id)?;
        receiver.on_their_way = receiver.on_their_way.saturating_sub(1);
        Some(receiver)
    }

    fn forget_if_idle(&mut self, id: &UserId) {
        let is_idle = |it: &Receiver| it.on_their_way == 0 && it.failures == 0;
        if self.known.get(id).is_some_and(is_idle) {
            self.known.remove(id);
        }
    }

    /// Those on their way have a bound of their own.
    fn keep_bound(&mut self, newest: &UserId, now: Instant) {
        if self.known.len() <= MAX_RECEIVERS {
            return;
        }
        if self.swept.is_none_or(|swept| now - swept >= SWEEP_AFTER) {
            self.swept = Some(now);
            self.known
                .retain(|_, it| it.on_their_way > 0 || it.is_held(now));
        }
        let is_free = |it: &Receiver| it.on_their_way == 0;
        if self.known.len() > MAX_RECEIVERS && self.known.get(newest).is_some_and(is_free) {
            self.known.remove(newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn user(id: usize) -> UserId {
        UserId::parse(id.to_string()).unwrap()
    }

    #[test]
    fn one_who_is_held_holds_up_nobody_else() {
        let mut receivers = Receivers::default();
        let (busy, other, now) = (user(2), user(3), Instant::now());
        receivers.start(&busy, now).unwrap();
        let failed = receivers.failed(&busy, 0, Some(60 * SECOND), now);
        assert_eq!((failed.is_news, failed.wait), (true, 60 * SECOND));
        assert_eq!(receivers.start(&busy, now + 59 * SECOND), Err(SECOND));
        assert_eq!(receivers.start(&other, now), Ok(()));
        // One at a time tries.
        let later = now + 60 * SECOND;
        assert_eq!(receivers.start(&busy, later), Ok(()));
        assert_eq!(receivers.start(&busy, later), Err(PLACE_WAIT));
        let Failed { is_news, wait, .. } = receivers.failed(&busy, 0, None, later);
        assert!(!is_news && wait >= SECOND && wait <= 4 * SECOND);
        assert_eq!(receivers.start(&busy, later), Err(wait));
        receivers.start(&busy, later + wait).unwrap();
        receivers.answered(&busy);
        receivers.answered(&other);
        assert!(receivers.known.is_empty());
    }

    #[test]
    fn waits_grow_with_the_failures_of_the_receiver_or_the_push() {
        let mut receivers = Receivers::default();
        let mut now = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            receivers.start(&user(2), now).unwrap();
            let wait = receivers.failed(&user(2), 0, None, now).wait;
            longest = longest.max(wait);
            now += wait;
        }
        assert!(longest > 30 * SECOND && longest <= 300 * SECOND);
    }

    #[test]
    fn trouble_is_the_receivers_own_when_others_were_answered_in_between() {
        let (mut receivers, now) = (Receivers::default(), Instant::now());
        let try_in_vain = |receivers: &mut Receivers, id| {
            receivers.known.entry(user(id)).or_default().held_until = None;
            receivers.start(&user(id), now).unwrap();
            receivers.failed(&user(id), 0, None, now).is_own
        };
        assert!(!try_in_vain(&mut receivers, 2) && !try_in_vain(&mut receivers, 2));
        receivers.start(&user(3), now).unwrap();
        receivers.answered(&user(3));
        assert!(!try_in_vain(&mut receivers, 4), "that is the first time");
        assert!(try_in_vain(&mut receivers, 2));
        assert!(!try_in_vain(&mut receivers, 2), "none was answered since");
    }

    /// After a restart the receiver is not known, and the push has been tried before.
    #[test]
    fn a_push_that_has_failed_often_waits_long_for_a_receiver_who_has_not() {
        let mut longest = Duration::ZERO;
        for number in 0..200 {
            let (mut receivers, now) = (Receivers::default(), Instant::now());
            receivers.start(&user(number), now).unwrap();
            let wait = receivers.failed(&user(number), 10, None, now).wait;
            longest = longest.max(wait);
        }
        assert!(longest > 30 * SECOND && longest <= 300 * SECOND);
    }

    #[test]
    fn who_is_held_is_not_held_shorter_by_what_fails_meanwhile() {
        let (mut receivers, now) = (Receivers::default(), Instant::now());
        receivers.start(&user(2), now).unwrap();
        receivers.start(&user(2), now).unwrap();
        receivers.failed(&user(2), 0, Some(60 * SECOND), now);
        receivers.failed(&user(2), 0, None, now);
        assert_eq!(receivers.start(&user(2), now + 59 * SECOND), Err(SECOND));
    }

    #[test]
    fn who_has_pushes_on_their_way_is_not_forgotten() {
        let (mut receivers, now) = (Receivers::default(), Instant::now());
        for _ in 0..MAX_ON_THEIR_WAY {
            receivers.start(&user(0), now).unwrap();
        }
        for number in 1..=MAX_RECEIVERS {
            receivers.start(&user(number), now).unwrap();
            receivers.failed(&user(number), 0, None, now);
        }
        assert_eq!(receivers.start(&user(0), now), Err(PLACE_WAIT));
    }

    #[test]
    fn one_who_is_slow_leaves_the_others_their_places() {
        let mut receivers = Receivers::default();
        let now = Instant::now();
        for _ in 0..MAX_ON_THEIR_WAY {
            receivers.start(&user(2), now).unwrap();
        }
        assert_eq!(receivers.start(&user(2), now), Err(PLACE_WAIT));
        assert_eq!(receivers.start(&user(3), now), Ok(()));
        receivers.undecided(&user(2));
        assert_eq!(receivers.start(&user(2), now), Ok(()));
    }

    #[test]
    fn those_who_are_tried_again_leave_places_to_the_others() {
        let mut receivers = Receivers::default();
        let now = Instant::now();
        for number in 0..MAX_IN_FLIGHT {
            receivers.start(&user(number), now).unwrap();
            receivers.failed(&user(number), 0, None, now);
        }
        let later = now + 10 * SECOND;
        let again: Vec<_> = (0..MAX_IN_FLIGHT)
            .filter(|number| receivers.start(&user(*number), later).is_ok())
            .collect();
        assert_eq!(again.len(), MAX_RETRIES);
        assert_eq!(receivers.start(&user(MAX_IN_FLIGHT), later), Ok(()));
        let waits = user(MAX_IN_FLIGHT - 1);
        assert_eq!(receivers.start(&waits, later), Err(PLACE_WAIT));
        receivers.failed(&user(again[0]), 0, None, later);
        assert_eq!(receivers.start(&waits, later), Ok(()));
    }

    #[test]
    fn there_is_a_bound_to_what_is_known() {
        let mut receivers = Receivers::default();
        let now = Instant::now();
        for number in 0..2 * MAX_RECEIVERS {
            receivers.start(&user(number), now).unwrap();
            let failed = receivers.failed(&user(number), 0, Some(60 * SECOND), now);
            assert!(failed.is_news && failed.wait == 60 * SECOND);
            assert!(receivers.known.len() <= MAX_RECEIVERS);
        }
        // Room comes back when their time is over.
        let later = now + 60 * SECOND;
        receivers.start(&user(2 * MAX_RECEIVERS), later).unwrap();
        receivers.failed(&user(2 * MAX_RECEIVERS), 0, None, later);
        assert_eq!(receivers.known.len(), 1);
    }
}
