//! Turns of connections that have more to do than one turn allows.
//!
//! A connection whose client sends faster than it can be served ends its turn with work left. If all such connections went
//! back to the runtime's queue, a message of anybody else would wait there for a turn of each. So at most [`AT_ONCE`]
//! of them are in that queue; the rest wait here, first come, first served.
//!
//! Invariants: a connection that has little to do waits for [`AT_ONCE`] turns of floods, however many floods there are
//! (`others_wait_for_a_few_turns`); each flood has its turn (`each_has_its_turn`).

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Connections with more to do that the runtime's queue holds at once.
const AT_ONCE: usize = 32;

/// The turns of all connections.
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Turns {
    /// Asks for another turn.
    pub(crate) fn queue(&self) -> NextTurn {
        match self.0.clone().try_acquire_owned() {
            Ok(turn) => NextTurn::Granted { _held: turn },
            Err(_) => NextTurn::Queued(Box::pin(self.0.clone().acquire_owned())),
        }
    }
}

/// A turn that has been asked for.
pub(crate) enum NextTurn {
    Queued(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>),
    /// It comes after the runtime has looked for others' input.
    Granted {
        _held: OwnedSemaphorePermit,
    },
}

impl NextTurn {
    /// Ready when it may be taken. It is held until the turn is over.
    pub(crate) fn poll_granted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Queued(queued) = self {
            let turn = ready!(queued.as_mut().poll(cx));
            *self = Self::Granted {
                _held: turn.expect("it is never closed"),
            };
            return yield_now(cx);
        }
        Poll::Ready(())
    }
}

/// Pending once: a wake-up of one's own would come before the runtime looks for others' input.
pub(crate) fn yield_now(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::yield_now()).poll(cx)
}

impl fmt::Debug for NextTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued(_) => "Queued",
            Self::Granted { .. } => "Granted",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinSet;

    use super::*;

    const FLOODS: usize = 1000;

    /// One that always has more to do; counts its turns.
    async fn flood(turns: Arc<Turns>, all: Arc<AtomicUsize>, own: Arc<AtomicUsize>) {
        let mut next: Option<NextTurn> = None;
        poll_fn(move |cx| -> Poll<()> {
            if let Some(next) = &mut next {
                ready!(next.poll_granted(cx));
            }
            let turn = next.take();
            all.fetch_add(1, Ordering::Relaxed);
            own.fetch_add(1, Ordering::Relaxed);
            drop(turn);
            let queued = next.insert(turns.queue());
            ready!(queued.poll_granted(cx));
            yield_now(cx)
        })
        .await;
    }

    fn floods() -> (JoinSet<()>, Arc<AtomicUsize>, Vec<Arc<AtomicUsize>>) {
        let (turns, all) = (Arc::new(Turns::default()), Arc::new(AtomicUsize::new(0)));
        let own: Vec<_> = (0..FLOODS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let mut tasks = JoinSet::new();
        for own in &own {
            tasks.spawn(flood(turns.clone(), all.clone(), own.clone()));
        }
        (tasks, all, own)
    }

    #[tokio::test]
    async fn others_wait_for_a_few_turns() {
        let (_tasks, all, _) = floods();
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let echo = tokio::spawn(async move {
            let mut byte = [0];
            while server.read_exact(&mut byte).await.is_ok() {
                server.write_all(&byte).await.unwrap();
            }
        });
        while all.load(Ordering::Relaxed) < 2 * FLOODS {
            tokio::task::yield_now().await; // their first turns are over
        }
        for _ in 0..100 {
            let before = all.load(Ordering::Relaxed);
            client.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            let waited = all.load(Ordering::Relaxed) - before;
            // The byte there, and the byte back.
            assert!(waited < FLOODS / 4, "{waited} turns");
        }
        drop(client);
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn each_has_its_turn() {
        let (_tasks, all, own) = floods();
        while all.load(Ordering::Relaxed) < 20 * FLOODS {
            tokio::task::yield_now().await;
        }
        for own in own {
            let turns = own.load(Ordering::Relaxed);
            assert!((18..=22).contains(&turns), "{turns} turns");
        }
    }
}
