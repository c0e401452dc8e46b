//! The table of all metrics: those of the rules, those that are counted here, and those that are gathered.

use crate::chat_page;
use jam_core::metrics::{Buckets, FAMILIES, Family, MetricType, Series, first_cell};

const LISTENERS: &[&str] = &["mqtt", "mqtts", "http"];
pub(super) const STORE_FAILURES: &[&str] = &["full", "io", "busy", "corrupt"];
pub(super) const PUSH_OUTCOMES: &[&str] = &[
    "sent",
    "token_dead",
    "refused",
    "retry",
    "expired",
    "withdrawn",
];
pub(super) const REFUSED_REASONS: &[&str] = &["address", "tls", "timeout", "malformed", "origin"];

/// Of the source, if who built it said so.
const REVISION: &str = match option_env!("JAM_MQTT_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The last is everything else.
pub(super) static HTTP_REQUESTS: [&[&str]; 35] = [
    &["mqtt", "GET", "1xx"],
    &["mqtt", "GET", "4xx"],
    &["mqtt", "other", "4xx"],
    &["static", "GET", "2xx"],
    &["static", "GET", "3xx"],
    &["static", "GET", "4xx"],
    &["static", "other", "4xx"],
    &["healthz", "GET", "2xx"],
    &["healthz", "other", "4xx"],
    &["readyz", "GET", "2xx"],
    &["readyz", "GET", "5xx"],
    &["readyz", "other", "4xx"],
    &["metrics", "GET", "2xx"],
    &["metrics", "GET", "4xx"],
    &["metrics", "other", "4xx"],
    &["api", "GET", "2xx"],
    &["api", "GET", "4xx"],
    &["api", "GET", "5xx"],
    &["api", "PUT", "2xx"],
    &["api", "PUT", "4xx"],
    &["api", "PUT", "5xx"],
    &["api", "DELETE", "2xx"],
    &["api", "DELETE", "4xx"],
    &["api", "DELETE", "5xx"],
    &["api", "POST", "2xx"],
    &["api", "POST", "4xx"],
    &["api", "POST", "5xx"],
    &["api", "other", "4xx"],
    &["console", "GET", "2xx"],
    &["console", "GET", "3xx"],
    &["console", "GET", "4xx"],
    &["console", "other", "4xx"],
    &["other", "GET", "4xx"],
    &["other", "other", "4xx"],
    &["other", "other", "other"],
];

pub(super) fn route_of(path: &str) -> &'static str {
    let routes = [
        ("/mqtt", "mqtt"),
        ("/healthz", "healthz"),
        ("/readyz", "readyz"),
        ("/metrics", "metrics"),
        ("/api/v1", "api"),
        ("/console", "console"),
    ];
    let is_it = |prefix: &str| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let found = routes.into_iter().find(|(prefix, _)| is_it(prefix));
    let is_static = || path.strip_prefix('/').is_some_and(chat_page::has);
    match found {
        Some((_, route)) => route,
        None if is_static() => "static",
        None => "other",
    }
}

pub(super) fn method_of(method: &str) -> &'static str {
    match method {
        "GET" | "HEAD" => "GET",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "POST" => "POST",
        _ => "other",
    }
}

/// The place of a family in [`COUNTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Connections,
    ConnectionsOpened,
    ConnectionsRefused,
    ReceivedBytes,
    SentBytes,
    CommitSeconds,
    CommitChanges,
    StoreErrors,
    DirectoryLoads,
    DirectoryLoadSeconds,
    Pushes,
    PushSeconds,
    HttpRequests,
    MailboxLostBatches,
}

const FIRST: [usize; COUNTED.len()] = {
    let mut first = [0; COUNTED.len()];
    let mut index = 0;
    while index < first.len() {
        first[index] = first_cell(&COUNTED, index);
        index += 1;
    }
    first
};

pub(super) const fn first_of(index: Index) -> usize {
    FIRST[index as usize]
}

