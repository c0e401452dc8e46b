//! Who is where: every user's state, and the hints that connections leave each other.
//!
//! A message is appended to its receiver's log, and the receiver's connections are woken: the wake
//! carries nothing. Each connection fetches for itself, from its own cursor.
//!
//! Invariants: no method waits for I/O; a user's state is only touched under the lock of its shard, and
//! no two locks are held at once. Users of whom nothing would be lost are forgotten.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use foldhash::fast::RandomState;
use jam_wire::packet::{PacketId, Publish, RetainHandling};

use crate::attempts::Attempts;
use crate::directory::{Account, Directory, Question};
use crate::ids::{ClientId, UserId};
use crate::link::{Eviction, Link, LinkId};
use crate::message::Message;
use crate::policy::{self, Facts, Identity, Permit, Refusal, Stop};
use crate::session::{Received, Session, Subscription};
use crate::store::{MailboxStore, Receipt, Seq};
use crate::time::Time;
use crate::user::{Attach, Attached, DueWill, Effects, Fetched, User, UserLimits};

/// Locks over the users; a power of two.
const SHARDS: usize = 256;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Limits of each user.
    pub user: UserLimits,
    /// How long a session outlives its connection: the default of 3.1 and 3.1.1 clients that do not
    /// ask for a clean one, and the maximum of 5.0 clients.
    pub session_expiry: Duration,
    /// Bytes of a packet from a client, its fixed header included.
    pub packet: usize,
    /// QoS 1 and 2 messages on their way at once, in either direction.
    pub inflight: u16,
    /// Between the first byte and the CONNECT.
    pub connect_timeout: Duration,
    /// Failed authentications within `failed_auth_window`; more are refused.
    pub failed_auth: u32,
    /// See `failed_auth`.
    pub failed_auth_window: Duration,
    /// Whether push notifications are sent.
    pub push_on: bool,
}

type Shard = HashMap<UserId, Box<User>, RandomState>;

/// Every user's state.
pub struct Router {
    rules: Rules,
    directory: Arc<dyn Directory>,
    store: Arc<dyn MailboxStore>,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    next_seq: AtomicU64,
    next_link: AtomicU64,
    attempts: Mutex<Attempts>,
    /// When a device without a connection has something due.
    timers: Mutex<BTreeSet<(Time, UserId, ClientId)>>,
    /// At most one for each session.
    wills: Mutex<VecDeque<DueWill>>,
}

/// The locks here guard plain data; after a panic the process is gone.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic under a lock ends the process")
}

impl Router {
    /// With no user's state yet.
    #[must_use]
    pub fn new(
        rules: Rules,
        directory: Arc<dyn Directory>,
        store: Arc<dyn MailboxStore>,
    ) -> Arc<Self> {
        let attempts = Attempts::new(rules.failed_auth, rules.failed_auth_window);
        Arc::new(Self {
            rules,
            directory,
            store,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            next_seq: AtomicU64::new(1),
            next_link: AtomicU64::new(1),
            attempts: Mutex::new(attempts),
            timers: Mutex::default(),
            wills: Mutex::default(),
        })
    }

