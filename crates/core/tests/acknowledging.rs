//! When a publish is acknowledged (PROTOCOL.md, sections 4 and 7.1): when the store has it, in the order
//! of the publishes, QoS 2 once whatever is repeated.

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_testkit::{Bench, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];

const STORE_IS_DOWN: &str = "the server cannot keep messages at the moment";

#[test]
fn acknowledgements_wait_for_the_store_and_keep_the_order() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = bench.at_inbox("1:phone", version);
        bench.store().hold(true);
        let qos = [AtLeastOnce, ExactlyOnce, AtLeastOnce, ExactlyOnce];
        let ids = qos.map(|qos| {
            one.publish("/2/inbox", packets::message("1", "x"), qos)
                .unwrap()
        });
        // A refusal needs no store, but has to wait for its turn; the error need not.
        let refused = one.publish("/3/inbox", packets::message("1", "x"), AtLeastOnce);
        one.expect_refusal("friends", "not friends with the receiver", refused);
        one.expect_nothing();
        bench.store().release(3);
        bench.store().release(1);
        bench.run();
        one.expect_nothing();
        bench.store().release(0);
        bench.run();
        one.expect(Packet::PubAck(Ack::success(packets::id(ids[0]))));
        one.expect(Packet::PubRec(Ack::success(packets::id(ids[1]))));
        one.expect_nothing();
        bench.store().release(0);
        bench.run();
        one.expect(Packet::PubAck(Ack::success(packets::id(ids[2]))));
        one.expect(Packet::PubRec(Ack::success(packets::id(ids[3]))));
        one.expect_answered(AtLeastOnce, refused, ReasonCode::NotAuthorized);
        one.expect_nothing();
    }
}

#[test]
fn what_the_store_refuses_is_an_error_then_the_acknowledgement() {
    for version in VERSIONS {
        for qos in [AtLeastOnce, ExactlyOnce] {
            let bench = Bench::new();
            let one = bench.client("1:phone", version);
            one.connect();
            bench.store().hold(true);
            let first = one.publish("/2/inbox", packets::message("1", "x"), qos);
            let second = one.publish("/2/inbox", packets::message("1", "y"), qos);
            bench.store().reject(1);
            bench.run();
            one.expect_refusal("mailbox", STORE_IS_DOWN, second);
            one.expect_nothing();
            bench.store().release(0);
            bench.run();
            let id = packets::id(first.unwrap());
            one.expect(match qos {
                ExactlyOnce => Packet::PubRec(Ack::success(id)),
                _ => Packet::PubAck(Ack::success(id)),
            });
            one.expect_answered(qos, second, ReasonCode::ImplementationSpecificError);
            one.expect_nothing();
        }
    }
}

#[test]
fn after_a_pubrec_with_an_error_the_packet_id_is_free() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.at_inbox("2:phone", V5));
    one.connect();
    bench.store().hold(true);
    let publish = |content: &str| {
        let payload = packets::message("1", content);
        let publish = packets::publish("/2/inbox", payload, ExactlyOnce, PacketId::new(9));
        one.send(Packet::Publish(publish));
    };
    publish("a");
    bench.store().reject(0);
    bench.run();
    one.expect_refusal("mailbox", STORE_IS_DOWN, Some(9));
    let reason = ReasonCode::ImplementationSpecificError;
    one.expect(Packet::PubRec(Ack::with_reason(packets::id(9), reason)));
    while two.next().is_some() {}
    bench.store().hold(false);
    publish("b");
    one.expect_accepted(ExactlyOnce, Some(9));
    two.expect_message("1", "b");
}

#[test]
fn a_lost_completion_acknowledges_nothing_and_stops_what_follows() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V4);
    one.connect();
    bench.store().hold(true);
    one.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce);
    one.publish("/2/inbox", packets::message("1", "y"), AtLeastOnce);
    bench.store().lose(0);
    bench.store().release_all();
    bench.run();
    one.expect_nothing();
}

#[test]
fn a_connection_that_is_gone_does_not_mind_late_answers() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V4);
    one.connect_lasting();
    bench.store().hold(true);
    one.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce);
    one.drop_connection();
    one.connect_lasting();
    bench.store().release_all();
    bench.run();
    one.expect_nothing();
}

