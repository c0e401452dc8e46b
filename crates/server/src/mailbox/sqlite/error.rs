//! What an error of SQLite means for the mailbox.

use std::path::Path;

use rusqlite::types::Type;

use crate::mailbox::OpenError;
use crate::mailbox::values::Wrong;

impl OpenError {
    /// Sorts an error of SQLite: what cannot be read as a database is damage, the rest may pass.
    pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            Self::Full(path.to_owned())
        } else if is_damage(error) {
            Self::damaged(path, error.to_string())
        } else {
            Self::io(path, error)
        }
    }
}

/// Whether the file holds something else than it should, however often it is read.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, SqlInputError,
        Utf8Error,
    };
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | SqlInputError { .. }
            | Utf8Error(..)
    ) || matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase | Unknown)
    )
}

impl From<Wrong> for rusqlite::Error {
    fn from(wrong: Wrong) -> Self {
        Self::FromSqlConversionFailure(0, Type::Null, Box::new(wrong))
    }
}
