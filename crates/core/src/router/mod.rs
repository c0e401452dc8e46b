//! Every user's state, and the hints that connections leave each other.
//!
//! A message is appended to its receiver's log, and the receiver's connections are woken: the wake
//! carries nothing. Each connection fetches for itself, from its own cursor.
//!
//! Invariants: no method waits for I/O; a user's state is only touched under the lock of its shard, and
//! no two of these locks are held at once; clients are answered after it is
//! released. A user of whom there is nothing to know is forgotten.
//!
//! `shard` has the locks and the graces; `on_commit` what a commit sets free; `devices` what connections ask for
//! their devices.

mod devices;
mod friends;
mod inspection;
mod listening;
mod lives;
mod on_commit;
mod outlook;
mod presence;
mod pushes;
mod rates;
mod receipts;
mod rivals;
mod shard;
mod stocktaking;
mod store_events;
mod users;
mod wills;

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use jam_wire::packet::{Connect, Publish, QoS};

use crate::attempts::Attempts;
use crate::directory::{Answers, Directory, Friendship, Known, LifeFact, Lookup};
use crate::ids::{ClientId, UserId};
use crate::link::{LinkId, Responder};
use crate::loads::Loads;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::policy::{self, Destination, Facts, Identity, Permit, Refusal, Stop, refusals};
use crate::source::Source;
use crate::store::{MailboxStore, Recovered, RecoveredEntry, Seq, Sequence, Write, Writes};
use crate::time::{Adjustments, Time};
use crate::user::{
    Alarm, Appended, Awaits, EndedAccounts, New, Origin, Outdated, User, UserLimits,
};

pub use crate::link::Peer;
pub use crate::user::{DevicePresence, DeviceView, Kicked, MailboxView, Outlook, UserView};
pub(crate) use devices::AttachOptions;
use friends::Friends;
pub use friends::{DueFriends, REST};
pub use inspection::UserFilter;
use listening::ListenerCounts;
pub use on_commit::OnCommit;
pub use presence::DuePresence;
use presence::PresenceQueue;
use pushes::PushQueue;
use rates::UsedUp;
pub(crate) use receipts::Owed;
pub use rivals::LONGEST_RIVAL_WAIT;
use rivals::Rivals;
pub use shard::{GRACE, GRACE_BYTES, SHARDS};
use shard::{InGrace, Shard, lock};
pub use stocktaking::Stock;
use wills::Wills;
pub use wills::{MAX_DUE_WILL_BYTES, MAX_DUE_WILLS};

/// How often a message is judged whose receiver's account is another one each time.
const JUDGED_AT_MOST: usize = 3;

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
    /// How long devices of one user that log each other out in turn wait at most; zero: not at all.
    pub longest_rival_wait: Duration,
    /// Messages that a user may publish in a second, and ten times as many at once; `None` is unlimited.
    pub publish_rate: Option<NonZeroU32>,
    /// Between the first byte and the CONNECT.
    pub connect_timeout: Duration,
    /// Failed authentications within `failed_auth_window`; more are refused.
    pub failed_auth: u32,
    /// See `failed_auth`.
    pub failed_auth_window: Duration,
}

/// Every user's state.
pub struct Router {
    rules: Rules,
    directory: Arc<dyn Directory>,
    store: Arc<dyn MailboxStore<OnCommit>>,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    numbers: Sequence,
    next_link: AtomicU64,
    attempts: Mutex<Attempts>,
    /// See `Rules`; 0 is unlimited.
    publish_rate: AtomicU32,
    used_up: Mutex<UsedUp>,
    rivals: Mutex<Rivals>,
    /// When a user has something due.
    timers: Mutex<BTreeSet<(Time, UserId, Alarm)>>,
    wills: Mutex<Wills>,
    /// What has ended with accounts since it was last asked.
    ended: Mutex<EndedAccounts>,
    /// The generation of the directory by which all accounts have been checked, or are just being.
    checked: AtomicU64,
    /// Bytes of messages in their grace.
    bytes_in_grace: AtomicU64,
    pushes: Mutex<PushQueue>,
    /// Pairs of a sender and a receiver with something known of pushes.
    push_pairs: AtomicUsize,
    listening: ListenerCounts,
    presence: PresenceQueue,
    friends: Friends,
    loads: Loads,
    /// Connections whose sessions are new, and when the store is to be told of those at the latest.
    new_sessions: Mutex<VecDeque<(Time, UserId, LinkId)>>,
    adjustments: Arc<Adjustments>,
    metrics: Arc<Metrics>,
    /// For what comes back here from the store.
    this: Weak<Self>,
}

