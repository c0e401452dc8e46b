//! What a connection asks of its user: to be let in and out, to fetch, to acknowledge, to subscribe; and what
//! the store says of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytestring::ByteString;
use jam_wire::packet::{PacketId, RetainHandling};

use crate::directory::LifeFact;
use crate::ids::UserId;
use crate::link::{Displaced, Link, LinkId};
use crate::policy::Identity;
use crate::session::{PubRecOutcome, Session, WrongAck};
use crate::store::{Receipt, Seq, SessionId, Subscription, Which, Write, Writes};
use crate::time::Time;
use crate::user::{Attach, Attached, Fetched, NotAttached, Room};

use super::shard::lock;
use super::{GRACE, Router};

/// How a client wants to be let in.
pub(crate) struct AttachOptions {
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: Duration,
    pub(crate) will: Option<Box<jam_wire::packet::Will>>,
    /// Of the account that lets it in.
    pub(crate) life: LifeFact,
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
            let link = Arc::new(Link::new(id, identity, waker, self.allowance(user)));
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
            .find(identity.user(), hash)
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

    /// Resolves the receipt when everything that was written before is kept.
    pub(crate) fn barrier(&self, user: &UserId, receipt: Receipt) {
        self.with_user(user, |_, effects| {
            effects.writes.push((Writes::new(), Some(receipt)));
        });
    }

    /// Subscribes to each of the topics. The receipt is resolved when the store has the subscriptions.
    pub(crate) fn subscribe(
        &self,
        user: &UserId,
        link: LinkId,
        subscriptions: Vec<(Subscription, RetainHandling)>,
        receipt: Receipt,
        now: Time,
    ) -> Vec<Option<bool>> {
        let (outcomes, receipt) = self.with_user(user, |user, effects| {
            let mut outcomes = Vec::with_capacity(subscriptions.len());
            let mut changes = Writes::new();
            for (subscription, handling) in subscriptions {
                let outcome = user.subscribe(link, subscription, handling, now, &mut changes);
                outcomes.push(outcome);
            }
            let receipt = user.keep_subscriptions(link, changes, receipt, effects);
            (outcomes, receipt)
        });
        receipt.into_iter().for_each(Receipt::stored);
        outcomes
    }

    /// Whether there was a subscription to each of the topics. The receipt is resolved as above.
    pub(crate) fn unsubscribe(
        &self,
        user: &UserId,
        link: LinkId,
        topics: &[ByteString],
        receipt: Receipt,
    ) -> Vec<bool> {
        let (existed, receipt) = self.with_user(user, |user, effects| {
            let mut changes = Writes::new();
            let unsubscribe =
                |topic: &ByteString| user.unsubscribe(link, topic, effects, &mut changes);
            let existed = topics.iter().map(unsubscribe).collect();
            let receipt = user.keep_subscriptions(link, changes, receipt, effects);
            (existed, receipt)
        });
        receipt.into_iter().for_each(Receipt::stored);
        existed
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
            let receipt = |session, packet_id| {
                Receipt::for_device(self.this.clone(), id.clone(), session, packet_id)
            };
            user.fetch(link, room, now, effects, receipt, fetched);
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
    ) -> Result<(), WrongAck> {
        self.with_user(user, |user, effects| user.pub_ack(link, packet_id, effects))
    }

    pub(crate) fn pub_rec(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        refused: bool,
    ) -> Result<PubRecOutcome, WrongAck> {
        let can_store = self.can_store();
        self.with_user(user, |user, effects| {
            let id = user.id().clone();
            let receipt =
                |session| Receipt::for_device(self.this.clone(), id, session, Some(packet_id));
            user.pub_rec(link, packet_id, refused, can_store, effects, receipt)
        })
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

    /// PUBREL: whether the id was known, and how many are left. The receipt is resolved when the store
    /// knows that the id is free.
    pub(crate) fn pub_rel(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        receipt: Receipt,
    ) -> (bool, u16) {
        let (released, receipt) = self.with_user(user, |user, effects| {
            let Some((session, id)) = user.session(link) else {
                return ((false, 0), Some(receipt));
            };
            let known = session.release(packet_id);
            let released = (known, session.received());
            let Some(id) = id else {
                return (released, Some(receipt));
            };
            // One that is not known may have been released on an earlier connection, a moment ago.
            let write = known.then_some(Write::Released(id, packet_id));
            effects
                .writes
                .push((write.into_iter().collect(), Some(receipt)));
            (released, None)
        });
        receipt.into_iter().for_each(Receipt::stored);
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

    /// The store has a message that could not be delivered before.
    pub(crate) fn message_stored(&self, user: &UserId, seq: Seq) {
        self.with_user(user, |user, effects| user.message_stored(seq, effects));
    }

    /// The store could not keep a message.
    pub(crate) fn message_refused(&self, user: &UserId, seq: Seq) {
        self.with_user(user, |user, effects| user.forget(seq, effects));
    }

    /// The same, of a message that was published at QoS 2: its id is free, on whatever connection its
    /// sender is by now.
    pub(crate) fn publish_refused(&self, sender: &UserId, session: SessionId, id: PacketId) {
        self.with_user(sender, |user, _| user.publish_refused(session, id));
    }

    /// The store has what waited for it before it could be sent under a packet id.
    pub(crate) fn flight_stored(&self, user: &UserId, session: Which, packet_id: Option<PacketId>) {
        self.with_user(user, |user, effects| {
            user.flight_stored(session, packet_id, effects);
        });
    }
}
