//! [`SqliteDirectory`]: what the rules and the connections ask.
//!
//! A look-up answers from memory. Before memory is believed, the file is looked at if nobody has for
//! [`LOOK_AGE`], less in WAL mode: `PRAGMA data_version` on a connection held for that changes with every commit of any
//! other connection or process. What memory does not know is read at once if that takes no time (`direct`).
//! Neither waits for another: if the file is locked, or another thread is busy with it and takes long, the answer
//! is `Unknown`, and the loader's thread does the waiting.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, TryLockError};
use std::time::{Duration, Instant};

use jam_core::directory::{
    Account, Answer, Directory, Fact, Friendship, Generation, Lookup, NotificationToken, Question,
};
use jam_core::ids::UserId;
use rusqlite::Connection;
use rusqlite::types::FromSql;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::cache::{Cache, Key};
use super::direct::Direct;
use super::files::{FileId, Files, Names};
use super::loader::{Loader, Request, What};
use super::schema::{self, row_id};
use super::wal_index::WalIndex;
use super::{
    AccountsDatabase, DirectoryError, FriendList, Friends, Place, PushAddress, Reply, Who, is_busy,
};

/// How old the last look at the file may be when memory is believed.
///
/// Shorter than it takes another process to commit and then to have a client publish, so that the
/// publish meets the change (PROTOCOL.md, section 6: at once). A look takes 5 µs. No look succeeds while
/// a commit is written, which takes longer than this: the look before the commit is always too old.
pub const LOOK_AGE: Duration = Duration::from_micros(250);

/// The same for a file in WAL mode, where looks go on succeeding until the commit is there: a script's
/// publish has been judged less than 40 µs after that. Where there is a [`WalIndex`], nothing is believed that is
/// older than the last commit.
const LOOK_AGE_IN_WAL: Duration = Duration::from_micros(10);

/// While another thread is just looking, a look may be so many times as old.
const DURING_LOOK: u32 = 2;

/// Questions that wait for the loader. Whoever comes later waits to ask.
const QUEUE: usize = 4096;

/// From here on a loader that shows no sign of life counts as one that does not answer: the disk, or whatever else
/// the system lets it wait for. To wait for another process's lock is a sign of life. Nobody waits for its answers
/// much longer than this, and once [`AccountsDatabase::look`] has found it, nothing in memory is believed.
pub const SILENCE: Duration = Duration::from_secs(2);

const NO_PANIC: &str = "no code that looks can panic";

/// How often the files are opened that may be replaced meanwhile.
const OPEN_TRIES: u32 = 3;

/// Accounts that are read before others get their turn.
const ACCOUNTS_AT_ONCE: usize = 128;

#[cfg(test)]
thread_local! {
    /// What the next look of this thread does once it has read the file's version.
    static MEANWHILE: std::cell::Cell<Option<Box<dyn FnOnce()>>> = const { std::cell::Cell::new(None) };
}

/// A jam database as the rules see it.
#[derive(Debug)]
pub struct SqliteDirectory {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// What look-ups and the loader both use.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) cache: Cache,
    direct: Direct,
    /// `None` while no file is open.
    look: Mutex<Option<Look>>,
    /// Held for reading by connections that come and go, and for writing by who closes all the others: SQLite shares
    /// what it knows of a file among the connections of a process.
    passing: RwLock<()>,
    /// Whether `-shm` is mapped at all.
    maps_wal_index: AtomicBool,
    /// Of a file in WAL mode, where there is one.
    wal_index: RwLock<Option<WalIndex>>,
    /// When the last look began that succeeded, in microseconds of `clock`.
    looked: AtomicU64,
    /// When the loader last showed a sign of life, in microseconds of `clock`.
    heard: AtomicU64,
    /// The last look was not answered: nothing is believed until one is.
    silent: AtomicBool,
    /// Whether the file was in WAL mode then.
    in_wal: AtomicBool,
    /// How often another file was found at the path.
    pub(super) replacements: AtomicU64,
    epoch: Instant,
}

/// What the loader needs of what has been opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) reader: Connection,
    pub(super) names: Names,
    /// What the names stood for when it was opened.
    pub(super) files: Files,
}

/// The connection that is held for looks alone.
struct Look {
    connection: Connection,
    /// As of the last look; `None` before the first.
    version: Option<i64>,
    /// Changes when a backup is restored into the file, and with its tables.
    schema: Option<i64>,
    /// There is none that tells of commits, and it is not looked for again.
    had_no_wal_index: bool,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Look({:?})", self.version)
    }
}

