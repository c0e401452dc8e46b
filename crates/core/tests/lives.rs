//! An account that is gone takes everything with it, and an account that gets its id finds nothing of it (PROTOCOL.md,
//! section 6).

use std::time::Duration;

use jam_core::VANISHED_KEPT;
use jam_testkit::client::lasting;
use jam_testkit::{Bench, packets};
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

/// Whoever logs in as 2 finds nothing.
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
    let mark = |n| Some(jam_core::directory::Mark::new([n; 8]));
    let life = |email, name, made_up| jam_core::directory::Life {
        email,
        name,
        made_up,
    };
    let whole = life(mark(1), mark(2), false);
    for (now, same) in [
        (life(mark(1), mark(2), false), true),
        (life(mark(3), mark(2), false), true),
        (life(mark(1), mark(3), false), true),
        (life(mark(1), None, false), true),
        (life(None, None, false), true),
        (life(mark(3), mark(4), false), false),
        (life(mark(2), mark(1), false), false),
        (life(mark(5), mark(2), true), false),
    ] {
        assert_eq!(whole.goes_on_as(&now), same, "{now:?}");
    }
    // Only one of the two, and that may have been changed.
    assert!(life(None, mark(1), false).goes_on_as(&life(None, mark(2), false)));
    assert!(life(mark(1), None, false).goes_on_as(&life(mark(2), None, false)));
    assert!(!life(None, mark(1), false).goes_on_as(&life(mark(2), None, false)));
    assert!(!life(mark(1), mark(2), false).goes_on_as(&life(mark(3), None, false)));
    let made_up = life(mark(1), mark(2), true);
    assert!(made_up.goes_on_as(&made_up));
    assert!(!made_up.goes_on_as(&life(mark(3), mark(2), true)));
    assert!(
        made_up.goes_on_as(&life(mark(3), mark(2), false)),
        "a real address"
    );
    assert!(!life(None, None, false).goes_on_as(&made_up));
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
