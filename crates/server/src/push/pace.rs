//! How fast pushes are sent, and what is said of a service that does not answer.
//!
//! While all is well [`MAX_IN_FLIGHT`] pushes are on their way at a time. What the service does not take is first
//! of all its receiver's trouble (`receivers`). It is the service's when no connection comes about, or when
//! [`SEVERAL`] receivers fail in a row: then nothing is sent for a pause, one push tries, and the next one after
//! a pause that grows with each *other* receiver that fails, until the service answers. A service that is down
//! so gets a request a minute, however many pushes wait.
//!
//! As long as all that fails may be the receivers' own trouble (they have had enough, or are slow to be reached), others
//! are tried as before, one each [`RECEIVERS_PAUSE`]: however many phones are in trouble, the others lose seconds.
//! So it is with a receiver who fails again when others have been answered meanwhile. What fails for the first time costs the
//! others a second while the service has answered lately: a pause is no longer than a part of the time since
//! ([`PATIENCE_PART`]), unless the service asks for that. Of the pushes that try, one is the oldest and the next the
//! newest: behind any number of receivers who fail, the next push that the service takes ends the pauses, and a push that
//! `n` receivers are before has its turn after at most `2n + 1` tries.
//!
//! It is said once that the service does not answer, and once that it does again; while it does not, once in
//! [`REMIND_AFTER`] with the number of pushes that wait. One that keeps coming and going is not told of more
//! often than that.

use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::push::PushOrder;
use tokio::time::Instant;

use super::Scope;

/// Pushes on their way at a time.
pub(super) const MAX_IN_FLIGHT: usize = 64;

/// Receivers whose pushes fail, with none in between that does not, before it counts as the service's trouble.
pub(super) const SEVERAL: usize = 3;

/// The first pause, and the least that a push waits to be tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Between two tries while receivers are in trouble, and perhaps the service with them.
const RECEIVERS_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, also if the service asks for a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How long the service has not answered, for each second of a pause.
const PATIENCE_PART: u32 = 30;

/// The longest that a push waits to be tried again, unless the service asks for more.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Between two reminders in the log.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// When pushes may be sent.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Receivers whose pushes have failed since one was answered, up to [`SEVERAL`].
    failing: Vec<UserId>,
    trouble: Option<Trouble>,
    /// When the service last answered.
    answered_at: Option<Instant>,
    /// When it was last said that the service does not answer.
    said: Option<Instant>,
    /// Whether it has not been said yet that it answers again.
    unfinished: bool,
}

/// The service does not answer.
#[derive(Debug)]
struct Trouble {
    /// What was sent before says nothing of how the service is now.
    since: Instant,
    /// The most that a failure has said.
    scope: Scope,
    /// Receivers whose tries have failed since then.
    probes: u32,
    /// Whether one is on its way.
    probing: bool,
    /// Which push is the next to try.
    order: PushOrder,
    next_probe: Instant,
    why: String,
}

impl Trouble {
    /// Whether it may be that of the receivers alone.
    fn is_receivers(&self) -> bool {
        self.scope == Scope::Receiver
    }
}

/// A push that the service has not taken.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    pub(super) receiver: &'a UserId,
    /// Whether it is the receiver's first, of several in a row.
    pub(super) is_news: bool,
    pub(super) scope: Scope,
    pub(super) retry_after: Option<Duration>,
    pub(super) why: &'a str,
}

impl Pace {
    /// Whether another push may be sent while so many are on their way.
    pub(super) fn has_room(&self, in_flight: usize, now: Instant) -> bool {
        let probes = |it: &Trouble| (it.is_receivers() || !it.probing) && now >= it.next_probe;
        in_flight < MAX_IN_FLIGHT && self.trouble.as_ref().is_none_or(probes)
    }

    /// When another push may be sent that may not now for the time's sake.
    pub(super) fn next_probe(&self, now: Instant) -> Option<Instant> {
        let trouble = self.trouble.as_ref()?;
        Some(trouble.next_probe).filter(|at| *at > now)
    }

    /// Which push is to be sent next.
    pub(super) fn order(&self) -> PushOrder {
        self.trouble
            .as_ref()
            .map_or(PushOrder::OldestFirst, |it| it.order)
    }

