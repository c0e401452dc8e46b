//! What the rules ask, in the terms of a jam database, whose ids are numbers: the same for every kind of them.
//!
//! Invariant: an id that is no such number has no account, no friends and no notification token, whatever is read.

use jam_core::directory::{
    Account, Answer, Fact, Friendship, Generation, Lookup, NotificationToken, Question,
};
use jam_core::ids::UserId;

use super::cache::Key;

/// A kind of accounts database, as far as a look-up goes.
pub(super) trait FactLookup {
    /// A fact, if it can be had without waiting.
    fn get<T>(&self, key: &Key, pick: impl Fn(&Fact) -> Option<T>) -> Lookup<T>;

    /// What is read from now on is of this generation or a later one.
    fn generation(&self) -> Generation;

    fn get_or_nothing<T>(
        &self,
        key: Option<Key>,
        nothing: T,
        pick: impl Fn(&Fact) -> Option<T>,
    ) -> Lookup<T> {
        match key {
            Some(key) => self.get(&key, pick),
            None => Lookup::Known(nothing, self.generation()),
        }
    }

    fn get_account(&self, user: &UserId) -> Lookup<Option<Account>> {
        self.get_or_nothing(Key::account(user), None, |fact| match fact {
            Fact::Account(account) => Some(account.clone()),
            _ => None,
        })
    }

    fn get_friendship(&self, sender: &UserId, receiver: &UserId) -> Lookup<Friendship> {
        let key = Key::friendship(sender, receiver);
        self.get_or_nothing(key, Friendship::NotFriends, |fact| match fact {
            Fact::Friendship(friendship) => Some(*friendship),
            _ => None,
        })
    }

    fn get_notification_token(&self, user: &UserId) -> Lookup<NotificationToken> {
        let key = Key::notification_token(user);
        self.get_or_nothing(key, NotificationToken::Absent, |fact| match fact {
            Fact::NotificationToken(token) => Some(*token),
            _ => None,
        })
    }

    /// The answer about an id that no jam database can hold.
    fn of_nobody(&self, question: &Question) -> Answer {
        let fact = match question {
            Question::Account(_) => Fact::Account(None),
            Question::Friendship { .. } => Fact::Friendship(Friendship::NotFriends),
            Question::NotificationToken(_) => Fact::NotificationToken(NotificationToken::Absent),
        };
        let as_of = self.generation();
        Answer { fact, as_of }
    }
}
