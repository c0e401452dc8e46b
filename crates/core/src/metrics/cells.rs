//! Counters that cost a message next to nothing (ADR 25).
//!
//! Each thread that serves connections has a row of cells of its own, which it alone writes: adding is a load and a store. All
//! other threads share one row, which they add to atomically. Who reads adds up. A row has one length for all tables, and a
//! thread knows where its own begins, so that what an addition has to find out is whether the table has that row.
//!
//! Invariants: a cell of a counter only grows, so a sum that is taken later is no smaller (`tests::sums_never_shrink`). The
//! cells at the end of a row are not used, so no two threads write one cache line.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a row.
const ROW: usize = 256;

/// Cells at the end of a row that no table uses: processors fetch cache lines of eight in pairs.
const UNUSED: usize = 16;

/// The row that threads share which have none of their own.
const SHARED: usize = 0;

/// Where no table has a row.
const NOWHERE: usize = usize::MAX - ROW;

thread_local! {
    /// Where the thread's own row begins.
    static OWN: Cell<usize> = const { Cell::new(NOWHERE) };
}

/// Gives the calling thread cells of its own in all [`Cells`] that have so many: the numbers begin with 1. No two threads
/// that count in the same cells may have one number.
pub fn own_slot(number: usize) {
    OWN.set(match number {
        SHARED => NOWHERE,
        number => number * ROW,
    });
}

/// A row of cells for each thread that has its own, and one for all others. Clones are the same cells.
#[derive(Debug, Clone)]
pub struct Cells(Arc<[AtomicU64]>);

impl Cells {
    /// `count` cells, of which `owned` threads have their own.
    ///
    /// # Panics
    /// If they are more than fit into a row.
    #[must_use]
    pub fn new(count: usize, owned: usize) -> Self {
        assert!(count <= ROW - UNUSED, "no table has more cells than a row");
        let cells = 0..(1 + owned) * ROW;
        Self(cells.map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds to a cell; what goes below zero comes round.
    #[inline]
    pub fn add(&self, index: usize, by: u64) {
        self.add_to([(index, by)]);
    }

    /// Adds to several cells.
    #[inline]
    pub fn add_to<const N: usize>(&self, adds: [(usize, u64); N]) {
        let own = OWN.get();
        for (index, by) in adds {
            debug_assert!(index < ROW - UNUSED);
            let Some(cell) = self.0.get(own + index) else {
                return self.add_shared(&adds);
            };
            let sum = cell.load(Ordering::Relaxed).wrapping_add(by);
            cell.store(sum, Ordering::Relaxed);
        }
    }

    /// A thread that has the row has all of it, so none of these has been added yet.
    #[cold]
    fn add_shared(&self, adds: &[(usize, u64)]) {
        for (index, by) in adds {
            self.0[SHARED + index].fetch_add(*by, Ordering::Relaxed);
        }
    }

    /// What all threads have added to a cell.
    #[must_use]
    pub fn sum(&self, index: usize) -> u64 {
        let cells = self.0.iter().skip(index).step_by(ROW);
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
