//! `send` and `listen`: a client for scripts and first tries.
//!
//! `listen` is always the same device of its user, so that a new one takes over from an old one.
//! `send` is a new device each time, so that two that run at once are not taken for one.

use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use clap::Args;
use jam_core::ids::UserId;
use serde::Serialize;
use serde_json::Value;

use super::output::Output;
use super::{CliError, block_on};
use crate::client::{Client, ClientError, ServerUrl};
use crate::directory::random_token;

pub(super) const SEND_HELP: &str = "\
Example: JAM_TOKEN=… jam-mqtt send --user 1 --to 2 'Hello'
         date | JAM_TOKEN=… jam-mqtt send --server mqtts://jam.example.org --user 1 --to 2 -

By default a user has one connected device: sending as a user logs the user's other device out. The \
server's setting sessions.devices = \"many\" lets them be connected side by side.";

pub(super) const LISTEN_HELP: &str = "\
Example: JAM_TOKEN=… jam-mqtt listen --user 2 --json

What has been printed is taken out of the inbox. By default a user has one connected device: listening \
as a user logs the user's other device out, and is logged out by it. The server's setting \
sessions.devices = \"many\" lets them be connected side by side.";

/// The name of the device that `listen` is.
const LISTEN_DEVICE: &str = "jam-mqtt-listen";

/// Bytes of a text that is read from standard input.
const MAX_TEXT_BYTES: u64 = 16 * 1024 * 1024;

/// How much of a random token tells one `send` from another.
const SEND_DEVICE_DIGITS: usize = 8;

/// Who connects, and where.
#[derive(Debug, Args)]
struct Login {
    /// HOST:PORT, or mqtt://, mqtts://, ws:// or wss://HOST[:PORT]
    #[arg(long, value_name = "URL", default_value = "127.0.0.1:1883")]
    server: ServerUrl,
    /// Certificates (PEM) of the authorities that may have signed the server's [default: the machine's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The user id to log in as
    #[arg(long, value_name = "ID", value_parser = user_id, allow_hyphen_values = true)]
    user: UserId,
    /// The user's token; better put it into the environment, where other users do not see it
    #[arg(
        long,
        env = "JAM_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    token: String,
}

#[derive(Debug, Args)]
pub(super) struct Send {
    #[command(flatten)]
    login: Login,
    /// The user id to write to
    #[arg(long, value_name = "ID", value_parser = user_id, allow_hyphen_values = true)]
    to: UserId,
    /// The text; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Print what was sent as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Listen {
    #[command(flatten)]
    login: Login,
    /// Print each message as it came, one on a line
    #[arg(long)]
    json: bool,
    /// End after this many messages [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// A message as the apps write it (PROTOCOL.md, section 1), keys in this order.
#[derive(Debug, Serialize)]
struct Message<'a> {
    from: &'a str,
    timestamp: String,
    content: &'a str,
    r#type: u8,
}

pub(super) fn user_id(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::failed(&error)
    }
}

impl Login {
    async fn connect(&self, device: &str) -> Result<Client, CliError> {
        let (server, ca) = (&self.server, self.ca.as_deref());
        Ok(Client::connect(server, ca, &self.user, device, &self.token).await?)
    }
}

/// All of it, without the line feed at its end.
fn read_text(from: impl Read) -> Result<String, CliError> {
    let mut text = String::new();
    from.take(MAX_TEXT_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| CliError::Failed(format!("cannot read the text: {error}")))?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        let most = MAX_TEXT_BYTES;
        return Err(CliError::Failed(format!(
            "the text has more than {most} bytes; send less"
        )));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// The payload of a text message sent now.
pub(super) fn text_message(from: &str, content: &str) -> Result<String, CliError> {
    let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let message = Message {
        from,
        timestamp,
        content,
        r#type: 0,
    };
    serde_json::to_string(&message).map_err(|error| CliError::failed(&error))
}

impl Send {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let content = match &*self.text {
            "-" => read_text(std::io::stdin().lock())?,
            _ => self.text.clone(),
        };
        block_on(self.send(&content, output))
    }

    async fn send(self, content: &str, output: &Output) -> Result<(), CliError> {
        let payload = text_message(self.login.user.as_str(), content)?;
        let device = format!("jam-mqtt-send-{}", &random_token()?[..SEND_DEVICE_DIGITS]);
        let mut client = self.login.connect(&device).await?;
        client
            .publish(&self.to.inbox(), Bytes::from(payload.clone()))
            .await?;
        // The message is with the server; how the goodbye goes changes nothing.
        let _ = client.disconnect().await;
        if self.json {
            output.line(&payload)
        } else {
            output.line(&format!("sent to {}", self.to))
        }
    }
}

impl Listen {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        block_on(self.listen(output))
    }

    async fn listen(self, output: &Output) -> Result<(), CliError> {
        let mut client = self.login.connect(LISTEN_DEVICE).await?;
        client.subscribe(&self.login.user.inbox()).await?;
        if !self.json {
            output.note(&format!(
                "listening to {}; Ctrl-C ends it",
                self.login.user.inbox()
            ));
        }
        let mut left = self.count;
        while left != Some(0) {
            let message = client.next_message().await?;
            // Printed first: what is acknowledged does not come again.
            if self.json {
                output.bytes(&one_line(&message.payload))?;
            } else {
                output.line(&readable(&message.payload))?;
            }
            client.acknowledge(&message).await?;
            left = left.map(|left| left - 1);
        }
        client.disconnect().await?;
        Ok(())
    }
}

/// The payload and a line feed. A payload of several lines, which JSON may be, is written as one.
fn one_line(payload: &[u8]) -> Vec<u8> {
    let mut line = payload.to_vec();
    for byte in &mut line {
        // Within JSON's strings these do not occur; between its tokens they are blanks.
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line
}

/// `timestamp  from: content`, without what would move the terminal's cursor.
fn readable(payload: &[u8]) -> String {
    let Ok(Value::Object(message)) = serde_json::from_slice(payload) else {
        return String::from_utf8_lossy(payload).replace(char::is_control, "?");
    };
    let text = |key: &str| match message.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let line = format!(
        "{}  {}: {}",
        text("timestamp"),
        text("from"),
        text("content")
    );
    line.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_the_apps_read() {
        let message = text_message("1", "a \"b\"\n").unwrap();
        assert!(
            message.starts_with(r#"{"from":"1","timestamp":"2"#),
            "{message}"
        );
        assert!(
            message.ends_with(r#"Z","content":"a \"b\"\n","type":0}"#),
            "{message}"
        );
    }

    #[test]
    fn a_text_from_standard_input_is_whole_and_bounded() {
        assert_eq!(read_text(&b"one\ntwo\n"[..]).unwrap(), "one\ntwo");
        assert_eq!(read_text(&b""[..]).unwrap(), "");
        assert!(read_text(&b"\xff"[..]).is_err());
        assert!(read_text(std::io::repeat(b'x')).is_err());
    }

    #[test]
    fn nothing_that_is_printed_moves_the_cursor() {
        let line = readable(br#"{"from":"1","timestamp":"t","content":"a\u001b[2Jb\nc"}"#);
        assert_eq!(line, "t  1: a?[2Jb?c");
        assert_eq!(readable(b"\x1b[2J no json"), "?[2J no json");
        assert_eq!(one_line(b"{\n\"a\": 1\r\n}"), b"{ \"a\": 1  }\n");
    }
}
