//! The database's tables and functions, their version, and what is looked at before they are believed.
//!
//! Invariant: a schema is made by a command, in a database that has none of its tables, and never by a start.

use tokio_postgres::Client;

use crate::mailbox::OpenError;
use crate::postgres::{self, Address, FailureKind, PostgresError};

/// The schema that this program knows.
pub(super) const VERSION: i32 = 1;

/// Parts that users are hashed into. They are fixed for ever.
pub(super) const PARTS: u16 = 4096;

/// What makes the schema, in one transaction.
const SQL: &str = include_str!("schema.sql");

/// What `jam-mqtt cluster migrate` has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// The version that is there.
    pub from: i32,
    /// The one that this program knows.
    pub to: i32,
}

/// Makes the tables, in the transaction of the caller.
pub(super) async fn create(client: &Client) -> Result<(), PostgresError> {
    client.batch_execute(SQL).await.map_err(PostgresError::from)
}

/// Tables and views that stand in the schema where ours are to be made; but for the accounts', which may be there.
pub(super) async fn tables(client: &Client) -> Result<Vec<String>, PostgresError> {
    let sql = "SELECT relname::text FROM pg_class
         WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
         AND relname NOT IN ('accounts', 'user_friends', 'user_devices', 'jam_directory') ORDER BY 1";
    let rows = client.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Fails unless the schema of this version is there.
pub(super) async fn require(client: &Client, address: &Address) -> Result<(), OpenError> {
    let found = version(client, address).await?;
    let known = i64::from(VERSION);
    match i64::from(found) {
        found if found > known => Err(OpenError::database(
            address,
            format!(
                "it has schema version {found}, and this program knows {known} at most: run the version that made it, \
                 or a later one"
            ),
        )),
        found if found < known => Err(OpenError::database(
            address,
            format!(
                "it has schema version {found}: bring it up to {known} with `jam-mqtt cluster migrate`"
            ),
        )),
        _ => Ok(()),
    }
}

/// The schema version.
pub(super) async fn version(client: &Client, address: &Address) -> Result<i32, OpenError> {
    let row = client
        .query_opt("SELECT schema, parts FROM cluster", &[])
        .await;
    let row = row.map_err(|error| match PostgresError::from(error) {
        error if error.kind() == FailureKind::SchemaMissing => OpenError::no_schema(address),
        error => OpenError::postgres(address, &error),
    })?;
    let Some(row) = row else {
        return Err(OpenError::no_schema(address));
    };
    let (version, parts): (i32, i32) = (row.get(0), row.get(1));
    if parts != i32::from(PARTS) {
        let what = format!("it is divided into {parts} parts, and this program knows {PARTS}");
        return Err(OpenError::database(address, what));
    }
    Ok(version)
}

/// What of the database's own settings would lose what was acknowledged: an error, or what is to be said.
pub(super) async fn durability(client: &Client) -> Result<Vec<String>, String> {
    let synced = postgres::require_fsync(client).await;
    synced.map_err(|error| error.to_string())?;
    let sql = "SELECT current_setting('full_page_writes'),
         (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),
         current_setting('synchronous_standby_names')";
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(|error| PostgresError::from(error).to_string())?;
    let [full_pages, commit, standbys] = [0, 1, 2].map(|at| row.get::<_, String>(at));
    let mut said = Vec::new();
    if full_pages == "off" {
        said.push(
            "full_page_writes=off: unless the file system writes whole pages, a loss of power damages the database"
                .to_owned(),
        );
    }
    if commit == "off" || commit == "local" {
        said.push(format!(
            "synchronous_commit={commit}: the mailbox sets it to on for itself, other programs' commits may be lost"
        ));
    }
    if standbys.is_empty() {
        said.push(
            "synchronous_standby_names is empty: messages that were acknowledged are lost with this machine's disk; \
             name a synchronous standby"
                .to_owned(),
        );
    }
    Ok(said)
}
