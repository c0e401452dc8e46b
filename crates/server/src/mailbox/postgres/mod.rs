//! The mailbox in a PostgreSQL database (`docs/postgres.md`, [ADR 35](../../../../../docs/adr/0035-the-mailbox-on-postgresql.md)).
//!
//! # Layout
//!
//! - [`PostgresMailbox`]: what the router writes to and reads from. Its methods queue and return.
//! - `writer`: the one thread that changes the database; `rows` is a batch as columns, `chain` what becomes of its COMMIT.
//! - `fence`: who may write; `tenure`: whether we still may. `watch`: the thread that keeps the beat, and looks what operators want.
//! - `snapshots`: for how long the database has had to keep deleted rows.
//! - `reader`: the one thread that reads messages; `recover` is what is read at the start.
//! - [`administration`]: what the commands do with it; `purging` is what they ask the server to remove.
//! - `schema`: the tables; `connection`: a connection and its settings; `station`: what the threads share; `error`: what an error
//!   means.
//!
//! Invariants: nobody is told that something is kept before it is, on the standby too where there is one; a batch whose answer
//! is lost is kept once (`tests::cutting`); of two servers on one database one can write.

pub mod administration;
mod chain;
mod connection;
mod error;
mod fence;
mod purging;
mod reader;
mod recover;
mod rows;
mod schema;
mod snapshots;
mod station;
mod tenure;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::router::OnCommit;
use jam_core::store::{
    Completion, DiskUse, MailboxStore, OnLoaded, Recovered, RecoveredEntry, Seq, StoreError,
    StoreEvents, StoreGauges, Writes,
};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use tokio::runtime::{Builder, Runtime};

use crate::mailbox::OpenError;
use crate::mailbox::shared::{EventSink, Load, MailboxShared};
use crate::metrics::ServerMetrics;
use crate::postgres::Address;
pub use administration::PostgresMailboxAdministration;
use chain::{Chain, Link};
use connection::{Database, Purpose, name};
use fence::ServerLock;
use recover::{RecoverError, last_seq};
pub use schema::Migration;
use station::Station;
use tenure::Ended;

/// Messages and sessions in a PostgreSQL database.
///
/// Dropping it commits what waits, and says that the database is free.
#[derive(Debug)]
pub struct PostgresMailbox<C = OnCommit> {
    shared: Arc<MailboxShared<C>>,
    station: Arc<Station<C>>,
    reader: Option<JoinHandle<()>>,
    watch: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

impl<C: Completion> PostgresMailbox<C> {
    /// Takes the database at `address`, in which there is a schema, for this process alone, and reads what is in it, but for
    /// the entries of the logs. `data` is the data directory.
    ///
    /// # Errors
    /// [`OpenError`]: it cannot be used, or another server has it.
    pub(crate) fn open(
        address: &Address,
        data: &Path,
        metrics: Arc<ServerMetrics>,
    ) -> Result<(Arc<Self>, Recovered), OpenError> {
        let mut lock = ServerLock::take(data, address)?;
        let runtime = runtime(address)?;
        let incarnation = runtime.block_on(fence::enter(address, &mut lock))?;
        let mut chain = Chain::new(incarnation);
        // There may be much to read, and who is silent is taken over.
        let (link, found) = runtime.block_on(async {
            let started = tokio::select! {
                never = watch::keep_beat(address, incarnation) => match never {},
                started = start(address, &mut chain, lock.was_unwritten()) => started,
            };
            // The beat's connection is closed by its task.
            tokio::task::yield_now().await;
            started
        })?;
        let shared = Arc::new(MailboxShared::new(found.kept));
        // It is in the tables by now.
        lock.note(incarnation, false)
            .map_err(|error| fence::unwritable(address, &error))?;
        let station = Station::new(
            Arc::clone(&shared),
            address.clone(),
            incarnation,
            metrics,
            lock,
        );
        station.kept.store(chain.kept(), Ordering::Release);
        let station = Arc::new(station);
        let writer = writer::DatabaseWriter::new(
            Arc::clone(&station),
            runtime,
            (link, chain),
            found.position,
            found.recovered.clock,
        );
        // From here on, whatever fails stops the threads that run.
        let mut mailbox = Self {
            shared,
            station: Arc::clone(&station),
            reader: None,
            watch: None,
            writer: None,
        };
        let io =
            |error| OpenError::database(address, format!("a thread cannot be started: {error}"));
        mailbox.writer = Some(spawn("mailbox-write", move || writer.run()).map_err(io)?);
        let reading = self::runtime(address)?;
        let reader = reader::DatabaseReader::new(Arc::clone(&station));
        let read = move || reader.run(&reading);
        mailbox.reader = Some(spawn("mailbox-read", read).map_err(io)?);
        let watching = self::runtime(address)?;
        let watch = watch::Watch::new(station);
        let look = move || watch.run(&watching);
        mailbox.watch = Some(spawn("mailbox-watch", look).map_err(io)?);
        Ok((Arc::new(mailbox), found.recovered))
    }
}

/// On a connection for batches: does what others asked for, and reads. What the first batch is confirmed by confirms that the
/// database is ours.
async fn start(
    address: &Address,
    chain: &mut Chain,
    was_unwritten: bool,
) -> Result<(Link, recover::WholeDatabase), OpenError> {
    let fail = |error| OpenError::postgres(address, &error);
    let (link, _) = Link::open(address, chain).await.map_err(fail)?;
    let last = i64::try_from(last_seq(chain.incarnation)).unwrap_or(i64::MAX);
    let sql = purging::at_start(was_unwritten, last);
    let begun = link.begin_with(chain, &sql).await;
    begun.map_err(fail)?;
    let loading = name(chain.incarnation, Purpose::Load);
    let loading = Database::connect(address, &loading, Purpose::Load);
    let loading = loading.await.map_err(fail)?;
    let found = recover::recover(&loading, chain.incarnation).await;
    loading.close().await;
    Ok((link, found.map_err(|error| unread(address, error))?))
}

fn unread(address: &Address, error: RecoverError) -> OpenError {
    match error {
        RecoverError::Database(error) => OpenError::postgres(address, &error),
        RecoverError::Damaged(what) => OpenError::database(
            address,
            format!(
                "it is damaged: {what}. Nothing was changed. Restore the database from a backup"
            ),
        ),
    }
}

fn runtime(address: &Address) -> Result<Runtime, OpenError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| OpenError::database(address, error.to_string()))
}

