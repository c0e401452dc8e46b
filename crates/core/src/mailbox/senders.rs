//! How much each sender has waiting in a mailbox: the share that keeps it open to the others (PROTOCOL.md, section 7.7).
//!
//! Invariants: a number stands for one sender as long as they have a message waiting. A sender without one leaves their
//! place to a new sender, so there are at most as many places as messages have waited at once.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Amount;
use crate::ids::UserId;

/// A sender in the entries of one mailbox.
pub(super) type Number = u16;

/// Senders that are told apart; messages of more than these count together.
const MAX_SENDERS: usize = Number::MAX as usize;
/// All others.
const OTHERS: Number = Number::MAX;
/// So many senders are looked through; more are found by their hash.
const SCANNED: usize = 8;

/// What waits, by sender.
///
/// At most [`MAX_SENDERS`] are told apart at once, which takes a mailbox with as many messages, each from another sender.
/// All further senders have one share together, half of the mailbox, until a place is free: one of them may be refused
/// because of what the others of them have waiting. The shares of the first [`MAX_SENDERS`] stay their own. A purge of one
/// sender's messages leaves messages that were counted in the common share.
#[derive(Debug, Default)]
pub(super) struct Senders(Option<Box<Table>>);

#[derive(Debug, Default)]
struct Table {
    tallies: Vec<SenderAmount>,
    /// Places in `tallies`, when there are more than [`SCANNED`].
    places: HashMap<UserId, Number, RandomState>,
    /// Places of whose senders nothing waited when they came here.
    free: Vec<Number>,
    others: Amount,
}

#[derive(Debug)]
struct SenderAmount {
    sender: UserId,
    load: Amount,
    /// Whether its place is among the free ones.
    is_free: bool,
}

impl Senders {
    /// Counts a message.
    pub(super) fn add(&mut self, sender: &UserId, bytes: u64) -> Number {
        let table = self.0.get_or_insert_default();
        let number = table.find(sender).unwrap_or_else(|| table.insert(sender));
        table.load_mut(number).add(bytes);
        number
    }

    /// A message has left.
    pub(super) fn subtract(&mut self, number: Number, bytes: u64) {
        let Some(table) = &mut self.0 else { return };
        table.load_mut(number).subtract(bytes);
        if let Some(tally) = table.tallies.get_mut(usize::from(number))
            && tally.load.messages == 0
            && !tally.is_free
        {
            tally.is_free = true;
            table.free.push(number);
        }
    }

    /// The number of a sender who has a message waiting.
    pub(super) fn find(&self, sender: &UserId) -> Option<Number> {
        let table = self.0.as_ref()?;
        let number = table.find(sender)?;
        (table.tallies[usize::from(number)].load.messages > 0).then_some(number)
    }

    /// How much waits of a sender; of one beyond [`MAX_SENDERS`], how much of all of those together.
    pub(super) fn load(&self, sender: &UserId) -> Amount {
        let Some(table) = &self.0 else {
            return Amount::default();
        };
        match table.find(sender) {
            Some(number) => table.tallies[usize::from(number)].load,
            None => table.others,
        }
    }

    /// Nothing waits any more: gives the memory of many senders back.
    pub(super) fn give_back(&mut self) {
        if self.0.as_ref().is_some_and(|it| it.tallies.len() > SCANNED) {
            self.0 = None;
        }
    }
}

impl Table {
    fn find(&self, sender: &UserId) -> Option<Number> {
        if self.tallies.len() > SCANNED {
            return self.places.get(sender).copied();
        }
        let mut tallies = self.tallies.iter();
        let place = tallies.position(|tally| tally.sender == *sender)?;
        Number::try_from(place).ok()
    }

    fn insert(&mut self, sender: &UserId) -> Number {
        let tally = SenderAmount {
            sender: sender.clone(),
            load: Amount::default(),
            is_free: false,
        };
        while let Some(number) = self.free.pop() {
            let old = &mut self.tallies[usize::from(number)];
            old.is_free = false;
            if old.load.messages == 0 {
                let old = std::mem::replace(old, tally);
                if self.tallies.len() > SCANNED {
                    self.places.remove(&old.sender);
                    self.places.insert(sender.clone(), number);
                }
                return number;
            }
        }
        if self.tallies.len() >= MAX_SENDERS {
            return OTHERS;
        }
        self.tallies.push(tally);
        let len = self.tallies.len();
        let new = match len {
            0..=SCANNED => len,
            _ if self.places.is_empty() => 0,
            _ => len - 1,
        };
        for (place, tally) in self.tallies.iter().enumerate().skip(new) {
            let number = Number::try_from(place).unwrap_or(OTHERS);
            self.places.insert(tally.sender.clone(), number);
        }
        Number::try_from(len - 1).unwrap_or(OTHERS)
    }

    fn load_mut(&mut self, number: Number) -> &mut Amount {
        match self.tallies.get_mut(usize::from(number)) {
            Some(tally) => &mut tally.load,
            None => &mut self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_once_however_often_its_sender_comes_and_goes() {
        let mut senders = Senders::default();
        let sender = UserId::parse("1").unwrap();
        for _ in 0..100 {
            let number = senders.add(&sender, 10);
            senders.subtract(number, 10);
        }
        let table = senders.0.unwrap();
        assert_eq!((table.tallies.len(), table.free.len()), (1, 1));
    }
}
