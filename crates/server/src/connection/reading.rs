//! What is read of a connection, and the packets in it.
//!
//! Small reads go through a buffer of the thread's, so that a connection that waits needs none of its own; an unfinished
//! packet that lacks much is read straight into its place. Invariants: between packets there is no buffer
//! (`an_idle_connection_is_small`); one read takes at most [`READ_BYTES`], or [`READ_DIRECT_BYTES`] of one packet; a
//! small message holds at most `HELD_BYTES` of the buffer that it came in (`what_follows_a_large_packet_holds_none_of_it`).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use jam_core::time::Time;
use jam_wire::decode::{DecodeError, Decoder};
use jam_wire::packet::Packet;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{Driver, Transport, Turn};
use crate::websocket::CloseCode;

/// How many bytes one read takes at most, so that a flood on one connection lets the others in between.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// An unfinished packet that lacks so many bytes is read straight into its own buffer.
const READ_DIRECT_FROM_BYTES: usize = READ_BYTES;

/// How many bytes such a read takes at most.
const READ_DIRECT_BYTES: usize = 256 * 1024;

thread_local! {
    /// Where small reads go first; borrowed only while a stream is polled for reading.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What has been read and not decoded: empty or the beginning of a packet, unless the driver holds packets back.
#[derive(Default)]
pub(super) struct Input(BytesMut);

impl Input {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The next packet, if all of it is here. What follows a large one moves to a buffer of its own.
    fn decode(&mut self, decoder: &mut Decoder) -> Result<Option<Packet>, DecodeError> {
        let before = self.len();
        let packet = decoder.decode(&mut self.0)?;
        if before - self.len() >= READ_BYTES && !self.is_empty() {
            self.0 = BytesMut::from(&self.0[..]);
        }
        Ok(packet)
    }

    /// Throws away what is here, and the buffer.
    pub(super) fn discard(&mut self) {
        self.0 = BytesMut::new();
    }

    /// Gives the buffer back if nothing is in it.
    fn release(&mut self) {
        if self.is_empty() {
            self.discard();
        }
    }

    /// Reads once; ready with the number of bytes, 0 at the end of the stream.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // The decoder has made room for the whole packet once it knew its length.
        let room = self.0.capacity() - self.0.len();
        if !self.0.is_empty() && room >= READ_DIRECT_FROM_BYTES {
            let mut room = (&mut self.0).limit(READ_DIRECT_BYTES.min(room));
            return pin!(stream.read_buf(&mut room)).poll(cx);
        }
        poll_scratch(stream, cx, |bytes| self.0.extend_from_slice(bytes))
    }

    /// Reads one byte.
    pub(super) fn poll_read_one<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut one = (&mut self.0).limit(1);
        pin!(stream.read_buf(&mut one)).poll(cx)
    }
}

/// Reads once into the thread's buffer; ready with the number of bytes, 0 at the end of the stream.
pub(super) fn poll_scratch<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        take(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

impl<S: Transport> Driver<S> {
    /// Reads once, and says what follows from it.
    pub(super) fn read_input(&mut self, cx: &mut Context<'_>, now: Time) -> Turn {
        let read = if self.is_judged(now) {
            self.poll_kernel(cx)
        } else {
            self.input.poll_read(&mut self.stream, cx)
        };
        match read {
            Poll::Pending => {
                if self.permit.wake_flag().take_heard() {
                    self.hear(now); // a part of what makes a byte for this loop
                }
                self.wait(now)
            }
            Poll::Ready(Ok(read)) if read > 0 => {
                self.hear(now);
                let deferred_acks = &self.shared.deferred_acks;
                self.answering.classify_read(deferred_acks, read, now);
                // As much as a read takes: this may be a flood.
                if read < READ_BYTES {
                    Turn::Again
                } else {
                    Turn::Yield
                }
            }
            Poll::Ready(end) => self.end_reading(end, now),
        }
    }

    /// Reads once, whatever the runtime knows of: pending when there is nothing.
    pub(super) fn poll_kernel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.permit.wake_flag().set_asks_kernel(true);
        let read = self.input.poll_read(&mut self.stream, cx);
        self.permit.wake_flag().set_asks_kernel(false);
        read
    }

    /// Handles the packets that are there, as long as the connection wants them.
    pub(super) fn decode(&mut self, now: Time) {
        self.held = false;
        while !self.is_loading() && !self.connection.closing() && !self.input.is_empty() {
            let wants_input = if self.is_ending() {
                self.connection.wants_last_input()
            } else {
                self.connection.wants_input()
            };
            if !wants_input || self.connection.has_worked_enough() {
                self.held = true;
                return;
            }
            match self.input.decode(&mut self.decoder) {
                Ok(Some(packet)) => {
                    let progress = self.connection.handle_packet(packet, now);
                    self.decoder.set_max_packet(self.connection.max_packet());
                    self.follow(progress, now);
                }
                Ok(None) => break,
                Err(error) => {
                    self.stream.set_close_code(match error {
                        DecodeError::TooLarge { .. } => CloseCode::TOO_LARGE,
                        _ => CloseCode::PROTOCOL_ERROR,
                    });
                    let version = self.decoder.version();
                    self.connection.handle_decode_error(&error, version, now);
                    break;
                }
            }
        }
        self.input.release();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jam_wire::packet::Version;

    use super::*;

    /// A PUBLISH to `/1/a` at QoS 0, with so many bytes.
    fn publish(payload: usize) -> Vec<u8> {
        let remaining = 6 + payload;
        let mut packet = vec![0x30];
        let mut left = remaining;
        while left > 127 {
            packet.push(u8::try_from(left & 127).unwrap() | 128);
            left >>= 7;
        }
        packet.push(u8::try_from(left).unwrap());
        packet.extend_from_slice(b"\x00\x04/1/a");
        packet.resize(packet.len() + payload, b'x');
        packet
    }

    fn payload(input: &mut Input, decoder: &mut Decoder) -> Bytes {
        match input.decode(decoder) {
            Ok(Some(Packet::Publish(publish))) => publish.payload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_a_large_packet_holds_none_of_it() {
        let small = publish(10);
        let header = small.len() - 10;
        for (large, has_own_buffer) in [(100, false), (1 << 20, true)] {
            let mut decoder = Decoder::client(Version::V4, 2 << 20);
            let mut input = Input::default();
            input.0.extend_from_slice(&publish(large));
            input.0.extend_from_slice(&small);
            let first = payload(&mut input, &mut decoder);
            let second = payload(&mut input, &mut decoder);
            let follows = first.as_ptr().wrapping_add(first.len() + header) == second.as_ptr();
            assert_eq!(follows, !has_own_buffer);
        }
    }
}
