//! [`SqliteAdministration`]: reads and changes accounts over a connection that comes and goes with each request.
//!
//! What it does is done by threads that may wait, `AT_ONCE` of them at most, so that it holds up nobody who asks the
//! database; to those it is one more process that writes to the file. `lists` and `changes` have the statements.
//!
//! Invariants: each request is one transaction; it is answered within `PATIENCE`, give or take `LAST_WORDS`,
//! whatever the disk and other processes do, and one that has failed is not done later (`tests::administration`).

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use jam_core::ids::UserId;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::super::numbers::id_of_new;
use super::changes::{cannot_write, is_constraint};
use super::schema::LOCK_PATIENCE;
use super::shared::NO_PANIC;
use super::{
    Administration, AdministrationError, DirectoryError, Friend, NewToken, Outcome, Page,
    PageRequest, User, changes, lists, schema,
};
use crate::metrics::{ServerMetrics, StoreFailure};
use crate::settings::DirectoryFile;

/// Requests that are worked on at once. Others wait for their turn.
const AT_ONCE: usize = 4;

/// How long a request may take, its turn included. Longer than another process may lock the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer its thread is waited for, to say why it failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Steps of a statement between two looks at the time.
const STEPS: std::ffi::c_int = 10_000;

/// A jam database as operators see it.
#[derive(Debug)]
pub struct SqliteAdministration {
    path: PathBuf,
    /// Whether adding a user may make the file.
    may_create: bool,
    turns: Arc<Semaphore>,
    /// [`super::shared::DirectoryShared::passing`], or nothing that matters.
    passing: Arc<RwLock<()>>,
    /// What a server counts in.
    metrics: Option<Arc<ServerMetrics>>,
}

impl SqliteAdministration {
    /// On the file that the settings lead to.
    #[must_use]
    pub fn new(file: &DirectoryFile) -> Self {
        let may_create = !file.named;
        Self {
            may_create,
            ..Self::beside(file.path.clone(), Arc::default(), None)
        }
    }

    /// On a file that this process has open.
    pub(super) fn beside(
        path: PathBuf,
        passing: Arc<RwLock<()>>,
        metrics: Option<Arc<ServerMetrics>>,
    ) -> Self {
        Self {
            path,
            may_create: false,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            passing,
            metrics,
        }
    }

    /// Has a thread do some work that may wait.
    fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AdminRequest) -> Result<T, AdministrationError> + Send + 'static,
    ) -> Outcome<'_, T> {
        let (turns, passing) = (Arc::clone(&self.turns), Arc::clone(&self.passing));
        let request = AdminRequest {
            path: self.path.clone(),
            may_create: self.may_create,
            ends: Instant::now() + PATIENCE,
        };
        Box::pin(async move {
            let done = async {
                let turn = turns.acquire_owned().await.expect("nobody closes it");
                let worked = spawn_blocking(move || {
                    // Also when nobody waits for it any more: so many threads can hang, and no more.
                    let _turn = turn;
                    let _passing = passing.read().expect(NO_PANIC);
                    work(&request)
                });
                worked
                    .await
                    .expect("work on the accounts database does not panic")
            };
            let done = timeout(PATIENCE + LAST_WORDS, done).await;
            let done = done.unwrap_or_else(|_| {
                let why = "the disk of the accounts database does not answer; what was asked for may still be done";
                Err(AdministrationError::Unavailable(DirectoryError::new(why)))
            });
            if let (Err(AdministrationError::Unavailable(error)), Some(metrics)) =
                (&done, &self.metrics)
            {
                metrics.directory_failed(error.failure);
            }
            done
        })
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> Result<T, AdministrationError> + Send + 'static,
    ) -> Outcome<'_, T> {
        self.on_thread(move |request| {
            let mut connection = request.open()?;
            let tx = connection.transaction()?;
            read(&tx)
        })
    }

    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, AdministrationError> + Send + 'static,
    ) -> Outcome<'_, T> {
        self.on_thread(move |request| request.change(change))
    }
}

