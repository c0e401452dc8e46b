//! PROTOCOL.md, section 5, the device channel of section 2, and what is retained (section 4).

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::{MAX_RETAINED, MAX_SUBSCRIPTIONS};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{
    Connect, Disconnect, Packet, PublishProperties, QoS, RetainHandling, Version,
};

const VERSIONS: [Version; 3] = [V3, V4, V5];

const WILDCARDS: (&str, u8) = ("wildcards are not allowed in topic", 0xA2);
const LEVELS: (&str, u8) = ("not enough topic levels", 0x8F);
const FOREIGN: (&str, u8) = ("not authorized", 0x87);

/// Filters of user 1, and the row of section 5 that refuses them; where it can be had, a later one applies too.
const ROWS: &[(&str, (&str, u8))] = &[
    ("#", WILDCARDS),
    ("+", WILDCARDS),
    ("$SYS", WILDCARDS),
    ("/#", WILDCARDS),
    ("/1/#", WILDCARDS),
    ("/+/inbox", WILDCARDS),
    ("/2/#", WILDCARDS),
    ("/1/a$b", WILDCARDS),
    ("$share/g//1/inbox", WILDCARDS),
    ("$share/g/1", WILDCARDS),
    ("inbox", LEVELS),
    ("1", LEVELS),
    ("/", FOREIGN),
    ("//", FOREIGN),
    ("/2", FOREIGN),
    ("/2/inbox", FOREIGN),
    ("/10/inbox", FOREIGN),
    ("/2/devices/2:phone", FOREIGN),
    ("1/inbox", FOREIGN),
    ("x/1/inbox", FOREIGN),
    ("//1/inbox", FOREIGN),
];

fn code(version: Version, v5: u8) -> ReasonCode {
    ReasonCode::from_u8(if version == V5 { v5 } else { 0x80 }).expect("a code")
}

#[test]
fn each_row_in_its_order() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect();
        for (filter, (message, v5)) in ROWS {
            client.send_subscribe(vec![packets::filter(filter, AtLeastOnce)]);
            client.expect_error("authorizeSubscribe", filter, message, None);
            assert_eq!(client.expect_sub_ack(), [code(version, *v5)], "{filter}");
            client.expect_nothing();
        }
    }
}

#[test]
fn each_filter_is_judged_for_itself_and_errors_come_first() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect();
        client.send_subscribe(vec![
            packets::filter("/1/a", AtMostOnce),
            packets::filter("/2/inbox", ExactlyOnce),
            packets::filter("/1/b", AtLeastOnce),
            packets::filter("/1/+", AtMostOnce),
            packets::filter("/1/c", ExactlyOnce),
            packets::filter("/1", ExactlyOnce),
        ]);
        client.expect_error("authorizeSubscribe", "/2/inbox", FOREIGN.0, None);
        client.expect_error("authorizeSubscribe", "/1/+", WILDCARDS.0, None);
        let expected = [
            ReasonCode::Success,
            code(version, 0x87),
            ReasonCode::GrantedQoS1,
            code(version, 0xA2),
            ReasonCode::GrantedQoS2,
            ReasonCode::GrantedQoS2,
        ];
        assert_eq!(client.expect_sub_ack(), expected);
        client.expect_nothing();
    }
}

#[test]
fn the_category_is_the_filter_whatever_it_holds() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    client.send_subscribe(vec![packets::filter("/2/\"\\ü\u{1}", AtMostOnce)]);
    let expected = r#"{"type":"error","handler":"authorizeSubscribe","category":"/2/\"\\ü\u0001","message":"not authorized","messageId":null}"#;
    client.expect_payload("/1/devices/1:phone", expected.as_bytes());
}

#[test]
fn nobody_reads_what_is_not_his() {
    let bench = Bench::new();
    let spy = bench.client("3:phone", V5);
    spy.connect();
    for topic in ["/1/inbox", "/1/devices/1:phone", "/1/x"] {
        spy.send_subscribe(vec![packets::filter(topic, ExactlyOnce)]);
        spy.expect_error("authorizeSubscribe", topic, FOREIGN.0, None);
        spy.expect_sub_ack();
    }
    let one = bench.at_inbox("1:phone", V5);
    bench
        .at_inbox("2:phone", V5)
        .write("1", "secret", AtLeastOnce);
    one.read("2", "secret");
    one.publish("/1/x", "mine", AtMostOnce);
    spy.expect_nothing();
}