impl Router {
    /// With no user's state yet, and numbers of its own.
    #[must_use]
    pub fn new(
        rules: Rules,
        directory: Arc<dyn Directory>,
        store: Arc<dyn MailboxStore<OnCommit>>,
    ) -> Arc<Self> {
        Self::with_metrics(rules, directory, store, Arc::default())
    }

    /// From now on so many failed authentications are too many, within this time.
    pub fn set_failed_auth(&self, limit: u32, window: Duration) {
        lock(&self.attempts).set_limits(limit, window);
    }

    /// With no user's state yet: [`Self::restore`] is due, even if the store has nothing.
    #[must_use]
    pub fn with_metrics(
        rules: Rules,
        directory: Arc<dyn Directory>,
        store: Arc<dyn MailboxStore<OnCommit>>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let attempts = Attempts::new(rules.failed_auth, rules.failed_auth_window);
        let publish_rate = rules.publish_rate.map_or(0, NonZeroU32::get);
        Arc::new_cyclic(|this| Self {
            rules,
            directory,
            store,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            numbers: Sequence::default(),
            next_link: AtomicU64::new(1),
            attempts: Mutex::new(attempts),
            publish_rate: AtomicU32::new(publish_rate),
            used_up: Mutex::default(),
            rivals: Mutex::default(),
            timers: Mutex::default(),
            wills: Mutex::default(),
            ended: Mutex::default(),
            checked: AtomicU64::default(),
            bytes_in_grace: AtomicU64::new(0),
            pushes: Mutex::default(),
            push_pairs: AtomicUsize::new(0),
            listening: ListenerCounts::default(),
            presence: PresenceQueue::default(),
            friends: Friends::default(),
            loads: Loads::default(),
            new_sessions: Mutex::default(),
            adjustments: Arc::default(),
            metrics,
            this: this.clone(),
        })
    }

