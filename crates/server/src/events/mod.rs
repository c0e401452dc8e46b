//! What has happened to clients and pushes, for an operator who asks why somebody gets no messages.
//!
//! An event is rare: a client came, was refused something, went, or a push came to something. A message that goes through
//! is none. An event knows user, client, address and the slug of a row; a payload, a topic or a token never gets in here.
//!
//! # Layout
//!
//! - [`Events`]: what the rest of the server records with, and what the admin API reads. `recording`: what the ends of
//!   connections, refusals and pushes are as events. `lanes`: on their way from the threads that record.
//! - `book`: what is remembered: of each user, of pushes, and for the stream. `rates`: how much of it one user may fill.
//! - `reader`: one that follows the stream.
//!
//! Invariants: recording takes a lock that only the same thread and, ten times a second for a swap of two pointers, the
//! main thread take; memory is bounded by [`LANES`], [`LANE_EVENTS`], [`STREAM_EVENTS`], [`PUSH_EVENTS`] and
//! [`RINGS_BYTES`]; what is lost is counted and said (`tests`). A reader that does not read holds a place in the stream and
//! a socket's buffer, and nothing waits for it.

mod book;
mod lanes;
mod rates;
mod reader;
mod recording;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jam_core::ids::{ClientId, UserId};
use jam_core::time::Stamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::coop;

use crate::clock::Clock;
use crate::ticks::{next, ticks};
use book::Book;
pub(crate) use book::{Entry, RINGS_BYTES, USER_EVENTS};
use book::{PUSH_EVENTS, STREAM_EVENTS};
use lanes::{LANE_EVENTS, LANES, Lane};
pub(crate) use reader::{EventReader, Filter, Told};
pub(crate) use recording::PushResult;

/// How often what was recorded is collected.
const TICK: Duration = Duration::from_millis(100);

/// Who may follow the stream at once.
pub(crate) const READERS: usize = 16;

/// Memory of one event at most: its fields, and four names of 256 bytes.
const EVENT_BYTES: usize = 1024;

/// Memory of what is not in the rings of users.
pub(crate) fn stream_bytes() -> u64 {
    ((STREAM_EVENTS + PUSH_EVENTS + LANES * LANE_EVENTS) * EVENT_BYTES) as u64
}

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A client was let in.
    Connect,
    /// A CONNECT, PUBLISH or SUBSCRIBE was refused.
    Refused,
    /// A client waits: the devices of its user log each other out in turn.
    HeldBack,
    /// Another device of the user has connected.
    Logout,
    /// An operator has ended the connection.
    Kick,
    /// The connection has ended in any other way.
    Disconnect,
    /// An address is locked out.
    Lockout,
    /// Something came of a push.
    Push,
    /// Events are missing here.
    Dropped,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Connect,
        Self::Refused,
        Self::HeldBack,
        Self::Logout,
        Self::Kick,
        Self::Disconnect,
        Self::Lockout,
        Self::Push,
        Self::Dropped,
    ];

    /// The word for it in the API.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refused => "refused",
            Self::HeldBack => "held_back",
            Self::Logout => "logout",
            Self::Kick => "kick",
            Self::Disconnect => "disconnect",
            Self::Lockout => "lockout",
            Self::Push => "push",
            Self::Dropped => "dropped",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Whether the user of an event is known to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The client has authenticated, or the server itself speaks of the user.
    Authenticated,
    /// The account exists; who came had not its token.
    Existing,
    /// A name that a client has given itself.
    Claimed,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time: Stamp,
    pub(crate) kind: Kind,
    /// Whose client, or the receiver of a push.
    pub(crate) user: Option<UserId>,
    standing: Standing,
    pub(crate) client: Option<ClientId>,
    pub(crate) address: Option<IpAddr>,
    /// The packet that was refused: `connect`, `publish` or `subscribe`.
    pub(crate) packet: Option<&'static str>,
    /// The slug of a row, why a connection ended, what came of a push.
    pub(crate) reason: Option<&'static str>,
    /// In the words of the push service's error codes.
    pub(crate) detail: Option<Box<str>>,
    /// Who wrote the message that a push is about.
    pub(crate) sender: Option<UserId>,
    /// How many times.
    pub(crate) count: u64,
    /// This sums up what came too fast to be told one by one, or was lost.
    pub(crate) is_sum: bool,
}

/// See the module's description.
pub(crate) struct Events {
    /// None, if nobody can ask.
    lanes: Box<[Lane]>,
    book: Mutex<Book>,
    /// The number of the next event; `None` when the server stops.
    next: watch::Sender<Option<u64>>,
    places: Arc<Semaphore>,
}

impl Events {
    /// `run`: tells the numbers of this run from those of another one.
    pub(crate) fn new(run: u64) -> Self {
        Self::with(Book::new(run), LANES)
    }

    /// Records nothing: nobody can ask.
    pub(crate) fn off() -> Self {
        Self::with(Book::new(0), 0)
    }

    fn with(book: Book, lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            next: watch::Sender::new(Some(book.next())),
            book: Mutex::new(book),
            places: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Makes a note, if anybody can ask for it. Costs little more than the copy, and waits for nobody.
    fn record(&self, event: impl FnOnce() -> Event) {
        if let Some(lane) = lanes::of_this_thread(&self.lanes) {
            lane.push(event());
        }
    }

    /// What has happened to a user, the newest first.
    pub(crate) fn of_user(&self, user: &UserId) -> Vec<Arc<Entry>> {
        self.book().of_user(user)
    }

    /// Pushes, the newest first.
    pub(crate) fn pushes(&self) -> Vec<Arc<Entry>> {
        self.book().pushes()
    }

    /// Follows the stream; `None` when there are [`READERS`] that do. `after`: the id of the last event that the reader has
    /// seen, else it begins with what happens from now on.
    pub(crate) fn follow(
        self: &Arc<Self>,
        after: Option<u64>,
        filter: Filter,
    ) -> Option<EventReader> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(EventReader::new(self.clone(), place, after, filter))
    }

    /// The number that an id of this run has; what has another run's id has seen nothing of this one.
    pub(crate) fn number_of(&self, id: &str) -> Option<u64> {
        self.book().number_of(id)
    }

    /// Collects what was recorded, from one lane after the other, and tells the readers.
    async fn collect(&self, now: Stamp) {
        for lane in &self.lanes {
            let (events, lost) = lane.take();
            if !events.is_empty() || lost > 0 {
                self.book().add_all(events, lost, now);
                coop::consume_budget().await;
            }
        }
        let number = {
            let mut book = self.book();
            book.tick(Instant::now(), now);
            book.next()
        };
        self.next.send_if_modified(|next| {
            let is_new = *next != Some(number);
            *next = Some(number);
            is_new
        });
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects what is recorded until the server stops; the readers end then.
pub(crate) async fn collect(
    events: Arc<Events>,
    clock: Arc<Clock>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(TICK);
    while next(&mut ticks, &mut stop).await {
        events.collect(clock.stamp(clock.now())).await;
    }
    events.collect(clock.stamp(clock.now())).await;
    events.next.send_replace(None);
}