impl SqliteDirectory {
    /// Opens the directory at `path` and starts its thread, which ends with the last handle.
    ///
    /// # Errors
    /// If the file is missing, is no jam database, or lacks a table or column.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            cache: Cache::new(),
            direct: Direct::closed(),
            look: Mutex::new(None),
            passing: RwLock::new(()),
            maps_wal_index: AtomicBool::new(true),
            wal_index: RwLock::new(None),
            looked: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            in_wal: AtomicBool::new(true),
            replacements: AtomicU64::new(0),
            epoch: Instant::now(),
        });
        let opened = shared.open_connections()?;
        let (requests, queue) = mpsc::channel(QUEUE);
        Loader::start(Arc::clone(&shared), opened, queue).map_err(|error| {
            DirectoryError::new(format!("no thread for the accounts database: {error}"))
        })?;
        Ok(Self { shared, requests })
    }

    /// As [`Self::open`], but makes an empty directory if there is none.
    ///
    /// # Errors
    /// As [`Self::open`], or if it cannot be made.
    pub fn open_or_create(path: &Path) -> Result<Self, DirectoryError> {
        schema::create_if_missing(path)?;
        Self::open(path)
    }

    /// Asks SQLite for commits of other processes from now on, and maps no `-shm`.
    pub fn leave_wal_index(&self) {
        self.shared.maps_wal_index.store(false, Ordering::Relaxed);
        let look = self.shared.look.lock().expect(NO_PANIC);
        self.shared.set_wal_index(None);
        drop(look);
    }

    /// Has everything that memory does not know read by the loader's thread.
    #[cfg(test)]
    pub(super) fn leave_all_to_the_loader(&self) {
        drop(self.shared.direct.close());
    }

    /// A thread that asks hangs in a read of its own, for so long.
    #[cfg(test)]
    pub(super) fn hang_reading_while<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.shared.direct.hang_while(meanwhile)
    }

    /// The loader's thread hangs until what comes back is dropped.
    #[cfg(test)]
    pub(super) async fn hang(&self) -> oneshot::Sender<()> {
        let (end, until) = oneshot::channel();
        let sent = self.requests.send(Request::new(What::Hang(until))).await;
        sent.expect("the loader runs");
        end
    }

    /// Looks at the file, and has something done after its version has been read.
    #[cfg(test)]
    pub(super) fn look_while(&self, meanwhile: impl FnOnce() + 'static) {
        MEANWHILE.set(Some(Box::new(meanwhile)));
        self.shared.look().expect("the file can be looked at");
    }

    /// Looks at the wrong file's `-shm` from now on.
    #[cfg(test)]
    pub(super) fn map_the_index_of(&self, path: &Path) {
        self.shared.set_wal_index(WalIndex::open(path));
    }

    /// Whether most looks read a few bytes only.
    #[cfg(test)]
    pub(super) fn looks_cheaply(&self) -> bool {
        self.shared.with_wal_index(WalIndex::is_as_seen) == Some(true)
    }

    async fn ask<T>(
        &self,
        what: impl FnOnce(oneshot::Sender<Result<T, DirectoryError>>) -> What,
    ) -> Result<T, DirectoryError> {
        if self.shared.silent.load(Ordering::Relaxed) {
            return Err(silent());
        }
        self.ask_anyway(what).await
    }

    /// Waits for an answer while the loader shows signs of life.
    async fn ask_anyway<T>(
        &self,
        what: impl FnOnce(oneshot::Sender<Result<T, DirectoryError>>) -> What,
    ) -> Result<T, DirectoryError> {
        let (reply, answer) = oneshot::channel();
        let gone = || DirectoryError::new("the accounts database's thread has ended");
        let mut answered = pin!(async {
            let sent = self.requests.send(Request::new(what(reply))).await;
            sent.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        });
        loop {
            match timeout(SILENCE, &mut answered).await {
                Ok(answer) => return answer,
                Err(_) if self.shared.is_unheard() => return Err(silent()),
                Err(_) => {}
            }
        }
    }

    /// What holds of an id that no jam database can hold, whatever is read.
    fn of_nobody(&self, question: &Question) -> Answer {
        let fact = match question {
            Question::Account(_) => Fact::Account(None),
            Question::Friendship { .. } => Fact::Friendship(Friendship::NotFriends),
            Question::NotificationToken(_) => Fact::NotificationToken(NotificationToken::Absent),
        };
        let as_of = self.shared.cache.generation();
        Answer { fact, as_of }
    }

    fn known_of_nobody<T>(&self, fact: T) -> Lookup<T> {
        Lookup::Known(fact, self.shared.cache.generation())
    }

    fn get<T>(&self, key: &Key, pick: impl Fn(&Fact) -> Option<T>) -> Lookup<T> {
        if self.shared.silent.load(Ordering::Relaxed) {
            return Lookup::Unknown;
        }
        let fresh = self.shared.is_fresh();
        let known = self.shared.cache.get(key, fresh, &pick);
        known
            .or_else(|| self.shared.read(key, pick))
            .map_or(Lookup::Unknown, |(fact, as_of)| Lookup::Known(fact, as_of))
    }
}

