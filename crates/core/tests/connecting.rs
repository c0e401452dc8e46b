//! PROTOCOL.md, section 3: who gets in, and what who does not is told.

use std::time::Duration;

use Version::{V3, V4, V5};
use bytes::Bytes;
use jam_core::directory::NotificationToken;
use jam_core::push::PushAudience;
use jam_testkit::client::lasting;
use jam_testkit::{Bench, packets};
use jam_wire::packet::{
    Auth, ConnAckProperties, ConnectCode, Packet, PacketId, QoS, ReasonProperties, Version,
};
use jam_wire::{ConnectReturnCode, ReasonCode};

const VERSIONS: [Version; 3] = [V3, V4, V5];

type Change = fn(&mut jam_wire::packet::Connect);

/// Category, message, 3.1.1 code and 5.0 reason of each row of `authenticate`, and a CONNECT for which
/// this row and all later ones apply: so the order is tested with each.
const ROWS: &[(&str, &str, u8, u8, Change)] = &[
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            connect.user_name = Some("9".into());
            connect.password = Some(Bytes::new());
        },
    ),
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            connect.user_name = None;
            connect.password = None;
        },
    ),
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            connect.client_id = "".into();
        },
    ),
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            (connect.client_id, connect.user_name) = ("".into(), Some("".into()));
        },
    ),
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            (connect.client_id, connect.user_name) = (":phone".into(), Some("".into()));
        },
    ),
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            connect.client_id = "10:phone".into();
        },
    ),
    (
        "id",
        "client id and user id don't match",
        4,
        0x85,
        |connect| {
            connect.user_name = Some("1:phone".into());
        },
    ),
    ("api_token", "wrong api token format", 4, 0x86, |connect| {
        (connect.client_id, connect.user_name) = ("9:x".into(), Some("9".into()));
        connect.password = None;
    }),
    ("api_token", "wrong api token format", 4, 0x86, |connect| {
        connect.password = None;
    }),
    ("api_token", "wrong api token format", 4, 0x86, |connect| {
        connect.password = Some(Bytes::new());
    }),
    ("api_token", "wrong api token format", 4, 0x86, |connect| {
        connect.password = Some(Bytes::from_static(b"token of 1\xff"));
    }),
    ("api_token", "unknown user id", 5, 0x87, |connect| {
        (connect.client_id, connect.user_name) = ("9:x".into(), Some("9".into()));
        connect.password = Some(Bytes::from_static(b"wrong"));
    }),
    ("api_token", "unknown user id", 5, 0x87, |connect| {
        (connect.client_id, connect.user_name) = ("a/b:x".into(), Some("a/b".into()));
    }),
    ("api_token", "wrong api token", 5, 0x87, |connect| {
        connect.password = Some(Bytes::from_static(b"token of 2"));
    }),
    ("api_token", "wrong api token", 5, 0x87, |connect| {
        connect.password = Some(Bytes::from_static(b"token of 1 "));
    }),
];

fn code(version: Version, v3: u8, v5: u8) -> ConnectCode {
    match version {
        V5 => ConnectCode::V5(ReasonCode::from_u8(v5).expect("a code")),
        V3 | V4 => ConnectCode::V3(ConnectReturnCode::from_u8(v3).expect("a code")),
    }
}

#[test]
fn each_row_in_its_order() {
    for version in VERSIONS {
        for (category, message, v3, v5, change) in ROWS {
            let bench = Bench::new();
            let client = bench.client("1:phone", version);
            // 3.1.1 and 3.1 cannot say a password without a user name.
            let conn_ack = client.try_connect(|connect| {
                change(connect);
                if connect.user_name.is_none() {
                    connect.password = None;
                }
            });
            assert_eq!(
                conn_ack.code,
                code(version, *v3, *v5),
                "{message} in {version:?}"
            );
            assert!(!conn_ack.session_present);
            let json = packets::error("authenticate", category, message, None);
            let expected = (version == V5).then(|| json.into());
            assert_eq!(conn_ack.properties.reason_string, expected);
            client.expect_closed();
            assert!(!bench.is_connected("1"));
        }
    }
}

#[test]
fn an_account_without_a_token_lets_nobody_in() {
    for version in VERSIONS {
        let bench = Bench::new();
        bench.directory().set_account("1", None);
        let conn_ack = bench.client("1:phone", version).try_connect(|_| ());
        assert_eq!(conn_ack.code, code(version, 5, 0x87));
    }
}