/// What is counted here, in the order of [`Index`].
pub(super) static COUNTED: [Family; 14] = [
    Family {
        name: "jam_connections",
        kind: MetricType::Gauge,
        help: "Connections, those that have not logged in yet included.",
        labels: &["listener"],
        series: Series::Product(&[LISTENERS]),
    },
    Family {
        name: "jam_connections_opened_total",
        kind: MetricType::Counter,
        help: "Connections that were let in.",
        labels: &["listener"],
        series: Series::Product(&[LISTENERS]),
    },
    Family {
        name: "jam_connections_refused_total",
        kind: MetricType::Counter,
        help: "Connections that were closed before a client was known: too many from one address, no TLS handshake, nothing in time, no packet, a foreign origin.",
        labels: &["listener", "reason"],
        series: Series::Product(&[LISTENERS, REFUSED_REASONS]),
    },
    Family {
        name: "jam_received_bytes_total",
        kind: MetricType::Counter,
        help: "Bytes received, below TLS and WebSocket.",
        labels: &["listener"],
        series: Series::Product(&[LISTENERS]),
    },
    Family {
        name: "jam_sent_bytes_total",
        kind: MetricType::Counter,
        help: "Bytes sent, below TLS and WebSocket.",
        labels: &["listener"],
        series: Series::Product(&[LISTENERS]),
    },
    Family {
        name: "jam_commit_seconds",
        kind: MetricType::Histogram(Buckets::of_seconds(8, 22)),
        help: "Seconds that a transaction of the mailbox took, its fsync included.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_commit_changes",
        kind: MetricType::Histogram(Buckets::of_numbers(0, 14)),
        help: "Changes in a transaction of the mailbox.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_store_errors_total",
        kind: MetricType::Counter,
        help: "Writes of the mailbox that failed, and requests to the accounts database, by what was in the way.",
        labels: &["store", "kind"],
        series: Series::Product(&[&["mailbox", "directory"], STORE_FAILURES]),
    },
    Family {
        name: "jam_directory_loads_total",
        kind: MetricType::Counter,
        help: "Facts that were looked up in the accounts database, by whether they were in memory or had to be read.",
        labels: &["answered"],
        series: Series::Product(&[&["memory", "file"]]),
    },
    Family {
        name: "jam_directory_load_seconds",
        kind: MetricType::Histogram(Buckets::of_seconds(4, 21)),
        help: "Seconds that reading a fact of the accounts database took.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_pushes_total",
        kind: MetricType::Counter,
        help: "Tries to push, by what came of them.",
        labels: &["outcome"],
        series: Series::Product(&[PUSH_OUTCOMES]),
    },
    Family {
        name: "jam_push_seconds",
        kind: MetricType::Histogram(Buckets::of_seconds(13, 24)),
        help: "Seconds that the push service took to answer.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_http_requests_total",
        kind: MetricType::Counter,
        help: "HTTP requests to listen.http and listen.admin, by the class of their status; other,other,other is what fits no other series.",
        labels: &["route", "method", "code"],
        series: Series::Listed(&HTTP_REQUESTS),
    },
    Family {
        name: "jam_mailbox_lost_batches_total",
        kind: MetricType::Counter,
        help: "Transactions of the mailbox that PostgreSQL had confirmed and no longer has, after a failover that lost commits or a restored backup.",
        labels: &[],
        series: Series::One,
    },
];

/// A family whose numbers are gathered: its place in [`GATHERED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gauge {
    BuildInfo,
    Ready,
    ConnectionsMax,
    MailboxMessages,
    MailboxBytes,
    MailboxOldest,
    MailboxPending,
    MailboxGrace,
    MailboxFile,
    PostgresDeadRows,
    PostgresOldestSnapshot,
    DiskAvailable,
    PushesOwed,
    Lockouts,
    CertificateExpiry,
    LogLinesLost,
    ProcessCpu,
    ProcessOpenFds,
    ProcessMaxFds,
    ProcessVirtual,
    ProcessVirtualMax,
    ProcessResident,
    ProcessStart,
}

