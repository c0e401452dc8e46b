//! Showing, emptying and copying a mailbox, and reading what is nowhere or everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use jam_core::directory::Life;
use jam_core::store::{MailboxStore, OutboundState, OwnerRecord, Write};
use jam_core::time::Time;
use rusqlite::Connection;

use super::setting::{
    Hooks, PATIENCE, Setting, admin, append, append_of, open, record, retain_of, seqs,
    subscription, user, wait_until, will,
};
use crate::mailbox::PurgeScope::{Everything, Inbox};
use crate::mailbox::sqlite::{OpenError, PROBE_INTERVAL, backup, salvage, schema};
use crate::mailbox::{MailboxAdministration as _, Purged};

/// Rows of `purge` that are put back as they were: a request that is there again.
fn ask_again(setting: &Setting) {
    setting.sql("INSERT INTO purge SELECT * FROM purge_of_before");
}

#[test]
fn everything_of_a_user_goes_up_to_the_request_and_nothing_later() {
    let mut setting = Setting::new();
    let owner = |user: &str| {
        Write::Owner(Box::new(OwnerRecord {
            user: super::setting::user(user),
            life: Life::default(),
            gone_since: None,
        }))
    };
    let session = |id| {
        [
            Write::Session(record(id)),
            Write::Subscribe(id, Box::new(subscription("/1/inbox"))),
            Write::Received(user("1"), id, super::setting::id(5)),
            Write::InFlight(id, super::setting::id(6), OutboundState::AwaitsPubComp),
        ]
    };
    let due = |id| {
        let mut due = will("/1/x");
        due.id = id;
        Write::Will(Box::new(due))
    };
    setting.write([owner("1"), owner("2"), append(1), append_of(2, "2", "x")]);
    setting.write([retain_of(3, "/1/a", "a"), Write::Claim(4, 3), due(5)]);
    setting.write(session(4));
    // The number of what comes last is not a message's.
    setting.write(session(6));
    setting.flush();
    // Nobody listens: it is done at the next start.
    let asked = admin(setting.path()).purge(&user("1"), Everything).unwrap();
    assert_eq!(asked, Purged::Asked);
    setting.sql("CREATE TABLE purge_of_before AS SELECT * FROM purge");
    setting.write([append(7), retain_of(8, "/1/a", "b"), due(9)]);
    setting.write(session(10));
    for _ in 0..2 {
        let found = setting.reopen();
        assert_eq!(seqs(&found), [2, 7, 8]);
        let sessions: Vec<_> = found.sessions.iter().map(|(it, ..)| it.id).collect();
        assert_eq!((sessions, found.retained.len()), (vec![10], 1));
        assert_eq!((found.wills.len(), found.owners.len()), (1, 2));
        let rows = ["subscription", "received", "in_flight", "claim", "purge"];
        assert_eq!(rows.map(|table| setting.count(table)), [1, 1, 1, 0, 0]);
        ask_again(&setting);
    }
    setting.close();
    assert_eq!(
        admin(setting.path()).purge(&user("1"), Everything).unwrap(),
        Purged::Removed(2)
    );
    let found = setting.reopen();
    assert_eq!((seqs(&found), found.owners.len()), (vec![2], 1));
}

