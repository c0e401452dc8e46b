//! What the log says of single clients, on the target `jam_mqtt::clients`.
//!
//! Failed logins and lockouts are warnings, for a person or fail2ban to act on; malformed packets, protocol errors and
//! logouts are logged at `info`, everything else at `debug`. A client's own text gets into a line shortened and with `?`
//! for all that could end the line or move a terminal's cursor; tokens and payloads are left out.
//!
//! Invariants: warnings and infos are bounded, [`LINES_OF_SOURCE`] of each and [`LINES`] a minute, whatever clients do, and
//! so is the memory for that (`tests::a_flood_is_summed_up`); the number of suppressed lines is logged each minute. A
//! lockout is logged, whatever its source has done before (`tests::a_lockout_is_told_after_a_flood_of_its_source`).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jam_core::connection::{End, Ended};
use jam_core::ids::ClientId;
use jam_core::link::Eviction;
use jam_core::policy::{Refusal, refusals};
use jam_core::source::Source;
use jam_wire::decode::DecodeError;
use tokio::sync::watch;
use tracing::Level;

use crate::ticks::{next, ticks};

/// Warnings about one source, and so many infos, in a [`MINUTE`].
const LINES_OF_SOURCE: u32 = 10;

/// Lines about all sources, in a [`MINUTE`]. As many sources are remembered at most.
const LINES: u32 = 300;

/// For so long lines are counted together.
const MINUTE: Duration = Duration::from_secs(60);

/// How often it is looked whether the minute is over.
const TICK: Duration = Duration::from_secs(5);

/// Sources whose lockout has been logged; beyond, all are forgotten, and a lockout may be logged once more.
const LOCKOUTS: usize = 4096;

/// Characters of a client id that are shown.
const SHOWN_CHARS: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct ClientLog {
    state: Mutex<LineCounts>,
}

#[derive(Debug)]
struct LineCounts {
    /// How long a lockout is one.
    window: Duration,
    since: Instant,
    lines: u32,
    of_source: HashMap<(Source, Level), u32, RandomState>,
    /// Suppressed lines.
    unsaid: u64,
    lockouts: HashMap<Source, Instant, RandomState>,
}

