//! The loop of one connection: it owns the socket and the bytes on their way in and out.
//!
//! What the bytes mean is [`jam_core::connection::Connection`]'s business; this module feeds it packets,
//! wake-ups and the time, and writes what it leaves in its output. One loop serves TCP, TLS and
//! WebSocket, for it asks nothing of a stream but [`AsyncRead`] and [`AsyncWrite`].
//!
//! Invariants:
//! - a burst that arrives together is handled together and answered with one write (`one_segment`);
//! - a flood is handled one read at a time, and so much work, so that the others come in between (`a_flood_lets_others_in`);
//!   what many floods have left to do waits in [`Turns`];
//! - writing is never awaited alone: a peer that does not read is still heard, and meets its timeouts, evictions
//!   and its own end (`who_never_reads`); while packets wait for something, [`READ_AHEAD_BYTES`] are read ahead;
//! - a client is silent when the server has looked for its bytes and found none, below TLS and WebSocket too;
//! - what a client had sent when its connection ends, from either side, is handled first (`ending`);
//! - between packets a connection holds no input buffer (`an_idle_connection_is_small`);
//! - the last bytes reach the peer: they are flushed, then the socket is shut down, then what the peer
//!   still sends is read away, so that no reset overtakes them (`the_last_words_arrive`).

mod answering;
mod closing;
mod ending;
mod reading;
mod silence;
mod timer;
mod writing;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use jam_core::connection::{Connection, End, Progress};
use jam_core::directory::{Answer, Question, Unavailable};
use jam_core::link::Displaced;
use jam_core::router::Router;
use jam_core::time::Time;
use jam_wire::decode::Decoder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use crate::client_log::ClientLog;
use crate::clock::Clock;
use crate::deferred_acks::{DeferredAcks, LowWater};
use crate::directory::{AccountsDatabase, DirectoryError};
use crate::events::Events;
use crate::heard::Heard;
use crate::metrics::RefusedConnection;
use crate::permits::ConnectionPermit;
use crate::turns::{self, NextTurn, Turns};
use crate::websocket::{CloseCode, WebSocketStream};
use answering::Answering;
use closing::Phase;
use ending::{Cause, Ending};
use reading::Input;
pub(crate) use reading::READ_BYTES;
use timer::LazyTimer;

/// How many bytes are read before the packets in them can be handled, give or take one read.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// How large a buffer is at most that a small message lies in: what was read ahead and one more read, the room in which
/// it grows included.
pub(crate) const HELD_BYTES: usize = 2 * (READ_AHEAD_BYTES + READ_BYTES);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<Clock>,
    pub(crate) router: Arc<Router>,
    pub(crate) directory: Arc<dyn AccountsDatabase>,
    pub(crate) deferred_acks: Arc<DeferredAcks>,
    pub(crate) turns: Turns,
    pub(crate) client_log: Arc<ClientLog>,
    pub(crate) events: Arc<Events>,
}

/// What the loop asks of a stream besides bytes.
pub(crate) trait Transport: AsyncRead + AsyncWrite + LowWater + Unpin {
    /// Why this side is going to end the stream, where the transport has a word for it.
    fn set_close_code(&mut self, _code: CloseCode) {}
}

impl Transport for Heard<TcpStream> {}

impl Transport for TlsStream<Heard<TcpStream>> {}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for WebSocketStream<S> {
    fn set_close_code(&mut self, code: CloseCode) {
        self.set_close_code(code);
    }
}

/// Serves one connection until it ends. `accepted` is when the socket was accepted: the time for CONNECT
/// counts from there.
pub(crate) fn serve<S>(
    shared: Arc<Shared>,
    permit: ConnectionPermit,
    address: IpAddr,
    accepted: Time,
    stream: S,
) -> impl Future<Output = ()> + Send
where
    S: Transport + Send,
{
    let mut driver = Driver::new(shared, permit, address, accepted, stream);
    // Everything is captured in place: as arguments of an `async fn` it would lie in the task twice.
    async move {
        let mut timer = pin!(tokio::time::sleep_until(Instant::now()));
        poll_fn(|cx| driver.poll(cx, timer.as_mut())).await;
    }
}

/// What a step of the loop has come to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Something has changed: go round again.
    Again,
    /// There is more to do, after the others have had their turn.
    Yield,
    /// Nothing to do until somebody wakes the task.
    Wait,
    /// The connection is done with.
    Over,
}

/// A packet that waits for the directory, or a CONNECT for those that it displaces.
type Loading = Pin<Box<dyn Future<Output = Loaded> + Send>>;

/// What a packet has waited for.
enum Loaded {
    Answer(Result<Answer, DirectoryError>),
    Displaced,
}

