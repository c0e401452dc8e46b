//! Bytes to packets.
//!
//! A [`Decoder`] belongs to one direction of one connection. It takes packets off the front of a
//! buffer that its caller fills.
//!
//! Invariants: a packet's size is compared with the limit before memory is reserved for it; an
//! incomplete packet costs a look at its first five bytes, however often it is tried; strings and
//! payloads are slices of the buffer; what the standard calls malformed or a protocol error never
//! becomes a [`Packet`]; an error is final. Checked by `tests/vectors.rs`, `tests/round_trip.rs`
//! and `tests/differential.rs`.
//!
//! What is an operator's policy rather than the standard's syntax is let through: wildcards and `$`
//! in topic names, the syntax of topic filters, client identifiers of any length, payloads of any kind.

mod connect;
mod properties;
mod publish;
mod reader;
mod subscribe;

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::packet::{Packet, Version};
use crate::reason::ReasonCode;
use reader::Reader;

/// Topic filters of one SUBSCRIBE or UNSUBSCRIBE: as many as a session has, and no filter of a packet with more is
/// kept in memory.
pub const MAX_FILTERS: usize = 256;

/// Why bytes are not a packet. It holds nothing of what was received but numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// It cannot be parsed (5.0, section 1.2, Malformed Packet).
    Malformed(&'static str),
    /// It can be parsed, and is not allowed (5.0, section 1.2, Protocol Error).
    Protocol(&'static str),
    /// The packet announces more bytes, fixed header included, than the limit.
    TooLarge {
        /// Bytes, the fixed header included.
        size: usize,
        /// The limit it exceeds.
        limit: usize,
    },
    /// A SUBSCRIBE or UNSUBSCRIBE has more than [`MAX_FILTERS`].
    TooManyFilters,
    /// A CONNECT with a known protocol name and this protocol level.
    UnsupportedVersion(u8),
}

impl DecodeError {
    /// What a CONNACK or DISCONNECT of 5.0 says about it.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::Malformed(_) => ReasonCode::MalformedPacket,
            Self::Protocol(_) => ReasonCode::ProtocolError,
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::TooManyFilters => ReasonCode::QuotaExceeded,
            Self::UnsupportedVersion(_) => ReasonCode::UnsupportedProtocolVersion,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed packet: {what}"),
            Self::Protocol(what) => write!(f, "protocol error: {what}"),
            Self::TooLarge { size, limit } => {
                write!(f, "packet of {size} bytes is over the limit of {limit}")
            }
            Self::TooManyFilters => write!(f, "more than {MAX_FILTERS} topic filters"),
            Self::UnsupportedVersion(level) => write!(f, "protocol level {level} is not supported"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// What there is to return, all the way up: a packet that is wrapped at each step is also copied at
/// each step.
type Decoded = Result<Option<Packet>, DecodeError>;

/// Which end of the connection decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Takes packets off the front of a buffer.
#[derive(Debug, Clone)]
pub struct Decoder {
    side: Side,
    version: Option<Version>,
    max_packet: usize,
    /// In a box: it is rare, and every connection has a decoder.
    failed: Option<Box<DecodeError>>,
}

/// What the fixed header says: at most five bytes.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u8,
    flags: u8,
    /// Bytes of the fixed header itself.
    len: usize,
    /// Bytes after the fixed header.
    remaining: usize,
}

/// The packet types (section 2.1.2 of 5.0).
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const SUBACK: u8 = 9;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const UNSUBACK: u8 = 11;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const PINGRESP: u8 = 13;
    pub(super) const DISCONNECT: u8 = 14;
    pub(super) const AUTH: u8 = 15;
}

impl Decoder {
    /// For what a client sends. The first packet must be a CONNECT, which tells the version.
    ///
    /// `max_packet` is in bytes, the fixed header included.
    #[must_use]
    pub fn server(max_packet: usize) -> Self {
        Self {
            side: Side::Server,
            version: None,
            max_packet,
            failed: None,
        }
    }

    /// For what a server sends to a client that speaks `version`.
    ///
    /// `max_packet` is in bytes, the fixed header included.
    #[must_use]
    pub fn client(version: Version, max_packet: usize) -> Self {
        Self {
            side: Side::Client,
            version: Some(version),
            max_packet,
            failed: None,
        }
    }

    /// Sets the limit, in bytes, for the packets that have not been returned yet.
    pub fn set_max_packet(&mut self, max_packet: usize) {
        self.max_packet = max_packet;
    }

    /// What the connection speaks: known once the protocol level of a CONNECT was read, even if
    /// the rest of that CONNECT is in error.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Takes the first packet off `buf`; `None` when more bytes are needed.
    ///
    /// On `None`, `buf` has room for the rest of the packet, if its length is known, and no more
    /// than that is reserved: a caller that reads ahead reserves for itself.
    ///
    /// # Errors
    ///
    /// What is not a packet, or not one that may stand here. The connection is then to be closed
    /// (section 4.8 of 3.1.1, 4.13 of 5.0): every later call returns the same error.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        if let Some(error) = self.failed.as_deref() {
            return Err(*error);
        }
        let result = self.next(buf);
        if let Err(error) = result {
            self.failed = Some(Box::new(error));
        }
        result
    }

    #[inline]
    fn next(&mut self, buf: &mut BytesMut) -> Decoded {
        let Some(&first) = buf.first() else {
            return Ok(None);
        };
        let (kind, flags) = (first >> 4, first & 0x0F);
        self.check_first_byte(kind, flags)?;
        let Some((remaining, length_len)) = reader::varint(&buf[1..])? else {
            return Ok(None);
        };
        let remaining = usize::try_from(remaining).expect("28 bits fit a usize");
        let header = Header {
            kind,
            flags,
            len: 1 + length_len,
            remaining,
        };
        let size = header.len + remaining;
        if size > self.max_packet {
            if kind == kind::CONNECT && self.version.is_none() {
                self.version = connect::peek_version(&buf[header.len..]);
            }
            return Err(DecodeError::TooLarge {
                size,
                limit: self.max_packet,
            });
        }
        if buf.len() < size {
            reserve_exact(buf, size);
            return Ok(None);
        }
        self.body(header, buf)
    }

    /// What the first byte alone can say: the packet type and the flags that are fixed for it
    /// (section 2.2.2 of 3.1.1, 2.1.3 of 5.0).
    fn check_first_byte(&self, kind: u8, flags: u8) -> Result<(), DecodeError> {
        // The flags of a CONNECT depend on the version that it is about to tell.
        let Some(version) = self.version else {
            return match kind {
                kind::CONNECT => Ok(()),
                _ => Err(DecodeError::Protocol("first packet is not a CONNECT")),
            };
        };
        let flags_are_right = match kind {
            kind::PUBLISH | kind::CONNECT => true,
            // 3.1 knows DUP here, and does not use RETAIN.
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE if version == Version::V3 => {
                flags & 0b0110 == 0b0010
            }
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => flags == 0b0010,
            0 => return Err(DecodeError::Malformed("packet type 0")),
            kind::AUTH if version != Version::V5 => {
                return Err(DecodeError::Malformed("packet type 15"));
            }
            // 3.1 does not use the flags of the other packets.
            _ => flags == 0 || version == Version::V3,
        };
        if flags_are_right {
            Ok(())
        } else {
            Err(DecodeError::Malformed("reserved flags of the fixed header"))
        }
    }

    /// Decodes a packet that is complete and takes it off `buf`.
    #[inline]
    fn body(&mut self, header: Header, buf: &mut BytesMut) -> Decoded {
        match header.kind {
            kind::PUBLISH => {
                let (side, version) = (self.side, known(self.version));
                publish::publish(header.flags, side, version, take(header, buf))
            }
            kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
                publish::ack(header, known(self.version), buf)
            }
            kind::CONNECT => self.connect(header, take(header, buf)).map(Some),
            _ => self
                .rare(header, known(self.version), take(header, buf))
                .map(Some),
        }
    }

    fn connect(&mut self, header: Header, mut reader: Reader) -> Result<Packet, DecodeError> {
        let version = connect::version(&mut reader)?;
        self.version.get_or_insert(version);
        connect::connect(header.flags, version, reader).map(Packet::Connect)
    }

    fn rare(
        &self,
        header: Header,
        version: Version,
        reader: Reader,
    ) -> Result<Packet, DecodeError> {
        Ok(match header.kind {
            kind::CONNACK => Packet::ConnAck(Box::new(connect::connack(version, reader)?)),
            kind::SUBSCRIBE => Packet::Subscribe(Box::new(subscribe::subscribe(version, reader)?)),
            kind::SUBACK => Packet::SubAck(Box::new(subscribe::suback(version, reader)?)),
            kind::UNSUBSCRIBE => {
                Packet::Unsubscribe(Box::new(subscribe::unsubscribe(version, reader)?))
            }
            kind::UNSUBACK => Packet::UnsubAck(Box::new(subscribe::unsuback(version, reader)?)),
            kind::DISCONNECT => {
                Packet::Disconnect(Box::new(connect::disconnect(self.side, version, reader)?))
            }
            kind::AUTH => Packet::Auth(Box::new(connect::auth(reader)?)),
            kind::PINGREQ => reader.finish().map(|()| Packet::PingReq)?,
            kind::PINGRESP => reader.finish().map(|()| Packet::PingResp)?,
            _ => return Err(DecodeError::Malformed("packet type 0")),
        })
    }
}

/// The version of a connection on which something else than a CONNECT was let through.
fn known(version: Option<Version>) -> Version {
    version.expect("the first byte of a packet before the CONNECT is refused")
}

/// Takes a complete packet off `buf` and skips its fixed header.
#[inline]
fn take(header: Header, buf: &mut BytesMut) -> Reader {
    let mut packet: Bytes = buf.split_to(header.len + header.remaining).freeze();
    packet.advance(header.len);
    Reader::new(packet)
}

/// Gives `buf` room for `size` bytes in all, and not a byte more than that if it must allocate.
fn reserve_exact(buf: &mut BytesMut, size: usize) {
    if buf.capacity() >= size || buf.try_reclaim(size - buf.len()) {
        return;
    }
    let mut larger = BytesMut::with_capacity(size);
    larger.extend_from_slice(buf);
    *buf = larger;
}
