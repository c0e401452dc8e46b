//! [`PostgresAdministration`]: reads and changes accounts over a connection that comes and goes with each request, `AT_ONCE` of
//! them at most, so that it holds up nobody who asks the database. `lists` and `changes` have the statements.
//!
//! Invariants: each request is one transaction; it is answered within `PATIENCE`, whatever the server does, and one that has failed
//! is not done later, unless it was being committed (`tests::trouble`).

use std::sync::Arc;
use std::time::Duration;

use jam_core::ids::UserId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::super::numbers::id_of_new;
use super::{
    Address, Administration, AdministrationError, DirectoryError, FailureKind, Friend, NewToken,
    Outcome, Page, PageRequest, PostgresError, StoreFailure, User, changes, lists, open, schema,
};
use crate::metrics::ServerMetrics;

/// Requests that are worked on at once. Others wait for their turn.
const AT_ONCE: usize = 4;

/// How long a request may take, its turn included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long another transaction may be in the way, and how long a statement may take: less than [`PATIENCE`], so that it is the
/// server that gives up, and says why.
const ON_THE_SERVER: &str = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '8s'";

/// A jam database in PostgreSQL as operators see it.
#[derive(Debug)]
pub struct PostgresAdministration {
    address: Address,
    turns: Semaphore,
    /// What a server counts in.
    metrics: Option<Arc<ServerMetrics>>,
}

impl PostgresAdministration {
    /// For a command.
    #[must_use]
    pub fn new(address: &Address) -> Self {
        Self::beside(address, None)
    }

    /// In a server.
    pub(super) fn beside(address: &Address, metrics: Option<Arc<ServerMetrics>>) -> Self {
        Self {
            address: address.clone(),
            turns: Semaphore::new(AT_ONCE),
            metrics,
        }
    }

    async fn client(&self) -> Result<Client, PostgresError> {
        let client = open(&self.address, "jam-mqtt administration").await?;
        schema::check(&client).await?;
        Ok(client)
    }

    /// Has something done in its turn and in time.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, AdministrationError>> + Send,
    ) -> Result<T, AdministrationError> {
        let done = timeout(PATIENCE, async {
            let _turn = self.turns.acquire().await.expect("nobody closes it");
            work.await
        });
        let done = done.await.unwrap_or_else(|_| {
            let why = "PostgreSQL does not answer; what was asked for may still be done if it was being committed";
            let error = DirectoryError::of(StoreFailure::Busy, why);
            Err(AdministrationError::Unavailable(error))
        });
        if let (Err(AdministrationError::Unavailable(error)), Some(metrics)) =
            (&done, &self.metrics)
        {
            metrics.directory_failed(error.failure);
        }
        done
    }
}

/// Work on a transaction, which is committed if that succeeds.
macro_rules! in_transaction {
    ($self:ident, |$tx:ident| $work:expr) => {
        Box::pin($self.in_time(async move {
            let mut client = $self.client().await?;
            let $tx = client.transaction().await.map_err(PostgresError::from)?;
            let set = $tx.batch_execute(ON_THE_SERVER).await;
            set.map_err(PostgresError::from)?;
            let done = $work.await?;
            $tx.commit().await.map_err(PostgresError::from)?;
            Ok(done)
        }))
    };
}

impl Administration for PostgresAdministration {
    fn users<'a>(&'a self, prefix: &'a str, page: &'a PageRequest) -> Outcome<'a, Page<User>> {
        in_transaction!(self, |tx| lists::users(&tx, prefix, page))
    }

    fn user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, User> {
        in_transaction!(self, |tx| lists::user(&tx, user))
    }

    fn add_user<'a>(
        &'a self,
        user: &'a UserId,
        name: Option<&'a str>,
        token: &'a NewToken,
    ) -> Outcome<'a, ()> {
        Box::pin(async move {
            let id = id_of_new(user)?;
            in_transaction!(self, |tx| changes::add(&tx, user, id, name, token)).await
        })
    }

    fn set_token<'a>(&'a self, user: &'a UserId, token: &'a NewToken) -> Outcome<'a, bool> {
        in_transaction!(self, |tx| changes::set_token(&tx, user, token))
    }

    fn remove_user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, bool> {
        in_transaction!(self, |tx| changes::remove(&tx, user))
    }

    fn friends<'a>(&'a self, user: &'a UserId, page: &'a PageRequest) -> Outcome<'a, Page<Friend>> {
        in_transaction!(self, |tx| lists::friends(&tx, user, page))
    }

    fn friend<'a>(&'a self, user: &'a UserId, friend: &'a UserId) -> Outcome<'a, Option<Friend>> {
        in_transaction!(self, |tx| lists::friend(&tx, user, friend))
    }

    fn befriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool> {
        in_transaction!(self, |tx| changes::befriend(&tx, a, b))
    }

    fn unfriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool> {
        in_transaction!(self, |tx| changes::unfriend(&tx, a, b))
    }

    fn set_blocked<'a>(
        &'a self,
        user: &'a UserId,
        friend: &'a UserId,
        blocked: bool,
    ) -> Outcome<'a, bool> {
        in_transaction!(self, |tx| changes::set_blocked(&tx, user, friend, blocked))
    }
}

impl From<PostgresError> for AdministrationError {
    fn from(error: PostgresError) -> Self {
        if error.kind() == FailureKind::Constraint {
            let why = format!("the accounts database's own rules forbid this change: {error}");
            return Self::Refused(why);
        }
        // A value that the database cannot hold: a zero byte, a name too long for its index.
        if (error.sqlstate())
            .is_some_and(|state| state.starts_with("22") || state.starts_with("54"))
        {
            return Self::Refused(format!("the accounts database cannot hold this: {error}"));
        }
        Self::Unavailable(error.into())
    }
}
