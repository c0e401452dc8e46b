//! The one thread that reads the directory's file.
//!
//! It owns its connection and does all the waiting for locks. It takes what has queued up, looks at the
//! file once, reads the answers and puts them into the cache before it says that they are there.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jam_core::directory::Account;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::cache::{Asker, Fact, Generation, Key};
use super::schema::{self, LOCK_PATIENCE};
use super::sqlite::{LookError, Shared};
use super::{DirectoryError, is_busy};

/// How long a single read waits for a lock; within [`LOCK_PATIENCE`] it is tried again.
pub(super) const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// Between two tries.
const RETRY: Duration = Duration::from_millis(2);

/// Questions answered with one look.
const BATCH: usize = 256;

/// What the thread is asked for. Whoever no longer waits for the reply doesn't get it.
#[derive(Debug)]
pub(super) enum Request {
    Load(Key, Asker, oneshot::Sender<Result<(), DirectoryError>>),
    /// `None` is an id that no jam database can hold.
    Accounts(
        Vec<Option<i64>>,
        oneshot::Sender<Result<Vec<Option<Account>>, DirectoryError>>,
    ),
    Look(oneshot::Sender<Result<u64, DirectoryError>>),
}

pub(super) struct Loader {
    shared: Arc<Shared>,
    reader: Connection,
    /// Which file the connections have open.
    file: Option<FileId>,
    /// Whether it has been said that the file is gone.
    missing: bool,
}

impl Loader {
    /// Starts the thread. It ends when nobody can send requests any more.
    pub(super) fn start(
        shared: Arc<Shared>,
        reader: Connection,
        file: Option<FileId>,
        queue: mpsc::Receiver<Request>,
    ) -> std::io::Result<()> {
        let mut loader = Self {
            shared,
            reader,
            file,
            missing: false,
        };
        let thread = thread::Builder::new().name("directory".to_owned());
        thread.spawn(move || loader.run(queue))?;
        Ok(())
    }

    fn run(&mut self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.serve(&mut batch);
        }
    }

    fn serve(&mut self, batch: &mut Vec<Request>) {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let looked = self.look(deadline);
        let generation = self.shared.cache.generation();
        for request in batch.drain(..) {
            // A failed send: the connection that asked is gone.
            let _ = match (request, &looked) {
                (Request::Load(_, _, reply), Err(error)) => reply.send(Err(error.clone())).is_ok(),
                (Request::Accounts(_, reply), Err(error)) => reply.send(Err(error.clone())).is_ok(),
                (Request::Look(reply), Err(error)) => reply.send(Err(error.clone())).is_ok(),
                (Request::Load(key, asker, reply), Ok(())) => reply
                    .send(self.load(key, asker, generation, deadline))
                    .is_ok(),
                (Request::Accounts(ids, reply), Ok(())) => {
                    reply.send(self.accounts(&ids, deadline)).is_ok()
                }
                (Request::Look(reply), Ok(())) => reply.send(Ok(generation.0)).is_ok(),
            };
        }
    }

    /// Makes sure that what the cache believes from now on is no older than now.
    fn look(&mut self, deadline: Instant) -> Result<(), DirectoryError> {
        self.follow_the_path()?;
        loop {
            match self.shared.look() {
                Ok(()) => return Ok(()),
                Err(LookError::Failed(error)) => return Err(error),
                Err(LookError::Busy) if Instant::now() < deadline => thread::sleep(RETRY),
                Err(LookError::Busy) => return Err(locked()),
            }
        }
    }

    /// Another file may have been moved to the path: a backup that was restored, say. The open
    /// connections would go on reading the one that is no longer there.
    fn follow_the_path(&mut self) -> Result<(), DirectoryError> {
        let now = FileId::of(&self.shared.path);
        if now.is_none() && !self.missing {
            tracing::warn!(path = %self.shared.path.display(), "the directory's file is gone; \
                going on with what it held");
        }
        self.missing = now.is_none();
        if now.is_none() || now == self.file {
            return Ok(());
        }
        let reader = schema::open_for_reading(&self.shared.path, READ_TIMEOUT)?;
        self.shared.reopen()?;
        self.reader = reader;
        self.file = now;
        tracing::info!(path = %self.shared.path.display(), "the directory's file was replaced");
        Ok(())
    }

    fn load(
        &self,
        key: Key,
        asker: Asker,
        generation: Generation,
        deadline: Instant,
    ) -> Result<(), DirectoryError> {
        let (read_at, fact) = patiently(deadline, || {
            let read_at = Instant::now();
            let fact = match key {
                Key::Account(id) => Fact::Account(schema::read_account(&self.reader, id)?),
                Key::Friendship { sender, receiver } => {
                    Fact::Friendship(schema::read_friendship(&self.reader, sender, receiver)?)
                }
                Key::NotificationToken(id) => {
                    Fact::NotificationToken(schema::read_notification_token(&self.reader, id)?)
                }
            };
            Ok((read_at, fact))
        })?;
        self.shared
            .cache
            .insert(key, fact, generation, read_at, asker);
        Ok(())
    }

    fn accounts(
        &self,
        ids: &[Option<i64>],
        deadline: Instant,
    ) -> Result<Vec<Option<Account>>, DirectoryError> {
        let read = |id: &Option<i64>| match id {
            Some(id) => patiently(deadline, || schema::read_account(&self.reader, *id)),
            None => Ok(None),
        };
        ids.iter().map(read).collect()
    }
}

/// Tries a read again as long as another process holds a lock.
fn patiently<T>(
    deadline: Instant,
    read: impl Fn() -> rusqlite::Result<T>,
) -> Result<T, DirectoryError> {
    loop {
        match read() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(RETRY),
            other => return other.map_err(DirectoryError::from),
        }
    }
}

fn locked() -> DirectoryError {
    let secs = LOCK_PATIENCE.as_secs();
    DirectoryError::new(format!(
        "another process has locked the directory for {secs} s"
    ))
}

/// Tells one file from another under the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// `None` if there is no file. Where the system has no such ids, all files look the same.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Some(Self(metadata.dev(), metadata.ino()))
        }
        #[cfg(not(unix))]
        {
            let _ = metadata;
            Some(Self(0, 0))
        }
    }
}