#[test]
fn matching_is_exact() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    for topic in ["/1", "/1/x/", "/1/x/y", "/1/X"] {
        client.subscribe(topic, AtLeastOnce);
    }
    client.publish("/1/x", "y", AtMostOnce);
    client.expect_nothing();
    client.publish("/1/x/", "y", AtMostOnce);
    client.expect_payload("/1/x/", b"y");
}

#[test]
fn the_device_channel_needs_no_subscription_and_one_does_not_double_it() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect();
        let provoke = || {
            client.publish("/1", "", AtMostOnce);
            client.expect_refusal("topic", "not enough topic levels", None);
            client.publish("/1/devices/1:phone", "to myself", AtMostOnce);
            let publish = client.expect_payload("/1/devices/1:phone", b"to myself");
            assert_eq!(publish.qos, AtMostOnce);
            client.expect_nothing();
        };
        provoke();
        assert_eq!(
            client.subscribe(&client.channel(), AtLeastOnce),
            ReasonCode::GrantedQoS1
        );
        provoke();
        client.unsubscribe(&client.channel());
        provoke();
    }
}

#[test]
fn a_device_reads_the_channel_of_another_one_only_if_it_asks() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let (a, b) = (bench.client("1:a", V4), bench.client("1:b", V4));
    a.connect();
    b.connect();
    a.publish("/1/devices/1:b", "psst", AtMostOnce);
    b.expect_payload("/1/devices/1:b", b"psst");
    a.expect_nothing();
    a.subscribe("/1/devices/1:b", AtMostOnce);
    b.publish("/1/devices/1:b", "psst", AtMostOnce);
    a.expect_payload("/1/devices/1:b", b"psst");
}

#[test]
fn the_qos_is_the_lower_of_both() {
    for (granted, published) in [(0, 2), (1, 2), (2, 1), (2, 0), (1, 1)] {
        let [granted, published] = [granted, published].map(|bits| QoS::from_bits(bits).unwrap());
        let bench = Bench::new();
        let two = bench.client("2:phone", V4);
        two.connect();
        two.subscribe("/2/inbox", granted);
        let one = bench.client("1:phone", V4);
        one.connect();
        one.write("2", "x", published);
        assert_eq!(two.expect_message("1", "x").qos, granted.min(published));
        // The last SUBSCRIBE counts, and delivers nothing twice.
        two.subscribe("/2/inbox", ExactlyOnce);
        two.expect_nothing();
        one.write("2", "y", published);
        assert_eq!(two.expect_message("1", "y").qos, published);
    }
}

#[test]
fn after_unsubscribe_nothing_comes() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = (
            bench.client("1:phone", version),
            bench.at_inbox("2:phone", version),
        );
        one.connect();
        two.unsubscribe("/2/inbox");
        one.write("2", "x", AtLeastOnce);
        one.write("2", "y", AtMostOnce);
        two.expect_nothing();
        two.subscribe_inbox();
        two.read("1", "x");
        two.expect_nothing();
    }
}

