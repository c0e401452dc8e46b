//! Content that is read from the store for devices: so much of it at a time, for all of them together.
//!
//! Invariants: at most [`LOADED_BYTES`] are being read or wait to be sent, or one message that is larger. Requests are
//! granted in the order in which they came, so a large one is granted in its turn. A connection that has content sends it or
//! gives it back (`User::fetch`), so no request waits for a client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::ids::UserId;
use crate::link::LinkId;
use crate::store::Seq;

/// Bytes of content, as it weighs.
pub const LOADED_BYTES: u64 = 64 * 1024 * 1024;

/// Messages that a connection needs from the store.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) user: UserId,
    pub(crate) link: LinkId,
    pub(crate) seqs: Vec<Seq>,
    /// As they weigh.
    pub(crate) bytes: u64,
}

/// What is granted, and who waits.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    granted: Arc<AtomicU64>,
    waiting: Mutex<VecDeque<Load>>,
    /// How many wait, for those who only want to know that.
    count: AtomicUsize,
}

/// The right to hold so many bytes of content, until it is dropped.
#[derive(Debug)]
pub(crate) struct LoadPermit {
    granted: Arc<AtomicU64>,
    bytes: u64,
}

impl LoadPermit {
    /// Gives a part of it back.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.granted.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Is for what the other one was for too.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

impl Loads {
    /// Asks for a load; what may be read now.
    pub(crate) fn ask(&self, load: Load) -> Option<(Load, LoadPermit)> {
        let mut waiting = self.lock();
        waiting.push_back(load);
        self.grant(&mut waiting)
    }

    /// What may be read now of what waits, one at a time.
    pub(crate) fn next(&self) -> Option<(Load, LoadPermit)> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.grant(&mut self.lock())
    }

    /// Bytes that are being read or wait to be sent.
    pub(crate) fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }

    /// A connection has ended: it needs nothing any more.
    pub(crate) fn forget(&self, link: LinkId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut waiting = self.lock();
            waiting.retain(|load| load.link != link);
            self.count.store(waiting.len(), Ordering::Relaxed);
        }
    }

    fn grant(&self, waiting: &mut VecDeque<Load>) -> Option<(Load, LoadPermit)> {
        let granted = waiting.front().and_then(|load| self.permit(load.bytes));
        let load = granted.and_then(|permit| Some((waiting.pop_front()?, permit)));
        self.count.store(waiting.len(), Ordering::Relaxed);
        load
    }

    fn permit(&self, bytes: u64) -> Option<LoadPermit> {
        let take = |granted: u64| {
            let after = granted.saturating_add(bytes);
            (granted == 0 || after <= LOADED_BYTES).then_some(after)
        };
        let order = Ordering::Relaxed;
        self.granted.fetch_update(order, order, take).ok()?;
        Some(LoadPermit {
            granted: self.granted.clone(),
            bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Load>> {
        self.waiting
            .lock()
            .expect("no code under this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(link: u64, bytes: u64) -> Load {
        Load {
            user: UserId::parse("1").unwrap(),
            link: LinkId(link),
            seqs: Vec::new(),
            bytes,
        }
    }

    #[test]
    fn loads_share_one_budget_in_their_order() {
        let loads = Loads::default();
        let half = LOADED_BYTES / 2;
        let (_, first) = loads.ask(load(1, half)).unwrap();
        let (_, mut second) = loads.ask(load(2, half)).unwrap();
        assert!(loads.ask(load(3, 2 * LOADED_BYTES)).is_none());
        assert!(
            loads.ask(load(4, 1)).is_none(),
            "it would pass the large one"
        );
        drop(first);
        assert!(loads.next().is_none());
        second.give_back(half - 1);
        assert!(loads.next().is_none());
        second.give_back(LOADED_BYTES);
        let (large, permit) = loads.next().expect("larger than the budget, and alone");
        assert_eq!(large.link, LinkId(3));
        assert!(loads.next().is_none());
        loads.forget(LinkId(5));
        drop((permit, second));
        let (small, mut permit) = loads.next().unwrap();
        assert_eq!(small.link, LinkId(4));
        let (_, other) = loads.ask(load(6, LOADED_BYTES - 1)).unwrap();
        permit.join(other);
        assert!(loads.ask(load(7, 1)).is_none());
        loads.forget(LinkId(7));
        drop(permit);
        assert!(loads.next().is_none());
        assert_eq!(loads.granted(), 0);
    }
}
