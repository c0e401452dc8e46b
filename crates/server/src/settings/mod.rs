//! The settings: what they are, where they come from, whether they make sense.
//!
//! [`Settings::load`] lays the sources on each other (file, `--env-file`, environment, flags; the later
//! wins), reads every value and checks them against each other, before anything is opened or bound.
//! The table in `keys` is the one home of names, defaults and meanings. Errors name the setting, the
//! place it stood at and what is expected there, and never a secret (`layers::Entry`: whoever shows a value gets it without).
//! The tests are in `tests.rs`.

mod address;
mod env_file;
mod keys;
mod layers;
mod print;
mod read;
mod service_url;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::postgres;

pub use address::{Address, InvalidAddress};
use keys::KEYS;
use layers::Values;
pub use layers::{DEFAULT_FILE, Flag, Sources};
use read::Reader;
pub use service_url::ServiceUrl;

/// A token of the admin address with fewer bytes is warned of: guesses there are not bounded in number.
const LONG_TOKEN_BYTES: usize = 16;

/// In the place of a secret.
pub(crate) const HIDDEN: &str = "(set, not shown)";

/// Everything that can be set. All of it has been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the server keeps its files; created when missing.
    pub data: PathBuf,
    /// A `tracing` filter; `None`: `RUST_LOG`, or `info`.
    pub log: Option<String>,
    /// Where the server listens.
    pub listen: Listen,
    /// TLS.
    pub tls: Tls,
    /// Accounts and friendships.
    pub directory: DirectorySettings,
    /// What waits for its receiver.
    pub mailbox: Mailbox,
    /// Sessions.
    pub sessions: Sessions,
    /// Push.
    pub push: Push,
    /// Limits.
    pub limits: Limits,
    /// The admin API.
    pub admin: Admin,
    values: Values,
}

/// What is to be known of one setting.
#[derive(Debug, Clone)]
pub struct SettingHelp {
    /// `section.key`, or `key` at the top.
    pub path: &'static str,
    /// The environment variable that sets it.
    pub variable: String,
    /// What it is when nobody sets it, as in the file.
    pub default: String,
    /// What it takes.
    pub expected: String,
    /// What it means.
    pub meaning: &'static str,
}

/// What is to be known of each setting, in the order of the file.
pub fn help() -> impl Iterator<Item = SettingHelp> {
    KEYS.iter().map(|key| SettingHelp {
        path: key.path,
        variable: key.variable(),
        default: key.toml(key.default),
        expected: key.kind.expected(),
        meaning: key.meaning,
    })
}

/// Where the server listens; `None` is off.
#[derive(Debug, Clone)]
pub struct Listen {
    /// MQTT over TCP.
    pub mqtt: Option<Address>,
    /// MQTT over TLS. Set only if [`Tls::identity`] is.
    pub mqtts: Option<Address>,
    /// WebSocket, chat page, health.
    pub http: Option<Address>,
    /// Whether the chat page is served.
    pub chat: bool,
    /// Of the web pages that may open the WebSocket, as browsers write them; none is any.
    pub origins: Vec<String>,
    /// Whose PROXY headers are believed.
    pub proxies: Proxies,
    /// Admin API, console, metrics.
    pub admin: Option<Address>,
    /// That serve connections; 0 is one for each core.
    pub threads: u32,
    /// Percent of its time for which a thread is busy before new connections begin on the next one.
    pub fill_percent: u32,
    /// Whether receivers' acknowledgements may wait for the next message.
    pub defer_acks: bool,
}

/// The networks from which a listener expects PROXY headers; none: it expects no header from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Of [`Listen::mqtt`].
    pub mqtt: Vec<IpNet>,
    /// Of [`Listen::mqtts`].
    pub mqtts: Vec<IpNet>,
    /// Of [`Listen::http`].
    pub http: Vec<IpNet>,
}

impl Proxies {
    /// The networks of a listener for which none is named.
    fn of_this_machine() -> Vec<IpNet> {
        let v4 = IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
        vec![v4, IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))]
    }
}

/// TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server's certificate and key; `None` is no TLS.
    pub identity: Option<Identity>,
    /// Clients must show a certificate signed by one of the authorities in this PEM file.
    pub client_ca: Option<PathBuf>,
}

/// What the server proves its name with. All are PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and what else of the chain is in the same file.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Further certificates, sent after those of `cert`.
    pub chain: Option<PathBuf>,
}

/// Accounts and friendships.
#[derive(Debug, Clone)]
pub enum DirectorySettings {
    /// In an SQLite file.
    Sqlite(DirectoryFile),
    /// In PostgreSQL.
    Postgres(Box<postgres::Address>),
}

/// Accounts and friendships in an SQLite file.
#[derive(Debug, Clone)]
pub struct DirectoryFile {
    /// The file. Follows from `directory.url`, or from `data`.
    pub path: PathBuf,
    /// Whether `directory.url` names it: then it may be somebody else's.
    pub named: bool,
    /// Whether commits of others are seen in the file's `-shm`.
    pub map_shm: bool,
}

