//! The directory as the rules see it: accounts, friendships and notification tokens.
//!
//! Look-ups answer from memory, or with what can be read at once, and wait for nobody. Where that is not
//! possible, the rule says so with a [`Question`]; whoever runs the connection has it loaded and asks the rule again. So
//! the rules stay free of I/O, and a message whose facts are in memory meets none.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::ids::UserId;

/// Which state of the directory a fact is of: it was read when this one, or a later one that nobody had noticed yet, was
/// the present state. A later one is greater; zero is before all that this server has read.
///
/// So of two facts that contradict each other the one of the greater generation is the newer. If both are of the same, a
/// change came between them that had not been noticed; what is read when it has been is of a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

/// What the directory's memory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The fact, as fresh as PROTOCOL.md, section 6, demands, and of when it is.
    Known(T, Generation),
    /// Load the matching [`Question`] and ask again.
    Unknown,
}

/// What must be loaded before a rule can judge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// [`Directory::account`]
    Account(UserId),
    /// [`Directory::friendship`]
    Friendship {
        /// Who writes.
        sender: UserId,
        /// Whose inbox it is.
        receiver: UserId,
    },
    /// [`Directory::notification_token`]
    NotificationToken(UserId),
}

/// 63 bits of a digest: tells values apart where the values themselves must not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Not zero, so that none takes no more room than one.
    first: NonZeroU8,
    others: [u8; Self::LEN - 1],
}

impl Mark {
    /// Bytes.
    pub const LEN: usize = 8;

    /// From the first bytes of a digest, less one bit, or from what [`Self::bytes`] gave.
    #[must_use]
    pub fn new([first, others @ ..]: [u8; Self::LEN]) -> Self {
        let first = NonZeroU8::MIN | first;
        Self { first, others }
    }

    /// What is kept of it.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [self.first.get(); Self::LEN];
        bytes[1..].copy_from_slice(&self.others);
        bytes
    }
}

/// An API token; copies share it. `Debug` prints no part of it.
///
/// Its mark, then its bytes: every connection has one.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// From the bytes that the directory holds, and the mark by which sessions remember it.
    #[must_use]
    pub fn new(bytes: &[u8], mark: Mark) -> Self {
        Self(mark.bytes().iter().chain(bytes).copied().collect())
    }

    /// What a session remembers of the token that it was made with.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let (mark, _) = self.parts();
        Mark::new(mark.try_into().expect("it was split there"))
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.0.split_at(Mark::LEN)
    }

    /// Whether a client has sent this one, in time that depends on their lengths only.
    #[must_use]
    pub fn is(&self, sent: &[u8]) -> bool {
        self.parts().1.ct_eq(sent).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.parts().1.len())
    }
}

/// What the directory knows of an account.
#[derive(Debug, Clone)]
pub struct Account {
    /// `None` when the token is NULL or empty: nobody gets in.
    pub token: Option<Token>,
    /// Which of the accounts that have had this id.
    pub life: Life,
}

/// Tells an account from one that has its id after it, by what a new token does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// Of the e-mail address, if there is one.
    pub email: Option<Mark>,
    /// Of the user name, if there is one.
    pub name: Option<Mark>,
    /// Of what the password is checked by, if there is one.
    pub password: Option<Mark>,
    /// Whether the address is one that was made up for this account and means nothing: it never changes.
    pub made_up: bool,
}

/// Which account an id stood for, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LifeFact {
    /// The account.
    pub life: Life,
    /// When.
    pub as_of: Generation,
}

impl Life {
    /// Whether `now` is the same account, some time later: it has kept its address or its name, or, where it had or has
    /// only one of the two, its password. An account that had none of the three may get any; one that has nothing but a
    /// name may change it. What else cannot be told is not the same: nobody is shown
    /// what may be another's.
    #[must_use]
    pub fn goes_on_as(&self, now: &Self) -> bool {
        if now.made_up {
            return self.made_up && self.email == now.email;
        }
        let kept = |a: Option<Mark>, b| a.is_some() && a == b;
        let has = |life: &Self| (life.email.is_some(), life.name.is_some());
        if *self == Self::default()
            || self == now
            || kept(self.email, now.email)
            || kept(self.name, now.name)
        {
            return true;
        }
        match (has(self), has(now)) {
            ((true, true), (true, true)) => false,
            ((false, true), (false, true)) => self.password == now.password,
            _ => kept(self.password, now.password),
        }
    }
}

impl Account {
    /// Whether what was made with the token of this mark is still the account's. What was made before marks were kept
    /// belongs to whatever token there is.
    pub(crate) fn is_behind(&self, mark: Option<Mark>) -> bool {
        let token = self.token.as_ref();
        token.is_some_and(|token| mark.is_none_or(|mark| token.mark() == mark))
    }
}

/// Whether a sender may write to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Friendship {
    /// Row (receiver, sender) exists with `blocked = 0` and `been_blocked = 0`. With the receiver's life.
    Friends(Life),
    /// Anything else.
    NotFriends,
}

/// Whether the directory can say what a user's notification token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationToken {
    /// There is one.
    Present,
    /// There is none: no push goes out, and that is no error.
    Absent,
    /// The column is missing.
    Unreadable,
}

/// Accounts and who may write to whom. Never waits: see the module's text.
pub trait Directory: Send + Sync {
    /// The account with this id, `None` if there is no such account.
    fn account(&self, user: &UserId) -> Lookup<Option<Account>>;
    /// Whether `sender` may write to the inbox of `receiver`.
    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship>;
    /// Whether a push to `user` could be addressed.
    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken>;
}
