//! PROTOCOL.md, section 10: what senders are told of their messages.

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3, V4, V5};
use jam_core::router::Rules;
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{Ack, Packet, PacketId, Publish, QoS, Version};

const VERSIONS: [Version; 3] = [V3, V4, V5];

fn many(rules: &mut Rules) {
    rules.user.many_devices = true;
}

/// A receipt, byte for byte, that is written now.
fn receipt(bench: &Bench, to: &str, id: &str, message_id: Option<u16>) -> String {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(bench.now().as_millis());
    let (now, message_id) = (
        humantime::format_rfc3339_millis(now),
        message_id.map_or("null".into(), |id| id.to_string()),
    );
    format!(
        r#"{{"type":"receipt","status":"delivered","to":"{to}","id":{id},"messageId":{message_id},"timestamp":"{now}"}}"#
    )
}

/// User 1, connected with a clean session and subscribed to their receipts.
fn sender(bench: &Bench, version: Version) -> Client {
    let one = bench.client("1:phone", version);
    one.connect();
    one.subscribe("/1/receipts", AtLeastOnce);
    one
}

/// User 1 with a session that outlives its connection, subscribed to their receipts.
fn lasting_sender(bench: &Bench) -> Client {
    let one = bench.client("1:phone", V5);
    one.connect_lasting();
    one.subscribe("/1/receipts", AtLeastOnce);
    one
}

/// Publishes to user 2 and completes the handshake; the packet id.
fn write(one: &Client, content: &str, qos: QoS) -> Option<u16> {
    let id = one.publish("/2/inbox", packets::message("1", content), qos);
    one.expect_accepted(qos, id);
    id
}

/// Expects a receipt next that is written now and acknowledges it.
fn expect_receipt(bench: &Bench, one: &Client, to: &str, id: &str, message_id: Option<u16>) {
    let expected = receipt(bench, to, id, message_id);
    let publish = one.expect_payload("/1/receipts", expected.as_bytes());
    assert_eq!((publish.qos, publish.retain), (AtLeastOnce, false));
    one.ack(&publish);
}

#[test]
fn a_sender_who_does_not_subscribe_is_told_nothing() {
    for version in VERSIONS {
        let bench = Bench::new();
        let three = bench.client("3:phone", V5);
        three.connect();
        three.subscribe("/3/receipts", AtLeastOnce);
        let one = bench.at_inbox("1:phone", version);
        one.subscribe("/1/receipt", AtLeastOnce);
        one.subscribe("/1/receipts/", AtLeastOnce);
        let two = bench.at_inbox("2:phone", version);
        write(&one, "a", AtLeastOnce);
        two.read("1", "a");
        write(&one, "b", ExactlyOnce);
        two.read("1", "b");
        one.expect_nothing();
        two.expect_nothing();
        three.expect_nothing();
    }
}

#[test]
fn a_receipt_comes_when_the_device_has_acknowledged_and_not_before() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = sender(&bench, version);
        let two = bench.at_inbox("2:phone", version);
        let id = one.publish("/2/inbox", packets::message("1", "a"), AtLeastOnce);
        one.expect_accepted(AtLeastOnce, id);
        let publish = two.expect_message("1", "a");
        bench.advance(Duration::from_secs(60));
        one.expect_nothing();
        two.ack(&publish);
        expect_receipt(&bench, &one, "2", "null", id);
        two.ack(&publish);
        one.expect_nothing();
        two.expect_nothing();
    }
}

#[test]
fn with_qos_2_pubrec_is_the_acknowledgement() {
    for version in VERSIONS {
        let bench = Bench::new();
        let one = sender(&bench, version);
        let two = bench.client("2:phone", version);
        two.connect();
        two.subscribe("/2/inbox", ExactlyOnce);
        let id = write(&one, "a", ExactlyOnce);
        let publish = two.expect_message("1", "a");
        let packet_id = publish.packet_id.unwrap();
        one.expect_nothing();
        for _ in 0..2 {
            two.send(Packet::PubRec(Ack::success(packet_id)));
            two.expect(Packet::PubRel(Ack::success(packet_id)));
        }
        expect_receipt(&bench, &one, "2", "null", id);
        two.send(Packet::PubComp(Ack::success(packet_id)));
        one.expect_nothing();
    }
}

