//! What is written comes back.

use std::fs;

use jam_core::directory::{Life, Mark};
use jam_core::store::{Append, Write};
use rusqlite::Connection;

use super::setting::{
    Setting, append, append_by, append_of, id, message_under, record, user, will,
};
use crate::mailbox::sqlite::salvage;

/// Rows of before this was kept, and messages of the server's own, say nothing of it.
#[test]
fn which_account_wrote_a_message_comes_back_and_is_salvaged() {
    let mut setting = Setting::new();
    let life = |email: u8, name: u8, password: u8, made_up| {
        let mark = |n: u8| (n != 0).then(|| Mark::new([n; Mark::LEN]));
        Some(Life {
            email: mark(email),
            name: mark(name),
            password: mark(password),
            made_up,
        })
    };
    let accounts = [
        life(1, 3, 5, false),
        life(1, 0, 0, true),
        life(0, 3, 0, false),
        life(0, 0, 5, false),
        life(0, 0, 0, false),
        None,
        life(7, 9, 11, true),
    ];
    setting.write(
        (1..)
            .zip(accounts)
            .map(|(seq, account)| append_by(seq, account)),
    );
    setting.close();
    let saved = tempfile::tempdir().unwrap();
    assert_eq!(salvage(setting.path(), saved.path()).unwrap().messages, 7);
    for is_salvaged in [false, true] {
        if is_salvaged {
            setting.close();
            fs::copy(
                saved.path().join("mailbox.db"),
                setting.path().join("mailbox.db"),
            )
            .unwrap();
        }
        setting.reopen();
        let loaded = setting.load(&[1, 2, 3, 4, 5, 6, 7]);
        let found: Vec<_> = loaded.iter().map(|(_, it)| it.sender_life()).collect();
        assert_eq!(found, accounts, "{is_salvaged}");
    }
    setting.close();
    setting.sql("UPDATE message SET sender_life = x'00' WHERE id = 2");
    setting.sql("UPDATE message SET sender_life = NULL WHERE id = 1");
    setting.reopen();
    let loaded = setting.load(&[1, 2]);
    assert_eq!(loaded.len(), 1);
    assert_eq!((loaded[0].0, loaded[0].1.sender_life()), (1, None));
}

/// What a sender is told of a message by; a will has none, and rows of before this was kept say so.
#[test]
fn packet_ids_come_back() {
    let mut setting = Setting::new();
    let under = |seq, packet_id| {
        let (user, inbox, waits_for) = (user("1"), true, 1);
        Write::Append(Append {
            seq,
            user,
            message: message_under(packet_id, "/1/inbox", "x"),
            inbox,
            retained: false,
            waits_for,
        })
    };
    setting.write([under(1, Some(id(65_535)))]);
    setting.write([under(2, None), under(3, Some(id(7))), under(4, Some(id(1)))]);
    setting.close();
    let file = Connection::open(setting.path().join("mailbox.db")).unwrap();
    let flags = |id: i64| {
        let sql = "SELECT flags FROM message WHERE id = ?1";
        file.query_row(sql, [id], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(
        [1, 2, 3, 4].map(flags),
        [0b1_0101, 0b0_0101, 0b1_0101, 0b1_0101]
    );
    let sql = "UPDATE message SET flags = 5 WHERE id = 4";
    file.execute(sql, []).unwrap();
    drop(file);
    setting.reopen();
    let loaded = setting.load(&[1, 2, 3, 4]);
    let ids: Vec<_> = loaded.iter().map(|(_, it)| it.packet_id()).collect();
    assert_eq!(ids, [Some(id(65_535)), None, Some(id(7)), None]);
}

#[test]
fn what_is_of_a_session_that_has_ended_meanwhile_is_not_kept() {
    let mut setting = Setting::new();
    setting.write([Write::Session(record(1))]);
    setting.flush();
    setting.write([Write::EndSession(1)]);
    // On another thread, a moment ago, the session was still there.
    setting.write([Write::Received(user("1"), 1, id(7)), append(2)]);
    setting.flush();
    setting.write([Write::Received(user("1"), 1, id(8)), append(3)]);
    setting.flush();
    assert_eq!(setting.count("received"), 0);
    // An earlier version has left some.
    setting.close();
    let orphans =
        "INSERT INTO received VALUES (1, 7); INSERT INTO in_flight VALUES (1, 7, 1, 2, 0);
         INSERT INTO claim VALUES (1, 7)";
    setting.sql(orphans);
    assert_eq!(setting.reopen().entries.len(), 2);
    let left = ["received", "in_flight", "claim"].map(|table| setting.count(table));
    assert_eq!(left, [0, 0, 0]);
}

/// As where the row was on a page that was lost: a number that is used twice is taken for what had it before.
#[test]
fn numbers_in_use_are_not_used_again_although_the_file_does_not_say_which_were() {
    let mut due = will("/1/x");
    due.id = 5;
    for used in [
        append(5),
        Write::Session(record(5)),
        Write::Will(Box::new(due)),
    ] {
        let mut setting = Setting::new();
        setting.write([used]);
        setting.close();
        setting.sql("DELETE FROM meta");
        assert_eq!(setting.reopen().last_seq, 5);
    }
}

/// Bytes by which the log has grown.
fn written(setting: &Setting, writes: impl IntoIterator<Item = Write>) -> u64 {
    let log = || {
        let log = fs::metadata(setting.path().join("mailbox.db-wal"));
        log.unwrap().len()
    };
    let before = log();
    setting.write(writes);
    setting.flush();
    log() - before
}

/// A PUBACK has four bytes. What it changes is beside a message, or a will, that may have a megabyte.
#[test]
fn what_is_large_is_not_written_again_for_what_is_small() {
    const LARGE: usize = 1_000_000;
    const SMALL: u64 = 4 * 4120;
    let mut setting = Setting::new();
    let Write::Append(mut large) = append_of(1, "1", vec![7; LARGE]) else {
        panic!("it is an append")
    };
    large.waits_for = u32::MAX;
    assert!(written(&setting, [Write::Append(large)]) > LARGE as u64);
    for slot in (0..32).rev() {
        let waits_for = (1 << slot) - 1;
        let bytes = written(&setting, [Write::Acknowledged { seq: 1, waits_for }]);
        assert!(bytes <= SMALL, "{bytes} for slot {slot}");
    }
    let mut session = record(2);
    let mut bye = will("/1/x").will;
    bye.payload = vec![1; LARGE].into();
    session.will = Some(bye);
    for n in 0..5 {
        session.maybe_sent_before_crash = 1000 + n;
        let bytes = written(&setting, [Write::Session(session.clone())]);
        assert!(n == 0 || bytes <= SMALL, "{bytes} for a session");
    }
    let found = setting.reopen();
    assert_eq!(
        (found.entries[0].waits_for, found.entries[0].acknowledged),
        (0, true)
    );
    let (session, ..) = &found.sessions[0];
    assert_eq!(session.maybe_sent_before_crash, 1004);
    assert_eq!(session.will.as_ref().unwrap().payload.len(), LARGE);
}

/// Also what has been read: so a copy of the one file is a copy of all.
#[test]
fn a_closed_mailbox_is_one_file() {
    for _ in 0..30 {
        let mut setting = Setting::new();
        setting.ask(1, [append(1)]);
        assert_eq!(setting.answer(), (1, Ok(())));
        assert_eq!(setting.load(&[1]).len(), 1);
        setting.close();
        assert!(!setting.path().join("mailbox.db-wal").exists());
    }
}
