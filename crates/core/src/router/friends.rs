//! The friends channel: telling users who their friends are (PROTOCOL.md, section 10).
//!
//! The router says whose list is to be read ([`Router::next_friends`]), the caller reads it from the accounts database and
//! gives it back ([`Router::tell_friends`]). What a connection was told last is remembered by its digest, so that a change
//! of the database makes a list go out only to a user whose list has changed.
//!
//! Invariants, checked by `tests/friends.rs`: only users with a subscribed connection are in here; a user's list is read
//! at most once in [`REST`], however often it is asked for and whatever changes; the list that has waited longest comes first; what is
//! committed after the reading of a list has begun makes it be read again. A change costs nothing until a user's turn comes.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use foldhash::fast::RandomState;
use jam_wire::packet::{Publish, QoS};
use smallvec::SmallVec;

use super::Router;
use super::shard::lock;
use crate::friends::List;
use crate::ids::UserId;
use crate::link::LinkId;
use crate::message::Message;
use crate::policy::Permit;
use crate::store::Seq;
use crate::time::Time;
use crate::user::{FRIENDS, User, Watching};

/// Between the beginnings of two readings of a user's list. With what it takes to notice a change and to read, it stays
/// within a second.
pub const REST: Duration = Duration::from_millis(400);

/// Bytes of a packet besides its payload, its topic and a user id: header, lengths, the property's name, a subscription
/// identifier.
const PACKET_BYTES: usize = 32;

/// Users with a connection that subscribes to their friends.
#[derive(Debug, Default)]
pub(super) struct Friends(Mutex<Watchers>);

#[derive(Debug, Default)]
struct Watchers {
    users: HashMap<UserId, Watcher, RandomState>,
    /// All of them, by when the reading of their list began last. No two began at once, so that whose list is older than
    /// the last change comes before all others.
    by_age: BTreeSet<(Time, UserId)>,
    /// Those who have asked since, by the same.
    asking: BTreeSet<(Time, UserId)>,
    /// How often the accounts database has changed.
    changes: u64,
    /// When the last reading began.
    last: Time,
}

#[derive(Debug, Default)]
struct Watcher {
    /// When the reading of the list began last, and how often the database had changed by then.
    read_at: Time,
    as_of: u64,
    told: SmallVec<[Told; 1]>,
}

/// What a connection was told last.
#[derive(Debug, Clone, Copy)]
struct Told {
    link: LinkId,
    digest: u64,
    last_part: Seq,
}

/// A user whose list is to be read.
#[derive(Debug)]
pub struct DueFriends {
    user: UserId,
    watching: Watching,
    told: SmallVec<[Told; 1]>,
}

impl DueFriends {
    /// Whose list it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }
}

impl Watchers {
    /// The user's list is to be read, whatever has changed.
    fn ask(&mut self, user: &UserId) {
        let read_at = match self.users.get(user) {
            Some(watcher) => watcher.read_at,
            None => {
                self.users.insert(user.clone(), Watcher::default());
                self.by_age.insert((Time::default(), user.clone()));
                Time::default()
            }
        };
        self.asking.insert((read_at, user.clone()));
    }

    /// The user whose turn it is, and what was told. Their list counts as being read from now on.
    fn take(&mut self, now: Time) -> Option<(UserId, SmallVec<[Told; 1]>)> {
        let is_old = |(_, user): &&(Time, UserId)| self.users[user].as_of < self.changes;
        let oldest = self.by_age.first().filter(is_old);
        let first = oldest.into_iter().chain(self.asking.first()).min()?;
        if first.0 + REST > now {
            return None;
        }
        let mut place = first.clone();
        self.last = now.after(self.last);
        self.by_age.remove(&place);
        self.asking.remove(&place);
        let watcher = self.users.get_mut(&place.1)?;
        (watcher.read_at, watcher.as_of) = (self.last, self.changes);
        let told = watcher.told.clone();
        place.0 = self.last;
        self.by_age.insert(place.clone());
        Some((place.1, told))
    }

    /// The list was read, or could not be.
    fn settle(&mut self, user: &UserId, told: SmallVec<[Told; 1]>, asks_again: bool) {
        if let Some(watcher) = self.users.get_mut(user) {
            watcher.told = told;
        }
        if asks_again {
            self.ask(user);
        }
    }

