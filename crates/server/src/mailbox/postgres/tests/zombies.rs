//! Back ends that go on with what a connection has sent before it was given up.

use std::thread;
use std::time::{Duration, Instant};

use jam_core::store::{MailboxStore as _, Write};
use rustix::process::{Pid, Signal, kill_process};

use super::setting::{PATIENCE, Setting, append, seqs, wait_until};
use crate::mailbox::postgres::error::CHAIN;
use crate::postgres::testing::{HasAddress as _, database};

/// One that is frozen with a batch in its hands cannot be ended: nothing is written past it. When it goes on, the batch is
/// there once.
#[test]
fn nothing_is_written_past_a_back_end_that_is_frozen() {
    let mut setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    let frozen = Pid::from_raw(setting.writer().unwrap()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    let began = Instant::now();
    setting.ask(2, [append(2)]);
    wait_until(|| !setting.mailbox().accepts());
    assert!(began.elapsed() < Duration::from_secs(6));
    // It is tried, and nothing is said of the message.
    thread::sleep(Duration::from_secs(4));
    assert!(!setting.mailbox().accepts() && setting.answers.try_recv().is_err());
    assert_eq!(setting.count("message"), 1);
    kill_process(frozen, Signal::CONT).unwrap();
    assert_eq!(setting.answers.recv_timeout(PATIENCE).unwrap(), (2, Ok(())));
    wait_until(|| setting.mailbox().accepts());
    setting.ask(3, [Write::Remove(1)]);
    assert_eq!(setting.answer(), (3, Ok(())));
    assert_eq!(seqs(&setting.reopen()), [2]);
}

/// One that has the fence row in its hands, as a half-received batch has it. Nobody waits for it for ever: it is ended.
#[test]
fn what_a_connection_has_left_is_ended_by_the_next() {
    let setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    let incarnation = setting.sql("SELECT incarnation FROM node");
    let address = setting.kind.database.address();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let name = format!("jam-{incarnation}-writer");
    let zombie = runtime
        .block_on(crate::postgres::open(&address, &name))
        .unwrap();
    let half = format!("BEGIN; SELECT 1 FROM fence WHERE incarnation = {incarnation} FOR UPDATE");
    runtime.block_on(zombie.batch_execute(&half)).unwrap();
    let sql = format!(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = '{name}'
         AND datname = current_database() AND state = 'idle'"
    );
    setting.sql(&sql);
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Ok(())));
    assert!(runtime.block_on(zombie.batch_execute("COMMIT")).is_err());
}

/// A back end that is stopped with a batch in its socket, and is not known for one of ours: it goes on when the batch has been
/// sent again by another, and what that added is removed.
#[test]
fn a_back_end_that_goes_on_after_the_retry_changes_nothing() {
    let mut setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    let address = setting.kind.database.address();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let zombie = runtime
        .block_on(crate::postgres::open(&address, "zombie"))
        .unwrap();
    let pid = zombie.query_one("SELECT pg_backend_pid()", &[]);
    let pid = Pid::from_raw(runtime.block_on(pid).unwrap().get(0)).unwrap();
    let next = "SELECT incarnation, (SELECT max(n) + 1 FROM batch) FROM node";
    let next = setting.sql(next).replace('|', ", ");
    kill_process(pid, Signal::STOP).unwrap();
    let batch = format!(
        r#"BEGIN; SELECT jam_begin({next});
        INSERT INTO message (part, seq, "user", sender, flags, waits_for, acknowledged, received_at, size, body)
            VALUES (0, 2, '1', '7', 5, 1, false, 0, 1, '');
        COMMIT"#
    );
    let late = runtime.spawn(async move { zombie.batch_execute(&batch).await });
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Ok(())));
    setting.ask(3, [Write::Remove(2)]);
    assert_eq!(setting.answer(), (3, Ok(())));
    assert!(!late.is_finished());
    kill_process(pid, Signal::CONT).unwrap();
    let refused = runtime.block_on(late).unwrap().unwrap_err();
    assert_eq!(refused.code().unwrap().code(), CHAIN);
    setting.ask(4, [append(4)]);
    assert_eq!(setting.answer(), (4, Ok(())));
    assert_eq!(seqs(&setting.reopen()), [1, 4]);
}

/// A batch that is executed after its retry, and after what it added was removed again: that stays removed.
#[test]
fn a_batch_that_comes_late_adds_nothing() {
    let mut setting = Setting::in_database(&database(), None);
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    setting.ask(2, [Write::Remove(1)]);
    assert_eq!(setting.answer(), (2, Ok(())));
    for offset in [-2, -1, 0, 2] {
        let late = format!(
            r#"DO $$ DECLARE i bigint; k bigint; BEGIN
                SELECT incarnation INTO i FROM node; SELECT max(n) INTO k FROM batch;
                PERFORM jam_begin(i, k + {offset});
                INSERT INTO message (part, seq, "user", sender, flags, waits_for, acknowledged, received_at, size, body)
                    VALUES (0, 1, '1', '7', 5, 1, false, 0, 1, '');
            EXCEPTION WHEN SQLSTATE 'JAM02' THEN NULL; END $$"#
        );
        setting.sql(&late);
    }
    assert_eq!(setting.count("message"), 0);
    assert!(setting.reopen().entries.is_empty());
    // What nobody confirmed is no gap: the next batch goes on.
    setting.ask(3, [append(3)]);
    assert_eq!(setting.answer(), (3, Ok(())));
}

/// Of the numbers of batches the last ones are left, so that looking for the highest stays quick.
#[test]
fn numbers_of_long_ago_are_forgotten() {
    let setting = Setting::in_database(&database(), None);
    for number in 1..=2_100 {
        setting.ask(number, [append(number)]);
        assert_eq!(setting.answer(), (number, Ok(())));
    }
    let batches = setting.count("batch");
    assert!((1_000..=2_001).contains(&batches), "{batches}");
    setting.cut_writer();
    setting.ask(3_000, [append(3_000)]);
    assert_eq!(setting.answer(), (3_000, Ok(())));
    assert_eq!(setting.count("message"), 2_101);
}
