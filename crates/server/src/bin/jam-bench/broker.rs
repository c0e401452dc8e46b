//! The broker's CPU time and memory, as Linux tells them in /proc.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::BenchError;

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// In user mode and in the kernel for it.
    #[serde(serialize_with = "seconds")]
    pub(crate) cpu: Duration,
    /// Resident set.
    pub(crate) rss_kib: u64,
    /// Proportional set; 0 if it may not be read.
    pub(crate) pss_kib: u64,
}

/// The unit of CPU time in /proc (proc_pid_stat(5)): USER_HZ, which is 100 on every Linux architecture
/// this is built for.
const TICK: Duration = Duration::from_millis(10);

impl Usage {
    /// Of the process and all of its threads.
    pub(crate) fn of(pid: u32) -> Result<Self, BenchError> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let stat = read("stat").map_err(|error| {
            BenchError::new(format!(
                "cannot read the CPU time of process {pid}: {error}"
            ))
        })?;
        let cpu = cpu_of(&stat)
            .ok_or_else(|| BenchError::new(format!("/proc/{pid}/stat is not understood")))?;
        let rss_kib = field(&read("status").unwrap_or_default(), "VmRSS:");
        let pss_kib = field(&read("smaps_rollup").unwrap_or_default(), "Pss:");
        Ok(Self {
            cpu,
            rss_kib,
            pss_kib,
        })
    }
}

/// Fields 14 and 15; the name before them may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * (user + system))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Usage, cpu_of, field};

    #[test]
    fn of_this_process() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_kib > 0);
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(field("Rss: 1 kB\nPss:   42 kB\n", "Pss:"), 42);
    }
}
