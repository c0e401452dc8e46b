//! What a user has leaves when its time has come.
//!
//! Invariant: only [`User::expire`] removes something because of its age, from memory and from the store
//! together. It is called before a limit is checked. A connection passes by what has expired and leaves it
//! to this.

use super::tally::count;
use super::{Alarm, Effects, User};
use crate::time::Time;

impl User {
    /// What has expired leaves. Costs nothing if nothing has.
    pub(super) fn expire(&mut self, now: Time, effects: &mut Effects) {
        if !self.mailbox.may_have_expired(now) {
            return;
        }
        self.end_expired_retained(now, effects);
        let mut gone = Vec::new();
        self.mailbox.expire(now, &mut gone);
        if !gone.is_empty() {
            effects.rare().tally.expired += count(&gone);
        }
        effects.all_gone(gone);
    }

    /// The alarm rings; it is set anew, as after everything, by [`Self::watch_expiry`].
    pub(super) fn look_at_expiry(&mut self, now: Time, effects: &mut Effects) {
        self.expiry_alarm = Time::NEVER;
        self.expire(now, effects);
    }

    /// Has the alarm ring when something expires. It ends with the user's state.
    pub(crate) fn watch_expiry(&mut self, effects: &mut Effects) {
        let due = self.mailbox.next_expiry();
        if due < self.expiry_alarm {
            self.ring_for_expiry(due, effects);
        } else if self.expiry_alarm != Time::NEVER && self.is_idle() {
            self.ring_for_expiry(Time::NEVER, effects);
        }
    }

    fn ring_for_expiry(&mut self, due: Time, effects: &mut Effects) {
        let before = std::mem::replace(&mut self.expiry_alarm, due);
        if before != Time::NEVER {
            effects.rare().unset.push((before, Alarm::Expiry));
        }
        if due != Time::NEVER {
            effects.rare().set.push((due, Alarm::Expiry));
        }
    }
}
