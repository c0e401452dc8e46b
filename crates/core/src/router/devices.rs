//! What a connection asks of its user: to be let in and out, to fetch, to acknowledge, to subscribe.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytestring::ByteString;
use jam_wire::packet::{PacketId, RetainHandling};

use crate::directory::LifeFact;
use crate::ids::UserId;
use crate::link::{Displaced, Link, LinkId, Peer, Responder};
use crate::policy::Identity;
use crate::session::{PubRecOutcome, Session, WrongAck};
use crate::store::{Subscription, Write, Writes};
use crate::time::Time;
use crate::user::{Attach, Attached, Awaits, Fetched, NotAttached, Room};

use super::shard::lock;
use super::{GRACE, Router};

/// How a client wants to be let in.
pub(crate) struct AttachOptions {
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: Duration,
    pub(crate) will: Option<Box<jam_wire::packet::Will>>,
    /// Of the account that lets it in.
    pub(crate) life: LifeFact,
    pub(crate) peer: Peer,
}

impl Router {
    /// Lets an authenticated client in.
    pub(crate) fn attach(
        &self,
        identity: Identity,
        waker: Waker,
        options: AttachOptions,
        now: Time,
    ) -> Result<(Arc<Link>, Attached), NotAttached> {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let user = identity.user().clone();
        let (link, attached) = self.with_user(&user, |user, effects| {
            if self.is_before_check(options.life.as_of) {
                return Err(NotAttached::Outdated);
            }
            let link = Arc::new(Link::new(
                id,
                identity,
                options.peer,
                waker,
                self.allowance(user),
            ));
            let has_rival = self.has_rival(user, link.identity().client());
            let attach = Attach {
                link: link.clone(),
                clean_start: options.clean_start,
                session_expiry: options.session_expiry,
                will: options.will,
                life: options.life,
            };
            let limits = &self.rules.user;
            let mut attached = user.attach(attach, limits, now, effects, &self.numbers)?;
            let is_new = !attached.session_present;
            if has_rival {
                self.count_logout(user.id(), now);
            }
            attached.waits |= is_new && self.store.is_ending_sessions();
            user.note_arrival(self.listening.presence(), effects);
            user.note_return(id, effects);
            Ok((link, attached))
        })?;
        if attached.unrecorded {
            let due = (now + GRACE, link.user().clone(), id);
            lock(&self.new_sessions).push_back(due);
        }
        Ok((link, attached))
    }

    /// Gives notice to the connections that end when this client is let in. `None` if there are none.
    pub(crate) fn displace(&self, identity: &Identity) -> Option<Displaced> {
        let many = self.rules.user.many_devices;
        let hash = self.hash(identity.user());
        let links = lock(self.shard(hash))
            .users
            .find(identity.user(), hash)
            .or_nothing()
            .map(|user| user.displaced_by(identity.client(), many))?;
        (!links.is_empty()).then(|| Displaced::notify(&links))
    }

    /// Has the store told of a connection's session, if it has not been yet: before what is the session's.
    pub(crate) fn keep_session(&self, user: &UserId, link: LinkId) {
        self.with_user(user, |user, effects| user.keep_session(link, effects));
    }

    pub(crate) fn detach(
        &self,
        user: &UserId,
        link: LinkId,
        goodbye: bool,
        session_expiry: Option<Duration>,
        now: Time,
    ) {
        self.loads.forget(link);
        self.with_user(user, |user, effects| {
            let allowance = Self::allowance_of(user, link);
            user.detach(link, goodbye, session_expiry, now, effects, &self.numbers);
            self.remember_allowance(user, allowance, now);
            user.has_gone(now, &self.rules.user.push, effects);
            user.note_departure(self.listening.presence(), now, effects);
        });
    }

    /// Whether the store can keep anything at the moment.
    pub(crate) fn can_store(&self) -> bool {
        self.store.is_writable()
    }

    /// Has every connection look again at what waits for its device: the store can keep nothing any more, and what
    /// can do without it goes on.
    pub fn wake_all(&self) {
        for shard in &self.shards {
            lock(shard)
                .users
                .iter()
                .flat_map(|user| user.links())
                .for_each(|link| link.wake());
        }
    }

    /// Answers when everything that was written before about the user is committed.
    pub(crate) fn barrier(&self, user: &UserId, client: Responder) {
        self.with_user(user, |_, effects| {
            effects
                .writes
                .push((Writes::new(), Some(Awaits::Client(client))));
        });
    }

