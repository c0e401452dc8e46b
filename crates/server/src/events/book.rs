//! What is remembered: the last [`USER_EVENTS`] events of each user, the last [`PUSH_EVENTS`] of pushes, and the last
//! [`STREAM_EVENTS`] of all, which have numbers.
//!
//! Only who is known to have an account gets a ring: a name that somebody makes up takes no room.
//!
//! Invariant: the rings of users take at most [`RINGS_BYTES`]; the one that was added to longest ago goes first
//! (`tests::rings_stay_within_their_bytes`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use hashlink::LruCache;
use jam_core::ids::UserId;
use jam_core::time::Stamp;

use super::rates::{Rates, Tally};
use super::{Event, Kind, Standing};

/// Events that are remembered of a user.
pub(crate) const USER_EVENTS: usize = 64;

/// Events that are remembered of pushes.
pub(super) const PUSH_EVENTS: usize = 1000;

/// Events that the stream remembers for a reader that is slow, or comes back.
pub(super) const STREAM_EVENTS: usize = 4096;

/// Memory of the rings of all users.
pub(crate) const RINGS_BYTES: usize = 32 * 1024 * 1024;

/// Memory of one ring besides its events: its places and its user's in the table.
const RING_BYTES: usize = 1024;

/// An event with its number.
#[derive(Debug)]
pub(crate) struct Entry {
    run: u64,
    pub(crate) number: u64,
    pub(crate) event: Event,
}

impl Entry {
    /// The id in the API.
    pub(crate) fn id(&self) -> String {
        format!("{:x}.{}", self.run, self.number)
    }

    /// Memory that it takes in a ring. What the stream shares with it is counted as if it did not.
    fn bytes(&self) -> usize {
        let event = &self.event;
        let texts = [
            event.user.as_ref().map_or(0, |it| it.as_str().len()),
            event.client.as_ref().map_or(0, |it| it.as_str().len()),
            event.sender.as_ref().map_or(0, |it| it.as_str().len()),
            event.detail.as_deref().map_or(0, str::len),
        ];
        size_of::<Self>() + 2 * size_of::<usize>() + texts.iter().sum::<usize>()
    }
}

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) stream: usize,
    pub(super) pushes: usize,
    pub(super) of_user: usize,
    pub(super) rings_bytes: usize,
}

/// See the module's description.
pub(super) struct Book {
    run: u64,
    next: u64,
    room: Room,
    stream: VecDeque<Arc<Entry>>,
    pushes: VecDeque<Arc<Entry>>,
    rings: LruCache<UserId, Ring>,
    rings_bytes: usize,
    rates: Rates,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Entry>>,
    tally: Tally,
}

impl Book {
    pub(super) fn new(run: u64) -> Self {
        Self::with(
            run,
            Room {
                stream: STREAM_EVENTS,
                pushes: PUSH_EVENTS,
                of_user: USER_EVENTS,
                rings_bytes: RINGS_BYTES,
            },
        )
    }

    pub(super) fn with(run: u64, room: Room) -> Self {
        Self {
            run,
            next: 1,
            room,
            stream: VecDeque::new(),
            pushes: VecDeque::new(),
            rings: LruCache::new_unbounded(),
            rings_bytes: 0,
            rates: Rates::new(),
        }
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The number of the first event that the stream has, or will have.
    pub(super) fn first(&self) -> u64 {
        self.next - self.stream.len() as u64
    }

    /// The event of that number.
    pub(super) fn get(&self, number: u64) -> Option<&Arc<Entry>> {
        let index = number.checked_sub(self.first())?;
        self.stream.get(usize::try_from(index).ok()?)
    }

    /// See [`Events::number_of`](super::Events::number_of).
    pub(super) fn number_of(&self, id: &str) -> Option<u64> {
        if id == "0" {
            return Some(0);
        }
        let (run, number) = id.split_once('.')?;
        let run = u64::from_str_radix(run, 16).ok()?;
        let number = number.parse().ok()?;
        Some(if run == self.run { number } else { 0 })
    }

    pub(super) fn of_user(&self, user: &UserId) -> Vec<Arc<Entry>> {
        let ring = self.rings.peek(user);
        ring.map_or_else(Vec::new, |ring| ring.events.iter().rev().cloned().collect())
    }

    pub(super) fn pushes(&self) -> Vec<Arc<Entry>> {
        self.pushes.iter().rev().cloned().collect()
    }

    /// `lost`: how many more there were.
    pub(super) fn add_all(&mut self, events: Vec<Event>, lost: u64, now: Stamp) {
        for event in events {
            self.add(event);
        }
        if lost > 0 {
            self.tell(sum(Kind::Dropped, None, lost, now));
        }
    }

    /// Says what was summed up, once the minute is over.
    pub(super) fn tick(&mut self, at: Instant, now: Stamp) {
        for (user, kind, count) in self.rates.begin_minute(at) {
            self.tell(sum(kind, user, count, now));
        }
    }

    fn add(&mut self, event: Event) {
        let is_known = event.standing != Standing::Claimed;
        let admitted = match &event.user {
            Some(user) if is_known || self.rings.contains_key(user) => {
                // What is not told counts as well: who floods is not forgotten, or the flood would begin anew.
                let ring = self.rings.get_mut(user);
                let mut fresh = Tally::default();
                let tally = ring.map_or(&mut fresh, |ring| &mut ring.tally);
                let admitted = self.rates.admits(tally, &event);
                if admitted && !self.rings.contains_key(user) {
                    self.begin_ring(user.clone(), fresh);
                }
                admitted
            }
            _ => self.rates.admits_stranger(&event),
        };
        if admitted {
            self.tell(event);
        }
    }

    fn begin_ring(&mut self, user: UserId, tally: Tally) {
        let events = VecDeque::new();
        self.rings.insert(user, Ring { events, tally });
        self.rings_bytes += RING_BYTES;
    }

    fn tell(&mut self, event: Event) {
        let entry = Arc::new(Entry {
            run: self.run,
            number: self.next,
            event,
        });
        self.next += 1;
        push(&mut self.stream, entry.clone(), self.room.stream);
        if entry.event.kind == Kind::Push {
            push(&mut self.pushes, entry.clone(), self.room.pushes);
        }
        if let Some(user) = &entry.event.user
            && let Some(ring) = self.rings.get_mut(user)
        {
            self.rings_bytes += entry.bytes();
            let gone = push(&mut ring.events, entry.clone(), self.room.of_user);
            self.rings_bytes -= gone.map_or(0, |gone| gone.bytes());
        }
        while self.rings_bytes > self.room.rings_bytes
            && let Some((_, ring)) = self.rings.remove_lru()
        {
            let events = ring.events.iter().map(|entry| entry.bytes());
            self.rings_bytes -= RING_BYTES + events.sum::<usize>();
        }
    }

    #[cfg(test)]
    pub(super) fn rings(&self) -> (usize, usize) {
        (self.rings.len(), self.rings_bytes)
    }
}

/// Appends to a ring of so many; what has left it.
fn push(ring: &mut VecDeque<Arc<Entry>>, entry: Arc<Entry>, room: usize) -> Option<Arc<Entry>> {
    ring.push_back(entry);
    (ring.len() > room).then(|| ring.pop_front()).flatten()
}

/// So many more of a kind.
fn sum(kind: Kind, user: Option<UserId>, count: u64, time: Stamp) -> Event {
    Event {
        time,
        kind,
        user,
        standing: Standing::Authenticated,
        client: None,
        address: None,
        packet: None,
        reason: None,
        detail: None,
        sender: None,
        count,
        is_sum: true,
    }
}
