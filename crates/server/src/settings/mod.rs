//! The settings: what they are, where they come from, whether they make sense.
//!
//! [`Settings::load`] lays the sources on each other (file, `--env-file`, environment, flags; the later
//! wins), reads every value and checks them against each other, before anything is opened or bound.
//! The table in `keys` is the one home of names, defaults and meanings. Errors name the setting, the
//! place it stood at and what is expected there, and never a secret. The tests are in `tests.rs`.

mod env_file;
mod keys;
mod layers;
mod print;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use keys::{KEYS, Kind};
use layers::Values;
pub use layers::{DEFAULT_FILE, Flag, Sources};

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

/// `HOST:PORT`, where the host is an IP address (IPv6 in brackets) or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// Where the server listens; `None` is off.
#[derive(Debug, Clone)]
pub struct Listen {
    /// MQTT over TCP.
    pub mqtt: Option<Address>,
    /// MQTT over TLS. Set only if [`Tls::identity`] is.
    pub mqtts: Option<Address>,
    /// WebSocket, health.
    pub http: Option<Address>,
    /// Admin API, console, metrics.
    pub admin: Option<Address>,
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
pub struct DirectorySettings {
    /// The SQLite file. Follows from `directory.url`, or from `data`.
    pub path: PathBuf,
    /// Whether `directory.url` names it: then it may be somebody else's.
    pub named: bool,
}

/// What waits for its receiver.
#[derive(Debug, Clone)]
pub struct Mailbox {
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
    pub fcm_url: String,
    /// How long a connected device may take to acknowledge.
    pub deadline: Duration,
    /// At most one push per sender and receiver in this time.
    pub collapse: Duration,
}

/// Limits (PROTOCOL.md, section 8).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all.
    pub connections: u32,
    /// Connections from one IP address.
    pub connections_per_address: u32,
    /// Bytes of a packet, its fixed header included; fits MQTT's own maximum.
    pub packet: u32,
    /// From the opening of a connection to its CONNECT.
    pub connect_timeout: Duration,
    /// Unacknowledged messages, each way.
    pub inflight: u16,
    /// Messages per second and user; `None` is unlimited.
    pub publish_rate: Option<u32>,
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
}

/// What is wrong with the settings, in one line that names the place and says what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(String);

/// A setting that was given, but has no effect yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed {
    /// The setting: `limits.publish_rate`.
    pub key: &'static str,
    /// What is the case instead.
    pub instead: &'static str,
}

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
        Self::from_values(&Values::read(sources)?)
    }

    /// The effective settings as a file that yields them, each explained. Secrets are left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::to_toml(&self.values)
    }

    /// The settings that were given and differ from their defaults, but have no effect yet.
    #[must_use]
    pub fn not_served(&self) -> Vec<NotServed> {
        let given = KEYS
            .iter()
            .filter(|key| self.values.get(key.path).text != key.default);
        given
            .filter_map(|key| {
                Some(NotServed {
                    key: key.path,
                    instead: key.not_served?,
                })
            })
            .collect()
    }

    fn from_values(values: &Values) -> Result<Self, SettingsError> {
        let v = Reader(values);
        let data = v.path("data")?.ok_or_else(|| v.wrong("data"))?;
        let settings = Self {
            log: v.log()?,
            listen: Listen {
                mqtt: v.address("listen.mqtt")?,
                mqtts: v.address("listen.mqtts")?,
                http: v.address("listen.http")?,
                admin: v.address("listen.admin")?,
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
                deadline: v.positive_duration("push.deadline")?,
                collapse: v.duration("push.collapse")?,
            },
            limits: v.limits()?,
            admin: Admin {
                token: v.secret("admin.token"),
            },
            data,
            values: values.clone(),
        };
        settings.check(&v)?;
        Ok(settings)
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
        if self.sessions.expiry.as_secs() >= u64::from(u32::MAX) {
            return Err(v.error("sessions.expiry", "expected less than 4294967295 seconds"));
        }
        if self.mailbox.max_bytes < u64::from(self.limits.packet) {
            let why = "expected at least limits.packet, or large messages would never fit";
            return Err(v.error("mailbox.max_bytes", why));
        }
        Ok(())
    }
}

