//! The threads that serve connections, one current-thread runtime each.
//!
//! A connection stays on the thread that it began on. New ones begin on the first thread that has time left, so
//! light traffic is served by one thread, where a task wakes another without a system call, and heavy traffic
//! spreads over all of them as clients connect. The first thread is the main thread; it also accepts, and keeps the
//! server's own tasks. [ADR 19](../../docs/adr/0019-a-runtime-for-each-thread.md) has the measurements.
//!
//! Invariants: a socket is registered with the runtime that its task runs on; a thread ends when it is dropped,
//! and what runs on it then is dropped with it.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// More than any machine has cores.
pub(crate) const MAX_THREADS: u32 = 1024;

/// Over how long a thread's load is measured at least.
const SAMPLE: Duration = Duration::from_millis(100);

/// All of them.
pub(crate) struct Threads {
    handles: Box<[Handle]>,
    others: Vec<Other>,
    /// Percent of its time.
    fill: u32,
    samples: Mutex<Samples>,
    next: AtomicUsize,
}

/// A thread that is not the first.
struct Other {
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// For how long each thread was busy, all in all, when that was last looked at; and in percent since the time before.
struct Samples {
    at: Instant,
    busy: Box<[Duration]>,
    load: Box<[u32]>,
}

impl Threads {
    /// So many threads; 0 is one for each core. The first is the calling one. Connections begin on the first
    /// that was busy for less than `fill` percent of its time, or, when there is none, on each in turn.
    ///
    /// # Errors
    /// If the system has no thread, or no descriptor, for one.
    pub(crate) fn start(count: u32, fill: u32) -> io::Result<Self> {
        let mut handles = vec![Handle::current()];
        let mut others = Vec::new();
        for number in 1..number_of(count) {
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()?;
            handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel::<()>();
            let thread = thread::Builder::new()
                .name(format!("connections-{number}"))
                .spawn(move || {
                    // An error, that nobody will stop it, is the stop.
                    let _ = runtime.block_on(stopped);
                })?;
            others.push(Other {
                stop: Some(stop),
                thread: Some(thread),
            });
        }
        let samples = Samples {
            at: Instant::now(),
            busy: handles.iter().map(busy).collect(),
            load: vec![0; handles.len()].into(),
        };
        Ok(Self {
            handles: handles.into(),
            others,
            fill,
            samples: Mutex::new(samples),
            next: AtomicUsize::new(0),
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    /// A thread for a new connection, and the connection's socket on it.
    ///
    /// # Errors
    /// If the thread has no descriptor for it.
    pub(crate) fn begin(&self, stream: TcpStream) -> io::Result<(&Handle, TcpStream)> {
        let chosen = match self.len() {
            1 => 0,
            _ => self.choose(Instant::now()),
        };
        let handle = &self.handles[chosen];
        if chosen == 0 {
            return Ok((handle, stream)); // it was accepted there
        }
        let _guard = handle.enter();
        let stream = TcpStream::from_std(stream.into_std()?)?;
        Ok((handle, stream))
    }

    fn choose(&self, now: Instant) -> usize {
        let mut samples = self.lock();
        samples.take(now, &self.handles);
        match first_with_time(&samples.load, self.fill) {
            Some(first) => first,
            None => self.next.fetch_add(1, Ordering::Relaxed) % self.len(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        self.samples
            .lock()
            .expect("no code that holds the lock can panic")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for other in &mut self.others {
            drop(other.stop.take());
        }
        for other in &mut self.others {
            if let Some(thread) = other.thread.take() {
                let _ = thread.join(); // a panic has ended the process
            }
        }
    }
}

impl Samples {
    /// Looks again, if the last look is long enough ago.
    fn take(&mut self, now: Instant, handles: &[Handle]) {
        let passed = now.saturating_duration_since(self.at);
        if passed < SAMPLE {
            return;
        }
        self.at = now;
        for ((busy_before, load), handle) in self.busy.iter_mut().zip(&mut self.load).zip(handles) {
            let busy = busy(handle);
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

fn first_with_time(load: &[u32], fill: u32) -> Option<usize> {
    load.iter().position(|load| *load < fill)
}

/// For how long the thread has been busy, up to when it last looked for input.
fn busy(handle: &Handle) -> Duration {
    handle.metrics().worker_total_busy_duration(0)
}

fn percent(part: Duration, whole: Duration) -> u32 {
    let percent = part.as_micros() * 100 / whole.as_micros().max(1);
    u32::try_from(percent).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn connections_begin_on_the_first_thread_that_has_time() {
        assert_eq!(first_with_time(&[49, 0, 0], 50), Some(0));
        assert_eq!(first_with_time(&[50, 49, 0], 50), Some(1));
        assert_eq!(first_with_time(&[99, 50, 0], 50), Some(2));
        assert_eq!(first_with_time(&[99, 50, 50], 50), None);
        assert_eq!(first_with_time(&[0, 0, 0], 0), None, "each in turn");
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
        let here = thread::current().name().map(ToOwned::to_owned);
        let threads = Threads::start(2, 50).unwrap();
        assert_eq!(thread_of_a_new_one(&threads).await, here);
        let begun = Instant::now();
        while begun.elapsed() < 2 * SAMPLE {
            let spun = std::time::Instant::now();
            while spun.elapsed() < Duration::from_millis(9) {}
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let other = thread_of_a_new_one(&threads).await;
        assert_eq!(other.as_deref(), Some("connections-1"));
        tokio::time::sleep(4 * SAMPLE).await;
        assert_eq!(thread_of_a_new_one(&threads).await, here);
    }

    #[tokio::test]
    async fn without_a_fill_each_has_its_turn() {
        let threads = Threads::start(3, 0).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(thread_of_a_new_one(&threads).await);
        }
        seen.dedup();
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
}
