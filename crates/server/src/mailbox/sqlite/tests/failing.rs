//! What is asked, or comes, while a commit takes its time, and while the file cannot be written or read.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jam_core::store::{MailboxStore, Write};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use rusqlite::Connection;

use super::setting::{
    Hooks, PATIENCE, Rejected, Setting, Told, admin, append, append_of, record, user, wait_until,
};
use crate::mailbox::PurgeScope::Inbox;
use crate::mailbox::kept::Kept;
use crate::mailbox::shared::{Load, MailboxShared};
use crate::mailbox::sqlite::{PROBE_INTERVAL, PURGE_INTERVAL, schema};
use crate::mailbox::{MailboxAdministration as _, Purged};

/// While this is there, no commit gets on.
struct Held(Connection);

impl Setting {
    /// With a batch that waits for the file, in which there is `write`; what comes later is in the next one.
    fn hold(&self, write: Write) -> Held {
        let other = Connection::open(self.path().join("mailbox.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.write([write]);
        wait_until(|| self.mailbox().shared.state().pending.is_empty());
        Held(other)
    }
}

impl Held {
    fn let_go(self) {
        self.0.execute_batch("COMMIT").unwrap();
    }
}

fn clock(time: u64) -> ClockRecord {
    ClockRecord {
        time: Time::from_millis(time),
        offset_millis: 1,
        boot: 2,
        since_boot: Duration::from_millis(3),
        proved_offset_millis: Some(4),
    }
}

#[test]
fn nothing_is_taken_before_something_has_been_written() {
    let setting = Setting::new();
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    setting.mailbox().attach(Box::new(Hooks {
        on_failing: Some(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..Hooks::default()
    }));
    setting.sql("ALTER TABLE session RENAME TO away");
    setting.ask(1, [Write::Session(record(1))]);
    wait_until(|| !setting.mailbox().is_writable());
    let began = Instant::now();
    while began.elapsed() < PROBE_INTERVAL * 5 / 2 {
        assert!(!setting.mailbox().accepts() && !setting.mailbox().is_writable());
        assert!(!setting.mailbox().flush(Duration::from_millis(5)));
    }
    assert_eq!(told.load(Ordering::Relaxed), 1);
    setting.sql("ALTER TABLE away RENAME TO session");
    assert_eq!(setting.answer(), (1, Ok(())));
    wait_until(|| setting.mailbox().accepts());
    setting.flush();
}

#[test]
fn it_is_tried_whether_something_can_be_written_also_when_nothing_waits() {
    let setting = Setting::new();
    setting.ask(1, [append(1)]);
    assert_eq!(setting.answer(), (1, Ok(())));
    setting.sql(
        "ALTER TABLE message RENAME TO away;
         CREATE TRIGGER held BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'held'); END",
    );
    setting.ask(2, [append(2)]);
    assert_eq!(setting.answer(), (2, Err(Rejected)));
    setting.sql("ALTER TABLE away RENAME TO message");
    let began = Instant::now();
    while began.elapsed() < PROBE_INTERVAL * 5 / 2 {
        assert!(!setting.mailbox().accepts() && !setting.mailbox().is_writable());
        thread::sleep(Duration::from_millis(5));
    }
    setting.sql("DROP TRIGGER held");
    wait_until(|| setting.mailbox().accepts());
}

/// Longer than a statement waits, as a backup by another program may.
#[test]
fn a_file_that_is_locked_for_some_seconds_is_waited_for() {
    let setting = Setting::new();
    let held = setting.hold(append(1));
    setting.ask(2, [append(2)]);
    thread::sleep(schema::BUSY_TIMEOUT + Duration::from_secs(1));
    assert!(setting.mailbox().accepts());
    held.let_go();
    assert_eq!(setting.answer(), (2, Ok(())));
}

#[test]
fn a_server_stops_although_nothing_can_be_written() {
    let mut setting = Setting::new();
    setting.sql("ALTER TABLE session RENAME TO away");
    setting.ask(1, [Write::Session(record(1))]);
    wait_until(|| !setting.mailbox().is_writable());
    let mailbox = setting.mailbox.take().unwrap();
    let (to, stopped) = sync_channel(1);
    thread::spawn(move || {
        drop(mailbox);
        to.send(()).unwrap();
    });
    stopped.recv_timeout(PATIENCE).unwrap();
    // Nobody was told that it was kept.
    assert!(setting.answers.try_recv().is_err());
    setting.sql("ALTER TABLE away RENAME TO session");
    assert!(setting.reopen().sessions.is_empty());
}

#[test]
fn what_is_flushed_is_answered() {
    let setting = Setting::new();
    // An answer waits until the test reads it.
    let (to, answers) = sync_channel(0);
    let writes = [append(1)].into_iter().collect();
    setting.mailbox().shared.push(0, writes, Some(Told(to, 1)));
    assert!(!setting.mailbox().flush(Duration::from_millis(300)));
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (1, Ok(())));
    setting.flush();
}

#[test]
fn a_session_ends_until_its_end_is_in_the_file() {
    let setting = Setting::new();
    setting.write([Write::Session(record(1))]);
    setting.flush();
    let held = setting.hold(Write::EndSession(1));
    assert!(setting.mailbox().is_ending_sessions());
    held.let_go();
    setting.flush();
    assert!(!setting.mailbox().is_ending_sessions());
}

#[test]
fn what_waits_for_the_disk_has_a_bound() {
    let setting = Setting::new();
    let held = setting.hold(append(1));
    let large = Bytes::from(vec![0; 16 << 20]);
    for seq in 2..18 {
        assert!(setting.mailbox().accepts());
        setting.ask(seq, [append_of(seq, "1", large.clone())]);
    }
    assert!(!setting.mailbox().accepts() && setting.mailbox().is_writable());
    // What has been delivered meanwhile does not wait any more, and is answered at once.
    setting.write((2..18).map(Write::Remove));
    assert!(setting.mailbox().accepts());
    assert_eq!(setting.answers.try_recv(), Err(TryRecvError::Empty));
    setting.mailbox().settle();
    for seq in 2..18 {
        assert_eq!(setting.answers.try_recv(), Ok((seq, Ok(()))));
    }
    held.let_go();
    setting.flush();
}

#[test]
fn the_clock_is_kept_also_when_it_comes_with_nothing_to_write() {
    let mut setting = Setting::new();
    let held = setting.hold(append(1));
    setting.mailbox().keep_clock(clock(7));
    setting.ask(2, [append(2)]);
    setting.write([Write::Remove(2)]);
    held.let_go();
    assert_eq!(setting.answer(), (2, Ok(())));
    assert_eq!(setting.reopen().clock, Some(clock(7)));
}

#[test]
fn a_newer_clock_is_not_forgotten_with_the_older() {
    let mut setting = Setting::new();
    setting.mailbox().keep_clock(clock(1));
    let held = setting.hold(append(1));
    setting.mailbox().keep_clock(clock(2));
    held.let_go();
    assert_eq!(setting.reopen().clock, Some(clock(2)));
}

/// Between the opening of the mailbox and the start of the router.
#[test]
fn a_purge_waits_for_somebody_to_do_it() {
    let setting = Setting::new();
    setting.write([append(1)]);
    setting.flush();
    let asking = admin(setting.path()).purge(&user("1"), Inbox);
    assert_eq!(asking.unwrap(), Purged::Asked);
    thread::sleep(PURGE_INTERVAL * 2);
    let is_due = || {
        admin(setting.path())
            .is_purge_due(&user("1"), Inbox)
            .unwrap()
    };
    assert!(is_due());
    let (to, asked) = sync_channel(9);
    setting.mailbox().attach(Box::new(Hooks {
        on_purge: Some(Box::new(move |_, up_to, _| to.send(up_to).unwrap())),
        ..Hooks::default()
    }));
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(1));
    wait_until(|| !is_due());
}