#[test]
fn unsubscribing_says_whether_there_was_something() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    client.subscribe("/1/a", AtMostOnce);
    let unsubscribe = packets::unsubscribe(packets::id(9), &["/1/a", "/1/a", "/2/inbox", "#"]);
    client.send(Packet::Unsubscribe(Box::new(unsubscribe)));
    match client.next() {
        Some(Packet::UnsubAck(ack)) => {
            use ReasonCode::{NoSubscriptionExisted, Success};
            let none = NoSubscriptionExisted;
            assert_eq!(ack.codes, [Success, none, none, none]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscriptions_are_bounded() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    for n in 0..MAX_SUBSCRIPTIONS {
        assert_eq!(
            client.subscribe(&format!("/1/{n}"), AtMostOnce),
            ReasonCode::Success
        );
    }
    assert_eq!(
        client.subscribe("/1/more", AtMostOnce),
        ReasonCode::QuotaExceeded
    );
    assert_eq!(
        client.subscribe("/1/0", AtLeastOnce),
        ReasonCode::GrantedQoS1
    );
}

#[test]
fn a_subscribe_of_very_many_filters_is_no_lever() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    client.send_subscribe(vec![
        packets::filter("x", AtMostOnce);
        MAX_SUBSCRIPTIONS + 1
    ]);
    client.expect_ended(ReasonCode::QuotaExceeded);
    client.connect();
    let filters = vec!["x"; MAX_SUBSCRIPTIONS + 1];
    let unsubscribe = packets::unsubscribe(packets::id(1), &filters);
    client.send(Packet::Unsubscribe(Box::new(unsubscribe)));
    client.expect_ended(ReasonCode::QuotaExceeded);
}

#[test]
fn subscription_identifiers_come_back() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    let mut subscribe =
        packets::subscribe(packets::id(1), vec![packets::filter("/1/x", AtMostOnce)]);
    subscribe.subscription_id = Some(268_435_455);
    client.send(Packet::Subscribe(Box::new(subscribe)));
    client.expect_sub_ack();
    client.publish("/1/x", "y", AtMostOnce);
    let publish = client.expect_payload("/1/x", b"y");
    let properties = publish.properties.unwrap();
    assert_eq!(properties.subscription_ids, [268_435_455]);
}

#[test]
fn no_local_is_about_the_own_connection_only() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let (a, b) = (bench.client("1:a", V5), bench.client("1:b", V5));
    for client in [&a, &b] {
        client.connect();
        let mut filter = packets::filter("/1/x", AtLeastOnce);
        filter.no_local = true;
        client.subscribe_with(vec![filter]);
    }
    let id = a.publish("/1/x", "y", AtLeastOnce);
    a.expect_accepted(AtLeastOnce, id);
    a.expect_nothing();
    b.expect_payload("/1/x", b"y");
}

fn retain(client: &Client, topic: &str, payload: &'static str, qos: QoS) {
    let id = client.publish_with(topic, payload, qos, |publish| publish.retain = true);
    client.expect_accepted(qos, id);
}

#[test]
fn own_channels_retain_their_last_message() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect();
        retain(&client, "/1/x", "old", AtLeastOnce);
        retain(&client, "/1/x", "new", ExactlyOnce);
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            client.subscribe("/1/x", qos);
            let publish = client.expect_payload("/1/x", b"new");
            assert_eq!((publish.retain, publish.qos), (true, qos));
            client.acknowledge(&publish);
            client.expect_nothing();
        }
        // To who is subscribed already it is a message like any other.
        client.subscribe("/1/y", AtMostOnce);
        retain(&client, "/1/y", "z", AtMostOnce);
        assert!(!client.expect_payload("/1/y", b"z").retain);
        // Nothing at all is what ends it, and that is a message too.
        retain(&client, "/1/y", "", AtMostOnce);
        client.expect_payload("/1/y", b"");
        client.subscribe("/1/y", AtMostOnce);
        client.expect_nothing();
    }
}

#[test]
fn what_is_retained_outlives_its_publisher() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    retain(&client, "/1/x", "still here", AtMostOnce);
    client.disconnect();
    client.expect_closed();
    let other = bench.client("1:other", V4);
    other.connect();
    other.subscribe("/1/x", AtMostOnce);
    other.expect_payload("/1/x", b"still here");
}

#[test]
fn retain_has_no_effect_on_an_inbox() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = (
            bench.client("1:phone", version),
            bench.client("2:phone", version),
        );
        one.connect();
        two.connect();
        let mut filter = packets::filter("/2/inbox", AtLeastOnce);
        filter.retain_as_published = version == V5;
        two.subscribe_with(vec![filter.clone()]);
        for (client, from) in [(&one, "1"), (&two, "2")] {
            client.publish_with(
                "/2/inbox",
                packets::message(from, "x"),
                AtMostOnce,
                |publish| {
                    publish.retain = true;
                },
            );
            assert!(!two.expect_message(from, "x").retain);
        }
        two.subscribe_with(vec![filter]);
        two.expect_nothing();
    }
}

