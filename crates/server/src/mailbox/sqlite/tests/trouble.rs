//! A disk that is full, and one that fails.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread;

use jam_core::store::{MailboxStore, OutboundState, Write};

use super::setting::{
    Hooks, Mailbox, PATIENCE, Rejected, Setting, Told, append_of, id, open, record, retain_of,
    user, wait_until,
};
use crate::mailbox::sqlite::{OpenError, PROBE_INTERVAL, RESERVE_BYTES};

const LARGE: usize = 100_000;

#[test]
fn a_full_disk_refuses_messages_keeps_the_rest_and_is_noticed_when_it_has_room() {
    let mut setting = Setting::new();
    setting.ask(1, [append_of(1, "1", "small")]);
    setting.ask(2, [Write::Session(record(2))]);
    assert_eq!((setting.answer().0, setting.answer().0), (1, 2));
    setting
        .mailbox()
        .place
        .max_pages
        .store(1, Ordering::Relaxed);
    setting.ask(
        3,
        [
            append_of(3, "1", vec![0; LARGE]),
            Write::Received(user("7"), 2, id(5)),
        ],
    );
    assert_eq!(setting.answer(), (3, Err(Rejected)));
    assert!(!setting.mailbox().accepts());

    // What is there is delivered, also what needs a little room for that: it has the reserve.
    assert_eq!(setting.load(&[1, 3]).len(), 1);
    let reserve = setting.path().join("mailbox.reserve");
    setting.ask(
        6,
        [Write::InFlight(2, id(9), OutboundState::AwaitsPubRec(1))],
    );
    assert_eq!(setting.answer(), (6, Ok(())));
    assert!(setting.mailbox().is_writable() && !setting.mailbox().accepts());
    assert!(!reserve.exists());
    setting
        .mailbox()
        .place
        .max_pages
        .store(0, Ordering::Relaxed);
    setting.ask(4, [Write::Received(user("7"), 2, id(6)), Write::Remove(1)]);
    wait_until(|| setting.mailbox().accepts());
    assert_eq!(setting.answer(), (4, Ok(())));
    assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
    setting.ask(5, [append_of(5, "1", vec![0; LARGE])]);
    assert_eq!(setting.answer(), (5, Ok(())));
    let recovered = setting.reopen();
    let seqs: Vec<_> = recovered.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [5]);
    assert_eq!(recovered.sessions[0].1, [id(6)]);
}

