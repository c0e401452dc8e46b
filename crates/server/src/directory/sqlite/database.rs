//! [`SqliteDirectory`]: what the rules and the connections ask.
//!
//! A look-up answers from memory, while that may be believed (`shared`). What memory does not know is read at once if
//! that takes no time (`direct`). Neither waits for another: if the file is locked, or another thread is busy with it and
//! takes long, the answer is `Unknown`, and the loader's thread does the waiting.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use jam_core::directory::{
    Account, Answer, Directory, Fact, Friendship, Generation, Lookup, NotificationToken, Question,
};
use jam_core::friends::{Friend, List, MAX_ROWS};
use jam_core::ids::UserId;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::cache::Key;
use super::super::facts::FactLookup;
use super::super::numbers::row_id;
use super::loader::Loader;
use super::requests::{Request, What};
#[cfg(test)]
use super::shared::MEANWHILE;
use super::shared::{DirectoryShared, NO_PANIC, SILENCE};
#[cfg(test)]
use super::wal_index::WalIndex;
use super::{
    AccountsDatabase, Administration, DirectoryError, FriendList, Friends, ListCursor, PushAddress,
    Reply, ShownCursor, SqliteAdministration, Who, rows, schema,
};
use crate::metrics::ServerMetrics;

/// Questions that wait for the loader. Whoever comes later waits to ask.
const QUEUE: usize = 4096;

/// Accounts that are read before others get their turn.
const ACCOUNTS_AT_ONCE: usize = 128;

/// A jam database as the rules see it.
#[derive(Debug)]
pub struct SqliteDirectory {
    shared: Arc<DirectoryShared>,
    requests: mpsc::Sender<Request>,
}

impl SqliteDirectory {
    /// Opens the directory at `path` and starts its thread, which ends with the last handle.
    ///
    /// # Errors
    /// If the file is missing, is no jam database, or lacks a table or column.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let shared = Arc::new(DirectoryShared::new(path));
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

    /// Counts there from now on.
    pub(crate) fn count_in(&self, metrics: Arc<ServerMetrics>) {
        let _ = self.shared.metrics.set(metrics);
    }

    /// Asks SQLite for commits of other processes from now on, and maps no `-shm`.
    pub fn leave_wal_index(&self) {
        self.shared.leave_wal_index();
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
            return Err(self.shared.count(silent()));
        }
        self.ask_anyway(what).await
    }

    /// Waits for an answer while the loader shows signs of life. Who finds it silent for `SILENCE` ends the belief in what is in
    /// memory, whatever they have asked.
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
                Ok(answer) => return answer.map_err(|error| self.shared.count(error)),
                Err(_) if self.shared.is_unheard() => {
                    self.shared.silent.store(true, Ordering::Relaxed);
                    return Err(self.shared.count(silent()));
                }
                Err(_) => {}
            }
        }
    }
}

impl FactLookup for SqliteDirectory {
    fn get<T>(&self, key: &Key, pick: impl Fn(&Fact) -> Option<T>) -> Lookup<T> {
        if self.shared.silent.load(Ordering::Relaxed) {
            return Lookup::Unknown;
        }
        let fresh = self.shared.is_fresh();
        let metrics = self.shared.metrics.get();
        let found = if let Some(known) = self.shared.cache.get(key, fresh, &pick) {
            metrics.inspect(|it| it.knew_fact());
            Some(known)
        } else {
            let began = Instant::now();
            let read = self.shared.read(key, pick);
            if read.is_some() {
                metrics.inspect(|it| it.read_fact(began.elapsed()));
            }
            read
        };
        found.map_or(Lookup::Unknown, |(fact, as_of)| Lookup::Known(fact, as_of))
    }

    fn generation(&self) -> Generation {
        self.shared.cache.generation()
    }
}

impl Directory for SqliteDirectory {
    fn account(&self, user: &UserId) -> Lookup<Option<Account>> {
        self.get_account(user)
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        self.get_friendship(sender, receiver)
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        self.get_notification_token(user)
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

    /// One that is answered begins the belief in what is in memory again.
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
            next: Some(ListCursor::START),
        })
    }

    fn list_friends<'a>(&'a self, user: &'a UserId) -> Reply<'a, List> {
        Box::pin(async move {
            let mut list = List::default();
            let mut rows = 0;
            let mut next = row_id(user.as_str()).map(|user| (user, ShownCursor::START));
            while let Some((user, place)) = next {
                if rows >= MAX_ROWS {
                    list.cut();
                    break;
                }
                let shown = self.ask(|reply| What::Shown(user, place, reply)).await?;
                rows += shown.rows;
                for friend in &shown.friends {
                    let has_room = list.add(&Friend {
                        user: &friend.id.to_string(),
                        name: friend.name.as_deref(),
                        blocked: friend.blocked,
                        public_key: friend.public_key.as_deref(),
                    });
                    if !has_room {
                        return Ok(list);
                    }
                }
                next = shown.next.map(|place| (user, place));
            }
            Ok(list)
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
                Ok(rows::clear_notification_token(&connection, id, &token)?)
            });
            let cleared = clear
                .await
                .expect("writing to the accounts database does not panic");
            cleared.map_err(|error| self.shared.count(error))
        })
    }

    fn administration(self: Arc<Self>) -> Arc<dyn Administration> {
        let path = self.shared.path.clone();
        let passing = Arc::clone(&self.shared.passing);
        let metrics = self.shared.metrics.get().cloned();
        Arc::new(SqliteAdministration::beside(path, passing, metrics))
    }
}

/// A user's friends, as far as they have been read.
struct Reading<'a> {
    directory: &'a SqliteDirectory,
    /// `None` is an id that no jam database can hold.
    user: Option<i64>,
    who: Who,
    /// `None` when all have been read.
    next: Option<ListCursor>,
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

fn silent() -> DirectoryError {
    let secs = SILENCE.as_secs();
    DirectoryError::new(format!(
        "no answer for {secs} s: the disk, or what the file lies on, does not answer"
    ))
}
