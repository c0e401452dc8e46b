//! The accounts database in an SQLite file that other processes write to (PROTOCOL.md, section 6).
//!
//! # Layout
//!
//! - [`database`]: [`SqliteDirectory`], what the rules ask. Answers from memory, never waits for a lock on the file.
//! - `shared`: the open file, what is in memory of it, and whether that may be believed now.
//! - `loader`: the thread that reads the file for it; `requests`: what it is asked.
//! - `friends`: who is told of whose presence; `shown`: which friends a user is shown.
//! - `direct`: a fact read by the thread that asks, where that takes no time.
//! - `files`: which files the database consists of, and whether they are those that are open.
//! - `wal_index`: whether another process has committed anything, for nothing.
//! - `schema`: opening, creating and checking the file. `rows`: ids and facts as they stand in it; `values`: of any type. `tokens`: API tokens.
//! - [`administration`]: what the commands and the admin API do; `lists` and `changes` have its statements. `backup`: a copy. `copying`: from
//!   or into another kind of database.
//!
//! Invariants: serving writes to the file only to hash tokens in one of our own, at the start, and to clear a notification token that is dead
//! (`tests::pushing`), and never holds a read transaction between two questions
//! (`tests::waiting::a_writer_is_never_in_the_way`); what another process has committed more than
//! `shared::LOOK_AGE` ago is never contradicted (`tests::looking::nothing_stale_is_told`); what cannot be
//! understood lets nobody in.

pub mod administration;
mod backup;
mod changes;
pub(super) mod copying;
pub mod database;
mod direct;
mod files;
mod friends;
mod lists;
mod loader;
mod requests;
mod rows;
mod schema;
mod shared;
mod shown;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod values;
mod wal_index;

use std::path::Path;

use super::administration::Outcome;
use super::{
    AccountsDatabase, Administration, AdministrationError, DirectoryError, Friend, FriendList,
    Inspection, NewToken, Page, PageRequest, PushAddress, Reply, User, Who,
};
use crate::metrics::StoreFailure;
pub use administration::SqliteAdministration;
pub use backup::{backup, check_backup, restore};
pub use database::SqliteDirectory;
pub(crate) use direct::leave_reading_to_the_loader;
use friends::{Friends, ListCursor};
use shown::{Shown, ShownCursor};

/// Makes an empty accounts database, unless something is there.
///
/// # Errors
/// If it cannot be made.
pub fn create(path: &Path) -> Result<(), DirectoryError> {
    schema::create_if_missing(path)
}

/// Hashes the tokens that are in the clear in a database of our own. How many there were.
pub(super) fn hash_tokens(path: &Path) -> Result<u64, DirectoryError> {
    tokens::hash_all(path)
}

/// Looks at the database at `path`, and leaves no trace.
pub(super) fn inspect(path: &Path) -> Result<Inspection, DirectoryError> {
    if !path.exists() {
        let why = format!("there is no {}", path.display());
        return Err(DirectoryError::new(why));
    }
    let connection = schema::open_for_inspection(path)?;
    schema::check(&connection, path)?;
    let sql = "SELECT count(*) FROM accounts";
    Ok(Inspection {
        accounts: connection.query_row(sql, [], |row| row.get(0))?,
        can_push: schema::has_notification_tokens(&connection)?,
    })
}

impl From<rusqlite::Error> for DirectoryError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{ConstraintViolation, ReadOnly};
        let message = match error.sqlite_error_code() {
            _ if is_busy(&error) => {
                "the accounts database is locked by another process; try again".to_owned()
            }
            Some(ConstraintViolation) => {
                format!("the accounts database's own rules forbid this change: {error}")
            }
            Some(ReadOnly) => format!("the accounts database cannot be written: {error}"),
            _ => format!("the accounts database cannot be read: {error}"),
        };
        Self::of(failure(&error), message)
    }
}

/// As it is counted. A table or column that is missing, and a value that is none, are damage: reading again helps nobody.
fn failure(error: &rusqlite::Error) -> StoreFailure {
    use rusqlite::ErrorCode::{
        DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase,
        OperationInterrupted, TypeMismatch, Unknown,
    };
    match error.sqlite_error_code() {
        Some(DiskFull) => StoreFailure::Full,
        Some(DatabaseBusy | DatabaseLocked | OperationInterrupted) => StoreFailure::Busy,
        Some(DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown) => StoreFailure::Corrupt,
        None if !matches!(error, rusqlite::Error::InvalidQuery) => StoreFailure::Corrupt,
        // `InvalidQuery` is what the loader says while no file is open.
        Some(_) | None => StoreFailure::Io,
    }
}

/// Whether another process holds a lock that will go away.
fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseBusy | DatabaseLocked)
    )
}
