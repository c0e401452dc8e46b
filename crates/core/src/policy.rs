//! The four handlers, as one table: who may connect, write and subscribe (PROTOCOL.md, sections 3 to 5).
//!
//! Each handler goes through its rules in the order of the protocol's table and stops at the first
//! that refuses. What no rule refused is allowed, and a publish that is allowed gets a [`Permit`],
//! which nothing outside this module can make. A rule that lacks a fact says which ([`Stop::Ask`]).
//!
//! To add a rule for publishing: write a function beside those in `PUBLISH_RULES`, give its refusal
//! a row in [`refusals`], and put it into the list where its turn is.

use bytestring::ByteString;
use jam_wire::encode;
use jam_wire::packet::PublishProperties;

use crate::directory::{Friendship, Known, Life, LifeFact, NotificationToken, Question, Token};
use crate::ids::{ClientId, UserId};
use crate::payload::{self, PayloadError};
use crate::push::PushAudience;
pub use refusals::{Handler, Refusal};

pub mod refusals;
#[cfg(test)]
mod tests;

/// Bytes of a topic, and of a topic filter (sections 4 and 5).
pub const MAX_TOPIC_BYTES: usize = 1024;
/// User Properties of a PUBLISH or a will (section 4).
pub const MAX_USER_PROPERTIES: usize = 64;
/// Bytes of the properties of a PUBLISH or a will, all in all (section 4).
pub const MAX_PROPERTIES_BYTES: usize = 16 * 1024;
/// Bytes of a topic filter that is too long which the error repeats, less those of a character that would be cut.
pub const SHOWN_FILTER_BYTES: usize = 256;

/// Why a handler did not allow something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// No.
    Refused(Refusal),
    /// Not yet: this has to be answered first.
    Ask(Question),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Question> for Stop {
    fn from(question: Question) -> Self {
        Self::Ask(question)
    }
}

/// A client that has proved who it is. Only [`authenticate`] makes one.
#[derive(Debug, Clone)]
pub struct Identity {
    user: UserId,
    client: ClientId,
    token: Token,
    life: Life,
}

impl Identity {
    /// Whose client it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Which of the user's devices.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// Which of the accounts that have had the user id.
    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// What it proved it with.
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }
}

/// `preConnect`: whether an attempt is looked at (section 3, first row).
///
/// # Errors
/// [`refusals::SPAM`] when attempts from where it comes failed too often.
pub fn pre_connect(too_many_failures: bool) -> Result<(), Refusal> {
    if too_many_failures {
        Err(refusals::SPAM)
    } else {
        Ok(())
    }
}

/// `authenticate`: who a client is, and of which account (section 3, the other rows).
///
/// # Errors
/// The first row that applies, or the account as a question.
pub fn authenticate(
    client: &ClientId,
    user_name: Option<&ByteString>,
    password: Option<&[u8]>,
    known: Known<'_>,
) -> Result<(Identity, LifeFact), Stop> {
    let user_name = user_name
        .filter(|name| !name.is_empty() && name.as_ref() as &str == client.user_part())
        .filter(|_| client.as_str().len() <= ClientId::MAX_LEN)
        .ok_or(refusals::ID_MISMATCH)?;
    let password = password
        .filter(|password| !password.is_empty() && std::str::from_utf8(password).is_ok())
        .ok_or(refusals::TOKEN_FORMAT)?;
    let user = UserId::parse(user_name).map_err(|_| refusals::UNKNOWN_USER)?;
    let (account, as_of) = known.account(&user)?;
    let account = account.ok_or(refusals::UNKNOWN_USER)?;
    let expected = account.token.filter(|expected| expected.is(password));
    let token = expected.ok_or(refusals::WRONG_TOKEN)?;
    let client = client.clone();
    let life = account.life;
    let identity = Identity {
        user,
        client,
        token,
        life,
    };
    Ok((identity, LifeFact { life, as_of }))
}

/// Where a permitted message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Into the mailbox of the user.
    Inbox,
    /// To the devices of the user that subscribe to the topic.
    OwnChannel,
}

/// The right to append one message. [`authorize_publish`] makes those of clients.
#[derive(Debug)]
pub struct Permit {
    sender: UserId,
    /// Of the sender's account, if a client of its wrote it.
    sender_life: Option<Life>,
    receiver: UserId,
    destination: Destination,
    may_push: bool,
    /// Of the receiver's account, if that is not the sender's, or if it is a will.
    life: Option<LifeFact>,
}

impl Permit {
    /// For what the server itself writes to a user on one of their own channels (section 10), in their name.
    pub(crate) fn for_server(user: &UserId) -> Self {
        Self {
            sender: user.clone(),
            sender_life: None,
            receiver: user.clone(),
            destination: Destination::OwnChannel,
            may_push: false,
            life: None,
        }
    }

