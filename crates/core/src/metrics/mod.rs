//! What the rules count: nothing of a user, a client, an address or a topic.
//!
//! # Layout
//!
//! - [`Metrics`]: what is counted, one method for each kind of event. `families`: what it is called and means.
//! - [`Family`]: a metric's name, kind and labels, for any table of them. [`Cells`]: where the numbers are.
//!
//! Invariants: every series exists from the start; a counter never goes back; what is told of is counted once, where it
//! is decided.

mod cells;
mod families;
mod family;

use jam_wire::packet::{QoS, Version};

pub use cells::{Cells, own_slot};
pub use families::FAMILIES;
use families::{Index, OF_A_MESSAGE, first_of};
pub use family::{Buckets, Family, MetricType, Series, first_cell};

use crate::policy::{Destination, Refusal};

/// What became of a CONNECT that no row refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectOutcome {
    Accepted = 0,
    Protocol = 7,
}

/// Why a client that had been let in is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// It said so.
    Client,
    /// Its socket ended.
    Lost,
    /// Nothing came for 1.5 times the keep alive.
    KeepAlive,
    /// The same client id has connected again.
    Takeover,
    /// Another device of the user has connected.
    Logout,
    /// Its token is no longer valid, or its account is gone.
    Revoked,
    /// The operator wants it so.
    Kicked,
    /// What it sent is not allowed, or no packet.
    Protocol,
    /// It sent a packet that is larger than the limit.
    TooLarge,
    /// The server stops.
    Shutdown,
    /// It took nothing of what was written to it.
    Stalled,
}

/// Whose topic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// An inbox.
    Inbox,
    /// Another channel of the user's own.
    Own,
}

impl Channel {
    /// Of a topic that was refused: what it looks like.
    pub(crate) fn of_topic(topic: &str) -> Self {
        if topic.ends_with("/inbox") {
            Self::Inbox
        } else {
            Self::Own
        }
    }
}

impl From<Destination> for Channel {
    fn from(destination: Destination) -> Self {
        match destination {
            Destination::Inbox => Self::Inbox,
            Destination::OwnChannel => Self::Own,
        }
    }
}

/// What was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// A QoS 0 message for which there was no room.
    QoS0,
    /// A receipt for which there was no room.
    Receipt,
    /// Presence for which there was no room.
    Presence,
    /// A will that was refused.
    Will,
    /// A message that ended with its account.
    Account,
}

/// Where a message was when its publisher was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// In memory: its receiver was quick, or there is none.
    Grace,
    /// On the disk.
    Disk,
}

/// Is told whenever a publisher is answered: where its message was, and after how many microseconds.
pub type OnAnswered = fn(Path, u64);

/// Everything that the rules have counted.
#[derive(Debug)]
pub struct Metrics {
    cells: Cells,
    on_answered: Option<OnAnswered>,
}

impl Default for Metrics {
    /// No thread has cells of its own.
    fn default() -> Self {
        Self::with_slots(0)
    }
}

impl Metrics {
    /// So many threads have cells of their own: see [`own_slot`].
    #[must_use]
    pub fn with_slots(slots: usize) -> Self {
        Self {
            cells: Cells::new(first_cell(&FAMILIES, FAMILIES.len()), slots),
            on_answered: None,
        }
    }

    /// From now on this is told of every publisher who is answered.
    #[must_use]
    pub fn on_answered(self, tell: OnAnswered) -> Self {
        let on_answered = Some(tell);
        Self {
            on_answered,
            ..self
        }
    }

    /// The numbers.
    #[must_use]
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    fn inc(&self, index: Index, series: usize) {
        self.cells.add(first_of(index) + series, 1);
    }

    /// What a value adds to a histogram with [`OF_A_MESSAGE`].
    #[inline]
    fn observed(index: Index, series: usize, micros: u64) -> [(usize, u64); 2] {
        const COUNT: usize = OF_A_MESSAGE.count();
        let first = first_of(index) + series * (COUNT + 1);
        [
            (first + OF_A_MESSAGE.index(micros), 1),
            (first + COUNT, micros),
        ]
    }

    fn connect(&self, outcome: usize, version: Option<Version>) {
        let version = match version {
            Some(Version::V3) => 0,
            Some(Version::V4) => 1,
            Some(Version::V5) => 2,
            None => 3,
        };
        self.inc(Index::Connects, outcome * 4 + version);
    }

