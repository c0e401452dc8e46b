//! What can be read of a damaged mailbox, in a new file.
//!
//! Invariants: the damaged files are only copied, never opened by SQLite, which would begin to repair
//! them; what is saved has been decoded, so that the new file opens.

use std::fs;
use std::path::{Path, PathBuf};

use jam_core::payload::check_sender;
use rusqlite::types::Value;
use rusqlite::{Connection, Error, Row, params_from_iter};

use super::meta;
use super::records as rec;
use super::recover;
use super::schema::{self, MailboxFiles};
use crate::mailbox::OpenError;
use crate::named_file;

/// What has been saved, and what not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages saved.
    pub messages: u64,
    /// Messages that were there, but could not be right.
    pub wrong: u64,
    /// Ranges of numbers that could not be read: there may have been messages.
    pub unread: Vec<(u64, u64)>,
    /// Sessions saved, with their packet ids.
    pub sessions: u64,
    /// Retained messages saved.
    pub retained: u64,
    /// Tables of which the rest could not be read.
    pub cut: Vec<&'static str>,
}

impl Report {
    /// Whether there was something, and nothing of it could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let saved = self.messages + self.sessions + self.retained;
        saved == 0 && (self.wrong > 0 || !self.unread.is_empty() || !self.cut.is_empty())
    }
}

const MESSAGE: &str = "id, user, sender, flags, waits_for, acknowledged, received_at, expires_at, size, body, sender_life";

const THERE: &str = "SELECT 1 FROM message WHERE id = ?1";

/// Saves what can be read of the mailbox in `dir` into the directory `to`.
///
/// # Errors
/// If a server has the mailbox, there is nothing to read, a later version has written it, there is one in `to`, or
/// it cannot be written.
pub fn salvage(dir: &Path, to: &Path) -> Result<Report, OpenError> {
    let files = MailboxFiles::of(dir);
    if !files.exist() {
        return Err(OpenError::Missing(files.db));
    }
    let found = named_file::expect_file(&files.db).err();
    if let Some(what) = found.filter(named_file::is_wrong_kind) {
        return Err(OpenError::wrong_kind(&files.db, what));
    }
    let _lock = files.lock()?;
    let to = &MailboxFiles::of(to).db;
    if to.exists() {
        return Err(OpenError::io(to, "there is a file already"));
    }
    let work = Work::copy(&files, to)?;
    let from = work
        .open()
        .map_err(|error| OpenError::sqlite(&files.db, &error))?;
    if let Ok(found) = schema::pragma(&from, "user_version") {
        schema::check_version(&files.db, found)?;
    }
    schema::create(to)?;
    let mut report = Report::default();
    let saved = schema::open_to_write(to).and_then(|into| {
        let into = into.unchecked_transaction()?;
        save(&from, &into, &mut report)?;
        into.commit()
    });
    saved.map_err(|error| OpenError::sqlite(to, &error))?;
    Ok(report)
}

/// A copy of the damaged files, removed in the end.
struct Work(PathBuf);

impl Work {
    fn copy(files: &MailboxFiles, to: &Path) -> Result<Self, OpenError> {
        let dir = to.with_extension("work");
        fs::create_dir(&dir).map_err(|error| OpenError::io(&dir, error))?;
        let work = Self(dir);
        let io = |error| OpenError::io(&files.db, error);
        fs::copy(&files.db, work.db()).map_err(io)?;
        if files.wal().exists() {
            fs::copy(files.wal(), work.0.join("mailbox.db-wal")).map_err(io)?;
        }
        Ok(work)
    }

    fn db(&self) -> PathBuf {
        self.0.join("mailbox.db")
    }