#[test]
fn qos_2_from_the_sender_is_delivered_once_whatever_is_repeated() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (one, two) = (
            bench.client("1:phone", version),
            bench.at_inbox("2:phone", version),
        );
        one.connect_lasting();
        let id = packets::id(5);
        let mut publish = packets::publish(
            "/2/inbox",
            packets::message("1", "once"),
            ExactlyOnce,
            Some(id),
        );
        let mut send = |again: bool| {
            publish.dup = again;
            one.send(Packet::Publish(publish.clone()));
        };
        send(false);
        one.expect(Packet::PubRec(Ack::success(id)));
        two.read("1", "once");
        for _ in 0..2 {
            send(true);
            one.expect(Packet::PubRec(Ack::success(id)));
            one.drop_connection();
            one.connect_lasting();
            send(true);
            one.expect(Packet::PubRec(Ack::success(id)));
        }
        one.send(Packet::PubRel(Ack::success(id)));
        one.expect(Packet::PubComp(Ack::success(id)));
        one.drop_connection();
        one.connect_lasting();
        one.send(Packet::PubRel(Ack::success(id)));
        let unknown = Ack::with_reason(id, ReasonCode::PacketIdentifierNotFound);
        let unknown = if version == V5 {
            unknown
        } else {
            Ack::success(id)
        };
        one.expect(Packet::PubComp(unknown));
        two.expect_nothing();
        // Released, the id means a new message, even if it says DUP.
        send(true);
        one.expect(Packet::PubRec(Ack::success(id)));
        two.read("1", "once");
    }
}

#[test]
fn a_qos_2_publish_that_waits_for_the_store_is_not_acknowledged_when_it_is_repeated() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V4);
    one.connect();
    bench.store().hold(true);
    let id = packets::id(5);
    let publish = packets::publish(
        "/2/inbox",
        packets::message("1", "x"),
        ExactlyOnce,
        Some(id),
    );
    one.send(Packet::Publish(publish.clone()));
    one.send(Packet::Publish(publish));
    one.expect_nothing();
    bench.store().release_all();
    bench.run();
    one.expect(Packet::PubRec(Ack::success(id)));
    one.expect_nothing();
    assert_eq!(bench.store().appended(), 1);
}

#[test]
fn a_pubcomp_does_not_overtake_its_pubrec() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect();
        bench.store().hold(true);
        let payload = packets::message("1", "x");
        let id = one
            .publish("/2/inbox", payload, ExactlyOnce)
            .map(packets::id)
            .unwrap();
        one.send(Packet::PubRel(Ack::success(id)));
        one.expect_nothing();
        bench.store().release_all();
        bench.run();
        one.expect(Packet::PubRec(Ack::success(id)));
        one.expect(Packet::PubComp(Ack::success(id)));
        one.expect_nothing();
    }
}

#[test]
fn a_qos_2_publish_that_waits_for_the_store_is_not_acknowledged_on_the_next_connection_either() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V4);
    one.connect_lasting();
    bench.store().hold(true);
    let id = packets::id(5);
    let payload = packets::message("1", "x");
    let mut publish = packets::publish("/2/inbox", payload, ExactlyOnce, Some(id));
    one.send(Packet::Publish(publish.clone()));
    one.drop_connection();
    one.connect_lasting();
    publish.dup = true;
    one.send(Packet::Publish(publish));
    one.expect_nothing();
    bench.store().release_all();
    bench.run();
    one.expect(Packet::PubRec(Ack::success(id)));
}

#[test]
fn what_the_store_refuses_is_not_delivered() {
    let bench = Bench::new();
    let (one, two) = (bench.client("1:phone", V5), bench.client("2:phone", V5));
    one.connect();
    bench.store().hold(true);
    one.publish("/2/inbox", packets::message("1", "x"), AtLeastOnce);
    bench.store().reject(0);
    bench.run();
    two.connect();
    two.subscribe_inbox();
    two.expect_nothing();
}