#[test]
fn spam_comes_before_everything_else_and_ends_with_its_window() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        for _ in 0..11 {
            let conn_ack = client.try_connect(|connect| connect.password = Some("no".into()));
            assert_eq!(conn_ack.code, code(version, 5, 0x87));
            bench.pass(Duration::from_secs(1));
        }
        let spam = client.try_connect(|connect| connect.user_name = Some("9".into()));
        assert_eq!(spam.code, code(version, 4, 0x9F));
        let json = packets::error("preConnect", "spam", "too many failed auth attempts", None);
        assert_eq!(
            spam.properties.reason_string,
            (version == V5).then(|| json.into())
        );
        client.expect_closed();
        // Even the right token, but not the right token from elsewhere.
        assert_eq!(client.try_connect(|_| ()).code, code(version, 4, 0x9F));
        let other = bench.client("1:phone", version);
        other.set_address([198, 51, 100, 7]);
        other.connect();
        bench.pass(Duration::from_secs(600 - 11));
        client.connect();
    }
}

#[test]
fn ten_failures_are_not_too_many_and_a_success_clears_them() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    for _ in 0..3 {
        for _ in 0..10 {
            client.try_connect(|connect| connect.password = Some("no".into()));
        }
        client.connect();
    }
}

#[test]
fn guesses_at_many_client_ids_from_one_address_count_together() {
    let bench = Bench::new();
    for n in 0..11 {
        let guess = bench.client(&format!("1:{n}"), V5);
        guess.try_connect(|connect| connect.password = Some("no".into()));
    }
    let conn_ack = bench.client("3:own", V5).try_connect(|_| ());
    assert_eq!(
        conn_ack.code,
        ConnectCode::V5(ReasonCode::ConnectionRateExceeded)
    );
}

#[test]
fn what_the_server_has_not_is_said_to_5_0_and_to_nobody_else() {
    for version in VERSIONS {
        let bench = Bench::new();
        let conn_ack = bench.client("1:phone", version).connect();
        let expected = ConnAckProperties {
            receive_maximum: PacketId::new(10),
            maximum_packet_size: Some(1024 * 1024),
            topic_alias_maximum: Some(16),
            wildcard_subscription_available: Some(false),
            shared_subscription_available: Some(false),
            ..ConnAckProperties::default()
        };
        let expected = if version == V5 {
            expected
        } else {
            ConnAckProperties::default()
        };
        assert_eq!(conn_ack.properties, expected);
    }
}

#[test]
fn the_device_id_may_be_anything_or_missing() {
    let bench = Bench::new();
    for id in ["1", "1:", "1::", "1:a:b", "1:/+#$", "1:ü"] {
        let client = bench.client(id, V4);
        client.connect();
        client.publish("/1", "", QoS::AtMostOnce);
        client.expect_refusal("topic", "not enough topic levels", None);
    }
}

#[test]
fn a_will_that_would_be_refused_does_not_keep_anybody_out() {
    for version in VERSIONS {
        let bench = Bench::new();
        for topic in ["willtopic", "/2", "/3/inbox", "/2/other", "/1/+"] {
            let client = bench.client("1:phone", version);
            client.connect_with(|connect| connect.will = Some(packets::will(topic, "bye")));
        }
    }
}

#[test]
fn an_unknown_protocol_level_is_answered() {
    let connect = |level: u8| {
        let mut bytes = b"\x10\x0e\x00\x04MQTT\x00\x02\x00\x00\x00\x02ab".to_vec();
        bytes[8] = level;
        bytes
    };
    for (level, answer) in [
        (0, &b"\x20\x02\x00\x01"[..]),
        (3, b"\x20\x02\x00\x01"),
        (6, b"\x20\x03\x00\x84\x00"),
        (0x84, b"\x20\x02\x00\x01"),
        (255, b"\x20\x02\x00\x01"),
    ] {
        let bench = Bench::new();
        let client = bench.client("1:phone", V4);
        client.open();
        client.send_raw(&connect(level));
        assert_eq!(client.take_raw(), answer, "level {level}");
        client.expect_closed();
    }
}

#[test]
fn garbage_instead_of_a_connect_closes_that_connection_and_no_other() {
    let bench = Bench::new();
    let friend = bench.at_inbox("2:phone", V5);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00",
        b"\xc0\x00",
        b"\x10\xff\xff\xff\xff\x01",
    ] {
        let client = bench.client("2:phone", V5);
        client.open();
        client.send_raw(bytes);
        client.expect_closed();
    }
    friend.expect_nothing();
}

#[test]
fn a_connect_that_does_not_come_in_time_is_not_waited_for() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.open();
    client.send_raw(b"\x10");
    bench.advance(Duration::from_secs(9));
    client.expect_nothing();
    bench.advance(Duration::from_secs(1));
    client.expect_closed();
}

