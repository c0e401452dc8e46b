//! A batch as SQL, in one transaction.
//!
//! Invariants: nothing is applied unless all of it is; messages go in by ascending number, which is
//! the end of the table; what leaves is deleted by runs of numbers.

use bytes::BytesMut;
use jam_core::store::{Seq, Write};
use jam_core::timekeeping::ClockRecord;
use rusqlite::{Connection, Error, Row, TransactionBehavior, params};

use super::clock;
use super::meta;
use super::records as rec;
use super::statements::{self as sql, execute};
use crate::mailbox::pending::{Op, Pending};

/// Numbers that are reserved at once, so that not every batch has to say which was the highest.
pub(super) const BLOCK: u64 = 1 << 20;

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
        let mut insert = connection.prepare_cached(&sql::insert("INSERT"))?;
        for &(_, at) in &self.appends {
            let op = &batch.ops[at as usize];
            match &op.write {
                Some(Write::Append(append)) if op.again => {
                    sql::insert_again(connection, append, op, &mut self.buf)?;
                }
                Some(Write::Append(append)) => {
                    sql::put_message(&mut insert, append, op, &mut self.buf)?;
                }
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
                let range = "DELETE FROM message WHERE id BETWEEN ?1 AND ?2";
                execute(connection, range, params![first, last])?;
            }
        }
        Ok(())
    }

    /// Everything but appends and removals.
    fn other(&mut self, connection: &Connection, write: &Write, op: &Op) -> Result<(), Error> {
        match write {
            Write::Append(_) | Write::Remove(_) | Write::AnswerAfter(..) => Ok(()),
            Write::Acknowledged { seq, waits_for } => {
                sql::acknowledge(connection, *seq, *waits_for)
            }
            Write::Session(record) => sql::put_session(connection, record),
            Write::EndSession(session) => sql::end_session(connection, *session),
            Write::Subscribe(session, subscription) => {
                let row = rec::subscription_row(subscription);
                sql::put_subscription(connection, rec::number(*session), row)
            }
            Write::Unsubscribe(session, topic) => sql::unsubscribe(connection, *session, topic),
            Write::Received(_, session, id) => sql::put_received(connection, *session, *id),
            Write::Released(session, id) => sql::end_received(connection, *session, *id),
            Write::InFlight(session, id, state) => {
                let position = self.position;
                self.position += 1;
                sql::put_in_flight(connection, *session, *id, *state, position)
            }
            Write::EndInFlight(session, id) => sql::end_in_flight(connection, *session, *id),
            Write::Retain(append) => {
                sql::insert_again(connection, append, op, &mut self.buf)?;
                sql::put_retained(connection, append)
            }
            Write::Unretain(seq) => sql::end_retained(connection, *seq),
            Write::Claim(session, seq) => sql::put_claim(connection, *session, *seq),
            Write::EndClaim(session, seq) => sql::end_claim(connection, *session, *seq),
            Write::Will(due) => sql::put_will(connection, due),
            Write::EndWill(_, id) => sql::end_will(connection, *id),
            Write::Push(push) => sql::put_push(connection, push),
            Write::EndPush(user, sender) => sql::end_push(connection, user, sender),
            Write::Owner(owner) => sql::put_owner(connection, owner),
            Write::EndOwner(user) => sql::end_owner(connection, user),
        }
    }
}