/// A kill does not show what a loss of power would lose, so the connection is asked: each commit waits for the disk
/// (`synchronous` FULL), also on a connection that has taken the place of one that failed.
#[test]
fn each_commit_waits_for_the_disk() {
    let setting = Setting::new();
    let place = &setting.mailbox().place;
    let synchronous = || place.synchronous.swap(-1, Ordering::Relaxed);
    setting.ask(1, [append_of(1, "1", "small")]);
    assert_eq!(setting.answer(), (1, Ok(())));
    assert_eq!(synchronous(), 2);
    // Somebody takes the table away: no want of room, so the connection is replaced.
    let path = setting.path().join("mailbox.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other
        .execute_batch("ALTER TABLE message RENAME TO away")
        .unwrap();
    setting.ask(2, [append_of(2, "1", "small")]);
    assert_eq!(setting.answer(), (2, Err(Rejected)));
    other
        .execute_batch("ALTER TABLE away RENAME TO message")
        .unwrap();
    wait_until(|| setting.mailbox().accepts());
    synchronous();
    setting.ask(3, [append_of(3, "1", "small")]);
    assert_eq!(setting.answer(), (3, Ok(())));
    assert_eq!(synchronous(), 2);
    let mode: String = other
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn what_is_tried_again_comes_before_what_came_since() {
    let mut setting = Setting::new();
    let in_slot = |slot| {
        let mut session = record(9);
        session.slot = slot;
        Write::Session(session)
    };
    setting.write([in_slot(1)]);
    setting.flush();
    let other = rusqlite::Connection::open(setting.path().join("mailbox.db")).unwrap();
    other
        .execute_batch("BEGIN IMMEDIATE; ALTER TABLE session RENAME TO away")
        .unwrap();
    setting.write([in_slot(2)]);
    wait_until(|| setting.mailbox().shared.state().pending.is_empty());
    setting.write([in_slot(3)]);
    other.execute_batch("COMMIT").unwrap();
    wait_until(|| !setting.mailbox().accepts());
    setting.sql("ALTER TABLE away RENAME TO session");
    assert!(setting.mailbox().flush(PATIENCE));
    assert_eq!(setting.reopen().sessions[0].0.slot, 3);
}

/// A message that is refused comes again, perhaps much later, for its sender may be gone: a later one of theirs, which has
/// come before that is known, is not kept before it (PROTOCOL.md, section 7.3).
#[test]
fn what_came_while_a_commit_failed_is_refused_with_it() {
    let setting = Setting::new();
    let other = rusqlite::Connection::open(setting.path().join("mailbox.db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other
        .execute_batch("BEGIN IMMEDIATE; ALTER TABLE message RENAME TO away")
        .unwrap();
    setting.ask(1, [append_of(1, "1", "first")]);
    wait_until(|| setting.mailbox().shared.state().pending.is_empty());
    setting.ask(2, [append_of(2, "1", "second")]);
    setting.ask(3, [Write::Session(record(3))]);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(setting.answer(), (1, Err(Rejected)));
    assert_eq!(setting.answer(), (2, Err(Rejected)));
    other
        .execute_batch("ALTER TABLE away RENAME TO message")
        .unwrap();
    assert_eq!(setting.answer(), (3, Ok(())));
    wait_until(|| setting.mailbox().accepts());
    assert!(setting.load(&[1, 2]).is_empty());
}

/// The same of one whose sender had asked whether messages are taken just before, and the reserve has room for it.
#[test]
fn what_comes_too_late_finds_no_place_in_the_reserve() {
    let setting = Setting::new();
    let place = &setting.mailbox().place;
    place.max_pages.store(1, Ordering::Relaxed);
    setting.ask(1, [append_of(1, "1", vec![0; LARGE])]);
    assert_eq!(setting.answer(), (1, Err(Rejected)));
    assert!(setting.mailbox().is_writable() && !setting.mailbox().accepts());
    setting.ask(
        2,
        [
            append_of(2, "1", "small"),
            Write::Received(user("7"), 2, id(5)),
        ],
    );
    setting.ask(3, [Write::Session(record(3))]);
    assert_eq!(setting.answer(), (2, Err(Rejected)));
    assert_eq!(setting.answer(), (3, Ok(())));
}

/// Numbers are reserved by the commit that uses the first of them, unless that fails.
#[test]
fn what_a_failed_commit_was_to_reserve_is_reserved_by_the_next() {
    let mut setting = Setting::new();
    let place = &setting.mailbox().place;
    place.max_pages.store(1, Ordering::Relaxed);
    setting.ask(1, [append_of(1, "1", vec![0; LARGE])]);
    assert_eq!(setting.answer(), (1, Err(Rejected)));
    setting.ask(2, [Write::Session(record(2))]);
    setting.ask(3, [Write::EndSession(2)]);
    assert_eq!(
        (setting.answer(), setting.answer()),
        ((2, Ok(())), (3, Ok(())))
    );
    assert!(setting.reopen().last_seq >= 2);
}

/// The commit of a retained message and of its copy for a reader fails: they are kept together when the file is well again,
/// and with what else was refused nothing has changed.
#[test]
fn what_is_retained_waits_for_the_disk_and_its_copy_with_it() {
    let mut setting = Setting::new();
    setting.ask(1, [retain_of(1, "/1/x", "old")]);
    assert_eq!(setting.answer(), (1, Ok(())));
    setting.sql("ALTER TABLE message RENAME TO away");
    let replaces = [
        Write::Unretain(1),
        Write::Remove(1),
        retain_of(2, "/1/x", "new"),
        append_of(3, "1", "new"),
    ];
    setting.ask(2, replaces);
    setting.ask(3, [append_of(4, "1", "refused")]);
    assert_eq!(setting.answer(), (3, Err(Rejected)));
    assert_eq!(setting.load(&[2, 3, 4]).len(), 2);
    setting.sql("ALTER TABLE away RENAME TO message");
    assert_eq!(setting.answer(), (2, Ok(())));
    let recovered = setting.reopen();
    let seqs: Vec<_> = recovered.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [2, 3]);
    assert_eq!(recovered.retained.len(), 1);
    assert_eq!(recovered.retained[0].seq, 2);
}

/// Set in a process that has a small file system for itself: where that is.
const SMALL: &str = "JAM_TEST_SMALL_FILE_SYSTEM";

/// Not a test of its own: what happens in that process.
#[test]
fn fills_a_small_file_system() {
    let Ok(dir) = std::env::var(SMALL) else {
        return;
    };
    let dir = Path::new(&dir);
    let (mailbox, _) = open(dir).unwrap();
    let (to, answers) = sync_channel(1000);
    let mut last = 0;
    let mut ask = |write: Write| {
        last += 1;
        let writes = [write].into_iter().collect();
        mailbox.shared.push(0, writes, Some(Told(to.clone(), last)));
        let (number, outcome) = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(number, last);
        outcome
    };
    let filler = dir.join("filler");
    let reserve = dir.join("mailbox.reserve");
    ask(Write::Session(record(1))).unwrap();
    let mut seq = 1;
    for _ in 0..2 {
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
        // The log is long, and nearly all of it new to the database.
        for _ in 0..250 {
            seq += 1;
            ask(append_of(seq, "1", vec![0; LARGE])).unwrap();
        }
        fill(&filler);
        let refused = (0..1000).any(|_| {
            seq += 1;
            ask(append_of(seq, "1", vec![0; LARGE])).is_err()
        });
        assert!(refused && !mailbox.accepts());
        for number in 1..2000 {
            let packet_id = id(number % 50 + 1);
            ask(Write::InFlight(
                1,
                packet_id,
                OutboundState::AwaitsPubRec(2),
            ))
            .unwrap();
        }
        assert!(mailbox.is_writable() && !mailbox.accepts());
        assert!(!reserve.exists());
        fs::remove_file(&filler).unwrap();
        wait_until(|| mailbox.accepts());
        seq += 1;
        ask(append_of(seq, "1", vec![0; LARGE])).unwrap();
        for seq in 2..seq {
            ask(Write::Remove(seq)).unwrap();
        }
    }
    // Nobody makes room, but what is delivered does.
    seq += 1;
    let first = seq;
    fill(&filler);
    while ask(append_of(seq, "1", vec![0; LARGE])).is_ok() {
        seq += 1;
    }
    for seq in first..seq {
        ask(Write::Remove(seq)).unwrap();
    }
    wait_until(|| mailbox.accepts());
    ask(append_of(seq + 1, "1", vec![0; LARGE])).unwrap();
}

/// Until there is no byte left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let mut bytes = vec![0; 1 << 20];
    while !bytes.is_empty() {
        match file.write(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => bytes.truncate(bytes.len() / 2),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The same for a server that is started when the disk is full.
#[test]
fn starts_on_a_full_file_system() {
    let Ok(dir) = std::env::var(SMALL) else {
        return;
    };
    let dir = Path::new(&dir);
    let (filler, reserve) = (dir.join("filler"), dir.join("mailbox.reserve"));
    let first = dir.join("first");
    for was_killed in [false, true] {
        let (mailbox, _) = open(dir).unwrap();
        let (to, answers) = sync_channel(1000);
        let ask = |mailbox: &Mailbox, number: u64, write: Write| {
            let answer = Some(Told(to.clone(), number));
            mailbox
                .shared
                .push(0, [write].into_iter().collect(), answer);
            let (answered, outcome) = answers.recv_timeout(PATIENCE).unwrap();
            assert_eq!(answered, number);
            outcome
        };
        let held = fs::metadata(&reserve).unwrap().len();
        assert_eq!(held, RESERVE_BYTES);
        ask(&mailbox, 1, Write::Session(record(1))).unwrap();
        for seq in 2..=20 {
            ask(&mailbox, seq, append_of(seq, "1", vec![0; LARGE])).unwrap();
        }
        if was_killed {
            // Its log stays, and has to be moved.
            std::mem::forget(mailbox);
        } else {
            drop(mailbox);
        }
        fill(&filler);

        let (mailbox, found) = loop {
            match open(dir) {
                // The one that is forgotten makes its lock again when it finds it gone.
                Err(OpenError::InUse { .. }) if was_killed => {
                    drop(fs::remove_file(dir.join("mailbox.lock")));
                }
                opened => break opened.unwrap(),
            }
        };
        assert!(!reserve.exists());
        assert!(mailbox.is_writable() && !mailbox.accepts());
        assert_eq!((found.entries.len(), found.sessions.len()), (19, 1));
        let (to_read, read) = sync_channel(1);
        mailbox.load(
            &user("1"),
            vec![2],
            Box::new(move |found| to_read.send(found.len()).unwrap()),
        );
        assert_eq!(read.recv_timeout(PATIENCE).unwrap(), 1);
        for number in 1..200 {
            let flight = Write::InFlight(1, id(1), OutboundState::AwaitsPubRec(2));
            ask(&mailbox, number, flight).unwrap();
        }
        thread::sleep(PROBE_INTERVAL * 2);
        assert!(!mailbox.accepts());
        // It stops and starts again on the same disk.
        drop(mailbox);
        let (mailbox, _) = open(dir).unwrap();
        ask(
            &mailbox,
            1,
            Write::InFlight(1, id(2), OutboundState::AwaitsPubRec(2)),
        )
        .unwrap();
        fs::remove_file(&filler).unwrap();
        wait_until(|| mailbox.accepts());
        ask(&mailbox, 30, append_of(30, "1", vec![0; LARGE])).unwrap();
        for seq in (2..=20).chain([30]) {
            ask(&mailbox, seq, Write::Remove(seq)).unwrap();
        }
        drop(mailbox);
    }
    // A first start has nothing to give up.
    fs::remove_file(&reserve).unwrap();
    fill(&filler);
    let refused = open(&first).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Full(_)), "{refused}");
    assert!(!first.join("mailbox.db").exists());
    fs::remove_file(&filler).unwrap();
    open(&first).unwrap();
}

#[test]
fn a_full_file_system_keeps_nothing_from_being_delivered() {
    in_a_small_file_system("fills_a_small_file_system");
}

#[test]
fn a_full_file_system_keeps_no_server_from_starting() {
    in_a_small_file_system("starts_on_a_full_file_system");
}

fn in_a_small_file_system(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    // In a name space of its own, which needs no privilege where that is allowed to users.
    let own =
        "mount -t tmpfs -o size=160m none \"$JAM_TEST_SMALL_FILE_SYSTEM\" && exec \"$0\" \"$@\"";
    let test = std::env::current_exe().unwrap();
    let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
    let flags: &[&str] = if is_root {
        &["--mount"]
    } else {
        &["--user", "--map-root-user", "--mount"]
    };
    let status = Command::new("unshare")
        .args(flags)
        .args(["bash", "-c", own])
        .arg(&test)
        .args([
            "--exact",
            &format!("mailbox::sqlite::tests::trouble::{name}"),
        ])
        .env(SMALL, dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Set in a process whose files may not grow: the directory of its mailbox.
const DIR: &str = "JAM_TEST_LIMITED_IN";

/// Not a test of its own: what happens in that process.
#[test]
fn writes_until_files_may_not_grow() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (mailbox, _) = Mailbox::open(Path::new(&dir)).unwrap();
    let (to, answers) = sync_channel(1000);
    let ask = |seq| {
        let answer = Told(to.clone(), seq);
        let writes = [append_of(seq, "1", vec![0; LARGE])].into_iter().collect();
        mailbox.shared.push(0, writes, Some(answer));
        answers.recv_timeout(PATIENCE).unwrap()
    };
    let (called, calls) = sync_channel(9);
    mailbox.attach(Box::new(Hooks {
        on_failing: Some(Box::new(move || called.send(()).unwrap())),
        ..Hooks::default()
    }));
    let refused = (1..1000).find(|&seq| ask(seq) != (seq, Ok(()))).unwrap();
    assert!(!mailbox.accepts() && !mailbox.is_writable());
    calls.recv_timeout(PATIENCE).unwrap();
    let (keeping, kept) = sync_channel(1);
    let answer = Told(keeping, 0);
    mailbox
        .shared
        .push(0, [Write::Remove(1)].into_iter().collect(), Some(answer));
    let lifted = Command::new("prlimit")
        .args([
            "--fsize=unlimited:",
            "--pid",
            &std::process::id().to_string(),
        ])
        .status()
        .unwrap();
    assert!(lifted.success());
    wait_until(|| mailbox.accepts());
    assert_eq!(kept.recv_timeout(PATIENCE).unwrap(), (0, Ok(())));
    assert_eq!(ask(refused + 1), (refused + 1, Ok(())));
    drop(mailbox);
    let (_mailbox, recovered) = open(Path::new(&dir)).unwrap();
    let seqs: Vec<_> = recovered.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (2..refused).chain([refused + 1]).collect::<Vec<_>>());
}

#[test]
fn an_input_output_error_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    // In units of 1024 bytes; who is told by a signal that a file is too long would be killed by it.
    let limited = "trap '' XFSZ; ulimit -S -f 2000; exec \"$0\" \"$@\"";
    let status = Command::new("bash")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "mailbox::sqlite::tests::trouble::writes_until_files_may_not_grow",
        ])
        .env(DIR, dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}
