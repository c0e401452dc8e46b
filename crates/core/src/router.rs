//! Who is where: every user's state, and the hints that connections leave each other.
//!
//! A message is appended to its receiver's log, and the receiver's connections are woken: the wake
//! carries nothing. Each connection fetches for itself, from its own cursor.
//!
//! Invariants: no method waits for I/O; a user's state is only touched under the lock of its shard, and
//! no two of these locks are held at once; receipts are resolved when none is. Users of whom nothing
//! would be lost are forgotten.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Waker;
use std::time::Duration;

use bytestring::ByteString;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use jam_wire::packet::{PacketId, Publish, QoS, RetainHandling};
use smallvec::SmallVec;

use crate::attempts::Attempts;
use crate::directory::{Account, Directory, Question};
use crate::ids::{ClientId, UserId};
use crate::link::{Eviction, Link, LinkId};
use crate::message::Message;
use crate::policy::{self, Facts, Identity, Permit, Refusal, Stop, refusals};
use crate::session::{Received, Session};
use crate::store::{MailboxStore, Receipt, Recovered, Seq, SessionId, Subscription, Write, Writes};
use crate::time::Time;
use crate::user::{
    Appended, Attach, Attached, DueWill, Effects, Fetched, New, Room, User, UserLimits,
};

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

/// How long a message whose devices are all connected and keep up may wait for their acknowledgement
/// before it is stored: what they acknowledge in that time need not be written at all.
pub const GRACE: Duration = Duration::from_millis(25);
/// Bytes of messages in their grace; beyond, messages are stored at once.
pub const GRACE_BYTES: u64 = 64 * 1024 * 1024;

/// Users, and the messages of theirs that are in their grace.
#[derive(Default)]
struct Shard {
    /// By the hash of their ids, which also says the shard.
    users: HashTable<Box<User>>,
    /// In the order of their numbers, which are taken under the lock.
    graced: VecDeque<Graced>,
}

/// A message that may be acknowledged before it has to be stored.
struct Graced {
    due: Time,
    seq: Seq,
    user: UserId,
    bytes: u64,
    /// The publisher's; gone when it is resolved or handed to the store.
    receipt: Option<Receipt>,
    over: bool,
}

impl Shard {
    fn find(&self, id: &UserId, hash: u64) -> Option<&User> {
        self.users
            .find(hash, |user| user.id() == id)
            .map(|user| &**user)
    }

    fn find_mut(&mut self, id: &UserId, hash: u64) -> Option<&mut User> {
        self.users
            .find_mut(hash, |user| user.id() == id)
            .map(|user| &mut **user)
    }

    /// Makes sure that the user is there.
    fn insert(&mut self, id: &UserId, hash: u64, rehash: impl Fn(&UserId) -> u64) {
        if self.find(id, hash).is_none() {
            let user = Box::new(User::new(id.detached()));
            self.users
                .insert_unique(hash, user, |user| rehash(user.id()));
        }
    }

    fn remove(&mut self, id: &UserId, hash: u64) {
        if let Ok(entry) = self.users.find_entry(hash, |user| user.id() == id) {
            entry.remove();
        }
    }