#[test]
fn a_refused_qos_2_publish_that_3_1_1_repeats_is_answered_without_another_error() {
    for version in [V3, V4] {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect();
        let id = packets::id(5);
        let payload = packets::message("1", "x");
        let mut publish = packets::publish("/3/inbox", payload, ExactlyOnce, Some(id));
        one.send(Packet::Publish(publish.clone()));
        one.expect_refusal("friends", "not friends with the receiver", Some(5));
        one.expect(Packet::PubRec(Ack::success(id)));
        publish.dup = true;
        one.send(Packet::Publish(publish));
        one.expect_accepted(ExactlyOnce, Some(5));
        one.expect_nothing();
    }
}

#[test]
fn a_refused_qos_2_publish_is_judged_again_on_the_next_connection() {
    for version in [V3, V4, V5] {
        let bench = Bench::with(|rules| rules.user.max_messages = 0);
        let one = bench.client("1:phone", version);
        one.connect_lasting();
        let stranger = ("/3/inbox", "friends", "not friends with the receiver");
        let full = ("/2/inbox", "quota", "the receiver's inbox is full");
        for (topic, category, message) in [stranger, full] {
            let id = packets::id(5);
            let mut publish =
                packets::publish(topic, packets::message("1", "x"), ExactlyOnce, Some(id));
            for dup in [false, true, true] {
                publish.dup = dup;
                one.send(Packet::Publish(publish.clone()));
                one.expect_refusal(category, message, Some(5));
                assert!(matches!(one.next(), Some(Packet::PubRec(ack)) if ack.packet_id == id));
                // For all the client knows, the PUBREC has not come.
                one.drop_connection();
                one.connect_lasting();
            }
            // A PUBREL for what an earlier connection was told is answered.
            one.send(Packet::PubRel(Ack::success(id)));
            assert!(matches!(one.next(), Some(Packet::PubComp(ack)) if ack.packet_id == id));
        }
        // What has become right in between is taken.
        let id = packets::id(6);
        let message = packets::message("1", "at last");
        let mut publish = packets::publish("/3/inbox", message, ExactlyOnce, Some(id));
        one.send(Packet::Publish(publish.clone()));
        one.drop_connection();
        bench.directory().befriend("1", "3");
        one.connect_lasting();
        publish.dup = true;
        one.send(Packet::Publish(publish));
        one.expect_refusal("quota", "the receiver's inbox is full", Some(6));
    }
}

#[test]
fn what_the_store_refused_is_judged_again_on_the_next_connection() {
    for version in [V3, V4, V5] {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect_lasting();
        let id = packets::id(5);
        let message = packets::message("1", "x");
        let mut publish = packets::publish("/2/inbox", message, ExactlyOnce, Some(id));
        bench.store().hold(true);
        one.send(Packet::Publish(publish.clone()));
        bench.store().reject(0);
        bench.run();
        bench.store().hold(false);
        one.drop_connection();
        one.connect_lasting();
        publish.dup = true;
        one.send(Packet::Publish(publish));
        one.expect_accepted(ExactlyOnce, Some(5));
        let two = bench.at_inbox("2:phone", V5);
        two.expect_message("1", "x");
        two.expect_nothing();
    }
}

#[test]
fn a_clean_start_is_not_answered_before_the_old_session_is_gone_for_good() {
    for version in [V4, V5] {
        let bench = Bench::new();
        let one = bench.client("1:phone", version);
        one.connect_lasting();
        one.drop_connection();
        bench.store().hold(true);
        one.open();
        one.send(Packet::Connect(Box::new(packets::connect(
            "1:phone", version,
        ))));
        one.send(Packet::PingReq);
        one.expect_nothing();
        bench.store().release_all();
        bench.run();
        assert!(matches!(one.next(), Some(Packet::ConnAck(ack)) if !ack.session_present));
        one.expect(Packet::PingResp);
    }
}

#[test]
fn a_clean_start_is_answered_when_the_store_can_keep_nothing_any_more() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V4);
    one.connect_lasting();
    one.drop_connection();
    bench.store().hold(true);
    one.open();
    one.send(Packet::Connect(Box::new(packets::connect("1:phone", V4))));
    one.expect_nothing();
    bench.store().trouble(true);
    bench.router().wake_all();
    bench.run();
    assert!(matches!(one.next(), Some(Packet::ConnAck(ack)) if !ack.session_present));
    bench.store().release_all();
    bench.run();
    one.expect_nothing();
    one.send(Packet::PingReq);
    one.expect(Packet::PingResp);
}
