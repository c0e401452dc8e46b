//! What a batch takes while it is sent, in a process of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use jam_core::store::{MailboxStore as _, Writes};

use super::setting::{InDatabase, Kind as _, Mailbox, PATIENCE, append_of, create, found, user};
use crate::postgres::Address;
use crate::postgres::testing::database;

/// Set in that process: the database, and its data directory.
const URL: &str = "JAM_TEST_LARGE_BATCH_ON";
const DIR: &str = "JAM_TEST_LARGE_BATCH_WITH";

const MIB: usize = 1 << 20;
const MESSAGES: u64 = 96;

/// The most memory that this process has had.
fn most() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().parse::<usize>().unwrap() * 1024
}

/// Not a test of its own: one batch, whose messages have one content in memory.
#[test]
fn sends_a_large_batch() {
    let (Ok(url), Ok(dir)) = (std::env::var(URL), std::env::var(DIR)) else {
        return;
    };
    let address = Address::parse(&url).unwrap();
    let opened = Mailbox::open(&address, Path::new(&dir), Arc::default());
    let (mailbox, there) = opened.and_then(found).unwrap();
    let content = Bytes::from(vec![b'x'; MIB]);
    let message = |n| append_of(there.last_seq + n, "1", content.clone());
    let writes: Writes = (1..=MESSAGES).map(message).collect();
    let before = most();
    mailbox.write(&user("1"), writes, None);
    assert!(mailbox.flush(PATIENCE));
    let took = most() - before;
    assert!(took < 40 * MIB, "{} MiB", took / MIB);
}

#[test]
fn a_large_batch_is_sent_without_a_copy_of_it() {
    let place = InDatabase::of(database());
    create(&place.database);
    let sent = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "mailbox::postgres::tests::memory::sends_a_large_batch",
        ])
        .env(URL, place.database.url())
        .env(DIR, place.data.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&sent.stdout);
    assert!(sent.status.success(), "{said}");
    assert_eq!(place.count("message"), i64::try_from(MESSAGES).unwrap());
}
