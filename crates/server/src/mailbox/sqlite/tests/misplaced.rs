//! Files that are deleted, moved or replaced while the mailbox is open.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;

use jam_core::store::MailboxStore;

use super::setting::{Rejected, Setting, append, open, wait_until};
use crate::mailbox::sqlite::{OpenError, PURGE_INTERVAL};

const DB: &str = "mailbox.db";

impl Setting {
    /// With messages 1 and 2, of which the second is in the log at most.
    fn with_two() -> Self {
        let setting = Self::new();
        for seq in [1, 2] {
            setting.ask(seq, [append(seq)]);
            assert_eq!(setting.answer(), (seq, Ok(())));
        }
        setting
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Message 3 is refused at once, and so is whatever comes later.
    fn refuses(&self) {
        self.ask(3, [append(3)]);
        assert_eq!(self.answer(), (3, Err(Rejected)));
        wait_until(|| !self.mailbox().is_writable());
        assert!(!self.mailbox().accepts());
        assert_eq!(self.load(&[1, 2]).len(), 2, "what is there is delivered");
    }

    fn holds(&mut self, expected: &[u64]) {
        let recovered = self.reopen();
        let seqs: Vec<_> = recovered.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, expected);
        self.ask(9, [append(9)]);
        assert_eq!(self.answer(), (9, Ok(())));
    }
}

#[test]
fn a_deleted_file_takes_no_message_with_it() {
    for files in [
        &[DB][..],
        &[DB, "mailbox.db-wal", "mailbox.db-shm"],
        &["mailbox.db-wal"],
        &["mailbox.db-shm"],
        &["mailbox.db-wal", "mailbox.db-shm"],
    ] {
        let mut setting = Setting::with_two();
        for file in files {
            fs::remove_file(setting.file(file)).unwrap();
        }
        setting.refuses();
        setting.holds(&[1, 2]);
    }
}

/// As a kill would leave the folder: everything is there before the server stops.
#[test]
fn what_was_kept_is_secured_at_once() {
    let mut setting = Setting::with_two();
    fs::remove_file(setting.file(DB)).unwrap();
    wait_until(|| setting.file(DB).exists());
    let copy = tempfile::tempdir().unwrap();
    fs::copy(setting.file(DB), copy.path().join(DB)).unwrap();
    let (_, recovered) = open(copy.path()).unwrap();
    assert_eq!(recovered.entries.len(), 2);
    setting.refuses();
    setting.holds(&[1, 2]);
}

#[test]
fn a_file_that_comes_back_goes_on() {
    let mut setting = Setting::with_two();
    let moved = setting.path().with_extension("moved");
    fs::rename(setting.path(), &moved).unwrap();
    setting.refuses();
    fs::rename(&moved, setting.path()).unwrap();
    wait_until(|| setting.mailbox().accepts());
    setting.ask(4, [append(4)]);
    assert_eq!(setting.answer(), (4, Ok(())));
    setting.holds(&[1, 2, 4]);
}

#[test]
fn another_file_is_left_as_it_is() {
    let mut setting = Setting::with_two();
    let ours = setting.file("ours");
    fs::rename(setting.file(DB), &ours).unwrap();
    fs::write(setting.file("theirs"), "theirs").unwrap();
    fs::rename(setting.file("theirs"), setting.file(DB)).unwrap();
    setting.refuses();
    setting.close();
    assert_eq!(fs::read(setting.file(DB)).unwrap(), b"theirs");
    fs::rename(&ours, setting.file(DB)).unwrap();
    setting.holds(&[1, 2]);
}

#[test]
fn a_deleted_lock_is_made_again() {
    let mut setting = Setting::with_two();
    let lock = setting.file("mailbox.lock");
    fs::remove_file(&lock).unwrap();
    wait_until(|| lock.exists());
    thread::sleep(PURGE_INTERVAL); // it is made, and then it is locked
    assert!(matches!(open(setting.path()), Err(OpenError::InUse { .. })));
    setting.holds(&[1, 2]);

    // Somebody was faster.
    fs::remove_file(&lock).unwrap();
    let theirs = File::create(&lock).unwrap();
    if theirs.try_lock().is_ok() {
        setting.refuses();
        drop(theirs);
    }
    wait_until(|| setting.mailbox().accepts());
}
