//! PROTOCOL.md, sections 2 and 4: what may be written where, and what who may not is told.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use bytes::Bytes;
use jam_core::directory::NotificationToken;
use jam_core::push::PushAudience;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, PublishProperties, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];
const ALL_QOS: [QoS; 3] = [AtMostOnce, AtLeastOnce, ExactlyOnce];

/// A row of section 4: category, message and reason, and publishes of user 1 for which this row and, where
/// it can be had, the next one applies. User 2 is a friend, 3 is not, 4 does not exist.
struct Row {
    category: &'static str,
    message: &'static str,
    reason: u8,
    publishes: &'static [(&'static str, &'static [u8])],
}

const FROM_1: &[u8] = br#"{"from":"1","content":"x"}"#;

const ROWS: &[Row] = &[
    Row {
        category: "topic",
        message: "not enough topic levels",
        reason: 0x90,
        publishes: &[
            ("a", FROM_1),
            ("/", FROM_1),
            ("/1", FROM_1),
            ("1/inbox", FROM_1),
            ("willtopic", FROM_1),
            ("/#", FROM_1),
            ("$SYS/x", FROM_1),
            ("/3+", b"no json"),
        ],
    },
    Row {
        category: "topic",
        message: "wildcards are not allowed in topic",
        reason: 0x90,
        publishes: &[
            ("/1/#", FROM_1),
            ("/+/inbox", FROM_1),
            ("/1/a$b", FROM_1),
            ("/2/no#t/mine", FROM_1),
            ("a/+/b", FROM_1),
            ("$SYS/a/b", FROM_1),
            ("$share/g//1/inbox", FROM_1),
        ],
    },
    Row {
        category: "topic",
        message: "can't publish to other user's channel except inbox",
        reason: 0x87,
        publishes: &[
            ("/2/other", b"no json"),
            ("/2/inbox/", b"no json"),
            ("/2/inbox/x", b"no json"),
            ("/2/Inbox", b"no json"),
            ("/2/devices/2:phone", FROM_1),
            ("//inbox", FROM_1),
            ("//1/inbox", FROM_1),
            ("a/2/inbox", FROM_1),
            ("1/2/inbox", FROM_1),
            ("/10/x", FROM_1),
            ("/01/x", FROM_1),
        ],
    },
    Row {
        category: "payload",
        message: "payload is not valid json",
        reason: 0x99,
        publishes: &[
            ("/3/inbox", b""),
            ("/3/inbox", b"hello"),
            ("/3/inbox", br#"[{"from":"1"}]"#),
            ("/3/inbox", br#""from""#),
            ("/3/inbox", br#"{"from":"2",}"#),
            ("/2/inbox", br#"{"from":"1"} x"#),
            ("/2/inbox", b"{\"from\":\"1\",\"c\":\"\xff\"}"),
            ("/1/inbox", b"hello"),
        ],
    },
    Row {
        category: "payload",
        message: "payload sender id mismatch",
        reason: 0x87,
        publishes: &[
            ("/3/inbox", b"{}"),
            ("/3/inbox", br#"{"from":"3"}"#),
            ("/3/inbox", br#"{"from":1}"#),
            ("/3/inbox", br#"{"from":null}"#),
            ("/3/inbox", br#"{"content":{"from":"1"}}"#),
            ("/3/inbox", br#"{"from":"1","from":"1"}"#),
            ("/2/inbox", br#"{"from":"1","\u0066rom":"2"}"#),
            ("/2/inbox", br#"{"from":"2","\u0066\u0072om":"1"}"#),
            ("/2/inbox", br#"{"from":"01"}"#),
            ("/1/inbox", br#"{"from":"2"}"#),
        ],
    },
    Row {
        category: "friends",
        message: "not friends with the receiver",
        reason: 0x87,
        publishes: &[
            ("/3/inbox", FROM_1),
            ("/4/inbox", FROM_1),
            ("/x y/inbox", FROM_1),
        ],
    },
];

/// Two who read everything that could reach them.
fn listeners(bench: &Bench, version: Version) -> [Client; 2] {
    ["2:phone", "3:phone"].map(|id| {
        let client = bench.client(id, version);
        client.connect();
        client.subscribe_inbox();
        for topic in ["inbox/", "inbox/x", "Inbox", "other"] {
            client.subscribe(&format!("/{}/{topic}", client.user()), ExactlyOnce);
        }
        client
    })
}

#[test]
fn each_row_in_its_order_in_each_version_and_qos() {
    for version in VERSIONS {
        let bench = Bench::with(|rules| rules.user.push.audience = PushAudience::NoService);
        for user in ["3", "4"] {
            bench
                .directory()
                .set_notification(user, NotificationToken::Unreadable);
        }
        let listeners = listeners(&bench, version);
        let sender = bench.at_inbox("1:phone", version);
        for row in ROWS {
            for (topic, payload) in row.publishes {
                for qos in ALL_QOS {
                    let id = sender.publish(topic, *payload, qos);
                    sender.expect_refusal(row.category, row.message, id);
                    sender.expect_answered(qos, id, ReasonCode::from_u8(row.reason).unwrap());
                    sender.expect_nothing();
                }
            }
        }
        listeners.iter().for_each(Client::expect_nothing);
        assert_eq!(bench.store().appended(), 0);
        sender.write("2", "after all that", ExactlyOnce);
        listeners[0].read("1", "after all that");
    }
}

#[test]
fn an_error_is_this_and_not_a_byte_else() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    client.send_raw(b"\x32\x0d\x00\x08/3/inbox\x00\x07x");
    let json = br#"{"type":"error","handler":"authorizePublish","category":"payload","message":"payload is not valid json","messageId":7}"#;
    let remaining = 2 + 18 + json.len();
    let mut expected = vec![0x30, u8::try_from(remaining % 128 + 128).unwrap(), 1];
    expected.extend_from_slice(b"\x00\x12/1/devices/1:phone");
    expected.extend_from_slice(json);
    expected.extend_from_slice(b"\x40\x02\x00\x07");
    assert_eq!(client.take_raw(), expected);
}

#[test]
fn a_stranger_is_refused_and_stays_connected() {
    for version in VERSIONS {
        let bench = Bench::new();
        let victim = bench.at_inbox("1:phone", version);
        let stranger = bench.client("3:phone", version);
        stranger.connect();
        for _ in 0..3 {
            let id = stranger.publish("/1/inbox", packets::message("3", "let me in"), AtLeastOnce);
            stranger.expect_refusal("friends", "not friends with the receiver", id);
            stranger.expect_answered(AtLeastOnce, id, ReasonCode::NotAuthorized);
        }
        stranger.send(Packet::PingReq);
        stranger.expect(Packet::PingResp);
        victim.expect_nothing();
    }
}

#[test]
fn a_block_takes_effect_while_both_are_connected() {
    let bench = Bench::new();
    let (one, two) = (bench.at_inbox("1:phone", V4), bench.at_inbox("2:phone", V4));
    one.write("2", "hello", AtLeastOnce);
    two.read("1", "hello");
    bench.directory().forbid("1", "2");
    let id = one.publish("/2/inbox", packets::message("1", "?"), AtLeastOnce);
    one.expect_refusal("friends", "not friends with the receiver", id);
    one.expect(Packet::PubAck(Ack::success(packets::id(id.unwrap()))));
    two.expect_nothing();
    // The rule looks at one direction only: (receiver, sender).
    two.write("1", "blocked you", AtLeastOnce);
    one.read("2", "blocked you");
}

#[test]
fn the_notification_token_matters_when_a_push_would_be_due() {
    for version in VERSIONS {
        let bench = Bench::with(|rules| rules.user.push.audience = PushAudience::NoService);
        bench
            .directory()
            .set_notification("2", NotificationToken::Unreadable);
        let one = bench.at_inbox("1:phone", version);
        for qos in ALL_QOS {
            let id = one.publish("/2/inbox", packets::message("1", "x"), qos);
            one.expect_refusal("notification_token", "fatal database error", id);
            one.expect_answered(qos, id, ReasonCode::ImplementationSpecificError);
        }
        // Not for the own inbox, not while the receiver is there, and not if there is no token.
        bench
            .directory()
            .set_notification("1", NotificationToken::Unreadable);
        one.publish("/1/inbox", packets::message("1", "x"), AtMostOnce);
        one.read("1", "x");
        let two = bench.at_inbox("2:phone", version);
        one.write("2", "y", AtLeastOnce);
        two.read("1", "y");
        two.drop_connection();
        bench
            .directory()
            .set_notification("2", NotificationToken::Absent);
        one.write("2", "z", AtLeastOnce);
    }
}

#[test]
fn without_push_nobody_asks_for_the_notification_token() {
    let bench = Bench::new();
    bench
        .directory()
        .set_notification("2", NotificationToken::Unreadable);
    let one = bench.at_inbox("1:phone", V4);
    one.write("2", "x", AtLeastOnce);
}

#[test]
fn the_directory_may_take_its_time() {
    for version in VERSIONS {
        let bench = Bench::with(|rules| rules.user.push.audience = PushAudience::NoService);
        bench.directory().forget();
        let one = bench.at_inbox("1:phone", version);
        let stream = [1, 2, 3].map(|n| {
            let id = PacketId::new(100 + n);
            let to = if n == 2 { "/3/inbox" } else { "/2/inbox" };
            Packet::Publish(packets::publish(
                to,
                packets::message("1", "x"),
                AtLeastOnce,
                id,
            ))
        });
        one.send_all(&stream);
        one.expect_refusal("friends", "not friends with the receiver", Some(102));
        one.expect_answered(AtLeastOnce, Some(101), ReasonCode::Success);
        one.expect_answered(AtLeastOnce, Some(102), ReasonCode::NotAuthorized);
        one.expect_answered(AtLeastOnce, Some(103), ReasonCode::Success);
        one.expect_nothing();
    }
}

#[test]
fn a_directory_that_fails_refuses_and_changes_nothing() {
    for version in VERSIONS {
        for qos in ALL_QOS {
            let bench = Bench::new();
            let (one, two) = (
                bench.at_inbox("1:phone", version),
                bench.at_inbox("2:phone", version),
            );
            bench.directory().forget();
            bench.directory().fail(true);
            let id = one.publish("/2/inbox", packets::message("1", "x"), qos);
            one.expect_refusal("friends", "fatal database error", id);
            one.expect_answered(qos, id, ReasonCode::ImplementationSpecificError);
            two.expect_nothing();
            bench.directory().fail(false);
            one.write("2", "y", qos);
            two.expect_message("1", "y");
        }
    }
}

#[test]
fn a_message_gets_through_unchanged_in_each_qos_and_between_versions() {
    let odd: &[u8] =
        b" \t{\"content\" : [1,2, 3],\r\n \"from\":\"\\u0031\" , \"x\":{\"from\":\"9\"}} ";
    for (from, to) in [(V3, V4), (V4, V5), (V5, V3), (V5, V5), (V4, V4)] {
        for qos in ALL_QOS {
            let bench = Bench::new();
            let two = bench.client("2:phone", to);
            two.connect();
            two.subscribe("/2/inbox", ExactlyOnce);
            let one = bench.client("1:phone", from);
            one.connect();
            let id = one.publish("/2/inbox", odd, qos);
            one.expect_accepted(qos, id);
            let publish = two.expect_payload("/2/inbox", odd);
            assert_eq!(publish.qos, qos);
            assert!(!publish.retain);
            let expected = (to == V5).then(|| PublishProperties {
                user: [("from", "1")].into(),
                ..Default::default()
            });
            assert_eq!(publish.properties.as_deref(), expected.as_ref());
            two.acknowledge(&publish);
            two.expect_nothing();
            one.expect_nothing();
        }
    }
}

#[test]
fn a_megabyte_gets_through() {
    let bench = Bench::with(|rules| rules.packet = 4 * 1024 * 1024);
    let (one, two) = (bench.at_inbox("1:phone", V4), bench.at_inbox("2:phone", V5));
    let picture = "1,".repeat(500_000) + "1";
    let payload = Bytes::from(format!(r#"{{"from":"1","content":[{picture}]}}"#));
    for _ in 0..3 {
        let id = one.publish("/2/inbox", payload.clone(), AtLeastOnce);
        one.expect_accepted(AtLeastOnce, id);
        let publish = two.expect_payload("/2/inbox", &payload);
        two.ack(&publish);
    }
}

#[test]
fn a_client_cannot_say_who_wrote() {
    let bench = Bench::new();
    let (one, two) = (bench.at_inbox("1:phone", V5), bench.at_inbox("2:phone", V5));
    one.publish_with(
        "/2/inbox",
        packets::message("1", "x"),
        AtLeastOnce,
        |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.user = [("from", "3"), ("a", "b"), ("from", "1"), ("a", "c")].into();
            properties.response_topic = Some("/1/answers".into());
            properties.correlation_data = Some(Bytes::from_static(b"\x00\xff"));
            properties.content_type = Some("application/json".into());
            properties.payload_is_utf8 = Some(true);
        },
    );
    let got = two.expect_message("1", "x").properties.unwrap();
    assert_eq!(got.user, [("a", "b"), ("a", "c"), ("from", "1")].into());
    assert_eq!(got.response_topic, Some("/1/answers".into()));
    assert_eq!(got.correlation_data, Some(Bytes::from_static(b"\x00\xff")));
    assert_eq!(got.content_type, Some("application/json".into()));
    assert_eq!(got.payload_is_utf8, Some(true));
}

#[test]
fn anything_may_be_published_to_own_channels() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let (phone, tablet) = (bench.client("1:phone", V5), bench.client("1:tablet", V4));
    phone.connect();
    tablet.connect();
    for topic in ["/1/x", "/1/", "/1//", "/1/inbox/x", "/1/a b/ü"] {
        assert_eq!(
            tablet.subscribe(topic, ExactlyOnce),
            ReasonCode::GrantedQoS2
        );
        let id = phone.publish(topic, &b"\x00no json\xff"[..], ExactlyOnce);
        phone.expect_accepted(ExactlyOnce, id);
        let publish = tablet.expect_payload(topic, b"\x00no json\xff");
        tablet.acknowledge(&publish);
    }
    phone.expect_nothing();
}

#[test]
fn topic_aliases() {
    let bench = Bench::new();
    let (one, two) = (bench.at_inbox("1:phone", V5), bench.at_inbox("2:phone", V5));
    let alias = |topic: &str, n: u16| {
        one.publish_with(topic, packets::message("1", "x"), AtMostOnce, |publish| {
            publish.properties.get_or_insert_default().topic_alias = PacketId::new(n);
        });
    };
    alias("/2/inbox", 16);
    alias("", 16);
    for _ in 0..2 {
        // It means something on the sender's connection only.
        let properties = two.expect_message("1", "x").properties;
        assert_eq!(properties.and_then(|it| it.topic_alias), None);
    }
    // An alias may come to stand for something else, and a refused topic still takes its place.
    alias("/3/inbox", 16);
    one.expect_refusal("friends", "not friends with the receiver", None);
    alias("", 16);
    one.expect_refusal("friends", "not friends with the receiver", None);
    two.expect_nothing();
    // Those of one connection are not known on the next one.
    one.connect();
    alias("", 16);
    one.expect_ended(ReasonCode::ProtocolError);
    one.connect();
    alias("/2/inbox", 17);
    one.expect_ended(ReasonCode::TopicAliasInvalid);
    two.expect_nothing();
}

#[test]
fn qos_0_goes_to_who_is_there_and_is_not_kept() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V4), bench.client("2:phone", V4));
    one.connect();
    two.connect_lasting();
    two.subscribe("/2/inbox", ExactlyOnce);
    one.write("2", "there", AtMostOnce);
    let publish = two.expect_message("1", "there");
    assert_eq!(publish.qos, AtMostOnce);
    two.drop_connection();
    one.write("2", "gone", AtMostOnce);
    two.connect_lasting();
    two.expect_nothing();
    assert_eq!(bench.store().appended(), 0);
}

#[test]
fn an_inbox_that_is_full_refuses_and_drops_nothing() {
    for version in VERSIONS {
        let bench = Bench::with(|rules| rules.user.max_messages = 6);
        let one = bench.client("1:phone", version);
        one.connect();
        for n in 0..3 {
            one.write("2", &n.to_string(), AtLeastOnce);
        }
        for qos in [AtLeastOnce, ExactlyOnce] {
            let id = one.publish("/2/inbox", packets::message("1", "too much"), qos);
            one.expect_refusal("quota", "the receiver's inbox is full", id);
            one.expect_answered(qos, id, ReasonCode::QuotaExceeded);
        }
        one.write("2", "qos 0 takes no room", AtMostOnce);
        one.expect_nothing();
        let two = bench.client("2:phone", version);
        two.connect();
        two.subscribe_inbox();
        (0..3).for_each(|n| two.read("1", &n.to_string()));
        two.expect_nothing();
        one.write("2", "room again", ExactlyOnce);
        two.read("1", "room again");
    }
}

#[test]
fn an_inbox_is_full_in_bytes_too() {
    let size = (packets::message("1", &"x".repeat(100)).len() + "/2/inbox".len()) as u64;
    let bench = Bench::with(|rules| rules.user.max_bytes = 4 * size);
    let one = bench.client("1:phone", V5);
    one.connect();
    one.write("2", &"x".repeat(100), AtLeastOnce);
    one.write("2", &"x".repeat(100), AtLeastOnce);
    let id = one.publish("/2/inbox", packets::message("1", ""), AtLeastOnce);
    one.expect_refusal("quota", "the receiver's inbox is full", id);
    one.expect_answered(AtLeastOnce, id, ReasonCode::QuotaExceeded);
    // What is too old makes room.
    bench.pass(Duration::from_secs(31 * 24 * 3600));
    one.connect();
    one.write("2", "y", AtLeastOnce);
    let two = bench.at_inbox("2:phone", V5);
    two.read("1", "y");
    two.expect_nothing();
}

#[test]
fn a_full_inbox_does_not_keep_its_owner_from_his_other_channels() {
    let bench = Bench::with(|rules| rules.user.max_messages = 1);
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    two.connect();
    one.write("2", "x", AtLeastOnce);
    let id = two.publish("/2/nobody/listens", "y", AtLeastOnce);
    two.expect_accepted(AtLeastOnce, id);
}

#[test]
fn a_fatal_packet_ends_that_connection_and_no_other() {
    for (bytes, reason) in [
        (
            &b"\x32\x09\x00\x04/1/x\x00\x00\x00"[..],
            ReasonCode::ProtocolError,
        ),
        (
            b"\x36\x09\x00\x04/1/x\x00\x01\x00",
            ReasonCode::MalformedPacket,
        ),
        (b"\x30\xff\xff\xff\x7f", ReasonCode::PacketTooLarge),
        (b"\x00\x00", ReasonCode::MalformedPacket),
    ] {
        let bench = Bench::new();
        let (one, two) = (bench.client("1:phone", V5), bench.at_inbox("2:phone", V5));
        one.connect();
        one.send_raw(bytes);
        match one.next() {
            Some(Packet::Disconnect(disconnect)) => {
                let malformed = [ReasonCode::MalformedPacket, ReasonCode::ProtocolError];
                let either = malformed.contains(&reason) && malformed.contains(&disconnect.reason);
                assert!(disconnect.reason == reason || either, "{disconnect:?}");
            }
            other => panic!("{other:?}"),
        }
        one.expect_closed();
        two.expect_nothing();
    }
}
