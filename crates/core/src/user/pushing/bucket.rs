//! How many pushes of one sender reach one receiver, whatever the receiver does (PROTOCOL.md, section 9).
//!
//! A token bucket: [`BURST`] tokens, one for each push that goes out, one of them back in each collapse window.
//! It is a single time, and a full one need not be remembered. The store does not have it: a restart fills it.

use std::time::Duration;

use crate::push::BURST;
use crate::time::Time;

/// The tokens that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bucket {
    /// When all of them are back.
    full_at: Time,
}

impl Bucket {
    /// One token was taken at `at`.
    pub(super) fn taken_at(at: Time, window: Duration) -> Self {
        Self {
            full_at: at + window,
        }
    }

    /// Takes a token; `Err` says when there will be one, which is after `now`.
    pub(super) fn take(&mut self, now: Time, window: Duration) -> Result<(), Time> {
        // After the clock was set back, all tokens are back within the time that they take at most.
        self.full_at = self.full_at.min(now + window.saturating_mul(BURST));
        let available_at = self.full_at - window.saturating_mul(BURST - 1);
        if available_at > now {
            return Err(available_at);
        }
        self.full_at = self.full_at.max(now) + window;
        Ok(())
    }

    /// Nothing went out for a token that was taken.
    pub(super) fn give_back(&mut self, window: Duration) {
        self.full_at = self.full_at - window;
    }

    /// A bucket that is full by now is as good as new.
    pub(super) fn refill(&mut self, now: Time) {
        if self.full_at <= now {
            *self = Self::default();
        }
    }

    /// When it is full again, if it is not.
    pub(super) fn full_at(self) -> Option<Time> {
        (self != Self::default()).then_some(self.full_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);
    const NOW: Time = Time::from_millis(1_700_000_000_000);

    fn empty() -> Bucket {
        let mut bucket = Bucket::default();
        for _ in 0..BURST {
            assert_eq!(bucket.take(NOW, WINDOW), Ok(()));
        }
        bucket
    }

    #[test]
    fn three_at_once_and_then_one_in_each_window() {
        let mut bucket = empty();
        let mut now = NOW;
        for _ in 0..10 {
            let next = now + WINDOW;
            assert_eq!(bucket.take(now, WINDOW), Err(next));
            assert_eq!(
                bucket.take(next - Duration::from_millis(1), WINDOW),
                Err(next)
            );
            assert_eq!(bucket.take(next, WINDOW), Ok(()));
            now = next;
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut bucket = empty();
        bucket.give_back(WINDOW);
        assert_eq!(bucket.take(NOW, WINDOW), Ok(()));
        assert_eq!(bucket.take(NOW, WINDOW), Err(NOW + WINDOW));
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(NOW, WINDOW), Ok(()));
        bucket.give_back(WINDOW);
        bucket.refill(NOW);
        assert_eq!(bucket.full_at(), None);
    }

    #[test]
    fn no_more_than_three_are_saved() {
        let mut bucket = empty();
        let later = NOW + WINDOW * 100;
        bucket.refill(later);
        assert_eq!(bucket, Bucket::default());
        for _ in 0..BURST {
            assert_eq!(bucket.take(later, WINDOW), Ok(()));
        }
        assert!(bucket.take(later, WINDOW).is_err());
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_close_it() {
        let mut bucket = empty();
        let before = NOW - WINDOW * 1_000_000;
        assert_eq!(bucket.take(before, WINDOW), Err(before + WINDOW));
        assert_eq!(bucket.take(before + WINDOW, WINDOW), Ok(()));
    }

    #[test]
    fn without_a_window_there_is_always_one() {
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            assert_eq!(bucket.take(NOW, Duration::ZERO), Ok(()));
            bucket.refill(NOW);
        }
    }
}
