//! The one clock of the process: monotonic, and anchored once to the wall clock at start.
//!
//! Everything that needs the time asks here and hands it on as an argument. An adjustment of the wall
//! clock while the server runs neither ends a keep alive early nor lets a session live for ever; the
//! next start takes the new wall clock. Invariant: [`Clock::now`] never goes backwards.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jam_core::time::Time;
use tokio::time::Instant;

/// Milliseconds since the UNIX epoch that only go forward.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    anchor: Instant,
    anchor_time: Time,
}

impl Clock {
    /// Reads the wall clock, for the only time.
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            anchor: Instant::now(),
            anchor_time: Time::from_millis(0) + since_epoch,
        }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    /// When the runtime's timer has to fire so that [`Clock::now`] is at least `time`.
    ///
    /// A time too far off for the timer becomes one in a hundred years.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        const FARTHEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        self.anchor + time.since(self.anchor_time).min(FARTHEST)
    }

    /// The time at an instant; the other way round.
    pub(crate) fn time(&self, instant: Instant) -> Time {
        self.anchor_time + instant.duration_since(self.anchor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_reached_at_its_instant() {
        let clock = Clock::start();
        let due = clock.now() + Duration::from_millis(30);
        let instant = clock.instant(due);
        std::thread::sleep(instant.saturating_duration_since(Instant::now()));
        assert!(clock.now() >= due);
        assert_eq!(clock.time(instant), due);
    }

    #[test]
    fn never_is_an_instant_too() {
        let clock = Clock::start();
        assert!(clock.instant(Time::NEVER) > Instant::now() + Duration::from_secs(3600));
    }

    #[test]
    fn a_past_time_is_reached_at_once() {
        let clock = Clock::start();
        assert!(clock.instant(Time::from_millis(1)) <= Instant::now());
    }
}
