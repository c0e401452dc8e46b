//! What the system says of this process, as every exporter names it. Where there is no `/proc`, it is 0.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::snapshot::as_number;
use super::{Gauge, Gauges};

/// Adds the usual seven.
pub(crate) fn gather(gauges: &mut Gauges) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may hold anything; the field behind it is the third.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| -> u64 {
        let text = fields.get(number - 3);
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let ticks = as_number(clock_ticks_per_second().max(1));
    let booted: u64 = fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
            line.trim().parse().ok()
        })
        .unwrap_or(0);
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = |resource| as_number(getrlimit(resource).current.unwrap_or(u64::MAX));
    gauges.set(
        Gauge::ProcessCpu,
        &[as_number(field(14) + field(15)) / ticks],
    );
    gauges.set(
        Gauge::ProcessStart,
        &[as_number(booted) + as_number(field(22)) / ticks],
    );
    gauges.set(Gauge::ProcessVirtual, &[as_number(field(23))]);
    gauges.set(
        Gauge::ProcessResident,
        &[as_number(field(24) * page_size() as u64)],
    );
    gauges.set(Gauge::ProcessOpenFds, &[as_number(open as u64)]);
    gauges.set(Gauge::ProcessMaxFds, &[limit(Resource::Nofile)]);
    gauges.set(Gauge::ProcessVirtualMax, &[limit(Resource::As)]);
}
