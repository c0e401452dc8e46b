//! The thread that reads messages for the router.
//!
//! Invariants: a message that waits to be committed is answered from memory, and looked for there before the database, so that
//! none is missed in between; nothing is read on a connection that does not know what we have committed; a message is missing
//! only when it is gone, or when it cannot be right however often it is read, and then it is left in the database.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use jam_core::message::Message;
use jam_core::store::{Completion, Seq};
use tokio::runtime::Runtime;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::connection::{Database, Purpose, name};
use super::recover::message;
use super::rows::part;
use super::station::Station;
use super::tenure::Tenure;
use crate::mailbox::shared::{Load, Whereabouts};
use crate::mailbox::values::{self as val, Flags, Wrong};
use crate::postgres::{FailureKind, PostgresError};

/// How long messages may take to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How often content that cannot be right is read again.
const DAMAGE_TRIES: u32 = 3;

/// Between the first two tries; doubled for each further one up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(10);
const MAX_DELAY: Duration = Duration::from_secs(1);

/// As a join: with `seq = ANY ($2)` a plan that was made when the table was empty walks all of the part, and what is dead in it.
pub(super) const SELECT: &str = "SELECT m.sender, m.received_at, m.expires_at, m.body, m.sender_life, m.flags, m.seq
    FROM unnest($1::int2[], $2::int8[]) d(part, seq) JOIN message m ON m.part = d.part AND m.seq = d.seq";

pub(super) struct DatabaseReader<C> {
    station: Arc<Station<C>>,
    link: Option<(Database, Statement)>,
}

/// Why messages could not be read.
enum ReadError {
    /// The database does not answer.
    Database(PostgresError),
    /// One of them is not what this program has written.
    Damaged(Damage),
}

/// What is wrong with a message.
enum Damage {
    Content(Wrong),
    /// The database cannot read it either.
    Page(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(wrong) => wrong.fmt(f),
            Self::Page(said) => f.write_str(said),
        }
    }
}

type Messages = Vec<(Seq, Arc<Message>)>;

impl<C: Completion> DatabaseReader<C> {
    pub(super) fn new(station: Arc<Station<C>>) -> Self {
        Self {
            station,
            link: None,
        }
    }

