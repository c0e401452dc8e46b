//! Failed authentications (PROTOCOL.md, section 8, first bullet).
//!
//! A failure counts for its client id at its source address, and for the address; both have the same limit.
//! So each address has one log of failures, each with its client id. A success clears the count of its
//! address and the count of its client id there. The count of every other client id stays: who has a token
//! of his own cannot win more guesses at somebody else's by logging in between, and nobody is held up by
//! failures at another address.
//!
//! Bounds: [`MAX_ADDRESSES`] logs of at most `LOGS` times `limit + 1` failures.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::ids::ClientId;
use crate::time::Time;

#[cfg(test)]
mod tests;

/// Source addresses whose failures are remembered; beyond, the one that failed longest ago is forgotten.
pub const MAX_ADDRESSES: usize = 16_384;

/// How many client ids' worth of failures one address's log holds; beyond, the oldest is forgotten.
const LOGS: usize = 4;

/// The log of failed authentications.
#[derive(Debug)]
pub struct Attempts {
    limit: usize,
    window: Duration,
    failures: HashMap<IpAddr, VecDeque<Failure>, RandomState>,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    at: Time,
    /// A hash under this process's key.
    client: u64,
    /// Whether it still counts for the address: there was no success since.
    counts_for_address: bool,
}

impl Attempts {
    /// Refuses when there were more than `limit` failures within `window`.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit: limit as usize,
            window,
            failures: HashMap::default(),
        }
    }

    /// Whether an attempt under this client id from this address is refused for now.
    pub fn exhausted(&mut self, client: &ClientId, address: IpAddr, now: Time) -> bool {
        let (window, client) = (self.window, self.hash(client));
        let Some(failures) = self.failures.get_mut(&source(address)) else {
            return false;
        };
        failures.retain(|failure| now.since(failure.at) < window);
        let count =
            |counts: &dyn Fn(&Failure) -> bool| failures.iter().filter(|it| counts(it)).count();
        count(&|it| it.counts_for_address) > self.limit
            || count(&|it| it.client == client) > self.limit
    }

    /// An authentication has failed.
    pub fn failed(&mut self, client: &ClientId, address: IpAddr, now: Time) {
        let address = source(address);
        if self.failures.len() >= MAX_ADDRESSES && !self.failures.contains_key(&address) {
            self.make_room(now);
        }
        let client = self.hash(client);
        let failures = self.failures.entry(address).or_default();
        if failures.len() >= LOGS * (self.limit + 1) {
            failures.pop_front();
        }
        failures.push_back(Failure {
            at: now,
            client,
            counts_for_address: true,
        });
    }

    /// An authentication has succeeded.
    pub fn succeeded(&mut self, client: &ClientId, address: IpAddr) {
        let (address, client) = (source(address), self.hash(client));
        if let Some(failures) = self.failures.get_mut(&address) {
            failures.retain(|failure| failure.client != client);
            failures
                .iter_mut()
                .for_each(|failure| failure.counts_for_address = false);
            if failures.is_empty() {
                self.failures.remove(&address);
            }
        }
    }

    fn hash(&self, client: &ClientId) -> u64 {
        self.failures.hasher().hash_one(client)
    }

    fn make_room(&mut self, now: Time) {
        let window = self.window;
        let last = |failures: &VecDeque<Failure>| failures.back().map(|failure| failure.at);
        self.failures
            .retain(|_, log| last(log).is_some_and(|at| now.since(at) < window));
        if self.failures.len() >= MAX_ADDRESSES {
            let oldest = self.failures.iter().min_by_key(|(_, log)| last(log));
            if let Some(address) = oldest.map(|(address, _)| *address) {
                self.failures.remove(&address);
            }
        }
    }
}

/// Where an attempt comes from: an IPv4 address, or the /64 that one IPv6 host may use as it likes.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}