#[test]
fn connect_subscribe_and_publish_in_one_segment() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.open();
        let publish = packets::publish(
            "/1/inbox",
            packets::message("1", "x"),
            QoS::AtLeastOnce,
            PacketId::new(2),
        );
        let filters = vec![packets::filter("/1/inbox", QoS::AtLeastOnce)];
        client.send_all(&[
            Packet::Connect(Box::new(packets::connect("1:phone", version))),
            Packet::Subscribe(Box::new(packets::subscribe(packets::id(1), filters))),
            Packet::Publish(publish),
        ]);
        assert!(matches!(client.next(), Some(Packet::ConnAck(_))));
        assert_eq!(client.expect_sub_ack(), [ReasonCode::GrantedQoS1]);
        client.read("1", "x");
        client.expect_accepted(QoS::AtLeastOnce, Some(2));
    }
}

#[test]
fn an_impostor_hurts_nobody() {
    for version in VERSIONS {
        let bench = Bench::new();
        let phone = bench.client("1:phone", version);
        phone.connect_lasting();
        phone.subscribe_inbox();
        let impostor = bench.client("1:phone", version);
        impostor.set_address([198, 51, 100, 7]);
        for (_, _, _, _, change) in ROWS {
            impostor.try_connect(|connect| {
                change(connect);
                if connect.user_name.is_none() {
                    connect.password = None;
                }
            });
            impostor.expect_closed();
            impostor.drop_connection();
        }
        phone.expect_nothing();
        let friend = bench.at_inbox("2:phone", version);
        friend.write("1", "still there", QoS::AtLeastOnce);
        phone.read("2", "still there");
    }
}

#[test]
fn the_second_device_logs_the_first_one_out() {
    for version in VERSIONS {
        let bench = Bench::new();
        let first = bench.client("1:old", version);
        first.connect_lasting();
        let second = bench.client("1:new", version);
        second.connect();
        second.expect_nothing();
        first.expect_error("authenticate", "logout", "a new device has connected", None);
        first.expect_ended(ReasonCode::SessionTakenOver);
        // Its session has ended with that, and it logs the other one out in its turn.
        assert!(!first.connect_lasting().session_present);
        second.expect_error("authenticate", "logout", "a new device has connected", None);
    }
}

#[test]
fn a_device_that_is_away_loses_its_session_to_another_one() {
    let bench = Bench::new();
    let first = bench.client("1:old", V4);
    first.connect_lasting();
    first.drop_connection();
    bench.client("1:new", V4).connect();
    assert!(!first.connect_lasting().session_present);
}

#[test]
fn the_same_client_id_takes_over_without_a_logout() {
    for version in [V4, V5] {
        let bench = Bench::new();
        let first = bench.client("1:phone", version);
        first.connect_lasting();
        let again = bench.client("1:phone", version);
        assert!(again.connect_lasting().session_present);
        first.expect_ended(ReasonCode::SessionTakenOver);
        again.expect_nothing();
    }
}

#[test]
fn many_devices_live_side_by_side() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let devices: Vec<_> = (0..32)
        .map(|n| bench.client(&format!("1:{n}"), V5))
        .collect();
    devices.iter().for_each(|device| drop(device.connect()));
    devices.iter().for_each(|device| device.expect_nothing());
    let one_more = bench.client("1:32", V5).try_connect(|_| ());
    assert_eq!(one_more.code, ConnectCode::V5(ReasonCode::QuotaExceeded));
    let one_more = bench.client("1:32", V4).try_connect(|_| ());
    assert_eq!(
        one_more.code,
        ConnectCode::V3(ConnectReturnCode::ServerUnavailable)
    );
    devices[0].drop_connection();
    bench.client("1:32", V5).connect();
}

#[test]
fn the_directory_may_take_its_time_or_fail() {
    for version in VERSIONS {
        let bench = Bench::new();
        bench.directory().forget();
        bench.client("1:phone", version).connect();
        assert_eq!(bench.directory().questions(), 1);
        bench.directory().fail(true);
        let client = bench.client("2:phone", version);
        let conn_ack = client.try_connect(|_| ());
        assert_eq!(conn_ack.code, code(version, 3, 0x88));
        client.expect_closed();
        // That was nobody's wrong guess.
        bench.directory().fail(false);
        client.connect();
    }
}

#[test]
fn a_changed_token_or_a_deleted_account_ends_the_connection_it_let_in() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = (
            bench.client("1:phone", version),
            bench.client("2:phone", version),
        );
        one.connect();
        two.connect();
        bench.recheck();
        one.expect_nothing();
        bench.directory().set_account("1", Some("new"));
        bench.directory().remove_account("2");
        bench.recheck();
        one.expect_ended(ReasonCode::NotAuthorized);
        two.expect_ended(ReasonCode::NotAuthorized);
        assert_eq!(one.try_connect(|_| ()).code, code(version, 5, 0x87));
        one.connect_with(|connect| connect.password = Some("new".into()));
        bench.directory().set_account("1", None);
        bench.recheck();
        one.expect_ended(ReasonCode::NotAuthorized);
    }
}

