//! Answers one packet of a client, from wherever its outcome comes to be known.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Link, LinkId, Outcome, Ticket};
use crate::metrics::Path;
use crate::policy::Refusal;

/// Tells a client what became of one of its packets. Dropping it unused is safe: the client retransmits.
#[derive(Debug)]
pub(crate) struct Responder(Waits);

#[derive(Debug)]
enum Waits {
    /// The packet waits for one thing.
    Alone(Arc<Link>, Ticket),
    /// For two.
    Half(Arc<Halves>),
    /// For two. A refusal of this one is no refusal of the packet: the client has not asked for it.
    LesserHalf(Arc<Halves>),
}

/// A packet that waits for two things.
#[derive(Debug)]
struct Halves {
    client: Mutex<Option<(Arc<Link>, Ticket)>>,
    left: AtomicU8,
}

impl Responder {
    pub(crate) fn new(link: Arc<Link>, ticket: Ticket) -> Self {
        Self(Waits::Alone(link, ticket))
    }

    /// The packet waits for something else as well, which its client has not asked for: the responder for the packet,
    /// and the one for that. Only of a packet that has waited for one thing.
    pub(crate) fn split(self) -> (Self, Option<Self>) {
        let Waits::Alone(link, ticket) = self.0 else {
            return (self, None);
        };
        let halves = Arc::new(Halves {
            client: Mutex::new(Some((link, ticket))),
            left: AtomicU8::new(2),
        });
        let lesser = Self(Waits::LesserHalf(halves.clone()));
        (Self(Waits::Half(halves)), Some(lesser))
    }

    /// Of the lesser half: the connection of the client, as long as it waits.
    pub(crate) fn waiting_link(&self) -> Option<LinkId> {
        let Waits::LesserHalf(halves) = &self.0 else {
            return None;
        };
        let client = halves.client();
        client.as_ref().map(|(link, _)| link.id())
    }

    /// What the packet waited for is done.
    pub(crate) fn succeed(self, path: Path) {
        match self.0 {
            Waits::Alone(link, ticket) => link.resolve(ticket, Ok(path)),
            Waits::Half(halves) | Waits::LesserHalf(halves) => halves.succeed(path),
        }
    }

    /// The same, and nothing had to be written for it.
    pub(crate) fn unwritten(self) {
        self.succeed(Path::Grace);
    }

    /// It cannot be done.
    pub(crate) fn refuse(self, refusal: Refusal) {
        match self.0 {
            Waits::Alone(link, ticket) => link.resolve(ticket, Err(refusal)),
            Waits::Half(halves) => halves.resolve(Err(refusal)),
            Waits::LesserHalf(halves) => halves.succeed(Path::Disk),
        }
    }
}

impl Halves {
    fn client(&self) -> MutexGuard<'_, Option<(Arc<Link>, Ticket)>> {
        self.client.lock().expect("nothing panics under this lock")
    }

    fn succeed(&self, path: Path) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.resolve(Ok(path));
        }
    }

    /// The first outcome counts.
    fn resolve(&self, outcome: Outcome) {
        let client = self.client().take();
        if let Some((link, ticket)) = client {
            link.resolve(ticket, outcome);
        }
    }
}
