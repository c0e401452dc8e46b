//! What the commands do with the file: [`SqliteMailboxAdministration`].
//!
//! Invariant: while a server has the file, what is to be removed is written down in the table `purge` and nothing else
//! is changed.

use std::path::{Path, PathBuf};

use jam_core::ids::{ClientId, UserId};
use jam_core::store::Seq;
use jam_core::time::Time;
use rusqlite::{Connection, OptionalExtension, Row};

use super::purging::remove_everything;
use super::records::{self as rec, EVERYTHING};
use super::recover;
use super::reserve::{self, LEAST_BYTES};
use super::schema::{self, MailboxFiles};
use crate::clock;
use crate::mailbox::{
    Condition, ListOrder, Listed, MailboxAdministration, OpenError, Overview, PurgeScope, Purged,
    SessionOverview,
};

/// The mailbox in a directory.
#[derive(Debug)]
pub struct SqliteMailboxAdministration {
    dir: PathBuf,
    files: MailboxFiles,
}

impl SqliteMailboxAdministration {
    /// Of the mailbox in `dir`, if there is one.
    #[must_use]
    pub fn of(dir: PathBuf) -> Self {
        let files = MailboxFiles::of(&dir);
        Self { dir, files }
    }

    /// Reads from a mailbox that is there.
    fn look<T>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OpenError> {
        schema::prepare_existing(&self.files)?;
        self.read(look)
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OpenError> {
        let read = schema::open_to_read(&self.files.db).and_then(|connection| look(&connection));
        read.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &rusqlite::Error) -> OpenError {
        OpenError::sqlite(&self.files.db, error)
    }

    /// Changes the mailbox, which no server has and none gets meanwhile.
    fn change(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<u64>,
    ) -> Result<u64, OpenError> {
        // A lock is not made where there is no mailbox.
        schema::prepare_existing(&self.files)?;
        let _lock = self.files.lock()?;
        let closed = schema::prepare_existing(&self.files)?;
        let connection = schema::open(&self.files, closed)?;
        let changed = || {
            let transaction = connection.unchecked_transaction()?;
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        };
        changed().map_err(|error| self.error(&error))
    }

    /// Has the server do it that has the mailbox.
    fn ask(&self, user: &UserId, scope: PurgeScope<'_>) -> rusqlite::Result<()> {
        let numbers = match scope {
            PurgeScope::Inbox | PurgeScope::InboxFrom(_) => "message",
            PurgeScope::Everything => {
                "(SELECT max(id) AS id FROM message UNION ALL SELECT max(id) FROM session
                  UNION ALL SELECT max(id) FROM will)"
            }
        };
        let sql = format!(
            "INSERT OR REPLACE INTO purge (user, sender, up_to)
             SELECT ?1, ?2, coalesce(max(id), 0) FROM {numbers}"
        );
        let connection = schema::open_to_write(&self.files.db)?;
        connection
            .execute(&sql, (user.as_str(), sender(scope)))
            .map(drop)
    }
}

/// In `purge.sender`.
fn sender(scope: PurgeScope<'_>) -> &str {
    match scope {
        PurgeScope::Inbox => "",
        PurgeScope::InboxFrom(sender) => sender.as_str(),
        PurgeScope::Everything => EVERYTHING,
    }
}

