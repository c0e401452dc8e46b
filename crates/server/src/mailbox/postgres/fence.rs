//! Who may write: one server, by the row of its incarnation in `fence`.
//!
//! A start takes a new number from `cluster.epoch`, and then the row of the node, of which there is one while no cluster is
//! set up. A server whose beat in that row goes on is left alone, and the start is refused. One that has been silent for
//! [`SILENCE`] is fenced: its rows go, so that no batch of it can be committed any more, however late it comes, and it ends
//! when it learns of that. After a crash nobody waits: the lock on a file of the data directory says that the process
//! before is dead, and that it has no connection left says that the file is no copy of a server's that lives.
//!
//! Invariant: at any time at most one server has both a fence row and the node's row (`tests::fencing`).

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::connection::{BEGIN, Database, Purpose, name, names};
use super::error::{ALIVE, FENCED, LOCKED};
use super::schema;
use crate::folders;
use crate::mailbox::OpenError;
use crate::postgres::{Address, PostgresError};

/// The one row of `node` while no cluster is set up.
pub(super) const NODE: &str = "";

/// A server whose beat has not changed for so long is dead, by our own clock.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Between two looks at another's beat.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a start may try to fence a server that is silent: its back ends have to end first.
const FENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long `pg_terminate_backend` waits for a back end to end, in milliseconds.
const TERMINATE_MILLIS: i64 = 2_000;

/// How long a request of a start may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What stands in `cluster.lock` behind the incarnation of a process that has sent what it could not write down.
const UNWRITTEN: &str = "unwritten";

/// A file in the data directory: locked as long as this process serves; in it, its incarnation.
#[derive(Debug)]
pub(super) struct ServerLock {
    file: File,
    before: Option<i64>,
    /// What the process before has sent is not known: it ended while nothing could be written.
    was_unwritten: bool,
}

impl ServerLock {
    pub(super) fn take(data: &Path, address: &Address) -> Result<Self, OpenError> {
        let path = data.join("cluster.lock");
        let io = |error: std::io::Error| OpenError::io(&path, error);
        folders::make_private(data).map_err(io)?;
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::served(address)),
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
        }
        let mut text = String::new();
        match file.read_to_string(&mut text) {
            Err(error) if error.kind() != ErrorKind::InvalidData => return Err(io(error)),
            _ => {}
        }
        let mut words = text.split_ascii_whitespace();
        Ok(Self {
            file,
            before: words.next().and_then(|number| number.parse().ok()),
            was_unwritten: words.next() == Some(UNWRITTEN),
        })
    }

    /// To be called before the node's row says so. If this is lost, the next start waits for [`SILENCE`].
    fn remember(&mut self, incarnation: i64) -> std::io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.note(incarnation, self.was_unwritten)
    }

    /// Whether the process before has sent messages of which the database does not say so.
    pub(super) fn was_unwritten(&self) -> bool {
        self.was_unwritten
    }

    /// Has the next start know whether this process has. A process that is killed leaves the old line or the new one; it waits
    /// for no disk, so that of a machine that loses its power none may be left.
    pub(super) fn note(&self, incarnation: i64, is_unwritten: bool) -> std::io::Result<()> {
        let word = if is_unwritten { UNWRITTEN } else { "" };
        let line = format!("{incarnation} {word:width$}\n", width = UNWRITTEN.len());
        self.file.write_all_at(line.as_bytes(), 0)
    }
}

/// Takes the database for this process. Its incarnation.
pub(super) async fn enter(address: &Address, lock: &mut ServerLock) -> Result<i64, OpenError> {
    let fail = |error: PostgresError| OpenError::postgres(address, &error);
    let database = Database::connect(address, "jam-start", Purpose::Start);
    let database = database.await.map_err(fail)?;
    schema::require(database.client(), address).await?;
    let me = begin(&database).await.map_err(fail)?;
    let entered = match lock.remember(me) {
        Ok(()) => take_node(&database, address, me, lock.before).await,
        Err(error) => Err(unwritable(address, &error)),
    };
    if entered.is_err() {
        // It has never written.
        let sql = format!("{BEGIN}; DELETE FROM fence WHERE incarnation = {me}; COMMIT");
        drop(
            database
                .within(REQUEST_TIMEOUT, database.client().batch_execute(&sql))
                .await,
        );
    }
    database.close().await;
    entered.map(|()| me)
}