/// Reads values of the table by their names.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn text(&self, path: &str) -> &str {
        &self.0.get(path).text
    }

    /// "`listen.mqtt` = "x" (--mqtt): …"
    fn error(&self, path: &str, why: &str) -> SettingsError {
        let entry = self.0.get(path);
        let key = keys::find(path).expect("every name read is in the table");
        let value = match key.kind {
            Kind::Secret => String::new(),
            _ => format!(" = {}", key.toml(&entry.text)),
        };
        SettingsError(format!("{path}{value} ({}): {why}", entry.origin))
    }

    fn wrong(&self, path: &str) -> SettingsError {
        let key = keys::find(path).expect("every name read is in the table");
        self.error(path, &format!("expected {}", expected(key.kind)))
    }

    fn path(&self, path: &str) -> Result<Option<PathBuf>, SettingsError> {
        let text = self.text(path);
        if text.contains('\0') {
            return Err(self.wrong(path));
        }
        Ok(Some(PathBuf::from(text)).filter(|_| !text.is_empty()))
    }

    fn address(&self, path: &str) -> Result<Option<Address>, SettingsError> {
        let text = self.text(path);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|InvalidAddress| self.wrong(path))
    }

    fn duration(&self, path: &str) -> Result<Duration, SettingsError> {
        humantime::parse_duration(self.text(path)).map_err(|_| self.wrong(path))
    }

    fn positive_duration(&self, path: &str) -> Result<Duration, SettingsError> {
        match self.duration(path)? {
            Duration::ZERO => Err(self.error(path, "expected more than 0s")),
            duration => Ok(duration),
        }
    }

    fn bytes(&self, path: &str, least: u64, most: u64) -> Result<u64, SettingsError> {
        let text = self.text(path);
        let size = bytesize::ByteSize::from_str(text)
            .map_err(|_| self.wrong(path))?
            .as_u64();
        if size < least || size > most {
            return Err(self.error(path, &format!("expected {least} to {most} bytes")));
        }
        Ok(size)
    }

    /// The table's bounds are those of `T`, or within them.
    fn count<T: TryFrom<u64>>(&self, path: &str) -> Result<T, SettingsError> {
        let key = keys::find(path).expect("every name read is in the table");
        let Kind::Count(least, most) = key.kind else {
            return Err(self.wrong(path));
        };
        let number: u64 = self.text(path).parse().map_err(|_| self.wrong(path))?;
        let number = Some(number).filter(|number| (least..=most).contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.wrong(path))
    }

    fn bool(&self, path: &str) -> Result<bool, SettingsError> {
        self.text(path).parse().map_err(|_| self.wrong(path))
    }

    fn word(&self, path: &str) -> Result<&str, SettingsError> {
        let key = keys::find(path).expect("every name read is in the table");
        let text = self.text(path);
        match key.kind {
            Kind::Word(words) if words.contains(&text) => Ok(text),
            _ => Err(self.wrong(path)),
        }
    }

    fn secret(&self, path: &str) -> Option<SecretString> {
        let text = self.text(path);
        (!text.is_empty()).then(|| SecretString::from(text))
    }

    fn log(&self) -> Result<Option<String>, SettingsError> {
        let text = self.text("log");
        if text.is_empty() {
            return Ok(None);
        }
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Some(text.to_owned())),
            Err(_) => Err(self.error("log", r#"expected "info", "jam_mqtt=debug" or the like"#)),
        }
    }

    fn http_url(&self, path: &str) -> Result<String, SettingsError> {
        let text = self.text(path);
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        match rest {
            Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
            _ => Err(self.error(path, "expected https://HOST or http://HOST")),
        }
    }

    fn identity(&self) -> Result<Option<Identity>, SettingsError> {
        let chain = self.path("tls.chain")?;
        match (self.path("tls.cert")?, self.path("tls.key")?) {
            (Some(cert), Some(key)) => Ok(Some(Identity { cert, key, chain })),
            (None, None) if chain.is_none() => Ok(None),
            (None, None) => Err(self.error("tls.chain", "it needs tls.cert and tls.key as well")),
            (Some(_), None) => Err(self.error("tls.cert", "it needs tls.key as well")),
            (None, Some(_)) => Err(self.error("tls.key", "it needs tls.cert as well")),
        }
    }

    fn directory(&self, data: &Path) -> Result<DirectorySettings, SettingsError> {
        let url = self.text("directory.url");
        if url.is_empty() {
            return Ok(DirectorySettings {
                path: data.join("jam.db"),
                named: false,
            });
        }
        match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() && !path.contains('\0') => Ok(DirectorySettings {
                path: PathBuf::from(path),
                named: true,
            }),
            _ if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                // Not `error`: such a URL may hold a password.
                let origin = &self.0.get("directory.url").origin;
                Err(SettingsError(format!(
                    "directory.url ({origin}): PostgreSQL is not served yet, expected sqlite:PATH"
                )))
            }
            _ => Err(self.error("directory.url", r#"expected sqlite:PATH, or """#)),
        }
    }

    fn mailbox(&self) -> Result<Mailbox, SettingsError> {
        let url = self.text("mailbox.url");
        if !url.is_empty() {
            let why = if url.starts_with("nats://") {
                r#"NATS is not served yet, expected """#
            } else {
                r#"expected "", the embedded store"#
            };
            let origin = &self.0.get("mailbox.url").origin;
            return Err(SettingsError(format!("mailbox.url ({origin}): {why}")));
        }
        Ok(Mailbox {
            max_messages: self.count("mailbox.max_messages")?,
            max_bytes: self.bytes("mailbox.max_bytes", 1, u64::MAX)?,
            max_age: self.positive_duration("mailbox.max_age")?,
        })
    }

    fn limits(&self) -> Result<Limits, SettingsError> {
        let packet = self.bytes("limits.packet", Limits::PACKET_LEAST, Limits::PACKET_MOST)?;
        Ok(Limits {
            connections: self.count("limits.connections")?,
            connections_per_address: self.count("limits.connections_per_address")?,
            packet: u32::try_from(packet).expect("PACKET_MOST fits"),
            connect_timeout: self.positive_duration("limits.connect_timeout")?,
            inflight: self.count("limits.inflight")?,
            publish_rate: Some(self.count("limits.publish_rate")?).filter(|&rate| rate != 0),
            failed_auth: self.count("limits.failed_auth")?,
            failed_auth_window: self.positive_duration("limits.failed_auth_window")?,
        })
    }
}

