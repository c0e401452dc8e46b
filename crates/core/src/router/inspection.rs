//! What an operator sees of the users, and how a device is disconnected by one.
//!
//! Invariants: a look at one user holds one lock for that user; a look at many holds one lock at a time, for the users of
//! one of [`SHARDS`] parts, and copies names and numbers only.

use super::Router;
use super::shard::lock;
use crate::attempts::Lockout;
use crate::ids::{ClientId, UserId};
use crate::source::Source;
use crate::time::Time;
use crate::user::{Kicked, MailboxView, User, UserView};

/// Which users a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserFilter {
    /// With a device that is connected.
    Connected,
    /// With a device, connected or not.
    WithDevice,
}

impl Router {
    /// What there is of a user; `None`: nothing.
    #[must_use]
    pub fn view(&self, user: &UserId) -> Option<UserView> {
        self.look_at(user, User::view)
    }

    /// Whether a receiver's mailbox has room for one more message of a sender.
    #[must_use]
    pub fn has_room(&self, receiver: &UserId, sender: &UserId) -> bool {
        let has_room = |user: &User| user.has_room_for(sender, &self.rules.user);
        self.look_at(receiver, has_room).unwrap_or(true)
    }

    /// Whether a device of the user is connected.
    #[must_use]
    pub fn is_online(&self, user: &UserId) -> bool {
        self.is_connected(user)
    }

    fn look_at<T>(&self, user: &UserId, what: impl FnOnce(&User) -> T) -> Option<T> {
        let hash = self.hash(user);
        let shard = lock(self.shard(hash));
        shard.users.find(user, hash).or_nothing().map(what)
    }

    /// The part that a user belongs to, of [`SHARDS`]. Another one after a restart.
    ///
    /// [`SHARDS`]: super::SHARDS
    #[must_use]
    pub fn part_of(&self, user: &UserId) -> usize {
        Self::shard_index(self.hash(user))
    }

    /// The users of one part, in the order of their ids.
    #[must_use]
    pub fn users_who_are(&self, which: UserFilter, part: usize) -> Vec<UserId> {
        let is_meant = |user: &User| match which {
            UserFilter::Connected => user.is_connected(),
            UserFilter::WithDevice => user.has_devices(),
        };
        let mut ids: Vec<_> = {
            let shard = lock(&self.shards[part]);
            let users = shard.users.iter().filter(|user| is_meant(user));
            users.map(|user| user.id().clone()).collect()
        };
        ids.sort_unstable();
        ids
    }

    /// The mailboxes of one part in which something waits.
    #[must_use]
    pub fn mailboxes_of(&self, part: usize) -> Vec<(UserId, MailboxView)> {
        let shard = lock(&self.shards[part]);
        let views = shard.users.iter().map(|user| (user, user.mailbox_view()));
        let waiting = views.filter(|(_, view)| view.messages > 0);
        waiting
            .map(|(user, view)| (user.id().clone(), view))
            .collect()
    }

    /// Disconnects a device. Its client may come back at once, if its token still holds; a will is due, as whenever the
    /// server ends a connection (MQTT 5.0, section 3.1.2.5).
    pub fn kick(&self, user: &UserId, client: &ClientId, ends_session: bool) -> Kicked {
        if self.look_at(user, |_| ()).is_none() {
            return Kicked::Unknown;
        }
        self.with_user(user, |user, effects| {
            user.kick(client, ends_session, effects, &self.numbers)
        })
    }

    /// Failed logins that count against a source; `None`: there are none.
    #[must_use]
    pub fn lockout(&self, source: Source, now: Time) -> Option<Lockout> {
        lock(&self.attempts).lockout(source, now)
    }

    /// The first `count` sources after `after` whose attempts are refused because too many have failed, in their order.
    #[must_use]
    pub fn locked_out(
        &self,
        after: Option<Source>,
        count: usize,
        now: Time,
    ) -> Vec<(Source, Lockout)> {
        let mut found: Vec<_> = {
            let attempts = lock(&self.attempts);
            let all = attempts.locked_out(now);
            all.filter(|(source, _)| Some(*source) > after).collect()
        };
        found.sort_unstable_by_key(|(source, _)| *source);
        found.truncate(count);
        found
    }

    /// Forgets them. Whether there were any.
    pub fn lift_lockout(&self, source: Source) -> bool {
        lock(&self.attempts).forget(source)
    }
}
