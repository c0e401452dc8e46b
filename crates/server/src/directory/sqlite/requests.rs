//! What the loader's thread is asked for, and what it gives back.

use std::time::Instant;

use jam_core::directory::{Answer, Generation};
use tokio::sync::oneshot;

use super::super::cache::Key;
use super::schema::LOCK_PATIENCE;
use super::{DirectoryError, Friends, ListCursor, PushAddress, Shown, ShownCursor, Who};

/// What the thread is asked for, and since when. Each waits for locks for [`LOCK_PATIENCE`] in all, the
/// time in the queue included. Whoever no longer waits for the reply doesn't get it.
#[derive(Debug)]
pub(super) struct Request {
    asked: Instant,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Answer(Key, oneshot::Sender<Result<Answer, DirectoryError>>),
    /// `None` is an id that no jam database can hold.
    Accounts(
        Vec<Option<i64>>,
        oneshot::Sender<Result<Vec<Answer>, DirectoryError>>,
    ),
    /// Where to begin, of whose friends.
    Friends(
        i64,
        Who,
        ListCursor,
        oneshot::Sender<Result<Friends, DirectoryError>>,
    ),
    /// The same of those who are shown.
    Shown(
        i64,
        ShownCursor,
        oneshot::Sender<Result<Shown, DirectoryError>>,
    ),
    Look(oneshot::Sender<Result<Generation, DirectoryError>>),
    /// The thread hangs until the sender is gone.
    #[cfg(test)]
    Hang(oneshot::Receiver<()>),
    /// Sender and receiver.
    PushAddress(
        i64,
        i64,
        oneshot::Sender<Result<Option<PushAddress>, DirectoryError>>,
    ),
}

impl Request {
    /// Asked now.
    pub(super) fn new(what: What) -> Self {
        let asked = Instant::now();
        Self { asked, what }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.asked + LOCK_PATIENCE
    }

    pub(super) fn fail(self, error: DirectoryError) {
        // A failed send: the connection that asked is gone.
        let _ = match self.what {
            What::Answer(_, reply) => reply.send(Err(error)).is_ok(),
            What::Accounts(_, reply) => reply.send(Err(error)).is_ok(),
            What::Friends(.., reply) => reply.send(Err(error)).is_ok(),
            What::Shown(.., reply) => reply.send(Err(error)).is_ok(),
            What::Look(reply) => reply.send(Err(error)).is_ok(),
            #[cfg(test)]
            What::Hang(_) => true,
            What::PushAddress(_, _, reply) => reply.send(Err(error)).is_ok(),
        };
    }
}
