//! The time as an argument.
//!
//! Nothing in this crate reads a clock. A [`Time`] is the server's: it begins as microseconds since the UNIX
//! epoch and only goes forward, so that what is measured in days (session expiry, message age) survives a
//! restart of the server. What the wall clock shows is a [`Stamp`].
//!
//! The store keeps milliseconds. What happens at a time is rounded up for it ([`Time::as_millis_up`]), so that a
//! restart makes nothing happen early; what has happened is rounded down ([`Time::as_millis`]).

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A tick is 2 to this power microseconds.
const TICK_BITS: u32 = 4;

/// Microseconds in a millisecond.
const MILLI: u64 = 1000;

/// Microseconds of the server's time (`timekeeping`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// A time so late that it never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// From milliseconds; more than there is room for are [`Self::NEVER`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(MILLI))
    }

    /// From microseconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / MILLI
    }

    /// Milliseconds, rounded up. [`Self::NEVER`] comes back from them as it is.
    #[must_use]
    pub const fn as_millis_up(self) -> u64 {
        self.0.div_ceil(MILLI)
    }

    /// The lower 32 bits of the milliseconds, for what is compared within minutes: they come round after seven
    /// weeks.
    #[must_use]
    pub fn low_millis(self) -> u32 {
        u32::try_from(self.as_millis() & u64::from(u32::MAX)).expect("the higher bits are gone")
    }

    /// Some of the bits, for what takes a moment and is only measured: see [`Ticks::until`].
    #[inline]
    pub(crate) fn ticks(self) -> Ticks {
        #[expect(clippy::cast_possible_truncation, reason = "the lower bits are wanted")]
        Ticks((self.0 >> TICK_BITS) as u32)
    }

    /// This time, or the first one after `now` if it has come by then.
    #[must_use]
    pub(crate) fn after(self, now: Self) -> Self {
        self.max(Self(now.0.saturating_add(1)))
    }

    /// When `what`, which has been dealt with at `now`, is due again: later than that. If it is not, that is a fault, and it
    /// comes once more and not for ever.
    #[must_use]
    pub(crate) fn again_after(self, now: Self, what: &impl fmt::Debug) -> Self {
        debug_assert!(
            self > now,
            "{what:?} has just been dealt with at {now:?} and is due again at {self:?}"
        );
        self.after(now)
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A moment in 32 bits: to 16 microseconds, and it comes round after nineteen hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticks(u32);

impl Ticks {
    /// Microseconds until then, if that is less than nine hours; none if another thread has read the clock earlier.
    #[inline]
    pub(crate) fn until(self, now: Time) -> u64 {
        let ticks = now.ticks().0.wrapping_sub(self.0).cast_signed();
        u64::try_from(ticks).unwrap_or(0) << TICK_BITS
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// What lies between the server's time and other clocks. One for the whole process: the server's clock
/// writes it (`timekeeping`), everybody else reads it.
#[derive(Debug, Default)]
pub struct Adjustments {
    skipped_micros: AtomicU64,
    /// The wall clock less the server's time.
    wall_micros: AtomicI64,
}

impl Adjustments {
    /// `skipped`: see [`Self::skipped`]; `wall_offset_micros`: the wall clock less the server's time.
    pub fn set(&self, skipped: Duration, wall_offset_micros: i64) {
        let skipped = u64::try_from(skipped.as_micros()).unwrap_or(u64::MAX);
        self.skipped_micros.store(skipped, Ordering::Relaxed);
        self.wall_micros
            .store(wall_offset_micros, Ordering::Relaxed);
    }

    /// How far the time has been moved on since the start because it had passed without having been seen: the
    /// machine slept, or the wall clock says so. Only goes up. A client that could say nothing in that time
    /// has not been silent.
    #[must_use]
    pub fn skipped(&self) -> Duration {
        Duration::from_micros(self.skipped_micros.load(Ordering::Relaxed))
    }

    /// What the wall clock shows at a time, for people and for other machines. The only way there.
    #[must_use]
    pub fn stamp(&self, time: Time) -> Stamp {
        let offset = self.wall_micros.load(Ordering::Relaxed);
        Stamp(time.0.saturating_add_signed(offset) / MILLI)
    }
}

/// A moment as the wall clock shows it: milliseconds since the UNIX epoch. Its text is RFC 3339, in UTC, with
/// milliseconds; what is later than the year 9999 is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// From milliseconds since the UNIX epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the UNIX epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST_SECS: u64 = 253_402_300_799;
        let since = Duration::from_millis(self.0).min(Duration::from_secs(LAST_SECS));
        humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let text = |millis| Stamp::from_millis(millis).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_714_564_800_007), "2024-05-01T12:00:00.007Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn the_store_rounds_what_happens_up_and_what_has_happened_down() {
        for (micros, down, up) in [(0, 0, 0), (999, 0, 1), (1000, 1, 1), (1001, 1, 2)] {
            let time = Time::from_micros(micros);
            assert_eq!((time.as_millis(), time.as_millis_up()), (down, up));
            assert!(Time::from_millis(up) >= time && Time::from_millis(down) <= time);
        }
        assert_eq!(Time::from_millis(Time::NEVER.as_millis_up()), Time::NEVER);
        assert_eq!(Time::from_millis(u64::MAX), Time::NEVER);
    }

    #[test]
    fn what_has_come_by_now_is_set_for_later_and_what_has_not_is_left() {
        let time = Time::from_micros;
        for (due, now, after) in [(0, 7, 8), (6, 7, 8), (7, 7, 8), (8, 7, 8), (9, 7, 9)] {
            assert_eq!(time(due).after(time(now)), time(after));
        }
        assert_eq!(Time::NEVER.after(time(7)), Time::NEVER);
    }

    #[test]
    fn a_time_is_counted_in_microseconds() {
        let time = Time::from_millis(1);
        let later = time + Duration::from_micros(7);
        assert_eq!(later.as_micros(), 1007);
        assert_eq!(later.since(time), Duration::from_micros(7));
        assert_eq!(later - Duration::from_micros(1007), Time::default());
        assert_eq!(time + Duration::MAX, Time::NEVER);
    }

    #[test]
    fn a_stamp_shows_the_millisecond_of_the_wall_clock() {
        let adjustments = Adjustments::default();
        adjustments.set(Duration::ZERO, 400);
        for (micros, stamp) in [(1599, 1), (1600, 2)] {
            let shown = adjustments.stamp(Time::from_micros(micros));
            assert_eq!(shown.as_millis(), stamp, "{micros}");
        }
    }

    #[test]
    fn a_stamp_is_as_far_from_the_time_as_the_wall_clock() {
        let adjustments = Adjustments::default();
        let time = Time::from_millis(1000);
        for (offset, stamp) in [(0, 1000), (500, 1500), (-700, 300), (-2000, 0)] {
            adjustments.set(Duration::ZERO, offset * 1000);
            assert_eq!(adjustments.stamp(time).as_millis(), stamp);
        }
    }
}