    /// The user has no such connection, unless somebody has asked meanwhile.
    fn forget(&mut self, user: &UserId) {
        let Some(read_at) = self.users.get(user).map(|it| it.read_at) else {
            return;
        };
        let place = (read_at, user.clone());
        if !self.asking.contains(&place) {
            self.by_age.remove(&place);
            self.users.remove(user);
        }
    }
}

impl Router {
    /// The accounts database has changed: everybody who is told of their friends is looked at again.
    pub fn friends_may_have_changed(&self) {
        lock(&self.friends.0).changes += 1;
    }

    /// The next user whose list is to be read now: for [`Self::tell_friends`], or [`Self::put_back_friends`]. It is
    /// not the same user's turn again for [`REST`].
    #[must_use]
    pub fn next_friends(&self, now: Time) -> Option<DueFriends> {
        loop {
            let (user, told) = lock(&self.friends.0).take(now)?;
            let last = |link| {
                told.iter()
                    .find(|it| it.link == link)
                    .map(|it| it.last_part)
            };
            let watching = self.with_user(&user, |user, _| user.take_watching(last));
            if !watching.ready.is_empty() {
                return Some(DueFriends {
                    user,
                    watching,
                    told,
                });
            }
            let mut watchers = lock(&self.friends.0);
            if watching.behind.is_empty() {
                watchers.forget(&user);
            } else {
                watchers.settle(&user, told, true);
            }
        }
    }

    /// Tells those connections of a user of the user's friends that asked, or that were told something else.
    pub fn tell_friends(&self, due: DueFriends, list: &List, now: Time) {
        let digest = list.digest();
        let DueFriends {
            user,
            watching,
            mut told,
        } = due;
        told.retain(|it| watching.ready.contains(&it.link) || watching.behind.contains(&it.link));
        let knows = |link: &LinkId| {
            told.iter()
                .any(|it| it.link == *link && it.digest == digest)
        };
        let mut to = watching.ready.clone();
        to.retain(|link| watching.asked.contains(link) || !knows(link));
        let mut asks_again = !watching.behind.is_empty();
        if !to.is_empty() {
            match self.write_friends(&user, list, &to, now) {
                Some(last_part) => {
                    told.retain(|it| !to.contains(&it.link));
                    told.extend(to.into_iter().map(|link| Told {
                        link,
                        digest,
                        last_part,
                    }));
                    self.metrics.told_friends();
                }
                None => {
                    self.with_user(&user, |user, _| user.ask_again(&watching.asked));
                    asks_again = true;
                }
            }
        }
        lock(&self.friends.0).settle(&user, told, asks_again);
    }

    /// The accounts database did not answer: the list is read later.
    pub fn put_back_friends(&self, due: DueFriends) {
        self.with_user(&due.user, |user, _| user.ask_again(&due.watching.asked));
        lock(&self.friends.0).settle(&due.user, due.told, true);
    }

    /// Has a list sent, all of it: the number of its last part. `None` if there is no room.
    fn write_friends(&self, user: &UserId, list: &List, to: &[LinkId], now: Time) -> Option<Seq> {
        let hash = self.hash(user);
        let max_packet = lock(self.shard(hash))
            .users
            .find(user, hash)
            .or_nothing()
            .and_then(|user| User::largest_packet(user, to));
        let permit = Permit::for_server(user);
        let topic = permit.own_topic(FRIENDS);
        let (sender, receiver) = permit.into_users();
        let besides = PACKET_BYTES + topic.len() + receiver.as_str().len();
        let max_bytes = max_packet.map_or(usize::MAX, |max| {
            usize::try_from(NonZeroU32::get(max)).unwrap_or(usize::MAX)
        });
        let payloads = list.parts(
            max_bytes.saturating_sub(besides),
            self.adjustments.stamp(now),
        );
        let message = |payload| {
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: topic.clone(),
                packet_id: None,
                properties: None,
                payload,
            };
            Message::new(publish, sender.clone(), now)
        };
        let parts = payloads.into_iter().map(message).collect();
        let (limits, numbers) = (&self.rules.user, &self.numbers);
        self.with_user(&receiver, |user, effects| {
            user.tell_friends(parts, to, now, limits, numbers, effects)
        })
    }

    /// A connection has begun or ceased to subscribe to its user's friends, or asks for them again.
    pub(super) fn look_at_friends(&self, user: &UserId) {
        lock(&self.friends.0).ask(user);
    }

    /// Users whose friends are looked at when the accounts database changes: for tests.
    #[must_use]
    pub fn friends_watchers(&self) -> usize {
        lock(&self.friends.0).users.len()
    }
}
