//! What one write of a batch is as SQL: a row that is put, or that leaves.
//!
//! Invariant: each may be done again after a commit that failed, which may have reached the file all the same.

use bytes::BytesMut;
use jam_core::directory::Mark;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{
    Append, OutboundState, OwnerRecord, PushRecord, Seq, SessionId, SessionRecord, WillId,
    WillRecord,
};
use jam_wire::EncodeError;
use jam_wire::packet::PacketId;
use rusqlite::{CachedStatement, Connection, Error, params};

use super::records as rec;
use crate::mailbox::pending::Op;

pub(super) fn insert(verb: &str) -> String {
    format!(
        "{verb} INTO message (id, user, sender, flags, waits_for, acknowledged, received_at, expires_at,
         size, body, sender_life) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    )
}

/// The same of a message that may be there: a commit that failed may have reached the file all the same.
pub(super) fn insert_again(
    connection: &Connection,
    append: &Append,
    op: &Op,
    buf: &mut BytesMut,
) -> Result<(), Error> {
    let mut insert = connection.prepare_cached(&insert("INSERT OR REPLACE"))?;
    put_message(&mut insert, append, op, buf)
}

pub(super) fn put_message(
    insert: &mut CachedStatement<'_>,
    append: &Append,
    op: &Op,
    buf: &mut BytesMut,
) -> Result<(), Error> {
    let message = &append.message;
    let qos = encode(message, buf)?;
    let row = params![
        rec::number(append.seq),
        append.user.as_str(),
        message.sender().as_str(),
        rec::Flags::of(append, qos).to_number(),
        rec::devices(append.waits_for),
        op.acknowledged,
        rec::received(message.received_at()),
        rec::expiry(message.expires_at()),
        rec::number(op.size as u64),
        &buf[..],
        message.sender_life().as_ref().map(rec::life),
    ];
    insert.execute(row).map(drop)
}

pub(super) fn acknowledge(connection: &Connection, seq: Seq, waits_for: u32) -> Result<(), Error> {
    let sql = "UPDATE message SET waits_for = ?2, acknowledged = 1 WHERE id = ?1";
    let row = params![rec::number(seq), rec::devices(waits_for)];
    execute(connection, sql, row)
}

pub(super) fn put_retained(connection: &Connection, append: &Append) -> Result<(), Error> {
    let row = params![
        rec::number(append.seq),
        append.user.as_str(),
        AsRef::<str>::as_ref(append.message.topic()),
    ];
    let sql = "INSERT OR REPLACE INTO retained (message, user, topic) VALUES (?1, ?2, ?3)";
    execute(connection, sql, row)
}

pub(super) fn end_retained(connection: &Connection, seq: Seq) -> Result<(), Error> {
    let sql = "DELETE FROM retained WHERE message = ?1";
    execute(connection, sql, params![rec::number(seq)])
}

pub(super) fn put_session(connection: &Connection, record: &SessionRecord) -> Result<(), Error> {
    let will = record
        .will
        .as_deref()
        .map(rec::encode_will)
        .transpose()
        .map_err(unwritable)?;
    let row = params![
        rec::number(record.id),
        record.user.as_str(),
        record.client.as_str(),
        record.slot,
        rec::duration(record.expiry),
        rec::optional_time(record.ends_at),
        will,
        record.will.as_ref().and_then(|will| will.delay_secs),
        rec::optional_time(record.will_at),
        rec::number(record.maybe_sent_before_crash),
        record.token.as_ref().map(Mark::bytes),
    ];
    // In place: of a row that keeps its size, SQLite writes the pages that have changed. A will may be large, and this is
    // written while messages are sent.
    let sql = "INSERT INTO session (id, user, client, slot, expiry, ends_at, will, will_delay, will_at, maybe_sent,
         token) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET user = ?2, client = ?3, slot = ?4, expiry = ?5, ends_at = ?6, will = ?7,
         will_delay = ?8, will_at = ?9, maybe_sent = ?10, token = ?11";
    execute(connection, sql, row)
}

pub(super) fn end_session(connection: &Connection, session: SessionId) -> Result<(), Error> {
    let session = params![rec::number(session)];
    for sql in [
        "DELETE FROM session WHERE id = ?1",
        "DELETE FROM subscription WHERE session = ?1",
        "DELETE FROM received WHERE session = ?1",
        "DELETE FROM in_flight WHERE session = ?1",
        "DELETE FROM claim WHERE session = ?1",
    ] {
        execute(connection, sql, session)?;
    }
    Ok(())
}

pub(super) fn put_subscription(
    connection: &Connection,
    session: i64,
    (topic, options, id): (&str, u8, Option<u32>),
) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO subscription (session, topic, options, id)
         VALUES (?1, ?2, ?3, ?4)";
    execute(connection, sql, params![session, topic, options, id])
}

