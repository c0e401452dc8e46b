//! A copy of the directory's file as it is at one moment, while everybody goes on with it.
//!
//! Invariants: the copy is page for page what was copied, another program's tables included, and comes
//! into being complete; nobody but the owner can read it, for tokens stand in it.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::schema;
use super::{DirectoryError, is_busy};

/// Copies the directory at `path` into the new file `to`.
///
/// # Errors
/// If there is no directory, it cannot be read, or `to` cannot be written.
pub fn backup(path: &Path, to: &Path) -> Result<(), DirectoryError> {
    let cannot = |why: &dyn std::fmt::Display| {
        DirectoryError::new(format!("cannot write {}: {why}", to.display()))
    };
    let from = schema::open_for_writing(path)?;
    let parent = to
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Mode 0600, and removed if this fails.
    let draft = tempfile::Builder::new()
        .prefix(".jam-directory-")
        .tempfile_in(parent)
        .map_err(|error| cannot(&error))?
        .into_temp_path();
    copy(&from, &draft).map_err(|error| {
        if is_busy(&error) {
            DirectoryError::from(error)
        } else {
            cannot(&error)
        }
    })?;
    fs::File::open(&draft)
        .and_then(|file| file.sync_all())
        .map_err(|error| cannot(&error))?;
    draft
        .persist_noclobber(to)
        .map_err(|error| cannot(&error.error))?;
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|error| cannot(&error))
}

fn copy(from: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut into = Connection::open(to)?;
    {
        let backup = Backup::new(from, &mut into)?;
        // All in one read: what others commit meanwhile neither shows nor makes it begin again.
        match backup.step(-1)? {
            StepResult::Done => {}
            _ => return Err(busy()),
        }
    }
    into.close().map_err(|(_, error)| error)
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}
