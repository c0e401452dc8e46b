//! A load generator for any MQTT broker that serves the topics of PROTOCOL.md.
//!
//! # Layout
//!
//! - this file: what is to be done, to which server ([`Plan`]), and the [`BenchError`] of all of it. `command`: its command line.
//! - `pairs`, `offline`, `idle`, `reconnect`: the four workloads. `prepare`: accounts for them.
//! - `swarm`: all clients and the one loop that reads, answers and writes for them. `outbound`: a sender.
//!   `link`: a socket. `handshake`: what is written besides messages.
//! - `message`: what is sent, with a number and a time in it. `ledger`: what became of it.
//! - `users`: who they are. `broker`: the broker's CPU time and memory.
//! - `report`: the figures as JSON and as a table. `progress`: the bar on a terminal.
//!
//! One thread does everything and asks for nothing but sockets: whatever has come in is read and
//! decoded before anything is written, and each client's answers leave with one write, so that the
//! generator costs a fraction of what it measures. Everything is bounded in count and in time.

mod broker;
mod command;
mod handshake;
mod idle;
mod ledger;
mod link;
mod message;
mod offline;
mod outbound;
mod pairs;
mod prepare;
mod progress;
mod reconnect;
mod report;
mod swarm;
#[cfg(test)]
mod tests;
mod users;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use jam_mqtt::cli::program;
use jam_wire::packet::{QoS, Version};

use command::JamBench;
use report::Report;
use users::Roster;

fn main() -> ExitCode {
    program::run(JamBench::run)
}

/// What all workloads have in common.
#[derive(Debug)]
struct Plan {
    /// The broker.
    broker: SocketAddr,
    /// What is spoken.
    version: Version,
    /// Of every PUBLISH and every subscription.
    qos: QoS,
    /// Bytes of a payload.
    size: usize,
    /// Whose CPU time and memory are read.
    broker_pid: Option<u32>,
    /// How many clients may be between connect() and the last answer of their handshake.
    concurrency: usize,
    /// How long connecting all clients, or waiting for the next message, may take.
    patience: Duration,
    /// Whether to draw a progress bar, if there is a terminal.
    progress: bool,
    /// Who they are: 2k and 2k + 1 are friends.
    roster: Roster,
}

/// Why a workload could not be carried out; in words that say what to do.
#[derive(Debug)]
struct BenchError(String);

impl BenchError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

/// The first address of `host:port`.
fn resolve(broker: &str) -> Result<SocketAddr, BenchError> {
    let mut addresses = broker.to_socket_addrs().map_err(|error| {
        BenchError::new(format!(
            "{broker} is no address to connect to ({error}); give HOST:PORT"
        ))
    })?;
    addresses
        .next()
        .ok_or_else(|| BenchError::new(format!("{broker} has no address")))
}