#[test]
fn the_wrong_acknowledgement_is_none() {
    for (qos, wrong) in [
        (AtLeastOnce, Packet::PubRec as fn(Ack) -> Packet),
        (AtLeastOnce, Packet::PubComp),
        (ExactlyOnce, Packet::PubAck),
    ] {
        let bench = Bench::new();
        let one = sender(&bench, V5);
        let two = bench.client("2:phone", V5);
        two.connect();
        two.subscribe("/2/inbox", ExactlyOnce);
        write(&one, "a", qos);
        let id = two.expect_message("1", "a").packet_id.unwrap();
        two.send(Packet::PubAck(Ack::success(packets::id(999))));
        two.expect_nothing();
        two.send(wrong(Ack::success(id)));
        two.expect_ended(ReasonCode::ProtocolError);
        one.expect_nothing();
    }
}

#[test]
fn a_refusal_is_no_delivery() {
    let bench = Bench::new();
    let one = sender(&bench, V5);
    let two = bench.client("2:phone", V5);
    two.connect();
    two.subscribe("/2/inbox", ExactlyOnce);
    for (qos, make) in [
        (AtLeastOnce, Packet::PubAck as fn(Ack) -> Packet),
        (ExactlyOnce, Packet::PubRec),
    ] {
        write(&one, "a", qos);
        let id = two.expect_message("1", "a").packet_id.unwrap();
        two.send(make(Ack::with_reason(id, ReasonCode::UnspecifiedError)));
        one.expect_nothing();
        two.expect_nothing();
    }
}

#[test]
fn what_nobody_acknowledges_has_no_receipt() {
    let bench = Bench::new();
    let one = sender(&bench, V4);
    let two = bench.client("2:phone", V4);
    two.connect();
    two.subscribe("/2/inbox", AtMostOnce);
    write(&one, "granted QoS 0", AtLeastOnce);
    two.expect_message("1", "granted QoS 0");
    two.subscribe_inbox();
    write(&one, "published at QoS 0", AtMostOnce);
    two.expect_message("1", "published at QoS 0");
    // Larger than the device takes.
    let two = bench.client("2:phone", V5);
    two.connect_with(|connect| connect.properties.maximum_packet_size = Some(200));
    two.subscribe_inbox();
    write(&one, &"x".repeat(300), AtLeastOnce);
    two.expect_nothing();
    assert_eq!(bench.store().kept(), 1);
    one.expect_nothing();
}

#[test]
fn a_device_that_was_granted_qos_0_does_not_hide_one_that_acknowledges() {
    let bench = Bench::with(many);
    let one = sender(&bench, V4);
    let glance = bench.client("2:glance", V4);
    glance.connect();
    glance.subscribe("/2/inbox", AtMostOnce);
    let phone = bench.at_inbox("2:phone", V4);
    let id = write(&one, "a", AtLeastOnce);
    glance.expect_message("1", "a");
    one.expect_nothing();
    phone.read("1", "a");
    expect_receipt(&bench, &one, "2", "null", id);
}