    /// What the operator decided.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What lies between the time that is handed in here and other clocks: for the server's clock to write.
    #[must_use]
    pub fn adjustments(&self) -> &Arc<Adjustments> {
        &self.adjustments
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn known<'a>(&'a self, answers: &'a Answers) -> Known<'a> {
        Known {
            directory: &*self.directory,
            answers,
        }
    }

    /// `pre_connect` with what is known of the source.
    pub(crate) fn pre_connect(&self, source: Source, now: Time) -> Result<(), Refusal> {
        let checked = lock(&self.attempts).check(source, now);
        policy::pre_connect(checked.is_err())
    }

    /// `authenticate`, and its verdict counted. A verdict that comes when the source has failed too often by
    /// now is not told.
    pub(crate) fn authenticate(
        &self,
        client: &ClientId,
        connect: &Connect,
        answers: &Answers,
        source: Source,
        now: Time,
    ) -> Result<(Identity, LifeFact), Stop> {
        let verdict = policy::authenticate(
            client,
            connect.user_name.as_ref(),
            connect.password.as_deref(),
            self.known(answers),
        );
        let user = client.user_part();
        let counted = match &verdict {
            Ok(_) => lock(&self.attempts).succeed(user, source, now),
            // Nothing was guessed, and a long name is not to be remembered.
            Err(Stop::Refused(_)) if client.as_str().len() > ClientId::MAX_LEN => Ok(()),
            Err(Stop::Refused(_)) => lock(&self.attempts).fail(user, source, now),
            Err(Stop::Ask(_)) => Ok(()),
        };
        policy::pre_connect(counted.is_err())?;
        verdict
    }

    /// `authorize_publish` with the facts that the router has.
    pub(crate) fn authorize_publish(
        &self,
        sender: &UserId,
        publish: &Publish,
        answers: &Answers,
    ) -> Result<Permit, Stop> {
        let is_connected = |user: &UserId| self.is_connected(user);
        let facts = Facts {
            known: self.known(answers),
            audience: self.rules.user.push.audience,
            is_connected: &is_connected,
        };
        let properties = publish.properties.as_deref();
        policy::authorize_publish(sender, &publish.topic, properties, &publish.payload, &facts)
    }

    /// Appends a permitted message and wakes the connections that read it. The publisher is answered when the message is
    /// kept or no longer needed. `link` is the connection it came on; `origin` is kept together with it.
    /// How many connections were woken.
    pub(crate) fn publish(
        &self,
        permit: Permit,
        publish: Publish,
        link: Option<LinkId>,
        publisher: Option<Responder>,
        origin: Origin,
        now: Time,
    ) -> Result<usize, Refusal> {
        let destination = permit.destination();
        let may_push = permit.may_push() && self.push_rules().is_some();
        let life = permit.life();
        let sender_life = permit.sender_life();
        let (sender, receiver) = permit.into_users();
        let mut message = Message::new(publish, sender, now);
        message.sender_life = sender_life;
        let new = New {
            message,
            destination,
            origin: link,
            may_wait: matches!(origin, Origin::Plain) && self.may_wait(),
            may_push,
            life,
            only_for: None,
        };
        self.append(&receiver, new, &mut { publisher }, origin, now)
    }

    /// Whether there is room for a message in its grace.
    fn may_wait(&self) -> bool {
        self.bytes_in_grace.load(Ordering::Relaxed) < GRACE_BYTES
    }

    /// As [`Self::publish`]; when it is refused, the publisher is still there.
    fn append(
        &self,
        receiver: &UserId,
        mut new: New,
        publisher: &mut Option<Responder>,
        mut origin: Origin,
        now: Time,
    ) -> Result<usize, Refusal> {
        let retains = new.message.retain && new.destination == Destination::OwnChannel;
        if (new.message.qos != QoS::AtMostOnce || retains) && !self.store.accepts() {
            return Err(refusals::STORE);
        }
        for _ in 0..JUDGED_AT_MOST {
            match self.append_as_of(receiver, new, publisher, &mut origin, now) {
                Ok(appended) => return appended,
                Err(given_back) => new = *given_back,
            }
            let sender = new.message.sender();
            if sender == receiver {
                break;
            }
            let Lookup::Known(friendship, as_of) = self.directory.friendship(sender, receiver)
            else {
                break;
            };
            let Friendship::Friends(life) = friendship else {
                return Err(refusals::NOT_FRIENDS);
            };
            new.life = Some(LifeFact { life, as_of });
        }
        Err(refusals::PUBLISH_WITHOUT_DIRECTORY)
    }

    /// Appends. Gives the message back if what it was permitted by is not the newest.
    fn append_as_of(
        &self,
        receiver: &UserId,
        new: New,
        publisher: &mut Option<Responder>,
        origin: &mut Origin,
        now: Time,
    ) -> Result<Result<usize, Refusal>, Box<New>> {
        let beside = origin.write();
        let mut kept_already = None;
        let result = self.with_shard(receiver, |user, in_grace, effects| {
            // Taken under the lock: a log's numbers ascend, or a reader's cursor would pass one by.
            let limits = &self.rules.user;
            if let Some(life) = &new.life
                && let Err(Outdated) = user.live(life, effects, &self.numbers)
            {
                return Err(Box::new(new));
            }
            if new.only_for.is_some_and(|life| !user.is_still_of(&life)) {
                return Ok(Ok(0));
            }
            let appended = match user.append(new, limits, &self.numbers, effects) {
                Ok(appended) => appended,
                Err(refusal) => return Ok(Err(refusal)),
            };
            match appended {
                Appended::NotKept(retained) if retained.is_empty() && beside.is_none() => {
                    kept_already = publisher.take();
                }
                Appended::NotKept(retained) => {
                    let writes = beside.into_iter().chain(retained).collect();
                    let awaits = publisher.take().map(Awaits::Client);
                    effects.writes.push((writes, awaits));
                }
                Appended::Grace(seq, bytes) => {
                    self.bytes_in_grace.fetch_add(bytes, Ordering::Relaxed);
                    let (user, publisher) = (receiver.clone(), publisher.take());
                    let due = now + GRACE;
                    in_grace.push_back(InGrace {
                        due,
                        seq,
                        user,
                        bytes,
                        publisher,
                        settled: false,
                    });
                }
                Appended::Store {
                    append,
                    retained,
                    pushes,
                } => {
                    let seq = append.seq;
                    self.end_graces(user, in_grace, effects);
                    let awaits = Awaits::Message {
                        seq,
                        publisher: publisher.take(),
                        origin: std::mem::replace(origin, Origin::Plain),
                    };
                    let mut writes: Writes = beside.into_iter().chain(retained).collect();
                    writes.push(Write::Append(append));
                    writes.extend(pushes);
                    effects.writes.push((writes, Some(awaits)));
                }
            }
            Ok(Ok(effects.wake.len()))
        });
        kept_already.into_iter().for_each(Responder::unwritten);
        result
    }

    /// Bytes of messages in their grace.
    #[must_use]
    pub fn bytes_in_grace(&self) -> u64 {
        self.bytes_in_grace.load(Ordering::Relaxed)
    }

    /// Sources whose attempts to log in are refused.
    #[must_use]
    pub fn lockouts(&self, now: Time) -> usize {
        lock(&self.attempts).locked_out(now).count()
    }

    /// Bytes of content that is being read from the store, or was and waits to be sent: see [`crate::loads`].
    #[must_use]
    pub fn loaded_bytes(&self) -> u64 {
        self.loads.granted()
    }

    /// Removes what waits in a user's inbox up to and with a number, of one sender if there is `from`, as its owner or
    /// operator asks. How many messages that were.
    pub fn purge(&self, user: &UserId, up_to: Seq, from: Option<&UserId>) -> usize {
        self.with_user(user, |user, effects| user.purge(up_to, from, effects))
    }

    /// Takes over a message that a store has found: before [`Self::restore`], in any order, from any
    /// thread.
    pub fn restore_entry(&self, entry: &RecoveredEntry) {
        self.with_stored(&entry.user, |user| {
            user.restore_entry(entry, &self.rules.user);
        });
    }

    /// Takes over the rest of what a store has found, before anybody is let in: who is neither in memory nor in `found` has
    /// nothing.
    pub fn restore(&self, found: Recovered, now: Time) {
        for shard in &self.shards {
            lock(shard).users.all_are_loaded();
        }
        self.numbers.skip_to(found.last_seq);
        for (record, received, flights) in found.sessions {
            let id = record.user.clone();
            self.with_user(&id, |user, effects| {
                user.restore_session(record, received, flights, now, effects);
            });
        }
        for owner in found.owners {
            self.with_stored(&owner.user, |user| user.restore_owner(&owner));
        }
        for it in found.retained {
            self.with_user(&it.user, |user, effects| {
                user.restore_retained(it.topic, it.seq, effects);
            });
        }
        let (mut timers, mut users) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            users.extend(lock(shard).users.iter().map(|user| user.id().clone()));
            for id in users.drain(..) {
                let due = self.with_user(&id, |user, effects| user.restored(now, effects));
                timers.extend(due.into_iter().map(|(due, alarm)| (due, id.clone(), alarm)));
            }
        }
        // All at once, which is much quicker than one after another.
        lock(&self.timers).append(&mut timers.into_iter().collect());
        for it in found.claims {
            self.with_user(&it.user, |user, effects| {
                user.restore_claim(it.session, it.seq, effects);
            });
        }
        self.restore_wills(found.wills);
        for push in found.pushes {
            let receiver = push.receiver.clone();
            self.with_user(&receiver, |user, effects| {
                user.restore_push(push, now, &self.rules.user.push, effects);
            });
        }
        // A session that ended with its connection, or while the server was down, is not resumed.
        // Each that is dealt with leaves none that is due by now.
        for _ in 0..self.pending_timers() {
            if !self.handle_timeout(now) {
                break;
            }
        }
    }