    /// The message need not be stored: the receipt of who published it.
    fn spare(&mut self, seq: Seq) -> Option<(u64, Option<Receipt>)> {
        let index = self
            .graced
            .binary_search_by_key(&seq, |graced| graced.seq)
            .ok()?;
        let graced = &mut self.graced[index];
        let receipt = graced.receipt.take();
        let bytes = std::mem::take(&mut graced.bytes);
        graced.over = true;
        while self.graced.front().is_some_and(|front| front.over) {
            self.graced.pop_front();
        }
        Some((bytes, receipt))
    }
}

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
    /// Bytes of messages in their grace.
    graced_bytes: AtomicU64,
    /// For receipts that come back here.
    this: Weak<Self>,
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
        Arc::new_cyclic(|this| Self {
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
            graced_bytes: AtomicU64::new(0),
            this: this.clone(),
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
            user.attach(attach, &self.rules.user, effects, || self.next_seq())
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
    /// kept, or when nobody needs it any more. `received` is the session and the packet id of a QoS 2
    /// PUBLISH, which is kept together with the message.
    pub(crate) fn publish(
        &self,
        permit: &Permit,
        publish: Publish,
        origin: Option<LinkId>,
        receipt: Option<Receipt>,
        received: Option<(SessionId, PacketId)>,
        now: Time,
    ) -> Result<(), Refusal> {
        if publish.qos != QoS::AtMostOnce && !self.store.accepts() {
            return Err(refusals::STORE);
        }
        let message = Message::new(publish, permit.sender().clone(), now);
        let sent_under = received.map(|(session, id)| (permit.sender().clone(), session, id));
        let received = received.map(|(session, packet_id)| Write::Received(session, packet_id));
        let may_wait = self.graced_bytes.load(Ordering::Relaxed) < GRACE_BYTES;
        let destination = permit.destination();
        let new = New {
            message,
            destination,
            origin,
            may_wait,
        };
        let mut receipt = receipt;
        let mut kept_already = None;
        let result = self.with_shard(permit.receiver(), |user, graced, effects| {
            // Taken under the lock: a log's numbers ascend, or a reader's cursor would pass one by.
            let seq = self.next_seq();
            let limits = &self.rules.user;
            match user.append(seq, new, limits, effects)? {
                Appended::NotKept if effects.writes.is_empty() && received.is_none() => {
                    kept_already = receipt.take();
                }
                Appended::NotKept => {
                    effects
                        .writes
                        .push((received.into_iter().collect(), receipt.take()));
                }
                Appended::Grace(bytes) => {
                    self.graced_bytes.fetch_add(bytes, Ordering::Relaxed);
                    let (user, receipt) = (permit.receiver().clone(), receipt.take());
                    let due = now + GRACE;
                    graced.push_back(Graced {
                        due,
                        seq,
                        user,
                        bytes,
                        receipt,
                        over: false,
                    });
                }
                Appended::Store(append) => {
                    self.end_graces(user, graced, effects);
                    let (this, user) = (self.this.clone(), append.user.clone());
                    let receipt = Receipt::for_message(this, user, seq, receipt.take(), sent_under);
                    let mut writes: Writes = received.into_iter().collect();
                    writes.push(Write::Append(append));
                    effects.writes.push((writes, Some(receipt)));
                }
            }
            Ok(())
        });
        kept_already.into_iter().for_each(Receipt::stored);
        result
    }

    /// What is in its grace goes to the store before what is stored at once: after a crash the log is a
    /// prefix of what was published, and redeliveries are in the order in which they were sent.
    fn end_graces(&self, user: &mut User, graced: &mut VecDeque<Graced>, effects: &mut Effects) {
        for graced in graced.iter_mut() {
            if graced.over || graced.user != *user.id() {
                continue;
            }
            graced.over = true;
            let bytes = std::mem::take(&mut graced.bytes);
            self.graced_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let receipt = graced.receipt.take();
            if let Some(writes) = user.hand_over(graced.seq) {
                let (this, id) = (self.this.clone(), graced.user.clone());
                let receipt = Receipt::for_message(this, id, graced.seq, receipt, None);
                effects.writes.push((writes, Some(receipt)));
            }
        }
        while graced.front().is_some_and(|front| front.over) {
            graced.pop_front();
        }
    }

    /// Resolves the receipt when everything that was written before is kept.
    pub(crate) fn barrier(&self, user: &UserId, receipt: Receipt) {
        self.with_user(user, |_, effects| {
            effects.writes.push((Writes::new(), Some(receipt)));
        });
    }

    /// Hands to the store what has been in its grace for long enough. To be called every few
    /// milliseconds; [`Time::NEVER`] hands over everything.
    pub fn hand_over(&self, now: Time) {
        if self.graced_bytes.load(Ordering::Relaxed) == 0 && now != Time::NEVER {
            return;
        }
        for shard in &self.shards {
            let mut shard = lock(shard);
            while let Some(front) = shard.graced.front()
                && (front.over || front.due <= now)
            {
                let Some(graced) = shard.graced.pop_front() else {
                    break;
                };
                if graced.over {
                    continue;
                }
                self.graced_bytes.fetch_sub(graced.bytes, Ordering::Relaxed);
                let user = shard.find_mut(&graced.user, self.hash(&graced.user));
                let writes = user.and_then(|user| user.hand_over(graced.seq));
                if let Some(writes) = writes {
                    let (this, user) = (self.this.clone(), graced.user);
                    let receipt =
                        Receipt::for_message(this, user, graced.seq, graced.receipt, None);
                    self.store.write(writes, Some(receipt));
                }
            }
        }
        self.store.settle();
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
        let limits = &self.rules.user;
        let (outcomes, receipt) = self.with_user(user, |user, effects| {
            let subscribe = |(subscription, handling)| {
                user.subscribe(link, subscription, handling, now, limits, || {
                    self.next_seq()
                })
            };
            let outcomes = subscriptions.into_iter().map(subscribe).collect();
            (outcomes, user.keep_subscriptions(link, receipt, effects))
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
            let unsubscribe = |topic: &ByteString| user.unsubscribe(link, topic, effects);
            let existed = topics.iter().map(unsubscribe).collect();
            (existed, user.keep_subscriptions(link, receipt, effects))
        });
        receipt.into_iter().for_each(Receipt::stored);
        existed
    }

    pub(crate) fn fetch(&self, user: &UserId, link: LinkId, room: Room, now: Time) -> Fetched {
        self.with_user(user, |user, effects| {
            let id = user.id().clone();
            user.fetch(link, room, now, effects, |session, packet_id| {
                Receipt::for_device(self.this.clone(), id.clone(), session, packet_id)
            })
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
            let id = user.id().clone();
            user.pub_rec(link, packet_id, refused, effects, |session, packet_id| {
                Receipt::for_device(self.this.clone(), id, session, packet_id)
            })
        })
    }

    pub(crate) fn pub_comp(&self, user: &UserId, link: LinkId, packet_id: PacketId) {
        self.with_user(user, |user, effects| {
            user.pub_comp(link, packet_id, effects);
        });
    }

    /// PUBREL: whether the id was known, and how many are left. The receipt is resolved when the store
    /// knows that the id is free.
    pub(crate) fn pub_rel(
        &self,
        user: &UserId,
        link: LinkId,
        packet_id: PacketId,
        receipt: Receipt,
    ) -> (bool, usize) {
        let (released, receipt) = self.with_user(user, |user, effects| {
            let Some((session, id)) = user.session(link) else {
                return ((false, 0), Some(receipt));
            };
            let known = session.release(packet_id);
            let released = (known, session.received());
            match id.filter(|_| known) {
                Some(id) => {
                    let writes = Writes::from_iter([Write::Released(id, packet_id)]);
                    effects.writes.push((writes, Some(receipt)));
                    (released, None)
                }
                None => (released, Some(receipt)),
            }
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
        self.with_user(user, |user, _| user.forget(seq));
    }

    /// The same, of a message that was published at QoS 2: its id is free, on whatever connection its
    /// sender is by now.
    pub(crate) fn publish_refused(&self, sender: &UserId, session: SessionId, id: PacketId) {
        self.with_user(sender, |user, _| user.publish_refused(session, id));
    }

    /// The store has what waited for it before it could be sent under a packet id.
    pub(crate) fn flight_stored(&self, user: &UserId, session: SessionId, packet_id: PacketId) {
        self.with_user(user, |user, effects| {
            user.flight_stored(session, packet_id, effects);
        });
    }

    /// Removes what waits in a user's inbox up to and with a number, as its owner or operator asks.
    pub fn purge(&self, user: &UserId, up_to: Seq) {
        self.with_user(user, |user, effects| user.purge(up_to, effects));
    }

    /// Takes over what a store has found, before anybody is let in.
    pub fn restore(&self, found: Recovered, now: Time) {
        self.next_seq
            .fetch_max(found.last_seq + 1, Ordering::Relaxed);
        let mut users: HashSet<UserId, RandomState> = HashSet::default();
        for (record, received, flights) in found.sessions {
            let id = record.user.clone();
            self.with_user(&id, |user, effects| {
                user.restore_session(record, received, flights, now, effects);
            });
            users.insert(id);
        }
        for entry in found.entries {
            self.with_user(&entry.user, |user, _| {
                user.restore_entry(&entry, &self.rules.user);
            });
            if !users.contains(&entry.user) {
                users.insert(entry.user);
            }
        }
        for (id, message) in found.retained {
            self.with_user(&id, |user, _| user.restore_retained(message));
        }
        for id in users {
            let timers = self.with_user(&id, |user, effects| user.restored(now, effects));
            let timers = timers
                .into_iter()
                .map(|(due, client)| (due, id.clone(), client));
            lock(&self.timers).extend(timers);
        }
        // A session that ended with its connection, or while the server was down, is not taken up again.
        self.handle_timeout(now);
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
                let _ = self.publish(&permit, publish, None, None, None, now);
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
            let users = shard.users.iter().filter(|user| user.is_connected());
            connected.extend(users.map(|user| user.id().clone()));
        }
        connected
    }

    /// How many users anything is remembered of: devices, mail or retained messages.
    #[must_use]
    pub fn known_users(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).users.len())
            .sum()
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
        let hash = self.hash(user);
        if let Some(user) = lock(self.shard(hash)).find(user, hash) {
            user.links()
                .filter(|link| !token.is_some_and(|token| token.matches(link.token())))
                .for_each(|link| link.evict(Eviction::NotAuthorized));
        }
    }

    /// Ends every connection.
    pub fn evict_all(&self, why: Eviction) {
        for shard in &self.shards {
            lock(shard)
                .users
                .iter()
                .flat_map(|user| user.links())
                .for_each(|link| link.evict(why));
        }
    }

    fn is_connected(&self, user: &UserId) -> bool {
        let hash = self.hash(user);
        lock(self.shard(hash))
            .find(user, hash)
            .is_some_and(User::is_connected)
    }

    fn next_seq(&self) -> Seq {
        self.next_seq.fetch_add(1, Ordering::Relaxed)
    }

    fn hash(&self, user: &UserId) -> u64 {
        self.hasher.hash_one(user)
    }

    /// By bits in the middle of the hash: a table uses those at both ends.
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        let index = usize::try_from((hash >> 32) % SHARDS as u64).expect("below SHARDS");
        &self.shards[index]
    }

    fn with_user<T>(&self, id: &UserId, what: impl FnOnce(&mut User, &mut Effects) -> T) -> T {
        self.with_shard(id, |user, _, effects| what(user, effects))
    }

    /// Runs `what` under the lock of the user's shard. What is to be written is handed to the store
    /// under the lock, so that it is in the order of what happened; the other effects follow after it.
    fn with_shard<T>(
        &self,
        id: &UserId,
        what: impl FnOnce(&mut User, &mut VecDeque<Graced>, &mut Effects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let mut spared: SmallVec<[Receipt; 4]> = SmallVec::new();
        let (result, wrote) = {
            let hash = self.hash(id);
            let mut shard = lock(self.shard(hash));
            let shard = &mut *shard;
            shard.insert(id, hash, |id| self.hash(id));
            let user = shard.users.find_mut(hash, |user| user.id() == id);
            let user = user.expect("it was put there a moment ago");
            let result = what(user, &mut shard.graced, &mut effects);
            if user.is_idle() {
                shard.remove(id, hash);
            }
            for seq in effects.spared.drain(..) {
                if let Some((bytes, receipt)) = shard.spare(seq) {
                    self.graced_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    spared.extend(receipt);
                }
            }
            let wrote = !effects.writes.is_empty();
            for (writes, receipt) in effects.writes.drain(..) {
                self.store.write(writes, receipt);
            }
            (result, wrote)
        };
        if wrote {
            self.store.settle();
        }
        spared.into_iter().for_each(Receipt::stored);
        self.apply(id, effects);
        result
    }

    fn apply(&self, id: &UserId, effects: Effects) {
        effects.wake.iter().for_each(|link| link.wake());
        if let Some((link, seqs)) = effects.load {
            let (this, id, asked) = (self.this.clone(), id.clone(), seqs.clone());
            let then = Box::new(move |found| {
                if let Some(router) = this.upgrade() {
                    let loaded = |user: &mut User, effects: &mut Effects| {
                        user.loaded(link, &asked, found, effects);
                    };
                    router.with_user(&id, loaded);
                }
            });
            self.store.load(seqs, then);
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
