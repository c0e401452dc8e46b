//! Whose messages come too fast: one [`Allowance`] for each user, whatever devices they use.
//!
//! The connections of a user share it. When the last one ends, what has been used up of it is remembered
//! until it is full again, so that coming back makes nobody faster (`coming_back_makes_nobody_faster`).
//! An allowance is looked for and remembered under the lock of the user's shard.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;

use super::Router;
use super::shard::lock;
use crate::ids::UserId;
use crate::link::{Link, LinkId};
use crate::rate::Allowance;
use crate::time::Time;
use crate::user::User;

/// So many are remembered before those that are full again are looked for.
const FIRST_SWEEP: usize = 1024;

/// Allowances that are used up, of users without a connection. Those who published within the last
/// [`BURST`](crate::rate::BURST), and at most as many others.
#[derive(Default)]
pub(super) struct UsedUp {
    allowances: HashMap<UserId, Arc<Allowance>, RandomState>,
    sweep_at: usize,
}

impl UsedUp {
    fn insert(&mut self, user: UserId, allowance: Arc<Allowance>, now: Time) {
        if self.allowances.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.allowances.retain(|_, it| !it.is_full(now));
            self.sweep_at = 2 * self.allowances.len();
        }
        self.allowances.insert(user, allowance);
    }
}

impl Router {
    /// From now on a user may publish so many messages in a second. Connections that began while there was no limit
    /// have none.
    pub fn set_publish_rate(&self, rate: Option<NonZeroU32>) {
        self.publish_rate
            .store(rate.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    fn publish_rate(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.publish_rate.load(Ordering::Relaxed))
    }

    /// What a new connection of a user shares with the others. `None`: there is no limit.
    pub(super) fn allowance(&self, user: &User) -> Option<Arc<Allowance>> {
        self.publish_rate()?;
        let shared = user.links().find_map(|link| link.allowance().cloned());
        let remembered = || lock(&self.used_up).allowances.remove(user.id());
        Some(shared.or_else(remembered).unwrap_or_default())
    }

    /// Before a connection ends: what it shares with the user's others.
    pub(super) fn allowance_of(user: &User, link: LinkId) -> Option<Arc<Allowance>> {
        let mut links = user.links();
        links.find(|it| it.id() == link)?.allowance().cloned()
    }

    /// After it has ended.
    pub(super) fn remember_allowance(
        &self,
        user: &User,
        allowance: Option<Arc<Allowance>>,
        now: Time,
    ) {
        if let Some(allowance) = allowance
            && !user.is_connected()
            && !allowance.is_full(now)
        {
            lock(&self.used_up).insert(user.id().clone(), allowance, now);
        }
    }

    /// Whether a user may publish one more message now, on this connection.
    pub(crate) fn may_publish(&self, link: &Link, now: Time) -> bool {
        match (self.publish_rate(), link.allowance()) {
            (Some(rate), Some(allowance)) => allowance.take(rate, now),
            _ => true,
        }
    }

    /// The same of a will, whose user may have no connection.
    pub(super) fn may_publish_will(&self, user: &UserId, now: Time) -> bool {
        let Some(rate) = self.publish_rate() else {
            return true;
        };
        self.with_user(user, |user, _| {
            let Some(allowance) = self.allowance(user) else {
                return true;
            };
            let taken = allowance.take(rate, now);
            self.remember_allowance(user, Some(allowance), now);
            taken
        })
    }
}
