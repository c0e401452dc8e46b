//! Real PostgreSQL servers for tests ([`jam_testkit::postgres`]), and their addresses as this crate reads them.

pub(crate) use jam_testkit::postgres::{TestDatabase, TestServer, database};

use std::net::TcpListener;

use super::Address;

pub(crate) trait HasAddress {
    /// Where it is, read.
    fn address(&self) -> Address;
}

impl HasAddress for TestDatabase {
    fn address(&self) -> Address {
        Address::parse(&self.url()).unwrap()
    }
}

/// The database behind hosts that let everybody in and say nothing, for as long as they are kept.
pub(crate) fn behind_silent_hosts(
    database: &TestDatabase,
    count: usize,
) -> (Vec<TcpListener>, Address) {
    let hosts: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let silent = hosts
        .iter()
        .map(|host| format!("{},", host.local_addr().unwrap()));
    let url = database
        .url()
        .replace('@', &format!("@{}", silent.collect::<String>()));
    (hosts, Address::parse(&url).unwrap())
}
