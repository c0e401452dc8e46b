//! Promises that a change of one line would break and that no other test would notice: second crashes, refusals
//! after a reconnect, what is in the store at each moment. `docs/testing.md` has the table.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_core::push::{PushAudience, PushOutcome};
use jam_testkit::client::lasting;
use jam_testkit::disk::CrashingStore;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, QoS, Version};

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

/// The server is killed; what it does from then on is kept at once.
fn crash(bench: &Bench) {
    bench.crash();
    disk(bench).at_once(true);
    bench.run();
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

/// Whatever QoS the reader asked for: a message that might be published again after a crash, and be delivered again
/// then, is not delivered before the crash.
#[test]
fn a_qos_2_message_is_delivered_when_it_is_committed_and_not_before() {
    for reads in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        for lasts in [false, true] {
            let bench = bench();
            let reader = bench.client("2:phone", V5);
            reader.connect_with(|connect| {
                if lasts {
                    lasting(connect);
                }
            });
            reader.subscribe("/2/inbox", reads);
            let writer = writer(&bench);
            disk(&bench).at_once(false);
            writer.publish("/2/inbox", packets::message("1", "once"), ExactlyOnce);
            bench.advance(SECOND);
            // The store has it in memory and would give it to any reader.
            while disk(&bench).read() {}
            bench.run();
            assert_eq!(arrived(&reader), [], "{reads:?}");
            disk(&bench).at_once(true);
            bench.run();
            assert_eq!(arrived(&reader), [(text("once"), false)], "{reads:?}");
        }
    }
}

/// The client's first try is with the store when it comes back and says the same again.
#[test]
fn a_repeated_qos_2_publish_is_refused_with_the_first() {
    let bench = bench();
    bench.directory().befriend("1", "2");
    let first = writer(&bench);
    disk(&bench).at_once(false);
    let id = first.publish("/2/inbox", packets::message("1", "hello"), ExactlyOnce);
    first.drop_connection();
    let again = bench.client("1:phone", V5);
    again.open();
    again.connect_with(lasting);
    let message = packets::message("1", "hello");
    let mut publish = packets::publish("/2/inbox", message, ExactlyOnce, id.map(packets::id));
    publish.dup = true;
    again.send(Packet::Publish(publish.clone()));
    disk(&bench).fail();
    bench.run();
    disk(&bench).flush();
    bench.run();
    let answers: Vec<_> = std::iter::from_fn(|| again.next()).collect();
    let acks = answers.iter().filter_map(|packet| match packet {
        Packet::PubRec(ack) => Some(ack.reason),
        _ => None,
    });
    assert_eq!(
        acks.collect::<Vec<_>>(),
        [ReasonCode::ImplementationSpecificError],
        "{answers:?}"
    );
    // It was never received: the third try is the first.
    disk(&bench).at_once(true);
    bench.run();
    let reader = bench.at_inbox("2:phone", V4);
    again.send(Packet::Publish(publish));
    again.expect_answered(ExactlyOnce, id, ReasonCode::Success);
    reader.read("1", "hello");
}

#[test]
fn a_retained_message_that_is_cleared_stays_cleared() {
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let writer = writer(&bench);
        let set = |payload: &'static str| {
            let id = writer.publish_with("/1/profile", payload, qos, |it| it.retain = true);
            writer.expect_accepted(qos, id);
        };
        set("a picture");
        set("");
        crash(&bench);
        let other = bench.client("1:phone", V5);
        other.connect();
        other.subscribe("/1/profile", AtLeastOnce);
        other.expect_nothing();
    }
}

/// The next thing that a store does: it says what is committed, commits a call, or reads.
fn step(bench: &Bench) {
    let disk = disk(bench);
    if disk.unanswered() > 0 {
        disk.answer(0);
    } else if disk.waiting() > 0 {
        disk.commit(1);
    } else {
        disk.read();
    }
    bench.run();
}