    /// A push is on its way from `now`.
    pub(super) fn started(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.probing = true;
            trouble.order = match trouble.order {
                PushOrder::OldestFirst => PushOrder::NewestFirst,
                PushOrder::NewestFirst => PushOrder::OldestFirst,
            };
            if trouble.is_receivers() {
                trouble.next_probe = now + RECEIVERS_PAUSE;
            }
        }
    }

    /// What was sent at `sent` has come to its end.
    fn ended(&mut self, sent: Instant) -> bool {
        let Some(trouble) = &mut self.trouble else {
            return true;
        };
        let is_probe = sent >= trouble.since;
        trouble.probing &= !is_probe;
        is_probe
    }

    /// Nothing was sent, after all.
    pub(super) fn undecided(&mut self, sent: Instant) {
        self.ended(sent);
    }

    /// The service has answered what was sent at `sent`.
    pub(super) fn answered(&mut self, sent: Instant, now: Instant) {
        self.answered_at = Some(now);
        self.failing.clear();
        let is_probe = self.ended(sent);
        // That it answers somebody says that the others' trouble was their own.
        let is_over = |it: &mut Trouble| is_probe || it.is_receivers();
        if self.trouble.take_if(is_over).is_some() && self.unfinished {
            self.unfinished = false;
            tracing::info!("the push service answers again");
        }
    }

    /// The service has not taken what was sent at `sent`.
    pub(super) fn failed(&mut self, sent: Instant, failure: &Failure<'_>, now: Instant) {
        let is_probe = self.ended(sent);
        if self.failing.len() < SEVERAL && !self.failing.contains(failure.receiver) {
            self.failing.push(failure.receiver.clone());
        }
        let is_service = failure.scope == Scope::Service || self.failing.len() >= SEVERAL;
        let is_receivers = failure.scope == Scope::Receiver
            && self.trouble.as_ref().is_none_or(Trouble::is_receivers);
        let probes = match &self.trouble {
            None if is_service => 0,
            None => return,
            Some(trouble) if is_receivers => trouble.probes,
            Some(trouble) if is_probe && (failure.is_news || failure.scope == Scope::Service) => {
                trouble.probes.saturating_add(1)
            }
            // The same receiver again says nothing new, nor does what was on its way. A wish to be left alone counts.
            Some(trouble) => trouble.probes,
        };
        // For how long a receiver is to be left alone says nothing of the others.
        let wish = failure
            .retry_after
            .filter(|_| failure.scope > Scope::Receiver);
        let pause = if is_receivers {
            RECEIVERS_PAUSE
        } else {
            let unanswered = self.answered_at.map(|at| now.saturating_duration_since(at));
            let patience = unanswered
                .filter(|_| failure.scope < Scope::Service)
                .map_or(MAX_PAUSE, |it| (it / PATIENCE_PART).max(FIRST_WAIT));
            (backoff(probes).min(patience)).max(wish.unwrap_or_default())
        };
        let next_probe = now + pause.min(MAX_PAUSE);
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: now,
            scope: failure.scope,
            probes,
            probing: false,
            order: PushOrder::OldestFirst,
            next_probe,
            why: String::new(),
        });
        trouble.probes = probes;
        trouble.scope = trouble.scope.max(failure.scope);
        trouble.next_probe = trouble.next_probe.max(next_probe);
        failure.why.clone_into(&mut trouble.why);
    }

    /// Logs that the service does not answer, and again every [`REMIND_AFTER`]. `waiting`: pushes that wait; only a push
    /// finds out how the service is.
    pub(super) fn report(&mut self, waiting: usize, now: Instant) {
        let Some(trouble) = self.trouble.as_ref().filter(|_| waiting > 0) else {
            return;
        };
        if self.said.is_none_or(|said| now - said >= REMIND_AFTER) {
            self.said = Some(now);
            self.unfinished = true;
            tracing::warn!(
                waiting,
                "the push service does not answer: {}; {waiting} pushes wait",
                trouble.why
            );
        }
    }
}