impl MailboxAdministration for SqliteMailboxAdministration {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.dir)
    }

    /// Reads all of the file.
    fn show(&self, user: &UserId) -> Result<Overview, OpenError> {
        let is_served = self.is_served()?;
        self.look(|connection| {
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
            let now = time_of(&transaction)?;
            Ok(Overview {
                messages,
                bytes,
                now,
                oldest: rec::time(oldest)?,
                retained: rec::from_number(retained)?,
                sessions: sessions(&transaction, user, now, is_served)?,
            })
        })
    }

    /// Reads all of the file.
    fn list(&self, order: ListOrder, most: u32) -> Result<Vec<Listed>, OpenError> {
        self.look(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let now = time_of(&transaction)?;
            let first = match order {
                ListOrder::Bytes => "3 DESC",
                ListOrder::Oldest => "4",
            };
            let sql = format!(
                "SELECT user, count(*), sum(size), min(received_at), coalesce(max(kept), 0)
                 FROM message
                 LEFT JOIN (SELECT user, count(*) AS kept FROM retained GROUP BY user) USING (user)
                 WHERE id NOT IN (SELECT message FROM retained)
                 GROUP BY user ORDER BY {first}, user LIMIT ?1"
            );
            let row = |row: &Row<'_>| {
                Ok(Listed {
                    user: row.get(0)?,
                    messages: rec::from_number(row.get(1)?)?,
                    bytes: rec::from_number(row.get(2)?)?,
                    oldest: now.since(Time::from_millis(rec::from_number(row.get(3)?)?)),
                    retained: rec::from_number(row.get(4)?)?,
                })
            };
            let mut select = transaction.prepare(&sql)?;
            select.query_map([most], row)?.collect()
        })
    }

    /// A session that has ended by the time that is in the file has ended whatever the next start's clocks say.
    fn end_sessions(&self, user: &UserId, client: Option<&ClientId>) -> Result<u64, OpenError> {
        self.change(|connection| {
            let last = super::clock::read(connection)?.map(|record| record.time);
            let sql = "UPDATE session SET ends_at = ?3, expiry = 0
                 WHERE user = ?1 AND (?2 IS NULL OR client = ?2)
                 AND (ends_at IS NULL OR ends_at > ?4)";
            let ended = (
                user.as_str(),
                client.map(ClientId::as_str),
                rec::received(last.unwrap_or_default()),
                rec::received(time_of(connection)?),
            );
            connection.execute(sql, ended).map(|ended| ended as u64)
        })
    }

    fn is_served(&self) -> Result<bool, OpenError> {
        Ok(self.files.keep_free()?.is_none())
    }

    fn count(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<u64, OpenError> {
        self.look(|connection| {
            let count = if scope == PurgeScope::Everything {
                let sql = "SELECT count(*) FROM message
                     WHERE user = ?1 AND id NOT IN (SELECT message FROM retained)";
                connection.query_row(sql, [user.as_str()], |row| row.get(0))
            } else {
                let sql = "SELECT count(*) FROM message
                     WHERE user = ?1 AND ?2 IN ('', sender) AND flags & ?3";
                let which = (user.as_str(), sender(scope), rec::INBOX);
                connection.query_row(sql, which, |row| row.get(0))
            };
            Ok(rec::from_number(count?)?)
        })
    }

    fn purge(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<Purged, OpenError> {
        let removed = self.change(|connection| {
            if scope == PurgeScope::Everything {
                return remove_everything(connection, user.as_str(), i64::MAX);
            }
            let sql = "DELETE FROM message WHERE user = ?1 AND ?2 IN ('', sender) AND flags & ?3";
            let removed = connection.execute(sql, (user.as_str(), sender(scope), rec::INBOX));
            removed.map(|removed| removed as u64)
        });
        match removed {
            Err(OpenError::InUse { .. }) => {
                self.ask(user, scope).map_err(|error| self.error(&error))?;
                Ok(Purged::Asked)
            }
            removed => removed.map(Purged::Removed),
        }
    }

    fn is_purge_due(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<bool, OpenError> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM purge WHERE user = ?1 AND sender = ?2";
            let key = (user.as_str(), sender(scope));
            Ok(connection.query_row(sql, key, |row| row.get::<_, i64>(0))? > 0)
        })
    }

    fn remove_unserved(&self, user: &UserId) -> Result<u64, OpenError> {
        self.change(|connection| remove_everything(connection, user.as_str(), i64::MAX))
    }

    /// Looks at each page.
    fn check(&self) -> Result<Condition, OpenError> {
        let free = self.files.keep_free()?;
        schema::prepare_existing(&self.files)?;
        self.files.expect_writable()?;
        let sqlite = |error| self.error(&error);
        let connection = match &free {
            Some(_) => schema::open_to_inspect(&self.files),
            None => schema::open_to_read(&self.files.db),
        };
        let connection = connection.map_err(sqlite)?;
        let version = schema::pragma(&connection, "user_version").map_err(sqlite)?;
        schema::check(&connection, &self.files.db)?;
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
    }

    fn room(&self) -> Result<String, String> {
        let Some(bytes) = reserve::room_beside(&self.files.db) else {
            return Ok("the file system does not say how much is free".to_owned());
        };
        let free = format!("{} free", bytesize::ByteSize::b(bytes));
        if bytes >= LEAST_BYTES {
            return Ok(free);
        }
        let then = if self.files.reserve().exists() {
            "what waits is delivered, and messages are refused until there is"
        } else {
            "nothing can be served"
        };
        Err(format!(
            "the disk of {} is full, {free}; make room: {then}",
            self.dir.display()
        ))
    }
}

fn time_of(connection: &Connection) -> rusqlite::Result<Time> {
    Ok(clock::time_after(super::clock::read(connection)?))
}

/// Those that have not ended: the next start removes the others.
fn sessions(
    connection: &Connection,
    user: &UserId,
    now: Time,
    is_served: bool,
) -> rusqlite::Result<Vec<SessionOverview>> {
    let mut select = connection.prepare(
        "SELECT client, ends_at, expiry,
             (SELECT count(*) FROM subscription WHERE subscription.session = session.id),
             (SELECT count(*) FROM received WHERE received.session = session.id),
             (SELECT count(*) FROM in_flight WHERE in_flight.session = session.id)
         FROM session WHERE user = ?1 AND (ends_at IS NULL OR ends_at > ?2) ORDER BY id",
    )?;
    let row = |row: &Row<'_>| {
        let ends_at = rec::time(row.get(1)?)?;
        let at_a_start = now + rec::from_duration(row.get(2)?)?;
        Ok(SessionOverview {
            client: row.get(0)?,
            ends_at: ends_at.or((!is_served).then_some(at_a_start)),
            subscriptions: row.get::<_, u16>(3)?.into(),
            received: rec::from_number(row.get(4)?)?,
            in_flight: rec::from_number(row.get(5)?)?,
        })
    };
    let whose = (user.as_str(), rec::received(now));
    select.query_map(whose, row)?.collect()
}

/// When messages of the file were received.
pub(super) fn received_at(
    connection: &Connection,
    messages: impl Iterator<Item = Seq>,
) -> rusqlite::Result<Vec<(Seq, Time)>> {
    let mut select = connection.prepare("SELECT received_at FROM message WHERE id = ?1")?;
    let mut found = Vec::new();
    for seq in messages {
        let at = select
            .query_row([rec::number(seq)], |row| row.get(0))
            .optional()?;
        found.extend(rec::time(at)?.map(|at| (seq, at)));
    }
    Ok(found)
}
