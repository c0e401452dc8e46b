//! Counters that cost a message next to nothing (ADR 25).
//!
//! Each thread that serves connections has a row of cells of its own, on cache lines of their own, and is the only one that
//! writes them: adding is a load and a store. All other threads share one row, which they add to atomically. Who reads adds up.
//! A row has one length for all tables, so that the place of a cell whose number is known is known when the program is built.
//!
//! Invariant: a cell of a counter only grows, so a sum that is taken later is no smaller (`tests::sums_never_shrink`).

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// The number of the thread's own row; one that no table has if it shares that of all others.
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Cells of a row: more than any table needs.
const ROW: usize = 256;

/// The row that threads share which have none of their own.
const SHARED: usize = 0;

/// Processors fetch cache lines in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Row([AtomicU64; ROW]);

/// Gives the calling thread cells of its own in all [`Cells`] that have so many: the numbers begin with 1. No two threads
/// that count in the same cells may have one number.
pub fn own_slot(number: usize) {
    SLOT.set(if number == SHARED { usize::MAX } else { number });
}

/// A row of cells for each thread that has its own, and one for all others.
#[derive(Debug)]
pub struct Cells(Box<[Row]>);

impl Cells {
    /// `count` cells, of which `owned` threads have their own.
    ///
    /// # Panics
    /// If they are more than a row has.
    #[must_use]
    pub fn new(count: usize, owned: usize) -> Self {
        assert!(count <= ROW, "no table has more cells than a row");
        let row = |_| Row([const { AtomicU64::new(0) }; ROW]);
        Self((SHARED..=owned).map(row).collect())
    }

    /// Adds to a cell; what goes below zero comes round.
    #[inline]
    pub fn add(&self, index: usize, by: u64) {
        self.add_to([(index, by)]);
    }

    /// Adds to several cells, for not much more than to one.
    #[inline]
    pub fn add_to<const N: usize>(&self, adds: [(usize, u64); N]) {
        let Some(Row(row)) = self.0.get(SLOT.get()) else {
            return self.add_shared(&adds);
        };
        for (index, by) in adds {
            let cell = &row[index];
            let sum = cell.load(Ordering::Relaxed).wrapping_add(by);
            cell.store(sum, Ordering::Relaxed);
        }
    }

    #[cold]
    fn add_shared(&self, adds: &[(usize, u64)]) {
        for (index, by) in adds {
            self.0[SHARED].0[*index].fetch_add(*by, Ordering::Relaxed);
        }
    }

    /// What all threads have added to a cell.
    #[must_use]
    pub fn sum(&self, index: usize) -> u64 {
        let cells = self.0.iter().map(|row| &row.0[index]);
        cells.fold(0, |sum, cell| {
            sum.wrapping_add(cell.load(Ordering::Relaxed))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn sums_never_shrink() {
        const EACH: u64 = 200_000;
        let cells = Cells::new(40, 2);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let adding: Vec<_> = [0, 0, 1, 2, 9]
                .into_iter()
                .map(|slot| {
                    let cells = &cells;
                    scope.spawn(move || {
                        own_slot(slot);
                        (0..EACH).for_each(|_| cells.add(39, 1));
                    })
                })
                .collect();
            let reading = scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let sum = cells.sum(39);
                    assert!(sum >= last);
                    last = sum;
                }
            });
            adding.into_iter().for_each(|it| it.join().unwrap());
            done.store(true, Ordering::Relaxed);
            reading.join().unwrap();
        });
        assert_eq!(cells.sum(39), 5 * EACH);
        assert_eq!((0..39).map(|index| cells.sum(index)).sum::<u64>(), 0);
    }
}
