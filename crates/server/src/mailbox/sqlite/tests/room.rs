//! How much room one user takes on the disk: no more than `docs/limits.md` says.

use std::fs;

use jam_core::policy::MAX_TOPIC_BYTES;
use jam_core::store::Write;
use jam_core::{MAX_RETAINED, MAX_SUBSCRIPTIONS};
use jam_testkit::packets;

use super::setting::{Setting, append_of, record, retain_of, subscription};
use crate::limits;
use crate::settings::Settings;

/// A little more than a page, of which half of a second one stays empty.
const UNEVEN_BYTES: usize = 4500;

const MESSAGES: usize = 400;

fn topic(number: usize) -> String {
    format!("/1/{number:0>width$}", width = MAX_TOPIC_BYTES - 3)
}

#[test]
fn all_that_one_user_may_keep_takes_no_more_than_the_documentation_says() {
    let mut settings = Settings::default();
    settings.mailbox.max_messages = u32::try_from(MESSAGES).unwrap();
    settings.mailbox.max_bytes = (MESSAGES * UNEVEN_BYTES) as u64;
    let bounds = limits::bounds(&settings);
    let mut disk = bounds
        .iter()
        .filter(|it| (it.of, it.what) == ("one user", "disk"));
    let bound = disk.next().unwrap().value;

    let mut setting = Setting::new();
    let size = |setting: &mut Setting| {
        setting.close(); // what is in the log is in the file then
        fs::metadata(setting.path().join("mailbox.db"))
            .unwrap()
            .len()
    };
    let empty = size(&mut setting);
    setting.reopen();
    let mut session = record(1);
    session.will = Some(packets::will("/1/will", &"w".repeat(60_000)));
    setting.write([Write::Session(session)]);
    for number in 0..MAX_SUBSCRIPTIONS {
        setting.write([Write::Subscribe(1, Box::new(subscription(&topic(number))))]);
    }
    let payload = "x".repeat(UNEVEN_BYTES - "/1/inbox".len());
    let mut seq = 1;
    for _ in 0..MESSAGES {
        seq += 1;
        setting.write([append_of(seq, "1", payload.clone())]);
    }
    let retained = MESSAGES * UNEVEN_BYTES / MAX_RETAINED;
    for number in 0..MAX_RETAINED {
        seq += 1;
        let payload = "x".repeat(retained - MAX_TOPIC_BYTES);
        setting.write([retain_of(seq, &topic(number), payload)]);
    }
    setting.flush();
    let grown = size(&mut setting) - empty;
    assert!(grown <= bound, "{grown} bytes, {bound} are allowed");
    assert!(grown > bound / 2, "{grown} bytes: that is not the most");
}
