//! Accounts and friendships, in a database that other processes write to (PROTOCOL.md, section 6).
//!
//! # Layout
//!
//! - this file: [`AccountsDatabase`], all that a running server knows of it, and [`open`], which decides what kind it is.
//! - [`administration`](mod@administration): [`Administration`], all that the commands and the admin API know of it.
//! - [`sqlite`]: in an SQLite file. [`postgres`]: in tables of PostgreSQL.
//! - `copy`: the accounts of one database into another.
//! - `facts`: what the rules look up, in either. `cache`: what is in memory of either. `numbers`: user ids as numbers of rows. `lives`: which account an id stands for.
//!
//! Invariant: what kind of database it is, and the numbers of its rows, stay in that kind's folder; above it are user ids
//! and facts. The scripted directory of `fake` runs connections, presence and pushes as well (`tests`).

pub mod administration;
mod cache;
mod copy;
mod facts;
#[cfg(test)]
mod fake;
mod lives;
mod numbers;
pub mod postgres;
pub mod sqlite;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use jam_core::directory::{Answer, Directory, Generation, Question};
use jam_core::friends;
use jam_core::ids::UserId;
use secrecy::SecretString;

use crate::metrics::{ServerMetrics, StoreFailure};
use crate::settings::{DirectoryFile, DirectorySettings};
pub use administration::{
    Administration, AdministrationError, Friend, NewToken, Page, PageRequest, User, random_token,
};
pub(crate) use cache::FACTS_BYTES;
pub use copy::HeldAccounts;
pub(crate) use sqlite::leave_reading_to_the_loader;
pub use sqlite::{backup, check_backup, create, restore};

/// The result of an operation that waits for the accounts database. The look-ups of the rules do not wait.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, DirectoryError>> + Send + 'a>>;

/// The accounts database of a running server.
///
/// The rules look up what is in memory ([`Directory`]): that allocates nothing and never waits. Everything here may wait for
/// the database, and fails after a time-out. It reads the database at the time of the call: everything that was committed
/// before is seen.
pub trait AccountsDatabase: Directory + Any {
    /// The answer to what the rules ask, of the same kind as the question.
    fn answer(&self, question: Question) -> Reply<'_, Answer>;

    /// The accounts of `users`, in their order.
    fn accounts<'a>(&'a self, users: &'a [UserId]) -> Reply<'a, Vec<Answer>>;

    /// Looks for changes. The generation differs from that of an earlier look if anything was committed in between; later
    /// reads are of this generation or a later one. To be called all the time: cached facts are valid while it succeeds.
    fn look(&self) -> Reply<'_, Generation>;

    /// How often another database has been found in the place of the one that was open: an account that is missing in it
    /// may be there again once the right one is back. Counts before [`Self::look`] tells of it.
    fn replacements(&self) -> u64;

    /// The friends of a user, some at a time.
    fn friends(&self, user: &UserId, who: Who) -> Box<dyn FriendList + '_>;

    /// All friends of a user as they are shown to that user: each has the other as a friend and an account. Nothing of what the
    /// other side has done is in it. After [`MAX_ROWS`](friends::MAX_ROWS) rows it is cut.
    fn list_friends<'a>(&'a self, user: &'a UserId) -> Reply<'a, friends::List>;

    /// Where a push from `sender` to `receiver` goes. `None`: the sender may not write to the receiver, or may not any more.
    fn push_address<'a>(
        &'a self,
        sender: &'a UserId,
        receiver: &'a UserId,
    ) -> Reply<'a, Option<PushAddress>>;

    /// Takes a dead notification token away from `user`, unless there is another one by now. Whether it did.
    ///
    /// The only change that serving makes to the database (PROTOCOL.md, section 6).
    fn clear_notification_token<'a>(
        &'a self,
        user: &'a UserId,
        token: &'a SecretString,
    ) -> Reply<'a, bool>;

    /// For the admin API: what it does holds up nobody who asks the database.
    fn administration(self: Arc<Self>) -> Arc<dyn Administration>;
}

/// A user's friends, read some at a time.
pub trait FriendList: Send {
    /// Some more of them, in no order that means anything; `None` when there are no more. After an error the same again.
    fn next(&mut self) -> Reply<'_, Option<Vec<UserId>>>;
}

/// Which friends of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Those who may see the user: those whom the user has not blocked.
    SeesUser,
    /// Those whom the user may see: those who have not blocked the user.
    IsSeen,
}

/// Opens the accounts database that a server is to run on. Its file in the data directory is made if there is none; one
/// that a setting names has to be there.
///
/// # Errors
/// If it is missing, cannot be made, is no jam database, or lacks a table or column.
pub fn open(settings: &DirectorySettings) -> Result<Arc<dyn AccountsDatabase>, DirectoryError> {
    open_counted(settings, Arc::default())
}

