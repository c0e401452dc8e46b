//! Two servers on one database: one of them can write.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use jam_core::store::MailboxStore as _;
use jam_testkit::cut::Cut;

use super::cutting::through;
use super::setting::{InDatabase, Kind as _, PATIENCE, Setting, append, found, seqs, wait_until};
use crate::mailbox::OpenError;
use crate::mailbox::postgres::fence::SILENCE;
use crate::mailbox::postgres::tenure::Ended;
use crate::postgres::testing::database;

/// Another server, on the same database.
fn another(setting: &Setting) -> InDatabase {
    InDatabase::of(setting.kind.database.clone())
}

#[test]
fn a_server_that_is_alive_is_left_alone() {
    let mut setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    let refused = another(&setting).open().map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    // On its own data directory too, at once.
    let same = setting.kind.open().map(drop).unwrap_err();
    assert!(matches!(same, OpenError::InUse { .. }), "{same}");
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Ok(())));
    assert!(setting.mailbox().ended().is_none());
    assert_eq!(setting.sql("SELECT count(*) FROM fence"), "1");
    assert_eq!(seqs(&setting.reopen()), [1, 2]);
}

/// As of a machine that was cloned: the file of the data directory says that the one before is dead, and is free.
#[test]
fn a_copy_of_a_data_directory_does_not_fence_the_server_that_it_is_a_copy_of() {
    let mut setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    let copy = another(&setting);
    let lock = |place: &InDatabase| place.data.path().join("cluster.lock");
    fs::copy(lock(&setting.kind), lock(&copy)).unwrap();
    let refused = copy.open().map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Ok(())));
    assert!(setting.mailbox().ended().is_none());
    assert_eq!(seqs(&setting.reopen()), [1, 2]);
}

#[test]
fn one_that_has_stopped_leaves_the_database_free() {
    let mut setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    setting.close();
    for table in ["node", "fence", "batch"] {
        assert_eq!(setting.count(table), 0, "{table}");
    }
    let began = Instant::now();
    let (_other, there) = another(&setting).open().and_then(found).unwrap();
    assert!(began.elapsed() < SILENCE);
    assert_eq!(seqs(&there), [1]);
}

/// It is cut off, another takes over, and it comes back: what it then sends changes nothing, and it knows why.
#[test]
fn one_that_is_silent_is_fenced_and_ends() {
    let database = database();
    let proxy = Cut::before(database.port());
    let setting = Setting::in_database(&database, Some(through(&proxy, &database)));
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    proxy.stall(true);
    // What is on its way arrives, however busy the database is.
    let beat = || {
        thread::sleep(Duration::from_secs(1));
        setting.sql("SELECT beat FROM node")
    };
    while beat() != beat() {}
    setting.ask(2, [append(2)]);
    let began = Instant::now();
    let (other, there) = another(&setting).open().and_then(found).unwrap();
    assert!(began.elapsed() >= SILENCE);
    assert_eq!(seqs(&there), [1]);
    proxy.stall(false);
    wait_until(|| setting.mailbox().ended().is_some());
    assert_eq!(setting.mailbox().station.ended(), Some(Ended::Fenced));
    assert!(!setting.mailbox().accepts() && !setting.mailbox().is_writable());
    setting.ask(3, [append(3)]);
    thread::sleep(Duration::from_secs(1));
    assert!(
        setting
            .answers
            .try_iter()
            .all(|(_, outcome)| outcome.is_err())
    );
    assert_eq!(setting.count("message"), 1);
    // The other one goes on.
    let writes = [append(there.last_seq + 1)].into_iter().collect();
    other.write(&super::setting::user("1"), writes, None);
    assert!(other.flush(PATIENCE));
    assert_eq!(setting.count("message"), 2);
}

/// Numbers of a later start are above those of all before: none is used twice.
#[test]
fn each_start_has_numbers_of_its_own() {
    let mut setting = Setting::in_database(&database(), None);
    let mut before = 0;
    for _ in 0..3 {
        let last = setting.reopen().last_seq;
        assert!(last >= before + (1 << 40));
        before = last;
    }
    setting.write([append(before + 1)]);
    setting.close();
    // As when a table of an older backup is put back alone.
    setting.sql("UPDATE cluster SET epoch = 0");
    let gone_back = setting.open_closed().map(drop).unwrap_err().to_string();
    assert!(gone_back.contains("cluster.epoch"), "{gone_back}");
}
