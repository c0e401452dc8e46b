//! PROTOCOL.md, section 10: what users are told of who their friends are.

use std::time::{Duration, SystemTime};

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::friends::{PART_BYTES, PART_FRIENDS};
use jam_core::output::OUTPUT_ENOUGH;
use jam_core::router::{REST, Rules};
use jam_core::{MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Packet, Publish, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];

/// In which whatever is to be told is told.
const SECOND: Duration = Duration::from_secs(1);

fn many(rules: &mut Rules) {
    rules.user.many_devices = true;
}

/// A device of user 1 that subscribes to the friends, and has been told nothing yet.
fn asking(bench: &Bench, version: Version) -> Client {
    let one = bench.client("1:phone", version);
    one.connect();
    one.subscribe("/1/friends", AtLeastOnce);
    one
}

/// A device of user 1 that has been told of its friends.
fn watcher(bench: &Bench, version: Version) -> Client {
    let one = asking(bench, version);
    drop(list(&one));
    one.expect_nothing();
    one
}

/// The JSON of a friend without name and key.
fn friend(user: &str, blocked: bool) -> String {
    format!(r#"{{"user":"{user}","name":null,"blocked":{blocked},"publicKey":null}}"#)
}

/// Expects a list next, byte for byte, in one part that is written now.
#[track_caller]
fn expect(bench: &Bench, one: &Client, friends: &[String]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(bench.now().as_millis());
    let now = humantime::format_rfc3339_millis(now);
    let friends = friends.join(",");
    let expected = format!(
        r#"{{"type":"friends","friends":[{friends}],"part":1,"parts":1,"timestamp":"{now}"}}"#
    );
    let topic = format!("/{}/friends", one.user());
    let publish = one.expect_payload(&topic, expected.as_bytes());
    assert_eq!((publish.qos, publish.retain), (AtMostOnce, false));
}

/// The parts of the next list.
#[track_caller]
fn parts(one: &Client) -> Vec<(Publish, serde_json::Value)> {
    let mut found: Vec<(Publish, serde_json::Value)> = Vec::new();
    loop {
        let publish = one.expect_publish();
        assert_eq!(publish.topic, format!("/{}/friends", one.user()));
        let part: serde_json::Value = serde_json::from_slice(&publish.payload).expect("JSON");
        let parts = part["parts"].as_u64().expect("a number");
        assert_eq!(
            part["part"].as_u64().expect("a number"),
            found.len() as u64 + 1
        );
        if let Some((_, first)) = found.first() {
            assert_eq!(
                (&part["parts"], &part["timestamp"]),
                (&first["parts"], &first["timestamp"])
            );
        }
        found.push((publish, part));
        if found.len() as u64 == parts {
            return found;
        }
    }
}

/// The ids in the next list.
#[track_caller]
fn list(one: &Client) -> Vec<String> {
    let parts = parts(one);
    let friends = parts
        .iter()
        .flat_map(|(_, part)| part["friends"].as_array().expect("friends"));
    friends
        .map(|it| it["user"].as_str().expect("a user id").to_owned())
        .collect()
}

/// User 1 has so many friends, from 100 on.
fn befriend_many(bench: &Bench, count: usize) {
    bench.directory().forbid("1", "2");
    for number in 100..100 + count {
        let friend = number.to_string();
        bench.directory().set_account(&friend, None);
        bench.directory().befriend("1", &friend);
    }
}

#[test]
fn a_block_by_the_other_side_never_shows() {
    // All that user 1 is sent, with the time of each, while user 2 blocks user 1 in the middle of it or does not.
    let history = |version, blocks: bool| {
        let bench = Bench::new();
        bench.directory().set_account("4", Some("four"));
        bench.directory().befriend("1", "4");
        let one = asking(&bench, version);
        let mut sent = vec![one.take_raw()];
        let step = |by: u64| {
            bench.pass(Duration::from_millis(by));
            one.take_raw()
        };
        let block = |blocked| {
            // Something is committed either way: that somebody does something is no secret.
            bench
                .directory()
                .set_notification("3", jam_core::directory::NotificationToken::Absent);
            if blocks {
                bench.directory().block("2", "1", blocked);
            }
            bench.notice_change();
        };
        for blocked in [true, false, true] {
            sent.push(step(10));
            block(blocked);
            sent.push(step(10));
            // A change that is to be seen, just after one that is not.
            bench.directory().block("1", "2", blocked);
            bench.notice_change();
            for _ in 0..10 {
                sent.push(step(50));
            }
            bench
                .directory()
                .set_profile("2", Some(&format!("ben {blocked}")), Some("key"));
            bench.notice_change();
            sent.push(step(1000));
            one.send_subscribe(vec![packets::filter("/1/friends", AtMostOnce)]);
            sent.push(step(1000));
        }
        bench.directory().forbid("1", "4");
        bench.notice_change();
        sent.push(step(1000));
        sent
    };
    for version in VERSIONS {
        let (with, without) = (history(version, true), history(version, false));
        assert_eq!(with, without);
        let all = with.concat();
        for seen in [
            "\"blocked\":true",
            "\"name\":\"ben true\"",
            "\"publicKey\":\"key\"",
        ] {
            assert!(all.windows(seen.len()).any(|it| it == seen.as_bytes()));
        }
    }
}

#[test]
fn who_does_not_subscribe_is_told_nothing_and_costs_nothing() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = bench.at_inbox("1:phone", version);
        for near in [
            "/1/friends/",
            "/1/friend",
            "/1/friends/x",
            "/1/Friends",
            "/1//friends",
        ] {
            one.subscribe(near, AtLeastOnce);
        }
        assert_eq!(bench.router().friends_watchers(), 0);
        bench.directory().set_profile("2", Some("ben"), None);
        bench.notice_change();
        one.expect_nothing();
    }
}

