//! Clocks that are wrong, step and stop (docs/adr/0014): nothing that was acknowledged goes because of one that is not
//! to be trusted, what has passed unseen counts, and nobody is silent who could not speak.

use std::time::Duration;

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::packet::{Publish, QoS, Version};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MILLIS: i64 = 3_600_000;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;

/// Publishes at QoS 1 a message that expires after so many seconds.
fn write_expiring(one: &Client, content: &str, secs: u32) {
    let change = |publish: &mut Publish| {
        publish
            .properties
            .get_or_insert_default()
            .message_expiry_secs = Some(secs);
    };
    let payload = packets::message("1", content);
    let id = one.publish_with("/2/inbox", payload, AtLeastOnce, change);
    one.expect_accepted(AtLeastOnce, id);
}

/// User 1, connected; user 2 is away with a session of a day, has a message without expiry and one of a day, and
/// user 1 a retained one.
fn acknowledged(bench: &Bench) -> Client {
    let two = bench.client("2:phone", V5);
    two.connect_lasting();
    two.subscribe_inbox();
    two.drop_connection();
    let one = bench.client("1:phone", V5);
    one.connect_lasting();
    one.write("2", "a", AtLeastOnce);
    write_expiring(&one, "b", 24 * 3600);
    let id = one.publish_with("/1/own", "kept", AtLeastOnce, |publish| {
        publish.retain = true;
    });
    one.expect_accepted(AtLeastOnce, id);
    if let Some(disk) = bench.disk() {
        while disk.flush() {
            bench.run();
        }
    }
    one
}

/// All of it is there.
#[track_caller]
fn assert_nothing_lost(bench: &Bench) {
    let two = bench.client("2:phone", V5);
    assert!(two.connect_lasting().session_present);
    two.read("1", "a");
    two.read("1", "b");
    let one = bench.client("1:other", V5);
    one.connect();
    one.subscribe("/1/own", AtLeastOnce);
    one.expect_payload("/1/own", b"kept");
}

#[test]
fn a_running_server_loses_nothing_by_a_step_of_the_wall_clock() {
    for days in [-400, -31, -1, 2, 31, 400] {
        let bench = Bench::new();
        acknowledged(&bench);
        bench.step_wall_clock(days * DAY_MILLIS);
        bench.advance(10 * SECOND);
        bench.step_wall_clock(-days * DAY_MILLIS);
        bench.advance(10 * SECOND);
        assert_nothing_lost(&bench);
    }
}

#[test]
fn a_start_with_another_wall_clock_loses_nothing() {
    for days in [-400, -40, 40, 400] {
        for steps_while_it_runs in [false, true] {
            let bench = Bench::on_disk(|_| ());
            bench.disk().unwrap().at_once(true);
            acknowledged(&bench);
            bench.step_wall_clock(days * DAY_MILLIS);
            if steps_while_it_runs {
                bench.advance(2 * SECOND);
            }
            bench.crash();
            bench.advance(2 * SECOND);
            bench.step_wall_clock(-days * DAY_MILLIS);
            bench.crash();
            assert_nothing_lost(&bench);
        }
    }
}

#[test]
fn what_expires_still_expires_whatever_the_wall_clock_does() {
    for days in [-400, 400] {
        let bench = Bench::new();
        acknowledged(&bench);
        bench.step_wall_clock(days * DAY_MILLIS);
        bench.advance(24 * HOUR + SECOND);
        let two = bench.client("2:phone", V5);
        assert!(!two.connect_lasting().session_present);
        two.subscribe_inbox();
        two.read("1", "a");
        two.expect_nothing();
    }
}

#[test]
fn stamps_are_the_wall_clocks_from_its_step_on() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect();
    one.subscribe("/1/receipts", AtLeastOnce);
    one.subscribe("/1/presence", AtLeastOnce);
    for millis in [0, 40 * DAY_MILLIS, -80 * DAY_MILLIS, 90_000] {
        bench.step_wall_clock(millis);
        bench.advance(SECOND);
        let two = bench.at_inbox("2:phone", V4);
        let stamp = bench.wall_clock().to_string();
        let presence = one.expect_publish();
        assert!(
            text(&presence).contains(&stamp),
            "{stamp}: {}",
            text(&presence)
        );
        one.write("2", "hello", AtLeastOnce);
        two.read("1", "hello");
        let receipt = one.expect_publish();
        assert!(
            text(&receipt).contains(&stamp),
            "{stamp}: {}",
            text(&receipt)
        );
        one.ack(&receipt);
        two.drop_connection();
        bench.advance(jam_core::AWAY + SECOND);
        one.expect_publish();
    }
}

fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).expect("JSON")
}

#[test]
fn what_has_passed_while_the_machine_slept_counts() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect();
    let watcher = bench.at_inbox("2:phone", V5);
    watcher.drop_connection();
    let short = bench.client("2:tablet", V5);
    short.connect_with(|connect| {
        connect.properties.session_expiry_secs = Some(3600);
        let mut will = packets::will(
            "/2/inbox",
            &String::from_utf8_lossy(&packets::message("2", "gone")),
        );
        will.qos = ExactlyOnce;
        will.delay_secs = Some(1800);
        connect.will = Some(will);
    });
    short.subscribe_inbox();
    short.drop_connection();
    write_expiring(&one, "old", 3600);
    one.write("2", "young", AtLeastOnce);
    bench.sleep(10 * HOUR);
    let again = bench.client("2:tablet", V5);
    assert!(!again.connect_lasting().session_present);
    again.subscribe_inbox();
    again.read("1", "young");
    again.expect_message("2", "gone");
}

#[test]
fn nobody_is_cut_because_the_machine_slept_or_the_clock_was_set() {
    let sleep = |bench: &Bench| bench.sleep(10 * HOUR);
    let step = |bench: &Bench| bench.step_wall_clock(10 * HOUR_MILLIS);
    for skip in [&sleep as &dyn Fn(&Bench), &step] {
        let bench = Bench::new();
        let newcomer = bench.client("2:phone", V4);
        newcomer.open();
        let one = bench.client("1:phone", V4);
        one.connect_with(|connect| {
            lasting(connect);
            connect.keep_alive_secs = 10;
        });
        bench.advance(5 * SECOND);
        skip(&bench);
        // It has what it had left, and no more.
        bench.advance(4 * SECOND);
        assert!(one.is_open() && newcomer.is_open());
        bench.advance(2 * SECOND);
        assert!(newcomer.is_closed() && one.is_open());
        bench.advance(5 * SECOND);
        assert!(one.is_closed());
    }
}

#[test]
fn what_would_expire_can_be_said() {
    let bench = Bench::new();
    acknowledged(&bench).drop_connection();
    let now = bench.now();
    let outlook = bench.router().outlook(now, now + 24 * HOUR - 2 * SECOND);
    assert_eq!(outlook, jam_core::router::Outlook::default());
    let outlook = bench.router().outlook(now, now + 24 * HOUR + 2 * SECOND);
    assert_eq!(
        (outlook.messages, outlook.sessions, outlook.retained),
        (1, 2, 0)
    );
    let outlook = bench.router().outlook(now, now + 31 * 24 * HOUR);
    assert_eq!((outlook.messages, outlook.sessions), (2, 2));
}
