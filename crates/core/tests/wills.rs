//! Wills (PROTOCOL.md, section 3; MQTT 5.0, section 3.1.2.5): when they are written, and when not.

use std::num::NonZeroU32;
use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::directory::Answers;
use jam_core::ids::{ClientId, UserId};
use jam_core::router::Rules;
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Connect, Packet, QoS, Version, Will};

const VERSIONS: [Version; 3] = [V3, V4, V5];

fn bye() -> Box<Will> {
    let mut will = packets::will("/2/inbox", r#"{"from":"1","content":"bye"}"#);
    will.qos = AtLeastOnce;
    will
}

/// A friend who listens, and a client that has left them a will.
fn pair(version: Version, change: impl FnOnce(&mut Connect)) -> (Bench, Client, Client) {
    let bench = Bench::new();
    let friend = bench.at_inbox("2:phone", V5);
    let client = bench.client("1:phone", version);
    client.connect_with(|connect| {
        connect.will = Some(bye());
        change(connect);
    });
    (bench, client, friend)
}

#[track_caller]
fn expect_bye(friend: &Client) {
    let publish = friend.expect_payload("/2/inbox", br#"{"from":"1","content":"bye"}"#);
    assert_eq!(publish.qos, AtLeastOnce);
    friend.ack(&publish);
    friend.expect_nothing();
}

fn delayed(secs: u32) -> impl FnOnce(&mut Connect) {
    move |connect| {
        lasting(connect);
        let will = connect.will.as_mut().expect("a will");
        will.delay_secs = Some(secs);
    }
}

#[test]
fn who_says_goodbye_needs_no_will() {
    for version in VERSIONS {
        for change in [|_: &mut Connect| (), lasting] {
            let (bench, client, friend) = pair(version, change);
            client.disconnect();
            client.drop_connection();
            bench.pass(Duration::from_secs(1_000_000));
            friend.expect_nothing();
        }
    }
}

#[test]
fn a_connection_that_breaks_leaves_its_will_once() {
    for version in VERSIONS {
        for change in [|_: &mut Connect| (), lasting] {
            let (bench, client, friend) = pair(version, change);
            client.drop_connection();
            expect_bye(&friend);
            bench.pass(Duration::from_secs(1_000_000));
            friend.expect_nothing();
        }
    }
}

#[test]
fn a_disconnect_may_ask_for_the_will() {
    for reason in [
        ReasonCode::DisconnectWithWill,
        ReasonCode::UnspecifiedError,
        ReasonCode::ImplementationSpecificError,
    ] {
        let (_bench, client, friend) = pair(V5, |_| ());
        client.disconnect_with(|disconnect| disconnect.reason = reason);
        expect_bye(&friend);
    }
}

/// An operator ends the connection.
fn kick(bench: &Bench, client: &Client, ends_session: bool) {
    let user = UserId::parse(client.user()).expect("a user id");
    let client = ClientId::new(client.id());
    bench.router().kick(&user, &client, ends_session);
    bench.run();
}

#[test]
fn whatever_else_ends_a_connection_leaves_the_will() {
    let ends: &[fn(&Bench, &Client)] = &[
        |bench, _| bench.advance(Duration::from_secs(15)),
        |_, client| client.send_raw(b"\x00\x00"),
        |_, client| client.send(Packet::PingResp),
        |bench, _| {
            bench.client("1:other", V4).connect();
        },
        |bench, _| {
            bench.client("1:phone", V4).connect();
        },
        |bench, client| kick(bench, client, false),
        |bench, client| kick(bench, client, true),
    ];
    for version in VERSIONS {
        for (end, lasts) in ends.iter().flat_map(|end| [(end, false), (end, true)]) {
            let (bench, client, friend) = pair(version, |connect| {
                if lasts {
                    lasting(connect);
                }
                connect.keep_alive_secs = 10;
            });
            end(&bench, &client);
            assert!(client.is_closed());
            expect_bye(&friend);
            client.drop_connection();
            friend.expect_nothing();
        }
    }
}

#[test]
fn a_takeover_leaves_the_will_of_the_old_connection() {
    for version in VERSIONS {
        let (bench, client, friend) = pair(version, lasting);
        let again = bench.client("1:phone", version);
        again.connect_lasting();
        assert!(client.is_closed());
        expect_bye(&friend);
        // The new connection has its own will, or none.
        again.drop_connection();
        friend.expect_nothing();
    }
}

#[test]
fn a_will_with_a_delay_waits() {
    let (bench, client, friend) = pair(V5, delayed(60));
    client.drop_connection();
    bench.pass(Duration::from_millis(59_999));
    friend.expect_nothing();
    bench.pass(Duration::from_millis(1));
    expect_bye(&friend);
    // That was the will's time, not the session's.
    assert!(client.connect_lasting().session_present);
}

#[test]
fn who_is_back_before_the_delay_leaves_no_will() {
    let (bench, client, friend) = pair(V5, delayed(60));
    client.drop_connection();
    bench.pass(Duration::from_secs(59));
    client.connect_lasting();
    bench.pass(Duration::from_secs(60));
    client.drop_connection();
    bench.pass(Duration::from_secs(60));
    friend.expect_nothing();
    // Nor does a takeover, for the client is back at once.
    let (bench, client, friend) = pair(V5, delayed(60));
    let again = bench.client("1:phone", V5);
    again.connect_lasting();
    assert!(client.is_closed());
    bench.pass(Duration::from_secs(60));
    friend.expect_nothing();
}

#[test]
fn a_clean_start_ends_the_session_and_so_the_delay() {
    let (_bench, client, friend) = pair(V5, delayed(60));
    client.drop_connection();
    friend.expect_nothing();
    client.connect();
    expect_bye(&friend);
    let (bench, client, friend) = pair(V5, delayed(60));
    bench.client("1:phone", V5).connect();
    assert!(client.is_closed());
    expect_bye(&friend);
}

#[test]
fn the_session_s_end_comes_before_a_longer_delay() {
    let (bench, client, friend) = pair(V5, |connect| {
        connect.properties.session_expiry_secs = Some(30);
        connect.will.as_mut().unwrap().delay_secs = Some(60);
    });
    client.drop_connection();
    bench.pass(Duration::from_secs(29));
    friend.expect_nothing();
    bench.pass(Duration::from_secs(1));
    expect_bye(&friend);
    bench.pass(Duration::from_secs(100));
    friend.expect_nothing();
    // A session that ends with the connection leaves no time at all.
    let (_bench, client, friend) = pair(V5, |connect| {
        connect.will.as_mut().unwrap().delay_secs = Some(60);
    });
    client.drop_connection();
    expect_bye(&friend);
}

#[test]
fn another_device_ends_the_session_and_so_the_delay() {
    let (bench, client, friend) = pair(V5, delayed(60));
    client.drop_connection();
    friend.expect_nothing();
    bench.client("1:other", V4).connect();
    expect_bye(&friend);
}

#[test]
fn a_will_is_judged_when_it_is_due() {
    // Was allowed when it was left, and is not any more.
    let (bench, client, friend) = pair(V4, |_| ());
    bench.directory().forbid("1", "2");
    client.drop_connection();
    friend.expect_nothing();
    // The other way round.
    let bench = Bench::new();
    let stranger = bench.at_inbox("3:phone", V4);
    let client = bench.client("1:phone", V4);
    client.connect_with(|connect| {
        connect.will = Some(packets::will("/3/inbox", r#"{"from":"1"}"#));
    });
    bench.directory().befriend("1", "3");
    client.drop_connection();
    stranger.expect_payload("/3/inbox", br#"{"from":"1"}"#);
}

#[test]
fn a_will_that_is_refused_is_dropped_and_nobody_is_told() {
    for (topic, payload) in [
        ("willtopic", "bye"),
        ("/1", "bye"),
        ("/1/#", "bye"),
        ("/3/inbox", r#"{"from":"1"}"#),
        ("/2/inbox", "bye"),
        ("/2/inbox", r#"{"from":"2"}"#),
        ("/2/other", "bye"),
    ] {
        let bench = Bench::with(|rules| rules.user.many_devices = true);
        let others = [
            bench.at_inbox("2:phone", V4),
            bench.at_inbox("3:phone", V4),
            bench.at_inbox("1:other", V4),
        ];
        let client = bench.client("1:phone", V4);
        client.connect_with(|connect| connect.will = Some(packets::will(topic, payload)));
        client.drop_connection();
        others.iter().for_each(Client::expect_nothing);
        client.connect();
        client.expect_nothing();
        assert_eq!(bench.store().appended(), 0);
    }
}

#[test]
fn a_will_waits_for_the_directory() {
    let (bench, client, friend) = pair(V4, |_| ());
    bench.directory().forget();
    client.drop_connection();
    expect_bye(&friend);
    let (bench, client, friend) = pair(V4, |_| ());
    bench.directory().forget();
    bench.directory().fail(true);
    client.drop_connection();
    friend.expect_nothing();
    bench.directory().fail(false);
    bench.pass(Duration::from_millis(250));
    expect_bye(&friend);
}

#[test]
fn a_will_for_an_offline_friend_is_kept() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let (bench, client, friend) = pair(V4, |connect| connect.will.as_mut().unwrap().qos = qos);
        friend.drop_connection();
        client.drop_connection();
        assert_eq!(bench.store().kept(), 1);
        friend.connect();
        friend.subscribe_inbox();
        expect_bye(&friend);
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn a_retained_will_is_there_for_who_subscribes_later() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect_with(|connect| {
            let mut will = packets::will("/1/status", "gone");
            will.retain = true;
            connect.will = Some(will);
        });
        client.drop_connection();
        client.connect();
        client.subscribe("/1/status", AtMostOnce);
        let publish = client.expect_payload("/1/status", b"gone");
        assert!(publish.retain);
    }
}

#[test]
fn a_will_carries_its_properties() {
    let bench = Bench::new();
    let friend = bench.at_inbox("2:phone", V5);
    let client = bench.client("1:phone", V5);
    client.connect_with(|connect| {
        let mut will = bye();
        will.properties.content_type = Some("x".into());
        will.properties.message_expiry_secs = Some(100);
        will.properties.user = [("from", "2"), ("k", "v")].into();
        connect.will = Some(will);
        delayed(30)(connect);
    });
    client.drop_connection();
    bench.pass(Duration::from_secs(30));
    let properties = friend.expect_publish().properties.unwrap();
    assert_eq!(properties.content_type, Some("x".into()));
    assert_eq!(properties.message_expiry_secs, Some(100));
    assert_eq!(properties.user, [("k", "v"), ("from", "1")].into());
}

#[test]
fn when_the_server_stops_wills_are_due() {
    let (bench, client, _friend) = pair(V5, |_| ());
    bench.shut_down();
    client.expect_ended(ReasonCode::ServerShuttingDown);
    let friend = bench.at_inbox("2:phone", V5);
    expect_bye(&friend);
}

/// Left there, it would come after a crash, when it may be allowed.
#[test]
fn a_will_that_is_dropped_leaves_the_store() {
    type Story = (fn(&mut Rules), fn(&Bench, &Client));
    let stories: [Story; 4] = [
        (|_| (), |bench, _| bench.directory().forbid("1", "2")),
        (
            |_| (),
            |bench, _| bench.directory().set_account("1", Some("another")),
        ),
        (
            |rules| rules.user.max_messages = 2,
            |_, client| client.write("2", "first", AtLeastOnce),
        ),
        (
            |rules| rules.publish_rate = NonZeroU32::new(1),
            |_, client| {
                for _ in 0..10 {
                    client.publish("/1/nobody", "", AtMostOnce);
                }
            },
        ),
    ];
    for (place, (change, before)) in stories.into_iter().enumerate() {
        let bench = Bench::on_disk(change);
        let disk = bench.disk().expect("a disk");
        disk.at_once(true);
        let client = bench.client("1:phone", V5);
        client.connect_with(|connect| {
            lasting(connect);
            connect.will = Some(bye());
        });
        before(&bench, &client);
        let kept = disk.kept();
        client.drop_connection();
        let friend = bench.at_inbox("2:phone", V5);
        if kept > 0 {
            friend.read("1", "first");
        }
        friend.expect_nothing();
        assert!(disk.is_empty(), "story {place}");
        bench.directory().befriend("1", "2");
        bench
            .directory()
            .set_account("1", Some(&packets::token("1")));
        bench.crash();
        bench.pass(Duration::from_secs(60));
        bench.at_inbox("2:phone", V5).expect_nothing();
    }
}

/// One that nothing is kept of goes out whatever the disk does.
#[test]
fn a_will_waits_for_a_store_in_trouble_if_it_needs_the_store() {
    for (qos, lasts, waits) in [
        (AtMostOnce, false, false),
        (AtMostOnce, true, true),
        (AtLeastOnce, false, true),
        (AtLeastOnce, true, true),
        (ExactlyOnce, true, true),
    ] {
        let (bench, client, friend) = pair(V5, |connect| {
            if lasts {
                lasting(connect);
            }
            connect.will.as_mut().expect("a will").qos = qos;
        });
        bench.store().trouble(true);
        client.drop_connection();
        assert_eq!(friend.next().is_none(), waits, "{qos:?} {lasts}");
        bench.pass(Duration::from_secs(10));
        friend.expect_nothing();
        bench.store().trouble(false);
        bench.pass(Duration::from_millis(250));
        assert_eq!(friend.next().is_some(), waits, "{qos:?} {lasts}");
    }
}

/// The trouble may begin between the judgement of a will and its message.
#[test]
fn a_will_that_the_store_does_not_take_is_due_again() {
    let (bench, client, friend) = pair(V5, lasting);
    bench.directory().forget();
    bench.directory().fail(true);
    client.drop_connection();
    bench.directory().fail(false);
    let due = bench.router().next_will().expect("a will");
    bench.store().trouble(true);
    let mut answers = Answers::default();
    while let Err(question) = bench.router().publish_will(&due, &answers, bench.now()) {
        let answer = bench.directory().answer(&question).expect("it answers");
        assert_eq!(answers.add(answer), Ok(()));
    }
    bench.store().trouble(false);
    bench.run();
    expect_bye(&friend);
}

#[test]
fn a_will_that_came_after_a_crash_does_not_come_after_the_next() {
    let bench = Bench::on_disk(|_| ());
    let disk = bench.disk().expect("a disk");
    disk.at_once(true);
    let client = bench.client("1:phone", V5);
    client.connect_with(|connect| {
        lasting(connect);
        connect.will = Some(bye());
    });
    bench.directory().forget();
    bench.directory().fail(true);
    client.drop_connection();
    bench.crash();
    disk.at_once(true);
    bench.directory().fail(false);
    expect_bye(&bench.at_inbox("2:phone", V5));
    assert!(disk.is_empty());
    bench.crash();
    bench.at_inbox("2:phone", V5).expect_nothing();
}
