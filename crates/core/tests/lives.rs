//! An account that is gone takes everything with it, and an account that gets its id finds nothing of it (PROTOCOL.md,
//! section 6).

use std::time::Duration;

use jam_core::VANISHED_KEPT;
use jam_core::directory::{Life, Mark, NotificationToken};
use jam_testkit::client::lasting;
use jam_testkit::directory::Snapshot;
use jam_testkit::{Bench, Client, FakeDirectory, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{QoS, Version::V5};

/// A bench on which account 2 has mail, a session with a subscription, a retained message, and a will that waits.
fn lived() -> Bench {
    let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
    bench.disk().expect("a disk").at_once(true);
    let old = bench.client("2:phone", V5);
    old.connect_with(|connect| {
        lasting(connect);
        let mut will = packets::will("/1/inbox", r#"{"from":"2","content":"bye"}"#);
        will.qos = QoS::AtLeastOnce;
        will.delay_secs = Some(60);
        connect.will = Some(will);
    });
    old.subscribe_inbox();
    old.subscribe("/2/x", QoS::AtLeastOnce);
    let retained = |publish: &mut jam_wire::packet::Publish| publish.retain = true;
    let id = old.publish_with("/2/x", "secret", QoS::AtLeastOnce, retained);
    old.expect_accepted(QoS::AtLeastOnce, id);
    let own = old.expect_payload("/2/x", b"secret");
    old.ack(&own);
    old.drop_connection();
    let friend = bench.client("1:phone", V5);
    friend.connect();
    friend.write("2", "hello", QoS::AtLeastOnce);
    friend.write("2", "again", QoS::ExactlyOnce);
    friend.disconnect();
    bench
}

/// The account that now logs in as 2 finds nothing.
#[track_caller]
fn expect_nothing_left(bench: &Bench, device: &str) {
    let friend = bench.at_inbox("1:other", V5);
    let new = bench.client(&format!("2:{device}"), V5);
    let conn_ack = new.connect_with(lasting);
    assert!(!conn_ack.session_present);
    new.subscribe_inbox();
    new.subscribe("/2/x", QoS::AtLeastOnce);
    new.expect_nothing();
    bench.pass(Duration::from_secs(120));
    friend.expect_nothing();
    friend.write("2", "welcome", QoS::AtLeastOnce);
    new.read("1", "welcome");
    assert_eq!(bench.disk().expect("a disk").kept(), 0);
}

fn remove(bench: &Bench) {
    bench.directory().remove_account("2");
}

/// The same token, so that nothing but the life tells them apart.
fn add(bench: &Bench) {
    bench
        .directory()
        .set_account("2", Some(&packets::token("2")));
}

/// What may happen between the end of an account and the first use of the next.
const STORIES: [fn(&Bench); 7] = [
    |bench| {
        remove(bench);
        add(bench);
    },
    |bench| {
        remove(bench);
        bench.recheck();
        add(bench);
    },
    |bench| {
        remove(bench);
        add(bench);
        bench.recheck();
    },
    |bench| {
        remove(bench);
        bench.crash();
        add(bench);
        bench.crash();
    },
    |bench| {
        remove(bench);
        bench.crash();
        bench.recheck_that(true);
        add(bench);
    },
    |bench| {
        remove(bench);
        bench.recheck_that(true);
        bench.crash();
        bench.recheck();
        add(bench);
        bench.recheck();
    },
    |bench| {
        remove(bench);
        bench.recheck_that(true);
        bench.pass(VANISHED_KEPT);
        bench.recheck_that(true);
        assert_eq!(bench.disk().expect("a disk").kept(), 0);
        add(bench);
    },
];

#[test]
fn an_account_that_gets_an_id_again_finds_nothing_of_the_one_before() {
    for story in STORIES {
        for device in ["phone", "other"] {
            let bench = lived();
            story(&bench);
            expect_nothing_left(&bench, device);
        }
    }
}

/// What the second account has must be known as its own after a crash, or the third one would find it.
#[test]
fn so_does_the_one_after_that_whenever_the_server_is_killed() {
    let bench = lived();
    remove(&bench);
    add(&bench);
    let second = bench.client("2:second", V5);
    second.connect_with(lasting);
    second.subscribe_inbox();
    second.drop_connection();
    let friend = bench.client("1:phone", V5);
    friend.connect();
    friend.write("2", "for the second", QoS::AtLeastOnce);
    friend.disconnect();
    bench.crash();
    remove(&bench);
    add(&bench);
    expect_nothing_left(&bench, "third");
}

#[test]
fn what_is_published_to_the_next_account_does_not_join_the_mail_of_the_one_before() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for story in STORIES {
            let bench = lived();
            story(&bench);
            let friend = bench.client("1:phone", V5);
            friend.connect();
            friend.write("2", "first", qos);
            let new = bench.client("2:new", V5);
            new.connect_with(lasting);
            new.subscribe_inbox();
            new.read("1", "first");
            new.expect_nothing();
        }
    }
}