#[test]
fn whoever_subscribes_is_told_after_the_suback_and_every_time() {
    for version in VERSIONS {
        let bench = Bench::new();
        bench
            .directory()
            .set_profile("2", Some("b\"e\n"), Some("-----BEGIN\n"));
        bench.directory().set_account("10", None);
        bench.directory().befriend("1", "10");
        bench.directory().block("1", "10", true);
        // Only one side of a friendship, and a friend without an account.
        bench.directory().allow("3", "1");
        bench.directory().befriend("1", "77");
        let one = bench.client("1:phone", version);
        one.connect();
        one.expect_nothing();
        let two = r#"{"user":"2","name":"b\"e\n","blocked":false,"publicKey":"-----BEGIN\n"}"#;
        let friends = [two.to_owned(), friend("10", true)];
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            bench.pass(SECOND);
            one.subscribe("/1/friends", qos);
            expect(&bench, &one, &friends);
            one.expect_nothing();
        }
    }
}

#[test]
fn who_has_no_friends_is_told_so() {
    let bench = Bench::new();
    bench.directory().forbid("1", "2");
    let one = asking(&bench, V4);
    expect(&bench, &one, &[]);
    one.expect_nothing();
}

#[test]
fn a_change_is_told_within_a_second_and_what_is_none_is_not() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = asking(&bench, version);
        expect(&bench, &one, &[friend("2", false)]);
        let changes: [(&dyn Fn(), String); 6] = [
            (
                &|| bench.directory().block("1", "2", true),
                friend("2", true),
            ),
            (
                &|| bench.directory().block("1", "2", false),
                friend("2", false),
            ),
            (
                &|| bench.directory().set_profile("2", Some("ben"), None),
                r#"{"user":"2","name":"ben","blocked":false,"publicKey":null}"#.into(),
            ),
            (
                &|| bench.directory().set_profile("2", Some("ben"), Some("k")),
                r#"{"user":"2","name":"ben","blocked":false,"publicKey":"k"}"#.into(),
            ),
            (&|| bench.directory().forbid("1", "2"), String::new()),
            (
                &|| bench.directory().befriend("1", "2"),
                r#"{"user":"2","name":"ben","blocked":false,"publicKey":"k"}"#.into(),
            ),
        ];
        for (change, expected) in changes {
            change();
            bench.notice_change();
            bench.pass(REST);
            let expected: Vec<_> = Some(expected)
                .filter(|it| !it.is_empty())
                .into_iter()
                .collect();
            expect(&bench, &one, &expected);
            // Changes that are none of this user's business.
            bench.directory().set_profile("3", Some("eve"), None);
            bench.directory().befriend("2", "3");
            bench.directory().set_account("2", Some("another token"));
            bench.notice_change();
            bench.pass(SECOND);
            one.expect_nothing();
            bench.directory().forbid("2", "3");
        }
    }
}

