//! Every setting that exists, in one table: its name, its default, what it takes, what it means.
//!
//! All else follows from it: what is unknown, how values are read, and `--print-config`. A setting that is not here cannot be set.

use crate::threads::MAX_THREADS;

/// What the names of environment variables begin with.
pub(super) const PREFIX: &str = "JAM_MQTT_";

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// The URL of a service; credentials in it are never shown.
    Url,
    /// A path; relative to the working directory.
    Path,
    /// `HOST:PORT`, or "" for off.
    Address,
    /// `10s`, `30d`.
    Duration,
    /// `64MiB`, or a number of bytes.
    Bytes,
    /// A whole number within bounds, both included.
    Count(u64, u64),
    /// `true` or `false`.
    Bool,
    /// Texts, such as these. Written with commas between them where there are no lists: in the environment, on the
    /// command line.
    List(&'static str),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `section.key`, or `key` at the top.
    pub(super) path: &'static str,
    /// As it would stand in the file, without quotes.
    pub(super) default: &'static str,
    /// What it takes.
    pub(super) kind: Kind,
    /// What it means, in a line.
    pub(super) meaning: &'static str,
}

const fn key(path: &'static str, default: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key {
        path,
        default,
        kind,
        meaning,
    }
}

const U32: u64 = u32::MAX as u64;

/// In the order in which they are printed: what has no section first, sections together.
pub(super) const KEYS: &[Key] = &[
    key(
        "data",
        "./jam-data",
        Kind::Path,
        "where the server keeps its files: the mailbox, and the accounts database unless directory.url names another; created when needed",
    ),
    key(
        "log",
        "",
        Kind::Text,
        r#"what is logged: error, warn, info, debug, trace or off, or "info,jam_mqtt=debug"; "" = RUST_LOG, or info"#,
    ),
    key(
        "listen.mqtt",
        "0.0.0.0:1883",
        Kind::Address,
        r#"MQTT over TCP; "" = off"#,
    ),
    key(
        "listen.mqtts",
        "",
        Kind::Address,
        r#"MQTT over TLS, such as "0.0.0.0:8883"; needs tls.cert and tls.key; "" = off"#,
    ),
    key(
        "listen.http",
        "127.0.0.1:8080",
        Kind::Address,
        r#"MQTT over WebSocket at /mqtt, the chat page at /, /healthz, /readyz; over TLS (wss, https) with tls.cert; "" = off"#,
    ),
    key(
        "listen.chat",
        "true",
        Kind::Bool,
        "whether listen.http has the chat page; jam.js, for pages of your own, is there in any case",
    ),
    key(
        "listen.origins",
        "",
        Kind::List(r#"["https://chat.example.org"]"#),
        "origins of the web pages that may open the WebSocket, the chat page's own included; [] = any. Apps that are no web pages send none, and may",
    ),
    key(
        "listen.threads",
        "0",
        Kind::Count(0, MAX_THREADS as u64),
        "threads that serve connections; 0 = one for each core",
    ),
    key(
        "listen.fill_percent",
        "50",
        Kind::Count(0, 100),
        "of its time, for which a thread is busy before new connections begin on the next; 0 = on each in turn",
    ),
    key(
        "listen.defer_acks",
        "true",
        Kind::Bool,
        "in light traffic, a receiver's acknowledgement waits for the next message, 30 ms at most: a tenth less CPU (Linux)",
    ),
    key(
        "listen.proxy_protocol",
        "",
        Kind::List(r#"["mqtt", "http=10.0.0.0/8"]"#),
        r#"listeners that expect PROXY v1 or v2 from a proxy: "mqtt" from this machine, "mqtt=10.0.0.0/8" from there"#,
    ),
    key(
        "listen.admin",
        "127.0.0.1:8081",
        Kind::Address,
        r#"admin API, /metrics, /healthz; "" = off"#,
    ),
    key(
        "tls.cert",
        "",
        Kind::Path,
        "the server's certificate, PEM; also serves https and wss on listen.http; \"\" = no TLS",
    ),
    key(
        "tls.key",
        "",
        Kind::Path,
        "the private key of tls.cert, PEM",
    ),
    key(
        "tls.chain",
        "",
        Kind::Path,
        r#"further certificates, PEM, sent after those of tls.cert; "" = none"#,
    ),
    key(
        "tls.client_ca",
        "",
        Kind::Path,
        r#"clients must show a certificate signed by one of these, PEM; "" = none asked for"#,
    ),
    key(
        "directory.url",
        "",
        Kind::Url,
        r#"accounts and friendships: sqlite:PATH, postgres://USER:PASSWORD@HOST/DATABASE; "" = sqlite:<data>/jam.db"#,
    ),
    key(
        "directory.map_shm",
        "true",
        Kind::Bool,
        "whether commits of other processes are seen in the database's -shm, which is mapped; otherwise SQLite is asked",
    ),
    key(
        "mailbox.url",
        "",
        Kind::Url,
        r#"what waits for its receiver: postgres://USER@HOST/DATABASE; "" = <data>/mailbox"#,
    ),
    key(
        "mailbox.max_messages",
        "10000",
        Kind::Count(1, U32),
        "messages a mailbox holds",
    ),
    key(
        "mailbox.max_bytes",
        "64MiB",
        Kind::Bytes,
        "bytes a mailbox holds, each message with its topic and properties; at least limits.packet",
    ),
    key(
        "mailbox.max_age",
        "30d",
        Kind::Duration,
        "how long a message waits for its receiver; retained messages stay until they are replaced, cleared, or expire by their own interval",
    ),
    key(
        "sessions.devices",
        "one",
        Kind::Word(&["one", "many"]),
        r#""one": a new device logs the user's other one out; "many": side by side, 32 at most, where a further one ends the session that has been away longest"#,
    ),
    key(
        "sessions.expiry",
        "30d",
        Kind::Duration,
        "how long a session outlives its connection: of 3.1 and 3.1.1 clients without clean session, and at most of 5.0 clients",
    ),
    key(
        "push.enabled",
        "true",
        Kind::Bool,
        "whether push is on; without it the column user_notification_token is not needed; --no-notification sets false",
    ),
    key(
        "push.fcm_key",
        "",
        Kind::Path,
        r#"push through Firebase: the service account's key file, JSON; "" = none"#,
    ),
    key(
        "push.fcm_url",
        "https://fcm.googleapis.com",
        Kind::Url,
        "where Firebase is",
    ),
    key(
        "push.webhook_url",
        "",
        Kind::Url,
        r#"instead of Firebase: where each push is POSTed, such as "https://example.org/push"; "" = nowhere"#,
    ),
    key(
        "push.webhook_secret",
        "",
        Kind::Secret,
        "what the pushes to push.webhook_url are signed with; any text, the longer the better",
    ),
    key(
        "push.deadline",
        "10s",
        Kind::Duration,
        "a device that is connected and has not acknowledged a message by then is woken by a push",
    ),
    key(
        "push.collapse",
        "30s",
        Kind::Duration,
        "at most one push per sender and receiver in this time while the receiver stays away; three at once, then one in this time, when the receiver comes and goes",
    ),
    key(
        "limits.connections",
        "1000000",
        Kind::Count(1, U32),
        "connections in all; further ones take the place of one that has not logged in, or wait to be accepted",
    ),
    key(
        "limits.connections_per_address",
        "1000",
        Kind::Count(1, U32),
        "connections from one IPv4 address or IPv6 /64; further ones take the place of one that has not logged in, or are closed",
    ),
    key(
        "limits.packet",
        "4MiB",
        Kind::Bytes,
        "the largest packet a client may send, from 1 KiB to 256 MiB; apps send pictures as JSON arrays of byte values, 3.6 MB for a picture of 1 MB",
    ),
    key(
        "limits.connect_timeout",
        "10s",
        Kind::Duration,
        "from the opening of a connection to its CONNECT, TLS handshake and HTTP request included",
    ),
    key(
        "limits.inflight",
        "64",
        Kind::Count(1, 65_535),
        "messages on their way to a client, and from it, that are not acknowledged",
    ),
    key(
        "limits.publish_rate",
        "50",
        Kind::Count(0, U32),
        "messages per second and user, all devices together, ten times as many at once; more are refused; 0 = unlimited",
    ),
    key(
        "limits.failed_auth",
        "10",
        Kind::Count(1, U32),
        "failed attempts to connect from one IPv4 address or IPv6 /64, before more are refused",
    ),
    key(
        "limits.failed_auth_window",
        "10m",
        Kind::Duration,
        "how long a failed attempt counts",
    ),
    key(
        "admin.token",
        "",
        Kind::Secret,
        r#"lets you into the admin API, a long one; "" = a random one in <data>/admin-token"#,
    ),
    key(
        "admin.read_token",
        "",
        Kind::Secret,
        r#"lets you look at what the admin API has, and change nothing, a long one; "" = none"#,
    ),
    key(
        "admin.metrics_open",
        "true",
        Kind::Bool,
        "whether /metrics on listen.admin needs no token: there is nothing personal in it",
    ),
];

impl Kind {
    /// What a value of this kind looks like.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::Url => "a URL".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Address => r#"HOST:PORT such as "0.0.0.0:1883", or """#.to_owned(),
            Self::Duration => r#"a duration such as "10s", "5m" or "30d""#.to_owned(),
            Self::Bytes => r#"a size such as "64MiB", or a number of bytes"#.to_owned(),
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::List(example) => format!("a list such as {example}"),
            Self::Bool => "true or false".to_owned(),
            Self::Word(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                quoted.join(" or ")
            }
        }
    }
}

