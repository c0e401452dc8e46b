//! What a client cannot do to the server: never read, never acknowledge, come and go without end.

use std::num::NonZeroU16;
use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::connection::{ANSWERS_ENOUGH, OUTPUT_ENOUGH};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Disconnect, Packet, PacketId, QoS, Version};

/// A message of about this many bytes.
fn large(bytes: usize) -> String {
    "x".repeat(bytes)
}

#[test]
fn who_does_not_read_is_not_fetched_for_and_not_answered_without_end() {
    let bench = Bench::with(|rules| {
        rules.user.max_bytes = 100 * 1024 * 1024;
        rules.inflight = 1000;
    });
    let (one, two) = (bench.client("1:phone", V4), bench.at_inbox("2:phone", V4));
    one.connect();
    two.set_reading(false);
    let content = large(60_000);
    for _ in 0..100 {
        one.write("2", &content, AtLeastOnce);
    }
    // One packet may exceed the bound.
    assert!(two.pending() >= OUTPUT_ENOUGH);
    assert!(two.pending() < OUTPUT_ENOUGH + 61_000, "{}", two.pending());
    let before = two.pending();
    let pings = ANSWERS_ENOUGH / 2;
    for n in 0..2 * pings {
        assert_eq!(two.is_wanted(), n < pings);
        two.send(Packet::PingReq);
    }
    assert_eq!(two.pending(), before + ANSWERS_ENOUGH);
    one.expect_nothing();
    two.set_reading(true);
    let (mut publishes, mut answers) = (0, 0);
    while let Some(packet) = two.next() {
        match packet {
            Packet::Publish(publish) => {
                publishes += 1;
                two.ack(&publish);
            }
            Packet::PingResp => answers += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((publishes, answers), (100, 2 * pings));
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn requests_without_end_from_who_does_not_read_are_not_answered_without_end() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    client.set_reading(false);
    for _ in 0..20_000 {
        client.send(Packet::Publish(packets::publish(
            "/1", "", AtMostOnce, None,
        )));
    }
    assert!(
        client.pending() < OUTPUT_ENOUGH + ANSWERS_ENOUGH + 1000,
        "{}",
        client.pending()
    );
    assert!(!client.is_wanted());
}

#[test]
fn who_never_acknowledges_gets_a_window_full() {
    for version in [V3, V4, V5] {
        let bench = Bench::new();
        let (one, two) = (
            bench.client("1:phone", version),
            bench.at_inbox("2:phone", version),
        );
        one.connect();
        (0..30).for_each(|n| one.write("2", &n.to_string(), AtLeastOnce));
        (0..10).for_each(|n| drop(two.expect_message("1", &n.to_string())));
        two.expect_nothing();
    }
}

#[test]
fn qos_0_to_who_does_not_read_is_dropped_when_it_is_too_much() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V4), bench.at_inbox("2:phone", V4));
    one.connect();
    two.set_reading(false);
    let content = large(50_000);
    for _ in 0..2000 {
        one.write("2", &content, AtMostOnce);
    }
    one.expect_nothing();
    two.set_reading(true);
    let mut got = 0;
    while two.next().is_some() {
        got += 1;
    }
    assert!((10..1100).contains(&got), "{got}");
    // And that is over when it has read.
    one.write("2", "after", AtMostOnce);
    two.expect_message("1", "after");
}

#[test]
fn small_qos_0_messages_to_who_does_not_read_are_bounded_in_number() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V4), bench.at_inbox("2:phone", V4));
    one.connect();
    two.set_reading(false);
    while two.pending() < OUTPUT_ENOUGH {
        one.write("2", &large(4000), AtMostOnce);
    }
    (0..5000).for_each(|_| one.write("2", "x", AtMostOnce));
    two.set_reading(true);
    let mut got = 0;
    while two.next().is_some() {
        got += 1;
    }
    assert!(got < OUTPUT_ENOUGH / 4000 + 16 + 1024 + 1, "{got}");
}

#[test]
fn a_client_that_is_not_listened_to_is_not_reproached_with_its_silence() {
    for version in [V4, V5] {
        let bench = Bench::with(|rules| rules.user.max_bytes = 100 * 1024 * 1024);
        let (one, two) = (
            bench.client("1:phone", version),
            bench.client("2:phone", version),
        );
        one.connect();
        two.connect_with(|connect| connect.keep_alive_secs = 10);
        two.subscribe_inbox();
        two.set_reading(false);
        // A picture over a slow line: it is read, and the client pings, but is not heard meanwhile.
        let id = one.publish(
            "/2/inbox",
            packets::message("1", &large(1_000_000)),
            AtLeastOnce,
        );
        one.expect_accepted(AtLeastOnce, id);
        for _ in 0..14 {
            bench.advance(Duration::from_secs(5));
            two.send(Packet::PingReq);
            two.read_some(50_000);
            assert!(!two.is_closed());
        }
        // Who does not even read is gone.
        bench.advance(Duration::from_secs(16));
        assert!(two.is_closed());
    }
}

