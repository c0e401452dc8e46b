//! The mailbox as one SQLite file of our own (`docs/data-format.md`).
//!
//! # Layout
//!
//! - [`SqliteMailbox`]: what the router writes to and reads from. Its methods queue and return.
//! - `writer`: the one thread that changes the file; `apply` is a batch as SQL, `statements` one write of it, `reserve` is room for a full disk,
//!   `at_place` looks whether the files are still there.
//! - `reader`: the one thread that reads messages; `recover` is what is read at the start.
//! - [`administration`], `backup`, `salvage`: what the commands do with the file; `purging` is what they ask the server to
//!   remove.
//! - `schema`: the file itself; `records`: values as they stand in it; `meta`: numbers by name; `clock`: what is remembered
//!   of the clocks; `error`: what an error of SQLite means.
//!
//! Invariants: nobody is told that something is kept before it is (`tests::killed`); after a crash the
//! file is as some prefix of the calls has left it; no damage is taken for an empty mailbox.

pub mod administration;
mod apply;
mod at_place;
mod backup;
mod clock;
mod error;
mod meta;
mod oldest;
mod purging;
mod reader;
mod records;
mod recover;
mod reserve;
mod salvage;
mod schema;
mod statements;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
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
use rusqlite::Connection;

use crate::mailbox::OpenError;
use crate::mailbox::shared::{EventSink, Load, MailboxShared};
use crate::metrics::ServerMetrics;
pub use administration::SqliteMailboxAdministration;
use at_place::AtPlace;
pub use backup::{Exchange, backup};
pub use reader::READ_TRIES;
pub use reserve::RESERVE_BYTES;
use reserve::Reserve;
pub use salvage::{Report, salvage};
pub use writer::{PROBE_INTERVAL, PURGE_INTERVAL};

/// Messages and sessions in `mailbox.db`.
///
/// Dropping it commits what waits and closes the file.
#[derive(Debug)]
pub struct SqliteMailbox<C = OnCommit> {
    shared: Arc<MailboxShared<C>>,
    place: Arc<AtPlace>,
    reader: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    /// Locked as long as this is open.
    _lock: File,
}

impl<C: Completion> SqliteMailbox<C> {
    /// Opens the mailbox in the directory `dir`, which is made if it is not there, and reads what is in
    /// it, but for the entries of the logs. Messages are read when they are asked for.
    ///
    /// # Errors
    /// [`OpenError`]; the mailbox is then as it was.
    pub fn open(dir: &Path) -> Result<(Arc<Self>, Recovered), OpenError> {
        Self::open_counted(dir, Arc::default())
    }

    /// As [`Self::open`]; it counts in `metrics`.
    pub(crate) fn open_counted(
        dir: &Path,
        metrics: Arc<ServerMetrics>,
    ) -> Result<(Arc<Self>, Recovered), OpenError> {
        let files = schema::MailboxFiles::of(dir);
        let with_room = |error| match error {
            OpenError::Io { path, .. }
                if reserve::is_full(&files.db) || reserve::has_no_room(&files.db) =>
            {
                OpenError::Full(path)
            }
            other => other,
        };
        schema::create_dir(dir).map_err(with_room)?;
        let lock = files.lock().map_err(with_room)?;
        let (opened, given_up) = open_in_what_room_there_is(&files).map_err(with_room)?;
        let Opened {
            connection,
            found,
            reading,
        } = opened;
        let shared = Arc::new(MailboxShared::new(found.kept));
        let place = Arc::new(AtPlace::of(files.clone()));
        let applier = apply::Applier::new(found.reserved, found.position);
        shared.trouble.store(given_up.is_some(), Ordering::Relaxed);
        let writer = writer::Writer::new(
            Arc::clone(&shared),
            Arc::clone(&place),
            connection,
            applier,
            given_up.unwrap_or_else(|| Reserve::at(files.reserve())),
            found.recovered.clock,
            metrics,
        );
        let reader = reader::Reader::new(Arc::clone(&shared), Arc::clone(&place), reading);
        // From here on, whatever fails stops the threads that run.
        let mut mailbox = Self {
            shared,
            place,
            reader: None,
            writer: None,
            _lock: lock,
        };
        let io = |error| OpenError::io(&files.db, error);
        mailbox.writer = Some(spawn("mailbox-write", move || writer.run()).map_err(io)?);
        mailbox.reader = Some(spawn("mailbox-read", move || reader.run()).map_err(io)?);
        Ok((Arc::new(mailbox), found.recovered))
    }
}

