//! The server's time, made of several clocks, each of which may be wrong.
//!
//! The wall clock may be wrong and may step; the monotonic clock stops while the machine sleeps; the boot
//! clock begins anew with each boot. [`Timekeeper`] makes one time of the three, which only goes forward, by
//! which ages are counted (expiry, sessions, wills). What is shown to people is the wall clock's:
//! [`Adjustments::stamp`].
//!
//! Invariants (`timekeeping/tests.rs`): the server's time never goes back; a step of the wall clock by more
//! than [`UNSEEN_MAX`] does not move it before the clock has proved itself; a step back does not stop it.
//! Why: `docs/adr/0014`.

use std::time::Duration;

use crate::time::{Adjustments, Time};

#[cfg(test)]
mod tests;

/// The most time that may have passed without any other clock having seen it (the machine was off, a virtual
/// one was paused) for the wall clock alone to be believed: one day.
pub const UNSEEN_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long the wall clock must have been synchronised, and must not have stepped, before it has proved
/// itself; and how long it must have stayed behind before that is where it is: one hour.
pub const STEADY_FOR: Duration = Duration::from_secs(3600);

/// A wall clock that differs by less than this has not stepped.
pub const STEP_MIN: Duration = Duration::from_secs(1);

/// When a mailbox may begin at the latest: 2100-01-01. Beyond, the time would have no room to go on in.
const LATEST_START: Time = Time::from_millis(4_102_444_800_000);

/// All clocks at one moment. `awake` is read last: a delay between the readings then looks like
/// a clock that is behind, and not like time that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: Time,
    /// Which boot this is; 0 if that is not known.
    pub boot: u64,
    /// Since the boot, with the time in which the machine slept.
    pub since_boot: Duration,
    /// Since some moment of this process, without the time in which the machine slept.
    pub awake: Duration,
    /// Whether the kernel says that this wall clock is synchronised.
    pub is_synchronised: bool,
}

/// What is to be remembered from one start of the server to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockRecord {
    /// The server's time: the highest seen.
    pub time: Time,
    /// How far the wall clock is from the server's time when it stands where it is expected, in milliseconds.
    pub offset_millis: i64,
    /// See [`Reading::boot`].
    pub boot: u64,
    /// See [`Reading::since_boot`].
    pub since_boot: Duration,
    /// What `offset_millis` was when the wall clock had last proved itself, if it ever has.
    pub proved_offset_millis: Option<i64>,
}

/// What a look at the clocks has brought to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockChange {
    /// The machine slept for so long; it counts.
    Slept(Duration),
    /// The wall clock has gone ahead by so much more than the others, and is believed.
    Followed(Duration),
    /// By so much that it is not, until it has proved itself.
    Ahead(Duration),
    /// The wall clock has stepped back by so much. The server's time goes on.
    Behind(Duration),
    /// The wall clock has proved itself: so much time has passed without having been seen, and counts now.
    Proved(Duration),
}

/// Makes the server's time.
#[derive(Debug)]
pub struct Timekeeper {
    /// The server's time when `awake` was zero, had nothing been skipped.
    base: Time,
    skipped: Duration,
    /// How long the machine has slept since its boot, less a constant.
    slept: Duration,
    offset_millis: i64,
    proved_offset_millis: Option<i64>,
    last: Reading,
    /// The wall clock less the server's time at the last look.
    last_offset_millis: i64,
    /// Since when the wall clock has been behind without a break.
    behind_since: Option<Duration>,
    /// Since when the wall clock has been synchronised without a step.
    steady_since: Option<Duration>,
}

impl Timekeeper {
    /// Goes on from what was remembered, and says what the wall clock has done meanwhile. Without a record,
    /// the time begins with the wall clock.
    #[must_use]
    pub fn start(reading: Reading, record: Option<ClockRecord>) -> (Self, Option<ClockChange>) {
        let record = record.unwrap_or_else(|| {
            let time = reading.wall.min(LATEST_START);
            ClockRecord {
                time,
                offset_millis: difference(reading.wall.as_millis(), time.as_millis()),
                boot: 0,
                since_boot: Duration::ZERO,
                proved_offset_millis: None,
            }
        });
        let is_same_boot = reading.boot != 0 && reading.boot == record.boot;
        let passed = is_same_boot
            .then(|| reading.since_boot.checked_sub(record.since_boot))
            .flatten()
            .unwrap_or_default();
        let mut this = Self {
            base: record.time + passed - reading.awake,
            skipped: Duration::ZERO,
            slept: reading.since_boot.saturating_sub(reading.awake),
            offset_millis: record.offset_millis,
            proved_offset_millis: record.proved_offset_millis,
            last: reading,
            last_offset_millis: record.offset_millis,
            behind_since: None,
            steady_since: None,
        };
        let change = this.look(reading);
        (this, change)
    }

