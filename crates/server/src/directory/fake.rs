//! The scripted directory as an accounts database: one that is no SQLite file.

mod administration;

use std::sync::Arc;
use std::time::Duration;

use jam_core::directory::{Answer, Fact, Friendship, Generation, NotificationToken, Question};
use jam_core::friends::List;
use jam_core::ids::UserId;
use jam_testkit::FakeDirectory;
use secrecy::{ExposeSecret, SecretString};

use super::{
    AccountsDatabase, Administration, DirectoryError, FriendList, PushAddress, Reply, Who,
};

/// Between two looks whether a database that hangs goes on.
const PATIENCE: Duration = Duration::from_millis(5);

/// The notification token of a user who has one.
pub(super) fn notification_token(user: &UserId) -> String {
    format!("phone-of-{user}")
}

/// Answers as from another machine: later, or not at all while the script has it hang.
fn later<'a, T: 'a>(
    directory: &'a FakeDirectory,
    answer: impl FnOnce() -> Option<T> + Send + 'a,
) -> Reply<'a, T> {
    Box::pin(async move {
        tokio::task::yield_now().await;
        while directory.is_hanging() {
            tokio::time::sleep(PATIENCE).await;
        }
        answer().ok_or_else(|| DirectoryError::new("the script says so"))
    })
}

fn fact(directory: &FakeDirectory, question: &Question) -> Option<Fact> {
    Some(directory.answer(question).ok()?.fact)
}

impl AccountsDatabase for FakeDirectory {
    fn answer(&self, question: Question) -> Reply<'_, Answer> {
        later(self, move || self.answer(&question).ok())
    }

    fn accounts<'a>(&'a self, users: &'a [UserId]) -> Reply<'a, Vec<Answer>> {
        let account = |user: &UserId| self.answer(&Question::Account(user.clone())).ok();
        later(self, move || users.iter().map(account).collect())
    }

    fn look(&self) -> Reply<'_, Generation> {
        later(self, || self.is_answering().then(|| self.generation()))
    }

    fn replacements(&self) -> u64 {
        0
    }

    fn friends(&self, user: &UserId, who: Who) -> Box<dyn FriendList + '_> {
        Box::new(ScriptedFriends {
            directory: self,
            user: user.clone(),
            who,
            said: 0,
        })
    }

    fn list_friends<'a>(&'a self, user: &'a UserId) -> Reply<'a, List> {
        later(self, || self.list_friends(user).ok())
    }

    fn push_address<'a>(
        &'a self,
        sender: &'a UserId,
        receiver: &'a UserId,
    ) -> Reply<'a, Option<PushAddress>> {
        let (from, to) = (sender.clone(), receiver.clone());
        later(self, move || {
            let question = Question::Friendship {
                sender: from,
                receiver: to,
            };
            let Fact::Friendship(friendship) = fact(self, &question)? else {
                return None;
            };
            if friendship == Friendship::NotFriends {
                return Some(None);
            }
            let question = Question::NotificationToken(receiver.clone());
            let Fact::NotificationToken(token) = fact(self, &question)? else {
                return None;
            };
            let token = (token == NotificationToken::Present)
                .then(|| SecretString::from(notification_token(receiver)));
            Some(Some(PushAddress { token }))
        })
    }

    fn clear_notification_token<'a>(
        &'a self,
        user: &'a UserId,
        token: &'a SecretString,
    ) -> Reply<'a, bool> {
        later(self, move || {
            let is_theirs = token.expose_secret() == notification_token(user);
            if is_theirs {
                self.set_notification(user.as_str(), NotificationToken::Absent);
            }
            Some(is_theirs)
        })
    }

    fn administration(self: Arc<Self>) -> Arc<dyn Administration> {
        self
    }
}

/// A user's friends, one at a time.
struct ScriptedFriends<'a> {
    directory: &'a FakeDirectory,
    user: UserId,
    who: Who,
    said: usize,
}

impl FriendList for ScriptedFriends<'_> {
    fn next(&mut self) -> Reply<'_, Option<Vec<UserId>>> {
        let sees_user = self.who == Who::SeesUser;
        later(self.directory, move || {
            let friends = self.directory.friends(&self.user, sees_user).ok()?;
            let next = friends.get(self.said).cloned();
            self.said += 1;
            Some(next.map(|friend| vec![friend]))
        })
    }
}
