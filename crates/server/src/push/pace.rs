//! How fast pushes are sent, and what is said of a service that does not answer.
//!
//! While all is well [`MAX_IN_FLIGHT`] pushes are on their way at a time. When the service does not take
//! one, nothing is sent for a pause; then one push tries, and again after a longer pause, until the service
//! answers. A service that is down so gets a request a minute, however many pushes wait.
//!
//! It is said once that the service does not answer, and once that it does again; while it does not, once in
//! [`REMIND_AFTER`] with the number of pushes that wait. One that keeps coming and going is not told of more
//! often than that.

use std::time::Duration;

use tokio::time::Instant;

/// Pushes on their way at a time.
pub(super) const MAX_IN_FLIGHT: usize = 32;

/// The first pause, and the least that a push waits to be tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest pause, also if the service asks for a longer one: that may be about one phone only.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The longest that a push waits to be tried again, unless the service asks for more.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Between two reminders in the log.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// When pushes may be sent.
#[derive(Debug, Default)]
pub(super) struct Pace {
    trouble: Option<Trouble>,
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
    /// Tries since then.
    probes: u32,
    next_probe: Instant,
    why: String,
}

impl Pace {
    /// Whether another push may be sent while so many are on their way.
    pub(super) fn has_room(&self, in_flight: usize, now: Instant) -> bool {
        match &self.trouble {
            None => in_flight < MAX_IN_FLIGHT,
            Some(trouble) => in_flight == 0 && now >= trouble.next_probe,
        }
    }

    /// The service has answered what was sent at `sent`.
    pub(super) fn answered(&mut self, sent: Instant) {
        if self
            .trouble
            .as_ref()
            .is_some_and(|trouble| sent >= trouble.since)
        {
            self.trouble = None;
            if self.unfinished {
                self.unfinished = false;
                tracing::info!("the push service answers again");
            }
        }
    }

    /// The service has not taken what was sent at `sent`.
    pub(super) fn failed(
        &mut self,
        sent: Instant,
        retry_after: Option<Duration>,
        why: &str,
        now: Instant,
    ) {
        let probes = match &self.trouble {
            None => 0,
            Some(trouble) if sent >= trouble.since => trouble.probes + 1,
            // One of those that were on their way. Its wish to be left alone counts.
            Some(trouble) => trouble.probes,
        };
        let pause = backoff(probes).max(retry_after.unwrap_or_default());
        let next_probe = now + pause.min(MAX_PAUSE);
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: now,
            probes,
            next_probe,
            why: String::new(),
        });
        trouble.probes = probes;
        trouble.next_probe = trouble.next_probe.max(next_probe);
        why.clone_into(&mut trouble.why);
    }

    /// Says what is to be said by now. `waiting`: pushes that wait; while none does, nobody knows how the
    /// service is.
    pub(super) fn say(&mut self, waiting: usize, now: Instant) {
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

    /// A service that stopped answering at the second instant.
    fn down(retry_after: Option<Duration>) -> (Pace, Instant) {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert!(pace.has_room(MAX_IN_FLIGHT - 1, now));
        assert!(!pace.has_room(MAX_IN_FLIGHT, now));
        pace.failed(now - SECOND, retry_after, "503", now);
        (pace, now)
    }

    #[test]
    fn one_probe_at_a_time() {
        let (mut pace, now) = down(None);
        assert!(!pace.has_room(0, now + SECOND / 2));
        assert!(pace.has_room(0, now + 2 * SECOND));
        assert!(!pace.has_room(1, now + 2 * SECOND), "one is on its way");
        // What was on its way before neither ends the trouble nor makes it worse.
        pace.answered(now - SECOND);
        assert!(pace.trouble.is_some());
        for _ in 0..100 {
            pace.failed(now - SECOND, None, "503", now);
        }
        assert!(pace.has_room(0, now + 2 * SECOND));
        pace.answered(now + 2 * SECOND);
        assert!(pace.has_room(MAX_IN_FLIGHT - 1, now + 2 * SECOND));
    }

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let (mut pace, mut now) = down(None);
        for _ in 0..100 {
            now += MAX_PAUSE;
            assert!(pace.has_room(0, now));
            pace.failed(now, None, "503", now);
            assert!(!pace.has_room(0, now + SECOND / 2));
        }
        let (mut pace, now) = down(Some(30 * SECOND));
        assert!(!pace.has_room(0, now + 29 * SECOND));
        assert!(pace.has_room(0, now + 30 * SECOND));
        // Who was on his way and is told to wait longer.
        pace.failed(now - SECOND, Some(3600 * SECOND), "429", now);
        assert!(!pace.has_room(0, now + 59 * SECOND));
        assert!(pace.has_room(0, now + MAX_PAUSE));
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
