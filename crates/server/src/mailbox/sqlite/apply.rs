//! A batch as SQL, in one transaction.
//!
//! Invariants: nothing is applied unless all of it is; messages go in by ascending number, which is
//! the end of the table; what leaves is deleted by runs of numbers.

use bytes::BytesMut;
use jam_core::directory::Mark;
use jam_core::message::Message;
use jam_core::store::{Append, OutboundState, Seq, SessionRecord, Write};
use jam_core::timekeeping::ClockRecord;
use jam_wire::EncodeError;
use rusqlite::{CachedStatement, Connection, Error, Row, TransactionBehavior, params};

use super::clock;
use super::meta;
use super::records as rec;
use crate::mailbox::pending::{Op, Pending};

/// Numbers that are reserved at once, so that not every batch has to say which was the highest.
pub(super) const BLOCK: u64 = 1 << 20;

/// `in_flight.state`.
pub(super) const AWAITS_PUBACK: i64 = 1;
/// `in_flight.state`.
pub(super) const AWAITS_PUBREC: i64 = 2;
/// `in_flight.state`.
pub(super) const AWAITS_PUBCOMP: i64 = 3;

/// What another process asks to be removed: a row of `purge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Purge {
    pub(super) user: String,
    pub(super) sender: String,
    pub(super) up_to: i64,
}

impl Purge {
    pub(super) fn all(connection: &Connection) -> Result<Vec<Self>, Error> {
        let mut select = connection.prepare_cached("SELECT user, sender, up_to FROM purge")?;
        let row = |row: &Row<'_>| {
            Ok(Self {
                user: row.get(0)?,
                sender: row.get(1)?,
                up_to: row.get(2)?,
            })
        };
        select.query_map([], row)?.collect()
    }

    /// One that has taken its place since is not done yet.
    fn forget(&self, connection: &Connection) -> Result<(), Error> {
        let sql = "DELETE FROM purge WHERE user = ?1 AND sender = ?2 AND up_to = ?3";
        execute(connection, sql, params![self.user, self.sender, self.up_to])
    }
}

/// What the writer knows of the file besides its rows.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Applier {
    /// Up to this number, `meta` says that it may have been used.
    reserved: u64,
    /// The next `in_flight.position`.
    position: i64,
    /// For what is encoded.
    buf: BytesMut,
    appends: Vec<(Seq, u32)>,
    removes: Vec<Seq>,
}

impl Applier {
    pub(super) fn new(reserved: u64, position: i64) -> Self {
        Self {
            reserved,
            position,
            buf: BytesMut::new(),
            appends: Vec::new(),
            removes: Vec::new(),
        }
    }

    /// Whether the batch uses numbers of which the file does not know yet.
    pub(super) fn must_reserve<C>(&self, batch: &Pending<C>) -> bool {
        batch.highest() > self.reserved
    }

