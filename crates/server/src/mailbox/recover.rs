//! What is in the file when it is opened.
//!
//! Invariants: contents are not read, only numbers and names; what cannot be right is an error, for
//! half a mailbox would be taken for a whole one.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use jam_core::ids::{ClientId, UserId};
use jam_core::message::Message;
use jam_core::push::PushRecord;
use jam_core::store::{Flight, Recovered, RecoveredEntry, Seq, SessionId, SessionRecord};
use jam_core::time::Time;
use jam_wire::packet::PacketId;
use rusqlite::{Connection, Error, OptionalExtension, Row};

use super::apply::{AWAITS_PUBACK, AWAITS_PUBCOMP, AWAITS_PUBREC, LAST_SEQ};
use super::pending::{Kept, PacketKey};
use super::records as rec;
use super::schema;

/// So many numbers are worth a thread of their own.
const ALONE: u64 = 20_000;

/// Threads that read at once. A row is read in half a microsecond, so there is no need of more.
const MAX_READERS: usize = 4;

/// All but the messages of the logs, and what the writer needs to know.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) kept: Kept,
    /// What `meta` says of [`LAST_SEQ`].
    pub(super) reserved: u64,
    /// The next `in_flight.position`.
    pub(super) position: i64,
}

/// Reads everything but contents and [`all_entries`].
pub(super) fn recover(connection: &Connection) -> Result<Found, Error> {
    // What somebody asked for while no server ran.
    let sql = "DELETE FROM message WHERE EXISTS
         (SELECT 1 FROM purge WHERE purge.user = message.user AND message.id <= purge.up_to)";
    let asked: i64 = connection.query_row("SELECT count(*) FROM purge", [], |row| row.get(0))?;
    if asked > 0 {
        connection.execute(sql, [])?;
        connection.execute("DELETE FROM purge", [])?;
    }
    let reserved = reserved(connection)?;
    let mut sessions: Sessions = sessions(connection)?;
    let mut kept = Kept::default();
    for session in sessions.keys() {
        kept.session(*session);
    }
    received(connection, &mut sessions, &mut kept)?;
    let position = in_flight(connection, &mut sessions, &mut kept)?;
    let last_session = sessions.keys().next_back().copied().unwrap_or(0);
    let last_message = rec::from_number(bounds(connection)?.1.unwrap_or(0))?;
    let retained = retained(connection)?;
    let pushes = pushes(connection)?;
    let recovered = Recovered {
        sessions: sessions.into_values().collect(),
        retained,
        pushes,
        last_seq: reserved.max(last_session).max(last_message),
    };
    Ok(Found {
        recovered,
        kept,
        reserved,
        position,
    })
}

type Sessions = BTreeMap<SessionId, (SessionRecord, Vec<PacketId>, Vec<(PacketId, Flight)>)>;

fn reserved(connection: &Connection) -> Result<u64, Error> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    let value = connection
        .query_row(sql, [LAST_SEQ], |row| row.get(0))
        .optional()?;
    value.map_or(Ok(0), rec::from_number)
}

fn sessions(connection: &Connection) -> Result<Sessions, Error> {
    let mut select = connection.prepare(
        "SELECT id, user, client, slot, expiry, ends_at, will, will_delay, will_at, subscriptions,
             maybe_sent
         FROM session",
    )?;
    let rows = select.query_map([], |row| {
        let record = session(row)?;
        Ok((record.id, (record, Vec::new(), Vec::new())))
    })?;
    rows.collect()
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
        subscriptions: rec::decode_subscriptions(row.get_ref(9)?.as_blob()?)?,
        maybe_sent: rec::from_number(row.get(10)?)?,
    })
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
        if let Some((_, received, _)) = sessions.get_mut(&session) {
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
        let seq = rec::from_number(row.get(3)?)?;
        let flight = match row.get(2)? {
            AWAITS_PUBACK => Flight::AwaitsPubAck(seq),
            AWAITS_PUBREC => Flight::AwaitsPubRec(seq),
            AWAITS_PUBCOMP => Flight::AwaitsPubComp,
            _ => return Err(rec::wrong("the state of a packet id")),
        };
        next = row.get::<_, i64>(4)?.saturating_add(1);
        kept.packet(PacketKey::in_flight(session, id));
        if let Some((_, _, flights)) = sessions.get_mut(&session) {
            flights.push((id, flight));
        }
    }
    Ok(next)
}

