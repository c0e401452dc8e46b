//! Kills the release binary at random moments and checks what it has kept (PROTOCOL.md, section 7).
//!
//! # Layout
//!
//! - [`server`]: the binary as a process, its data directory and the databases it runs on. [`database`]: PostgreSQL, if it
//!   is that, and what befalls it.
//! - [`wire`]: one connection, packet by packet; all that is known of MQTT here comes from `jam-wire`.
//! - [`person`]: a client with a session, as real ones are: it keeps packet ids and sends again.
//! - [`ledger`]: the independent log: what was acknowledged to senders, what arrived, what was acknowledged
//!   back. It alone says whether a promise was broken.
//! - [`rounds`]: load, a kill of the server or a fault of the database, restart, over and over; now and then everybody
//!   fetches what is theirs.
//!
//! Invariants: one thread moves all clients, so that the ledger's order is the order of what happened; a
//! seed gives the same load, though not the same moments, since the server runs by itself.

pub mod database;
pub mod ledger;
pub mod person;
pub mod rounds;
pub mod server;
pub mod wire;