pub(super) fn unwritable(address: &Address, error: &std::io::Error) -> OpenError {
    let what =
        format!("cluster.lock in the data directory cannot be written: {error}; look at the disk");
    OpenError::database(address, what)
}

/// A new number, and its fence row: nobody had it before.
async fn begin(database: &Database) -> Result<i64, PostgresError> {
    let client = database.client();
    let number = async {
        client.batch_execute(BEGIN).await?;
        let sql = "UPDATE cluster SET epoch = epoch + 1 RETURNING epoch";
        let me: i64 = client.query_one(sql, &[]).await?.get(0);
        client
            .execute("INSERT INTO fence (incarnation) VALUES ($1)", &[&me])
            .await?;
        client.batch_execute("COMMIT").await?;
        // A server that fences this one ends its connections by this name.
        let sql = format!("SET application_name = '{}'", name(me, Purpose::Start));
        client.batch_execute(&sql).await?;
        Ok(me)
    };
    database.within(REQUEST_TIMEOUT, number).await
}

/// What the node's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    incarnation: i64,
    beat: i64,
}

async fn seen(database: &Database) -> Result<Option<Seen>, PostgresError> {
    let sql = "SELECT incarnation, beat FROM node WHERE id = $1";
    let row = database.client().query_opt(sql, &[&NODE]);
    let row = database.within(REQUEST_TIMEOUT, row).await?;
    Ok(row.map(|row| Seen {
        incarnation: row.get(0),
        beat: row.get(1),
    }))
}

async fn take_node(
    database: &Database,
    address: &Address,
    me: i64,
    before: Option<i64>,
) -> Result<(), OpenError> {
    let fail = |error: PostgresError| OpenError::postgres(address, &error);
    let began = Instant::now();
    while began.elapsed() < FENCE_TIMEOUT {
        let Some(other) = seen(database).await.map_err(fail)? else {
            if insert_node(database, me).await.map_err(fail)? {
                return Ok(());
            }
            continue;
        };
        let is_before = before == Some(other.incarnation);
        if !is_dead(database, other, is_before).await.map_err(fail)? {
            return Err(OpenError::served(address));
        }
        match take_over(database, me, other).await.map_err(fail)? {
            TakenOver::Yes => {
                tracing::info!(
                    incarnation = other.incarnation,
                    "the server before this one is fenced"
                );
                return Ok(());
            }
            // It was heard of just now, or is gone.
            TakenOver::IsAlive => {}
            TakenOver::IsBusy => end_connections(database, other.incarnation)
                .await
                .map_err(fail)?,
            TakenOver::Fenced => return Err(OpenError::served(address)),
        }
    }
    Err(OpenError::database(
        address,
        "the server before this one is dead, and its connections to PostgreSQL cannot be ended: end the processes that \
         pg_stat_activity shows with application_name 'jam-…', or restart PostgreSQL",
    ))
}

async fn insert_node(database: &Database, me: i64) -> Result<bool, PostgresError> {
    let client = database.client();
    let inserted = async {
        client.batch_execute(BEGIN).await?;
        let row: [&(dyn ToSql + Sync); 3] = [&NODE, &me, &env!("CARGO_PKG_VERSION")];
        let inserted = client.execute(INSERT_NODE, &row).await?;
        client.batch_execute("COMMIT").await?;
        Ok(inserted == 1)
    };
    database.within(REQUEST_TIMEOUT, inserted).await
}

const INSERT_NODE: &str =
    "INSERT INTO node (id, incarnation, release) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Whether a server's beat does not change for [`SILENCE`]. Of the process before this one it is enough that its connections
