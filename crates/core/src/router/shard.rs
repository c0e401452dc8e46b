//! The locks over the users, and the messages that are in their grace.
//!
//! A user is found by one hash, which says both the shard and the place in it. Writes go to the store under
//! the lock, so that they are in the order of what happened; everything else that follows from a change is
//! done when the lock is free.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use smallvec::SmallVec;

use crate::ids::UserId;
use crate::link::{LinkId, Responder};
use crate::loads::{Load, LoadPermit};
use crate::mailbox::Amount;
use crate::store::Seq;
use crate::time::Time;
use crate::user::{Awaits, Effects, Origin, RareEffects, User};

use super::Router;
use super::users::Users;

/// Locks over the users; a power of two.
pub const SHARDS: usize = 256;

/// How long a message whose devices are all connected and keep up may wait for their acknowledgement
/// before it is stored: what they acknowledge in that time need not be written at all.
pub const GRACE: Duration = Duration::from_millis(25);
/// Bytes of messages in their grace; beyond, messages are stored at once.
pub const GRACE_BYTES: u64 = 64 * 1024 * 1024;

/// Users, and the messages of theirs that are in their grace.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) users: Users,
    /// In the order of their numbers, which are taken under the lock.
    in_grace: VecDeque<InGrace>,
    /// How much is kept for all of them, but for what is retained.
    pub(super) kept: Amount,
}

/// A message that may be acknowledged before it has to be stored.
pub(super) struct InGrace {
    pub(super) due: Time,
    pub(super) seq: Seq,
    pub(super) user: UserId,
    pub(super) bytes: u64,
    /// Gone when it is answered or waits for the store.
    pub(super) publisher: Option<Responder>,
    pub(super) settled: bool,
}

impl InGrace {
    /// Its publisher waits for something else as well: the responder for that, if there is a publisher who waits.
    pub(super) fn wait_for_more(&mut self) -> Option<Responder> {
        let (own, other) = self.publisher.take()?.split();
        self.publisher = Some(own);
        other
    }
}

/// What a user had before something was done, to count what has changed.
struct Before {
    push_pairs: usize,
    kept: Amount,
}

impl Before {
    #[inline]
    fn of(user: &User) -> Self {
        Self {
            push_pairs: user.push_pairs(),
            kept: user.kept(),
        }
    }
}

impl Shard {
    /// The message need not be stored: its bytes, and its publisher.
    fn settle_acked(&mut self, seq: Seq) -> Option<(u64, Option<Responder>)> {
        let index = self
            .in_grace
            .binary_search_by_key(&seq, |in_grace| in_grace.seq)
            .ok()?;
        let in_grace = &mut self.in_grace[index];
        let publisher = in_grace.publisher.take();
        let bytes = std::mem::take(&mut in_grace.bytes);
        in_grace.settled = true;
        while self.in_grace.front().is_some_and(|front| front.settled) {
            self.in_grace.pop_front();
        }
        Some((bytes, publisher))
    }
}

/// The locks here guard plain data; after a panic the process is gone.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic under a lock ends the process")
}

impl Router {
    /// A connection whose new session has been in its grace for long enough.
    fn take_new_session(&self, now: Time) -> Option<(UserId, LinkId)> {
        let (_, user, link) = lock(&self.new_sessions).pop_front_if(|(due, _, _)| *due <= now)?;
        Some((user, link))
    }

    pub(super) fn hash(&self, user: &UserId) -> u64 {
        self.hasher.hash_one(user)
    }