/// The store does not know the packet id of what was sent when the first crash comes, and the others come before the
/// client is back.
#[test]
fn what_may_have_been_sent_before_an_earlier_crash_comes_with_dup() {
    for crashes in 1..4 {
        let bench = bench();
        let reader = bench.client("2:phone", V5);
        reader.connect_with(lasting);
        reader.subscribe("/2/inbox", AtLeastOnce);
        reader.drop_connection();
        writer(&bench).write("2", "hello", AtLeastOnce);
        disk(&bench).at_once(false);
        reader.connect_with(lasting);
        let sent = (0..40).find_map(|_| {
            step(&bench);
            arrived(&reader).pop()
        });
        assert_eq!(sent, Some((text("hello"), false)));
        for _ in 0..crashes {
            crash(&bench);
        }
        reader.drop_connection();
        reader.connect_with(lasting);
        assert_eq!(
            arrived(&reader),
            [(text("hello"), true)],
            "{crashes} crashes"
        );
    }
}

/// A will leaves the store together with the message that it becomes.
#[test]
fn a_will_that_was_read_does_not_come_again_after_a_crash() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let reader = bench.client("2:phone", V5);
        reader.connect_with(lasting);
        reader.subscribe_inbox();
        let dying = bench.client("1:phone", V5);
        dying.connect_with(|connect| {
            lasting(connect);
            let mut will = packets::will("/2/inbox", r#"{"from":"1","content":"bye"}"#);
            will.qos = qos;
            connect.will = Some(will);
        });
        bench.be_graceful();
        dying.drop_connection();
        bench.pass(SECOND / 100);
        let will = reader.expect_publish();
        reader.acknowledge(&will);
        bench.pass(SECOND);
        disk(&bench).flush();
        bench.run();
        crash(&bench);
        reader.drop_connection();
        reader.connect_with(lasting);
        assert_eq!(arrived(&reader), []);
    }
}

/// One whose grace is ended by another is looked at after that one, and is the older of the two.
#[test]
fn a_push_is_about_the_oldest_message_also_if_that_was_looked_at_last() {
    let bench = Bench::on_disk(|rules| rules.user.push.audience = PushAudience::Everybody);
    disk(&bench).at_once(true);
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe_inbox();
    let writer = writer(&bench);
    bench.be_graceful();
    writer.publish("/2/inbox", packets::message("1", "lasts"), AtLeastOnce);
    reader.drop_connection();
    let message = packets::message("1", "short-lived");
    writer.publish_with("/2/inbox", message, AtLeastOnce, |publish| {
        let properties = publish.properties.get_or_insert_default();
        properties.message_expiry_secs = Some(1);
    });
    bench.run();
    let push = bench.next_push().expect("the receiver is away");
    bench.settle_push(push, PushOutcome::Later(bench.now() + SECOND * 3));
    bench.advance(SECOND * 4);
    assert_eq!(bench.send_pushes(), [("2".into(), "1".into())]);
}

/// The same while the receiver is connected and acknowledges the newer one only.
#[test]
fn a_deadline_is_about_the_oldest_message_also_if_that_was_looked_at_last() {
    let bench = Bench::on_disk(|rules| rules.user.push.audience = PushAudience::Everybody);
    disk(&bench).at_once(true);
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", ExactlyOnce);
    let writer = writer(&bench);
    bench.be_graceful();
    // The one has its grace first, the other goes to the store at once.
    writer.publish("/2/inbox", packets::message("1", "first"), AtLeastOnce);
    writer.publish("/2/inbox", packets::message("1", "second"), ExactlyOnce);
    bench.run();
    bench.advance(SECOND / 10);
    let _first = reader.expect_message("1", "first");
    let second = reader.expect_message("1", "second");
    reader.acknowledge(&second);
    bench.advance(SECOND * 11);
    assert_eq!(bench.send_pushes(), [("2".into(), "1".into())]);
}

/// While the store can keep nothing, what may not come twice waits, for a session that outlives its connection.
#[test]
fn a_qos_2_message_to_a_lasting_session_waits_for_a_store_that_cannot_write() {
    let bench = Bench::new();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", ExactlyOnce);
    let writer = writer(&bench);
    let store = bench.store();
    store.hold(true);
    writer.publish("/2/inbox", packets::message("1", "once"), ExactlyOnce);
    store.release(0); // the message, not its packet id
    bench.run();
    store.trouble(true);
    writer.publish("/2/inbox", packets::message("1", "wakes"), AtMostOnce);
    bench.advance(SECOND);
    assert_eq!(arrived(&reader), []);
    store.trouble(false);
    store.hold(false);
    store.release_all();
    bench.run();
    assert_eq!(arrived(&reader).first(), Some(&(text("once"), false)));
}

