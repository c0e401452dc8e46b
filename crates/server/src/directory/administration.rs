//! [`Administration`]: accounts and friendships as an operator reads and changes them, for the commands and the admin API.
//!
//! A change reports whether it changed anything, so a request can be repeated: "already there" and "already gone" are
//! outcomes. An error is a case that the caller handles differently ([`AdministrationError`]).
//!
//! Invariants: every change is made whole or not at all, and no list is longer than [`PageRequest::MAX`]
//! (`directory::tests::administration` holds every kind of database to what is written here).

use std::fmt;
use std::pin::Pin;

use jam_core::ids::UserId;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::DirectoryError;

/// Bytes of randomness in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// The result of an operation that waits for the database.
pub type Outcome<'a, T> = Pin<Box<dyn Future<Output = Result<T, AdministrationError>> + Send + 'a>>;

/// Reads and changes the accounts of a database: in a command, whether a server is running on it or not, and in the server.
pub trait Administration: Send + Sync {
    /// The users whose ids begin with `prefix`, in the database's order of ids.
    fn users<'a>(&'a self, prefix: &'a str, page: &'a PageRequest) -> Outcome<'a, Page<User>>;

    /// One user.
    fn user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, User>;

    /// Adds a user. Fails if there is one with this id ([`AdministrationError::UserExists`]). Creates the database if it is
    /// one that the server would create.
    fn add_user<'a>(
        &'a self,
        user: &'a UserId,
        name: Option<&'a str>,
        token: &'a NewToken,
    ) -> Outcome<'a, ()>;

    /// Replaces the token of a user. Returns whether it is another one.
    fn set_token<'a>(&'a self, user: &'a UserId, token: &'a NewToken) -> Outcome<'a, bool>;

    /// Removes a user and their friendships. Returns whether there was one.
    fn remove_user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, bool>;

    /// The friends of a user in the database's order of ids, blocked ones included.
    fn friends<'a>(&'a self, user: &'a UserId, page: &'a PageRequest) -> Outcome<'a, Page<Friend>>;

    /// One friend of a user, blocked or not; `None` if they are not friends.
    fn friend<'a>(&'a self, user: &'a UserId, friend: &'a UserId) -> Outcome<'a, Option<Friend>>;

    /// Makes two users friends. Returns whether they were not. Half a friendship is completed, and a block stays.
    fn befriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool>;

    /// Ends a friendship, blocks included. Returns whether there was one, or half of one.
    fn unfriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool>;

    /// `user` blocks a friend, or unblocks them. Returns whether that changed anything.
    fn set_blocked<'a>(
        &'a self,
        user: &'a UserId,
        friend: &'a UserId,
        blocked: bool,
    ) -> Outcome<'a, bool>;
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// The user id.
    pub id: String,
    /// The name that people see.
    pub name: Option<String>,
    /// Whether there is a token to log in with.
    pub token: bool,
    /// Whether pushes can be addressed.
    pub push: bool,
    /// How many friends there are, blocked ones included.
    pub friends: u32,
}

/// A friend of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Friend {
    /// The friend's user id.
    pub id: String,
    /// The name that people see.
    pub name: Option<String>,
    /// The user has blocked the friend.
    pub blocked: bool,
    /// The friend has blocked the user.
    pub been_blocked: bool,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as requested.
    pub items: Vec<T>,
    /// The `after` of the next page; `None` on the last one.
    pub next: Option<UserId>,
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    after: Option<UserId>,
    limit: u16,
}

impl PageRequest {
    /// Items of a page at most.
    pub const MAX: u16 = 1000;

    /// The first `limit` items whose ids come after `after`. `None` unless `limit` is 1 to [`Self::MAX`].
    #[must_use]
    pub fn new(after: Option<UserId>, limit: u16) -> Option<Self> {
        (1..=Self::MAX)
            .contains(&limit)
            .then_some(Self { after, limit })
    }

    /// The first [`Self::MAX`] items whose ids come after `after`.
    #[must_use]
    pub fn after(after: Option<UserId>) -> Self {
        let limit = Self::MAX;
        Self { after, limit }
    }

    pub(crate) fn place(&self) -> Option<&UserId> {
        self.after.as_ref()
    }

    pub(crate) fn limit(&self) -> u16 {
        self.limit
    }
}

/// A token for a user: at least one byte, and not more than a CONNECT carries. `Debug` prints no part of it.
#[derive(Debug, Clone)]
pub struct NewToken(SecretString);

impl NewToken {
    /// Bytes: a password with room beside it for what else belongs in a CONNECT, which has 64 KiB at most
    /// (`jam_core::connection::MAX_CONNECT`).
    pub const MAX_BYTES: usize = 60_000;

    /// 256 random bits in hexadecimal.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn random() -> Result<Self, DirectoryError> {
        random_token().map(|token| Self(token.into()))
    }

    /// A token that somebody has chosen.
    ///
    /// # Errors
    /// If nobody could log in with it.
    pub fn chosen(token: &str) -> Result<Self, AdministrationError> {
        let refuse = |why: &str| Err(AdministrationError::Refused(why.to_owned()));
        match token.len() {
            0 => refuse("an empty token lets nobody in; give another one"),
            1..=Self::MAX_BYTES => Ok(Self(token.into())),
            _ => refuse("a token has at most 60000 bytes; give another one"),
        }
    }

    /// The token in the clear: to show it once, or to store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// 256 random bits in hexadecimal.
///
/// # Errors
/// If the system has no randomness to give.
pub fn random_token() -> Result<String, DirectoryError> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| DirectoryError::new(format!("no randomness for a token: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Why an operation failed. Nothing has changed; after [`Self::Unavailable`] that is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdministrationError {
    /// There is no such user.
    NoUser(UserId),
    /// There is one already.
    UserExists(UserId),
    /// These two are not friends, so neither can block the other.
    NotFriends(UserId, UserId),
    /// This database cannot hold it, or already holds what excludes it. The text says what to do.
    Refused(String),
    /// The database cannot be used now.
    Unavailable(DirectoryError),
}

impl fmt::Display for AdministrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(user) => write!(f, "there is no user {user}"),
            Self::UserExists(user) => write!(f, "user {user} exists already"),
            Self::NotFriends(a, b) => write!(f, "{a} and {b} are not friends"),
            Self::Refused(why) => f.write_str(why),
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AdministrationError {}

impl From<DirectoryError> for AdministrationError {
    fn from(error: DirectoryError) -> Self {
        Self::Unavailable(error)
    }
}