    /// Commits the batch, what is to be remembered of the clocks, and that what other processes asked for is done;
    /// `probe` if something must be written in any case.
    pub(super) fn commit<C>(
        &mut self,
        connection: &mut Connection,
        batch: &Pending<C>,
        record: Option<&ClockRecord>,
        done: &[Purge],
        probe: bool,
    ) -> Result<(), Error> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut reserved = self.reserved;
        if self.must_reserve(batch) || probe {
            reserved = reserved.max(batch.highest() + BLOCK);
            meta::put(&transaction, meta::LAST_SEQ, rec::number(reserved))?;
        }
        if let Some(record) = record {
            clock::write(&transaction, record)?;
        }
        let position = self.position;
        let applied = self
            .apply(&transaction, batch)
            .and_then(|()| done.iter().try_for_each(|purge| purge.forget(&transaction)))
            .and_then(|()| transaction.commit());
        match applied {
            Ok(()) => self.reserved = reserved,
            Err(_) => self.position = position,
        }
        applied
    }

    /// Commits what is to be remembered of the clocks, alone.
    pub(super) fn keep_clock(
        &mut self,
        connection: &mut Connection,
        record: &ClockRecord,
    ) -> Result<(), Error> {
        self.commit(
            connection,
            &Pending::<()>::default(),
            Some(record),
            &[],
            false,
        )
    }

    fn apply<C>(&mut self, connection: &Connection, batch: &Pending<C>) -> Result<(), Error> {
        self.appends.clear();
        self.removes.clear();
        for (at, op) in batch.ops.iter().enumerate() {
            match &op.write {
                Some(Write::Append(append)) => {
                    self.appends
                        .push((append.seq, u32::try_from(at).unwrap_or(u32::MAX)));
                }
                Some(Write::Remove(seq)) => self.removes.push(*seq),
                _ => {}
            }
        }
        self.append(connection, batch)?;
        for op in &batch.ops {
            if let Some(write) = &op.write {
                self.other(connection, write, op)?;
            }
        }
        self.remove(connection)
    }

    fn append<C>(&mut self, connection: &Connection, batch: &Pending<C>) -> Result<(), Error> {
        self.appends.sort_unstable();
        if self.appends.is_empty() {
            return Ok(());
        }
        let mut insert = connection.prepare_cached(&insert("INSERT"))?;
        for &(_, at) in &self.appends {
            let op = &batch.ops[at as usize];
            match &op.write {
                Some(Write::Append(append)) if op.again => {
                    insert_again(connection, append, op, &mut self.buf)?;
                }
                Some(Write::Append(append)) => message(&mut insert, append, op, &mut self.buf)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn remove(&mut self, connection: &Connection) -> Result<(), Error> {
        self.removes.sort_unstable();
        for run in self.removes.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (first, last) = (rec::number(run[0]), rec::number(run[run.len() - 1]));
            if first == last {
                execute(
                    connection,
                    "DELETE FROM message WHERE id = ?1",
                    params![first],
                )?;
            } else {
                let sql = "DELETE FROM message WHERE id BETWEEN ?1 AND ?2";
                execute(connection, sql, params![first, last])?;
            }
        }
        Ok(())
    }

    /// Everything but appends and removals.
    fn other(&mut self, connection: &Connection, write: &Write, op: &Op) -> Result<(), Error> {
        match write {
            Write::Append(_) | Write::Remove(_) | Write::AnswerAfter(..) => Ok(()),
            Write::Acknowledged { seq, waits_for } => {
                let sql = "UPDATE message SET waits_for = ?2, acknowledged = 1 WHERE id = ?1";
                execute(
                    connection,
                    sql,
                    params![rec::number(*seq), rec::devices(*waits_for)],
                )
            }
            Write::Session(record) => session(connection, record),
            Write::EndSession(session) => {
                let session = params![rec::number(*session)];
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
            Write::Subscribe(session, subscription) => {
                let row = rec::subscription_row(subscription);
                put_subscription(connection, rec::number(*session), row)
            }
            Write::Unsubscribe(session, topic) => {
                let sql = "DELETE FROM subscription WHERE session = ?1 AND topic = ?2";
                let row = params![rec::number(*session), topic.as_str()];
                execute(connection, sql, row)
            }
            Write::Received(_, session, id) => {
                let sql = "INSERT OR IGNORE INTO received (session, packet_id) VALUES (?1, ?2)";
                execute(connection, sql, params![rec::number(*session), id.get()])
            }
            Write::Released(session, id) => {
                let sql = "DELETE FROM received WHERE session = ?1 AND packet_id = ?2";
                execute(connection, sql, params![rec::number(*session), id.get()])
            }
            Write::InFlight(session, id, flight) => {
                let (state, seq) = match *flight {
                    OutboundState::AwaitsPubAck(seq) => (AWAITS_PUBACK, seq),
                    OutboundState::AwaitsPubRec(seq) => (AWAITS_PUBREC, seq),
                    OutboundState::AwaitsPubComp => (AWAITS_PUBCOMP, 0),
                };
                let position = self.position;
                self.position += 1;
                let row = params![
                    rec::number(*session),
                    id.get(),
                    state,
                    rec::number(seq),
                    position
                ];
                let sql = "INSERT OR REPLACE INTO in_flight (session, packet_id, state, message,
                     position) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(connection, sql, row)
            }
            Write::EndInFlight(session, id) => {
                let sql = "DELETE FROM in_flight WHERE session = ?1 AND packet_id = ?2";
                execute(connection, sql, params![rec::number(*session), id.get()])
            }
            Write::Retain(append) => {
                insert_again(connection, append, op, &mut self.buf)?;
                let row = params![
                    rec::number(append.seq),
                    append.user.as_str(),
                    AsRef::<str>::as_ref(append.message.topic()),
                ];
                let sql =
                    "INSERT OR REPLACE INTO retained (message, user, topic) VALUES (?1, ?2, ?3)";
                execute(connection, sql, row)
            }
            Write::Unretain(seq) => {
                let sql = "DELETE FROM retained WHERE message = ?1";
                execute(connection, sql, params![rec::number(*seq)])
            }
            Write::Claim(session, seq) => {
                let sql = "INSERT OR IGNORE INTO claim (session, message) VALUES (?1, ?2)";
                let row = params![rec::number(*session), rec::number(*seq)];
                execute(connection, sql, row)
            }
            Write::EndClaim(session, seq) => {
                let sql = "DELETE FROM claim WHERE session = ?1 AND message = ?2";
                let row = params![rec::number(*session), rec::number(*seq)];
                execute(connection, sql, row)
            }
            Write::Will(due) => {
                let row = params![
                    rec::number(due.id),
                    due.user.as_str(),
                    rec::encode_will(&due.will).map_err(unwritable)?,
                    due.token.as_ref().map(Mark::bytes),
                ];
                let sql =
                    "INSERT OR REPLACE INTO will (id, user, body, token) VALUES (?1, ?2, ?3, ?4)";
                execute(connection, sql, row)
            }
            Write::EndWill(_, id) => {
                let sql = "DELETE FROM will WHERE id = ?1";
                execute(connection, sql, params![rec::number(*id)])
            }
            Write::Push(push) => {
                let row = params![
                    push.receiver.as_str(),
                    push.sender.as_str(),
                    rec::number(push.seq),
                    push.sent,
                    rec::coming(push.at),
                    rec::expiry(push.expires_at),
                ];
                let sql =
                    "INSERT OR REPLACE INTO push (user, sender, message, sent, at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                execute(connection, sql, row)
            }
            Write::EndPush(user, sender) => {
                let sql = "DELETE FROM push WHERE user = ?1 AND sender = ?2";
                execute(connection, sql, params![user.as_str(), sender.as_str()])
            }
            Write::Owner(owner) => {
                let row = params![
                    owner.user.as_str(),
                    owner.life.email.as_ref().map(Mark::bytes),
                    owner.life.name.as_ref().map(Mark::bytes),
                    owner.life.made_up,
                    rec::optional_time(owner.gone_since),
                    owner.life.password.as_ref().map(Mark::bytes),
                ];
                let sql =
                    "INSERT OR REPLACE INTO owner (user, email, name, made_up, gone_since, password)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                execute(connection, sql, row)
            }
            Write::EndOwner(user) => {
                let sql = "DELETE FROM owner WHERE user = ?1";
                execute(connection, sql, params![user.as_str()])
            }
        }
    }
}

fn insert(verb: &str) -> String {
    format!(
        "{verb} INTO message (id, user, sender, flags, waits_for, acknowledged, received_at, expires_at,
         size, body, sender_life) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    )
}

