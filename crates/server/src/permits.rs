//! How many connections there may be, and the proof that all have ended.
//!
//! A task that serves a connection holds a [`ConnectionPermit`] from the moment it is spawned until it ends, also
//! across a TLS handshake and an upgrade to WebSocket. So the number of free permits is the number of
//! connections that may still come, and when all are free every such task has ended: that is what stopping
//! waits for. A permit also holds the [`WakeFlag`] by which others make its task look up.
//!
//! A permit is *half-open* until its client has authenticated. Half-open connections make way: when a newcomer finds
//! all places taken, in all, among [`MAX_HALF_OPEN`] or at its source, one of them is asked to end. `half_open` says which.
//!
//! Invariants: at most `connections` permits in all and `per_source` for one source
//! (`limits_hold`); both are free again when a permit is dropped (`dropping_frees`); a permit whose client has
//! authenticated stays (`who_has_authenticated_stays`).

mod half_open;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use jam_core::source::Source;
use slab::Slab;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::Traffic;
use half_open::HalfOpen;

/// Connections that are half-open at once: what a handshake, a request or an unfinished CONNECT holds, so
/// many may hold.
pub(crate) const MAX_HALF_OPEN: usize = 8192;

/// That connections had to go is logged at most once in this time.
const DISPLACED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How safe the place of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum HolderState {
    /// The client has not authenticated.
    HalfOpen,
    /// Nor has it now that the place is needed for another one: the task is to end.
    Displaced,
    /// The client has authenticated: the place is its own.
    Settled,
}

/// Wakes the task of one connection. Setting it again before it is taken costs one atomic operation.
#[derive(Debug)]
pub(crate) struct WakeFlag {
    /// The permit's, here because a connection's task has no room for it.
    key: u32,
    rung: AtomicBool,
    /// Bytes have come for the connection: see [`crate::heard`].
    heard: AtomicBool,
    /// Whether the next read asks the kernel itself: see [`crate::heard`].
    asks_kernel: AtomicBool,
    /// A TLS handshake is under way: see [`crate::heard`].
    in_handshake: AtomicBool,
    /// A [`HolderState`], which changes under the lock of the permits.
    standing: AtomicU8,
    task: AtomicWaker,
    /// Whose connection it is, for the log.
    address: OnceLock<IpAddr>,
    /// Where what it reads and writes is counted.
    traffic: OnceLock<Arc<Traffic>>,
}

impl Default for WakeFlag {
    fn default() -> Self {
        Self {
            key: 0,
            rung: AtomicBool::default(),
            heard: AtomicBool::default(),
            asks_kernel: AtomicBool::default(),
            in_handshake: AtomicBool::default(),
            standing: AtomicU8::new(HolderState::HalfOpen as u8),
            task: AtomicWaker::default(),
            address: OnceLock::new(),
            traffic: OnceLock::new(),
        }
    }
}

impl WakeFlag {
    fn of_permit(key: usize) -> Self {
        Self {
            key: u32::try_from(key).expect("there are fewer permits than that"),
            ..Self::default()
        }
    }

    fn key(&self) -> usize {
        self.key as usize
    }

    /// From now on the flag wakes this task.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Says where the connection came in, and counts it there until it ends.
    pub(crate) fn count_at(&self, traffic: Arc<Traffic>) {
        traffic.opened();
        let _ = self.traffic.set(traffic);
    }

    /// Where the connection came in.
    #[inline]
    pub(crate) fn traffic(&self) -> Option<&Arc<Traffic>> {
        self.traffic.get()
    }

    /// Says whose connection it is. The first call counts.
    pub(crate) fn set_address(&self, address: IpAddr) {
        let _ = self.address.set(address);
    }

