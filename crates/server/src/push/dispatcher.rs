//! Takes the pushes that are due and has them delivered.
//!
//! One task. It never stands in the way of a message: what it cannot send waits with the router, which
//! bounds how many, and of those at most `MAX_IN_FLIGHT` are on their way. What cannot be sent for its receiver's
//! sake holds up no other (`receivers`, `pace`). For each, the directory is asked
//! once more, for since it became due the sender may have been blocked or the token changed. When the server
//! stops, what is on its way may still arrive within [`STOP_PATIENCE`]; the rest stays owed, is in the store,
//! and goes out after the start. The tests are in `tests/dispatcher.rs`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jam_core::push::{DuePush, PushOutcome};
use jam_core::time::{Stamp, Time};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::pace::{Failure, Pace, backoff};
use super::receivers::Receivers;
use super::{Delivery, Notifier, Push, Scope};
use crate::directory::AccountsDatabase;
use crate::events::PushResult;
use crate::housekeeping::Household;
use crate::metrics::{PushCount, ServerMetrics};

/// How often it is looked whether a push that waits may be tried again.
const TICK: Duration = Duration::from_millis(250);

/// A message that is older is no news.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long a stop waits for the pushes that are on their way: who was sent one is not sent it again after
/// the start.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// Kinds of refusals that are told of. A service has some ten of them.
const MAX_KINDS: usize = 32;

/// Sends what is due until the server stops.
pub(crate) async fn send_pushes(
    household: Household,
    notifier: Arc<dyn Notifier>,
    metrics: Arc<ServerMetrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let router = household.router.clone();
    let mut dispatcher = Dispatcher::new(household.clone(), notifier, metrics);
    loop {
        let has_room = dispatcher.has_room();
        let again = dispatcher.pace.next_probe(Instant::now());
        let order = dispatcher.pace.order();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(tried) = dispatcher.under_way.join_next() => {
                dispatcher.settle(tried.expect("a try neither panics nor is cancelled"));
            }
            push = std::future::poll_fn(|context| router.poll_push(context, household.clock.now(), order)), if has_room => {
                dispatcher.start(push);
            }
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            _ = ticks.tick() => {}
        }
        dispatcher.report();
    }
    dispatcher.finish().await;
}

struct Dispatcher {
    household: Household,
    notifier: Arc<dyn Notifier>,
    metrics: Arc<ServerMetrics>,
    under_way: JoinSet<Tried>,
    pace: Pace,
    receivers: Receivers,
    log: Log,
}

/// A push that has been tried.
struct Tried {
    push: DuePush,
    began: Instant,
    result: Attempt,
}

/// What came of a try.
#[derive(Debug)]
enum Attempt {
    /// The notifier has tried.
    Made(Delivery),
    /// The sender may not write to the receiver any more, or there is no token to send it to.
    Pointless,
    /// The token was dead, and the receiver has another one by now.
    Replaced,
    /// The directory does not say where to send it. It says why in the log, by itself.
    Unknown,
}

/// What is told of pushes that are not sent, each once.
#[derive(Debug, Default)]
struct Log {
    kinds: HashSet<String>,
    /// Dropped for their age, and not told of yet.
    expired: usize,
}

impl Dispatcher {
    fn new(household: Household, notifier: Arc<dyn Notifier>, metrics: Arc<ServerMetrics>) -> Self {
        Self {
            household,
            notifier,
            metrics,
            under_way: JoinSet::new(),
            pace: Pace::default(),
            receivers: Receivers::default(),
            log: Log::default(),
        }
    }

    fn has_room(&self) -> bool {
        self.pace.has_room(self.under_way.len(), Instant::now())
    }

