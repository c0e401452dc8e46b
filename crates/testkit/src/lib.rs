//! Two parties and a server on a virtual clock, without a socket.
//!
//! # Layout
//!
//! - [`mod@bench`]: a router, its connections and the time, which is made of `clocks` that may be wrong, step
//!   and sleep; [`client`] is one party, byte for byte.
//! - [`directory`], [`store`]: a directory and a store that do as they are told, badly if need be.
//! - [`disk`]: a store with a file that survives a crash.
//! - [`packets`]: what scenarios write often.
//! - [`simulator`]: random operations of well-behaved parties against a model; [`hostile`]: of others.
//!   [`random`] decides, from a seed or from a fuzzer's bytes.
//! - `postgres` and `cut`, with the feature `real`: servers of PostgreSQL as processes, and a TCP proxy that cuts
//!   connections.
//!
//! Invariants: nothing here waits, sleeps or reads a clock, those two apart; the same seed gives the same run; every loop
//! has a bound, so that a livelock is a failed test.

pub mod bench;
pub mod client;
mod clocks;
#[cfg(feature = "real")]
pub mod cut;
pub mod directory;
pub mod disk;
mod end;
mod friends;
pub mod hostile;
pub mod packets;
#[cfg(feature = "real")]
pub mod postgres;
mod presence;
pub mod random;
pub mod simulator;
pub mod store;

pub use bench::Bench;
pub use client::Client;
pub use directory::FakeDirectory;