impl Key {
    /// `None` for ids that no jam database can hold: nothing needs to be loaded to answer those.
    fn of(question: &Question) -> Option<Self> {
        Some(match question {
            Question::Account(user) => Self::Account(row_id(user.as_str())?),
            Question::Friendship { sender, receiver } => Self::Friendship {
                sender: row_id(sender.as_str())?,
                receiver: row_id(receiver.as_str())?,
            },
            Question::NotificationToken(user) => Self::NotificationToken(row_id(user.as_str())?),
        })
    }
}

impl Directory for SqliteDirectory {
    fn account(&self, user: &UserId) -> Lookup<Option<Account>> {
        let Some(id) = row_id(user.as_str()) else {
            return self.known_of_nobody(None);
        };
        self.get(&Key::Account(id), |fact| match fact {
            Fact::Account(account) => Some(account.clone()),
            _ => None,
        })
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let (Some(sender), Some(receiver)) = (row_id(sender.as_str()), row_id(receiver.as_str()))
        else {
            return self.known_of_nobody(Friendship::NotFriends);
        };
        self.get(&Key::Friendship { sender, receiver }, |fact| match fact {
            Fact::Friendship(friendship) => Some(*friendship),
            _ => None,
        })
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        let Some(id) = row_id(user.as_str()) else {
            return self.known_of_nobody(NotificationToken::Absent);
        };
        self.get(&Key::NotificationToken(id), |fact| match fact {
            Fact::NotificationToken(token) => Some(*token),
            _ => None,
        })
    }
}

impl AccountsDatabase for SqliteDirectory {
    fn answer(&self, question: Question) -> Reply<'_, Answer> {
        Box::pin(async move {
            match Key::of(&question) {
                Some(key) => self.ask(|reply| What::Answer(key, reply)).await,
                None => Ok(self.of_nobody(&question)),
            }
        })
    }

    fn accounts<'a>(&'a self, users: &'a [UserId]) -> Reply<'a, Vec<Answer>> {
        Box::pin(async move {
            let mut accounts = Vec::with_capacity(users.len());
            for users in users.chunks(ACCOUNTS_AT_ONCE) {
                let ids = users.iter().map(|user| row_id(user.as_str())).collect();
                accounts.extend(self.ask(|reply| What::Accounts(ids, reply)).await?);
            }
            Ok(accounts)
        })
    }

    /// A look that finds the loader silent for [`SILENCE`] ends the belief in what is in memory, and one that is
    /// answered begins it again.
    fn look(&self) -> Reply<'_, Generation> {
        Box::pin(async {
            let looked = self.ask_anyway(What::Look).await;
            let silent = &self.shared.silent;
            match &looked {
                Ok(_) => silent.store(false, Ordering::Relaxed),
                Err(_) if self.shared.is_unheard() => silent.store(true, Ordering::Relaxed),
                Err(_) => {}
            }
            looked
        })
    }

    fn replacements(&self) -> u64 {
        self.shared.replacements.load(Ordering::Acquire)
    }

    fn friends(&self, user: &UserId, who: Who) -> Box<dyn FriendList + '_> {
        Box::new(Reading {
            directory: self,
            user: row_id(user.as_str()),
            who,
            next: Some(Place::START),
        })
    }

    fn push_address<'a>(
        &'a self,
        sender: &'a UserId,
        receiver: &'a UserId,
    ) -> Reply<'a, Option<PushAddress>> {
        Box::pin(async move {
            let ids = (row_id(sender.as_str()), row_id(receiver.as_str()));
            let (Some(sender), Some(receiver)) = ids else {
                return Ok(None);
            };
            self.ask(|reply| What::PushAddress(sender, receiver, reply))
                .await
        })
    }

    /// Over a connection of its own, so that it holds nobody up, and what is in memory ends with it as with any other
    /// connection's commit.
    fn clear_notification_token<'a>(
        &'a self,
        user: &'a UserId,
        token: &'a SecretString,
    ) -> Reply<'a, bool> {
        Box::pin(async move {
            let Some(id) = row_id(user.as_str()) else {
                return Ok(false);
            };
            let (shared, token) = (Arc::clone(&self.shared), token.clone());
            let clear = tokio::task::spawn_blocking(move || {
                let _passing = shared.passing.read().expect(NO_PANIC);
                let connection = schema::open_for_writing(&shared.path)?;
                Ok(schema::clear_notification_token(&connection, id, &token)?)
            });
            clear
                .await
                .expect("writing to the accounts database does not panic")
        })
    }
}

