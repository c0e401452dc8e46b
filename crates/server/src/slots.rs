//! How many connections there may be, and the proof that none is left.
//!
//! A task that serves a connection holds a [`Slot`] from the moment it is spawned until it ends, also
//! across a TLS handshake and an upgrade to WebSocket. So the number of free slots is the number of
//! connections that may still come, and when all are free no such task exists: that is what stopping
//! waits for. A slot also holds the [`Bell`] by which others make its task look up.
//!
//! Invariants: never more than `connections` slots in all and `per_address` for one address
//! (`limits_hold`); both are free again when a slot is dropped (`dropping_frees`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Wakes the task of one connection. Ringing an unanswered bell again costs one atomic operation.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    /// From now on the bell wakes this task.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Whether the bell has rung since this was last asked.
    pub(crate) fn answer(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever sets the flag wakes; who finds it set knows that the task has still to answer.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

/// All slots of the server.
#[derive(Debug)]
pub(crate) struct Slots {
    connections: u32,
    per_address: u32,
    free: Semaphore,
    stopping: AtomicBool,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    slots: Slab<(Arc<Bell>, IpAddr)>,
    /// At most as many entries as there are slots: none is zero.
    by_address: HashMap<IpAddr, u32, foldhash::fast::RandomState>,
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    key: usize,
    bell: Arc<Bell>,
}

/// The address has as many connections as one address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Slots {
    /// As many slots as the limits say; at least one.
    pub(crate) fn new(connections: u32, per_address: u32) -> Arc<Self> {
        // A semaphore hands out at most u32 permits at a time, which the proof at the end needs.
        let connections = connections.max(1);
        Arc::new(Self {
            connections,
            per_address: per_address.max(1),
            free: Semaphore::new(connections as usize),
            stopping: AtomicBool::new(false),
            taken: Mutex::default(),
        })
    }

    /// Waits until there is a free slot.
    pub(crate) async fn permit(&self) -> SemaphorePermit<'_> {
        self.free
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    /// Takes a slot for a connection from this address.
    ///
    /// # Errors
    /// [`TooMany`] when the address has as many as it may have; the permit is given back.
    pub(crate) fn take(
        self: &Arc<Self>,
        permit: SemaphorePermit<'_>,
        address: IpAddr,
    ) -> Result<Slot, TooMany> {
        let bell = Arc::new(Bell::default());
        let mut taken = self.lock();
        let count = taken.by_address.entry(address).or_insert(0);
        if *count >= self.per_address {
            return Err(TooMany);
        }
        *count += 1;
        let key = taken.slots.insert((bell.clone(), address));
        drop(taken);
        permit.forget(); // `Slot::drop` adds it again
        if self.stopping() {
            bell.wake_by_ref(); // `stop` may have looked before this one was there
        }
        Ok(Slot {
            slots: self.clone(),
            key,
            bell,
        })
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether [`Slots::stop`] has been called.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Tells every connection to end, those too that no session knows of.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let bells: Vec<_> = self
            .lock()
            .slots
            .iter()
            .map(|(_, (bell, _))| bell.clone())
            .collect();
        for bell in bells {
            bell.wake();
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn all_free(&self) {
        let all = self.free.acquire_many(self.connections).await;
        drop(all.expect("the semaphore is never closed"));
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken
            .lock()
            .expect("no code that holds the lock can panic")
    }
}

impl Slot {
    /// The bell of the task that holds this slot.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Whether the server is stopping.
    pub(crate) fn stopping(&self) -> bool {
        self.slots.stopping()
    }

    /// Ready when the server is stopping. Holds the slot's bell, not its place.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let (slots, bell) = (self.slots.clone(), self.bell.clone());
        poll_fn(move |cx| {
            bell.register(cx.waker());
            if slots.stopping() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        let (_, address) = taken.slots.remove(self.key);
        if let Entry::Occupied(mut entry) = taken.by_address.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        drop(taken);
        self.slots.free.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const MOMENT: Duration = Duration::from_millis(20);

    async fn take(slots: &Arc<Slots>, address: IpAddr) -> Result<Slot, TooMany> {
        slots.take(slots.permit().await, address)
    }

    #[tokio::test]
    async fn limits_hold() {
        let slots = Slots::new(3, 2);
        let _first = take(&slots, HOME).await.unwrap();
        let _second = take(&slots, HOME).await.unwrap();
        assert_eq!(take(&slots, HOME).await.unwrap_err(), TooMany);
        let _third = take(&slots, AWAY).await.unwrap();
        assert!(tokio::time::timeout(MOMENT, slots.permit()).await.is_err());
        assert_eq!(slots.len(), 3);
    }

    #[tokio::test]
    async fn dropping_frees() {
        let slots = Slots::new(1, 1);
        for _ in 0..3 {
            drop(take(&slots, HOME).await.unwrap());
        }
        let held = take(&slots, HOME).await.unwrap();
        assert!(
            tokio::time::timeout(MOMENT, slots.all_free())
                .await
                .is_err()
        );
        drop(held);
        slots.all_free().await;
        assert_eq!(slots.lock().by_address.len(), 0);
    }

    #[tokio::test]
    async fn stopping_reaches_who_waits() {
        let slots = Slots::new(2, 2);
        let slot = take(&slots, HOME).await.unwrap();
        let waiting = tokio::spawn(async move { slot.stopped().await });
        tokio::task::yield_now().await;
        slots.stop();
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap();
        slots.all_free().await;
    }

    #[test]
    fn a_bell_is_answered_once() {
        let bell = Arc::new(Bell::default());
        assert!(!bell.answer());
        bell.wake_by_ref();
        bell.wake_by_ref();
        assert!(bell.answer());
        assert!(!bell.answer());
    }
}
