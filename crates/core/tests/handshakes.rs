//! Handshakes to the end: in what order they go on while the store answers, what a refusal leaves of them, and what
//! counts against the windows.

use std::num::NonZeroU16;
use std::time::Duration;

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_testkit::client::lasting;
use jam_testkit::disk::CrashingStore;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, Publish, QoS, Version};

const SECOND: Duration = Duration::from_secs(1);

fn disk(bench: &Bench) -> &CrashingStore {
    bench.disk().expect("a bench on disk")
}

fn bench() -> Bench {
    let bench = Bench::on_disk(|_| ());
    disk(&bench).at_once(true);
    bench
}

fn writer(bench: &Bench) -> Client {
    let writer = bench.client("1:phone", V5);
    writer.connect_with(lasting);
    writer
}

/// Payloads that have come, each with its DUP flag.
fn arrived(client: &Client) -> Vec<(String, bool)> {
    let packets = std::iter::from_fn(|| client.next());
    packets
        .filter_map(|packet| match packet {
            Packet::Publish(it) => Some((
                String::from_utf8(it.payload.to_vec()).expect("text"),
                it.dup,
            )),
            _ => None,
        })
        .collect()
}

fn text(content: &str) -> String {
    String::from_utf8(packets::message("1", content).to_vec()).expect("text")
}

/// A store may say so in any order.
#[test]
fn a_qos_2_message_does_not_overtake_an_earlier_one_that_waits_for_its_packet_id() {
    let bench = Bench::new();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", ExactlyOnce);
    let writer = writer(&bench);
    bench.store().hold(true);
    for content in ["one", "two"] {
        writer.publish("/2/inbox", packets::message("1", content), ExactlyOnce);
    }
    (0..2).for_each(|_| bench.store().release(0));
    bench.run();
    assert_eq!(bench.store().held(), 2, "two packet ids");
    assert_eq!(arrived(&reader), []);
    bench.store().release(1);
    bench.run();
    assert_eq!(arrived(&reader), []);
    bench.store().release(0);
    bench.run();
    let both = [(text("one"), false), (text("two"), false)];
    assert_eq!(arrived(&reader), both);
}

/// The content of the first has to be read, that of the second is still in memory.
#[test]
fn what_comes_again_is_in_order_wherever_its_content_is() {
    let bench = bench();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", AtLeastOnce);
    let writer = writer(&bench);
    writer.write("2", "one", AtLeastOnce);
    bench.be_graceful();
    disk(&bench).at_once(false);
    writer.publish("/2/inbox", packets::message("1", "two"), AtLeastOnce);
    assert_eq!(arrived(&reader).len(), 2);
    reader.drop_connection();
    reader.open();
    reader.send(Packet::Connect(Box::new({
        let mut connect = packets::connect("2:phone", V5);
        connect.clean_start = false;
        lasting(&mut connect);
        connect
    })));
    let mut again = Vec::new();
    for _ in 0..10 {
        again.extend(arrived(&reader));
        disk(&bench).flush();
        bench.run();
    }
    again.extend(arrived(&reader));
    assert_eq!(again, [(text("one"), true), (text("two"), true)]);
}

/// What a client may use again it does: in 5.0 after the PUBREC, in 3.1.1 after the PUBCOMP.
#[test]
fn the_packet_id_of_a_refused_publish_can_be_used_again() {
    for version in [V4, V5] {
        let bench = Bench::new();
        let reader = bench.at_inbox("2:phone", V5);
        let writer = bench.client("1:phone", version);
        writer.connect();
        let id = writer.publish("/3/inbox", packets::message("1", "no"), ExactlyOnce);
        writer.expect_refusal("friends", "not friends with the receiver", id);
        writer.expect_answered(ExactlyOnce, id, ReasonCode::NotAuthorized);
        let message = packets::message("1", "yes");
        let publish = packets::publish("/2/inbox", message, ExactlyOnce, id.map(packets::id));
        writer.send(Packet::Publish(publish));
        writer.expect_accepted(ExactlyOnce, id);
        reader.acknowledge(&reader.expect_message("1", "yes"));
    }
}

