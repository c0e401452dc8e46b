//! How many events one user, or one address that has no user, may put before all others in a minute. What comes beyond is
//! summed up: one event at the end of the minute says how many there were.
//!
//! Invariant: in a minute a user adds at most [`OF_USER`] events of each [`class`] and a sum of each, and all that have not
//! authenticated together [`OF_STRANGERS`] and a sum of each.

use std::collections::HashMap;
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jam_core::ids::UserId;
use jam_core::source::Source;

use super::{Event, Kind, Standing};

/// Events of one class, user and minute.
pub(super) const OF_USER: u8 = 8;

/// Events of one source of clients that have not authenticated, in a minute.
pub(super) const OF_SOURCE: u32 = 10;

/// Events of all of those.
pub(super) const OF_STRANGERS: u32 = 300;

/// Users of whom it is said how much was summed up; what was of others is said in one sum.
pub(super) const SUMS: usize = 256;

/// For so long events are counted together.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// One for each [`Kind`], and one more.
const CLASSES: usize = Kind::ALL.len() + 1;

/// What is counted together: a kind, but refusals of who came with a wrong token apart from all others, so that a stranger
/// hides nothing of a user's own.
fn class(event: &Event) -> usize {
    if event.kind == Kind::Refused && event.standing != Standing::Authenticated {
        CLASSES - 1
    } else {
        event.kind as usize
    }
}

fn kind_of(class: usize) -> Kind {
    Kind::ALL.get(class).copied().unwrap_or(Kind::Refused)
}

/// What one user has added in a minute.
#[derive(Debug, Default)]
pub(super) struct Tally {
    minute: u64,
    added: [u8; CLASSES],
}

/// How many of each class were not told one by one.
type Sums = [u64; CLASSES];

/// Everybody's.
#[derive(Debug)]
pub(super) struct Rates {
    minute: u64,
    since: Instant,
    strangers: u32,
    of_source: HashMap<Source, u32, RandomState>,
    of_user: HashMap<UserId, Sums, RandomState>,
    /// Of strangers, and of users for whom there was no room.
    of_others: Sums,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self {
            minute: 1,
            since: Instant::now(),
            strangers: 0,
            of_source: HashMap::default(),
            of_user: HashMap::default(),
            of_others: Sums::default(),
        }
    }

    /// Whether an event of a user may be told; if not, it is counted.
    pub(super) fn admits(&mut self, tally: &mut Tally, event: &Event) -> bool {
        if tally.minute != self.minute {
            (tally.minute, tally.added) = (self.minute, Default::default());
        }
        let class = class(event);
        let added = &mut tally.added[class];
        if *added < OF_USER {
            *added += 1;
            return true;
        }
        let has_room = self.of_user.len() < SUMS;
        let sums = match &event.user {
            Some(user) if has_room || self.of_user.contains_key(user) => {
                self.of_user.entry(user.clone()).or_default()
            }
            _ => &mut self.of_others,
        };
        sums[class] += event.count;
        false
    }

    /// The same, of a client that has not authenticated, and of whose user nothing is remembered.
    pub(super) fn admits_stranger(&mut self, event: &Event) -> bool {
        let address = event.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if self.strangers < OF_STRANGERS {
            let of_source = self.of_source.entry(Source::of(address)).or_insert(0);
            if *of_source < OF_SOURCE {
                *of_source += 1;
                self.strangers += 1;
                return true;
            }
        }
        self.of_others[class(event)] += event.count;
        false
    }

    /// Begins a new minute if the last one is over: what was not told in it, with its user if that is known.
    pub(super) fn begin_minute(&mut self, now: Instant) -> Vec<(Option<UserId>, Kind, u64)> {
        if now.duration_since(self.since) < MINUTE {
            return Vec::new();
        }
        (self.minute, self.since, self.strangers) = (self.minute + 1, now, 0);
        self.of_source = HashMap::default();
        let of_users = mem::take(&mut self.of_user).into_iter();
        let of_others = (None, mem::take(&mut self.of_others));
        let all = of_users
            .map(|(user, sums)| (Some(user), sums))
            .chain([of_others]);
        all.flat_map(|(user, sums)| {
            let told = sums.into_iter().enumerate().filter(|(_, sum)| *sum > 0);
            told.map(move |(class, sum)| (user.clone(), kind_of(class), sum))
        })
        .collect()
    }
}
