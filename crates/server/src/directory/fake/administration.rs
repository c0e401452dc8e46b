//! What operators do to the scripted directory. Nobody has a name in it, and its order of ids is that of texts.

use std::collections::BTreeMap;

use jam_core::directory::{Fact, NotificationToken, Question};
use jam_core::ids::UserId;
use jam_testkit::FakeDirectory;

use super::super::administration::Outcome;
use super::super::{
    Administration, AdministrationError, DirectoryError, Friend, NewToken, Page, PageRequest, User,
};
use super::fact;

type Said<T> = Result<T, AdministrationError>;

/// Answers as from another machine: later.
fn later<'a, T: Send + 'a>(answer: impl FnOnce() -> Said<T> + Send + 'a) -> Outcome<'a, T> {
    Box::pin(async {
        tokio::task::yield_now().await;
        answer()
    })
}

fn unavailable<E>(_: E) -> AdministrationError {
    DirectoryError::new("the script says so").into()
}

fn must_exist(directory: &FakeDirectory, user: &UserId) -> Said<()> {
    let users = directory.users().map_err(unavailable)?;
    match users.iter().any(|id| id == user.as_str()) {
        true => Ok(()),
        false => Err(AdministrationError::NoUser(user.clone())),
    }
}

fn must_be_two(directory: &FakeDirectory, a: &UserId, b: &UserId) -> Said<()> {
    if a == b {
        let why = format!("{a} and {b} are the same user; name two");
        return Err(AdministrationError::Refused(why));
    }
    must_exist(directory, a)?;
    must_exist(directory, b)
}

/// Whether all of a friendship is there, and whether some of it is.
fn halves(directory: &FakeDirectory, a: &UserId, b: &UserId) -> (bool, bool) {
    let there = directory.is_allowed(a.as_str(), b.as_str());
    let back = directory.is_allowed(b.as_str(), a.as_str());
    (there && back, there || back)
}

fn friends(directory: &FakeDirectory, user: &UserId) -> Said<BTreeMap<String, Friend>> {
    let users = directory.users().map_err(unavailable)?;
    let friend = |id: String| Friend {
        name: None,
        blocked: directory.has_blocked(user.as_str(), &id),
        been_blocked: directory.has_blocked(&id, user.as_str()),
        id,
    };
    let all = users.into_iter();
    let friends = all.filter(|id| directory.is_allowed(id, user.as_str()));
    Ok(friends.map(|id| (id.clone(), friend(id))).collect())
}

fn user(directory: &FakeDirectory, id: &UserId) -> Said<User> {
    must_exist(directory, id)?;
    let question = Question::NotificationToken(id.clone());
    let push = matches!(
        fact(directory, &question),
        Some(Fact::NotificationToken(NotificationToken::Present))
    );
    Ok(User {
        id: id.to_string(),
        name: None,
        token: directory.token_of(id.as_str()).is_some(),
        push,
        friends: u32::try_from(friends(directory, id)?.len()).expect("a few"),
    })
}

fn page<T>(all: BTreeMap<String, T>, request: &PageRequest) -> Page<T> {
    let after = request.place().map(UserId::to_string);
    let mut rest = all
        .into_iter()
        .skip_while(|(id, _)| after.as_ref() >= Some(id));
    let (ids, items): (Vec<_>, _) = rest.by_ref().take(request.limit().into()).unzip();
    let has_more = rest.next().is_some();
    let next = ids.last().filter(|_| has_more);
    let next = next.map(|id| UserId::parse(id).expect("a user id"));
    Page { items, next }
}

impl Administration for FakeDirectory {
    fn users<'a>(&'a self, prefix: &'a str, request: &'a PageRequest) -> Outcome<'a, Page<User>> {
        later(move || {
            let ids = self.users().map_err(unavailable)?;
            let ids = ids.into_iter().filter(|id| id.starts_with(prefix));
            let users = ids.map(|id| {
                let parsed = UserId::parse(&id).expect("a user id");
                Ok((id, user(self, &parsed)?))
            });
            Ok(page(users.collect::<Said<_>>()?, request))
        })
    }

    fn user<'a>(&'a self, id: &'a UserId) -> Outcome<'a, User> {
        later(move || user(self, id))
    }

    fn add_user<'a>(
        &'a self,
        user: &'a UserId,
        _name: Option<&'a str>,
        token: &'a NewToken,
    ) -> Outcome<'a, ()> {
        later(move || match must_exist(self, user) {
            Ok(()) => Err(AdministrationError::UserExists(user.clone())),
            Err(AdministrationError::NoUser(_)) => {
                self.set_account(user.as_str(), Some(token.expose()));
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    fn set_token<'a>(&'a self, user: &'a UserId, token: &'a NewToken) -> Outcome<'a, bool> {
        later(move || {
            must_exist(self, user)?;
            let before = self.token_of(user.as_str());
            self.set_account(user.as_str(), Some(token.expose()));
            Ok(before.as_deref() != Some(token.expose()))
        })
    }

    fn remove_user<'a>(&'a self, user: &'a UserId) -> Outcome<'a, bool> {
        later(move || match must_exist(self, user) {
            Ok(()) => {
                for friend in friends(self, user)?.into_keys() {
                    self.forbid(user.as_str(), &friend);
                    self.forbid(&friend, user.as_str());
                }
                self.remove_account(user.as_str());
                Ok(true)
            }
            Err(AdministrationError::NoUser(_)) => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn friends<'a>(
        &'a self,
        user: &'a UserId,
        request: &'a PageRequest,
    ) -> Outcome<'a, Page<Friend>> {
        later(move || {
            must_exist(self, user)?;
            Ok(page(friends(self, user)?, request))
        })
    }

    fn friend<'a>(&'a self, user: &'a UserId, friend: &'a UserId) -> Outcome<'a, Option<Friend>> {
        later(move || {
            must_exist(self, user)?;
            Ok(friends(self, user)?.remove(friend.as_str()))
        })
    }

    fn befriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool> {
        later(move || {
            must_be_two(self, a, b)?;
            let (all, _) = halves(self, a, b);
            self.befriend(a.as_str(), b.as_str());
            Ok(!all)
        })
    }

    fn unfriend<'a>(&'a self, a: &'a UserId, b: &'a UserId) -> Outcome<'a, bool> {
        later(move || {
            let (_, some) = halves(self, a, b);
            for (a, b) in [(a, b), (b, a)] {
                self.forbid(a.as_str(), b.as_str());
                self.block(a.as_str(), b.as_str(), false);
            }
            Ok(some)
        })
    }

    fn set_blocked<'a>(
        &'a self,
        user: &'a UserId,
        friend: &'a UserId,
        blocked: bool,
    ) -> Outcome<'a, bool> {
        later(move || {
            must_be_two(self, user, friend)?;
            if !halves(self, user, friend).1 {
                let (a, b) = (user.clone(), friend.clone());
                return Err(AdministrationError::NotFriends(a, b));
            }
            let before = self.has_blocked(user.as_str(), friend.as_str());
            self.block(user.as_str(), friend.as_str(), blocked);
            Ok(before != blocked)
        })
    }
}
