//! The server is killed at every step of what its store does, and started again on what that has kept.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_testkit::client::lasting;
use jam_testkit::disk::CrashingStore;
use jam_testkit::{Bench, Client, packets};
use jam_wire::packet::{Ack, Connect, Packet, PacketId, QoS, Version};

/// Steps of the store after which nothing is left to be done in any of these stories.
const ENOUGH: usize = 40;

/// The next thing that a store does: it commits a call, says so, or reads.
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

fn disk(bench: &Bench) -> &CrashingStore {
    bench.disk().expect("a bench on disk")
}

/// Everything that a client was sent in its inbox since it last looked: payload and DUP.
fn arrived(client: &Client) -> Vec<(String, bool)> {
    let mut arrived = Vec::new();
    while let Some(packet) = client.next() {
        if let Packet::Publish(publish) = packet {
            let text = String::from_utf8(publish.payload.to_vec()).expect("text");
            arrived.push((text, publish.dup));
        }
    }
    arrived
}

/// A friend, and a receiver whose session has been left with `count` messages waiting.
fn waiting(version: Version, qos: QoS, count: usize) -> (Bench, Client) {
    let bench = Bench::on_disk(|_| ());
    disk(&bench).at_once(true);
    let receiver = bench.client("2:phone", version);
    receiver.connect_lasting();
    receiver.subscribe("/2/inbox", qos);
    receiver.drop_connection();
    let writer = bench.client("1:phone", V5);
    writer.connect();
    for number in 0..count {
        writer.write("2", &number.to_string(), qos);
    }
    disk(&bench).at_once(false);
    (bench, receiver)
}

/// The server is killed and comes back, and so does the receiver.
fn killed(bench: &Bench, receiver: &Client) {
    bench.crash();
    receiver.drop_connection();
    disk(bench).at_once(true);
    assert!(receiver.connect_lasting().session_present);
}

#[test]
fn what_had_been_sent_before_a_crash_comes_again_with_dup() {
    for version in [V4, V5] {
        for qos in [AtLeastOnce, ExactlyOnce] {
            for steps in 0..ENOUGH {
                let (bench, receiver) = waiting(version, qos, 4);
                receiver.connect_lasting();
                (0..steps).for_each(|_| step(&bench));
                let before: BTreeSet<_> = arrived(&receiver).into_iter().map(|it| it.0).collect();
                killed(&bench, &receiver);
                let after = arrived(&receiver);
                assert_eq!(after.len(), 4, "{after:?}");
                assert!(after.is_sorted(), "{after:?}");
                for (text, dup) in after {
                    assert!(dup || !before.contains(&text), "{text} after {steps} steps");
                }
            }
        }
    }
}

#[test]
fn what_was_acknowledged_as_the_server_died_comes_again_with_dup_or_not_at_all() {
    for steps in 0..ENOUGH {
        let (bench, receiver) = waiting(V5, AtLeastOnce, 30);
        receiver.connect_lasting();
        let mut before = BTreeSet::new();
        for _ in 0..steps {
            step(&bench);
            while let Some(packet) = receiver.next() {
                if let Packet::Publish(publish) = packet {
                    before.insert(publish.payload.clone());
                    receiver.ack(&publish);
                }
            }
        }
        killed(&bench, &receiver);
        while let Some(Packet::Publish(publish)) = receiver.next() {
            let known = before.contains(&publish.payload);
            assert!(publish.dup || !known, "{publish:?} after {steps} steps");
            receiver.ack(&publish);
        }
    }
}

#[test]
fn a_second_crash_does_not_forget_what_was_sent_before_the_first() {
    for steps in 0..ENOUGH {
        let (bench, receiver) = waiting(V4, AtLeastOnce, 4);
        receiver.connect_lasting();
        (0..ENOUGH / 2).for_each(|_| step(&bench));
        let before = arrived(&receiver);
        bench.crash();
        receiver.drop_connection();
        (0..steps).for_each(|_| step(&bench));
        killed(&bench, &receiver);
        let after = arrived(&receiver);
        assert!(!before.is_empty());
        assert_eq!(after.len(), 4);
        for (text, _) in before {
            assert!(after.contains(&(text, true)), "{after:?}");
        }
    }
}

