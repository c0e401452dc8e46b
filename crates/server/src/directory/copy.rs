//! Copies the accounts of one database into another, of any kinds: accounts, friendships and device ids as PROTOCOL.md,
//! section 6, names them. Other columns and tables are not copied.
//!
//! Invariants: the target is empty before, and holds everything or nothing afterwards; ids, tokens and lives stay as they
//! are; an id that was ever given is not given again.

use std::fmt;

use jam_core::directory::{Mark, SHA_256_LEN};
use secrecy::SecretString;
use serde::Serialize;

use super::{DirectoryError, Reply};

/// Rows that are read, and written, at once.
pub(super) const AT_ONCE: u32 = 1000;

/// How much an accounts database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct HeldAccounts {
    /// Accounts.
    pub accounts: u64,
    /// Rows of friendships: two for each.
    pub friends: u64,
    /// Device ids that the first implementation's web server has noted.
    pub devices: u64,
}

impl fmt::Display for HeldAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accounts,
            friends,
            devices,
        } = self;
        write!(
            f,
            "{accounts} accounts, {friends} rows of friendships, {devices} device ids"
        )
    }
}

/// An API token as it is kept.
pub(super) enum StoredToken {
    /// As its user sends it.
    Clear(String),
    /// Its SHA-256, and the mark by which sessions remember it.
    Hashed { mark: Mark, hash: [u8; SHA_256_LEN] },
}

/// A row of `accounts`.
pub(super) struct AccountRow {
    pub(super) id: i64,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) notification_token: Option<SecretString>,
    pub(super) token: Option<StoredToken>,
    pub(super) inactive: Option<bool>,
    pub(super) public_key: Option<String>,
}

/// A row of `user_friends`.
pub(super) struct FriendRow {
    pub(super) user: i64,
    pub(super) friend: i64,
    pub(super) blocked: Option<bool>,
    pub(super) been_blocked: Option<bool>,
}

/// A row of `user_devices`.
pub(super) struct DeviceRow {
    pub(super) user: i64,
    pub(super) device: Option<String>,
}

/// Some rows of one table.
pub(super) enum CopiedRows {
    Accounts(Vec<AccountRow>),
    Friends(Vec<FriendRow>),
    Devices(Vec<DeviceRow>),
}

/// A snapshot of a database, read [`AT_ONCE`] rows at a time in the order of their keys.
pub(super) trait CopySource: Send {
    /// Accounts with ids above `after`.
    fn accounts(&mut self, after: i64) -> Reply<'_, Vec<AccountRow>>;

    /// Friends whose pairs of ids come after `after`.
    fn friends(&mut self, after: (i64, i64)) -> Reply<'_, Vec<FriendRow>>;

    /// Device ids of users above `after`.
    fn devices(&mut self, after: i64) -> Reply<'_, Vec<DeviceRow>>;

    /// The highest id that an account has ever had.
    fn last_id(&mut self) -> Reply<'_, i64>;
}

/// The target: an empty database that is filled.
pub(super) trait CopyTarget: Send {
    /// Adds these.
    fn put(&mut self, rows: CopiedRows) -> Reply<'_, ()>;

    /// Commits everything, reserves the ids up to `last_id`, and counts what there is.
    fn keep<'a>(self: Box<Self>, last_id: i64) -> Reply<'a, HeldAccounts>
    where
        Self: 'a;
}

/// Fills `to` with what `from` holds.
///
/// # Errors
/// If one cannot be read or the other not be written; the other one is then as it was.
pub(super) async fn fill(
    mut from: Box<dyn CopySource>,
    mut to: Box<dyn CopyTarget>,
) -> Result<HeldAccounts, DirectoryError> {
    let mut read = HeldAccounts::default();
    let mut after = i64::MIN;
    loop {
        let rows = from.accounts(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        read.accounts += rows.len() as u64;
        to.put(CopiedRows::Accounts(rows)).await?;
    }
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let rows = from.friends(after).await?;
        let Some(last) = rows.last() else { break };
        after = (last.user, last.friend);
        read.friends += rows.len() as u64;
        to.put(CopiedRows::Friends(rows)).await?;
    }
    let mut after = i64::MIN;
    loop {
        let rows = from.devices(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.user;
        read.devices += rows.len() as u64;
        to.put(CopiedRows::Devices(rows)).await?;
    }
    let held = to.keep(from.last_id().await?).await?;
    if held != read {
        return Err(DirectoryError::new(format!(
            "the copy of the accounts holds {held} where {read} was read: do not use it"
        )));
    }
    Ok(held)
}

/// The target is not empty.
pub(super) fn not_empty(place: &str) -> DirectoryError {
    DirectoryError::new(format!(
        "the accounts database {place} is not empty: name a new one, or empty it first"
    ))
}
