//! [`Cut`]: a TCP proxy on loopback that does to connections what networks do to them.
//!
//! All of them at once: [`Cut::reset`], [`Cut::stall`]. One, at a place of what it carries: [`Cut::cut_next`].
//!
//! Invariants: bytes that pass are unchanged and in order; a connection that is cut passes nothing more, in either direction.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// What is read at once.
const PIECE: usize = 1 << 16;

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before the mark is sent to its end: of what comes in one piece with it, so many thousandths pass.
    Unsent(usize),
    /// As soon as the mark is sent.
    Sent,
    /// When so many bytes have come back since.
    Answered(usize),
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Both sides are told at once that it is gone.
    Reset,
    /// Both sides see the other's end.
    Close,
    /// Whatever is sent from now on is lost, and nobody is told.
    Silence,
}

/// One cut, of a connection that is known by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutting {
    /// What stands in the first bytes that the client sends.
    pub greeting: &'static [u8],
    /// What the client sends later: there it is cut.
    pub mark: &'static [u8],
    /// Where.
    pub place: Place,
    /// How.
    pub how: How,
}

/// A proxy, which ends with this.
#[derive(Debug)]
pub struct Cut {
    port: u16,
    shared: Arc<CutShared>,
}

#[derive(Debug)]
struct CutShared {
    to: u16,
    state: Mutex<CutState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CutState {
    /// Nothing passes, and nothing is closed.
    stalled: bool,
    ended: bool,
    next: Option<Cutting>,
    cuts: usize,
    pairs: Vec<Weak<Pair>>,
}

/// The two sockets of a connection, which are closed when nothing passes any more.
#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    fate: Mutex<CutFate>,
}

#[derive(Debug, Default)]
struct CutFate {
    /// Bytes of the answers that still pass before it is cut.
    answers: Option<usize>,
    how: Option<How>,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Cut {
    /// Before the port `to`, on a port of its own.
    ///
    /// # Panics
    /// If there is no port for it.
    #[must_use]
    pub fn before(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(CutShared {
            to,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.state().ended {
                    return;
                }
                // One that cannot be passed on is closed.
                drop(client.and_then(|client| accepting.join(client)));
            }
        });
        Self { port, shared }
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether nothing passes from now on, and nothing is closed. What was held is passed on when that ends.
    pub fn stall(&self, stalled: bool) {
        self.shared.state().stalled = stalled;
        self.shared.changed.notify_all();
    }

    /// Cuts all connections that there are.
    pub fn reset(&self) {
        let pairs = std::mem::take(&mut self.shared.state().pairs);
        for pair in pairs.iter().filter_map(Weak::upgrade) {
            self.shared.cut(&pair, How::Reset);
        }
    }

    /// Cuts one connection, the next that sends the mark. It replaces a cut that has not begun.
    pub fn cut_next(&self, cutting: Cutting) {
        self.shared.state().next = Some(cutting);
    }

    /// How many connections have been cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.shared.state().cuts
    }

    /// Waits until so many have been cut; whether they are, after `patience`.
    #[must_use]
    pub fn wait_for(&self, cuts: usize, patience: Duration) -> bool {
        let state = self.shared.state();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, patience, |state| state.cuts < cuts);
        !waited.expect(UNPOISONED).1.timed_out()
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        (state.ended, state.stalled) = (true, false);
        drop(state);
        self.shared.changed.notify_all();
        self.reset();
        // The thread that accepts is woken by one more.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

const UNPOISONED: &str = "no code under this lock can panic";

impl CutShared {
    fn state(&self) -> MutexGuard<'_, CutState> {
        self.state.lock().expect(UNPOISONED)
    }

    fn join(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.to))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let pair = Arc::new(Pair {
            client,
            server,
            fate: Mutex::default(),
        });
        let mut state = self.state();
        state.pairs.retain(|pair| pair.strong_count() > 0);
        state.pairs.push(Arc::downgrade(&pair));
        drop(state);
        for direction in [Direction::Up, Direction::Down] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            thread::spawn(move || shared.pass(&pair, direction));
        }
        Ok(())
    }

    /// Passes on what comes from one side until that ends, or the connection is cut.
    fn pass(&self, pair: &Pair, direction: Direction) {
        let (mut from, mut to) = match direction {
            Direction::Up => (&pair.client, &pair.server),
            Direction::Down => (&pair.server, &pair.client),
        };
        let mut buf = vec![0; PIECE];
        let mut speech = Speech::default();
        while let Ok(count @ 1..) = from.read(&mut buf) {
            let (mut passes, mut how) = (count, None);
            self.wait_while_stalled();
            if direction == Direction::Up {
                (passes, how) = self.look(pair, &mut speech, &buf[..count]);
            }
            let mut fate = pair.fate();
            if fate.is_cut {
                // Silence: it is read, and lost.
                continue;
            }
            if direction == Direction::Down
                && let Some(left) = &mut fate.answers
            {
                passes = count.min(*left);
                *left -= passes;
                how = fate.how.filter(|_| passes < count);
            }
            drop(fate);
            if to.write_all(&buf[..passes]).is_err() {
                break;
            }
            if let Some(how) = how {
                self.cut(pair, how);
            }
        }
        self.wait_while_stalled();
        if !pair.fate().is_cut {
            // It may be gone on the other side too.
            drop(to.shutdown(Shutdown::Write));
        }
    }

    /// Whether a piece holds the mark of the cut that comes next: how much of it passes, and whether it is cut then.
    fn look(&self, pair: &Pair, speech: &mut Speech, piece: &[u8]) -> (usize, Option<How>) {
        let mut state = self.state();
        let Some(next) = state.next else {
            speech.heard(piece);
            return (piece.len(), None);
        };
        let end = speech.end_of(next.mark, piece);
        speech.heard(piece);
        let (Some(end), true) = (end, contains(&speech.greeting, next.greeting)) else {
            return (piece.len(), None);
        };
        state.next = None;
        match next.place {
            Place::Unsent(thousandths) => (end * thousandths.min(999) / 1000, Some(next.how)),
            Place::Sent => (piece.len(), Some(next.how)),
            Place::Answered(bytes) => {
                let mut fate = pair.fate();
                (fate.answers, fate.how) = (Some(bytes), Some(next.how));
                (piece.len(), None)
            }
        }
    }

    /// It is counted before anybody notices.
    fn cut(&self, pair: &Pair, how: How) {
        let mut state = self.state();
        if pair.cut(how) {
            state.cuts += 1;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn wait_while_stalled(&self) {
        let state = self.state();
        let waited = self.changed.wait_while(state, |state| state.stalled);
        drop(waited.expect(UNPOISONED));
    }
}

impl Pair {
    fn fate(&self) -> MutexGuard<'_, CutFate> {
        self.fate.lock().expect(UNPOISONED)
    }

    /// Whether it was not cut before.
    fn cut(&self, how: How) -> bool {
        if std::mem::replace(&mut self.fate().is_cut, true) {
            return false;
        }
        for stream in [&self.client, &self.server] {
            // One that is gone already needs no more.
            match how {
                How::Reset => {
                    let _ = set_socket_linger(stream, Some(Duration::ZERO));
                    // Wakes whoever reads; the reset goes out when both directions have let go.
                    drop(stream.shutdown(Shutdown::Read));
                }
                How::Close => drop(stream.shutdown(Shutdown::Both)),
                How::Silence => {}
            }
        }
        true
    }
}