#[test]
fn what_was_never_sent_is_not_marked_as_sent() {
    let (bench, receiver) = waiting(V4, AtLeastOnce, 4);
    killed(&bench, &receiver);
    let after = arrived(&receiver);
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|(_, dup)| !dup), "{after:?}");

    // Nor is what comes to another device: it is new to that one.
    let (bench, receiver) = waiting(V4, AtLeastOnce, 4);
    receiver.connect_lasting();
    (0..ENOUGH).for_each(|_| step(&bench));
    bench.crash();
    disk(&bench).at_once(true);
    let other = bench.client("2:tablet", V4);
    other.connect();
    other.subscribe_inbox();
    let after = arrived(&other);
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|(_, dup)| !dup), "{after:?}");
}

#[test]
fn a_retained_message_is_acknowledged_when_it_is_kept() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for steps in 0..ENOUGH {
            let bench = Bench::on_disk(|rules| rules.user.many_devices = true);
            bench.be_graceful();
            disk(&bench).at_once(true);
            let (one, reader) = (bench.client("1:phone", V5), bench.client("1:tablet", V4));
            one.connect();
            reader.connect();
            reader.subscribe("/1/mood", qos);
            disk(&bench).at_once(false);
            let id = one.publish_with("/1/mood", "fine", qos, |publish| publish.retain = true);
            let mut acknowledged = false;
            for done in 0..=steps {
                // When its only reader has it, nothing but the retained message has to be kept.
                match reader.next() {
                    Some(Packet::Publish(publish)) if qos == AtLeastOnce => reader.ack(&publish),
                    _ => {}
                }
                if done < steps {
                    step(&bench);
                }
            }
            while let Some(packet) = one.next() {
                let (Packet::PubAck(ack) | Packet::PubRec(ack)) = packet else {
                    panic!("expected an acknowledgement, got {packet:?}");
                };
                assert_eq!(Some(ack.packet_id.get()), id);
                acknowledged = true;
            }
            assert!(acknowledged || steps < ENOUGH / 2);
            bench.crash();
            disk(&bench).at_once(true);
            let new = bench.client("1:laptop", V4);
            new.connect();
            new.subscribe("/1/mood", AtMostOnce);
            let found = matches!(new.next(), Some(Packet::Publish(it)) if it.payload == "fine");
            assert!(found || !acknowledged, "{qos:?}, after {steps} steps");
        }
    }
}

#[test]
fn a_retained_message_on_its_way_to_a_session_is_kept_as_any_other() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for steps in 0..ENOUGH {
            let bench = Bench::on_disk(|_| ());
            disk(&bench).at_once(true);
            let one = bench.client("1:phone", V5);
            one.connect_lasting();
            for (topic, text) in [("/1/mood", "fine"), ("/1/weather", "rain")] {
                let id = one.publish_with(topic, text, qos, |publish| publish.retain = true);
                one.expect_accepted(qos, id);
            }
            disk(&bench).at_once(false);
            one.send_subscribe(vec![packets::filter("/1/mood", qos)]);
            let mut granted = false;
            let mut first = None;
            for _ in 0..steps {
                while let Some(packet) = one.next() {
                    match packet {
                        Packet::SubAck(_) => granted = true,
                        // PUBREC, or PUBACK, does not reach the server any more.
                        Packet::Publish(publish) => first = Some(publish),
                        other => panic!("did not expect {other:?}"),
                    }
                }
                step(&bench);
            }
            bench.crash();
            one.drop_connection();
            disk(&bench).at_once(true);
            assert!(one.connect_lasting().session_present);
            let mut arrived = 0;
            while let Some(packet) = one.next() {
                match packet {
                    Packet::Publish(publish) => {
                        assert!(publish.retain && publish.payload == "fine", "{publish:?}");
                        if let Some(first) = &first {
                            assert!(publish.dup, "after {steps} steps");
                            assert_eq!(publish.packet_id, first.packet_id);
                        }
                        arrived += 1;
                        one.acknowledge(&publish);
                    }
                    other => panic!("did not expect {other:?}"),
                }
            }
            assert!(arrived == 1 || !granted, "{qos:?} after {steps} steps");
            // Its packet id stands for nothing else.
            one.subscribe("/1/weather", qos);
            let publish = one.expect_publish();
            assert!(publish.retain && publish.payload == "rain");
        }
    }
}