#[test]
fn who_pings_is_not_silent_because_it_does_not_read_and_who_does_neither_is() {
    for version in [V4, V5] {
        let bench = Bench::with(|rules| rules.user.max_bytes = 100 * 1024 * 1024);
        let (one, two) = (
            bench.client("1:phone", version),
            bench.client("2:phone", version),
        );
        one.connect();
        two.connect_with(|connect| connect.keep_alive_secs = 10);
        two.subscribe_inbox();
        two.set_reading(false);
        for _ in 0..8 {
            one.write("2", &large(100_000), AtLeastOnce);
        }
        assert!(two.pending() >= OUTPUT_ENOUGH);
        for _ in 0..20 {
            bench.advance(Duration::from_secs(14));
            two.send(Packet::PingReq);
        }
        assert!(two.is_open());
        bench.advance(Duration::from_secs(16));
        assert!(two.is_closed());
    }
}

#[test]
fn what_stands_behind_output_that_nobody_reads_is_heard() {
    for version in [V4, V5] {
        let bench = Bench::with(|rules| rules.user.max_bytes = 100 * 1024 * 1024);
        let (one, two) = (
            bench.at_inbox("1:phone", version),
            bench.client("2:phone", version),
        );
        two.connect_with(|connect| {
            lasting(connect);
            connect.will = Some(packets::will("/1/inbox", r#"{"from":"2"}"#));
        });
        two.subscribe_inbox();
        two.set_reading(false);
        for _ in 0..8 {
            one.write("2", &large(100_000), AtLeastOnce);
        }
        assert!(two.pending() >= OUTPUT_ENOUGH);
        let last = packets::publish(
            "/1/inbox",
            packets::message("2", "last"),
            AtLeastOnce,
            PacketId::new(1),
        );
        two.send_all(&[
            Packet::Publish(last),
            Packet::Disconnect(Box::new(Disconnect::with_reason(ReasonCode::Success))),
        ]);
        one.read("2", "last");
        bench.advance(Duration::from_secs(2));
        one.expect_nothing();
    }
}

#[test]
fn a_slow_store_is_not_the_client_s_silence() {
    let bench = Bench::with(|rules| rules.inflight = 1);
    let one = bench.client("1:phone", V4);
    one.connect_with(|connect| connect.keep_alive_secs = 10);
    bench.store().hold(true);
    one.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce);
    bench.advance(Duration::from_secs(14));
    one.send(Packet::PingReq);
    bench.store().release_all();
    bench.run();
    one.expect_accepted(AtLeastOnce, Some(1));
    one.expect(Packet::PingResp);
    bench.advance(Duration::from_secs(14));
    one.expect_nothing();
}

#[test]
fn users_who_have_gone_leave_nothing_behind() {
    let bench = Bench::new();
    let before = bench.router().known_users();
    for n in 100..2100 {
        let user = n.to_string();
        bench
            .directory()
            .set_account(&user, Some(&packets::token(&user)));
        bench.directory().befriend(&user, "1");
        let version = [V3, V4, V5][n % 3];
        let client = bench.client(&format!("{user}:phone"), version);
        client.connect_lasting();
        client.subscribe_inbox();
        client.write("1", "hello", AtMostOnce);
        client.publish(&format!("/{user}/x"), "y", AtMostOnce);
        client.drop_connection();
    }
    assert_eq!(bench.router().known_users(), before + 2000);
    bench.pass(Duration::from_secs(24 * 3600));
    assert_eq!(bench.router().known_users(), before);
}

#[test]
fn who_comes_and_goes_leaves_one_timer() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    for n in 0..100 {
        client.connect_with(|connect| {
            lasting(connect);
            connect.clean_start = n % 3 == 0;
            let mut will = packets::will("/1/x", "bye");
            will.delay_secs = Some(n % 2 * 60);
            connect.will = Some(will);
        });
        assert_eq!(bench.router().pending_timers(), 0);
        client.drop_connection();
        assert_eq!(bench.router().pending_timers(), 1);
        bench.pass(Duration::from_millis(1));
    }
    bench.client("1:other", V5).connect();
    assert_eq!(bench.router().pending_timers(), 0);
}

