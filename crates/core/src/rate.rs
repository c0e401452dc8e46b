//! How fast a user may publish (PROTOCOL.md, section 8).
//!
//! A bucket that holds [`BURST`]'s worth of messages and fills at the rate, kept as the moment at which it
//! will be full again (the generic cell rate algorithm): one number, changed without a lock, for all of a
//! user's devices. What is refused takes nothing out, so a client that goes on at any speed gets its rate.
//!
//! Invariant: whatever the clock does, a bucket is full after `BURST` (`a_clock_that_goes_back`).

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Time;

/// As many messages may come at once as the rate lets through in this time.
pub const BURST: Duration = Duration::from_secs(10);

const NANOS_PER_SEC: u64 = 1_000_000_000;
const NANOS_PER_MICRO: u64 = 1000;
const BURST_NANOS: u64 = BURST.as_secs() * NANOS_PER_SEC;

/// What a user may publish at the moment.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    /// When the bucket is full again, in nanoseconds since the UNIX epoch.
    full_at: AtomicU64,
}

impl Allowance {
    /// Takes a message out, if there is one in it. `rate` is messages per second.
    pub(crate) fn take(&self, rate: NonZeroU32, now: Time) -> bool {
        let now = nanos(now);
        let message = NANOS_PER_SEC / u64::from(rate.get());
        let empty_at = now.saturating_add(BURST_NANOS);
        // Nothing else hangs on the number.
        let order = Ordering::Relaxed;
        let mut before = self.full_at.load(order);
        loop {
            // Later than `empty_at` it can only be if the clock has gone back.
            let full_at = before.clamp(now, empty_at);
            let taken = full_at.saturating_add(message);
            let (after, there_was_one) = if taken <= empty_at {
                (taken, true)
            } else {
                (full_at, false)
            };
            if after == before {
                return there_was_one;
            }
            let swap = self
                .full_at
                .compare_exchange_weak(before, after, order, order);
            match swap {
                Ok(_) => return there_was_one,
                Err(other) => before = other,
            }
        }
    }

    /// Whether it would make no difference if this were a new one.
    pub(crate) fn is_full(&self, now: Time) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanos(now)
    }
}

/// Until the year 2554.
fn nanos(time: Time) -> u64 {
    time.as_micros().saturating_mul(NANOS_PER_MICRO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_millis(1_700_000_000_000);

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    /// How many can be taken at a moment.
    fn drain(allowance: &Allowance, per_second: u32, now: Time) -> u32 {
        (0..u32::MAX)
            .find(|_| !allowance.take(rate(per_second), now))
            .unwrap()
    }

    #[test]
    fn a_burst_of_ten_seconds_then_the_rate() {
        for per_second in [1, 5, 50, 1000, 3000] {
            let allowance = Allowance::default();
            assert_eq!(drain(&allowance, per_second, START), 10 * per_second);
            let mut now = START;
            for _ in 0..5 {
                now = now + Duration::from_secs(1);
                let got = drain(&allowance, per_second, now);
                assert!(got.abs_diff(per_second) <= 1, "{got} of {per_second}");
            }
            assert!(!allowance.is_full(now));
            now = now + BURST;
            assert!(allowance.is_full(now));
            assert_eq!(drain(&allowance, per_second, now), 10 * per_second);
        }
    }

    #[test]
    fn what_is_refused_takes_nothing_out() {
        let allowance = Allowance::default();
        drain(&allowance, 10, START);
        let mut taken = 0;
        for millis in 0..10_000 {
            let now = START + Duration::from_millis(millis);
            taken += u32::from(allowance.take(rate(10), now));
        }
        assert!((99..=100).contains(&taken), "{taken} in ten seconds");
    }

    #[test]
    fn a_clock_that_goes_back() {
        let allowance = Allowance::default();
        drain(&allowance, 10, START + Duration::from_secs(1_000_000));
        assert!(!allowance.take(rate(10), START));
        let later = START + Duration::from_millis(100);
        assert_eq!(drain(&allowance, 10, later), 1);
        assert_eq!(drain(&allowance, 10, START + 3 * BURST), 100);
    }

    #[test]
    fn more_than_can_be_counted_is_unlimited() {
        let allowance = Allowance::default();
        for _ in 0..100_000 {
            assert!(allowance.take(rate(u32::MAX), START));
        }
    }
}
