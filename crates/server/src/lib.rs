//! The jam server: everything that touches the world.
//!
//! # Layout
//!
//! - [`serve`]: starting and stopping; everything is wired together here.
//! - `listener`, [`tls`]: sockets to tasks. `permits`: how many there may be, and that none is left.
//!   `threads`: which thread serves which.
//! - `connection`: the loop that owns a socket and its bytes. `websocket`: a WebSocket as such a stream.
//! - `deferred_acks`: acknowledgements are reaped with the next message, without a wake-up of their own.
//! - `admin`: what operators are served. `http`, `health`: what clients are served besides MQTT.
//! - `housekeeping`: what is done without a packet asking for it. `presence`: telling friends who is there; `friends`: telling users who their friends are.
//!   `clock`: the time. `ticks`: what is done again and again.
//! - [`cli`]: the commands. [`client`]: a small MQTT client for two of them. [`logging`]: the logs.
//!   `client_log`: what they say of single clients. `events`: what the admin API does.
//! - [`directory`]: accounts and friendships, in a file that other processes write to.
//! - [`postgres`]: connections to PostgreSQL.
//! - [`push`]: telling the phones of those who are away.
//! - [`limits`]: what anybody can make the server hold, write and do.
//! - [`settings`]: file, environment and flags into one checked [`settings::Settings`]. `named_file`: small files that they
//!   name. `folders`, `file_uri`: where files are, for all that make or open some.

mod admin;
mod admin_bounds;
mod chat_page;
pub mod cli;
pub mod client;
mod client_log;
mod clock;
mod connection;
mod deferred_acks;
mod descriptors;
pub mod directory;
#[cfg(test)]
mod documents;
mod events;
mod file_uri;
mod folders;
mod friends;
mod handshakes;
mod health;
mod heard;
mod housekeeping;
mod http;
pub mod limits;
mod listener;
pub mod logging;
pub mod mailbox;
mod metrics;
mod named_file;
mod permissions;
mod permits;
pub mod postgres;
mod presence;
mod proxy_protocol;
pub mod push;
pub mod serve;
pub mod settings;
mod spans;
mod static_files;
mod systemd;
mod threads;
mod ticks;
pub mod tls;
mod turns;
mod watchdog;
mod websocket;
