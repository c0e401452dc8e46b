//! How a connection ends: after what its client had sent is handled.
//!
//! Whatever ends it (the peer, silence, a stop), the loop goes on reading and decoding for a while, without
//! regard to the room for answers, and the verdict comes last: a DISCONNECT, acknowledgements or a last message
//! that stood behind something else count. A connection that another one is about to displace answers when it
//! has handled what it has received; the newcomer waits for that.
//!
//! Invariant: an end takes no more than [`ENDING_TIMEOUT`] and [`ENDING_BYTES`]; a newcomer waits no longer than
//! [`DISPLACED_TIMEOUT`], whatever the displaced ones do.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use jam_core::connection::Progress;
use jam_core::time::Time;
use jam_wire::decode::DecodeError;

use super::{Driver, READ_AHEAD_BYTES, READ_BYTES, Rare, Transport, Turn};
use crate::websocket::{CloseCode, FramingError};

/// How long what a client has sent may take to be handled when its connection ends.
const ENDING_TIMEOUT: Duration = Duration::from_secs(3);

/// How many bytes are read in that time: more than the kernel holds.
const ENDING_BYTES: usize = 8 * 1024 * 1024;

/// How long a client that has authenticated waits for those that it displaces.
pub(super) const DISPLACED_TIMEOUT: Duration = Duration::from_secs(1);

/// A client that was still sending has sent all when nothing more came for so long: what is read makes room for more,
/// which its kernel may send a little later.
const QUIET: Duration = Duration::from_millis(20);

/// The same in the middle of a packet, and where the client could not send because nothing was read.
const QUIET_IN_PACKET: Duration = Duration::from_millis(200);

/// Why a connection is going to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The peer has closed or reset it.
    PeerGone,
    /// What the peer sends is no WebSocket.
    NoWebSocket,
    /// Another connection takes its place, and the client does not read.
    Displaced,
    /// The client has not been heard of in time.
    Silent,
    /// The client has taken nothing for [`STALLED_OUTPUT`].
    Stalled,
    /// The server stops.
    Stopping,
}

/// A connection that is going to end.
pub(super) struct Ending {
    cause: Cause,
    until: Time,
    /// Nothing was read before: the client may have had no room for what it has to say.
    was_full: bool,
    /// Until then more may be on its way; `None` when it has had the time.
    quiet_from: Option<Time>,
    /// How many bytes may still be read; 0 when there are no more.
    bytes: usize,
}

impl Ending {
    fn new(cause: Cause, now: Time) -> Self {
        let bytes = match cause {
            Cause::Displaced | Cause::Stalled | Cause::Stopping => ENDING_BYTES,
            // All has been read.
            Cause::PeerGone | Cause::NoWebSocket | Cause::Silent => 0,
        };
        Self {
            cause,
            was_full: false,
            quiet_from: None,
            until: now + ENDING_TIMEOUT,
            bytes,
        }
    }

    /// When to look again.
    pub(super) fn due(&self) -> Time {
        self.quiet_from.unwrap_or(self.until).min(self.until)
    }
}

