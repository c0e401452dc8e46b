//! What is remembered of the clocks.

use std::time::Duration;

use jam_core::store::MailboxStore as _;
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;

use super::setting::{Kind, Setting, append};

pub(in crate::mailbox) fn clock(time: u64) -> ClockRecord {
    ClockRecord {
        time: Time::from_millis(time),
        offset_millis: -86_400_000,
        boot: u64::MAX >> 1,
        since_boot: Duration::from_millis(12_345),
        proved_offset_millis: None,
    }
}

pub(in crate::mailbox) fn a_new_mailbox_remembers_nothing<K: Kind>() {
    let mut setting = Setting::<K>::new();
    assert_eq!(setting.reopen().clock, None);
    setting.write([append(1)]);
    assert_eq!(setting.reopen().clock, None);
}

pub(in crate::mailbox) fn the_last_record_comes_back<K: Kind>() {
    let mut setting = Setting::<K>::new();
    setting.mailbox().keep_clock(clock(1));
    setting.write([append(1)]);
    setting.flush();
    let proved = ClockRecord {
        proved_offset_millis: Some(-5),
        ..clock(2)
    };
    // Without a batch: at the end.
    setting.mailbox().keep_clock(proved);
    assert_eq!(setting.reopen().clock, Some(proved));
    // Nothing was said since.
    setting.write([append(2)]);
    assert_eq!(setting.reopen().clock, Some(proved));
}
