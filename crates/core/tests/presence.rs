//! PROTOCOL.md, section 10: what friends are told of each other's coming and going.

use std::time::{Duration, SystemTime};

use QoS::{AtLeastOnce, AtMostOnce};
use Version::{V3, V4, V5};
use jam_core::router::Rules;
use jam_core::{AWAY, MAX_EPHEMERAL};
use jam_testkit::{Bench, Client, packets};
use jam_wire::packet::{QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];
const SECOND: Duration = Duration::from_secs(1);

fn many(rules: &mut Rules) {
    rules.user.many_devices = true;
}

/// A device of user 1 that subscribes to presence.
fn watcher(bench: &Bench, version: Version) -> Client {
    let one = bench.client("1:phone", version);
    one.connect();
    one.subscribe("/1/presence", AtLeastOnce);
    one
}

fn friend(bench: &Bench) -> Client {
    let two = bench.client("2:phone", V4);
    two.connect();
    two
}

/// Expects to be told next, byte for byte, that a friend is online or is not, and that this is written now.
#[track_caller]
fn expect(bench: &Bench, one: &Client, friend: &str, online: bool) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(bench.now().as_millis());
    let now = humantime::format_rfc3339_millis(now);
    let expected =
        format!(r#"{{"type":"presence","user":"{friend}","online":{online},"timestamp":"{now}"}}"#);
    let topic = format!("/{}/presence", one.user());
    let publish = one.expect_payload(&topic, expected.as_bytes());
    assert_eq!((publish.qos, publish.retain), (AtMostOnce, false));
}

#[test]
fn who_does_not_subscribe_is_told_nothing() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = bench.at_inbox("1:phone", version);
        one.subscribe("/1/presence/", AtLeastOnce);
        one.subscribe("/1/presences", AtLeastOnce);
        let two = friend(&bench);
        two.subscribe("/2/presence", AtMostOnce);
        expect(&bench, &two, "1", true);
        one.expect_nothing();
        two.disconnect();
        bench.advance(AWAY * 2);
        one.expect_nothing();
    }
}

#[test]
fn a_friend_comes_and_goes() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = watcher(&bench, version);
        one.expect_nothing();
        let two = friend(&bench);
        expect(&bench, &one, "2", true);
        for leave in [Client::disconnect, Client::drop_connection] {
            leave(&two);
            bench.advance(AWAY - SECOND);
            one.expect_nothing();
            bench.advance(SECOND);
            expect(&bench, &one, "2", false);
            bench.advance(AWAY * 10);
            one.expect_nothing();
            two.connect();
            expect(&bench, &one, "2", true);
        }
        one.expect_nothing();
    }
}

#[test]
fn strangers_are_told_nothing_of_each_other() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    let three = bench.client("3:phone", V4);
    three.connect();
    three.subscribe("/3/presence", AtMostOnce);
    three.drop_connection();
    bench.advance(AWAY);
    one.expect_nothing();
    // A friendship has two sides.
    bench.directory().allow("3", "1");
    three.connect();
    three.subscribe("/3/presence", AtMostOnce);
    three.expect_nothing();
    one.subscribe("/1/presence", AtMostOnce);
    one.expect_nothing();
}

#[test]
fn who_has_blocked_a_user_is_not_seen_by_him() {
    let bench = Bench::new();
    let (one, two) = (watcher(&bench, V4), bench.client("2:phone", V4));
    bench.directory().block("2", "1", true);
    two.connect();
    one.subscribe("/1/presence", AtMostOnce);
    two.drop_connection();
    bench.advance(AWAY);
    one.expect_nothing();
    // The one who has blocked is told of the one who is blocked.
    two.connect();
    two.subscribe("/2/presence", AtMostOnce);
    expect(&bench, &two, "1", true);
    one.disconnect();
    bench.advance(AWAY);
    expect(&bench, &two, "1", false);
}

#[test]
fn a_block_counts_from_the_moment_it_is_made() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    // Between the coming and the telling.
    bench.tell(false);
    let two = friend(&bench);
    bench.directory().block("2", "1", true);
    bench.tell(true);
    one.expect_nothing();
    bench.directory().block("2", "1", false);
    one.expect_nothing();
    one.subscribe("/1/presence", AtMostOnce);
    expect(&bench, &one, "2", true);
    // Between the going and the telling.
    two.drop_connection();
    bench.advance(AWAY - SECOND);
    bench.directory().block("2", "1", true);
    bench.advance(AWAY);
    one.expect_nothing();
    // Between subscribing and the telling.
    bench.directory().block("2", "1", false);
    two.connect();
    expect(&bench, &one, "2", true);
    bench.tell(false);
    one.subscribe("/1/presence", AtMostOnce);
    bench.directory().block("2", "1", true);
    bench.tell(true);
    one.expect_nothing();
}