#[test]
fn retain_handling_and_retain_as_published() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    retain(&client, "/1/x", "kept", AtLeastOnce);
    let subscribe = |handling| {
        let mut filter = packets::filter("/1/x", AtLeastOnce);
        filter.retain_handling = handling;
        filter.retain_as_published = true;
        client.subscribe_with(vec![filter]);
    };
    subscribe(RetainHandling::DoNotSend);
    client.expect_nothing();
    subscribe(RetainHandling::SendIfNew);
    client.expect_nothing();
    client.unsubscribe("/1/x");
    subscribe(RetainHandling::SendIfNew);
    let publish = client.expect_payload("/1/x", b"kept");
    client.ack(&publish);
    subscribe(RetainHandling::Send);
    let publish = client.expect_payload("/1/x", b"kept");
    client.ack(&publish);
    retain(&client, "/1/x", "as published", AtMostOnce);
    assert!(client.expect_payload("/1/x", b"as published").retain);
    client.publish("/1/x", "not retained", AtMostOnce);
    assert!(!client.expect_payload("/1/x", b"not retained").retain);
}

#[test]
fn what_is_retained_expires_and_keeps_its_properties() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    client.publish_with("/1/x", "y", AtMostOnce, |publish| {
        publish.retain = true;
        let properties = publish.properties.get_or_insert_default();
        properties.message_expiry_secs = Some(60);
        properties.content_type = Some("text".into());
    });
    bench.pass(Duration::from_secs(20));
    client.subscribe("/1/x", AtMostOnce);
    let properties = client.expect_payload("/1/x", b"y").properties;
    let expected = PublishProperties {
        message_expiry_secs: Some(40),
        content_type: Some("text".into()),
        user: [("from", "1")].into(),
        ..PublishProperties::default()
    };
    assert_eq!(properties.as_deref(), Some(&expected));
    bench.pass(Duration::from_secs(40));
    client.subscribe("/1/x", AtMostOnce);
    client.expect_nothing();
}

#[test]
fn what_is_retained_is_bounded() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    for n in 0..MAX_RETAINED {
        retain(&client, &format!("/1/{n}"), "x", AtMostOnce);
    }
    let more = |topic: &str, payload: &'static str| {
        client.publish_with(topic, payload, AtLeastOnce, |publish| publish.retain = true)
    };
    let id = more("/1/more", "x");
    client.expect_refusal("quota", "the receiver's inbox is full", id);
    client.expect_answered(AtLeastOnce, id, ReasonCode::QuotaExceeded);
    let id = more("/1/0", "replaced");
    client.expect_accepted(AtLeastOnce, id);
    let id = more("/1/0", "");
    client.expect_accepted(AtLeastOnce, id);
    let id = more("/1/more", "x");
    client.expect_accepted(AtLeastOnce, id);
}

#[test]
fn what_is_too_large_for_a_connection_waits_for_one_that_takes_it() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for change in [|_: &mut Connect| (), lasting] {
            let bench = Bench::new();
            let two = bench.client("2:phone", V5);
            let small = |connect: &mut Connect| {
                change(connect);
                connect.properties.maximum_packet_size = Some(200);
            };
            two.connect_with(small);
            two.subscribe("/2/inbox", qos);
            let one = bench.client("1:phone", V5);
            one.connect();
            one.write("2", "before", qos);
            one.write("2", &"x".repeat(200), qos);
            one.write("2", "after", qos);
            let both = ["before", "after"].map(|content| two.expect_message("1", content));
            both.iter().for_each(|publish| two.acknowledge(publish));
            two.expect_nothing();
            two.drop_connection();
            two.connect_with(small);
            two.subscribe("/2/inbox", qos);
            two.expect_nothing();
            two.drop_connection();
            if !two.connect_with(change).session_present {
                two.subscribe("/2/inbox", qos);
            }
            let publish = two.expect_message("1", &"x".repeat(200));
            assert!(!publish.dup);
            two.acknowledge(&publish);
            two.expect_nothing();
            assert_eq!(bench.store().kept(), 0);
        }
    }
}

