//! Messages and sessions, kept for users until their devices have them (PROTOCOL.md, section 7).
//!
//! # Layout
//!
//! - this file: `open`, which decides what kind of store a server runs on. All that it knows of it is
//!   [`MailboxStore`].
//! - [`administration`](mod@administration): [`MailboxAdministration`], all that the commands know of it. `copy`: one mailbox into another.
//! - `pending`: what waits for the next commit, less what has become obsolete; `kept`: what is known in memory of what was
//!   committed. `shared` holds both for those who write, and is the queue of what is to be read: any kind's thread or
//!   task takes its batches and loads there; `values` is content as it is kept, `clock` when the clocks are worth a write. `error`: why a mailbox cannot be opened.
//! - [`sqlite`]: in a file of our own. [`postgres`]: in a PostgreSQL database.
//!
//! Invariant: what kind of store it is stays in that kind's folder.

pub mod administration;
mod clock;
mod copy;
mod error;
mod kept;
mod pending;
pub mod postgres;
mod shared;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jam_core::store::{Completion, MailboxStore, Recovered, Seq, StoreError};

use crate::metrics::ServerMetrics;
use crate::postgres::Address;
use crate::settings::Settings;
pub use administration::{
    Condition, ListOrder, Listed, MailboxAdministration, Overview, PurgeScope, Purged,
    SessionOverview,
};
pub use copy::{CopyError, Copying, HeldMail, KnownAs};
pub use error::OpenError;
pub use postgres::Migration;
use postgres::{PostgresMailbox, PostgresMailboxAdministration};
pub use shared::MAX_PENDING_BYTES;
pub use sqlite::{Exchange, RESERVE_BYTES, Report};
use sqlite::{SqliteMailbox, SqliteMailboxAdministration};

/// Opens the mailbox that a server is to run on, which is made if there is none.
///
/// # Errors
/// [`OpenError`]; the mailbox is then as it was.
pub(crate) fn open<C: Completion>(
    settings: &Settings,
    metrics: Arc<ServerMetrics>,
) -> Result<(Arc<dyn MailboxStore<C>>, Recovered), OpenError> {
    if let Some(address) = &settings.mailbox.database {
        tracing::info!(database = %address, "opening the mailbox");
        let (mailbox, found) = PostgresMailbox::open(address, &settings.data, metrics)?;
        return Ok((mailbox, found));
    }
    let dir = settings.mailbox_dir();
    // A slow disk may take its time: the log says what the start waits for.
    tracing::info!(path = %dir.display(), "opening the mailbox");
    let (mailbox, found) = SqliteMailbox::open_counted(&dir, metrics)?;
    Ok((mailbox, found))
}

/// How many batches the database has lost that a mailbox has ended for; 0 if it has ended for something else.
pub(crate) fn lost_batches(why: &StoreError) -> u64 {
    match why.downcast_ref() {
        Some(OpenError::Lost { batches, .. }) => *batches,
        _ => 0,
    }
}

/// The mailbox that a server would run on, for a command: with a server running or not.
#[must_use]
pub fn administration(settings: &Settings) -> Box<dyn MailboxAdministration> {
    match &settings.mailbox.database {
        Some(address) => Box::new(PostgresMailboxAdministration::of(address.clone())),
        None => Box::new(SqliteMailboxAdministration::of(settings.mailbox_dir())),
    }
}

/// Numbers up to and with `last` have been written to a mailbox by hand: the next start has others.
fn skip_to(settings: &Settings, last: Seq) -> Result<(), OpenError> {
    match &settings.mailbox.database {
        Some(address) => PostgresMailboxAdministration::of(address.clone()).skip_to(last),
        // A file is asked for its highest number.
        None => Ok(()),
    }
}

/// Makes the mailbox's schema in a database that has no tables.
///
/// # Errors
/// If it has some, or cannot be written.
pub fn create(address: &Address) -> Result<(), OpenError> {
    PostgresMailboxAdministration::of(address.clone()).create()
}

/// What there is to migrate of the mailbox's schema.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn migration(address: &Address) -> Result<Migration, OpenError> {
    PostgresMailboxAdministration::of(address.clone()).migration()
}

/// The file that messages stand in, if there is one, which is to be kept from others.
#[must_use]
pub fn file(settings: &Settings) -> Option<PathBuf> {
    let is_in_file = settings.mailbox.database.is_none();
    is_in_file.then(|| sqlite::file(&settings.mailbox_dir()))
}

/// The folder of a mailbox that is in files. That of a database is not copied by us.
fn folder(settings: &Settings) -> Result<PathBuf, OpenError> {
    match &settings.mailbox.database {
        None => Ok(settings.mailbox_dir()),
        Some(address) => Err(OpenError::Database {
            place: address.to_string(),
            what: "this is done by PostgreSQL's own tools: pg_dump and pg_restore, or a continuous backup such as \
                   pgBackRest"
                .to_owned(),
        }),
    }
}

/// Copies the mailbox, as it is at one moment, into the folder `to`, where there is none, and looks at the copy. A server
/// may go on.
///
/// # Errors
/// If there is no mailbox, it cannot be read, or the copy cannot be written.
pub fn backup(settings: &Settings, to: &Path) -> Result<(), OpenError> {
    sqlite::backup(&folder(settings)?, to)?;
    SqliteMailboxAdministration::of(to.to_owned())
        .check()
        .map(drop)
}

/// Prepares that the mailbox in the folder `from`, which [`backup`] has made, takes the place of the one that is there.
///
/// # Errors
/// If there is none in `from`, or it is damaged; if a server has the one that is there; if there is no room.
pub fn restore(settings: &Settings, from: &Path) -> Result<Exchange, OpenError> {
    Exchange::prepare(from, &folder(settings)?)
}

/// Saves what can be read of a damaged mailbox into the folder `to`, where there is none.
///
/// # Errors
/// If a server has the mailbox, there is nothing to read, a later version has written it, or `to` cannot be written.
pub fn salvage(settings: &Settings, to: &Path) -> Result<Report, OpenError> {
    sqlite::salvage(&folder(settings)?, to)
}
