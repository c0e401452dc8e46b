//! The rules of jam: who may connect, write and read; sessions; mailboxes.
//!
//! # Layout
//!
//! - [`time`], [`ids`], [`source`], [`message`]: the nouns; [`timekeeping`] makes one time of several clocks.
//! - [`directory`]: accounts and friendships as the rules see them; [`friends`]: as users are shown theirs.
//! - [`policy`]: the four handlers, one table; [`payload`] and [`attempts`] are what two of its rows ask.
//! - [`connection`]: one network connection, from packets to bytes; [`output`] holds the bytes.
//! - [`router`]: every user's state (`user`, `session`, `mailbox`), and the wakes; [`link`] is what
//!   others hold of a connection.
//! - [`store`]: where messages are kept. [`metrics`]: what is counted.
//!
//! Invariants: nothing here reads a socket, a file or a clock, nothing waits, and nothing is random but
//! the keys of hash tables. Whatever needs the time gets it as an argument.

#![forbid(unsafe_code)]

pub mod attempts;
pub mod connection;
pub mod directory;
pub mod friends;
pub mod ids;
pub mod link;
pub mod loads;
mod mailbox;
pub mod message;
pub mod metrics;
pub mod output;
pub mod payload;
pub mod policy;
pub mod push;
pub mod rate;
pub mod router;
mod session;
pub mod source;
pub mod store;
pub mod time;
pub mod timekeeping;
mod user;

pub use mailbox::MAX_DEVICES;
pub use session::MAX_SUBSCRIPTIONS;
pub use user::{
    AWAY, DueWill, EndedAccounts, KEEPING_UP, MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES, MAX_RETAINED,
    UserLimits, VANISHED_KEPT,
};
