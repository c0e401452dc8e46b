//! What the commands do with a mailbox, mostly while a server has it: look at it, copy it, empty it.
//!
//! Invariants: contents are never shown; only the server removes its messages, for
//! what it has in memory would come back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jam_core::ids::UserId;
use jam_core::store::Seq;
use jam_core::time::Time;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::clock;

use super::error::OpenError;
use super::purging::{EVERYTHING, remove_everything};
use super::records as rec;
use super::recover;
use super::reserve::{self, LEAST_BYTES};
use super::schema::{self, Files};

/// A user's mailbox in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The server's time, which ages are counted by.
    pub now: Time,
    /// When the oldest of them was received.
    pub oldest: Option<Time>,
    /// Retained messages.
    pub retained: u64,
    /// The user's sessions.
    pub sessions: Vec<SessionOverview>,
}

/// A session in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOverview {
    /// The client id.
    pub client: String,
    /// When it ends; `None` while the client is connected.
    pub ends_at: Option<Time>,
    /// Topics.
    pub subscriptions: usize,
    /// QoS 2 packet ids from the client that are not released.
    pub received: u64,
    /// Packet ids to the client that are not acknowledged.
    pub in_flight: u64,
}

/// What became of a request to empty a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// No server runs: so many messages are gone.
    Removed(u64),
    /// The server that runs has been asked, and does it within a second.
    Asked,
}

/// A mailbox that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its schema version.
    pub version: i64,
    /// Whether a server has it.
    pub served: bool,
    /// Messages of all users.
    pub messages: u64,
}

/// A user's mailbox in numbers, from the mailbox in `dir`; reads all of it.
///
/// # Errors
/// If there is no mailbox, or it cannot be read.
pub fn show(dir: &Path, user: &UserId) -> Result<Overview, OpenError> {
    let files = Files::of(dir);
    schema::prepare_existing(&files)?;
    let path = files.db;
    let look = || -> rusqlite::Result<Overview> {
        let connection = schema::open_to_read(&path)?;
        let transaction = connection.unchecked_transaction()?;
        let sql = "SELECT count(*), coalesce(sum(size), 0), min(received_at) FROM message
             WHERE user = ?1 AND id NOT IN (SELECT message FROM retained)";
        let (messages, bytes, oldest) = transaction.query_row(sql, [user.as_str()], |row| {
            Ok((
                rec::from_number(row.get(0)?)?,
                rec::from_number(row.get(1)?)?,
                row.get(2)?,
            ))
        })?;
        let sql = "SELECT count(*) FROM retained WHERE user = ?1";
        let retained = transaction.query_row(sql, [user.as_str()], |row| row.get(0))?;
        Ok(Overview {
            messages,
            bytes,
            now: time_of(&transaction)?,
            oldest: rec::time(oldest)?,
            retained: rec::from_number(retained)?,
            sessions: sessions(&transaction, user)?,
        })
    };
    look().map_err(|error| OpenError::sqlite(&path, &error))
}

fn time_of(connection: &Connection) -> rusqlite::Result<Time> {
    Ok(clock::time_after(super::clock::read(connection)?))
}

fn sessions(connection: &Connection, user: &UserId) -> rusqlite::Result<Vec<SessionOverview>> {
    let mut select = connection.prepare(
        "SELECT client, ends_at,
             (SELECT count(*) FROM subscription WHERE subscription.session = session.id),
             (SELECT count(*) FROM received WHERE received.session = session.id),
             (SELECT count(*) FROM in_flight WHERE in_flight.session = session.id)
         FROM session WHERE user = ?1 ORDER BY id",
    )?;
    let row = |row: &Row<'_>| {
        Ok(SessionOverview {
            client: row.get(0)?,
            ends_at: rec::time(row.get(1)?)?,
            subscriptions: row.get::<_, u16>(2)?.into(),
            received: rec::from_number(row.get(3)?)?,
            in_flight: rec::from_number(row.get(4)?)?,
        })
    };
    select.query_map([user.as_str()], row)?.collect()
}

