//! The directory as the rules see it: accounts, friendships and notification tokens.
//!
//! Look-ups return at once, with what is in memory or can be read without waiting. Otherwise the rule returns a
//! [`Question`]; the connection's task has it answered and hands the rule the [`Answer`] itself. So the rules are free of
//! I/O, and a message whose facts are in memory costs none.
//!
//! Invariants: an answer is used for what asked for it and is read after that had arrived, so it is fresh enough
//! (PROTOCOL.md, section 6); of an answer and what memory says by now the newer counts ([`Known`]); a packet gets at most
//! [`Answers::AT_MOST`] answers (`tests/answers.rs`).

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use ring::digest;
use subtle::ConstantTimeEq;

use crate::ids::UserId;

/// Counts the changes of the directory that the server has noticed. A fact has the generation that was the present one when
/// the fact was read; zero is before the first.
///
/// So of two facts that contradict each other the one of the greater generation is the newer. If both have the same, the
/// directory changed between them and the server noticed it later; facts that are read from then on have a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

/// What the directory's memory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The fact, as fresh as PROTOCOL.md, section 6, demands, and of when it is.
    Known(T, Generation),
    /// The matching [`Question`] has to be asked.
    Unknown,
}

/// What must be answered before a rule can judge.
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

/// What the directory says.
#[derive(Debug, Clone)]
pub enum Fact {
    /// The account, `None` if there is no such account.
    Account(Option<Account>),
    /// Whether the sender may write to the receiver.
    Friendship(Friendship),
    /// Whether a push could be addressed.
    NotificationToken(NotificationToken),
}

/// The answer to a [`Question`]: the fact itself, and of when it is.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The fact.
    pub fact: Fact,
    /// The present state of the directory when it was read, as far as anybody had noticed.
    pub as_of: Generation,
}

/// The directory could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// What the directory has answered for one packet, will or check; at most one answer of each kind. Each is for the same
/// users, so that an answer says by its kind which question it is for.
#[derive(Debug, Default)]
pub struct Answers {
    account: Option<(Option<Account>, Generation)>,
    friendship: Option<(Friendship, Generation)>,
    notification_token: Option<(NotificationToken, Generation)>,
    count: u8,
}

impl Answers {
    /// Answers that one packet gets: one of each kind, and two that repeat one because it became outdated, by a newer answer
    /// to another packet or by a wait.
    pub const AT_MOST: u8 = 5;

    /// Nothing has been asked.
    pub const NONE: &'static Self = {
        static NONE: Answers = Answers {
            account: None,
            friendship: None,
            notification_token: None,
            count: 0,
        };
        &NONE
    };

    /// One answer that is known before the first question.
    #[must_use]
    pub fn of(answer: Answer) -> Self {
        let mut answers = Self::default();
        answers.keep(answer);
        answers
    }

    /// Takes an answer, in place of an earlier one of its kind.
    ///
    /// # Errors
    /// If there have been [`Self::AT_MOST`]: the directory changes faster than it can be asked.
    pub fn add(&mut self, answer: Answer) -> Result<(), Unavailable> {
        if self.count >= Self::AT_MOST {
            return Err(Unavailable);
        }
        self.count += 1;
        self.keep(answer);
        Ok(())
    }

    fn keep(&mut self, answer: Answer) {
        let as_of = answer.as_of;
        match answer.fact {
            Fact::Account(account) => self.account = Some((account, as_of)),
            Fact::Friendship(friendship) => self.friendship = Some((friendship, as_of)),
            Fact::NotificationToken(token) => self.notification_token = Some((token, as_of)),
        }
    }

    /// The packet has waited for something else: what was answered before is outdated and has to be asked again.
    pub(crate) fn forget(&mut self) {
        let count = self.count;
        *self = Self {
            count,
            ..Self::default()
        };
    }

    /// The account that was answered, if it was asked for.
    pub(crate) fn account(&self) -> Option<&Option<Account>> {
        self.account.as_ref().map(|(account, _)| account)
    }
}

/// What the rules know: what the directory's memory says now, and what it has answered for this packet.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Its memory.
    pub directory: &'a dyn Directory,
    /// What it has answered.
    pub answers: &'a Answers,
}

impl Known<'_> {
    /// [`Directory::account`]
    ///
    /// # Errors
    /// What has to be asked.
    pub fn account(&self, user: &UserId) -> Result<(Option<Account>, Generation), Question> {
        newer(self.directory.account(user), self.answers.account.as_ref())
            .ok_or_else(|| Question::Account(user.clone()))
    }

    /// [`Directory::friendship`]
    ///
    /// # Errors
    /// What has to be asked.
    pub fn friendship(
        &self,
        sender: &UserId,
        receiver: &UserId,
    ) -> Result<(Friendship, Generation), Question> {
        let known = self.directory.friendship(sender, receiver);
        newer(known, self.answers.friendship.as_ref()).ok_or_else(|| Question::Friendship {
            sender: sender.clone(),
            receiver: receiver.clone(),
        })
    }

    /// [`Directory::notification_token`]
    ///
    /// # Errors
    /// What has to be asked.
    pub fn notification_token(
        &self,
        user: &UserId,
    ) -> Result<(NotificationToken, Generation), Question> {
        let known = self.directory.notification_token(user);
        newer(known, self.answers.notification_token.as_ref())
            .ok_or_else(|| Question::NotificationToken(user.clone()))
    }
}