pub(super) fn unsubscribe(
    connection: &Connection,
    session: SessionId,
    topic: &str,
) -> Result<(), Error> {
    let sql = "DELETE FROM subscription WHERE session = ?1 AND topic = ?2";
    execute(connection, sql, params![rec::number(session), topic])
}

pub(super) fn put_received(
    connection: &Connection,
    session: SessionId,
    id: PacketId,
) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO received (session, packet_id) VALUES (?1, ?2)";
    execute(connection, sql, params![rec::number(session), id.get()])
}

pub(super) fn end_received(
    connection: &Connection,
    session: SessionId,
    id: PacketId,
) -> Result<(), Error> {
    let sql = "DELETE FROM received WHERE session = ?1 AND packet_id = ?2";
    execute(connection, sql, params![rec::number(session), id.get()])
}

pub(super) fn put_in_flight(
    connection: &Connection,
    session: SessionId,
    id: PacketId,
    state: OutboundState,
    position: i64,
) -> Result<(), Error> {
    let (state, message) = rec::in_flight(state);
    let session = rec::number(session);
    let row = params![session, id.get(), state, message, position];
    let sql = "INSERT OR REPLACE INTO in_flight (session, packet_id, state, message, position)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    execute(connection, sql, row)
}

pub(super) fn end_in_flight(
    connection: &Connection,
    session: SessionId,
    id: PacketId,
) -> Result<(), Error> {
    let sql = "DELETE FROM in_flight WHERE session = ?1 AND packet_id = ?2";
    execute(connection, sql, params![rec::number(session), id.get()])
}

pub(super) fn put_claim(
    connection: &Connection,
    session: SessionId,
    seq: Seq,
) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO claim (session, message) VALUES (?1, ?2)";
    let row = params![rec::number(session), rec::number(seq)];
    execute(connection, sql, row)
}

pub(super) fn end_claim(
    connection: &Connection,
    session: SessionId,
    seq: Seq,
) -> Result<(), Error> {
    let sql = "DELETE FROM claim WHERE session = ?1 AND message = ?2";
    let row = params![rec::number(session), rec::number(seq)];
    execute(connection, sql, row)
}

pub(super) fn put_will(connection: &Connection, due: &WillRecord) -> Result<(), Error> {
    let row = params![
        rec::number(due.id),
        due.user.as_str(),
        rec::encode_will(&due.will).map_err(unwritable)?,
        due.token.as_ref().map(Mark::bytes),
    ];
    let sql = "INSERT OR REPLACE INTO will (id, user, body, token) VALUES (?1, ?2, ?3, ?4)";
    execute(connection, sql, row)
}

pub(super) fn end_will(connection: &Connection, id: WillId) -> Result<(), Error> {
    let sql = "DELETE FROM will WHERE id = ?1";
    execute(connection, sql, params![rec::number(id)])
}

pub(super) fn put_push(connection: &Connection, push: &PushRecord) -> Result<(), Error> {
    let row = params![
        push.receiver.as_str(),
        push.sender.as_str(),
        rec::number(push.seq),
        push.sent,
        rec::coming(push.at),
        rec::expiry(push.expires_at),
    ];
    let sql = "INSERT OR REPLACE INTO push (user, sender, message, sent, at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    execute(connection, sql, row)
}

pub(super) fn end_push(
    connection: &Connection,
    user: &UserId,
    sender: &UserId,
) -> Result<(), Error> {
    let sql = "DELETE FROM push WHERE user = ?1 AND sender = ?2";
    execute(connection, sql, params![user.as_str(), sender.as_str()])
}

pub(super) fn put_owner(connection: &Connection, owner: &OwnerRecord) -> Result<(), Error> {
    let row = params![
        owner.user.as_str(),
        owner.life.email.as_ref().map(Mark::bytes),
        owner.life.name.as_ref().map(Mark::bytes),
        owner.life.made_up,
        rec::optional_time(owner.gone_since),
        owner.life.password.as_ref().map(Mark::bytes),
    ];
    let sql = "INSERT OR REPLACE INTO owner (user, email, name, made_up, gone_since, password)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    execute(connection, sql, row)
}

pub(super) fn end_owner(connection: &Connection, user: &UserId) -> Result<(), Error> {
    let sql = "DELETE FROM owner WHERE user = ?1";
    execute(connection, sql, params![user.as_str()])
}

pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    row: impl rusqlite::Params,
) -> Result<(), Error> {
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

fn encode(message: &Message, buf: &mut BytesMut) -> Result<jam_wire::packet::QoS, Error> {
    rec::encode_message(message, buf).map_err(unwritable)
}

/// What came as a packet goes into one, so this is a defect; it must not look like a full disk.
fn unwritable(error: EncodeError) -> Error {
    Error::ToSqlConversionFailure(Box::new(error))
}
