//! PROTOCOL.md, section 7, items 2, 3, 4, 6 and 7, as far as memory goes: whose a message is.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::router::Rules;
use jam_testkit::{Bench, Client, packets};
use jam_wire::packet::{QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];
const DAY: Duration = Duration::from_secs(24 * 3600);

fn many(rules: &mut Rules) {
    rules.user.many_devices = true;
}

/// A device of user 2 with a lasting session that reads the inbox.
fn device(bench: &Bench, name: &str) -> Client {
    let client = bench.client(&format!("2:{name}"), V5);
    client.connect_lasting();
    client.subscribe_inbox();
    client
}

/// A friend of user 2 who writes.
fn writer(bench: &Bench) -> Client {
    let one = bench.client("1:phone", V4);
    one.connect();
    one
}

#[test]
fn a_user_who_never_connected_finds_his_mail() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = writer(&bench);
        for (content, qos) in [("a", AtLeastOnce), ("b", ExactlyOnce), ("c", AtLeastOnce)] {
            one.write("2", content, qos);
        }
        one.write("2", "not kept", AtMostOnce);
        bench.pass(DAY * 20);
        let two = bench.client("2:phone", version);
        two.connect();
        two.expect_nothing();
        two.subscribe("/2/inbox", ExactlyOnce);
        let mail = ["a", "b", "c"].map(|content| two.expect_message("1", content));
        two.expect_nothing();
        mail.iter().for_each(|publish| two.acknowledge(publish));
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn mail_is_not_kept_beyond_its_age() {
    let bench = Bench::new();
    let one = writer(&bench);
    one.write("2", "old", AtLeastOnce);
    bench.pass(DAY * 30);
    one.write("2", "new", AtLeastOnce);
    let two = bench.at_inbox("2:phone", V4);
    two.read("1", "new");
    two.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn a_clean_session_leaves_its_mail_to_the_next_one() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = writer(&bench);
        let two = bench.at_inbox("2:phone", version);
        one.write("2", "seen, not acknowledged", AtLeastOnce);
        two.expect_message("1", "seen, not acknowledged");
        two.drop_connection();
        one.write("2", "while away", AtLeastOnce);
        two.connect();
        two.subscribe_inbox();
        two.read("1", "seen, not acknowledged");
        two.read("1", "while away");
        two.expect_nothing();
    }
}

#[test]
fn a_new_phone_gets_what_the_old_one_has_not_acknowledged() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = writer(&bench);
        let old = bench.client("2:old", version);
        old.connect_lasting();
        old.subscribe_inbox();
        for content in ["a", "b", "c"] {
            one.write("2", content, AtLeastOnce);
        }
        old.expect_message("1", "a");
        old.read("1", "b");
        old.drop_connection();
        one.write("2", "d", AtLeastOnce);
        let new = bench.client("2:new", version);
        new.connect_lasting();
        new.expect_nothing();
        new.subscribe_inbox();
        ["a", "c", "d"]
            .iter()
            .for_each(|content| new.read("1", content));
        new.expect_nothing();
        old.connect_lasting();
        old.subscribe_inbox();
        old.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn what_the_old_phone_had_in_hand_is_still_acknowledged_while_both_are_there() {
    let bench = Bench::new();
    let one = writer(&bench);
    let old = bench.at_inbox("2:old", V4);
    one.write("2", "a", AtLeastOnce);
    let publish = old.expect_message("1", "a");
    let new = bench.at_inbox("2:new", V4);
    // The old phone's acknowledgement comes too late: it has been logged out.
    old.next();
    old.ack(&publish);
    new.read("1", "a");
}

#[test]
fn nothing_is_doubled_or_turned_round_while_connections_hold() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = writer(&bench);
        let two = bench.client("2:phone", version);
        two.connect();
        two.subscribe("/2/inbox", ExactlyOnce);
        for n in 0..200 {
            let qos = QoS::from_bits(n % 3).unwrap();
            if n % 7 == 0 {
                two.subscribe("/2/x", AtMostOnce);
            }
            one.write("2", &n.to_string(), qos);
            two.read("1", &n.to_string());
            if n % 5 == 0 {
                two.subscribe("/2/inbox", ExactlyOnce);
            }
        }
        two.expect_nothing();
    }
}

#[test]
fn each_device_gets_each_message_once() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let (a, b) = (device(&bench, "a"), device(&bench, "b"));
    let deaf = bench.client("2:deaf", V4);
    deaf.connect_lasting();
    one.write("2", "x", AtLeastOnce);
    b.drop_connection();
    one.write("2", "y", AtLeastOnce);
    a.read("1", "x");
    a.read("1", "y");
    a.expect_nothing();
    assert_eq!(bench.store().kept(), 2);
    b.connect_lasting();
    let x = b.expect_again("1", "x");
    b.read("1", "y");
    assert_eq!(bench.store().kept(), 1);
    b.ack(&x);
    assert_eq!(bench.store().kept(), 0);
    deaf.expect_nothing();
    // What has left does not come to who subscribes now.
    deaf.subscribe_inbox();
    deaf.expect_nothing();
}

#[test]
fn an_own_inbox_reaches_the_other_devices() {
    let bench = Bench::with(many);
    let (a, b) = (device(&bench, "a"), device(&bench, "b"));
    let id = a.publish("/2/inbox", packets::message("2", "sent mail"), AtLeastOnce);
    a.read("2", "sent mail");
    b.read("2", "sent mail");
    a.expect_accepted(AtLeastOnce, id);
}

