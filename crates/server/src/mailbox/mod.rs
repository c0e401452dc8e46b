//! Messages and sessions, kept for users until their devices have them (PROTOCOL.md, section 7).
//!
//! # Layout
//!
//! - this file: `open`, which decides what kind of store a server runs on. All that it knows of it is
//!   [`MailboxStore`].
//! - [`administration`](mod@administration): [`MailboxAdministration`], all that the commands know of it.
//! - `pending`: what waits for the next commit, less what no longer matters; `kept`: what is known by heart of what was
//!   committed. `shared` holds both for those who write, and is the queue of what is to be read: any kind's thread or
//!   task takes its batches and loads there. `error`: why a mailbox cannot be opened.
//! - [`sqlite`]: in a file of our own, which is the only kind so far.
//!
//! Invariant: what kind of store it is stays in that kind's folder.

pub mod administration;
mod error;
mod kept;
mod pending;
mod shared;
pub mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jam_core::router::OnCommit;
use jam_core::store::{MailboxStore, Recovered};

use crate::metrics::ServerMetrics;
use crate::settings::Settings;
pub use administration::{
    Condition, MailboxAdministration, Overview, PurgeScope, Purged, SessionOverview,
};
pub use error::OpenError;
pub use shared::MAX_PENDING_BYTES;
pub use sqlite::{Exchange, RESERVE_BYTES, Report};
use sqlite::{SqliteMailbox, SqliteMailboxAdministration};

/// Opens the mailbox that a server is to run on, which is made if there is none.
///
/// # Errors
/// [`OpenError`]; the mailbox is then as it was.
pub(crate) fn open(
    settings: &Settings,
    metrics: Arc<ServerMetrics>,
) -> Result<(Arc<dyn MailboxStore<OnCommit>>, Recovered), OpenError> {
    let dir = settings.mailbox_dir();
    // A slow disk may take its time: the log says what the start waits for.
    tracing::info!(path = %dir.display(), "opening the mailbox");
    let (mailbox, found) = SqliteMailbox::open_counted(&dir, metrics)?;
    Ok((mailbox, found))
}

/// The mailbox that a server would run on, for a command: with a server running or not.
#[must_use]
pub fn administration(settings: &Settings) -> Box<dyn MailboxAdministration> {
    Box::new(SqliteMailboxAdministration::of(settings.mailbox_dir()))
}

/// The file that messages stand in, which is to be kept from others.
#[must_use]
pub fn file(settings: &Settings) -> PathBuf {
    sqlite::file(&settings.mailbox_dir())
}

/// Copies the mailbox, as it is at one moment, into the folder `to`, where there is none, and looks at the copy. A server
/// may go on.
///
/// # Errors
/// If there is no mailbox, it cannot be read, or the copy cannot be written.
pub fn backup(settings: &Settings, to: &Path) -> Result<(), OpenError> {
    sqlite::backup(&settings.mailbox_dir(), to)?;
    SqliteMailboxAdministration::of(to.to_owned())
        .check()
        .map(drop)
}

/// Prepares that the mailbox in the folder `from`, which [`backup`] has made, takes the place of the one that is there.
///
/// # Errors
/// If there is none in `from`, or it is damaged; if a server has the one that is there; if there is no room.
pub fn restore(settings: &Settings, from: &Path) -> Result<Exchange, OpenError> {
    Exchange::prepare(from, &settings.mailbox_dir())
}

/// Saves what can be read of a damaged mailbox into the folder `to`, where there is none.
///
/// # Errors
/// If a server has the mailbox, there is nothing to read, a later version has written it, or `to` cannot be written.
pub fn salvage(settings: &Settings, to: &Path) -> Result<Report, OpenError> {
    sqlite::salvage(&settings.mailbox_dir(), to)
}