    /// Looks at the clocks; to be called a few times a second. Afterwards [`Self::publish`].
    pub fn look(&mut self, reading: Reading) -> Option<ClockChange> {
        self.last = reading;
        let slept = reading.since_boot.saturating_sub(reading.awake);
        let more = slept.saturating_sub(self.slept);
        self.slept = self.slept.max(slept);
        self.skipped += more;
        let slept = (more >= STEP_MIN).then_some(ClockChange::Slept(more));
        let stepped = self.look_at_wall();
        let proved = self.look_for_proof();
        self.last_offset_millis = self.wall_offset_millis();
        proved.or(stepped).or(slept)
    }

    /// The server's time at the last look.
    #[must_use]
    pub fn now(&self) -> Time {
        self.base + self.last.awake + self.skipped
    }

    /// The server's time when [`Reading::awake`] was zero, had nothing been skipped.
    #[must_use]
    pub fn base(&self) -> Time {
        self.base
    }

    /// Tells everybody who has to know.
    pub fn publish(&self, adjustments: &Adjustments) {
        let offset_micros = difference(self.last.wall.as_micros(), self.now().as_micros());
        adjustments.set(self.skipped, offset_micros);
    }

    /// What is to be remembered.
    #[must_use]
    pub fn record(&self) -> ClockRecord {
        ClockRecord {
            time: self.now(),
            offset_millis: self.offset_millis,
            boot: self.last.boot,
            since_boot: self.last.since_boot,
            proved_offset_millis: self.proved_offset_millis,
        }
    }

    fn wall_offset_millis(&self) -> i64 {
        difference(self.last.wall.as_millis(), self.now().as_millis())
    }

    fn look_at_wall(&mut self) -> Option<ClockChange> {
        let offset = self.wall_offset_millis();
        let step = offset.saturating_sub(self.offset_millis);
        let by = Duration::from_millis(step.unsigned_abs());
        let is_step = by >= STEP_MIN;
        if !(is_step && step < 0) {
            self.behind_since = None;
        }
        if !is_step {
            return None;
        }
        if step < 0 {
            // A clock that is stepped to and fro must not drive the time forward with each return.
            let since = *self.behind_since.get_or_insert(self.last.awake);
            if self.last.awake.saturating_sub(since) >= STEADY_FOR {
                self.offset_millis = offset;
                self.behind_since = None;
            }
            let is_news = has_stepped(self.last_offset_millis, offset);
            return is_news.then_some(ClockChange::Behind(by));
        }
        if by <= UNSEEN_MAX {
            self.skipped += by;
            return Some(ClockChange::Followed(by));
        }
        self.offset_millis = offset;
        Some(ClockChange::Ahead(by))
    }

    /// A clock that is synchronised is right, and so was it when it last was: what lies between is how long
    /// it took.
    fn look_for_proof(&mut self) -> Option<ClockChange> {
        let offset = self.wall_offset_millis();
        let has_stepped = has_stepped(self.last_offset_millis, offset);
        if !self.last.is_synchronised || has_stepped {
            self.steady_since = None;
        }
        if !self.last.is_synchronised {
            return None;
        }
        let since = *self.steady_since.get_or_insert(self.last.awake);
        if self.last.awake.saturating_sub(since) < STEADY_FOR {
            return None;
        }
        let unseen = self
            .proved_offset_millis
            .map_or(0, |proved| offset.saturating_sub(proved));
        let unseen = Duration::from_millis(u64::try_from(unseen).unwrap_or(0));
        let unseen = if unseen >= STEP_MIN {
            unseen
        } else {
            Duration::ZERO
        };
        self.skipped += unseen;
        let offset = self.wall_offset_millis();
        self.offset_millis = offset;
        self.behind_since = None;
        self.proved_offset_millis = Some(offset);
        (!unseen.is_zero()).then_some(ClockChange::Proved(unseen))
    }
}

/// Negative if `a` is less than `b`.
fn difference(a: u64, b: u64) -> i64 {
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    signed(a) - signed(b)
}

fn has_stepped(before_millis: i64, after_millis: i64) -> bool {
    Duration::from_millis(before_millis.abs_diff(after_millis)) >= STEP_MIN
}