impl Limits {
    /// Bytes. Less would not hold the errors of the protocol.
    pub const PACKET_LEAST: u64 = 1024;
    /// Bytes: what MQTT can say (section 2.1.4), header included.
    pub const PACKET_MOST: u64 = 268_435_455 + 5;
}

/// What a value of this kind looks like.
fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => "a text".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::Address => r#"HOST:PORT such as "0.0.0.0:1883", or """#.to_owned(),
        Kind::Duration => r#"a duration such as "10s", "5m" or "30d""#.to_owned(),
        Kind::Bytes => r#"a size such as "64MiB", or a number of bytes"#.to_owned(),
        Kind::Count(least, most) => format!("a whole number from {least} to {most}"),
        Kind::Bool => "true or false".to_owned(),
        Kind::Word(words) => {
            let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            quoted.join(" or ")
        }
    }
}

/// The text is no [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidAddress;

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected HOST:PORT, such as 127.0.0.1:1883 or [::1]:1883")
    }
}

impl std::error::Error for InvalidAddress {}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let port_is_digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !port_is_digits || port.parse::<u16>().is_err() {
            return Err(InvalidAddress);
        }
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let well_formed = match in_brackets {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                !host.is_empty() && host.bytes().all(of_name)
            }
        };
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAddress)
        }
    }
}

impl Address {
    /// `HOST:PORT`, as tokio and the standard library resolve it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host alone, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let (host, _) = self.0.rsplit_once(':').expect("an address has a port");
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
