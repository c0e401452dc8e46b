//! [`Address`]: where a database is and how to log in, as libpq's users write it.
//!
//! A URL says it (`postgres://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?OPTION=VALUE`), then what is missing there comes from
//! the variables `PG…`, then from `.pgpass`. `tokio_postgres` reads the values; this file takes the URL apart, as its own
//! parser knows neither `sslmode=verify-full` nor variables nor files.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error::InvalidAddress;
use super::password_file;
use super::tls::Protection;

/// How long a host may take from the beginning to being ready for statements, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Hosts of one address.
const MAX_HOSTS: usize = 16;

/// Where the server's socket is on most systems, and elsewhere.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// Variables that fill in what the URL does not say.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
];

/// Where a database is and how to log in. `Display` and `Debug` show hosts and the database's name, and nothing else.
#[derive(Clone)]
pub struct Address {
    pub(super) targets: Vec<Target>,
    /// Of all hosts: user, database, options.
    pub(super) config: Config,
    pub(super) tls: Protection,
    pub(super) connect_timeout: Duration,
    /// Where the password is that the URL and the variables do not have.
    password_file: Option<PathBuf>,
    /// Which of the targets was taken last. All clones know.
    taken: Arc<AtomicUsize>,
}

/// One server that may be it.
#[derive(Clone)]
pub(super) struct Target {
    host: Host,
    /// Where the host's name does not have to be looked up.
    address: Option<IpAddr>,
    port: u16,
}

type Options = BTreeMap<String, String>;

impl Address {
    /// Whether a text means PostgreSQL.
    #[must_use]
    pub fn is_postgres(url: &str) -> bool {
        after_scheme(url).is_some()
    }

    /// Reads an address; what it does not say comes from the process's environment and files.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(url: &str) -> Result<Self, InvalidAddress> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self::parse_with(url, &variable)
    }

    /// As [`Self::parse`], with variables from elsewhere.
    pub(super) fn parse_with(
        url: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidAddress> {
        let mut options = options_of(url)?;
        for (name, option) in VARIABLES {
            if let Some(value) = variable(name) {
                options.entry((*option).to_owned()).or_insert(value);
            }
        }
        let home = variable("HOME").map(PathBuf::from);
        require_primary(&mut options)?;
        options.remove("application_name");
        let tls = Protection::take_from(&mut options, home.as_deref())?;
        let password = options.remove("password");
        let password_file = options.remove("passfile").map(PathBuf::from);
        let password_file = password_file.or_else(|| Some(home?.join(".pgpass")));
        let user = user(&mut options, variable)?;
        options.entry("dbname".to_owned()).or_insert(user);
        let targets = targets(&mut options)?;
        let mut config = config_of(&options)?;
        let connect_timeout = config.get_connect_timeout().copied();
        if let Some(password) = &password {
            config.password(password);
        }
        Ok(Self {
            targets,
            config,
            tls,
            connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            password_file: password_file.filter(|_| password.is_none()),
            taken: Arc::default(),
        })
    }

    /// The private key by which the database knows the server.
    pub(crate) fn key_file(&self) -> Option<&Path> {
        self.tls.key_file()
    }

    /// The targets, by their numbers: the one that was taken last, then the others from the first on.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let taken = self.taken.load(Ordering::Relaxed);
        let others = (0..self.targets.len()).filter(move |&index| index != taken);
        std::iter::once(taken).chain(others)
    }

    /// A connection to this target can be used.
    pub(super) fn took(&self, index: usize) {
        self.taken.store(index, Ordering::Relaxed);
    }

    /// What is in the file of passwords now, if it is needed.
    pub(super) fn passwords(&self) -> Option<String> {
        self.password_file.as_deref().and_then(password_file::read)
    }

    /// What such a file has for a target.
    pub(super) fn password_of(&self, target: &Target, passwords: &str) -> Option<String> {
        let (host, port) = (target.name_in_files(), target.port.to_string());
        let database = self.config.get_dbname().unwrap_or_default();
        let user = self.config.get_user().unwrap_or_default();
        password_file::find(passwords, [&host, &port, database, user])
    }
}

impl Target {
    pub(super) fn is_local(&self) -> bool {
        matches!(self.host, Host::Unix(_))
    }

    pub(super) fn add_to(&self, config: &mut Config) {
        match &self.host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(folder) => config.host_path(folder),
        };
        if let Some(address) = self.address {
            config.hostaddr(address);
        }
        config.port(self.port);
    }

    /// In a password file `localhost` stands for the usual sockets.
    fn name_in_files(&self) -> String {
        match &self.host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) if SOCKET_FOLDERS.iter().any(|it| Path::new(it) == folder) => {
                "localhost".to_owned()
            }
            Host::Unix(folder) => folder.display().to_string(),
        }
    }
}

fn after_scheme(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("postgres://");
    rest.or_else(|| url.strip_prefix("postgresql://"))
}

