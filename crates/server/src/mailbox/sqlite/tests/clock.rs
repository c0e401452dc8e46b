//! What is remembered of the clocks.

use std::time::Duration;

use jam_core::store::MailboxStore as _;
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use rusqlite::Connection;

use super::setting::{Setting, append};
use crate::mailbox::sqlite::schema;
use crate::mailbox::tests::clock::clock;

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
        crate::mailbox::sqlite::clock::read(&file).unwrap()
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
    let message = "INSERT INTO message VALUES (1, '1', '2', 5, 0, 0, 20000, NULL, 1, x'00'),
        (2, '1', '2', 5, 0, 0, 10000, NULL, 1, x'00');";
    let session =
        "INSERT INTO session VALUES (9, '1', '1:a', 0, 60000, 90000, NULL, NULL, NULL, x'', 0),
        (10, '1', '1:b', 1, 9223372036854775807, 9223372036854775807, NULL, NULL, NULL, x'', 0),
        (11, '1', '1:c', 2, 60000, NULL, NULL, NULL, NULL, x'', 0);";
    let push = "INSERT INTO push VALUES ('1', '2', 0, 1, 25000);";
    for (rows, expected) in [
        (String::new(), None),
        (message.to_owned(), Some(20_000)),
        (format!("{message}{push}"), Some(25_000)),
        (format!("{message}{push}{session}"), Some(30_000)),
    ] {
        let mut file = Connection::open_in_memory().unwrap();
        for step in &schema::migrations::MIGRATIONS[..3] {
            file.execute_batch(step).unwrap();
        }
        file.execute_batch(&rows).unwrap();
        schema::migrate(&mut file, 3).unwrap();
        let found = crate::mailbox::sqlite::clock::read(&file).unwrap();
        let expected = expected.map(|time| ClockRecord {
            time: Time::from_millis(time),
            offset_millis: 0,
            boot: 0,
            since_boot: Duration::ZERO,
            proved_offset_millis: None,
        });
        assert_eq!(found, expected, "{rows}");
    }
}
