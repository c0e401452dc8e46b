//! A copy of the file, and a copy that takes the file's place.
//!
//! Invariants: a copy has its name once it is complete and on the disk; a mailbox is exchanged whole, only while no
//! server has it, and the one before is kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::SqliteMailboxAdministration;
use super::schema::{self, MailboxFiles};
use crate::mailbox::{MailboxAdministration as _, OpenError};

/// Copies the mailbox in `dir`, as it is at one moment, into the directory `to`. A server may go on.
///
/// # Errors
/// If there is no mailbox, it cannot be read, or there is one in `to` or it cannot be written.
pub fn backup(dir: &Path, to: &Path) -> Result<(), OpenError> {
    let files = MailboxFiles::of(dir);
    schema::prepare_existing(&files)?;
    let path = files.db;
    let to = &MailboxFiles::of(to).db;
    let io = |error| OpenError::io(to, error);
    if to.exists() {
        return Err(OpenError::io(to, "there is a file already"));
    }
    let draft = to.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(io(why)),
        _ => {}
    }
    let Some(target) = draft.to_str() else {
        return Err(OpenError::io(to, "the path is not UTF-8"));
    };
    let copy = || -> rusqlite::Result<()> {
        let connection = schema::open_to_read(&path)?;
        connection.execute("VACUUM INTO ?1", [target]).map(drop)
    };
    if let Err(error) = copy() {
        drop(fs::remove_file(&draft));
        return Err(OpenError::sqlite(&path, &error));
    }
    File::open(&draft)
        .and_then(|file| file.sync_all())
        .map_err(io)?;
    fs::rename(&draft, to).map_err(io)?;
    schema::sync_dir_of(to).map_err(io)
}

/// A mailbox that is about to take the place of another, which no server has meanwhile.
#[derive(Debug)]
pub struct Exchange {
    dir: PathBuf,
    /// Beside it, on the same disk.
    new: PathBuf,
    complete: bool,
    _lock: Option<File>,
}

impl Exchange {
    /// Copies the mailbox of a backup in `from` to where it is to take the place of the one in `dir`.
    ///
    /// # Errors
    /// If there is none in `from`, or it is damaged; if a server has the one in `dir`; if there is no room.
    pub fn prepare(from: &Path, dir: &Path) -> Result<Self, OpenError> {
        SqliteMailboxAdministration::of(from.to_owned()).check()?;
        let lock = if dir.exists() {
            Some(MailboxFiles::of(dir).lock()?)
        } else {
            None
        };
        let new = free_name(dir, "restored");
        schema::create_dir(&new)?;
        let exchange = Self {
            dir: dir.to_owned(),
            new,
            complete: false,
            _lock: lock,
        };
        backup(from, &exchange.new)?;
        Ok(exchange)
    }

    /// Puts it in place. Where the one that was there is now.
    ///
    /// # Errors
    /// If the directories cannot be renamed.
    pub fn complete(mut self) -> Result<Option<PathBuf>, OpenError> {
        let before = self.dir.exists().then(|| free_name(&self.dir, "before"));
        if let Some(before) = &before {
            fs::rename(&self.dir, before).map_err(|error| OpenError::io(&self.dir, error))?;
        }
        fs::rename(&self.new, &self.dir).map_err(|error| OpenError::io(&self.dir, error))?;
        self.complete = true;
        schema::sync_dir_of(&self.dir).map_err(|error| OpenError::io(&self.dir, error))?;
        Ok(before)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.complete {
            drop(fs::remove_dir_all(&self.new));
        }
    }
}

/// A name beside `dir` that nothing has.
fn free_name(dir: &Path, what: &str) -> PathBuf {
    let named = |n: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".{what}-{n}"));
        PathBuf::from(name)
    };
    let mut names = (1..).map(named);
    names
        .find(|name| !name.exists())
        .expect("there are more numbers than directories")
}
