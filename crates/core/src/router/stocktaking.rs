//! What there is, counted by looking at all of it: what [`Metrics`](crate::metrics::Metrics) says without a look must be the same.

use super::Router;
use super::shard::lock;

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Sessions with a connection.
    pub connected: u64,
    /// Sessions without one.
    pub away: u64,
    /// Users with a connection.
    pub online: u64,
    /// Messages that are kept, but for retained ones.
    pub messages: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl Router {
    /// Looks at everything, one shard after another: for tests.
    #[must_use]
    pub fn stocktake(&self) -> Stock {
        let mut stock = Stock::default();
        for shard in &self.shards {
            for user in &lock(shard).users {
                let (connected, away) = user.devices();
                stock.connected += connected;
                stock.away += away;
                stock.online += u64::from(connected > 0);
                stock.messages += user.kept().messages as u64;
                stock.bytes += user.kept().bytes;
            }
        }
        stock
    }

    /// The same as it is counted.
    #[must_use]
    pub fn counted_stock(&self) -> Stock {
        let get = |name, values: &[&str]| self.metrics.get(name, values);
        Stock {
            connected: get("jam_sessions", &["connected"]),
            away: get("jam_sessions", &["away"]),
            online: get("jam_users_online", &[]),
            messages: get("jam_mailbox_messages", &[]),
            bytes: get("jam_mailbox_bytes", &[]),
        }
    }
}