#[test]
fn an_account_that_vanishes_before_our_eyes_takes_everything_along_at_once() {
    let bench = lived();
    let there = bench.client("2:there", V5);
    there.connect_with(lasting);
    remove(&bench);
    bench.recheck();
    there.expect_ended(ReasonCode::NotAuthorized);
    let disk = bench.disk().expect("a disk");
    assert_eq!(disk.kept(), 0);
    assert!(disk.owners().is_empty(), "{:?}", disk.owners());
    bench.crash();
    assert_eq!(bench.router().known_users(), 0);
    assert_eq!(bench.router().pending_timers(), 0);
}

#[test]
fn what_comes_back_in_time_has_everything_still() {
    for crashes in [false, true] {
        let bench = lived();
        bench.directory().hide_account("2", true);
        bench.recheck_that(true);
        if crashes {
            bench.crash();
            bench.recheck_that(true);
        }
        bench.pass(Duration::from_secs(3600));
        // A commit to the wrong file changes nothing about it.
        bench.recheck();
        bench.directory().hide_account("2", false);
        bench.recheck();
        let old = bench.client("2:phone", V5);
        assert!(old.connect_with(lasting).session_present);
        old.expect_message("1", "hello");
    }
}

#[test]
fn a_new_token_an_address_or_a_name_is_no_new_life() {
    let mark = |n: u8| Some(n).filter(|n| *n != 0).map(|n| Mark::new([n; 8]));
    let life = |email, name, password, made_up| Life {
        email: mark(email),
        name: mark(name),
        password: mark(password),
        made_up,
    };
    let real = |email, name, password| life(email, name, password, false);
    let whole = real(1, 2, 9);
    for (before, now, same) in [
        (whole, whole, true),
        (whole, real(3, 2, 9), true),
        (whole, real(1, 3, 9), true),
        (whole, real(1, 2, 8), true),
        (whole, real(1, 0, 8), true),
        (whole, real(0, 2, 0), true),
        (whole, real(3, 4, 9), false),
        // An address is not a name.
        (whole, real(2, 1, 9), false),
        // Nothing of it is left, or nothing that tells.
        (whole, real(0, 0, 0), false),
        (whole, real(3, 0, 8), false),
        (whole, real(0, 0, 9), true),
        (whole, real(3, 0, 9), true),
        // Only one of the two, and a password.
        (real(0, 1, 9), real(0, 2, 9), true),
        (real(1, 0, 9), real(2, 0, 9), true),
        (real(1, 0, 9), real(0, 2, 9), true),
        (real(1, 0, 9), real(1, 0, 8), true),
        (real(1, 0, 9), real(2, 0, 8), false),
        (real(0, 1, 9), real(0, 2, 0), false),
        (real(0, 1, 0), real(0, 2, 0), true),
        (real(1, 0, 0), real(2, 0, 0), false),
        (real(1, 0, 0), real(0, 2, 0), false),
        (real(0, 0, 0), real(0, 0, 0), true),
        (real(0, 0, 0), real(1, 2, 9), true),
        (real(0, 0, 9), real(1, 2, 9), true),
        // Made up for one account, whatever else is the same.
        (life(1, 2, 9, true), life(1, 3, 8, true), true),
        (life(1, 2, 9, true), life(3, 2, 9, true), false),
        (life(1, 2, 9, true), real(3, 2, 8), true),
        (life(1, 0, 0, true), real(0, 0, 0), false),
        (whole, life(5, 2, 9, true), false),
        (real(0, 0, 0), life(5, 0, 0, true), false),
    ] {
        assert_eq!(before.goes_on_as(&now), same, "{before:?} {now:?}");
    }
}

