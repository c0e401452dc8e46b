//! Devices of one user that log each other out in turn (PROTOCOL.md, section 3).
//!
//! A new phone logs the old one out at once. An app that answers a logout by connecting again, on two phones,
//! would do so hundreds of times a second; so after [`FREE`] logouts within [`CALM`] of each other the next
//! device waits until a time that grows with each further one. It waits only while another device is
//! connected, and only that user waits.
//!
//! Bound: users with a logout within the last [`CALM`], and at most as many others.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::Router;
use super::shard::lock;
use crate::ids::{ClientId, UserId};
use crate::policy::Identity;
use crate::time::Time;
use crate::user::User;

/// So many logouts are free: phones that come and go, and some that do not know yet.
const FREE: u32 = 8;
/// How long there must be no logout for the next ones to be free again.
const CALM: Duration = Duration::from_secs(60);
/// The first wait; each further logout doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest, as a server has it.
pub const LONGEST_RIVAL_WAIT: Duration = Duration::from_secs(30);

/// So many users are remembered before those that are calm are looked for.
const FIRST_SWEEP: usize = 1024;

/// Users whose devices have logged each other out.
#[derive(Default)]
pub(super) struct Rivals {
    users: HashMap<UserId, Logouts, RandomState>,
    sweep_at: usize,
}

/// Of one user.
#[derive(Debug, Clone, Copy)]
struct Logouts {
    count: u32,
    last: Time,
}

impl Logouts {
    fn are_over(self, now: Time) -> bool {
        now.since(self.last) >= CALM
    }

    /// Until when the next device waits.
    fn until(self, longest: Duration) -> Time {
        let Some(doublings) = self.count.checked_sub(FREE) else {
            return self.last;
        };
        let times = 2_u32.saturating_pow(doublings);
        self.last + FIRST_WAIT.saturating_mul(times).min(longest)
    }
}

impl Rivals {
    fn count_logout(&mut self, user: UserId, now: Time) {
        if self.users.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.users.retain(|_, logouts| !logouts.are_over(now));
            self.sweep_at = 2 * self.users.len();
        }
        let logouts = self.users.entry(user).or_insert(Logouts {
            count: 0,
            last: now,
        });
        if logouts.are_over(now) {
            logouts.count = 0;
        }
        logouts.count = logouts.count.saturating_add(1);
        logouts.last = now;
    }
}

impl Router {
    /// How long a device has to wait before it may log another one out; `None`: not at all.
    pub(crate) fn holds_back(&self, identity: &Identity, now: Time) -> Option<Duration> {
        let (user, client) = (identity.user(), identity.client());
        let logouts = *lock(&self.rivals).users.get(user)?;
        let longest = self.rules.longest_rival_wait;
        let wait = logouts.until(longest).since(now);
        let hash = self.hash(user);
        let logs_out = || {
            let shard = lock(self.shard(hash));
            shard
                .users
                .find(user, hash)
                .or_nothing()
                .is_some_and(|user| self.has_rival(user, client))
        };
        (!wait.is_zero() && logs_out()).then_some(wait)
    }

    /// Whether this device of a user will log another one out.
    pub(super) fn has_rival(&self, user: &User, client: &ClientId) -> bool {
        let mut links = user.links();
        !self.rules.user.many_devices && links.any(|link| link.identity().client() != client)
    }

    pub(super) fn count_logout(&self, user: &UserId, now: Time) {
        lock(&self.rivals).count_logout(user.clone(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_have_been_calm_are_forgotten() {
        let mut rivals = Rivals::default();
        let mut now = Time::from_millis(1_000_000);
        for n in 0..10 * FIRST_SWEEP {
            let user = UserId::parse(n.to_string()).unwrap();
            rivals.count_logout(user, now);
            now = now + CALM / 100;
            assert!(rivals.users.len() <= FIRST_SWEEP);
        }
    }
}
