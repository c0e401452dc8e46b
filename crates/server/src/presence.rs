//! Telling friends who comes and goes (PROTOCOL.md, section 10).
//!
//! Changes are published one after another, each as the directory stands at that moment. A subscriber with more friends
//! than there is room for gets the rest in pieces, while the others go on. What takes long, because somebody has many
//! friends or the file is locked, holds up only the changes after it.

use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::router::DuePresence;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::directory::{DirectoryError, FriendList, Who};
use crate::housekeeping::Household;
use crate::ticks::{next, ticks};

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_millis(50);

/// A subscriber with many friends gets their presence in pieces, with this much time to read between two pieces, and so
/// many pieces at most. What finds no room then is dropped.
const ROOM_TIME: Duration = Duration::from_millis(10);
const ROOM_TRIES: u32 = 20;

/// Subscribers who get the rest later; of more, it is dropped.
const MAX_SLOW: usize = 1024;

/// Tells what there is to tell, until the server stops.
pub(crate) async fn tell_presence(household: Household, mut stop: watch::Receiver<bool>) {
    let mut teller = PresenceTeller::new(&household);
    let mut ticks = ticks(TICK);
    while next(&mut ticks, &mut stop).await {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = teller.tell_all() => {}
        }
    }
}

struct PresenceTeller<'a> {
    household: &'a Household,
    slow: Vec<Subscriber<'a>>,
    /// The directory did not answer the last time.
    failing: bool,
}

/// A subscriber, and whose presence is still to be sent.
struct Subscriber<'a> {
    due: DuePresence,
    left: Vec<UserId>,
    /// Those who come after them.
    friends: Box<dyn FriendList + 'a>,
    /// How often there may still be no room.
    tries: u32,
}

impl<'a> PresenceTeller<'a> {
    fn new(household: &'a Household) -> Self {
        Self {
            household,
            slow: Vec::new(),
            failing: false,
        }
    }

    async fn tell_all(&mut self) {
        loop {
            let turn_ends = Instant::now() + ROOM_TIME;
            let mut is_all = true;
            while let Some(due) = self.household.router.next_presence() {
                let told = self.tell(due).await;
                self.report(&told);
                // There may always be more, and who is slow has had time to read by then.
                if Instant::now() >= turn_ends {
                    is_all = false;
                    break;
                }
            }
            if is_all && self.slow.is_empty() {
                return;
            }
            if is_all {
                tokio::time::sleep_until(turn_ends).await;
            }
            for subscriber in std::mem::take(&mut self.slow) {
                let told = self.tell_subscriber(subscriber).await;
                self.report(&told);
            }
        }
    }

    /// Logs once that presence cannot be sent, and once that it can again.
    fn report(&mut self, told: &Result<(), DirectoryError>) {
        match told {
            Err(error) if !self.failing => {
                tracing::warn!(%error, "presence is not sent: the accounts database does not answer");
            }
            Ok(()) if self.failing => tracing::info!("presence is sent again"),
            Ok(()) | Err(_) => {}
        }
        self.failing = told.is_err();
    }

    async fn tell(&mut self, due: DuePresence) -> Result<(), DirectoryError> {
        if due.has_changed() {
            tell_of_change(self.household, &due).await?;
        }
        if !due.has_subscribed() {
            return Ok(());
        }
        let directory = &self.household.directory;
        let subscriber = Subscriber {
            friends: directory.friends(due.user(), Who::IsSeen),
            due,
            left: Vec::new(),
            tries: ROOM_TRIES,
        };
        self.tell_subscriber(subscriber).await
    }

    /// As much as there is room for; the rest later.
    async fn tell_subscriber(&mut self, mut it: Subscriber<'a>) -> Result<(), DirectoryError> {
        let Household { router, clock, .. } = self.household;
        loop {
            let told = router.tell_subscriber(&it.due, &it.left, clock.now());
            it.left.drain(..told);
            if !it.left.is_empty() {
                if it.tries > 0 && self.slow.len() < MAX_SLOW {
                    it.tries -= 1;
                    self.slow.push(it);
                }
                return Ok(());
            }
            let Some(some) = it.friends.next().await? else {
                return Ok(());
            };
            it.left = some;
        }
    }
}

async fn tell_of_change(household: &Household, due: &DuePresence) -> Result<(), DirectoryError> {
    let mut friends = household.directory.friends(due.user(), Who::SeesUser);
    while let Some(some) = friends.next().await? {
        let now = household.clock.now();
        household.router.tell_of_change(due, &some, now);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
