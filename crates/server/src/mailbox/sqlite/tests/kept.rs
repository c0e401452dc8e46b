//! What is written comes back.

use std::fs;
use std::time::Duration;

use jam_core::directory::{Life, Mark};
use jam_core::message::Message;
use jam_core::store::{Append, OutboundState, OwnerRecord, Subscription, Write};
use jam_core::time::Time;
use jam_wire::packet::{PublishProperties, QoS, Will};
use rusqlite::Connection;

use super::setting::{
    Found, Setting, append, append_by, append_of, id, message_under, record, retain_of,
    subscription, user, will,
};
use crate::mailbox::sqlite::salvage;

#[test]
fn messages_come_back_with_what_is_known_of_them() {
    let mut setting = Setting::new();
    setting.write([append(5)]);
    setting.write([append_of(6, "2", vec![7; 100_000])]);
    setting.write([
        append(9),
        Write::Acknowledged {
            seq: 5,
            waits_for: 6,
        },
    ]);
    setting.write([append(10)]);
    setting.flush();
    setting.write([Write::Remove(10)]);
    let recovered = setting.reopen();
    let entries: Vec<_> = recovered
        .entries
        .iter()
        .map(|e| (e.seq, e.user.as_str(), e.size, e.waits_for))
        .collect();
    assert_eq!(
        entries,
        [(5, "1", 9, 6), (6, "2", 100_008, 1), (9, "1", 9, 1)]
    );
    assert!(recovered.entries[0].acknowledged && !recovered.entries[1].acknowledged);
    assert!(recovered.last_seq >= 10);
    let entry = &recovered.entries[0];
    assert_eq!((entry.inbox, entry.qos), (true, QoS::AtLeastOnce));
    assert_eq!(entry.sender, user("7"));
    assert_eq!(entry.expires_at, Time::NEVER);
    assert_eq!(entry.received_at, Time::from_millis(1_700_000_000_000));
    let loaded = setting.load(&[9, 10, 6, 4]);
    assert_eq!(
        loaded.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [9, 6]
    );
    assert_eq!(loaded[1].1.to_stored().payload, vec![7; 100_000]);
    assert_eq!(loaded[0].1.sender(), &user("7"));
    assert_eq!(loaded[0].1.topic(), "/1/inbox");
}

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