/// A lasting session with a will to the inbox of 2.
fn leave_will(connect: &mut Connect, qos: QoS, delay_secs: Option<u32>) {
    lasting(connect);
    let mut will = packets::will("/2/inbox", r#"{"from":"1"}"#);
    (will.qos, will.delay_secs) = (qos, delay_secs);
    connect.will = Some(will);
}

/// How a connection with a will of this delay ends.
type End = (Option<u32>, fn(&Bench, &Client));

/// A client connects; its CONNACK may wait for the store.
fn come(bench: &Bench, id: &str, change: fn(&mut Connect)) {
    let client = bench.client(id, V5);
    client.open();
    let mut connect = packets::connect(id, V5);
    change(&mut connect);
    client.send(Packet::Connect(Box::new(connect)));
}

const ENDS: [End; 6] = [
    (None, |_, client| client.drop_connection()),
    (Some(60), |bench, client| {
        client.drop_connection();
        bench.pass(Duration::from_secs(61));
    }),
    // The session ends before the delay does.
    (Some(1_000_000), |bench, client| {
        client.drop_connection();
        bench.pass(Duration::from_secs(100_000));
    }),
    (None, |bench, _| come(bench, "1:phone", lasting)),
    (None, |bench, _| come(bench, "1:phone", |_| ())),
    (Some(60), |bench, _| come(bench, "1:tablet", |_| ())),
];

#[test]
fn a_will_that_is_due_is_published_once_whenever_the_server_is_killed() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for (number, (delay_secs, end)) in ENDS.into_iter().enumerate() {
            for steps in 0..ENOUGH {
                let bench = Bench::on_disk(|_| ());
                disk(&bench).at_once(true);
                let client = bench.client("1:phone", V5);
                client.connect_with(|connect| leave_will(connect, qos, delay_secs));
                disk(&bench).at_once(false);
                end(&bench, &client);
                (0..steps).for_each(|_| step(&bench));
                bench.crash();
                disk(&bench).at_once(true);
                let reader = bench.client("2:phone", V5);
                reader.connect();
                reader.subscribe("/2/inbox", qos);
                bench.pass(Duration::from_secs(2_000_000));
                let came = arrived(&reader).len();
                assert_eq!(came, 1, "{qos:?}, end {number}, after {steps} steps");
            }
        }
    }
}

#[test]
fn a_will_that_cannot_be_kept_waits_until_it_can() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::on_disk(|_| ());
        disk(&bench).at_once(true);
        let client = bench.client("1:phone", V5);
        client.connect_with(|connect| leave_will(connect, qos, None));
        disk(&bench).at_once(false);
        client.drop_connection();
        for _ in 0..3 {
            // The disk is full when the message that it has become comes to it.
            disk(&bench).fail();
            bench.run();
        }
        disk(&bench).at_once(true);
        let reader = bench.client("2:phone", V5);
        reader.connect();
        reader.subscribe("/2/inbox", qos);
        assert_eq!(arrived(&reader).len(), 1);
    }
}

