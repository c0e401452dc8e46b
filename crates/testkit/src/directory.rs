//! A directory that says what it was told to say.
//!
//! It can keep nothing in memory, so that everything has to be asked ([`FakeDirectory::forget`]), be unable to answer
//! ([`FakeDirectory::fail`]), and be read before a change by a rule that uses what it says after it
//! ([`FakeDirectory::answer_once_as`]).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use jam_core::directory::{
    Account, Answer, Directory, Fact, Friendship, Generation, Life, Lookup, Mark,
    NotificationToken, Question, Token, Unavailable,
};
use jam_core::friends::{Friend, List};
use jam_core::ids::UserId;

/// Accounts, friendships and notification tokens in memory.
#[derive(Debug, Default)]
pub struct FakeDirectory {
    facts: Mutex<Facts>,
    before: Mutex<Option<Before>>,
}

/// How each question is still answered the first times.
#[derive(Debug)]
struct Before {
    facts: Snapshot,
    times: usize,
    asked: HashMap<Question, usize>,
}

/// What a directory said at some time.
#[derive(Debug, Clone)]
pub struct Snapshot(Facts);

impl Snapshot {
    /// What it said then.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Answer {
        self.0.answer(question)
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
    /// (who blocks, who is blocked), besides what [`FakeDirectory::forbid`] says
    blocks: HashSet<(String, String)>,
    notification: HashMap<String, NotificationToken>,
    /// Names and keys.
    profiles: HashMap<String, (Option<String>, Option<String>)>,
    /// Nothing is in memory.
    forgetful: bool,
    failing: bool,
    hanging: bool,
    questions: usize,
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

    /// `user` blocks `other`, or does no longer: neither may write to the other, and `other` is not told when
    /// `user` comes and goes.
    pub fn block(&self, user: &str, other: &str, blocked: bool) {
        let pair = (user.into(), other.into());
        let mut facts = self.change();
        if blocked {
            facts.blocks.insert(pair);
        } else {
            facts.blocks.remove(&pair);
        }
    }

    /// The friends who are told when `user` comes and goes (`watching`), or those that `user` is told about.
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

    /// The name and the key of an account; it has none if nothing was said.
    pub fn set_profile(&self, user: &str, name: Option<&str>, public_key: Option<&str>) {
        let profile = (name.map(str::to_owned), public_key.map(str::to_owned));
        self.change().profiles.insert(user.into(), profile);
    }

    /// The friends of a user as they are shown to that user.
    ///
    /// # Errors
    /// If the directory is failing.
    pub fn list_friends(&self, user: &UserId) -> Result<List, Unavailable> {
        let facts = self.facts();
        if facts.failing || facts.hanging {
            return Err(Unavailable);
        }
        let user = user.to_string();
        let has = |a: &str, b: &str| facts.friends.contains(&(a.to_owned(), b.to_owned()));
        let mut friends: Vec<&String> = facts
            .accounts
            .keys()
            .filter(|friend| has(&user, friend) && has(friend, &user))
            .filter(|friend| !facts.hidden.contains(*friend))
            .collect();
        friends.sort_by_key(|friend| (friend.len(), *friend));
        let mut list = List::default();
        for friend in friends {
            let profile = facts.profiles.get(friend);
            let has_room = list.add(&Friend {
                user: friend,
                name: profile.and_then(|it| it.0.as_deref()),
                blocked: facts.blocks.contains(&(user.clone(), friend.clone())),
                public_key: profile.and_then(|it| it.1.as_deref()),
            });
            if !has_room {
                break;
            }
        }
        Ok(list)
    }

    /// Those that there are, in no order.
    ///
    /// # Errors
    /// If the directory is failing.
    pub fn users(&self) -> Result<Vec<String>, Unavailable> {
        let facts = self.facts();
        if facts.failing || facts.hanging {
            return Err(Unavailable);
        }
        Ok(facts.accounts.keys().cloned().collect())
    }

    /// The token of an account that has one.
    pub fn token_of(&self, user: &str) -> Option<String> {
        self.facts().accounts.get(user)?.clone()
    }

    /// Whether `sender` may write to `receiver` as far as friendship goes: blocks are another matter.
    pub fn is_allowed(&self, sender: &str, receiver: &str) -> bool {
        let pair = (receiver.to_owned(), sender.to_owned());
        self.facts().friends.contains(&pair)
    }

    /// Whether `user` blocks `other`.
    pub fn has_blocked(&self, user: &str, other: &str) -> bool {
        let pair = (user.to_owned(), other.to_owned());
        self.facts().blocks.contains(&pair)
    }

    /// What is known of a user's notification token; absent if nothing was said.
    pub fn set_notification(&self, user: &str, token: NotificationToken) {
        self.change().notification.insert(user.into(), token);
    }

