//! One that follows the stream: it holds its place in it, and asks for the next event when it has room for one.

use std::sync::Arc;
use std::time::Duration;

use jam_core::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Entry, Event, Events, Kind};

/// So many events are handed out at once, then there is a [`PAUSE`]: readers share the main thread.
const AT_ONCE: u32 = 256;

const PAUSE: Duration = Duration::from_millis(50);

/// What a reader wants to see. That events are missing, it is told in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// All, if it is empty.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) user: Option<UserId>,
}

impl Filter {
    fn passes(&self, event: &Event) -> bool {
        let is_of = |user: &UserId| event.user.as_ref() == Some(user);
        event.kind == Kind::Dropped
            || (self.kinds.is_empty() || self.kinds.contains(&event.kind))
                && self.user.as_ref().is_none_or(is_of)
    }
}

/// What a reader is told.
#[derive(Debug)]
pub(crate) enum Told {
    Event(Arc<Entry>),
    /// So many events have left the stream before the reader came to them.
    Dropped(u64),
}

/// See the module's description.
pub(crate) struct EventReader {
    events: Arc<Events>,
    changes: watch::Receiver<Option<u64>>,
    next: u64,
    filter: Filter,
    at_once: u32,
    _place: OwnedSemaphorePermit,
}

impl EventReader {
    pub(super) fn new(
        events: Arc<Events>,
        place: OwnedSemaphorePermit,
        after: Option<u64>,
        filter: Filter,
    ) -> Self {
        let changes = events.next.subscribe();
        let next = events.book().next();
        Self {
            next: after.map_or(next, |after| next.min(after.saturating_add(1))),
            events,
            changes,
            filter,
            at_once: 0,
            _place: place,
        }
    }

    /// The next event; `None` when the server stops. Nothing is lost if it is dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if self.at_once >= AT_ONCE {
                tokio::time::sleep(PAUSE).await;
                self.at_once = 0;
            }
            let is_over = self.changes.borrow_and_update().is_none();
            if let Some(told) = self.look() {
                self.at_once += 1;
                return Some(told);
            }
            if is_over || self.changes.changed().await.is_err() {
                return None;
            }
            self.at_once = 0;
        }
    }

    /// What is there already.
    pub(super) fn look(&mut self) -> Option<Told> {
        let book = self.events.book();
        let missed = book.first().saturating_sub(self.next);
        if missed > 0 {
            self.next += missed;
            return Some(Told::Dropped(missed));
        }
        while let Some(entry) = book.get(self.next) {
            self.next += 1;
            if self.filter.passes(&entry.event) {
                return Some(Told::Event(entry.clone()));
            }
        }
        None
    }
}
