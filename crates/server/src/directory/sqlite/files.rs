//! [`Files`]: which files the database consists of, and whether those are still the ones that are open.
//!
//! In WAL mode a database is three files, and SQLite finds two of them by name. When one of them is replaced or removed,
//! open connections are left with files that nobody else reads or writes, and a new connection has files that do
//! not belong together. SQLite notices neither; this does. In the other modes a transaction that is under way, or was cut
//! off, has a journal, found by name too: a new file would be rolled back to what the old one was.
//!
//! Invariants: looking opens no file, for closing it would take away the locks that SQLite holds on it in this
//! process; the log of a file that has been replaced is never read as the log of its successor
//! (`tests::files::a_replaced_file_is_not_read_with_the_log_of_the_old_one`).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::DirectoryError;

/// The names of a database's files.
#[derive(Debug)]
pub(super) struct Names {
    db: PathBuf,
    wal: PathBuf,
    shm: PathBuf,
    journal: PathBuf,
}

/// The files that bear those names, as far as they exist.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    pub(super) db: Option<FileId>,
    wal: Option<FileId>,
    pub(super) shm: Option<FileId>,
    /// Comes and goes with each transaction where there is no log.
    journal: Option<FileId>,
}

impl Names {
    pub(super) fn of(path: &Path) -> Self {
        // SQLite follows links, and puts the others beside the file that they lead to.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let beside = |suffix| with_suffix(&real, suffix);
        Self {
            db: path.to_owned(),
            wal: beside("-wal"),
            shm: beside("-shm"),
            journal: beside("-journal"),
        }
    }

    pub(super) fn look(&self) -> Files {
        Files {
            db: FileId::of(&self.db),
            wal: FileId::of(&self.wal),
            shm: FileId::of(&self.shm),
            journal: FileId::of(&self.journal),
        }
    }

    /// Keeps the log, or the journal, of `before`, whose database has been replaced, from being read with its successor. It
    /// is kept under another name: it may hold what the old file does not.
    pub(super) fn set_log_aside(&self, before: &Files) -> Result<(), DirectoryError> {
        let now = self.look();
        if before.shm.is_some() && now.shm == before.shm {
            fs::remove_file(&self.shm).map_err(|error| self.cannot_move(&self.shm, &error))?;
        }
        for (log, before, now) in [
            (&self.wal, before.wal, now.wal),
            (&self.journal, before.journal, now.journal),
        ] {
            if before.is_none() || now != before {
                continue;
            }
            let aside = set_aside(log).map_err(|error| self.cannot_move(log, &error))?;
            tracing::warn!(
                path = %self.db.display(), log = %aside.display(),
                "the accounts database was replaced beside the log of the file before it; that log is set aside. \
                 Restart every other program that uses the database, and use `jam-mqtt restore` next time"
            );
        }
        Ok(())
    }

    fn cannot_move(&self, log: &Path, error: &io::Error) -> DirectoryError {
        DirectoryError::new(format!(
            "{} was replaced beside the log of the file before it, and {} cannot be moved away: {error}; stop \
             every program that uses the database, remove that log, and use `jam-mqtt restore` next time",
            self.db.display(),
            log.display(),
        ))
    }

    /// Where there is no database, a log, its index and a journal belong to none, and not to the one that is about to be
    /// made.
    pub(super) fn set_remains_aside(&self) -> Result<(), DirectoryError> {
        let found = self.look();
        let cannot = |path: &Path, error: &io::Error| {
            DirectoryError::new(format!("cannot move {} away: {error}", path.display()))
        };
        if found.shm.is_some() {
            fs::remove_file(&self.shm).map_err(|error| cannot(&self.shm, &error))?;
        }
        for (log, found) in [(&self.wal, found.wal), (&self.journal, found.journal)] {
            if found.is_some() {
                set_aside(log).map_err(|error| cannot(log, &error))?;
            }
        }
        Ok(())
    }
}

fn set_aside(log: &Path) -> io::Result<PathBuf> {
    let aside = with_suffix(log, ".replaced");
    fs::rename(log, &aside)?;
    Ok(aside)
}

impl Files {
    /// Whether an open connection may go on with them.
    pub(super) fn are(&self, now: &Self) -> bool {
        (self.db, self.wal, self.shm) == (now.db, now.wal, now.shm)
    }

    /// Remembers the journal that is there at the moment, if there is one.
    pub(super) fn note_journal(&mut self, now: &Self) {
        self.journal = now.journal;
    }

    /// Whether they are the same still after a connection was opened, which may have made the log and its index.
    pub(super) fn became(&self, after: &Self) -> bool {
        let same_or_made = |a: Option<FileId>, b| a.is_none() || a == b;
        self.db == after.db
            && same_or_made(self.wal, after.wal)
            && same_or_made(self.shm, after.shm)
    }

    /// Whether an open connection's log may still be moved into the database: nobody has begun another one.
    pub(super) fn may_checkpoint(&self, now: &Self) -> bool {
        self.db == now.db && now.wal.is_none()
    }

    /// What is known once the connections are closed: a number may be given to another file from then on.
    pub(super) fn of_closed(db: Option<FileId>) -> Self {
        Self {
            db,
            wal: None,
            shm: None,
            journal: None,
        }
    }
}

/// Tells one file from another under the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// `None` if there is no file. Where the system has no such ids, all files look the same.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::from_metadata)
    }

    pub(super) fn from_metadata(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Self(metadata.dev(), metadata.ino())
        }
        #[cfg(not(unix))]
        {
            let _ = metadata;
            Self(0, 0)
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