#[test]
fn messages_come_after_the_suback_when_the_store_is_well() {
    let bench = Bench::new();
    writer(&bench).write("2", "hello", AtLeastOnce);
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    bench.store().hold(true);
    reader.send_subscribe(vec![packets::filter("/2/inbox", AtLeastOnce)]);
    reader.expect_nothing();
    bench.store().hold(false);
    bench.store().release_all();
    bench.run();
    assert_eq!(reader.expect_sub_ack(), [ReasonCode::GrantedQoS1]);
    reader.read("1", "hello");
}

/// It is larger than what is read at once.
#[test]
fn a_picture_that_waited_comes() {
    let bench = bench();
    let picture = "x".repeat(1_000_000);
    let writer = writer(&bench);
    for content in ["small", &picture, "after"] {
        writer.write("2", content, AtLeastOnce);
    }
    let reader = bench.at_inbox("2:phone", V5);
    for content in ["small", &picture, "after"] {
        reader.read("1", content);
    }
}

/// Who is no longer subscribed leaves what it has not been sent to the next device.
#[test]
fn what_was_not_sent_before_an_unsubscribe_is_for_who_subscribes_next() {
    let bench = Bench::with(|rules| rules.user.many_devices = true);
    let one = bench.client("2:one", V5);
    one.connect_with(|connect| {
        lasting(connect);
        connect.properties.receive_maximum = NonZeroU16::new(1);
    });
    one.subscribe_inbox();
    let writer = writer(&bench);
    writer.write("2", "first", AtLeastOnce);
    writer.write("2", "second", AtLeastOnce);
    one.expect_message("1", "first");
    one.unsubscribe("/2/inbox");
    let two = bench.at_inbox("2:two", V5);
    two.read("1", "second");
    two.expect_nothing();
}

/// MQTT 5.0, section 4.9: PUBREL is exempt from what messages wait for.
#[test]
fn a_pub_rel_does_not_wait_for_a_message_that_waits_for_the_store() {
    let bench = Bench::new();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", ExactlyOnce);
    let writer = writer(&bench);
    writer.write("2", "one", ExactlyOnce);
    let first = reader.expect_message("1", "one").packet_id.expect("an id");
    bench.store().hold(true);
    writer.publish("/2/inbox", packets::message("1", "two"), ExactlyOnce);
    bench.store().release(0);
    bench.run();
    reader.send(Packet::PubRec(Ack::success(first)));
    reader.expect_nothing();
    assert_eq!(bench.store().held(), 2, "a packet id, and the PUBREC");
    bench.store().release(1);
    bench.run();
    reader.expect(Packet::PubRel(Ack::success(first)));
    reader.expect_nothing();
}

/// MQTT 5.0, section 3.3.4: what counts against the server's Receive Maximum, each once.
#[test]
fn the_receive_maximum_counts_each_publish_once() {
    let bench = || Bench::with(|rules| rules.inflight = 4);
    let publish = |writer: &Client, qos| {
        writer.publish("/2/inbox", packets::message("1", "x"), qos);
        stays_open(writer)
    };
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let writer = writer(&bench);
        bench.store().hold(true);
        assert!((0..4).all(|_| publish(&writer, qos)), "{qos:?}");
    }
    // Three that are not released leave one place, in 5.0.
    for version in [V4, V5] {
        let bench = bench();
        let writer = bench.client("1:phone", version);
        writer.connect();
        assert!((0..3).all(|_| publish(&writer, ExactlyOnce)));
        bench.store().hold(true);
        assert!(publish(&writer, AtLeastOnce));
        assert_eq!(publish(&writer, AtLeastOnce), version == V4);
    }
}

/// Whatever it was told.
fn stays_open(client: &Client) -> bool {
    while client.next().is_some() {}
    !client.is_closed()
}

