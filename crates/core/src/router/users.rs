//! The users of one shard, as far as there is anything to remember of them.
//!
//! Invariant: *not in memory* and *has nothing* are two states ([`Found`]). Who is not here has nothing once all that the
//! store has is here ([`Users::all_are_loaded`]), and not before. The rules run after that, so they take the second
//! ([`Found::or_nothing`], [`Users::begin`]), which panics if it is the first (`tests`).

use hashbrown::HashTable;

use crate::ids::UserId;
use crate::user::User;

const LOADED: &str = "what the store has is loaded before anybody is let in";

/// By the hash of their ids, which also says the shard.
#[derive(Default)]
pub(super) struct Users {
    table: HashTable<Box<User>>,
    /// Whether all that the store has of them is here.
    are_loaded: bool,
}

/// What memory has of a user.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// This.
    Loaded(&'a User),
    /// Nothing, for there is nothing: no device, no mail, nothing retained.
    Empty,
    /// Nothing, and the store may have something.
    NotLoaded,
}

impl<'a> Found<'a> {
    /// `None` of a user who has nothing.
    ///
    /// # Panics
    /// If it is not known what they have.
    #[inline]
    pub(super) fn or_nothing(self) -> Option<&'a User> {
        match self {
            Self::Loaded(user) => Some(user),
            Self::Empty => None,
            Self::NotLoaded => panic!("{LOADED}"),
        }
    }
}

impl Users {
    #[inline]
    pub(super) fn find(&self, id: &UserId, hash: u64) -> Found<'_> {
        match self.table.find(hash, |user| user.id() == id) {
            Some(user) => Found::Loaded(user),
            None if self.are_loaded => Found::Empty,
            None => Found::NotLoaded,
        }
    }

    #[inline]
    pub(super) fn find_mut(&mut self, id: &UserId, hash: u64) -> Option<&mut User> {
        let found = self.table.find_mut(hash, |user| user.id() == id);
        found.map(|user| &mut **user)
    }

    /// The user, who is in memory from now on: who has had nothing begins with nothing.
    ///
    /// # Panics
    /// If it is not known what they have.
    #[inline]
    pub(super) fn begin(
        &mut self,
        id: &UserId,
        hash: u64,
        hash_of: impl Fn(&UserId) -> u64,
    ) -> &mut User {
        let are_loaded = self.are_loaded;
        self.entry(id, hash, hash_of, || assert!(are_loaded, "{LOADED}"))
    }

    /// The user of whom something has been found in the store.
    pub(super) fn load(
        &mut self,
        id: &UserId,
        hash: u64,
        hash_of: impl Fn(&UserId) -> u64,
    ) -> &mut User {
        self.entry(id, hash, hash_of, || ())
    }

    #[inline]
    fn entry(
        &mut self,
        id: &UserId,
        hash: u64,
        hash_of: impl Fn(&UserId) -> u64,
        if_absent: impl FnOnce(),
    ) -> &mut User {
        match self.table.find_entry(hash, |user| user.id() == id) {
            Ok(found) => found.into_mut(),
            Err(absent) => {
                if_absent();
                let new = Box::new(User::new(id.clone()));
                let table = absent.into_table();
                table
                    .insert_unique(hash, new, |user| hash_of(user.id()))
                    .into_mut()
            }
        }
    }

    /// From now on, who is not here has nothing.
    pub(super) fn all_are_loaded(&mut self) {
        self.are_loaded = true;
    }

    /// Forgets a user who has nothing.
    pub(super) fn remove(&mut self, id: &UserId, hash: u64) {
        if let Ok(entry) = self.table.find_entry(hash, |user| user.id() == id) {
            entry.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &User> {
        self.table.iter().map(|user| &**user)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(_: &UserId) -> u64 {
        7
    }

    #[test]
    fn who_is_not_here_has_nothing_only_once_all_are_loaded() {
        let (one, two) = (UserId::parse("1").unwrap(), UserId::parse("2").unwrap());
        let mut users = Users::default();
        users.load(&one, 7, hash_of);
        assert!(matches!(users.find(&one, 7), Found::Loaded(user) if *user.id() == one));
        assert!(matches!(users.find(&two, 7), Found::NotLoaded));
        users.all_are_loaded();
        assert!(matches!(users.find(&two, 7), Found::Empty));
        assert!(users.find(&two, 7).or_nothing().is_none());
        assert!(users.find(&one, 7).or_nothing().is_some());
        assert_eq!(users.begin(&two, 7, hash_of).id(), &two);
        users.remove(&one, 7);
        assert!(matches!(users.find(&one, 7), Found::Empty), "forgotten");
    }

    #[test]
    #[should_panic = "loaded before anybody is let in"]
    fn nobody_is_taken_to_have_nothing_before() {
        let _ = Users::default()
            .find(&UserId::parse("1").unwrap(), 7)
            .or_nothing();
    }

    #[test]
    #[should_panic = "loaded before anybody is let in"]
    fn nobody_begins_with_nothing_before() {
        Users::default().begin(&UserId::parse("1").unwrap(), 7, hash_of);
    }
}
