//! A database that is full, locked, paused, or has gone back.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jam_core::store::{MailboxStore as _, Write};

use super::setting::{Rejected, Setting, append, record, seqs, wait_until};
use crate::mailbox::lost_batches;
use crate::mailbox::postgres::tenure::Ended;
use crate::mailbox::postgres::writer::ROOM_INTERVAL;
use crate::mailbox::tests::setting::Hooks;
use crate::postgres::testing::{HasAddress as _, TestServer, behind_silent_hosts, database};

/// How soon messages are taken again when the database is back. Two seconds are promised, and held to by
/// `tests/protocol/test_database_away.py`, with PostgreSQL in memory: here a busy disk keeps one fsync waiting.
pub(super) const BACK: Duration = Duration::from_secs(5);

/// As PostgreSQL says it of its disk.
#[test]
fn a_full_disk_refuses_messages_and_keeps_the_rest() {
    let mut setting = Setting::in_database(&database(), None);
    setting.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON message EXECUTE FUNCTION full_disk()",
    );
    setting.ask(
        1,
        [
            append(1),
            Write::Received(super::setting::user("1"), 9, super::setting::id(5)),
        ],
    );
    setting.ask(2, [Write::Session(record(2))]);
    let mut answers = [setting.answer(), setting.answer()];
    answers.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(answers, [(1, Err(Rejected)), (2, Ok(()))]);
    // What has to be written is, at once, and no message is taken before there is room for one.
    let began = Instant::now();
    for number in 3.. {
        setting.ask(number, [Write::Session(record(2))]);
        assert_eq!(setting.answer(), (number, Ok(())));
        assert!(setting.mailbox().is_writable() && !setting.mailbox().accepts());
        if began.elapsed() > ROOM_INTERVAL * 3 {
            break;
        }
    }
    setting.sql("DROP TRIGGER full_disk ON message");
    let began = Instant::now();
    wait_until(|| setting.mailbox().accepts());
    assert!(began.elapsed() < BACK);
    setting.ask(0, [append(3)]);
    assert_eq!(setting.answer(), (0, Ok(())));
    let there = setting.reopen();
    assert_eq!((seqs(&there), there.sessions.len()), (vec![3], 1));
}

/// Messages that go out while nothing can be written may come again after a crash, with DUP: the next start is told.
#[test]
fn what_was_sent_while_nothing_could_be_written_may_have_been_sent() {
    let mut server = TestServer::start();
    let mut setting = Setting::in_database(&server.database(), None);
    setting.ask(1, [append(1)]);
    setting.ask(2, [Write::Session(record(2))]);
    setting.flush();
    let path = setting.kind.data.path().join("cluster.lock");
    let line = || fs::read_to_string(&path).unwrap();
    assert!(!line().contains("unwritten"));
    server.stop_immediately();
    wait_until(|| !setting.mailbox().is_writable());
    let killed = line();
    assert!(killed.contains("unwritten"), "{killed}");
    server.restart();
    wait_until(|| setting.mailbox().accepts());
    wait_until(|| !line().contains("unwritten"));
    let may_have_been_sent = |setting: &mut Setting| {
        let there = setting.reopen();
        there.sessions[0].0.maybe_sent_before_crash
    };
    assert_eq!(may_have_been_sent(&mut setting), 0);
    setting.close();
    fs::write(&path, killed).unwrap();
    assert!(may_have_been_sent(&mut setting) > 1);
    assert!(!line().contains("unwritten"));
    assert!(
        may_have_been_sent(&mut setting) > 1,
        "it is in the database"
    );
}

/// A table that somebody has locked: appends are refused, and what is to be kept is kept when it is free.
#[test]
fn a_locked_table_is_not_waited_for_for_ever() {
    let mut setting = Setting::in_database(&database(), None);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = setting.kind.database.address();
    let other = runtime
        .block_on(crate::postgres::open(&address, "somebody"))
        .unwrap();
    runtime
        .block_on(other.batch_execute("BEGIN; LOCK TABLE message"))
        .unwrap();
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Err(Rejected)));
    let began = Instant::now();
    while began.elapsed() < ROOM_INTERVAL * 4 {
        assert!(!setting.mailbox().accepts());
        thread::sleep(Duration::from_millis(5));
    }
    runtime.block_on(other.batch_execute("COMMIT")).unwrap();
    wait_until(|| setting.mailbox().accepts());
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Ok(())));
    assert_eq!(setting.reopen().entries.len(), 1);
}