/// As [`open`]; it counts in `metrics`.
pub(crate) fn open_counted(
    settings: &DirectorySettings,
    metrics: Arc<ServerMetrics>,
) -> Result<Arc<dyn AccountsDatabase>, DirectoryError> {
    match settings {
        DirectorySettings::Sqlite(file) => {
            require_named(file)?;
            let directory = sqlite::SqliteDirectory::open_or_create(&file.path)?;
            if !file.map_shm {
                directory.leave_wal_index();
            }
            directory.count_in(metrics);
            Ok(Arc::new(directory))
        }
        DirectorySettings::Postgres(address) => {
            let directory = postgres::PostgresDirectory::open(address)?;
            directory.count_in(metrics);
            Ok(Arc::new(directory))
        }
    }
}

/// Fills the database `to`, which has to be empty, with the accounts of `from`. An SQLite file is made if there is none.
///
/// # Errors
/// If one cannot be read or the other not be written; the other one is then as it was.
pub async fn copy(
    from: &DirectorySettings,
    to: &DirectorySettings,
) -> Result<HeldAccounts, DirectoryError> {
    use postgres::copying::{PostgresSource, PostgresTarget};
    use sqlite::copying::{SqliteSource, SqliteTarget};
    let source: Box<dyn copy::CopySource> = match from {
        DirectorySettings::Sqlite(file) => Box::new(SqliteSource::open(&file.path)?),
        DirectorySettings::Postgres(address) => Box::new(PostgresSource::open(address).await?),
    };
    let target: Box<dyn copy::CopyTarget> = match to {
        DirectorySettings::Sqlite(file) => Box::new(SqliteTarget::open(&file.path)?),
        DirectorySettings::Postgres(address) => Box::new(PostgresTarget::open(address).await?),
    };
    copy::fill(source, target).await
}

/// The accounts of the database that a server would run on, for a command: with a server running or not.
///
/// # Errors
/// If it is missing, and a setting names it.
pub fn administration(
    settings: &DirectorySettings,
) -> Result<Arc<dyn Administration>, DirectoryError> {
    Ok(match settings {
        DirectorySettings::Sqlite(file) => {
            require_named(file)?;
            Arc::new(sqlite::SqliteAdministration::new(file))
        }
        DirectorySettings::Postgres(address) => {
            Arc::new(postgres::PostgresAdministration::new(address))
        }
    })
}

/// Hashes the API tokens of a database of our own that stand in it in the clear: those of before tokens were hashed, and those that
/// another program has written since. Any other database stays as it is. How many there were.
///
/// To be called when no older server can be running on the database: it would let nobody in by a hash.
///
/// # Errors
/// If it cannot be written now; then they stay in the clear, which is understood.
pub fn hash_tokens(settings: &DirectorySettings) -> Result<u64, DirectoryError> {
    match settings {
        DirectorySettings::Sqlite(file) => sqlite::hash_tokens(&file.path),
        // Its tables hash each token that is written.
        DirectorySettings::Postgres(_) => Ok(0),
    }
}

/// Looks at a database that is there, and leaves no trace.
///
/// # Errors
/// If it is no jam database, or cannot be read.
pub async fn inspect(settings: &DirectorySettings) -> Result<Inspection, DirectoryError> {
    match settings {
        DirectorySettings::Sqlite(file) => sqlite::inspect(&file.path),
        DirectorySettings::Postgres(address) => postgres::inspect(address).await,
    }
}

/// What [`inspect`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Accounts.
    pub accounts: u32,
    /// Whether they can have notification tokens.
    pub can_push: bool,
}

/// Fails if the file is named and missing: a mistyped path must not look like a database without accounts. Only the
/// file in the data directory is created by itself.
///
/// # Errors
/// Where it was looked for, and what names it.
pub fn require_named(file: &DirectoryFile) -> Result<(), DirectoryError> {
    if !file.named || file.path.exists() {
        return Ok(());
    }
    Err(DirectoryError::new(format!(
        "there is no accounts database at {}: correct directory.url (--directory, or db_path of the environment \
         file), or leave it empty to have jam.db created in the data directory",
        file.path.display()
    )))
}

/// The accounts database cannot be used; in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryError {
    message: String,
    /// As it is counted.
    failure: StoreFailure,
}

impl DirectoryError {
    /// What is counted as [`StoreFailure::Io`].
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::of(StoreFailure::Io, message)
    }

    pub(crate) fn of(failure: StoreFailure, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, failure }
    }
}

/// Where a push goes.
#[derive(Debug, Clone)]
pub struct PushAddress {
    /// The receiver's notification token, if they have one.
    pub token: Option<SecretString>,
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DirectoryError {}
