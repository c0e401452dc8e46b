//! Addresses to listen on and to connect to.

use std::fmt;
use std::str::FromStr;

/// `HOST:PORT`, where the host is an IP address (IPv6 in brackets) or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// The text is no [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidAddress;

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected HOST:PORT, such as 127.0.0.1:1883 or [::1]:1883")
    }
}

impl std::error::Error for InvalidAddress {}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let port_is_digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !port_is_digits || port.parse::<u16>().is_err() {
            return Err(InvalidAddress);
        }
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let well_formed = match in_brackets {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                !host.is_empty() && host.bytes().all(of_name)
            }
        };
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAddress)
        }
    }
}

impl Address {
    /// `HOST:PORT`, as tokio and the standard library resolve it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host alone, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let (host, _) = self.0.rsplit_once(':').expect("an address has a port");
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
