//! Why a mailbox cannot be used: in words that say what is wrong and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a mailbox cannot be opened. The file is as it was.
#[derive(Debug)]
pub enum OpenError {
    /// There is none.
    Missing(PathBuf),
    /// Another process has it.
    InUse(PathBuf),
    /// What stands there is not, or no longer, a mailbox that can be read as a whole.
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
            Self::InUse(path) => write!(
                f,
                "the mailbox {} is in use by another server; stop that one, or give this one a data \
                 directory of its own",
                path.display()
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