impl DirectorySettings {
    /// The SQLite file at `path`, which is made when it is missing.
    #[must_use]
    pub fn in_file(path: PathBuf) -> Self {
        Self::Sqlite(DirectoryFile {
            path,
            named: false,
            map_shm: true,
        })
    }

    /// The SQLite file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&DirectoryFile> {
        match self {
            Self::Sqlite(file) => Some(file),
            Self::Postgres(_) => None,
        }
    }

    /// Whether `directory.url` says where it is.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.file().is_none_or(|file| file.named)
    }
}

/// What waits for its receiver.
#[derive(Debug, Clone)]
pub struct Mailbox {
    /// The database that it is in; `None`: a folder of the data directory.
    pub database: Option<postgres::Address>,
    /// Messages of one mailbox.
    pub max_messages: u32,
    /// Bytes of one mailbox.
    pub max_bytes: u64,
    /// How long a message waits.
    pub max_age: Duration,
}

/// How many devices of a user are connected at a time (PROTOCOL.md, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// A new one logs the other one out.
    One,
    /// Side by side.
    Many,
}

/// Sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// How many devices of a user are connected at a time.
    pub devices: Devices,
    /// Of MQTT 3 clients with clean session 0; the maximum for MQTT 5 clients. Less than `u32::MAX` s.
    pub expiry: Duration,
}

/// Push (PROTOCOL.md, section 9).
#[derive(Debug, Clone)]
pub struct Push {
    /// `--no-notification` makes it false.
    pub enabled: bool,
    /// The service account's key file.
    pub fcm_key: Option<PathBuf>,
    /// Where Firebase is.
    pub fcm_url: ServiceUrl,
    /// Where pushes go instead. Not set if `fcm_key` is.
    pub webhook: Option<Webhook>,
    /// How long a connected device may take to acknowledge.
    pub deadline: Duration,
    /// At most one push per sender and receiver in this time.
    pub collapse: Duration,
}

/// An HTTP server that takes pushes.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its address.
    pub url: ServiceUrl,
    /// What pushes to it are signed with.
    pub secret: SecretString,
}

/// Limits (PROTOCOL.md, section 8).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all.
    pub connections: u32,
    /// Connections from one source.
    pub connections_per_address: u32,
    /// Bytes of a packet, its fixed header included; fits MQTT's own maximum.
    pub packet: u32,
    /// From the opening of a connection to its CONNECT.
    pub connect_timeout: Duration,
    /// Unacknowledged messages, each way.
    pub inflight: u16,
    /// Messages per second and user; `None` is unlimited.
    pub publish_rate: Option<NonZeroU32>,
    /// Failed attempts to connect before more are refused.
    pub failed_auth: u32,
    /// How long a failed attempt counts.
    pub failed_auth_window: Duration,
}

/// The admin API.
#[derive(Debug, Clone)]
pub struct Admin {
    /// `None`: a random one in `<data>/admin-token`.
    pub token: Option<SecretString>,
    /// May look, and change nothing. Not the same as `token`.
    pub read_token: Option<SecretString>,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
}

/// What is wrong with the settings, in one line that names the place and says what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(String);

impl Default for Settings {
    /// What holds when nothing is set.
    fn default() -> Self {
        Self::from_values(&Values::defaults()).expect("the defaults are valid: tests::defaults")
    }
}

impl Settings {
    /// Reads all sources and checks what they say.
    ///
    /// # Errors
    /// If a file cannot be read, or a setting is unknown, malformed or contradicts another one.
    pub fn load(sources: &Sources) -> Result<Self, SettingsError> {
        let values = Values::read(sources)?;
        let settings = Self::from_values(&values)?;
        settings.check(&Reader::of(&values))?;
        Ok(settings)
    }

    /// What all sources together say, as [`Self::to_toml`], contradictions included.
    ///
    /// # Errors
    /// If a file cannot be read, or a setting is unknown or malformed.
    pub fn effective(sources: &Sources) -> Result<String, SettingsError> {
        Ok(Self::from_values(&Values::read(sources)?)?.to_toml())
    }

