//! What the server counts, beside the rules; and all of it together, at one moment.
//!
//! # Layout
//!
//! - [`ServerMetrics`]: counters of what touches the world. `families`: the table of all metrics, in the order in which they
//!   are shown; the rules' own are [`jam_core::metrics`].
//! - [`Snapshot`]: all numbers at one moment, which whatever shows them is made of. `text`: as Prometheus reads them.
//! - `process`: what the system says of the process.
//!
//! Invariants: nothing here is about a user, a client, an address or a topic; every series is there from the start
//! (`admin::tests::metrics`). What has to be gathered from others is gathered in `admin::gathering`.

mod families;
pub(crate) mod process;
mod snapshot;
mod text;

use std::sync::Arc;
use std::time::Duration;

use jam_core::metrics::{Cells, MetricType, first_cell};

use crate::spans;

pub(crate) use families::Gauge;
use families::{COUNTED, HTTP_REQUESTS, Index};
pub(crate) use snapshot::{Gauges, Snapshot};
pub(crate) use text::MEDIA_TYPE;

/// The place where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerName {
    Mqtt,
    Mqtts,
    Http,
}

/// Why a connection was closed before it was a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedConnection {
    /// Too many from its address.
    Address,
    /// No TLS handshake.
    Tls,
    /// Not in time.
    Timeout,
    /// Neither a PROXY header nor a packet.
    Malformed,
    /// From a web page that may not.
    Origin,
}

/// What came of an attempt to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushCount {
    Sent,
    TokenDead,
    Refused,
    Retry,
    Expired,
    Withdrawn,
}

/// What a store failed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFailure {
    Full,
    Io,
    Busy,
    Corrupt,
}

/// Counters of what touches the world.
#[derive(Debug)]
pub(crate) struct ServerMetrics(Cells);

impl Default for ServerMetrics {
    /// No thread has cells of its own.
    fn default() -> Self {
        Self::with_slots(0)
    }
}

impl ServerMetrics {
    /// See [`jam_core::metrics::own_slot`].
    pub(crate) fn with_slots(slots: usize) -> Self {
        Self(Cells::new(first_cell(&COUNTED, COUNTED.len()), slots))
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.0
    }

    fn add(&self, index: Index, series: usize, by: u64) {
        self.0.add(families::first_of(index) + series, by);
    }

    fn observe(&self, index: Index, value: u64) {
        if let MetricType::Histogram(buckets) = COUNTED[index as usize].kind {
            self.add(index, buckets.index(value), 1);
            self.add(index, buckets.count(), value);
        }
    }

    /// A batch of so many changes was committed in this time.
    pub(crate) fn committed(&self, changes: usize, took: Duration) {
        self.observe(Index::CommitSeconds, micros(took));
        self.observe(Index::CommitChanges, changes as u64);
        spans::committed(changes, took);
    }

    /// A fact of the accounts database was in memory.
    #[inline]
    pub(crate) fn knew_fact(&self) {
        self.add(Index::DirectoryLoads, 0, 1);
    }

    /// A fact of the accounts database was read.
    pub(crate) fn read_fact(&self, took: Duration) {
        self.add(Index::DirectoryLoads, 1, 1);
        self.observe(Index::DirectoryLoadSeconds, micros(took));
    }

    /// The mailbox could not be written.
    pub(crate) fn mailbox_failed(&self, failure: StoreFailure) {
        self.add(Index::StoreErrors, failure as usize, 1);
    }

    /// The mailbox's database has lost so many batches that it had confirmed.
    pub(crate) fn lost_batches(&self, batches: u64) {
        self.add(Index::MailboxLostBatches, 0, batches);
    }

    /// The accounts database could not be asked or changed.
    pub(crate) fn directory_failed(&self, failure: StoreFailure) {
        let series = families::STORE_FAILURES.len() + failure as usize;
        self.add(Index::StoreErrors, series, 1);
    }

    /// A try to push has ended, after this time if anything was sent.
    pub(crate) fn pushed(&self, result: PushCount, took: Option<Duration>) {
        self.add(Index::Pushes, result as usize, 1);
        if let Some(took) = took {
            self.observe(Index::PushSeconds, micros(took));
            spans::pushed(families::PUSH_OUTCOMES[result as usize], took);
        }
    }

    /// A request was answered.
    pub(crate) fn requested(&self, path: &str, method: &str, status: u16) {
        let code = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let route = families::route_of(path);
        let method = families::method_of(method);
        let wanted: [&str; 3] = [route, method, code];
        let found = HTTP_REQUESTS.iter().position(|it| *it == wanted);
        let other = HTTP_REQUESTS.len() - 1;
        self.add(Index::HttpRequests, found.unwrap_or(other), 1);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What comes in and goes out at one listener.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Those of the metrics: nearer by than there.
    cells: Cells,
    listener: usize,
}

impl Traffic {
    pub(crate) fn at(listener: ListenerName, metrics: &ServerMetrics) -> Arc<Self> {
        Arc::new(Self {
            cells: metrics.0.clone(),
            listener: listener as usize,
        })
    }

    #[inline]
    fn add(&self, index: Index, by: u64) {
        self.cells
            .add(families::first_of(index) + self.listener, by);
    }

    /// A connection has come; [`Self::closed`] is due.
    pub(crate) fn opened(&self) {
        self.add(Index::Connections, 1);
        self.add(Index::ConnectionsOpened, 1);
    }

    pub(crate) fn closed(&self) {
        self.add(Index::Connections, u64::MAX); // one less
    }

    pub(crate) fn refused(&self, why: RefusedConnection) {
        let series = self.listener * families::REFUSED_REASONS.len() + why as usize;
        let first = families::first_of(Index::ConnectionsRefused);
        self.cells.add(first + series, 1);
    }

    #[inline]
    pub(crate) fn received(&self, bytes: usize) {
        self.add(Index::ReceivedBytes, bytes as u64);
    }

    #[inline]
    pub(crate) fn sent(&self, bytes: usize) {
        self.add(Index::SentBytes, bytes as u64);
    }
}

#[cfg(test)]
mod tests;
