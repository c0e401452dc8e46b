//! [`SqliteDirectory`]: what the rules and the connections ask.
//!
//! A look-up answers from memory. Before memory is believed, the file is looked at if nobody has for
//! [`LOOK_AGE`]: `PRAGMA data_version` on a connection held for that changes with every commit of any
//! other connection or process. The look never waits: if the file is locked, or another thread is
//! looking and takes long, the answer is `Unknown`, and the loader's thread does the waiting.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use jam_core::directory::{Account, Directory, Friendship, Lookup, NotificationToken, Question};
use jam_core::ids::UserId;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::cache::{Asker, Cache, Fact, Key};
use super::loader::{FileId, Loader, Request, What};
use super::schema::{self, row_id};
use super::{DirectoryError, is_busy};

/// How old the last look at the file may be when memory is believed.
///
/// Shorter than it takes another process to commit and then to have a client publish, so that the
/// publish meets the change (PROTOCOL.md, section 6: at once). A look takes 1.5 µs on a file in WAL
/// mode and 5 µs on others.
pub const LOOK_AGE: Duration = Duration::from_micros(250);

/// The same while another thread is just looking.
const LOOK_AGE_DURING_LOOK: Duration = Duration::from_micros(500);

/// Questions that wait for the loader. Whoever comes later waits to ask.
const QUEUE: usize = 4096;

/// Accounts that are read before others get their turn.
const ACCOUNTS_AT_ONCE: usize = 128;

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
    look: Mutex<Look>,
    /// When the last look began that succeeded, in microseconds of `clock`.
    looked: AtomicU64,
    epoch: Instant,
}

/// The connection that is held for looks alone.
struct Look {
    connection: Connection,
    /// As of the last look; `None` before the first.
    version: Option<i64>,
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
        // Before the file is opened: what is moved there from now on is another one.
        let file = FileId::of(path);
        let reader = schema::open_for_reading(path)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            cache: Cache::new(),
            look: Mutex::new(Look::open(path)?),
            looked: AtomicU64::new(0),
            epoch: Instant::now(),
        });
        let (requests, queue) = mpsc::channel(QUEUE);
        Loader::start(Arc::clone(&shared), reader, file, queue).map_err(|error| {
            DirectoryError::new(format!("no thread for the directory: {error}"))
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

    /// Has the answer to `question` read from the file, so that a look-up right after, by the same
    /// task, knows it.
    ///
    /// # Errors
    /// If the file cannot be read, or stays locked for 5 seconds.
    pub async fn load(&self, question: Question) -> Result<(), DirectoryError> {
        let Some(key) = Key::of(&question) else {
            return Ok(());
        };
        let asker = Asker::current();
        self.ask(|reply| What::Load(key, asker, reply)).await
    }

    /// The accounts of `users`, in their order, read from the file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn accounts(&self, users: &[UserId]) -> Result<Vec<Option<Account>>, DirectoryError> {
        let mut accounts = Vec::with_capacity(users.len());
        for users in users.chunks(ACCOUNTS_AT_ONCE) {
            let ids = users.iter().map(|user| row_id(user.as_str())).collect();
            accounts.extend(self.ask(|reply| What::Accounts(ids, reply)).await?);
        }
        Ok(accounts)
    }

    /// Looks at the file. The number that comes back differs from that of an earlier look if anything
    /// was committed in between.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn look(&self) -> Result<u64, DirectoryError> {
        self.ask(What::Look).await
    }

    async fn ask<T>(
        &self,
        what: impl FnOnce(oneshot::Sender<Result<T, DirectoryError>>) -> What,
    ) -> Result<T, DirectoryError> {
        let (reply, answer) = oneshot::channel();
        let gone = || DirectoryError::new("the directory's thread has ended");
        self.requests
            .send(Request::new(what(reply)))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn get<T>(&self, key: &Key, pick: impl FnOnce(&Fact) -> Option<T>) -> Lookup<T> {
        let fresh = self.shared.is_fresh();
        self.shared
            .cache
            .get(key, fresh, pick)
            .map_or(Lookup::Unknown, Lookup::Known)
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
            return Lookup::Known(None);
        };
        self.get(&Key::Account(id), |fact| match fact {
            Fact::Account(account) => Some(account.clone()),
            _ => None,
        })
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let (Some(sender), Some(receiver)) = (row_id(sender.as_str()), row_id(receiver.as_str()))
        else {
            return Lookup::Known(Friendship::NotFriends);
        };
        self.get(&Key::Friendship { sender, receiver }, |fact| match fact {
            Fact::Friendship(friendship) => Some(*friendship),
            _ => None,
        })
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        let Some(id) = row_id(user.as_str()) else {
            return Lookup::Known(NotificationToken::Absent);
        };
        self.get(&Key::NotificationToken(id), |fact| match fact {
            Fact::NotificationToken(token) => Some(*token),
            _ => None,
        })
    }
}

impl Shared {
    /// Whether memory may be believed now. Does not wait.
    fn is_fresh(&self) -> bool {
        let now = self.clock();
        let age = Duration::from_micros(now.saturating_sub(self.looked.load(Ordering::Acquire)));
        if age <= LOOK_AGE {
            return true;
        }
        match self.look.try_lock() {
            Ok(mut look) => self.look_with(&mut look).is_ok(),
            Err(TryLockError::WouldBlock) => age <= LOOK_AGE_DURING_LOOK,
            Err(TryLockError::Poisoned(_)) => false,
        }
    }

    /// Looks at the file, for the loader's thread: may wait for the one who is just looking.
    pub(super) fn look(&self) -> Result<(), LookError> {
        let mut look = self.look.lock().expect("no code that looks can panic");
        self.look_with(&mut look)
    }

    /// Goes over to the file that now stands at the path.
    pub(super) fn reopen(&self) -> Result<(), DirectoryError> {
        let fresh = Look::open(&self.path)?;
        *self.look.lock().expect("no code that looks can panic") = fresh;
        self.cache.invalidate();
        Ok(())
    }

    fn look_with(&self, look: &mut Look) -> Result<(), LookError> {
        let began = self.clock();
        let version = look.read_version()?;
        if look.version != Some(version) {
            look.version = Some(version);
            self.cache.invalidate();
        }
        // After the generation, so that who sees this time also sees that generation.
        self.looked.store(began, Ordering::Release);
        Ok(())
    }

    /// Microseconds. Starts so late that nothing looks fresh at the beginning.
    fn clock(&self) -> u64 {
        let start = Duration::from_secs(1);
        u64::try_from((start + self.epoch.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Why a look failed.
#[derive(Debug)]
pub(super) enum LookError {
    /// Another process holds a lock.
    Busy,
    /// Anything else.
    Failed(DirectoryError),
}

impl Look {
    fn open(path: &Path) -> Result<Self, DirectoryError> {
        let connection = schema::open_for_reading(path)?;
        Ok(Self {
            connection,
            version: None,
        })
    }

    fn read_version(&self) -> Result<i64, LookError> {
        let read = || -> rusqlite::Result<i64> {
            let mut statement = self.connection.prepare_cached("PRAGMA data_version")?;
            statement.query_row([], |row| row.get(0))
        };
        read().map_err(|error| match error {
            error if is_busy(&error) => LookError::Busy,
            error => LookError::Failed(error.into()),
        })
    }
}
