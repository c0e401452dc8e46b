//! The release binary as a process of one test, and the jam database that the test writes.
//!
//! Owns the process and ends it when dropped; never links the server's code.

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde_json::json;
use tempfile::TempDir;

/// The disk of a busy machine may stand still for longer than half a minute.
const START_TIMEOUT: Duration = Duration::from_secs(120);

const ANY_PORT: &str = "127.0.0.1:0";

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) token: String,
}

impl User {
    pub(crate) fn inbox(&self) -> String {
        format!("/{}/inbox", self.id)
    }

    pub(crate) fn client_id(&self, device: &str) -> String {
        format!("{}:{device}", self.id)
    }

    pub(crate) fn channel(&self, device: &str) -> String {
        format!("/{}/devices/{}", self.id, self.client_id(device))
    }

    /// What this user's app publishes to a friend's inbox.
    pub(crate) fn message(&self, content: impl Display) -> Vec<u8> {
        json!({
            "from": self.id,
            "timestamp": "2024-05-01T12:00:00Z",
            "content": content.to_string(),
            "type": 0,
        })
        .to_string()
        .into_bytes()
    }
}

pub(crate) struct Server {
    process: Child,
    folder: TempDir,
    pub(crate) mqtt: u16,
    pub(crate) mqtts: u16,
    pub(crate) http: u16,
}

impl Server {
    /// With `tls`: TCP, TLS and WebSocket over TLS; without it TCP and WebSocket.
    pub(crate) fn start(tls: bool) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let schema = fs::read_to_string(suites.join("harness/jam.sql"))?;
        let database = Connection::open(folder.path().join("directory.db"))?;
        database.execute_batch(&format!("PRAGMA journal_mode = wal; {schema}"))?;
        let made = Command::new(suites.join("harness/certificate"))
            .arg(folder.path())
            .status()?
            .success();
        assert!(made, "openssl made no certificate");

        let log = fs::File::create(folder.path().join("server.log"))?;
        let mut command = Command::new(binary()?);
        command
            .arg("serve")
            .args(["--mqtt", ANY_PORT, "--http", ANY_PORT, "--admin", ""])
            .args([
                "--directory",
                &format!("sqlite:{}/directory.db", folder.path().display()),
            ])
            .arg("--data")
            .arg(folder.path().join("data"))
            // JAM_MQTT_BIN is ours: the server takes no variable that it does not know.
            .env_remove("JAM_MQTT_BIN")
            .env("JAM_MQTT_LIMITS__FAILED_AUTH", "1000000")
            .env("JAM_MQTT_LIMITS__PUBLISH_RATE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if tls {
            command
                .args(["--mqtts", ANY_PORT])
                .env("JAM_MQTT_TLS__CERT", folder.path().join("server.pem"))
                .env("JAM_MQTT_TLS__KEY", folder.path().join("server.key"));
        }
        let process = command.spawn()?;
        let mut server = Self {
            process,
            folder,
            mqtt: 0,
            mqtts: 0,
            http: 0,
        };
        server.wait_until_ready(tls)?;
        Ok(server)
    }

    /// Until it has logged where it listens; the last of the listeners comes last.
    fn wait_until_ready(&mut self, tls: bool) -> Outcome {
        let path = self.folder.path().join("server.log");
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline && self.process.try_wait()?.is_none() {
            let log = fs::read_to_string(&path)?;
            let port = |name| port(&log, name);
            if let Some(http) = port(if tls { "https" } else { "http" }) {
                self.http = http;
                self.mqtt = port("mqtt").ok_or("no port for MQTT")?;
                self.mqtts = port("mqtts").unwrap_or(0);
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(path)?;
        Err(format!("the server did not start:\n{log}").into())
    }

    pub(crate) fn authority(&self) -> Outcome<Vec<u8>> {
        Ok(fs::read(self.folder.path().join("ca.pem"))?)
    }

    fn database(&self) -> rusqlite::Result<Connection> {
        let database = Connection::open(self.folder.path().join("directory.db"))?;
        database.busy_timeout(Duration::from_secs(10))?;
        Ok(database)
    }

    pub(crate) fn user(&self) -> Outcome<User> {
        let database = self.database()?;
        database.execute(
            "INSERT INTO accounts (inactive, user_api_token) VALUES (0, '')",
            [],
        )?;
        let id = database.last_insert_rowid().to_string();
        let token = format!("token-of-{id}");
        database.execute(
            "UPDATE accounts SET user_api_token = ?2 WHERE user_id = ?1",
            params![id, token],
        )?;
        Ok(User { id, token })
    }

    pub(crate) fn befriend(&self, a: &User, b: &User) -> Outcome {
        self.database()?.execute(
            "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
             VALUES (?1, ?2, 0, 0), (?2, ?1, 0, 0)",
            params![a.id, b.id],
        )?;
        Ok(())
    }

    pub(crate) fn friends(&self) -> Outcome<(User, User)> {
        let (a, b) = (self.user()?, self.user()?);
        self.befriend(&a, &b)?;
        Ok((a, b))
    }

    pub(crate) fn block(&self, who: &User, whom: &User, blocked: bool) -> Outcome {
        let mut database = self.database()?;
        let change = database.transaction()?;
        for (column, a, b) in [("blocked", who, whom), ("been_blocked", whom, who)] {
            change.execute(
                &format!(
                    "UPDATE user_friends SET {column} = ?1 WHERE user_id = ?2 AND friend_id = ?3"
                ),
                params![blocked, a.id, b.id],
            )?;
        }
        change.commit()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its end is not what these tests are about; that it had not ended by itself is.
        let ended = self.process.try_wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !thread::panicking() {
            assert!(
                matches!(ended, Ok(None)),
                "the server ended by itself: {ended:?}"
            );
        }
    }
}

fn binary() -> Outcome<PathBuf> {
    let path = std::env::var_os("JAM_MQTT_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/jam-mqtt"),
        PathBuf::from,
    );
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing: cargo build --release first, or set JAM_MQTT_BIN",
        path.display()
    )
    .into())
}

/// Where it listens that was told port 0.
fn port(log: &str, name: &str) -> Option<u16> {
    let said = format!(r#""serving {name}","address":"127.0.0.1:"#);
    let (_, rest) = log.split_once(&said)?;
    rest.split_once('"')?.0.parse().ok()
}
