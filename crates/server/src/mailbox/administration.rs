//! [`MailboxAdministration`]: what the commands do with a mailbox, mostly while a server has it: look at it, empty it.
//!
//! Invariants: contents are never shown; only the server removes its messages, for what it has in memory would come back.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use jam_core::ids::{ClientId, UserId};
use jam_core::time::Time;
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::OpenError;

/// A mailbox as the commands use it, whether a server is running on it or not. A call may wait for a disk.
pub trait MailboxAdministration: Send + Sync {
    /// The place of the mailbox, which need not exist: a folder, or a database.
    fn place(&self) -> String;

    /// The folder in which its files are, if it is in files of our own.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Warnings: a server can run on it, and may lose acknowledged messages.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// A user's mailbox in numbers.
    ///
    /// # Errors
    /// If there is no mailbox, or it cannot be read.
    fn show(&self, user: &UserId) -> Result<Overview, OpenError>;

    /// Mailboxes in which messages wait, the first `most` of them in this order.
    ///
    /// # Errors
    /// If there is no mailbox, or it cannot be read.
    fn list(&self, order: ListOrder, most: u32) -> Result<Vec<Listed>, OpenError>;

    /// Ends sessions of `user`: that of `client`, or all. How many there were. The next start removes them, and publishes
    /// their wills, as if they had expired.
    ///
    /// # Errors
    /// If there is no mailbox, or it cannot be changed; [`OpenError::InUse`]: the server that has it can end them.
    fn end_sessions(&self, user: &UserId, client: Option<&ClientId>) -> Result<u64, OpenError>;

    /// Whether a server has the mailbox.
    ///
    /// # Errors
    /// If that cannot be found out.
    fn is_served(&self) -> Result<bool, OpenError>;

    /// How many messages [`Self::purge`] would remove.
    ///
    /// # Errors
    /// If there is no mailbox, or it cannot be read.
    fn count(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<u64, OpenError>;

    /// Removes what is kept for `user`, or asks the server that has the mailbox to.
    ///
    /// # Errors
    /// If there is no mailbox, or it cannot be changed.
    fn purge(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<Purged, OpenError>;

    /// Whether a server has yet to do what [`Self::purge`] has asked it for.
    ///
    /// # Errors
    /// If the mailbox cannot be read.
    fn is_purge_due(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<bool, OpenError>;

    /// Removes everything of `user`, if no server has the mailbox: how many messages there were.
    ///
    /// # Errors
    /// As [`Self::purge`], and [`OpenError::InUse`].
    fn remove_unserved(&self, user: &UserId) -> Result<u64, OpenError>;

    /// Reads all of it, contents too, and looks whether it is whole. Changes and creates nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self) -> Result<Condition, OpenError>;

    /// How much room there is for it. It need not exist.
    ///
    /// # Errors
    /// In words: there is not enough.
    fn room(&self) -> Result<String, String>;
}

/// What is removed of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeScope<'a> {
    /// The messages that wait in the inbox.
    Inbox,
    /// Those of one sender.
    InboxFrom(&'a UserId),
    /// All messages, retained ones too, sessions and wills.
    Everything,
}

/// What became of a request to empty a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// No server runs: so many messages are gone.
    Removed(u64),
    /// The server that runs has been asked, and does it within a second.
    Asked,
}

/// The order of a list of mailboxes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListOrder {
    /// The largest.
    #[default]
    Bytes,
    /// The one with the message that has waited longest.
    Oldest,
}

/// A mailbox in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whose it is.
    pub user: String,
    /// Messages that wait.
    pub messages: u64,
    /// Their bytes, as the limits count them.
    pub bytes: u64,
    /// For how long the oldest has waited.
    pub oldest: Duration,
    /// Retained messages.
    pub retained: u64,
}

/// A user's mailbox in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The server's time, which ages are counted by.
    pub now: Time,
    /// When the oldest of them was received.
    pub oldest: Option<Time>,
    /// Retained messages.
    pub retained: u64,
    /// The user's sessions that have not ended.
    pub sessions: Vec<SessionOverview>,
}

/// A session in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOverview {
    /// The client id.
    pub client: String,
    /// When it ends; `None` while the client is connected. If no server has the mailbox, what a start now would make of a client
    /// that was connected when the last one was killed.
    pub ends_at: Option<Time>,
    /// Topics.
    pub subscriptions: usize,
    /// QoS 2 packet ids from the client that are not released.
    pub received: u64,
    /// Packet ids to the client that are not acknowledged.
    pub in_flight: u64,
}

/// A mailbox that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its schema version.
    pub version: i64,
    /// Whether a server has it.
    pub served: bool,
    /// Messages of all users.
    pub messages: u64,
}