/// What is gathered, in the order of [`Gauge`].
pub(super) static GATHERED: [Family; 23] = [
    Family {
        name: "jam_build_info",
        kind: MetricType::Gauge,
        help: "1; the labels say what was built.",
        labels: &["version", "revision"],
        series: Series::Listed(&[&[env!("CARGO_PKG_VERSION"), REVISION]]),
    },
    Family {
        name: "jam_ready",
        kind: MetricType::Gauge,
        help: "1 if the part can do its work, otherwise 0.",
        labels: &["part"],
        series: Series::Product(&[&["directory", "mailbox", "running"]]),
    },
    Family {
        name: "jam_connections_max",
        kind: MetricType::Gauge,
        help: "Connections that there may be.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_mailbox_messages",
        kind: MetricType::Gauge,
        help: "Messages that are kept for their receivers; retained ones are not among them.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_mailbox_bytes",
        kind: MetricType::Gauge,
        help: "Bytes of the messages that are kept for their receivers: topics, properties and payloads.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_mailbox_oldest_timestamp_seconds",
        kind: MetricType::Gauge,
        help: "When the oldest message that is kept was received, in seconds since 1970; 0 if there is none.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_mailbox_pending_bytes",
        kind: MetricType::Gauge,
        help: "Bytes that wait for a transaction of the mailbox.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_mailbox_grace_bytes",
        kind: MetricType::Gauge,
        help: "Bytes of messages in memory that are expected to be acknowledged before they have to be stored.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_mailbox_file_bytes",
        kind: MetricType::Gauge,
        help: "Bytes of the files of the mailbox.",
        labels: &["file"],
        series: Series::Product(&[&["db", "wal"]]),
    },
    Family {
        name: "jam_postgres_dead_rows",
        kind: MetricType::Gauge,
        help: "Rows of the mailbox's tables in PostgreSQL that are deleted and that VACUUM has not cleared away yet, as PostgreSQL counts them; 0 for a mailbox in a file.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_postgres_oldest_snapshot_seconds",
        kind: MetricType::Gauge,
        help: "Seconds for which PostgreSQL has had to keep what is deleted for the oldest transaction, prepared transaction, replication slot or standby that may still see it, as far as this server has watched; 0 if there is none, and for a mailbox in a file.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_disk_available_bytes",
        kind: MetricType::Gauge,
        help: "Bytes that are free on the disk of a store.",
        labels: &["store"],
        series: Series::Product(&[&["mailbox", "directory"]]),
    },
    Family {
        name: "jam_pushes_owed",
        kind: MetricType::Gauge,
        help: "Pushes that wait to be sent.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_lockouts",
        kind: MetricType::Gauge,
        help: "Addresses whose attempts to log in are refused because too many have failed.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "jam_tls_certificate_expiry_timestamp_seconds",
        kind: MetricType::Gauge,
        help: "When the first certificate in use ends, in seconds since 1970; 0 without TLS.",
        labels: &["listener"],
        series: Series::Product(&[&["mqtts", "http"]]),
    },
    Family {
        name: "jam_log_lines_lost_total",
        kind: MetricType::Counter,
        help: "Lines of the log that could not be written, or for which there was no room while a reader was slow.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_cpu_seconds_total",
        kind: MetricType::Counter,
        help: "Seconds of CPU time, user and system.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_open_fds",
        kind: MetricType::Gauge,
        help: "Open file descriptors.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_max_fds",
        kind: MetricType::Gauge,
        help: "File descriptors that there may be.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_virtual_memory_bytes",
        kind: MetricType::Gauge,
        help: "Bytes of virtual memory.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_virtual_memory_max_bytes",
        kind: MetricType::Gauge,
        help: "Bytes of virtual memory that there may be.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: MetricType::Gauge,
        help: "Bytes of resident memory.",
        labels: &[],
        series: Series::One,
    },
    Family {
        name: "process_start_time_seconds",
        kind: MetricType::Gauge,
        help: "When the process started, in seconds since 1970.",
        labels: &[],
        series: Series::One,
    },
];