/// What a client has said.
#[derive(Debug, Default)]
struct Speech {
    greeting: Vec<u8>,
    /// The end of the last piece.
    tail: Vec<u8>,
}

impl Speech {
    /// Where the mark ends in the piece, which may hold only the rest of it.
    fn end_of(&self, mark: &[u8], piece: &[u8]) -> Option<usize> {
        let both = [&self.tail, piece].concat();
        let at = both.windows(mark.len()).rposition(|bytes| bytes == mark)?;
        (at + mark.len())
            .checked_sub(self.tail.len())
            .filter(|&end| end > 0)
    }

    fn heard(&mut self, piece: &[u8]) {
        if self.greeting.len() < 1024 {
            self.greeting.extend_from_slice(piece);
        }
        self.tail.clear();
        self.tail
            .extend_from_slice(&piece[piece.len().saturating_sub(16)..]);
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|it| it == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8] = b"COMMIT";

    /// A server that answers each byte with the same one.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut other = stream.try_clone().unwrap();
                    drop(io::copy(&mut stream, &mut other));
                });
            }
        });
        port
    }

    fn said(cutting: Cutting) -> (String, io::Result<usize>, usize) {
        let cut = Cut::before(echo());
        let mut stream = TcpStream::connect(("127.0.0.1", cut.port())).unwrap();
        let patience = Some(Duration::from_millis(300));
        let mut heard = Vec::new();
        let mut buf = [0; 64];
        let mut exchange = |text: &[u8], heard: &mut Vec<u8>| {
            stream.write_all(text).unwrap();
            stream.set_read_timeout(patience).unwrap();
            let wanted = heard.len() + text.len();
            loop {
                match stream.read(&mut buf) {
                    Ok(count @ 1..) => heard.extend_from_slice(&buf[..count]),
                    end => return end,
                }
                if heard.len() >= wanted {
                    return Ok(wanted);
                }
            }
        };
        exchange(b"hello writer ", &mut heard).unwrap();
        cut.cut_next(cutting);
        exchange(b"one ", &mut heard).unwrap();
        let end = exchange(b"two COMMIT", &mut heard);
        let cuts = cut.cuts();
        (String::from_utf8(heard).unwrap(), end, cuts)
    }

    fn cutting(place: Place, how: How) -> Cutting {
        Cutting {
            greeting: b"writer",
            mark: MARK,
            place,
            how,
        }
    }

    #[test]
    fn a_connection_is_cut_where_it_is_to_be_and_as_it_is_to_be() {
        let (heard, end, cuts) = said(cutting(Place::Answered(6), How::Reset));
        assert_eq!((&*heard, cuts), ("hello writer one two CO", 1));
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (heard, end, cuts) = said(cutting(Place::Answered(0), How::Close));
        assert_eq!((&*heard, end.unwrap(), cuts), ("hello writer one ", 0, 1));
        let (heard, end, cuts) = said(cutting(Place::Answered(3), How::Silence));
        assert_eq!((&*heard, cuts), ("hello writer one two", 1));
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (heard, _, cuts) = said(cutting(Place::Unsent(500), How::Silence));
        assert_eq!((&*heard, cuts), ("hello writer one ", 1));
        let (_, end, cuts) = said(cutting(Place::Sent, How::Reset));
        assert!(end.is_err() && cuts == 1);
    }

    #[test]
    fn others_are_left_alone_and_what_is_held_up_passes_later() {
        let other = Cutting {
            greeting: b"reader",
            ..cutting(Place::Sent, How::Reset)
        };
        assert_eq!(said(other).2, 0);
        let cut = Cut::before(echo());
        let mut stream = TcpStream::connect(("127.0.0.1", cut.port())).unwrap();
        cut.stall(true);
        stream.write_all(b"late").unwrap();
        let mut buf = [0; 4];
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        assert!(stream.read(&mut buf).is_err());
        cut.stall(false);
        stream.set_read_timeout(None).unwrap();
        stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"late");
        cut.reset();
        assert!(stream.read(&mut buf).is_err());
        assert_eq!(cut.cuts(), 1);
    }
}
