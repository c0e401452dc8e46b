//! The thread that reads the directory's file, and waits for it.
//!
//! It owns its connection and does all the waiting for locks. It takes what has queued up, looks at the
//! file once, reads the answers, puts them into the cache and gives them to those who asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use jam_core::directory::{Answer, Fact, Generation};
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::super::cache::Key;
use super::files::{Files, Names};
use super::requests::{Request, What};
use super::schema::LOCK_PATIENCE;
use super::shared::{DirectoryShared, LookError, OpenedDatabase};
use super::{DirectoryError, PushAddress, friends, is_busy, rows, shown};
use crate::metrics::StoreFailure;

/// Between two tries of what another process's lock is in the way of.
const RETRY: Duration = Duration::from_millis(2);

/// Between two tries to open files that cannot be opened, or that go on failing.
const OPEN_REST: Duration = Duration::from_millis(250);

/// Questions answered with one look.
const BATCH: usize = 256;

pub(super) struct Loader {
    shared: Arc<DirectoryShared>,
    /// `None` while no file is open.
    reader: Option<Connection>,
    names: Names,
    /// Which files the connections have open.
    files: Files,
    /// Something else than a lock has failed: a connection may believe what is not so.
    suspect: bool,
    /// When the files were opened last, or were tried to be, and why they could not be.
    opened: (Instant, Option<DirectoryError>),
    /// Whether it has been said that the file is gone.
    missing: bool,
    /// Of which kinds of questions it has been said that they cannot be answered.
    unanswered: [bool; QuestionKind::COUNT],
}

/// A kind of question.
#[derive(Debug, Clone, Copy)]
enum QuestionKind {
    Account,
    Friendship,
    NotificationToken,
    PushAddress,
}

impl Loader {
    /// Starts the thread. It ends when nobody can send requests any more.
    pub(super) fn start(
        shared: Arc<DirectoryShared>,
        opened: OpenedDatabase,
        queue: mpsc::Receiver<Request>,
    ) -> std::io::Result<()> {
        let mut loader = Self {
            shared,
            reader: Some(opened.reader),
            names: opened.names,
            files: opened.files,
            suspect: false,
            opened: (Instant::now(), None),
            missing: false,
            unanswered: [false; QuestionKind::COUNT],
        };
        let thread = thread::Builder::new().name("directory".to_owned());
        thread.spawn(move || loader.run(queue))?;
        Ok(())
    }

