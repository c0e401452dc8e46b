//! The server's part in telling users their friends: reads the list from the directory.

use crate::bench::Bench;

impl Bench {
    /// The directory has changed, and the server has noticed.
    pub fn notice_change(&self) {
        self.router().friends_may_have_changed();
        self.run();
    }

    /// Tells one user; whether it was somebody's turn and the directory answered.
    pub(crate) fn tell_friends(&self) -> bool {
        let now = self.now();
        let router = self.router();
        let Some(due) = router.next_friends(now) else {
            return false;
        };
        match self.directory().list_friends(due.user()) {
            Ok(list) => router.tell_friends(due, &list, now),
            Err(_) => router.put_back_friends(due),
        }
        true
    }
}
