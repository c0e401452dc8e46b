//! The timer of a connection, which is set as seldom as it can be.
//!
//! A deadline that has moved on, as each packet moves the keep alive, leaves the timer as it is: it fires in vain once
//! a period instead of being set once a packet. A timer that cannot have fired is not asked: it knows its
//! waker, for a task has one from its first poll to its last.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use jam_core::time::Time;
use tokio::time::Sleep;

use crate::clock::Clock;

/// Whether a [`Sleep`] has been set and has not fired since.
#[derive(Default)]
pub(super) struct LazyTimer {
    is_set: bool,
}

impl LazyTimer {
    /// Ready when `due` has come, or a time before it for which the timer was set.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        clock: &Clock,
        now: Time,
        due: Time,
    ) -> Poll<()> {
        let set = if self.is_set {
            clock.time(sleep.deadline())
        } else {
            Time::NEVER
        };
        if now < set && set <= due {
            return Poll::Pending;
        }
        if !self.is_set || due < set {
            sleep.as_mut().reset(clock.instant(due));
            self.is_set = true;
        }
        ready!(sleep.poll(cx));
        self.is_set = false;
        Poll::Ready(())
    }
}