#[test]
fn a_reconnect_within_a_few_seconds_is_nobodys_business() {
    for lasting in [false, true] {
        let bench = Bench::new();
        let one = watcher(&bench, V4);
        let two = bench.client("2:phone", V5);
        let connect = |two: &Client| {
            if lasting {
                two.connect_lasting();
            } else {
                two.connect();
            }
        };
        connect(&two);
        expect(&bench, &one, "2", true);
        for _ in 0..20 {
            two.drop_connection();
            bench.advance(AWAY - SECOND);
            connect(&two);
            bench.pass(Duration::from_millis(300));
        }
        one.expect_nothing();
        // The time that counts is that of the last departure.
        two.drop_connection();
        bench.pass(AWAY - Duration::from_millis(1));
        one.expect_nothing();
        bench.pass(Duration::from_millis(1));
        expect(&bench, &one, "2", false);
    }
}

#[test]
fn a_takeover_and_a_new_device_are_no_coming_and_no_going() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    let two = bench.client("2:phone", V4);
    two.connect();
    expect(&bench, &one, "2", true);
    let again = bench.client("2:phone", V4);
    again.connect();
    let new = bench.client("2:new", V4);
    new.connect();
    bench.advance(AWAY * 2);
    one.expect_nothing();
    new.disconnect();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
}

#[test]
fn online_is_to_have_one_device_connected() {
    let bench = Bench::with(many);
    let one = watcher(&bench, V4);
    let two = friend(&bench);
    expect(&bench, &one, "2", true);
    let tablet = bench.client("2:tablet", V4);
    tablet.connect();
    two.disconnect();
    bench.advance(AWAY * 2);
    one.expect_nothing();
    tablet.disconnect();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
}

#[test]
fn whoever_subscribes_is_told_who_is_there() {
    for version in VERSIONS {
        let bench = Bench::new();
        for user in ["4", "5", "6", "7"] {
            bench
                .directory()
                .set_account(user, Some(&packets::token(user)));
        }
        ["4", "5", "6"]
            .iter()
            .for_each(|user| bench.directory().befriend("1", user));
        let clients = ["2:a", "5:a", "6:a", "7:a"].map(|id| bench.client(id, V4));
        clients.iter().for_each(|client| drop(client.connect()));
        clients[2].drop_connection();
        bench.directory().block("5", "1", true);
        let one = watcher(&bench, version);
        expect(&bench, &one, "2", true);
        one.expect_nothing();
        // Once more for every SUBSCRIBE.
        one.subscribe("/1/presence", AtMostOnce);
        expect(&bench, &one, "2", true);
        one.expect_nothing();
        one.subscribe("/1/other", AtMostOnce);
        one.expect_nothing();
        one.unsubscribe("/1/presence");
        clients[2].connect();
        one.expect_nothing();
        one.subscribe("/1/presence", AtMostOnce);
        expect(&bench, &one, "2", true);
        expect(&bench, &one, "6", true);
        one.expect_nothing();
    }
}

#[test]
fn a_friend_who_comes_while_one_subscribes_is_told_of_once() {
    for friend_first in [true, false] {
        let bench = Bench::new();
        let (watching, one) = (bench.client("2:watches", V4), bench.client("1:phone", V4));
        watching.connect();
        watching.subscribe("/2/presence", AtMostOnce);
        watching.drop_connection();
        bench.directory().befriend("1", "3");
        let three = bench.client("3:phone", V4);
        three.connect();
        three.subscribe("/3/presence", AtMostOnce);
        bench.tell(false);
        let two = bench.client("2:phone", V4);
        if friend_first {
            two.connect();
        }
        one.connect();
        one.subscribe("/1/presence", AtMostOnce);
        if !friend_first {
            two.connect();
        }
        one.expect_nothing();
        bench.tell(true);
        let mut told = Vec::new();
        while let Some(jam_wire::packet::Packet::Publish(publish)) = one.next() {
            told.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        }
        told.sort();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains(r#""user":"2","online":true"#), "{told:?}");
        assert!(told[1].contains(r#""user":"3","online":true"#), "{told:?}");
    }
}

#[test]
fn who_is_gone_before_anybody_was_told_was_never_there() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    bench.tell(false);
    let two = friend(&bench);
    two.drop_connection();
    bench.tell(true);
    bench.advance(AWAY * 2);
    one.expect_nothing();
    // And who is back before anybody was told has never gone.
    two.connect();
    expect(&bench, &one, "2", true);
    bench.tell(false);
    two.drop_connection();
    bench.advance(AWAY * 2);
    two.connect();
    bench.tell(true);
    one.expect_nothing();
    two.drop_connection();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
    one.expect_nothing();
}

#[test]
fn who_has_just_left_counts_as_there() {
    let bench = Bench::new();
    let two = friend(&bench);
    let one = watcher(&bench, V4);
    expect(&bench, &one, "2", true);
    two.drop_connection();
    bench.advance(SECOND);
    // Or the friend's return within the few seconds would tell nobody.
    one.subscribe("/1/presence", AtMostOnce);
    expect(&bench, &one, "2", true);
    two.connect();
    bench.advance(AWAY * 2);
    one.expect_nothing();
}

#[test]
fn a_friend_who_left_when_nobody_cared_is_told_of_when_he_is_back() {
    let bench = Bench::new();
    let two = friend(&bench);
    two.drop_connection();
    assert_eq!(bench.router().pending_timers(), 0);
    let one = watcher(&bench, V4);
    one.expect_nothing();
    two.connect();
    expect(&bench, &one, "2", true);
}

#[test]
fn each_device_is_told_when_it_subscribes_and_the_others_are_not() {
    let bench = Bench::with(many);
    let one = watcher(&bench, V4);
    let two = friend(&bench);
    expect(&bench, &one, "2", true);
    let tablet = bench.client("1:tablet", V5);
    tablet.connect();
    tablet.expect_nothing();
    tablet.subscribe("/1/presence", AtMostOnce);
    expect(&bench, &tablet, "2", true);
    one.expect_nothing();
    two.disconnect();
    bench.advance(AWAY);
    expect(&bench, &tablet, "2", false);
    expect(&bench, &one, "2", false);
}

#[test]
fn who_is_away_misses_it() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect_lasting();
    one.subscribe("/1/presence", AtLeastOnce);
    one.drop_connection();
    let two = friend(&bench);
    one.connect_lasting();
    one.expect_nothing();
    two.disconnect();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
    assert_eq!(bench.store().appended(), 0);
}

#[test]
fn a_directory_that_fails_tells_nobody_anything() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    bench.directory().fail(true);
    let two = friend(&bench);
    one.subscribe("/1/presence", AtMostOnce);
    one.expect_nothing();
    bench.directory().fail(false);
    two.disconnect();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
}

