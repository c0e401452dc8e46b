//! `backup`: a data directory that a server could start on, made from one that is in use.
//!
//! Invariants: nothing is written where something is; what is there under its name is complete, has been checked and
//! is on the disk.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use super::CliError;
use super::accounts::Common;
use super::output::Output;
use crate::directory;
use crate::folders;
use crate::mailbox::{self, OpenError};
use crate::settings::{DirectoryFile, Settings};

pub(super) const HELP: &str = "Example: jam-mqtt backup /var/backups/jam/today\n\n\
    `jam-mqtt serve --data` on the copy starts. Wherever the accounts database is, its copy is jam.db there; \
    one in PostgreSQL is not copied.";

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
        let accounts = settings.directory.file();
        accounts.map(directory::require_named).transpose()?;
        let new = NewData::make(&self.dir)?;
        let with_mailbox = match mailbox::backup(settings, &new.mailbox()?) {
            Ok(()) => true,
            Err(OpenError::Missing(_)) => false,
            Err(error) => return Err(error.into()),
        };
        // Second: who was blocked while the messages were copied is blocked in the copy.
        accounts.map(|it| new.copy_directory(it)).transpose()?;
        if accounts.is_none() && !with_mailbox {
            let why = "there is no mailbox yet, and the accounts are in PostgreSQL: back them up with pg_dump";
            return Err(CliError::Failed(why.to_owned()));
        }
        new.keep()?;
        let shown = self.dir.display();
        if self.common.json {
            return output.json(&json!({
                "backup": self.dir.to_string_lossy(),
                "directory": accounts.is_some(),
                "mailbox": with_mailbox,
            }));
        }
        if accounts.is_none() {
            output.line(&format!("the mailbox is in {shown}"))?;
            output.note("the accounts are in PostgreSQL: back them up with pg_dump");
            Ok(())
        } else if with_mailbox {
            output.line(&format!("accounts database and mailbox are in {shown}"))
        } else {
            output.line(&format!(
                "the accounts database is in {shown}; there is no mailbox yet"
            ))
        }
    }
}

/// A data directory that is being made beside where it is to be. Dropping it removes what has been made.
#[derive(Debug)]
pub(super) struct NewData {
    dir: PathBuf,
    draft: TempDir,
}

impl NewData {
    /// Fails if there is something in `dir`.
    pub(super) fn make(dir: &Path) -> Result<Self, CliError> {
        match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => {
                let why = io::Error::other("it is not empty; name a directory that is new");
                return Err(cannot_write(dir, &why));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(dir, &error)),
        }
        let parent = folders::of(dir);
        folders::make_private(parent).map_err(|error| cannot_write(dir, &error))?;
        let draft = tempfile::Builder::new()
            .prefix(".jam-data-")
            .tempdir_in(parent)
            .map_err(|error| cannot_write(dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            draft,
        })
    }

    /// Where it is being made.
    pub(super) fn draft(&self) -> &Path {
        self.draft.path()
    }

    /// The folder in which the mailbox is to be.
    pub(super) fn mailbox(&self) -> Result<PathBuf, CliError> {
        let dir = self.draft.path().join("mailbox");
        folders::make_private(&dir).map_err(|error| cannot_write(&self.dir, &error))?;
        Ok(dir)
    }

    pub(super) fn copy_directory(&self, accounts: &DirectoryFile) -> Result<(), CliError> {
        let copy = self.draft.path().join("jam.db");
        directory::backup(&accounts.path, &copy)?;
        directory::check_backup(&copy)?;
        Ok(())
    }

    /// It is complete: it gets its name.
    pub(super) fn keep(self) -> Result<(), CliError> {
        // Where no mailbox was copied there is no place for one either.
        drop(fs::remove_dir(self.draft.path().join("mailbox")));
        folders::sync(self.draft.path())
            .and_then(|()| fs::rename(self.draft.path(), &self.dir))
            .and_then(|()| folders::sync(folders::of(&self.dir)))
            .map_err(|error| cannot_write(&self.dir, &error))
    }
}

fn cannot_write(dir: &Path, why: &io::Error) -> CliError {
    CliError::Failed(format!("cannot write to {}: {why}", dir.display()))
}