/// Rounded up: nothing is gone early because of a restart.
#[test]
fn when_a_message_expires_comes_back() {
    let mut setting = Setting::new();
    let Write::Append(mut append) = append(1) else {
        panic!("it is an append")
    };
    let publish = append.message.to_stored();
    let at = append.message.received_at();
    let expires = at + Duration::from_micros(5_001);
    append.message = Message::from_stored(publish, user("7"), None, at, expires).into();
    setting.write([Write::Append(append)]);
    let found = setting.reopen();
    let expires = Time::from_millis(expires.as_millis_up());
    assert_eq!(found.entries[0].expires_at, expires);
    assert_eq!(setting.load(&[1])[0].1.expires_at(), expires);
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
fn sessions_come_back_with_their_packet_ids_in_order() {
    let mut setting = Setting::new();
    let mut first = record(3);
    let other = |id| Subscription {
        topic: format!("/1/{id:?}").into(),
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: false,
        id,
    };
    let subscriptions = [other(None), other(Some(9)), subscription("/1/inbox")];
    first.will = Some(Box::new(Will {
        topic: "willtopic".into(),
        payload: "bye".into(),
        qos: QoS::ExactlyOnce,
        retain: true,
        delay_secs: Some(5),
        properties: PublishProperties {
            message_expiry_secs: Some(77),
            user: [("a", "b")].into(),
            ..PublishProperties::default()
        },
    }));
    first.will_at = Some(Time::from_micros(11_001));
    first.maybe_sent_before_crash = 2;
    first.ends_at = Some(Time::NEVER);
    first.expiry = Duration::MAX;
    setting.write([Write::Session(first.clone())]);
    setting.write([Write::Session(record(4))]);
    setting.write([Write::Session(record(5))]);
    setting.write([
        Write::Received(user("1"), 3, id(9)),
        Write::Received(user("1"), 3, id(2)),
        Write::Received(user("1"), 4, id(1)),
    ]);
    setting.write([Write::InFlight(3, id(8), OutboundState::AwaitsPubAck(50))]);
    setting.write([Write::InFlight(3, id(7), OutboundState::AwaitsPubRec(51))]);
    setting.write([Write::InFlight(3, id(6), OutboundState::AwaitsPubRec(52))]);
    setting.flush();
    setting.write([Write::InFlight(3, id(7), OutboundState::AwaitsPubComp)]);
    setting.write([Write::Released(3, id(9)), Write::EndSession(5)]);
    for it in &subscriptions {
        for session in [3, 4] {
            setting.write([Write::Subscribe(session, Box::new(it.clone()))]);
        }
        // What is said of the session says nothing of its subscriptions.
        setting.write([Write::Session(first.clone())]);
    }
    setting.write([Write::Unsubscribe(3, "/1/Some(9)".into())]);
    let recovered = setting.reopen();
    assert_eq!(recovered.sessions.len(), 2);
    first.subscriptions = vec![subscriptions[0].clone(), subscriptions[2].clone()];
    assert_eq!(recovered.sessions[1].0.subscriptions.len(), 3);
    assert_eq!(recovered.sessions[1].0.expiry, record(4).expiry);
    let (found, received, flights) = &recovered.sessions[0];
    first.will_at = Some(Time::from_millis(12)); // rounded up: no will is early
    assert_eq!(format!("{found:?}"), format!("{first:?}"));
    assert_eq!(found.will, first.will);
    assert_eq!(received, &[id(2)]);
    let expected = [
        (id(8), OutboundState::AwaitsPubAck(50)),
        (id(6), OutboundState::AwaitsPubRec(52)),
        (id(7), OutboundState::AwaitsPubComp),
    ];
    assert_eq!(flights, &expected);
    setting.write([Write::InFlight(3, id(1), OutboundState::AwaitsPubAck(53))]);
    setting.write([Write::EndInFlight(3, id(8)), Write::EndSession(4)]);
    setting.write([Write::Unsubscribe(3, "/1/None".into())]);
    let recovered = setting.reopen();
    assert_eq!(recovered.sessions.len(), 1);
    assert_eq!(recovered.sessions[0].0.subscriptions, subscriptions[2..]);
    let ids: Vec<_> = recovered.sessions[0]
        .2
        .iter()
        .map(|(id, _)| id.get())
        .collect();
    assert_eq!(ids, [6, 7, 1]);
}

#[test]
fn what_a_session_is_by_now_comes_back() {
    let mut setting = Setting::new();
    setting.write([Write::Session(record(3))]);
    setting.flush();
    let mut changed = record(3);
    changed.slot = 5;
    changed.expiry = Duration::from_secs(7);
    changed.ends_at = Some(Time::from_millis(9));
    changed.will = Some(will("/1/x").will);
    changed.will.as_mut().unwrap().delay_secs = Some(2);
    changed.will_at = Some(Time::from_millis(8));
    changed.maybe_sent_before_crash = 2;
    changed.token = Some(Mark::new([9; Mark::LEN]));
    for now in [changed, record(3)] {
        setting.write([Write::Session(now.clone())]);
        let recovered = setting.reopen();
        let (found, ..) = &recovered.sessions[0];
        assert_eq!(format!("{found:?}"), format!("{now:?}"));
        assert_eq!((&found.will, &found.token), (&now.will, &now.token));
    }
}

#[test]
fn the_last_retained_message_of_a_topic_comes_back() {
    let mut setting = Setting::new();
    setting.write([retain_of(1, "/1/a", "old")]);
    setting.write([
        Write::Unretain(1),
        Write::Remove(1),
        retain_of(2, "/1/a", "new"),
    ]);
    setting.write([retain_of(3, "/1/b", "gone")]);
    setting.write([retain_of(4, "/1/c", "on its way to somebody")]);
    assert_eq!(
        payloads(&setting),
        ["", "new", "gone", "on its way to somebody"]
    );
    setting.flush();
    setting.write([Write::Unretain(3), Write::Remove(3), Write::Unretain(4)]);
    let recovered = setting.reopen();
    let retained = recovered.retained.iter();
    let retained: Vec<_> = retained.map(|it| (it.seq, it.topic.as_str())).collect();
    assert_eq!(retained, [(2, "/1/a")]);
    let entries = recovered.entries.iter();
    let entries: Vec<_> = entries.map(|it| (it.seq, it.retained, it.inbox)).collect();
    assert_eq!(entries, [(2, true, false), (4, true, false)]);
    assert_eq!(
        payloads(&setting),
        ["", "new", "", "on its way to somebody"]
    );
    assert!(recovered.last_seq >= 4);
}

/// Of the first four messages.
fn payloads(setting: &Setting) -> Vec<String> {
    let loaded = setting.load(&[1, 2, 3, 4]);
    let payload = |seq| {
        let found = loaded.iter().find(|(of, _)| *of == seq);
        found.map_or_else(Vec::new, |(_, it)| it.to_stored().payload.to_vec())
    };
    let all = (1..=4).map(payload);
    all.map(|it| String::from_utf8(it).unwrap()).collect()
}

#[test]
fn a_claim_is_kept_as_long_as_its_session_and_its_message() {
    let mut setting = Setting::new();
    setting.write([retain_of(1, "/1/a", "a"), retain_of(2, "/1/b", "b")]);
    setting.write([Write::Session(record(3)), Write::Session(record(4))]);
    setting.write([1, 2].map(|seq| Write::Claim(3, seq)));
    setting.write([1, 2].map(|seq| Write::Claim(4, seq)));
    setting.flush();
    setting.write([Write::EndClaim(3, 2), Write::EndSession(4)]);
    // Neither was ever there.
    setting.write([Write::EndClaim(9, 9), Write::EndClaim(3, 9)]);
    let claims =
        |found: &Found| -> Vec<_> { found.claims.iter().map(|it| (it.session, it.seq)).collect() };
    assert_eq!(claims(&setting.reopen()), [(3, 1)]);
    setting.write([Write::EndClaim(3, 1), Write::Unretain(1), Write::Remove(1)]);
    let recovered = setting.reopen();
    assert_eq!((claims(&recovered).len(), recovered.entries.len()), (0, 1));
}

/// At once, not at the next start: sessions come and go.
#[test]
fn a_session_that_ends_leaves_nothing_in_the_file() {
    let setting = Setting::new();
    let tables = ["session", "subscription", "received", "in_flight", "claim"];
    let rows = || tables.map(|table| setting.count(table));
    setting.write([retain_of(1, "/1/a", "a")]);
    for session in [2, 3] {
        setting.write([Write::Session(record(session))]);
        setting.write([
            Write::Subscribe(session, Box::new(subscription("/1/a"))),
            Write::Received(user("1"), session, id(7)),
            Write::InFlight(session, id(7), OutboundState::AwaitsPubComp),
            Write::Claim(session, 1),
        ]);
    }
    setting.flush();
    assert_eq!(rows(), [2; 5]);
    setting.write([Write::EndSession(2)]);
    setting.flush();
    assert_eq!(rows(), [1; 5]);
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

#[test]
fn answers_come_in_order_and_numbers_are_never_used_again() {
    let mut setting = Setting::new();
    for number in 1..=1000 {
        setting.ask(number, [append(number)]);
    }
    for number in 1..=1000 {
        assert_eq!(setting.answer(), (number, Ok(())));
    }
    setting.write((1..=1000).map(Write::Remove));
    let recovered = setting.reopen();
    assert!(recovered.entries.is_empty());
    assert!(recovered.last_seq >= 1000);
    let before = recovered.last_seq;
    setting.write([append(before + 1)]);
    setting.flush();
    setting.write([Write::Remove(before + 1)]);
    assert!(setting.reopen().last_seq > before);
}

/// What is known by heart of the file includes what stood there at the start, or it would stand there for ever.
#[test]
fn what_was_found_at_the_start_is_removed_when_it_ends() {
    let mut setting = Setting::new();
    setting.write([Write::Session(record(4)), retain_of(5, "/1/a", "a")]);
    setting.write([Write::Claim(4, 5), Write::Received(user("1"), 4, id(6))]);
    setting.reopen();
    let rows = |setting: &Setting| (setting.count("claim"), setting.count("received"));
    assert_eq!(rows(&setting), (1, 1));
    setting.write([Write::EndClaim(4, 5), Write::Released(4, id(6))]);
    setting.flush();
    assert_eq!(rows(&setting), (0, 0));
}

/// Also one with nothing on its way, of which nothing else in the file speaks.
#[test]
fn a_session_that_was_found_at_the_start_goes_on_and_ends() {
    let mut setting = Setting::new();
    setting.write([3, 4].map(|session| Write::Session(record(session))));
    setting.reopen();
    setting.write([Write::Received(user("1"), 3, id(7)), Write::EndSession(4)]);
    let recovered = setting.reopen();
    let sessions = recovered.sessions.iter();
    let sessions: Vec<_> = sessions
        .map(|(it, received, _)| (it.id, received))
        .collect();
    assert_eq!(sessions, [(3, &vec![id(7)])]);
}

/// The token too: what was left with one that has been changed since does not go out.
#[test]
fn a_will_that_is_due_comes_back_as_it_was() {
    let mut setting = Setting::new();
    let left = [true, false].map(|retain| {
        let mut due = will("/1/x");
        due.id = 5 + u64::from(retain);
        due.token = due.token.filter(|_| retain);
        due.will.retain = retain;
        due.will.qos = QoS::ExactlyOnce;
        due.will.properties.message_expiry_secs = Some(77);
        due
    });
    setting.write(left.clone().map(|due| Write::Will(Box::new(due))));
    let recovered = setting.reopen();
    for due in &recovered.wills {
        let was = left.iter().find(|it| it.id == due.id).unwrap();
        assert_eq!((&due.user, &due.will), (&was.user, &was.will));
        assert_eq!(due.token, was.token);
    }
    assert_eq!(recovered.wills.len(), 2);
}

#[test]
fn whose_everything_is_comes_back_as_it_was() {
    let mut setting = Setting::new();
    let mark = |n: u8| Some(Mark::new([n; Mark::LEN]));
    let owners = [true, false].map(|made_up| OwnerRecord {
        user: user(if made_up { "1" } else { "2" }),
        life: Life {
            email: mark(1),
            name: mark(3),
            password: mark(5).filter(|_| made_up),
            made_up,
        },
        gone_since: made_up.then(|| Time::from_millis(7)),
    });
    setting.write(owners.clone().map(|owner| Write::Owner(Box::new(owner))));
    assert_eq!(setting.reopen().owners, owners);
}

/// Parts of a long table are read at once.
#[test]
fn sessions_with_numbers_far_apart_come_back_with_what_is_theirs() {
    let mut setting = Setting::new();
    let numbers = [1, 2, 60_000, 120_000];
    for session in numbers {
        setting.write([
            Write::Session(record(session)),
            Write::Subscribe(session, Box::new(subscription("/1/inbox"))),
        ]);
    }
    let recovered = setting.reopen();
    let sessions = recovered.sessions.iter();
    let found: Vec<_> = sessions
        .map(|(it, ..)| (it.id, it.subscriptions.len()))
        .collect();
    assert_eq!(found, numbers.map(|session| (session, 1)));
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

#[test]
fn a_long_table_comes_back_in_order() {
    let mut setting = Setting::new();
    for first in (1..=50_000).step_by(10_000) {
        setting.write((first..first + 10_000).map(append));
    }
    // The parts in which it is read meet between two rows, and in a gap.
    let whole = setting.reopen();
    assert!(whole.entries.iter().map(|it| it.seq).eq(1..=50_000));
    setting.write([
        Write::Remove(1),
        Write::Remove(25_000),
        Write::Remove(25_001),
    ]);
    let recovered = setting.reopen();
    let seqs = recovered.entries.iter().map(|entry| entry.seq);
    assert!(seqs.eq((2..25_000).chain(25_002..=50_000)));
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
