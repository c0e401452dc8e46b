//! When a client acknowledges, and so whether its next acknowledgement may be deferred.
//!
//! Invariant: an acknowledgement is deferred once, and only if the last one came at once; what then comes, or does not,
//! decides about the next (`an_answer_is_deferred_once_and_only_if_it_comes_at_once`).

use jam_core::time::Time;
use tokio::time::Instant;

use crate::deferred_acks::{ANSWER_BYTES, AT_ONCE_MILLIS, DeferredAcks, LowWater};

/// How soon the client acknowledges messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promptness {
    /// Within [`AT_ONCE_MILLIS`], the last time.
    AtOnce,
    /// Later, the last time.
    Late,
    /// Nothing has come since it was deferred.
    Deferred,
}

/// How the client has acknowledged, and when it was last asked to.
pub(super) struct Answering {
    last: Promptness,
    /// When the message was delivered that the next answer is about: [`Time::low_millis`], as bytes that need no
    /// alignment, for each connection has these.
    delivered_at: [u8; 4],
}

impl Default for Answering {
    fn default() -> Self {
        Self {
            last: Promptness::AtOnce,
            delivered_at: [0; 4],
        }
    }
}

impl Answering {
    /// A message is about to be written: its acknowledgement need not wake the server, if it comes at once. `at` is
    /// `now` as the runtime has it.
    pub(super) fn expect(
        &mut self,
        deferred_acks: &DeferredAcks,
        stream: &impl LowWater,
        at: Instant,
        now: Time,
    ) {
        if self.last == Promptness::Deferred {
            return;
        }
        self.delivered_at = now.low_millis().to_ne_bytes();
        if self.last == Promptness::AtOnce && deferred_acks.defer(stream, at, now) {
            self.last = Promptness::Deferred;
        }
    }

    /// So many bytes have come: so few are an acknowledgement, others a message.
    pub(super) fn classify_read(&mut self, deferred_acks: &DeferredAcks, read: usize, now: Time) {
        if read <= ANSWER_BYTES as usize {
            let delivered_at = u32::from_ne_bytes(self.delivered_at);
            let after = now.low_millis().wrapping_sub(delivered_at);
            self.last = if after <= AT_ONCE_MILLIS {
                Promptness::AtOnce
            } else {
                Promptness::Late
            };
        } else {
            if self.last == Promptness::Deferred {
                self.last = Promptness::AtOnce;
            }
            deferred_acks.count_message(now);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::super::tests::{permit, shared, tcp_stream};
    use super::*;

    /// So a receiver who keeps getting messages is heard in between.
    #[tokio::test]
    async fn an_answer_is_deferred_once_and_only_if_it_comes_at_once() {
        let shared = shared();
        let (permit, _) = permit().await;
        let (stream, _listener) = tcp_stream(&permit).await;
        let at = |millis: u64| Time::from_millis(1_000_000 + millis);
        for _ in 0..32 {
            shared
                .deferred_acks
                .count_message(at(0) - Duration::from_millis(16));
        }
        let deferred_acks = &shared.deferred_acks;
        let mut answering = Answering::default();
        answering.expect(deferred_acks, &stream, Instant::now(), at(0));
        assert_eq!(answering.last, Promptness::Deferred);
        answering.expect(deferred_acks, &stream, Instant::now(), at(3));
        let delivered_at = u32::from_ne_bytes(answering.delivered_at);
        assert_eq!(delivered_at, at(0).low_millis());
        answering.classify_read(deferred_acks, 4, at(5));
        assert_eq!(answering.last, Promptness::Late);
        answering.expect(deferred_acks, &stream, Instant::now(), at(6));
        assert_eq!(answering.last, Promptness::Late);
        answering.classify_read(deferred_acks, 4, at(7));
        assert_eq!(answering.last, Promptness::AtOnce);
        answering.expect(deferred_acks, &stream, Instant::now(), at(8));
        assert_eq!(answering.last, Promptness::Deferred);
        answering.classify_read(deferred_acks, 300, at(9));
        assert_eq!(answering.last, Promptness::AtOnce);
    }
}
