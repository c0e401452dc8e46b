//! What is in the file when it is opened.
//!
//! Invariants: contents are not read, only numbers and names; what cannot be right is an error, for
//! half a mailbox would be taken for a whole one.

use std::num::NonZero;
use std::path::Path;
use std::thread;

use jam_core::directory::Life;
use jam_core::ids::ClientId;
use jam_core::store::{
    OutboundStates, OwnerRecord, PushRecord, Recovered, RecoveredClaim, RecoveredEntry,
    RetainedTopic, Seq, SessionId, SessionRecord, Subscription, WillRecord,
};
use jam_core::time::Time;
use jam_wire::packet::PacketId;
use rusqlite::{Connection, Error, Row, Statement};

use super::clock;
use super::meta;
use super::purging;
use super::records as rec;
use super::schema;
use crate::mailbox::kept::{Kept, PacketKey};

/// So many numbers are worth a thread of their own.
const ALONE: u64 = 20_000;

/// Threads that read at once. A row is read in half a microsecond, so there is no need of more.
const MAX_READERS: u64 = 4;

/// All but the messages of the logs, and what the writer needs to know.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) kept: Kept,
    /// What the file says of [`meta::LAST_SEQ`].
    pub(super) reserved: u64,
    /// The next `in_flight.position`.
    pub(super) position: i64,
}

/// Reads everything but contents and [`all_entries`].
pub(super) fn recover(path: &Path, connection: &Connection) -> Result<Found, Error> {
    purging::purge(connection)?;
    let reserved = reserved(connection)?;
    forget_orphans(connection);
    let mut parts = in_parts(path, "session", readers(), sessions)?.into_iter();
    let mut sessions = parts.next().unwrap_or_default();
    parts.for_each(|part| sessions.extend(part));
    let mut kept = Kept::default();
    kept.sessions(sessions.iter().map(|(record, ..)| record.id));
    subscriptions(connection, &mut sessions)?;
    received(connection, &mut sessions, &mut kept)?;
    let position = in_flight(connection, &mut sessions, &mut kept)?;
    let last_session = sessions.last().map_or(0, |(record, ..)| record.id);
    let last_message =
        bounds(connection, "message")?.map_or(Ok(0), |(_, last)| rec::from_number(last))?;
    let wills = wills(connection)?;
    let last_will = wills.last().map_or(0, |due| due.id);
    let retained = retained(connection)?;
    let claims = claims(connection)?;
    for claim in &claims {
        kept.claim(claim.session, claim.seq);
    }
    let pushes = pushes(connection)?;
    let owners = owners(connection)?;
    let recovered = Recovered {
        sessions,
        retained,
        claims,
        wills,
        pushes,
        owners,
        last_seq: reserved.max(last_session).max(last_message).max(last_will),
        clock: clock::read(connection)?,
    };
    Ok(Found {
        recovered,
        kept,
        reserved,
        position,
    })
}

/// What is of a session or of a message that is not there. It is never read, so it is no harm if this fails.
fn forget_orphans(connection: &Connection) {
    for table in ["received", "in_flight", "claim", "subscription"] {
        let sql = format!("DELETE FROM {table} WHERE session NOT IN (SELECT id FROM session)");
        drop(connection.execute(&sql, []));
    }
    let sql = "DELETE FROM claim WHERE message NOT IN (SELECT message FROM retained)";
    drop(connection.execute(sql, []));
}

type Session = (SessionRecord, Vec<PacketId>, OutboundStates);

/// By their numbers.
type Sessions = Vec<Session>;

fn reserved(connection: &Connection) -> Result<u64, Error> {
    let value = meta::get(connection, meta::LAST_SEQ)?;
    Ok(value.map_or(Ok(0), rec::from_number)?)
}

fn sessions(connection: &Connection, first: i64, last: i64) -> Result<Part<Sessions>, Error> {
    let mut select = connection.prepare(
        "SELECT id, user, client, slot, expiry, ends_at, will, will_delay, will_at, maybe_sent,
             token
         FROM session WHERE id >= ?1 ORDER BY id",
    )?;
    let mut sessions = Sessions::new();
    let part = rows(&mut select, first, last, |row| {
        sessions.push((session(row)?, Vec::new(), OutboundStates::new()));
        Ok(())
    })?;
    Ok(part.with(sessions))
}

fn find(sessions: &mut Sessions, id: SessionId) -> Option<&mut Session> {
    let index = sessions.binary_search_by_key(&id, |(record, ..)| record.id);
    index.ok().map(|index| &mut sessions[index])
}

