//! What the store has of what is on its way, at each moment: what a crash finds of a handshake that had begun, and
//! that nothing is left there of one that is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_core::directory::NotificationToken;
use jam_core::push::{PushAudience, PushOrder};
use jam_testkit::client::lasting;
use jam_testkit::disk::CrashingStore;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

fn disk(bench: &Bench) -> &CrashingStore {
    bench.disk().expect("a bench on disk")
}

fn bench() -> Bench {
    let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
    disk(&bench).at_once(true);
    bench
}

/// A device with a session that lasts, subscribed to its inbox.
fn device(bench: &Bench, client: &str) -> Client {
    let device = bench.client(client, V5);
    device.connect_with(lasting);
    device.subscribe("/2/inbox", ExactlyOnce);
    device
}

fn writer(bench: &Bench) -> Client {
    let writer = bench.client("1:phone", V5);
    writer.connect();
    writer
}

/// The server is killed; what it does from then on is kept at once.
fn crash(bench: &Bench) {
    bench.crash();
    disk(bench).at_once(true);
    bench.run();
}

fn id(publish: &Publish) -> PacketId {
    publish.packet_id.expect("a packet id")
}

/// PROTOCOL.md, section 7.4: also of a session that had told the server of nothing else.
#[test]
fn what_was_received_at_qos_2_before_a_crash_is_not_received_again() {
    for version in [V4, V5] {
        let bench = bench();
        let writer = bench.client("1:phone", version);
        writer.connect_lasting();
        let id = writer.publish("/2/inbox", packets::message("1", "once"), ExactlyOnce);
        let packet_id = packets::id(id.expect("an id"));
        writer.expect(Packet::PubRec(Ack::success(packet_id)));
        crash(&bench);
        assert!(writer.connect_lasting().session_present, "{version:?}");
        let message = packets::message("1", "once");
        let mut again = packets::publish("/2/inbox", message, ExactlyOnce, Some(packet_id));
        again.dup = true;
        writer.send(Packet::Publish(again));
        writer.expect_accepted(ExactlyOnce, id);
        let reader = bench.at_inbox("2:phone", V5);
        reader.acknowledge(&reader.expect_message("1", "once"));
        reader.expect_nothing();
    }
}

#[test]
fn a_pub_rel_comes_again_after_a_crash_until_it_is_complete() {
    let bench = bench();
    let reader = device(&bench, "2:phone");
    writer(&bench).write("2", "hello", ExactlyOnce);
    let packet_id = id(&reader.expect_message("1", "hello"));
    reader.send(Packet::PubRec(Ack::success(packet_id)));
    for _ in 0..3 {
        reader.expect(Packet::PubRel(Ack::success(packet_id)));
        reader.expect_nothing();
        crash(&bench);
        reader.connect_with(lasting);
    }
    reader.expect(Packet::PubRel(Ack::success(packet_id)));
    reader.send(Packet::PubComp(Ack::success(packet_id)));
    crash(&bench);
    reader.connect_with(lasting);
    reader.expect_nothing();
    assert!(disk(&bench).is_empty());
}

#[test]
fn a_pub_rel_waits_until_the_store_has_it() {
    let bench = bench();
    let reader = device(&bench, "2:phone");
    writer(&bench).write("2", "hello", ExactlyOnce);
    let packet_id = id(&reader.expect_message("1", "hello"));
    disk(&bench).at_once(false);
    reader.send(Packet::PubRec(Ack::success(packet_id)));
    reader.expect_nothing();
    disk(&bench).at_once(true);
    bench.run();
    reader.expect(Packet::PubRel(Ack::success(packet_id)));
}

#[test]
fn nothing_is_left_of_what_is_complete() {
    type End = fn(&Client, &Publish);
    let ends: [(QoS, End); 3] = [
        (AtLeastOnce, Client::ack),
        (ExactlyOnce, Client::acknowledge),
        (ExactlyOnce, |reader, publish| {
            let refused = Ack::with_reason(id(publish), ReasonCode::UnspecifiedError);
            reader.send(Packet::PubRec(refused));
        }),
    ];
    for (qos, end) in ends {
        let bench = bench();
        let reader = device(&bench, "2:phone");
        reader.drop_connection();
        writer(&bench).write("2", "hello", qos);
        reader.connect_with(lasting);
        end(&reader, &reader.expect_message("1", "hello"));
        assert!(disk(&bench).is_empty(), "{qos:?}");
    }
}