#[test]
fn a_storm_of_changes_is_told_at_a_pace_and_to_its_end() {
    let bench = Bench::new();
    let one = watcher(&bench, V5);
    let mut lists = 0;
    for millis in 0..10_100 {
        bench
            .directory()
            .set_profile("2", Some(&format!("ben {millis}")), None);
        bench.notice_change();
        bench.pass(Duration::from_millis(1));
        while one.next().is_some() {
            lists += 1;
        }
    }
    assert!((24..=26).contains(&lists), "{lists}");
    bench.pass(SECOND);
    let last = parts(&one);
    assert_eq!(last[0].1["friends"][0]["name"], "ben 10099");
    one.expect_nothing();
    // The same storm about somebody else.
    for millis in 0..1000 {
        bench
            .directory()
            .set_profile("3", Some(&format!("eve {millis}")), None);
        bench.notice_change();
        bench.pass(Duration::from_millis(1));
    }
    one.expect_nothing();
}

#[test]
fn a_burst_of_subscribes_has_one_list_after_the_last() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect();
        let subscribes: Vec<_> = (0..100)
            .map(|_| {
                let filter = packets::filter("/1/friends", AtLeastOnce);
                Packet::Subscribe(Box::new(packets::subscribe(one.take_id(), vec![filter])))
            })
            .collect();
        one.send_all(&subscribes);
        bench.pass(REST * 2);
        // The server reads some at a time, so one list may be there before the last of them is read.
        let (mut sub_acks, mut lists) = (0, Vec::new());
        while let Some(packet) = one.next() {
            match packet {
                Packet::SubAck(_) => sub_acks += 1,
                _ => lists.push(sub_acks),
            }
        }
        assert_eq!((sub_acks, lists.last()), (100, Some(&100)));
        assert!(lists.len() <= 2, "{lists:?}");
        // All through the afternoon.
        let mut lists = 0;
        for _ in 0..2_100 {
            one.send_subscribe(vec![packets::filter("/1/friends", AtLeastOnce)]);
            bench.pass(Duration::from_millis(1));
            while let Some(packet) = one.next() {
                lists += usize::from(matches!(packet, Packet::Publish(_)));
            }
        }
        assert!((4..=6).contains(&lists), "{lists}");
        bench.pass(REST * 2);
        expect(&bench, &one, &[friend("2", false)]);
        one.expect_nothing();
    }
}

#[test]
fn coming_back_and_subscribing_anew_is_no_way_around_the_pace() {
    let bench = Bench::new();
    befriend_many(&bench, 5000);
    let one = bench.client("1:phone", V4);
    let mut lists = 0;
    for _ in 0..300 {
        one.connect();
        one.send_subscribe(vec![packets::filter("/1/friends", AtMostOnce)]);
        bench.pass(Duration::from_millis(10));
        while let Some(packet) = one.next() {
            let Packet::Publish(publish) = packet else {
                continue;
            };
            lists += usize::from(
                publish.payload.ends_with(b"Z\"}")
                    && publish.payload.windows(9).any(|it| it == b"\"part\":1,"),
            );
        }
        one.disconnect();
    }
    assert!(lists <= 3_000 / 400 + 2, "{lists}");
    bench.pass(SECOND);
    assert_eq!(bench.router().friends_watchers(), 0);
}

