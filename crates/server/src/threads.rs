//! The threads of the server, one current-thread runtime each.
//!
//! The main thread accepts, serves signals and HTTP, and stops the server. It waits for no disk and has no connection of
//! a client's, so it answers whatever becomes of the others. Connections have threads of their own, which do nothing
//! else; housekeeping has another.
//!
//! A connection stays on the thread that it began on. New ones begin on the first thread that has time left, so
//! light traffic is served by one thread, where a task wakes another without a system call, and heavy traffic
//! spreads over all of them as clients connect. [ADR 19](../../docs/adr/0019-a-runtime-for-each-thread.md) has the
//! measurements.
//!
//! A thread may hang: in a read of the accounts database, for instance, when its disk does not answer. Each
//! shows a sign of life every [`BEAT`], which [`Threads::watch`] looks for: a thread without one for [`SILENCE`] gets no
//! new connection while others live, and `/readyz` says so until there is one again.
//!
//! Invariants: a socket is registered with the runtime that its task runs on; a thread ends when it is dropped,
//! and what runs on it then is dropped with it; only [`Threads::join`] waits for that.

use std::io;
use std::net;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jam_core::metrics::own_slot;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::ticks::{next, ticks};

/// More than any machine has cores.
pub(crate) const MAX_THREADS: u32 = 1024;

/// Threads beside those that serve connections: the main thread and housekeeping.
pub(crate) const OTHER_THREADS: usize = 2;

/// Over how long a thread's load is measured at least.
const SAMPLE: Duration = Duration::from_millis(100);

/// How often each thread shows a sign of life, and how often it is looked for.
const BEAT: Duration = Duration::from_millis(250);

/// From here on a thread without a sign of life counts as one that hangs. The time is the watching thread's: for
/// as long as the whole process stands still, no thread is silent.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a thread that ends waits for what it has given to others to do.
const BLOCKED_TIMEOUT: Duration = Duration::from_millis(200);

/// Tasks that run before the runtime looks for others' input. A connection whose packets are answered without the store wakes
/// itself in its own turn, and comes next; so many turns of it others wait for (tokio's own number is 61).
const EVENT_INTERVAL: u32 = 16;

/// All of them but the main thread.
pub(crate) struct Threads {
    connections: Box<[Thread]>,
    housekeeping: Thread,
    /// Percent of its time.
    fill: u32,
    samples: Mutex<Samples>,
    next: AtomicUsize,
}

/// A thread with its runtime.
struct Thread {
    name: String,
    handle: Handle,
    /// Signs of life.
    beats: Arc<AtomicU64>,
    is_silent: AtomicBool,
    /// Dropped to end it.
    end: Mutex<Option<oneshot::Sender<()>>>,
    joins: Mutex<Option<JoinHandle<()>>>,
}

/// For how long each thread was busy, all in all, when that was last looked at; and in percent since the time before.
struct Samples {
    at: Instant,
    busy: Box<[Duration]>,
    load: Box<[u32]>,
}

impl Threads {
    /// So many threads for connections; 0 is one for each core. Connections begin on the first that was busy for less
    /// than `fill` percent of its time, or, when there is none, on each in turn. `housekeeping` is called on that thread
    /// before anything else.
    ///
    /// # Errors
    /// If the system has no thread, or no descriptor, for one.
    pub(crate) fn start(
        count: u32,
        fill: u32,
        housekeeping: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let connections = (1..=number_of(count))
            .map(|number| Thread::start(format!("connections-{number}"), move || own_slot(number)))
            .collect::<io::Result<Box<[_]>>>()?;
        let samples = Samples {
            at: Instant::now(),
            busy: connections.iter().map(Thread::busy).collect(),
            load: vec![0; connections.len()].into(),
        };
        Ok(Self {
            connections,
            housekeeping: Thread::start("housekeeping".to_owned(), housekeeping)?,
            fill,
            samples: Mutex::new(samples),
            next: AtomicUsize::new(0),
        })
    }

    /// How many there are for connections.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Where what no client asks for is done.
    pub(crate) fn housekeeping(&self) -> &Handle {
        &self.housekeeping.handle
    }