/// Nothing answers and nothing is closed, as of a machine that has lost its power: that is known within 5 s, also when
/// nothing is to be written, and over soon when it is back.
#[test]
fn a_database_that_hangs_refuses_messages_within_five_seconds() {
    let server = TestServer::start();
    let database = server.database();
    let mut setting = Setting::in_database(&database, None);
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    setting.mailbox().attach(Box::new(Hooks {
        on_failing: Some(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..Hooks::default()
    }));
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    for is_busy in [false, true] {
        server.pause();
        let began = Instant::now();
        if is_busy {
            setting.ask(2, [append(2)]);
        }
        wait_until(|| !setting.mailbox().accepts());
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "{:?}",
            began.elapsed()
        );
        assert!(!setting.mailbox().is_writable());
        let turns = setting.mailbox().turns();
        thread::sleep(Duration::from_secs(1));
        assert!(
            setting.mailbox().turns() > turns,
            "the writer looks as if it hung"
        );
        server.resume();
        let began = Instant::now();
        wait_until(|| setting.mailbox().accepts());
        assert!(began.elapsed() < BACK, "{:?}", began.elapsed());
    }
    assert_eq!(setting.answer(), (2, Ok(())));
    assert!(told.load(Ordering::Relaxed) >= 2);
    assert_eq!(setting.reopen().entries.len(), 2);
}

/// As a failover to a standby that was not synchronous leaves it: batches that were confirmed are gone.
#[test]
fn a_database_that_has_gone_back_ends_the_server() {
    for rows in ["n = (SELECT max(n) FROM batch)", "true"] {
        let setting = Setting::in_database(&database(), None);
        for number in 1..=3 {
            setting.ask(number, [append(number)]);
            assert_eq!(setting.answer(), (number, Ok(())));
        }
        setting.sql(&format!("DELETE FROM batch WHERE {rows}"));
        setting.cut_writer();
        setting.ask(4, [append(4)]);
        wait_until(|| setting.mailbox().ended().is_some());
        let Some(Ended::Lost(lost)) = setting.mailbox().station.ended() else {
            panic!("{:?}", setting.mailbox().station.ended())
        };
        let kept = setting.mailbox().station.kept.load(Ordering::Relaxed);
        let gone = if rows == "true" { kept } else { 1 };
        assert_eq!(i64::try_from(lost).unwrap(), gone);
        let why = setting.mailbox().ended().unwrap().to_string();
        assert!(why.contains("lost"), "{why}");
        assert!(!setting.mailbox().accepts());
        assert!(
            setting
                .answers
                .try_iter()
                .all(|(_, outcome)| outcome.is_err())
        );
    }
}

/// It is as it was before the server had started, which is not what another server leaves; nobody writes.
#[test]
fn a_database_from_before_the_start_has_lost_batches_and_fences_nobody() {
    for (epoch, ended) in [(0, Some(Ended::Lost(1))), (2, Some(Ended::Fenced))] {
        let setting = Setting::in_database(&database(), None);
        setting.sql(&format!(
            "BEGIN; DELETE FROM fence; DELETE FROM node; DELETE FROM batch; UPDATE cluster SET epoch = {epoch}; COMMIT"
        ));
        wait_until(|| setting.mailbox().ended().is_some());
        assert_eq!(setting.mailbox().station.ended(), ended);
        assert_eq!(
            lost_batches(&setting.mailbox().ended().unwrap()),
            u64::from(epoch == 0)
        );
    }
}

/// Also without a cut: what was confirmed is looked at with each batch.
#[test]
fn a_database_that_has_gone_back_takes_no_batch() {
    let setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    setting.sql("DELETE FROM batch");
    setting.ask(2, [append(2)]);
    wait_until(|| setting.mailbox().ended().is_some());
    assert_eq!(setting.count("message"), 1);
}

#[test]
fn a_server_stops_although_nothing_can_be_written() {
    let mut server = TestServer::start();
    let database = server.database();
    let mut setting = Setting::in_database(&database, None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    for is_paused in [true, false] {
        if is_paused {
            server.pause();
        } else {
            server.stop_immediately();
        }
        setting.ask(2, [append(2)]);
        wait_until(|| !setting.mailbox().accepts());
        let began = Instant::now();
        setting.close();
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        if is_paused {
            server.resume();
        } else {
            server.restart();
        }
        setting.reopen();
        setting.answers.try_iter().for_each(drop);
    }
}

#[test]
fn it_is_taken_up_again_behind_hosts_that_say_nothing() {
    let server = TestServer::start();
    let database = server.database();
    let (_hosts, address) = behind_silent_hosts(&database, 2);
    let setting = Setting::in_database(&database, Some(address));
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    // All connections end, the beat's too.
    database.run(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'jam-%'",
    );
    // Longer than the beat may be missing.
    thread::sleep(BACK);
    assert!(setting.mailbox().accepts());
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Ok(())));
}
