//! `lockout`: addresses whose logins are refused, and letting one in again. Only the running server knows them, so it is
//! asked, by its admin API.

use std::net::IpAddr;
use std::time::Duration;

use clap::Subcommand;
use humantime::format_duration;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::accounts::Common;
use super::output::{Output, table};
use super::running_server::RunningServer;
use super::{CliError, block_on};

/// Addresses that are asked for at once: as many as there may be.
const PAGE: &str = "1000";

#[derive(Debug, Subcommand)]
pub(super) enum LockoutCommand {
    /// List the addresses whose logins are refused now, because too many have failed
    #[command(
        after_help = "Example: jam-mqtt lockout list\n\nAsks the server that runs with these settings."
    )]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Forget the failed logins of an address: its clients may log in again
    #[command(after_help = "Example: jam-mqtt lockout lift 192.0.2.7")]
    Lift {
        /// An IPv4 or IPv6 address; of IPv6, its /64 is meant
        address: IpAddr,
        #[command(flatten)]
        common: Common,
    },
}

impl LockoutCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let (Self::List { common } | Self::Lift { common, .. }) = &self;
        let server = RunningServer::of(&common.store.settings()?)?;
        block_on(async {
            match self {
                Self::List { common } => list(&server, common.json, output).await,
                Self::Lift { address, common } => lift(&server, address, common.json, output).await,
            }
        })
    }
}

async fn list(server: &RunningServer, json: bool, output: &Output) -> Result<(), CliError> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let query = after.map(|after: String| ("after", after));
        let query = query.into_iter().chain([("limit", PAGE.to_owned())]);
        let page = server.ask(Method::GET, &["lockouts"], query).await?;
        let page: Page = serde_json::from_value(page).map_err(|error| CliError::failed(&error))?;
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if json {
        return output.json(&items);
    }
    let row = |item: &Value| {
        let ends_in = item["ends_in_secs"].as_u64().unwrap_or(0);
        let ends_in = format_duration(Duration::from_secs(ends_in));
        vec![
            item["source"].as_str().unwrap_or_default().to_owned(),
            format!("{} failed logins", item["failures"]),
            format!("ends in {ends_in}"),
        ]
    };
    output.text(&table(&items.iter().map(row).collect::<Vec<_>>()))
}

async fn lift(
    server: &RunningServer,
    address: IpAddr,
    json: bool,
    output: &Output,
) -> Result<(), CliError> {
    let source = address.to_string();
    let done = server
        .ask(Method::DELETE, &["lockouts", &source], [])
        .await?;
    if json {
        return output.json(&json!({ "address": source, "changed": done["changed"] }));
    }
    output.line(&match done["changed"].as_bool() {
        Some(true) => format!("the failed logins of {source} are forgotten"),
        _ => format!("nothing counts against {source}"),
    })
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}