#[test]
fn packets_that_only_a_server_sends_and_a_second_connect_end_the_connection() {
    let auth = Auth {
        reason: ReasonCode::ReAuthenticate,
        authentication_method: Some("x".into()),
        authentication_data: None,
        properties: ReasonProperties::default(),
    };
    let conn_ack = Bench::new().client("1:phone", V5).connect();
    for packet in [
        Packet::Connect(Box::new(packets::connect("1:phone", V5))),
        Packet::ConnAck(Box::new(conn_ack)),
        Packet::PingResp,
        Packet::Auth(Box::new(auth)),
    ] {
        let bench = Bench::new();
        let client = bench.client("1:phone", V5);
        client.connect();
        client.send(packet);
        client.expect_ended(ReasonCode::ProtocolError);
    }
}

#[test]
fn extended_authentication_is_refused() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    let conn_ack = client.try_connect(|connect| {
        connect.properties.authentication_method = Some("SCRAM-SHA-1".into());
    });
    assert_eq!(
        conn_ack.code,
        ConnectCode::V5(ReasonCode::BadAuthenticationMethod)
    );
    client.expect_closed();
}

#[test]
fn a_connack_that_is_too_large_for_the_client_is_made_smaller() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    let conn_ack = client.connect_with(|connect| {
        connect.properties.maximum_packet_size = Some(10);
    });
    assert_eq!(conn_ack.properties, ConnAckProperties::default());
    let refused = client.try_connect(|connect| {
        connect.properties.maximum_packet_size = Some(30);
        connect.password = Some("no".into());
    });
    assert_eq!(refused.code, ConnectCode::V5(ReasonCode::NotAuthorized));
    assert_eq!(refused.properties.reason_string, None);
}

#[test]
fn who_takes_no_connack_gets_none_and_displaces_nobody() {
    let bench = Bench::new();
    let first = bench.client("1:phone", V5);
    first.connect();
    let other = bench.client("1:tablet", V5);
    for (max, password) in [(4, "right"), (4, "wrong"), (1, "right"), (1, "wrong")] {
        other.open();
        let mut connect = packets::connect("1:tablet", V5);
        connect.properties.maximum_packet_size = Some(max);
        if password == "wrong" {
            connect.password = Some("wrong".into());
        }
        other.send(Packet::Connect(Box::new(connect)));
        other.expect_closed();
        assert!(other.take_raw().is_empty());
    }
    first.expect_nothing();
    assert!(first.is_open());
    // The smallest CONNACK there is.
    other.connect_with(|connect| connect.properties.maximum_packet_size = Some(5));
}

#[test]
fn keep_alive_is_one_and_a_half_times() {
    for version in VERSIONS {
        let bench = Bench::new();
        let client = bench.client("1:phone", version);
        client.connect_with(|connect| connect.keep_alive_secs = 10);
        for _ in 0..3 {
            bench.advance(Duration::from_secs(14));
            client.send(Packet::PingReq);
            client.expect(Packet::PingResp);
        }
        bench.advance(Duration::from_millis(14_999));
        client.expect_nothing();
        bench.advance(Duration::from_millis(1));
        client.expect_ended(ReasonCode::KeepAliveTimeout);
    }
}

#[test]
fn without_keep_alive_a_connection_lasts() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    bench.pass(Duration::from_secs(1_000_000));
    client.expect_nothing();
}

#[test]
fn bytes_of_a_packet_that_is_not_complete_show_that_the_client_is_alive() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect_with(|connect| connect.keep_alive_secs = 10);
    client.send_raw(b"\x30\x80\x01");
    for _ in 0..10 {
        bench.advance(Duration::from_secs(10));
        client.send_raw(b"x");
    }
    client.expect_nothing();
}

#[test]
fn session_expiry_is_granted_up_to_the_maximum() {
    let bench = Bench::new();
    let day = 24 * 3600;
    for (asked, told) in [
        (None, None),
        (Some(0), None),
        (Some(60), None),
        (Some(day), None),
        (Some(day + 1), Some(day)),
        (Some(u32::MAX), Some(day)),
    ] {
        let conn_ack = bench.client("1:phone", V5).connect_with(|connect| {
            connect.properties.session_expiry_secs = asked;
        });
        assert_eq!(conn_ack.properties.session_expiry_secs, told, "{asked:?}");
    }
}

#[test]
fn the_notification_token_is_nobodys_business_here() {
    let bench = Bench::with(|rules| rules.user.push.audience = PushAudience::NoService);
    bench
        .directory()
        .set_notification("1", NotificationToken::Unreadable);
    bench.client("1:phone", V4).connect_with(lasting);
}