    /// Ends a session, makes a will or a push due whose time has come, or notes that a user has gone. Whether there was
    /// anything; to be called a few times a second, with the same time until there is not and others in between, for a
    /// hundred thousand may be due at once. It ends: what is dealt with sets no timer that is due by `now`.
    #[must_use]
    pub fn handle_timeout(&self, now: Time) -> bool {
        let due = {
            let mut timers = lock(&self.timers);
            match timers.first() {
                Some((due, _, _)) if *due <= now => timers.pop_first(),
                _ => None,
            }
        };
        let Some((_, user, alarm)) = due else {
            return false;
        };
        self.with_user(&user, |user, effects| {
            user.handle_timeout(&alarm, now, &self.rules.user, effects, &self.numbers);
        });
        true
    }

    /// Users with a device connected, some at a time.
    pub fn connected_users(&self) -> impl Iterator<Item = Vec<UserId>> {
        self.shards.iter().map(|shard| {
            let shard = lock(shard);
            let users = shard.users.iter().filter(|user| user.is_connected());
            users.map(|user| user.id().clone()).collect()
        })
    }

    /// How many users anything is remembered of: devices, mail or retained messages.
    #[must_use]
    pub fn known_users(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).users.len())
            .sum()
    }

    /// How many things are due at some time: the ends of sessions, wills, pushes, news to friends that
    /// a user has gone.
    #[must_use]
    pub fn pending_timers(&self) -> usize {
        lock(&self.timers).len()
    }

    fn is_connected(&self, user: &UserId) -> bool {
        let hash = self.hash(user);
        lock(self.shard(hash))
            .users
            .find(user, hash)
            .or_nothing()
            .is_some_and(User::is_connected)
    }
}
