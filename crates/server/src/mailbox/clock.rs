//! When what is to be remembered of the clocks is worth a write of its own.

use std::time::Duration;

use jam_core::timekeeping::ClockRecord;

/// Whether a record says something that the one that is kept does not, or so little of it is left that an idle
/// writer has to write it: the machine's clocks say the rest.
pub(super) fn is_news(record: &ClockRecord, written: Option<&ClockRecord>) -> bool {
    const EVERY: Duration = Duration::from_secs(3600);
    written.is_none_or(|written| {
        let key = |it: &ClockRecord| (it.offset_millis, it.boot, it.proved_offset_millis);
        key(written) != key(record) || record.time.since(written.time) >= EVERY
    })
}
