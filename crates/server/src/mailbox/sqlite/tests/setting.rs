//! A mailbox in a directory of its own, and shorthands.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jam_core::store::Recovered;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::mailbox::MailboxAdministration;
use crate::mailbox::sqlite::{OpenError, SqliteMailbox, SqliteMailboxAdministration, schema};
use crate::mailbox::tests::setting::{self, found};
pub(super) use crate::mailbox::tests::setting::{
    Found, Hooks, Kind, PATIENCE, Rejected, Told, append, append_by, append_of, id, message_under,
    record, retain_of, seqs, subscription, user, wait_until, will,
};

/// A mailbox whose completions tell tests.
pub(super) type Mailbox = SqliteMailbox<Told>;

pub(super) type Setting = setting::Setting<InFiles>;

/// A directory.
pub(super) struct InFiles(TempDir);

impl Kind for InFiles {
    type Store = Mailbox;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Result<(Arc<Mailbox>, Recovered), OpenError> {
        Mailbox::open(self.0.path())
    }

    fn admin(&self) -> Box<dyn MailboxAdministration> {
        Box::new(admin(self.0.path()))
    }

    fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let connection = Connection::open(self.0.path().join("mailbox.db")).unwrap();
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }
}

pub(super) fn admin(dir: &Path) -> SqliteMailboxAdministration {
    SqliteMailboxAdministration::of(dir.to_owned())
}

pub(super) fn open(dir: &Path) -> Result<(Arc<Mailbox>, Found), OpenError> {
    Mailbox::open(dir).and_then(found)
}

impl Setting {
    pub(super) fn path(&self) -> &Path {
        self.kind.0.path()
    }

    /// A mailbox as an earlier version of the schema had it, empty and closed.
    pub(super) fn of_version(version: usize) -> Self {
        let mut setting = Self::new();
        setting.close();
        fs::remove_file(setting.path().join("mailbox.db")).unwrap();
        let id = schema::APPLICATION_ID;
        setting.sql(&format!(
            "PRAGMA application_id = {id}; PRAGMA user_version = {version}"
        ));
        schema::migrations::MIGRATIONS[..version]
            .iter()
            .for_each(|step| setting.sql(step));
        setting
    }

    fn connection(&self) -> Connection {
        Connection::open(self.path().join("mailbox.db")).unwrap()
    }

    /// Changes the file by SQL.
    pub(super) fn sql(&self, sql: &str) {
        self.connection().execute_batch(sql).unwrap();
    }
}
