//! Pushes: telling a receiver, who is away or silent, that there is a message (PROTOCOL.md, section 9).
//!
//! The router says that a push is due and is told what came of it; who sends it, and how, it does not know.

use std::time::Duration;

use crate::ids::UserId;
use crate::time::Time;

/// How many pairs of receiver and sender are remembered, of which a push is owed or has been sent. Messages of further pairs
/// are not pushed.
pub const MAX_PUSHES: usize = 100_000;

/// Pushes of one sender to one receiver that may follow each other at once; then one in each collapse window.
pub const BURST: u32 = 3;

/// Which receivers pushes can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushAudience {
    /// Nobody: push is switched off.
    Off,
    /// Nobody: push is on, but nothing is there to send them.
    NoService,
    /// Who has a notification token.
    TokenHolders,
    /// Everybody.
    Everybody,
}

impl PushAudience {
    /// Whether the directory has to say what the token of an absent receiver is (section 4, last row).
    pub(crate) fn asks_for_token(self) -> bool {
        matches!(self, Self::NoService | Self::TokenHolders)
    }

    pub(crate) fn is_served(self) -> bool {
        matches!(self, Self::TokenHolders | Self::Everybody)
    }
}

/// What the operator decides about pushes.
#[derive(Debug, Clone, Copy)]
pub struct PushRules {
    /// Which receivers they can reach.
    pub audience: PushAudience,
    /// How long a connected device may take to acknowledge a message.
    pub deadline: Duration,
    /// After a push, how long there is no other for the same sender while the receiver stays away.
    pub collapse: Duration,
}

/// A push that is due. To be given back with [`Router::push_settled`](crate::router::Router::push_settled).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePush {
    pub(crate) receiver: UserId,
    pub(crate) sender: UserId,
    pub(crate) since: Time,
    pub(crate) attempts: u32,
    /// It has been tried, or was deferred because another one to the same receiver is.
    pub(crate) is_behind: bool,
}

impl DuePush {
    pub(crate) fn new(receiver: &UserId, sender: &UserId, since: Time) -> Self {
        Self {
            receiver: receiver.clone(),
            sender: sender.clone(),
            since,
            attempts: 0,
            is_behind: false,
        }
    }

    /// Who is to be told.
    #[must_use]
    pub fn receiver(&self) -> &UserId {
        &self.receiver
    }

    /// Who wrote.
    #[must_use]
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// Since when it is owed.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// How often it has been tried.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Which of the pushes that are due is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushOrder {
    /// The one that has waited for longest.
    #[default]
    OldestFirst,
    /// Of those that have neither been tried nor deferred, the one that has become due last; if there is none, the oldest.
    NewestFirst,
}

/// What came of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It has been sent: no other from this sender within the collapse window.
    Sent,
    /// It will never be sent: there is nobody to send it to, or the service does not want it.
    Dropped,
    /// It is to be tried again, not before then.
    Later(Time),
    /// It has not been tried, because another one to its receiver is or has failed; it may be tried from then on.
    Deferred(Time),
}
