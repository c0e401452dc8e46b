//! `session`: a user's devices, and ending what is remembered of one.
//!
//! With a server running, it is asked and does it, by its admin API: it alone knows the devices whose sessions end with
//! their connections. Else the mailbox says it, and the next start does it.

use clap::Subcommand;
use humantime::format_duration;
use jam_core::ids::{ClientId, UserId};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

use super::accounts::{Common, printable};
use super::mailbox::{ends_in, overview};
use super::messages::user_id;
use super::output::{Output, table};
use super::running_server::RunningServer;
use super::{CliError, block_on};
use crate::mailbox::{self, OpenError};
use crate::settings::Settings;

const LIST_HELP: &str = "Example: jam-mqtt session list 2\n\n\
    With a server running, its admin API is asked (listen.admin).";

const END_HELP: &str = "Example: jam-mqtt session end 2 2:phone\n\n\
    What is on its way to the device and its subscriptions end with the session, and its will is due; messages that wait \
    in the inbox stay for the user's other devices and the next one. A client that is connected is disconnected, and comes \
    back at once with a new session: to keep a person out, give them a new token (`jam-mqtt user token`). With a server \
    running, the server does it (listen.admin); else its next start.";

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List a user's devices: those that are connected, and those whose sessions go on
    #[command(after_help = LIST_HELP)]
    List {
        /// The user id
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
        #[command(flatten)]
        common: Common,
    },
    /// End the session of a device, or of all of a user's devices
    #[command(after_help = END_HELP)]
    End {
        /// The user id
        #[arg(value_parser = user_id, allow_negative_numbers = true)]
        id: UserId,
        /// A client id as `jam-mqtt session list` shows it [default: all of the user's devices]
        device: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

/// A device as `GET users/{id}/devices` has it; without what only a server knows, if none runs.
#[derive(Debug, Serialize, Deserialize)]
struct Device {
    client: String,
    connected: bool,
    address: Option<String>,
    version: Option<String>,
    subscriptions: u64,
    in_flight: u64,
    received: u64,
    session_ends_in_secs: Option<u64>,
}

#[derive(Deserialize)]
struct Devices {
    items: Vec<Device>,
}

impl SessionCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let (Self::List { common, .. } | Self::End { common, .. }) = &self;
        let settings = common.store.settings()?;
        match self {
            Self::List { id, common } => list(&id, &settings, common.json, output),
            Self::End { id, device, common } => {
                let device = device.map(|device| client_of(&id, &device)).transpose()?;
                end(&id, device.as_ref(), &settings, common.json, output)
            }
        }
    }
}

fn client_of(id: &UserId, device: &str) -> Result<ClientId, CliError> {
    let client = ClientId::new(device);
    match client.user_part() == id.as_str() {
        true => Ok(client),
        false => Err(CliError::Usage(format!(
            "{device} is no device of user {id}: `jam-mqtt session list {id}` shows theirs"
        ))),
    }
}

fn list(id: &UserId, settings: &Settings, json: bool, output: &Output) -> Result<(), CliError> {
    let is_served = mailbox::administration(settings).is_served()?;
    if is_served && settings.listen.admin.is_none() {
        output.note(
            "listen.admin is off, so the server cannot be asked: only sessions that outlast their connections are shown",
        );
    }
    let devices = if is_served && settings.listen.admin.is_some() {
        let server = RunningServer::of(settings)?;
        block_on(devices_of(&server, id))?
    } else {
        kept_of(id, settings)?
    };
    if json {
        return output.json(&devices);
    }
    output.text(&device_table(&devices))
}

async fn devices_of(server: &RunningServer, id: &UserId) -> Result<Vec<Device>, CliError> {
    let path = ["users", id.as_str(), "devices"];
    let answer = server.ask(Method::GET, &path, []).await?;
    let devices: Devices =
        serde_json::from_value(answer).map_err(|error| CliError::failed(&error))?;
    Ok(devices.items)
}

fn kept_of(id: &UserId, settings: &Settings) -> Result<Vec<Device>, CliError> {
    let found = overview(&*mailbox::administration(settings), settings, id)?;
    let device = |session: mailbox::SessionOverview| Device {
        client: session.client,
        connected: session.ends_at.is_none(),
        address: None,
        version: None,
        subscriptions: session.subscriptions as u64,
        in_flight: session.in_flight,
        received: session.received,
        session_ends_in_secs: session
            .ends_at
            .and_then(|at| ends_in(at, found.now))
            .map(|left| left.as_secs()),
    };
    Ok(found.sessions.into_iter().map(device).collect())
}

fn device_table(devices: &[Device]) -> String {
    let heads = [
        "DEVICE",
        "SESSION",
        "TOPICS",
        "ON ITS WAY",
        "MQTT",
        "ADDRESS",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(devices.iter().map(|device| {
        let state = match device.session_ends_in_secs {
            _ if device.connected => "connected".to_owned(),
            None => "never ends".to_owned(),
            Some(left) => format!("ends in {}", format_duration(Duration::from_secs(left))),
        };
        vec![
            printable(Some(&device.client)),
            state,
            device.subscriptions.to_string(),
            device.in_flight.to_string(),
            printable(device.version.as_deref()),
            printable(device.address.as_deref()),
        ]
    }));
    table(&rows)
}

fn end(
    id: &UserId,
    device: Option<&ClientId>,
    settings: &Settings,
    json: bool,
    output: &Output,
) -> Result<(), CliError> {
    let mailbox = mailbox::administration(settings);
    let (ended, by) = match mailbox.end_sessions(id, device) {
        Err(OpenError::InUse { .. }) => {
            let server = RunningServer::of(settings)?;
            (block_on(end_by(&server, id, device))?, "server")
        }
        ended => (ended?, "command"),
    };
    match device {
        Some(device) if ended == 0 => {
            return Err(CliError::Failed(format!(
                "there is no session of {device}: `jam-mqtt session list {id}` shows those of user {id}"
            )));
        }
        None if ended == 0 => drop(overview(&*mailbox, settings, id)?),
        _ => {}
    }
    if json {
        return output.json(&json!({ "user": id.as_str(), "ended": ended, "by": by }));
    }
    let sessions = match ended {
        1 => "1 session".to_owned(),
        ended => format!("{ended} sessions"),
    };
    let by = if by == "server" { " by the server" } else { "" };
    output.line(&format!("{sessions} of user {id} ended{by}"))
}

/// How many there were.
async fn end_by(
    server: &RunningServer,
    id: &UserId,
    device: Option<&ClientId>,
) -> Result<u64, CliError> {
    let clients = match device {
        Some(device) => vec![device.to_string()],
        None => {
            let devices = devices_of(server, id).await?;
            devices.into_iter().map(|device| device.client).collect()
        }
    };
    let mut ended = 0;
    for client in clients {
        let path = ["users", id.as_str(), "devices", &client];
        let how = [("session", "end".to_owned())];
        let done = server.ask(Method::DELETE, &path, how).await?;
        ended += u64::from(done["changed"] == true);
    }
    Ok(ended)
}
