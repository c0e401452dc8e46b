//! How many devices subscribe to what the server itself writes, so that it costs nothing if none does.

use std::sync::atomic::{AtomicI64, Ordering};

use super::Router;
use crate::user::Listeners;

/// Sums over all devices with a session, connected or not. Changed under the lock of the device's user.
#[derive(Debug, Default)]
pub(super) struct ListenerCounts {
    receipts: AtomicI64,
    presence: AtomicI64,
}

impl ListenerCounts {
    /// Whether anybody subscribes to receipts.
    pub(super) fn receipts(&self) -> bool {
        self.receipts.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody subscribes to presence.
    pub(super) fn presence(&self) -> bool {
        self.presence.load(Ordering::Relaxed) > 0
    }

    pub(super) fn change(&self, by: Listeners) {
        if by != Listeners::default() {
            self.receipts
                .fetch_add(by.receipts.into(), Ordering::Relaxed);
            self.presence
                .fetch_add(by.presence.into(), Ordering::Relaxed);
        }
    }
}

impl Router {
    /// How many devices subscribe to receipts.
    #[must_use]
    pub fn receipt_listeners(&self) -> i64 {
        self.listening.receipts.load(Ordering::Relaxed)
    }

    /// How many devices subscribe to presence.
    #[must_use]
    pub fn presence_listeners(&self) -> i64 {
        self.listening.presence.load(Ordering::Relaxed)
    }
}