impl<C: Completion> MailboxStore<C> for SqliteMailbox<C> {
    /// On several threads at once if there are many.
    fn recover_entries(&self, take: &(dyn Fn(RecoveredEntry) + Sync)) -> Result<usize, StoreError> {
        let path = &self.place.files.db;
        let read = recover::all_entries(path, take);
        Ok(read.map_err(|error| OpenError::sqlite(path, &error))?)
    }

    fn attach(&self, events: Box<dyn StoreEvents>) {
        drop(self.shared.events.set(EventSink(events)));
    }

    // Numbers are unique in the file: it finds everything without its user.
    fn write(&self, _: &UserId, writes: Writes, completion: Option<C>) {
        self.shared.push(0, writes, completion);
    }

    fn load(&self, _: &UserId, seqs: Vec<Seq>, then: OnLoaded) {
        self.shared.push_load(Load {
            part: 0,
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
        let path = &self.place.files.db;
        let seqs = messages.iter().map(|(_, seq)| *seq);
        let found = schema::open_to_read(path)
            .and_then(|connection| administration::received_at(&connection, seqs));
        Ok(found.map_err(|error| OpenError::sqlite(path, &error))?)
    }

    fn disk_use(&self) -> DiskUse {
        let files = &self.place.files;
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        DiskUse {
            bytes: size(&files.db),
            log_bytes: size(files.wal()),
            available_bytes: reserve::room_beside(&files.db).unwrap_or(0),
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
        self.shared.gauges()
    }

    fn is_ending_sessions(&self) -> bool {
        self.shared.is_ending()
    }

    fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }

    /// At least one each [`writer::PROBE_INTERVAL`].
    fn turns(&self) -> Option<u64> {
        Some(self.shared.turns.load(Ordering::Relaxed))
    }

    fn accepts(&self) -> bool {
        self.shared.accepts()
    }
}

impl<C> Drop for SqliteMailbox<C> {
    /// The reader ends first: the last connection moves the log into the file when it closes, and the reader's may not
    /// write.
    fn drop(&mut self) {
        self.shared.stop_reading();
        self.reader.take().into_iter().for_each(join);
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

/// The file that messages stand in, of the mailbox in `dir`.
pub(super) fn file(dir: &Path) -> PathBuf {
    schema::MailboxFiles::of(dir).db
}

/// A mailbox's file.
struct Opened {
    connection: Connection,
    found: recover::Found,
    reading: Connection,
}

fn open_files(files: &schema::MailboxFiles) -> Result<Opened, OpenError> {
    let closed = schema::prepare(files)?;
    let connection = schema::open(files, closed)?;
    let sqlite = |error| OpenError::sqlite(&files.db, &error);
    let found = recover::recover(&files.db, &connection).map_err(sqlite)?;
    let reading = schema::open_to_read(&files.db).map_err(sqlite)?;
    // Opens its log now: later there may be another one at the path.
    schema::pragma(&reading, "schema_version").map_err(sqlite)?;
    Ok(Opened {
        connection,
        found,
        reading,
    })
}

/// Even to read a mailbox takes some room: on a full disk, the reserve is given up for that.
fn open_in_what_room_there_is(
    files: &schema::MailboxFiles,
) -> Result<(Opened, Option<Reserve>), OpenError> {
    let mut given_up = None;
    if reserve::is_full(&files.db) && files.exist() {
        given_up = Reserve::given_up(files.reserve());
    }
    let mut opened = open_files(files);
    if let Err(OpenError::Io { .. } | OpenError::Full(_)) = opened
        && given_up.is_none()
        && files.exist()
    {
        // A quota may be full when the disk is not.
        given_up = Reserve::given_up(files.reserve());
        if given_up.is_some() {
            opened = open_files(files);
        }
    }
    let opened = opened?;
    if given_up.is_some() {
        let path = files.db.display();
        tracing::error!(
            "the mailbox {path} cannot be written: the disk is full; make room on the disk. Until then messages are \
             refused, what is there is delivered, and the file is tried again each second"
        );
    }
    Ok((opened, given_up))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