/// The same of a message that may be there: a commit that failed may have reached the file all the same.
fn insert_again(
    connection: &Connection,
    append: &Append,
    op: &Op,
    buf: &mut BytesMut,
) -> Result<(), Error> {
    let mut insert = connection.prepare_cached(&insert("INSERT OR REPLACE"))?;
    message(&mut insert, append, op, buf)
}

fn message(
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

pub(super) fn put_subscription(
    connection: &Connection,
    session: i64,
    (topic, options, id): (&str, u8, Option<u32>),
) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO subscription (session, topic, options, id)
         VALUES (?1, ?2, ?3, ?4)";
    execute(connection, sql, params![session, topic, options, id])
}

fn session(connection: &Connection, record: &SessionRecord) -> Result<(), Error> {
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

fn encode(message: &Message, buf: &mut BytesMut) -> Result<jam_wire::packet::QoS, Error> {
    rec::encode_message(message, buf).map_err(unwritable)
}

/// What came as a packet goes into one, so this is a defect; it must not look like a full disk.
fn unwritable(error: EncodeError) -> Error {
    Error::ToSqlConversionFailure(Box::new(error))
}

fn execute(connection: &Connection, sql: &str, row: impl rusqlite::Params) -> Result<(), Error> {
    connection.prepare_cached(sql)?.execute(row).map(drop)
}
