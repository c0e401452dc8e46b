//! Telling friends who comes and goes (PROTOCOL.md, section 10).
//!
//! One thing is told after another, each as the directory stands at that moment. What takes long, because
//! somebody has many friends or the file is locked, holds up nothing but what is to be told after it.

use std::time::Duration;

use jam_core::router::DuePresence;
use tokio::sync::watch;

use crate::directory::{DirectoryError, Who};
use crate::housekeeping::Household;
use crate::ticks::{next, ticks};

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_millis(50);

/// A subscriber with many friends is told of them in pieces, with this much time to read between two pieces, and so
/// often at most. What finds no room then is not sent.
const ROOM_TIME: Duration = Duration::from_millis(10);
const ROOM_TRIES: u32 = 20;

/// Tells what there is to tell, until the server stops.
pub(crate) async fn tell_presence(household: Household, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(TICK);
    let mut failing = false;
    while next(&mut ticks, &mut stop).await {
        while let Some(due) = household.router.next_presence() {
            let told = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                told = tell(&household, &due) => told,
            };
            match &told {
                Err(error) if !failing => {
                    tracing::warn!(%error, "presence is not told: the accounts database does not answer");
                }
                Ok(()) if failing => tracing::info!("presence is told again"),
                Ok(()) | Err(_) => {}
            }
            failing = told.is_err();
        }
    }
}

async fn tell(household: &Household, due: &DuePresence) -> Result<(), DirectoryError> {
    if due.has_changed() {
        tell_of_change(household, due).await?;
    }
    if due.has_subscribed() {
        tell_subscriber(household, due).await?;
    }
    Ok(())
}

async fn tell_of_change(household: &Household, due: &DuePresence) -> Result<(), DirectoryError> {
    let mut friends = household.directory.friends(due.user(), Who::SeesUser);
    while let Some(some) = friends.next().await? {
        let now = household.clock.now();
        household.router.tell_of_change(due, &some, now);
    }
    Ok(())
}

async fn tell_subscriber(household: &Household, due: &DuePresence) -> Result<(), DirectoryError> {
    let mut friends = household.directory.friends(due.user(), Who::IsSeen);
    let mut tries = ROOM_TRIES;
    while let Some(some) = friends.next().await? {
        let mut left = &some[..];
        loop {
            let now = household.clock.now();
            let told = household.router.tell_subscriber(due, left, now);
            left = &left[told..];
            if left.is_empty() {
                break;
            }
            if tries == 0 {
                return Ok(());
            }
            tries -= 1;
            tokio::time::sleep(ROOM_TIME).await;
        }
    }
    Ok(())
}
