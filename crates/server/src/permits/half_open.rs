//! Connections whose clients have not authenticated, and which of them makes way for a newcomer.
//!
//! The source that has the most of them loses its oldest: a source that opens many silent connections makes
//! room at its own cost. Between sources that have equally many, the oldest connection goes.
//! No step looks at all of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use jam_core::source::Source;

/// The keys of the permits by arrival, the oldest first.
type Arrivals = BTreeMap<u64, usize>;

/// Half-open connections by source.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_source: HashMap<Source, Arrivals, foldhash::fast::RandomState>,
    /// How many each source has, and its oldest. The last makes way first.
    ranking: BTreeSet<(usize, Reverse<u64>, Source)>,
    len: usize,
}

impl HalfOpen {
    /// A connection has come.
    pub(super) fn insert(&mut self, source: Source, arrival: u64, key: usize) {
        self.change(source, |arrivals| arrivals.insert(arrival, key));
    }

    /// It is half-open no longer; nothing if it was not.
    pub(super) fn remove(&mut self, source: Source, arrival: u64) {
        self.change(source, |arrivals| arrivals.remove(&arrival));
    }

    /// Takes out the oldest of a source.
    pub(super) fn pop_of(&mut self, source: Source) -> Option<usize> {
        self.change(source, |arrivals| arrivals.pop_first().map(|(_, key)| key))
    }

    /// Takes out the oldest of the source that has the most.
    pub(super) fn pop_of_the_most(&mut self) -> Option<usize> {
        let (_, _, source) = *self.ranking.last()?;
        self.pop_of(source)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_source.is_empty() && self.ranking.is_empty()
    }

    fn change<T>(&mut self, source: Source, what: impl FnOnce(&mut Arrivals) -> T) -> T {
        let arrivals = self.by_source.entry(source).or_default();
        let before = rank(source, arrivals);
        self.len -= arrivals.len();
        let result = what(arrivals);
        self.len += arrivals.len();
        let after = rank(source, arrivals);
        before.into_iter().for_each(|rank| {
            self.ranking.remove(&rank);
        });
        if after.is_none() {
            self.by_source.remove(&source);
        }
        self.ranking.extend(after);
        result
    }
}

fn rank(source: Source, arrivals: &Arrivals) -> Option<(usize, Reverse<u64>, Source)> {
    let (oldest, _) = arrivals.first_key_value()?;
    Some((arrivals.len(), Reverse(*oldest), source))
}