    /// Whose connection it is, if that is known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address.get().copied()
    }

    /// Whether it was set since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }

    /// Bytes have come for the connection.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether bytes have come since this was last asked. Only the task of the connection asks and hears.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) && self.heard.swap(false, Ordering::Relaxed)
    }

    /// Whether the next read asks the kernel itself, once. Only the task of the connection sets and reads this.
    pub(crate) fn set_asks_kernel(&self, asks: bool) {
        self.asks_kernel.store(asks, Ordering::Relaxed);
    }

    /// See [`WakeFlag::set_asks_kernel`]. Taking it is to ask.
    pub(crate) fn take_asks_kernel(&self) -> bool {
        self.asks_kernel.load(Ordering::Relaxed) && self.asks_kernel.swap(false, Ordering::Relaxed)
    }

    /// Whether a TLS handshake is under way. Only the stream's owner sets and reads this.
    pub(crate) fn set_in_handshake(&self, is: bool) {
        self.in_handshake.store(is, Ordering::Relaxed);
    }

    /// See [`WakeFlag::set_in_handshake`].
    pub(crate) fn in_handshake(&self) -> bool {
        self.in_handshake.load(Ordering::Relaxed)
    }

    fn is(&self, standing: HolderState) -> bool {
        self.standing.load(Ordering::Acquire) == standing as u8
    }

    fn set(&self, standing: HolderState) {
        self.standing.store(standing as u8, Ordering::Release);
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The one that sets the flag wakes the task. If the flag is set already, the task has been woken and has yet to look.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

/// All permits of the server.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    free: Semaphore,
    stopping: AtomicBool,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// How many there may be, in all and for one source.
    connections: u32,
    per_source: u32,
    /// How many there are beyond that, since the limit is lower than it was: as many are not free when they are dropped.
    surplus: usize,
    permits: Slab<Entered>,
    /// At most as many entries as there are permits: none is zero.
    by_source: HashMap<Source, u32, foldhash::fast::RandomState>,
    half_open: HalfOpen,
    arrivals: u64,
    /// Connections that had to go, since that was last logged, and when it was.
    displaced: u64,
    logged: Option<Instant>,
}

/// A taken permit.
#[derive(Debug)]
struct Entered {
    wake_flag: Arc<WakeFlag>,
    source: Source,
    /// Whether it counts for its source: not while only a proxy's address is known.
    counted: bool,
    /// The number of its arrival; `None` when its client has authenticated, or it has been asked to end.
    half_open: Option<u64>,
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    permits: Arc<ConnectionPermits>,
    wake_flag: Arc<WakeFlag>,
}

/// The source has as many connections as one source may have, and all have authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Why a task is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The server stops.
    Stopping,
    /// The place is needed for another connection: it ends without a goodbye.
    Displaced,
}

impl ConnectionPermits {
    /// As many permits as the limits say; at least one.
    pub(crate) fn new(connections: u32, per_source: u32) -> Arc<Self> {
        // A semaphore hands out at most u32 permits at a time, which the proof at the end needs.
        let connections = connections.max(1);
        Arc::new(Self {
            free: Semaphore::new(connections as usize),
            stopping: AtomicBool::new(false),
            taken: Mutex::new(Taken {
                connections,
                per_source: per_source.max(1),
                ..Taken::default()
            }),
        })
    }

    /// From now on there may be so many. Who is there stays: when that is more, newcomers wait until others leave.
    pub(crate) fn set_limits(&self, connections: u32, per_source: u32) {
        let mut taken = self.lock();
        taken.per_source = per_source.max(1);
        let connections = connections.max(1);
        let before = std::mem::replace(&mut taken.connections, connections) as usize;
        let after = connections as usize;
        if after >= before {
            let absorbed = taken.surplus.min(after - before);
            taken.surplus -= absorbed;
            self.free.add_permits(after - before - absorbed);
        } else {
            taken.surplus += before - after - self.free.forget_permits(before - after);
        }
    }

    /// Waits until there is a free permit. When there is none, a half-open connection has to go; when there is none
    /// of those either, the newcomer waits until somebody leaves.
    pub(crate) async fn vacancy(&self) -> SemaphorePermit<'_> {
        if let Ok(vacancy) = self.free.try_acquire() {
            return vacancy;
        }
        self.make_room();
        self.free
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    /// Has a half-open connection end, if there is one.
    pub(crate) fn make_room(&self) {
        let mut taken = self.lock();
        taken.displace_any();
        log_displaced(taken);
    }