    /// What the operator decided.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn directory(&self) -> &dyn Directory {
        &*self.directory
    }

    pub(crate) fn attempts(&self) -> MutexGuard<'_, Attempts> {
        lock(&self.attempts)
    }

    /// `pre_connect` with what is known of the address.
    pub(crate) fn pre_connect(&self, address: IpAddr, now: Time) -> Result<(), Refusal> {
        policy::pre_connect(self.attempts().exhausted(address, now))
    }

    /// Lets an authenticated client in. `None` if the user has too many devices.
    pub(crate) fn attach(
        &self,
        identity: &Identity,
        waker: Waker,
        options: AttachOptions,
    ) -> Option<(Arc<Link>, Attached)> {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let link = Arc::new(Link::new(id, identity.token().clone(), waker));
        let attach = Attach {
            identity: identity.clone(),
            link: link.clone(),
            clean_start: options.clean_start,
            session_expiry: options.session_expiry,
            will: options.will,
        };
        let attached = self.with_user(identity.user(), |user, effects| {
            user.attach(attach, &self.rules.user, effects)
        })?;
        Some((link, attached))
    }

    pub(crate) fn detach(
        &self,
        user: &UserId,
        link: LinkId,
        goodbye: bool,
        session_expiry: Option<Duration>,
        now: Time,
    ) {
        self.with_user(user, |user, effects| {
            user.detach(link, goodbye, session_expiry, now, effects);
        });
    }

    /// `authorize_publish` with the facts that the router has.
    pub(crate) fn authorize_publish(
        &self,
        sender: &UserId,
        publish: &Publish,
    ) -> Result<Permit, Stop> {
        let is_connected = |user: &UserId| self.is_connected(user);
        let facts = Facts {
            directory: &*self.directory,
            push_on: self.rules.push_on,
            is_connected: &is_connected,
        };
        policy::authorize_publish(sender, &publish.topic, &publish.payload, &facts)
    }

    /// Appends a permitted message and wakes who reads it. The receipt is resolved when the message is
    /// kept, at once if it need not be.
    pub(crate) fn publish(
        &self,
        permit: &Permit,
        publish: Publish,
        origin: Option<LinkId>,
        receipt: Option<Receipt>,
        now: Time,
    ) -> Result<(), Refusal> {
        let message = Message::new(publish, permit.sender().clone(), now);
        let receiver = permit.receiver();
        let (seq, to_keep) = self.with_user(receiver, |user, effects| {
            // Taken under the lock: a log's numbers ascend, or a reader's cursor would pass one by.
            let seq = self.next_seq();
            let limits = &self.rules.user;
            let kept = user.append(seq, message, permit.destination(), origin, limits, effects);
            (seq, kept)
        });
        match to_keep? {
            Some(message) => self.store.append(seq, receiver, &message, receipt),
            None => receipt.into_iter().for_each(Receipt::stored),
        }
        Ok(())
    }

    pub(crate) fn subscribe(
        &self,
        user: &UserId,
        link: LinkId,
        subscription: Subscription,
        retain_handling: RetainHandling,
        now: Time,
    ) -> Option<bool> {
        self.with_user(user, |user, _| {
            user.subscribe(link, subscription, retain_handling, now, || self.next_seq())
        })
    }

    pub(crate) fn unsubscribe(&self, user: &UserId, link: LinkId, topic: &str) -> bool {
        self.with_user(user, |user, effects| user.unsubscribe(link, topic, effects))
    }

    pub(crate) fn fetch(
        &self,
        user: &UserId,
        link: LinkId,
        window: usize,
        count: usize,
        now: Time,
    ) -> Fetched {
        self.with_user(user, |user, effects| {
            user.fetch(link, window, count, &self.rules.user, now, effects)
        })
    }

    pub(crate) fn skip(&self, user: &UserId, link: LinkId, packet_id: PacketId) {
        self.with_user(user, |user, effects| user.skip(link, packet_id, effects));
    }

    pub(crate) fn pub_ack(&self, user: &UserId, link: LinkId, packet_id: PacketId) {
        self.with_user(user, |user, effects| user.pub_ack(link, packet_id, effects));
    }

    pub(crate) fn pub_rec(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        refused: bool,
    ) -> Received {
        self.with_user(user, |user, effects| {
            user.pub_rec(link, packet_id, refused, effects)
        })
    }

    /// Looks at or changes the session behind a connection; `None` if the session is no longer its.
    pub(crate) fn with_session<T>(
        &self,
        user: &UserId,
        link: LinkId,
        what: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        self.with_user(user, |user, _| user.session(link).map(what))
    }

    /// Ends sessions and makes wills due whose time has come. To be called a few times a second.
    pub fn handle_timeout(&self, now: Time) {
        loop {
            let (user, client) = {
                let mut timers = lock(&self.timers);
                match timers.first() {
                    Some((due, _, _)) if *due <= now => {}
                    _ => return,
                }
                let Some((_, user, client)) = timers.pop_first() else {
                    return;
                };
                (user, client)
            };
            self.with_user(&user, |user, effects| {
                user.handle_timeout(&client, now, effects);
            });
        }
    }

    /// Takes a will that is due.
    #[must_use]
    pub fn next_will(&self) -> Option<DueWill> {
        lock(&self.wills).pop_front()
    }

    /// Judges a due will as any PUBLISH of its client and publishes it; a refused one is dropped.
    ///
    /// # Errors
    /// The fact that has to be loaded before the will can be judged.
    pub fn publish_will(&self, due: &DueWill, now: Time) -> Result<(), Question> {
        let will = &due.will;
        let publish = Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: will.topic.clone(),
            packet_id: None,
            properties: will.properties.clone(),
            payload: will.payload.clone(),
        };
        match self.authorize_publish(&due.user, &publish) {
            Ok(permit) => {
                // A mailbox without room drops a will, which nobody waits for an answer to.
                let _ = self.publish(&permit, publish, None, None, now);
                Ok(())
            }
            Err(Stop::Refused(_)) => Ok(()),
            Err(Stop::Ask(question)) => Err(question),
        }
    }

    /// Users with a device connected.
    #[must_use]
    pub fn connected_users(&self) -> Vec<UserId> {
        let mut connected = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let users = shard.iter().filter(|(_, user)| user.is_connected());
            connected.extend(users.map(|(id, _)| id.clone()));
        }
        connected
    }

    /// How many users anything is remembered of: devices, mail or retained messages.
    #[must_use]
    pub fn known_users(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// How many devices without a connection have something due: a session's end or a will.
    #[must_use]
    pub fn pending_timers(&self) -> usize {
        lock(&self.timers).len()
    }

    /// Ends the connections of a user that were let in with what is no longer his token (PROTOCOL.md,
    /// section 6), all of them if the account is gone.
    pub fn recheck(&self, user: &UserId, account: Option<&Account>) {
        let token = account.and_then(|account| account.token.as_ref());
        if let Some(user) = lock(self.shard(user)).get(user) {
            user.links()
                .filter(|link| !token.is_some_and(|token| token.matches(link.token())))
                .for_each(|link| link.evict(Eviction::NotAuthorized));
        }
    }

    /// Ends every connection.
    pub fn evict_all(&self, why: Eviction) {
        for shard in &self.shards {
            lock(shard)
                .values()
                .flat_map(|user| user.links())
                .for_each(|link| link.evict(why));
        }
    }

    fn is_connected(&self, user: &UserId) -> bool {
        lock(self.shard(user))
            .get(user)
            .is_some_and(|user| user.is_connected())
    }

    fn next_seq(&self) -> Seq {
        self.next_seq.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, user: &UserId) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(user);
        let index = usize::try_from(hash % SHARDS as u64).expect("below SHARDS");
        &self.shards[index]
    }

    /// Runs `what` under the lock of the user's shard and its effects after that.
    fn with_user<T>(&self, id: &UserId, what: impl FnOnce(&mut User, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = {
            let mut shard = lock(self.shard(id));
            if !shard.contains_key(id) {
                let own = id.detached();
                shard.insert(own.clone(), Box::new(User::new(own)));
            }
            let user = shard.get_mut(id).expect("it was put there a moment ago");
            let result = what(user, &mut effects);
            if user.is_idle() {
                shard.remove(id);
            }
            result
        };
        self.apply(id, effects);
        result
    }

    fn apply(&self, id: &UserId, effects: Effects) {
        effects.wake.iter().for_each(|link| link.wake());
        for seq in effects.left {
            self.store.remove(seq, id);
        }
        if !effects.unset.is_empty() || effects.set.is_some() {
            let mut timers = lock(&self.timers);
            for (due, client) in effects.unset {
                timers.remove(&(due, id.clone(), client));
            }
            timers.extend(effects.set.map(|(due, client)| (due, id.clone(), client)));
        }
        if !effects.wills.is_empty() {
            lock(&self.wills).extend(effects.wills);
        }
    }
}

/// How a client wants to be let in.
pub(crate) struct AttachOptions {
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: Duration,
    pub(crate) will: Option<Box<jam_wire::packet::Will>>,
}