    fn start(&mut self, push: DuePush) {
        let now = self.household.clock.now();
        if now.since(push.since()) > MAX_AGE {
            self.log.expired += 1;
            self.record(&push, ("expired", None));
            self.metrics.pushed(PushCount::Expired, None);
            self.household
                .router
                .push_settled(push, PushOutcome::Dropped, now);
            return;
        }
        if let Err(wait) = self.receivers.start(push.receiver(), Instant::now()) {
            let outcome = PushOutcome::Deferred(now + wait);
            self.household.router.push_settled(push, outcome, now);
            return;
        }
        self.pace.started(Instant::now());
        let (household, notifier) = (self.household.clone(), self.notifier.clone());
        self.under_way.spawn(async move {
            let began = Instant::now();
            let since = household.clock.stamp(push.since());
            let result = attempt(&*household.directory, &*notifier, &push, since).await;
            Tried {
                push,
                began,
                result,
            }
        });
    }

    fn settle(&mut self, tried: Tried) {
        let Tried {
            push,
            began,
            result,
        } = tried;
        let now = self.household.clock.now();
        self.count(&result, began);
        let wait = self.learn(&push, began, &result);
        if let Attempt::Made(Delivery::Rejected { kind }) = &result {
            self.log.refused(kind);
        }
        if let Some(told) = told(&result, push.attempts()) {
            self.record(&push, told);
        }
        let outcome = outcome(&result, now + wait);
        self.household.router.push_settled(push, outcome, now);
    }

