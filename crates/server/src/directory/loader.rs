//! The thread that reads the directory's file, and waits for it.
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

use super::cache::{Asker, Generation, Key};
use super::schema::{self, LOCK_PATIENCE};
use super::sqlite::{LookError, Shared};
use super::{DirectoryError, Friends, Place, PushAddress, Who, friends, is_busy};

/// Between two tries of what another process's lock is in the way of.
const RETRY: Duration = Duration::from_millis(2);

/// Questions answered with one look.
const BATCH: usize = 256;

/// What the thread is asked for, and since when. Each waits for locks for [`LOCK_PATIENCE`] in all, the
/// time in the queue included. Whoever no longer waits for the reply doesn't get it.
#[derive(Debug)]
pub(super) struct Request {
    asked: Instant,
    what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Load(Key, Asker, oneshot::Sender<Result<(), DirectoryError>>),
    /// `None` is an id that no jam database can hold.
    Accounts(
        Vec<Option<i64>>,
        oneshot::Sender<Result<Vec<Option<Account>>, DirectoryError>>,
    ),
    /// Where to begin, of whose friends.
    Friends(
        i64,
        Who,
        Place,
        oneshot::Sender<Result<Friends, DirectoryError>>,
    ),
    Look(oneshot::Sender<Result<u64, DirectoryError>>),
    /// Sender and receiver.
    PushAddress(
        i64,
        i64,
        oneshot::Sender<Result<Option<PushAddress>, DirectoryError>>,
    ),
}

impl Request {
    /// Asked now.
    pub(super) fn new(what: What) -> Self {
        let asked = Instant::now();
        Self { asked, what }
    }

    fn deadline(&self) -> Instant {
        self.asked + LOCK_PATIENCE
    }

    fn fail(self, error: DirectoryError) {
        // A failed send: the connection that asked is gone.
        let _ = match self.what {
            What::Load(_, _, reply) => reply.send(Err(error)).is_ok(),
            What::Accounts(_, reply) => reply.send(Err(error)).is_ok(),
            What::Friends(.., reply) => reply.send(Err(error)).is_ok(),
            What::Look(reply) => reply.send(Err(error)).is_ok(),
            What::PushAddress(_, _, reply) => reply.send(Err(error)).is_ok(),
        };
    }
}

pub(super) struct Loader {
    shared: Arc<Shared>,
    reader: Connection,
    /// Which file the connections have open.
    file: Option<FileId>,
    /// Whether it has been said that the file is gone.
    missing: bool,
    /// Of which kinds of questions it has been said that they cannot be answered.
    unanswered: [bool; Kind::COUNT],
}

/// A kind of question.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Account,
    Friendship,
    NotificationToken,
    PushAddress,
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
            unanswered: [false; Kind::COUNT],
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
        if let Err(error) = self.look(batch) {
            batch.drain(..).for_each(|it| it.fail(error.clone()));
        }
        let generation = self.shared.cache.generation();
        for request in batch.drain(..) {
            let deadline = request.deadline();
            // A failed send: the connection that asked is gone.
            let _ = match request.what {
                What::Load(key, asker, reply) => reply
                    .send(self.load(key, asker, generation, deadline))
                    .is_ok(),
                What::Accounts(ids, reply) => reply.send(self.accounts(&ids, deadline)).is_ok(),
                What::Friends(user, who, place, reply) => {
                    let read = || friends::read(&self.reader, user, who, &place);
                    reply
                        .send(patiently(deadline, read).map_err(Into::into))
                        .is_ok()
                }
                What::Look(reply) => reply.send(Ok(generation.0)).is_ok(),
                What::PushAddress(sender, receiver, reply) => reply
                    .send(self.push_address(sender, receiver, deadline))
                    .is_ok(),
            };
        }
    }

    /// Makes sure that what the cache believes from now on is no older than now. Those whose time runs
    /// out meanwhile are told and leave the batch.
    fn look(&mut self, batch: &mut Vec<Request>) -> Result<(), DirectoryError> {
        self.follow_the_path()?;
        loop {
            match self.shared.look() {
                Ok(()) => return Ok(()),
                Err(LookError::Failed(error)) => return Err(error),
                Err(LookError::Busy) => {}
            }
            let now = Instant::now();
            let late = batch.extract_if(.., |it| it.deadline() <= now);
            late.for_each(|it| it.fail(locked()));
            if batch.is_empty() {
                return Ok(());
            }
            thread::sleep(RETRY);
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
        self.shared.leave();
        let reader = schema::open_for_reading(&self.shared.path)?;
        self.shared.reopen()?;
        self.reader = reader;
        self.file = now;
        tracing::info!(path = %self.shared.path.display(), "the directory's file was replaced");
        Ok(())
    }

    fn load(
        &mut self,
        key: Key,
        asker: Asker,
        generation: Generation,
        deadline: Instant,
    ) -> Result<(), DirectoryError> {
        let read = patiently(deadline, || {
            let read_at = Instant::now();
            Ok((read_at, schema::read(&self.reader, &key)?))
        });
        self.say(Kind::of(key), read.as_ref().err());
        let (read_at, fact) = read?;
        self.shared
            .cache
            .insert_for(asker, key, fact, generation, read_at);
        Ok(())
    }

    /// Says once that a kind of question cannot be answered, and once that it can again. A lock is none
    /// of its business: the directory's watch meets that too, and says so.
    fn say(&mut self, kind: Kind, error: Option<&rusqlite::Error>) {
        let asks = kind.asks();
        let unanswered = &mut self.unanswered[kind as usize];
        match error {
            Some(error) if is_busy(error) => {}
            Some(error) if !*unanswered => {
                *unanswered = true;
                tracing::error!(%error, asks, "the directory cannot be asked");
            }
            None if *unanswered => {
                *unanswered = false;
                tracing::info!(asks, "the directory can be asked again");
            }
            Some(_) | None => {}
        }
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
        let accounts: rusqlite::Result<_> = ids.iter().map(read).collect();
        Ok(accounts?)
    }

    fn push_address(
        &mut self,
        sender: i64,
        receiver: i64,
        deadline: Instant,
    ) -> Result<Option<PushAddress>, DirectoryError> {
        let read = patiently(deadline, || {
            schema::read_push_address(&self.reader, sender, receiver)
        });
        self.say(Kind::PushAddress, read.as_ref().err());
        Ok(read?)
    }
}

impl Kind {
    const COUNT: usize = 4;

    fn of(key: Key) -> Self {
        match key {
            Key::Account(_) => Self::Account,
            Key::Friendship { .. } => Self::Friendship,
            Key::NotificationToken(_) => Self::NotificationToken,
        }
    }

    fn asks(self) -> &'static str {
        match self {
            Self::Account => "accounts",
            Self::Friendship => "friendships",
            Self::NotificationToken => "notification tokens",
            Self::PushAddress => "where pushes go",
        }
    }
}

/// Tries a read again as long as another process holds a lock.
fn patiently<T>(deadline: Instant, read: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    loop {
        match read() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(RETRY),
            other => return other,
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
