//! What an operator is told of refusals: rows and how often, never what it was about.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::connection::{RefusalCount, TELLINGS_A_SECOND};
use jam_testkit::{Bench, packets};
use jam_wire::packet::{QoS, Version};

/// Handler, slug and how often.
fn told(refusals: &[RefusalCount]) -> Vec<(&'static str, &'static str, u64)> {
    let told = |it: &RefusalCount| (it.handler.label(), it.slug, it.count);
    refusals.iter().map(told).collect()
}

#[test]
fn a_flood_of_refusals_is_summed_up() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V4);
    client.connect();
    let flood = |times: usize| {
        for _ in 0..times {
            client.publish("/3/inbox", r#"{"from":"1"}"#, AtMostOnce);
        }
    };
    let mut told_of = 0;
    for _ in 0..TELLINGS_A_SECOND {
        flood(3);
        assert_eq!(
            told(&client.take_refusals()),
            [("publish", "not_friends", 3)]
        );
        told_of += 3;
    }
    for _ in 0..1000 {
        flood(1);
        assert_eq!(client.take_refusals(), []);
    }
    bench.advance(Duration::from_secs(1));
    flood(1);
    assert_eq!(
        told(&client.take_refusals()),
        [("publish", "not_friends", 1001)]
    );
    assert_eq!(told_of, 24);
}

#[test]
fn every_refusal_is_told_with_its_row() {
    for version in [V3, V4, V5] {
        let bench = Bench::new();
        let (client, other) = (
            bench.client("1:phone", version),
            bench.at_inbox("2:phone", V5),
        );
        client.connect();
        assert_eq!(client.take_refusals(), [], "nothing was refused");
        client.publish("/2/inbox", "no JSON", AtLeastOnce);
        client.publish("/2/inbox", "no JSON either", ExactlyOnce);
        client.publish("/2/x", r#"{"from":"1"}"#, AtMostOnce);
        client.send_subscribe(vec![
            packets::filter("/1/a", AtMostOnce),
            packets::filter("/2/inbox", AtMostOnce),
            packets::filter("/1/#", AtMostOnce),
        ]);
        assert_eq!(
            told(&client.take_refusals()),
            [
                ("publish", "payload_not_json", 2),
                ("publish", "topic_foreign", 1),
                ("subscribe", "filter_foreign", 1),
                ("subscribe", "filter_wildcards", 1),
            ]
        );
        client.publish("/2/inbox", r#"{"from":"1"}"#, AtLeastOnce);
        other.expect_publish();
        assert_eq!(
            client.take_refusals(),
            [],
            "a message that goes through is none"
        );
        assert_eq!(other.take_refusals(), []);
    }
}

#[test]
fn what_the_store_cannot_keep_is_told() {
    let bench = Bench::new();
    let client = bench.client("1:phone", V5);
    client.connect();
    bench.store().trouble(true);
    client.publish("/2/inbox", r#"{"from":"1"}"#, AtLeastOnce);
    assert_eq!(told(&client.take_refusals()), [("publish", "store", 1)]);
    bench.store().trouble(false);
    bench.store().hold(true);
    client.publish("/2/inbox", r#"{"from":"1"}"#, ExactlyOnce);
    assert_eq!(client.take_refusals(), []);
    bench.store().reject(0);
    bench.run();
    assert_eq!(told(&client.take_refusals()), [("publish", "store", 1)]);
}
