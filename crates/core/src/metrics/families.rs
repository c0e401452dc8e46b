//! The table of what the rules count.

use super::{Buckets, Family, MetricType, Series, first_cell};
use crate::policy::refusals::ROWS;

pub(super) const CONNECT_OUTCOMES: &[&str] = &[
    "accepted",
    "spam",
    "id",
    "token_format",
    "unknown_user",
    "wrong_token",
    "database",
    "protocol",
];
const VERSIONS: &[&str] = &["3.1", "3.1.1", "5.0", "unknown"];
pub(super) const DISCONNECT_REASONS: &[&str] = &[
    "client",
    "lost",
    "keepalive",
    "takeover",
    "logout",
    "revoked",
    "kicked",
    "protocol",
    "too_large",
    "shutdown",
    "stalled",
];
const CHANNELS: &[&str] = &["inbox", "own"];
const QOS: &[&str] = &["0", "1", "2"];

fn names_of_row(row: usize) -> Vec<&'static str> {
    vec![ROWS[row].handler.label(), ROWS[row].slug]
}

/// From a quarter of a millisecond to eight seconds.
pub(super) const OF_A_MESSAGE: Buckets = Buckets::of_seconds(8, 23);

/// The place of a family in [`FAMILIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Connects,
    Disconnects,
    Sessions,
    UsersOnline,
    Publishes,
    Refusals,
    Deliveries,
    Acknowledged,
    Expired,
    Purged,
    Dropped,
    DeliverySeconds,
    PublishAckSeconds,
    Receipts,
    Presence,
    Friends,
}

const FIRST: [usize; FAMILIES.len()] = {
    let mut first = [0; FAMILIES.len()];
    let mut index = 0;
    while index < first.len() {
        first[index] = first_cell(&FAMILIES, index);
        index += 1;
    }
    first
};

/// The first cell of a family.
pub(super) const fn first_of(index: Index) -> usize {
    FIRST[index as usize]
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    series: Series,
) -> Family {
    Family {
        name,
        kind: MetricType::Counter,
        help,
        labels,
        series,
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    series: Series,
) -> Family {
    Family {
        kind: MetricType::Gauge,
        ..counter(name, help, labels, series)
    }
}

/// What the rules count, in the order of `Index`.
pub static FAMILIES: [Family; 16] = [
    counter(
        "jam_connects_total",
        "CONNECT packets, by what became of them and by the version of MQTT.",
        &["outcome", "version"],
        Series::Product(&[CONNECT_OUTCOMES, VERSIONS]),
    ),
    counter(
        "jam_disconnects_total",
        "Clients that had been let in and are not connected any more, by the reason.",
        &["reason"],
        Series::Product(&[DISCONNECT_REASONS]),
    ),
    gauge(
        "jam_sessions",
        "Sessions of devices, by whether the device is connected.",
        &["state"],
        Series::Product(&[&["connected", "away"]]),
    ),
    gauge(
        "jam_users_online",
        "Users with a device connected.",
        &[],
        Series::One,
    ),
    counter(
        "jam_publishes_total",
        "PUBLISH packets of clients, by whether they were taken. One that is taken and then cannot be kept is also in \
         jam_refusals_total.",
        &["channel", "qos", "outcome"],
        Series::Product(&[CHANNELS, QOS, &["accepted", "refused"]]),
    ),
    counter(
        "jam_refusals_total",
        "Packets refused, and clients logged out, by the row of the protocol's tables (docs/metrics.md).",
        &["handler", "reason"],
        Series::Computed(ROWS.len(), names_of_row),
    ),
    counter(
        "jam_deliveries_total",
        "PUBLISH packets to clients, by whether they may have been sent before (DUP).",
        &["channel", "qos", "again"],
        Series::Product(&[CHANNELS, QOS, &["false", "true"]]),
    ),
    counter(
        "jam_acknowledged_total",
        "Messages that a device has acknowledged, by PUBACK or PUBREC.",
        &["channel"],
        Series::Product(&[CHANNELS]),
    ),
    counter(
        "jam_expired_total",
        "Messages that expired before every device had them.",
        &[],
        Series::One,
    ),
    counter(
        "jam_purged_total",
        "Messages that an operator removed.",
        &[],
        Series::One,
    ),
    counter(
        "jam_dropped_total",
        "What was let go: without room at QoS 0, a receipt or presence without room, a refused will, a message that \
         ended with its account.",
        &["what"],
        Series::Product(&[&["qos0", "receipt", "presence", "will", "account"]]),
    ),
    Family {
        name: "jam_delivery_seconds",
        kind: MetricType::Histogram(OF_A_MESSAGE),
        help: "Seconds from a PUBLISH being read to its first acknowledgement by a device that was connected all the \
               while.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_publish_ack_seconds",
        kind: MetricType::Histogram(OF_A_MESSAGE),
        help: "Seconds from a PUBLISH being read to its PUBACK or PUBREC being written, by whether it waited for the \
               disk.",
        labels: &["path"],
        series: Series::Product(&[&["grace", "disk"]]),
    },
    counter(
        "jam_receipts_total",
        "Receipts written to senders who subscribe to them.",
        &[],
        Series::One,
    ),
    counter(
        "jam_presence_total",
        "Presence messages written to users who subscribe to them.",
        &[],
        Series::One,
    ),
    counter(
        "jam_friends_lists_total",
        "Lists of friends written to users who subscribe to them.",
        &[],
        Series::One,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_index() {
        for (index, name) in [
            (Index::Connects, "jam_connects_total"),
            (Index::UsersOnline, "jam_users_online"),
            (Index::Refusals, "jam_refusals_total"),
            (Index::Acknowledged, "jam_acknowledged_total"),
            (Index::Dropped, "jam_dropped_total"),
            (Index::PublishAckSeconds, "jam_publish_ack_seconds"),
            (Index::Friends, "jam_friends_lists_total"),
        ] {
            assert_eq!(FAMILIES[index as usize].name, name);
        }
        assert_eq!(Index::Friends as usize + 1, FAMILIES.len());
    }
}