/// The setting of this name.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The known one among `candidates` that looks most like `unknown`.
pub(super) fn nearest<'a>(
    unknown: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let mut last: Option<(f64, &str)> = None;
    for candidate in candidates {
        let likeness = strsim::jaro_winkler(unknown, candidate);
        if last.is_none_or(|(best, _)| likeness > best) {
            last = Some((likeness, candidate));
        }
    }
    last.map(|(_, candidate)| candidate)
}

/// What the text of a list has in it.
pub(super) fn items(text: &str) -> Vec<&str> {
    // `["a", "b"]` is what a list looks like elsewhere.
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let text = bare.unwrap_or(text);
    let items = text.split(',').map(|item| item.trim().trim_matches('"'));
    items.filter(|item| !item.is_empty()).collect()
}

impl Key {
    /// The section's name, "" for what has none.
    pub(super) fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within the section.
    pub(super) fn name(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(_, name)| name)
    }

    /// `JAM_MQTT_SECTION__KEY`.
    pub(super) fn variable(&self) -> String {
        format!("{}{}", PREFIX, self.path.replace('.', "__").to_uppercase())
    }

    /// As a value of a TOML file.
    pub(super) fn toml(&self, text: &str) -> String {
        match self.kind {
            Kind::Count(..) | Kind::Bool => text.to_owned(),
            Kind::List(_) => toml::Value::from(items(text)).to_string(),
            _ => toml::Value::from(text).to_string(),
        }
    }
}