    /// A thread for a new connection, and the connection's socket on it.
    ///
    /// # Errors
    /// If the thread has no descriptor for it.
    pub(crate) fn begin(&self, stream: TcpStream) -> io::Result<(Handle, TcpStream)> {
        self.begin_with(stream.into_std()?)
    }

    fn begin_with(&self, socket: net::TcpStream) -> io::Result<(Handle, TcpStream)> {
        let chosen = match self.len() {
            1 => 0,
            _ => self.choose(Instant::now()),
        };
        let handle = &self.connections[chosen].handle;
        let _guard = handle.enter();
        Ok((handle.clone(), TcpStream::from_std(socket)?))
    }

    /// As [`Threads::begin`], for a stream that has to stay where it is in memory.
    ///
    /// # Errors
    /// As for [`Threads::begin`].
    pub(crate) fn take_over(&self, stream: &mut TcpStream) -> io::Result<Handle> {
        let socket = stream.as_fd().try_clone_to_owned()?;
        let (handle, here) = self.begin_with(socket.into())?;
        *stream = here;
        Ok(handle)
    }

    /// Looks for signs of life until the server stops. To be run on the main thread.
    pub(crate) async fn watch(threads: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let all = || threads.connections.iter().chain([&threads.housekeeping]);
        let mut looks: Vec<_> = all().map(|_| Looks::default()).collect();
        let mut ticks = ticks(BEAT);
        while next(&mut ticks, &mut stop).await {
            for (thread, looks) in all().zip(&mut looks) {
                thread.set_silent(looks.are_in_vain(thread.beats.load(Ordering::Relaxed)));
            }
        }
    }

    /// Whether one of those that serve connections hangs.
    pub(crate) fn connections_hang(&self) -> bool {
        self.connections.iter().any(Thread::is_silent)
    }

    /// Whether housekeeping does.
    pub(crate) fn housekeeping_hangs(&self) -> bool {
        self.housekeeping.is_silent()
    }

    /// Which threads hang, if any do.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = &'static str> {
        let connections = self.connections_hang();
        let housekeeping = self.housekeeping_hangs();
        let connections = connections.then_some("a thread that serves connections hangs");
        let housekeeping = housekeeping.then_some("housekeeping hangs");
        connections.into_iter().chain(housekeeping)
    }

    /// One of them counts as one that hangs.
    #[cfg(test)]
    pub(crate) fn hang_for_test(&self, housekeeping: bool) {
        let thread = match housekeeping {
            true => &self.housekeeping,
            false => &self.connections[0],
        };
        thread.set_silent(true);
    }

    /// Ends the threads and waits until they have; for ever for one that hangs.
    pub(crate) fn join(&self) {
        let all = || self.connections.iter().chain([&self.housekeeping]);
        all().for_each(Thread::end);
        for thread in all() {
            let joins = thread.joins.lock().expect(NO_PANIC).take();
            if let Some(joins) = joins {
                let _ = joins.join(); // a panic has ended the process
            }
        }
    }

    fn choose(&self, now: Instant) -> usize {
        let mut samples = self.samples();
        samples.take(now, &self.connections);
        let lives = |index: &usize| !self.connections[*index].is_silent();
        let first = (0..self.len())
            .filter(lives)
            .find(|index| samples.load[*index] < self.fill);
        let in_turn = || self.next.fetch_add(1, Ordering::Relaxed) % self.len();
        // When all of them hang, one is as good as another.
        first.unwrap_or_else(|| {
            let mut tries = (0..self.len()).map(|_| in_turn());
            tries.find(lives).unwrap_or_else(in_turn)
        })
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().expect(NO_PANIC)
    }
}

/// What a thread runs its tasks on.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
}

const NO_PANIC: &str = "no code that holds the lock can panic";

