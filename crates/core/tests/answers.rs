//! What a rule asks the directory is answered by value: to the packet that asked, and once (PROTOCOL.md, section 6).

use std::task::Waker;
use std::time::Duration;

use bytes::Buf;
use jam_core::connection::{Connection, Progress};
use jam_core::directory::{Answer, Answers, NotificationToken, Question};
use jam_core::push::PushAudience;
use jam_testkit::{Bench, packets};
use jam_wire::packet::{Connect, Packet, QoS, Version::V5};

/// A bench whose directory keeps nothing in memory.
fn asking() -> Bench {
    let bench = Bench::with(|rules| rules.user.push.audience = PushAudience::TokenHolders);
    let directory = bench.directory();
    directory.set_notification("2", NotificationToken::Present);
    directory.forget();
    bench
}

fn questions(bench: &Bench, what: impl FnOnce()) -> usize {
    let before = bench.directory().questions();
    what();
    bench.directory().questions() - before
}

/// A connection without a socket, and what comes of its CONNECT.
fn connecting(bench: &Bench, connect: Connect) -> (Connection, Progress) {
    let (router, now) = (bench.router(), bench.now());
    let mut connection = Connection::new(router, [192, 0, 2, 9].into(), Waker::noop().clone(), now);
    let progress = connection.handle_packet(Packet::Connect(Box::new(connect)), now);
    (connection, progress)
}

fn question(progress: Progress) -> Question {
    match progress {
        Progress::Ask(question) => question,
        other => panic!("{other:?}"),
    }
}

/// The reason code of the CONNACK.
fn connack(connection: &mut Connection) -> u8 {
    let output = connection.output();
    output.copy_to_bytes(output.len())[3]
}

#[test]
fn each_fact_is_asked_for_once() {
    let bench = asking();
    let one = bench.client("1:phone", V5);
    let count = questions(&bench, || {
        one.connect_with(|connect| {
            connect.will = Some(packets::will("/2/inbox", r#"{"from":"1"}"#));
        });
    });
    assert_eq!(count, 1, "the account");
    let count = questions(&bench, || {
        one.write("2", "hello", QoS::AtLeastOnce);
    });
    assert_eq!(count, 2, "the friendship and the notification token");
    let count = questions(&bench, || one.drop_connection());
    assert_eq!(count, 3, "for the will those and the account");
    let count = questions(&bench, || bench.recheck());
    assert_eq!(count, 0, "what was read for the check is enough");
    bench.at_inbox("2:phone", V5).read("1", "hello");
}

#[test]
fn of_an_answer_and_what_memory_says_by_then_the_newer_counts() {
    for answer_is_newer in [false, true] {
        let bench = asking();
        let (mut connection, progress) = connecting(&bench, packets::connect("1:phone", V5));
        let asked = question(progress);
        let before = bench.directory().snapshot();
        bench.directory().set_account("1", Some("new"));
        bench.directory().remember();
        let answer = if answer_is_newer {
            let answer = bench.directory().answer(&asked).expect("it answers");
            bench.directory().answer_once_as(&before);
            answer
        } else {
            before.answer(&asked)
        };
        assert_eq!(connection.resume(Ok(answer), bench.now()), Progress::Ready);
        assert_eq!(connack(&mut connection), 0x87, "{answer_is_newer}");
    }
}

#[test]
fn what_was_answered_before_a_wait_is_asked_for_again() {
    let bench = asking();
    let first = bench.client("1:first", V5);
    first.connect();
    let (mut connection, progress) = connecting(&bench, packets::connect("1:second", V5));
    let answer = bench.directory().answer(&question(progress));
    let progress = connection.resume(answer, bench.now());
    assert!(matches!(progress, Progress::Displace(_)), "{progress:?}");
    bench.directory().set_account("1", Some("new"));
    let asked = question(connection.handle_displaced(bench.now()));
    let answer = bench.directory().answer(&asked);
    assert_eq!(connection.resume(answer, bench.now()), Progress::Ready);
    assert_eq!(connack(&mut connection), 0x87);
    assert!(!first.is_closed());
}

/// Answers that are of no use, each time: a CONNECT comes to its end all the same.
#[test]
fn there_is_a_bound_to_the_questions() {
    let bench = asking();
    let account = |user| Question::Account(jam_core::ids::UserId::parse(user).expect("an id"));
    let snapshot = bench.directory().snapshot();
    let outdated: Answer = snapshot.answer(&account("1"));
    let of_no_use = [
        outdated,
        snapshot.answer(&Question::NotificationToken(
            jam_core::ids::UserId::parse("1").expect("an id"),
        )),
    ];
    // Everybody has been checked by what is newer.
    bench.directory().set_account("3", Some("new"));
    bench.recheck();
    for answer in of_no_use {
        let (mut connection, mut progress) = connecting(&bench, packets::connect("1:phone", V5));
        let mut asked = 0;
        while let Progress::Ask(_) = progress {
            asked += 1;
            assert!(asked <= 2 * u32::from(Answers::AT_MOST), "it asks for ever");
            progress = connection.resume(Ok(answer.clone()), bench.now());
        }
        assert_eq!(progress, Progress::Ready);
        assert_eq!(connack(&mut connection), 0x88);
    }
}

#[test]
fn the_fifth_answer_counts_and_no_further_one() {
    for (of_no_use, code) in [(4, 0x00), (5, 0x88)] {
        let bench = asking();
        let before = bench.directory().snapshot();
        // Everybody has been checked by what is newer.
        bench.directory().set_account("3", Some("new"));
        bench.recheck();
        let (mut connection, mut progress) = connecting(&bench, packets::connect("1:phone", V5));
        for _ in 0..of_no_use {
            let outdated = before.answer(&question(progress));
            progress = connection.resume(Ok(outdated), bench.now());
        }
        let good = bench.directory().answer(&question(progress));
        assert_eq!(connection.resume(good, bench.now()), Progress::Ready);
        assert_eq!(connack(&mut connection), code, "after {of_no_use}");
    }
}

/// Each was read before the change, and used after it.
#[test]
fn an_answer_that_comes_late_ends_nothing_of_what_is_newer() {
    let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
    bench.disk().expect("a disk").at_once(true);
    bench.directory().forget();
    let before = bench.directory().snapshot();
    bench.directory().set_account("1", Some("new"));
    let owner = bench.client("1:phone", V5);
    owner.connect_with(|connect| connect.password = Some("new".into()));
    bench.directory().answer_once_as(&before);
    bench.recheck_seeing(&before, false);
    assert!(!owner.is_closed());
    bench.directory().answer_once_as(&before);
    let thief = bench.client("1:thief", V5);
    let conn_ack = thief.try_connect(|_| ());
    assert_ne!(
        conn_ack.code,
        jam_wire::packet::ConnectCode::V5(jam_wire::ReasonCode::Success)
    );
    bench.pass(Duration::from_secs(1));
    assert!(!owner.is_closed());
}
