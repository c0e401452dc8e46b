//! What would expire if it were later, for the log: the wall clock says so, and is not believed.

use super::Router;
use super::shard::lock;
use crate::time::Time;

/// How much would expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Messages that wait.
    pub messages: usize,
    /// Sessions of devices that are away.
    pub sessions: usize,
    /// Retained messages.
    pub retained: usize,
}

impl Router {
    /// What expires after one time and not after another, later one. Looks at everything there is, one shard
    /// after another.
    #[must_use]
    pub fn outlook(&self, after: Time, until: Time) -> Outlook {
        let mut outlook = Outlook::default();
        for shard in &self.shards {
            let shard = lock(shard);
            let users = shard.users.iter();
            users.for_each(|user| user.look_ahead(after, until, &mut outlook));
        }
        outlook
    }
}