/// Where the numbers of a family are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ValueSource {
    /// With the rules.
    Rules(usize),
    /// In [`COUNTED`].
    Counted(Index),
    /// In [`GATHERED`].
    Gathered(Gauge),
}

impl ValueSource {
    pub(crate) fn family(self) -> &'static Family {
        match self {
            Self::Rules(index) => &FAMILIES[index],
            Self::Counted(index) => &COUNTED[index as usize],
            Self::Gathered(gauge) => &GATHERED[gauge as usize],
        }
    }

    pub(super) fn first_cell(self) -> usize {
        match self {
            Self::Rules(index) => first_cell(&FAMILIES, index),
            Self::Counted(index) => first_of(index),
            Self::Gathered(_) => 0,
        }
    }
}

/// All metrics, in the order in which they are shown.
pub(crate) static ALL: [ValueSource; 53] = [
    ValueSource::Gathered(Gauge::BuildInfo),
    ValueSource::Gathered(Gauge::Ready),
    ValueSource::Counted(Index::Connections),
    ValueSource::Gathered(Gauge::ConnectionsMax),
    ValueSource::Counted(Index::ConnectionsOpened),
    ValueSource::Counted(Index::ConnectionsRefused),
    ValueSource::Rules(0),
    ValueSource::Rules(1),
    ValueSource::Rules(2),
    ValueSource::Rules(3),
    ValueSource::Rules(4),
    ValueSource::Rules(5),
    ValueSource::Rules(6),
    ValueSource::Rules(7),
    ValueSource::Rules(8),
    ValueSource::Rules(9),
    ValueSource::Rules(10),
    ValueSource::Counted(Index::ReceivedBytes),
    ValueSource::Counted(Index::SentBytes),
    ValueSource::Rules(11),
    ValueSource::Rules(12),
    ValueSource::Counted(Index::CommitSeconds),
    ValueSource::Counted(Index::CommitChanges),
    ValueSource::Gathered(Gauge::MailboxMessages),
    ValueSource::Gathered(Gauge::MailboxBytes),
    ValueSource::Gathered(Gauge::MailboxOldest),
    ValueSource::Gathered(Gauge::MailboxPending),
    ValueSource::Gathered(Gauge::MailboxGrace),
    ValueSource::Gathered(Gauge::MailboxFile),
    ValueSource::Gathered(Gauge::PostgresDeadRows),
    ValueSource::Gathered(Gauge::PostgresOldestSnapshot),
    ValueSource::Gathered(Gauge::DiskAvailable),
    ValueSource::Counted(Index::StoreErrors),
    ValueSource::Counted(Index::MailboxLostBatches),
    ValueSource::Counted(Index::DirectoryLoads),
    ValueSource::Counted(Index::DirectoryLoadSeconds),
    ValueSource::Counted(Index::Pushes),
    ValueSource::Gathered(Gauge::PushesOwed),
    ValueSource::Counted(Index::PushSeconds),
    ValueSource::Rules(13),
    ValueSource::Rules(14),
    ValueSource::Rules(15),
    ValueSource::Gathered(Gauge::Lockouts),
    ValueSource::Gathered(Gauge::CertificateExpiry),
    ValueSource::Counted(Index::HttpRequests),
    ValueSource::Gathered(Gauge::LogLinesLost),
    ValueSource::Gathered(Gauge::ProcessCpu),
    ValueSource::Gathered(Gauge::ProcessOpenFds),
    ValueSource::Gathered(Gauge::ProcessMaxFds),
    ValueSource::Gathered(Gauge::ProcessVirtual),
    ValueSource::Gathered(Gauge::ProcessVirtualMax),
    ValueSource::Gathered(Gauge::ProcessResident),
    ValueSource::Gathered(Gauge::ProcessStart),
];
