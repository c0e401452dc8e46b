//! Whether the mailbox's files are still where they were opened.
//!
//! SQLite goes on with files that have been deleted, moved or replaced, and what it commits to them is gone with the
//! process. So [`AtPlace::look`] comes before each commit, and once a second when there is none. What was committed
//! before is secured where that can be done: in a copy at the old place, or in the database itself when only its log is
//! gone. Nothing is written after that until the files are back or the server is restarted.
//!
//! Invariant: a file that is not ours is never opened, written or replaced (`tests::misplaced`).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Error, backup, ffi};

use super::schema::{self, MailboxFiles};

/// Device and inode; an open file keeps its inode from being used again.
type Identity = (u64, u64);

/// What is not where it was, and what to do, in an operator's words.
pub(super) struct Misplaced(&'static str);

#[derive(Debug)]
pub(super) struct AtPlace {
    pub(super) files: MailboxFiles,
    db: Option<Identity>,
    log: [Option<Identity>; 2],
    /// A lock file that took the place of one that was deleted.
    new_lock: Mutex<Option<File>>,
    lock: Option<Identity>,
    /// Pages that the file may have; 0 for any number.
    #[cfg(test)]
    pub(super) max_pages: std::sync::atomic::AtomicUsize,
    /// `PRAGMA synchronous` of the connection at the last commit.
    #[cfg(test)]
    pub(super) synchronous: std::sync::atomic::AtomicI64,
}

impl AtPlace {
    /// The files of an open mailbox, whose lock is held.
    pub(super) fn of(files: MailboxFiles) -> Self {
        Self {
            db: identity(&files.db),
            log: [identity(files.wal()), identity(&files.shm())],
            lock: identity(files.lock_path()),
            new_lock: Mutex::new(None),
            files,
            #[cfg(test)]
            max_pages: std::sync::atomic::AtomicUsize::new(0),
            #[cfg(test)]
            synchronous: std::sync::atomic::AtomicI64::new(-1),
        }
    }

    /// Whether the database and its log are the ones that were opened.
    pub(super) fn are_ours(&self) -> bool {
        is_same(&self.files.db, self.db) && self.has_its_log()
    }

    /// `None`: everything is where it was. `connection` is the one that was opened.
    pub(super) fn look(&self, connection: &Connection) -> Option<Misplaced> {
        if !is_same(&self.files.db, self.db) {
            return Some(self.without_database(connection));
        }
        if !self.has_its_log() {
            return Some(without_log(connection));
        }
        (!self.is_locked()).then_some(Misplaced(
            "mailbox.lock was deleted, and another server has the mailbox now; stop one of the two",
        ))
    }

    fn has_its_log(&self) -> bool {
        is_same(self.files.wal(), self.log[0]) && is_same(&self.files.shm(), self.log[1])
    }

    fn without_database(&self, connection: &Connection) -> Misplaced {
        Misplaced(match fs::symlink_metadata(&self.files.db) {
            Ok(_) => {
                "another file is in its place; put the right one back, or restart the server to go on with this one"
            }
            Err(_) if self.copy(connection).is_ok() => {
                "it was deleted or moved away, and a copy of all that it held is in its place; restart the server, \
                 which goes on with the copy"
            }
            Err(_) => {
                "it was deleted or moved away; put it back before the server stops, or what it holds is lost"
            }
        })
    }

    /// Complete when it has its name, as a new mailbox is.
    fn copy(&self, connection: &Connection) -> Result<(), Error> {
        // A log that is still there belongs to the file that is gone, and must not be taken for one of the copy.
        empty_log(connection)?;
        let draft = self.files.db.with_extension("copy");
        drop(fs::remove_file(&draft));
        connection.backup("main", &draft, None::<fn(backup::Progress)>)?;
        let placed = File::open(&draft)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::hard_link(&draft, &self.files.db)) // a rename would replace what has come back
            .and_then(|()| schema::sync_dir_of(&self.files.db));
        drop(fs::remove_file(&draft));
        placed.map_err(|_| moved(""))
    }

    /// Whether no other server has the mailbox; a lock file that was deleted is made again.
    fn is_locked(&self) -> bool {
        let mut new_lock = self.new_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let of_new = || {
            let meta = new_lock.as_ref()?.metadata().ok()?;
            Some((meta.dev(), meta.ino()))
        };
        let current = identity(self.files.lock_path());
        if current.is_some() && (current == self.lock || current == of_new()) {
            return true;
        }
        match self.files.lock() {
            Ok(file) => {
                *new_lock = Some(file);
                true
            }
            Err(_) => false,
        }
    }
}

impl Misplaced {
    pub(super) fn error(&self) -> Error {
        moved(self.0)
    }
}

fn moved(what: &str) -> Error {
    let code = ffi::Error::new(ffi::SQLITE_READONLY_DBMOVED);
    Error::SqliteFailure(code, Some(what.to_owned()))
}

fn without_log(connection: &Connection) -> Misplaced {
    Misplaced(if empty_log(connection).is_ok() {
        "mailbox.db-wal or mailbox.db-shm was deleted, moved or replaced; restart the server, nothing is lost"
    } else {
        "mailbox.db-wal or mailbox.db-shm was deleted, moved or replaced; put them back, or restart the server by \
         SIGTERM, never by `kill -9`"
    })
}

/// Moves all of the log into the database.
fn empty_log(connection: &Connection) -> Result<(), Error> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(moved("")) }
}

/// Whether a write was refused because a file is not where it was; the error says what to do then.
pub(super) fn is_moved(error: &Error) -> bool {
    let code = error.sqlite_error();
    code.is_some_and(|error| error.extended_code == ffi::SQLITE_READONLY_DBMOVED)
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn is_same(path: &Path, opened: Option<Identity>) -> bool {
    opened.is_none() || identity(path) == opened
}
