//! Counters that cost a message nothing that can be measured (ADR 25).
//!
//! Each thread that serves connections has cells of its own, on cache lines of their own, and is the only one that writes
//! them: adding is a load and a store. All other threads share one set, which they add to atomically. Who reads adds up.
//!
//! Invariant: a cell of a counter only grows, so a sum that is taken later is no smaller (`tests::sums_never_shrink`).

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// The number of the thread's own cells; 0: it shares those of all others.
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Cells on one line.
const ON_LINE: usize = 16;

/// Two cache lines: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Line([AtomicU64; ON_LINE]);

/// Gives the calling thread cells of its own in all [`Cells`] that have so many: the numbers begin with 1. No two threads
/// that count in the same cells may have one number.
pub fn own_slot(number: usize) {
    SLOT.set(number);
}

/// A row of cells for each thread that has its own, and one for all others.
#[derive(Debug)]
pub struct Cells {
    lines: Box<[Line]>,
    /// Of one row.
    lines_of_slot: usize,
    /// Rows but for the shared one.
    owned: usize,
}

impl Cells {
    /// `count` cells, of which `owned` threads have their own.
    #[must_use]
    pub fn new(count: usize, owned: usize) -> Self {
        let lines_of_slot = count.div_ceil(ON_LINE);
        let lines = (0..lines_of_slot * (owned + 1)).map(|_| Line::default());
        Self {
            lines: lines.collect(),
            lines_of_slot,
            owned,
        }
    }

    fn cell(&self, slot: usize, index: usize) -> &AtomicU64 {
        &self.lines[slot * self.lines_of_slot + index / ON_LINE].0[index % ON_LINE]
    }

    /// Adds to a cell; what goes below zero comes round.
    #[inline]
    pub fn add(&self, index: usize, by: u64) {
        let slot = SLOT.get();
        if slot != 0 && slot <= self.owned {
            let cell = self.cell(slot, index);
            cell.store(
                cell.load(Ordering::Relaxed).wrapping_add(by),
                Ordering::Relaxed,
            );
        } else {
            self.cell(0, index).fetch_add(by, Ordering::Relaxed);
        }
    }

    /// What all threads have added to a cell.
    #[must_use]
    pub fn sum(&self, index: usize) -> u64 {
        let cells = (0..=self.owned).map(|slot| self.cell(slot, index));
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
