//! The one clock of the process: the server's time, by which everything is counted.
//!
//! Everything that needs the time asks here and hands it on as an argument. What the time is made of stands in
//! [`jam_core::timekeeping`]: the machine's clocks, each of which may be wrong, and what the mailbox
//! remembers of them; `machine` reads them. [`watch`] looks at them a few times a second.
//!
//! Invariants: [`Clock::now`] never goes backwards. What people and other machines are shown is
//! [`Clock::stamp`], which follows the wall clock; nothing is counted by it.

mod machine;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jam_core::router::{OnCommit, Router};
use jam_core::store::MailboxStore;
use jam_core::time::{Adjustments, Stamp, Time};
use jam_core::timekeeping::{ClockChange, ClockRecord, STEADY_FOR, Timekeeper};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ticks::{next, ticks};
use machine::Machine;

/// How often the machine's clocks are looked at: so late are stamps after a step of the wall clock.
const TICK: Duration = Duration::from_millis(250);

/// How often the mailbox is told the time.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Microseconds that only go forward.
#[derive(Debug)]
pub(crate) struct Clock {
    anchor: Instant,
    base: Time,
    adjustments: Arc<Adjustments>,
    machine: Machine,
    keeper: Mutex<Timekeeper>,
}

impl Clock {
    /// Reads the machine's clocks for the first time, and says what they have done since the record was made.
    pub(crate) fn start(
        adjustments: Arc<Adjustments>,
        record: Option<ClockRecord>,
    ) -> (Self, Option<ClockChange>) {
        let anchor = Instant::now();
        let machine = Machine::default();
        let (keeper, change) = Timekeeper::start(machine.read(anchor), record);
        keeper.publish(&adjustments);
        let clock = Self {
            anchor,
            base: keeper.base(),
            adjustments,
            machine,
            keeper: Mutex::new(keeper),
        };
        (clock, change)
    }

    /// The time now.
    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    /// What the wall clock shows at a time.
    pub(crate) fn stamp(&self, time: Time) -> Stamp {
        self.adjustments.stamp(time)
    }

    /// When the runtime's timer has to fire so that [`Clock::now`] is at least `time`, if nothing is skipped until
    /// then.
    ///
    /// A time too far off for the timer becomes one in a hundred years.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        const FARTHEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let start = self.base + self.adjustments.skipped();
        self.anchor + time.since(start).min(FARTHEST)
    }

    /// The time at an instant; the other way round.
    pub(crate) fn time(&self, instant: Instant) -> Time {
        self.base + (instant.duration_since(self.anchor) + self.adjustments.skipped())
    }

    /// Looks at the machine's clocks.
    fn look(&self) -> Option<ClockChange> {
        let mut keeper = self.keeper();
        let change = keeper.look(self.machine.read(self.anchor));
        keeper.publish(&self.adjustments);
        change
    }

    /// What is to be remembered for the next start.
    pub(crate) fn record(&self) -> ClockRecord {
        let keeper = self.keeper();
        keeper.record()
    }

    fn keeper(&self) -> MutexGuard<'_, Timekeeper> {
        self.keeper
            .lock()
            .expect("a panic under a lock ends the process")
    }
}

/// The time of the server that has left this record, be it running or not.
pub(crate) fn time_after(record: Option<ClockRecord>) -> Time {
    let machine = Machine::default();
    let (keeper, _) = Timekeeper::start(machine.read(Instant::now()), record);
    keeper.now()
}

/// Looks at the machine's clocks until the server stops, and has the mailbox remember them.
pub(crate) async fn watch(
    clock: Arc<Clock>,
    router: Arc<Router>,
    mailbox: Arc<dyn MailboxStore<OnCommit>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(TICK);
    let mut kept: Option<Instant> = None;
    while next(&mut ticks, &mut stop).await {
        let change = clock.look();
        if let Some(change) = change {
            report(change, &router, clock.now());
        }
        if change.is_some() || kept.is_none_or(|at| at.elapsed() >= KEEP_EVERY) {
            kept = Some(Instant::now());
            mailbox.keep_clock(clock.record());
        }
    }
    clock.look(); // or what is kept is as old as the last look
    mailbox.keep_clock(clock.record());
}