impl ClientLog {
    /// `window`: `limits.failed_auth_window`.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            state: Mutex::new(LineCounts {
                window,
                since: Instant::now(),
                lines: 0,
                of_source: HashMap::default(),
                unsaid: 0,
                lockouts: HashMap::default(),
            }),
        }
    }

    /// From now on a lockout is one for so long.
    pub(crate) fn set_window(&self, window: Duration) {
        self.lock().window = window;
    }

    /// A client has been let in.
    pub(crate) fn connected(&self, client: &ClientId, address: IpAddr) {
        let client = LogText(client.as_str());
        tracing::debug!(target: "jam_mqtt::clients", %address, %client, "connected");
    }

    /// A client has authenticated and waits: the devices of its user log each other out in turn.
    pub(crate) fn held_back(&self, client: &ClientId, address: IpAddr) {
        if self.may_say(Level::WARN, address) {
            let client = LogText(client.as_str());
            tracing::warn!(target: "jam_mqtt::clients", %address, %client, "held back: this user's devices log each other out in turn");
        }
    }

    /// A request on the admin address had a token that is none.
    pub(crate) fn wrong_admin_token(&self, address: IpAddr) {
        if self.may_say(Level::WARN, address) {
            tracing::warn!(target: "jam_mqtt::clients", %address, "wrong token for the admin API");
        }
    }

    /// A connection has ended.
    pub(crate) fn ended(&self, ended: &Ended, address: IpAddr) {
        let Ended { client, why, .. } = ended;
        let client = LogText(client.as_ref().map_or("", ClientId::as_str));
        if let End::Refused(refusal) = why {
            self.refused(refusal, client, address);
        } else if let Some((message, reason)) = at_info(why) {
            if self.may_say(Level::INFO, address) {
                tracing::info!(target: "jam_mqtt::clients", %address, %client, reason, "{message}");
            }
        } else {
            let reason = at_debug(why);
            tracing::debug!(target: "jam_mqtt::clients", %address, %client, reason, "disconnected");
        }
    }

    fn refused(&self, refusal: &Refusal, client: LogText<'_>, address: IpAddr) {
        let reason = refusal.slug;
        if *refusal == refusals::CONNECT_WITHOUT_DIRECTORY {
            // No fault of the client's; the accounts database's watch says what is wrong.
            tracing::debug!(target: "jam_mqtt::clients", %address, %client, reason, "connection refused");
        } else if *refusal == refusals::SPAM {
            if self.may_say_lockout(address, Instant::now()) {
                tracing::warn!(target: "jam_mqtt::clients", %address, %client, reason, "locked out");
            }
        } else if self.may_say(Level::WARN, address) {
            tracing::warn!(target: "jam_mqtt::clients", %address, %client, reason, "failed login");
        }
    }

    /// Whether this lockout is to be told now: once, and not because of lines about its source, which it is the sum of. One
    /// for which there is no line left is told with the next attempt.
    fn may_say_lockout(&self, address: IpAddr, now: Instant) -> bool {
        let mut state = self.lock();
        let source = Source::of(address);
        if let Some(told) = state.lockouts.get(&source)
            && now.duration_since(*told) < state.window
        {
            return false;
        }
        if state.lines >= LINES {
            return false;
        }
        state.lines += 1;
        if state.lockouts.len() >= LOCKOUTS {
            state.lockouts.clear();
        }
        state.lockouts.insert(source, now);
        true
    }

    /// Whether a line about this address may be written now; if not, it is counted.
    fn may_say(&self, level: Level, address: IpAddr) -> bool {
        let mut state = self.lock();
        if state.lines >= LINES {
            state.unsaid += 1;
            return false;
        }
        let of_source = state
            .of_source
            .entry((Source::of(address), level))
            .or_insert(0);
        if *of_source >= LINES_OF_SOURCE {
            state.unsaid += 1;
            return false;
        }
        *of_source += 1;
        state.lines += 1;
        true
    }

    /// Begins a new minute if the last one is over. Returns how many lines were suppressed in it.
    fn begin_minute(&self, now: Instant) -> u64 {
        let mut state = self.lock();
        if now.duration_since(state.since) < MINUTE {
            return 0;
        }
        state.since = now;
        state.lines = 0;
        state.of_source = HashMap::default();
        std::mem::take(&mut state.unsaid)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LineCounts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs each minute how many lines were suppressed, until the server stops.
pub(crate) async fn sum_up(client_log: Arc<ClientLog>, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(TICK);
    while next(&mut ticks, &mut stop).await {
        let lines = client_log.begin_minute(Instant::now());
        if lines > 0 {
            tracing::warn!(target: "jam_mqtt::clients", lines, "too much happened: lines about clients were not written");
        }
    }
}

/// What is logged at `info`: the message, and the reason if the message leaves it out.
fn at_info(why: &End) -> Option<(&'static str, Option<String>)> {
    Some(match why {
        End::Denied(reason) => ("connection refused", Some(reason.to_string())),
        End::Malformed(
            error @ (DecodeError::Malformed(_) | DecodeError::UnsupportedVersion(_)),
        ) => ("malformed packet", Some(error.to_string())),
        End::Malformed(error) => ("protocol error", Some(error.to_string())),
        End::ProtocolError(reason) => ("protocol error", Some(reason.to_string())),
        End::Evicted(Eviction::Logout) => ("logged out: another device has connected", None),
        End::Evicted(Eviction::NotAuthorized) => ("logged out: the token is no longer valid", None),
        End::Evicted(Eviction::Kicked) => ("disconnected by an operator", None),
        _ => return None,
    })
}

fn at_debug(why: &End) -> &'static str {
    match why {
        End::Disconnect(_) => "client",
        End::Lost => "lost",
        End::NoConnect => "timeout",
        End::NoRoomForConnAck => "too_large",
        End::KeepAlive => "keepalive",
        End::Stalled => "stalled",
        End::Evicted(Eviction::TakenOver) => "takeover",
        End::Evicted(Eviction::Kicked) => "kicked",
        End::Evicted(_) => "shutdown",
        End::Refused(_) | End::Denied(_) | End::Malformed(_) | End::ProtocolError(_) => "refused",
    }
}

