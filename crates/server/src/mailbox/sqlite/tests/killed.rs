//! A process that is killed while it writes: what it said was kept is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use jam_core::store::{MailboxStore, Write};

use super::setting::{Told, append, open};

/// Set in the process that is to be killed: the directory of its mailbox.
const DIR: &str = "JAM_TEST_KILLED_IN";

const ROUNDS: u64 = 8;

/// How far a message is behind the last one when it is removed.
const LAG: u64 = 100;

/// Not a test of its own: what the killed process does. Says `kept N` for each message that is kept,
/// `removing N` before it has one removed, and `removed N` when that is kept.
#[test]
fn writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (mailbox, recovered) = open(Path::new(&dir)).unwrap();
    let (to, answers) = sync_channel(10_000);
    let speaker = thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        while let Ok((number, outcome)) = answers.recv() {
            assert_eq!(outcome, Ok(()));
            let (what, number) = if number % 2 == 0 {
                ("kept", number / 2)
            } else {
                ("removed", number / 2)
            };
            writeln!(out, "{what} {number}").unwrap();
            out.flush().unwrap();
        }
    });
    let first = recovered.last_seq + 1;
    for seq in first.. {
        let answer = Told(to.clone(), seq * 2);
        mailbox
            .shared
            .push(0, [append(seq)].into_iter().collect(), Some(answer));
        if seq >= first + LAG && seq % 3 == 0 {
            let old = seq - LAG;
            let answer = Told(to.clone(), old * 2 + 1);
            mailbox
                .shared
                .push(0, [Write::Remove(old)].into_iter().collect(), Some(answer));
        }
        if seq % 50 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    mailbox.settle();
    speaker.join().unwrap();
}

#[test]
fn what_was_said_to_be_kept_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kept, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "mailbox::sqlite::tests::killed::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = |line: String| {
            let Some((what, number)) = line.split_once(' ') else {
                return;
            };
            let Ok(number) = number.parse::<u64>() else {
                return;
            };
            match what {
                "kept" => drop(kept.insert(number)),
                "removed" => drop(removed.insert(number)),
                _ => {}
            }
        };
        for _ in 0..400 + round * 317 {
            read(lines.next().unwrap().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it was killed.
        lines.map_while(Result::ok).for_each(&mut read);
        let (mailbox, recovered) = open(dir.path()).unwrap();
        let there: BTreeSet<u64> = recovered.entries.iter().map(|entry| entry.seq).collect();
        // A removal may be kept although the process did not live to say so: every third message.
        let lost: Vec<_> = kept
            .iter()
            .filter(|&seq| !there.contains(seq) && !(seq + LAG).is_multiple_of(3))
            .collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        let back: Vec<_> = removed.intersection(&there).collect();
        assert!(back.is_empty(), "round {round}: came back {back:?}");
        assert!(recovered.last_seq >= kept.last().copied().unwrap_or(0));
        drop(mailbox);
    }
    assert!(kept.len() > 2000 && !removed.is_empty());
}