    /// What came of it and, in the service's words, why.
    fn record(&self, push: &DuePush, (outcome, detail): (&'static str, Option<&str>)) {
        let clock = &self.household.clock;
        let result = PushResult {
            receiver: push.receiver(),
            sender: push.sender(),
            outcome,
            detail,
        };
        let stamp = clock.stamp(clock.now());
        self.household.events.pushed(result, stamp);
    }

    fn count(&self, result: &Attempt, began: Instant) {
        let took = Some(began.elapsed());
        let (result, took) = match result {
            Attempt::Made(Delivery::Delivered) => (PushCount::Sent, took),
            Attempt::Made(Delivery::Unregistered) | Attempt::Replaced => {
                (PushCount::TokenDead, took)
            }
            Attempt::Made(Delivery::Rejected { .. }) => (PushCount::Refused, took),
            Attempt::Made(Delivery::Unavailable { .. }) => (PushCount::Retry, took),
            Attempt::Pointless => (PushCount::Withdrawn, None),
            Attempt::Unknown => (PushCount::Retry, None),
        };
        self.metrics.pushed(result, took);
    }

    /// Tells pace and receivers what a try says of them. How long the push waits, if it is to be tried again.
    fn learn(&mut self, push: &DuePush, began: Instant, result: &Attempt) -> Duration {
        let (receiver, now) = (push.receiver(), Instant::now());
        let delivery = match result {
            Attempt::Made(delivery) => delivery,
            Attempt::Replaced => {
                self.pace.answered(began, now);
                self.receivers.answered(receiver);
                return backoff(push.attempts());
            }
            Attempt::Pointless | Attempt::Unknown => {
                self.pace.undecided(began);
                self.receivers.undecided(receiver);
                return backoff(push.attempts());
            }
        };
        let Delivery::Unavailable {
            scope,
            retry_after,
            why,
        } = delivery
        else {
            self.pace.answered(began, now);
            self.receivers.answered(receiver);
            return Duration::ZERO;
        };
        let attempts = push.attempts();
        let (scope, is_news, wait) = if *scope == Scope::Service {
            self.receivers.undecided(receiver);
            let wait = backoff(attempts).max(retry_after.unwrap_or_default());
            (Scope::Service, true, wait)
        } else {
            let failed = (self.receivers).failed(receiver, attempts, *retry_after, now);
            (failed.scope(*scope), failed.is_news, failed.wait)
        };
        tracing::debug!(user = receiver.as_str(), ?wait, "a push has to wait: {why}");
        let failure = Failure {
            receiver,
            is_news,
            scope,
            retry_after: *retry_after,
            why,
        };
        self.pace.failed(began, &failure, now);
        wait
    }

    fn report(&mut self) {
        let waiting = self.household.router.waiting_pushes() + self.under_way.len();
        self.pace.report(waiting, Instant::now());
        // Together: after an outage of a day they come in crowds.
        if self.log.expired > 0 && self.under_way.is_empty() {
            let dropped = std::mem::take(&mut self.log.expired);
            tracing::warn!(
                dropped,
                "pushes were dropped: they had waited for more than a day"
            );
        }
    }

    async fn finish(mut self) {
        let rest = async {
            while let Some(tried) = self.under_way.join_next().await {
                self.settle(tried.expect("a try neither panics nor is cancelled"));
            }
        };
        // Those that take longer end with the set, and stay owed.
        let _ = tokio::time::timeout(STOP_PATIENCE, rest).await;
    }
}

impl Log {
    fn refused(&mut self, kind: &str) {
        if self.kinds.len() < MAX_KINDS && self.kinds.insert(kind.to_owned()) {
            tracing::warn!(
                "the push service refuses a push: {kind}; such pushes are dropped, which is said once"
            );
        }
    }
}

/// Asks where the push goes and has it delivered there. `since`: when it became due, as the wall clock has it.
async fn attempt(
    directory: &dyn AccountsDatabase,
    notifier: &dyn Notifier,
    push: &DuePush,
    since: Stamp,
) -> Attempt {
    let address = match directory.push_address(push.sender(), push.receiver()).await {
        Ok(Some(address)) => address,
        Ok(None) => return Attempt::Pointless,
        Err(_) => return Attempt::Unknown,
    };
    if notifier.needs_token() && address.token.is_none() {
        return Attempt::Pointless;
    }
    let push = Push {
        receiver: push.receiver().clone(),
        sender: push.sender().clone(),
        since,
        token: address.token,
    };
    let delivery = notifier.deliver(&push).await;
    if delivery == Delivery::Unregistered && is_replaced(directory, &push).await {
        return Attempt::Replaced;
    }
    Attempt::Made(delivery)
}

/// Clears a dead token, unless the receiver has another one by now: whether they have. One that cannot be cleared is met
/// again at the next push.
async fn is_replaced(directory: &dyn AccountsDatabase, push: &Push) -> bool {
    let Some(token) = &push.token else {
        return false;
    };
    let user = push.receiver.as_str();
    match directory
        .clear_notification_token(&push.receiver, token)
        .await
    {
        Ok(true) => tracing::info!(user, "a notification token was dead and is cleared"),
        Ok(false) => return true,
        Err(error) => {
            tracing::warn!(user, %error, "a notification token is dead and cannot be cleared");
        }
    }
    false
}

/// What an operator is told: the outcome, and why. Of a push that is tried again, only the first time.
fn told(result: &Attempt, attempts: u32) -> Option<(&'static str, Option<&str>)> {
    let told = match result {
        Attempt::Made(Delivery::Delivered) => ("sent", None),
        Attempt::Made(Delivery::Unregistered) => ("token_dead", None),
        Attempt::Made(Delivery::Rejected { kind }) => ("refused", Some(kind.as_str())),
        Attempt::Pointless => ("withdrawn", None),
        _ if attempts > 0 => return None,
        Attempt::Made(Delivery::Unavailable { why, .. }) => ("retry", Some(why.as_str())),
        Attempt::Replaced => ("retry", Some("the token has changed")),
        Attempt::Unknown => ("retry", Some("the accounts database does not answer")),
    };
    Some(told)
}

/// What the router is told; `again` is when a push that was not sent is tried again.
fn outcome(result: &Attempt, again: Time) -> PushOutcome {
    match result {
        Attempt::Made(Delivery::Delivered) => PushOutcome::Sent,
        Attempt::Made(Delivery::Unregistered | Delivery::Rejected { .. }) | Attempt::Pointless => {
            PushOutcome::Dropped
        }
        Attempt::Made(Delivery::Unavailable { .. }) | Attempt::Replaced | Attempt::Unknown => {
            PushOutcome::Later(again)
        }
    }
}
