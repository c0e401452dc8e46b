//! What has to be done without a packet that asks for it.
//!
//! Four loops, so that none waits for another's I/O: the rules' time (session expiry, delayed wills), the
//! grace of messages and of acknowledgements, the directory (a change that another process commits takes effect on open connections within a
//! second: PROTOCOL.md, section 6), and the TLS files. Each ends when the server stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jam_core::directory::{Answers, Generation, Question, Unavailable};
use jam_core::ids::UserId;
use jam_core::router::{Router, SHARDS};
use jam_core::{DueWill, EndedAccounts};
use tokio::sync::watch;
use tokio::task::coop;

use crate::clock::Clock;
use crate::deferred_acks::DeferredAcks;
use crate::directory::{AccountsDatabase, DirectoryError};
use crate::events::Events;
use crate::health::Health;
use crate::ticks::{next, ticks};
use crate::tls::Tls;

/// How often the rules are told the time, and the directory is looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often messages are handed to the store whose grace is over: a part of the grace.
const GRACE_TICK: Duration = Duration::from_millis(20);

/// How often the TLS files are looked at.
const TLS_TICK: Duration = Duration::from_secs(5);

/// From how many users on their accounts are read, and others get their turn, before the next are gone through when
/// the directory has changed.
const ACCOUNTS_AT_ONCE: usize = 256;

/// From how many users on the others are gone through at a later tick, if they are not connected.
const SWEPT_AT_ONCE: usize = 1024;

/// At the latest after this time everybody is gone through again: what is hidden does not stay for ever.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);

/// What the loops have to do with.
#[derive(Clone)]
pub(crate) struct Household {
    pub(crate) clock: Arc<Clock>,
    pub(crate) router: Arc<Router>,
    pub(crate) directory: Arc<dyn AccountsDatabase>,
    pub(crate) events: Arc<Events>,
}

/// Tells the rules the time and publishes the wills that have come due.
pub(crate) async fn keep_time(household: Household, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(TICK);
    while next(&mut ticks, &mut stop).await {
        // A hundred thousand may be due at once: messages come in between. What comes to be due meanwhile waits
        // for the next tick.
        let now = household.clock.now();
        while !*stop.borrow() && household.router.handle_timeout(now) {
            coop::consume_budget().await;
        }
        while !*stop.borrow()
            && let Some(will) = household.router.next_will()
            && publish_will(&household, will).await
        {
            coop::consume_budget().await;
        }
    }
}

/// Hands messages to the store that were not acknowledged within their grace, and reaps deferred acknowledgements that
/// no message has reaped.
pub(crate) async fn end_graces(
    clock: Arc<Clock>,
    router: Arc<Router>,
    deferred_acks: Arc<DeferredAcks>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(GRACE_TICK);
    while next(&mut ticks, &mut stop).await {
        deferred_acks.handle_tick();
        router.hand_over(clock.now());
    }
}

/// Whether the directory could say what becomes of it; if not, it is due again.
async fn publish_will(household: &Household, will: DueWill) -> bool {
    let mut answers = Answers::default();
    loop {
        let now = household.clock.now();
        let Err(question) = household.router.publish_will(&will, &answers, now) else {
            return true;
        };
        if let Err(error) = ask(household, question, &mut answers).await {
            // The directory's watch says so once; this would come with each will.
            tracing::debug!(%error, "a will waits: the accounts database does not answer");
            household.router.put_back_will(will);
            return false;
        }
    }
}

/// Adds the directory's answer, as often as [`Answers`] has room for one.
async fn ask(
    household: &Household,
    question: Question,
    answers: &mut Answers,
) -> Result<(), DirectoryError> {
    let answer = household.directory.answer(question).await?;
    answers.add(answer).map_err(|Unavailable| {
        DirectoryError::new("the accounts database changes faster than it can be read")
    })
}