#[test]
fn a_request_that_cannot_be_right_purges_nothing() {
    let setting = Setting::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&asked);
    setting.mailbox().attach(Box::new(Hooks {
        on_purge: Some(Box::new(move |_, up_to, from| {
            to.lock().unwrap().push((up_to, from));
        })),
        ..Hooks::default()
    }));
    setting.sql(
        "INSERT INTO purge VALUES ('1', 'a/b', 7), ('a/b', '', 7), ('1', '2', -7), ('1', '3', 8)",
    );
    wait_until(|| setting.count("purge") == 0);
    assert_eq!(*asked.lock().unwrap(), [(8, Some(user("3")))]);
}

#[test]
fn what_could_not_be_read_is_read_again_when_its_time_has_come() {
    let shared = MailboxShared::<Told>::new(Kept::default());
    let ask = |seq, not_before| {
        shared.push_load(Load {
            part: 0,
            seqs: vec![seq],
            then: Box::new(|_| ()),
            tries: 1,
            not_before,
        });
    };
    let due = || -> Vec<_> {
        let loads = shared.take_loads().unwrap();
        loads.into_iter().flat_map(|load| load.seqs).collect()
    };
    let soon = Instant::now() + Duration::from_millis(100);
    ask(1, Some(soon + PATIENCE));
    ask(2, Some(soon));
    ask(3, None);
    assert_eq!(due(), [3]);
    assert_eq!(due(), [2]);
    assert!(Instant::now() >= soon);
}
