//! `backup`: a data directory that a server could start on, made from one that is in use.
//!
//! Invariants: nothing is written where something is; what is not complete is removed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::CliError;
use super::accounts::Common;
use super::output::Output;
use crate::directory;
use crate::mailbox::{OpenError, admin};
use crate::settings::Settings;

pub(super) const HELP: &str = "Example: jam-mqtt backup /var/backups/jam/today\n\n\
    `jam-mqtt serve --data` on the copy starts. Wherever the accounts database is, its copy is jam.db there.";

/// What is to be copied, and where.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The new data directory: one that is empty, or that is not there yet
    dir: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl Backup {
    pub(super) fn run(self, output: &Output) -> Result<(), CliError> {
        let settings = self.common.store.settings()?;
        self.run_with(&settings, output)
    }

    /// With settings from elsewhere than the process's environment.
    pub(super) fn run_with(self, settings: &Settings, output: &Output) -> Result<(), CliError> {
        settings.directory.require_named()?;
        let new = NewData::make(&self.dir)?;
        let with_mailbox = match admin::backup(&settings.mailbox_dir(), &new.mailbox()?) {
            Ok(()) => true,
            Err(OpenError::Missing(_)) => false,
            Err(error) => return Err(error.into()),
        };
        // Second: who was blocked while the messages were copied is blocked in the copy.
        new.copy_directory(settings)?;
        new.keep();
        let shown = self.dir.display();
        if self.common.json {
            return output.json(&json!({
                "backup": self.dir.to_string_lossy(),
                "directory": true,
                "mailbox": with_mailbox,
            }));
        }
        if with_mailbox {
            output.line(&format!("accounts database and mailbox are in {shown}"))
        } else {
            output.line(&format!(
                "the accounts database is in {shown}; there is no mailbox yet"
            ))
        }
    }
}

/// A data directory that is being made. Dropping it removes what has been made.
#[derive(Debug)]
pub(super) struct NewData {
    dir: PathBuf,
    /// It was not there before.
    made: bool,
    kept: bool,
}

impl NewData {
    /// Fails if there is something in `dir`.
    pub(super) fn make(dir: &Path) -> Result<Self, CliError> {
        let failed = |why: &dyn std::fmt::Display| {
            CliError::Failed(format!("cannot write to {}: {why}", dir.display()))
        };
        let made = match fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(failed(&"it is not empty; name a directory that is new"));
                }
                false
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(dir).map_err(|error| failed(&error))?;
                true
            }
            Err(error) => return Err(failed(&error)),
        };
        Ok(Self {
            dir: dir.to_owned(),
            made,
            kept: false,
        })
    }

    /// Where the mailbox is to be.
    pub(super) fn mailbox(&self) -> Result<PathBuf, CliError> {
        let dir = self.dir.join("mailbox");
        create(&dir).map_err(|error| {
            CliError::Failed(format!("cannot create {}: {error}", dir.display()))
        })?;
        Ok(dir.join("mailbox.db"))
    }

    pub(super) fn copy_directory(&self, settings: &Settings) -> Result<(), CliError> {
        Ok(directory::backup(
            &settings.directory.path,
            &self.dir.join("jam.db"),
        )?)
    }

    /// It is complete.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewData {
    fn drop(&mut self) {
        if self.kept {
            // Where no mailbox was copied there is no place for one either.
            drop(fs::remove_dir(self.dir.join("mailbox")));
            return;
        }
        // It was empty, so all of it is ours; what cannot be removed has been told of already.
        drop(fs::remove_dir_all(self.dir.join("mailbox")));
        drop(fs::remove_file(self.dir.join("jam.db")));
        if self.made {
            drop(fs::remove_dir(&self.dir));
        }
    }
}

/// A directory for nobody else.
fn create(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}