impl Thread {
    fn start(name: String, first: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let beats = Arc::new(AtomicU64::new(0));
        let beating = beats.clone();
        // A test that reads what is logged reads this thread's lines too.
        #[cfg(test)]
        let log = tracing::dispatcher::get_default(Clone::clone);
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            #[cfg(test)]
            let _log = tracing::dispatcher::set_default(&log);
            first();
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {} // an error: it is dropped
                    () = beat(&beating) => {}
                }
            });
            runtime.shutdown_timeout(BLOCKED_TIMEOUT);
        })?;
        Ok(Self {
            name,
            handle,
            beats,
            is_silent: AtomicBool::new(false),
            end: Mutex::new(Some(end)),
            joins: Mutex::new(Some(thread)),
        })
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    fn set_silent(&self, is_silent: bool) {
        let name = &self.name;
        match (self.is_silent.swap(is_silent, Ordering::Relaxed), is_silent) {
            (false, true) => tracing::error!(
                "the thread {name} hangs: no sign of life for {} s; the disk of the accounts database may not answer",
                SILENCE.as_secs()
            ),
            (true, false) => tracing::info!("the thread {name} goes on"),
            _ => {}
        }
    }

    /// For how long the thread has been busy, up to when it last looked for input.
    fn busy(&self) -> Duration {
        self.handle.metrics().worker_total_busy_duration(0)
    }

    fn end(&self) {
        drop(self.end.lock().expect(NO_PANIC).take());
    }
}

