//! PROXY protocol, versions 1 and 2: where a connection comes from, as the proxy in front of the server says.
//!
//! A header is read on the listeners that `listen.proxy_protocol` names, from the networks that it names, and
//! there it is required. It comes before TLS. Nothing of it but the source address is used.
//!
//! Invariants: a header is believed from those networks only (`a_header_from_elsewhere`); it is never longer
//! than [`MAX_V1_BYTES`] or [`MAX_V2_BYTES`]; no byte that follows it is read (`what_follows_stays`).

use std::fmt;
use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Bytes of a header of version 1, its end included: what the specification allows.
const MAX_V1_BYTES: usize = 107;

/// Bytes of a header of version 2, further fields (TLVs) included.
const MAX_V2_BYTES: usize = 4096;

/// How a header of version 1 begins, and the shortest one.
const V1_BEGINS: &[u8] = b"PROXY ";
const V1_SHORTEST: usize = "PROXY UNKNOWN\r\n".len();

/// How a header of version 2 begins, and its length before the addresses.
const V2_BEGINS: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

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

/// Reads the header and no more. `None`: the proxy speaks for itself (`LOCAL`, `UNKNOWN`), as for a health check.
///
/// # Errors
/// If what comes is no header, or the connection breaks.
pub(crate) async fn read_header(stream: &mut TcpStream) -> Result<Option<IpAddr>, HeaderError> {
    let mut header = Vec::with_capacity(MAX_V1_BYTES);
    // What is no header is noticed at its first byte, however little comes.
    while header.len() < V1_SHORTEST {
        let rest = V1_SHORTEST - header.len();
        if stream.take(rest as u64).read_buf(&mut header).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if !may_be_header(&header) {
            return Err(HeaderError::Missing);
        }
    }
    if header.starts_with(V2_BEGINS) {
        read_more(stream, &mut header, V2_FIXED - V1_SHORTEST).await?;
        let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if V2_FIXED + len > MAX_V2_BYTES {
            return Err(HeaderError::Malformed);
        }
        read_more(stream, &mut header, len).await?;
    } else {
        read_line(stream, &mut header).await?;
    }
    source(&header)
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

fn may_be_header(bytes: &[u8]) -> bool {
    let begins = |greeting: &[u8]| {
        let len = greeting.len().min(bytes.len());
        greeting[..len] == bytes[..len]
    };
    begins(V1_BEGINS) || begins(V2_BEGINS)
}

async fn read_more(stream: &mut TcpStream, header: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let start = header.len();
    header.resize(start + len, 0);
    stream.read_exact(&mut header[start..]).await.map(drop)
}

/// Reads up to the end of the line: what is there is looked at before it is taken.
async fn read_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), HeaderError> {
    while !header.ends_with(b"\n") {
        let mut ahead = [0; MAX_V1_BYTES];
        let room = MAX_V1_BYTES - header.len();
        let len = match stream.peek(&mut ahead[..room]).await? {
            0 if room == 0 => return Err(HeaderError::Malformed),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            len => len,
        };
        let end = ahead[..len].iter().position(|byte| *byte == b'\n');
        read_more(stream, header, end.map_or(len, |end| end + 1)).await?;
    }
    Ok(())
}

/// The source address that a whole header names.
fn source(header: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, len)) if len == header.len() => Ok(parsed
            .proxied_address()
            .map(|it| it.source.ip().to_canonical())),
        _ => Err(HeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests;
