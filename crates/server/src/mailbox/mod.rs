//! The mailbox as one SQLite file of our own (PROTOCOL.md, section 7; `docs/data-format.md`).
//!
//! # Layout
//!
//! - [`SqliteMailbox`]: what the router writes to and reads from. Its methods queue and return.
//! - `pending`: what waits for the next commit, less what no longer matters; `shared` holds it, and what is `kept`.
//! - `writer`: the one thread that changes the file; `apply` is a batch as SQL, `reserve` is room for a full disk.
//! - `reader`: the one thread that reads messages; `recover` is what is read at the start.
//! - [`admin`], [`salvage`]: what the commands do with a mailbox.
//! - `schema`: the file itself; `records`: values as they stand in it; `clock`: what is remembered of the clocks; `error`: why it cannot be opened.
//!
//! Invariants: nobody is told that something is kept before it is (`tests::killed`); after a crash the
//! file is as some prefix of the calls has left it; no damage is taken for an empty mailbox.

pub mod admin;
mod apply;
mod clock;
mod error;
mod kept;
mod pending;
mod reader;
mod records;
mod recover;
mod reserve;
pub mod salvage;
mod schema;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::router::OnCommit;
use jam_core::store::{Completion, MailboxStore, OnLoaded, Recovered, RecoveredEntry, Seq, Writes};
use jam_core::timekeeping::ClockRecord;
use rusqlite::Connection;

pub use error::OpenError;
pub use reader::READ_TRIES;
pub use reserve::RESERVE_BYTES;
use reserve::Reserve;
pub use shared::MAX_PENDING_BYTES;
use shared::{Hook, Load, Shared};
pub use writer::{PROBE_INTERVAL, PURGE_INTERVAL};

/// Messages and sessions in `mailbox.db`.
///
/// Dropping it commits what waits and closes the file.
#[derive(Debug)]
pub struct SqliteMailbox<C = OnCommit> {
    shared: Arc<Shared<C>>,
    threads: Vec<JoinHandle<()>>,
    clock: Option<ClockRecord>,
    /// Locked as long as this is open.
    _lock: File,
}

impl<C: Completion> SqliteMailbox<C> {
    /// Opens the mailbox in the directory `dir`, which is made if it is not there, and reads what is in
    /// it, but for [`Self::recover_entries`]. Messages are read when they are asked for.
    ///
    /// # Errors
    /// [`OpenError`]; the mailbox is then as it was.
    pub fn open(dir: &Path) -> Result<(Arc<Self>, Recovered), OpenError> {
        let files = schema::Files::of(dir);
        let with_room = |error| match error {
            OpenError::Io { path, .. } if reserve::is_full(&files.db) => OpenError::Full(path),
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
        let shared = Arc::new(Shared::new(files.clone(), found.kept));
        let applier = apply::Applier::new(found.reserved, found.position);
        shared.trouble.store(given_up.is_some(), Ordering::Relaxed);
        let writer = writer::Writer::new(
            Arc::clone(&shared),
            connection,
            applier,
            given_up.unwrap_or_else(|| Reserve::at(files.reserve())),
            found.clock,
        );
        let reader = reader::Reader::new(Arc::clone(&shared), reading);
        // From here on, whatever fails stops the threads that run.
        let mut mailbox = Self {
            shared,
            threads: Vec::new(),
            clock: found.clock,
            _lock: lock,
        };
        let io = |error| OpenError::io(&files.db, error);
        mailbox
            .threads
            .push(spawn("mailbox-write", move || writer.run()).map_err(io)?);
        mailbox
            .threads
            .push(spawn("mailbox-read", move || reader.run()).map_err(io)?);
        Ok((Arc::new(mailbox), found.recovered))
    }

    /// Reads what is to be known of each message of the logs, in any order, and on several threads at once if
    /// there are many; before anything is written. How many there are.
    ///
    /// # Errors
    /// [`OpenError`]: what was read is then not all there is.
    pub fn recover_entries(
        &self,
        take: impl Fn(RecoveredEntry) + Sync,
    ) -> Result<usize, OpenError> {
        let path = &self.shared.files.db;
        recover::all_entries(path, take).map_err(|error| OpenError::sqlite(path, &error))
    }

    /// What was remembered of the clocks when it was opened; `None` if it is new.
    #[must_use]
    pub fn clock(&self) -> Option<ClockRecord> {
        self.clock
    }

    /// Has this remembered of the clocks: with the next batch; when there is none, once an hour, when it says
    /// something new, and at the end.
    pub fn keep_clock(&self, record: ClockRecord) {
        self.shared.state().clock = Some(record);
    }

    /// Waits until everything written before is kept, rejected, or no longer needed, and its completions are called; at
    /// most `timeout`. Whether it is.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.shared.flush(timeout)
    }

    /// What is done when another process asks for a user's messages up to a number to be removed, of one sender if it
    /// names one: the router is to remove those that are still there. Called on the writer's thread, without a lock.
    /// Can be set once; without it, such requests wait for the next start.
    pub fn on_purge(&self, then: impl Fn(UserId, Seq, Option<UserId>) + Send + Sync + 'static) {
        let hook = Box::new(move |(user, up_to, from)| then(user, up_to, from));
        drop(self.shared.on_purge.set(Hook(hook)));
    }

    /// What is done when another process asks for everything of a user to be removed, up to a number. Called as above.
    pub fn on_remove(&self, then: impl Fn(UserId, Seq) + Send + Sync + 'static) {
        let hook = Box::new(move |(user, up_to)| then(user, up_to));
        drop(self.shared.on_remove.set(Hook(hook)));
    }

    /// What is done when nothing can be written any more: nothing is to wait for the store that can do without.
    /// Called as above.
    pub fn on_failing(&self, then: impl Fn() + Send + Sync + 'static) {
        drop(self.shared.on_failing.set(Hook(Box::new(move |()| then()))));
    }
}

impl<C: Completion> MailboxStore<C> for SqliteMailbox<C> {
    // Numbers are unique in the file: it finds everything without its user.
    fn write(&self, _: &UserId, writes: Writes, completion: Option<C>) {
        self.shared.push(writes, completion);
    }

    fn load(&self, _: &UserId, seqs: Vec<Seq>, then: OnLoaded) {
        self.shared.push_load(Load {
            seqs,
            then,
            tries: 0,
            not_before: None,
        });
    }

    fn settle(&self) {
        self.shared.complete_early();
    }

    fn is_ending_sessions(&self) -> bool {
        self.shared.is_ending()
    }

    fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }

    fn accepts(&self) -> bool {
        self.shared.accepts()
    }
}

impl<C> Drop for SqliteMailbox<C> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // The last handle may be dropped by an answer, on one of these threads.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the mailbox has panicked");
            }
        }
    }
}

/// A mailbox's file.
struct Opened {
    connection: Connection,
    found: recover::Found,
    reading: Connection,
}

fn open_files(files: &schema::Files) -> Result<Opened, OpenError> {
    let closed = schema::prepare(files)?;
    let connection = schema::open(files, closed)?;
    let sqlite = |error| OpenError::sqlite(&files.db, &error);
    let found = recover::recover(&files.db, &connection).map_err(sqlite)?;
    let reading = schema::open_to_read(&files.db).map_err(sqlite)?;
    Ok(Opened {
        connection,
        found,
        reading,
    })
}

/// Even to read a mailbox takes some room: on a full disk, the reserve is given up for that.
fn open_in_what_room_there_is(
    files: &schema::Files,
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