/// have ended, and one beat may have been on its way.
async fn is_dead(database: &Database, other: Seen, is_before: bool) -> Result<bool, PostgresError> {
    if is_before && !is_connected(database, other.incarnation).await? {
        return Ok(true);
    }
    tracing::info!(
        incarnation = other.incarnation,
        "another server has had the mailbox: waiting whether it is still there"
    );
    let (mut last, mut since) = (other, Instant::now());
    while since.elapsed() < SILENCE {
        sleep(LOOK_INTERVAL).await;
        match seen(database).await? {
            Some(now) if now == last => {}
            Some(now) if is_before && last == other && now.incarnation == other.incarnation => {
                (last, since) = (now, Instant::now());
            }
            _ => return Ok(false),
        }
        if is_before && !is_connected(database, other.incarnation).await? {
            return Ok(true);
        }
    }
    Ok(true)
}

async fn is_connected(database: &Database, incarnation: i64) -> Result<bool, PostgresError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE $1)";
    let names = names(incarnation);
    let whose: [&(dyn ToSql + Sync); 1] = [&names];
    let row = database.client().query_one(sql, &whose);
    Ok(database.within(REQUEST_TIMEOUT, row).await?.get(0))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakenOver {
    Yes,
    IsAlive,
    /// A transaction of it is not at its end.
    IsBusy,
    /// This one has been fenced.
    Fenced,
}

/// Fences another server, if nothing has been heard of it since, and takes its node's row.
async fn take_over(database: &Database, me: i64, other: Seen) -> Result<TakenOver, PostgresError> {
    let client = database.client();
    let begin = format!("{BEGIN}; SET LOCAL lock_timeout = '300ms'");
    let taken = async {
        client.batch_execute(&begin).await?;
        let sql = "SELECT jam_takeover($1, $2, $3, $4, $1, '{}')";
        let whom: [&(dyn ToSql + Sync); 4] = [&me, &NODE, &other.incarnation, &other.beat];
        client.query(sql, &whom).await?;
        client
            .execute(INSERT_NODE, &[&NODE, &me, &env!("CARGO_PKG_VERSION")])
            .await?;
        client.batch_execute("COMMIT").await
    };
    let Err(error) = database.within(REQUEST_TIMEOUT, taken).await else {
        return Ok(TakenOver::Yes);
    };
    let outcome = match error.sqlstate() {
        Some(ALIVE) => TakenOver::IsAlive,
        Some(LOCKED) => TakenOver::IsBusy,
        Some(FENCED) => TakenOver::Fenced,
        _ => return Err(error),
    };
    let rollback = client.batch_execute("ROLLBACK");
    database.within(REQUEST_TIMEOUT, rollback).await?;
    Ok(outcome)
}

/// Ends what a process has left: its half-received requests, and its waits for a standby. One that is frozen stays.
async fn end_connections(database: &Database, incarnation: i64) -> Result<(), PostgresError> {
    database
        .within(
            REQUEST_TIMEOUT,
            terminate(database.client(), &names(incarnation)),
        )
        .await
        .map(drop)
}

/// Ends the back ends of connections with names like this, but for the one that asks. Whether none is left.
pub(super) async fn terminate(client: &Client, names: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT coalesce(bool_and(pg_terminate_backend(pid, $2)), true) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE $1 AND pid <> pg_backend_pid()";
    let ended = client.query_one(sql, &[&names, &TERMINATE_MILLIS]).await?;
    Ok(ended.get(0))
}

/// What a server leaves that stops: nothing. The next start does not wait.
pub(super) async fn leave(database: &Database, me: i64) -> Result<(), PostgresError> {
    let sql = format!(
        "{BEGIN}; DELETE FROM node WHERE incarnation = {me}; DELETE FROM fence WHERE incarnation = {me};
         DELETE FROM batch WHERE incarnation = {me}; COMMIT"
    );
    database
        .within(REQUEST_TIMEOUT, database.client().batch_execute(&sql))
        .await
}