/// A user's friends, as far as they have been read.
struct Reading<'a> {
    directory: &'a SqliteDirectory,
    /// `None` is an id that no jam database can hold.
    user: Option<i64>,
    who: Who,
    /// `None` when all have been read.
    next: Option<Place>,
}

impl FriendList for Reading<'_> {
    fn next(&mut self) -> Reply<'_, Option<Vec<UserId>>> {
        Box::pin(async {
            let (Some(user), Some(from)) = (self.user, self.next.clone()) else {
                return Ok(None);
            };
            let ask = |reply| What::Friends(user, self.who, from, reply);
            let Friends { friends, next } = self.directory.ask(ask).await?;
            self.next = next;
            Ok(Some(friends))
        })
    }
}

impl Shared {
    /// Whether memory may be believed now. Does not wait.
    fn is_fresh(&self) -> bool {
        let allowed = match self.with_wal_index(WalIndex::is_as_seen) {
            Some(true) => return true,
            Some(false) => None, // there is a commit
            None if self.in_wal.load(Ordering::Relaxed) => Some(LOOK_AGE_IN_WAL),
            None => Some(LOOK_AGE),
        };
        let now = self.clock();
        let age = Duration::from_micros(now.saturating_sub(self.looked.load(Ordering::Acquire)));
        let is_within = |times: u32| allowed.is_some_and(|allowed| age <= allowed * times);
        if is_within(1) {
            return true;
        }
        match self.look.try_lock() {
            Ok(mut look) => self.look_with(&mut look).is_ok(),
            Err(TryLockError::WouldBlock) => is_within(DURING_LOOK),
            Err(TryLockError::Poisoned(_)) => false,
        }
    }

    /// Reads a fact from the file. Does not wait.
    #[cold]
    fn read<T>(&self, key: &Key, pick: impl FnOnce(&Fact) -> Option<T>) -> Option<(T, Generation)> {
        let generation = self.cache.generation();
        let fact = self.direct.read(key)?;
        let picked = pick(&fact);
        self.cache.insert(*key, fact, generation);
        Some((picked?, generation))
    }

    /// Looks at the file, for the loader's thread: may wait for the one who is just looking.
    pub(super) fn look(&self) -> Result<(), LookError> {
        let mut look = self.look.lock().expect(NO_PANIC);
        self.look_with(&mut look)
    }

    /// Opens what stands at the path now: every connection, the loader's included.
    pub(super) fn open_connections(&self) -> Result<Opened, DirectoryError> {
        for _ in 0..OPEN_TRIES {
            let names = Names::of(&self.path);
            let before = names.look();
            let reader = schema::open_for_reading(&self.path)?;
            let look = Look::open(&self.path)?;
            let direct = schema::open_for_reading(&self.path)?;
            let files = names.look();
            // What is put there from now on is noticed later. Of what was put there meanwhile it is not known who has
            // opened it.
            if !before.became(&files) {
                for connection in [&reader, &look.connection, &direct] {
                    schema::leave_files_alone(connection);
                }
                continue;
            }
            *self.look.lock().expect(NO_PANIC) = Some(look);
            self.direct.open(direct);
            self.cache.invalidate();
            return Ok(Opened {
                reader,
                names,
                files,
            });
        }
        Err(DirectoryError::new(format!(
            "the files of {} are replaced faster than they can be opened",
            self.path.display()
        )))
    }

