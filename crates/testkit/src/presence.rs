//! The server's part in telling presence: asks the directory which friends it concerns.

use crate::bench::Bench;

impl Bench {
    /// Whether presence and friends are told at once from now on, as it is at first, or waits.
    pub fn tell(&self, telling: bool) {
        self.world().telling = telling;
        self.run();
    }

    /// Tells one user's presence; whether there was anything to tell.
    pub(crate) fn tell_presence(&self) -> bool {
        let now = self.now();
        let router = self.router();
        let Some(due) = router.next_presence() else {
            return false;
        };
        let friends = |watching| self.directory().friends(due.user(), watching);
        if due.has_changed()
            && let Ok(friends) = friends(true)
        {
            router.tell_of_change(&due, &friends, now);
        }
        if due.has_subscribed()
            && let Ok(friends) = friends(false)
        {
            router.tell_subscriber(&due, &friends, now);
        }
        true
    }
}