#[test]
fn who_writes_to_nobody_makes_nobody_known() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect();
    let before = bench.router().known_users();
    for n in 0..1000 {
        one.publish(
            &format!("/x{n}/inbox"),
            packets::message("1", "x"),
            AtLeastOnce,
        );
    }
    one.write("2", "not there", AtMostOnce);
    assert_eq!(bench.router().known_users(), before);
}

#[test]
fn mail_that_has_been_read_leaves_nothing_behind() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    for qos in [AtLeastOnce, ExactlyOnce] {
        one.write("2", "x", qos);
        two.connect();
        two.subscribe("/2/inbox", ExactlyOnce);
        two.read("1", "x");
        two.drop_connection();
        assert_eq!((bench.router().known_users(), bench.store().kept()), (1, 0));
    }
}

#[test]
fn packets_beyond_the_limit_end_the_connection_and_no_other() {
    for version in [V3, V4, V5] {
        let bench = Bench::with(|rules| rules.packet = 1000);
        let (one, two) = (
            bench.client("1:phone", version),
            bench.at_inbox("2:phone", version),
        );
        one.connect();
        one.publish("/2/inbox", packets::message("1", &large(1000)), AtLeastOnce);
        one.expect_ended(ReasonCode::PacketTooLarge);
        two.expect_nothing();
    }
}

#[test]
fn a_connect_has_a_limit_of_its_own() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.open();
    let mut connect = packets::connect("1:phone", V5);
    connect.will = Some(packets::will("/1/x", &large(65_000)));
    connect.password = Some("x".repeat(1000).into());
    client.send(Packet::Connect(Box::new(connect)));
    match client.next() {
        Some(Packet::ConnAck(conn_ack)) => {
            assert_eq!(
                u8::from(conn_ack.code),
                u8::from(ReasonCode::PacketTooLarge)
            );
        }
        other => panic!("{other:?}"),
    }
    client.expect_closed();
}

#[test]
fn a_client_id_that_is_too_long_is_refused_and_is_no_guess() {
    let bench = Bench::new();
    for len in [257, 60_000] {
        let id = format!("1:{}", large(len - 2));
        for _ in 0..20 {
            let client = bench.client(&id, V5);
            let conn_ack = client.try_connect(|_| ());
            let code = u8::from(ReasonCode::ClientIdentifierNotValid);
            assert_eq!(u8::from(conn_ack.code), code);
        }
    }
    let id = format!("1:{}", large(254));
    bench.client(&id, V5).connect();
}

#[test]
fn a_topic_that_is_too_long_is_refused_by_its_alias_too() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    for topic in [format!("/1/{}", large(60_000)), String::new()] {
        let id = client.publish_with(&topic, "x", AtLeastOnce, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.topic_alias = NonZeroU16::new(1);
        });
        client.expect_refusal("topic", "topic is too long", id);
        client.expect_answered(AtLeastOnce, id, ReasonCode::TopicNameInvalid);
    }
}

#[test]
fn a_will_with_too_many_properties_is_dropped_when_it_is_due() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.at_inbox("2:phone", V5));
    for (count, passes) in [(65, false), (64, true)] {
        one.connect_with(|connect| {
            let mut will = packets::will("/2/inbox", r#"{"from":"1"}"#);
            will.properties.user = (0..count).map(|_| ("k", "v")).collect();
            connect.will = Some(will);
        });
        one.drop_connection();
        bench.advance(Duration::from_secs(1));
        assert_eq!(two.next().is_some(), passes);
    }
}

