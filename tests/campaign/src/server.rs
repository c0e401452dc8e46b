//! The release binary as a process on a data directory of its own, and the databases it runs on: files, or PostgreSQL.
//!
//! A [`House`] stays when the server is killed; a [`Server`] dies with its handle.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::database::Database;

/// How long a server may take to start.
/// The disk of a busy machine may stand still for longer than half a minute.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// The jam database as the first implementation creates it.
const SCHEMA: &str = include_str!("../../harness/jam.sql");

/// How many houses there have been: every other one begins with a server on several threads.
static HOUSES: AtomicU32 = AtomicU32::new(0);

/// The token of a user's account.
#[must_use]
pub fn token(user: u16) -> String {
    format!("token-{user}")
}

/// Where accounts and mailbox are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In files.
    Sqlite,
    /// In a database.
    Postgres,
}

impl Store {
    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "sqlite" => Some(Self::Sqlite),
            "postgres" => Some(Self::Postgres),
            _ => None,
        }
    }
}

/// A data directory, a jam database, and how the server is started on them.
#[derive(Debug)]
pub struct House {
    /// PostgreSQL, if that has accounts and mailbox.
    pub database: Option<Database>,
    folder: TempDir,
    settings: Vec<(String, String)>,
    starts: AtomicU32,
}

impl House {
    /// With accounts for users `1..=users`, friends of each other but for the pairs in `strangers`, in files.
    ///
    /// # Panics
    /// If files cannot be written.
    #[must_use]
    pub fn new(users: u16, strangers: &[(u16, u16)], settings: &[(&str, &str)]) -> Self {
        Self::on(Store::Sqlite, users, strangers, settings)
    }

    /// The same on a store of this kind.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn on(
        store: Store,
        users: u16,
        strangers: &[(u16, u16)],
        settings: &[(&str, &str)],
    ) -> Self {
        let folder = TempDir::with_prefix("jam-campaign-").expect("a temporary directory");
        let sql = accounts(users, strangers);
        let database = match store {
            Store::Sqlite => {
                let directory = folder.path().join("directory.db");
                let directory = Connection::open(directory).expect("a database");
                directory
                    .pragma_update(None, "journal_mode", "WAL")
                    .expect("a journal");
                directory.execute_batch(SCHEMA).expect("the schema");
                directory.execute_batch(&sql).expect("the accounts");
                None
            }
            Store::Postgres => Some(Database::new(&sql)),
        };
        let url = database.as_ref().map(Database::url).unwrap_or_default();
        let base = [
            ("LIMITS__PUBLISH_RATE", "0"),
            ("PUSH__ENABLED", "false"),
            ("MAILBOX__URL", &url),
        ];
        let settings = base.iter().chain(settings);
        let settings = settings.filter(|(_, value)| !value.is_empty());
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            database,
            folder,
            settings: settings.collect(),
            starts: AtomicU32::new(HOUSES.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Starts the server and waits until it serves: it is bound before it has opened the mailbox.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(&self) -> Server {
        let before = fs::metadata(self.log_path()).map_or(0, |file| file.len());
        let mut server = self.spawn();
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline && server.ended().is_none() {
            if let Some(port) = port(&self.log_from(before)) {
                server.port = port;
                return server;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("the server did not start:\n{}", self.log());
    }

    /// Starts a server and waits for nothing: where it listens is not known.
    ///
    /// # Panics
    /// If the binary is not there.
    #[must_use]
    pub fn spawn(&self) -> Server {
        let log = || {
            let file = File::options()
                .create(true)
                .append(true)
                .open(self.log_path());
            Stdio::from(file.expect("a log file"))
        };
        let mut command = command();
        command.arg("serve").arg("--data").arg(self.data());
        command.args([
            "--mqtt",
            "127.0.0.1:0",
            "--http",
            "",
            "--mqtts",
            "",
            "--admin",
            "",
        ]);
        let file = || {
            format!(
                "sqlite:{}",
                self.folder.path().join("directory.db").display()
            )
        };
        let directory = self.database.as_ref().map_or_else(file, Database::url);
        command.args(["--directory", &directory]);
        for (name, value) in &self.settings {
            command.env(format!("JAM_MQTT_{name}"), value);
        }
        // On one thread and on several in turn: machines differ in what they would choose.
        let threads = 1 + 2 * (self.starts.fetch_add(1, Ordering::Relaxed) % 2);
        command.env("JAM_MQTT_LISTEN__THREADS", threads.to_string());
        command.env("JAM_MQTT_LISTEN__FILL_PERCENT", "0");
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        Server { child, port: 0 }
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What servers have logged here so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    fn log_from(&self, bytes: u64) -> String {
        let mut log = String::new();
        let read = File::open(self.log_path()).and_then(|mut file| {
            file.seek(SeekFrom::Start(bytes))?;
            file.read_to_string(&mut log)
        });
        read.map_or_else(|error| error.to_string(), |_| log)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Leaves the directory where it is, for a look at it; where that is.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// A server that runs, until it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Where it takes MQTT; 0 if nobody waited for it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Panics
    /// If it had ended before.
    pub fn kill(mut self) {
        let ended = self.child.try_wait().expect("a child can be asked");
        assert_eq!(ended, None, "the server ended by itself");
        self.child.kill().expect("a child that runs can be killed");
        self.child.wait().expect("a child that was killed ends");
    }

    /// Whether it has ended by itself, and how.
    ///
    /// # Panics
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// If that does not come.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server runs on");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of memory that it has resident.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the kernel tells");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("a number of KiB") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its own process only; one that has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Accounts, and friendships.
fn accounts(users: u16, strangers: &[(u16, u16)]) -> String {
    let mut sql = String::new();
    for user in 1..=users {
        let token = token(user);
        sql += &format!(
            "INSERT INTO accounts (user_id, username, user_api_token) VALUES ({user}, 'user {user}', '{token}');\n"
        );
        for friend in 1..=users {
            let apart = strangers.contains(&(user, friend)) || strangers.contains(&(friend, user));
            if friend != user && !apart {
                sql += &format!(
                    "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
                        VALUES ({user}, {friend}, false, false);\n"
                );
            }
        }
    }
    sql
}

/// The binary, which inherits nothing.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_clear();
    for name in ["PATH", "HOME"] {
        command.envs(std::env::var(name).map(|value| (name, value)));
    }
    command
}

fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("JAM_MQTT_BIN")
        .map_or_else(|| root.join("target/release/jam-mqtt"), PathBuf::from)
}

/// Where it listens that was told port 0, as it logged.
fn port(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once(r#""serving mqtt","address":"127.0.0.1:"#)?;
    rest.split_once('"')?.0.parse().ok()
}

/// Something that differs from call to call.
#[must_use]
pub fn nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::from(since.subsec_nanos()) ^ since.as_secs() << 30
    })
}