#[test]
fn after_a_start_everybody_is_offline() {
    let bench = Bench::on_disk(|_| ());
    bench.disk().unwrap().at_once(true);
    let one = bench.client("1:phone", V5);
    one.connect_lasting();
    one.subscribe("/1/presence", AtMostOnce);
    let two = bench.client("2:phone", V5);
    two.connect_lasting();
    expect(&bench, &one, "2", true);
    bench.crash();
    assert_eq!(bench.router().presence_listeners(), 1);
    one.connect_lasting();
    bench.advance(AWAY * 2);
    one.expect_nothing();
    two.connect_lasting();
    expect(&bench, &one, "2", true);
}

#[test]
fn whose_token_is_no_longer_good_goes_too() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    friend(&bench);
    expect(&bench, &one, "2", true);
    bench.directory().set_account("2", Some("another"));
    bench.recheck();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
}

#[test]
fn nobody_is_remembered_for_the_sake_of_presence() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    let two = friend(&bench);
    assert_eq!(bench.router().known_users(), 2);
    two.disconnect();
    assert_eq!(bench.router().known_users(), 2);
    assert_eq!(bench.router().pending_timers(), 1);
    bench.advance(AWAY);
    assert_eq!(bench.router().known_users(), 1);
    assert_eq!(bench.router().pending_timers(), 0);
    assert_eq!(bench.router().presence_listeners(), 1);
    one.disconnect();
    bench.advance(AWAY);
    assert_eq!(bench.router().known_users(), 0);
    assert_eq!(bench.router().presence_listeners(), 0);
}

#[test]
fn who_comes_and_goes_all_the_time_is_noted_once() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    bench.tell(false);
    let two = bench.client("2:phone", V4);
    for _ in 0..100 {
        two.connect();
        two.drop_connection();
    }
    assert!(bench.router().pending_timers() <= 1);
    two.connect();
    bench.tell(true);
    expect(&bench, &one, "2", true);
    one.expect_nothing();
    for _ in 0..100 {
        two.drop_connection();
        two.connect();
    }
    assert_eq!(bench.router().pending_timers(), 1);
}

#[test]
fn who_does_not_read_is_told_no_more_than_there_is_room_for() {
    let bench = Bench::new();
    let one = watcher(&bench, V4);
    one.set_reading(false);
    let two = friend(&bench);
    for _ in 0..2 * MAX_EPHEMERAL {
        two.drop_connection();
        bench.pass(AWAY);
        two.connect();
    }
    one.set_reading(true);
    let mut count = 0;
    while one.next().is_some() {
        count += 1;
    }
    // What had been encoded when it stopped reading comes besides.
    assert!(
        (MAX_EPHEMERAL..4 * MAX_EPHEMERAL).contains(&count),
        "{count}"
    );
    two.drop_connection();
    bench.advance(AWAY);
    expect(&bench, &one, "2", false);
}

#[test]
fn users_may_write_to_the_channel_themselves() {
    let bench = Bench::with(many);
    let one = watcher(&bench, V4);
    let tablet = bench.client("1:tablet", V4);
    tablet.connect();
    let id = tablet.publish("/1/presence", "x", AtLeastOnce);
    tablet.expect_accepted(AtLeastOnce, id);
    assert_eq!(one.expect_payload("/1/presence", b"x").qos, AtLeastOnce);
}
