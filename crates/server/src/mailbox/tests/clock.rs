//! What is remembered of the clocks.

use std::time::Duration;

use jam_core::store::Write;
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use rusqlite::Connection;

use super::setting::{Setting, append, append_of, record};
use crate::mailbox::schema;

fn clock(time: u64) -> ClockRecord {
    ClockRecord {
        time: Time::from_millis(time),
        offset_millis: -86_400_000,
        boot: u64::MAX >> 1,
        since_boot: Duration::from_millis(12_345),
        proved_offset_millis: None,
    }
}

#[test]
fn a_new_mailbox_remembers_nothing() {
    let mut setting = Setting::new();
    assert_eq!(setting.mailbox().clock(), None);
    setting.write([append(1)]);
    setting.reopen();
    assert_eq!(setting.mailbox().clock(), None);
}

#[test]
fn the_last_record_comes_back() {
    let mut setting = Setting::new();
    setting.mailbox().keep_clock(clock(1));
    setting.write([append(1)]);
    setting.flush();
    let proved = ClockRecord {
        proved_offset_millis: Some(-5),
        ..clock(2)
    };
    // Without a batch: at the end.
    setting.mailbox().keep_clock(proved);
    setting.reopen();
    assert_eq!(setting.mailbox().clock(), Some(proved));
    // Nothing was said since.
    setting.write([append(2)]);
    setting.reopen();
    assert_eq!(setting.mailbox().clock(), Some(proved));
}

#[test]
fn a_killed_server_has_kept_it_with_its_last_batch() {
    let mut setting = Setting::new();
    setting.write([append(1)]);
    setting.flush();
    setting.mailbox().keep_clock(clock(7));
    setting.write([append(2)]);
    setting.flush();
    let file = Connection::open(setting.path().join("mailbox.db")).unwrap();
    let sql = "SELECT value FROM meta WHERE name = 'time'";
    assert_eq!(
        file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(),
        7
    );
    drop(file);
    setting.close();
}

#[test]
fn an_idle_writer_writes_news_and_no_more() {
    let setting = Setting::new();
    let written = || {
        let file = schema::open_to_read(&setting.path().join("mailbox.db")).unwrap();
        crate::mailbox::clock::read(&file).unwrap()
    };
    let wait_for = |record: ClockRecord| {
        let began = std::time::Instant::now();
        while written() != Some(record) {
            assert!(began.elapsed() < super::setting::PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    setting.mailbox().keep_clock(clock(1));
    wait_for(clock(1));
    setting.mailbox().keep_clock(clock(60_001));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(written(), Some(clock(1)));
    setting.mailbox().keep_clock(clock(3_600_001));
    wait_for(clock(3_600_001));
    let stepped = ClockRecord {
        offset_millis: 0,
        ..clock(3_600_002)
    };
    setting.mailbox().keep_clock(stepped);
    wait_for(stepped);
}

#[test]
fn a_file_of_before_was_left_at_the_latest_time_in_it() {
    let mut setting = Setting::new();
    let mut session = record(9);
    session.expiry = Duration::from_secs(60);
    session.ends_at = Some(Time::from_millis(90_000));
    let mut for_ever = record(10);
    for_ever.expiry = Duration::MAX;
    for_ever.ends_at = Some(Time::NEVER);
    setting.write([append_of(1, "1", "x"), append_of(2, "1", "y")]);
    setting.write([Write::Session(session), Write::Session(for_ever)]);
    setting.close();
    let set = |sql: &str| {
        let file = Connection::open(setting.path().join("mailbox.db")).unwrap();
        file.execute_batch(&format!(
            "{sql}; DELETE FROM meta WHERE name <> 'last_seq'; PRAGMA user_version = 3"
        ))
        .unwrap();
    };
    set("UPDATE message SET received_at = id * 10000");
    setting.reopen();
    let found = setting.mailbox().clock().unwrap();
    assert_eq!(found.time, Time::from_millis(30_000));
    assert_eq!(
        (found.boot, found.offset_millis, found.proved_offset_millis),
        (0, 0, None)
    );
    setting.close();
    let file = Connection::open(setting.path().join("mailbox.db")).unwrap();
    file.execute_batch(
        "UPDATE message SET received_at = id * 50000;
         DELETE FROM meta WHERE name <> 'last_seq'; PRAGMA user_version = 3",
    )
    .unwrap();
    drop(file);
    setting.reopen();
    assert_eq!(
        setting.mailbox().clock().unwrap().time,
        Time::from_millis(100_000)
    );
}
