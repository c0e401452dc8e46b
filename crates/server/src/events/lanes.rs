//! From the threads that record to the one that collects: a bounded queue for each thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Event;

/// So many queues; threads beyond share them.
pub(super) const LANES: usize = 32;

/// Events in a lane. What finds no room is counted.
pub(super) const LANE_EVENTS: usize = 1024;

/// Events of one thread.
#[derive(Debug, Default)]
pub(super) struct Lane(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Event>,
    lost: u64,
}

impl Lane {
    pub(super) fn push(&self, event: Event) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.events.len() < LANE_EVENTS {
            waiting.events.push(event);
        } else {
            waiting.lost += 1;
        }
    }

    /// What is there, and how many found no room.
    pub(super) fn take(&self) -> (Vec<Event>, u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { events, lost } = std::mem::take(&mut *waiting);
        (events, lost)
    }
}

/// The lane of the calling thread; `None` if there are none.
pub(super) fn of_this_thread(lanes: &[Lane]) -> Option<&Lane> {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    if lanes.is_empty() {
        return None;
    }
    let number = NUMBER.get().unwrap_or_else(|| {
        let number = THREADS.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    });
    Some(&lanes[number % lanes.len()])
}
