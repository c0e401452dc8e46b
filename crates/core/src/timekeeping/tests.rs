//! The clocks of a machine, and what becomes of them.

use super::*;
use crate::time::Stamp;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// Some time in 2023.
const BEGINNING: Time = Time::from_micros(1_700_000_000_000_417);

/// A machine: what really passes, and what its clocks make of it.
struct Machine {
    reading: Reading,
    keeper: Timekeeper,
    /// The server's time when the true time began.
    first: Time,
    /// True time since.
    truth: Duration,
    changes: Vec<ClockChange>,
}

impl Machine {
    /// First start ever, with the wall clock wrong by so many milliseconds.
    fn new(error_millis: i64) -> Self {
        let wall = stepped(BEGINNING, error_millis);
        let reading = Reading {
            wall,
            boot: 1,
            since_boot: HOUR,
            awake: Duration::ZERO,
            is_synchronised: false,
        };
        let (keeper, change) = Timekeeper::start(reading, None);
        assert_eq!(change, None);
        Self {
            reading,
            first: keeper.now(),
            keeper,
            truth: Duration::ZERO,
            changes: Vec::new(),
        }
    }

    fn look(&mut self) -> Option<ClockChange> {
        let before = self.keeper.now();
        let change = self.keeper.look(self.reading);
        assert!(self.keeper.now() >= before, "the time has gone back");
        self.changes.extend(change);
        change
    }

    fn pass(&mut self, by: Duration) -> Option<ClockChange> {
        self.truth += by;
        self.reading.wall = self.reading.wall + by;
        self.reading.since_boot += by;
        self.reading.awake += by;
        self.look()
    }

    /// Second by second, as a server looks.
    fn run(&mut self, by: Duration) {
        (0..by.as_secs()).for_each(|_| {
            self.pass(SECOND);
        });
    }

    fn sleep(&mut self, by: Duration) -> Option<ClockChange> {
        self.truth += by;
        self.reading.wall = self.reading.wall + by;
        self.reading.since_boot += by;
        self.look()
    }

    fn step(&mut self, by_millis: i64) -> Option<ClockChange> {
        self.step_unseen(by_millis);
        self.look()
    }

    fn step_unseen(&mut self, by_millis: i64) {
        self.reading.wall = stepped(self.reading.wall, by_millis);
    }

    /// The server is off for a while.
    fn restart(&mut self, after: Duration) -> Option<ClockChange> {
        self.truth += after;
        self.reading.wall = self.reading.wall + after;
        self.reading.since_boot += after;
        self.start_again()
    }

    /// The machine is off for a while, and its wall clock runs on, or does not.
    fn reboot(&mut self, after: Duration, has_battery: bool) -> Option<ClockChange> {
        self.truth += after;
        if has_battery {
            self.reading.wall = self.reading.wall + after;
        }
        self.reading.boot += 1;
        self.reading.since_boot = 20 * SECOND;
        self.start_again()
    }

    fn start_again(&mut self) -> Option<ClockChange> {
        self.reading.awake = Duration::ZERO;
        let before = self.keeper.now();
        let (keeper, change) = Timekeeper::start(self.reading, Some(self.keeper.record()));
        self.keeper = keeper;
        assert!(self.keeper.now() >= before, "the time has gone back");
        self.changes.extend(change);
        change
    }

    /// How much the server thinks has passed.
    fn counted(&self) -> Duration {
        self.keeper.now().since(self.first)
    }

    fn stamp(&self) -> Stamp {
        let adjustments = Adjustments::default();
        self.keeper.publish(&adjustments);
        adjustments.stamp(self.keeper.now())
    }

    /// Stamps are the wall clock's, and as much has been counted as has passed.
    #[track_caller]
    fn assert_exact(&self) {
        assert_eq!(self.stamp().as_millis(), self.reading.wall.as_millis());
        assert_eq!(self.counted(), self.truth);
    }
}