/// The row of the request cannot be deleted: then what it asked for is not kept either, and the router is not told again.
#[test]
fn a_purge_is_kept_together_with_its_being_done() {
    for everything in [false, true] {
        let mut setting = Setting::new();
        let (to, asked) = sync_channel(10);
        let mailbox = Arc::downgrade(setting.mailbox());
        let remove = move |up_to| {
            to.send(up_to).unwrap();
            let mailbox = mailbox.upgrade().unwrap();
            mailbox.write(&user("1"), [Write::Remove(1)].into_iter().collect(), None);
        };
        let path = setting.path().to_owned();
        let mut hooks = Hooks::default();
        if everything {
            hooks.on_end = Some(Box::new(remove));
        } else {
            hooks.on_purge = Some(Box::new(move |_, up_to, _| remove(up_to)));
        }
        setting.mailbox().attach(Box::new(hooks));
        let ask = || {
            let asked = if everything {
                admin(&path).purge(&user("1"), Everything)
            } else {
                admin(&path).purge(&user("1"), Inbox)
            };
            assert_eq!(asked.unwrap(), Purged::Asked);
        };
        let is_due = || {
            if everything {
                admin(&path).is_purge_due(&user("1"), Everything).unwrap()
            } else {
                admin(&path).is_purge_due(&user("1"), Inbox).unwrap()
            }
        };
        setting.write([append(1), append(2)]);
        setting.flush();
        setting.sql(
            "CREATE TRIGGER held BEFORE DELETE ON purge BEGIN SELECT RAISE(ABORT, 'held'); END",
        );
        ask();
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), 2);
        wait_until(|| !setting.mailbox().accepts());
        std::thread::sleep(PROBE_INTERVAL * 2);
        assert!(is_due());
        assert_eq!((setting.count("message"), asked.try_iter().count()), (2, 0));
        setting.sql("DROP TRIGGER held");
        wait_until(|| !is_due());
        assert_eq!((setting.count("message"), asked.try_iter().count()), (1, 0));
        // The next request is another one.
        wait_until(|| setting.mailbox().accepts());
        ask();
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), 2);
        wait_until(|| !is_due());
        assert_eq!(seqs(&setting.reopen()), [2]);
    }
}

/// The request is made again, for more, when the router has been told of the first and that is not committed.
#[test]
fn a_newer_request_is_not_forgotten_with_the_older() {
    let setting = Setting::new();
    let (to, asked) = sync_channel(10);
    let db = setting.path().join("mailbox.db");
    let on_purge = move |_, up_to, _| {
        if up_to == 2 {
            let other = Connection::open(&db).unwrap();
            other.execute("UPDATE purge SET up_to = 3", []).unwrap();
        }
        to.send(up_to).unwrap();
    };
    setting.mailbox().attach(Box::new(Hooks {
        on_purge: Some(Box::new(on_purge)),
        ..Hooks::default()
    }));
    setting.write([append(1), append(2)]);
    setting.flush();
    let asking = admin(setting.path()).purge(&user("1"), Inbox);
    assert_eq!(asking.unwrap(), Purged::Asked);
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(2));
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(3));
    wait_until(|| {
        !admin(setting.path())
            .is_purge_due(&user("1"), Inbox)
            .unwrap()
    });
    assert!(asked.try_recv().is_err());
}

