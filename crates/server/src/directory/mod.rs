//! Accounts and friendships, in a database that other processes write to (PROTOCOL.md, section 6).
//!
//! - [`sqlite`]: in an SQLite file, which is the only kind of database so far.

pub mod sqlite;

use std::fmt;

use secrecy::SecretString;

pub use sqlite::{
    Administration, Friends, Place, SqliteDirectory, Who, admin, backup, check_backup, restore,
};

/// The directory's file cannot be used; in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryError(String);

impl DirectoryError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Where a push goes.
#[derive(Debug, Clone)]
pub(crate) struct PushAddress {
    /// The receiver's notification token, if they have one.
    pub(crate) token: Option<SecretString>,
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DirectoryError {}
