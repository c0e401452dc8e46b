//! The options that are settings: the last layer of [`crate::settings`].

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::settings::{DEFAULT_FILE, Flag, Settings, Sources};

/// Where settings are read.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// Settings file [default: jam-mqtt.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Environment file of the first implementation (db_path, port, tls_cert, tls_key, tls_ca,
    /// firebase_account_key_path), also with JAM_MQTT_ variables; such names in the real environment
    /// are not looked at
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// Where the stores are: for every command that works on them.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Where the server keeps its files [default: ./jam-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Accounts and friendships: sqlite:PATH (a jam database works as it is), or
    /// postgres://USER@HOST/DATABASE [default: jam.db in --data]
    #[arg(long, value_name = "URL")]
    directory: Option<String>,
    /// What waits for its receiver: postgres://USER@HOST/DATABASE [default: in --data]
    #[arg(long, value_name = "URL")]
    mailbox: Option<String>,
}

/// Everything that `serve` takes.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// MQTT over TCP; "" is off [default: 0.0.0.0:1883]
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<String>,
    /// MQTT over TLS; needs the settings tls.cert and tls.key [default: off]
    #[arg(long, value_name = "ADDR")]
    mqtts: Option<String>,
    /// MQTT over WebSocket at /mqtt, chat page, health; "" is off [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Admin API, console, /metrics; "" is off [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Send no push notifications
    #[arg(long, alias = "no_notification")]
    no_notification: bool,
}

impl StoreArgs {
    /// The settings as these options and the other sources say.
    pub(super) fn settings(&self) -> Result<Settings, CliError> {
        Ok(Settings::load(&self.sources(Vec::new())?)?)
    }

    fn sources(&self, mut flags: Vec<Flag>) -> Result<Sources, CliError> {
        for (name, path, value) in [
            ("--data", "data", &self.data),
            ("--directory", "directory.url", &self.directory),
            ("--mailbox", "mailbox.url", &self.mailbox),
        ] {
            flags.extend(value.clone().map(|value| Flag { name, path, value }));
        }
        self.sources.sources(flags)
    }
}

impl SourceArgs {
    pub(super) fn sources(&self, flags: Vec<Flag>) -> Result<Sources, CliError> {
        Ok(Sources {
            config: self.config.clone(),
            default_config: Some(PathBuf::from(DEFAULT_FILE)),
            env_file: self.env_file.clone(),
            environment: environment()?,
            flags,
        })
    }
}

impl ServeArgs {
    pub(super) fn sources(&self) -> Result<Sources, CliError> {
        let mut flags = Vec::new();
        for (name, path, value) in [
            ("--mqtt", "listen.mqtt", &self.mqtt),
            ("--mqtts", "listen.mqtts", &self.mqtts),
            ("--http", "listen.http", &self.http),
            ("--admin", "listen.admin", &self.admin),
        ] {
            flags.extend(value.clone().map(|value| Flag { name, path, value }));
        }
        if self.no_notification {
            let (name, value) = ("--no-notification", "false".to_owned());
            flags.push(Flag {
                name,
                path: "push.enabled",
                value,
            });
        }
        self.store.sources(flags)
    }
}

/// Our own variables. One that is not Unicode is an error: what it means cannot be told.
fn environment() -> Result<Vec<(String, String)>, CliError> {
    let mut ours = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("JAM_MQTT_")) else {
            continue;
        };
        let value = value.into_string().map_err(|_| {
            CliError::Usage(format!(
                "the environment variable {name} is not Unicode; set it again"
            ))
        })?;
        ours.push((name.to_owned(), value));
    }
    Ok(ours)
}
