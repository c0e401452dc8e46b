//! The server is killed at every step of what its store does, and started again on what that has kept.

use std::collections::BTreeSet;

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_testkit::disk::CrashingStore;
use jam_testkit::{Bench, Client};
use jam_wire::packet::{Packet, QoS, Version};

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
