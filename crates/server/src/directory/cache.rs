//! Cached facts of an accounts database, and for how long they are valid.
//!
//! A fact has the generation that was current before it was read. A change invalidates the facts that were read before the
//! change was noticed: all of them if it is unknown what has changed ([`Cache::invalidate`]), or those about some users
//! ([`Cache::invalidate_users`]). So a fact that was read before a change is never used after it
//! (`tests::a_late_fact_is_not_believed`), and each answer names its generation.
//!
//! The answer to a question is a value of its own, which the cache does not change (`jam_core::directory::Answer`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{RwLock, RwLockWriteGuard};

use foldhash::fast::RandomState;
use jam_core::directory::{Account, Fact, Generation, Question};
use jam_core::ids::UserId;

use super::numbers::row_id;

/// A lock is held while one fact is copied: with this many shards, two threads rarely need the same one.
const SHARDS: usize = 64;

/// Facts of one shard. A full shard forgets everything: what is needed is loaded again.
const SHARD_FACTS: usize = 16_384;

/// Memory of the facts, what they hold apart: a map has up to twice the room of what is in it.
pub(crate) const FACTS_BYTES: usize = SHARDS * SHARD_FACTS * 2 * size_of::<(Key, Dated<Fact>)>();

/// Users whose last change is remembered. One more invalidates all facts.
const MAX_CHANGED: usize = 65_536;

const NO_PANIC: &str = "no code that holds a lock of the cache can panic";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Account(i64),
    Friendship { sender: i64, receiver: i64 },
    NotificationToken(i64),
}

/// Each is `None` for ids that no jam database can hold: nothing needs to be loaded to answer those.
impl Key {
    pub(super) fn of(question: &Question) -> Option<Self> {
        match question {
            Question::Account(user) => Self::account(user),
            Question::Friendship { sender, receiver } => Self::friendship(sender, receiver),
            Question::NotificationToken(user) => Self::notification_token(user),
        }
    }

    pub(super) fn account(user: &UserId) -> Option<Self> {
        row_id(user.as_str()).map(Self::Account)
    }

    pub(super) fn friendship(sender: &UserId, receiver: &UserId) -> Option<Self> {
        Some(Self::Friendship {
            sender: row_id(sender.as_str())?,
            receiver: row_id(receiver.as_str())?,
        })
    }

    pub(super) fn notification_token(user: &UserId) -> Option<Self> {
        row_id(user.as_str()).map(Self::NotificationToken)
    }

    fn is_about(&self, mut user: impl FnMut(i64) -> bool) -> bool {
        match *self {
            Self::Account(id) | Self::NotificationToken(id) => user(id),
            Self::Friendship { sender, receiver } => user(sender) || user(receiver),
        }
    }
}

type Dated<T> = (T, Generation);

#[derive(Debug, Default)]
struct Shard {
    /// All facts are of this generation or a later one.
    floor: Generation,
    /// One for each connected client. They have a map of their own, so that they do not use up the room of other facts.
    accounts: HashMap<i64, Dated<Option<Account>>, RandomState>,
    others: HashMap<Key, Dated<Fact>, RandomState>,
}

#[derive(Debug)]
pub(super) struct Cache {
    /// Written last, with `changed` locked: a reader that sees a generation also sees what that has invalidated.
    generation: AtomicU64,
    /// Facts of earlier generations are invalid.
    floor: AtomicU64,
    /// Whether `changed` has entries.
    has_changed: AtomicBool,
    /// Facts about these users are invalid if they are older than this.
    changed: RwLock<HashMap<i64, Generation, RandomState>>,
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
}

impl Cache {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self {
            generation: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            has_changed: AtomicBool::new(false),
            changed: RwLock::default(),
            shards,
            hasher: RandomState::default(),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Something has changed: all facts that have been read are invalid.
    pub(super) fn invalidate(&self) {
        let changed = self.changed.write().expect(NO_PANIC);
        self.begin_anew(changed);
    }

    /// Something about these users has changed: facts about them that have been read are invalid.
    pub(super) fn invalidate_users(&self, users: impl IntoIterator<Item = i64>) {
        let mut changed = self.changed.write().expect(NO_PANIC);
        let next = Generation(self.generation.load(Ordering::Relaxed) + 1);
        for user in users {
            changed.insert(user, next);
            if changed.len() > MAX_CHANGED {
                return self.begin_anew(changed);
            }
        }
        self.has_changed.store(true, Ordering::Relaxed);
        self.generation.store(next.0, Ordering::Release);
    }

