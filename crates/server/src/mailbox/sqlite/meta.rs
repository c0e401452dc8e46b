//! Numbers that the file remembers by name.

use rusqlite::{Connection, Error, OptionalExtension};

/// The one below which all numbers of messages, sessions and wills may have been used.
pub(super) const LAST_SEQ: &str = "last_seq";

/// The number of this name, if there is one.
pub(super) fn get(connection: &Connection, name: &str) -> Result<Option<i64>, Error> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    let mut select = connection.prepare_cached(sql)?;
    select.query_row([name], |row| row.get(0)).optional()
}

pub(super) fn put(connection: &Connection, name: &str, value: i64) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";
    connection
        .prepare_cached(sql)?
        .execute((name, value))
        .map(drop)
}
