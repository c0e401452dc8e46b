//! The bytes that a connection has to write, in order.
//!
//! Small packets gather in one buffer; a large payload stays the shared buffer it came in and is
//! written as a slice of its own, so that no large payload is copied. What fills an output asks its
//! length first: see the bounds in [`crate::connection`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use jam_wire::encode::{self, EncodeError};
use jam_wire::packet::{Packet, Version};

#[cfg(test)]
mod tests;

/// Bytes of output beyond which nothing is fetched; one packet may exceed it.
pub const OUTPUT_ENOUGH: usize = 256 * 1024;

/// Payloads of at least this many bytes are not copied into the gathering buffer.
const SHARE_FROM: usize = 4096;

/// Room of a gathering buffer at first; most messages need no more.
const ROOM: usize = 1024;

/// A gathering buffer with more room is not kept.
const SPARE: usize = 2 * SHARE_FROM;

thread_local! {
    /// The buffer of the output that was written last: the next one that begins takes it up.
    static SPARE_BUFFER: Cell<BytesMut> = Cell::default();
}

/// Bytes to write. Reading it as a [`Buf`] takes them.
#[derive(Debug, Default)]
pub struct Output {
    /// `None` as long as no payload was large.
    pieces: Option<Box<Pieces>>,
    /// Where packets gather.
    tail: BytesMut,
}

/// Finished pieces, all before `tail`.
#[derive(Debug, Default)]
struct Pieces {
    queue: VecDeque<Bytes>,
    /// Nothing is to be written any more.
    discards: bool,
}

impl Output {
    /// Appends a packet.
    ///
    /// # Errors
    /// If the packet cannot be said in this version; nothing is appended then.
    pub(crate) fn push(&mut self, packet: &Packet, version: Version) -> Result<(), EncodeError> {
        if self.discards() {
            return Ok(());
        }
        if self.tail.capacity() == 0 {
            self.tail = SPARE_BUFFER.take();
            self.tail.reserve(ROOM);
        }
        if let Packet::Publish(publish) = packet
            && publish.payload.len() >= SHARE_FROM
        {
            encode::encode_publish_header(publish, version, &mut self.tail)?;
            let pieces = &mut self.pieces.get_or_insert_default().queue;
            pieces.push_back(self.tail.split().freeze());
            pieces.push_back(publish.payload.clone());
        } else {
            encode::encode(packet, version, &mut self.tail)?;
        }
        Ok(())
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tail.len() + self.pieces().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Throws away what is there, and whatever comes: nobody is there to read it.
    pub fn discard(&mut self) {
        self.tail.clear();
        let pieces = self.pieces.get_or_insert_default();
        pieces.queue.clear();
        pieces.discards = true;
    }

    fn discards(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.discards)
    }

    /// Gives the gathering buffer's memory back; for connections that go idle.
    pub fn release(&mut self) {
        if !self.is_empty() || self.discards() {
            return;
        }
        let Self { mut tail, .. } = std::mem::take(self);
        if tail.try_reclaim(ROOM) && tail.capacity() <= SPARE {
            SPARE_BUFFER.set(tail);
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().flat_map(|pieces| &pieces.queue)
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces().next().map_or(&self.tail, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let tail: &[u8] = &self.tail;
        let all = self.pieces().map(|piece| &piece[..]).chain([tail]);
        let mut filled = 0;
        for (slot, piece) in dst.iter_mut().zip(all.filter(|piece| !piece.is_empty())) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "cannot take more than there is");
        if let Some(Pieces { queue: pieces, .. }) = self.pieces.as_deref_mut() {
            while let Some(piece) = pieces.front_mut() {
                if count < piece.len() {
                    piece.advance(count);
                    return;
                }
                count -= piece.len();
                pieces.pop_front();
            }
        }
        self.tail.advance(count);
    }
}