/// MQTT 5.0, section 4.4: with the original packet identifier. Whether the store had the message when it was sent, or
/// was given it after that.
#[test]
fn what_comes_again_after_a_crash_has_its_packet_id() {
    for (qos, is_away) in [
        (AtLeastOnce, false),
        (AtLeastOnce, true),
        (ExactlyOnce, true),
    ] {
        let bench = bench();
        let reader = device(&bench, "2:phone");
        let writer = writer(&bench);
        if is_away {
            reader.drop_connection();
        }
        (0..3).for_each(|number| writer.write("2", &number.to_string(), qos));
        if is_away {
            reader.connect_with(lasting);
        }
        let sent = |number: usize| reader.expect_message("1", &number.to_string());
        let ids: Vec<_> = (0..3).map(|number| id(&sent(number))).collect();
        crash(&bench);
        reader.connect_with(lasting);
        for (number, packet_id) in ids.into_iter().enumerate() {
            let again = reader.expect_again("1", &number.to_string());
            assert_eq!(id(&again), packet_id, "{qos:?}");
        }
    }
}

/// Until the store knows that it may have been sent, it is not: or it would come again without DUP.
#[test]
fn what_the_store_has_waits_until_that_knows_how_far_it_may_have_been_sent() {
    let bench = bench();
    // Who is away has messages stored at once.
    device(&bench, "2:away").drop_connection();
    let reader = device(&bench, "2:phone");
    let writer = writer(&bench);
    disk(&bench).at_once(false);
    for content in ["one", "two"] {
        writer.publish("/2/inbox", packets::message("1", content), AtLeastOnce);
        reader.expect_nothing();
    }
    disk(&bench).at_once(true);
    bench.run();
    reader.read("1", "one");
    reader.read("1", "two");
}

#[test]
fn a_session_and_its_latest_subscriptions_survive_a_crash() {
    let bench = bench();
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe("/2/inbox", AtLeastOnce);
    crash(&bench);
    assert!(reader.connect_with(lasting).session_present);
    reader.subscribe("/2/inbox", AtMostOnce);
    crash(&bench);
    assert!(reader.connect_with(lasting).session_present);
    writer(&bench).write("2", "hello", AtLeastOnce);
    assert_eq!(reader.expect_message("1", "hello").qos, AtMostOnce);
}

/// Whether the store had the message when the first device acknowledged it, or was given it after that.
#[test]
fn what_one_device_has_acknowledged_is_not_sent_to_it_again_and_leaves_with_the_other() {
    for graceful in [false, true] {
        let bench = bench();
        let (one, two) = (device(&bench, "2:one"), device(&bench, "2:two"));
        if graceful {
            bench.be_graceful();
        }
        let writer = writer(&bench);
        writer.publish("/2/inbox", packets::message("1", "hello"), AtLeastOnce);
        one.read("1", "hello");
        two.expect_message("1", "hello");
        bench
            .router()
            .hand_over(bench.now() + Duration::from_secs(1));
        bench.run();
        assert_eq!(disk(&bench).kept(), 1);
        crash(&bench);
        one.connect_with(lasting);
        one.expect_nothing();
        two.connect();
        // Its session has begun anew: what the first one has acknowledged is over.
        assert_eq!(disk(&bench).kept(), 0, "in its grace: {graceful}");
        two.subscribe_inbox();
        two.expect_nothing();
    }
}

/// MQTT 5.0, section 3.3.1.1: it was never sent, though later ones were.
#[test]
fn a_retained_message_that_is_sent_for_the_first_time_after_a_crash_has_no_dup() {
    let bench = bench();
    let reader = device(&bench, "2:phone");
    let retain = |publish: &mut Publish| publish.retain = true;
    let packet_id = reader.publish_with("/2/x", "retained", AtLeastOnce, retain);
    reader.expect_accepted(AtLeastOnce, packet_id);
    writer(&bench).write("2", "hello", AtLeastOnce);
    reader.expect_message("1", "hello");
    crash(&bench);
    reader.connect_with(lasting);
    reader.expect_again("1", "hello");
    reader.subscribe("/2/x", AtLeastOnce);
    assert!(!reader.expect_payload("/2/x", b"retained").dup);
}

