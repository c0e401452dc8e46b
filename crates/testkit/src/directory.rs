//! A directory that says what it was told to say.
//!
//! It can pretend not to have a fact in memory the first time it is asked ([`FakeDirectory::forget`]),
//! to be unable to load it ([`FakeDirectory::fail`]), and to give an answer that was read before a change and is used after it
//! ([`FakeDirectory::answer_once_as`]).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use jam_core::connection::Unavailable;
use jam_core::directory::{
    Account, Directory, Friendship, Generation, Life, Lookup, Mark, NotificationToken, Question,
    Token,
};
use jam_core::ids::UserId;

/// Accounts, friendships and notification tokens in memory.
#[derive(Debug, Default)]
pub struct FakeDirectory {
    facts: Mutex<Facts>,
    before: Mutex<Option<Before>>,
}

/// What the first look-up of each question still answers.
#[derive(Debug)]
struct Before {
    facts: Snapshot,
    asked: HashSet<Question>,
}

/// What a directory said at some time.
#[derive(Debug, Clone)]
pub struct Snapshot(Facts);

impl Snapshot {
    /// The account of then.
    #[must_use]
    pub fn account(&self, user: &UserId) -> Option<Account> {
        self.0.account(user)
    }
}

#[derive(Debug, Default, Clone)]
struct Facts {
    /// Changes that have been noticed.
    generation: u64,
    /// Those that have not.
    unnoticed: u64,
    accounts: HashMap<String, Option<String>>,
    /// Those that are there and are not seen.
    hidden: HashSet<String>,
    /// How often each has begun.
    lives: HashMap<String, u64>,
    /// (receiver, sender)
    friends: HashSet<(String, String)>,
    /// (who, whom), besides what [`FakeDirectory::forbid`] says
    blocks: HashSet<(String, String)>,
    notification: HashMap<String, NotificationToken>,
    /// What is in memory; `None` if everything is.
    loaded: Option<HashSet<Question>>,
    failing: bool,
    hanging: bool,
    loads: usize,
}

impl FakeDirectory {
    /// An account with a token; `None` is one that has logged out.
    pub fn set_account(&self, user: &str, token: Option<&str>) {
        let token = token.map(str::to_string);
        let mut facts = self.change();
        if facts.accounts.insert(user.into(), token).is_none() {
            *facts.lives.entry(user.into()).or_default() += 1;
        }
    }

    /// No such account.
    pub fn remove_account(&self, user: &str) {
        self.change().accounts.remove(user);
    }

    /// The account is there, but is not seen: another file stands in the place of its own.
    pub fn hide_account(&self, user: &str, hidden: bool) {
        let mut facts = self.change();
        if hidden {
            facts.hidden.insert(user.into());
        } else {
            facts.hidden.remove(user);
        }
    }

    /// Which of the accounts that have had this id it stands for.
    pub fn life_of(&self, user: &str) -> u64 {
        self.facts().lives.get(user).copied().unwrap_or_default()
    }

    /// The id stands for another account, or for an earlier one again; all else stays as it is.
    pub fn set_life(&self, user: &str, life: u64) {
        self.change().lives.insert(user.into(), life);
    }

    /// Each may write to the other.
    pub fn befriend(&self, a: &str, b: &str) {
        self.allow(a, b);
        self.allow(b, a);
    }

    /// `sender` may write to `receiver`.
    pub fn allow(&self, sender: &str, receiver: &str) {
        self.change()
            .friends
            .insert((receiver.into(), sender.into()));
    }

    /// `sender` may no longer write to `receiver`.
    pub fn forbid(&self, sender: &str, receiver: &str) {
        self.change()
            .friends
            .remove(&(receiver.into(), sender.into()));
    }

    /// `who` blocks `whom`, or does no longer: neither may write to the other, and `whom` is not told when
    /// `who` comes and goes.
    pub fn block(&self, who: &str, whom: &str, blocked: bool) {
        let pair = (who.into(), whom.into());
        let mut facts = self.change();
        if blocked {
            facts.blocks.insert(pair);
        } else {
            facts.blocks.remove(&pair);
        }
    }

    /// The friends who are told when `user` comes and goes (`watching`), or those of whom `user` is told.
    ///
    /// # Errors
    /// If the directory is failing.
    pub fn friends(&self, user: &UserId, watching: bool) -> Result<Vec<UserId>, Unavailable> {
        let facts = self.facts();
        if facts.failing || facts.hanging {
            return Err(Unavailable);
        }
        let user = user.to_string();
        let mut friends: Vec<_> = facts
            .friends
            .iter()
            .filter(|(a, b)| *a == user && facts.friends.contains(&(b.clone(), a.clone())))
            .map(|(_, friend)| friend.clone())
            .filter(|friend| {
                let (who, whom) = if watching {
                    (user.clone(), friend.clone())
                } else {
                    (friend.clone(), user.clone())
                };
                !facts.blocks.contains(&(who, whom))
            })
            .collect();
        friends.sort();
        let parse = |id: String| UserId::parse(id).expect("a user id");
        Ok(friends.into_iter().map(parse).collect())
    }

    /// What is known of a user's notification token; absent if nothing was said.
    pub fn set_notification(&self, user: &str, token: NotificationToken) {
        self.change().notification.insert(user.into(), token);
    }

    /// From now on each fact has to be loaded before it is known.
    pub fn forget(&self) {
        self.facts().loaded = Some(HashSet::new());
    }

