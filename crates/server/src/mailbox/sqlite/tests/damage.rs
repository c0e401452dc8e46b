//! Files that are not, or no longer, a mailbox.

use std::fs;
use std::path::{Path, PathBuf};

use jam_core::directory::Life;
use jam_core::store::{OutboundState, OwnerRecord, PushRecord, Write};
use jam_core::time::Time;
use rusqlite::Connection;

use super::setting::{
    self, Mailbox, Setting, admin, append_of, id, record, retain_of, subscription, user, will,
};
use crate::mailbox::MailboxAdministration as _;
use crate::mailbox::sqlite::{OpenError, salvage};

const MESSAGES: u64 = 400;

fn db(dir: &Path) -> PathBuf {
    dir.join("mailbox.db")
}

/// A mailbox that was closed, with messages on many pages, some of them on pages of their own.
fn filled() -> (Setting, Vec<u8>) {
    let mut setting = Setting::new();
    setting.write([Write::Session(record(1))]);
    for seq in 2..2 + MESSAGES {
        let bytes = if seq % 20 == 0 { 9000 } else { 300 };
        let payload = format!(r#"{{"from":"7","text":"{}"}}"#, "x".repeat(bytes));
        setting.write([append_of(seq, "1", payload)]);
    }
    setting.close();
    let bytes = fs::read(db(setting.path())).unwrap();
    (setting, bytes)
}

/// Opens a file with these bytes, in a directory of its own.
fn open(bytes: &[u8]) -> Result<usize, OpenError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(db(dir.path()), bytes).unwrap();
    let opened = setting::open(dir.path()).map(|(_, recovered)| recovered.entries.len());
    if opened.is_err() {
        assert!(
            fs::read(db(dir.path())).unwrap() == bytes,
            "an error leaves the file as it is"
        );
    }
    opened
}

#[test]
fn a_file_that_is_cut_off_is_damaged() {
    let (_setting, bytes) = filled();
    assert_eq!(open(&bytes).unwrap() as u64, MESSAGES);
    for at in (0..bytes.len())
        .step_by(997)
        .chain([1, 99, 100, 101, 4096, bytes.len() - 1])
    {
        match open(&bytes[..at]) {
            Err(OpenError::Damaged { .. }) => {}
            other => panic!("cut off at {at}: {other:?}"),
        }
    }
}

#[test]
fn flipped_bits_never_make_an_empty_mailbox() {
    let (_setting, bytes) = filled();
    let mut damaged = 0;
    for at in (0..bytes.len()).step_by(1231).chain(0..200) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x55;
        match open(&flipped) {
            // In content, in numbers, or in what nobody reads.
            Ok(messages) => assert!(
                messages as u64 > MESSAGES - 20,
                "{messages} left, byte {at}"
            ),
            Err(OpenError::InUse { .. }) => panic!("byte {at}"),
            Err(_) => damaged += 1,
        }
    }
    assert!(damaged > 20);
}

/// By whatever was in the way: half a mailbox would be taken for a whole one.
#[test]
fn a_value_that_cannot_be_right_is_damage_and_never_a_default() {
    for wrong in [
        "meta SET value = -1 WHERE name = 'last_seq'",
        "message SET user = ''",
        "message SET sender = 'a/b'",
        "message SET flags = 64 | flags",
        "message SET flags = 3",
        "message SET waits_for = -1",
        "message SET waits_for = 1 << 33 | waits_for",
        "message SET received_at = -1",
        "message SET expires_at = -1",
        "message SET size = -1",
        "session SET user = 'a/b'",
        "session SET expiry = -1",
        "session SET ends_at = -1",
        "session SET will = x'00'",
        "session SET maybe_sent = -1",
        "session SET token = x'00'",
        "subscription SET options = 3",
        "subscription SET options = 16 | options",
        "received SET packet_id = 0",
        "in_flight SET packet_id = 70000",
        "in_flight SET state = 4",
        "in_flight SET message = -1",
        "retained SET user = ''",
        "will SET body = CAST(body || x'00' AS BLOB)",
        "will SET token = x'00'",
        "push SET at = -1",
        "owner SET email = x'00'",
        "owner SET gone_since = -1",
    ] {
        let mut setting = Setting::new();
        setting.write([append_of(1, "1", "x"), retain_of(2, "/1/a", "a")]);
        setting.write([
            Write::Session(record(3)),
            Write::Subscribe(3, Box::new(subscription("/1/a"))),
            Write::Received(user("1"), 3, id(1)),
            Write::InFlight(3, id(1), OutboundState::AwaitsPubAck(1)),
        ]);
        let mut due = will("/1/x");
        due.id = 4;
        let push = PushRecord {
            receiver: user("1"),
            sender: user("7"),
            seq: 1,
            sent: false,
            at: Time::from_millis(1),
            expires_at: Time::NEVER,
        };
        let owner = OwnerRecord {
            user: user("1"),
            life: Life::default(),
            gone_since: None,
        };
        setting.write([
            Write::Will(Box::new(due)),
            Write::Push(Box::new(push)),
            Write::Owner(Box::new(owner)),
        ]);
        assert_eq!(setting.reopen().entries.len(), 2);
        setting.close();
        setting.sql(&format!("UPDATE {wrong}"));
        match setting.open_closed() {
            Err(OpenError::Damaged { .. }) => {}
            other => panic!("{wrong}: {:?}", other.map(drop)),
        }
    }
}