/// Logs what an operator has to know of it. `now` is the server's time.
pub(crate) fn report(change: ClockChange, router: &Router, now: Time) {
    let words = |by: Duration| humantime::format_duration(Duration::from_secs(by.as_secs()));
    match change {
        ClockChange::Slept(by) => {
            tracing::info!("the machine slept for {}; that counts", words(by));
        }
        ClockChange::Followed(by) => {
            tracing::info!(
                "the wall clock has gone ahead by {}; that counts",
                words(by)
            );
        }
        ClockChange::Behind(by) => tracing::warn!(
            "the wall clock has gone back by {}; the server's time goes on, and nothing expires later for it",
            words(by)
        ),
        ClockChange::Proved(by) => tracing::info!(
            "the wall clock has proved itself: {} have passed that no other clock has seen; that counts now",
            words(by)
        ),
        ClockChange::Ahead(by) => {
            let outlook = router.outlook(now, now + by);
            tracing::warn!(
                messages = outlook.messages,
                sessions = outlook.sessions,
                retained = outlook.retained,
                "the wall clock is {} ahead of the time that has passed, which is not believed: {} messages, {} \
                 sessions and {} retained messages would expire by it, and stay. It is believed when it has been \
                 synchronised (NTP) for {} and the one before was",
                words(by),
                outlook.messages,
                outlook.sessions,
                outlook.retained,
                words(STEADY_FOR)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::start(Arc::default(), None).0
    }

    #[test]
    fn a_time_is_reached_at_its_instant() {
        let clock = clock();
        for skipped in [0, 3_600_000] {
            let offset = -1000 * i64::try_from(skipped).unwrap();
            clock
                .adjustments
                .set(Duration::from_millis(skipped), offset);
            let due = clock.now() + Duration::from_millis(30);
            let instant = clock.instant(due);
            let wait = instant.saturating_duration_since(Instant::now());
            assert!(wait <= Duration::from_millis(30), "{wait:?}");
            std::thread::sleep(wait);
            assert!(clock.now() >= due);
            assert_eq!(clock.time(instant), due);
        }
    }

    #[test]
    fn never_is_an_instant_too() {
        let clock = clock();
        assert!(clock.instant(Time::NEVER) > Instant::now() + Duration::from_secs(3600));
    }

    #[test]
    fn a_past_time_is_reached_at_once() {
        let clock = clock();
        assert!(clock.instant(Time::from_millis(1)) <= Instant::now());
    }

    #[test]
    fn a_restart_goes_on_with_what_was_remembered() {
        let first = clock();
        let record = ClockRecord {
            time: first.now() + Duration::from_secs(100 * 24 * 3600),
            ..first.record()
        };
        assert_ne!(record.boot, 0, "the boot has a name");
        let (second, change) = Clock::start(Arc::default(), Some(record));
        assert!(matches!(change, Some(ClockChange::Behind(_))), "{change:?}");
        let ran = second.now().since(record.time);
        assert!(ran < Duration::from_secs(60), "{ran:?}");
        assert!(time_after(Some(record)) >= record.time);
        // Stamps are the wall clock's all the same.
        let stamp = second.stamp(second.now()).as_millis();
        let wall = first.stamp(first.now()).as_millis();
        assert!(stamp.abs_diff(wall) < 60_000);
    }

    #[test]
    fn everybody_goes_by_what_a_look_has_found() {
        let clock = clock();
        let (an_hour, offset) = (Duration::from_secs(3600), 7_200_000_000);
        clock.adjustments.set(an_hour, offset);
        let wrong = clock.stamp(clock.now()).as_millis();
        clock.look();
        assert!(clock.adjustments.skipped() < an_hour);
        let stamp = clock.stamp(clock.now()).as_millis();
        assert!(wrong.abs_diff(stamp) > 3_600_000);
    }

    #[test]
    fn looking_moves_nothing_by_itself() {
        let clock = clock();
        for _ in 0..1000 {
            assert_eq!(clock.look(), None);
        }
        assert!(clock.adjustments.skipped() < Duration::from_secs(1));
    }
}