#[test]
fn a_device_that_stays_away_too_long_no_longer_counts() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let (a, b) = (device(&bench, "a"), device(&bench, "b"));
    b.drop_connection();
    one.write("2", "x", AtLeastOnce);
    a.read("1", "x");
    bench.pass(DAY - Duration::from_millis(1));
    assert_eq!(bench.store().kept(), 1);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.store().kept(), 0);
    b.connect_lasting();
    b.subscribe_inbox();
    b.expect_nothing();
}

#[test]
fn a_device_that_never_acknowledged_hands_over() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let a = device(&bench, "a");
    one.write("2", "x", AtLeastOnce);
    a.expect_message("1", "x");
    a.drop_connection();
    one.write("2", "y", AtLeastOnce);
    // Not b's as long as a may come back for it; then b's, at once.
    let b = device(&bench, "b");
    b.expect_nothing();
    one.write("2", "z", AtLeastOnce);
    b.read("1", "z");
    bench.pass(DAY);
    b.read("1", "x");
    b.read("1", "y");
    b.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn the_last_device_s_mail_waits_for_the_next_one() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let (a, b) = (device(&bench, "a"), device(&bench, "b"));
    one.write("2", "x", AtLeastOnce);
    for client in [&a, &b] {
        client.drop_connection();
    }
    bench.pass(DAY);
    assert_eq!(bench.store().kept(), 1);
    let c = device(&bench, "c");
    c.read("1", "x");
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn unsubscribing_hands_over_what_was_not_sent() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let a = device(&bench, "a");
    (0..12).for_each(|n| one.write("2", &n.to_string(), AtLeastOnce));
    let sent: Vec<_> = (0..10)
        .map(|n| a.expect_message("1", &n.to_string()))
        .collect();
    let b = device(&bench, "b");
    b.expect_nothing();
    a.unsubscribe("/2/inbox");
    b.read("1", "10");
    b.read("1", "11");
    b.expect_nothing();
    sent.iter().for_each(|publish| a.ack(publish));
    a.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn each_device_has_its_own_window_and_pace() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let (fast, slow) = (device(&bench, "fast"), device(&bench, "slow"));
    for n in 0..30 {
        one.write("2", &n.to_string(), AtLeastOnce);
        fast.read("1", &n.to_string());
    }
    assert_eq!(bench.store().kept(), 30);
    for n in 0..30 {
        slow.read("1", &n.to_string());
    }
    slow.expect_nothing();
    fast.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn places_of_devices_are_used_again_and_clean() {
    let bench = Bench::with(many);
    let one = writer(&bench);
    let keeper = device(&bench, "keeper");
    for n in 0..100 {
        let guest = bench.at_inbox(&format!("2:{n}"), V4);
        one.write("2", &n.to_string(), AtLeastOnce);
        guest.expect_message("1", &n.to_string());
        guest.drop_connection();
        keeper.read("1", &n.to_string());
        keeper.expect_nothing();
    }
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn two_senders_each_keep_their_order() {
    let bench = Bench::new();
    bench.directory().befriend("2", "3");
    let senders = ["1:phone", "3:phone"].map(|id| bench.client(id, V4));
    senders.iter().for_each(|sender| drop(sender.connect()));
    for n in 0..20 {
        senders[n % 2].write("2", &n.to_string(), AtLeastOnce);
    }
    let two = bench.at_inbox("2:phone", V4);
    for n in 0..20 {
        two.read(["1", "3"][n % 2], &n.to_string());
    }
}

#[test]
fn mail_for_a_qos_0_subscription_is_sent_and_done_with() {
    let bench = Bench::new();
    let one = writer(&bench);
    one.write("2", "kept", ExactlyOnce);
    let two = bench.client("2:phone", V4);
    two.connect_lasting();
    two.subscribe("/2/inbox", AtMostOnce);
    assert_eq!(two.expect_message("1", "kept").qos, AtMostOnce);
    two.drop_connection();
    one.write("2", "while away", AtLeastOnce);
    two.connect_lasting();
    two.read("1", "while away");
    two.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn with_no_local_the_own_inbox_is_for_the_other_devices() {
    let bench = Bench::with(many);
    let a = bench.client("2:a", V5);
    a.connect();
    let mut filter = packets::filter("/2/inbox", AtLeastOnce);
    filter.no_local = true;
    a.subscribe_with(vec![filter]);
    let id = a.publish("/2/inbox", packets::message("2", "mine"), AtLeastOnce);
    a.expect_accepted(AtLeastOnce, id);
    a.expect_nothing();
    let b = device(&bench, "b");
    b.read("2", "mine");
    a.expect_nothing();
}

#[test]
fn what_has_expired_does_not_come_within_its_last_second_either() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect();
    for millis in [1, 300, 999] {
        let message = packets::message("1", "late");
        let id = one.publish_with("/2/inbox", message, AtLeastOnce, |publish| {
            publish
                .properties
                .get_or_insert_default()
                .message_expiry_secs = Some(2);
        });
        one.expect_accepted(AtLeastOnce, id);
        bench.pass(Duration::from_millis(2000 + millis));
        let two = bench.at_inbox("2:phone", V5);
        two.expect_nothing();
        two.disconnect();
    }
    assert_eq!(bench.store().kept(), 0);
}

/// Not within a second of another one either.
#[test]
fn what_expires_leaves_the_store_at_its_time() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect();
    for content in ["first", "half a second later"] {
        let message = packets::message("1", content);
        let id = one.publish_with("/2/inbox", message, AtLeastOnce, |publish| {
            publish
                .properties
                .get_or_insert_default()
                .message_expiry_secs = Some(2);
        });
        one.expect_accepted(AtLeastOnce, id);
        bench.pass(Duration::from_millis(500));
    }
    bench.pass(Duration::from_millis(1001));
    assert_eq!(bench.store().kept(), 1);
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.store().kept(), 0);
}
