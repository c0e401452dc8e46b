//! `restore`: puts a backup in the place of what is there.
//!
//! Invariants: everything is looked at before anything is changed; the accounts are written *into* the database as one
//! transaction, so that a file is only ever read with its own log, and a program that has it open sees all of the
//! change or nothing; a mailbox is exchanged whole, only while no server has it, and the one before is kept.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::CliError;
use super::accounts::Common;
use super::output::Output;
use crate::directory;
use crate::folders;
use crate::mailbox::{self, Exchange};
use crate::settings::{DirectoryFile, Settings};

pub(super) const HELP: &str = "Example: jam-mqtt restore /var/backups/jam/today\n\n\
    Stop the server first, or restore the accounts only: those can be restored under a server, and under \
    other programs that use them. The mailbox that was there is kept beside the new one.";

/// What is put in place.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// What `jam-mqtt backup` has made
    dir: PathBuf,
    /// The accounts database, and not the mailbox
    #[arg(long)]
    accounts_only: bool,
    #[command(flatten)]
    common: Common,
}

impl Restore {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let settings = self.common.store.settings()?;
        self.run_with(&settings, output)
    }

    /// With settings from elsewhere than the process's environment.
    pub(super) fn run_with(self, settings: &Settings, output: &Output) -> Result<(), CliError> {
        let accounts = self.dir.join("jam.db");
        let file = settings.directory.file();
        if file.is_none() && (self.accounts_only || accounts.exists()) {
            let why = "directory.url names PostgreSQL, and accounts are not restored there: put back what pg_dump has \
                written, or name a file with --directory";
            return Err(CliError::Failed(why.to_owned()));
        }
        let users = file.map(|_| directory::check_backup(&accounts)).transpose();
        let users = users.map_err(|error| {
            CliError::Failed(format!(
                "this is no backup: {error}; name a folder that `jam-mqtt backup` has made"
            ))
        })?;
        let mailbox = self.dir.join("mailbox");
        let exchange = if self.accounts_only {
            None
        } else {
            Some(mailbox::restore(settings, &mailbox)?)
        };
        if let Some(DirectoryFile { path, .. }) = file {
            fs::create_dir_all(folders::of(path)).map_err(|error| {
                let shown = path.display();
                CliError::Failed(format!("cannot write {shown}: {error}"))
            })?;
            directory::restore(&accounts, path)?;
        }
        let before = exchange.map(Exchange::complete).transpose()?;
        let shown = self.dir.display();
        if self.common.json {
            return output.json(&json!({
                "restored": self.dir.to_string_lossy(),
                "accounts": users,
                "mailbox": !self.accounts_only,
                "before": before.flatten().map(|dir| dir.to_string_lossy().into_owned()),
            }));
        }
        output.line(&match users {
            Some(users) if self.accounts_only => {
                return output.line(&format!("{users} accounts are restored from {shown}"));
            }
            Some(users) => format!("{users} accounts and the mailbox are restored from {shown}"),
            None => format!("the mailbox is restored from {shown}"),
        })?;
        if let Some(before) = before.flatten() {
            let before = before.display();
            output.note(&format!(
                "the mailbox that was there is in {before}; remove it when all is well"
            ));
        }
        Ok(())
    }
}