#[test]
fn of_two_devices_the_first_counts() {
    let bench = Bench::with(many);
    let one = sender(&bench, V5);
    let phone = bench.at_inbox("2:phone", V4);
    let tablet = bench.client("2:tablet", V5);
    tablet.connect_lasting();
    tablet.subscribe_inbox();
    tablet.drop_connection();
    let id = write(&one, "a", AtLeastOnce);
    phone.read("1", "a");
    expect_receipt(&bench, &one, "2", "null", id);
    tablet.connect_lasting();
    tablet.read("1", "a");
    one.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn a_redelivery_has_no_second_receipt() {
    for graceful in [false, true] {
        let bench = Bench::new();
        if graceful {
            bench.be_graceful();
        }
        let one = sender(&bench, V4);
        let two = bench.client("2:phone", V4);
        two.connect_lasting();
        two.subscribe_inbox();
        let id = one.publish("/2/inbox", packets::message("1", "a"), AtLeastOnce);
        two.expect_message("1", "a");
        two.drop_connection();
        bench.advance(Duration::from_secs(1));
        one.expect_accepted(AtLeastOnce, id);
        two.connect_lasting();
        let again = two.expect_again("1", "a");
        one.expect_nothing();
        two.ack(&again);
        expect_receipt(&bench, &one, "2", "null", id);
        two.drop_connection();
        two.connect_lasting();
        two.expect_nothing();
        one.expect_nothing();
    }
}

#[test]
fn whoever_was_away_when_it_was_published_acknowledges_later() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::on_disk(|_| ());
        bench.disk().unwrap().at_once(true);
        let one = sender(&bench, V4);
        let id = write(&one, "a", qos);
        bench.advance(Duration::from_secs(3600));
        let two = bench.client("2:phone", V4);
        two.connect();
        two.subscribe("/2/inbox", ExactlyOnce);
        one.expect_nothing();
        two.read("1", "a");
        expect_receipt(&bench, &one, "2", "null", id);
    }
}