    /// Whether loading fails from now on.
    pub fn fail(&self, failing: bool) {
        self.facts().failing = failing;
    }

    /// Whether loading does not come back from now on: whoever can wait waits, others go without.
    pub fn hang(&self, hanging: bool) {
        self.facts().hanging = hanging;
    }

    /// Whether loading works.
    pub fn is_answering(&self) -> bool {
        let facts = self.facts();
        !facts.failing && !facts.hanging
    }

    /// See [`Self::hang`].
    pub fn is_hanging(&self) -> bool {
        self.facts().hanging
    }

    /// How often a fact was loaded.
    pub fn loads(&self) -> usize {
        self.facts().loads
    }

    /// Loads a fact into memory.
    ///
    /// # Errors
    /// If the directory is failing.
    pub fn load(&self, question: Question) -> Result<(), Unavailable> {
        let mut facts = self.facts();
        facts.loads += 1;
        facts.look();
        if facts.failing || facts.hanging {
            return Err(Unavailable);
        }
        if let Some(loaded) = &mut facts.loaded {
            loaded.insert(question);
        }
        Ok(())
    }

    /// The account as the directory has it, loaded or not.
    pub fn account_now(&self, user: &UserId) -> Option<Account> {
        self.facts().account(user)
    }

    /// What it says now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.facts().clone())
    }

    /// From now on the first look-up of each question is answered as it was at `then`: somebody reads it then, and uses
    /// it now.
    pub fn answer_once_as(&self, then: &Snapshot) {
        let before = Before {
            facts: then.clone(),
            asked: HashSet::new(),
        };
        *self.before.lock().expect("a test that panics has failed") = Some(before);
    }

    /// Makes changes that nobody notices before something is loaded the next time: facts of before and after them are of
    /// one generation.
    pub fn unnoticed(&self, changes: impl FnOnce(&Self)) {
        let generation = self.facts().generation;
        changes(self);
        let mut facts = self.facts();
        facts.unnoticed += facts.generation - generation;
        facts.generation = generation;
    }

    /// Which state of it is the present one, as far as anybody has noticed.
    pub fn generation(&self) -> Generation {
        Generation(self.facts().generation)
    }

    fn change(&self) -> MutexGuard<'_, Facts> {
        let mut facts = self.facts();
        facts.look();
        facts.generation += 1;
        facts
    }

    /// Answers a question from memory.
    fn look_up<T>(&self, question: Question, answer: impl FnOnce(&Facts) -> T) -> Lookup<T> {
        if !self.knows(&question) {
            return Lookup::Unknown;
        }
        let mut before = self.before.lock().expect("a test that panics has failed");
        if let Some(before) = &mut *before
            && before.asked.insert(question)
        {
            let facts = &before.facts.0;
            return Lookup::Known(answer(facts), Generation(facts.generation));
        }
        let facts = self.facts();
        Lookup::Known(answer(&facts), Generation(facts.generation))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("a test that panics has failed")
    }

    fn knows(&self, question: &Question) -> bool {
        let facts = self.facts();
        facts
            .loaded
            .as_ref()
            .is_none_or(|loaded| loaded.contains(question))
    }
}

impl Facts {
    /// Notices what has changed.
    fn look(&mut self) {
        self.generation += std::mem::take(&mut self.unnoticed);
    }

    fn account(&self, user: &UserId) -> Option<Account> {
        let token = self
            .accounts
            .get(user.as_str())
            .filter(|_| !self.hidden.contains(user.as_str()))?;
        let token = token
            .as_ref()
            .map(|token| Token::new(token.as_bytes(), mark(token)));
        let life = self.life(user.as_str());
        Some(Account { token, life })
    }

    fn life(&self, user: &str) -> Life {
        let life = self.lives.get(user);
        Life {
            email: life.map(|life| mark(&format!("{user} {life}"))),
            name: life.map(|life| mark(&format!("n{life} {user}"))),
            password: None,
            made_up: false,
        }
    }
}

/// The same for equal texts that are short.
fn mark(text: &str) -> Mark {
    let mut bytes = [0_u8; Mark::LEN];
    for (index, byte) in text.bytes().enumerate() {
        bytes[index % Mark::LEN] = byte.wrapping_add(bytes[index % Mark::LEN].wrapping_mul(31));
    }
    Mark::new(bytes)
}

impl Directory for FakeDirectory {
    fn account(&self, user: &UserId) -> Lookup<Option<Account>> {
        self.look_up(Question::Account(user.clone()), |facts| facts.account(user))
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let question = Question::Friendship {
            sender: sender.clone(),
            receiver: receiver.clone(),
        };
        let pair = (receiver.to_string(), sender.to_string());
        let back = (sender.to_string(), receiver.to_string());
        self.look_up(question, |facts| {
            let blocked = facts.blocks.contains(&pair) || facts.blocks.contains(&back);
            let hidden = facts.hidden.contains(receiver.as_str());
            if facts.friends.contains(&pair) && !blocked && !hidden {
                Friendship::Friends(facts.life(receiver.as_str()))
            } else {
                Friendship::NotFriends
            }
        })
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        self.look_up(Question::NotificationToken(user.clone()), |facts| {
            let token = facts.notification.get(user.as_str()).copied();
            token.unwrap_or(NotificationToken::Absent)
        })
    }
}