    /// Takes a permit for a connection from this source.
    ///
    /// # Errors
    /// [`TooMany`] when the source has as many as it may have; the vacancy is given back.
    pub(crate) fn take(
        self: &Arc<Self>,
        vacancy: SemaphorePermit<'_>,
        source: Source,
    ) -> Result<ConnectionPermit, TooMany> {
        let mut taken = self.lock();
        if let Err(too_many) = taken.count(source) {
            self.give_back(&mut taken, vacancy);
            return Err(too_many);
        }
        let permit = self.enter(&mut taken, vacancy, source, true);
        log_displaced(taken);
        Ok(permit)
    }

    /// Takes a permit for a connection that has come by a proxy and has not said from where, until
    /// [`ConnectionPermit::attribute`]. Until then it counts in all only.
    pub(crate) fn take_for_proxied(
        self: &Arc<Self>,
        vacancy: SemaphorePermit<'_>,
        proxy: Source,
    ) -> ConnectionPermit {
        self.enter(&mut self.lock(), vacancy, proxy, false)
    }

    fn enter(
        self: &Arc<Self>,
        taken: &mut Taken,
        vacancy: SemaphorePermit<'_>,
        source: Source,
        counted: bool,
    ) -> ConnectionPermit {
        if taken.half_open.len() >= MAX_HALF_OPEN {
            taken.displace_any();
        }
        let arrival = taken.arrivals;
        taken.arrivals += 1;
        let place = taken.permits.vacant_entry();
        let key = place.key();
        let wake_flag = Arc::new(WakeFlag::of_permit(key));
        place.insert(Entered {
            wake_flag: wake_flag.clone(),
            source,
            counted,
            half_open: Some(arrival),
        });
        taken.half_open.insert(source, arrival, key);
        vacancy.forget(); // `ConnectionPermit::drop` adds it again
        if self.stopping() {
            wake_flag.wake_by_ref(); // `stop` may have looked before this one was there
        }
        ConnectionPermit {
            permits: self.clone(),
            wake_flag,
        }
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().permits.len()
    }

    /// How many there may be.
    pub(crate) fn most(&self) -> u32 {
        self.lock().connections
    }

    /// Whether [`ConnectionPermits::stop`] has been called.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks every connection to end, also those before their CONNECT.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let flags: Vec<_> = self
            .lock()
            .permits
            .iter()
            .map(|(_, entered)| entered.wake_flag.clone())
            .collect();
        for wake_flag in flags {
            wake_flag.wake();
        }
    }

    /// Waits until all connections have ended.
    pub(crate) async fn all_free(&self) {
        let connections = self.lock().connections;
        let all = self.free.acquire_many(connections).await;
        drop(all.expect("the semaphore is never closed"));
    }

    fn give_back(&self, taken: &mut Taken, vacancy: SemaphorePermit<'_>) {
        if taken.surplus > 0 {
            taken.surplus -= 1;
            vacancy.forget();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken
            .lock()
            .expect("no code that holds the lock can panic")
    }
}

impl Taken {
    /// Counts a connection for a source; if that has as many as it may have, a half-open one of its own has to go.
    fn count(&mut self, source: Source) -> Result<(), TooMany> {
        let count = self.by_source.get(&source).copied().unwrap_or(0);
        if count >= self.per_source {
            let key = self.half_open.pop_of(source).ok_or(TooMany)?;
            self.displace(key);
        }
        *self.by_source.entry(source).or_insert(0) += 1;
        Ok(())
    }