/// The newer of what memory says and an answer. Of the same generation it is what memory says: it was read later.
fn newer<T: Clone>(
    known: Lookup<T>,
    answered: Option<&(T, Generation)>,
) -> Option<(T, Generation)> {
    match (known, answered) {
        (Lookup::Known(_, as_of), Some(answered)) if answered.1 > as_of => Some(answered.clone()),
        (Lookup::Known(fact, as_of), _) => Some((fact, as_of)),
        (Lookup::Unknown, answered) => answered.cloned(),
    }
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

/// An API token as the directory holds it, itself or its SHA-256; copies share it. `Debug` prints no part of it.
///
/// Its form, its mark, then its bytes, in one piece: every connection has one.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

/// The token itself stands in the directory.
const PLAIN: u8 = 0;
/// Its SHA-256 does.
const SHA_256: u8 = 1;

/// Bytes of a SHA-256.
pub const SHA_256_LEN: usize = digest::SHA256_OUTPUT_LEN;

/// The SHA-256 of a token.
#[must_use]
pub fn sha_256(token: &[u8]) -> [u8; SHA_256_LEN] {
    let digest = digest::digest(&digest::SHA256, token);
    digest.as_ref().try_into().expect("it has this length")
}

impl Token {
    /// A token that the directory holds in the clear, and the mark by which sessions remember it.
    #[must_use]
    pub fn plain(token: &[u8], mark: Mark) -> Self {
        Self::new(PLAIN, token, mark)
    }

    /// A token of which the directory holds the SHA-256 only, and the mark by which sessions remember it. That is the same as
    /// when the directory held the token: what was made with it stays.
    #[must_use]
    pub fn hashed(hash: &[u8; SHA_256_LEN], mark: Mark) -> Self {
        Self::new(SHA_256, hash, mark)
    }

    fn new(form: u8, bytes: &[u8], mark: Mark) -> Self {
        let mark = mark.bytes();
        let all = [&[form], &mark[..], bytes];
        Self(all.concat().into())
    }

    /// What a session remembers of the token that it was made with.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let (_, mark, _) = self.parts();
        Mark::new(mark.try_into().expect("it was split there"))
    }

    fn parts(&self) -> (u8, &[u8], &[u8]) {
        let (form, rest) = self.0.split_at(1);
        let (mark, bytes) = rest.split_at(Mark::LEN);
        (form[0], mark, bytes)
    }

    /// Whether a client has sent this one, in time that depends on their lengths only.
    #[must_use]
    pub fn is(&self, sent: &[u8]) -> bool {
        match self.parts() {
            (SHA_256, _, hash) => hash.ct_eq(&sha_256(sent)).into(),
            (_, _, token) => token.ct_eq(sent).into(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (SHA_256, ..) => f.write_str("[a SHA-256]"),
            (_, _, token) => write!(f, "[{} bytes]", token.len()),
        }
    }
}

/// What the directory knows of an account.
#[derive(Debug, Clone)]
pub struct Account {
    /// `None` when the token is NULL or empty: every login fails.
    pub token: Option<Token>,
    /// Which of the accounts that have had this id.
    pub life: Life,
}

/// Identifies one of the accounts that have an id one after the other, by what stays when the token changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// Of the e-mail address, if there is one.
    pub email: Option<Mark>,
    /// Of the user name, if there is one.
    pub name: Option<Mark>,
    /// Of what the password is checked by, if there is one.
    pub password: Option<Mark>,
    /// Whether the address is a random one that was made up for this account: it stays as long as the account.
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
    /// only one of the two, its password. An account that had none of the three may get any; one that has only a
    /// name may change it. In doubt it is another account: what may be another's stays hidden.
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
    /// There is none: the message is accepted and its receiver gets no push.
    Absent,
    /// The column is missing.
    Unreadable,
}

/// Accounts, and who may write to which inbox. Returns at once: see the module's text.
pub trait Directory: Send + Sync {
    /// The account with this id, `None` if there is no such account.
    fn account(&self, user: &UserId) -> Lookup<Option<Account>>;
    /// Whether `sender` may write to the inbox of `receiver`.
    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship>;
    /// Whether a push to `user` could be addressed.
    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken>;
}