/// What a URL says, by libpq's names.
fn options_of(url: &str) -> Result<Options, InvalidAddress> {
    let rest = after_scheme(url)
        .ok_or_else(|| InvalidAddress::new("expected postgres://USER@HOST/DATABASE"))?;
    let mut options = Options::new();
    let rest = match rest.find(['@', '/']) {
        Some(end) if rest[end..].starts_with('@') => {
            let (user, password) = match rest[..end].split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (&rest[..end], None),
            };
            set(&mut options, "user", user)?;
            if let Some(password) = password {
                set(&mut options, "password", password)?;
            }
            &rest[end + 1..]
        }
        _ => rest,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    // Of a password that has one of them, a part would be shown as a host's or a database's name.
    if hosts.contains('@') || database.contains(['@', '/']) {
        return Err(InvalidAddress::new(
            "in a user, a password or a database's name, write @ as %40, / as %2F, : as %3A and ? as %3F",
        ));
    }
    set_hosts(&mut options, hosts)?;
    set(&mut options, "dbname", database)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            InvalidAddress::new("expected NAME=VALUE, separated by &, after the question mark")
        })?;
        let name = decode(name)?;
        options.remove(&name);
        set(&mut options, &name, value)?;
    }
    Ok(options)
}

/// What is empty is not said.
fn set(options: &mut Options, name: &str, encoded: &str) -> Result<(), InvalidAddress> {
    if !encoded.is_empty() {
        options.insert(name.to_owned(), decode(encoded)?);
    }
    Ok(())
}

fn set_hosts(options: &mut Options, list: &str) -> Result<(), InvalidAddress> {
    if list.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for item in list.split(',') {
        let (host, port) = match item.strip_prefix('[') {
            Some(item) => {
                let (host, rest) = item
                    .split_once(']')
                    .ok_or_else(|| InvalidAddress::new("expected ] after an IPv6 address"))?;
                (host, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => item.rsplit_once(':').unwrap_or((item, "")),
        };
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    options.insert("host".to_owned(), hosts.join(","));
    if ports.iter().any(|port| !port.is_empty()) {
        options.insert("port".to_owned(), ports.join(","));
    }
    Ok(())
}

fn decode(encoded: &str) -> Result<String, InvalidAddress> {
    let decoded = percent_decode_str(encoded).decode_utf8();
    let decoded = decoded.map_err(|_| {
        InvalidAddress::new("what is written with % in the address has to be UTF-8")
    })?;
    if decoded.contains('\0') {
        return Err(InvalidAddress::new("the address has a zero byte in it"));
    }
    Ok(decoded.into_owned())
}

/// The server writes, so what says that it might not is a mistake.
fn require_primary(options: &mut Options) -> Result<(), InvalidAddress> {
    match options.remove("target_session_attrs").as_deref() {
        None | Some("any" | "read-write" | "primary") => Ok(()),
        Some(_) => Err(InvalidAddress::new(
            "target_session_attrs: the server writes; leave it out, and it takes the host that can be written",
        )),
    }
}

fn user(
    options: &mut Options,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, InvalidAddress> {
    let user = options.get("user").cloned();
    let user = user.or_else(|| variable("USER").or_else(|| variable("LOGNAME")));
    let user = user.ok_or_else(|| {
        InvalidAddress::new("expected a user: postgres://USER@HOST/DATABASE, or PGUSER")
    })?;
    options.insert("user".to_owned(), user.clone());
    Ok(user)
}

fn targets(options: &mut Options) -> Result<Vec<Target>, InvalidAddress> {
    let mut of_hosts = Options::new();
    for name in ["host", "hostaddr", "port"] {
        if let Some(value) = options.remove(name) {
            of_hosts.insert(name.to_owned(), value);
        }
    }
    let config = config_of(&of_hosts)?;
    let (addresses, ports) = (config.get_hostaddrs(), config.get_ports());
    let hosts = match (config.get_hosts(), addresses) {
        ([], []) => vec![default_host()],
        ([], addresses) => addresses
            .iter()
            .map(|address| Host::Tcp(address.to_string()))
            .collect(),
        (hosts, _) => hosts.to_vec(),
    };
    if hosts.len() > MAX_HOSTS {
        let why = format!("expected at most {MAX_HOSTS} hosts");
        return Err(InvalidAddress::new(why));
    }
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err(InvalidAddress::new(
            "expected as many addresses in hostaddr as there are hosts",
        ));
    }
    let port_of = |index| match ports {
        [] => Some(DEFAULT_PORT),
        [port] => Some(*port),
        ports if ports.len() == hosts.len() => ports.get(index).copied(),
        _ => None,
    };
    let target = |(index, host): (usize, &Host)| {
        let port = port_of(index)
            .ok_or_else(|| InvalidAddress::new("expected one port, or one for each host"))?;
        Ok(Target {
            host: host.clone(),
            address: addresses.get(index).copied(),
            port,
        })
    };
    hosts.iter().enumerate().map(target).collect()
}

fn default_host() -> Host {
    let folder = SOCKET_FOLDERS.iter().find(|it| {
        let socket = Path::new(it).join(format!(".s.PGSQL.{DEFAULT_PORT}"));
        socket.exists()
    });
    match folder {
        Some(folder) => Host::Unix(PathBuf::from(folder)),
        None => Host::Tcp("localhost".to_owned()),
    }
}

/// Has `tokio_postgres` read the values.
fn config_of(options: &Options) -> Result<Config, InvalidAddress> {
    let quoted = options.iter().map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        format!("{name}='{value}'")
    });
    let text = quoted.collect::<Vec<_>>().join(" ");
    text.parse::<Config>().map_err(|error| {
        let why = std::error::Error::source(&error);
        // "unknown option `x`", "invalid value for option `x`": the option's name, and no value.
        InvalidAddress::new(why.map_or_else(|| error.to_string(), ToString::to_string))
    })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(folder) => write!(f, "{}:{}", folder.display(), self.port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.targets.iter().map(ToString::to_string).collect();
        let database = self.config.get_dbname().unwrap_or_default();
        write!(f, "postgres://{}/{database}", hosts.join(","))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
