//! The clocks' record as it stands in the file: some rows of `meta`.
//!
//! Invariant: a record is written whole, in one transaction; what cannot be right is as good as none.

use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use rusqlite::{Connection, Error};

use super::meta;
use super::records as rec;

/// The rows of `meta`.
const TIME: &str = "time";
const OFFSET: &str = "wall_offset";
const BOOT: &str = "boot";
const SINCE_BOOT: &str = "since_boot";
const PROVED_OFFSET: &str = "proved_offset";

/// What is there; `None` if a mailbox has never been served.
pub(super) fn read(connection: &Connection) -> Result<Option<ClockRecord>, Error> {
    let get = |name| meta::get(connection, name);
    let Some(time) = get(TIME)? else {
        return Ok(None);
    };
    Ok(Some(ClockRecord {
        time: Time::from_millis(rec::from_number(time)?),
        offset_millis: get(OFFSET)?.unwrap_or(0),
        boot: u64::try_from(get(BOOT)?.unwrap_or(0)).unwrap_or(0),
        since_boot: rec::from_duration(get(SINCE_BOOT)?.unwrap_or(0))?,
        proved_offset_millis: get(PROVED_OFFSET)?,
    }))
}

pub(super) fn write(connection: &Connection, record: &ClockRecord) -> Result<(), Error> {
    meta::put(connection, TIME, rec::coming(record.time))?;
    meta::put(connection, OFFSET, record.offset_millis)?;
    meta::put(connection, BOOT, rec::number(record.boot))?;
    meta::put(connection, SINCE_BOOT, rec::duration(record.since_boot))?;
    record.proved_offset_millis.map_or(Ok(()), |offset| {
        meta::put(connection, PROVED_OFFSET, offset)
    })
}