/// What was let go because the store could not write is not sent again when it can.
#[test]
fn a_pub_rel_that_did_not_wait_for_the_store_goes_out_once() {
    let bench = Bench::new();
    let reader = bench.client("2:phone", V5);
    reader.connect();
    reader.subscribe("/2/inbox", ExactlyOnce);
    let writer = writer(&bench);
    writer.write("2", "once", ExactlyOnce);
    let publish = reader.expect_message("1", "once");
    let store = bench.store();
    store.hold(true);
    let id = publish.packet_id.expect("QoS 2 has one");
    reader.send(Packet::PubRec(Ack::success(id)));
    reader.expect_nothing();
    store.trouble(true);
    writer.publish("/2/inbox", packets::message("1", "wakes"), AtMostOnce);
    bench.advance(SECOND);
    let rels = || {
        let packets = std::iter::from_fn(|| reader.next());
        packets.filter(|it| matches!(it, Packet::PubRel(_))).count()
    };
    assert_eq!(rels(), 1, "it does not wait");
    store.trouble(false);
    store.hold(false);
    store.release_all();
    bench.run();
    bench.advance(SECOND);
    assert_eq!(rels(), 0);
}

/// A late acknowledgement of what was sent before a crash is none of what is sent after it.
#[test]
fn packet_ids_of_before_a_crash_are_not_used_again_soon() {
    let bench = bench();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", AtLeastOnce);
    let writer = writer(&bench);
    let mut before = Vec::new();
    for number in 0..20 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        let publish = reader.expect_message("1", &number.to_string());
        before.extend(publish.packet_id);
        reader.acknowledge(&publish);
    }
    crash(&bench);
    reader.drop_connection();
    reader.connect_with(lasting);
    writer.drop_connection();
    writer.connect_with(lasting);
    writer.write("2", "after", AtLeastOnce);
    let after = reader.expect_message("1", "after").packet_id;
    assert!(
        !before.contains(&after.expect("QoS 1 has one")),
        "{after:?}"
    );
}

/// The operator's request has a number; what has a higher one came after it.
#[test]
fn a_purge_of_everything_leaves_what_came_after_the_request() {
    let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
    disk(&bench).at_once(true);
    let old = bench.client("2:old", V5);
    old.connect_with(|connect| {
        lasting(connect);
        connect.will = Some(packets::will("/2/x", "bye"));
    });
    old.subscribe("/2/inbox", AtLeastOnce);
    let retain = |client: &Client, topic: &str| {
        let id = client.publish_with(topic, topic.to_owned(), AtLeastOnce, |it| it.retain = true);
        client.expect_accepted(AtLeastOnce, id);
    };
    retain(&old, "/2/a");
    let writer = writer(&bench);
    writer.write("2", "before", AtLeastOnce);
    let (entries, rest) = disk(&bench).find();
    let messages = entries.iter().map(|it| it.seq);
    let sessions = rest.sessions.iter().map(|(it, ..)| it.id);
    let up_to = messages.chain(sessions).max().expect("there are messages");
    let new = bench.client("2:new", V5);
    new.connect_with(lasting);
    new.subscribe("/2/inbox", AtLeastOnce);
    retain(&new, "/2/b");
    writer.write("2", "after", AtLeastOnce);
    assert_eq!(arrived(&new), [(text("after"), false)]);
    let user = jam_core::ids::UserId::parse("2").expect("a user id");
    for _ in 0..2 {
        bench.router().end(&user, up_to);
        bench.run();
    }
    assert!(old.is_closed() && new.is_open());
    crash(&bench);
    new.drop_connection();
    assert!(new.connect_with(lasting).session_present);
    assert_eq!(arrived(&new), [(text("after"), true)]);
    assert!(!old.connect_with(lasting).session_present);
    old.subscribe("/2/a", AtLeastOnce);
    old.subscribe("/2/x", AtLeastOnce);
    assert_eq!(arrived(&old), []);
    old.subscribe("/2/b", AtLeastOnce);
    assert_eq!(arrived(&old).len(), 1);
}
