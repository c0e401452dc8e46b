//! What is read of the file while the server runs, also when the disk fails.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use jam_core::store::{MailboxStore as _, Seq, Write};
use jam_core::time::Time;
use rusqlite::Connection;

use super::setting::{Setting, Told, append, open, retain_of, wait_until};
use crate::mailbox::shared::Load;
use crate::mailbox::sqlite::reader::Reader;

/// A mailbox with one message, and a reader whose connection finds nothing.
fn with_failing_reader() -> (Setting, Reader<Told>) {
    let setting = Setting::new();
    setting.write([append(1)]);
    setting.flush();
    let (shared, place) = (&setting.mailbox().shared, &setting.mailbox().place);
    shared.stop_reading(); // the mailbox's own reader: what is tried again stays
    let elsewhere = Connection::open_in_memory().unwrap();
    let reader = Reader::new(Arc::clone(shared), Arc::clone(place), elsewhere);
    (setting, reader)
}

/// What a try finds; `None`: it is tried again.
fn load(reader: &mut Reader<Told>) -> Option<Vec<Seq>> {
    let (to, found) = sync_channel(1);
    reader.load(Load {
        part: 0,
        seqs: vec![1],
        then: Box::new(move |found| to.send(found).unwrap()),
        tries: 0,
        not_before: None,
    });
    let found = found.try_recv().ok()?;
    Some(found.into_iter().map(|(seq, _)| seq).collect())
}

#[test]
fn a_connection_that_has_failed_to_read_is_replaced() {
    let (_setting, mut reader) = with_failing_reader();
    assert_eq!(load(&mut reader), None);
    assert_eq!(load(&mut reader), Some(vec![1]));
}

/// In which the message is not: it would count as gone.
#[test]
fn a_file_that_took_the_place_of_ours_is_not_read() {
    let (setting, mut reader) = with_failing_reader();
    assert_eq!(load(&mut reader), None);
    let other = tempfile::tempdir().unwrap();
    drop(open(other.path()).unwrap());
    let ours = setting.path().join("mailbox.db");
    fs::rename(&ours, setting.path().join("ours.db")).unwrap();
    fs::copy(other.path().join("mailbox.db"), &ours).unwrap();
    assert_eq!(load(&mut reader), None);
}

/// For the metrics.
#[test]
fn the_oldest_message_is_the_first_that_is_not_retained() {
    let mut setting = Setting::new();
    setting.write([retain_of(1, "/1/profile", "old")]);
    setting.write([append(2)]);
    setting.write([append(3)]);
    setting.flush();
    setting.close();
    setting.sql("UPDATE message SET received_at = 1000 * id");
    setting.reopen();
    let oldest = |setting: &Setting| setting.mailbox().gauges().oldest;
    wait_until(|| oldest(&setting) == Some(Time::from_millis(2000)));
    setting.write([Write::Remove(2), Write::Remove(3)]);
    wait_until(|| oldest(&setting).is_none());
}