    fn begin_anew(&self, mut changed: RwLockWriteGuard<'_, HashMap<i64, Generation, RandomState>>) {
        changed.clear();
        self.has_changed.store(false, Ordering::Relaxed);
        let next = self.generation.load(Ordering::Relaxed) + 1;
        self.floor.store(next, Ordering::Release);
        self.generation.store(next, Ordering::Release);
    }

    /// A valid fact and the current generation. `fresh`: the cache knows of every change so far; without that no fact is valid.
    pub(super) fn get<T>(
        &self,
        key: &Key,
        fresh: bool,
        pick: impl FnOnce(&Fact) -> Option<T>,
    ) -> Option<(T, Generation)> {
        let generation = self.generation();
        let floor = self.floor();
        let shard = self.shard(key).read();
        let shard = shard.expect(NO_PANIC);
        let is_believed = fresh && shard.floor >= floor;
        let (fact, as_of) = shard.fact(key).filter(|_| is_believed)?;
        drop(shard);
        if self.has_changed.load(Ordering::Relaxed) && self.has_changed_since(key, as_of) {
            return None;
        }
        Some((pick(&fact)?, generation))
    }

    fn has_changed_since(&self, key: &Key, as_of: Generation) -> bool {
        let changed = self.changed.read().expect(NO_PANIC);
        key.is_about(|user| changed.get(&user).is_some_and(|change| *change > as_of))
    }

    /// Keeps a fact that was read after `generation` was current.
    pub(super) fn insert(&self, key: Key, fact: Fact, generation: Generation) {
        let mut shard = self.shard(&key).write().expect(NO_PANIC);
        shard.insert(key, fact, generation, self.floor());
    }

    /// As [`Self::insert`], if nothing has to be forgotten for it.
    pub(super) fn insert_if_room(&self, key: Key, fact: Fact, generation: Generation) {
        let mut shard = self.shard(&key).write().expect(NO_PANIC);
        if shard.len() < SHARD_FACTS {
            shard.insert(key, fact, generation, self.floor());
        }
    }

    fn floor(&self) -> Generation {
        Generation(self.floor.load(Ordering::Acquire))
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard> {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one(key);
        // Not the bits the map itself uses first.
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        &self.shards[index]
    }
}

impl Shard {
    fn fact(&self, key: &Key) -> Option<Dated<Fact>> {
        match key {
            Key::Account(id) => {
                let (account, as_of) = self.accounts.get(id)?;
                Some((Fact::Account(account.clone()), *as_of))
            }
            Key::Friendship { .. } | Key::NotificationToken(_) => self.others.get(key).cloned(),
        }
    }

    fn as_of(&self, key: &Key) -> Option<Generation> {
        match key {
            Key::Account(id) => self.accounts.get(id).map(|(_, as_of)| *as_of),
            Key::Friendship { .. } | Key::NotificationToken(_) => {
                self.others.get(key).map(|(_, as_of)| *as_of)
            }
        }
    }

    fn insert(&mut self, key: Key, fact: Fact, as_of: Generation, floor: Generation) {
        if floor > self.floor {
            self.floor = floor;
            self.clear();
        }
        let known = self.as_of(&key);
        if as_of < self.floor || known.is_some_and(|known| known > as_of) {
            return;
        }
        if self.len() >= SHARD_FACTS && known.is_none() {
            self.clear();
        }
        self.keep(key, fact, as_of);
    }

    fn keep(&mut self, key: Key, fact: Fact, as_of: Generation) {
        match (key, fact) {
            (Key::Account(id), Fact::Account(account)) => {
                drop(self.accounts.insert(id, (account, as_of)));
            }
            (key, fact) => drop(self.others.insert(key, (fact, as_of))),
        }
    }

    fn len(&self) -> usize {
        self.accounts.len() + self.others.len()
    }

    fn clear(&mut self) {
        self.accounts.clear();
        self.others.clear();
    }
}

#[cfg(test)]
mod tests {
    use jam_core::directory::{Friendship, Life, NotificationToken};

    use super::*;

    fn friends(fact: &Fact) -> Option<bool> {
        match fact {
            Fact::Friendship(friendship) => Some(*friendship != Friendship::NotFriends),
            _ => None,
        }
    }