    /// Closes every connection, `reader` included; `None` while one of those that come and go is open. What memory does
    /// not know is not answered then.
    pub(super) fn close_connections(
        &self,
        reader: &mut Option<Connection>,
        may_checkpoint: bool,
    ) -> Option<()> {
        let _passing = self.passing.try_write().ok()?;
        let look = self.look.lock().expect(NO_PANIC).take();
        let look = look.map(|look| look.connection);
        let connections = [reader.take(), look, self.direct.close()];
        for connection in connections.into_iter().flatten() {
            if !may_checkpoint {
                schema::leave_files_alone(&connection);
            }
            drop(connection);
        }
        let index = self.wal_index.write().expect(NO_PANIC).take();
        index.into_iter().for_each(WalIndex::close);
        self.cache.invalidate();
        Some(())
    }

    /// Which `-shm` is looked at for commits.
    pub(super) fn index_id(&self) -> Option<FileId> {
        self.with_wal_index(WalIndex::id)
    }

    fn look_with(&self, look: &mut Option<Look>) -> Result<(), LookError> {
        let Some(look) = look else {
            return Err(LookError::Closed);
        };
        let began = self.clock();
        let before = self.with_wal_index(WalIndex::header);
        let version = look.read_version()?;
        #[cfg(test)]
        MEANWHILE
            .take()
            .into_iter()
            .for_each(|meanwhile| meanwhile());
        if look.version != Some(version) {
            let in_wal = look.is_in_wal()?;
            self.in_wal.store(in_wal, Ordering::Relaxed);
            if !in_wal {
                self.set_wal_index(None);
            } else if before.is_none()
                && !look.had_no_wal_index
                && self.maps_wal_index.load(Ordering::Relaxed)
            {
                let index = WalIndex::open(&self.path);
                look.had_no_wal_index = index.is_none();
                self.set_wal_index(index);
            }
            let schema = look.pragma("PRAGMA schema_version")?;
            if look
                .schema
                .replace(schema)
                .is_some_and(|before| before != schema)
            {
                self.replacements.fetch_add(1, Ordering::AcqRel);
            }
            look.version = Some(version);
            self.cache.invalidate();
        }
        if let Some(before) = before {
            self.with_wal_index(|index| index.see(before));
        }
        // After the generation, so that who sees this time also sees that generation.
        self.looked.store(began, Ordering::Release);
        Ok(())
    }

    /// A sign of life of the loader.
    pub(super) fn hear(&self) {
        self.heard.store(self.clock(), Ordering::Relaxed);
    }

    /// Whether the loader has shown no sign of life for [`SILENCE`], when there is something to do for it.
    fn is_unheard(&self) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        Duration::from_micros(self.clock().saturating_sub(heard)) >= SILENCE
    }

    fn with_wal_index<T>(&self, ask: impl FnOnce(&WalIndex) -> T) -> Option<T> {
        let index = self.wal_index.read();
        index.expect(NO_PANIC).as_ref().map(ask)
    }

    fn set_wal_index(&self, index: Option<WalIndex>) {
        *self.wal_index.write().expect(NO_PANIC) = index;
    }

    /// Microseconds. Starts so late that nothing looks fresh at the beginning.
    fn clock(&self) -> u64 {
        let start = Duration::from_secs(1);
        u64::try_from((start + self.epoch.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }
}

fn silent() -> DirectoryError {
    let secs = SILENCE.as_secs();
    DirectoryError::new(format!(
        "no answer for {secs} s: the disk, or what the file lies on, does not answer"
    ))
}

/// Why a look failed.
#[derive(Debug)]
pub(super) enum LookError {
    /// Another process holds a lock.
    Busy,
    /// No file is open.
    Closed,
    /// Anything else.
    Failed(DirectoryError),
}

impl Look {
    fn open(path: &Path) -> Result<Self, DirectoryError> {
        let connection = schema::open_for_reading(path)?;
        Ok(Self {
            connection,
            version: None,
            schema: None,
            had_no_wal_index: false,
        })
    }

    fn read_version(&self) -> Result<i64, LookError> {
        self.pragma("PRAGMA data_version")
    }

    fn is_in_wal(&self) -> Result<bool, LookError> {
        let mode: String = self.pragma("PRAGMA journal_mode")?;
        Ok(mode == "wal")
    }

    fn pragma<T: FromSql>(&self, sql: &str) -> Result<T, LookError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row([], |row| row.get(0))
        };
        read().map_err(|error: rusqlite::Error| match error {
            error if is_busy(&error) => LookError::Busy,
            error => LookError::Failed(error.into()),
        })
    }
}