#[test]
fn the_apps_own_id_comes_back_as_it_was_written() {
    let bench = Bench::new();
    let one = sender(&bench, V4);
    let two = bench.at_inbox("2:phone", V4);
    let long = format!(r#""{}""#, "x".repeat(254));
    let longer = format!(r#""{}""#, "x".repeat(255));
    for (members, id) in [
        (r#""id":"m-17""#, r#""m-17""#),
        (r#""id" : 17 "#, "17"),
        (r#""id":-1.5e3"#, "-1.5e3"),
        (
            r#""id":123456789012345678901234567890"#,
            "123456789012345678901234567890",
        ),
        (
            r#""i\u0064":"escaped\n\"\u00e9 é""#,
            r#""escaped\n\"\u00e9 é""#,
        ),
        (r#""id":"""#, r#""""#),
        (&format!(r#""id":{long}"#), &long),
        (&format!(r#""id":{longer}"#), "null"),
        (r#""id":null"#, "null"),
        (r#""id":true"#, "null"),
        (r#""id":{"id":1}"#, "null"),
        (r#""id":[1]"#, "null"),
        (r#""content":{"id":1}"#, "null"),
        (r#""ID":1,"content":"\"id\":1""#, "null"),
        (r#""id":1,"id":1"#, "null"),
        (r#""id":1,"id":{}"#, "null"),
    ] {
        let payload = format!(r#"{{ {members}, "from":"1"}}"#);
        let message_id = one.publish("/2/inbox", payload.clone(), AtLeastOnce);
        one.expect_accepted(AtLeastOnce, message_id);
        two.ack(&two.expect_payload("/2/inbox", payload.as_bytes()));
        expect_receipt(&bench, &one, "2", id, message_id);
    }
}

#[test]
fn a_receiver_whose_name_needs_escapes_is_spelled_as_json() {
    let bench = Bench::new();
    let name = "a\"b\\c\u{7}é";
    bench
        .directory()
        .set_account(name, Some(&packets::token(name)));
    bench.directory().befriend("1", name);
    let one = sender(&bench, V5);
    let two = bench.at_inbox(name, V5);
    let id = one.publish(&two.inbox(), packets::message("1", "a"), AtLeastOnce);
    one.expect_accepted(AtLeastOnce, id);
    two.read("1", "a");
    expect_receipt(&bench, &one, r#"a\"b\\c\u0007é"#, "null", id);
}

#[test]
fn a_will_has_no_packet_id() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect_with(|connect| {
        lasting(connect);
        let mut will = packets::will("/2/inbox", r#"{"from":"1","id":"w"}"#);
        will.qos = AtLeastOnce;
        connect.will = Some(will);
    });
    one.subscribe("/1/receipts", AtLeastOnce);
    let two = bench.at_inbox("2:phone", V5);
    one.drop_connection();
    two.ack(&two.expect_publish());
    one.connect_lasting();
    expect_receipt(&bench, &one, "2", r#""w""#, None);
}

#[test]
fn nothing_but_messages_to_inboxes_has_a_receipt() {
    let bench = Bench::with(many);
    let one = sender(&bench, V4);
    let tablet = bench.client("1:tablet", V4);
    tablet.connect();
    tablet.subscribe("/1/notes", AtLeastOnce);
    tablet.subscribe("/1/receipts", AtLeastOnce);
    for topic in ["/1/notes", "/1/receipts", "/1/notes/inbox"] {
        one.publish(topic, "x", AtLeastOnce);
    }
    // What the user writes to their own channel themselves, and nothing else.
    for (client, topics) in [
        (&tablet, &["/1/notes", "/1/receipts"][..]),
        (&one, &["/1/receipts"]),
    ] {
        let mut seen = Vec::new();
        while let Some(packet) = client.next() {
            if let Packet::Publish(publish) = packet {
                assert_eq!(publish.payload, "x");
                client.ack(&publish);
                seen.push(publish.topic.to_string());
            }
        }
        assert_eq!(seen, topics);
    }
    one.expect_nothing();
    tablet.expect_nothing();
}

#[test]
fn ones_own_inbox_is_an_inbox() {
    let bench = Bench::with(many);
    let one = sender(&bench, V4);
    let tablet = bench.at_inbox("1:tablet", V4);
    let id = one.publish("/1/inbox", packets::message("1", "note"), AtLeastOnce);
    one.expect_accepted(AtLeastOnce, id);
    tablet.read("1", "note");
    expect_receipt(&bench, &one, "1", "null", id);
    tablet.expect_nothing();
}

#[test]
fn a_receipt_is_in_the_users_own_name() {
    let bench = Bench::new();
    let one = sender(&bench, V5);
    let two = bench.at_inbox("2:phone", V5);
    write(&one, "a", AtLeastOnce);
    two.read("1", "a");
    let publish = one.expect_publish();
    let properties = publish.properties.unwrap();
    assert_eq!(properties.user, [("from", "1")].into());
}

#[test]
fn receipts_wait_for_a_session_that_is_away_and_for_no_other() {
    for lasting in [true, false] {
        let bench = Bench::new();
        let one = if lasting {
            lasting_sender(&bench)
        } else {
            sender(&bench, V5)
        };
        let ids: Vec<_> = (0..3)
            .map(|n| write(&one, &n.to_string(), AtLeastOnce))
            .collect();
        one.drop_connection();
        bench.advance(Duration::from_secs(60));
        let two = bench.at_inbox("2:phone", V4);
        for n in 0..3 {
            two.read("1", &n.to_string());
        }
        let texts: Vec<_> = ids
            .iter()
            .map(|id| receipt(&bench, "2", "null", *id))
            .collect();
        bench.advance(Duration::from_secs(60));
        one.connect_lasting();
        if lasting {
            for text in texts {
                one.ack(&one.expect_payload("/1/receipts", text.as_bytes()));
            }
        }
        one.expect_nothing();
        assert_eq!(bench.store().kept(), 0);
    }
}

#[test]
fn a_subscription_at_qos_0_gets_receipts_as_they_come_and_keeps_none() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect_lasting();
    one.subscribe("/1/receipts", AtMostOnce);
    let two = bench.at_inbox("2:phone", V4);
    let id = write(&one, "a", AtLeastOnce);
    two.read("1", "a");
    let expected = receipt(&bench, "2", "null", id);
    assert_eq!(
        one.expect_payload("/1/receipts", expected.as_bytes()).qos,
        AtMostOnce
    );
    write(&one, "b", AtLeastOnce);
    one.drop_connection();
    two.read("1", "b");
    one.connect_lasting();
    one.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn a_full_mailbox_drops_the_receipt_and_not_the_acknowledgement() {
    for (messages, bytes) in [(1, u64::MAX), (usize::MAX, 1100)] {
        let bench = Bench::with(|rules| {
            rules.user.max_messages = messages;
            rules.user.max_bytes = bytes;
        });
        let one = lasting_sender(&bench);
        let two = bench.client("2:phone", V4);
        two.connect();
        let id = write(&one, "a", AtLeastOnce);
        one.drop_connection();
        two.write("1", &"x".repeat(1000), AtLeastOnce);
        two.subscribe_inbox();
        two.read("1", "a");
        assert_eq!(bench.store().kept(), 1);
        one.connect_lasting();
        one.expect_nothing();
        one.subscribe_inbox();
        one.read("2", &"x".repeat(1000));
        let id = id.map(|id| id + 10);
        let payload = packets::message("1", "b");
        one.publish_with("/2/inbox", payload, AtLeastOnce, |it| {
            it.packet_id = id.and_then(PacketId::new);
        });
        one.expect_accepted(AtLeastOnce, id);
        two.read("1", "b");
        expect_receipt(&bench, &one, "2", "null", id);
    }
}

#[test]
fn a_store_in_trouble_holds_nothing_up() {
    let bench = Bench::new();
    let one = sender(&bench, V4);
    let two = bench.at_inbox("2:phone", V4);
    write(&one, "a", AtLeastOnce);
    bench.store().trouble(true);
    two.read("1", "a");
    one.expect_nothing();
    assert_eq!(bench.store().kept(), 0);
}

#[test]
fn who_unsubscribes_is_told_nothing_more() {
    let bench = Bench::new();
    let one = sender(&bench, V5);
    let two = bench.at_inbox("2:phone", V4);
    let id = write(&one, "a", AtLeastOnce);
    let publish = two.expect_message("1", "a");
    one.unsubscribe("/1/receipts");
    two.ack(&publish);
    one.expect_nothing();
    write(&one, "b", AtLeastOnce);
    two.read("1", "b");
    one.expect_nothing();
    one.subscribe("/1/receipts", AtLeastOnce);
    let again = write(&one, "c", AtLeastOnce);
    two.read("1", "c");
    expect_receipt(&bench, &one, "2", "null", again);
    assert!(again > id);
}

#[test]
fn who_subscribes_late_is_told_of_what_is_sent_from_then_on() {
    let bench = Bench::new();
    let one = bench.client("1:phone", V5);
    one.connect();
    let id = write(&one, "a", AtLeastOnce);
    one.subscribe("/1/receipts", AtLeastOnce);
    let two = bench.at_inbox("2:phone", V4);
    two.read("1", "a");
    expect_receipt(&bench, &one, "2", "null", id);
}

#[test]
fn a_message_that_is_gone_has_no_receipt() {
    let bench = Bench::new();
    let one = sender(&bench, V4);
    let two = bench.at_inbox("2:phone", V4);
    write(&one, "a", AtLeastOnce);
    let publish = two.expect_message("1", "a");
    let user = jam_core::ids::UserId::parse("2").unwrap();
    bench.router().purge(&user, u64::MAX, None);
    bench.run();
    two.ack(&publish);
    one.expect_nothing();
}

#[test]
fn a_block_takes_no_receipt_back() {
    let bench = Bench::new();
    let one = sender(&bench, V4);
    let two = bench.at_inbox("2:phone", V4);
    let id = write(&one, "a", AtLeastOnce);
    bench.directory().block("2", "1", true);
    two.read("1", "a");
    expect_receipt(&bench, &one, "2", "null", id);
}

#[test]
fn who_listens_is_counted() {
    let bench = Bench::on_disk(many);
    bench.disk().unwrap().at_once(true);
    let count = || bench.router().receipt_listeners();
    let one = lasting_sender(&bench);
    assert_eq!(count(), 1);
    one.subscribe("/1/receipts", AtMostOnce);
    one.subscribe("/1/other", AtMostOnce);
    assert_eq!(count(), 1);
    let two = bench.client("2:phone", V4);
    two.connect();
    two.subscribe("/2/receipts", AtMostOnce);
    let tablet = bench.client("1:tablet", V4);
    tablet.connect();
    tablet.subscribe("/1/receipts", AtMostOnce);
    assert_eq!(count(), 3);
    tablet.unsubscribe("/1/receipts");
    tablet.unsubscribe("/1/receipts");
    two.drop_connection();
    assert_eq!(count(), 1);
    one.drop_connection();
    assert_eq!(count(), 1);
    bench.crash();
    assert_eq!(count(), 1);
    bench.pass(Duration::from_secs(25 * 3600));
    assert_eq!(count(), 0);
    assert_eq!(bench.router().known_users(), 0);
}

#[test]
fn what_is_said_after_a_crash_is_what_would_have_been_said_before() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = Bench::on_disk(|_| ());
        bench.disk().unwrap().at_once(true);
        let one = lasting_sender(&bench);
        let payload = r#"{"from":"1","id":"x"}"#;
        let id = one.publish("/2/inbox", payload, qos);
        one.expect_accepted(qos, id);
        let two = bench.client("2:phone", V4);
        two.connect_lasting();
        two.subscribe("/2/inbox", ExactlyOnce);
        let publish = two.expect_publish();
        bench.crash();
        bench.disk().unwrap().at_once(true);
        two.connect_lasting();
        let again = two.expect_publish();
        assert_eq!((again.packet_id, again.dup), (publish.packet_id, true));
        two.acknowledge(&again);
        one.connect_lasting();
        expect_receipt(&bench, &one, "2", r#""x""#, id);
        one.expect_nothing();
    }
}

/// Where the sender is while their message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sender {
    Away,
    There,
    /// Connected, but nothing arrives any more.
    Deaf,
    /// Connected, with a closed window: an answer arrives, another message does not.
    Closed,
    /// The device that wants receipts is away; another one, which does not, has published.
    OtherDevice,
}

/// Where the message is when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// In memory, for its grace.
    Grace,
    /// With a store that has not committed it.
    Pending,
    /// In the file.
    File,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    place: Place,
    sender: Sender,
    qos: QoS,
    /// Whether the receiver's session outlives its connection.
    lasting: bool,
    /// Whether another device of the receiver has not acknowledged yet.
    second: bool,
    /// Whether the grace is over before the server is killed.
    late: bool,
}

/// The server is killed at every moment from the receiver's acknowledgement on: the sender has one receipt,
/// or two, but never none.
#[test]
fn a_crash_loses_no_receipt() {
    use Sender::{Away, Closed, Deaf, OtherDevice, There};
    for place in [Place::Grace, Place::Pending, Place::File] {
        for sender in [Away, There, Deaf, Closed, OtherDevice] {
            for bits in 0..16 {
                let bit = |n: u32| bits >> n & 1 == 1;
                let case = Case {
                    place,
                    sender,
                    qos: if bit(0) { ExactlyOnce } else { AtLeastOnce },
                    lasting: bit(1),
                    second: bit(2),
                    late: bit(3),
                };
                // QoS 2 is delivered when it is in the file.
                let is_early = case.place != Place::File && case.qos == ExactlyOnce;
                for commits in (0..14).filter(|_| !is_early) {
                    assert!(crash_after(case, commits), "{case:?} {commits}");
                }
            }
        }
    }
}

/// Whether the sender gets a receipt although only so many calls were committed after the acknowledgement.
fn crash_after(case: Case, commits: usize) -> bool {
    let Case {
        place, sender, qos, ..
    } = case;
    let bench = Bench::on_disk(many);
    let disk = bench.disk().expect("a store with a file");
    disk.at_once(true);
    let two = bench.client("2:phone", V4);
    let other = bench.client("2:tablet", V5);
    for reader in [&two, &other]
        .into_iter()
        .take(1 + usize::from(case.second))
    {
        if case.lasting {
            reader.connect_lasting();
        } else {
            reader.connect();
        }
        reader.subscribe("/2/inbox", ExactlyOnce);
    }
    let phone = bench.client("1:phone", V5);
    phone.connect_with(|connect| {
        lasting(connect);
        if sender == Sender::Closed {
            connect.properties.receive_maximum = NonZeroU16::new(1);
        }
    });
    phone.subscribe("/1/receipts", AtLeastOnce);
    if sender == Sender::Closed {
        phone.subscribe("/1/own", AtLeastOnce);
        let id = phone.publish("/1/own", "to be acknowledged", AtLeastOnce);
        phone.expect_publish();
        phone.expect_accepted(AtLeastOnce, id);
    }
    let tablet = bench.client("1:tablet", V5);
    tablet.connect_lasting();
    let one = match sender {
        Sender::OtherDevice => &tablet,
        _ => &phone,
    };
    match place {
        Place::Grace => bench.be_graceful(),
        Place::Pending => disk.at_once(false),
        Place::File => {}
    }
    let id = one.publish("/2/inbox", packets::message("1", "a"), qos);
    if qos == ExactlyOnce {
        one.expect_accepted(qos, id);
    }
    match sender {
        Sender::Away | Sender::OtherDevice => phone.drop_connection(),
        Sender::There | Sender::Closed => {}
        Sender::Deaf => phone.set_reading(false),
    }
    let Some(Packet::Publish(publish)) = two.next() else {
        // A lasting session gets it when the store knows that it may have been sent.
        assert!(place == Place::Pending && case.lasting);
        return true;
    };
    disk.at_once(false);
    acknowledge(&two, &publish);
    if case.late {
        bench.pass(Duration::from_secs(1));
    }
    disk.commit(commits);
    while disk.unanswered() > 0 {
        disk.answer(0);
    }
    bench.run();
    let mut packets = Vec::new();
    if one.is_open() {
        packets.extend(std::iter::from_fn(|| one.next()));
    }
    let told = packets.iter().any(|it| is_receipt(it, id));
    let accepted = packets.iter().any(|it| matches!(it, Packet::PubAck(_)));
    bench.crash();
    disk.at_once(true);
    one.connect_lasting();
    if qos == AtLeastOnce && !accepted {
        one.publish_with("/2/inbox", packets::message("1", "a"), qos, |it| {
            (it.packet_id, it.dup) = (id.and_then(PacketId::new), true);
        });
    }
    two.connect_lasting();
    two.send_subscribe(vec![packets::filter("/2/inbox", ExactlyOnce)]);
    take_all(&two, |_| ());
    bench.advance(Duration::from_secs(1));
    if sender == Sender::OtherDevice {
        phone.connect_lasting();
    }
    let mut told_later = false;
    take_all(&phone, |packet| told_later |= is_receipt(packet, id));
    told || told_later
}

/// Takes and acknowledges whatever comes.
fn take_all(client: &Client, mut look: impl FnMut(&Packet)) {
    while let Some(packet) = client.next() {
        look(&packet);
        match packet {
            Packet::Publish(publish) => acknowledge(client, &publish),
            Packet::PubRel(ack) => client.send(Packet::PubComp(Ack::success(ack.packet_id))),
            _ => {}
        }
    }
}

/// Whether a packet is the receipt of what was published under a packet id.
fn is_receipt(packet: &Packet, id: Option<u16>) -> bool {
    let Packet::Publish(publish) = packet else {
        return false;
    };
    let id = format!("\"messageId\":{},", id.unwrap_or_default());
    publish.topic == "/1/receipts" && String::from_utf8_lossy(&publish.payload).contains(&id)
}

/// The first half of what acknowledges a message, for what follows waits for the store.
fn acknowledge(client: &Client, publish: &Publish) {
    let id = publish.packet_id.expect("QoS 1 or 2");
    client.send(match publish.qos {
        ExactlyOnce => Packet::PubRec(Ack::success(id)),
        _ => Packet::PubAck(Ack::success(id)),
    });
}
