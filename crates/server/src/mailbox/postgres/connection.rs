//! [`Database`]: a connection, and the task that does its I/O.
//!
//! Invariants: a warning that may be about a COMMIT is counted before the answer that follows it is known; giving a
//! connection up closes its socket, and cancels nothing (a COMMIT that is cancelled reports success).

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client};

use crate::logging::LogPace;
use crate::postgres::{self, Address, FailureKind, PostgresError};

/// How long what is said at the end of a connection may take to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// How long what any connection of the mailbox is told first may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Of every connection: a commit waits for disk and standby, warnings are heard whatever the role's settings are, and the
/// server notices within seconds that we are gone. Nothing is written but in a transaction that says so: a statement whose
/// BEGIN has failed changes nothing. Time-outs of the role or the server for connections that rest, or for whole transactions (which
/// PostgreSQL has since 17), do not hold.
const SETTINGS: &str = "SET synchronous_commit = on; SET client_min_messages = warning; SET lock_timeout = '2s';
    SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '5s'; SET tcp_keepalives_idle = 2;
    SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '5s';
    SET default_transaction_read_only = on; SET idle_session_timeout = 0;
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'";

/// Of the one that writes: a transaction is idle for PostgreSQL while the content of the next statement is still on its way, and
/// that takes as long as the line is slow. Connections that are gone are ended by the settings above, and by the next one of ours.
const PATIENT: &str = "SET idle_in_transaction_session_timeout = '1h'";

/// Of those that read now and then: what nobody waits for any more is ended there too. Longer than anybody here waits.
const HASTY: &str = "SET statement_timeout = '6s'";

/// Of connections that read and delete by primary key: whatever the tables were when a statement was planned, its plan is
/// the one for tables that are full.
const BY_KEY: &str =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off";

/// What begins a transaction that changes something.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// Warnings that are about no COMMIT, by the file and the function of PostgreSQL that they come from: those are the same in
/// every language, and SQLSTATE 01000 is also what a wait for a standby has that was cut short (`SyncRepWaitForLSN`).
const HARMLESS: [(&str, &str); 3] = [
    // Transaction ids are running out: it comes with the first write of each transaction.
    ("varsup.c", "GetNewTransactionId"),
    ("multixact.c", "GetNewMultiXactId"),
    // RAISE in somebody's trigger, which runs before the COMMIT is written.
    ("pl_exec.c", "exec_stmt_raise"),
];

fn is_harmless(warning: &DbError) -> bool {
    let from = warning.file().zip(warning.routine());
    from.is_some_and(|from| HARMLESS.contains(&from))
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Start,
    Load,
    Writer,
    Reader,
    Watch,
    Administration,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Load => "load",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Watch => "watch",
            Self::Administration => "command",
        }
    }

    /// What holds beside [`SETTINGS`].
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Writer => &[BY_KEY, PATIENT],
            Self::Reader | Self::Watch => &[BY_KEY, HASTY],
            Self::Start | Self::Load | Self::Administration => &[],
        }
    }
}

/// The `application_name` of the connections of a process.
pub(super) fn name(incarnation: i64, purpose: Purpose) -> String {
    format!("jam-{incarnation}-{}", purpose.name())
}

/// As a pattern of LIKE: all of them.
pub(super) fn names(incarnation: i64) -> String {
    format!("jam-{incarnation}-%")
}

/// A connection.
pub(super) struct Database {
    client: Client,
    driver: JoinHandle<()>,
    warnings: Arc<AtomicU64>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// Connects to the one of the hosts that can be written. Has to be polled, and used, on one runtime.
    pub(super) async fn connect(
        address: &Address,
        name: &str,
        purpose: Purpose,
    ) -> Result<Self, PostgresError> {
        let (client, mut connection) = postgres::connect(address, name).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&warnings);
        let driver = tokio::spawn(async move {
            let harmless = LogPace::default();
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        let is_harmless = is_harmless(&notice);
                        heard.fetch_add((!is_harmless).into(), Ordering::Release);
                        // The others may come with each batch.
                        if !is_harmless || harmless.is_due() {
                            tracing::warn!(
                                code = notice.code().code(),
                                routine = notice.routine(),
                                "PostgreSQL says: {}",
                                notice.message()
                            );
                        }
                    }
                    Some(Ok(_)) => {}
                    // The requests that wait are told.
                    Some(Err(_)) | None => return,
                }
            }
        });
        let database = Self {
            client,
            driver,
            warnings,
        };
        database
            .within(PREPARE_TIMEOUT, database.client.batch_execute(SETTINGS))
            .await?;
        for settings in purpose.settings() {
            database
                .within(PREPARE_TIMEOUT, database.client.batch_execute(settings))
                .await?;
        }
        Ok(database)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// How often the server has said something by itself that may be about a COMMIT.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    /// Whether it can no longer be used, as far as that has been heard.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// What a request answers, or that it does not: then the connection is to be given up.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        match timeout(limit, request).await {
            Ok(answer) => answer.map_err(PostgresError::from),
            Err(_) => Err(no_answer(limit)),
        }
    }

    /// Closes the socket now, whatever is on its way.
    pub(super) async fn give_up(self) {
        self.driver.abort();
        let Self { driver, client, .. } = self;
        drop(driver.await);
        drop(client);
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let Self {
            client, mut driver, ..
        } = self;
        drop(client);
        if timeout(CLOSE_TIMEOUT, &mut driver).await.is_err() {
            driver.abort();
        }
    }
}

/// A request was not answered.
pub(super) fn no_answer(limit: Duration) -> PostgresError {
    let message = format!("no answer for {} s", limit.as_secs_f32());
    PostgresError::new(FailureKind::Unreachable, message)
}