    /// It is by the account of this life, of those that have had the sender's id.
    pub(crate) fn by(self, life: Life) -> Self {
        Self {
            sender_life: Some(life),
            ..self
        }
    }

    /// What is for its sender itself is for the account of this life: nothing else may have said yet whose everything is.
    pub(crate) fn for_own_life(mut self, fact: LifeFact) -> Self {
        if self.sender == self.receiver {
            self.life = Some(fact);
        }
        self
    }

    /// Which account wrote it.
    pub(crate) fn sender_life(&self) -> Option<Life> {
        self.sender_life
    }

    /// Sender and receiver.
    pub(crate) fn into_users(self) -> (UserId, UserId) {
        (self.sender, self.receiver)
    }

    /// The topic of an own channel of the receiver's.
    pub(crate) fn own_topic(&self, channel: &str) -> ByteString {
        format!("/{}/{channel}", self.receiver).into()
    }

    /// Where in what is the receiver's.
    #[must_use]
    pub fn destination(&self) -> Destination {
        self.destination
    }

    /// The account that the receiver's id stands for, if the directory was asked.
    pub(crate) fn life(&self) -> Option<LifeFact> {
        self.life
    }

    /// Whether the receiver may be told of it by a push, as far as is known.
    #[must_use]
    pub(crate) fn may_push(&self) -> bool {
        self.may_push
    }
}

/// What the rules for publishing may look at.
pub struct PublishAttempt<'a> {
    sender: &'a UserId,
    topic: &'a ByteString,
    properties: Option<&'a PublishProperties>,
    payload: &'a [u8],
    facts: &'a Facts<'a>,
    target: Target,
    /// The receiver is away and has no notification token.
    no_token: bool,
    /// Of the receiver's account, once it is known.
    life: Option<LifeFact>,
}

/// What the rules ask others for.
pub struct Facts<'a> {
    /// Accounts and friendships.
    pub known: Known<'a>,
    /// Which users pushes can reach.
    pub audience: PushAudience,
    /// Whether a user has a device connected.
    pub is_connected: &'a dyn Fn(&UserId) -> bool,
}

/// Whose channel a topic is.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A channel of the sender's own that is not the inbox.
    OwnChannel,
    /// The sender's own inbox.
    OwnInbox,
    /// The inbox of somebody else, who may or may not exist.
    FriendInbox(UserId),
    /// Nothing that the sender could write to.
    Foreign,
}

impl Target {
    fn of(topic: &ByteString, sender: &UserId) -> Self {
        let parts = topic.strip_prefix('/').and_then(|topic| {
            let end = topic.bytes().position(|byte| byte == b'/')?;
            Some((&topic[..end], &topic[end + 1..]))
        });
        match parts {
            Some((owner, "inbox")) if owner == sender.as_str() => Self::OwnInbox,
            Some((owner, _)) if owner == sender.as_str() => Self::OwnChannel,
            Some((owner, "inbox")) => UserId::parse(owner).map_or(Self::Foreign, Self::FriendInbox),
            _ => Self::Foreign,
        }
    }
}