pub(super) fn session(row: &Row<'_>) -> Result<SessionRecord, Error> {
    let will = match row.get_ref(6)?.as_blob_or_null()? {
        Some(body) => Some(Box::new(rec::decode_will(body, row.get(7)?)?)),
        None => None,
    };
    Ok(SessionRecord {
        id: rec::from_number(row.get(0)?)?,
        user: rec::user(row.get_ref(1)?.as_str()?)?,
        client: ClientId::new(row.get_ref(2)?.as_str()?),
        slot: row.get(3)?,
        expiry: rec::from_duration(row.get(4)?)?,
        ends_at: rec::time(row.get(5)?)?,
        will,
        will_at: rec::time(row.get(8)?)?,
        subscriptions: Vec::new(),
        maybe_sent_before_crash: rec::from_number(row.get(9)?)?,
        token: rec::mark(row.get_ref(10)?.as_blob_or_null()?)?,
    })
}

fn wills(connection: &Connection) -> Result<Vec<WillRecord>, Error> {
    let mut select = connection.prepare("SELECT id, user, body, token FROM will ORDER BY id")?;
    select.query_map([], will)?.collect()
}

pub(super) fn will(row: &Row<'_>) -> Result<WillRecord, Error> {
    Ok(WillRecord {
        id: rec::from_number(row.get(0)?)?,
        user: rec::user(row.get_ref(1)?.as_str()?)?,
        will: Box::new(rec::decode_will(row.get_ref(2)?.as_blob()?, None)?),
        token: rec::mark(row.get_ref(3)?.as_blob_or_null()?)?,
    })
}

fn subscriptions(connection: &Connection, sessions: &mut Sessions) -> Result<(), Error> {
    let sql = "SELECT session, topic, options, id FROM subscription ORDER BY session, topic";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (session, subscription) = subscription(row)?;
        if let Some((record, ..)) = find(sessions, session) {
            record.subscriptions.push(subscription);
        }
    }
    Ok(())
}

pub(super) fn subscription(row: &Row<'_>) -> Result<(SessionId, Subscription), Error> {
    let (topic, options) = (row.get_ref(1)?.as_str()?, row.get(2)?);
    let subscription = rec::subscription(topic, options, row.get(3)?)?;
    Ok((rec::from_number(row.get(0)?)?, subscription))
}

fn received(
    connection: &Connection,
    sessions: &mut Sessions,
    kept: &mut Kept,
) -> Result<(), Error> {
    let mut select = connection
        .prepare("SELECT session, packet_id FROM received ORDER BY session, packet_id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let session = rec::from_number(row.get(0)?)?;
        let id = rec::packet_id(row.get(1)?)?;
        kept.packet(PacketKey::received(session, id));
        if let Some((_, received, _)) = find(sessions, session) {
            received.push(id);
        }
    }
    Ok(())
}

/// Says the next position.
fn in_flight(
    connection: &Connection,
    sessions: &mut Sessions,
    kept: &mut Kept,
) -> Result<i64, Error> {
    let mut select = connection.prepare(
        "SELECT session, packet_id, state, message, position FROM in_flight ORDER BY position",
    )?;
    let mut rows = select.query([])?;
    let mut next = 0;
    while let Some(row) = rows.next()? {
        let session = rec::from_number(row.get(0)?)?;
        let id = rec::packet_id(row.get(1)?)?;
        let flight = rec::from_in_flight(row.get(2)?, row.get(3)?)?;
        next = row.get::<_, i64>(4)?.saturating_add(1);
        kept.packet(PacketKey::in_flight(session, id));
        if let Some((_, _, flights)) = find(sessions, session) {
            flights.push((id, flight));
        }
    }
    Ok(next)
}

/// Takes every message of the logs, in ascending order of numbers if there are few. How many there are.
pub(super) fn all_entries(
    path: &Path,
    take: impl Fn(RecoveredEntry) + Sync,
) -> Result<usize, Error> {
    let counts = in_parts(path, "message", readers(), |connection, first, last| {
        entries(connection, first, last, &take)
    })?;
    Ok(counts.into_iter().sum())
}

/// What was read of a part of a table.
struct Part<T> {
    found: T,
    /// The first number in it.
    first: Option<i64>,
    /// The number that follows it.
    next: Option<i64>,
}

/// Threads that this machine can run at once, up to [`MAX_READERS`].
fn readers() -> u64 {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    MAX_READERS.min(cores as u64)
}

