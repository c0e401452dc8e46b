//! TLS handshakes, apart from everything else.
//!
//! A handshake costs the server a signature and a key agreement, hundreds of times what a message costs, and
//! an attacker who repeats a recorded ClientHello pays nothing. So handshakes run on threads of their own, below the
//! priority of those that serve connections: a flood takes what is left of the machine. On these threads the
//! sources take turns, one step of one handshake each: a flood waits for itself.
//!
//! How many there are at once is bounded by `permits`: a connection in its handshake is half-open.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use foldhash::fast::RandomState;
use jam_core::source::Source;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How much less urgent the threads are than others: 19 is the most.
const NICE: i32 = 10;

/// The threads for handshakes.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// `None` once it is being dropped.
    runtime: Option<Runtime>,
    turns: Mutex<SourceTurns>,
}

/// For each source with a handshake under way: who is at its turn.
type SourceTurns = HashMap<Source, Arc<Semaphore>, RandomState>;

/// A handshake under way; it ends when this is dropped.
pub(crate) struct Handshake<T>(JoinHandle<T>);

impl Handshakes {
    /// Starts the threads: one for each two cores.
    ///
    /// # Errors
    /// If the system has no thread for them.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads((cores / 2).max(1))
            .thread_name("handshakes")
            .on_thread_start(|| {
                // Of this thread alone, as Linux has it. Without it, they are as urgent as the others.
                let _ = rustix::process::nice(NICE);
            })
            .build()?;
        Ok(Arc::new(Self {
            runtime: Some(runtime),
            turns: Mutex::default(),
        }))
    }

    /// Runs a handshake of this source on the threads.
    pub(crate) fn run<F>(self: &Arc<Self>, source: Source, handshake: F) -> Handshake<F::Output>
    where
        F: Future<Output: Send> + Unpin + Send + 'static,
    {
        let turn = SourceTurn::of(self.clone(), source);
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        Handshake(runtime.spawn(turn.take_steps(handshake)))
    }

    fn lock(&self) -> MutexGuard<'_, SourceTurns> {
        self.turns
            .lock()
            .expect("no code that holds the lock can panic")
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // No handshake is left: each holds this. To wait for the threads would block a task.
            runtime.shutdown_background();
        }
    }
}

/// One handshake's place among those of its source.
struct SourceTurn {
    handshakes: Arc<Handshakes>,
    source: Source,
    semaphore: Arc<Semaphore>,
}

impl SourceTurn {
    fn of(handshakes: Arc<Handshakes>, source: Source) -> Self {
        let one = || Arc::new(Semaphore::new(1));
        let semaphore = handshakes.lock().entry(source).or_insert_with(one).clone();
        Self {
            handshakes,
            source,
            semaphore,
        }
    }

    /// Polls the handshake whenever there is something to do and it is its turn. Who has had a turn is behind all
    /// others of the source, and the next of the source behind those of other sources.
    async fn take_steps<F: Future + Unpin>(self, mut handshake: F) -> F::Output {
        loop {
            let turn = self.semaphore.acquire().await;
            let turn = turn.expect("the semaphore is never closed");
            // Others of this source that are looked at meanwhile find the turn taken, and queue up for it.
            tokio::task::yield_now().await;
            let step = poll_fn(|cx| Poll::Ready(Pin::new(&mut handshake).poll(cx))).await;
            drop(turn);
            if let Poll::Ready(result) = step {
                return result;
            }
            let mut woken = false;
            poll_fn(|_| {
                if std::mem::replace(&mut woken, true) {
                    Poll::Ready(())
                } else {
                    Poll::Pending // the step wakes this task
                }
            })
            .await;
        }
    }
}

impl Drop for SourceTurn {
    fn drop(&mut self) {
        let mut turns = self.handshakes.lock();
        // The map's and this one.
        if Arc::strong_count(&self.semaphore) <= 2 {
            turns.remove(&self.source);
        }
    }
}

impl<T> Future for Handshake<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|joined| joined.expect("a panic ends the process, and only a drop ends it early"))
    }
}

impl<T> Drop for Handshake<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const ONE: Source = Source::V4([192, 0, 2, 1]);
    const TWO: Source = Source::V4([192, 0, 2, 2]);

    /// So many steps of a millisecond each; they go on the record.
    fn steps(
        of: Source,
        count: usize,
        record: &Arc<Mutex<Vec<Source>>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let record = record.clone();
        let mut left = count;
        Box::pin(poll_fn(move |cx| {
            std::thread::sleep(Duration::from_millis(1));
            record.lock().unwrap().push(of);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    #[tokio::test]
    async fn sources_take_turns() {
        let handshakes = Handshakes::start().unwrap();
        let record = Arc::default();
        let flood: Vec<_> = (0..200)
            .map(|_| handshakes.run(ONE, steps(ONE, 2, &record)))
            .collect();
        handshakes.run(TWO, steps(TWO, 2, &record)).await;
        let record = record.lock().unwrap().clone();
        let first = record.iter().position(|source| *source == TWO).unwrap();
        let last = record.iter().rposition(|source| *source == TWO).unwrap();
        println!("steps {first} and {last} of 400");
        assert!(last < 200, "steps {first} and {last} of 400");
        for one in flood {
            one.await;
        }
        assert!(handshakes.lock().is_empty());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_handshake_is_less_urgent_than_a_message() {
        let niceness = || rustix::process::nice(0).unwrap();
        let handshakes = Handshakes::start().unwrap();
        let theirs = handshakes.run(ONE, Box::pin(async move { niceness() }));
        assert_eq!(theirs.await, (niceness() + NICE).min(19));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_ends() {
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let handshakes = Handshakes::start().unwrap();
        let ended = Arc::new(AtomicUsize::new(0));
        let under_way: Vec<_> = (0..100)
            .map(|_| {
                let count = Count(ended.clone());
                let never = Box::pin(async move {
                    let _count = count;
                    std::future::pending::<()>().await;
                });
                handshakes.run(ONE, never)
            })
            .collect();
        drop(under_way);
        for _ in 0..1000 {
            if ended.load(Ordering::SeqCst) == 100 && handshakes.lock().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} of 100 have ended", ended.load(Ordering::SeqCst));
    }
}