#[test]
fn whoever_leaves_nothing_behind_is_forgotten() {
    let bench = lived();
    let old = bench.client("2:phone", V5);
    old.connect_with(lasting);
    for content in ["hello", "again"] {
        old.read("1", content);
    }
    old.publish_with("/2/x", "", QoS::AtLeastOnce, |publish| {
        publish.retain = true;
    });
    old.disconnect_with(|disconnect| disconnect.session_expiry_secs = Some(0));
    old.drop_connection();
    bench.run();
    assert!(bench.disk().expect("a disk").owners().is_empty());
    assert_eq!(bench.router().known_users(), 0);
}

/// The directory did not answer when the will was due, and the next account has the same token.
#[test]
fn a_will_that_waits_is_not_published_in_the_name_of_the_next_account() {
    for comes in [false, true] {
        let bench = Bench::on_disk(|_| ());
        let disk = bench.disk().expect("a disk");
        disk.at_once(true);
        let friend = bench.at_inbox("1:phone", V5);
        let old = bench.client("2:phone", V5);
        old.connect_with(|connect| {
            lasting(connect);
            let mut will = packets::will("/1/inbox", r#"{"from":"2","content":"bye"}"#);
            will.qos = QoS::AtLeastOnce;
            connect.will = Some(will);
        });
        bench.directory().forget();
        bench.directory().fail(true);
        old.drop_connection();
        friend.expect_nothing();
        bench.directory().fail(false);
        remove(&bench);
        add(&bench);
        if comes {
            bench.client("2:other", V5).connect();
        }
        bench.pass(Duration::from_secs(1));
        friend.expect_nothing();
        assert!(disk.is_empty());
    }
}

/// Another account 2, with a session that lasts and a message in it; and what the directory said before.
fn succeeded(bench: &Bench) -> (Snapshot, Client) {
    let before = bench.directory().snapshot();
    remove(bench);
    add(bench);
    let second = bench.client("2:second", V5);
    second.connect_with(lasting);
    second.subscribe_inbox();
    second.drop_connection();
    let friend = bench.client("1:phone", V5);
    friend.connect();
    friend.write("2", "for the second", QoS::AtLeastOnce);
    (before, friend)
}

#[track_caller]
fn expect_the_seconds(bench: &Bench, contents: &[&str]) {
    let second = bench.client("2:second", V5);
    assert!(second.connect_with(lasting).session_present);
    for content in contents {
        second.read("1", content);
    }
    second.expect_nothing();
}

#[test]
fn a_message_that_was_permitted_to_the_account_before_ends_nothing_of_the_next() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let bench = lived();
        let (before, friend) = succeeded(&bench);
        bench.directory().answer_once_as(&before);
        if qos == QoS::AtMostOnce {
            friend.write("2", "late", qos);
            expect_the_seconds(&bench, &["for the second"]);
        } else {
            friend.write("2", "late", qos);
            expect_the_seconds(&bench, &["for the second", "late"]);
        }
    }
}

/// The accounts change faster than the message gets on: by the fact that permitted it, and by those that it is judged by again.
#[test]
fn a_message_is_judged_three_times_at_most() {
    for outdated in [2, 3] {
        let bench = lived();
        let (before, friend) = succeeded(&bench);
        bench.directory().answer_as(&before, outdated);
        let id = friend.publish("/2/inbox", packets::message("1", "late"), QoS::AtLeastOnce);
        if outdated == 2 {
            friend.expect_accepted(QoS::AtLeastOnce, id);
            expect_the_seconds(&bench, &["for the second", "late"]);
        } else {
            friend.expect_refusal("friends", "fatal database error", id);
            let code = ReasonCode::ImplementationSpecificError;
            friend.expect_answered(QoS::AtLeastOnce, id, code);
            expect_the_seconds(&bench, &["for the second"]);
        }
    }
}

