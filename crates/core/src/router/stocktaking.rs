//! What there is: as it is counted, and, for tests, by looking at all of it. The two are the same.

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
    /// Messages that are kept, but for retained ones, and their bytes. Holds one shard's lock at a time, for as long as it takes
    /// to copy two numbers.
    #[must_use]
    pub fn kept(&self) -> (u64, u64) {
        let mut sum = (0, 0);
        for shard in &self.shards {
            let kept = lock(shard).kept;
            sum.0 += kept.messages as u64;
            sum.1 += kept.bytes;
        }
        sum
    }

    /// Looks at everything, one shard after another: for tests.
    #[must_use]
    pub fn stocktake(&self) -> Stock {
        let mut stock = Stock::default();
        for shard in &self.shards {
            for user in lock(shard).users.iter() {
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
        let (messages, bytes) = self.kept();
        Stock {
            connected: get("jam_sessions", &["connected"]),
            away: get("jam_sessions", &["away"]),
            online: get("jam_users_online", &[]),
            messages,
            bytes,
        }
    }
}