    /// Until the mailbox is dropped.
    pub(super) fn run(mut self, runtime: &Runtime) {
        let station = Arc::clone(&self.station);
        while let Some(loads) = station.shared.take_loads() {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = station.stopped() => {}
                    () = self.load(loads) => {}
                }
            });
        }
        if let Some((database, _)) = self.link.take() {
            runtime.block_on(database.close());
        }
    }

    /// All at once: on one connection the database answers one after the other, without waiting for us in between.
    async fn load(&mut self, loads: Vec<Load>) {
        let ready = self.connect().await;
        let read = match (&self.link, ready) {
            (Some(link), Ok(())) => {
                let reads = loads.iter().map(|load| self.read(link, load, &load.seqs));
                join_all(reads).await
            }
            (_, Err(error)) => {
                let failed = |_: &Load| Err(ReadError::Database(error.clone()));
                loads.iter().map(failed).collect()
            }
            (None, Ok(())) => return,
        };
        let mut is_broken = false;
        for (load, read) in loads.into_iter().zip(read) {
            match read {
                Ok(messages) => (load.then)(messages),
                Err(ReadError::Database(error)) => {
                    tracing::debug!(%error, "messages cannot be read now");
                    is_broken = true;
                    self.try_again(load);
                }
                Err(ReadError::Damaged(_)) if load.tries + 1 < DAMAGE_TRIES => self.try_again(load),
                Err(ReadError::Damaged(_)) => match self.read_singly(&load).await {
                    Some(messages) => (load.then)(messages),
                    None => self.try_again(load),
                },
            }
        }
        if is_broken && let Some((database, _)) = self.link.take() {
            database.give_up().await;
        }
    }

    fn try_again(&self, mut load: Load) {
        load.tries = load.tries.saturating_add(1);
        let delay = FIRST_DELAY * 2_u32.saturating_pow((load.tries - 1).min(16));
        load.not_before = Some(std::time::Instant::now() + delay.min(MAX_DELAY));
        self.station.shared.push_load(load);
    }

    /// Has a connection to a database that knows all that we have committed.
    async fn connect(&mut self) -> Result<(), PostgresError> {
        if self
            .link
            .as_ref()
            .is_some_and(|(database, _)| !database.is_closed())
        {
            return Ok(());
        }
        let station = &self.station;
        // What is kept is in the database before it is said here.
        let kept = station.kept.load(Ordering::Acquire);
        let name = name(station.incarnation, Purpose::Reader);
        let database = Database::connect(&station.address, &name, Purpose::Reader).await?;
        let look = async {
            let tenure = Tenure::look(database.client(), station.incarnation).await?;
            let select = database.client().prepare(SELECT).await?;
            Ok((tenure, select))
        };
        let (tenure, select) = database.within(READ_TIMEOUT, look).await?;
        if let Some(why) = station.judge(tenure, kept) {
            return Err(PostgresError::new(FailureKind::Other, why.to_string()));
        }
        self.link = Some((database, select));
        Ok(())
    }

    async fn read(
        &self,
        (database, select): &(Database, Statement),
        load: &Load,
        seqs: &[Seq],
    ) -> Result<Messages, ReadError> {
        let places = self.station.shared.in_memory(seqs);
        let is_in_file = |(_, place): &&(Seq, Whereabouts)| matches!(place, Whereabouts::InFile);
        let numbers: Vec<i64> = places
            .iter()
            .filter(is_in_file)
            .map(|(seq, _)| val::number(*seq))
            .collect();
        let mut rows = HashMap::new();
        if !numbers.is_empty() {
            let parts = vec![part(load.part); numbers.len()];
            let key: [&(dyn ToSql + Sync); 2] = [&parts, &numbers];
            let query = database.client().query(select, &key);
            let found = database.within(READ_TIMEOUT, query).await.map_err(unread)?;
            for row in found {
                let flags = Flags::from_number(row.get::<_, i16>(5).into()).map_err(damaged)?;
                let message = message(&row, flags.packet_id).map_err(damaged)?;
                rows.insert(val::from_number(row.get(6)).map_err(damaged)?, message);
            }
        }
        let found = places.into_iter().filter_map(|(seq, place)| match place {
            Whereabouts::Here(message) => Some((seq, message)),
            Whereabouts::Gone => None,
            Whereabouts::InFile => Some((seq, rows.remove(&seq)?)),
        });
        Ok(found.collect())
    }

    /// Messages that cannot be read are left out, and left in the database. `None`: it does not answer.
    async fn read_singly(&self, load: &Load) -> Option<Messages> {
        let link = self.link.as_ref()?;
        let mut messages = Messages::new();
        for seq in &load.seqs {
            match self.read(link, load, &[*seq]).await {
                Ok(read) => messages.extend(read),
                Err(ReadError::Database(_)) => return None,
                Err(ReadError::Damaged(what)) => {
                    tracing::error!(
                        "message {seq} cannot be read: {what}; it is left in the mailbox and not delivered. Run \
                         `jam-mqtt check`"
                    );
                    self.station.shared.state().kept.unreadable(*seq);
                }
            }
        }
        Some(messages)
    }
}

fn damaged(wrong: Wrong) -> ReadError {
    ReadError::Damaged(Damage::Content(wrong))
}

/// A page that the database itself cannot read is damage; all else may pass.
fn unread(error: PostgresError) -> ReadError {
    match error.sqlstate() {
        Some(state) if state.starts_with("XX") => {
            ReadError::Damaged(Damage::Page(error.to_string()))
        }
        _ => ReadError::Database(error),
    }
}
