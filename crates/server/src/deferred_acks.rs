//! Acknowledgements of receivers, reaped with the next wake-up instead of with one each.
//!
//! While messages come one at a time, waking up is most of what they cost, and the receiver's
//! acknowledgement wakes the server as the message does. So a socket whose receiver usually answers at
//! once is told that a few bytes wake no task (`SO_RCVLOWAT`, socket(7)): its acknowledgement is deferred. The next
//! task that wakes, for any connection, reaps it; after [`LONGEST`], housekeeping does. A larger packet and the end of the
//! connection wake the task at once. On systems without this option, every acknowledgement does. ADR 12 has the
//! measurements.
//!
//! Invariants:
//! - an acknowledgement is deferred for at most [`LONGEST`] and a tick of housekeeping (`a_tick_reaps`);
//! - senders who wait for acknowledgements before they go on do not wait for each other: where ticks had to
//!   reap twice in [`REST`], nothing is deferred for the rest of it (`after_two_ticks_that_reaped_nothing_is_deferred`);
//! - at most [`MOST`] sockets are deferred (`it_has_a_bound`).

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jam_core::time::Time;
use smallvec::SmallVec;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::heard::Heard;
use crate::websocket::WebSocketStream;

/// Bytes that may be an acknowledgement and nothing more: PUBACK, PUBREC, PUBREL or PUBCOMP with a reason
/// and no properties (MQTT 5.0, section 3.4), and PINGREQ and DISCONNECT, which are no more urgent.
pub(crate) const ANSWER_BYTES: i32 = 6;

/// What a TLS record adds at most to so few bytes: a header, and TLS 1.2's nonce and tag.
const TLS_RECORD_BYTES: i32 = 5 + 8 + 16;

/// A receiver that acknowledged its last message within this time has the next acknowledgement deferred.
pub(crate) const AT_ONCE_MILLIS: u32 = 4;

/// How long it may take to write a message and for its answer to arrive: what was deferred more recently is left for
/// the next wake-up.
const ARRIVAL: Duration = Duration::from_micros(100);

/// For how long an acknowledgement is left for the next wake-up of any connection.
pub(crate) const LONGEST: Duration = Duration::from_millis(10);

/// When ticks have to reap twice within this time, nothing is deferred for the rest of it.
const REST: Duration = Duration::from_secs(1);

/// How many sockets may be deferred at a time, give or take one for each thread. At the paces below there are rarely more than ten.
pub(crate) const MOST: usize = 256;

/// Over what time messages are counted, as a power of two in milliseconds.
const PACE_MILLIS_LOG2: u32 = 4;

/// How many messages make it worth while in that time, 16 ms: with fewer, the next is often more than a
/// millisecond off; with more, a task that wakes finds more than one thing to do anyway.
const PACE: std::ops::RangeInclusive<u64> = 16..=320;

/// A stream, seen as a socket that may be told not to wake for an answer.
pub(crate) trait LowWater {
    /// The socket, and how few bytes on it need not wake anybody; nothing where it cannot be told.
    fn low_water_mark(&self) -> Option<(RawFd, i32)> {
        None
    }
}

impl LowWater for Heard<TcpStream> {
    fn low_water_mark(&self) -> Option<(RawFd, i32)> {
        Some((self.as_raw_fd(), ANSWER_BYTES))
    }
}

impl LowWater for TlsStream<Heard<TcpStream>> {
    fn low_water_mark(&self) -> Option<(RawFd, i32)> {
        Some((self.as_raw_fd(), ANSWER_BYTES + TLS_RECORD_BYTES))
    }
}

/// The library keeps the socket to itself.
impl<S> LowWater for WebSocketStream<S> {}

/// What is deferred, and for how long; one for the server.
#[derive(Debug)]
pub(crate) struct DeferredAcks {
    /// Otherwise nothing is deferred.
    enabled: bool,
    pace: MessagePace,
    deferred: Mutex<Deferred>,
}

impl DeferredAcks {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            pace: MessagePace::default(),
            deferred: Mutex::default(),
        }
    }

    /// A message has come in.
    pub(crate) fn count_message(&self, now: Time) {
        self.pace.count(now);
    }

    /// The task of a connection has woken, at `at`: answers on other sockets that have had time to arrive are taken
    /// up along with what it was woken for.
    ///
    /// To be called before it reads. A client on this machine that has just sent something may hold the lock of the
    /// socket for a little longer, and touching that socket at once would mean waiting for it.
    pub(crate) fn reap(&self, own: &impl LowWater, at: Instant, now: Time) {
        if !self.enabled || !self.pace.is_right(now) {
            return; // what is left is for the next tick
        }
        let mut due = Due::new();
        {
            let mut deferred = self.lock();
            if deferred.sockets.is_empty() {
                return;
            }
            let own = own.low_water_mark().map(|(socket, _)| socket);
            deferred.take_until(at - ARRIVAL, own, &mut due);
        }
        wake_for_everything(&due);
    }

    /// Asks not to be woken for the answer that this socket is going to receive to what is written in the turn that
    /// began at `at`, if that is worth while; whether it was. Not to be called again before the answer is there, or it
    /// would be deferred for longer.
    pub(crate) fn defer(&self, socket: &impl LowWater, at: Instant, now: Time) -> bool {
        if !self.enabled || !self.pace.is_right(now) {
            return false;
        }
        let Some((socket, bytes)) = socket.low_water_mark() else {
            return false;
        };
        if !self.lock().takes_more(at) || !low_water::set(socket, bytes + 1) {
            return false;
        }
        // Only now: a task that finds it here undoes that.
        self.lock().sockets.push_back((socket, at));
        true
    }

    /// Reaps what has been deferred for [`LONGEST`]; to be called every few milliseconds.
    pub(crate) fn handle_tick(&self) {
        let mut due = Due::new();
        self.lock().time_out(Instant::now(), &mut due);
        wake_for_everything(&due);
    }

    fn lock(&self) -> MutexGuard<'_, Deferred> {
        self.deferred
            .lock()
            .expect("no code that holds the lock can panic")
    }
}

