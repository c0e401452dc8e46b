//! The accounts database in tables of PostgreSQL that other programs write to (PROTOCOL.md, section 6).
//!
//! # Layout
//!
//! - [`database`]: [`PostgresDirectory`], what the rules ask. Answers from memory.
//! - `shared`: what is in memory, and whether that may be believed now.
//! - `thread`: the thread that has the connections, connects anew, and answers what memory does not know; `requests`: what it is asked.
//! - `session`: the connections to one server, and what is told over one of them.
//! - `schema`: the tables, with triggers that tell of every change. `rows`: the statements of a running server; `tokens`: API tokens.
//! - [`administration`]: what the commands and the admin API do; `lists` and `changes` have its statements. `copying`: from
//!   or into another kind of database.
//!
//! Invariants: a change that was committed more than `shared::LEASE` ago is never contradicted, whatever becomes of a connection or
//! of the server (`tests::notified`, `tests::trouble`); nobody waits longer than `shared::SILENCE` for a server that does
//! not answer, nor longer than `thread::PATIENCE` for one that does; serving writes nothing but to clear a notification token that is dead.

pub mod administration;
mod changes;
pub(super) mod copying;
pub mod database;
mod lists;
mod requests;
mod rows;
mod schema;
mod session;
mod shared;
#[cfg(test)]
pub(crate) mod tests;
mod thread;
mod tokens;

use super::administration::Outcome;
use super::{
    AccountsDatabase, Administration, AdministrationError, DirectoryError, Friend, FriendList,
    Inspection, NewToken, Page, PageRequest, PushAddress, Reply, User, Who,
};
use crate::metrics::StoreFailure;
use crate::postgres::{Address, FailureKind, PostgresError, open, require_fsync};
pub use administration::PostgresAdministration;
pub use database::PostgresDirectory;
pub use schema::{create_schema, has_schema};

/// Looks at the database, and changes nothing.
pub(super) async fn inspect(address: &Address) -> Result<Inspection, DirectoryError> {
    let client = open(address, "jam-mqtt check").await?;
    let other = open(address, "jam-mqtt check").await?;
    session::refuse_poolers(&client, &other).await?;
    require_fsync(&client).await?;
    schema::check(&client).await?;
    let count = client.query_one("SELECT count(*) FROM accounts", &[]);
    let accounts: i64 = count.await.map_err(PostgresError::from)?.get(0);
    Ok(Inspection {
        accounts: u32::try_from(accounts).unwrap_or(u32::MAX),
        can_push: true,
    })
}

/// Makes the tables.
///
/// # Errors
/// If there are tables of these names, or they cannot be made; then nothing has changed.
pub async fn init(address: &Address) -> Result<(), DirectoryError> {
    let mut client = open(address, "jam-mqtt cluster init").await?;
    if has_schema(&client).await? {
        let why = format!("{address} has tables of these names already; name a database without");
        return Err(DirectoryError::new(why));
    }
    let tx = client.transaction().await.map_err(PostgresError::from)?;
    create_schema(&tx).await?;
    Ok(tx.commit().await.map_err(PostgresError::from)?)
}

impl From<PostgresError> for DirectoryError {
    fn from(error: PostgresError) -> Self {
        let failure = match error.kind() {
            FailureKind::DiskFull => StoreFailure::Full,
            FailureKind::Busy => StoreFailure::Busy,
            FailureKind::SchemaMissing => StoreFailure::Corrupt,
            _ => StoreFailure::Io,
        };
        Self::of(failure, format!("PostgreSQL with the accounts: {error}"))
    }
}
