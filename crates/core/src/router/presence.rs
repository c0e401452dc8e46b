//! Presence: telling users which friends of theirs are connected (PROTOCOL.md, section 10).
//!
//! The router says which user there is something to tell about ([`Router::next_presence`]). The caller asks the
//! directory, at that moment, which friends are concerned, and gives them back. Friendships
//! and blocks are the directory's alone.
//!
//! Invariants: without a subscriber presence costs one look at a number; at most one entry waits for each user,
//! however often they come and go; changes are sent one after another, so that they arrive in their order.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use jam_wire::packet::{Publish, QoS};
use smallvec::SmallVec;

use super::Router;
use super::shard::lock;
use crate::ids::UserId;
use crate::link::LinkId;
use crate::message::Message;
use crate::metrics::Dropped;
use crate::policy::Permit;
use crate::time::{Stamp, Time};
use crate::user::{PRESENCE, Telling, User};

/// Users with something to tell, about them or to them.
#[derive(Debug, Default)]
pub(super) struct PresenceQueue(Mutex<VecDeque<UserId>>);

/// Something to tell about a user or to them, each once the directory has said which friends it concerns.
#[derive(Debug)]
pub struct DuePresence {
    user: UserId,
    online: Option<bool>,
    subscribed: SmallVec<[LinkId; 1]>,
}

impl DuePresence {
    /// The user that it is about, or for.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Whether the user has come or gone: friends who may see them are to be told, with
    /// [`Router::tell_of_change`].
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.online.is_some()
    }

    /// Whether the user has subscribed: they are to be told of the friends that they may see, with
    /// [`Router::tell_subscriber`].
    #[must_use]
    pub fn has_subscribed(&self) -> bool {
        !self.subscribed.is_empty()
    }
}

impl Router {
    /// The next user with something to tell, about them or to them. That they have come or gone must have been told
    /// before this is asked again; a subscriber may be told of friends later, as those are then.
    #[must_use]
    pub fn next_presence(&self) -> Option<DuePresence> {
        loop {
            let user = lock(&self.presence.0).pop_front()?;
            let Telling { online, subscribed } =
                self.with_user(&user, |user, _| user.take_telling());
            let online = online.filter(|_| self.listening.presence());
            if online.is_some() || !subscribed.is_empty() {
                return Some(DuePresence {
                    user,
                    online,
                    subscribed,
                });
            }
        }
    }

    /// Tells `friends`, those of them who subscribe to it, that a user has come or gone.
    pub fn tell_of_change(&self, due: &DuePresence, friends: &[UserId], now: Time) {
        let Some(online) = due.online else { return };
        let payload = payload(&due.user, online, self.adjustments.stamp(now));
        for friend in friends {
            let hash = self.hash(friend);
            let watches = lock(self.shard(hash))
                .users
                .find(friend, hash)
                .or_nothing()
                .is_some_and(User::watches_presence);
            if watches {
                // A connection that does not read misses it, as QoS 0 may be missed.
                self.tell(friend, None, payload.clone(), now);
            }
        }
    }

    /// Tells a user who has subscribed which of `friends` are online: how many of `friends` there was room
    /// for. For the others, give them time to read and ask again.
    pub fn tell_subscriber(&self, due: &DuePresence, friends: &[UserId], now: Time) -> usize {
        for (count, friend) in friends.iter().enumerate() {
            let hash = self.hash(friend);
            let is_online = lock(self.shard(hash))
                .users
                .find(friend, hash)
                .or_nothing()
                .is_some_and(User::is_online);
            if !is_online {
                continue;
            }
            let payload = payload(friend, true, self.adjustments.stamp(now));
            let mut links = due.subscribed.iter();
            let told = |link: &LinkId| self.tell(&due.user, Some(*link), payload.clone(), now);
            if !links.all(told) {
                return count;
            }
        }
        friends.len()
    }

    fn tell(&self, user: &UserId, to: Option<LinkId>, payload: Bytes, now: Time) -> bool {
        let permit = Permit::for_server(user);
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: permit.own_topic(PRESENCE),
            packet_id: None,
            properties: None,
            payload,
        };
        let (sender, receiver) = permit.into_users();
        let message = Message::new(publish, sender, now);
        let has_room = self.with_user(&receiver, |user, effects| {
            let seq = self.numbers.next();
            user.tell_presence(seq, message, to, &self.rules.user, effects)
        });
        if has_room {
            self.metrics.told_presence();
        } else {
            self.metrics.dropped(Dropped::Presence, 1);
        }
        has_room
    }

    /// There is something to tell about a user or to them.
    pub(super) fn look_at_presence(&self, user: &UserId) {
        lock(&self.presence.0).push_back(user.clone());
    }
}

fn payload(user: &UserId, online: bool, timestamp: Stamp) -> Bytes {
    let user = serde_json::to_string(user.as_str()).expect("a string always serialises");
    let json = format!(
        r#"{{"type":"presence","user":{user},"online":{online},"timestamp":"{timestamp}"}}"#
    );
    json.into()
}
