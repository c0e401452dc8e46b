//! A mailbox in a database of its own, and shorthands.

use std::sync::Arc;

use jam_core::store::Recovered;
use tempfile::TempDir;

use crate::mailbox::postgres::{PostgresMailbox, PostgresMailboxAdministration};
use crate::mailbox::tests::setting;
pub(super) use crate::mailbox::tests::setting::{
    Kind, PATIENCE, Rejected, Told, append, append_of, found, id, record, seqs, user, wait_until,
};
use crate::mailbox::{MailboxAdministration, OpenError};
use crate::postgres::Address;
pub(super) use crate::postgres::testing::database;
use crate::postgres::testing::{HasAddress as _, TestDatabase};

/// A mailbox whose completions tell tests.
pub(super) type Mailbox = PostgresMailbox<Told>;

pub(super) type Setting = setting::Setting<InDatabase>;

/// A database, and the data directory of the server that has it.
pub(in crate::mailbox) struct InDatabase {
    pub(super) database: TestDatabase,
    pub(super) data: TempDir,
    /// Where a server reaches it, if that is not straight.
    pub(super) through: Option<Address>,
}

impl InDatabase {
    pub(super) fn of(database: TestDatabase) -> Self {
        Self {
            database,
            data: tempfile::tempdir().unwrap(),
            through: None,
        }
    }

    fn address(&self) -> Address {
        self.through
            .clone()
            .unwrap_or_else(|| self.database.address())
    }
}

impl Kind for InDatabase {
    type Store = Mailbox;

    fn new() -> Self {
        let place = Self::of(database());
        create(&place.database);
        place
    }

    fn open(&self) -> Result<(Arc<Mailbox>, Recovered), OpenError> {
        Mailbox::open(&self.address(), self.data.path(), Arc::default())
    }

    fn admin(&self) -> Box<dyn MailboxAdministration> {
        Box::new(PostgresMailboxAdministration::of(self.database.address()))
    }

    fn count(&self, table: &str) -> i64 {
        let count = self.database.run(&format!("SELECT count(*) FROM {table}"));
        count.parse().unwrap()
    }
}

/// Makes the schema.
pub(super) fn create(database: &TestDatabase) {
    PostgresMailboxAdministration::of(database.address())
        .create()
        .unwrap();
}

impl Setting {
    /// Of a mailbox in a database, reached by a way of its own.
    pub(super) fn in_database(database: &TestDatabase, through: Option<Address>) -> Self {
        create(database);
        let mut place = InDatabase::of(database.clone());
        place.through = through;
        Self::on(place)
    }

    pub(super) fn sql(&self, sql: &str) -> String {
        self.kind.database.run(sql)
    }

    /// The back end of the connection by which the database is changed.
    pub(super) fn writer(&self) -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
             AND application_name LIKE 'jam-%-writer'";
        self.sql(sql).parse().ok()
    }

    /// Ends the writer's connection from outside.
    pub(super) fn cut_writer(&self) {
        self.sql(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name LIKE 'jam-%-writer'",
        );
    }
}