/// A text of the client's: letters, digits and what ids are made of; at most [`SHOWN_CHARS`].
#[derive(Clone, Copy)]
pub(crate) struct LogText<'a>(pub(crate) &'a str);

impl fmt::Display for LogText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(SHOWN_CHARS) {
            let harmless = char.is_alphanumeric() || ".:_-@/+".contains(char);
            f.write_char(if harmless { char } else { '?' })?;
        }
        if chars.next().is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_flood_is_summed_up() {
        let log = ClientLog::new(MINUTE);
        let may_say = |n| log.may_say(Level::WARN, address(n));
        let said = |n: u32, times: u32| (0..times).filter(|_| may_say(n)).count();
        assert_eq!(said(1, 1000), LINES_OF_SOURCE as usize);
        assert_eq!(said(2, 1), 1, "others are still heard");
        let all: usize = (3..10_000).map(|n| said(n, 2)).sum();
        assert_eq!(all, (LINES - LINES_OF_SOURCE - 1) as usize);
        assert!(log.lock().of_source.len() <= LINES as usize);

        let now = log.lock().since;
        assert_eq!(log.begin_minute(now), 0, "not over yet");
        let unsaid = log.begin_minute(now + MINUTE);
        assert_eq!(unsaid, 1001 + 2 * 9997 - u64::from(LINES));
        assert_eq!(said(1, 1), 1);
    }

    #[test]
    fn noise_hides_no_failed_login() {
        let log = ClientLog::new(MINUTE);
        while log.may_say(Level::INFO, address(1)) {}
        assert!(log.may_say(Level::WARN, address(1)));
    }

    #[test]
    fn a_lockout_is_told_after_a_flood_of_its_source() {
        let log = ClientLog::new(10 * MINUTE);
        let tells = |n| log.may_say_lockout(address(n), Instant::now());
        while log.may_say(Level::WARN, address(1)) {}
        assert!(tells(1) && !tells(1));

        // When too much has been said of others, it is told a minute later.
        (3..1000).for_each(|n| while log.may_say(Level::WARN, address(n)) {});
        assert!(!tells(2));
        let now = log.lock().since;
        log.begin_minute(now + MINUTE);
        assert!(tells(2) && !tells(2));
    }

    #[test]
    fn a_lockout_is_told_once_in_a_window() {
        let log = ClientLog::new(MINUTE);
        let began = Instant::now();
        let tells = |after, n| {
            log.lock().lines = 0;
            log.may_say_lockout(address(n), began + after)
        };
        assert!(tells(Duration::ZERO, 1));
        assert!(!tells(MINUTE / 2, 1) && tells(MINUTE / 2, 2));
        assert!(tells(MINUTE, 1));
        for n in 0..2 * u32::try_from(LOCKOUTS).unwrap() {
            tells(MINUTE, n);
        }
        assert!(log.lock().lockouts.len() <= LOCKOUTS);
    }

    #[test]
    fn a_clients_text_ends_no_line() {
        let shown = |text: &str| LogText(text).to_string();
        assert_eq!(shown("1:phone-2_b"), "1:phone-2_b");
        assert_eq!(shown("1:Téléphone"), "1:Téléphone");
        assert_eq!(shown("a\nb\r\u{1b}[2J\u{202e}\" =c"), "a?b???2J????c");
        assert_eq!(
            shown(&"x".repeat(1000)),
            format!("{}...", "x".repeat(SHOWN_CHARS))
        );
    }
}
