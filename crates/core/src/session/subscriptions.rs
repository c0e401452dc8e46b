//! The subscriptions of one session, found by their topics in the same time however many they are.
//!
//! Invariant: `places`, if it is there, says where in `list` each topic is.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::MAX_SUBSCRIPTIONS;
use crate::store::Subscription;

/// So many are looked through; more are found by their hash.
const SCANNED: usize = 8;

/// At most [`MAX_SUBSCRIPTIONS`], each to another topic.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// Most have one for ever, to the inbox.
    list: SmallVec<[Subscription; 1]>,
    #[expect(
        clippy::box_collection,
        reason = "nearly all sessions have none, and take a word for it"
    )]
    places: Option<Box<HashMap<SmolStr, usize, RandomState>>>,
}

impl Subscriptions {
    pub(crate) fn get(&self, topic: &str) -> Option<&Subscription> {
        Some(&self.list[self.place(topic)?])
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Adds or replaces one; whether it is new. `None` if there is no room for a new one.
    pub(super) fn insert(&mut self, new: Subscription) -> Option<bool> {
        if let Some(place) = self.place(&new.topic) {
            self.list[place] = new;
            return Some(false);
        }
        if self.list.len() >= MAX_SUBSCRIPTIONS {
            return None;
        }
        if let Some(places) = &mut self.places {
            places.insert(new.topic.clone(), self.list.len());
        }
        self.list.push(new);
        if self.places.is_none() && self.list.len() > SCANNED {
            let topics = self.list.iter().map(|it| it.topic.clone());
            self.places = Some(Box::new(topics.zip(0..).collect()));
        }
        Some(true)
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, topic: &str) -> bool {
        let Some(place) = self.place(topic) else {
            return false;
        };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(topic);
            if let Some(moved) = self.list.get(place) {
                places.insert(moved.topic.clone(), place);
            }
        }
        true
    }

    fn place(&self, topic: &str) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(topic).copied(),
            None => self.list.iter().position(|it| it.topic == topic),
        }
    }
}
