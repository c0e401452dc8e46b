//! [`Direct`]: a fact read by the very thread that asks for it.
//!
//! What has been written or read lately lies in the system's memory. To read a fact from there takes SQLite a
//! few microseconds, to wake the loader's thread for it and be woken several times that (ADR 6). What would wait is
//! left to the loader: a lock of another process, another thread that is just reading, and a disk that has to be
//! asked, which the first slow read tells.
//!
//! Invariants: no lock is waited for (`directory::sqlite::tests::waiting::an_exclusive_lock_only_delays`); slow reads take no more
//! than one [`PART`]th of the time (`tests::slow_reads_are_left_to_the_loader`).

use std::cell::Cell;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jam_core::directory::Fact;
use rusqlite::Connection;

use super::super::cache::Key;
use super::rows;

/// From here on a read is slow: many times what one takes that finds everything in memory.
const SLOW: Duration = Duration::from_micros(250);

/// After a slow read everything is left to the loader for so many times what it took.
const PART: u32 = 20;

const NO_PANIC: &str = "no code that reads can panic";

thread_local! {
    static LEFT_TO_THE_LOADER: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread reads nothing of the file, and looks at no version: a disk that does not answer does not
/// hold it.
pub(crate) fn leave_reading_to_the_loader() {
    LEFT_TO_THE_LOADER.set(true);
}

/// Whether this thread may be held by a disk.
pub(super) fn may_read_here() -> bool {
    !LEFT_TO_THE_LOADER.get()
}

/// A connection for such reads.
#[derive(Debug)]
pub(super) struct Direct(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of the file that stands at the path, as far as anybody has noticed.
    connection: Option<Connection>,
    rests_until: Option<Instant>,
}

impl Direct {
    /// Without a file: everything is left to the loader.
    pub(super) fn closed() -> Self {
        Self(Mutex::new(Inner {
            connection: None,
            rests_until: None,
        }))
    }

    /// Reads over `connection` from now on.
    pub(super) fn open(&self, connection: Connection) {
        *self.0.lock().expect(NO_PANIC) = Inner::new(connection);
    }

    /// Leaves everything to the loader from now on, until there is another connection. Gives back the old one.
    pub(super) fn close(&self) -> Option<Connection> {
        self.0.lock().expect(NO_PANIC).connection.take()
    }

    /// A read that does not come back, for so long.
    #[cfg(test)]
    pub(super) fn hang_while<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let _reading = self.0.lock().expect(NO_PANIC);
        meanwhile()
    }

    /// What the file says now. `None`: the loader is to say it, or why it cannot.
    pub(super) fn read(&self, key: &Key) -> Option<Fact> {
        if !may_read_here() {
            return None;
        }
        self.0.try_lock().ok()?.read(key, Instant::now)
    }
}

impl Inner {
    fn new(connection: Connection) -> Self {
        Self {
            connection: Some(connection),
            rests_until: None,
        }
    }

    fn read(&mut self, key: &Key, clock: impl Fn() -> Instant) -> Option<Fact> {
        let began = clock();
        if self.rests_until.is_some_and(|until| began < until) {
            return None;
        }
        let fact = rows::read(self.connection.as_ref()?, key);
        let ended = clock();
        let took = ended - began;
        self.rests_until = (took >= SLOW).then(|| ended + took * PART);
        fact.ok()
    }
}

#[cfg(test)]
mod tests {
    use jam_core::directory::NotificationToken;

    use super::super::schema;
    use super::*;

    #[test]
    fn slow_reads_are_left_to_the_loader() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("jam.db");
        schema::create_if_missing(&path).unwrap();
        let mut inner = Inner::new(schema::open_for_reading(&path).unwrap());
        let (now, takes) = (Cell::new(Instant::now()), Cell::new(SLOW / 2));
        let mut reads = || {
            let key = Key::NotificationToken(1);
            let begins = Cell::new(true);
            let clock = || {
                if !begins.replace(false) {
                    now.set(now.get() + takes.get());
                }
                now.get()
            };
            let fact = inner.read(&key, clock);
            fact.map(|fact| matches!(fact, Fact::NotificationToken(NotificationToken::Absent)))
        };
        assert_eq!([reads(), reads()], [Some(true), Some(true)]);
        for slow in [SLOW, Duration::from_secs(10)] {
            takes.set(slow);
            assert_eq!(reads(), Some(true));
            takes.set(Duration::ZERO);
            assert_eq!(reads(), None);
            now.set(now.get() + slow * PART - Duration::from_nanos(1));
            assert_eq!(reads(), None);
            now.set(now.get() + Duration::from_nanos(1));
            assert_eq!([reads(), reads()], [Some(true), Some(true)]);
        }
    }
}
