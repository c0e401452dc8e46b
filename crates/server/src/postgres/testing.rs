//! Real PostgreSQL servers for tests ([`jam_testkit::postgres`]), and their addresses as this crate reads them.

pub(crate) use jam_testkit::postgres::{TestDatabase, TestServer, database};

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