type Due = SmallVec<[RawFd; 8]>;

/// From now on everything wakes, what has arrived already at once. A socket that is closed since, or
/// whose number another has now, loses nothing by it.
fn wake_for_everything(sockets: &[RawFd]) {
    for &socket in sockets {
        low_water::set(socket, 1);
    }
}

/// The sockets whose acknowledgements are deferred, oldest first.
#[derive(Debug, Default)]
struct Deferred {
    sockets: VecDeque<(RawFd, Instant)>,
    /// When a tick last reaped something.
    timed_out_at: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Deferred {
    fn takes_more(&self, now: Instant) -> bool {
        self.sockets.len() < MOST && self.rests_until.is_none_or(|until| until <= now)
    }

    /// Takes those out that were deferred then or earlier, but leaves `own`.
    fn take_until(&mut self, then: Instant, own: Option<RawFd>, due: &mut Due) {
        let mut left = None;
        while let Some(&(socket, deferred_at)) = self.sockets.front()
            && deferred_at <= then
        {
            if Some(socket) == own {
                left = Some((socket, deferred_at)); // once is enough; it has to be told the contrary some time, though
            } else {
                due.push(socket);
            }
            self.sockets.pop_front();
        }
        if let Some(own) = left {
            self.sockets.push_front(own);
        }
    }

    /// If ticks find something again and again, messages come too seldom, or not before others are acknowledged.
    fn time_out(&mut self, now: Instant, due: &mut Due) {
        self.take_until(now - LONGEST, None, due);
        if !due.is_empty() {
            self.rests_until = self.timed_out_at.map(|before| before + REST);
            self.timed_out_at = Some(now);
        }
    }
}

/// How many messages there were lately: the number of the current period, those in the one before, those
/// in it so far. Threads that count at the same time may lose one.
#[derive(Debug, Default)]
struct MessagePace(AtomicU64);

impl MessagePace {
    const COUNT_BITS: u32 = 16;
    const COUNT_MAX: u64 = (1 << Self::COUNT_BITS) - 1;

    fn count(&self, now: Time) {
        let (period, before, count) = self.get(now);
        let count = (count + 1).min(Self::COUNT_MAX);
        let packed = period << (2 * Self::COUNT_BITS) | before << Self::COUNT_BITS | count;
        self.0.store(packed, Ordering::Relaxed);
    }

    fn is_right(&self, now: Time) -> bool {
        PACE.contains(&self.get(now).1)
    }

    fn get(&self, now: Time) -> (u64, u64, u64) {
        let packed = self.0.load(Ordering::Relaxed);
        let period = now.as_millis() >> PACE_MILLIS_LOG2 & u64::from(u32::MAX);
        let before = packed >> Self::COUNT_BITS & Self::COUNT_MAX;
        let count = packed & Self::COUNT_MAX;
        let last = packed >> (2 * Self::COUNT_BITS);
        match period.wrapping_sub(last) {
            0 => (period, before, count),
            1 => (period, count, 0),
            // Another thread's time is a little later than this one's.
            u64::MAX => (last, before, count),
            _ => (period, 0, 0),
        }
    }
}

#[cfg(target_os = "linux")]
mod low_water {
    use std::os::fd::RawFd;
    use std::sync::LazyLock;

    /// Since this version of Linux, a socket that is told to wake for less says at once what it has.
    const SINCE: (u32, u32) = (4, 18);

    static WORKS: LazyLock<bool> =
        LazyLock::new(|| is_since(&rustix::system::uname().release().to_string_lossy()));

    pub(super) fn is_since(release: &str) -> bool {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|number| number.parse().ok());
        numbers.next().zip(numbers.next()) >= Some(SINCE)
    }

    /// From how many bytes on the socket is readable; whether it does as it was told.
    #[allow(unsafe_code)] // no library that is in the tree has this option
    pub(super) fn set(socket: RawFd, bytes: i32) -> bool {
        const I32_BYTES: libc::socklen_t = 4;
        // SAFETY: the pointer and the length are those of an integer that outlives the call, and the kernel
        // keeps neither. A number that is not an open socket's is an error and no more.
        *WORKS
            && unsafe {
                libc::setsockopt(
                    socket,
                    libc::SOL_SOCKET,
                    libc::SO_RCVLOWAT,
                    (&raw const bytes).cast(),
                    I32_BYTES,
                )
            } == 0
    }
}

#[cfg(not(target_os = "linux"))]
mod low_water {
    use std::os::fd::RawFd;

    pub(super) fn set(_socket: RawFd, _bytes: i32) -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod tests;
