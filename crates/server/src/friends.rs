//! Telling users who their friends are (PROTOCOL.md, section 10).
//!
//! A few lists are read at once, so that the database's thread is not woken for each. That takes all of the time for [`BURST`], so that a change is told soon, and half of it
//! from then on, so that a crowd of subscribers and a database that changes all the time leave the other half to everybody
//! else. The rules say whose turn it is and who is told (`jam_core::router`).

use std::time::Duration;

use futures_util::future::join_all;
use jam_core::friends::List;
use jam_core::router::DueFriends;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::directory::DirectoryError;
use crate::housekeeping::Household;
use crate::ticks::{next, ticks};

/// How often it is looked whether a list is to be read.
const TICK: Duration = Duration::from_millis(50);

/// Lists that are read at once.
pub(crate) const LISTS_AT_ONCE: usize = 8;

/// Work for which no rest is due.
const BURST: Duration = Duration::from_millis(500);
/// How long it rests at a time, when more is due.
const REST: Duration = Duration::from_millis(5);

/// Tells what there is to tell, until the server stops.
pub(crate) async fn tell_friends(household: Household, mut stop: watch::Receiver<bool>) {
    let mut teller = FriendsTeller {
        household,
        failing: false,
        has_cut: false,
        due_rest: Duration::ZERO,
        rests_since: Instant::now(),
    };
    let mut ticks = ticks(TICK);
    while next(&mut ticks, &mut stop).await {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = teller.tell_all() => {}
        }
    }
}

struct FriendsTeller {
    household: Household,
    /// The directory did not answer the last time.
    failing: bool,
    /// It has been said that a list is cut.
    has_cut: bool,
    /// As much as it has worked, less what it has rested.
    due_rest: Duration,
    rests_since: Instant,
}

impl FriendsTeller {
    /// Until nobody's turn has come, or the directory does not answer.
    async fn tell_all(&mut self) {
        let Household {
            router,
            directory,
            clock,
            ..
        } = self.household.clone();
        loop {
            let next = || router.next_friends(clock.now());
            let due: Vec<_> = std::iter::from_fn(next).take(LISTS_AT_ONCE).collect();
            if due.is_empty() {
                return;
            }
            self.due_rest = self.due_rest.saturating_sub(self.rests_since.elapsed());
            let began = Instant::now();
            let reads = join_all(due.iter().map(|due| directory.list_friends(due.user()))).await;
            let is_answering = reads.iter().all(Result::is_ok);
            for (due, read) in due.into_iter().zip(reads) {
                self.settle(due, read);
            }
            self.rests_since = Instant::now();
            self.due_rest = (self.due_rest + (self.rests_since - began)).min(2 * BURST);
            if !is_answering {
                return;
            }
            if self.due_rest > BURST {
                tokio::time::sleep(REST).await;
            }
        }
    }

    fn settle(&mut self, due: DueFriends, read: Result<List, DirectoryError>) {
        let Household { router, clock, .. } = &self.household;
        match &read {
            Ok(list) if list.is_cut() && !self.has_cut => {
                self.has_cut = true;
                tracing::warn!(user = %due.user(), friends = list.len(), "a list of friends is cut: it is too long");
            }
            Err(error) if !self.failing => {
                tracing::warn!(%error, "lists of friends wait: the accounts database does not answer");
            }
            Ok(_) if self.failing => tracing::info!("lists of friends are sent again"),
            Ok(_) | Err(_) => {}
        }
        self.failing = read.is_err();
        match read {
            Ok(list) => router.tell_friends(due, &list, clock.now()),
            Err(_) => router.put_back_friends(due),
        }
    }
}