fn pushing() -> Bench {
    let bench = Bench::on_disk(|rules| rules.user.push.audience = PushAudience::TokenHolders);
    let directory = bench.directory();
    directory.set_notification("2", NotificationToken::Present);
    disk(&bench).at_once(true);
    bench
}

#[test]
fn pushes_end_with_the_account() {
    for qos in [AtMostOnce, AtLeastOnce] {
        let bench = pushing();
        writer(&bench).write("2", "hello", qos);
        assert_eq!(disk(&bench).pushes().len(), 1);
        bench.directory().remove_account("2");
        bench.recheck();
        assert_eq!(disk(&bench).pushes(), []);
        assert_eq!(bench.router().remembered_pushes(), 0);
    }
}

#[test]
fn a_push_that_was_sent_before_a_crash_is_forgotten_after_its_window() {
    let bench = pushing();
    writer(&bench).write("2", "hello", AtLeastOnce);
    assert_eq!(bench.send_pushes().len(), 1);
    crash(&bench);
    assert_eq!(bench.router().remembered_pushes(), 1);
    bench.advance(Duration::from_secs(120));
    assert_eq!(bench.router().remembered_pushes(), 0);
    assert_eq!(disk(&bench).pushes(), []);
}

#[test]
fn a_message_that_is_not_kept_takes_no_push_from_the_one_that_is() {
    let bench = pushing();
    let writer = writer(&bench);
    disk(&bench).at_once(false);
    for content in ["one", "two"] {
        writer.publish("/2/inbox", packets::message("1", content), AtLeastOnce);
    }
    disk(&bench).commit(1);
    disk(&bench).fail();
    disk(&bench).at_once(true);
    bench.run();
    assert_eq!(disk(&bench).kept(), 1);
    assert_eq!(bench.send_pushes().len(), 1);
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_sends_pushes_is_woken_when_one_is_due() {
    let bench = pushing();
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let context = Context::from_waker(&waker);
    let poll = || {
        bench
            .router()
            .poll_push(&context, bench.now(), PushOrder::default())
    };
    assert!(poll().is_pending());
    assert!(!woken.0.load(Ordering::Relaxed));
    writer(&bench).write("2", "hello", AtLeastOnce);
    assert!(woken.0.load(Ordering::Relaxed));
    assert!(poll().is_ready());
}

#[test]
fn nobody_is_told_of_messages_of_their_own() {
    let bench = Bench::on_disk(|rules| {
        rules.user.many_devices = true;
        rules.user.push.audience = PushAudience::Everybody;
    });
    disk(&bench).at_once(true);
    let (one, two) = (device(&bench, "2:one"), device(&bench, "2:two"));
    one.publish("/2/inbox", packets::message("2", "a note"), AtLeastOnce);
    one.expect_message("2", "a note");
    two.expect_message("2", "a note");
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.send_pushes(), []);
    assert_eq!(disk(&bench).pushes(), []);
}

/// The store keeps milliseconds: what it keeps is rounded so that nothing ends before its time.
#[test]
fn nothing_expires_early_by_a_restart() {
    const SECS: u32 = 60;
    const LIFE: Duration = Duration::from_secs(SECS as u64);
    for own_interval in [false, true] {
        let bench = Bench::on_disk(|rules| {
            if !own_interval {
                rules.user.max_age = LIFE;
            }
        });
        disk(&bench).at_once(true);
        bench.pass(Duration::from_micros(417));
        let sender = writer(&bench);
        let sent_at = bench.now();
        let message = packets::message("1", "kept");
        let id = sender.publish_with("/2/inbox", message, AtLeastOnce, |publish| {
            let properties = publish.properties.get_or_insert_default();
            properties.message_expiry_secs = own_interval.then_some(SECS);
        });
        sender.expect_accepted(AtLeastOnce, id);
        crash(&bench);
        let left = (sent_at + LIFE).since(bench.now());
        bench.pass(left - Duration::from_micros(1));
        let receiver = bench.client("2:phone", V5);
        receiver.connect();
        receiver.subscribe("/2/inbox", AtLeastOnce);
        receiver.expect_message("1", "kept");
        receiver.drop_connection();
        bench.advance(Duration::from_secs(2));
        assert_eq!(disk(&bench).kept(), 0, "it expires all the same");
    }
}
