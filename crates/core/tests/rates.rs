//! PROTOCOL.md, section 8: publishes per second and user.

use std::num::NonZeroU32;
use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];
const RATE: u32 = 5;
/// What may come at once.
const BURST: u32 = 10 * RATE;

const SLOWER: (&str, &str) = ("rate", "sending too fast");

fn bench() -> Bench {
    Bench::with(|rules| {
        rules.publish_rate = NonZeroU32::new(RATE);
        rules.user.many_devices = true;
    })
}

/// Publishes on an own channel, with a QoS that changes, until one is refused; how many were not.
fn burst(client: &Client) -> u32 {
    for n in 0..10 * BURST {
        let qos = [AtMostOnce, AtLeastOnce, ExactlyOnce][n as usize % 3];
        let id = client.publish("/1/notes", "", qos);
        let refused = match client.next() {
            None | Some(Packet::PubAck(_)) => false,
            Some(Packet::Publish(error)) => {
                let (category, message) = SLOWER;
                let json = packets::error("authorizePublish", category, message, id);
                assert_eq!(error.payload, json);
                true
            }
            Some(Packet::PubRec(ack)) => {
                client.send(Packet::PubRel(Ack::success(ack.packet_id)));
                assert!(matches!(client.next(), Some(Packet::PubComp(_))));
                false
            }
            other => panic!("{other:?}"),
        };
        if refused {
            if id.is_some() {
                client.expect_answered(qos, id, ReasonCode::QuotaExceeded);
            }
            return n;
        }
    }
    panic!("nothing was refused")
}

#[test]
fn more_than_the_burst_is_refused_and_acknowledged_all_the_same() {
    for version in VERSIONS {
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let bench = bench();
            let friend = bench.at_inbox("2:phone", V5);
            let client = bench.client("1:phone", version);
            client.connect();
            for _ in 0..BURST {
                let id = client.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce);
                friend.read("1", "x");
                client.expect_accepted(AtLeastOnce, id);
            }
            for _ in 0..3 {
                let id = client.publish("/2/inbox", packets::message("1", "y"), qos);
                client.expect_refusal(SLOWER.0, SLOWER.1, id);
                if id.is_some() {
                    client.expect_answered(qos, id, ReasonCode::QuotaExceeded);
                }
                client.expect_nothing();
            }
            friend.expect_nothing();
            bench.pass(Duration::from_millis(1000 / u64::from(RATE)));
            client.write("2", "z", AtLeastOnce);
            friend.read("1", "z");
        }
    }
}

#[test]
fn a_refused_publish_was_work_too() {
    let bench = bench();
    let client = bench.client("1:phone", V4);
    client.connect();
    for _ in 0..BURST {
        client.publish("/3/inbox", packets::message("1", "x"), AtMostOnce);
        client.expect_refusal("friends", "not friends with the receiver", None);
    }
    client.publish("/3/inbox", packets::message("1", "x"), AtMostOnce);
    client.expect_refusal(SLOWER.0, SLOWER.1, None);
}

#[test]
fn a_user_has_one_rate_for_all_devices() {
    let bench = bench();
    let (one, two) = (bench.client("1:a", V4), bench.client("1:b", V5));
    one.connect();
    two.connect();
    assert_eq!(burst(&one), BURST);
    assert_eq!(burst(&two), 0);
    let other = bench.client("2:phone", V4);
    other.connect();
    other.publish("/2/notes", "", AtMostOnce);
    other.expect_nothing();
}

#[test]
fn coming_back_makes_nobody_faster() {
    for change in [|_: &mut _| (), lasting] {
        let bench = bench();
        let client = bench.client("1:phone", V5);
        client.connect_with(change);
        assert_eq!(burst(&client), BURST);
        for n in 0..20 {
            client.connect_with(change);
            assert_eq!(burst(&client), 0);
            client.drop_connection();
            let other = bench.client(&format!("1:{n}"), V4);
            other.connect();
            assert_eq!(burst(&other), 0);
            other.disconnect();
        }
        bench.pass(Duration::from_secs(4));
        client.connect_with(change);
        assert_eq!(burst(&client), 4 * RATE);
        client.drop_connection();
        bench.pass(Duration::from_secs(100));
        client.connect_with(change);
        assert_eq!(burst(&client), BURST);
    }
}

#[test]
fn a_will_counts_and_is_dropped_when_there_were_too_many() {
    let bench = bench();
    let friend = bench.at_inbox("2:phone", V4);
    for n in 0..BURST + 5 {
        let client = bench.client(&format!("1:{n}"), V4);
        client.connect_with(|connect| {
            connect.will = Some(packets::will("/2/inbox", r#"{"from":"1"}"#));
        });
        client.drop_connection();
        if n < BURST {
            friend.expect_payload("/2/inbox", br#"{"from":"1"}"#);
        } else {
            friend.expect_nothing();
        }
    }
}

#[test]
fn a_repeated_qos_2_publish_is_answered_as_before() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect();
    let id = client.take_id();
    let publish = |dup| {
        let publish = packets::publish("/1/notes", "", ExactlyOnce, Some(id));
        Packet::Publish(Publish { dup, ..publish })
    };
    let accepted = |id: PacketId| Packet::PubRec(Ack::success(id));
    client.send(publish(false));
    client.expect(accepted(id));
    for _ in 1..BURST {
        client.publish("/1/notes", "", AtMostOnce);
    }
    client.publish("/1/notes", "", AtMostOnce);
    client.expect_refusal(SLOWER.0, SLOWER.1, None);
    client.send(publish(true));
    client.expect(accepted(id));
}

#[test]
fn without_a_limit_nobody_is_slowed_down() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    for _ in 0..2000 {
        client.publish("/1/notes", "", AtMostOnce);
    }
    client.expect_nothing();
}

/// The store gives it back each time that it cannot keep it.
#[test]
fn a_will_counts_once_however_often_the_store_gives_it_back() {
    let bench = Bench::on_disk(|rules| rules.publish_rate = NonZeroU32::new(RATE));
    let disk = bench.disk().expect("a bench on disk");
    disk.at_once(true);
    let client = bench.client("1:phone", V5);
    client.connect_with(|connect| {
        lasting(connect);
        let mut will = packets::will("/2/inbox", r#"{"from":"1","content":"bye"}"#);
        will.qos = AtLeastOnce;
        connect.will = Some(will);
    });
    // The user has none left but for the will.
    for _ in 1..BURST {
        client.publish("/1/notes", "", AtMostOnce);
    }
    disk.at_once(false);
    client.drop_connection();
    for _ in 0..3 {
        disk.fail();
        bench.run();
    }
    disk.at_once(true);
    bench.run();
    assert_eq!(disk.kept(), 1, "the will is kept");
}
