//! Databases that warn of something with each batch, and keep it all the same.

use std::time::Instant;

use super::setting::{Setting, append, seqs};
use crate::mailbox::postgres::chain::COMMIT_TIMEOUT;
use crate::postgres::testing::{TestServer, database};

/// A trigger of somebody's that warns as part of each COMMIT.
pub(super) const WARNS_AT_COMMIT: &str =
    "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'a message has come'; RETURN NULL; END $$;
     CREATE CONSTRAINT TRIGGER warns AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION warn()";

/// Transactions before PostgreSQL has no more ids, from its oldest table on, and from where on it warns.
const IDS: u32 = 1 << 31;
const WARNED_OF: u32 = 40_000_000;

/// Ids that a file of their outcomes is about, and the bytes of it.
const IDS_OF_FILE: u32 = 1 << 20;
const FILE_BYTES: usize = 1 << 18;

/// Each batch is kept at the first try.
fn keeps_batches(setting: &mut Setting) {
    let began = Instant::now();
    for number in 1..=5 {
        setting.ask(number, [append(number)]);
        assert_eq!(setting.answer(), (number, Ok(())));
    }
    assert!(began.elapsed() < COMMIT_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(
        setting.sql("SELECT max(n) FROM batch"),
        "6",
        "one each, and the start's"
    );
    assert_eq!(seqs(&setting.reopen()), [1, 2, 3, 4, 5]);
}

#[test]
fn a_trigger_that_warns_at_the_commit_holds_nothing_up() {
    let mut setting = Setting::in_database(&database(), None);
    setting.sql(WARNS_AT_COMMIT);
    keeps_batches(&mut setting);
}

#[test]
fn a_warning_at_the_connect_holds_nothing_up() {
    let mut setting = Setting::in_database(&database(), None);
    setting.close();
    // As after an upgrade of the operating system: the collations are of another version.
    setting.sql("UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()");
    setting.reopen();
    keeps_batches(&mut setting);
}

/// PostgreSQL says so with the first write of each transaction, and takes them for a long time yet.
#[test]
fn a_database_that_runs_out_of_transaction_ids_is_written_as_long_as_it_can_be() {
    let mut server = TestServer::start();
    let database = server.database();
    let mut setting = Setting::in_database(&database, None);
    setting.close();
    // A table that cannot be read cannot be frozen, so the warnings stay whatever autovacuum does.
    setting.sql("CREATE TABLE damaged AS SELECT 1 AS number; CHECKPOINT");
    let damaged = setting.sql("SELECT pg_relation_filepath('damaged')");
    let oldest = setting.sql("SELECT min(datfrozenxid::text::bigint) FROM pg_database");
    server.stop();
    server.replace(&damaged, &[0xff; 8192]);
    let next = oldest.parse::<u32>().unwrap() + IDS - WARNED_OF / 2;
    let next = next / IDS_OF_FILE * IDS_OF_FILE;
    let file = format!("pg_xact/{:04X}", next / IDS_OF_FILE);
    server.replace(&file, &[0; FILE_BYTES]);
    server.count_to_transaction(next);
    server.restart();
    setting.reopen();
    keeps_batches(&mut setting);
    let age = "SELECT max(age(datfrozenxid)) FROM pg_database";
    assert!(setting.sql(age).parse::<u32>().unwrap() > IDS - WARNED_OF);
}
