//! Files that are not, or no longer, a mailbox.

use std::fs;
use std::path::{Path, PathBuf};

use jam_core::store::Write;
use rusqlite::Connection;

use super::setting::{self, Mailbox, Setting, admin, append_of, record};
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
            Err(OpenError::InUse(_)) => panic!("byte {at}"),
            Err(_) => damaged += 1,
        }
    }
    assert!(damaged > 20);
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
    assert!(matches!(error, OpenError::InUse(_)));
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