fn stepped(wall: Time, by_millis: i64) -> Time {
    Time::from_micros(wall.as_micros().saturating_add_signed(by_millis * 1000))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

#[test]
fn a_clock_that_is_wrong_at_the_start_and_then_stepped_counts_what_has_passed() {
    for days in [-4000, -400, -40, -2, 2, 40, 400, 4000] {
        let error = days * millis(DAY);
        for restarts_before in [false, true] {
            let mut machine = Machine::new(error);
            machine.run(10 * SECOND);
            if restarts_before {
                machine.restart(5 * SECOND);
            }
            machine.step(-error);
            machine.assert_exact();
            machine.run(10 * SECOND);
            machine.restart(7 * SECOND);
            machine.assert_exact();
            // Or while it is off.
            machine.step_unseen(error);
            machine.restart(7 * SECOND);
            machine.assert_exact();
            machine.reboot(Duration::ZERO, true);
            machine.assert_exact();
        }
    }
}

#[test]
fn one_start_far_ahead_leaves_nothing_behind() {
    let mut machine = Machine::new(0);
    machine.run(10 * SECOND);
    machine.step_unseen(365 * millis(DAY));
    assert_eq!(
        machine.reboot(Duration::ZERO, true),
        Some(ClockChange::Ahead(365 * DAY))
    );
    machine.run(10 * SECOND);
    machine.step_unseen(-365 * millis(DAY));
    machine.reboot(Duration::ZERO, true);
    machine.run(2 * HOUR);
    machine.assert_exact();
    machine.reboot(10 * HOUR, true);
    machine.assert_exact();
}

#[test]
fn a_machine_that_sleeps_or_is_paused_or_off_counts_that() {
    let mut machine = Machine::new(0);
    assert_eq!(
        machine.sleep(10 * HOUR),
        Some(ClockChange::Slept(10 * HOUR))
    );
    machine.assert_exact();
    machine.sleep(40 * DAY);
    machine.assert_exact();
    machine.restart(40 * DAY);
    machine.assert_exact();
    machine.reboot(10 * HOUR, true);
    machine.assert_exact();
    // Paused: no clock of the machine has seen it, until somebody sets the wall clock.
    machine.truth += 10 * HOUR;
    assert_eq!(
        machine.step(millis(10 * HOUR)),
        Some(ClockChange::Followed(10 * HOUR))
    );
    machine.assert_exact();
    // Off, without a battery.
    machine.reboot(10 * HOUR, false);
    machine.step(millis(10 * HOUR));
    machine.assert_exact();
}

#[test]
fn a_clock_that_is_stepped_to_and_fro_drives_nothing_forward() {
    let mut machine = Machine::new(0);
    for _ in 0..50 {
        machine.step(-millis(HOUR));
        machine.pass(60 * SECOND);
        machine.step(millis(HOUR));
        machine.pass(60 * SECOND);
    }
    machine.assert_exact();
    for _ in 0..50 {
        machine.step(millis(30 * DAY));
        machine.pass(60 * SECOND);
        machine.step(-millis(30 * DAY));
        machine.pass(60 * SECOND);
    }
    machine.assert_exact();
    let steps = machine.changes.len();
    assert!(steps <= 200, "each step is said once, not at each look");
}

#[test]
fn a_clock_that_stays_behind_is_where_it_is_after_an_hour() {
    let mut machine = Machine::new(0);
    machine.step(-millis(2 * HOUR));
    machine.run(STEADY_FOR - 10 * SECOND);
    // Until then it may have been a mistake, and the way back is no time that has passed.
    machine.step(millis(HOUR));
    machine.assert_exact();
    machine.step(-millis(HOUR));
    machine.run(STEADY_FOR + 10 * SECOND);
    machine.truth += HOUR;
    machine.step(millis(HOUR));
    machine.assert_exact();
}

#[test]
fn small_differences_are_no_steps() {
    let mut machine = Machine::new(0);
    for _ in 0..100 {
        assert_eq!(machine.step(700), None);
        assert_eq!(machine.step(-700), None);
        assert_eq!(machine.pass(SECOND), None);
    }
    machine.assert_exact();
    // But they add up.
    machine.truth += Duration::from_millis(1400);
    machine.step(700);
    machine.step(700);
    machine.assert_exact();
}

#[test]
fn a_synchronised_clock_says_how_long_the_machine_was_off_but_not_at_once() {
    let mut machine = Machine::new(0);
    machine.reading.is_synchronised = true;
    machine.run(STEADY_FOR + 10 * SECOND);
    machine.assert_exact();
    machine.reading.is_synchronised = false;
    assert_eq!(
        machine.reboot(3 * DAY, true),
        Some(ClockChange::Ahead(3 * DAY))
    );
    let before = machine.counted();
    machine.run(5 * SECOND);
    assert_eq!(machine.counted(), before + 5 * SECOND);
    // Further starts in between do not make it forget.
    machine.restart(5 * SECOND);
    machine.reboot(5 * SECOND, true);
    machine.reading.is_synchronised = true;
    machine.run(STEADY_FOR - 10 * SECOND);
    assert!(machine.counted() < DAY);
    machine.run(20 * SECOND);
    machine.assert_exact();
    assert!(machine.changes.contains(&ClockChange::Proved(3 * DAY)));
    // From where it has proved to be, what it says of the time for which the machine is off counts at once.
    let change = machine.reboot(HOUR, true);
    assert!(
        matches!(change, Some(ClockChange::Followed(_))),
        "{change:?}"
    );
    machine.assert_exact();
}

#[test]
fn a_clock_that_has_proved_itself_and_steps_has_to_prove_itself_again() {
    let mut machine = Machine::new(0);
    machine.reading.is_synchronised = true;
    machine.run(STEADY_FOR + 10 * SECOND);
    let month_millis = 30 * 24 * 3_600_000;
    let change = machine.step(month_millis);
    assert_eq!(change, Some(ClockChange::Ahead(30 * DAY)));
    machine.run(STEADY_FOR - 10 * SECOND);
    assert!(machine.counted() < DAY);
    machine.run(20 * SECOND);
    assert_eq!(machine.changes.last(), Some(&ClockChange::Proved(30 * DAY)));
}

#[test]
fn a_machine_without_a_battery_is_put_right_by_the_network() {
    for up in [60 * SECOND, STEADY_FOR + 60 * SECOND] {
        let mut machine = Machine::new(0);
        machine.reading.is_synchronised = true;
        machine.run(STEADY_FOR + 10 * SECOND);
        machine.reading.is_synchronised = false;
        // It was off for two hours and comes up in 1970.
        machine.truth += 2 * HOUR;
        let now = machine.reading.wall;
        machine.reading.wall = Time::from_millis(20_000);
        machine.reboot(Duration::ZERO, false);
        machine.run(up);
        machine.reading.wall = now + 2 * HOUR + up;
        machine.look();
        machine.reading.is_synchronised = true;
        machine.run(STEADY_FOR + 10 * SECOND);
        machine.assert_exact();
    }
}

#[test]
fn the_first_proof_moves_nothing() {
    // What was stamped by a clock that nobody had vouched for cannot be dated by one that somebody has.
    let mut machine = Machine::new(-40 * millis(DAY));
    machine.run(10 * SECOND);
    machine.step(40 * millis(DAY));
    machine.reading.is_synchronised = true;
    machine.run(STEADY_FOR + 10 * SECOND);
    machine.assert_exact();
    assert_eq!(machine.changes, [ClockChange::Ahead(40 * DAY)]);
}

#[test]
fn a_proof_of_a_clock_that_is_behind_moves_nothing() {
    let mut machine = Machine::new(5 * millis(DAY));
    machine.reading.is_synchronised = true;
    machine.run(STEADY_FOR + 10 * SECOND);
    machine.step(-5 * millis(DAY));
    machine.run(STEADY_FOR + 10 * SECOND);
    machine.assert_exact();
    machine.reboot(3 * DAY, true);
    machine.run(STEADY_FOR + 10 * SECOND);
    machine.assert_exact();
}

#[test]
fn a_boot_that_is_not_known_is_no_boot_at_all() {
    let mut machine = Machine::new(0);
    machine.reading.boot = 0;
    machine.run(10 * SECOND);
    machine.reading.since_boot += 100 * DAY;
    machine.reading.awake = Duration::ZERO;
    let (keeper, _) = Timekeeper::start(machine.reading, Some(machine.keeper.record()));
    machine.keeper = keeper;
    machine.assert_exact();
}

#[test]
fn a_restored_virtual_machine_has_a_younger_boot_clock() {
    let mut machine = Machine::new(0);
    machine.run(100 * SECOND);
    machine.reading.since_boot -= 50 * SECOND;
    machine.reading.awake = Duration::ZERO;
    let (keeper, _) = Timekeeper::start(machine.reading, Some(machine.keeper.record()));
    machine.keeper = keeper;
    machine.assert_exact();
}

#[test]
fn absurd_clocks_begin_where_there_is_room() {
    for wall in [0, 1, i64::MAX as u64, u64::MAX] {
        let mut machine = Machine::new(0);
        machine.reading.wall = Time::from_millis(wall);
        let (keeper, change) = Timekeeper::start(machine.reading, None);
        assert_eq!(change, None);
        machine.keeper = keeper;
        assert!(machine.keeper.now() <= LATEST_START);
        machine.reading.wall = BEGINNING;
        machine.look();
        assert_eq!(machine.stamp().as_millis(), BEGINNING.as_millis());
    }
}

#[test]
fn a_reading_that_was_interrupted_makes_no_time() {
    let mut machine = Machine::new(0);
    let mut late = machine.reading;
    // The thread was held up for ten seconds between the boot clock and the last one.
    late.awake += 10 * SECOND;
    machine.keeper.look(late);
    machine.truth += 10 * SECOND;
    machine.reading.awake += 10 * SECOND;
    machine.reading.since_boot += 10 * SECOND;
    machine.reading.wall = machine.reading.wall + 10 * SECOND;
    machine.look();
    machine.assert_exact();
}