    const KEY: Key = Key::Friendship {
        sender: 1,
        receiver: 2,
    };
    const YES: Fact = Fact::Friendship(Friendship::Friends(LIFE));
    const LIFE: Life = Life {
        email: None,
        name: None,
        password: None,
        made_up: false,
    };

    #[test]
    fn a_late_fact_is_not_believed() {
        let cache = Cache::new();
        let before = cache.generation();
        cache.invalidate();
        cache.insert(KEY, YES, before);
        assert_eq!(cache.get(&KEY, true, friends), None);
    }

    #[test]
    fn a_fact_holds_until_there_is_a_change() {
        let cache = Cache::new();
        cache.insert(KEY, YES, cache.generation());
        for _ in 0..3 {
            let known = Some((true, cache.generation()));
            assert_eq!(cache.get(&KEY, true, friends), known);
        }
        assert_eq!(cache.get(&KEY, false, friends), None);
        cache.invalidate();
        assert_eq!(cache.get(&KEY, true, friends), None);
    }

    #[test]
    fn a_fact_of_an_older_generation_takes_no_newer_ones_place() {
        let cache = Cache::new();
        let before = cache.generation();
        cache.invalidate();
        let now = cache.generation();
        cache.insert(KEY, YES, now);
        let no = Fact::Friendship(Friendship::NotFriends);
        cache.insert(KEY, no, before);
        assert_eq!(cache.get(&KEY, true, friends), Some((true, now)));
    }

    #[test]
    fn a_change_of_a_user_ends_the_belief_in_what_was_read_about_them_and_in_nothing_else() {
        let cache = Cache::new();
        let keys = [
            Key::Account(1),
            Key::NotificationToken(1),
            Key::Friendship {
                sender: 1,
                receiver: 2,
            },
            Key::Friendship {
                sender: 2,
                receiver: 1,
            },
            Key::Account(2),
            Key::NotificationToken(3),
            Key::Friendship {
                sender: 2,
                receiver: 3,
            },
        ];
        let fact = |key: &Key| match key {
            Key::Account(_) => Fact::Account(None),
            Key::Friendship { .. } => YES,
            Key::NotificationToken(_) => Fact::NotificationToken(NotificationToken::Present),
        };
        let believed = || keys.map(|key| cache.get(&key, true, |_| Some(())));
        let before = cache.generation();
        for key in &keys {
            cache.insert(*key, fact(key), before);
        }
        cache.invalidate_users([1, 9]);
        let now = cache.generation();
        assert!(now > before);
        // What was read before the change, and comes only now.
        for key in &keys[..4] {
            cache.insert(*key, fact(key), before);
        }
        let known = Some(((), now));
        assert_eq!(believed(), [None, None, None, None, known, known, known]);
        cache.insert(keys[0], fact(&keys[0]), now);
        assert_eq!(believed()[0], known);
        cache.invalidate();
        assert_eq!(believed(), [None; 7]);
        cache.insert(keys[0], fact(&keys[0]), cache.generation());
        assert_eq!(believed()[0], Some(((), cache.generation())));
    }

    #[test]
    fn with_more_changes_than_can_be_remembered_nothing_of_before_is_believed() {
        let cache = Cache::new();
        cache.insert(KEY, YES, cache.generation());
        let most = i64::try_from(MAX_CHANGED).unwrap();
        cache.invalidate_users(10..10 + most);
        assert!(cache.get(&KEY, true, friends).is_some());
        cache.invalidate_users([5]);
        assert_eq!(cache.get(&KEY, true, friends), None);
        assert!(cache.changed.read().unwrap().len() <= MAX_CHANGED);
        cache.insert(KEY, YES, cache.generation());
        assert!(cache.get(&KEY, true, friends).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let cache = Cache::new();
        let facts = i64::try_from(2 * SHARDS * SHARD_FACTS).unwrap();
        for id in 0..facts {
            let token = Fact::NotificationToken(NotificationToken::Absent);
            let facts = [
                (Key::Account(id), Fact::Account(None)),
                (Key::NotificationToken(id), token),
            ];
            for (key, fact) in facts {
                cache.insert(key, fact, cache.generation());
            }
        }
        for shard in &cache.shards {
            let shard = shard.read().unwrap();
            assert!(shard.len() <= SHARD_FACTS);
        }
    }
}