/// When messages were received, of those that are in the mailbox in `dir`.
///
/// # Errors
/// If there is no mailbox, or it cannot be read.
pub fn received_at(dir: &Path, messages: &[Seq]) -> Result<Vec<(Seq, Time)>, OpenError> {
    let path = Files::of(dir).db;
    let look = || -> rusqlite::Result<Vec<(Seq, Time)>> {
        let connection = schema::open_to_read(&path)?;
        let mut select = connection.prepare("SELECT received_at FROM message WHERE id = ?1")?;
        let mut found = Vec::new();
        for seq in messages {
            let at = select
                .query_row([rec::number(*seq)], |row| row.get(0))
                .optional()?;
            found.extend(rec::time(at)?.map(|at| (*seq, at)));
        }
        Ok(found)
    };
    look().map_err(|error| OpenError::sqlite(&path, &error))
}

/// How many messages wait in the inbox of `user`, of one sender if there is `from`.
///
/// # Errors
/// If there is no mailbox, or it cannot be read.
pub fn count(dir: &Path, user: &UserId, from: Option<&UserId>) -> Result<u64, OpenError> {
    let files = Files::of(dir);
    schema::prepare_existing(&files)?;
    let look = || -> rusqlite::Result<u64> {
        let connection = schema::open_to_read(&files.db)?;
        let sql =
            "SELECT count(*) FROM message WHERE user = ?1 AND ?2 IN ('', sender) AND flags & ?3";
        let which = (user.as_str(), name(from), rec::INBOX);
        let count = connection.query_row(sql, which, |row| row.get(0))?;
        rec::from_number(count)
    };
    look().map_err(|error| OpenError::sqlite(&files.db, &error))
}

/// In `purge.sender`.
fn name(from: Option<&UserId>) -> &str {
    from.map_or("", UserId::as_str)
}

/// Removes the messages that wait in the inbox of `user` from the mailbox in `dir`, those of one sender if there is `from`.
///
/// # Errors
/// If there is no mailbox, or it cannot be changed.
pub fn purge(dir: &Path, user: &UserId, from: Option<&UserId>) -> Result<Purged, OpenError> {
    let files = Files::of(dir);
    // A lock is not made where there is no mailbox.
    schema::prepare_existing(&files)?;
    let sqlite = |error| OpenError::sqlite(&files.db, &error);
    match files.lock() {
        Ok(_lock) => {
            let closed = schema::prepare_existing(&files)?;
            let connection = schema::open(&files, closed)?;
            let sql = "DELETE FROM message WHERE user = ?1 AND ?2 IN ('', sender) AND flags & ?3";
            let removed = connection.execute(sql, (user.as_str(), name(from), rec::INBOX));
            let removed = removed.map_err(sqlite)?;
            Ok(Purged::Removed(removed as u64))
        }
        Err(OpenError::InUse(_)) => {
            let connection = schema::open_to_write(&files.db).map_err(sqlite)?;
            let sql = "INSERT OR REPLACE INTO purge (user, sender, up_to)
                 SELECT ?1, ?2, coalesce(max(id), 0) FROM message";
            let asked = connection.execute(sql, (user.as_str(), name(from)));
            asked.map_err(sqlite)?;
            Ok(Purged::Asked)
        }
        Err(error) => Err(error),
    }
}

/// Removes everything of `user` from the mailbox in `dir`: messages, retained messages, sessions, wills.
///
/// # Errors
/// If there is no mailbox, or it cannot be changed.
pub fn purge_everything(dir: &Path, user: &UserId) -> Result<Purged, OpenError> {
    let files = Files::of(dir);
    schema::prepare_existing(&files)?;
    let sqlite = |error| OpenError::sqlite(&files.db, &error);
    match remove_unserved(dir, user) {
        Err(OpenError::InUse(_)) => {
            let connection = schema::open_to_write(&files.db).map_err(sqlite)?;
            let sql = "INSERT OR REPLACE INTO purge (user, sender, up_to)
                 SELECT ?1, ?2, coalesce(max(id), 0) FROM (SELECT max(id) AS id FROM message
                 UNION ALL SELECT max(id) FROM session UNION ALL SELECT max(id) FROM will)";
            let asked = connection.execute(sql, (user.as_str(), EVERYTHING));
            asked.map_err(sqlite)?;
            Ok(Purged::Asked)
        }
        removed => removed.map(Purged::Removed),
    }
}