/// In 5.0 the PUBREC with an error has ended it.
#[test]
fn what_was_refused_takes_no_place_in_the_window() {
    let bench = Bench::with(|rules| {
        rules.inflight = 2;
        rules.user.max_messages = 2;
    });
    let writer = writer(&bench);
    writer.write("2", "fills what one sender may have waiting", AtLeastOnce);
    let id = writer.publish("/2/inbox", packets::message("1", "no"), ExactlyOnce);
    writer.expect_refusal("quota", "the receiver's inbox is full", id);
    writer.expect_answered(ExactlyOnce, id, ReasonCode::QuotaExceeded);
    bench.store().hold(true);
    for _ in 0..2 {
        let retain = |publish: &mut Publish| publish.retain = true;
        writer.publish_with("/1/x", "x", AtLeastOnce, retain);
    }
    writer.expect_nothing();
    bench.store().hold(false);
    bench.store().release_all();
    bench.run();
    assert!(stays_open(&writer));
}

#[test]
fn a_refusal_of_an_unknown_message_is_not_answered() {
    let bench = Bench::new();
    let reader = bench.at_inbox("2:phone", V5);
    let (id, reason) = (packets::id(7), ReasonCode::UnspecifiedError);
    reader.send(Packet::PubRec(Ack::with_reason(id, reason)));
    reader.expect_nothing();
}

/// MQTT 5.0, section 3.14.2.2.2; PROTOCOL.md, section 7.5: up to a maximum.
#[test]
fn a_disconnect_may_change_how_long_the_session_lasts() {
    let hour = Duration::from_secs(3600);
    let bench = Bench::with(|rules| rules.session_expiry = hour);
    let client = bench.client("1:phone", V5);
    // To say again that it ends now is no error.
    client.connect();
    client.disconnect_with(|disconnect| disconnect.session_expiry_secs = Some(0));
    client.expect_closed();
    client.connect_with(|connect| connect.properties.session_expiry_secs = Some(60));
    client.disconnect_with(|disconnect| disconnect.session_expiry_secs = Some(1_000_000));
    bench.pass(hour - SECOND);
    let back = client.connect_with(|connect| {
        connect.clean_start = false;
        connect.properties.session_expiry_secs = Some(60);
    });
    assert!(back.session_present);
    client.disconnect_with(|disconnect| disconnect.session_expiry_secs = Some(1_000_000));
    bench.pass(hour + SECOND);
    assert!(!client.connect_with(lasting).session_present);
}

/// MQTT 5.0, section 3.1.2.11.4: no larger than the Maximum Packet Size, which it may be.
#[test]
fn a_packet_of_the_maximum_size_comes() {
    let bench = Bench::new();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", AtLeastOnce);
    writer(&bench).write("2", "hello", AtLeastOnce);
    let size = u32::try_from(reader.take_raw().len()).expect("a small packet");
    for (max, comes) in [(size - 1, false), (size, true)] {
        reader.drop_connection();
        reader.connect_with(|connect| {
            lasting(connect);
            connect.properties.maximum_packet_size = Some(max);
        });
        assert_eq!(!reader.take_raw().is_empty(), comes, "{max} bytes");
    }
}

#[test]
fn no_more_is_taken_while_as_many_answers_wait_for_the_store() {
    let bench = Bench::with(|rules| rules.inflight = 4);
    let client = bench.client("1:phone", V5);
    client.connect_with(lasting);
    client.subscribe("/1/x", AtLeastOnce);
    bench.store().hold(true);
    for number in 0..4 {
        assert!(client.is_wanted());
        let filter = packets::filter(&format!("/1/{number}"), AtLeastOnce);
        client.send_subscribe(vec![filter]);
    }
    assert!(!client.is_wanted());
    bench.store().hold(false);
    bench.store().release_all();
    bench.run();
    assert!(client.is_wanted());
}
