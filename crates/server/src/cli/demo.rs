//! `demo`: a server on loopback with two friends in a temporary directory, a link for each, and what to paste.
//!
//! The directory goes away with the command, however it ends, but for `kill -9`: nothing of this
//! process outlives the value that holds it. Environment and settings file are not looked at, so that
//! the demo is the same everywhere.

use std::net::SocketAddr;
use std::path::Path;

use jam_core::ids::UserId;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::messages::text_message;
use super::output::Output;
use super::runtime;
use super::{CliError, init_logging};
use crate::directory::{self, NewToken};
use crate::logging::Usual;
use crate::serve;
use crate::settings::{Flag, Settings, Sources};

/// The friends. 1 writes, 2 reads, so that neither logs the other out.
const WRITER: &str = "1";
const READER: &str = "2";

/// A user who exists and is nobody's friend.
const STRANGER: &str = "3";

pub(super) fn run(output: &Output) -> Result<(), CliError> {
    init_logging(None, Usual::Warn)?;
    runtime::on_this_thread()?.block_on(demo(output))
}

/// Ctrl-C and the other ways in which people end a command.
struct Ends([Signal; 3]);

impl Ends {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn one(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

async fn demo(output: &Output) -> Result<(), CliError> {
    // Before there is anything to clean up.
    let mut ends = Ends::listen().map_err(|error| CliError::failed(&error))?;
    let dir = tempfile::Builder::new()
        .prefix("jam-demo-")
        .tempdir()
        .map_err(|error| {
            CliError::Failed(format!("no temporary directory: {error}; set TMPDIR"))
        })?;
    let settings = settings(dir.path())?;
    let tokens = befriend(&settings).await?;
    let running = serve::start(settings)
        .await
        .map_err(|error| CliError::failed(&error))?;
    let at = running
        .mqtt
        .expect("the demo's settings serve MQTT over TCP");
    let http = running
        .http
        .expect("the demo's settings serve the chat page");
    let printed = instructions(at, http, &tokens).and_then(|text| output.text(&text));
    if printed.is_ok() {
        ends.one().await;
    }
    running.stop().await;
    remove(dir)?;
    printed?;
    // After the terminal's ^C.
    output.line("\nThe demo is over, and its directory is gone.")
}

fn settings(dir: &Path) -> Result<Settings, CliError> {
    let data = dir.to_str().ok_or_else(|| {
        CliError::Failed("the temporary directory's path is not Unicode; set TMPDIR".to_owned())
    })?;
    let set = |path, value: &str| Flag {
        name: "demo",
        path,
        value: value.to_owned(),
    };
    let flags = vec![
        set("data", data),
        set("listen.mqtt", "127.0.0.1:0"),
        set("listen.http", "127.0.0.1:0"),
        set("listen.admin", ""),
        set("push.enabled", "false"),
    ];
    Ok(Settings::load(&Sources {
        flags,
        ..Sources::default()
    })?)
}

/// The writer's token and the reader's.
async fn befriend(settings: &Settings) -> Result<[NewToken; 2], CliError> {
    let accounts = directory::administration(&settings.directory)?;
    let user = |id| UserId::parse(id).expect("a user id");
    let tokens = [NewToken::random()?, NewToken::random()?];
    let stranger = NewToken::random()?;
    for (id, name, token) in [
        (WRITER, "Ann", &tokens[0]),
        (READER, "Ben", &tokens[1]),
        (STRANGER, "Carla", &stranger),
    ] {
        accounts.add_user(&user(id), Some(name), token).await?;
    }
    accounts.befriend(&user(WRITER), &user(READER)).await?;
    Ok(tokens)
}

/// The directory's thread may be closing its file just now, which takes a moment.
fn remove(dir: TempDir) -> Result<(), CliError> {
    let path = dir.path().to_owned();
    dir.close().map_err(|error| {
        CliError::Failed(format!(
            "cannot remove {}: {error}; remove it by hand",
            path.display()
        ))
    })
}

fn instructions(
    at: SocketAddr,
    http: SocketAddr,
    tokens: &[NewToken; 2],
) -> Result<String, CliError> {
    let [write_token, read_token] = tokens.each_ref().map(NewToken::expose);
    let program = std::env::current_exe().ok();
    let program = program
        .as_deref()
        .and_then(Path::to_str)
        .unwrap_or("jam-mqtt");
    let program = quoted(program);
    let (host, port) = (at.ip(), at.port());
    let message = quoted(&text_message(WRITER, "Hello")?);
    let as_writer =
        format!("-h {host} -p {port} -i {WRITER}:phone -u {WRITER} -P {write_token} -q 1");
    let as_reader =
        format!("-h {host} -p {port} -i {READER}:phone -u {READER} -P {read_token} -q 1");
    let send = format!("{program} send --server {at} --user {WRITER} --token {write_token}");
    Ok(format!(
        "\
The server is running on {at}. Ann (user {WRITER}) and Ben (user {READER}) are friends; Carla (user {STRANGER}) is
nobody's friend.

In a browser, Ann in one tab and Ben in another:

  http://{http}/#user={WRITER}&token={write_token}

  http://{http}/#user={READER}&token={read_token}

In terminals. Close the tabs first: a user has one device at a time. Paste into a second terminal:

  {program} listen --server {at} --user {READER} --token {read_token}

and into a third one; the message appears in the second:

  {send} --to {READER} 'Hello'

An error comes back: Carla is no friend.

  {send} --to {STRANGER} 'Hello'

The same with any MQTT client. End `listen` first: a user has one device at a time.

  mosquitto_sub {as_reader} -t /{READER}/inbox

  mosquitto_pub {as_writer} -t /{READER}/inbox -m {message}

An error comes back on the device channel, /{WRITER}/devices/{WRITER}:phone. mosquitto_rr sends and shows it:

  mosquitto_rr {as_writer} -t /{STRANGER}/inbox -e /{WRITER}/devices/{WRITER}:phone -m {message}

Ctrl-C ends the demo and leaves nothing behind.
"
    ))
}

/// As one word of a POSIX shell.
fn quoted(word: &str) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':' | '+');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("/usr/bin/jam-mqtt"), "/usr/bin/jam-mqtt");
        assert_eq!(quoted("/my dir/jam"), "'/my dir/jam'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