#[test]
fn a_backup_is_a_mailbox() {
    let setting = Setting::new();
    setting.write((1..=100).map(append));
    setting.flush();
    let dir = tempfile::tempdir().unwrap();
    backup(setting.path(), dir.path()).unwrap();
    setting.write([append(101)]);
    setting.flush();
    assert!(
        backup(setting.path(), dir.path()).is_err(),
        "nothing is overwritten"
    );
    admin(dir.path()).check().unwrap();
    let (_mailbox, recovered) = open(dir.path()).unwrap();
    assert_eq!(recovered.entries.len(), 100);
    let connection = Connection::open(dir.path().join("mailbox.db")).unwrap();
    let mode: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

/// Names and contents of the files in a directory, and the latest change of the directory itself.
fn traces(dir: &Path) -> (Vec<(PathBuf, Vec<u8>)>, std::time::SystemTime) {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    (files, fs::metadata(dir).unwrap().modified().unwrap())
}

#[test]
fn a_check_leaves_no_trace() {
    let missing = tempfile::tempdir().unwrap();
    let check = |dir: &Path| {
        let before = traces(dir);
        let outcome = admin(dir).check();
        assert!(traces(dir) == before);
        outcome
    };
    assert!(matches!(check(missing.path()), Err(OpenError::Missing(_))));

    let mut setting = Setting::new();
    setting.write((1..=100).map(append));
    setting.flush();
    let condition = admin(setting.path()).check().unwrap();
    assert_eq!((condition.messages, condition.served), (100, true));

    // As after a crash: the messages are in the log only.
    let crashed = tempfile::Builder::new().prefix("a ?#% ").tempdir().unwrap();
    for name in ["mailbox.db", "mailbox.db-wal"] {
        fs::copy(setting.path().join(name), crashed.path().join(name)).unwrap();
    }
    let condition = check(crashed.path()).unwrap();
    assert_eq!((condition.messages, condition.served), (100, false));

    setting.close();
    let condition = check(setting.path()).unwrap();
    assert_eq!((condition.messages, condition.served), (100, false));
    assert_eq!(condition.version, schema::VERSION);

    let only_file = tempfile::Builder::new().prefix("a ?#% ").tempdir().unwrap();
    fs::copy(
        setting.path().join("mailbox.db"),
        only_file.path().join("mailbox.db"),
    )
    .unwrap();
    assert_eq!(check(only_file.path()).unwrap().messages, 100);
}

#[test]
fn messages_are_read_wherever_they_are() {
    let setting = Setting::new();
    // Nothing can be committed while somebody else writes.
    let connection = Connection::open(setting.path().join("mailbox.db")).unwrap();
    setting.write([append(1), append(2)]);
    setting.flush();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    setting.write([append(3), Write::Remove(1)]);
    std::thread::sleep(Duration::from_millis(50));
    setting.write([append(4)]);
    setting.write([append(5)]);
    setting.write([Write::Remove(5)]);
    let seqs = |loaded: Vec<(u64, Arc<_>)>| loaded.iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
    assert_eq!(seqs(setting.load(&[1, 2, 3, 4, 5])), [2, 3, 4]);
    connection.execute_batch("COMMIT").unwrap();
    setting.flush();
    assert_eq!(seqs(setting.load(&[5, 4, 3, 2, 1])), [4, 3, 2]);
}

#[test]
fn an_unreadable_message_is_left_in_the_file() {
    let mut setting = Setting::new();
    setting.write([append(1), append(2), append(3)]);
    setting.close();
    let path = setting.path().join("mailbox.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("UPDATE message SET body = x'00' WHERE id = 2", [])
        .unwrap();
    drop(connection);
    let checked = admin(setting.path()).check();
    assert!(matches!(checked, Err(OpenError::Damaged { .. })));
    setting.reopen();
    let began = Instant::now();
    let loaded: Vec<_> = setting
        .load(&[1, 2, 3])
        .iter()
        .map(|(seq, _)| *seq)
        .collect();
    assert_eq!(loaded, [1, 3]);
    // It was read again after 10 ms, and after another 20 ms.
    assert!(began.elapsed() >= Duration::from_millis(30));
    let acknowledged = Write::Acknowledged {
        seq: 2,
        waits_for: 0,
    };
    setting.write([acknowledged]);
    setting.write([Write::Remove(1), Write::Remove(2), Write::Remove(3)]);
    let found = setting.reopen();
    assert_eq!(seqs(&found), [2]);
    let left = &found.entries[0];
    assert_eq!((left.waits_for, left.acknowledged), (1, false));
}

#[test]
fn the_schema_is_made_by_its_migrations() {
    let mut setting = Setting::new();
    setting.close();
    let connection = Connection::open(setting.path().join("mailbox.db")).unwrap();
    assert_eq!(
        schema::pragma(&connection, "user_version").unwrap(),
        schema::VERSION
    );
    // A file from before the first version has only its application id.
    connection
        .execute_batch(
            "DROP TABLE message; DROP TABLE session; DROP TABLE received; DROP TABLE in_flight;
             DROP TABLE retained; DROP TABLE claim; DROP TABLE will; DROP TABLE push; DROP TABLE purge;
             DROP TABLE meta; DROP TABLE owner; DROP TABLE subscription;
             PRAGMA user_version = 0;",
        )
        .unwrap();
    drop(connection);
    setting.reopen();
    setting.write([append(1)]);
    assert_eq!(setting.reopen().entries.len(), 1);
}

/// A mailbox as the first version of the schema had it, with a session.
fn of_the_first_version() -> Setting {
    let setting = Setting::of_version(1);
    setting.sql(
        "INSERT INTO session VALUES (4, '1', '1:phone', 0, 60000, NULL, NULL, NULL, NULL, x'')",
    );
    setting
}

#[test]
fn a_mailbox_of_the_first_version_is_brought_up_to_date() {
    let mut setting = of_the_first_version();
    let recovered = setting.reopen();
    let (record, _, _) = &recovered.sessions[0];
    assert_eq!(
        (record.client.as_str(), record.maybe_sent_before_crash),
        ("1:phone", 0)
    );
    setting.write([Write::Session(record.clone().into())]);
    assert_eq!(setting.reopen().sessions.len(), 1);
}

/// One SUBSCRIBE for each Subscription Identifier stood in the session; messages weighed their payload.
#[test]
fn what_version_3_kept_of_subscriptions_and_weights_is_kept() {
    let mut setting = of_the_first_version();
    let connection = Connection::open(setting.path().join("mailbox.db")).unwrap();
    let subscriptions =
        b"\x82\x13\0\x01\0\0\x08/1/inbox\x01\0\x02/1\x0A\x82\x0C\0\x01\x02\x0B\x09\0\x04/1/x\x04";
    let sql = "UPDATE session SET subscriptions = ?1";
    connection.execute(sql, [&subscriptions[..]]).unwrap();
    let mut body = b"\x32\x00\x00\x08/1/inbox\x00\x01\x00{}".to_vec();
    body[1] = u8::try_from(body.len() - 2).unwrap();
    let large = [
        &b"\x32\x9D\x0F\x00\x08/1/inbox\x00\x01\x8D\x0F\x09\x07\x8A"[..],
        &[1; 1930],
        b"{}",
    ]
    .concat();
    for (id, body) in [(1, body), (2, large)] {
        let sql = "INSERT INTO message VALUES (?1, '1', '7', 5, 0, 0, 5, NULL, 2, ?2)";
        connection.execute(sql, (id, body)).unwrap();
    }
    drop(connection);
    let found = setting.reopen();
    let topics = |found: &super::setting::Found| -> Vec<_> {
        let (record, _, _) = &found.sessions[0];
        let subscriptions = record.subscriptions.iter();
        subscriptions
            .map(|it| {
                (
                    it.topic.to_string(),
                    it.qos as u8,
                    it.no_local,
                    it.retain_as_published,
                    it.id,
                )
            })
            .collect()
    };
    let expected = [
        ("/1".to_owned(), 2, false, true, None),
        ("/1/inbox".to_owned(), 1, false, false, None),
        ("/1/x".to_owned(), 0, true, false, Some(9)),
    ];
    assert_eq!(topics(&found), expected);
    let sizes: Vec<_> = found.entries.iter().map(|entry| entry.size).collect();
    assert_eq!(sizes, [2, 1952]);
    assert_eq!(topics(&setting.reopen()), expected);
}

#[test]
fn retained_messages_of_an_earlier_version_get_numbers() {
    let mut setting = of_the_first_version();
    let bodies = [
        "30 08 0004 2F312F61 00 61",
        "35 0A 0004 2F312F62 0001 00 62",
        "32 0A 0004 2F312F63 0001 00 63",
    ];
    for (topic, body) in ["/1/a", "/1/b", "/1/c"].iter().zip(bodies) {
        let body = body.replace(' ', "");
        setting.sql(&format!(
            "INSERT INTO retained VALUES ('1', '{topic}', '1', 1700000000000, 1700000000007, x'{body}')"
        ));
    }
    setting.sql("INSERT INTO meta VALUES ('last_seq', 70)");
    let recovered = setting.reopen();
    let retained = recovered.retained.iter();
    let retained: Vec<_> = retained.map(|it| (it.seq, it.topic.as_str())).collect();
    assert_eq!(retained, [(71, "/1/a"), (72, "/1/b"), (73, "/1/c")]);
    let entries: Vec<_> = recovered
        .entries
        .iter()
        .map(|it| (it.qos as u8, it.retained))
        .collect();
    assert_eq!(entries, [(0, true), (2, true), (1, true)]);
    assert!(
        recovered
            .entries
            .iter()
            .all(|it| it.expires_at == Time::from_millis(1_700_000_000_007))
    );
    assert!(recovered.last_seq >= 73);
    let loaded = setting.load(&[71, 72, 73]);
    let payloads = loaded.iter().map(|(_, it)| it.to_stored().payload);
    assert!(payloads.eq(["a", "b", "c"]));
    setting.close();
    let saved = tempfile::tempdir().unwrap();
    let report = salvage(setting.path(), saved.path()).unwrap();
    assert_eq!((report.retained, report.messages, report.wrong), (3, 0, 0));
    assert_eq!(admin(saved.path()).check().unwrap().messages, 0);
}

#[test]
fn a_mailbox_of_the_first_version_can_be_salvaged() {
    let setting = of_the_first_version();
    let saved = tempfile::tempdir().unwrap();
    let report = salvage(setting.path(), saved.path()).unwrap();
    assert_eq!((report.sessions, report.cut.len()), (1, 0));
}
