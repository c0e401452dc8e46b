//! A WebSocket as a stream of bytes (MQTT 5.0, section 6).
//!
//! Frames mean nothing to MQTT: a packet may straddle them and one may hold any number of packets, so a
//! frame is handed on as it arrives and never gathered. What is written together goes out as one binary
//! frame, from where it lies. Pings are answered here, the last of many.
//!
//! Invariants: of what was read only an incomplete header or control frame is kept; of what is written only
//! a header or control frame, in 131 bytes; a frame that was begun is completed before another one begins;
//! each WebSocket that the server ends gets a Close frame with the reason.

mod frames;
mod handshake;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use frames::CloseCode;
use frames::{FrameKind, Frames, MAX_CONTROL, StreamEnd};
pub(crate) use handshake::accept;

/// How many bytes one binary frame holds at most on its way out: a pong waits for no more.
const WRITE_BYTES: usize = 64 * 1024;

/// How many slices are written at once; a packet with a large payload is two.
const WRITE_SLICES: usize = 16;

/// What came is no WebSocket, or not one that MQTT allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramingError(CloseCode);

impl FramingError {
    /// Whether that is what an error of [`WebSocketStream`] says.
    pub(crate) fn is_in(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CloseCode::UNSUPPORTED_DATA => f.write_str("a text frame, where MQTT has binary ones"),
            CloseCode(code) => write!(f, "not a WebSocket frame ({code})"),
        }
    }
}

impl std::error::Error for FramingError {}

/// The stream, over what the HTTP request came in on.
pub(crate) struct WebSocketStream<S> {
    io: S,
    /// What came together with the request, and is read first.
    unread: Bytes,
    frames: Frames,
    /// The end of what the client sends has been said to who reads.
    end_is_told: bool,
    /// What goes out before everything else: a header, or a control frame.
    head: Head,
    /// Bytes that the frame on its way out still lacks.
    frame_left: usize,
    /// A pong was written and may lie in `io`.
    unflushed: bool,
    close_code: CloseCode,
    /// The Close frame is on its way or out, or cannot be written: no other frame follows.
    is_closing: bool,
}

/// Bytes that have to be written before anything else.
struct Head {
    bytes: [u8; 2 + 4 + MAX_CONTROL],
    at: u8,
    len: u8,
}

impl Head {
    fn begin(&mut self, kind: FrameKind, payload_len: usize) {
        let (header, len) = frames::header(kind, payload_len);
        (self.at, self.len) = (0, 0);
        self.push(&header[..len]);
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.bytes[usize::from(self.len)] = *byte;
            self.len += 1;
        }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[usize::from(self.at)..usize::from(self.len)]
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// After the handshake; `unread` was read behind the request.
    pub(crate) fn after(unread: Bytes, io: S) -> Self {
        Self {
            io,
            unread,
            frames: Frames::default(),
            end_is_told: false,
            head: Head {
                bytes: [0; 2 + 4 + MAX_CONTROL],
                at: 0,
                len: 0,
            },
            frame_left: 0,
            unflushed: false,
            close_code: CloseCode::NORMAL,
            is_closing: false,
        }
    }

    /// What the Close frame is to say, unless the client has closed or broken the WebSocket itself.
    pub(crate) fn set_close_code(&mut self, code: CloseCode) {
        self.close_code = code;
    }

    /// Writes the rest of a control frame, and a pong that is due; ready when there is none. A frame that
    /// has begun goes first.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.frame_left == 0 {
            if !self.head.left().is_empty() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.head.left()))?;
                self.wrote(written)?;
                self.unflushed = true;
            } else if !self.is_closing
                && let Some(ping) = self.frames.take_ping()
            {
                self.head.begin(FrameKind::Pong, ping.payload().len());
                self.head.push(ping.payload());
            } else {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes a pong that is due, for who reads. What cannot be written now is tried again when there is room, or with
    /// the next read. If nothing can be written any more, the next write says so: what the client had sent before that
    /// is still to be read.
    fn answer_ping(&mut self, cx: &mut Context<'_>) {
        let mut written = self.poll_control(cx);
        if self.unflushed && !matches!(written, Poll::Ready(Err(_))) {
            written = Pin::new(&mut self.io).poll_flush(cx);
            self.unflushed = written.is_pending();
        }
        if let Poll::Ready(Err(_)) = written {
            self.head.at = self.head.len;
            self.is_closing = true;
        }
    }

    /// So many bytes are out; how many of them were payload.
    fn wrote(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let head = written.min(self.head.left().len());
        self.head.at += u8::try_from(head).expect("a head is shorter than that");
        self.frame_left -= written - head;
        Ok(written - head)
    }

    /// Writes a part of what the slices hold, in frames of up to [`WRITE_BYTES`].
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_control(cx))?;
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.frame_left == 0 {
            self.frame_left = len.min(WRITE_BYTES);
            self.head.begin(FrameKind::Binary, self.frame_left);
        }
        loop {
            let mut out = [io::IoSlice::new(&[]); 1 + WRITE_SLICES];
            out[0] = io::IoSlice::new(self.head.left());
            let (mut left, mut count) = (self.frame_left, 1);
            for slice in slices.iter().take(WRITE_SLICES).filter(|it| !it.is_empty()) {
                let len = slice.len().min(left);
                out[count] = io::IoSlice::new(&slice[..len]);
                (left, count) = (left - len, count + 1);
                if left == 0 {
                    break;
                }
            }
            let first = usize::from(out[0].is_empty());
            let out = &out[first..count];
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, out))?;
            match self.wrote(written)? {
                0 => {} // only of the header
                payload => return Poll::Ready(Ok(payload)),
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self.frames.end() {
            Some(StreamEnd::Failed(code)) if !self.end_is_told => {
                self.end_is_told = true;
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    FramingError(code),
                ))
            }
            _ => Ok(()),
        }
    }

    /// The Close frame that is to end the WebSocket.
    fn begin_close(&mut self) {
        let code = match self.frames.end() {
            Some(StreamEnd::Closed(code)) => code,
            Some(StreamEnd::Failed(code)) => Some(code),
            None => Some(self.close_code),
        };
        self.is_closing = true;
        self.head.begin(FrameKind::Close, code.map_or(0, |_| 2));
        if let Some(CloseCode(code)) = code {
            self.head.push(&code.to_be_bytes());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.answer_ping(cx);
            if self
                .frames
                .end()
                .is_some_and(|end| matches!(end, StreamEnd::Closed(_)))
            {
                return Poll::Ready(Ok(()));
            }
            self.end()?;
            let start = buffer.filled().len();
            if self.unread.is_empty() {
                ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
            } else {
                let len = self.unread.len().min(buffer.remaining());
                buffer.put_slice(&self.unread[..len]);
                self.unread.advance(len);
            }
            if buffer.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            if self.end_is_told {
                return Poll::Ready(Ok(())); // it is only read away
            }
            let payload = self.frames.unframe(&mut buffer.filled_mut()[start..]);
            buffer.set_filled(start + payload);
            if payload > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
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
        ready!(self.poll_control(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.frame_left == 0 {
            ready!(self.poll_control(cx))?;
            if !self.is_closing {
                self.begin_close();
                ready!(self.poll_control(cx))?;
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