#[test]
fn refused_filters_are_answered_with_errors_as_long_as_there_is_room() {
    let bench = Bench::new();
    let name = format!("1:{}", "p".repeat(250));
    let client = bench.client(&name, V5);
    client.connect();
    client.set_reading(false);
    let long = format!("/1/{}", large(60_000));
    for _ in 0..20 {
        let filters = (0..255)
            .map(|_| packets::filter("a", AtLeastOnce))
            .collect();
        client.send_subscribe(filters);
        client.send_subscribe(vec![packets::filter(&long, AtLeastOnce)]);
    }
    assert!(
        client.pending() < OUTPUT_ENOUGH + ANSWERS_ENOUGH,
        "{}",
        client.pending()
    );
    client.set_reading(true);
    let (mut errors, mut codes) = (0, 0);
    while let Some(packet) = client.next() {
        match packet {
            Packet::Publish(publish) => errors += usize::from(publish.payload.len() < 1000),
            Packet::SubAck(ack) => codes += ack.codes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(codes, 20 * 256);
    assert!((255..codes).contains(&errors), "{errors}");
}

#[test]
fn what_a_packet_costs_is_counted() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let devices: Vec<_> = (0..5)
        .map(|n| bench.client(&format!("1:{n}"), V5))
        .collect();
    for device in &devices {
        device.connect();
        device.subscribe("/1/x", AtMostOnce);
    }
    let one = &devices[0];
    let _ = one.take_work();
    let cost = |what: &dyn Fn()| {
        what();
        one.take_work()
    };
    let publish = |topic: &str, payload: &str| {
        cost(&|| {
            one.publish(topic, payload.to_owned(), AtMostOnce);
        })
    };
    assert_eq!(cost(&|| one.send(Packet::PingReq)), 1);
    assert_eq!(publish("/1/y", "x"), 1);
    assert_eq!(publish("/1/x", "x"), 1 + 5);
    let large = large(100 * 1024);
    let judged = publish("/1/y", &large);
    assert!((100..=102).contains(&judged), "{judged}");
    let filters = || {
        (0..40)
            .map(|n| packets::filter(&format!("/1/{n}"), AtMostOnce))
            .collect()
    };
    assert_eq!(cost(&|| one.send_subscribe(filters())), 41);
}

/// With a subscription to the inbox, all that waits there is looked at: a device that comes and goes as fast as it can has
/// fewer of those packets taken in a turn.
#[test]
fn a_full_inbox_makes_a_subscription_to_it_more_work() {
    let bench = Bench::with(|rules| rules.user.max_messages = 10_000);
    let one = bench.client("1:a", V5);
    one.connect();
    for number in 0..5_000 {
        one.publish(
            "/1/inbox",
            format!(r#"{{"from":"1","n":{number}}}"#),
            AtLeastOnce,
        );
        while one.next().is_some() {}
    }
    for _ in 0..3 {
        let _ = one.take_work();
        one.send_subscribe(vec![packets::filter("/1/inbox", AtLeastOnce)]);
        assert!(one.take_work() > 5_000 / 256);
        while one.next().is_some() {}
        let _ = one.take_work();
        one.unsubscribe("/1/inbox");
        assert!(one.take_work() > 4_000 / 256);
        while one.next().is_some() {}
    }
}

/// A message that hides its weight in its properties.
fn hidden(qos: QoS, client: &jam_testkit::Client) -> Option<u16> {
    client.publish_with("/2/inbox", r#"{"from":"1"}"#, qos, |publish| {
        let properties = publish.properties.get_or_insert_default();
        properties.correlation_data = Some(vec![7; 10_000].into());
        properties.user = [("k", "v")].into();
    })
}

#[test]
fn a_message_weighs_its_topic_and_its_properties_too() {
    for connected in [false, true] {
        let bench = Bench::with(|rules| rules.user.max_bytes = 100_000);
        let one = bench.client("1:phone", V5);
        one.connect();
        let two = connected.then(|| bench.at_inbox("2:phone", V5));
        if let Some(two) = &two {
            two.set_reading(false);
        }
        let mut taken = 0;
        loop {
            let id = hidden(AtLeastOnce, &one);
            bench.pass(Duration::from_millis(100));
            match one.next() {
                Some(Packet::PubAck(_)) => taken += 1,
                Some(Packet::Publish(_)) => break,
                other => panic!("{id:?}: {other:?}"),
            }
        }
        assert!((4..=9).contains(&taken), "{taken}");
    }
}

#[test]
fn one_sender_takes_at_most_half_of_a_mailbox() {
    // In messages, and in bytes.
    for (messages, bytes, most) in [(20, u64::MAX, 10), (usize::MAX, 20_000, 9)] {
        let bench = Bench::on_disk(|rules| {
            rules.user.max_messages = messages;
            rules.user.max_bytes = bytes;
        });
        let fill = |user: &str| {
            let client = bench.client(&format!("{user}:phone"), V5);
            client.connect();
            let mut taken = 0;
            loop {
                let payload = packets::message(user, &large(1000));
                client.publish("/2/inbox", payload, AtLeastOnce);
                bench.pass(Duration::from_millis(100));
                while bench.disk().is_some_and(|disk| disk.flush()) {}
                bench.run();
                match client.next() {
                    Some(Packet::PubAck(_)) => taken += 1,
                    Some(Packet::Publish(_)) => return taken,
                    other => panic!("{other:?}"),
                }
            }
        };
        bench.directory().befriend("3", "2");
        assert_eq!(fill("1"), most);
        bench.crash();
        assert_eq!(fill("1"), 0, "it is known after a crash too");
        assert_eq!(fill("3"), most);
        // What one of them has there is removed.
        let (receiver, sender) = (user("2"), user("1"));
        bench.router().purge(&receiver, u64::MAX, Some(&sender));
        assert_eq!((fill("3"), fill("1")), (0, most));
        bench.router().purge(&receiver, u64::MAX, Some(&user("9")));
        assert_eq!((fill("3"), fill("1")), (0, 0));
    }
}

fn user(id: &str) -> jam_core::ids::UserId {
    jam_core::ids::UserId::parse(id).expect("a user id")
}

#[test]
fn qos_0_that_waits_weighs_its_properties_and_holds_no_buffer() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.at_inbox("2:phone", V5));
    one.connect();
    two.set_reading(false);
    for _ in 0..3000 {
        hidden(AtMostOnce, &one);
    }
    one.publish("/1/x", "the last buffer", AtMostOnce);
    assert!(one.input_is_free());
    two.set_reading(true);
    let mut got = 0;
    while two.next().is_some() {
        got += 1;
    }
    // 8 MiB, and what was on its way to the socket.
    assert!((800..900).contains(&got), "{got}");
}

