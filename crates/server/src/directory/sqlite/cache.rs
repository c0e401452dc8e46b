//! What the directory's file said, and when that may be believed.
//!
//! Every fact is of the generation that was current before it was read. A change of the file ends
//! the generation, and with it every fact read before the change was noticed; so a fact that was read
//! before a change can never be believed after it (`tests::a_late_fact_is_not_believed`). The facts of
//! a shard are all of one generation. A generation ends when the file has changed, and each answer says of which it is.
//!
//! A question is answered by value, whatever is believed by then (`jam_core::directory::Answer`).

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use jam_core::directory::{Account, Fact, Generation};

/// Locks are held for the copy of one fact; this many make it unlikely to meet at one.
const SHARDS: usize = 64;

/// Facts of one shard. A full shard forgets everything: what is needed is loaded again.
const SHARD_FACTS: usize = 16_384;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Account(i64),
    Friendship { sender: i64, receiver: i64 },
    NotificationToken(i64),
}

#[derive(Debug, Default)]
struct Shard {
    generation: Generation,
    /// All of that generation, as the others are. There is one for each client that is here, so they take
    /// no room for what other facts need.
    accounts: HashMap<i64, Option<Account>, RandomState>,
    others: HashMap<Key, Fact, RandomState>,
}

#[derive(Debug)]
pub(super) struct Cache {
    generation: AtomicU64,
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
}

impl Cache {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self {
            generation: AtomicU64::new(0),
            shards,
            hasher: RandomState::default(),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// The file has changed: no fact of before is believed any more.
    pub(super) fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// A fact that is believed, and of which generation it is. `fresh`: the file has just been looked at, so that the current
    /// generation's facts hold.
    pub(super) fn get<T>(
        &self,
        key: &Key,
        fresh: bool,
        pick: impl FnOnce(&Fact) -> Option<T>,
    ) -> Option<(T, Generation)> {
        let generation = self.generation();
        let shard = self.shard(key).read();
        let shard = shard.expect("no code that holds a shard can panic");
        let is_believed = fresh && shard.generation == generation;
        let fact = shard.fact(key).filter(|_| is_believed)?;
        Some((pick(&fact)?, generation))
    }

    /// Keeps a fact that was read after `generation` was current.
    pub(super) fn insert(&self, key: Key, fact: Fact, generation: Generation) {
        self.shard(&key)
            .write()
            .expect("no code that holds a shard can panic")
            .insert(key, fact, generation);
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
    fn fact(&self, key: &Key) -> Option<Fact> {
        match key {
            Key::Account(id) => self.accounts.get(id).cloned().map(Fact::Account),
            Key::Friendship { .. } | Key::NotificationToken(_) => self.others.get(key).cloned(),
        }
    }

    fn insert(&mut self, key: Key, fact: Fact, generation: Generation) {
        if generation > self.generation {
            self.generation = generation;
            self.clear();
        }
        if generation == self.generation {
            if self.len() >= SHARD_FACTS && self.fact(&key).is_none() {
                self.clear();
            }
            self.keep(key, fact);
        }
    }

    fn keep(&mut self, key: Key, fact: Fact) {
        match (key, fact) {
            (Key::Account(id), Fact::Account(account)) => drop(self.accounts.insert(id, account)),
            (key, fact) => drop(self.others.insert(key, fact)),
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
    fn a_fact_holds_until_the_file_changes() {
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