    /// The effective settings as a file that yields them, each explained. Secrets are left out, also those in URLs.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::to_toml(&self.values)
    }

    /// Each setting: its name, what it is, and where that comes from. Of a secret, whether it is set.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>, String)> {
        KEYS.iter().map(|key| {
            let entry = self.values.get(key.path);
            (key.path, entry.shown(), entry.origin.to_string())
        })
    }

    /// The names of the settings that are others there.
    pub(crate) fn differences(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let names = KEYS.iter().map(|key| key.path);
        names.filter(|name| self.values.get(name).expose() != other.values.get(name).expose())
    }

    /// The secrets that stand in a file: the setting, and the file.
    pub(crate) fn secrets_in_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let entries = KEYS.iter().map(|key| (key.path, self.values.get(key.path)));
        let secrets = entries.filter(|(_, entry)| entry.is_secret());
        secrets.filter_map(|(path, entry)| Some((path, entry.origin.file()?)))
    }

    /// A line for each token of the admin address that is short enough to be guessed.
    pub(crate) fn short_tokens(&self) -> Vec<String> {
        let tokens = [
            ("admin.token", &self.admin.token),
            ("admin.read_token", &self.admin.read_token),
        ];
        let is_short = |token: &SecretString| token.expose_secret().len() < LONG_TOKEN_BYTES;
        let short = tokens
            .into_iter()
            .filter(|(_, token)| token.as_ref().is_some_and(is_short));
        let line = |(key, _)| {
            format!(
                "{key} has fewer than {LONG_TOKEN_BYTES} bytes, and may be guessed by whoever reaches listen.admin: \
                 make one with openssl rand -hex 32"
            )
        };
        short.map(line).collect()
    }

    /// The directory of the mailbox.
    #[must_use]
    pub fn mailbox_dir(&self) -> PathBuf {
        self.data.join("mailbox")
    }

    fn from_values(values: &Values) -> Result<Self, SettingsError> {
        let v = Reader::of(values);
        let data = v.path("data")?.ok_or_else(|| v.wrong("data"))?;
        Ok(Self {
            log: v.log()?,
            listen: Listen {
                mqtt: v.address("listen.mqtt")?,
                mqtts: v.address("listen.mqtts")?,
                http: v.address("listen.http")?,
                chat: v.bool("listen.chat")?,
                origins: v.origins("listen.origins")?,
                proxies: v.proxies("listen.proxy_protocol")?,
                admin: v.address("listen.admin")?,
                threads: v.count("listen.threads")?,
                fill_percent: v.count("listen.fill_percent")?,
                defer_acks: v.bool("listen.defer_acks")?,
            },
            tls: Tls {
                identity: v.identity()?,
                client_ca: v.path("tls.client_ca")?,
            },
            directory: v.directory(&data)?,
            mailbox: v.mailbox()?,
            sessions: Sessions {
                devices: if v.text("sessions.devices") == "many" {
                    Devices::Many
                } else {
                    v.word("sessions.devices").map(|_| Devices::One)?
                },
                expiry: v.duration("sessions.expiry")?,
            },
            push: Push {
                enabled: v.bool("push.enabled")?,
                fcm_key: v.path("push.fcm_key")?,
                fcm_url: v.http_url("push.fcm_url")?,
                webhook: v.webhook()?,
                deadline: v.positive_duration("push.deadline")?,
                collapse: v.duration("push.collapse")?,
            },
            limits: v.limits()?,
            admin: Admin {
                token: v.secret("admin.token"),
                read_token: v.secret("admin.read_token"),
                metrics_open: v.bool("admin.metrics_open")?,
            },
            data,
            values: values.clone(),
        })
    }

    /// What no value shows by itself.
    fn check(&self, v: &Reader<'_>) -> Result<(), SettingsError> {
        if self.listen.mqtts.is_some() && self.tls.identity.is_none() {
            return Err(v.error("listen.mqtts", "it needs tls.cert and tls.key as well"));
        }
        if self.tls.client_ca.is_some() && self.tls.identity.is_none() {
            return Err(v.error("tls.client_ca", "it needs tls.cert and tls.key as well"));
        }
        if self.listen.mqtt.is_none() && self.listen.mqtts.is_none() && self.listen.http.is_none() {
            let why = "listen.mqtts and listen.http are off too, so nothing would be served";
            return Err(v.error("listen.mqtt", why));
        }
        if self.push.fcm_key.is_some() && self.push.webhook.is_some() {
            return Err(v.error(
                "push.webhook_url",
                "push.fcm_key is set too: pushes go to one of them, choose which",
            ));
        }
        if self.sessions.expiry.as_secs() >= u64::from(u32::MAX) {
            return Err(v.error("sessions.expiry", "expected less than 4294967295 seconds"));
        }
        let tokens = [&self.admin.token, &self.admin.read_token];
        if let [Some(token), Some(read)] =
            tokens.map(|it| it.as_ref().map(ExposeSecret::expose_secret))
            && token == read
        {
            let why = "expected another one than admin.token, which may change everything";
            return Err(v.error("admin.read_token", why));
        }
        if self.mailbox.max_bytes < u64::from(self.limits.packet) {
            let why = "expected at least limits.packet, or large messages would never fit";
            return Err(v.error("mailbox.max_bytes", why));
        }
        Ok(())
    }
}

impl Limits {
    /// Bytes. Less would not hold the errors of the protocol.
    pub const PACKET_LEAST: u64 = 1024;
    /// Bytes: what MQTT can say (section 2.1.4), header included.
    pub const PACKET_MOST: u64 = 268_435_455 + 5;
}

impl SettingsError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}