/// The same, if no server has the mailbox: how many messages there were.
///
/// # Errors
/// As [`purge_everything`], and [`OpenError::InUse`].
pub fn remove_unserved(dir: &Path, user: &UserId) -> Result<u64, OpenError> {
    let files = Files::of(dir);
    schema::prepare_existing(&files)?;
    let _lock = files.lock()?;
    let closed = schema::prepare_existing(&files)?;
    let connection = schema::open(&files, closed)?;
    let remove = || {
        let transaction = connection.unchecked_transaction()?;
        let removed = remove_everything(&transaction, user.as_str(), i64::MAX)?;
        transaction.commit()?;
        Ok(removed)
    };
    remove().map_err(|error| OpenError::sqlite(&files.db, &error))
}

/// Whether a server has yet to do what [`purge_everything`] has asked it for.
///
/// # Errors
/// If the mailbox cannot be read.
pub fn is_everything_due(dir: &Path, user: &UserId) -> Result<bool, OpenError> {
    is_due(dir, user, EVERYTHING)
}

/// Whether a server has yet to do what [`purge`] has asked it for.
///
/// # Errors
/// If the mailbox cannot be read.
pub fn is_purge_due(dir: &Path, user: &UserId, from: Option<&UserId>) -> Result<bool, OpenError> {
    is_due(dir, user, name(from))
}

fn is_due(dir: &Path, user: &UserId, sender: &str) -> Result<bool, OpenError> {
    let path = Files::of(dir).db;
    let look = || -> rusqlite::Result<bool> {
        let connection = schema::open_to_read(&path)?;
        let sql = "SELECT count(*) FROM purge WHERE user = ?1 AND sender = ?2";
        let key = (user.as_str(), sender);
        Ok(connection.query_row(sql, key, |row| row.get::<_, i64>(0))? > 0)
    };
    look().map_err(|error| OpenError::sqlite(&path, &error))
}

/// How much room there is for the mailbox in `dir`, be it there or not.
///
/// # Errors
/// In words: there is not enough.
pub fn room(dir: &Path) -> Result<String, String> {
    let files = Files::of(dir);
    let Some(bytes) = reserve::room_beside(&files.db) else {
        return Ok("the file system does not say how much is free".to_owned());
    };
    let free = format!("{} free", bytesize::ByteSize::b(bytes));
    if bytes >= LEAST_BYTES {
        return Ok(free);
    }
    let then = if files.reserve().exists() {
        "what waits is delivered, and messages are refused until there is"
    } else {
        "nothing can be served"
    };
    Err(format!(
        "the disk of {} is full, {free}; make room: {then}",
        dir.display()
    ))
}

/// Copies the mailbox in `dir`, as it is at one moment, into the new file `to`. A server may go on.
///
/// # Errors
/// If there is no mailbox, it cannot be read, or `to` exists or cannot be written.
pub fn backup(dir: &Path, to: &Path) -> Result<(), OpenError> {
    let files = Files::of(dir);
    schema::prepare_existing(&files)?;
    let path = files.db;
    let io = |error| OpenError::io(to, error);
    if to.exists() {
        return Err(OpenError::io(to, "there is a file already"));
    }
    let draft = to.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(io(why)),
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
        check(from)?;
        let lock = if dir.exists() {
            Some(Files::of(dir).lock()?)
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
        backup(from, &Files::of(&exchange.new).db)?;
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

/// Reads all of the mailbox in `dir`, contents too, and looks at each page. A server may go on. Changes
/// and creates nothing.
///
/// # Errors
/// What is wrong with it.
pub fn check(dir: &Path) -> Result<Condition, OpenError> {
    let files = Files::of(dir);
    let free = files.keep_free()?;
    schema::prepare_existing(&files)?;
    let look = || -> Result<Condition, OpenError> {
        let sqlite = |error| OpenError::sqlite(&files.db, &error);
        let connection = match &free {
            Some(_) => schema::open_to_inspect(&files),
            None => schema::open_to_read(&files.db),
        };
        let connection = connection.map_err(sqlite)?;
        let version = schema::pragma(&connection, "user_version").map_err(sqlite)?;
        schema::check(&connection, &files.db)?;
        // An older one gets its tables when it is opened.
        let messages = if version == schema::VERSION {
            let transaction = connection.unchecked_transaction().map_err(sqlite)?;
            recover::contents(&transaction).map_err(sqlite)?
        } else {
            0
        };
        Ok(Condition {
            version,
            served: free.is_none(),
            messages,
        })
    };
    look()
}
