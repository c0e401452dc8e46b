//! The last bytes of a connection: flushed, then the stream is shut down, then what the peer still sends is read away.
//!
//! Invariant: no reset overtakes the last bytes (`the_last_words_arrive`), and each phase ends at a time of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use jam_core::time::Time;

use super::reading::poll_scratch;
use super::{Driver, Transport, Turn};

/// How long a peer that is to be disconnected may take to read what was written to it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer may take to close its side after ours is shut down.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes are read away in that time.
const LINGER_BYTES: u32 = 1024 * 1024;

/// How far the connection is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Packets come and go.
    Open,
    /// Nothing is read any more; the rest of the output is written, until the time.
    Flushing(Time),
    /// The stream is being shut down.
    Finishing(Time),
    /// Our side is shut down; what still comes in is thrown away, until the time and so many bytes.
    Lingering(Time, u32),
}

impl Phase {
    /// When the phase is over at the latest; `None` of one that has no end by itself.
    pub(super) fn until(self) -> Option<Time> {
        match self {
            Self::Open => None,
            Self::Flushing(until) | Self::Finishing(until) | Self::Lingering(until, _) => {
                Some(until)
            }
        }
    }
}

impl<S: Transport> Driver<S> {
    /// A step of a connection that is past [`Phase::Open`].
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>, now: Time) -> Turn {
        match self.phase {
            Phase::Open => Turn::Again,
            Phase::Flushing(until) => self.poll_flushing(cx, now, until),
            Phase::Finishing(until) => self.poll_finishing(cx, now, until),
            Phase::Lingering(until, bytes) => self.poll_lingering(cx, now, until, bytes),
        }
    }

    /// Nothing more is read; what is written already goes out.
    pub(super) fn close(&mut self, now: Time) -> Turn {
        self.log_end(now);
        self.rare = None;
        self.input.discard();
        self.phase = Phase::Flushing(now + FLUSH_TIMEOUT);
        Turn::Again
    }

    fn poll_flushing(&mut self, cx: &mut Context<'_>, now: Time, until: Time) -> Turn {
        match self.poll_flush(cx, now) {
            Poll::Ready(Ok(())) => {
                self.connection.handle_closed(now);
                self.phase = Phase::Finishing(until);
                Turn::Again
            }
            Poll::Ready(Err(error)) => Self::broken(&error),
            Poll::Pending if until <= now => Turn::Over,
            Poll::Pending => Turn::Wait,
        }
    }

    fn poll_finishing(&mut self, cx: &mut Context<'_>, now: Time, until: Time) -> Turn {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {
                self.phase = Phase::Lingering(now + LINGER_TIMEOUT, LINGER_BYTES);
                Turn::Again
            }
            Poll::Ready(Err(error)) => Self::broken(&error),
            Poll::Pending if until <= now => Turn::Over,
            Poll::Pending => Turn::Wait,
        }
    }

    fn poll_lingering(&mut self, cx: &mut Context<'_>, now: Time, until: Time, bytes: u32) -> Turn {
        let read = match poll_scratch(&mut self.stream, cx, |_| ()) {
            Poll::Ready(Ok(read)) if read > 0 && now < until => read,
            Poll::Pending if now < until => return Turn::Wait,
            _ => return Turn::Over,
        };
        match u32::try_from(read)
            .ok()
            .and_then(|read| bytes.checked_sub(read))
        {
            Some(left) => {
                self.phase = Phase::Lingering(until, left);
                Turn::Again
            }
            None => Turn::Over,
        }
    }

    fn broken(error: &io::Error) -> Turn {
        tracing::debug!(%error, "connection broken");
        Turn::Over
    }
}
