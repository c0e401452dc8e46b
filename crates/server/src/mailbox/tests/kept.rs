//! What is written comes back.

use std::time::Duration;

use jam_core::directory::{Life, Mark};
use jam_core::message::Message;
use jam_core::store::{Append, MailboxStore as _, OutboundState, OwnerRecord, Subscription, Write};
use jam_core::time::Time;
use jam_wire::packet::{PublishProperties, QoS, Will};

use super::setting::{
    Found, Kind, Setting, append, append_by, append_of, id, message_under, record, retain_of,
    subscription, user, will,
};

pub(in crate::mailbox) fn messages_come_back_with_what_is_known_of_them<K: Kind>() {
    let mut setting = Setting::<K>::new();
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
    let loaded = setting.load(&[9, 10, 5, 4]);
    assert_eq!(
        loaded.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [9, 5]
    );
    let large = setting.load_of("2", &[6]);
    assert_eq!(large[0].1.to_stored().payload, vec![7; 100_000]);
    assert_eq!(loaded[0].1.sender(), &user("7"));
    assert_eq!(loaded[0].1.topic(), "/1/inbox");
}

/// Rounded up: nothing is gone early because of a restart.
pub(in crate::mailbox) fn when_a_message_expires_comes_back<K: Kind>() {
    let mut setting = Setting::<K>::new();
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

pub(in crate::mailbox) fn sessions_come_back_with_their_packet_ids_in_order<K: Kind>() {
    let mut setting = Setting::<K>::new();
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

pub(in crate::mailbox) fn what_a_session_is_by_now_comes_back<K: Kind>() {
    let mut setting = Setting::<K>::new();
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

pub(in crate::mailbox) fn the_last_retained_message_of_a_topic_comes_back<K: Kind>() {
    let mut setting = Setting::<K>::new();
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
fn payloads<K: Kind>(setting: &Setting<K>) -> Vec<String> {
    let loaded = setting.load(&[1, 2, 3, 4]);
    let payload = |seq| {
        let found = loaded.iter().find(|(of, _)| *of == seq);
        found.map_or_else(Vec::new, |(_, it)| it.to_stored().payload.to_vec())
    };
    let all = (1..=4).map(payload);
    all.map(|it| String::from_utf8(it).unwrap()).collect()
}

pub(in crate::mailbox) fn a_claim_is_kept_as_long_as_its_session_and_its_message<K: Kind>() {
    let mut setting = Setting::<K>::new();
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
pub(in crate::mailbox) fn a_session_that_ends_leaves_nothing_in_the_file<K: Kind>() {
    let setting = Setting::<K>::new();
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

pub(in crate::mailbox) fn answers_come_in_order_and_numbers_are_never_used_again<K: Kind>() {
    let mut setting = Setting::<K>::new();
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
pub(in crate::mailbox) fn what_was_found_at_the_start_is_removed_when_it_ends<K: Kind>() {
    let mut setting = Setting::<K>::new();
    setting.write([Write::Session(record(4)), retain_of(5, "/1/a", "a")]);
    setting.write([Write::Claim(4, 5), Write::Received(user("1"), 4, id(6))]);
    setting.reopen();
    let rows = |setting: &Setting<K>| (setting.count("claim"), setting.count("received"));
    assert_eq!(rows(&setting), (1, 1));
    setting.write([Write::EndClaim(4, 5), Write::Released(4, id(6))]);
    setting.flush();
    assert_eq!(rows(&setting), (0, 0));
}

/// Also one with nothing on its way, of which nothing else in the file speaks.
pub(in crate::mailbox) fn a_session_that_was_found_at_the_start_goes_on_and_ends<K: Kind>() {
    let mut setting = Setting::<K>::new();
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
pub(in crate::mailbox) fn a_will_that_is_due_comes_back_as_it_was<K: Kind>() {
    let mut setting = Setting::<K>::new();
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

pub(in crate::mailbox) fn whose_everything_is_comes_back_as_it_was<K: Kind>() {
    let mut setting = Setting::<K>::new();
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
pub(in crate::mailbox) fn sessions_with_numbers_far_apart_come_back_with_what_is_theirs<K: Kind>() {
    let mut setting = Setting::<K>::new();
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

pub(in crate::mailbox) fn a_long_table_comes_back_in_order<K: Kind>() {
    let mut setting = Setting::<K>::new();
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

/// Rows of before this was kept, and messages of the server's own, say nothing of it.
pub(in crate::mailbox) fn which_account_wrote_a_message_comes_back<K: Kind>() {
    let mut setting = Setting::<K>::new();
    let mark = |n: u8| (n != 0).then(|| Mark::new([n; Mark::LEN]));
    let life = |(email, name, password, made_up)| Life {
        email: mark(email),
        name: mark(name),
        password: mark(password),
        made_up,
    };
    let marks = [
        (1, 3, 5, false),
        (1, 0, 0, true),
        (0, 3, 0, false),
        (0, 0, 5, false),
        (7, 9, 11, true),
    ];
    let mut accounts: Vec<_> = marks.map(|marks| Some(life(marks))).into();
    accounts.push(None);
    setting.write(
        (1..)
            .zip(&accounts)
            .map(|(seq, account)| append_by(seq, *account)),
    );
    setting.reopen();
    let loaded = setting.load(&[1, 2, 3, 4, 5, 6]);
    let found: Vec<_> = loaded.iter().map(|(_, it)| it.sender_life()).collect();
    assert_eq!(found, accounts);
}

/// What a sender is told of a message by; a will has none.
pub(in crate::mailbox) fn packet_ids_come_back<K: Kind>() {
    let mut setting = Setting::<K>::new();
    let ids = [Some(id(65_535)), None, Some(id(7)), Some(id(1))];
    for (seq, packet_id) in (1..).zip(ids) {
        setting.write([Write::Append(Append {
            seq,
            user: user("1"),
            message: message_under(packet_id, "/1/inbox", "x"),
            inbox: true,
            retained: false,
            waits_for: 1,
        })]);
    }
    setting.reopen();
    let loaded = setting.load(&[1, 2, 3, 4]);
    let found: Vec<_> = loaded.iter().map(|(_, it)| it.packet_id()).collect();
    assert_eq!(found, ids);
}

/// The session of another user, who has sent the message.
pub(in crate::mailbox) fn a_packet_id_belongs_to_its_sender<K: Kind>() {
    let mut setting = Setting::<K>::new();
    let mut session = record(3);
    session.user = user("7");
    let of_sender = |writes: Vec<Write>| {
        setting
            .mailbox()
            .write(&user("7"), writes.into_iter().collect(), None);
    };
    of_sender(vec![Write::Session(session)]);
    setting.write([append(4), Write::Received(user("7"), 3, id(5))]);
    setting.write([append(6), Write::Received(user("7"), 3, id(7))]);
    setting.flush();
    of_sender(vec![Write::Released(3, id(5))]);
    let found = setting.reopen();
    assert_eq!(found.sessions[0].1, [id(7)]);
    setting.mailbox().write(
        &user("7"),
        [Write::EndSession(3)].into_iter().collect(),
        None,
    );
    setting.flush();
    assert_eq!(
        (setting.count("session"), setting.count("received")),
        (0, 0)
    );
}