    /// By bits in the middle of the hash: a table uses those at both ends.
    pub(super) fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[Self::shard_index(hash)]
    }

    pub(super) fn shard_index(hash: u64) -> usize {
        usize::try_from((hash >> 32) % SHARDS as u64).expect("below SHARDS")
    }

    pub(super) fn with_user<T>(
        &self,
        id: &UserId,
        what: impl FnOnce(&mut User, &mut Effects) -> T,
    ) -> T {
        self.with_shard(id, |user, _, effects| what(user, effects))
    }

    /// Runs `what` of a user with something in the store, so that it has no effects.
    pub(super) fn with_stored(&self, id: &UserId, what: impl FnOnce(&mut User)) {
        let hash = self.hash(id);
        let shard = &mut *lock(self.shard(hash));
        let user = shard.users.load(id, hash, |id| self.hash(id));
        let before = user.kept();
        what(user);
        shard.kept.follow(before, user.kept());
    }

    /// Runs `what` under the lock of the user's shard. What is to be written is handed to the store
    /// under the lock, so that it is in the order of what happened; the other effects follow after it.
    pub(super) fn with_shard<T>(
        &self,
        id: &UserId,
        what: impl FnOnce(&mut User, &mut VecDeque<InGrace>, &mut Effects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let (mut guard, hash) = self.enter(id);
        let shard = &mut *guard;
        let user = shard.users.begin(id, hash, |id| self.hash(id));
        let before = Before::of(user);
        let result = what(user, &mut shard.in_grace, &mut effects);
        let is_idle = self.note(user, &before, &mut shard.kept, &mut effects);
        self.leave(id, hash, guard, is_idle, &mut effects);
        result
    }

    // Every message comes three times through here, on behalf of three callers; copies of this in each of
    // them would be three times as much code to fetch into the cache, which is cold after each sleep.

    #[inline(never)]
    fn enter(&self, id: &UserId) -> (MutexGuard<'_, Shard>, u64) {
        let hash = self.hash(id);
        (lock(self.shard(hash)), hash)
    }

    /// Counts what has changed with a user; whether nothing is left that has to be remembered of them.
    #[inline(never)]
    fn note(
        &self,
        user: &mut User,
        before: &Before,
        kept: &mut Amount,
        effects: &mut Effects,
    ) -> bool {
        user.watch_expiry(effects);
        self.count_push_pairs(before.push_pairs, user.push_pairs());
        kept.follow(before.kept, user.kept());
        if let Some(rare) = &effects.rare {
            self.listening.change(rare.listeners);
        }
        user.keep_owner(effects);
        user.is_idle()
    }

    #[inline(never)]
    fn leave(
        &self,
        id: &UserId,
        hash: u64,
        mut shard: MutexGuard<'_, Shard>,
        is_idle: bool,
        effects: &mut Effects,
    ) {
        if is_idle {
            shard.users.remove(id, hash);
        }
        let mut acked_in_grace: SmallVec<[Responder; 4]> = SmallVec::new();
        if !effects.acked_in_grace.is_empty() {
            for seq in effects.acked_in_grace.drain(..) {
                if let Some((bytes, publisher)) = shard.settle_acked(seq) {
                    self.bytes_in_grace.fetch_sub(bytes, Ordering::Relaxed);
                    acked_in_grace.extend(publisher);
                }
            }
        }
        let wrote = self.write(id, effects);
        drop(shard);
        if wrote {
            self.store.settle();
        }
        acked_in_grace.into_iter().for_each(Responder::unwritten);
        self.apply(id, effects);
    }

    /// Hands to the store what is to be written of a user, under the lock of their shard. Whether there was anything.
    fn write(&self, id: &UserId, effects: &mut Effects) -> bool {
        let wrote = !effects.writes.is_empty();
        for (writes, awaits) in effects.writes.drain(..) {
            let completion = awaits.map(|awaits| self.on_commit(id, awaits));
            self.store.write(id, writes, completion);
        }
        wrote
    }

    fn count_push_pairs(&self, before: usize, after: usize) {
        if after > before {
            self.push_pairs.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            self.push_pairs.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn apply(&self, id: &UserId, effects: &mut Effects) {
        effects.wake.iter().for_each(|link| link.wake());
        if let Some(rare) = effects.rare.take() {
            self.apply_rare(id, *rare);
        }
    }

    #[inline(never)] // not between the lines that every message needs
    fn apply_rare(&self, id: &UserId, effects: RareEffects) {
        effects.tally.count(&self.metrics);
        if let Some(link) = effects.displaced {
            drop(link.receiving());
        }
        if let Some(load) = effects.load {
            self.start(self.loads.ask(load));
        }
        if !effects.unset.is_empty() || !effects.set.is_empty() {
            let mut timers = lock(&self.timers);
            for (due, alarm) in effects.unset {
                timers.remove(&(due, id.clone(), alarm));
            }
            let set = effects.set.into_iter();
            timers.extend(set.map(|(due, alarm)| (due, id.clone(), alarm)));
        }
        if !effects.pushes.is_empty() {
            self.push_soon(effects.pushes);
        }
        if let Some(ended) = effects.ended {
            self.has_ended(id, ended);
        }
        if effects.look {
            self.look_at_presence(id);
        }
        if effects.look_at_friends {
            self.look_at_friends(id);
        }
        if !effects.wills.is_empty() {
            self.wills_due(effects.wills);
        }
    }

    /// What is in its grace goes to the store before what is stored at once: after a crash the log is a
    /// prefix of what was published, and redeliveries are in the order in which they were sent.
    pub(super) fn end_graces(
        &self,
        user: &mut User,
        in_grace: &mut VecDeque<InGrace>,
        effects: &mut Effects,
    ) {
        for in_grace in in_grace.iter_mut() {
            if !in_grace.settled && in_grace.user == *user.id() {
                self.end_grace(user, in_grace, effects);
            }
        }
        while in_grace.front().is_some_and(|front| front.settled) {
            in_grace.pop_front();
        }
    }

    fn end_grace(&self, user: &mut User, in_grace: &mut InGrace, effects: &mut Effects) {
        in_grace.settled = true;
        let bytes = std::mem::take(&mut in_grace.bytes);
        self.bytes_in_grace.fetch_sub(bytes, Ordering::Relaxed);
        let (seq, publisher) = (in_grace.seq, in_grace.publisher.take());
        if let Some(writes) = user.hand_over(seq, self.push_rules(), effects) {
            let awaits = Awaits::Message {
                seq,
                publisher,
                origin: Origin::Plain,
            };
            effects.writes.push((writes, Some(awaits)));
        }
    }

    /// Reads what was granted.
    fn start(&self, granted: Option<(Load, LoadPermit)>) {
        let Some((load, permit)) = granted else {
            return;
        };
        let Load {
            user, link, seqs, ..
        } = load;
        let (this, id, asked) = (self.this.clone(), user.clone(), seqs.clone());
        let then = Box::new(move |found| {
            if let Some(router) = this.upgrade() {
                let loaded = |user: &mut User, effects: &mut Effects| {
                    user.loaded(link, &asked, found, permit, effects);
                };
                router.with_user(&user, loaded);
            }
        });
        self.store.load(&id, seqs, then);
    }

    /// Reads what has waited, as far as there is room for it by now.
    pub(super) fn start_loads(&self) {
        while let Some(granted) = self.loads.next() {
            self.start(Some(granted));
        }
    }

    /// Hands to the store what has been in its grace for long enough: messages, and sessions that are new.
    /// To be called every few milliseconds; [`Time::NEVER`] hands over everything.
    pub fn hand_over(&self, now: Time) {
        self.start_loads();
        while let Some((user, link)) = self.take_new_session(now) {
            self.keep_session(&user, link);
        }
        if self.bytes_in_grace.load(Ordering::Relaxed) == 0 && now != Time::NEVER {
            return;
        }
        let mut others = Vec::new();
        for shard in &self.shards {
            let shard = &mut *lock(shard);
            while let Some(front) = shard.in_grace.front()
                && (front.settled || front.due <= now)
            {
                let Some(mut in_grace) = shard.in_grace.pop_front() else {
                    break;
                };
                if in_grace.settled {
                    continue;
                }
                let hash = self.hash(&in_grace.user);
                let Some(user) = shard.users.find_mut(&in_grace.user, hash) else {
                    self.bytes_in_grace
                        .fetch_sub(in_grace.bytes, Ordering::Relaxed);
                    continue;
                };
                let mut effects = Effects::default();
                let before = Before::of(user);
                self.end_grace(user, &mut in_grace, &mut effects);
                self.note(user, &before, &mut shard.kept, &mut effects);
                self.write(&in_grace.user, &mut effects);
                if effects.rare.is_some() {
                    others.push((in_grace.user, effects));
                }
            }
        }
        for (user, mut effects) in others {
            self.apply(&user, &mut effects);
        }
        self.store.settle();
    }
}
