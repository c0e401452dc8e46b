//! PROTOCOL.md, section 3: phones that answer a logout by connecting again are slowed, and nobody else is.

use std::time::Duration;

use Version::{V3, V4, V5};
use jam_testkit::{Bench, Client, packets};
use jam_wire::packet::{Packet, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];
/// Logouts that cost nothing.
const FREE: usize = 8;

/// A client that has sent its CONNECT and may have to wait for the answer.
fn begin(client: &Client) {
    client.open();
    let connect = packets::connect(client.id(), client.version());
    client.send(Packet::Connect(Box::new(connect)));
}

/// Whether it has been answered by now, and was let in.
fn is_in(client: &Client) -> bool {
    match client.next() {
        None => false,
        Some(Packet::ConnAck(_)) => true,
        other => panic!("{other:?}"),
    }
}

/// Waits until it is let in: whole seconds.
fn secs_until_in(bench: &Bench, client: &Client) -> u64 {
    begin(client);
    (0..100)
        .find(|secs| {
            if *secs > 0 {
                bench.pass(Duration::from_secs(1));
            }
            is_in(client)
        })
        .expect("it is let in some time")
}

#[test]
fn each_wait_is_longer_than_the_last() {
    for version in VERSIONS {
        let bench = Bench::new();
        let phones = [bench.client("1:a", version), bench.client("1:b", version)];
        let other = bench.client("2:phone", V4);
        other.connect();
        let mut waits = Vec::new();
        for n in 0..19 {
            waits.push(secs_until_in(&bench, &phones[n % 2]));
        }
        // The first of them logs nobody out.
        assert_eq!(waits[..=FREE], [0; FREE + 1]);
        assert_eq!(waits[FREE + 1..], [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
        // All that time others come and go as they like.
        bench.client("3:phone", V4).connect();
        assert!(other.is_open());
        let calm = Duration::from_secs(60);
        bench.pass(calm);
        // From then on as many are free as in the beginning.
        let again: Vec<_> = (1..=FREE + 1)
            .map(|n| secs_until_in(&bench, &phones[n % 2]))
            .collect();
        assert_eq!(again[..FREE], [0; FREE]);
        assert_eq!(again[FREE], 1);
    }
}

#[test]
fn who_is_connected_is_served_while_the_other_one_waits() {
    let bench = Bench::new();
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    for n in 0..=FREE {
        assert_eq!(secs_until_in(&bench, [&b, &a][n % 2]), 0);
    }
    // `b` is in; `a` waits.
    begin(&a);
    b.subscribe("/1/inbox", QoS::AtLeastOnce);
    let friend = bench.client("2:phone", V4);
    friend.connect();
    friend.write("1", "hello", QoS::AtLeastOnce);
    b.read("2", "hello");
    assert!(!is_in(&a));
}

#[test]
fn who_gives_up_waiting_logs_nobody_out() {
    let bench = Bench::new();
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    for n in 0..FREE + 5 {
        secs_until_in(&bench, [&b, &a][n % 2]);
    }
    begin(&a);
    assert!(!is_in(&a));
    a.drop_connection();
    bench.pass(Duration::from_secs(100));
    assert!(b.is_open());
}

/// Section 3: CONNECT and SUBSCRIBE may be sent together.
#[test]
fn what_is_sent_while_it_waits_is_answered_when_it_is_in() {
    let bench = Bench::new();
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    for n in 0..FREE + 5 {
        secs_until_in(&bench, [&b, &a][n % 2]);
    }
    begin(&a);
    a.send(Packet::PingReq);
    assert!(!is_in(&a));
    bench.pass(Duration::from_secs(30));
    assert!(is_in(&a));
    assert_eq!(a.next(), Some(Packet::PingResp));
}

#[test]
fn who_comes_back_while_waiting_waits_no_longer_for_it() {
    let bench = Bench::new();
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    for n in 0..FREE + 5 {
        secs_until_in(&bench, [&b, &a][n % 2]);
    }
    // A wait of 16 s; an app that gives up after 5 s gets in on its fourth attempt.
    let mut attempts = 0;
    while attempts == 0 || !is_in(&a) {
        begin(&a);
        bench.pass(Duration::from_secs(5));
        attempts += 1;
    }
    assert_eq!(attempts, 4);
}

#[test]
fn the_same_client_id_and_a_user_without_another_device_wait_for_nothing() {
    let bench = Bench::new();
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    for n in 0..FREE + 5 {
        secs_until_in(&bench, [&b, &a][n % 2]);
    }
    b.connect();
    b.connect();
    b.disconnect();
    b.drop_connection();
    a.connect();
}

#[test]
fn a_device_that_takes_its_own_session_over_waits_for_nothing() {
    let bench = Bench::new();
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    for n in 0..FREE + 5 {
        secs_until_in(&bench, [&b, &a][n % 2]);
    }
    let again = bench.client("1:b", V4);
    assert!(b.is_open());
    begin(&again);
    assert!(is_in(&again));
}

#[test]
fn a_token_that_has_changed_meanwhile_lets_nobody_in() {
    for forgetful in [false, true] {
        let bench = Bench::new();
        let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
        for n in 0..FREE + 5 {
            secs_until_in(&bench, [&b, &a][n % 2]);
        }
        begin(&a);
        bench.directory().set_account("1", Some("another"));
        if forgetful {
            bench.directory().forget();
        }
        bench.pass(Duration::from_secs(40));
        match a.next() {
            Some(Packet::ConnAck(conn_ack)) => {
                use jam_wire::ConnectReturnCode::NotAuthorized;
                let refused = jam_wire::packet::ConnectCode::V3(NotAuthorized);
                assert_eq!(conn_ack.code, refused);
            }
            other => panic!("{other:?}"),
        }
        a.expect_closed();
    }
}

#[test]
fn side_by_side_nobody_waits() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    for n in 0..200 {
        bench.client(&format!("1:{}", n % 20), V4).connect();
    }
}
