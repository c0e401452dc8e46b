//! `cluster`: the tables in PostgreSQL. A start never makes or changes any.

use clap::Subcommand;
use serde_json::json;

use super::CliError;
use super::accounts::Common;
use super::output::Output;
use super::runtime::wait_for;
use crate::directory;
use crate::mailbox;
use crate::postgres::Address;
use crate::settings::{DirectorySettings, Settings};

const INIT_HELP: &str = "Example: jam-mqtt cluster init --directory postgres://jam@db.example.org/jam \
    --mailbox postgres://jam@db.example.org/jam\n\n\
    The database has to be there: CREATE DATABASE jam ENCODING 'UTF8'. It has to be empty; accounts that are in it \
    already stay as they are when the mailbox joins them.";

const MIGRATE_HELP: &str = "Example: jam-mqtt cluster migrate --dry-run\n\n\
    A start never changes tables: this does.";

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make the tables, in an empty database
    #[command(after_help = INIT_HELP)]
    Init {
        #[command(flatten)]
        common: Common,
    },
    /// Bring the mailbox's tables up to this version
    #[command(after_help = MIGRATE_HELP)]
    Migrate {
        /// Say what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
}

impl ClusterCommand {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let (Self::Init { common } | Self::Migrate { common, .. }) = &self;
        let settings = common.store.settings()?;
        self.run_with(&settings, output)
    }

    /// With settings from elsewhere than the process's environment.
    pub(super) fn run_with(self, settings: &Settings, output: &Output) -> Result<(), CliError> {
        match self {
            Self::Init { common } => init(settings, common.json, output),
            Self::Migrate { common, .. } => migrate(settings, common.json, output),
        }
    }
}

fn init(settings: &Settings, json: bool, output: &Output) -> Result<(), CliError> {
    let accounts = match &settings.directory {
        DirectorySettings::Postgres(address) => Some(&**address),
        DirectorySettings::Sqlite(_) => None,
    };
    let messages = settings.mailbox.database.as_ref();
    if accounts.is_none() && messages.is_none() {
        return Err(no_database(
            "directory.url or mailbox.url (--directory, --mailbox",
        ));
    }
    if let Some(address) = accounts {
        // A mailbox may join accounts that are there.
        let joins = messages.is_some()
            && wait_for(async { Ok(directory::inspect(&settings.directory).await.is_ok()) })?;
        if !joins {
            wait_for(async { Ok(directory::postgres::init(address).await?) })?;
        }
    }
    if let Some(address) = messages {
        mailbox::create(address)?;
    }
    let place = |address: Option<&Address>| address.map(ToString::to_string);
    if json {
        return output.json(&json!({ "accounts": place(accounts), "mailbox": place(messages) }));
    }
    for (place, what) in [
        (place(accounts), "accounts'"),
        (place(messages), "mailbox's"),
    ] {
        if let Some(place) = place {
            output.line(&format!("{place} has the {what} tables"))?;
        }
    }
    Ok(())
}

/// There is one version: whatever is there is it, or a later program's.
fn migrate(settings: &Settings, json: bool, output: &Output) -> Result<(), CliError> {
    let Some(address) = &settings.mailbox.database else {
        return Err(no_database("mailbox.url (--mailbox"));
    };
    let mailbox::Migration { from, to } = mailbox::migration(address)?;
    if from > to {
        return Err(CliError::Failed(format!(
            "{address} has schema version {from}, and this program knows {to} at most: run a later one"
        )));
    }
    if json {
        return output.json(&json!({ "from": from, "to": to, "steps": [] }));
    }
    output.line(&format!(
        "{address} has schema version {to}, which is the latest: there is nothing to do"
    ))
}

fn no_database(settings: &str) -> CliError {
    CliError::Usage(format!(
        "no database is named: set {settings} postgres://USER@HOST/DATABASE)"
    ))
}
