//! A copy of the directory's file as it is at one moment, while everybody goes on with it; and back.
//!
//! Invariants: the copy is page for page what was copied, another program's tables included, and comes
//! into being complete; only the owner can read it, for tokens stand in it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::files::Names;
use super::schema::{self, LOCK_PATIENCE};
use super::{DirectoryError, inspect, is_busy};
use crate::folders;

/// Between two tries of what a lock of another process is in the way of.
const RETRY: Duration = Duration::from_millis(20);

/// Copies the directory at `path` into the new file `to`.
///
/// # Errors
/// If there is no directory, it cannot be read, or `to` cannot be written.
pub fn backup(path: &Path, to: &Path) -> Result<(), DirectoryError> {
    let cannot = |why: &dyn std::fmt::Display| {
        DirectoryError::new(format!("cannot write {}: {why}", to.display()))
    };
    let from = schema::open_for_writing(path)?;
    let parent = folders::of(to);
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
    folders::sync(parent).map_err(|error| cannot(&error))
}

/// Looks at a file that is to be restored, all of it, without a trace. How many accounts it has.
///
/// # Errors
/// If it is missing or damaged, or is no jam database.
pub fn check_backup(path: &Path) -> Result<u32, DirectoryError> {
    let users = inspect(path)?.accounts;
    let connection = schema::open_for_inspection(path)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(DirectoryError::new(format!(
            "{} is damaged: {found}",
            path.display()
        )));
    }
    Ok(users)
}

/// Writes the backup `from` into the database `to`, as one transaction, so that a program that has it open goes on with it; or
/// makes it, if it is not there.
///
/// # Errors
/// If `to` cannot be written, or stays locked for 5 seconds; it is as it was then.
pub fn restore(from: &Path, to: &Path) -> Result<(), DirectoryError> {
    if !to.exists() {
        Names::of(to).set_remains_aside()?;
        return backup(from, to);
    }
    let source = schema::open_for_inspection(from)?;
    let mut target = schema::open_for_writing(to)?;
    let cannot = |error: rusqlite::Error| {
        if is_busy(&error) {
            return DirectoryError::from(error);
        }
        DirectoryError::new(format!("cannot write {}: {error}", to.display()))
    };
    let began = Instant::now();
    let backup = Backup::new(&source, &mut target).map_err(cannot)?;
    loop {
        // All of it or nothing. A lock is not waited for by SQLite itself here.
        match backup.step(-1).map_err(cannot)? {
            StepResult::Done => return Ok(()),
            _ if began.elapsed() >= LOCK_PATIENCE => return Err(cannot(busy())),
            _ => thread::sleep(RETRY),
        }
    }
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