#[test]
fn many_friends_come_in_parts() {
    for version in VERSIONS {
        let bench = Bench::new();
        befriend_many(&bench, 5000);
        let one = asking(&bench, version);
        let parts = parts(&one);
        assert_eq!(parts.len(), 10);
        for (publish, part) in &parts {
            assert_eq!(part["friends"].as_array().unwrap().len(), PART_FRIENDS);
            assert!(publish.payload.len() <= PART_BYTES);
        }
        one.expect_nothing();
        // Long keys make parts of fewer friends.
        let key = "k".repeat(20_000);
        bench.directory().set_profile("100", None, Some(&key));
        bench
            .directory()
            .set_profile("4000", Some(&key), Some(&key));
        bench.notice_change();
        bench.pass(SECOND);
        assert_eq!(
            list(&one),
            (100..5100).map(|it| it.to_string()).collect::<Vec<_>>()
        );
        one.expect_nothing();
    }
}

#[test]
fn a_client_with_small_packets_gets_small_parts() {
    for max in [300, 500, 1000, 10_000, 40_000] {
        let bench = Bench::new();
        befriend_many(&bench, 500);
        let one = bench.client("1:phone", V5);
        one.connect_with(|connect| connect.properties.maximum_packet_size = Some(max));
        let mut subscribe = packets::subscribe(
            one.take_id(),
            vec![packets::filter("/1/friends", AtMostOnce)],
        );
        subscribe.subscription_id = Some(268_435_455);
        one.send(Packet::Subscribe(Box::new(subscribe)));
        one.expect_sub_ack();
        let raw = one.take_raw();
        let mut decoder = jam_wire::Decoder::client(V5, usize::try_from(max).unwrap());
        let mut raw = bytes::BytesMut::from(&raw[..]);
        let mut friends = 0;
        while let Some(Packet::Publish(publish)) = decoder.decode(&mut raw).unwrap() {
            let part: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
            friends += part["friends"].as_array().unwrap().len();
        }
        assert_eq!(friends, 500, "{max}");
    }
    // One for whom not even one friend fits is told that much, and goes on.
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect_with(|connect| connect.properties.maximum_packet_size = Some(180));
    one.subscribe("/1/friends", AtMostOnce);
    assert!(list(&one).is_empty());
    one.connect_with(|connect| connect.properties.maximum_packet_size = Some(60));
    one.subscribe("/1/friends", AtMostOnce);
    bench.pass(SECOND);
    one.expect_nothing();
}

#[test]
fn who_does_not_read_holds_one_list() {
    let bench = Bench::with(many);
    befriend_many(&bench, 5000);
    let (one, tablet) = (asking(&bench, V4), bench.client("1:tablet", V4));
    assert_eq!(list(&one).len(), 5000);
    bench.pass(SECOND);
    tablet.connect();
    tablet.subscribe("/1/friends", AtMostOnce);
    assert_eq!(list(&tablet).len(), 5000);
    one.set_reading(false);
    // What is behind, without what has been encoded.
    let mut lists_of_tablet = 0;
    for round in 0..30 {
        bench
            .directory()
            .set_profile("100", Some(&format!("ann {round}")), None);
        bench.notice_change();
        one.send_subscribe(vec![packets::filter("/1/friends", AtMostOnce)]);
        bench.pass(SECOND);
        if tablet.next().is_some() {
            lists_of_tablet += 1;
            while tablet.next().is_some() {}
        }
        assert!(one.pending() <= OUTPUT_ENOUGH + PART_BYTES + 30 * 8);
    }
    // The other device is told of every change.
    assert_eq!(lists_of_tablet, 30);
    one.set_reading(true);
    let mut lists = 0;
    let mut last = String::new();
    for _ in 0..5 {
        while let Some(packet) = one.next() {
            let Packet::Publish(publish) = packet else {
                continue;
            };
            let part: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
            if part["part"] == 1 {
                lists += 1;
                last = part["friends"][0]["name"].as_str().unwrap().to_owned();
            }
        }
        bench.pass(SECOND);
    }
    assert!((2..=3).contains(&lists), "{lists}");
    assert_eq!(last, "ann 29");
}