    fn open(&self) -> Result<Connection, Error> {
        let mut connection = Connection::open(self.db())?;
        // Makes SQLite go on with a file that is too short.
        connection.pragma_update(None, "writable_schema", true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        // As far as it goes: what cannot be brought up to date cannot be read either. A file without a
        // version is not ours, or nothing is left of it: it must not become an empty mailbox.
        if let Ok(found @ 1..) = schema::pragma(&connection, "user_version") {
            drop(schema::migrate(&mut connection, found));
        }
        Ok(connection)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Errors are those of the new file.
fn save(from: &Connection, into: &Connection, report: &mut Report) -> Result<(), Error> {
    let mut next = Some(0);
    while let Some(start) = next {
        next = match copy_messages(from, into, start, report)? {
            Ok(()) => None,
            Err(unread) => {
                let found = next_readable(from, unread);
                let last = found.map_or(i64::MAX, |found| found - 1);
                report
                    .unread
                    .push((rec::from_number(unread)?, rec::from_number(last)?));
                found
            }
        };
    }
    let columns = "id, user, client, slot, expiry, ends_at, will, will_delay, will_at, maybe_sent,
         token";
    let valid = |row: &Row<'_>| recover::session(row).is_ok();
    report.sessions = copy_table(from, into, ("session", columns, "id"), valid, report)?;
    let valid = |row: &Row<'_>| recover::subscription(row).is_ok();
    let columns = "session, topic, options, id";
    let table = ("subscription", columns, "session, topic");
    copy_table(from, into, table, valid, report)?;
    let valid = |row: &Row<'_>| {
        row.get(0).is_ok_and(|it| rec::from_number(it).is_ok())
            && row.get(1).is_ok_and(|it| rec::packet_id(it).is_ok())
    };
    let key = "session, packet_id";
    copy_table(from, into, ("received", key, key), valid, report)?;
    let columns = "session, packet_id, state, message, position";
    copy_table(from, into, ("in_flight", columns, key), valid, report)?;
    let columns = "message, user, topic";
    let is_there = |id: i64| into.prepare_cached(THERE)?.exists([id]);
    let valid = |row: &Row<'_>| {
        let here = row.get(0).and_then(is_there).unwrap_or(false);
        here && recover::retained_topic(row).is_ok()
    };
    let table = ("retained", columns, "message");
    report.retained = copy_table(from, into, table, valid, report)?;
    report.messages -= report.retained;
    let valid = |row: &Row<'_>| recover::claim(row).is_ok();
    let key = "session, message";
    copy_table(from, into, ("claim", key, key), valid, report)?;
    let valid = |row: &Row<'_>| recover::will(row).is_ok();
    copy_table(
        from,
        into,
        ("will", "id, user, body, token", "id"),
        valid,
        report,
    )?;
    let valid = |row: &Row<'_>| recover::push(row).is_ok();
    let columns = "user, sender, message, sent, at, expires_at";
    copy_table(from, into, ("push", columns, "user, sender"), valid, report)?;
    let valid = |row: &Row<'_>| recover::owner(row).is_ok();
    let columns = "user, email, name, made_up, gone_since, password";
    copy_table(from, into, ("owner", columns, "user"), valid, report)?;
    if let Ok(Some(highest)) = meta::get(from, meta::LAST_SEQ) {
        meta::put(into, meta::LAST_SEQ, highest)?;
    }
    if let Ok(Some(record)) = super::clock::read(from) {
        super::clock::write(into, &record)?;
    }
    Ok(())
}

/// Copies messages from `start` on; says the first number that could not be read.
fn copy_messages(
    from: &Connection,
    into: &Connection,
    start: i64,
    report: &mut Report,
) -> Result<Result<(), i64>, Error> {
    let sql = format!("SELECT {MESSAGE} FROM message WHERE id >= ?1 ORDER BY id");
    let Ok(mut select) = from.prepare_cached(&sql) else {
        return Ok(Err(start));
    };
    let Ok(mut rows) = select.query([start]) else {
        return Ok(Err(start));
    };
    let mut next = start;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Ok(())),
            Err(_) => return Ok(Err(next)),
        };
        // Numbers that do not ascend would be read for ever.
        match row.get::<_, i64>(0) {
            Ok(id) if id >= next && id < i64::MAX => next = id,
            _ => return Ok(Err(next)),
        }
        let Ok(values) = values(row) else {
            return Ok(Err(next));
        };
        if is_message(row).is_ok() {
            insert(into, "message", MESSAGE, values)?;
            report.messages += 1;
        } else {
            report.wrong += 1;
        }
        next += 1;
    }
}

