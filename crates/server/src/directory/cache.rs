//! What the directory's file said, and when that may be believed.
//!
//! Every fact carries the generation that was current before it was read. A change of the file ends
//! the generation, and with it every fact read before the change was noticed; so a fact that was read
//! before a change can never be inserted after it (`tests::a_late_fact_is_not_believed`).
//!
//! Who had a fact loaded may use it once, even if the file has changed again meanwhile: the answer is
//! newer than the question, and without that a process that commits all the time would keep the rules
//! asking for ever (`directory::tests::commits_without_end_hold_nobody_up`). Nobody else may.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jam_core::directory::{Account, Friendship, NotificationToken};
use smallvec::SmallVec;
use tokio::task;

/// Locks are held for the copy of one fact; this many make it unlikely to meet at one.
const SHARDS: usize = 64;

/// Facts of one shard. A full shard forgets everything: what is needed is loaded again.
const SHARD_FACTS: usize = 16_384;

/// How long a loaded fact waits for those who had it loaded, if the file changes meanwhile.
const CREDIT_AGE: Duration = Duration::from_millis(20);

/// Those who may wait for one fact. More of them are not remembered, and may have to ask again.
const ASKERS: usize = 16;

/// Who had a fact loaded: a task, or a thread outside of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Task(task::Id),
    Thread(thread::ThreadId),
}

impl Asker {
    /// Whoever calls this.
    pub(super) fn current() -> Self {
        task::try_id().map_or_else(|| Self::Thread(thread::current().id()), Self::Task)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Account(i64),
    Friendship { sender: i64, receiver: i64 },
    NotificationToken(i64),
}

/// What the file says.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    Account(Option<Account>),
    Friendship(Friendship),
    NotificationToken(NotificationToken),
}

/// Ends when the file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(pub(super) u64);

#[derive(Debug)]
struct Entry {
    fact: Fact,
    generation: Generation,
    loaded: Instant,
    /// Who had it loaded and has not come for it yet.
    askers: SmallVec<[Asker; 1]>,
}

#[derive(Debug)]
pub(super) struct Cache {
    generation: AtomicU64,
    shards: Box<[RwLock<HashMap<Key, Entry, RandomState>>]>,
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

    /// A fact that is believed. `fresh`: the file has just been looked at, so that the current
    /// generation's facts hold.
    pub(super) fn get<T>(
        &self,
        key: &Key,
        fresh: bool,
        pick: impl FnOnce(&Fact) -> Option<T>,
    ) -> Option<T> {
        let generation = self.generation();
        let believed = |entry: &Entry| fresh && entry.generation == generation;
        {
            let shard = self
                .shard(key)
                .read()
                .expect("no code that holds a shard can panic");
            let entry = shard.get(key)?;
            if entry.askers.is_empty() {
                return if believed(entry) {
                    pick(&entry.fact)
                } else {
                    None
                };
            }
        }
        // Somebody waits for it: this one, perhaps.
        let mut shard = self
            .shard(key)
            .write()
            .expect("no code that holds a shard can panic");
        let entry = shard.get_mut(key)?;
        let asked = entry.take_asker(Asker::current()) && entry.loaded.elapsed() <= CREDIT_AGE;
        if asked || believed(entry) {
            pick(&entry.fact)
        } else {
            None
        }
    }

    /// Keeps a fact that `asker` had read after `generation` was current.
    pub(super) fn insert(
        &self,
        key: Key,
        fact: Fact,
        generation: Generation,
        loaded: Instant,
        asker: Asker,
    ) {
        let mut shard = self
            .shard(&key)
            .write()
            .expect("no code that holds a shard can panic");
        if shard.len() >= SHARD_FACTS && !shard.contains_key(&key) {
            shard.clear();
        }
        let mut askers = match shard.remove(&key) {
            Some(old) if old.loaded.elapsed() <= CREDIT_AGE => old.askers,
            _ => SmallVec::new(),
        };
        if askers.len() == ASKERS {
            askers.remove(0);
        }
        askers.push(asker);
        shard.insert(
            key,
            Entry {
                fact,
                generation,
                loaded,
                askers,
            },
        );
    }

    fn shard(&self, key: &Key) -> &RwLock<HashMap<Key, Entry, RandomState>> {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one(key);
        // Not the bits the map itself uses first.
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        &self.shards[index]
    }
}

impl Entry {
    /// Whether this one had it loaded. Once.
    fn take_asker(&mut self, asker: Asker) -> bool {
        let before = self.askers.len();
        self.askers.retain(|other| *other != asker);
        self.askers.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn friends(fact: &Fact) -> Option<bool> {
        match fact {
            Fact::Friendship(friendship) => Some(*friendship == Friendship::Friends),
            _ => None,
        }
    }

    const KEY: Key = Key::Friendship {
        sender: 1,
        receiver: 2,
    };
    const YES: Fact = Fact::Friendship(Friendship::Friends);

    #[test]
    fn a_late_fact_is_not_believed() {
        let cache = Cache::new();
        let before = cache.generation();
        cache.invalidate();
        cache.insert(KEY, YES, before, Instant::now(), Asker::current());
        let other = thread::scope(|scope| {
            scope
                .spawn(|| cache.get(&KEY, true, friends))
                .join()
                .unwrap()
        });
        assert_eq!(other, None);
        // Once, for the one who asked; nobody after that.
        assert_eq!(cache.get(&KEY, true, friends), Some(true));
        assert_eq!(cache.get(&KEY, true, friends), None);
    }

    #[test]
    fn a_fact_holds_until_the_file_changes() {
        let cache = Cache::new();
        cache.insert(
            KEY,
            YES,
            cache.generation(),
            Instant::now(),
            Asker::current(),
        );
        for _ in 0..3 {
            assert_eq!(cache.get(&KEY, true, friends), Some(true));
        }
        assert_eq!(cache.get(&KEY, false, friends), None);
        cache.invalidate();
        assert_eq!(cache.get(&KEY, true, friends), None);
    }

    #[test]
    fn nobody_waits_for_an_old_fact() {
        let cache = Cache::new();
        let Some(long_ago) = Instant::now().checked_sub(2 * CREDIT_AGE) else {
            return;
        };
        cache.insert(KEY, YES, cache.generation(), long_ago, Asker::current());
        cache.invalidate();
        assert_eq!(cache.get(&KEY, true, friends), None);
    }

    #[test]
    fn memory_is_bounded() {
        let cache = Cache::new();
        let facts = i64::try_from(2 * SHARDS * SHARD_FACTS).unwrap();
        for id in 0..facts {
            let fact = Fact::NotificationToken(NotificationToken::Absent);
            let (key, now) = (Key::NotificationToken(id), Instant::now());
            cache.insert(key, fact, cache.generation(), now, Asker::current());
        }
        for shard in &cache.shards {
            assert!(shard.read().unwrap().len() <= SHARD_FACTS);
        }
    }
}
