//! A directory that says what it was told to say.
//!
//! It can pretend not to have a fact in memory the first time it is asked ([`FakeDirectory::forget`]),
//! and to be unable to load it ([`FakeDirectory::fail`]).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use jam_core::connection::Unavailable;
use jam_core::directory::{
    Account, Directory, Friendship, Life, Lookup, Mark, NotificationToken, Question, Token,
};
use jam_core::ids::UserId;

/// Accounts, friendships and notification tokens in memory.
#[derive(Debug, Default)]
pub struct FakeDirectory {
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
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
    loads: usize,
}

impl FakeDirectory {
    /// An account with a token; `None` is one that has logged out.
    pub fn set_account(&self, user: &str, token: Option<&str>) {
        let token = token.map(str::to_string);
        let mut facts = self.facts();
        if facts.accounts.insert(user.into(), token).is_none() {
            *facts.lives.entry(user.into()).or_default() += 1;
        }
    }

    /// No such account.
    pub fn remove_account(&self, user: &str) {
        self.facts().accounts.remove(user);
    }

    /// The account is there, but is not seen: another file stands in the place of its own.
    pub fn hide_account(&self, user: &str, hidden: bool) {
        let mut facts = self.facts();
        if hidden {
            facts.hidden.insert(user.into());
        } else {
            facts.hidden.remove(user);
        }
    }

    /// Each may write to the other.
    pub fn befriend(&self, a: &str, b: &str) {
        self.allow(a, b);
        self.allow(b, a);
    }

    /// `sender` may write to `receiver`.
    pub fn allow(&self, sender: &str, receiver: &str) {
        self.facts()
            .friends
            .insert((receiver.into(), sender.into()));
    }

    /// `sender` may no longer write to `receiver`.
    pub fn forbid(&self, sender: &str, receiver: &str) {
        self.facts()
            .friends
            .remove(&(receiver.into(), sender.into()));
    }

    /// `who` blocks `whom`, or does no longer: neither may write to the other, and `whom` is not told when
    /// `who` comes and goes.
    pub fn block(&self, who: &str, whom: &str, blocked: bool) {
        let pair = (who.into(), whom.into());
        let mut facts = self.facts();
        if blocked {
            facts.blocks.insert(pair);
        } else {
            facts.blocks.remove(&pair);
        }
    }

    /// The friends who are told when `user` comes and goes (`watching`), or of whom he is told.
    ///
    /// # Errors
    /// If the directory is failing.
    pub fn friends(&self, user: &UserId, watching: bool) -> Result<Vec<UserId>, Unavailable> {
        let facts = self.facts();
        if facts.failing {
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
        self.facts().notification.insert(user.into(), token);
    }

    /// From now on each fact has to be loaded before it is known.
    pub fn forget(&self) {
        self.facts().loaded = Some(HashSet::new());
    }

    /// Whether loading fails from now on.
    pub fn fail(&self, failing: bool) {
        self.facts().failing = failing;
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
        if facts.failing {
            return Err(Unavailable);
        }
        if let Some(loaded) = &mut facts.loaded {
            loaded.insert(question);
        }
        Ok(())
    }

    /// The account as the directory has it, loaded or not.
    pub fn account_now(&self, user: &UserId) -> Option<Account> {
        let facts = self.facts();
        let accounts = &facts.accounts;
        let token = accounts
            .get(user.as_str())
            .filter(|_| !facts.hidden.contains(user.as_str()))?;
        let token = token
            .as_ref()
            .map(|token| Token::new(token.as_bytes(), mark(token)));
        let life = facts.life(user.as_str());
        Some(Account { token, life })
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
    fn life(&self, user: &str) -> Life {
        let life = self.lives.get(user);
        Life {
            email: life.map(|life| mark(&format!("{user} {life}"))),
            name: life.map(|life| mark(&format!("n{life} {user}"))),
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
        if !self.knows(&Question::Account(user.clone())) {
            return Lookup::Unknown;
        }
        Lookup::Known(self.account_now(user))
    }

    fn friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let (from, to) = (sender.clone(), receiver.clone());
        if !self.knows(&Question::Friendship {
            sender: from,
            receiver: to,
        }) {
            return Lookup::Unknown;
        }
        let pair = (receiver.to_string(), sender.to_string());
        let back = (sender.to_string(), receiver.to_string());
        let facts = self.facts();
        let blocked = facts.blocks.contains(&pair) || facts.blocks.contains(&back);
        Lookup::Known(match facts.friends.contains(&pair) && !blocked {
            true => Friendship::Friends(facts.life(receiver.as_str())),
            false => Friendship::NotFriends,
        })
    }

    fn notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        if !self.knows(&Question::NotificationToken(user.clone())) {
            return Lookup::Unknown;
        }
        let token = self.facts().notification.get(user.as_str()).copied();
        Lookup::Known(token.unwrap_or(NotificationToken::Absent))
    }
}
