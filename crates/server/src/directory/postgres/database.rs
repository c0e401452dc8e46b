//! [`PostgresDirectory`]: what the rules and the connections ask.
//!
//! A look-up answers from memory while that may be believed (`shared`), and waits for nobody. What memory does not know the
//! directory's thread reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jam_core::directory::{
    Account, Answer, Directory, Fact, Friendship, Generation, Lookup, NotificationToken, Question,
};
use jam_core::friends::{Friend, List, MAX_ROWS};
use jam_core::ids::UserId;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::super::cache::Key;
use super::super::facts::FactLookup;
use super::super::numbers::row_id;
use super::requests::{PostgresRequest, ReplyTo, Wanted};
use super::shared::{PostgresShared, SILENCE, now};
use super::{
    AccountsDatabase, Address, Administration, DirectoryError, FriendList, PostgresAdministration,
    PushAddress, Reply, Who, thread,
};
use crate::metrics::ServerMetrics;

/// Questions that wait for the thread. A later one waits to be asked.
const QUEUE: usize = 4096;

/// Accounts that are read before others get their turn.
const ACCOUNTS_AT_ONCE: usize = 256;

/// How much longer the thread is waited for than it waits itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A jam database in PostgreSQL as the rules see it.
#[derive(Debug)]
pub struct PostgresDirectory {
    address: Address,
    pub(super) shared: Arc<PostgresShared>,
    requests: mpsc::Sender<PostgresRequest>,
}

impl PostgresDirectory {
    /// Connects, and starts the thread that has the connections; it ends with the last handle.
    ///
    /// # Errors
    /// If there is no connection to be had, or the tables are not those of this program.
    pub fn open(address: &Address) -> Result<Self, DirectoryError> {
        let shared = Arc::new(PostgresShared::new());
        let (requests, queue) = mpsc::channel(QUEUE);
        thread::start(address.clone(), Arc::clone(&shared), queue)?;
        Ok(Self {
            address: address.clone(),
            shared,
            requests,
        })
    }

    /// Counts there from now on.
    pub(crate) fn count_in(&self, metrics: Arc<ServerMetrics>) {
        let _ = self.shared.metrics.set(metrics);
    }

    async fn ask<T>(&self, what: impl FnOnce(ReplyTo<T>) -> Wanted) -> Result<T, DirectoryError> {
        let answered = async {
            if self.shared.is_silent() {
                return Err(self.shared.silence());
            }
            let (reply, answer) = oneshot::channel();
            let request = PostgresRequest {
                asked: Instant::now(),
                what: what(reply),
            };
            let gone = || DirectoryError::new("the accounts database's thread has ended");
            let done = async {
                let sent = self.requests.send(request).await;
                sent.map_err(|_| gone())?;
                answer.await.map_err(|_| gone())?
            };
            let done = timeout(thread::PATIENCE + LAST_WORDS, done).await;
            done.unwrap_or_else(|_| Err(self.shared.silence()))
        };
        answered.await.map_err(|error| self.shared.count(error))
    }

    fn know<T>(&self, key: &Key, pick: impl Fn(&Fact) -> Option<T>) -> Option<(T, Generation)> {
        self.shared.cache.get(key, self.shared.is_fresh(), pick)
    }

    /// What memory knows of an account, and of an id that no jam database can hold.
    fn known_account(&self, user: &UserId) -> Result<Answer, i64> {
        let Some(id) = row_id(user.as_str()) else {
            return Ok(self.of_nobody(&Question::Account(user.clone())));
        };
        let known = self.know(&Key::Account(id), |fact| Some(fact.clone()));
        known.map(|(fact, as_of)| Answer { fact, as_of }).ok_or(id)
    }
}

impl FactLookup for PostgresDirectory {
    fn get<T>(&self, key: &Key, pick: impl Fn(&Fact) -> Option<T>) -> Lookup<T> {
        let Some((fact, as_of)) = self.know(key, pick) else {
            return Lookup::Unknown;
        };
        if let Some(metrics) = self.shared.metrics.get() {
            metrics.knew_fact();
        }
        Lookup::Known(fact, as_of)
    }

    fn generation(&self) -> Generation {
        self.shared.cache.generation()
    }
}

