//! The time as an argument.
//!
//! Nothing in this crate reads a clock. A [`Time`] is milliseconds since the UNIX epoch, so that what
//! is measured in days (session expiry, message age) survives a restart of the server.

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

/// Milliseconds since the UNIX epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// A time so late that it never comes.
    pub const NEVER: Self = Self(u64::MAX);

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

    /// The lower half, for what is compared within minutes: it comes round after seven weeks.
    #[must_use]
    pub fn low_millis(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("the higher bits are gone")
    }

    /// The first time after this one.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// The text of a time in what the server writes: RFC 3339, in UTC, with milliseconds. What is later than
/// the year 9999 is in it.
pub(crate) fn rfc3339(time: Time) -> impl std::fmt::Display {
    const LAST_SECS: u64 = 253_402_300_799;
    let since = Duration::from_millis(time.0).min(Duration::from_secs(LAST_SECS));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since)
}