    /// From now on memory knows nothing: each fact has to be asked for, each time.
    pub fn forget(&self) {
        self.facts().forgetful = true;
    }

    /// From now on everything is in memory.
    pub fn remember(&self) {
        self.facts().forgetful = false;
    }

    /// Whether it cannot answer from now on.
    pub fn fail(&self, failing: bool) {
        self.facts().failing = failing;
    }

    /// Whether no answer comes back from now on: a question that can wait waits, others go unanswered.
    pub fn hang(&self, hanging: bool) {
        self.facts().hanging = hanging;
    }

    /// Whether it answers.
    pub fn is_answering(&self) -> bool {
        let facts = self.facts();
        !facts.failing && !facts.hanging
    }

    /// See [`Self::hang`].
    pub fn is_hanging(&self) -> bool {
        self.facts().hanging
    }

    /// How many questions it was asked.
    pub fn questions(&self) -> usize {
        self.facts().questions
    }

    /// Answers a question.
    ///
    /// # Errors
    /// If the directory is failing.
    pub fn answer(&self, question: &Question) -> Result<Answer, Unavailable> {
        let mut facts = self.facts();
        facts.questions += 1;
        facts.look();
        if facts.failing || facts.hanging {
            return Err(Unavailable);
        }
        drop(facts);
        Ok(self.recall(question))
    }

    /// What it says now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.facts().clone())
    }

    /// From now on each question is answered the first time as it was at `then`, from memory or not: somebody reads it
    /// then, and uses it now.
    pub fn answer_once_as(&self, then: &Snapshot) {
        self.answer_as(then, 1);
    }

    /// As [`Self::answer_once_as`], so many times.
    pub fn answer_as(&self, then: &Snapshot, times: usize) {
        let before = Before {
            facts: then.clone(),
            times,
            asked: HashMap::new(),
        };
        *self.before.lock().expect("a test that panics has failed") = Some(before);
    }

    /// Makes changes that nobody notices before something is asked the next time: facts of before and after them are of
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

    /// The answer, from memory or not.
    fn recall(&self, question: &Question) -> Answer {
        let mut before = self.before.lock().expect("a test that panics has failed");
        if let Some(before) = &mut *before {
            let asked = before.asked.entry(question.clone()).or_default();
            *asked += 1;
            if *asked <= before.times {
                return before.facts.answer(question);
            }
        }
        self.facts().answer(question)
    }

    /// Answers a question from memory.
    fn look_up<T>(&self, question: &Question, pick: impl FnOnce(Fact) -> Option<T>) -> Lookup<T> {
        if self.facts().forgetful {
            return Lookup::Unknown;
        }
        let Answer { fact, as_of } = self.recall(question);
        pick(fact).map_or(Lookup::Unknown, |fact| Lookup::Known(fact, as_of))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("a test that panics has failed")
    }
}

impl Facts {
    /// Notices what has changed.
    fn look(&mut self) {
        self.generation += std::mem::take(&mut self.unnoticed);
    }

    fn answer(&self, question: &Question) -> Answer {
        let fact = match question {
            Question::Account(user) => Fact::Account(self.account(user)),
            Question::Friendship { sender, receiver } => {
                Fact::Friendship(self.friendship(sender.as_str(), receiver.as_str()))
            }
            Question::NotificationToken(user) => {
                let token = self.notification.get(user.as_str()).copied();
                Fact::NotificationToken(token.unwrap_or(NotificationToken::Absent))
            }
        };
        let as_of = Generation(self.generation);
        Answer { fact, as_of }
    }

    fn friendship(&self, sender: &str, receiver: &str) -> Friendship {
        let pair = (receiver.to_owned(), sender.to_owned());
        let back = (sender.to_owned(), receiver.to_owned());
        let blocked = self.blocks.contains(&pair) || self.blocks.contains(&back);
        let hidden = self.hidden.contains(receiver);
        if self.friends.contains(&pair) && !blocked && !hidden {
            Friendship::Friends(self.life(receiver))
        } else {
            Friendship::NotFriends
        }
    }

    fn account(&self, user: &UserId) -> Option<Account> {
        let token = self
            .accounts
            .get(user.as_str())
            .filter(|_| !self.hidden.contains(user.as_str()))?;
        let token = token
            .as_ref()
            .map(|token| Token::plain(token.as_bytes(), mark(token)));
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
        self.look_up(&Question::Account(user.clone()), |fact| match fact {
            Fact::Account(account) => Some(account),
            _ => None,
        })
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let question = Question::Friendship {
            sender: sender.clone(),
            receiver: receiver.clone(),
        };
        self.look_up(&question, |fact| match fact {
            Fact::Friendship(friendship) => Some(friendship),
            _ => None,
        })
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        let question = Question::NotificationToken(user.clone());
        self.look_up(&question, |fact| match fact {
            Fact::NotificationToken(token) => Some(token),
            _ => None,
        })
    }
}