fn is_message(row: &Row<'_>) -> Result<(), Error> {
    rec::user(row.get_ref(1)?.as_str()?)?;
    let flags = rec::Flags::from_number(row.get(3)?)?;
    rec::from_devices(row.get(4)?)?;
    let (_, size): (bool, u32) = (row.get(5)?, row.get(8)?);
    let body = row.get_ref(9)?.as_blob()?;
    let sender = rec::sender(row.get_ref(2)?, row.get_ref(10)?)?;
    let id = sender.0.clone();
    let message = rec::decode_message(body, flags.packet_id, sender, row.get(6)?, row.get(7)?)?;
    let payload = message.to_stored().payload;
    // Before version 4 a message weighed its payload; a retained one of then, the whole packet.
    let sizes = [message.weight(), payload.len() as u64, body.len() as u64];
    if !sizes.contains(&size.into()) {
        return Err(rec::wrong("the size of a message").into());
    }
    // What lies on a page of its own may be anything by now. Most of that is no longer what was let in.
    if flags.inbox && check_sender(&payload, id.as_str()).is_err() {
        return Err(rec::wrong("the payload of a message").into());
    }
    Ok(())
}

/// The lowest number after `unread` from which on the next message can be read, as far as doubling
/// steps and halving them again find it.
fn next_readable(from: &Connection, unread: i64) -> Option<i64> {
    let sql = format!("SELECT {MESSAGE} FROM message WHERE id >= ?1 ORDER BY id LIMIT 1");
    let read = |start: i64| -> Result<bool, Error> {
        let mut select = from.prepare_cached(&sql)?;
        let mut rows = select.query([start])?;
        match rows.next()? {
            Some(row) => values(row).map(|_| true),
            None => Ok(false),
        }
    };
    let mut bad = unread;
    let mut step = 1_i64;
    let good = loop {
        let start = unread.checked_add(step)?;
        match read(start) {
            Ok(_) => break start,
            Err(_) => bad = start,
        }
        step = step.checked_mul(2)?;
    };
    let mut good = good;
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if read(middle).is_ok() {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(good)
}

/// Copies a table from both of its ends as far as it can be read.
fn copy_table(
    from: &Connection,
    into: &Connection,
    (table, columns, key): (&'static str, &str, &str),
    valid: impl Fn(&Row<'_>) -> bool,
    report: &mut Report,
) -> Result<u64, Error> {
    let mut copied = 0;
    let backwards = key
        .split(", ")
        .map(|key| format!("{key} DESC"))
        .collect::<Vec<_>>()
        .join(", ");
    for order in [key, &backwards] {
        let sql = format!("SELECT {columns} FROM {table} ORDER BY {order}");
        let whole = (|| -> Result<Result<(), Error>, Error> {
            let mut select = from.prepare(&sql)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let values = values(row)?;
                if valid(row) {
                    match insert(into, table, columns, values) {
                        Ok(new) => copied += new,
                        Err(error) => return Ok(Err(error)),
                    }
                }
            }
            Ok(Ok(()))
        })();
        match whole {
            Ok(outcome) => return outcome.map(|()| copied),
            Err(_) if !report.cut.contains(&table) => report.cut.push(table),
            Err(_) => {}
        }
    }
    Ok(copied)
}

fn values(row: &Row<'_>) -> Result<Vec<Value>, Error> {
    (0..row.as_ref().column_count())
        .map(|at| row.get(at))
        .collect()
}

fn insert(into: &Connection, table: &str, columns: &str, row: Vec<Value>) -> Result<u64, Error> {
    let marks = vec!["?"; row.len()].join(", ");
    let sql = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})");
    Ok(into.prepare_cached(&sql)?.execute(params_from_iter(row))? as u64)
}