impl Directory for PostgresDirectory {
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

impl AccountsDatabase for PostgresDirectory {
    fn answer(&self, question: Question) -> Reply<'_, Answer> {
        Box::pin(async move {
            match Key::of(&question) {
                Some(key) => self.ask(|reply| Wanted::Answer(key, reply)).await,
                None => Ok(self.of_nobody(&question)),
            }
        })
    }

    /// Of those that memory knows nothing is read: what has been committed before the last [`Self::look`] has been told.
    fn accounts<'a>(&'a self, users: &'a [UserId]) -> Reply<'a, Vec<Answer>> {
        Box::pin(async move {
            let mut accounts = Vec::with_capacity(users.len());
            for users in users.chunks(ACCOUNTS_AT_ONCE) {
                let known: Vec<_> = users.iter().map(|user| self.known_account(user)).collect();
                let unknown: Vec<i64> = known
                    .iter()
                    .filter_map(|it| it.as_ref().err().copied())
                    .collect();
                let mut read = if unknown.is_empty() {
                    Vec::new().into_iter()
                } else {
                    let read = self.ask(|reply| Wanted::Accounts(unknown, reply)).await?;
                    read.into_iter()
                };
                let known = known.into_iter();
                accounts.extend(known.filter_map(|it| it.ok().or_else(|| read.next())));
            }
            Ok(accounts)
        })
    }

    /// Waits for the answer to a query that is sent from now on: what was committed before has been told by then.
    fn look(&self) -> Reply<'_, Generation> {
        Box::pin(async {
            let began = now();
            let mut answered = self.shared.answered.subscribe();
            self.shared.wanted.notify_one();
            let answered = answered.wait_for(|sent| *sent >= began);
            match timeout(SILENCE, answered).await {
                Ok(_) => Ok(self.shared.cache.generation()),
                Err(_) => Err(self.shared.count(self.shared.silence())),
            }
        })
    }

    fn replacements(&self) -> u64 {
        self.shared.replacements.load(Ordering::Acquire)
    }

    fn friends(&self, user: &UserId, who: Who) -> Box<dyn FriendList + '_> {
        Box::new(FriendReading {
            directory: self,
            who,
            next: row_id(user.as_str()).map(|user| (user, i64::MIN)),
        })
    }

    fn list_friends<'a>(&'a self, user: &'a UserId) -> Reply<'a, List> {
        Box::pin(async move {
            let mut list = List::default();
            let mut rows = 0;
            let mut next = row_id(user.as_str()).map(|user| (user, i64::MIN));
            while let Some((user, after)) = next {
                if rows >= MAX_ROWS {
                    list.cut();
                    break;
                }
                let shown = self.ask(|reply| Wanted::Shown(user, after, reply)).await?;
                rows += shown.friends.len();
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
                next = shown.next.map(|after| (user, after));
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
            self.ask(|reply| Wanted::PushAddress(sender, receiver, reply))
                .await
        })
    }

    fn clear_notification_token<'a>(
        &'a self,
        user: &'a UserId,
        token: &'a SecretString,
    ) -> Reply<'a, bool> {
        Box::pin(async move {
            let Some(id) = row_id(user.as_str()) else {
                return Ok(false);
            };
            let token = token.clone();
            self.ask(|reply| Wanted::ClearNotificationToken(id, token, reply))
                .await
        })
    }

    fn administration(self: Arc<Self>) -> Arc<dyn Administration> {
        let metrics = self.shared.metrics.get().cloned();
        Arc::new(PostgresAdministration::beside(&self.address, metrics))
    }
}

/// A user's friends, as far as they have been read.
struct FriendReading<'a> {
    directory: &'a PostgresDirectory,
    who: Who,
    /// Of whom, and after which; `None` when all have been read, and for an id that no jam database can hold.
    next: Option<(i64, i64)>,
}

impl FriendList for FriendReading<'_> {
    fn next(&mut self) -> Reply<'_, Option<Vec<UserId>>> {
        Box::pin(async {
            let Some((user, after)) = self.next else {
                return Ok(None);
            };
            let ask = |reply| Wanted::Friends(user, self.who, after, reply);
            let found = self.directory.ask(ask).await?;
            self.next = found.next.map(|after| (user, after));
            Ok(Some(found.friends))
        })
    }
}
