//! Why a mailbox cannot be used: in words that say what is wrong and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a mailbox cannot be opened. The file is as it was.
#[derive(Debug)]
pub enum OpenError {
    /// The mailbox is missing.
    Missing(PathBuf),
    /// Another process has it.
    InUse {
        /// The file, or the database.
        place: String,
        /// What another server may have instead.
        instead: &'static str,
    },
    /// A database that cannot be used.
    Database {
        /// Hosts and name.
        place: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A database that has lost what it had confirmed: what it has now can be read anew.
    Lost {
        /// Hosts and name.
        place: String,
        /// How many batches.
        batches: u64,
    },
    /// Only parts of it can be read, or it is another kind of file.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A later version of this program has written it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The highest one that this program knows.
        known: i64,
    },
    /// Another program's file.
    NotOurs(PathBuf),
    /// A directory where the file is to be, or the other way round.
    WrongKind {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// Its file may be read and not written.
    ReadOnly(PathBuf),
    /// There is no room on its disk, and none in reserve.
    Full(PathBuf),
    /// The operating system or SQLite says no.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was said.
        what: String,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, error: impl fmt::Display) -> Self {
        Self::Io {
            path: path.to_owned(),
            what: error.to_string(),
        }
    }

    pub(super) fn wrong_kind(path: &Path, what: impl fmt::Display) -> Self {
        Self::WrongKind {
            path: path.to_owned(),
            what: what.to_string(),
        }
    }

    /// Of a file.
    pub(super) fn in_use(path: &Path) -> Self {
        Self::InUse {
            place: path.display().to_string(),
            instead: "a data directory",
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                f,
                "there is no mailbox {}; `jam-mqtt serve` makes one when it starts",
                path.display()
            ),
            Self::InUse { place, instead } => write!(
                f,
                "the mailbox {place} is in use by another server; stop that one, or give this one {instead} of its own"
            ),
            Self::Database { place, what } => {
                write!(f, "the mailbox in {place} cannot be used: {what}")
            }
            Self::Lost { place, batches } => write!(
                f,
                "the mailbox in {place} has lost {batches} batches that had been confirmed; start the server again: it goes \
                 on with what is there"
            ),
            Self::Damaged { path, what } => write!(
                f,
                "the mailbox {} is damaged: {what}. Nothing was changed. Put back a backup, or save \
                 what can be read into a new data directory: `jam-mqtt mailbox salvage DIR`",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "the mailbox {} has schema version {found}, and this program knows {known} at most: \
                 run the version that wrote it, or a later one",
                path.display()
            ),
            Self::NotOurs(path) => write!(
                f,
                "{} is an SQLite file of another program, not a mailbox: move it away, or give the \
                 server another data directory",
                path.display()
            ),
            Self::WrongKind { path, what } => write!(
                f,
                "{} is no mailbox: {what}; move it away, or give the server another data directory",
                path.display()
            ),
            Self::ReadOnly(path) => write!(
                f,
                "the mailbox cannot be written: {0} is read-only for this user; run this as the user of the server, or \
                 chmod u+w {0}",
                path.display()
            ),
            Self::Full(path) => write!(
                f,
                "the mailbox {} cannot be opened: the disk is full; make room, 2 MiB at least, or raise the disk quota",
                path.display()
            ),
            Self::Io { path, what } => write!(
                f,
                "the mailbox {} cannot be opened: {what}; look at the disk and at the permissions",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}