/// How long a push that has been tried `attempts` times before waits for the next try: at random between
/// a second and 2, 4, 8 … 300 seconds, so that what failed together does not come back together.
pub(super) fn backoff(attempts: u32) -> Duration {
    let most = FIRST_WAIT * 2_u32.saturating_pow(attempts.saturating_add(1)).min(300);
    let most = most.min(MAX_BACKOFF);
    // Without randomness they come back together, which is no reason not to send them.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    FIRST_WAIT + (most - FIRST_WAIT).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What a receiver's push came to, the first time.
    fn fail(pace: &mut Pace, receiver: u32, scope: Scope, sent: Instant, now: Instant) {
        fail_asking(pace, receiver, scope, None, sent, now);
    }

    fn fail_asking(
        pace: &mut Pace,
        receiver: u32,
        scope: Scope,
        retry_after: Option<Duration>,
        sent: Instant,
        now: Instant,
    ) {
        let receiver = UserId::parse(receiver.to_string()).unwrap();
        let failure = Failure {
            receiver: &receiver,
            is_news: true,
            scope,
            retry_after,
            why: "503",
        };
        pace.failed(sent, &failure, now);
    }

    /// A service that stopped answering at the second instant.
    fn down(retry_after: Option<Duration>) -> (Pace, Instant) {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert!(pace.has_room(MAX_IN_FLIGHT - 1, now));
        assert!(!pace.has_room(MAX_IN_FLIGHT, now));
        for receiver in 0..3 {
            assert!(pace.has_room(0, now));
            fail_asking(
                &mut pace,
                receiver,
                Scope::Request,
                retry_after,
                now - SECOND,
                now,
            );
        }
        assert!(!pace.has_room(0, now));
        (pace, now)
    }

    #[test]
    fn one_probe_at_a_time() {
        let (mut pace, now) = down(None);
        assert!(!pace.has_room(0, now + SECOND / 2));
        let later = now + 2 * SECOND;
        assert!(pace.has_room(MAX_IN_FLIGHT - 1, later), "others hang");
        assert!(!pace.has_room(MAX_IN_FLIGHT, later));
        pace.started(later);
        assert!(!pace.has_room(1, later), "one is on its way");
        // What was on its way before neither ends the trouble nor makes it worse.
        pace.answered(now - SECOND, now);
        assert!(pace.trouble.is_some());
        for receiver in 0..100 {
            fail(&mut pace, receiver, Scope::Request, now - SECOND, now);
        }
        assert!(!pace.has_room(1, later), "it is still on its way");
        pace.undecided(later);
        assert!(pace.has_room(0, later));
        pace.started(later);
        pace.answered(later, later);
        assert!(pace.has_room(MAX_IN_FLIGHT - 1, later));
    }

    /// Its own trouble costs the others no more than what fails for the first time.
    #[test]
    fn a_receiver_who_fails_again_stops_nobody_after_many_who_failed_at_first() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        pace.answered(now, now);
        for receiver in 0..8 {
            now += SECOND;
            fail(&mut pace, receiver, Scope::Request, now, now);
        }
        now = pace.next_probe(now).unwrap_or(now);
        pace.started(now);
        let again = Failure {
            receiver: &UserId::parse("0").unwrap(),
            is_news: false,
            scope: Scope::Receiver,
            retry_after: None,
            why: "503",
        };
        pace.failed(now, &again, now);
        assert!(pace.next_probe(now).is_none_or(|at| at <= now + SECOND));
    }

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let (mut pace, mut now) = down(None);
        for receiver in 0..100 {
            now += MAX_PAUSE;
            assert!(pace.has_room(0, now));
            pace.started(now);
            fail(&mut pace, receiver, Scope::Request, now, now);
            assert!(!pace.has_room(0, now + SECOND / 2));
        }
        let (mut pace, now) = down(Some(30 * SECOND));
        assert!(!pace.has_room(0, now + 29 * SECOND));
        assert!(pace.has_room(0, now + 30 * SECOND));
        // A push that was on its way and has to wait longer.
        let hour = Some(3600 * SECOND);
        fail_asking(&mut pace, 7, Scope::Request, hour, now - SECOND, now);
        assert!(!pace.has_room(0, now + 59 * SECOND));
        assert!(pace.has_room(0, now + MAX_PAUSE));
    }

    #[test]
    fn one_receiver_is_not_the_service() {
        for scope in [Scope::Receiver, Scope::Request] {
            let mut pace = Pace::default();
            let now = Instant::now();
            for _ in 0..100 {
                fail_asking(&mut pace, 1, scope, Some(3600 * SECOND), now, now);
                fail_asking(&mut pace, 2, scope, Some(3600 * SECOND), now, now);
                assert!(pace.has_room(MAX_IN_FLIGHT - 1, now));
            }
            pace.answered(now, now);
            fail(&mut pace, 3, scope, now, now);
            assert!(pace.has_room(0, now), "they were not in a row");
        }
    }

    #[test]
    fn a_service_that_cannot_be_reached_is_left_alone_at_once() {
        let mut pace = Pace::default();
        let now = Instant::now();
        fail(&mut pace, 1, Scope::Service, now, now);
        assert!(!pace.has_room(0, now + SECOND / 2));
        assert!(pace.has_room(0, now + 2 * SECOND));
    }

    #[test]
    fn phones_that_have_had_enough_cost_the_others_two_seconds_at_most() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let hour = Some(3600 * SECOND);
        for receiver in 0..3 {
            fail_asking(&mut pace, receiver, Scope::Receiver, hour, now, now);
        }
        assert!(!pace.has_room(0, now));
        // The same ones again and again.
        for round in 0..100 {
            now += 2 * SECOND;
            assert!(pace.has_room(0, now), "round {round}");
            pace.started(now);
            let receiver = UserId::parse((round % 3).to_string()).unwrap();
            let failure = Failure {
                receiver: &receiver,
                is_news: false,
                scope: Scope::Receiver,
                retry_after: hour,
                why: "429",
            };
            pace.failed(now, &failure, now);
        }
        // Any answer ends it, also to what was on its way.
        pace.answered(now - 60 * SECOND, now);
        assert!(pace.has_room(0, now));
    }

    /// A push that is not answered for its whole time says nothing of the others, nor does the next one.
    #[test]
    fn phones_that_cannot_be_reached_leave_the_others_all_places_but_theirs() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for receiver in 0..3 {
            fail(&mut pace, receiver, Scope::Receiver, now, now);
        }
        for on_their_way in 0..MAX_IN_FLIGHT {
            now += RECEIVERS_PAUSE;
            assert!(pace.has_room(on_their_way, now), "{on_their_way}");
            pace.started(now);
            assert!(!pace.has_room(on_their_way, now));
        }
        for receiver in 3..100 {
            fail(&mut pace, receiver, Scope::Receiver, now, now);
            assert!(pace.has_room(0, now + RECEIVERS_PAUSE), "{receiver}");
        }
        // None of them counts when the service itself does not answer.
        fail(&mut pace, 100, Scope::Request, now, now);
        assert!(!pace.has_room(0, now + SECOND / 2));
        assert!(pace.has_room(0, now + 4 * SECOND));
    }

    /// What had been sent before says nothing then, also if it began as the receivers' trouble.
    #[test]
    fn what_becomes_the_trouble_of_the_service_ends_with_a_try() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for receiver in 0..3 {
            fail(&mut pace, receiver, Scope::Receiver, now, now);
        }
        let later = now + 2 * SECOND;
        pace.started(later);
        fail(&mut pace, 3, Scope::Service, later, later);
        pace.answered(now - SECOND, now);
        assert!(!pace.has_room(0, later + SECOND / 2));
        assert_eq!(pace.trouble.as_ref().unwrap().why, "503");
    }

    #[test]
    fn a_pause_is_not_shortened_by_what_fails_meanwhile() {
        let (mut pace, now) = down(Some(30 * SECOND));
        fail(&mut pace, 7, Scope::Request, now - SECOND, now);
        assert!(!pace.has_room(0, now + 29 * SECOND));
    }

    #[test]
    fn waits_between_tries() {
        let mut seen = std::collections::HashSet::new();
        for attempts in (0..40).chain([u32::MAX]) {
            let most = 2_u64.saturating_pow(attempts.saturating_add(1)).min(300);
            for _ in 0..100 {
                let wait = backoff(attempts);
                assert!(wait >= FIRST_WAIT && wait <= Duration::from_secs(most));
                seen.insert(wait);
            }
        }
        assert!(seen.len() > 1000, "they come back together");
    }
}
