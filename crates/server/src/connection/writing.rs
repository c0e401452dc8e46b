//! The output of a connection goes out.
//!
//! Invariants: what is there is written with as few calls as the stream takes it in; a write that blocks keeps nothing
//! waiting but the output (`who_never_reads`), whose patience is `STALLED_OUTPUT`.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use jam_core::connection::OUTPUT_ENOUGH;
use jam_core::time::Time;
use tokio::io::AsyncWriteExt;

use super::{Driver, Transport};

impl<S: Transport> Driver<S> {
    /// Writes what the stream takes, and notes whether it takes anything.
    pub(super) fn write_output(&mut self, cx: &mut Context<'_>, now: Time) {
        match self.poll_flush(cx, now) {
            Poll::Ready(Ok(())) => {
                if let Some(rare) = &mut self.rare {
                    rare.stalled_since = None;
                }
                self.tidy();
            }
            Poll::Pending => {
                self.rare().stalled_since.get_or_insert(now);
            }
            Poll::Ready(Err(error)) => self.end_writing(&error, now),
        }
    }

    /// Writes all output that the stream takes; ready when nothing is left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<io::Result<()>> {
        loop {
            let before = self.connection.output().len();
            if before == 0 {
                break;
            }
            if ready!(self.poll_write(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if let Some(rare) = &mut self.rare {
                rare.stalled_since = None;
            }
            if before >= OUTPUT_ENOUGH {
                self.connection.handle_flushed(now); // something may have been held back
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            self.connection.output().release();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once; ready with the number of bytes, which have been taken off the output.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let output = self.connection.output();
        if output.chunk().len() < output.len() {
            return pin!(self.stream.write_buf(output)).poll(cx);
        }
        // The usual case, all in one piece, needs no array of slices.
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, output.chunk()))?;
        output.advance(written);
        Poll::Ready(Ok(written))
    }
}
