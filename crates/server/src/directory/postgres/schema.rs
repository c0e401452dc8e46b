//! The tables, and whether a database has them.

use tokio_postgres::{Client, GenericClient, Transaction};

use crate::postgres::{FailureKind, PostgresError};

/// Of the tables that this server reads.
pub(super) const VERSION: i32 = 1;

pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// Triggers without which a change would not be noticed, or a token stand in the clear.
const TRIGGERS: i64 = 9;

/// Makes the tables, in the schema that comes first in the user's `search_path`.
///
/// # Errors
/// If there are tables of these names, or this user may not make any.
pub async fn create_schema(tx: &Transaction<'_>) -> Result<(), PostgresError> {
    Ok(tx.batch_execute(SCHEMA).await?)
}

/// Whether the tables are there.
///
/// # Errors
/// If it cannot be asked.
pub async fn has_schema(client: &impl GenericClient) -> Result<bool, PostgresError> {
    let sql =
        "SELECT to_regclass('jam_directory') IS NOT NULL OR to_regclass('accounts') IS NOT NULL
        OR to_regclass('user_friends') IS NOT NULL";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Fails unless the tables are those that this server can read, and their triggers are on.
pub(super) async fn check(client: &Client) -> Result<(), PostgresError> {
    let wrong = |why: String| Err(PostgresError::new(FailureKind::SchemaMissing, why));
    let sql = "SELECT to_regclass('jam_directory') IS NOT NULL";
    if !client.query_one(sql, &[]).await?.get::<_, bool>(0) {
        return wrong(
            "the database has no accounts tables of jam-mqtt; `jam-mqtt cluster init` makes them in an empty one"
                .to_owned(),
        );
    }
    let version = client.query_one("SELECT version FROM jam_directory", &[]);
    let version: i32 = version.await?.get(0);
    if version != VERSION {
        return wrong(format!(
            "the accounts tables are of version {version}, and this program reads version {VERSION}; \
             run the program that is as old or as new as they are"
        ));
    }
    let sql = "SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('accounts'::regclass, 'user_friends'::regclass)
        AND tgname LIKE 'jam\\_directory\\_%' AND tgenabled IN ('O', 'A')";
    let triggers: i64 = client.query_one(sql, &[]).await?.get(0);
    if triggers < TRIGGERS {
        return wrong(
            "triggers jam_directory_… are missing or switched off on accounts or user_friends, so that changes would \
             not be noticed; ALTER TABLE … ENABLE ALWAYS TRIGGER, or make the tables anew"
                .to_owned(),
        );
    }
    Ok(())
}