/// Reads a table by its numbers; a long one in several parts at once, with so many `readers` at most.
fn in_parts<T: Send>(
    path: &Path,
    table: &str,
    readers: u64,
    read: impl Fn(&Connection, i64, i64) -> Result<Part<T>, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let connection = schema::open_to_read(path)?;
    let Some((first, last)) = bounds(&connection, table)? else {
        return Ok(Vec::new());
    };
    let parts = (last.abs_diff(first) / ALONE + 1).min(readers);
    let length = i64::try_from(last.abs_diff(first) / parts).unwrap_or(i64::MAX);
    thread::scope(|scope| {
        let read = &read;
        let mut readers = Vec::new();
        let (mut from, mut to) = (i64::MIN, first);
        for _ in 1..parts {
            to = to.saturating_add(length);
            readers.push(scope.spawn(move || read(&schema::open_to_read(path)?, from, to)));
            from = to.saturating_add(1);
        }
        let Part {
            found, mut first, ..
        } = read(&connection, from, i64::MAX)?;
        let mut all = vec![found];
        for reader in readers.into_iter().rev() {
            let part = reader.join().expect("reading does not panic")?;
            // A number that was altered would end a part too early.
            if part.next != first {
                return Err(rec::wrong("a number").into());
            }
            first = part.first.or(first);
            all.push(part.found);
        }
        all.reverse();
        Ok(all)
    })
}

/// The lowest and the highest number in a table.
fn bounds(connection: &Connection, table: &str) -> Result<Option<(i64, i64)>, Error> {
    let sql = format!("SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})");
    let bounds = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (first, last): (Option<i64>, Option<i64>) = bounds;
    Ok(first.zip(last))
}

/// Hands over the rows from one number up to another, by ascending numbers in their first column.
fn rows(
    select: &mut Statement<'_>,
    first: i64,
    last: i64,
    mut each: impl FnMut(&Row<'_>) -> Result<(), Error>,
) -> Result<Part<()>, Error> {
    let (mut lowest, mut before, mut next) = (None, None, None);
    let mut rows = select.query([first])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        if before >= Some(number) {
            return Err(rec::wrong("a number").into());
        }
        if number > last {
            next = Some(number);
            break;
        }
        before = Some(number);
        lowest = lowest.or(before);
        each(row)?;
    }
    Ok(Part {
        found: (),
        first: lowest,
        next,
    })
}

/// Takes messages from one number up to another, and counts them.
fn entries(
    connection: &Connection,
    first: i64,
    last: i64,
    take: &impl Fn(RecoveredEntry),
) -> Result<Part<usize>, Error> {
    let mut select = connection.prepare(
        "SELECT id, user, flags, waits_for, acknowledged, received_at, expires_at, size, sender
         FROM message WHERE id >= ?1 ORDER BY id",
    )?;
    let mut count = 0;
    let part = rows(&mut select, first, last, |row| {
        take(entry(row)?);
        count += 1;
        Ok(())
    })?;
    Ok(part.with(count))
}

impl Part<()> {
    fn with<T>(self, found: T) -> Part<T> {
        Part {
            found,
            first: self.first,
            next: self.next,
        }
    }
}

fn entry(row: &Row<'_>) -> Result<RecoveredEntry, Error> {
    let flags = rec::Flags::from_number(row.get(2)?)?;
    Ok(RecoveredEntry {
        seq: rec::from_number(row.get(0)?)?,
        user: rec::user(row.get_ref(1)?.as_str()?)?,
        sender: rec::user(row.get_ref(8)?.as_str()?)?,
        inbox: flags.inbox,
        retained: flags.retained,
        qos: flags.qos,
        size: row.get(7)?,
        waits_for: rec::from_devices(row.get(3)?)?,
        acknowledged: row.get(4)?,
        expires_at: rec::from_expiry(row.get(6)?)?,
        received_at: Time::from_millis(rec::from_number(row.get(5)?)?),
    })
}

fn owners(connection: &Connection) -> Result<Vec<OwnerRecord>, Error> {
    let mut select =
        connection.prepare("SELECT user, email, name, made_up, gone_since, password FROM owner")?;
    select.query_map([], owner)?.collect()
}

pub(super) fn owner(row: &Row<'_>) -> Result<OwnerRecord, Error> {
    Ok(OwnerRecord {
        user: rec::user(row.get_ref(0)?.as_str()?)?,
        life: Life {
            email: rec::mark(row.get_ref(1)?.as_blob_or_null()?)?,
            name: rec::mark(row.get_ref(2)?.as_blob_or_null()?)?,
            made_up: row.get(3)?,
            password: rec::mark(row.get_ref(5)?.as_blob_or_null()?)?,
        },
        gone_since: rec::time(row.get(4)?)?,
    })
}

fn pushes(connection: &Connection) -> Result<Vec<PushRecord>, Error> {
    let mut select =
        connection.prepare("SELECT user, sender, message, sent, at, expires_at FROM push")?;
    let rows = select.query_map([], push)?;
    rows.collect()
}

pub(super) fn push(row: &Row<'_>) -> Result<PushRecord, Error> {
    Ok(PushRecord {
        receiver: rec::user(row.get_ref(0)?.as_str()?)?,
        sender: rec::user(row.get_ref(1)?.as_str()?)?,
        seq: rec::from_number(row.get(2)?)?,
        sent: row.get(3)?,
        at: Time::from_millis(rec::from_number(row.get(4)?)?),
        expires_at: rec::from_expiry(row.get(5)?)?,
    })
}

