//! The one thing that others hold of a live connection: a place to leave a hint.
//!
//! A link carries no payload. What it holds is bounded: one flag for mail, one eviction, one outcome
//! for each publish of the connection that waits for the store (at most its inflight limit), and the
//! notices of `MAX_NOTICES` newcomers.

mod responder;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use jam_wire::packet::Version;
use smallvec::SmallVec;

use crate::ids::UserId;
use crate::metrics::Path;
use crate::policy::{Identity, Refusal};
use crate::rate::Allowance;
use crate::time::Time;

pub(crate) use responder::Responder;

/// Tells one connection of the process from every other, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(crate) u64);

/// Why a connection is made to end by something else than its own packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Another device of the user has connected (PROTOCOL.md, section 3): logout error, 0x8E.
    Logout,
    /// The same client id has connected again: 0x8E, no logout error.
    TakenOver,
    /// The token no longer matches or the account is gone (PROTOCOL.md, section 6): 0x87.
    NotAuthorized,
    /// The server stops: 0x8B.
    ShuttingDown,
    /// An operator has ended it: 0x98.
    Kicked,
}

/// Says which packet of a connection an outcome belongs to. Each kind is counted for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// A PUBLISH.
    Publish(u64),
    /// Any other packet whose answer waits for the store.
    Answer(u64),
}

/// What became of a packet.
pub type Outcome = Result<Path, Refusal>;

/// Newcomers that wait for one connection at a time.
const MAX_NOTICES: usize = 16;

/// The notices that a connection has to answer.
pub(crate) type Notices = SmallVec<[Notice; 1]>;

/// Held by a connection that a newcomer is about to displace, until it has handled what its client sent.
/// Dropping it is the answer, also by a connection that has ended meanwhile.
#[derive(Debug)]
pub(crate) struct Notice(Arc<Waiting>);

/// What a newcomer waits for: each connection that it displaces has handled what its client sent, or is gone.
#[derive(Debug, Clone)]
pub struct Displaced(Arc<Waiting>);

#[derive(Debug)]
struct Waiting {
    notices: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Displaced {
    /// Gives notice to each of the links.
    pub(crate) fn notify(links: &[Arc<Link>]) -> Self {
        let waiting = Arc::new(Waiting {
            notices: AtomicUsize::new(links.len()),
            waker: Mutex::default(),
        });
        for link in links {
            link.give_notice(Notice(waiting.clone()));
        }
        Self(waiting)
    }

    /// Whether there is nothing to wait for any more; if there is, `waker` is woken when that changes.
    #[must_use]
    pub fn is_over(&self, waker: &Waker) -> bool {
        *self.0.waker() = Some(waker.clone());
        self.0.notices.load(Ordering::Acquire) == 0
    }
}

impl PartialEq for Displaced {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Displaced {}

impl Waiting {
    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker
            .lock()
            .expect("no code that holds a waker can panic")
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if self.0.notices.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(waker) = self.0.waker().take()
        {
            waker.wake();
        }
    }
}

/// What was left for a connection since it last looked.
#[derive(Debug, Default)]
pub struct Signals {
    /// Outcomes, in the order in which they came.
    pub outcomes: Vec<(Ticket, Outcome)>,
    /// There may be something to fetch.
    pub mail: bool,
    /// The connection must end.
    pub evicted: Option<Eviction>,
    /// Others are about to end it, when what its client has sent is handled.
    pub(crate) notices: Option<Box<Notices>>,
    /// Whether the connection has been woken since.
    woken: bool,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// From where.
    pub address: IpAddr,
    /// What it speaks.
    pub version: Version,
    /// When it was let in.
    pub since: Time,
    /// Bytes of a packet that it takes, if it said so.
    pub max_packet: Option<NonZeroU32>,
}

/// The handle of a live connection.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    identity: Identity,
    peer: Peer,
    waker: Waker,
    /// What all connections of the user share; `None`: they may publish as fast as they like.
    allowance: Option<Arc<Allowance>>,
    signals: Mutex<Signals>,
    receiving: Mutex<()>,
}

impl Link {
    pub(crate) fn new(
        id: LinkId,
        identity: Identity,
        peer: Peer,
        waker: Waker,
        allowance: Option<Arc<Allowance>>,
    ) -> Self {
        Self {
            id,
            identity,
            peer,
            waker,
            allowance,
            signals: Mutex::default(),
            receiving: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// Who was let in, and with what.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn allowance(&self) -> Option<&Arc<Allowance>> {
        self.allowance.as_ref()
    }

    /// Whose connection it is.
    pub(crate) fn user(&self) -> &UserId {
        self.identity.user()
    }

    /// Something may be there to fetch.
    pub(crate) fn wake(&self) {
        self.signal(|signals| signals.mail = true);
    }

    /// The connection must end; the first reason stays.
    pub(crate) fn evict(&self, why: Eviction) {
        self.signal(|signals| signals.evicted = signals.evicted.or(Some(why)));
    }

    /// A publish has been stored or refused.
    pub(crate) fn resolve(&self, ticket: Ticket, outcome: Outcome) {
        self.signal(|signals| signals.outcomes.push((ticket, outcome)));
    }

    /// Held by the connection from when its session knows the id of a QoS 2 PUBLISH until the message is
    /// with the store. The connection that takes the session over waits for that, and answers for the id from then on.
    pub(crate) fn receiving(&self) -> MutexGuard<'_, ()> {
        self.receiving
            .lock()
            .expect("a panic of a connection ends the process")
    }

    /// The connection is about to be ended by a newcomer, which waits until the notice is dropped. Of more
    /// than [`MAX_NOTICES`] the others do not wait.
    pub(crate) fn give_notice(&self, notice: Notice) {
        self.signal(|signals| {
            let notices = signals.notices.get_or_insert_default();
            if notices.len() < MAX_NOTICES {
                notices.push(notice);
            }
        });
    }

    /// Takes what was signalled.
    pub(crate) fn take_signals(&self) -> Signals {
        std::mem::take(&mut self.lock())
    }

    fn signal(&self, what: impl FnOnce(&mut Signals)) {
        let woken = {
            let mut signals = self.lock();
            what(&mut signals);
            std::mem::replace(&mut signals.woken, true)
        };
        if !woken {
            self.waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Signals> {
        self.signals
            .lock()
            .expect("no code that holds a link can panic")
    }
}
