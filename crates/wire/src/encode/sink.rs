//! Where bytes go: into a buffer, or only into a count.
//!
//! Invariant: a packet's length is found by the same code that writes it, so the two cannot differ.

use bytes::{BufMut, BytesMut};

/// Takes the data types of MQTT (section 1.5 of 5.0).
pub(super) trait Sink {
    fn raw(&mut self, bytes: &[u8]);

    /// A variable byte integer; `value` is at most [`crate::MAX_VARINT`] when it is written.
    fn varint(&mut self, value: usize);

    /// Bytes after their length in two bytes.
    fn binary(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }
}

/// Counts.
#[derive(Default)]
pub(super) struct Counter {
    pub(super) len: usize,
    /// The length of a string that two bytes cannot say.
    pub(super) too_long: Option<usize>,
}

impl Sink for Counter {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
    }

    #[inline]
    fn varint(&mut self, value: usize) {
        self.len += varint_len(value);
    }

    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        if bytes.len() > usize::from(u16::MAX) {
            self.too_long = Some(bytes.len());
        }
        self.len += 2 + bytes.len();
    }
}

impl Sink for BytesMut {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    fn varint(&mut self, value: usize) {
        let (bytes, len) = varint(value);
        self.put_slice(&bytes[..len]);
    }

    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).expect("the counter has refused longer ones");
        self.put_slice(&len.to_be_bytes());
        self.put_slice(bytes);
    }
}

/// How many bytes a variable byte integer takes: 1 to 4.
#[inline]
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// A variable byte integer in its shortest form, and the number of bytes of it.
#[inline]
pub(super) fn varint(value: usize) -> ([u8; 4], usize) {
    let len = varint_len(value);
    let mut bytes = [0; 4];
    let mut rest = value;
    for byte in &mut bytes[..len] {
        *byte = rest.to_le_bytes()[0] | 0x80;
        rest >>= 7;
    }
    bytes[len - 1] &= 0x7F;
    (bytes, len)
}
