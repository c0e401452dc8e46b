//! What would expire if it were later, for the log: the wall clock says so, and is not believed.

use super::Router;
use super::shard::lock;
use crate::time::Time;
use crate::user::Outlook;

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
