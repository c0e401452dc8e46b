//! Pushes: telling a receiver, who is away or silent, that there is a message (PROTOCOL.md, section 9).
//!
//! The router says that a push is due and is told what came of it; who sends it, and how, it does not know.

use crate::ids::UserId;
use crate::time::Time;

/// A push that is due. To be given back with [`Router::push_settled`](crate::router::Router::push_settled).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePush {
    pub(crate) receiver: UserId,
    pub(crate) sender: UserId,
    pub(crate) since: Time,
    pub(crate) attempts: u32,
}

impl DuePush {
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

/// What came of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It has been sent: no other from this sender within the collapse window.
    Sent,
    /// It will never be sent: there is nobody to send it to, or the service does not want it.
    Dropped,
    /// It is to be tried again, not before then.
    Later(Time),
}
