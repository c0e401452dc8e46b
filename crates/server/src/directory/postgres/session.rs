//! [`ServerSession`]: the connections to one server, which begin and end together.
//!
//! One LISTENs and is asked again and again whether it is alive; one answers the rules' questions; one reads lists, which
//! take longer. If any of them ends, all do: they might be of two servers, of which only one goes on.
//!
//! Invariant: what a notification says is in the memory before an answer that came after it is
//! (`Listener`, and `tests::notified`).

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

use super::super::cache::Cache;
use super::rows::Statements;
use super::schema;
use crate::postgres::{Address, Connection, FailureKind, PostgresError, connect};

/// What triggers NOTIFY on.
const CHANNEL: &str = "jam_directory";

/// What everybody may have changed by is told as this.
const ALL: &str = "*";

/// How long a statement may take on the server: nobody waits for its answer much longer.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what they begin with may take in all, once they are connected.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections to one server.
pub(super) struct ServerSession {
    /// LISTENs, and does nothing else that could take long.
    pub(super) listener: Client,
    pub(super) questions: Statements,
    pub(super) lists: Statements,
    pub(super) identity: DatabaseIdentity,
}

/// Which database it is. A commit that was seen in one may be missing in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DatabaseIdentity {
    /// Of the tables, with the triggers that are on.
    tables: String,
    /// Of the database, and of the server's files and their history, where it says.
    of: Vec<String>,
    /// How far its log goes.
    pub(super) written: Option<u64>,
}

impl DatabaseIdentity {
    /// Whether this one has all that the other one had, as far as can be told.
    pub(super) fn goes_on_from(&self, other: &Self) -> bool {
        self.is_same_database(other) && self.written >= other.written
    }

    fn is_same_database(&self, other: &Self) -> bool {
        self.tables == other.tables && self.of == other.of
    }
}

/// What the LISTENing connection is asked all the time: how far the log goes, where that is said, and which tables there are.
const WITH_LOG: &str = "SELECT pg_current_wal_insert_lsn(), ";
const WITHOUT_LOG: &str = "SELECT NULL, ";
const TABLES: &str = "concat_ws(' ', to_regclass('accounts')::oid, to_regclass('user_friends')::oid,
    (SELECT count(*) FROM pg_trigger WHERE tgrelid IN (to_regclass('accounts'), to_regclass('user_friends'))
        AND tgname LIKE 'jam\\_directory\\_%' AND tgenabled IN ('O', 'A')))";

impl ServerSession {
    /// Connects. `drivers` are the connections' I/O: the first that ends ends the session.
    pub(super) async fn begin(
        address: &Address,
        cache: &Arc<Cache>,
        drivers: &mut JoinSet<PostgresError>,
    ) -> Result<Self, PostgresError> {
        let (listener, connection) = connect(address, "jam-mqtt directory listener").await?;
        drivers.spawn(listen(connection, Arc::clone(cache)));
        let (questions, connection) = connect(address, "jam-mqtt directory questions").await?;
        drivers.spawn(drive(connection));
        let (lists, connection) = connect(address, "jam-mqtt directory lists").await?;
        drivers.spawn(drive(connection));
        match timeout(BEGIN_TIMEOUT, Self::begin_on(listener, questions, lists)).await {
            Ok(begun) => begun,
            Err(_) => Err(PostgresError::new(
                FailureKind::Unreachable,
                "what connections begin with takes too long",
            )),
        }
    }

    async fn begin_on(
        listener: Client,
        questions: Client,
        lists: Client,
    ) -> Result<Self, PostgresError> {
        for client in [&questions, &lists] {
            let timeout = STATEMENT_TIMEOUT.as_millis();
            let set = format!(
                "SET statement_timeout = {timeout}; SET plan_cache_mode = force_generic_plan; SET idle_session_timeout = 0"
            );
            client.batch_execute(&set).await?;
        }
        refuse_poolers(&listener, &questions).await?;
        schema::check(&questions).await?;
        listener.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        // What is committed from here on is told.
        let identity = identity(&listener, &questions).await?;
        require_one_server(&[&questions, &lists], &identity).await?;
        Ok(Self {
            listener,
            questions: Statements::prepare(questions).await?,
            lists: Statements::prepare(lists).await?,
            identity,
        })
    }

