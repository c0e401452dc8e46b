//! What an error of PostgreSQL means for the mailbox.

use tokio_postgres::error::Severity;

use crate::mailbox::OpenError;
use crate::metrics::StoreFailure;
use crate::postgres::{Address, FailureKind, PostgresError};

/// `jam_begin`, `jam_takeover`: another server has taken over.
pub(super) const FENCED: &str = "JAM01";
/// `jam_begin`: the batch is not the one after the last.
pub(super) const CHAIN: &str = "JAM02";
/// `jam_takeover`: the server that was to be fenced has been heard of.
pub(super) const ALIVE: &str = "JAM03";
/// A key that is there already.
pub(super) const UNIQUE: &str = "23505";
/// A lock that was not to be had in time.
pub(super) const LOCKED: &str = "55P03";

impl OpenError {
    /// In words that say what to do.
    pub(super) fn database(address: &Address, what: impl Into<String>) -> Self {
        Self::Database {
            place: address.to_string(),
            what: what.into(),
        }
    }

    pub(super) fn postgres(address: &Address, error: &PostgresError) -> Self {
        Self::database(address, error.to_string())
    }

    pub(super) fn no_schema(address: &Address) -> Self {
        Self::database(
            address,
            "it has no mailbox: `jam-mqtt cluster init` makes one in an empty database",
        )
    }

    /// The database has gone back.
    pub(super) fn lost(address: &Address, batches: u64) -> Self {
        Self::Lost {
            place: address.to_string(),
            batches,
        }
    }

    /// Another server has the database.
    pub(super) fn served(address: &Address) -> Self {
        Self::InUse {
            place: format!("in {address}"),
            instead: "a database",
        }
    }
}

/// The five characters of an error that ended a statement, and left the connection as it was: the transaction is aborted.
pub(super) fn refusal(error: &tokio_postgres::Error) -> Option<&str> {
    let told = error.as_db_error()?;
    // An older server does not say it in English.
    let is_error = told.parsed_severity() == Some(Severity::Error);
    is_error.then(|| told.code().code())
}

/// As it is counted.
pub(super) fn failure(kind: FailureKind) -> StoreFailure {
    match kind {
        FailureKind::DiskFull => StoreFailure::Full,
        FailureKind::Busy => StoreFailure::Busy,
        _ => StoreFailure::Io,
    }
}