    fn uncount(&mut self, source: Source) {
        if let Entry::Occupied(mut entry) = self.by_source.entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// A half-open connection of the source that has the most of them has to go.
    fn displace_any(&mut self) {
        if let Some(key) = self.half_open.pop_of_the_most() {
            self.displace(key);
        }
    }

    fn displace(&mut self, key: usize) {
        let entered = &mut self.permits[key];
        entered.half_open = None;
        entered.wake_flag.set(HolderState::Displaced);
        entered.wake_flag.wake_by_ref();
        self.displaced += 1;
        // Its place at its source is free from now on; that in all when its task has ended.
        if std::mem::take(&mut entered.counted) {
            let source = entered.source;
            self.uncount(source);
        }
    }
}

/// Says that connections had to go, now and then; the lock is free by then.
fn log_displaced(mut taken: MutexGuard<'_, Taken>) {
    let now = Instant::now();
    let is_due = |logged| now.duration_since(logged) >= DISPLACED_LOG_INTERVAL;
    if taken.displaced == 0 || !taken.logged.is_none_or(is_due) {
        return;
    }
    taken.logged = Some(now);
    let connections = std::mem::take(&mut taken.displaced);
    drop(taken);
    tracing::warn!(
        connections,
        "connections that had not logged in made room for others: limits.connections or limits.connections_per_address reached"
    );
}

impl ConnectionPermit {
    /// The wake flag of the task that holds this permit.
    pub(crate) fn wake_flag(&self) -> &Arc<WakeFlag> {
        &self.wake_flag
    }

    /// Counts the connection for where it comes from, which the proxy has said.
    ///
    /// # Errors
    /// [`TooMany`] when the source has as many as it may have.
    pub(crate) fn attribute(&mut self, source: Source) -> Result<(), TooMany> {
        let mut taken = self.permits.lock();
        let Some(arrival) = taken.permits[self.wake_flag.key()].half_open else {
            return Ok(()); // it is to end
        };
        taken.count(source)?;
        let entered = &mut taken.permits[self.wake_flag.key()];
        let proxy = std::mem::replace(&mut entered.source, source);
        entered.counted = true;
        taken.half_open.remove(proxy, arrival);
        taken
            .half_open
            .insert(source, arrival, self.wake_flag.key());
        Ok(())
    }

    /// The client has authenticated: from now on the permit stays until it is dropped.
    pub(crate) fn settle(&mut self) {
        let mut taken = self.permits.lock();
        let displaced = self.wake_flag.is(HolderState::Displaced);
        self.wake_flag.set(HolderState::Settled);
        let entered = &mut taken.permits[self.wake_flag.key()];
        let source = entered.source;
        if let Some(arrival) = entered.half_open.take() {
            taken.half_open.remove(source, arrival);
        } else if displaced {
            // Told to end at the last moment: another one goes in its stead.
            entered.counted = true;
            *taken.by_source.entry(source).or_insert(0) += 1;
            taken.displace_any();
        }
    }

    /// Whether its client has yet to authenticate.
    pub(crate) fn is_half_open(&self) -> bool {
        !self.wake_flag.is(HolderState::Settled)
    }

    /// Whether the place is needed for another connection: the task is to end at once.
    pub(crate) fn is_displaced(&self) -> bool {
        self.wake_flag.is(HolderState::Displaced)
    }

    /// Whether the server is stopping.
    pub(crate) fn stopping(&self) -> bool {
        self.permits.stopping()
    }

    /// Ready when the task is to end. Holds the permit's wake flag, not its place.
    pub(crate) fn ended(&self) -> impl Future<Output = End> + Send + use<> {
        let (permits, wake_flag) = (self.permits.clone(), self.wake_flag.clone());
        poll_fn(move |cx| {
            wake_flag.register(cx.waker());
            if wake_flag.is(HolderState::Displaced) {
                Poll::Ready(End::Displaced)
            } else if permits.stopping() {
                Poll::Ready(End::Stopping)
            } else {
                Poll::Pending
            }
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(traffic) = self.wake_flag.traffic() {
            traffic.closed();
        }
        let mut taken = self.permits.lock();
        let entered = taken.permits.remove(self.wake_flag.key());
        if let Some(arrival) = entered.half_open {
            taken.half_open.remove(entered.source, arrival);
        }
        if entered.counted {
            taken.uncount(entered.source);
        }
        if taken.surplus > 0 {
            taken.surplus -= 1;
            return;
        }
        drop(taken);
        self.permits.free.add_permits(1);
    }
}