/// What a connection that goes well has nothing of.
#[derive(Default)]
struct Rare {
    /// While this is there, nothing is decoded.
    loading: Option<Loading>,
    /// Since when not a byte of the output could be written.
    stalled_since: Option<Time>,
    /// The connection is going to end.
    ending: Option<Ending>,
    /// When something last came of a client that is about to be displaced.
    heard_at: Option<Time>,
    /// The last turn was over with work left.
    next_turn: Option<NextTurn>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.loading.is_none()
            && self.stalled_since.is_none()
            && self.ending.is_none()
            && self.heard_at.is_none()
            && self.next_turn.is_none()
    }
}

struct Driver<S> {
    stream: S,
    connection: Connection,
    decoder: Decoder,
    input: Input,
    /// `input` may hold whole packets that the connection did not want yet.
    held: bool,
    /// The stream itself may hold bytes that were written to it.
    unflushed: bool,
    rare: Option<Box<Rare>>,
    phase: Phase,
    timer: LazyTimer,
    answering: Answering,
    shared: Arc<Shared>,
    permit: ConnectionPermit,
    /// For its span.
    #[cfg(feature = "otel")]
    accepted: Time,
}

impl<S: Transport> Driver<S> {
    fn new(
        shared: Arc<Shared>,
        permit: ConnectionPermit,
        address: IpAddr,
        accepted: Time,
        stream: S,
    ) -> Self {
        permit.wake_flag().set_address(address);
        let waker = Waker::from(permit.wake_flag().clone());
        let connection = Connection::new(shared.router.clone(), address, waker, accepted);
        Self {
            stream,
            decoder: Decoder::server(connection.max_packet()),
            connection,
            input: Input::default(),
            held: false,
            unflushed: false,
            rare: None,
            phase: Phase::Open,
            timer: LazyTimer::default(),
            answering: Answering::default(),
            shared,
            permit,
            #[cfg(feature = "otel")]
            accepted,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.permit.wake_flag().register(cx.waker());
        let granted = ready!(self.poll_next_turn(cx));
        self.connection.take_work();
        let mut at = Instant::now();
        let mut now = self.shared.clock.time(at);
        self.shared.deferred_acks.reap(&self.stream, at, now);
        loop {
            if self.permit.is_displaced() {
                self.connection.handle_closed(now);
                return Poll::Ready(());
            }
            let turn = match self.phase {
                Phase::Open => self.poll_open(cx, now, at),
                _ => self.poll_closing(cx, now),
            };
            match turn {
                Turn::Again => {}
                Turn::Yield => {
                    drop(granted);
                    return self.queue(cx);
                }
                Turn::Wait => {
                    let due = match self.phase {
                        Phase::Open => self.deadline(),
                        phase => phase.until(),
                    };
                    let Some(due) = due else { return Poll::Pending };
                    let (clock, sleep) = (&self.shared.clock, timer.as_mut());
                    ready!(self.timer.poll(cx, sleep, clock, now, due));
                    at = Instant::now();
                    now = self.shared.clock.time(at);
                }
                Turn::Over => {
                    self.connection.handle_closed(now);
                    self.log_end(now);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Ready when the connection may go on: at once, unless it had work left. What it gets is held while it does.
    fn poll_next_turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextTurn>> {
        let Some(rare) = &mut self.rare else {
            return Poll::Ready(None);
        };
        if let Some(next) = &mut rare.next_turn {
            ready!(next.poll_granted(cx));
        }
        Poll::Ready(rare.next_turn.take())
    }

    /// There is work left: the others come first.
    fn queue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = self.shared.turns.queue();
        let next = self.rare().next_turn.insert(next);
        ready!(next.poll_granted(cx));
        turns::yield_now(cx)
    }

    fn log_connected(&self, now: Time) {
        if let Some(client) = self.connection.client()
            && let Some(address) = self.permit.wake_flag().address()
        {
            self.shared.client_log.connected(client, address);
            let stamp = self.shared.clock.stamp(now);
            self.shared.events.connected(client, address, stamp);
        }
    }

    /// What the client was refused in this turn.
    fn record_refusals(&mut self, now: Time) {
        let refused = self.connection.take_refusals(now);
        if !refused.is_empty()
            && let Some(client) = self.connection.client()
            && let Some(address) = self.permit.wake_flag().address()
        {
            let stamp = self.shared.clock.stamp(now);
            self.shared.events.refused(client, address, &refused, stamp);
        }
    }

    /// Says once why the connection has ended.
    fn log_end(&mut self, now: Time) {
        let ended = self.connection.take_ended();
        if let Some(ended) = &ended
            && self.permit.is_half_open()
        {
            self.count_refused(&ended.why);
        }
        if let Some(ended) = ended
            && let Some(address) = self.permit.wake_flag().address()
        {
            self.shared.client_log.ended(&ended, address);
            let stamp = self.shared.clock.stamp(now);
            self.shared.events.ended(&ended, address, stamp);
        }
    }

    /// A connection has ended before its client was let in.
    fn count_refused(&self, why: &End) {
        let why = match why {
            End::NoConnect => RefusedConnection::Timeout,
            End::Malformed(_) => RefusedConnection::Malformed,
            _ => return, // what became of its CONNECT is counted, or it went by itself
        };
        if let Some(traffic) = self.permit.wake_flag().traffic() {
            traffic.refused(why);
        }
    }

    /// `at` is `now` as the runtime has it, which is finer.
    fn poll_open(&mut self, cx: &mut Context<'_>, now: Time, at: Instant) -> Turn {
        let mut delivered = self.take_signals(now);
        let was_ending = self.is_ending();
        loop {
            self.decode(now);
            if !self.is_loading() || self.poll_loading(cx, now).is_pending() {
                break;
            }
        }
        delivered |= self.take_signals(now); // what those packets have led to goes out with the same write
        self.record_refusals(now);
        if self.connection.closing() {
            return self.close(now);
        }
        if delivered {
            // Before the message is out: the answer may be faster than we are.
            let deferred_acks = &self.shared.deferred_acks;
            self.answering.expect(deferred_acks, &self.stream, at, now);
        }
        self.write_output(cx, now);
        if self.is_ending() {
            return if was_ending {
                self.poll_ending(cx, now)
            } else {
                Turn::Again // what was held back is wanted now
            };
        }
        let is_willing = !self.is_loading() && self.connection.wants_input();
        if is_willing && self.held {
            return if self.connection.has_worked_enough() {
                Turn::Yield
            } else {
                Turn::Again // the flush has made room
            };
        }
        if !is_willing && self.input.len() >= READ_AHEAD_BYTES {
            return self.poll_full(cx, now);
        }
        self.read_input(cx, now)
    }

    /// Whether a message was delivered that the client has to acknowledge.
    fn take_signals(&mut self, now: Time) -> bool {
        if !self.permit.wake_flag().take() {
            return false;
        }
        let delivered = self.connection.handle_wake(now);
        if self.permit.stopping() && !self.is_ending() {
            self.begin_ending(Cause::Stopping, now);
        }
        delivered
    }

    /// Hands the connection what the directory has answered; ready when nothing is asked any more.
    fn poll_loading(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<()> {
        while let Some(loading) = self.rare.as_mut().and_then(|rare| rare.loading.as_mut()) {
            let loaded = ready!(loading.as_mut().poll(cx));
            self.rare().loading = None;
            let progress = match loaded {
                Loaded::Answer(answer) => {
                    let answer = answer.map_err(|error| {
                        // The directory's watch and its loader say so once; this would come with each packet.
                        tracing::debug!(%error, "the accounts database does not answer");
                        Unavailable
                    });
                    self.connection.resume(answer, now)
                }
                Loaded::Displaced => self.connection.handle_displaced(now),
            };
            self.follow(progress, now);
        }
        Poll::Ready(())
    }

    /// Does what the rules ask for after a packet, so that the next one can be taken.
    fn follow(&mut self, progress: Progress, now: Time) {
        let loading: Option<Loading> = match progress {
            Progress::Ready => None,
            Progress::Ask(question) => {
                Some(Box::pin(answer(self.shared.directory.clone(), question)))
            }
            Progress::Displace(displaced) => Some(Box::pin(have_left(displaced))),
        };
        match loading {
            Some(loading) => self.rare().loading = Some(loading),
            None => self.decoder.set_max_packet(self.connection.max_packet()),
        }
        if self.permit.is_half_open() {
            if self.connection.has_authenticated() {
                self.permit.settle();
                self.log_connected(now);
                #[cfg(feature = "otel")]
                crate::spans::connected(now.since(self.accepted));
            } else if let Some(client) = self.connection.held_back()
                && let Some(address) = self.permit.wake_flag().address()
            {
                self.shared.client_log.held_back(&client, address);
                let stamp = self.shared.clock.stamp(now);
                self.shared.events.held_back(&client, address, stamp);
            }
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Lets go of the memory that only trouble needs.
    fn tidy(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.rare = None;
        }
    }

    fn is_loading(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| rare.loading.is_some())
    }
}

/// Those that a client displaces have handled what was sent to them, or have had [`ending::DISPLACED_TIMEOUT`] for it.
async fn have_left(displaced: Displaced) -> Loaded {
    let over = poll_fn(|cx| match displaced.is_over(cx.waker()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    let _ = tokio::time::timeout(ending::DISPLACED_TIMEOUT, over).await;
    Loaded::Displaced
}

async fn answer(directory: Arc<dyn AccountsDatabase>, question: Question) -> Loaded {
    Loaded::Answer(directory.answer(question).await)
}

#[cfg(test)]
pub(crate) mod tests;
