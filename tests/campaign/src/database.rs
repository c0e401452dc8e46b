//! A PostgreSQL with accounts and a mailbox, which the server reaches through a proxy; and what befalls it.

use std::time::Duration;

use jam_testkit::cut::{Cut, Cutting, How, Place};
use jam_testkit::postgres::{TestDatabase, TestServer};

use crate::server::command;

/// Bytes that the answers to a small batch have, or a few more.
const ANSWERS: usize = 280;

/// A server of PostgreSQL that ends with this.
#[derive(Debug)]
pub struct Database {
    /// As a process.
    pub server: TestServer,
    /// Between jam-mqtt and it.
    pub proxy: Cut,
    database: TestDatabase,
}

/// What befalls the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `pg_ctl -m immediate`, and a start after so many milliseconds.
    Stop(u64),
    /// `kill -9` of all of it, and a start after so many milliseconds.
    Kill(u64),
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Pause(u64),
    /// Nothing passes on the way to it for so many milliseconds; then what was held does, or all connections are cut.
    Stall(u64, bool),
    /// All connections to it are cut.
    Reset,
    /// One connection is, around a COMMIT.
    Cut(Cutting),
}

impl Database {
    /// With the tables of both, and what this SQL puts into them.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(sql: &str) -> Self {
        let server = TestServer::start();
        let database = server.database();
        let url = database.url();
        let mut init = command();
        init.args(["cluster", "init", "--directory", &url, "--mailbox", &url]);
        let made = init.output().expect("the binary is there");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "cluster init: {said}");
        database.run(sql);
        Self {
            proxy: Cut::before(server.port()),
            server,
            database,
        }
    }

    /// Where the server reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        let (port, name) = (self.proxy.port(), self.database.name());
        format!("postgres://postgres@127.0.0.1:{port}/{name}")
    }
}

impl Fault {
    /// As `below` decides, which gives numbers below another.
    pub fn draw(mut below: impl FnMut(usize) -> usize) -> Self {
        let kind = below(16);
        // Hangs are given up after five seconds; most are shorter.
        let most = if below(5) == 0 { 7_000 } else { 1_500 };
        let millis = below(most) as u64;
        match kind {
            0..3 => Self::Stop(millis.min(1_500)),
            3..6 => Self::Kill(millis.min(1_500)),
            6..8 => Self::Pause(millis),
            8..10 => Self::Stall(millis, below(2) == 0),
            10..12 => Self::Reset,
            _ => Self::Cut(cutting(&mut below)),
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stop(_) => "immediate stop",
            Self::Kill(_) => "kill -9",
            Self::Pause(_) => "SIGSTOP",
            Self::Stall(..) => "a way that stands still",
            Self::Reset => "all connections cut",
            Self::Cut(Cutting {
                how: How::Silence, ..
            }) => "a COMMIT lost in silence",
            Self::Cut(_) => "the writer cut at a COMMIT",
        }
    }

    /// How long it lasts by itself.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Stop(millis)
            | Self::Kill(millis)
            | Self::Pause(millis)
            | Self::Stall(millis, _) => Duration::from_millis(*millis),
            Self::Reset | Self::Cut(_) => Duration::ZERO,
        }
    }
}

fn cutting(below: &mut impl FnMut(usize) -> usize) -> Cutting {
    let place = match below(4) {
        0 => Place::Unsent(below(1_000)),
        1 => Place::Sent,
        _ => Place::Answered(below(ANSWERS)),
    };
    let how = match below(12) {
        0 => How::Silence,
        1..6 => How::Close,
        _ => How::Reset,
    };
    Cutting {
        greeting: b"-writer",
        mark: b"SELECT 1; COMMIT",
        place,
        how,
    }
}
