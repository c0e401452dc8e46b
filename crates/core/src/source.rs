//! Where a connection comes from, as far as it is counted (PROTOCOL.md, section 8).
//!
//! One host may use any address of its IPv6 /64, so that is one source, as one IPv4 address is. Everything
//! that is counted by origin counts by [`Source`]: failed authentications, connections, half-open
//! connections, TLS handshakes. A log line names the address itself.
//!
//! Invariant: an IPv4-mapped IPv6 address is the IPv4 address (`an_address_has_one_source`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// One address.
    V4([u8; 4]),
    /// A /64.
    V6([u8; 8]),
}

impl Source {
    /// The source that an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// The network that one party is likely to have as a whole: an IPv4 /24, an IPv6 /48.
    #[must_use]
    pub(crate) fn network(self) -> Self {
        match self {
            Self::V4([a, b, c, _]) => Self::V4([a, b, c, 0]),
            Self::V6([a, b, c, d, e, f, ..]) => Self::V6([a, b, c, d, e, f, 0, 0]),
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self::of(address)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(octets) => write!(f, "{}", Ipv4Addr::from(*octets)),
            Self::V6(octets) => {
                let bits = u128::from(u64::from_be_bytes(*octets)) << 64;
                write!(f, "{}/64", Ipv6Addr::from_bits(bits))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn an_address_has_one_source() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_eq!(source("2001:db8::9").to_string(), "2001:db8::/64");
        assert_eq!(source("::ffff:10.0.0.1").to_string(), "10.0.0.1");
    }

    #[test]
    fn a_network_holds_its_sources() {
        let network = |address: &str| source(address).network();
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_eq!(network("10.0.0.1"), network("10.0.0.200"));
        assert_ne!(network("10.0.0.1"), network("10.0.1.1"));
    }
}
