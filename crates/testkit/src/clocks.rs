//! The clocks of the bench's machine, and the server's time that is made of them as the server makes it.

use std::time::Duration;

use jam_core::router::Router;
use jam_core::time::Time;
use jam_core::timekeeping::{ClockRecord, Reading, Timekeeper, UNSEEN_MAX};

/// All clocks of a machine that is never switched off.
pub(crate) struct Clocks {
    pub(crate) reading: Reading,
    keeper: Timekeeper,
    /// What the server remembers when it is killed.
    record: ClockRecord,
    /// The server's time when it was started for the first time.
    start: Time,
    /// What has really passed since, and what may have passed as far as anybody can know who sees the wall clock step.
    truth: Duration,
    unseen: Duration,
}

impl Clocks {
    /// All are right, the server has just been started, for the first time.
    pub(crate) fn new(start: Time) -> Self {
        let reading = Reading {
            wall: start,
            boot: 1,
            since_boot: Duration::from_secs(3600),
            awake: Duration::ZERO,
            is_synchronised: false,
        };
        let (keeper, _) = Timekeeper::start(reading, None);
        Self {
            reading,
            record: keeper.record(),
            start: keeper.now(),
            keeper,
            truth: Duration::ZERO,
            unseen: Duration::ZERO,
        }
    }

    pub(crate) fn pass(&mut self, by: Duration) {
        self.reading.awake += by;
        self.sleep(by);
    }

    /// All but the clock that stops then.
    pub(crate) fn sleep(&mut self, by: Duration) {
        self.truth += by;
        self.reading.since_boot += by;
        self.reading.wall = self.reading.wall + by;
    }

    pub(crate) fn step(&mut self, by_millis: i64) {
        let forward = Duration::from_millis(u64::try_from(by_millis).unwrap_or(0));
        self.unseen += forward.min(UNSEEN_MAX);
        let wall = self.reading.wall.as_micros();
        self.reading.wall = Time::from_micros(wall.saturating_add_signed(by_millis * 1000));
    }

    /// The server was killed, and is started after a while. Of its record, whole milliseconds are kept, rounded so that
    /// no time is lost.
    pub(crate) fn restart(&mut self, after: Duration) {
        self.sleep(after);
        self.unseen += 2 * Duration::from_millis(1);
        let since_boot = self.record.since_boot.as_millis();
        self.record.since_boot = Duration::from_millis(since_boot.try_into().unwrap_or(u64::MAX));
        self.record.time = Time::from_millis(self.record.time.as_millis_up());
        self.reading.awake = Duration::ZERO;
        self.keeper = Timekeeper::start(self.reading, Some(self.record)).0;
    }

    /// The server's time, after a look at the clocks.
    ///
    /// # Panics
    /// If less has been counted than has passed, or more than can have.
    pub(crate) fn now(&mut self, router: &Router) -> Time {
        self.keeper.look(self.reading);
        self.keeper.publish(router.adjustments());
        self.record = self.keeper.record();
        let (now, counted) = (self.keeper.now(), self.keeper.now().since(self.start));
        assert!(
            self.truth <= counted && counted <= self.truth + self.unseen,
            "{counted:?} are counted, {:?} have passed, and at most {:?} unseen",
            self.truth,
            self.unseen
        );
        now
    }
}
