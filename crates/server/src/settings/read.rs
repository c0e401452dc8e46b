//! From texts to values: each setting read as what it is, or an error that says what is expected.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;
use secrecy::SecretString;

use super::keys::{self, Kind};
use super::layers::Values;
use super::{
    Address, DirectoryFile, DirectorySettings, Identity, InvalidAddress, Limits, Mailbox, Proxies,
    ServiceUrl, SettingsError, Webhook,
};
use crate::{logging, postgres};

/// Reads values of the table by their names.
pub(super) struct Reader<'a>(&'a Values);

impl<'a> Reader<'a> {
    pub(super) fn of(values: &'a Values) -> Self {
        Self(values)
    }

    pub(super) fn text(&self, path: &str) -> &str {
        self.0.get(path).expose()
    }

    /// "`listen.mqtt` = "x" (--mqtt): …"
    pub(super) fn error(&self, path: &str, why: &str) -> SettingsError {
        let entry = self.0.get(path);
        let key = keys::find(path).expect("every name read is in the table");
        let value = match key.kind {
            Kind::Secret => String::new(),
            _ => format!(" = {}", key.toml(&entry.shown())),
        };
        SettingsError(format!("{path}{value} ({}): {why}", entry.origin))
    }

    pub(super) fn wrong(&self, path: &str) -> SettingsError {
        let key = keys::find(path).expect("every name read is in the table");
        self.error(path, &format!("expected {}", key.kind.expected()))
    }

    pub(super) fn path(&self, path: &str) -> Result<Option<PathBuf>, SettingsError> {
        let text = self.text(path);
        if text.contains('\0') {
            return Err(self.wrong(path));
        }
        Ok(Some(PathBuf::from(text)).filter(|_| !text.is_empty()))
    }

