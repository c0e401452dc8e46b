//! The files that a mailbox consists of, by their names, and the lock on them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::folders;
use crate::mailbox::OpenError;

/// The files of a mailbox.
#[derive(Debug, Clone)]
pub(in crate::mailbox::sqlite) struct MailboxFiles {
    /// The database.
    pub(in crate::mailbox::sqlite) db: PathBuf,
    /// Its write-ahead log.
    wal: PathBuf,
    /// Held by the server that has the mailbox.
    lock: PathBuf,
}

impl MailboxFiles {
    pub(in crate::mailbox::sqlite) fn of(dir: &Path) -> Self {
        Self {
            db: dir.join("mailbox.db"),
            wal: dir.join("mailbox.db-wal"),
            lock: dir.join("mailbox.lock"),
        }
    }

    pub(in crate::mailbox::sqlite) fn wal(&self) -> &Path {
        &self.wal
    }

    /// The log's index in memory that processes share.
    pub(in crate::mailbox::sqlite) fn shm(&self) -> PathBuf {
        self.db.with_extension("db-shm")
    }

    pub(in crate::mailbox::sqlite) fn lock_path(&self) -> &Path {
        &self.lock
    }

    /// Room for when the disk is full. Made after the database, so it is not there without that.
    pub(in crate::mailbox::sqlite) fn reserve(&self) -> PathBuf {
        self.db.with_extension("reserve")
    }

    /// Whether there is anything of a mailbox, be it damaged.
    pub(in crate::mailbox::sqlite) fn exist(&self) -> bool {
        self.db.exists() || self.wal.exists()
    }

    /// Keeps servers out for as long as the file is open, without making one; `None`: a server has the
    /// mailbox.
    pub(in crate::mailbox::sqlite) fn keep_free(&self) -> Result<Option<Free>, OpenError> {
        let error = |error: io::Error| match error.kind() {
            io::ErrorKind::NotADirectory => no_directory(folders::of(&self.lock)),
            _ => OpenError::io(&self.lock, error),
        };
        let file = match File::open(&self.lock) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Some(Free(None))),
            Err(why) => return Err(error(why)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Free(Some(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(why)) => Err(error(why)),
        }
    }

    /// Fails if a file is there that a server could not write. Writes nothing.
    pub(in crate::mailbox::sqlite) fn expect_writable(&self) -> Result<(), OpenError> {
        for path in [&self.db, &self.wal, &self.lock] {
            if let Err(Errno::ACCESS | Errno::PERM) = access(path, Access::WRITE_OK) {
                return Err(OpenError::ReadOnly(path.clone()));
            }
        }
        Ok(())
    }

    /// Takes the mailbox for as long as the file is open.
    pub(in crate::mailbox::sqlite) fn lock(&self) -> Result<File, OpenError> {
        let error = |error: io::Error| OpenError::io(&self.lock, error);
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)
            .map_err(|why| match why.kind() {
                io::ErrorKind::PermissionDenied if self.lock.exists() => {
                    OpenError::ReadOnly(self.lock.clone())
                }
                _ => error(why),
            })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(OpenError::in_use(&self.db)),
            Err(fs::TryLockError::Error(why)) => Err(error(why)),
        }
    }
}

/// No server has the mailbox; none gets it while this is held, if there has ever been one.
#[derive(Debug)]
pub(in crate::mailbox::sqlite) struct Free(
    #[expect(dead_code, reason = "held for its lock")] Option<File>,
);

/// The directory, readable for nobody else.
pub(in crate::mailbox::sqlite) fn create_dir(dir: &Path) -> Result<(), OpenError> {
    folders::make_private(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => no_directory(dir),
        _ => OpenError::io(dir, error),
    })
}

fn no_directory(dir: &Path) -> OpenError {
    OpenError::wrong_kind(dir, "it is a file, not a directory")
}

/// Makes a rename last.
pub(in crate::mailbox::sqlite) fn sync_dir_of(path: &Path) -> io::Result<()> {
    folders::sync(folders::of(path))
}