/// Shows signs of life.
async fn beat(beats: &AtomicU64) {
    let mut ticks = ticks(BEAT);
    loop {
        ticks.tick().await;
        beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// What has been found of one thread's signs of life.
#[derive(Debug, Default)]
struct Looks {
    beats: u64,
    /// How often there was no new one.
    in_vain: u32,
}

impl Looks {
    /// Looks again. Whether there has been none for [`SILENCE`].
    fn are_in_vain(&mut self, beats: u64) -> bool {
        if std::mem::replace(&mut self.beats, beats) == beats {
            self.in_vain += 1;
        } else {
            self.in_vain = 0;
        }
        BEAT * self.in_vain >= SILENCE
    }
}

impl Samples {
    /// Looks again, if the last look is long enough ago.
    fn take(&mut self, now: Instant, threads: &[Thread]) {
        let passed = now.saturating_duration_since(self.at);
        if passed < SAMPLE {
            return;
        }
        self.at = now;
        for ((busy_before, load), thread) in self.busy.iter_mut().zip(&mut self.load).zip(threads) {
            let busy = thread.busy();
            *load = percent(busy.saturating_sub(*busy_before), passed);
            *busy_before = busy;
        }
    }
}

/// How many threads a setting stands for.
pub(crate) fn number_of(count: u32) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    let most = MAX_THREADS as usize;
    match count {
        0 => cores().min(most),
        count => most.min(count as usize),
    }
}

fn percent(part: Duration, whole: Duration) -> u32 {
    let percent = part.as_micros() * 100 / whole.as_micros().max(1);
    u32::try_from(percent).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::task::Poll;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn with_loads(load: &[u32], fill: u32) -> Threads {
        let count = u32::try_from(load.len()).unwrap();
        let threads = Threads::start(count, fill, || ()).unwrap();
        threads.samples().load = load.into();
        threads.samples().at = Instant::now() + Duration::from_secs(3600);
        threads
    }

    /// As one whose packets are answered at once, and lead to others in its own turn.
    #[test]
    fn others_are_heard_while_a_task_wakes_itself() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        runtime().unwrap().block_on(async move {
            let mut reader = tokio::net::UnixStream::from_std(reader).unwrap();
            let restless = tokio::spawn(std::future::poll_fn(move |cx| {
                if counted.fetch_add(1, Ordering::Relaxed) == 100 {
                    writer.write_all(b"x").unwrap();
                }
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
            let mut byte = [0];
            reader.read_exact(&mut byte).await.unwrap();
            restless.abort();
        });
        let waited = turns.load(Ordering::Relaxed) - 100;
        assert!(waited <= 2 * EVENT_INTERVAL as usize, "{waited} turns");
    }

    #[test]
    fn connections_begin_on_the_first_thread_that_has_time() {
        let first = |load: &[u32]| with_loads(load, 50).choose(Instant::now());
        assert_eq!(first(&[49, 0, 0]), 0);
        assert_eq!(first(&[50, 49, 0]), 1);
        assert_eq!(first(&[99, 50, 0]), 2);
        let full = with_loads(&[99, 50, 50], 50);
        assert_eq!([0; 4].map(|_| full.choose(Instant::now())), [0, 1, 2, 0]);
        let unfilled = with_loads(&[0, 0, 0], 0);
        assert_eq!([0; 3].map(|_| unfilled.choose(Instant::now())), [0, 1, 2]);
    }

    #[test]
    fn a_thread_that_hangs_gets_no_new_connection_while_others_live() {
        for fill in [0, 50] {
            let threads = with_loads(&[0, 90, 0], fill);
            threads.connections[0].set_silent(true);
            let chosen: Vec<_> = (0..6).map(|_| threads.choose(Instant::now())).collect();
            assert!(chosen.iter().all(|index| *index != 0), "{chosen:?}");
            threads.connections[1].set_silent(true);
            assert_eq!(threads.choose(Instant::now()), 2);
            threads.connections[2].set_silent(true);
            assert!(threads.choose(Instant::now()) < 3);
        }
    }

    #[tokio::test]
    async fn a_thread_that_hangs_is_found_and_so_is_its_end() {
        let threads = Arc::new(Threads::start(2, 50, || ()).unwrap());
        let (_run, stop) = watch::channel(false);
        let watching = tokio::spawn(Threads::watch(threads.clone(), stop));
        let is = async |trouble: bool| {
            while threads.troubles().next().is_some() != trouble {
                tokio::time::sleep(BEAT / 10).await;
            }
        };
        for index in [1, 2] {
            let thread = threads
                .connections
                .get(index)
                .unwrap_or(&threads.housekeeping);
            let (end, until) = std::sync::mpsc::sync_channel::<()>(1);
            thread.handle.spawn(async move {
                let _ = until.recv();
            });
            tokio::time::sleep(SILENCE / 2).await;
            assert_eq!(threads.troubles().next(), None, "not yet");
            tokio::time::timeout(SILENCE * 3, is(true)).await.unwrap();
            assert!(thread.is_silent());
            drop(end);
            tokio::time::timeout(SILENCE, is(false)).await.unwrap();
        }
        watching.abort();
    }

    #[test]
    fn a_process_that_has_stood_still_has_no_silent_thread() {
        let mut looks = Looks::default();
        assert!((0..7).all(|_| !looks.are_in_vain(0)));
        assert!(looks.are_in_vain(0) && looks.are_in_vain(0));
        assert!(!looks.are_in_vain(1));
        assert!(!looks.are_in_vain(1), "however long ago the last look was");
    }

    async fn socket() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// The thread that a new connection is read on.
    async fn thread_of_a_new_one(threads: &Threads) -> Option<String> {
        let (mut client, server) = socket().await;
        let (handle, mut server) = threads.begin(server).unwrap();
        let read = handle.spawn(async move {
            let mut byte = [0];
            tokio::io::AsyncReadExt::read_exact(&mut server, &mut byte)
                .await
                .unwrap();
            thread::current().name().map(ToOwned::to_owned)
        });
        tokio::io::AsyncWriteExt::write_all(&mut client, b"x")
            .await
            .unwrap();
        read.await.unwrap()
    }

    #[tokio::test]
    async fn a_busy_thread_gets_no_new_connection_and_an_idle_one_does() {
        let threads = Threads::start(2, 50, || ()).unwrap();
        let is_on = async |name| {
            let thread = thread_of_a_new_one(&threads).await;
            assert_eq!(thread.as_deref(), Some(name));
        };
        is_on("connections-1").await;
        let spinning = async {
            let begun = Instant::now();
            while begun.elapsed() < 2 * SAMPLE {
                let spun = std::time::Instant::now();
                while spun.elapsed() < Duration::from_millis(9) {}
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        threads.connections[0].handle.spawn(spinning).await.unwrap();
        is_on("connections-2").await;
        tokio::time::sleep(4 * SAMPLE).await;
        is_on("connections-1").await;
    }

    #[tokio::test]
    async fn without_a_fill_each_has_its_turn() {
        let threads = Threads::start(3, 0, || ()).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(thread_of_a_new_one(&threads).await);
        }
        seen.dedup();
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