#[test]
fn a_list_for_which_there_is_no_room_waits_for_it() {
    let bench = Bench::with(many);
    let (one, tablet) = (watcher(&bench, V4), bench.client("1:tablet", V4));
    tablet.connect();
    one.subscribe("/1/x", AtMostOnce);
    one.set_reading(false);
    let large = "x".repeat(usize::try_from(MAX_EPHEMERAL_BYTES).unwrap() / MAX_EPHEMERAL * 4);
    for _ in 0..MAX_EPHEMERAL {
        tablet.publish("/1/x", large.clone(), AtMostOnce);
    }
    for _ in 0..MAX_EPHEMERAL {
        tablet.publish("/1/x", "x".repeat(50), AtMostOnce);
    }
    bench.directory().block("1", "2", true);
    bench.notice_change();
    one.send_subscribe(vec![packets::filter("/1/friends", AtMostOnce)]);
    (0..60).for_each(|_| bench.pass(SECOND));
    one.set_reading(true);
    let before = std::iter::from_fn(|| one.next())
        .filter(|it| matches!(it, Packet::Publish(it) if it.topic == "/1/friends"));
    assert_eq!(before.count(), 0);
    bench.pass(SECOND);
    expect(&bench, &one, &[friend("2", true)]);
    one.expect_nothing();
}

#[test]
fn a_session_that_goes_on_is_told_when_it_is_taken_up() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect_lasting();
        one.subscribe("/1/friends", AtLeastOnce);
        expect(&bench, &one, &[friend("2", false)]);
        for blocked in [true, false] {
            one.drop_connection();
            bench.pass(SECOND);
            assert_eq!(bench.router().friends_watchers(), 0);
            bench.directory().block("1", "2", blocked);
            bench.notice_change();
            let conn_ack = one.connect_lasting();
            assert!(conn_ack.session_present || version == V3);
            expect(&bench, &one, &[friend("2", blocked)]);
            one.expect_nothing();
        }
        bench.pass(SECOND);
        // A client that subscribes at once, as most do, is told once.
        one.drop_connection();
        let mut connect = packets::connect("1:phone", version);
        lasting(&mut connect);
        let filter = packets::filter("/1/friends", AtLeastOnce);
        one.open();
        one.send_all(&[
            Packet::Connect(Box::new(connect)),
            Packet::Subscribe(Box::new(packets::subscribe(one.take_id(), vec![filter]))),
        ]);
        assert!(matches!(one.next(), Some(Packet::ConnAck(_))));
        one.expect_sub_ack();
        bench.pass(SECOND);
        expect_some(&one, "2");
        one.expect_nothing();
        // A takeover is a coming back, too.
        one.connect_lasting();
        bench.pass(SECOND);
        expect_some(&one, "2");
        one.expect_nothing();
        // What has ended is not told.
        one.connect();
        bench.notice_change();
        bench.pass(SECOND);
        one.expect_nothing();
    }
}

/// Expects a list of one friend next.
#[track_caller]
fn expect_some(one: &Client, friend: &str) {
    assert_eq!(list(one), [friend]);
}

#[test]
fn a_session_is_told_after_a_restart() {
    let bench = Bench::on_disk(|_| ());
    bench.disk().unwrap().at_once(true);
    let one = bench.client("1:phone", V5);
    one.connect_lasting();
    one.subscribe("/1/friends", AtMostOnce);
    expect_some(&one, "2");
    bench.crash();
    assert_eq!(bench.router().friends_watchers(), 0);
    one.connect_lasting();
    expect_some(&one, "2");
    one.expect_nothing();
}