impl<C: Completion> MailboxStore<C> for PostgresMailbox<C> {
    fn recover_entries(&self, take: &(dyn Fn(RecoveredEntry) + Sync)) -> Result<usize, StoreError> {
        let address = &self.station.address;
        let incarnation = self.station.incarnation;
        let read = runtime(address)?.block_on(async {
            let loading = name(incarnation, Purpose::Load);
            let loading = Database::connect(address, &loading, Purpose::Load).await;
            let loading = loading.map_err(|error| OpenError::postgres(address, &error))?;
            let last = last_seq(incarnation);
            let read = recover::all_entries(loading.client(), last, take).await;
            loading.close().await;
            read.map_err(|error| unread(address, error))
        });
        Ok(read?)
    }

    fn attach(&self, events: Box<dyn StoreEvents>) {
        drop(self.shared.events.set(EventSink(events)));
    }

    fn write(&self, user: &UserId, writes: Writes, completion: Option<C>) {
        self.shared.push(rows::part_of(user), writes, completion);
    }

    fn load(&self, user: &UserId, seqs: Vec<Seq>, then: OnLoaded) {
        self.shared.push_load(Load {
            part: rows::part_of(user),
            seqs,
            then,
            tries: 0,
            not_before: None,
        });
    }

    fn settle(&self) {
        self.shared.complete_early();
    }

    fn received_at(&self, messages: &[(UserId, Seq)]) -> Result<Vec<(Seq, Time)>, StoreError> {
        let administration = PostgresMailboxAdministration::of(self.station.address.clone());
        Ok(administration.received_at(messages)?)
    }

    fn disk_use(&self) -> DiskUse {
        DiskUse {
            bytes: self.station.bytes.load(Ordering::Relaxed),
            ..DiskUse::default()
        }
    }

    /// With the next batch; when there is none, once an hour, when it says something new, and at the end.
    fn keep_clock(&self, record: ClockRecord) {
        self.shared.state().clock = Some(record);
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.shared.flush(timeout)
    }

    fn gauges(&self) -> StoreGauges {
        let oldest_snapshot = self.station.oldest_snapshot_millis.load(Ordering::Relaxed);
        StoreGauges {
            dead_rows: self.station.dead_rows.load(Ordering::Relaxed),
            oldest_snapshot: Duration::from_millis(oldest_snapshot),
            ..self.shared.gauges()
        }
    }

    fn is_ending_sessions(&self) -> bool {
        self.shared.is_ending()
    }

    fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }

    fn turns(&self) -> Option<u64> {
        Some(self.shared.turns.load(Ordering::Relaxed))
    }

    fn accepts(&self) -> bool {
        self.shared.accepts()
    }

    fn ended(&self) -> Option<StoreError> {
        Some(Box::new(match self.station.ended()? {
            Ended::Lost(batches) => OpenError::lost(&self.station.address, batches),
            why @ Ended::Fenced => OpenError::database(&self.station.address, why.to_string()),
        }))
    }
}

impl<C> Drop for PostgresMailbox<C> {
    /// The writer ends last: it takes the beat's row away.
    fn drop(&mut self) {
        self.shared.stop_reading();
        self.station.stop();
        self.reader.take().into_iter().for_each(join);
        self.watch.take().into_iter().for_each(join);
        self.shared.stop_writing();
        self.writer.take().into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    // The last handle may be dropped by an answer, on one of these threads.
    if thread.thread().id() != thread::current().id() && thread.join().is_err() {
        tracing::error!("a thread of the mailbox has panicked");
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
