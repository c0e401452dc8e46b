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
//! - what a client had sent when its connection ends, whoever ends it, is handled first (`ending`);
//! - between packets a connection holds no input buffer (`an_idle_connection_is_small`);
//! - the last bytes reach the peer: they are flushed, then the socket is shut down, then what the peer
//!   still sends is read away, so that no reset overtakes them (`the_last_words_arrive`).

mod ending;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use jam_core::connection::{Connection, OUTPUT_ENOUGH, Progress, Unavailable};
use jam_core::directory::Question;
use jam_core::link::Displaced;
use jam_core::router::Router;
use jam_core::time::Time;
use jam_wire::decode::{DecodeError, Decoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use crate::client_log::ClientLog;
use crate::clock::Clock;
use crate::deferred_acks::{ANSWER_BYTES, AT_ONCE_MILLIS, DeferredAcks, LowWater};
use crate::directory::{DirectoryError, SqliteDirectory};
use crate::heard::Heard;
use crate::permits::ConnectionPermit;
use crate::turns::{self, NextTurn, Turns};
use crate::websocket::{CloseCode, WebSocketStream};
use ending::{Cause, Ending};

/// How many bytes one read takes at most, so that a flood on one connection lets the others in between.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// An unfinished packet that lacks so many bytes is read straight into its own buffer. Everything else
/// goes through a buffer of the thread's, so that a connection that waits needs none of its own.
const READ_DIRECT_FROM_BYTES: usize = READ_BYTES;

/// How many bytes such a read takes at most.
const READ_DIRECT_BYTES: usize = 256 * 1024;

/// How many bytes are read before the packets in them can be handled, give or take one read.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// How often the directory is asked for what one packet needs, before it counts as unavailable: each
/// answer may be gone again from its memory before the rule has read it.
pub(crate) const LOADS_PER_PACKET: u8 = 8;

/// How long a peer that is to be disconnected may take to read what was written to it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer may take to close its side after ours is shut down.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes are read away in that time.
const LINGER_BYTES: u32 = 1024 * 1024;

/// How long not a byte of the output may go out, whatever the client sends meanwhile. Longer than a slow line
/// needs to drain what the kernel holds, for nothing of that is seen here.
const STALLED_OUTPUT: Duration = Duration::from_secs(5 * 60);

/// A time-out that is noticed so much too late was not for the client to keep: the process was stopped or had no
/// time.
const LATE: Duration = Duration::from_millis(500);

/// How long a client then has at least, for what it has sent to be read.
const EXCUSED: Duration = Duration::from_secs(2);

thread_local! {
    /// Where small reads go first; borrowed only while a stream is polled for reading.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) router: Arc<Router>,
    pub(crate) directory: Arc<SqliteDirectory>,
    pub(crate) deferred_acks: DeferredAcks,
    pub(crate) turns: Turns,
    pub(crate) client_log: ClientLog,
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

/// How far the connection is.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Packets come and go.
    Open,
    /// Nothing is read any more; the rest of the output is written, until the time.
    Flushing(Time),
    /// The stream is being shut down.
    Finishing(Time),
    /// Our side is shut down; what still comes in is thrown away, until the time and so many bytes.
    Lingering(Time, u32),
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

/// How the client acknowledges messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Within [`AT_ONCE_MILLIS`], the last time.
    AtOnce,
    /// Later, the last time.
    Late,
    /// Nothing has come since it was deferred.
    Deferred,
}

/// A packet that waits for the directory, or a CONNECT for those that it displaces.
struct Loading {
    load: Pin<Box<dyn Future<Output = Result<(), DirectoryError>> + Send>>,
    times: u8,
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
    /// What has been read and not decoded: empty or the beginning of a packet, unless `held`.
    input: BytesMut,
    /// `input` may hold whole packets that the connection did not want yet.
    held: bool,
    /// The stream itself may hold bytes that were written to it.
    unflushed: bool,
    rare: Option<Box<Rare>>,
    phase: Phase,
    /// The timer has been set and has not fired since.
    armed: bool,
    answer: Answer,
    /// When the message was delivered that the next answer is about: [`Time::low_millis`].
    delivered_at: u32,
    shared: Arc<Shared>,
    permit: ConnectionPermit,
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
            input: BytesMut::new(),
            held: false,
            unflushed: false,
            rare: None,
            phase: Phase::Open,
            armed: false,
            answer: Answer::AtOnce,
            delivered_at: 0,
            shared,
            permit,
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
                Phase::Flushing(until) => self.poll_flushing(cx, now, until),
                Phase::Finishing(until) => self.poll_finishing(cx, now, until),
                Phase::Lingering(until, bytes) => self.poll_lingering(cx, now, until, bytes),
            };
            match turn {
                Turn::Again => {}
                Turn::Yield => {
                    drop(granted);
                    return self.queue(cx);
                }
                Turn::Wait => {
                    ready!(self.poll_timer(cx, timer.as_mut(), now));
                    at = Instant::now();
                    now = self.shared.clock.time(at);
                }
                Turn::Over => {
                    self.connection.handle_closed(now);
                    self.log_end();
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

    fn log_connected(&self) {
        if let Some(client) = self.connection.client()
            && let Some(address) = self.permit.wake_flag().address()
        {
            self.shared.client_log.connected(client, address);
        }
    }

    /// Says once why the connection has ended.
    fn log_end(&mut self) {
        if let Some(ended) = self.connection.take_ended()
            && let Some(address) = self.permit.wake_flag().address()
        {
            self.shared.client_log.ended(&ended, address);
        }
    }

    /// Ready when the time has come to look again.
    ///
    /// A deadline that has moved on, as each packet moves the keep alive, leaves the timer as it is: it
    /// fires in vain once a period instead of being set once a packet. Nor is a timer asked that cannot have
    /// fired: it knows whom to wake, for a task has one waker from its first poll to its last.
    fn poll_timer(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        now: Time,
    ) -> Poll<()> {
        let due = match self.phase {
            Phase::Open => self.deadline(),
            Phase::Flushing(until) | Phase::Finishing(until) | Phase::Lingering(until, _) => {
                Some(until)
            }
        };
        let Some(due) = due else { return Poll::Pending };
        let clock = &self.shared.clock;
        let set = if self.armed {
            clock.time(timer.deadline())
        } else {
            Time::NEVER
        };
        if now < set && set <= due {
            return Poll::Pending;
        }
        if !self.armed || due < set {
            timer.as_mut().reset(clock.instant(due));
            self.armed = true;
        }
        ready!(timer.poll(cx));
        self.armed = false;
        Poll::Ready(())
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
        if self.connection.closing() {
            return self.close(now);
        }
        if delivered {
            self.expect_answer(now, at); // before the message is out: the answer may be faster than we are
        }
        match self.poll_flush(cx, now) {
            Poll::Ready(Ok(())) => {
                if let Some(rare) = &mut self.rare {
                    rare.stalled_since = None;
                }
                self.tidy();
            }
            Poll::Pending => {
                self.rare().stalled_since.get_or_insert(now);
            }
            Poll::Ready(Err(error)) => self.end_writing(&error, now),
        }
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
        let read = if self.is_judged(now) {
            self.poll_kernel(cx)
        } else {
            self.poll_read(cx)
        };
        match read {
            Poll::Pending => {
                if self.permit.wake_flag().take_heard() {
                    self.hear(now); // a part of what makes a byte for this loop
                }
                self.wait(now)
            }
            Poll::Ready(Ok(read)) if read > 0 => {
                self.hear(now);
                self.classify_read(read, now);
                // As much as a read takes: this may be a flood.
                if read < READ_BYTES {
                    Turn::Again
                } else {
                    Turn::Yield
                }
            }
            Poll::Ready(end) => self.end_reading(end, now),
        }
    }

    /// When there is something to do though nobody wakes the task.
    fn deadline(&self) -> Option<Time> {
        let Some(rare) = self.rare.as_deref() else {
            return self.connection.deadline();
        };
        if let Some(ending) = &rare.ending {
            return Some(ending.due());
        }
        let stalled = rare.stalled_since.map(|since| since + STALLED_OUTPUT);
        let due = [self.connection.deadline(), stalled, self.quiet_from(rare)];
        due.into_iter().flatten().min()
    }

    /// Whether something is about to follow from it that nothing more has come.
    fn is_judged(&self, now: Time) -> bool {
        self.connection.has_notice() || self.connection.deadline().is_some_and(|due| due <= now)
    }

    /// Bytes have come: the client is alive.
    fn hear(&mut self, now: Time) {
        self.permit.wake_flag().take_heard();
        self.connection.handle_input(now);
        if self.connection.has_notice() {
            self.rare().heard_at = Some(now);
        }
    }

    /// Nothing has come, or there is no room for it: whether that is to have consequences.
    fn wait(&mut self, now: Time) -> Turn {
        if self.connection.has_notice() {
            self.answer_notice(now);
            if self.is_ending() {
                return Turn::Again;
            }
        }
        let rare = self.rare.as_deref();
        let stalled_since = rare.and_then(|rare| rare.stalled_since);
        if stalled_since.is_some_and(|since| since + STALLED_OUTPUT <= now) {
            return self.begin_ending(Cause::Stalled, now);
        }
        let is_due = |due: Option<Time>| due.filter(|due| *due <= now);
        let Some(due) = is_due(self.connection.deadline()) else {
            return Turn::Wait;
        };
        if self.connection.held_back().is_some() {
            let progress = self.connection.handle_timeout(now);
            self.take_up(progress, 1);
            return Turn::Again;
        }
        if now.since(due) >= LATE {
            self.connection.excuse(now, EXCUSED);
            if is_due(self.connection.deadline()).is_none() {
                return Turn::Wait;
            }
        }
        self.begin_ending(Cause::Silent, now)
    }

    /// No more is read ahead. What lies in the socket is no silence, though.
    fn poll_full(&mut self, cx: &mut Context<'_>, now: Time) -> Turn {
        if self.connection.deadline().is_some_and(|due| due <= now) {
            let mut one = (&mut self.input).limit(1);
            self.permit.wake_flag().set_asks_kernel(true);
            let read = pin!(self.stream.read_buf(&mut one)).poll(cx);
            self.permit.wake_flag().set_asks_kernel(false);
            match read {
                Poll::Pending => {}
                Poll::Ready(Ok(read)) if read > 0 => self.hear(now),
                Poll::Ready(end) => return self.end_reading(end, now),
            }
        }
        self.wait(now)
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

    /// A message is about to be written: its acknowledgement need not wake the server, if it comes at once.
    fn expect_answer(&mut self, now: Time, at: Instant) {
        if self.answer == Answer::Deferred {
            return;
        }
        self.delivered_at = now.low_millis();
        if self.answer == Answer::AtOnce && self.shared.deferred_acks.defer(&self.stream, at, now) {
            self.answer = Answer::Deferred;
        }
    }

    /// So many bytes have come: so few are an acknowledgement, others a message.
    fn classify_read(&mut self, read: usize, now: Time) {
        if read <= ANSWER_BYTES as usize {
            let after = now.low_millis().wrapping_sub(self.delivered_at);
            self.answer = if after <= AT_ONCE_MILLIS {
                Answer::AtOnce
            } else {
                Answer::Late
            };
        } else {
            if self.answer == Answer::Deferred {
                self.answer = Answer::AtOnce;
            }
            self.shared.deferred_acks.count_message(now);
        }
    }

    /// Asks the connection again when the directory has answered; ready when nothing is asked any more.
    fn poll_loading(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<()> {
        while let Some(loading) = self.rare.as_mut().and_then(|rare| rare.loading.as_mut()) {
            let result = ready!(loading.load.as_mut().poll(cx));
            let times = loading.times;
            self.rare().loading = None;
            let result = result.map_err(|error| {
                // The directory's watch and its loader say so once; this would come with each packet.
                tracing::debug!(%error, "the accounts database does not answer");
                Unavailable
            });
            let loaded = if times < LOADS_PER_PACKET {
                result
            } else {
                Err(Unavailable)
            };
            let progress = self.connection.resume(loaded, now);
            self.take_up(progress, times + 1);
        }
        Poll::Ready(())
    }

    /// Handles the packets that are there, as long as the connection wants them.
    fn decode(&mut self, now: Time) {
        self.held = false;
        while !self.is_loading() && !self.connection.closing() && !self.input.is_empty() {
            let wants_input = if self.is_ending() {
                self.connection.wants_last_input()
            } else {
                self.connection.wants_input()
            };
            if !wants_input || self.connection.has_worked_enough() {
                self.held = true;
                return;
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Some(packet)) => {
                    let progress = self.connection.handle_packet(packet, now);
                    self.decoder.set_max_packet(self.connection.max_packet());
                    self.take_up(progress, 1);
                }
                Ok(None) => break,
                Err(error) => {
                    self.stream.set_close_code(match error {
                        DecodeError::TooLarge { .. } => CloseCode::TOO_LARGE,
                        _ => CloseCode::PROTOCOL_ERROR,
                    });
                    let version = self.decoder.version();
                    self.connection.handle_decode_error(&error, version, now);
                    break;
                }
            }
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    fn take_up(&mut self, progress: Progress, times: u8) {
        debug_assert!(
            times <= LOADS_PER_PACKET || progress == Progress::Ready,
            "what is unavailable is not asked for again"
        );
        let directory = || self.shared.directory.clone();
        let load: Option<Pin<Box<dyn Future<Output = _> + Send>>> = match progress {
            Progress::Ready => None,
            Progress::Ask(question) => Some(Box::pin(load(directory(), question))),
            Progress::Displace(displaced) => Some(Box::pin(have_left(displaced))),
        };
        match load {
            Some(load) => self.rare().loading = Some(Loading { load, times }),
            None => self.decoder.set_max_packet(self.connection.max_packet()),
        }
        if self.permit.is_half_open() {
            if self.connection.has_authenticated() {
                self.permit.settle();
                self.log_connected();
            } else if let Some(client) = self.connection.held_back()
                && let Some(address) = self.permit.wake_flag().address()
            {
                self.shared.client_log.held_back(&client, address);
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

    /// Writes all output that the stream takes; ready when nothing is left.
    fn poll_flush(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<io::Result<()>> {
        loop {
            let before = self.connection.output().len();
            if before == 0 {
                break;
            }
            if ready!(self.poll_write(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if let Some(rare) = &mut self.rare {
                rare.stalled_since = None;
            }
            if before >= OUTPUT_ENOUGH {
                self.connection.handle_flushed(now); // something may have been held back
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            self.connection.output().release();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once; ready with the number of bytes, which have been taken off the output.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let output = self.connection.output();
        if output.chunk().len() < output.len() {
            return pin!(self.stream.write_buf(output)).poll(cx);
        }
        // The usual case, all in one piece, needs no array of slices.
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, output.chunk()))?;
        output.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Reads once into `input`; ready with the number of bytes, 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // The decoder has made room for the whole packet once it knew its length.
        let room = self.input.capacity() - self.input.len();
        if !self.input.is_empty() && room >= READ_DIRECT_FROM_BYTES {
            let mut room = (&mut self.input).limit(READ_DIRECT_BYTES.min(room));
            return pin!(self.stream.read_buf(&mut room)).poll(cx);
        }
        let Self { stream, input, .. } = self;
        poll_scratch(stream, cx, |bytes| input.extend_from_slice(bytes))
    }

    /// The same, whatever the runtime knows of: pending when there is nothing.
    fn poll_kernel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.permit.wake_flag().set_asks_kernel(true);
        let read = self.poll_read(cx);
        self.permit.wake_flag().set_asks_kernel(false);
        read
    }

    /// Nothing more is read; what is written already goes out.
    fn close(&mut self, now: Time) -> Turn {
        self.log_end();
        self.rare = None;
        self.input = BytesMut::new();
        self.phase = Phase::Flushing(now + FLUSH_TIMEOUT);
        Turn::Again
    }

    fn poll_flushing(&mut self, cx: &mut Context<'_>, now: Time, until: Time) -> Turn {
        match self.poll_flush(cx, now) {
            Poll::Ready(Ok(())) => {
                self.connection.handle_closed(now);
                self.phase = Phase::Finishing(until);
                Turn::Again
            }
            Poll::Ready(Err(error)) => Self::broken(&error),
            Poll::Pending if until <= now => Turn::Over,
            Poll::Pending => Turn::Wait,
        }
    }

    fn poll_finishing(&mut self, cx: &mut Context<'_>, now: Time, until: Time) -> Turn {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => {
                self.phase = Phase::Lingering(now + LINGER_TIMEOUT, LINGER_BYTES);
                Turn::Again
            }
            Poll::Ready(Err(error)) => Self::broken(&error),
            Poll::Pending if until <= now => Turn::Over,
            Poll::Pending => Turn::Wait,
        }
    }

    fn poll_lingering(&mut self, cx: &mut Context<'_>, now: Time, until: Time, bytes: u32) -> Turn {
        let read = match poll_scratch(&mut self.stream, cx, |_| ()) {
            Poll::Ready(Ok(read)) if read > 0 && now < until => read,
            Poll::Pending if now < until => return Turn::Wait,
            _ => return Turn::Over,
        };
        match u32::try_from(read)
            .ok()
            .and_then(|read| bytes.checked_sub(read))
        {
            Some(left) => {
                self.phase = Phase::Lingering(until, left);
                Turn::Again
            }
            None => Turn::Over,
        }
    }

    fn broken(error: &io::Error) -> Turn {
        tracing::debug!(%error, "connection broken");
        Turn::Over
    }
}

/// Reads once into the thread's buffer; ready with the number of bytes, 0 at the end of the stream.
fn poll_scratch<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        take(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Those that a client displaces have handled what was sent to them, or have had [`ending::DISPLACED_TIMEOUT`] for it.
async fn have_left(displaced: Displaced) -> Result<(), DirectoryError> {
    let over = poll_fn(|cx| match displaced.is_over(cx.waker()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    let _ = tokio::time::timeout(ending::DISPLACED_TIMEOUT, over).await;
    Ok(())
}

async fn load(directory: Arc<SqliteDirectory>, question: Question) -> Result<(), DirectoryError> {
    directory.load(question).await
}

#[cfg(test)]
mod tests;