#[test]
fn each_device_is_told_what_it_does_not_know() {
    let bench = Bench::with(many);
    let one = watcher(&bench, V4);
    let tablet = bench.client("1:tablet", V5);
    tablet.connect();
    tablet.expect_nothing();
    bench.pass(SECOND);
    tablet.subscribe("/1/friends", AtMostOnce);
    expect(&bench, &tablet, &[friend("2", false)]);
    one.expect_nothing();
    bench.directory().block("1", "2", true);
    bench.notice_change();
    bench.pass(SECOND);
    expect_some(&tablet, "2");
    expect_some(&one, "2");
    // One that has unsubscribed is told no more.
    one.unsubscribe("/1/friends");
    bench.directory().block("1", "2", false);
    bench.notice_change();
    bench.pass(SECOND);
    expect_some(&tablet, "2");
    one.expect_nothing();
}

#[test]
fn a_change_while_the_list_is_read_is_told_afterwards() {
    let bench = Bench::new();
    bench.tell(false);
    let one = asking(&bench, V4);
    let router = bench.router();
    let due = router.next_friends(bench.now()).unwrap();
    let before = bench.directory().list_friends(due.user()).unwrap();
    bench.directory().block("1", "2", true);
    router.friends_may_have_changed();
    // And it asks once more meanwhile.
    one.subscribe("/1/friends", AtMostOnce);
    router.tell_friends(due, &before, bench.now());
    bench.tell(true);
    expect(&bench, &one, &[friend("2", false)]);
    one.expect_nothing();
    bench.pass(REST + REST);
    expect(&bench, &one, &[friend("2", true)]);
    bench.pass(SECOND);
    one.expect_nothing();
}

#[test]
fn a_change_between_two_readings_at_one_moment_is_told() {
    let bench = Bench::new();
    let two = bench.client("2:phone", V4);
    two.connect();
    two.subscribe("/2/friends", AtMostOnce);
    expect_some(&two, "1");
    bench.directory().block("2", "1", true);
    bench.router().friends_may_have_changed();
    let one = asking(&bench, V4);
    expect_some(&one, "2");
    bench.pass(REST + REST);
    expect(&bench, &two, &[friend("1", true)]);
    one.expect_nothing();
}

#[test]
fn who_is_gone_when_the_list_is_there_is_not_told() {
    let bench = Bench::new();
    for leave in [
        Client::disconnect,
        Client::drop_connection,
        |it: &Client| it.unsubscribe("/1/friends"),
    ] {
        bench.tell(false);
        let one = asking(&bench, V4);
        let router = bench.router();
        let due = router.next_friends(bench.now()).unwrap();
        let read = bench.directory().list_friends(due.user()).unwrap();
        leave(&one);
        router.tell_friends(due, &read, bench.now());
        bench.tell(true);
        bench.pass(SECOND);
        assert_eq!(bench.router().friends_watchers(), 0);
        assert_eq!(one.next(), None);
    }
}

#[test]
fn a_directory_that_fails_delays_the_list() {
    let bench = Bench::new();
    bench.directory().fail(true);
    let one = asking(&bench, V4);
    bench.advance(SECOND * 5);
    one.expect_nothing();
    bench.directory().fail(false);
    bench.pass(SECOND);
    expect(&bench, &one, &[friend("2", false)]);
    one.expect_nothing();
    // A change during which it fails.
    bench.directory().fail(true);
    bench.directory().block("1", "2", true);
    bench.notice_change();
    bench.advance(SECOND * 5);
    bench.directory().fail(false);
    bench.pass(SECOND);
    expect(&bench, &one, &[friend("2", true)]);
}