/// A rule for publishing: nothing, or why not.
type PublishRule = fn(&mut PublishAttempt<'_>) -> Result<(), Stop>;

/// The rows of section 4, in their order.
const PUBLISH_RULES: &[PublishRule] = &[
    topic_is_short,
    topic_has_levels,
    topic_has_no_wildcards,
    topic_is_own_or_an_inbox,
    properties_are_few,
    payload_bears_the_sender,
    sender_is_a_friend,
    push_can_be_addressed,
];

/// `authorizePublish`: whether a message may be appended, and where (section 4).
///
/// # Errors
/// The first row that applies, or the fact that a row lacks as a question.
pub fn authorize_publish(
    sender: &UserId,
    topic: &ByteString,
    properties: Option<&PublishProperties>,
    payload: &[u8],
    facts: &Facts<'_>,
) -> Result<Permit, Stop> {
    let target = Target::of(topic, sender);
    let mut attempt = PublishAttempt {
        sender,
        topic,
        properties,
        payload,
        facts,
        target,
        no_token: false,
        life: None,
    };
    for rule in PUBLISH_RULES {
        rule(&mut attempt)?;
    }
    let (receiver, destination, may_push) = match attempt.target {
        Target::OwnChannel => (sender.clone(), Destination::OwnChannel, false),
        Target::OwnInbox => (sender.clone(), Destination::Inbox, false),
        Target::FriendInbox(receiver) => (receiver, Destination::Inbox, !attempt.no_token),
        Target::Foreign => return Err(refusals::TOPIC_FOREIGN.into()),
    };
    Ok(Permit {
        sender: sender.clone(),
        sender_life: None,
        receiver,
        destination,
        may_push,
        life: attempt.life,
    })
}

fn topic_is_short(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    if attempt.topic.len() > MAX_TOPIC_BYTES {
        return Err(refusals::TOPIC_TOO_LONG.into());
    }
    Ok(())
}

fn topic_has_levels(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    if attempt.topic.bytes().filter(|byte| *byte == b'/').count() < 2 {
        return Err(refusals::TOPIC_LEVELS.into());
    }
    Ok(())
}

fn topic_has_no_wildcards(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    if has_wildcard(attempt.topic) {
        return Err(refusals::TOPIC_WILDCARDS.into());
    }
    Ok(())
}

fn topic_is_own_or_an_inbox(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    if attempt.target == Target::Foreign {
        return Err(refusals::TOPIC_FOREIGN.into());
    }
    Ok(())
}

fn properties_are_few(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    let fits = |it: &PublishProperties| {
        encode::properties_len(it) <= MAX_PROPERTIES_BYTES
            && it.user.iter().count() <= MAX_USER_PROPERTIES
    };
    if attempt.properties.is_some_and(|it| !fits(it)) {
        return Err(refusals::PROPERTIES.into());
    }
    Ok(())
}

/// Two rows of the table, for the payload is read once.
fn payload_bears_the_sender(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    if attempt.target == Target::OwnChannel {
        return Ok(());
    }
    payload::check_sender(attempt.payload, attempt.sender.as_str()).map_err(|error| {
        Stop::Refused(match error {
            PayloadError::NotAnObject => refusals::PAYLOAD_NOT_JSON,
            PayloadError::SenderMismatch => refusals::PAYLOAD_SENDER,
        })
    })
}

fn sender_is_a_friend(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    let Target::FriendInbox(receiver) = &attempt.target else {
        return Ok(());
    };
    let sender = attempt.sender;
    let (friendship, as_of) = attempt.facts.known.friendship(sender, receiver)?;
    match friendship {
        Friendship::Friends(life) => {
            attempt.life = Some(LifeFact { life, as_of });
            Ok(())
        }
        Friendship::NotFriends => Err(refusals::NOT_FRIENDS.into()),
    }
}

fn push_can_be_addressed(attempt: &mut PublishAttempt<'_>) -> Result<(), Stop> {
    let Target::FriendInbox(receiver) = &attempt.target else {
        return Ok(());
    };
    if !attempt.facts.audience.asks_for_token() || (attempt.facts.is_connected)(receiver) {
        return Ok(());
    }
    let (token, _) = attempt.facts.known.notification_token(receiver)?;
    match token {
        NotificationToken::Present => Ok(()),
        NotificationToken::Absent => {
            attempt.no_token = true;
            Ok(())
        }
        NotificationToken::Unreadable => Err(refusals::NOTIFICATION_TOKEN.into()),
    }
}

/// `authorizeSubscribe`: whether a filter may be subscribed to (section 5).
///
/// # Errors
/// The first row that applies; its category is the filter, of one that is too long the beginning.
pub fn authorize_subscribe(user: &UserId, filter: &ByteString) -> Result<(), Refusal> {
    if filter.len() > MAX_TOPIC_BYTES {
        let shown = filter.floor_char_boundary(SHOWN_FILTER_BYTES);
        return Err(Refusal {
            category: filter[..shown].into(),
            ..refusals::FILTER_TOO_LONG
        });
    }
    let refuse = |row: Refusal| {
        Err(Refusal {
            category: filter.clone(),
            ..row
        })
    };
    if has_wildcard(filter) {
        return refuse(refusals::FILTER_WILDCARDS);
    }
    if !filter.contains('/') {
        return refuse(refusals::FILTER_LEVELS);
    }
    let owner = filter
        .strip_prefix('/')
        .and_then(|filter| filter.split('/').next());
    if owner != Some(user.as_str()) {
        return refuse(refusals::FILTER_FOREIGN);
    }
    Ok(())
}

fn has_wildcard(topic: &str) -> bool {
    topic.bytes().any(|b| matches!(b, b'$' | b'#' | b'+'))
}

/// The refusal of a packet for which the directory did not answer.
#[must_use]
pub fn without_directory(question: &Question) -> Refusal {
    match question {
        Question::Account(_) => refusals::CONNECT_WITHOUT_DIRECTORY,
        Question::Friendship { .. } => refusals::PUBLISH_WITHOUT_DIRECTORY,
        Question::NotificationToken(_) => refusals::NOTIFICATION_TOKEN,
    }
}
