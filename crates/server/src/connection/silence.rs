//! What follows from it that nothing comes: time-outs, and the answer to newcomers.
//!
//! Invariant: a client is silent when the server has looked for its bytes and found none, below TLS and WebSocket too
//! (`connection/tests.rs`); a time-out that the server itself has slept through is excused.

use std::task::{Context, Poll};
use std::time::Duration;

use jam_core::time::Time;

use super::ending::Cause;
use super::{Driver, Transport, Turn};

/// How long not a byte of the output may go out, whatever the client sends meanwhile. Longer than a slow line
/// needs to drain what the kernel holds, for nothing of that is seen here.
pub(super) const STALLED_OUTPUT: Duration = Duration::from_secs(5 * 60);

/// A time-out that is noticed so much too late was not for the client to keep: the process was stopped or had no
/// time.
const LATE: Duration = Duration::from_millis(500);

/// How long a client then has at least, for what it has sent to be read.
const EXCUSED: Duration = Duration::from_secs(2);

impl<S: Transport> Driver<S> {
    /// When there is something to do without a wake-up.
    pub(super) fn deadline(&self) -> Option<Time> {
        let Some(rare) = self.rare.as_deref() else {
            return self.connection.deadline();
        };
        if let Some(ending) = &rare.ending {
            return Some(ending.due());
        }
        let stalled = rare.stalled_since.map(|since| since + STALLED_OUTPUT);
        let due = [self.connection.deadline(), stalled, self.quiet_from(rare)];
        due.into_iter().flatten().min()
    }

    /// Whether something is about to follow from it that nothing more has come.
    pub(super) fn is_judged(&self, now: Time) -> bool {
        self.connection.has_notice() || self.connection.deadline().is_some_and(|due| due <= now)
    }

    /// Bytes have come: the client is alive.
    pub(super) fn hear(&mut self, now: Time) {
        self.permit.wake_flag().take_heard();
        self.connection.handle_input(now);
        if self.connection.has_notice() {
            self.rare().heard_at = Some(now);
        }
    }

    /// Nothing has come, or there is no room for it: whether that is to have consequences.
    pub(super) fn wait(&mut self, now: Time) -> Turn {
        if self.connection.has_notice() {
            self.answer_notice(now);
            if self.is_ending() {
                return Turn::Again;
            }
        }
        let rare = self.rare.as_deref();
        let stalled_since = rare.and_then(|rare| rare.stalled_since);
        if stalled_since.is_some_and(|since| since + STALLED_OUTPUT <= now) {
            return self.begin_ending(Cause::Stalled, now);
        }
        let is_due = |due: Option<Time>| due.filter(|due| *due <= now);
        let Some(due) = is_due(self.connection.deadline()) else {
            return Turn::Wait;
        };
        if self.connection.held_back().is_some() {
            let progress = self.connection.handle_timeout(now);
            self.follow(progress, now);
            return Turn::Again;
        }
        if now.since(due) >= LATE {
            self.connection.excuse(now, EXCUSED);
            if is_due(self.connection.deadline()).is_none() {
                return Turn::Wait;
            }
        }
        self.begin_ending(Cause::Silent, now)
    }

    /// No more is read ahead. What lies in the socket is no silence, though.
    pub(super) fn poll_full(&mut self, cx: &mut Context<'_>, now: Time) -> Turn {
        if self.connection.deadline().is_some_and(|due| due <= now) {
            self.permit.wake_flag().set_asks_kernel(true);
            let read = self.input.poll_read_one(&mut self.stream, cx);
            self.permit.wake_flag().set_asks_kernel(false);
            match read {
                Poll::Pending => {}
                Poll::Ready(Ok(read)) if read > 0 => self.hear(now),
                Poll::Ready(end) => return self.end_reading(end, now),
            }
        }
        self.wait(now)
    }
}
