//! The server's end of a connection, fed as the server feeds it: no packet before the last one is dealt with, none
//! that the connection does not want, and all that has arrived before it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use bytes::{Buf, BytesMut};
use jam_core::connection::{Connection, Progress};
use jam_core::directory::Question;
use jam_core::directory::Unavailable;
use jam_core::link::Displaced;
use jam_core::time::Time;
use jam_wire::Decoder;

use crate::directory::FakeDirectory;

/// Bytes of the buffer in which packets arrive.
pub(crate) const INPUT: usize = 16 * 1024;

/// The server's end of a connection, and the bytes on their way.
pub(crate) struct End {
    pub(crate) connection: Option<Connection>,
    flag: Arc<Flag>,
    decoder: Decoder,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    /// Whether the client takes what is written.
    pub(crate) reading: bool,
    /// Whether the server leaves what arrives where it is until it has to look: it is busy with others.
    pub(crate) busy: bool,
    /// What the directory was asked and has not said yet.
    asking: Option<Question>,
    /// What the client waits for that is about to be let in.
    displaced: Option<Displaced>,
    /// Packets have arrived that are not wanted yet.
    is_held: bool,
    /// The client has turned away: the place is free.
    pub(crate) forgotten: bool,
}

#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl End {
    pub(crate) fn new(connection: Connection, flag: Arc<Flag>) -> Self {
        Self {
            decoder: Decoder::server(connection.max_packet()),
            connection: Some(connection),
            flag,
            input: BytesMut::with_capacity(INPUT),
            output: BytesMut::new(),
            reading: true,
            busy: false,
            asking: None,
            displaced: None,
            is_held: false,
            forgotten: false,
        }
    }

    /// The server is killed.
    pub(crate) fn die(&mut self) {
        (self.connection, self.asking, self.displaced) = (None, None, None);
        self.input.clear();
    }

    /// The client's socket is gone.
    pub(crate) fn cut(&mut self, directory: &FakeDirectory, now: Time) {
        self.hear_out(directory, now);
        if let Some(mut connection) = self.connection.take() {
            connection.handle_closed(now);
        }
        (self.asking, self.displaced) = (None, None);
        self.forgotten = true;
    }

    /// Whether something has arrived that is not handled.
    pub(crate) fn is_behind(&self) -> bool {
        !self.input.is_empty() || self.asking.is_some()
    }

    pub(crate) fn handle_timeout(&mut self, directory: &FakeDirectory, now: Time) {
        // Nobody is waited for so long.
        self.displaced_have_left(directory, now);
        let is_due = |it: &Connection| it.deadline().is_some_and(|due| due <= now);
        if self.connection.as_ref().is_some_and(is_due) {
            self.hear_out(directory, now);
        }
        if let Some(connection) = &mut self.connection {
            let progress = connection.handle_timeout(now);
            self.proceed(progress, directory, now);
        }
    }
    /// The server stops.
    pub(crate) fn shut_down(&mut self, now: Time) {
        if let Some(connection) = &mut self.connection {
            connection.handle_shutdown(now);
            self.busy = true;
        }
    }

    /// Whether somebody has left something for the connection.
    pub(crate) fn is_called(&self) -> bool {
        self.connection.is_some() && self.flag.0.load(Ordering::Relaxed)
    }

    /// One look at a connection; whether there was anything to do.
    pub(crate) fn turn(&mut self, directory: &FakeDirectory, now: Time) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let mut busy = false;
        if self.flag.0.swap(false, Ordering::Relaxed) {
            busy = true;
            connection.handle_wake(now);
        }
        let waker = Waker::noop(); // everybody is looked at in each round
        if self.displaced.as_ref().is_some_and(|it| it.is_over(waker)) {
            busy = true;
            self.displaced_have_left(directory, now);
        }
        busy |= self.answer(directory, now);
        // A newcomer waits for what this client has sent.
        self.busy &= !self.connection.as_ref().is_some_and(Connection::has_notice);
        if !self.busy {
            busy |= self.decode(directory, now, |connection| connection.wants_input());
        }
        let Some(connection) = &mut self.connection else {
            return busy;
        };
        if connection.has_notice() && self.is_held && connection.awaits_reading() {
            // The client that is to read first never may: the rest is handled without that.
            self.hear_out(directory, now);
            if let Some(connection) = &mut self.connection {
                connection.handle_closed(now);
            }
            return true;
        }
        if connection.has_notice() && !self.is_held && self.asking.is_none() {
            busy = true;
            connection.handle_heard();
        }
        while self.reading && !connection.output().is_empty() {
            busy = true;
            let some = connection.output().chunk().len();
            let bytes = connection.output().copy_to_bytes(some);
            self.output.extend_from_slice(&bytes);
            connection.handle_flushed(now);
        }
        if connection.closing() {
            busy = true;
            connection.handle_closed(now);
            self.connection = None;
            self.input.clear();
        }
        busy
    }

    /// Takes the packets that are there, as long as they are wanted; whether there were any.
    fn decode(
        &mut self,
        directory: &FakeDirectory,
        now: Time,
        wants: impl Fn(&mut Connection) -> bool,
    ) -> bool {
        let mut busy = false;
        self.is_held = false;
        while !self.input.is_empty()
            && let Some(connection) = &mut self.connection
        {
            if self.displaced.is_some() || !wants(connection) {
                self.is_held = !connection.closing();
                break;
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Some(packet)) => {
                    busy = true;
                    let progress = connection.handle_packet(packet, now);
                    self.proceed(progress, directory, now);
                }
                Ok(None) => break,
                Err(error) => {
                    busy = true;
                    let version = self.decoder.version();
                    connection.handle_decode_error(&error, version, now);
                    self.input.clear();
                }
            }
        }
        busy
    }

    /// The directory says what it was asked, unless it hangs; whether it does.
    fn answer(&mut self, directory: &FakeDirectory, now: Time) -> bool {
        let Some(question) = self.asking.take_if(|_| !directory.is_hanging()) else {
            return false;
        };
        if let Some(connection) = &mut self.connection {
            let progress = connection.resume(directory.answer(&question), now);
            self.proceed(progress, directory, now);
        }
        true
    }

    fn proceed(&mut self, mut progress: Progress, directory: &FakeDirectory, now: Time) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        loop {
            match progress {
                Progress::Ready => break,
                Progress::Ask(question) if directory.is_hanging() => {
                    self.asking = Some(question);
                    break;
                }
                Progress::Ask(question) => {
                    progress = connection.resume(directory.answer(&question), now);
                }
                Progress::Displace(displaced) => {
                    self.displaced = Some(displaced);
                    break;
                }
            }
        }
        self.decoder.set_max_packet(connection.max_packet());
    }

    fn displaced_have_left(&mut self, directory: &FakeDirectory, now: Time) {
        if self.displaced.take().is_some()
            && let Some(connection) = &mut self.connection
        {
            let progress = connection.handle_displaced(now);
            self.proceed(progress, directory, now);
        }
    }

    /// The connection is going to end: what has arrived counts.
    fn hear_out(&mut self, directory: &FakeDirectory, now: Time) {
        self.displaced_have_left(directory, now);
        self.give_up_asking(directory, now);
        while self.decode(directory, now, Connection::wants_last_input) {
            self.give_up_asking(directory, now);
        }
    }

    /// A directory that hangs is not waited for for ever.
    fn give_up_asking(&mut self, directory: &FakeDirectory, now: Time) {
        if self.asking.take().is_some()
            && let Some(connection) = &mut self.connection
        {
            let progress = connection.resume(Err(Unavailable), now);
            self.proceed(progress, directory, now);
        }
    }
}