#[test]
fn nobody_is_remembered_for_the_sake_of_their_friends() {
    let bench = Bench::with(|rules| rules.longest_rival_wait = Duration::ZERO);
    let one = bench.client("1:phone", V5);
    for leave in [Client::disconnect, Client::drop_connection] {
        one.connect_lasting();
        assert_eq!(bench.router().friends_watchers(), 0);
        one.subscribe("/1/friends", AtMostOnce);
        expect_some(&one, "2");
        assert_eq!(bench.router().friends_watchers(), 1);
        leave(&one);
        bench.pass(SECOND);
        assert_eq!(bench.router().friends_watchers(), 0);
        one.connect();
        bench.pass(SECOND);
    }
    one.disconnect();
    bench.pass(SECOND);
    assert_eq!(bench.router().known_users(), 0);
    // By a new device, and by another token.
    for number in 0..100 {
        let next = bench.client(&format!("1:{number}"), V5);
        next.connect_lasting();
        next.subscribe("/1/friends", AtMostOnce);
        bench.pass(SECOND);
    }
    assert_eq!(bench.router().friends_watchers(), 1);
    bench.directory().set_account("1", Some("another"));
    bench.recheck();
    bench.pass(SECOND);
    assert_eq!(bench.router().friends_watchers(), 0);
}

#[test]
fn who_has_waited_longest_comes_first() {
    let bench = Bench::new();
    let users: Vec<_> = (10..40).map(|user| user.to_string()).collect();
    let clients: Vec<_> = users
        .iter()
        .map(|user| {
            bench
                .directory()
                .set_account(user, Some(&packets::token(user)));
            let client = bench.client(&format!("{user}:phone"), V4);
            client.connect();
            client.subscribe(&format!("/{user}/friends"), AtMostOnce);
            client
        })
        .collect();
    bench.pass(SECOND);
    bench.tell(false);
    // Changes all the time, and only one list can be read between two of them.
    let router = bench.router();
    let mut read = Vec::new();
    for _ in 0..90 {
        router.friends_may_have_changed();
        bench.pass(Duration::from_millis(100));
        let due = router.next_friends(bench.now()).unwrap();
        read.push(due.user().to_string());
        let list = bench.directory().list_friends(due.user()).unwrap();
        router.tell_friends(due, &list, bench.now());
    }
    for round in read.chunks(30) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, users);
    }
    drop(clients);
}

#[test]
fn nobody_reads_or_writes_what_is_another_users() {
    for version in VERSIONS {
        let bench = Bench::with(many);
        let one = watcher(&bench, version);
        let two = bench.client("2:phone", version);
        two.connect();
        let code = |reason| {
            if version == V5 {
                reason
            } else {
                ReasonCode::UnspecifiedError
            }
        };
        for (filter, message, reason) in [
            ("/1/friends", "not authorized", ReasonCode::NotAuthorized),
            (
                "/+/friends",
                "wildcards are not allowed in topic",
                ReasonCode::WildcardSubscriptionsNotSupported,
            ),
            (
                "/2/#",
                "wildcards are not allowed in topic",
                ReasonCode::WildcardSubscriptionsNotSupported,
            ),
            (
                "$share/g/2/friends",
                "wildcards are not allowed in topic",
                ReasonCode::WildcardSubscriptionsNotSupported,
            ),
        ] {
            two.send_subscribe(vec![packets::filter(filter, AtMostOnce)]);
            two.expect_error("authorizeSubscribe", filter, message, None);
            assert_eq!(two.expect_sub_ack(), [code(reason)]);
        }
        let id = two.publish("/1/friends", "x", AtLeastOnce);
        two.expect_refusal(
            "topic",
            "can't publish to other user's channel except inbox",
            id,
        );
        two.expect_answered(AtLeastOnce, id, ReasonCode::NotAuthorized);
        bench.pass(SECOND);
        two.expect_nothing();
        one.expect_nothing();
        // The user's own devices may, as on every own channel.
        let tablet = bench.client("1:tablet", version);
        tablet.connect();
        let id = tablet.publish("/1/friends", "x", AtLeastOnce);
        tablet.expect_accepted(AtLeastOnce, id);
        assert_eq!(one.expect_payload("/1/friends", b"x").qos, AtLeastOnce);
    }
}

#[test]
fn lists_are_counted() {
    let bench = Bench::with(many);
    let one = watcher(&bench, V4);
    one.subscribe("/1/friends", AtMostOnce);
    bench.pass(SECOND);
    assert_eq!(
        bench.router().metrics().get("jam_friends_lists_total", &[]),
        2
    );
}
