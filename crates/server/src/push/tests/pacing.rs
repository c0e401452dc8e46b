//! Pace and receivers together, with a service that answers at once: for how long others wait for receivers whose pushes it
//! fails.

use jam_core::push::PushOrder;
use tokio::time::Instant;

use super::*;
use crate::push::pace::{Failure, Pace};
use crate::push::receivers::Receivers;

const SECOND: Duration = Duration::from_secs(1);

/// The service answers 500 for those who are below this.
const FAILING: usize = 1000;

struct Sender {
    pace: Pace,
    receivers: Receivers,
    now: Instant,
    waiting: Vec<Waiting>,
}

struct Waiting {
    /// It is not tried before.
    due: Instant,
    receiver: usize,
    /// It has been tried, or had to wait for another one to the same receiver.
    is_behind: bool,
}

impl Sender {
    fn new() -> Self {
        Self {
            pace: Pace::default(),
            receivers: Receivers::default(),
            now: Instant::now(),
            waiting: Vec::new(),
        }
    }

    fn push(&mut self, receivers: impl IntoIterator<Item = usize>) {
        self.waiting
            .extend(receivers.into_iter().map(|receiver| Waiting {
                due: self.now,
                receiver,
                is_behind: false,
            }));
    }

    /// As the router's queue does.
    fn take(&mut self) -> Waiting {
        self.waiting.sort_by_key(|it| it.due);
        let is_newest = |it: &Waiting| !it.is_behind && it.due <= self.now;
        let newest = match self.pace.order() {
            PushOrder::OldestFirst => None,
            PushOrder::NewestFirst => self.waiting.iter().rposition(is_newest),
        };
        self.waiting.remove(newest.unwrap_or(0))
    }

    /// Tries what is next, or lets time pass. Who was tried.
    fn step(&mut self) -> Option<usize> {
        if !self.pace.has_room(0, self.now) {
            self.now = self.pace.next_probe(self.now).unwrap();
            return None;
        }
        let taken = self.take();
        let next = taken.receiver;
        self.now = self.now.max(taken.due);
        let id = user(&next.to_string());
        if let Err(wait) = self.receivers.start(&id, self.now) {
            let due = self.now + wait;
            let is_behind = true;
            self.waiting.push(Waiting {
                due,
                is_behind,
                ..taken
            });
            return None;
        }
        self.pace.started(self.now);
        if next >= FAILING {
            self.pace.answered(self.now, self.now);
            self.receivers.answered(&id);
            return Some(next);
        }
        let failed = self.receivers.failed(&id, 0, None, self.now);
        let failure = Failure {
            receiver: &id,
            is_news: failed.is_news,
            scope: failed.scope(Scope::Request),
            retry_after: None,
            why: "500",
        };
        self.pace.failed(self.now, &failure, self.now);
        self.waiting.push(Waiting {
            due: self.now + failed.wait,
            receiver: next,
            is_behind: true,
        });
        Some(next)
    }

    /// How long it takes until this one is told, and how many are tried before.
    fn tell(&mut self, receiver: usize) -> (Duration, usize) {
        self.push([receiver]);
        self.wait_for(receiver)
    }

    fn wait_for(&mut self, receiver: usize) -> (Duration, usize) {
        let (began, mut tried) = (self.now, 0);
        loop {
            assert!(self.now - began < 3600 * SECOND, "{tried} were tried");
            match self.step() {
                Some(told) if told == receiver => return (self.now - began, tried),
                Some(_) => tried += 1,
                None => {}
            }
        }
    }
}

/// A hundred of them, all of whom are due.
#[test]
fn who_fails_again_and_again_costs_the_others_a_moment() {
    let mut sender = Sender::new();
    sender.tell(FAILING);
    sender.push(0..100);
    sender.tell(FAILING + 1);
    for round in 2..20 {
        sender.now += 300 * SECOND;
        let (waited, tried) = sender.tell(FAILING + round);
        assert!(waited <= 20 * SECOND, "{waited:?} behind {tried}");
    }
}

/// Each of those who came before is tried before, and as many of those who came since.
#[test]
fn who_fails_for_the_first_time_costs_a_second_or_two_while_others_are_answered() {
    let mut sender = Sender::new();
    sender.tell(FAILING);
    sender.push(0..30);
    sender.push([FAILING + 1]);
    sender.push(30..60);
    let (waited, tried) = sender.wait_for(FAILING + 1);
    assert!(tried >= 55, "{tried}");
    assert!(waited <= 240 * SECOND, "{waited:?} behind {tried}");
}

/// The next push that the service takes is found, whatever waits before it.
#[test]
fn who_came_last_waits_for_seconds_behind_any_number_of_receivers_who_fail() {
    let mut sender = Sender::new();
    sender.tell(FAILING);
    sender.push(0..FAILING);
    for round in 1..20 {
        let (waited, tried) = sender.tell(FAILING + round);
        assert!(waited <= 5 * SECOND, "{waited:?} behind {tried}");
        // Some more fail until then.
        for _ in 0..10 {
            sender.step();
        }
    }
}

/// The service takes no other push, and more of those who fail are owed one all the time: each who came before is tried
/// once, and as many of those who came since.
#[test]
fn in_the_middle_of_a_backlog_each_push_has_its_turn() {
    for before in [10, 100, 700] {
        let mut sender = Sender::new();
        sender.tell(FAILING);
        sender.push(0..before);
        sender.push([FAILING + 1]);
        let (began, mut tried, mut next) = (sender.now, 0, before);
        loop {
            match sender.step() {
                Some(FAILING..) => break,
                Some(_) => tried += 1,
                None => continue,
            }
            assert!(tried <= 2 * before + 1, "{tried} behind {before}");
            next = (next + 1) % FAILING;
            sender.push([next, next]);
        }
        let waited = sender.now - began;
        assert!(waited <= 120 * SECOND * u32::try_from(before).unwrap());
    }
}

/// However many pushes wait.
#[test]
fn a_service_that_is_down_is_tried_less_and_less() {
    let mut sender = Sender::new();
    sender.tell(FAILING);
    let began = sender.now;
    sender.push(0..FAILING);
    let mut tried = 0;
    while sender.now - began < 3 * 3600 * SECOND {
        tried += usize::from(sender.step().is_some());
    }
    assert!(tried < 400, "{tried} requests in three hours");
}