    /// A CONNECT was accepted, or refused by MQTT itself.
    pub(crate) fn connected(&self, outcome: ConnectOutcome, version: Option<Version>) {
        self.connect(outcome as usize, version);
    }

    /// A CONNECT was refused by a row.
    pub(crate) fn connect_refused(&self, refusal: &Refusal, version: Version) {
        self.refused(refusal);
        let outcome = families::CONNECT_OUTCOMES
            .iter()
            .position(|outcome| *outcome == refusal.slug);
        let outcome = outcome.unwrap_or(ConnectOutcome::Protocol as usize);
        self.connect(outcome, Some(version));
    }

    /// A client that had been let in is not there any more.
    pub(crate) fn disconnected(&self, why: DisconnectReason) {
        self.inc(Index::Disconnects, why as usize);
    }

    /// A packet was refused by a row.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.inc(Index::Refusals, refusal.row());
    }

    /// A PUBLISH was judged.
    #[inline]
    pub(crate) fn published(&self, channel: Channel, qos: QoS, is_accepted: bool) {
        let series = (channel as usize * 3 + qos as usize) * 2 + usize::from(!is_accepted);
        self.inc(Index::Publishes, series);
    }

    /// A message goes to a device.
    #[inline]
    pub(crate) fn delivered(&self, channel: Channel, qos: QoS, is_again: bool) {
        let series = (channel as usize * 3 + qos as usize) * 2 + usize::from(is_again);
        self.inc(Index::Deliveries, series);
    }

    /// A device has acknowledged a message, for the first time so many microseconds after it was published, if that is known.
    #[inline]
    pub(crate) fn acknowledged(&self, channel: Channel, after: Option<u64>) {
        let acknowledged = (first_of(Index::Acknowledged) + channel as usize, 1);
        match after.map(|after| Self::observed(Index::DeliverySeconds, 0, after)) {
            Some([bucket, sum]) => self.cells.add_to([acknowledged, bucket, sum]),
            None => self.cells.add_to([acknowledged]),
        }
    }

    /// A publisher is answered, so many microseconds after its message came.
    #[inline]
    pub(crate) fn answered(&self, path: Path, after: u64) {
        let observed = Self::observed(Index::PublishAckSeconds, path as usize, after);
        self.cells.add_to(observed);
        if let Some(tell) = self.on_answered {
            tell(path, after);
        }
    }

    pub(crate) fn expired(&self, messages: u32) {
        self.cells.add(first_of(Index::Expired), messages.into());
    }

    pub(crate) fn purged(&self, messages: u32) {
        self.cells.add(first_of(Index::Purged), messages.into());
    }

    pub(crate) fn dropped(&self, what: Dropped, count: u32) {
        self.cells
            .add(first_of(Index::Dropped) + what as usize, count.into());
    }

    pub(crate) fn wrote_receipt(&self) {
        self.inc(Index::Receipts, 0);
    }

    pub(crate) fn told_presence(&self) {
        self.inc(Index::Presence, 0);
    }

    pub(crate) fn told_friends(&self) {
        self.inc(Index::Friends, 0);
    }

    /// So many more sessions have a connection, so many more have none, so many more users have a connection.
    pub(crate) fn sessions(&self, connected: i32, away: i32, online: i32) {
        let add = |index, series, by: i32| {
            let by = i64::from(by).cast_unsigned();
            self.cells.add(first_of(index) + series, by);
        };
        add(Index::Sessions, 0, connected);
        add(Index::Sessions, 1, away);
        add(Index::UsersOnline, 0, online);
    }

    /// Users with a device connected.
    #[must_use]
    pub fn users_online(&self) -> u64 {
        self.cells.sum(first_of(Index::UsersOnline))
    }

    /// A series of a family, by name and label values: for tests. Of a histogram, how many values there were.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn get(&self, name: &str, values: &[&str]) -> u64 {
        let found = FAMILIES.iter().position(|family| family.name == name);
        let index = found.expect("a family of this name");
        let family = &FAMILIES[index];
        let series = (0..family.count()).find(|series| family.values(*series) == values);
        let series = series.expect("a series with these values");
        let first = first_cell(&FAMILIES, index) + series * family.cells_of_series();
        match family.kind {
            MetricType::Counter | MetricType::Gauge => self.cells.sum(first),
            MetricType::Histogram(buckets) => (first..first + buckets.count())
                .map(|cell| self.cells.sum(cell))
                .sum(),
        }
    }
}