/// Not if it was: then nothing was being written, and its pages are read when they are needed.
#[test]
fn what_was_not_closed_properly_is_looked_at_page_by_page() {
    let (setting, mut bytes) = filled();
    let page = 4096;
    let is_full_of_x = |page: &[u8]| page.iter().filter(|byte| **byte == b'x').count() > 3900;
    let overflow = bytes.chunks(page).position(is_full_of_x).unwrap();
    bytes[overflow * page..][..4].fill(0xFF); // the number of the next page
    assert_eq!(open(&bytes).unwrap() as u64, MESSAGES);
    fs::write(db(setting.path()), &bytes).unwrap();
    fs::write(setting.path().join("mailbox.db-wal"), [0; 32]).unwrap();
    let opened = setting.open_closed().map(drop);
    assert!(
        matches!(opened, Err(OpenError::Damaged { .. })),
        "{opened:?}"
    );
}

#[test]
fn an_empty_file_and_a_log_without_its_file_are_damaged() {
    assert!(matches!(open(b""), Err(OpenError::Damaged { .. })));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mailbox.db-wal"), b"").unwrap();
    let error = Mailbox::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert!(error.to_string().contains("`jam-mqtt mailbox salvage DIR`"));
    assert!(!db(dir.path()).exists());
}

#[test]
fn a_later_version_and_another_program_are_let_alone() {
    for (pragma, value) in [("user_version", 99), ("application_id", 7)] {
        let (setting, _) = filled();
        let connection = Connection::open(db(setting.path())).unwrap();
        connection.pragma_update(None, pragma, value).unwrap();
        drop(connection);
        let before = fs::read(db(setting.path())).unwrap();
        let error = Mailbox::open(setting.path()).unwrap_err();
        assert!(matches!(
            error,
            OpenError::Newer { found: 99, .. } | OpenError::NotOurs(_)
        ));
        assert!(fs::read(db(setting.path())).unwrap() == before);
    }
}

#[test]
fn a_later_version_is_not_salvaged_by_halves() {
    let (setting, _) = filled();
    let connection = Connection::open(db(setting.path())).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let saved = tempfile::tempdir().unwrap();
    let error = salvage(setting.path(), saved.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }));
    assert_eq!(fs::read_dir(saved.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_gone_is_not_a_new_mailbox() {
    let (setting, _) = filled();
    fs::remove_file(db(setting.path())).unwrap();
    let error = Mailbox::open(setting.path()).unwrap_err();
    assert!(error.to_string().contains("delete that too"));
    fs::remove_file(setting.path().join("mailbox.reserve")).unwrap();
    assert!(Mailbox::open(setting.path()).is_ok());
}

#[test]
fn what_is_on_a_page_that_was_overwritten_is_not_taken_for_a_message() {
    let (setting, bytes) = filled();
    let page = 4096;
    let is_full_of_x = |page: &[u8]| page.iter().filter(|byte| **byte == b'x').count() > 3900;
    let overflow: Vec<_> = bytes
        .chunks(page)
        .enumerate()
        .filter(|(_, it)| is_full_of_x(it))
        .collect();
    assert!(overflow.len() > 20, "{}", overflow.len());
    for filling in [0, 0xA5] {
        let mut bytes = bytes.clone();
        for (at, _) in &overflow {
            // But for the number of the next page.
            bytes[at * page + 4..(at + 1) * page].fill(filling);
        }
        fs::write(db(setting.path()), &bytes).unwrap();
        let saved = tempfile::tempdir().unwrap();
        let report = salvage(setting.path(), saved.path()).unwrap();
        assert_eq!(
            (report.wrong, report.messages),
            (MESSAGES / 20, MESSAGES - MESSAGES / 20)
        );
    }
}

#[test]
fn a_second_server_is_refused() {
    let setting = Setting::new();
    let error = Mailbox::open(setting.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
}

#[test]
fn what_can_be_read_is_saved() {
    let (setting, mut bytes) = filled();
    // Two pages, not next to each other, and the end.
    let page = 4096;
    let pages = bytes.len() / page;
    for at in [pages / 3, pages / 2] {
        bytes[at * page..(at + 1) * page].fill(0xA5);
    }
    bytes.truncate((pages - 5) * page);
    fs::write(db(setting.path()), &bytes).unwrap();
    assert!(setting::open(setting.path()).is_err());
    assert!(admin(setting.path()).check().is_err());
    let saved = tempfile::tempdir().unwrap();
    let report = salvage(setting.path(), saved.path()).unwrap();
    assert!(report.messages > MESSAGES * 3 / 4, "{report:?}");
    assert!(
        !report.unread.is_empty() && report.sessions == 1,
        "{report:?}"
    );
    assert!(
        fs::read(db(setting.path())).unwrap() == bytes,
        "the original is as it was"
    );
    assert_eq!(fs::read_dir(saved.path()).unwrap().count(), 1);
    admin(saved.path()).check().unwrap();
    let (_mailbox, recovered) = setting::open(saved.path()).unwrap();
    assert_eq!(recovered.entries.len() as u64, report.messages);
    assert!(recovered.last_seq > MESSAGES);
}

#[test]
fn all_is_saved_of_a_file_that_is_whole() {
    let (setting, _) = filled();
    let saved = tempfile::tempdir().unwrap();
    let report = salvage(setting.path(), saved.path()).unwrap();
    assert_eq!((report.messages, report.sessions), (MESSAGES, 1));
    assert!(report.unread.is_empty() && report.cut.is_empty() && report.wrong == 0);
}
