//! A PROXY header as bytes: which of those that arrive belong to it, and the source that it names. Knows no socket.
//!
//! Invariants: it takes its own bytes only, however they are split, and never more than [`MAX_V1_BYTES`] or
//! [`MAX_V2_BYTES`] (`fuzz/bodies/proxy.rs`).

use std::net::IpAddr;

use proxy_header::{ParseConfig, ProxyHeader};

/// Bytes of a header of version 1, its end included: what the specification allows.
pub(crate) const MAX_V1_BYTES: usize = 107;

/// Bytes of a header of version 2, further fields (TLVs) included.
pub(crate) const MAX_V2_BYTES: usize = 4096;

/// How a header of version 1 begins.
pub(crate) const V1_BEGINS: &[u8] = b"PROXY ";

/// How a header of version 2 begins, and its length before the addresses.
pub(crate) const V2_BEGINS: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// Version 2 and the command LOCAL: the proxy speaks for itself.
const V2_LOCAL: u8 = 0x20;

/// Why what has arrived is not a header that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It does not begin as one.
    Missing,
    /// It is not well-formed, or too long.
    Malformed,
}

/// What has arrived of a header.
#[derive(Debug, Default)]
pub(crate) struct Header(Vec<u8>);

impl Header {
    /// Takes from `arrived`, which is not empty, what belongs to the header, one byte or more; how many bytes that is.
    ///
    /// # Errors
    /// As soon as it cannot be a header, or is too long.
    pub(crate) fn take(&mut self, arrived: &[u8]) -> Result<usize, HeaderFault> {
        let mut taken = 0;
        while taken < arrived.len() && !self.is_whole() {
            let part = self.part(&arrived[taken..]);
            self.0.extend_from_slice(&arrived[taken..taken + part]);
            taken += part;
            if !may_be_header(&self.0) {
                return Err(HeaderFault::Missing);
            }
            if self.is_too_long() {
                return Err(HeaderFault::Malformed);
            }
        }
        Ok(taken)
    }

    /// How many of the bytes that come next belong to the part of the header that has begun.
    fn part(&self, next: &[u8]) -> usize {
        let len = self.0.len();
        let part = if len == 0 {
            1 // the two versions differ in it
        } else if self.is_version_1() {
            let end = next.iter().position(|byte| *byte == b'\n');
            end.map_or(next.len(), |end| end + 1)
                .min(MAX_V1_BYTES - len)
        } else {
            self.v2_len().unwrap_or(V2_FIXED) - len
        };
        part.min(next.len())
    }

    fn is_too_long(&self) -> bool {
        if self.is_version_1() {
            self.0.len() == MAX_V1_BYTES && !self.is_whole()
        } else {
            self.v2_len() > Some(MAX_V2_BYTES)
        }
    }

    fn is_version_1(&self) -> bool {
        self.0.first() == V1_BEGINS.first()
    }

    /// Whether there is nothing more to take.
    pub(crate) fn is_whole(&self) -> bool {
        if self.is_version_1() {
            self.0.ends_with(b"\n")
        } else {
            self.v2_len() == Some(self.0.len())
        }
    }

    /// Bytes of a header of version 2 whose length has arrived.
    fn v2_len(&self) -> Option<usize> {
        let len = self.0.get(V2_FIXED - 2..V2_FIXED)?;
        Some(V2_FIXED + usize::from(u16::from_be_bytes([len[0], len[1]])))
    }

    /// The source address that a whole header names. `None`: the proxy speaks for itself (`LOCAL`, `UNKNOWN`).
    ///
    /// # Errors
    /// If it is not well-formed.
    pub(crate) fn source(&self) -> Result<Option<IpAddr>, HeaderFault> {
        if !self.is_version_1() && self.0.get(V2_BEGINS.len()) == Some(&V2_LOCAL) {
            // Its family and addresses are to be ignored, whatever they are.
            return Ok(None);
        }
        let config = ParseConfig {
            include_tlvs: false,
            ..ParseConfig::default()
        };
        match ProxyHeader::parse(&self.0, config) {
            Ok((parsed, len)) if len == self.0.len() => Ok(parsed
                .proxied_address()
                .map(|it| it.source.ip().to_canonical())),
            _ => Err(HeaderFault::Malformed),
        }
    }
}

/// Whether bytes are a header, or the beginning of one.
pub(crate) fn may_be_header(bytes: &[u8]) -> bool {
    let begins = |greeting: &[u8]| {
        let len = greeting.len().min(bytes.len());
        greeting[..len] == bytes[..len]
    };
    begins(V1_BEGINS) || begins(V2_BEGINS)
}
