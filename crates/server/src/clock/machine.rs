//! The machine's clocks, and what the kernel says of them.
//!
//! They are read through the C library, so that whatever stands between (a test with another time) is heard.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jam_core::time::Time;
use jam_core::timekeeping::{Reading, STEP_MIN};
use tokio::time::Instant;

/// What does not change as long as the process runs.
#[derive(Debug)]
pub(super) struct Machine {
    /// Which boot this is; 0 if that is not known.
    boot: u64,
    /// Whether the kernel may be asked about its clock: a filter of system calls might end the process for it.
    may_ask: bool,
}

impl Default for Machine {
    fn default() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let status = fs::read_to_string("/proc/self/status");
        Self {
            boot: id.map_or(0, |id| boot(&id)),
            may_ask: status.is_ok_and(|status| is_unfiltered(&status)),
        }
    }
}

impl Machine {
    /// All clocks, the monotonic one, which counts from `anchor`, last.
    pub(super) fn read(&self, anchor: Instant) -> Reading {
        let wall = since_epoch();
        let is_synchronised = self.may_ask && is_meant(kernel::synchronised(), wall);
        // Without a boot clock, the machine's sleep is the wall clock's affair.
        let since_boot = kernel::since_boot();
        let awake = anchor.elapsed();
        Reading {
            wall: Time::from_millis(0) + wall,
            boot: since_boot.map_or(0, |_| self.boot),
            since_boot: since_boot.unwrap_or(awake),
            awake,
            is_synchronised,
        }
    }
}

/// Whether what the kernel vouches for is the wall clock that this process sees.
fn is_meant(synchronised: Option<Duration>, wall: Duration) -> bool {
    synchronised.is_some_and(|kernel| kernel.abs_diff(wall) < STEP_MIN)
}

/// Before 1970 is 1970.
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The first 63 bits of the boot's UUID, which is random.
fn boot(id: &str) -> u64 {
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).map_or(0, |id| id >> 1)
}

fn is_unfiltered(status: &str) -> bool {
    let mut lines = status.lines();
    let mode = lines.find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_none_or(|mode| mode.trim() == "0")
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::time::Duration;

    /// The clock that goes on while the machine sleeps.
    #[allow(unsafe_code)] // the standard library does not have this clock
    pub(super) fn since_boot() -> Option<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is that of a `timespec` that outlives the call, and nobody keeps it.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        let secs = u64::try_from(time.tv_sec).ok()?;
        let nanos = u32::try_from(time.tv_nsec).ok()?;
        (result == 0).then(|| Duration::new(secs, nanos))
    }

    /// What time it is, if the kernel says that its clock is synchronised. It vouches for its own clock: whether
    /// that is the one that this process sees is for the caller to compare.
    #[allow(unsafe_code)] // no library that is in the tree asks this
    pub(super) fn synchronised() -> Option<Duration> {
        // SAFETY: `timex` is integers only, for which zero is a value; with no mode set, nothing is changed.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is that of a `timex` that outlives the call, and the kernel does not keep it.
        let state = unsafe { libc::adjtimex(&raw mut timex) };
        let is_synchronised =
            state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0;
        let secs = u64::try_from(timex.time.tv_sec).ok()?;
        is_synchronised.then(|| Duration::from_secs(secs))
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::time::Duration;

    pub(super) fn since_boot() -> Option<Duration> {
        None
    }

    pub(super) fn synchronised() -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_half_a_uuid() {
        assert_eq!(
            boot("03375ef9-1260-49ef-9706-670553fb912a\n"),
            0x0337_5ef9_1260_49ef >> 1
        );
        assert_eq!(boot("ffffffff-ffff-ffff-ffff-ffffffffffff"), u64::MAX >> 1);
        assert_eq!(boot(""), 0);
    }

    #[test]
    fn the_kernel_is_not_asked_through_a_filter() {
        assert!(is_unfiltered(
            "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"
        ));
        assert!(!is_unfiltered(
            "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"
        ));
        assert!(is_unfiltered("Name:\tx\n"));
    }

    #[test]
    fn the_kernel_vouches_for_no_clock_but_its_own() {
        let wall = Duration::from_millis(100_900);
        assert!(is_meant(Some(Duration::from_secs(100)), wall));
        assert!(is_meant(Some(Duration::from_secs(101)), wall));
        assert!(!is_meant(Some(Duration::from_secs(99)), wall));
        assert!(!is_meant(Some(Duration::from_secs(102)), wall));
        assert!(!is_meant(None, wall));
    }

    #[test]
    fn clocks_go_on() {
        let (machine, anchor) = (Machine::default(), Instant::now());
        let before = machine.read(anchor);
        let after = machine.read(anchor);
        assert!(before.awake <= after.awake && before.since_boot <= after.since_boot);
        assert!(
            before.since_boot > Duration::ZERO
                && before.wall > Time::from_millis(1_700_000_000_000)
        );
        // The kernel's answer is about the second that both clocks are in.
        if let Some(kernel) = kernel::synchronised() {
            assert!(kernel.abs_diff(since_epoch()) < Duration::from_secs(5));
        }
    }
}