fn retained(connection: &Connection) -> Result<Vec<RetainedTopic>, Error> {
    let mut select =
        connection.prepare("SELECT message, user, topic FROM retained ORDER BY message")?;
    select.query_map([], retained_topic)?.collect()
}

pub(super) fn retained_topic(row: &Row<'_>) -> Result<RetainedTopic, Error> {
    Ok(RetainedTopic {
        seq: rec::from_number(row.get(0)?)?,
        user: rec::user(row.get_ref(1)?.as_str()?)?,
        topic: row.get_ref(2)?.as_str()?.into(),
    })
}

fn claims(connection: &Connection) -> Result<Vec<RecoveredClaim>, Error> {
    let mut select = connection.prepare(
        "SELECT claim.session, claim.message, session.user FROM claim
         JOIN session ON session.id = claim.session",
    )?;
    let row = |row: &Row<'_>| {
        let user = rec::user(row.get_ref(2)?.as_str()?)?;
        let (session, seq) = claim(row)?;
        Ok(RecoveredClaim { user, session, seq })
    };
    select.query_map([], row)?.collect()
}

pub(super) fn claim(row: &Row<'_>) -> Result<(SessionId, Seq), Error> {
    Ok((
        rec::from_number(row.get(0)?)?,
        rec::from_number(row.get(1)?)?,
    ))
}

/// Reads everything there is, contents too, and keeps nothing of it but the number of messages that wait.
pub(super) fn contents(connection: &Connection) -> Result<u64, Error> {
    let mut sessions = sessions(connection, i64::MIN, i64::MAX)?.found;
    subscriptions(connection, &mut sessions)?;
    received(connection, &mut sessions, &mut Kept::default())?;
    in_flight(connection, &mut sessions, &mut Kept::default())?;
    entries(connection, i64::MIN, i64::MAX, &drop)?;
    wills(connection)?;
    owners(connection)?;
    let retained = retained(connection)?.len() as u64;
    claims(connection)?;
    pushes(connection)?;
    let mut select = connection
        .prepare("SELECT sender, received_at, expires_at, body, sender_life FROM message")?;
    let mut rows = select.query([])?;
    let mut messages = 0;
    while let Some(row) = rows.next()? {
        let sender = rec::sender(row.get_ref(0)?, row.get_ref(4)?)?;
        let body = row.get_ref(3)?.as_blob()?;
        rec::decode_message(body, false, sender, row.get(1)?, row.get(2)?)?;
        messages += 1;
    }
    Ok(messages.max(retained) - retained)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Reads what there is from `first` on, up to 100.
    fn read(sql: &str) -> Result<Part<()>, Error> {
        let connection = Connection::open_in_memory()?;
        rows(&mut connection.prepare(sql)?, 0, 100, |_| Ok(()))
    }

    #[test]
    fn numbers_ascend_or_are_damage() {
        let part = read("VALUES (?1 + 1), (2), (100), (101)").unwrap();
        assert_eq!((part.first, part.next), (Some(1), Some(101)));
        assert!(read("VALUES (?1 + 2), (1)").is_err());
        assert!(read("VALUES (?1 + 2), (2)").is_err());
    }

    /// A number that was altered would end a part too early, or hide what follows.
    #[test]
    fn parts_that_do_not_fit_together_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailbox.db");
        schema::create(&path).unwrap();
        let connection = schema::open_to_write(&path).unwrap();
        let sql = "INSERT INTO will (id, user, body) VALUES (?1, '1', x'00')";
        let last = i64::try_from(ALONE).unwrap() * 10;
        for id in [1, last] {
            connection.execute(sql, [id]).unwrap();
        }
        let parts = |readers, next: Option<i64>| {
            let read = Mutex::new(0);
            let outcome = in_parts(&path, "will", readers, |_, from, to| {
                *read.lock().unwrap() += 1;
                let (is_first, is_last) = (from == i64::MIN, to == i64::MAX);
                let first = match (is_first, is_last) {
                    (true, _) => Some(1),
                    (_, true) => Some(last),
                    _ => None, // there is nothing in the middle
                };
                let next = if is_last { None } else { next };
                Ok(Part {
                    found: (),
                    first,
                    next,
                })
            });
            (read.into_inner().unwrap(), outcome.is_ok())
        };
        assert_eq!(parts(1, None), (1, true));
        for readers in 2..=MAX_READERS {
            assert_eq!(parts(readers, Some(last)), (readers, true));
            for wrong in [None, Some(last - 1)] {
                assert_eq!(parts(readers, wrong), (readers, false));
            }
        }
    }
}
