//! PROXY protocol, versions 1 and 2: where a connection comes from, as the proxy in front of the server says.
//!
//! A header is read on the listeners that `listen.proxy_protocol` names, from the networks that it names, and
//! there it is required. It comes before TLS. Nothing of it but the source address is used.
//!
//! `header` has what is known of its bytes; this file knows the socket.
//!
//! Invariants: a header is believed from those networks only (`a_header_from_elsewhere`); no byte that follows it is read
//! (`what_follows_stays`).

mod header;

use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use header::{Header, HeaderFault, V2_BEGINS, may_be_header};

/// Bytes that are looked at before those of the header are taken: all of one without further fields.
const AHEAD_BYTES: usize = 256;

/// Why a connection is closed before anything is served on it.
#[derive(Debug)]
pub(crate) enum HeaderError {
    /// The peer is a proxy of ours, and what it sends is no header.
    Missing,
    /// A header that is not well-formed, or too long.
    Malformed,
    /// A header from a peer that is not believed.
    NotTrusted,
    /// The connection is broken.
    Io(io::Error),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("no PROXY header, where listen.proxy_protocol expects one")
            }
            Self::Malformed => f.write_str("malformed PROXY header"),
            Self::NotTrusted => f.write_str(
                "a PROXY header from an address that listen.proxy_protocol does not name",
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<HeaderFault> for HeaderError {
    fn from(fault: HeaderFault) -> Self {
        match fault {
            HeaderFault::Missing => Self::Missing,
            HeaderFault::Malformed => Self::Malformed,
        }
    }
}

/// Reads the header and no more. `None`: the proxy speaks for itself (`LOCAL`, `UNKNOWN`), as for a health check.
///
/// # Errors
/// If what comes is no header, or the connection breaks.
pub(crate) async fn read_header(stream: &mut TcpStream) -> Result<Option<IpAddr>, HeaderError> {
    let mut header = Header::default();
    while !header.is_whole() {
        let mut ahead = [0; AHEAD_BYTES];
        let there = stream.peek(&mut ahead).await?;
        if there == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let len = header.take(&ahead[..there])?;
        stream.read_exact(&mut ahead[..len]).await?;
    }
    Ok(header.source()?)
}

/// Waits for the first bytes of a peer that is no proxy of ours, and leaves them there.
///
/// # Errors
/// [`HeaderError::NotTrusted`] if they are the beginning of a header: it is not believed.
pub(crate) async fn expect_none(stream: &TcpStream) -> Result<(), HeaderError> {
    let mut first = [0; V2_BEGINS.len()];
    let len = stream.peek(&mut first).await?;
    // No MQTT, TLS or HTTP begins like this; of less than four bytes the listener's own reader says so.
    if len >= 4 && may_be_header(&first[..len]) {
        return Err(HeaderError::NotTrusted);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
