//! The schema, and what commands say of the database.

use std::thread;
use std::time::Duration;

use jam_core::store::{MailboxStore as _, Write};
use jam_testkit::cut::Cut;

use super::cutting::through;
use super::setting::{
    InDatabase, Kind as _, PATIENCE, Setting, append, create, seqs, user, wait_until,
};
use crate::mailbox::PurgeScope::Inbox;
use crate::mailbox::postgres::PostgresMailboxAdministration;
use crate::mailbox::postgres::watch::PURGE_INTERVAL;
use crate::mailbox::tests::setting::Hooks;
use crate::mailbox::{MailboxAdministration as _, Purged};
use crate::postgres::testing::{HasAddress as _, TestServer, database};

fn administration(
    database: &crate::postgres::testing::TestDatabase,
) -> PostgresMailboxAdministration {
    PostgresMailboxAdministration::of(database.address())
}

#[test]
fn a_schema_is_made_in_an_empty_database_and_nowhere_else() {
    let database = database();
    let place = InDatabase::of(database.clone());
    let without = place.open().map(drop).unwrap_err().to_string();
    assert!(without.contains("cluster init"), "{without}");
    let unread = place.admin().check().unwrap_err().to_string();
    assert!(unread.contains("cluster init"), "{unread}");
    let admin = administration(&database);
    admin.create().unwrap();
    let migration = admin.migration().unwrap();
    assert_eq!(migration.from, migration.to);
    let again = admin.create().unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");
    drop(place.open().unwrap());
    let other = super::setting::database();
    other.run("CREATE TABLE theirs (id int)");
    let refused = administration(&other).create().unwrap_err().to_string();
    assert!(refused.contains("theirs"), "{refused}");
    assert_eq!(
        other.run("SELECT count(*) FROM pg_class WHERE relname = 'message'"),
        "0"
    );
}

#[test]
fn a_schema_of_a_later_version_is_left_alone() {
    let database = database();
    create(&database);
    database.run("UPDATE cluster SET schema = 2");
    let newer = InDatabase::of(database.clone())
        .open()
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(newer.contains("version 2"), "{newer}");
    database.run("UPDATE cluster SET schema = 1, parts = 64");
    let parts = InDatabase::of(database)
        .open()
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(parts.contains("64 parts"), "{parts}");
}

#[test]
fn a_check_reads_everything_and_says_who_serves() {
    let mut setting = Setting::in_database(&database(), None);
    setting.write((1..=20).map(append));
    setting.flush();
    let found = setting.admin().check().unwrap();
    assert_eq!((found.version, found.served, found.messages), (1, true, 20));
    setting.close();
    let found = setting.admin().check().unwrap();
    assert_eq!((found.served, found.messages), (false, 20));
    let said = setting.admin().warnings();
    assert!(
        said.iter()
            .any(|it| it.contains("synchronous_standby_names")),
        "{said:?}"
    );
    setting.sql("UPDATE message SET body = '\\x00' WHERE seq = 7");
    let damaged = setting.admin().check().unwrap_err().to_string();
    assert!(damaged.contains("damaged"), "{damaged}");
    // It is left there, and the others are read.
    setting.reopen();
    let loaded: Vec<_> = setting
        .load(&[6, 7, 8])
        .iter()
        .map(|(seq, _)| *seq)
        .collect();
    assert_eq!(loaded, [6, 8]);
    setting.write([Write::Remove(7)]);
    assert!(seqs(&setting.reopen()).contains(&7));
}

/// Complaint T15: what is acknowledged before it is on the disk.
#[test]
fn a_check_refuses_a_database_that_does_not_sync() {
    let server = TestServer::start_with(&[("fsync", "off"), ("synchronous_commit", "off")]);
    let database = server.database();
    create(&database);
    let refused = administration(&database).check().unwrap_err().to_string();
    assert!(refused.contains("fsync is off"), "{refused}");
}

/// A server is asked, does it once, and the request is forgotten with that.
#[test]
fn a_server_that_runs_does_what_it_is_asked_for_once() {
    let setting = Setting::in_database(&database(), None);
    let (to, asked) = std::sync::mpsc::sync_channel(10);
    let mailbox = std::sync::Arc::downgrade(setting.mailbox());
    setting.mailbox().attach(Box::new(Hooks {
        on_purge: Some(Box::new(move |of, up_to, from| {
            let removes = [1, 2].map(Write::Remove);
            mailbox
                .upgrade()
                .unwrap()
                .write(&of, removes.into_iter().collect(), None);
            to.send((of, up_to, from)).unwrap();
        })),
        ..Hooks::default()
    }));
    setting.write([append(1), append(2)]);
    setting.flush();
    let admin = setting.admin();
    assert!(admin.is_served().unwrap());
    assert_eq!(admin.purge(&user("1"), Inbox).unwrap(), Purged::Asked);
    assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), (user("1"), 2, None));
    wait_until(|| !setting.admin().is_purge_due(&user("1"), Inbox).unwrap());
    assert_eq!(setting.count("message"), 0);
    thread::sleep(PURGE_INTERVAL * 4);
    assert!(asked.try_recv().is_err());
}

/// Without a server nothing can write any more when it is done, also none that was silent.
#[test]
fn what_a_command_changes_is_changed_for_who_was_silent() {
    let database = database();
    let proxy = Cut::before(database.port());
    let setting = Setting::in_database(&database, Some(through(&proxy, &database)));
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    proxy.stall(true);
    setting.cut_writer();
    setting.sql("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name LIKE 'jam-%'");
    assert_eq!(
        setting.admin().purge(&user("1"), Inbox).unwrap(),
        Purged::Removed(1)
    );
    proxy.stall(false);
    wait_until(|| setting.mailbox().ended().is_some());
    assert_eq!(setting.count("message"), 0);
}

#[test]
fn what_is_in_the_database_is_counted_for_the_metrics() {
    let mut setting = Setting::in_database(&database(), None);
    setting.write([append(1)]);
    setting.flush();
    setting.reopen();
    let oldest = jam_core::time::Time::from_millis(1_700_000_000_000);
    wait_until(|| setting.mailbox().gauges().oldest == Some(oldest));
    wait_until(|| setting.mailbox().disk_use().bytes > 8192);
    let at = setting
        .mailbox()
        .received_at(&[(user("1"), 1), (user("1"), 2)])
        .unwrap();
    assert_eq!(at, [(1, oldest)]);
}

/// What is deleted stays while somebody may still see it, and goes with VACUUM.
#[test]
fn rows_that_cannot_be_cleared_away_are_counted_for_the_metrics() {
    let mut setting = Setting::in_database(&database(), None);
    setting.write((1..=200).map(append));
    setting.flush();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let held = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM message";
    let address = setting.kind.database.address();
    let other = runtime.block_on(crate::postgres::open(&address, "somebody"));
    let other = other.unwrap();
    runtime.block_on(other.batch_execute(held)).unwrap();
    setting.write((1..=200).map(Write::Remove));
    setting.flush();
    setting.sql("VACUUM");
    // What a connection has done is counted when it ends, at the latest.
    setting.reopen();
    let gauges = || setting.mailbox().gauges();
    wait_until(|| gauges().dead_rows >= 200);
    wait_until(|| gauges().oldest_snapshot >= Duration::from_secs(5));
    runtime.block_on(other.batch_execute("COMMIT")).unwrap();
    setting.sql("VACUUM");
    // The beat's row leaves some all the time.
    wait_until(|| gauges().dead_rows < 100 && gauges().oldest_snapshot.is_zero());
}