    fn run(&mut self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.shared.hear();
            self.serve(&mut batch);
        }
    }

    fn serve(&mut self, batch: &mut Vec<Request>) {
        if let Err(error) = self.look(batch) {
            batch.drain(..).for_each(|it| it.fail(error.clone()));
        }
        let generation = self.shared.cache.generation();
        for request in batch.drain(..) {
            self.shared.hear();
            let deadline = request.deadline();
            // A failed send: the connection that asked is gone.
            let _ = match request.what {
                What::Answer(key, reply) => {
                    reply.send(self.answer(key, generation, deadline)).is_ok()
                }
                What::Accounts(ids, reply) => {
                    let accounts = self.accounts(&ids, generation, deadline);
                    reply.send(accounts).is_ok()
                }
                What::Friends(user, who, place, reply) => {
                    let read = self.read(deadline, |it| friends::read(it, user, who, &place));
                    reply.send(read.map_err(Into::into)).is_ok()
                }
                What::Shown(user, place, reply) => {
                    let read = self.read(deadline, |it| shown::read(it, user, &place));
                    reply.send(read.map_err(Into::into)).is_ok()
                }
                What::Look(reply) => reply.send(Ok(generation)).is_ok(),
                #[cfg(test)]
                What::Hang(until) => until.blocking_recv().is_ok(),
                What::PushAddress(sender, receiver, reply) => reply
                    .send(self.push_address(sender, receiver, deadline))
                    .is_ok(),
            };
        }
    }

    /// Makes sure that what the cache believes from now on is no older than now. Those whose time runs
    /// out meanwhile are told and leave the batch.
    fn look(&mut self, batch: &mut Vec<Request>) -> Result<(), DirectoryError> {
        loop {
            self.shared.hear();
            match self.follow_the_path().and_then(|()| self.shared.look()) {
                Ok(()) => return Ok(()),
                Err(LookError::Failed(error)) => {
                    self.suspect = true;
                    return Err(error);
                }
                Err(LookError::Busy | LookError::Closed) => {}
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

    /// Another file may have been put in the place of one that is open: a backup that was restored, say, or a log that
    /// was removed. The open connections would go on with the one that nobody else reads or writes.
    fn follow_the_path(&mut self) -> Result<(), LookError> {
        let now = self.names.look();
        let is_open = self.reader.is_some();
        let is_gone = now.db.is_none() && is_open;
        if is_gone && !self.missing {
            tracing::warn!(path = %self.shared.path.display(), "the accounts database's file is gone; \
                going on with what it held");
        }
        self.missing = is_gone;
        let index = self.shared.index_id();
        let is_stale = !self.files.are(&now) || index.is_some_and(|index| Some(index) != now.shm);
        if is_gone || (is_open && !is_stale && !self.suspect) {
            self.files.note_journal(&now);
            return Ok(());
        }
        // Trying costs a few milliseconds, and may go on failing.
        let (tried, error) = &self.opened;
        if (!is_open || !is_stale) && tried.elapsed() < OPEN_REST {
            return error
                .clone()
                .map_or(Ok(()), |error| Err(LookError::Failed(error)));
        }
        self.open_anew(&now)
    }

    /// Closes every connection, and opens what stands at the path now. All of them before the first, for SQLite shares
    /// a log's index among the connections of a process.
    fn open_anew(&mut self, now: &Files) -> Result<(), LookError> {
        let may_checkpoint = self.files.may_checkpoint(now);
        self.shared
            .close_connections(&mut self.reader, may_checkpoint)
            .ok_or(LookError::Busy)?;
        let path = self.shared.path.display();
        let was_replaced = now.db != self.files.db;
        let mut open = || -> Result<OpenedDatabase, DirectoryError> {
            if was_replaced {
                self.names.set_log_aside(&self.files)?;
            }
            self.files = Files::of_closed(now.db);
            self.shared.open_connections()
        };
        let opened = open().inspect_err(|error| {
            self.opened = (Instant::now(), Some(error.clone()));
        });
        let opened = opened.map_err(LookError::Failed)?;
        if was_replaced {
            self.shared.replacements.fetch_add(1, Ordering::AcqRel);
            tracing::info!(%path, "the accounts database's file was replaced");
        } else if !self.suspect {
            tracing::info!(%path, "the log of the accounts database's file is another one; both were opened anew");
        }
        self.reader = Some(opened.reader);
        self.names = opened.names;
        self.files = opened.files;
        self.suspect = false;
        self.opened = (Instant::now(), None);
        // The first look finds the log's index, the next one can compare it.
        self.shared.look()
    }

    /// Reads as long as another process holds a lock, until `deadline`.
    fn read<T>(
        &mut self,
        deadline: Instant,
        read: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let reader = self.reader.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
        let result = patiently(deadline, || {
            self.shared.hear();
            read(reader)
        });
        if let Err(error) = &result {
            self.suspect |= is_suspicious(error);
        }
        result
    }

    fn answer(
        &mut self,
        key: Key,
        as_of: Generation,
        deadline: Instant,
    ) -> Result<Answer, DirectoryError> {
        let began = Instant::now();
        let read = self.read(deadline, |reader| rows::read(reader, &key));
        if let Some(metrics) = self.shared.metrics.get() {
            metrics.read_fact(began.elapsed());
        }
        self.report(QuestionKind::of(key), read.as_ref().err());
        let fact = read?;
        self.shared.cache.insert(key, fact.clone(), as_of);
        Ok(Answer { fact, as_of })
    }

    /// Logs once that a kind of question cannot be answered, and once that it can again. A lock is reported by the
    /// directory's watch, which meets it too.
    fn report(&mut self, kind: QuestionKind, error: Option<&rusqlite::Error>) {
        let asks = kind.asks();
        let unanswered = &mut self.unanswered[kind as usize];
        match error {
            Some(error) if is_busy(error) => {}
            Some(error) if !*unanswered => {
                *unanswered = true;
                tracing::error!(%error, asks, "the accounts database cannot be asked");
            }
            None if *unanswered => {
                *unanswered = false;
                tracing::info!(asks, "the accounts database can be asked again");
            }
            Some(_) | None => {}
        }
    }

    fn accounts(
        &mut self,
        ids: &[Option<i64>],
        as_of: Generation,
        deadline: Instant,
    ) -> Result<Vec<Answer>, DirectoryError> {
        let mut read = |id: &Option<i64>| -> rusqlite::Result<Answer> {
            let account = match id {
                Some(id) => self.read(deadline, |reader| rows::read_account(reader, *id))?,
                None => None,
            };
            let fact = Fact::Account(account);
            Ok(Answer { fact, as_of })
        };
        let accounts: rusqlite::Result<_> = ids.iter().map(&mut read).collect();
        Ok(accounts?)
    }

    fn push_address(
        &mut self,
        sender: i64,
        receiver: i64,
        deadline: Instant,
    ) -> Result<Option<PushAddress>, DirectoryError> {
        let read = self.read(deadline, |reader| {
            rows::read_push_address(reader, sender, receiver)
        });
        self.report(QuestionKind::PushAddress, read.as_ref().err());
        Ok(read?)
    }
}

impl QuestionKind {
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

/// Whether a connection that has met this error may be the reason for it. A lock goes away, and a table that is
/// missing is missing for every connection.
fn is_suspicious(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    !is_busy(error) && code.is_some_and(|code| code != rusqlite::ErrorCode::Unknown)
}

fn locked() -> DirectoryError {
    let secs = LOCK_PATIENCE.as_secs();
    let message = format!("another process has locked the accounts database for {secs} s");
    DirectoryError::of(StoreFailure::Busy, message)
}