    pub(super) fn address(&self, path: &str) -> Result<Option<Address>, SettingsError> {
        let text = self.text(path);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|InvalidAddress| self.wrong(path))
    }

    /// The networks from which each listener expects PROXY headers.
    pub(super) fn proxies(&self, path: &str) -> Result<Proxies, SettingsError> {
        let mut proxies = Proxies::default();
        for item in keys::items(self.text(path)) {
            let (name, network) = item.split_once('=').unwrap_or((item, ""));
            let networks = match name.trim() {
                "mqtt" => &mut proxies.mqtt,
                "mqtts" => &mut proxies.mqtts,
                "http" => &mut proxies.http,
                _ => {
                    let why =
                        format!("{item:?}: expected mqtt, mqtts or http, or one with =NETWORK");
                    return Err(self.error(path, &why));
                }
            };
            let parsed = match network.trim() {
                "" if name == item => Ok(Proxies::of_this_machine()),
                network => parse_network(network).map(|network| vec![network]),
            };
            networks.extend(parsed.map_err(|InvalidNetwork| {
                let why = format!("{item:?}: expected a network such as {name}=10.0.0.0/8");
                self.error(path, &why)
            })?);
        }
        Ok(proxies)
    }

    /// Origins as browsers write them (RFC 6454, section 6.2).
    pub(super) fn origins(&self, path: &str) -> Result<Vec<String>, SettingsError> {
        let items = keys::items(self.text(path)).into_iter();
        let origins = items.map(|item| {
            parse_origin(item).ok_or_else(|| {
                let why = format!(
                    "{item:?}: expected scheme, host and port (unless it is the usual one) such as https://chat.example.org, and no more"
                );
                self.error(path, &why)
            })
        });
        origins.collect()
    }

    pub(super) fn duration(&self, path: &str) -> Result<Duration, SettingsError> {
        humantime::parse_duration(self.text(path)).map_err(|_| self.wrong(path))
    }

    pub(super) fn positive_duration(&self, path: &str) -> Result<Duration, SettingsError> {
        match self.duration(path)? {
            Duration::ZERO => Err(self.error(path, "expected more than 0s")),
            duration => Ok(duration),
        }
    }

    pub(super) fn bytes(&self, path: &str, least: u64, most: u64) -> Result<u64, SettingsError> {
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
    pub(super) fn count<T: TryFrom<u64>>(&self, path: &str) -> Result<T, SettingsError> {
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

    pub(super) fn bool(&self, path: &str) -> Result<bool, SettingsError> {
        self.text(path).parse().map_err(|_| self.wrong(path))
    }

    pub(super) fn word(&self, path: &str) -> Result<&str, SettingsError> {
        let key = keys::find(path).expect("every name read is in the table");
        let text = self.text(path);
        match key.kind {
            Kind::Word(words) if words.contains(&text) => Ok(text),
            _ => Err(self.wrong(path)),
        }
    }

    pub(super) fn secret(&self, path: &str) -> Option<SecretString> {
        let text = self.text(path);
        (!text.is_empty()).then(|| SecretString::from(text))
    }

    pub(super) fn log(&self) -> Result<Option<String>, SettingsError> {
        let text = self.text("log");
        if text.is_empty() {
            return Ok(None);
        }
        match logging::filter(text) {
            Ok(_) => Ok(Some(text.to_owned())),
            Err(why) => Err(self.error("log", &why)),
        }
    }

    pub(super) fn http_url(&self, path: &str) -> Result<ServiceUrl, SettingsError> {
        let url = ServiceUrl::parse(self.text(path));
        url.ok_or_else(|| self.error(path, "expected https://HOST or http://HOST"))
    }

    /// Without a secret anybody who finds the address could send pushes to it.
    pub(super) fn webhook(&self) -> Result<Option<Webhook>, SettingsError> {
        let is_off = self.text("push.webhook_url").is_empty();
        match self.secret("push.webhook_secret") {
            None if is_off => Ok(None),
            None => Err(self.error(
                "push.webhook_url",
                "it needs push.webhook_secret as well, which pushes are signed with",
            )),
            Some(_) if is_off => {
                Err(self.error("push.webhook_secret", "it needs push.webhook_url as well"))
            }
            Some(secret) => {
                let url = self.http_url("push.webhook_url")?;
                Ok(Some(Webhook { url, secret }))
            }
        }
    }

    pub(super) fn identity(&self) -> Result<Option<Identity>, SettingsError> {
        let chain = self.path("tls.chain")?;
        match (self.path("tls.cert")?, self.path("tls.key")?) {
            (Some(cert), Some(key)) => Ok(Some(Identity { cert, key, chain })),
            (None, None) if chain.is_none() => Ok(None),
            (None, None) => Err(self.error("tls.chain", "it needs tls.cert and tls.key as well")),
            (Some(_), None) => Err(self.error("tls.cert", "it needs tls.key as well")),
            (None, Some(_)) => Err(self.error("tls.key", "it needs tls.cert as well")),
        }
    }

    pub(super) fn directory(&self, data: &Path) -> Result<DirectorySettings, SettingsError> {
        let url = self.text("directory.url");
        if url.is_empty() {
            return Ok(DirectorySettings::Sqlite(DirectoryFile {
                path: data.join("jam.db"),
                named: false,
                map_shm: self.bool("directory.map_shm")?,
            }));
        }
        // As in other programs' URLs, `//` before a path means nothing.
        let path = url
            .strip_prefix("sqlite:")
            .map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            // SQLite would take these for something else than files.
            Some(path) if path.starts_with(':') || path.starts_with("file:") => Err(self.error(
                "directory.url",
                "expected sqlite:PATH; write ./ before this path",
            )),
            Some(path) if !path.is_empty() && !path.contains('\0') => {
                Ok(DirectorySettings::Sqlite(DirectoryFile {
                    path: PathBuf::from(path),
                    named: true,
                    map_shm: self.bool("directory.map_shm")?,
                }))
            }
            _ if postgres::Address::is_postgres(url) => postgres::Address::parse(url)
                .map(|address| DirectorySettings::Postgres(Box::new(address)))
                .map_err(|error| self.error("directory.url", &error.to_string())),
            _ => {
                let why = r#"expected sqlite:PATH, postgres://USER@HOST/DATABASE, or """#;
                Err(self.error("directory.url", why))
            }
        }
    }

    pub(super) fn mailbox(&self) -> Result<Mailbox, SettingsError> {
        Ok(Mailbox {
            database: self.mailbox_database()?,
            max_messages: self.count("mailbox.max_messages")?,
            max_bytes: self.bytes("mailbox.max_bytes", 1, u64::MAX)?,
            max_age: self.positive_duration("mailbox.max_age")?,
        })
    }

    fn mailbox_database(&self) -> Result<Option<postgres::Address>, SettingsError> {
        let url = self.text("mailbox.url");
        if url.is_empty() {
            return Ok(None);
        }
        if !postgres::Address::is_postgres(url) {
            let why = r#"expected postgres://…, or "", the embedded store"#;
            return Err(self.error("mailbox.url", why));
        }
        let address = postgres::Address::parse(url);
        address
            .map(Some)
            .map_err(|error| self.error("mailbox.url", &error.to_string()))
    }

    pub(super) fn limits(&self) -> Result<Limits, SettingsError> {
        let packet = self.bytes("limits.packet", Limits::PACKET_LEAST, Limits::PACKET_MOST)?;
        Ok(Limits {
            connections: self.count("limits.connections")?,
            connections_per_address: self.count("limits.connections_per_address")?,
            packet: u32::try_from(packet).expect("PACKET_MOST fits"),
            connect_timeout: self.positive_duration("limits.connect_timeout")?,
            inflight: self.count("limits.inflight")?,
            publish_rate: NonZeroU32::new(self.count("limits.publish_rate")?),
            failed_auth: self.count("limits.failed_auth")?,
            failed_auth_window: self.positive_duration("limits.failed_auth_window")?,
        })
    }
}

/// In lower case, with the host as in DNS and without a port that is the usual one; other schemes than the web's too, which
/// apps have that are web pages inside.
fn parse_origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty() && !host.contains('*'))?;
    let port = url.port().map(|port| format!(":{port}"));
    let origin = format!("{}://{host}{}", url.scheme(), port.unwrap_or_default());
    let origin = origin.to_ascii_lowercase();
    let is_all = url
        .as_str()
        .trim_end_matches('/')
        .eq_ignore_ascii_case(&origin);
    (is_all && !text.ends_with('/')).then_some(origin)
}

struct InvalidNetwork;

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let network = text.parse::<IpNet>();
    let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|it| it.trunc()).map_err(|_| InvalidNetwork)
}