impl<S: Transport> Driver<S> {
    pub(super) fn is_ending(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.ending.is_some())
    }

    pub(super) fn begin_ending(&mut self, cause: Cause, now: Time) -> Turn {
        let mut ending = Ending::new(cause, now);
        if ending.bytes > 0 && self.input.len() >= READ_AHEAD_BYTES {
            ending.was_full = true;
            ending.quiet_from = Some(now + QUIET_IN_PACKET);
        }
        self.rare().ending.get_or_insert(ending);
        Turn::Again
    }

    /// The stream has ended, or is broken.
    pub(super) fn end_reading(&mut self, end: io::Result<usize>, now: Time) -> Turn {
        match end {
            Err(error) if FramingError::is_in(&error) => {
                return self.begin_ending(Cause::NoWebSocket, now);
            }
            Err(error) => tracing::debug!(%error, "connection broken"),
            Ok(_) => {}
        }
        self.begin_ending(Cause::PeerGone, now)
    }

    /// Nothing can be written any more. What the peer had sent before can still be read.
    pub(super) fn end_writing(&mut self, error: &io::Error, now: Time) {
        tracing::debug!(%error, "connection broken");
        self.connection.output().discard();
        let mut ending = Ending::new(Cause::PeerGone, now);
        ending.bytes = ENDING_BYTES;
        self.rare().ending.get_or_insert(ending).cause = Cause::PeerGone;
    }

    /// Reads and handles the rest, then ends the connection.
    pub(super) fn poll_ending(&mut self, cx: &mut Context<'_>, now: Time) -> Turn {
        let (is_loading, held) = (self.is_loading(), self.held);
        let Some(ending) = self.rare().ending.as_mut() else {
            return Turn::Again;
        };
        ending.quiet_from = ending.quiet_from.filter(|from| *from > now);
        let (cause, bytes) = (ending.cause, ending.bytes);
        let is_quiet = ending.quiet_from.is_none();
        if now < ending.until {
            if held && self.connection.has_worked_enough() {
                return Turn::Yield;
            }
            if held || is_loading {
                return Turn::Wait; // for the directory, or for the store before the CONNACK
            }
            if bytes > 0 {
                let Poll::Ready(read) = self.poll_kernel(cx) else {
                    return if self.permit.wake_flag().take_heard() {
                        // A part of what makes a byte here, or a frame that makes none.
                        self.expect_more(now);
                        Turn::Yield
                    } else if is_quiet {
                        self.conclude(cause, now)
                    } else {
                        Turn::Wait
                    };
                };
                let read = read.unwrap_or(0);
                self.expect_more(now);
                if let Some(ending) = self.rare().ending.as_mut() {
                    ending.bytes = if read == 0 {
                        0
                    } else {
                        bytes.saturating_sub(read)
                    };
                }
                return if read < READ_BYTES {
                    Turn::Again
                } else {
                    Turn::Yield
                };
            }
        }
        self.conclude(cause, now)
    }

    /// Something has come, and more may be on its way.
    fn expect_more(&mut self, now: Time) {
        if let Some(ending) = self.rare().ending.as_mut() {
            let patience = if ending.was_full {
                QUIET_IN_PACKET
            } else {
                QUIET
            };
            ending.quiet_from = Some(now + patience);
        }
    }

    fn conclude(&mut self, cause: Cause, now: Time) -> Turn {
        match cause {
            Cause::PeerGone | Cause::Displaced => self.connection.handle_closed(now),
            Cause::NoWebSocket => {
                let version = self.decoder.version();
                let error = DecodeError::Malformed("not a WebSocket frame");
                self.connection.handle_decode_error(&error, version, now);
                self.connection.handle_closed(now);
            }
            Cause::Silent => {
                let progress = self.connection.handle_timeout(now);
                debug_assert_eq!(progress, Progress::Ready, "nobody who waits is silent");
            }
            Cause::Stalled => {
                self.connection.handle_stalled(now);
                return Turn::Over;
            }
            Cause::Stopping => {
                self.stream.set_close_code(CloseCode::GOING_AWAY);
                self.connection.handle_shutdown(now);
            }
        }
        self.close(now)
    }

    /// From when on a client that is about to be displaced has sent all.
    pub(super) fn quiet_from(&self, rare: &Rare) -> Option<Time> {
        let patience = if self.input.is_empty() {
            QUIET
        } else {
            QUIET_IN_PACKET
        };
        rare.heard_at.map(|at| at + patience)
    }

    /// Nothing more has come at the moment of a client that another one is about to displace.
    pub(super) fn answer_notice(&mut self, now: Time) {
        if self.held && !self.is_loading() && self.connection.awaits_reading() {
            // The client that is to read first never may: the rest is handled without that.
            self.begin_ending(Cause::Displaced, now);
            return;
        }
        if self.held || self.is_loading() {
            self.rare().heard_at = None;
            return; // that wakes the task; the newcomer waits only as long as it has to
        }
        if !self.input.is_empty() {
            self.rare().heard_at.get_or_insert(now);
        }
        let quiet = self.rare.as_deref().and_then(|rare| self.quiet_from(rare));
        if quiet.is_none_or(|from| from <= now) {
            self.connection.handle_heard();
            self.rare().heard_at = None;
            self.tidy();
        }
    }
}
