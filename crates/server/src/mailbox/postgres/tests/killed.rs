//! A process that is killed while it writes: what it said was kept is there, and the next start does not wait.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use jam_core::store::MailboxStore as _;

use super::setting::{InDatabase, Kind as _, Mailbox, Told, append, create, found, user};
use crate::mailbox::postgres::fence::SILENCE;
use crate::postgres::Address;
use crate::postgres::testing::database;

/// Set in the process that is to be killed: the database, and its data directory.
const URL: &str = "JAM_TEST_KILLED_ON";
const DIR: &str = "JAM_TEST_KILLED_WITH";

const ROUNDS: u64 = 4;

/// Not a test of its own: what the killed process does. Says `kept N` for each message that is kept.
#[test]
fn writes_until_it_is_killed() {
    let (Ok(url), Ok(dir)) = (std::env::var(URL), std::env::var(DIR)) else {
        return;
    };
    let address = Address::parse(&url).unwrap();
    let opened = Mailbox::open(&address, Path::new(&dir), Arc::default());
    let (mailbox, there) = opened.and_then(found).unwrap();
    let (to, answers) = sync_channel(10_000);
    thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        while let Ok((number, outcome)) = answers.recv() {
            assert_eq!(outcome, Ok(()));
            writeln!(out, "kept {number}").unwrap();
            out.flush().unwrap();
        }
    });
    for seq in there.last_seq + 1.. {
        let answer = Told(to.clone(), seq);
        mailbox.write(
            &user("1"),
            [append(seq)].into_iter().collect(),
            Some(answer),
        );
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_was_said_to_be_kept_is_there_after_kill_9_and_at_once() {
    let place = InDatabase::of(database());
    create(&place.database);
    let mut kept = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "mailbox::postgres::tests::killed::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(URL, place.database.url())
            .env(DIR, place.data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = |line: String| {
            let number = line
                .strip_prefix("kept ")
                .and_then(|number| number.parse::<u64>().ok());
            kept.extend(number);
        };
        for _ in 0..50 + round * 57 {
            read(lines.next().unwrap().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(&mut read);
        let began = Instant::now();
        let (mailbox, there) = place.open().and_then(found).unwrap();
        assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
        let there: BTreeSet<u64> = there.entries.iter().map(|entry| entry.seq).collect();
        let lost: Vec<_> = kept.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        drop(mailbox);
    }
    assert!(kept.len() > 200);
}