#[test]
fn a_client_that_was_told_that_it_has_no_session_does_not_meet_the_old_one_again() {
    let mut told_at_all = false;
    for steps in 0..ENOUGH {
        let bench = Bench::on_disk(|_| ());
        disk(&bench).at_once(true);
        let client = bench.client("1:phone", V5);
        client.connect_lasting();
        let id = client.publish("/2/inbox", r#"{"from":"1","n":1}"#, ExactlyOnce);
        assert!(matches!(client.next(), Some(Packet::PubRec(_))));
        // PUBREL is still to come when the session ends.
        disk(&bench).at_once(false);
        client.disconnect_with(|disconnect| disconnect.session_expiry_secs = Some(0));
        let client = bench.client("1:phone", V5);
        client.open();
        let mut connect = packets::connect("1:phone", V5);
        lasting(&mut connect);
        client.send(Packet::Connect(Box::new(connect)));
        (0..steps).for_each(|_| step(&bench));
        let told = matches!(client.next(), Some(Packet::ConnAck(it)) if !it.session_present);
        told_at_all |= told;
        bench.crash();
        disk(&bench).at_once(true);
        client.drop_connection();
        client.connect_lasting();
        if told {
            // Packet ids begin anew in what is for the client another session.
            client.publish_with(
                "/2/inbox",
                r#"{"from":"1","n":2}"#,
                ExactlyOnce,
                |publish| {
                    publish.packet_id = id.and_then(PacketId::new);
                },
            );
            client.expect_accepted(ExactlyOnce, id);
            let reader = bench.client("2:phone", V5);
            reader.connect();
            reader.subscribe("/2/inbox", ExactlyOnce);
            assert_eq!(arrived(&reader).len(), 2, "after {steps} steps");
        }
    }
    assert!(told_at_all);
}

#[test]
fn what_was_released_at_qos_2_does_not_come_again_to_a_clean_session_either() {
    let mut most = 0;
    for version in [V4, V5] {
        for steps in 0..2 * ENOUGH {
            let bench = Bench::on_disk(|_| ());
            disk(&bench).at_once(true);
            let writer = bench.client("1:phone", V5);
            writer.connect();
            for number in 0..4 {
                writer.write("2", &number.to_string(), ExactlyOnce);
            }
            let receiver = bench.client("2:phone", version);
            receiver.connect();
            receiver.send_subscribe(vec![packets::filter("/2/inbox", ExactlyOnce)]);
            disk(&bench).at_once(false);
            let (mut on_their_way, mut had) = (BTreeMap::new(), BTreeSet::new());
            for _ in 0..steps {
                while let Some(packet) = receiver.next() {
                    match packet {
                        Packet::Publish(publish) => {
                            let id = publish.packet_id.expect("a packet id");
                            on_their_way.insert(id, publish.payload);
                            receiver.send(Packet::PubRec(Ack::success(id)));
                        }
                        Packet::PubRel(ack) => {
                            had.extend(on_their_way.remove(&ack.packet_id));
                            receiver.send(Packet::PubComp(ack));
                        }
                        _ => {}
                    }
                }
                step(&bench);
            }
            most = most.max(had.len());
            bench.crash();
            receiver.drop_connection();
            disk(&bench).at_once(true);
            receiver.connect();
            receiver.send_subscribe(vec![packets::filter("/2/inbox", ExactlyOnce)]);
            let mut again = 0;
            while let Some(packet) = receiver.next() {
                if let Packet::Publish(publish) = packet {
                    assert!(!had.contains(&publish.payload), "after {steps} steps");
                    again += 1;
                }
            }
            assert!(again + had.len() >= 4 - on_their_way.len());
        }
    }
    assert_eq!(most, 4);
}

#[test]
fn a_client_that_was_let_in_with_a_will_has_left_it() {
    for steps in 0..ENOUGH {
        let bench = Bench::on_disk(|_| ());
        disk(&bench).at_once(true);
        // It goes on with a session, or has a new one.
        let known = bench.client("1:phone", V5);
        if steps % 2 == 0 {
            known.connect_lasting();
            known.drop_connection();
        }
        disk(&bench).at_once(false);
        let client = bench.client("1:phone", V5);
        client.open();
        let mut connect = packets::connect("1:phone", V5);
        leave_will(&mut connect, AtLeastOnce, Some(60));
        client.send(Packet::Connect(Box::new(connect)));
        (0..steps / 2).for_each(|_| step(&bench));
        let told = matches!(client.next(), Some(Packet::ConnAck(_)));
        assert!(told || steps < ENOUGH / 2);
        bench.crash();
        disk(&bench).at_once(true);
        bench.pass(Duration::from_secs(61));
        let reader = bench.at_inbox("2:phone", V5);
        assert!(!told || arrived(&reader).len() == 1, "after {steps} steps");
    }
}

#[test]
fn what_the_window_did_not_let_out_before_a_crash_is_not_marked() {
    const WINDOW: u16 = 4;
    for steps in 0..ENOUGH {
        let (bench, receiver) = waiting(V5, AtLeastOnce, 20);
        let connect = |connect: &mut Connect| {
            lasting(connect);
            connect.properties.receive_maximum = NonZeroU16::new(WINDOW);
        };
        receiver.connect_with(connect);
        let mut had = 0;
        for _ in 0..steps {
            step(&bench);
            while let Some(packet) = receiver.next() {
                let Packet::Publish(publish) = packet else {
                    continue;
                };
                assert!(!publish.dup);
                had += 1;
                // Some of them are acknowledged, and the window moves on.
                if had <= steps / 4 {
                    receiver.ack(&publish);
                }
            }
        }
        bench.crash();
        receiver.drop_connection();
        disk(&bench).at_once(true);
        assert!(receiver.connect_lasting().session_present);
        let mut marked = 0;
        while let Some(packet) = receiver.next() {
            if let Packet::Publish(publish) = packet {
                marked += usize::from(publish.dup);
                let text = String::from_utf8(publish.payload.to_vec()).expect("text");
                let number = (0..20).position(|n| packets::message("1", &n.to_string()) == text);
                let number = number.expect("one of those that were written");
                assert!(
                    publish.dup || number >= had,
                    "{number} of {had}, {steps} steps"
                );
                let most = had + usize::from(WINDOW);
                assert!(
                    !publish.dup || number < most,
                    "{number} of {had}, {steps} steps"
                );
                receiver.ack(&publish);
            }
        }
        assert!(marked <= had + usize::from(WINDOW));
    }
}

/// A commit that failed may have reached the file, with the packet id of a QoS 2 message that is refused for it. That the
/// id is free is in the file with the next commit. A server that is killed before has the message, and takes another
/// one of that id for the same (MQTT 5.0, MQTT-4.3.3-10, in place of -9, for it does not know that it has refused the first): DUP
/// tells them not apart, since clients that send again without it are common, and for those QoS 2 would be at least once
/// after each restart. `docs/data-format.md`, `received`, says so to users.
#[test]
fn a_refusal_of_a_disk_that_fails_is_forgotten_if_the_server_is_killed_at_once() {
    let another = |id| {
        let payload = packets::message("1", "another");
        let id = PacketId::new(id);
        Packet::Publish(packets::publish("/2/inbox", payload, ExactlyOnce, id))
    };
    for killed_at_once in [false, true] {
        let bench = Bench::on_disk(|_| ());
        disk(&bench).at_once(true);
        let reader = bench.client("2:phone", V5);
        reader.connect_lasting();
        reader.subscribe("/2/inbox", ExactlyOnce);
        reader.drop_connection();
        let writer = bench.client("1:phone", V5);
        writer.connect_lasting();
        disk(&bench).at_once(false);
        let id = writer
            .publish("/2/inbox", packets::message("1", "refused"), ExactlyOnce)
            .expect("a packet id");
        disk(&bench).fail_in_the_file();
        bench.run();
        let answer = std::iter::from_fn(|| writer.next()).last();
        let Some(Packet::PubRec(Ack { reason, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert!(reason.is_error());
        if !killed_at_once {
            disk(&bench).at_once(true);
        }
        killed(&bench, &writer);
        writer.send(another(id));
        writer.expect_accepted(ExactlyOnce, Some(id));
        reader.connect_lasting();
        let came: Vec<_> = arrived(&reader).into_iter().map(|it| it.0).collect();
        let which = if killed_at_once { "refused" } else { "another" };
        assert!(came.len() == 1 && came[0].contains(which), "{came:?}");
    }
}
