//! What the directory's thread is asked for.

use jam_core::directory::Answer;
use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::cache::Key;
use super::rows::{FriendsRead, ListRead};
use super::{DirectoryError, PushAddress, Who};

/// Where an answer goes. A connection that no longer waits for it does not get it.
pub(super) type ReplyTo<T> = oneshot::Sender<Result<T, DirectoryError>>;

/// What the thread is asked for, and since when.
#[derive(Debug)]
pub(super) struct PostgresRequest {
    pub(super) asked: Instant,
    pub(super) what: Wanted,
}

#[derive(Debug)]
pub(super) enum Wanted {
    Answer(Key, ReplyTo<Answer>),
    /// In their order.
    Accounts(Vec<i64>, ReplyTo<Vec<Answer>>),
    /// Of whom, and after which.
    Friends(i64, Who, i64, ReplyTo<FriendsRead>),
    Shown(i64, i64, ReplyTo<ListRead>),
    /// Sender and receiver.
    PushAddress(i64, i64, ReplyTo<Option<PushAddress>>),
    ClearNotificationToken(i64, SecretString, ReplyTo<bool>),
}