/// Takes every message of the logs, in ascending order of numbers if there are few; a long table is read
/// from several places at once. How many there are.
pub(super) fn all_entries(
    path: &Path,
    take: impl Fn(RecoveredEntry) + Sync,
) -> Result<usize, Error> {
    let connection = schema::open_to_read(path)?;
    let (Some(first), Some(last)) = bounds(&connection)? else {
        return Ok(0);
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let parts = (last.abs_diff(first) / ALONE + 1).min(cores.min(MAX_READERS) as u64);
    let length = i64::try_from(last.abs_diff(first) / parts).unwrap_or(i64::MAX);
    thread::scope(|scope| {
        let take = &take;
        let mut readers = Vec::new();
        let mut from = i64::MIN;
        for part in 1..parts {
            let to = first.saturating_add(length.saturating_mul(part as i64));
            readers.push(scope.spawn(move || {
                let connection = schema::open_to_read(path)?;
                entries(&connection, from, to, take)
            }));
            from = to + 1;
        }
        let mut found = entries(&connection, from, i64::MAX, take)?;
        // A number that was altered would end a part too early.
        for reader in readers.into_iter().rev() {
            let before = reader.join().expect("reading does not panic")?;
            if before.next != found.first {
                return Err(rec::wrong("the number of a message"));
            }
            found.count += before.count;
            found.first = before.first.or(found.first);
        }
        Ok(found.count)
    })
}

/// The lowest and the highest number of a message.
fn bounds(connection: &Connection) -> Result<(Option<i64>, Option<i64>), Error> {
    let sql = "SELECT (SELECT min(id) FROM message), (SELECT max(id) FROM message)";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// What was found of a part of the messages.
#[derive(Default)]
struct Part {
    count: usize,
    first: Option<Seq>,
    /// The number that follows the part.
    next: Option<Seq>,
}

/// Takes messages from one number up to another.
fn entries(
    connection: &Connection,
    first: i64,
    last: i64,
    take: &impl Fn(RecoveredEntry),
) -> Result<Part, Error> {
    let mut select = connection.prepare(
        "SELECT id, user, flags, waits_for, acknowledged, received_at, expires_at, size
         FROM message WHERE id >= ?1 ORDER BY id",
    )?;
    let last = u64::try_from(last).unwrap_or(0);
    let mut part = Part::default();
    let mut before = None;
    let mut rows = select.query([first])?;
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        let seq = Some(entry.seq);
        if before >= seq {
            return Err(rec::wrong("the number of a message"));
        }
        if entry.seq > last {
            part.next = seq;
            break;
        }
        before = seq;
        part.first = part.first.or(seq);
        part.count += 1;
        take(entry);
    }
    Ok(part)
}

fn entry(row: &Row<'_>) -> Result<RecoveredEntry, Error> {
    let flags = rec::Flags::from_number(row.get(2)?)?;
    Ok(RecoveredEntry {
        seq: rec::from_number(row.get(0)?)?,
        user: rec::user(row.get_ref(1)?.as_str()?)?,
        inbox: flags.inbox,
        retained: flags.retained,
        qos: flags.qos,
        size: row.get(7)?,
        waits_for: row.get(3)?,
        acknowledged: row.get(4)?,
        expires_at: rec::from_expiry(row.get(6)?)?,
        received_at: Time::from_millis(rec::from_number(row.get(5)?)?),
    })
}

fn pushes(connection: &Connection) -> Result<Vec<PushRecord>, Error> {
    let mut select = connection.prepare("SELECT user, sender, message, sent, at FROM push")?;
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
    })
}

fn retained(connection: &Connection) -> Result<Vec<(UserId, Arc<Message>)>, Error> {
    let mut select = connection
        .prepare("SELECT user, topic, sender, received_at, expires_at, body FROM retained")?;
    let rows = select.query_map([], retained_message)?;
    rows.collect()
}

pub(super) fn retained_message(row: &Row<'_>) -> Result<(UserId, Arc<Message>), Error> {
    let sender = row.get_ref(2)?.as_str()?;
    let body = row.get_ref(5)?.as_blob()?;
    let message = rec::decode_message(body, false, sender, row.get(3)?, row.get(4)?)?;
    Ok((rec::user(row.get_ref(0)?.as_str()?)?, message))
}

/// Reads everything there is, contents too, and keeps nothing of it but the number of messages.
pub(super) fn contents(connection: &Connection) -> Result<u64, Error> {
    let mut sessions = sessions(connection)?;
    received(connection, &mut sessions, &mut Kept::default())?;
    in_flight(connection, &mut sessions, &mut Kept::default())?;
    entries(connection, i64::MIN, i64::MAX, &drop)?;
    retained(connection)?;
    pushes(connection)?;
    let mut select =
        connection.prepare("SELECT sender, received_at, expires_at, body FROM message")?;
    let mut rows = select.query([])?;
    let mut messages = 0;
    while let Some(row) = rows.next()? {
        let (sender, body) = (row.get_ref(0)?.as_str()?, row.get_ref(3)?.as_blob()?);
        rec::decode_message(body, false, sender, row.get(1)?, row.get(2)?)?;
        messages += 1;
    }
    Ok(messages)
}