    /// Asks whether the LISTENing connection is alive. Comes back with how far the log goes.
    pub(super) async fn beat(&self) -> Result<Option<u64>, PostgresError> {
        let with_log = self.identity.written.is_some();
        let (written, tables) = beat(&self.listener, with_log).await?;
        if tables == self.identity.tables {
            return Ok(written);
        }
        let why = "the accounts' tables are others than before, or a trigger was switched on or off; connecting anew";
        Err(PostgresError::new(FailureKind::Other, why))
    }
}

async fn beat(client: &Client, with_log: bool) -> Result<(Option<u64>, String), PostgresError> {
    let begin = if with_log { WITH_LOG } else { WITHOUT_LOG };
    let rows = client.simple_query(&format!("{begin}{TABLES}")).await?;
    let [written, tables] = row_of(&rows);
    let tables = tables.unwrap_or_default().to_owned();
    Ok((written.and_then(place_in_log), tables))
}

/// The values of the one row that there is.
fn row_of<const N: usize>(messages: &[SimpleQueryMessage]) -> [Option<&str>; N] {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    std::array::from_fn(|column| row.and_then(|row| row.get(column)))
}

/// `16/B374D848`
fn place_in_log(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text| u64::from_str_radix(text, 16).ok();
    Some(part(high)? << 32 | part(low)?)
}

/// A pooler that gives each transaction another connection forwards no notification. It is noticed by that: while one
/// client is within a transaction, the other's next one runs somewhere else than before.
pub(super) async fn refuse_poolers(listener: &Client, other: &Client) -> Result<(), PostgresError> {
    let pid = async |client: &Client| -> Result<String, PostgresError> {
        let rows = client.simple_query("SELECT pg_backend_pid()").await?;
        let [pid] = row_of(&rows);
        Ok(pid.unwrap_or_default().to_owned())
    };
    let before = pid(listener).await?;
    other.batch_execute("BEGIN").await?;
    let (of_other, after) = (pid(other).await?, pid(listener).await?);
    other.batch_execute("ROLLBACK").await?;
    if before != after || before == of_other {
        let why = "there is a pooler between that gives each transaction another connection (pgbouncer's \
            pool_mode = transaction), and forwards no notification; name PostgreSQL itself";
        return Err(PostgresError::new(FailureKind::Other, why));
    }
    Ok(())
}

/// Reads which database it is: its tables, and what a managed service may not say.
async fn identity(listener: &Client, asked: &Client) -> Result<DatabaseIdentity, PostgresError> {
    let sql =
        "SELECT concat_ws(' ', (SELECT oid FROM pg_database WHERE datname = current_database()),
            (SELECT id FROM jam_directory))";
    let mut of: Vec<String> = vec![asked.query_one(sql, &[]).await?.get(0)];
    let sql = "SELECT concat_ws(' ', (SELECT system_identifier FROM pg_control_system()),
            left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))";
    let with_log = match asked.query_one(sql, &[]).await {
        Ok(row) => {
            of.push(row.get(0));
            true
        }
        Err(error) if error.as_db_error().is_some() => false,
        Err(error) => return Err(error.into()),
    };
    let (written, tables) = beat(listener, with_log).await?;
    Ok(DatabaseIdentity {
        tables,
        of,
        written,
    })
}

/// The connections may have been made to several hosts, just while the primary changed.
async fn require_one_server(
    clients: &[&Client],
    first: &DatabaseIdentity,
) -> Result<(), PostgresError> {
    for client in clients {
        let found = identity(client, client).await?;
        if !found.is_same_database(first) {
            let why = "the connections lead to different servers; trying again";
            return Err(PostgresError::new(FailureKind::Unreachable, why));
        }
    }
    Ok(())
}

/// Does the I/O of a connection. Comes back with why it has ended.
async fn drive(connection: Connection) -> PostgresError {
    match connection.await {
        Ok(()) => PostgresError::new(FailureKind::Unreachable, "the connection was closed"),
        Err(error) => error.into(),
    }
}

/// The same for the connection that LISTENs: what a notification says is in the memory before anything is read that came
/// after it.
async fn listen(mut connection: Connection, cache: Arc<Cache>) -> PostgresError {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(told))) if told.channel() == CHANNEL => {
                take(&cache, told.payload());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.into(),
            None => {
                return PostgresError::new(FailureKind::Unreachable, "the connection was closed");
            }
        }
    }
}

/// What is no list of users may be about everybody.
fn take(cache: &Cache, payload: &str) {
    let users = payload
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<i64>, _>>();
    match users {
        Ok(users) if payload != ALL => cache.invalidate_users(users),
        _ => cache.invalidate(),
    }
}
