//! `copy`: accounts and mailbox from one kind of store into another.

use std::path::{Path, PathBuf};

use clap::Args;
use jam_core::directory::{Fact, Life};
use jam_core::ids::UserId;
use serde_json::json;
use tempfile::TempDir;

use super::CliError;
use super::accounts::Common;
use super::backup::NewData;
use super::output::Output;
use super::runtime::wait_for;
use crate::directory::{self, AccountsDatabase, DirectoryError, HeldAccounts, PageRequest};
use crate::mailbox::{Copying, HeldMail, KnownAs};
use crate::postgres::Address;
use crate::settings::{DirectorySettings, Settings};

pub(super) const HELP: &str = "Example: jam-mqtt copy --from sqlite:/var/lib/jam-mqtt --to postgres://jam@db.example.org/jam\n\n\
    sqlite:DIR is a data directory; its accounts are in jam.db there, or where --directory says. A new one is made; a database \
    needs the tables that `jam-mqtt cluster init` makes, and has to be empty. Stop the server first. What is copied from \
    loses nothing; like a start, it brings tables of an earlier release up.";

/// From where, and to where.
#[derive(Debug, Args)]
pub(super) struct Copy {
    /// What is copied: sqlite:DIR or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL")]
    from: String,
    /// What is filled
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    common: Common,
}

/// Where accounts and mailbox are.
#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Database(Box<Address>),
}

/// What an option names. An error shows no password.
fn place(option: &str, url: &str) -> Result<Place, CliError> {
    if Address::is_postgres(url) {
        let wrong = |error| CliError::Usage(format!("{option}: {error}"));
        let address = Address::parse(url).map_err(wrong)?;
        return Ok(Place::Database(Box::new(address)));
    }
    match url.strip_prefix("sqlite:") {
        Some(dir) if !dir.is_empty() => Ok(Place::Folder(dir.into())),
        _ => Err(CliError::Usage(format!(
            "{option}: expected sqlite:DIR or postgres://USER@HOST/DATABASE"
        ))),
    }
}

impl Copy {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let settings = self.common.store.settings()?;
        self.run_with(&settings, output)
    }

    /// With settings from elsewhere than the process's environment.
    pub(super) fn run_with(self, settings: &Settings, output: &Output) -> Result<(), CliError> {
        // Where the lock stands that a server on PostgreSQL has in its data directory.
        let locks = TempDir::new().map_err(|error| CliError::failed(&error))?;
        let (from, to) = (place("--from", &self.from)?, place("--to", &self.to)?);
        let from = from.settings(settings, &locks.path().join("from"));
        let (to, new) = match &to {
            Place::Database(_) => (to.settings(settings, &locks.path().join("to")), None),
            Place::Folder(dir) => {
                let new = NewData::make(dir)?;
                new.mailbox()?;
                (in_folder(settings, new.draft(), None), Some(new))
            }
        };
        let failed = |error| CliError::failed(&error);
        // Both are looked at before the accounts are written: what is refused has changed nothing.
        let copying = Copying::begin(&from, &to).map_err(failed)?;
        let (accounts, known_as) = wait_for(async {
            let accounts = directory::copy(&from.directory, &to.directory).await?;
            Ok((accounts, known_as(&from.directory, &to.directory).await?))
        })?;
        let mailbox = copying.finish(&known_as).map_err(failed)?;
        if let Some(new) = new {
            new.keep()?;
        }
        report(&accounts, &mailbox, self.common.json, output)
    }
}

impl Place {
    /// As the settings of a server that is there. `locks`: a folder for a lock.
    fn settings(&self, settings: &Settings, locks: &Path) -> Settings {
        match self {
            Self::Folder(dir) => in_folder(
                settings,
                dir,
                settings.directory.file().filter(|file| file.named),
            ),
            Self::Database(address) => {
                let mut there = settings.clone();
                there.data = locks.to_owned();
                there.directory = DirectorySettings::Postgres(address.clone());
                there.mailbox.database = Some((**address).clone());
                there
            }
        }
    }
}

/// `accounts`: where they are, if not in the folder.
fn in_folder(
    settings: &Settings,
    dir: &Path,
    accounts: Option<&crate::settings::DirectoryFile>,
) -> Settings {
    let mut there = settings.clone();
    there.data = dir.to_owned();
    there.directory = match accounts {
        Some(file) => DirectorySettings::Sqlite(file.clone()),
        None => DirectorySettings::in_file(dir.join("jam.db")),
    };
    there.mailbox.database = None;
    there
}

/// What tells accounts apart there, where it is something else than here.
async fn known_as(from: &DirectorySettings, to: &DirectorySettings) -> Result<KnownAs, CliError> {
    let (here, there) = (directory::open(from)?, directory::open(to)?);
    let administration = directory::administration(from)?;
    let mut known_as = KnownAs::new();
    let mut request = PageRequest::after(None);
    loop {
        let page = administration.users("", &request).await?;
        let users: Vec<UserId> = page
            .items
            .iter()
            .filter_map(|user| UserId::parse(&user.id).ok())
            .collect();
        let lives = lives(&*here, &users)
            .await?
            .into_iter()
            .zip(lives(&*there, &users).await?);
        for (user, (here, there)) in users.into_iter().zip(lives) {
            if here != there {
                known_as.insert(user, (here, there));
            }
        }
        let Some(next) = page.next else { break };
        request = PageRequest::after(Some(next));
    }
    Ok(known_as)
}

async fn lives(
    accounts: &dyn AccountsDatabase,
    users: &[UserId],
) -> Result<Vec<Life>, DirectoryError> {
    let answers = accounts.accounts(users).await?;
    let life = |fact| match fact {
        Fact::Account(Some(account)) => account.life,
        _ => Life::default(),
    };
    Ok(answers
        .into_iter()
        .map(|answer| life(answer.fact))
        .collect())
}

fn report(
    accounts: &HeldAccounts,
    mailbox: &HeldMail,
    json: bool,
    output: &Output,
) -> Result<(), CliError> {
    if json {
        return output.json(&json!({ "accounts": accounts, "mailbox": mailbox }));
    }
    output.line(&format!(
        "copied: {} accounts, {} friendships; {} messages ({} bytes), {} sessions, {} pushes",
        accounts.accounts,
        accounts.friends / 2,
        mailbox.messages,
        mailbox.bytes,
        mailbox.sessions,
        mailbox.pushes,
    ))
}