    /// Subscribes to each of the topics: whether there was room, and the work that it was. Answers when the store has the
    /// subscriptions.
    pub(crate) fn subscribe(
        &self,
        user: &UserId,
        link: LinkId,
        subscriptions: Vec<(Subscription, RetainHandling)>,
        client: Responder,
        now: Time,
    ) -> (Vec<Option<bool>>, usize) {
        let mut work = 0;
        let (outcomes, kept_already) = self.with_user(user, |user, effects| {
            let mut outcomes = Vec::with_capacity(subscriptions.len());
            let mut changes = Writes::new();
            for (subscription, handling) in subscriptions {
                work += user.subscribing_work(&subscription.topic);
                let outcome = user.subscribe(link, subscription, handling, now, &mut changes);
                outcomes.push(outcome);
            }
            let writes = user.keep_subscriptions(link, changes, effects);
            (outcomes, effects.write_for(client, writes))
        });
        kept_already.into_iter().for_each(Responder::unwritten);
        (outcomes, work)
    }

    /// Whether there was a subscription to each of the topics, and the work that it was. Answers as above.
    pub(crate) fn unsubscribe(
        &self,
        user: &UserId,
        link: LinkId,
        topics: &[ByteString],
        client: Responder,
    ) -> (Vec<bool>, usize) {
        let mut work = 0;
        let (existed, kept_already) = self.with_user(user, |user, effects| {
            let mut changes = Writes::new();
            let unsubscribe = |topic: &ByteString| {
                work += user.subscribing_work(topic);
                user.unsubscribe(link, topic, effects, &mut changes)
            };
            let existed = topics.iter().map(unsubscribe).collect();
            let writes = user.keep_subscriptions(link, changes, effects);
            (existed, effects.write_for(client, writes))
        });
        kept_already.into_iter().for_each(Responder::unwritten);
        (existed, work)
    }

    pub(crate) fn fetch(
        &self,
        id: &UserId,
        link: LinkId,
        room: Room,
        now: Time,
        fetched: &mut Fetched,
    ) {
        self.with_user(id, |user, effects| {
            user.fetch(link, room, now, effects, fetched);
        });
        self.start_loads();
    }

    /// Gives back what was read for a connection that cannot take it.
    pub(crate) fn unload(&self, user: &UserId, link: LinkId) {
        self.with_user(user, |user, _| user.unload(link));
        self.start_loads();
    }

    pub(crate) fn pub_ack(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        now: Time,
    ) -> Result<(), WrongAck> {
        let acknowledged =
            self.with_user(user, |user, effects| user.pub_ack(link, packet_id, effects))?;
        if let Some(acknowledged) = acknowledged {
            acknowledged.count(&self.metrics, now);
        }
        Ok(())
    }

    pub(crate) fn pub_rec(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        refused: bool,
        now: Time,
    ) -> Result<PubRecOutcome, WrongAck> {
        let can_store = self.can_store();
        let (outcome, acknowledged) = self.with_user(user, |user, effects| {
            user.pub_rec(link, packet_id, refused, can_store, effects)
        })?;
        if let Some(acknowledged) = acknowledged {
            acknowledged.count(&self.metrics, now);
        }
        Ok(outcome)
    }

    pub(crate) fn pub_comp(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
    ) -> Result<(), WrongAck> {
        self.with_user(user, |user, effects| {
            user.pub_comp(link, packet_id, effects)
        })
    }

    /// PUBREL: whether the id was known, and how many are left. Answers when the store knows
    /// that the id is free.
    pub(crate) fn pub_rel(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        client: Responder,
    ) -> (bool, u16) {
        let (released, kept_already) = self.with_user(user, |user, effects| {
            let Some((session, id)) = user.session(link) else {
                return ((false, 0), Some(client));
            };
            let known = session.release(packet_id);
            let released = (known, session.received());
            // One that is not known may have been released on an earlier connection, a moment ago.
            let write = |id| known.then_some(Write::Released(id, packet_id));
            let writes = id.map(|id| write(id).into_iter().collect());
            (released, effects.write_for(client, writes))
        });
        kept_already.into_iter().for_each(Responder::unwritten);
        released
    }

    /// Looks at or changes the session behind a connection; `None` if the session is no longer its.
    pub(crate) fn with_session<T>(
        &self,
        user: &UserId,
        link: LinkId,
        what: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        self.with_user(user, |user, _| {
            user.session(link).map(|(session, _)| what(session))
        })
    }
}