#[test]
fn who_does_not_take_what_was_read_for_him_does_not_hold_it() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::with(|rules| rules.user.max_bytes = 100 * 1024 * 1024);
        let one = bench.client("1:phone", V5);
        one.connect();
        let content = large(60_000);
        (0..40).for_each(|_| one.write("2", &content, qos));
        let two = bench.client("2:phone", V5);
        two.connect_lasting();
        two.set_reading(false);
        two.send_subscribe(vec![packets::filter("/2/inbox", ExactlyOnce)]);
        assert!((200_000..OUTPUT_ENOUGH + 61_000).contains(&two.pending()));
        assert_eq!(
            bench.router().loaded_bytes(),
            0,
            "the receiver does not read"
        );
        two.set_reading(true);
        two.expect_sub_ack();
        let mut got = Vec::new();
        while let Some(Packet::Publish(publish)) = two.next() {
            got.push(publish);
        }
        assert_eq!(got.len(), 10, "the window");
        assert_eq!(bench.router().loaded_bytes(), 0, "nothing is acknowledged");
        two.drop_connection();
        if qos == ExactlyOnce {
            continue;
        }
        two.connect_with(|connect| {
            lasting(connect);
            connect.clean_start = false;
        });
        for n in 0..40 {
            let publish = two.expect_publish();
            assert_eq!(publish.dup, n < 10);
            two.acknowledge(&publish);
        }
        assert_eq!(bench.router().loaded_bytes(), 0);
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn what_is_kept_is_a_copy_and_not_a_slice_of_a_buffer() {
    for version in [V4, V5] {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect_with(|connect| {
            lasting(connect);
            let mut will = packets::will("/1/x", "bye");
            if version == V5 {
                will.properties.user = [("a", "b")].into();
            }
            connect.will = Some(will);
        });
        assert!(one.input_is_free(), "after CONNECT");
        one.subscribe("/1/x", AtLeastOnce);
        assert!(one.input_is_free(), "after SUBSCRIBE");
        // The receiver is not known yet, and not connected: all that is kept of them starts here.
        one.write("2", "kept", AtLeastOnce);
        assert!(one.input_is_free(), "after PUBLISH to a friend");
        let id = one.publish_with("/1/x", "kept", AtLeastOnce, |publish| {
            publish.retain = true;
            if version == V5 {
                let properties = publish.properties.get_or_insert_default();
                properties.user = [("a", "b")].into();
                properties.topic_alias = NonZeroU16::new(1);
            }
        });
        one.expect_accepted(AtLeastOnce, id);
        let publish = one.expect_payload("/1/x", b"kept");
        one.ack(&publish);
        drop(publish);
        assert!(one.input_is_free(), "after PUBLISH to an own channel");
        one.drop_connection();
        // A session, and a connection, of a user whose first letter was from somebody else.
        let two = bench.client("2:phone", version);
        two.connect();
        two.subscribe_inbox();
        two.read("1", "kept");
        assert!(two.input_is_free());
    }
}