/// What a thread works on.
struct AdminRequest {
    path: PathBuf,
    may_create: bool,
    /// From then on it fails, and changes nothing.
    ends: Instant,
}

impl AdminRequest {
    /// What fails changes nothing.
    fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, AdministrationError>,
    ) -> Result<T, AdministrationError> {
        let mut connection = self.open()?;
        // Immediate: a transaction that begins by reading could not wait for a writer later.
        let tx = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| cannot_write(&error))?;
        let result = change(&tx)?;
        self.left()?;
        tx.commit().map_err(|error| cannot_write(&error))?;
        Ok(result)
    }

    fn open(&self) -> Result<Connection, AdministrationError> {
        let mut connection = schema::open_for_writing(&self.path)?;
        connection.busy_timeout(self.left()?.min(LOCK_PATIENCE))?;
        let ends = self.ends;
        connection.progress_handler(STEPS, Some(move || Instant::now() >= ends))?;
        Ok(connection)
    }

    /// How much time is left.
    fn left(&self) -> Result<Duration, DirectoryError> {
        let left = self.ends.checked_duration_since(Instant::now());
        let left = left.filter(|left| !left.is_zero());
        let why = "the accounts database is busy; try again";
        left.ok_or_else(|| DirectoryError::of(StoreFailure::Busy, why))
    }
}

impl Administration for SqliteAdministration {
    fn users<'a>(&'a self, prefix: &'a str, page: &'a PageRequest) -> Outcome<'a, Page<User>> {
        let (prefix, page) = (prefix.to_owned(), page.clone());
        self.read(move |tx| lists::users(tx, &prefix, &page))
    }

    fn user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, User> {
        let user = user.clone();
        self.read(move |tx| lists::user(tx, &user))
    }

    fn add_user<'a>(
        &'a self,
        user: &'a UserId,
        name: Option<&'a str>,
        token: &'a NewToken,
    ) -> Outcome<'a, ()> {
        let (user, name, token) = (user.clone(), name.map(str::to_owned), token.clone());
        self.on_thread(move |request| {
            let id = id_of_new(&user)?;
            if request.may_create {
                schema::create_if_missing(&request.path)?;
            }
            request.change(|tx| changes::add(tx, &user, id, name.as_deref(), &token))
        })
    }

    fn set_token<'a>(&'a self, user: &'a UserId, token: &'a NewToken) -> Outcome<'a, bool> {
        let (user, token) = (user.clone(), token.clone());
        self.change(move |tx| changes::set_token(tx, &user, &token))
    }

    fn remove_user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, bool> {
        let user = user.clone();
        self.change(move |tx| changes::remove(tx, &user))
    }

    fn friends<'a>(&'a self, user: &'a UserId, page: &'a PageRequest) -> Outcome<'a, Page<Friend>> {
        let (user, page) = (user.clone(), page.clone());
        self.read(move |tx| lists::friends(tx, &user, &page))
    }

    fn friend<'a>(&'a self, user: &'a UserId, friend: &'a UserId) -> Outcome<'a, Option<Friend>> {
        let (user, friend) = (user.clone(), friend.clone());
        self.read(move |tx| lists::friend(tx, &user, &friend))
    }

    fn befriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool> {
        let (a, b) = (a.clone(), b.clone());
        self.change(move |tx| changes::befriend(tx, &a, &b))
    }

    fn unfriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool> {
        let (a, b) = (a.clone(), b.clone());
        self.change(move |tx| changes::unfriend(tx, &a, &b))
    }

    fn set_blocked<'a>(
        &'a self,
        user: &'a UserId,
        friend: &'a UserId,
        blocked: bool,
    ) -> Outcome<'a, bool> {
        let (user, friend) = (user.clone(), friend.clone());
        self.change(move |tx| changes::set_blocked(tx, &user, &friend, blocked))
    }
}

impl From<rusqlite::Error> for AdministrationError {
    fn from(error: rusqlite::Error) -> Self {
        if is_constraint(&error) {
            Self::Refused(DirectoryError::from(error).to_string())
        } else {
            Self::Unavailable(error.into())
        }
    }
}