/// Looks whether the directory has changed, and checks everybody who is connected if it has.
pub(crate) async fn watch_directory(
    household: Household,
    health: Arc<Health>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(TICK);
    let mut checked = None;
    let mut sweep = Sweep::default();
    while next(&mut ticks, &mut stop).await {
        let result = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            result = check_directory(&household, &mut checked, &mut sweep) => result,
        };
        match result {
            Ok(()) if health.set_directory_fails(false) => {
                tracing::info!("the accounts database answers");
            }
            Err(error) if health.set_directory_fails(true) => {
                tracing::error!(%error, "the accounts database does not answer");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// `checked`: the generation for which everybody who is connected was checked last.
async fn check_directory(
    household: &Household,
    checked: &mut Option<Generation>,
    sweep: &mut Sweep,
) -> Result<(), DirectoryError> {
    let generation = household.directory.look().await?;
    sweep.look(household.directory.replacements());
    if *checked != Some(generation) {
        household.router.friends_may_have_changed();
        household.router.begin_check(generation);
        recheck(household, sweep.may_come_back()).await?;
        // The generation is of before the check: what changes meanwhile is seen the next time.
        *checked = Some(generation);
    }
    sweep.go_on(household, generation).await?;
    say_what_ended(household);
    Ok(())
}

/// Checks every user that the server remembers, connected or not, some at each tick: sessions end with the token they were
/// made with, and everything with the account. A user whose turn has not come yet is checked when something of theirs is used.
///
/// Who is missing after a start, or after another file has taken the place of the accounts' one, may be so by a mistake
/// that will be put right: until everybody has been gone through once, they are hidden, and nothing of theirs is removed.
#[derive(Debug, Default)]
struct Sweep {
    /// As of the beginning of the last one.
    generation: Option<Generation>,
    began: Option<Instant>,
    /// Where it is; `None` when it is over.
    part: Option<usize>,
    /// How often the accounts had been replaced when it began.
    replacements: u64,
    /// The number of replacements after which everybody has been gone through.
    known: Option<u64>,
}

impl Sweep {
    /// After a replacement everything is gone through anew.
    fn look(&mut self, replacements: u64) {
        if replacements != self.replacements {
            self.replacements = replacements;
            (self.generation, self.part) = (None, None);
        }
    }

    fn may_come_back(&self) -> bool {
        self.known != Some(self.replacements)
    }

    async fn go_on(
        &mut self,
        household: &Household,
        generation: Generation,
    ) -> Result<(), DirectoryError> {
        let is_due = self.generation != Some(generation)
            || self
                .began
                .is_none_or(|began| began.elapsed() >= SWEEP_PERIOD);
        if self.part.is_none() && is_due {
            (self.generation, self.part) = (Some(generation), Some(0));
            self.began = Some(Instant::now());
        }
        let mut looked_at = 0;
        while let Some(part) = self.part
            && looked_at < SWEPT_AT_ONCE
        {
            let users = household.router.users_of(part);
            looked_at += users.len();
            recheck_some(household, &users, self.may_come_back()).await?;
            self.part = Some(part + 1).filter(|part| *part < SHARDS);
            if self.part.is_none() {
                self.known = Some(self.replacements);
            }
        }
        Ok(())
    }
}

fn say_what_ended(household: &Household) {
    let EndedAccounts {
        lives,
        messages,
        retained,
        sessions,
        hidden,
    } = household.router.take_ended();
    if hidden > 0 {
        tracing::warn!(
            accounts = hidden,
            "accounts are missing, or are others than before; what was kept for them is hidden, and is removed after \
             24 hours, or when another account uses its id: if this is the wrong accounts database, put the right one back"
        );
    }
    if lives > 0 {
        tracing::info!(
            accounts = lives,
            messages,
            retained,
            sessions,
            "accounts are gone, and what was kept for them"
        );
    }
}

async fn recheck(household: &Household, may_come_back: bool) -> Result<(), DirectoryError> {
    let mut users = Vec::new();
    for some in household.router.connected_users() {
        users.extend(some);
        if users.len() >= ACCOUNTS_AT_ONCE {
            recheck_some(household, &users, may_come_back).await?;
            users.clear();
        }
    }
    recheck_some(household, &users, may_come_back).await
}

async fn recheck_some(
    household: &Household,
    users: &[UserId],
    may_come_back: bool,
) -> Result<(), DirectoryError> {
    let accounts = household.directory.accounts(users).await?;
    let now = household.clock.now();
    for (user, account) in users.iter().zip(accounts) {
        let mut answers = Answers::of(account);
        while let Err(question) = household.router.recheck(user, &answers, may_come_back, now) {
            ask(household, question, &mut answers).await?;
        }
    }
    Ok(())
}

/// Takes up TLS files that have changed.
pub(crate) async fn watch_tls(tls: Arc<Tls>, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(TLS_TICK);
    while next(&mut ticks, &mut stop).await {
        let tls = tls.clone();
        let look = tokio::task::spawn_blocking(move || tls.reload_if_changed());
        look.await.expect("reading TLS files does not panic");
    }
}