#[test]
fn what_is_too_large_waits_also_for_who_would_not_have_to_acknowledge_it() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect_with(|connect| connect.properties.maximum_packet_size = Some(200));
    two.subscribe("/2/inbox", AtMostOnce);
    one.write("2", &"x".repeat(200), AtLeastOnce);
    one.write("2", &"x".repeat(200), AtMostOnce);
    one.write("2", "small", AtLeastOnce);
    two.expect_message("1", "small");
    two.expect_nothing();
    two.drop_connection();
    two.connect();
    two.subscribe("/2/inbox", AtMostOnce);
    two.expect_message("1", &"x".repeat(200));
    two.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn what_a_connection_takes_no_more_keeps_its_packet_id_for_the_next() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::new();
        let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
        one.connect();
        two.connect_lasting();
        two.subscribe("/2/inbox", qos);
        one.write("2", &"x".repeat(200), qos);
        let first = two.expect_message("1", &"x".repeat(200));
        two.drop_connection();
        two.connect_with(|connect| {
            lasting(connect);
            connect.properties.maximum_packet_size = Some(200);
        });
        one.write("2", "small", qos);
        let small = two.expect_message("1", "small");
        two.acknowledge(&small);
        two.expect_nothing();
        two.drop_connection();
        two.connect_lasting();
        let again = two.expect_publish();
        assert!(again.dup && again.packet_id == first.packet_id && again.payload == first.payload);
        two.acknowledge(&again);
        two.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn what_is_too_large_for_one_device_goes_to_the_other() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let (one, small, large) = (
        bench.client("1:phone", V5),
        bench.client("2:watch", V5),
        bench.client("2:phone", V5),
    );
    one.connect();
    small.connect_with(|connect| connect.properties.maximum_packet_size = Some(200));
    large.connect();
    small.subscribe_inbox();
    large.subscribe_inbox();
    one.write("2", &"x".repeat(200), AtLeastOnce);
    large.read("1", &"x".repeat(200));
    small.expect_nothing();
    // It waits for the watch until that is gone.
    assert_eq!(bench.store().kept(), 1);
    small.drop_connection();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn what_is_too_large_on_an_own_channel_counts_as_delivered() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let (one, small) = (bench.client("1:phone", V5), bench.client("1:watch", V5));
    one.connect();
    small.connect_with(|connect| connect.properties.maximum_packet_size = Some(200));
    small.subscribe("/1/notes", AtLeastOnce);
    let id = one.publish("/1/notes", "x".repeat(300), AtLeastOnce);
    one.expect_accepted(AtLeastOnce, id);
    small.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn a_shutdown_is_said() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    bench.shut_down();
    let reason = ReasonCode::ServerShuttingDown;
    client.expect(Packet::Disconnect(Box::new(Disconnect::with_reason(
        reason,
    ))));
    client.expect_closed();
}

#[test]
fn a_store_in_trouble_keeps_nobody_from_what_waits() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V4), bench.client("2:phone", V4));
    one.connect();
    two.connect_lasting();
    let publish = |content: &str| {
        let id = one.publish("/2/inbox", packets::message("1", content), AtLeastOnce);
        one.expect_accepted(AtLeastOnce, id);
    };
    publish("a");
    publish("b");
    bench.store().trouble(true);
    bench.store().hold(true);
    two.send_subscribe(vec![packets::filter("/2/inbox", AtLeastOnce)]);
    two.read("1", "a");
    two.read("1", "b");
    two.expect_nothing();
    bench.store().trouble(false);
    bench.store().release_all();
    bench.run();
    assert_eq!(two.expect_sub_ack(), [ReasonCode::GrantedQoS1]);
}

#[test]
fn trouble_that_begins_after_a_subscribe_keeps_nobody_from_what_waits() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V4), bench.client("2:phone", V4));
    one.connect();
    two.connect_lasting();
    let id = one.publish("/2/inbox", packets::message("1", "a"), AtLeastOnce);
    one.expect_accepted(AtLeastOnce, id);
    bench.store().hold(true);
    two.send_subscribe(vec![packets::filter("/2/inbox", AtLeastOnce)]);
    two.expect_nothing();
    bench.store().trouble(true);
    bench.router().wake_all();
    bench.run();
    two.read("1", "a");
}
