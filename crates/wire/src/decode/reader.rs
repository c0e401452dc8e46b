//! The data types of MQTT (sections 1.5 of 3.1.1 and 5.0), read from the front of one packet.
//!
//! Invariants: a read past the end is an error, never a panic; strings and binary data are slices of
//! the packet, never copies; every string is UTF-8 without U+0000.

use std::num::NonZeroU16;

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use super::DecodeError;
use crate::packet::PacketId;
use crate::property;

/// What is left of a packet, or of its properties.
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    /// What has not been read, to the end.
    pub(super) fn into_rest(self) -> Bytes {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Errors when something is left: a packet ends where its fields end.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("bytes after the last field"))
        }
    }

    fn need(&self, len: usize) -> Result<(), DecodeError> {
        if self.rest.len() < len {
            Err(ENDS_INSIDE)
        } else {
            Ok(())
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    /// A two-byte integer that must not be 0.
    pub(super) fn non_zero_u16(&mut self, zero: DecodeError) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16()?).ok_or(zero)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        self.non_zero_u16(DecodeError::Protocol("packet identifier is 0"))
    }

    /// A variable byte integer: at most four bytes, and no more than its value needs.
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = varint(&self.rest)?.ok_or(ENDS_INSIDE)?;
        self.rest.advance(len);
        Ok(value)
    }

    /// Skips a byte that is 0 and says whether it was: properties that are none.
    #[inline]
    pub(super) fn skip_zero(&mut self) -> bool {
        let is_zero = self.rest.first() == Some(&0);
        if is_zero {
            self.rest.advance(1);
        }
        is_zero
    }

    /// Whether the next byte is this one.
    pub(super) fn is_next(&self, byte: u8) -> bool {
        self.rest.first() == Some(&byte)
    }

    /// User Properties that stand one after another, with their identifiers, checked as [`Self::string`] does.
    pub(super) fn user_properties(&mut self) -> Result<Bytes, DecodeError> {
        let mut at = 0;
        while self.rest.get(at) == Some(&property::USER) {
            at = check_string(&self.rest, at + 1)?;
            at = check_string(&self.rest, at)?;
        }
        Ok(self.rest.split_to(at))
    }

    /// `len` bytes as a reader of their own.
    pub(super) fn split(&mut self, len: usize) -> Result<Self, DecodeError> {
        self.need(len)?;
        Ok(Self {
            rest: self.rest.split_to(len),
        })
    }

    /// Binary data: a length of two bytes, and that many bytes.
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::from(self.u16()?);
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// A string: binary data that is UTF-8 without U+0000.
    pub(super) fn string(&mut self) -> Result<ByteString, DecodeError> {
        let bytes = self.binary()?;
        if holds_nul(&bytes) {
            return Err(HOLDS_NUL);
        }
        ByteString::try_from(bytes).map_err(|_| NOT_UTF_8)
    }
}

const ENDS_INSIDE: DecodeError = DecodeError::Malformed("packet ends inside a field");
const HOLDS_NUL: DecodeError = DecodeError::Malformed("string holds U+0000");
const NOT_UTF_8: DecodeError = DecodeError::Malformed("string is not UTF-8");

/// Looks at the string that begins at `at`; where it ends.
fn check_string(bytes: &[u8], at: usize) -> Result<usize, DecodeError> {
    let from = at + 2;
    let len = bytes.get(at..from).ok_or(ENDS_INSIDE)?;
    let to = from + usize::from(u16::from_be_bytes([len[0], len[1]]));
    let text = bytes.get(from..to).ok_or(ENDS_INSIDE)?;
    if holds_nul(text) {
        return Err(HOLDS_NUL);
    }
    std::str::from_utf8(text).map_err(|_| NOT_UTF_8)?;
    Ok(to)
}

/// Whether a byte is 0, eight at a time: topics are too short for the vectors of `memchr`.
#[inline]
fn holds_nul(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The bits that are set mark zero bytes, and bytes above a zero byte: none if there is none.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, tail) = bytes.as_chunks::<8>();
    let found = words
        .iter()
        .fold(0, |found, word| found | zeros(u64::from_le_bytes(*word)));
    match bytes.last_chunk::<8>() {
        // The last eight overlap the words before them.
        Some(last) => found | zeros(u64::from_le_bytes(*last)) != 0,
        None => tail.contains(&0),
    }
}

/// The variable byte integer at the front of `bytes` and how many bytes it takes; `None` when it is
/// cut off. Section 2.2.3 of 3.1.1; 1.5.5 of 5.0, [MQTT-1.5.5-1].
#[inline]
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::Malformed("length is not in its shortest form"));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::Malformed("length takes more than four bytes"));
    }
    Ok(None)
}
