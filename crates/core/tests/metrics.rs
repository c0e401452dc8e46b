//! What is counted of messages, on the virtual clock: each thing once, where it belongs.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_core::metrics::Metrics;
use jam_testkit::{Bench, packets};
use jam_wire::packet::{Ack, Packet, QoS, Version};

/// All counters of a name together.
fn sum(metrics: &Metrics, name: &str) -> u64 {
    let family = jam_core::metrics::FAMILIES
        .iter()
        .find(|it| it.name == name);
    let family = family.expect("a family of this name");
    let series = (0..family.count()).map(|series| family.values(series));
    series.map(|values| metrics.get(name, &values)).sum()
}

#[test]
fn a_message_is_counted_once_at_each_step() {
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let bench = Bench::new();
        let (one, two) = (bench.at_inbox("1:phone", V5), bench.at_inbox("2:phone", V4));
        two.subscribe("/2/inbox", ExactlyOnce);
        let metrics = bench.router().metrics().clone();
        let text = ["0", "1", "2"][qos as usize];
        one.publish("/2/inbox", packets::message("1", "x"), qos);
        bench.run();
        assert_eq!(
            metrics.get("jam_publishes_total", &["inbox", text, "accepted"]),
            1
        );
        assert_eq!(sum(&metrics, "jam_publishes_total"), 1);
        assert_eq!(
            metrics.get("jam_deliveries_total", &["inbox", text, "false"]),
            1
        );
        assert_eq!(sum(&metrics, "jam_deliveries_total"), 1);
        assert_eq!(sum(&metrics, "jam_acknowledged_total"), 0, "not yet");
        let publish = two.expect_publish();
        bench.advance(Duration::from_millis(3));
        if let Some(id) = publish.packet_id {
            let ack = Ack::success(id);
            two.send(if qos == ExactlyOnce {
                Packet::PubRec(ack)
            } else {
                Packet::PubAck(ack)
            });
            two.send(Packet::PingReq);
        }
        bench.run();
        let acked = u64::from(qos != AtMostOnce);
        assert_eq!(metrics.get("jam_acknowledged_total", &["inbox"]), acked);
        assert_eq!(metrics.get("jam_delivery_seconds", &[]), acked);
        assert_eq!(sum(&metrics, "jam_publish_ack_seconds"), acked);
        assert_eq!(sum(&metrics, "jam_refusals_total"), 0);
    }
}

#[test]
fn what_waits_for_somebody_who_is_away_says_nothing_of_speed() {
    let bench = Bench::new();
    let one = bench.at_inbox("1:phone", V5);
    let metrics = bench.router().metrics().clone();
    one.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce);
    bench.advance(Duration::from_secs(100));
    bench.run();
    assert_eq!(metrics.get("jam_publish_ack_seconds", &["disk"]), 1);
    let (messages, bytes) = bench.router().kept();
    assert!(messages == 1 && bytes > 0);
    let two = bench.at_inbox("2:phone", V4);
    let publish = two.expect_publish();
    two.send(Packet::PubAck(Ack::success(publish.packet_id.unwrap())));
    bench.run();
    assert_eq!(metrics.get("jam_acknowledged_total", &["inbox"]), 1);
    assert_eq!(metrics.get("jam_delivery_seconds", &[]), 0);
    assert_eq!(bench.router().kept(), (0, 0));
}

#[test]
fn clients_that_come_and_go_add_up() {
    let bench = Bench::new();
    let metrics = bench.router().metrics().clone();
    let one = bench.at_inbox("1:phone", V5);
    let again = bench.client("1:phone", V4);
    again.connect();
    bench.run();
    drop(one);
    let wrong = bench.client("9:phone", V4);
    wrong.try_connect(|_| ());
    bench.run();
    assert_eq!(metrics.get("jam_connects_total", &["accepted", "5.0"]), 1);
    assert_eq!(metrics.get("jam_connects_total", &["accepted", "3.1.1"]), 1);
    assert_eq!(
        metrics.get("jam_connects_total", &["unknown_user", "3.1.1"]),
        1
    );
    assert_eq!(
        metrics.get("jam_refusals_total", &["connect", "unknown_user"]),
        1
    );
    assert_eq!(metrics.get("jam_disconnects_total", &["takeover"]), 1);
    assert_eq!(metrics.get("jam_sessions", &["connected"]), 1);
    assert_eq!(metrics.users_online(), 1);
    again.disconnect();
    bench.run();
    assert_eq!(metrics.get("jam_disconnects_total", &["client"]), 1);
    assert_eq!(sum(&metrics, "jam_disconnects_total"), 2);
    assert_eq!(bench.router().stocktake(), bench.router().counted_stock());
    assert_eq!(metrics.users_online(), 0);
}

#[test]
fn a_refusal_is_counted_by_its_row() {
    let bench = Bench::new();
    let metrics = bench.router().metrics().clone();
    let one = bench.at_inbox("1:phone", V5);
    for (topic, payload, row) in [
        ("/3/inbox", packets::message("1", "x"), "not_friends"),
        ("/2/other", packets::message("1", "x"), "topic_foreign"),
        ("/2/inbox", packets::message("2", "x"), "payload_sender"),
        ("/2/inbox", "no json".into(), "payload_not_json"),
        ("2", "".into(), "topic_levels"),
        ("/2/+", "".into(), "topic_wildcards"),
    ] {
        one.publish(topic, payload, AtLeastOnce);
        bench.run();
        assert_eq!(
            metrics.get("jam_refusals_total", &["publish", row]),
            1,
            "{row}"
        );
    }
    assert_eq!(sum(&metrics, "jam_refusals_total"), 6);
    assert_eq!(sum(&metrics, "jam_publishes_total"), 6);
    assert_eq!(
        metrics.get("jam_publishes_total", &["inbox", "1", "refused"]),
        3
    );
    assert_eq!(
        sum(&metrics, "jam_publish_ack_seconds"),
        0,
        "a refusal took nothing"
    );
}

/// In one step, so that their number stays what it was.
#[test]
fn what_takes_the_place_of_what_has_expired_counts_with_its_own_bytes() {
    let bench = Bench::with(|rules| rules.user.max_messages = 1);
    let one = bench.client("1:phone", V5);
    one.connect();
    for content in ["short", "longer than that"] {
        let payload = packets::message("1", content);
        let id = one.publish_with("/2/inbox", payload, AtLeastOnce, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = Some(2);
        });
        one.expect_accepted(AtLeastOnce, id);
        let router = bench.router();
        assert_eq!(router.counted_stock(), router.stocktake());
        // Nobody has told the router.
        bench.let_time_pass(Duration::from_secs(3));
    }
}