#[test]
fn a_message_that_was_permitted_to_the_account_before_does_not_reach_the_next_if_its_sender_is_no_friend()
 {
    let bench = lived();
    let (before, friend) = succeeded(&bench);
    bench.directory().forbid("1", "2");
    bench.directory().answer_once_as(&before);
    friend.publish("/2/inbox", r#"{"from":"1"}"#, QoS::AtLeastOnce);
    bench.run();
    expect_the_seconds(&bench, &["for the second"]);
}

#[test]
fn a_login_to_the_account_before_ends_nothing_of_the_next() {
    for unnoticed in [false, true] {
        let bench = lived();
        let before = bench.directory().snapshot();
        let change = |directory: &FakeDirectory| {
            directory.remove_account("2");
            directory.set_account("2", Some(&packets::token("2")));
        };
        if unnoticed {
            bench.directory().unnoticed(change);
        } else {
            change(bench.directory());
        }
        let second = bench.client("2:second", V5);
        second.connect_with(lasting);
        second.subscribe_inbox();
        let friend = bench.client("1:phone", V5);
        friend.connect();
        bench.directory().answer_once_as(&before);
        // The same token: with the newer account it is one more device.
        let late = bench.client("2:late", V5);
        late.connect_with(lasting);
        friend.write("2", "hello", QoS::AtLeastOnce);
        second.read("1", "hello");
        second.expect_nothing();
        late.drop_connection();
        second.drop_connection();
        expect_the_seconds(&bench, &[]);
    }
}

/// The wrong file was read, and the right one is back before that is acted upon.
#[test]
fn what_was_missing_when_it_was_read_and_is_there_again_stays() {
    let bench = lived();
    let (_, friend) = succeeded(&bench);
    bench.directory().hide_account("2", true);
    let wrong = bench.directory().snapshot();
    bench.directory().hide_account("2", false);
    bench.directory().forget();
    bench.recheck_seeing(&wrong, false);
    bench.directory().remember();
    friend.publish("/2/inbox", r#"{"from":"1"}"#, QoS::AtLeastOnce);
    bench.run();
    let second = bench.client("2:second", V5);
    assert!(second.connect_with(lasting).session_present);
}

#[test]
fn a_look_at_the_account_before_ends_nothing_of_the_next() {
    let stories: [fn(&Bench); 3] = [
        |_| (),
        |bench| remove(bench),
        |bench| bench.directory().set_account("2", Some("other")),
    ];
    for story in stories {
        for may_come_back in [false, true] {
            let bench = lived();
            story(&bench);
            let before = bench.directory().snapshot();
            remove(&bench);
            add(&bench);
            let second = bench.client("2:second", V5);
            second.connect_with(lasting);
            second.subscribe_inbox();
            bench.directory().answer_once_as(&before);
            bench.recheck_seeing(&before, may_come_back);
            let friend = bench.client("1:phone", V5);
            friend.connect();
            friend.write("2", "hello", QoS::AtLeastOnce);
            second.read("1", "hello");
            second.drop_connection();
            expect_the_seconds(&bench, &[]);
        }
    }
}

#[test]
fn a_will_that_is_judged_by_the_account_before_ends_nothing_of_the_next() {
    let bench = lived();
    let (before, friend) = succeeded(&bench);
    let dying = bench.client("2:dying", V5);
    dying.connect_with(|connect| {
        let mut will = packets::will("/1/inbox", r#"{"from":"2","content":"bye"}"#);
        will.qos = QoS::AtLeastOnce;
        connect.will = Some(will);
    });
    friend.subscribe_inbox();
    bench.directory().answer_once_as(&before);
    dying.drop_connection();
    bench.run();
    friend.expect_payload("/1/inbox", br#"{"from":"2","content":"bye"}"#);
    expect_the_seconds(&bench, &["for the second"]);
}

/// Another file stands in the place of the accounts database for a minute, and in it the id is somebody else's.
#[test]
fn what_another_account_was_found_for_by_mistake_is_there_again_with_the_right_one() {
    for crashes in [false, true] {
        let bench = lived();
        let right = bench.directory().life_of("2");
        bench.directory().set_life("2", right + 1);
        bench.recheck_that(true);
        // A commit to the wrong file, and a look at everybody an hour later.
        bench
            .directory()
            .set_notification("2", NotificationToken::Present);
        bench.recheck();
        if crashes {
            bench.crash();
            bench.recheck_that(true);
        }
        bench.pass(Duration::from_secs(3600));
        bench.recheck();
        bench.directory().set_life("2", right);
        bench.recheck();
        let old = bench.client("2:phone", V5);
        assert!(old.connect_with(lasting).session_present);
        old.read("1", "hello");
        old.read("1", "again");
    }
}

#[test]
fn what_another_account_was_found_for_is_removed_when_that_uses_its_id_or_after_a_day() {
    let uses: [fn(&Bench); 3] = [
        |bench| {
            bench.client("2:new", V5).connect();
        },
        |bench| {
            let friend = bench.client("1:phone", V5);
            friend.connect();
            friend.write("2", "welcome", QoS::AtLeastOnce);
            let new = bench.client("2:new", V5);
            new.connect();
            new.subscribe_inbox();
            new.read("1", "welcome");
            new.disconnect();
        },
        |bench| {
            bench.pass(VANISHED_KEPT);
            bench.recheck();
        },
    ];
    for using in uses {
        for crashes in [false, true] {
            let bench = lived();
            remove(&bench);
            add(&bench);
            bench.recheck_that(true);
            if crashes {
                bench.crash();
                bench.recheck_that(true);
            }
            assert_ne!(bench.disk().expect("a disk").kept(), 0);
            using(&bench);
            assert_eq!(bench.disk().expect("a disk").kept(), 0);
            expect_nothing_left(&bench, "other");
        }
    }
}

#[test]
fn a_look_at_an_account_that_was_missing_for_a_moment_ends_nothing() {
    let bench = lived();
    bench.directory().hide_account("2", true);
    let missing = bench.directory().snapshot();
    bench.directory().hide_account("2", false);
    let friend = bench.client("1:phone", V5);
    friend.connect();
    friend.write("2", "later", QoS::AtLeastOnce);
    bench.directory().answer_once_as(&missing);
    bench.recheck_seeing(&missing, false);
    let old = bench.client("2:phone", V5);
    assert!(old.connect_with(lasting).session_present);
    for content in ["hello", "again", "later"] {
        old.read("1", content);
    }
}

#[test]
fn what_was_read_before_an_account_was_found_missing_does_not_bring_it_back() {
    let bench = lived();
    let friend = bench.client("1:phone", V5);
    friend.connect();
    bench
        .directory()
        .set_notification("3", NotificationToken::Present);
    let before = bench.directory().snapshot();
    let life = bench.directory().life_of("2");
    bench.directory().set_life("2", life + 1);
    bench.directory().forbid("1", "2");
    bench.recheck_that(true);
    bench.directory().answer_once_as(&before);
    friend.publish("/2/inbox", r#"{"from":"1"}"#, QoS::AtLeastOnce);
    bench.recheck();
    bench.directory().set_life("2", life);
    bench.recheck();
    let old = bench.client("2:phone", V5);
    assert!(old.connect_with(lasting).session_present);
    old.read("1", "hello");
    old.read("1", "again");
    old.expect_nothing();
}

#[test]
fn the_day_of_what_is_hidden_does_not_begin_anew_with_a_restart() {
    let bench = lived();
    remove(&bench);
    bench.recheck_that(true);
    bench.pass(VANISHED_KEPT - Duration::from_secs(3600));
    bench.crash();
    bench.recheck_that(true);
    assert_ne!(bench.disk().expect("a disk").kept(), 0);
    bench.pass(Duration::from_secs(2 * 3600));
    bench.recheck();
    assert_eq!(bench.disk().expect("a disk").kept(), 0);
}

#[test]
fn a_mark_is_told_from_another_by_each_of_its_bytes() {
    for n in 0..Mark::LEN {
        let mut bytes = [1; Mark::LEN];
        bytes[n] = 3;
        let mark = Mark::new(bytes);
        assert_ne!(mark, Mark::new([1; Mark::LEN]));
        assert_eq!(mark.bytes(), bytes);
    }
}

/// What may be between the message and the account that gets its sender's id.
const SENDER_STORIES: [fn(&Bench); 4] = [
    |_| (),
    |bench| bench.recheck(),
    |bench| bench.crash(),
    |bench| {
        bench.recheck_that(true);
        bench.crash();
    },
];

/// Connects and subscribes to receipts, and leaves nothing behind when it goes.
fn at_receipts(bench: &Bench, client: &str) -> Client {
    let client = bench.client(client, V5);
    client.connect();
    client.subscribe(&format!("/{}/receipts", client.user()), QoS::AtLeastOnce);
    client
}

#[test]
fn a_receipt_is_not_for_the_account_that_has_the_senders_id_by_now() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for story in SENDER_STORIES {
            for is_same in [false, true] {
                let bench = Bench::on_disk(|_| ());
                bench.disk().expect("a disk").at_once(true);
                let old = bench.client("2:phone", V5);
                old.connect();
                old.write("1", "from the old one", qos);
                old.disconnect();
                let life = bench.directory().life_of("2");
                remove(&bench);
                story(&bench);
                add(&bench);
                if is_same {
                    bench.directory().set_life("2", life);
                }
                let new = at_receipts(&bench, "2:phone");
                let friend = bench.at_inbox("1:phone", V5);
                friend.read("2", "from the old one");
                if is_same {
                    new.ack(&new.expect_publish());
                }
                new.expect_nothing();
                new.write("1", "from the new one", qos);
                friend.read("2", "from the new one");
                new.ack(&new.expect_publish());
                new.expect_nothing();
            }
        }
    }
}

#[test]
fn nor_is_one_for_what_was_on_its_way_when_the_senders_account_ended() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let bench = Bench::on_disk(|_| ());
        bench.disk().expect("a disk").at_once(true);
        let friend = bench.at_inbox("1:phone", V5);
        let old = at_receipts(&bench, "2:phone");
        let id = old.publish("/1/inbox", packets::message("2", "hello"), qos);
        let on_its_way = friend.expect_message("2", "hello");
        bench.pass(Duration::from_secs(1));
        old.expect_accepted(qos, id);
        remove(&bench);
        add(&bench);
        bench.recheck();
        let new = at_receipts(&bench, "2:phone");
        friend.ack(&on_its_way);
        new.expect_nothing();
    }
}

/// The will is published in the name of the account that left it, as what that wrote itself.
#[test]
fn nor_for_the_will_of_the_account_before() {
    let bench = Bench::on_disk(|_| ());
    bench.disk().expect("a disk").at_once(true);
    let old = bench.client("2:phone", V5);
    old.connect_with(|connect| {
        let mut will = packets::will("/1/inbox", r#"{"from":"2","content":"bye","type":0}"#);
        will.qos = QoS::AtLeastOnce;
        connect.will = Some(will);
    });
    old.drop_connection();
    bench.pass(Duration::from_secs(1));
    remove(&bench);
    add(&bench);
    let new = at_receipts(&bench, "2:phone");
    let friend = bench.at_inbox("1:phone", V5);
    friend.read("2", "bye");
    new.expect_nothing();
}

#[test]
fn a_will_to_oneself_is_the_account_s_also_where_nothing_else_is() {
    let bench = Bench::on_disk(|_| ());
    bench.disk().expect("a disk").at_once(true);
    let will = r#"{"from":"2","content":"bye"}"#;
    let dying = bench.client("2:phone", V5);
    dying.connect_with(|connect| {
        let mut left = packets::will("/2/inbox", will);
        left.qos = QoS::AtLeastOnce;
        connect.will = Some(left);
    });
    dying.drop_connection();
    bench.run();
    bench.directory().hide_account("2", true);
    bench.recheck_that(true);
    bench.directory().hide_account("2", false);
    bench.recheck();
    let back = bench.client("2:phone", V5);
    back.connect();
    back.subscribe_inbox();
    back.expect_payload("/2/inbox", will.as_bytes());
}
