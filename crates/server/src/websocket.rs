//! A WebSocket as a stream of bytes (MQTT 5.0, section 6).
//!
//! Frames mean nothing to MQTT: a packet may straddle them and one may hold several packets. What is
//! written together goes out as one binary frame. A text frame ends the connection, as the standard asks;
//! pings are answered below this module.
//!
//! Invariants: a frame that was read is handed on whole before the next one is asked for; at most
//! [`WRITE_BYTES`] and what the library holds below its own bound wait to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The subprotocols: MQTT's own name, and what clients of MQTT 3.1 ask for.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// How many bytes one binary frame holds at most on its way out.
const WRITE_BYTES: usize = 64 * 1024;

/// The library reads so many bytes at a time, and keeps that much for each connection.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What the library gathers before it writes: it is told to flush at the end of each burst.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// What is added to the packet limit for frames: a frame may hold the end of one packet and others.
const FRAME_SLACK_BYTES: usize = 64 * 1024;

/// Sets the bounds of an upgrade. `max_packet` is the packet limit in bytes.
pub(crate) fn bounded(upgrade: WebSocketUpgrade, max_packet: usize) -> WebSocketUpgrade {
    let max = max_packet.saturating_add(FRAME_SLACK_BYTES);
    upgrade
        .protocols(PROTOCOLS)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(4 * WRITE_BYTES)
        .max_frame_size(max)
        .max_message_size(max)
}

/// The stream.
pub(crate) struct WebSocketStream {
    socket: WebSocket,
    /// What is left of the frame that was read last.
    frame: Bytes,
    ended: bool,
}

impl WebSocketStream {
    pub(crate) fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            frame: Bytes::new(),
            ended: false,
        }
    }

    /// Sends one frame with what the slices hold, up to [`WRITE_BYTES`].
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let len = slices
            .iter()
            .map(|slice| slice.len())
            .sum::<usize>()
            .min(WRITE_BYTES);
        let mut frame = BytesMut::with_capacity(len);
        for slice in slices {
            let room = len - frame.len();
            frame.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let frame = Message::Binary(frame.freeze());
        Pin::new(&mut self.socket)
            .start_send(frame)
            .map_err(io::Error::other)?;
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for WebSocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.frame.is_empty() && !self.ended {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.frame = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => self.ended = true,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a text frame, where MQTT has binary ones",
                    )));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let len = self.frame.len().min(buffer.remaining());
        buffer.put_slice(&self.frame[..len]);
        self.frame.advance(len);
        if self.frame.is_empty() {
            self.frame = Bytes::new(); // lets go of the frame's buffer
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_flush(cx)
            .map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_close(cx)
            .map_err(io::Error::other)
    }
}
