//! Push (PROTOCOL.md, section 9): when one goes out, and when none does.

use std::time::Duration;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V4, V5};
use jam_core::directory::NotificationToken;
use jam_core::push::{MAX_PUSHES, PushAudience, PushOrder, PushOutcome};
use jam_core::router::Rules;
use jam_testkit::client::lasting;
use jam_testkit::{Bench, Client, packets};
use jam_wire::ReasonCode;
use jam_wire::packet::{QoS, Version};

const DEADLINE: Duration = Duration::from_secs(10);
const COLLAPSE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn served(rules: &mut Rules) {
    rules.user.push.audience = PushAudience::TokenHolders;
}

/// With a push service; everybody has a notification token.
fn with_tokens(bench: Bench) -> Bench {
    for user in ["1", "2", "3"] {
        bench
            .directory()
            .set_notification(user, NotificationToken::Present);
    }
    bench
}

fn bench() -> Bench {
    with_tokens(Bench::with(served))
}

fn writer(bench: &Bench) -> Client {
    let writer = bench.client("1:phone", V5);
    writer.connect();
    writer
}

/// Connected, subscribed, with a session that stays.
fn reader(bench: &Bench) -> Client {
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    reader.subscribe_inbox();
    reader
}

#[track_caller]
fn expect_push(bench: &Bench) {
    assert_eq!(bench.send_pushes(), [("2".into(), "1".into())]);
}

#[track_caller]
fn expect_none(bench: &Bench) {
    assert_eq!(bench.send_pushes(), []);
    assert_eq!(bench.router().waiting_pushes(), 0);
}

// No device connected.

#[test]
fn one_who_is_away_is_told_at_once() {
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let writer = writer(&bench);
        writer.write("2", "hello", qos);
        expect_push(&bench);
        bench.advance(COLLAPSE * 2);
        expect_none(&bench);
    }
}

#[test]
fn of_each_sender_for_himself() {
    let bench = bench();
    bench.directory().befriend("2", "3");
    let third = bench.client("3:phone", V4);
    third.connect();
    writer(&bench).write("2", "hello", AtLeastOnce);
    third.write("2", "hello", AtLeastOnce);
    let expected = [("2".into(), "1".into()), ("2".into(), "3".into())];
    assert_eq!(bench.send_pushes(), expected);
}

#[test]
fn who_has_no_token_is_not() {
    let bench = bench();
    bench
        .directory()
        .set_notification("2", NotificationToken::Absent);
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        writer(&bench).write("2", "hello", qos);
        expect_none(&bench);
    }
}

#[test]
fn everybody_is_where_no_token_is_needed() {
    let bench = Bench::with(|rules| rules.user.push.audience = PushAudience::Everybody);
    for token in [NotificationToken::Absent, NotificationToken::Unreadable] {
        bench.directory().set_notification("2", token);
        writer(&bench).write("2", "hello", AtLeastOnce);
        expect_push(&bench);
        bench.advance(COLLAPSE);
    }
}

#[test]
fn nothing_is_owed_where_nothing_can_be_sent() {
    for reach in [PushAudience::Off, PushAudience::NoService] {
        let bench = with_tokens(Bench::on_disk(|rules| rules.user.push.audience = reach));
        bench.disk().unwrap().at_once(true);
        writer(&bench).write("2", "hello", AtLeastOnce);
        writer(&bench).write("2", "hello", AtMostOnce);
        expect_none(&bench);
        assert_eq!(bench.disk().unwrap().pushes(), []);
    }
}

#[test]
fn what_is_refused_is_not_told() {
    let bench = bench();
    let writer = writer(&bench);
    bench.directory().forbid("1", "2");
    let id = writer.publish("/2/inbox", packets::message("1", "hello"), AtLeastOnce);
    writer.expect_refusal("friends", "not friends with the receiver", id);
    expect_none(&bench);
}

#[test]
fn own_messages_and_own_channels_are_not_told() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("1", "note to myself", AtLeastOnce);
    let id = writer.publish("/1/notes", "anything", AtLeastOnce);
    writer.expect_accepted(AtLeastOnce, id);
    writer.drop_connection();
    bench.advance(DEADLINE * 2);
    expect_none(&bench);
}

#[test]
fn a_will_is_a_message() {
    let bench = bench();
    let client = bench.client("1:phone", V5);
    client.connect_with(|connect| {
        let mut will = packets::will("/2/inbox", r#"{"from":"1","content":"bye"}"#);
        will.qos = AtLeastOnce;
        connect.will = Some(will);
    });
    client.drop_connection();
    expect_push(&bench);
}

// The collapse window.

#[test]
fn one_in_the_window_while_the_receiver_stays_away() {
    let bench = bench();
    let writer = writer(&bench);
    for qos in [AtLeastOnce, AtMostOnce, ExactlyOnce, AtLeastOnce] {
        writer.write("2", "hello", qos);
    }
    expect_push(&bench);
    bench.advance(COLLAPSE - SECOND);
    writer.write("2", "again", AtLeastOnce);
    expect_none(&bench);
    bench.advance(SECOND);
    expect_none(&bench);
    writer.write("2", "again", AtLeastOnce);
    expect_push(&bench);
}

#[test]
fn the_window_begins_when_the_push_has_gone_out() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "hello", AtLeastOnce);
    let push = bench.next_push().unwrap();
    bench.advance(COLLAPSE * 3);
    writer.write("2", "the service is slow", AtLeastOnce);
    assert_eq!(bench.next_push(), None);
    bench.settle_push(push, PushOutcome::Sent);
    bench.advance(COLLAPSE - SECOND);
    writer.write("2", "hello", AtLeastOnce);
    expect_none(&bench);
    bench.advance(SECOND);
    writer.write("2", "hello", AtLeastOnce);
    expect_push(&bench);
}

#[test]
fn who_came_and_went_is_told_anew() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "hello", AtLeastOnce);
    expect_push(&bench);
    let reader = reader(&bench);
    reader.read("1", "hello");
    reader.disconnect();
    reader.drop_connection();
    expect_none(&bench);
    writer.write("2", "hello again", AtLeastOnce);
    expect_push(&bench);
}

// The bucket: whatever the receiver does.

/// The phone that [`reader`] was comes, reads one message and goes.
fn come_read_and_go(bench: &Bench, text: &str) {
    let phone = bench.client("2:phone", V5);
    phone.connect_with(lasting);
    phone.read("1", text);
    phone.drop_connection();
}

/// With a writer, and the session of a phone that is away.
fn away() -> (Bench, Client) {
    let bench = bench();
    reader(&bench).drop_connection();
    let writer = writer(&bench);
    (bench, writer)
}

#[test]
fn a_phone_that_comes_and_goes_gets_three_at_once_and_then_one_in_each_window() {
    let (bench, writer) = away();
    let (mut pushes, mut at) = (0, Vec::new());
    for second in 0..100_u64 {
        let text = second.to_string();
        writer.write("2", &text, AtLeastOnce);
        let sent = bench.send_pushes().len();
        pushes += sent;
        at.extend((0..sent).map(|_| second));
        come_read_and_go(&bench, &text);
        bench.advance(SECOND);
    }
    assert_eq!(at, [0, 1, 2, 30, 60, 90], "{pushes}");
}

#[test]
fn who_came_and_went_is_told_of_the_last_message_when_there_is_a_token_again() {
    let (bench, writer) = away();
    for number in 0..3 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        expect_push(&bench);
        come_read_and_go(&bench, &number.to_string());
    }
    writer.write("2", "the last one", AtLeastOnce);
    for _ in 0..29 {
        assert_eq!(bench.next_push(), None);
        assert_eq!(bench.router().waiting_pushes(), 1);
        bench.advance(SECOND);
    }
    bench.advance(SECOND);
    expect_push(&bench);
    expect_none(&bench);
}

#[test]
fn a_push_that_waits_for_a_token_is_not_sent_to_who_has_come_and_read() {
    let (bench, writer) = away();
    for number in 0..3 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        expect_push(&bench);
        come_read_and_go(&bench, &number.to_string());
    }
    writer.write("2", "three", AtLeastOnce);
    assert_eq!(bench.next_push(), None);
    come_read_and_go(&bench, "three");
    bench.advance(COLLAPSE * 4);
    expect_none(&bench);
    assert_eq!(bench.router().remembered_pushes(), 0);
}

#[test]
fn a_phone_that_comes_and_goes_leaves_one_push_waiting() {
    let (bench, writer) = away();
    writer.write("2", "hello", AtLeastOnce);
    for _ in 0..100 {
        let reader = bench.client("2:phone", V5);
        reader.connect_with(lasting);
        reader.drop_connection();
        bench.advance(SECOND / 100);
    }
    assert_eq!(bench.router().waiting_pushes(), 1);
    expect_push(&bench);
    expect_none(&bench);
}

#[test]
fn pushes_on_their_way_while_the_receiver_comes_and_goes_take_their_tokens() {
    let (bench, writer) = away();
    let mut on_their_way = Vec::new();
    for number in 0..10 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        on_their_way.extend(bench.next_push());
        come_read_and_go(&bench, &number.to_string());
        bench.advance(SECOND / 10);
    }
    assert_eq!(on_their_way.len(), 3);
    for push in on_their_way {
        bench.settle_push(push, PushOutcome::Sent);
    }
    writer.write("2", "hello", AtLeastOnce);
    assert_eq!(bench.send_pushes(), []);
}

#[test]
fn a_push_that_was_not_sent_gives_its_token_back() {
    let (bench, writer) = away();
    writer.write("2", "hello", AtLeastOnce);
    for _ in 0..20 {
        let push = bench.next_push().unwrap();
        bench.settle_push(push, PushOutcome::Later(bench.now()));
        let push = bench.next_push().unwrap();
        bench.settle_push(push, PushOutcome::Deferred(bench.now()));
    }
    let push = bench.next_push().unwrap();
    assert_eq!(push.attempts(), 20, "what was not tried is no attempt");
    bench.settle_push(push, PushOutcome::Dropped);
    assert_eq!(bench.router().remembered_pushes(), 0);
    come_read_and_go(&bench, "hello");
    for number in 0..3 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        expect_push(&bench);
        come_read_and_go(&bench, &number.to_string());
    }
}

#[test]
fn the_newest_push_is_none_that_waits_for_another_to_its_receiver() {
    let (bench, writer) = away();
    bench.directory().befriend("1", "3");
    writer.write("2", "hello", AtLeastOnce);
    let push = bench.next_push().unwrap();
    bench.settle_push(push, PushOutcome::Deferred(bench.now() + SECOND));
    writer.write("3", "hello", AtLeastOnce);
    bench.advance(SECOND);
    let newest = || bench.next_push_in(PushOrder::NewestFirst).unwrap();
    assert_eq!(newest().receiver().as_str(), "3");
    assert_eq!(newest().receiver().as_str(), "2");
}

#[test]
fn each_sender_has_a_bucket_of_its_own() {
    let (bench, writer) = away();
    bench.directory().befriend("2", "3");
    let third = bench.client("3:phone", V4);
    third.connect();
    for number in 0..5 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        let _ = bench.send_pushes();
        come_read_and_go(&bench, &number.to_string());
    }
    third.write("2", "hello", AtLeastOnce);
    assert_eq!(bench.send_pushes(), [("2".into(), "3".into())]);
}

#[test]
fn a_push_that_was_sent_before_a_crash_counts_after_it() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    reader(&bench).drop_connection();
    writer(&bench).write("2", "hello", AtLeastOnce);
    expect_push(&bench);
    bench.crash();
    bench.disk().unwrap().at_once(true);
    let writer = writer(&bench);
    let mut pushes = 0;
    come_read_and_go(&bench, "hello");
    for number in 0..5 {
        writer.write("2", &number.to_string(), AtLeastOnce);
        pushes += bench.send_pushes().len();
        come_read_and_go(&bench, &number.to_string());
    }
    assert_eq!(pushes, 2);
}

// What has expired is not told.

fn write_expiring(writer: &Client, qos: QoS, secs: u32) {
    let payload = packets::message("1", "short-lived");
    let id = writer.publish_with("/2/inbox", payload, qos, |publish| {
        let properties = publish.properties.get_or_insert_default();
        properties.message_expiry_secs = Some(secs);
    });
    writer.expect_accepted(qos, id);
}

#[test]
fn an_expired_message_is_not_told() {
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let bench = with_tokens(Bench::on_disk(served));
        bench.disk().unwrap().at_once(true);
        let writer = writer(&bench);
        write_expiring(&writer, qos, 3);
        // The service does not answer until it is too late.
        let push = bench.next_push().unwrap();
        bench.settle_push(push, PushOutcome::Later(bench.now() + SECOND));
        bench.advance(SECOND);
        let push = bench.next_push().unwrap();
        bench.settle_push(push, PushOutcome::Later(bench.now() + SECOND * 4));
        bench.advance(SECOND * 4);
        expect_none(&bench);
        assert_eq!(bench.disk().unwrap().pushes(), []);
        // The next one is.
        writer.write("2", "hello", qos);
        expect_push(&bench);
    }
}

#[test]
fn a_message_that_expires_before_its_deadline_is_not_told() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let (writer, _silent) = (writer(&bench), reader(&bench));
        write_expiring(&writer, qos, 5);
        bench.advance(DEADLINE * 2);
        expect_none(&bench);
    }
}

#[test]
fn a_message_that_expired_while_the_server_was_down_is_not_told() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    write_expiring(&writer(&bench), AtLeastOnce, 1);
    bench.pass(SECOND * 2);
    bench.crash();
    bench.disk().unwrap().at_once(true);
    expect_none(&bench);
    assert_eq!(bench.disk().unwrap().pushes(), []);
}

#[test]
fn what_is_not_kept_is_not_told_after_a_restart_when_it_has_expired() {
    for (secs, then, told) in [
        (vec![2], 3, false),
        (vec![9], 3, true),
        (vec![2, 9], 3, true),
    ] {
        let bench = with_tokens(Bench::on_disk(served));
        bench.disk().unwrap().at_once(true);
        let writer = writer(&bench);
        for secs in secs {
            write_expiring(&writer, AtMostOnce, secs);
        }
        bench.crash();
        bench.disk().unwrap().at_once(true);
        bench.pass(SECOND * then);
        if told {
            expect_push(&bench);
        } else {
            expect_none(&bench);
            assert_eq!(bench.disk().unwrap().pushes(), []);
        }
    }
}

#[test]
fn nobody_is_told_of_what_waits_for_an_account_that_is_gone() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    writer(&bench).write("2", "hello", AtLeastOnce);
    let life = bench.directory().life_of("2");
    bench.directory().set_life("2", life + 1);
    bench.recheck_that(true);
    bench.pass(SECOND * 300);
    assert_eq!(bench.send_pushes(), []);
    bench.directory().set_life("2", life);
    bench.recheck();
    bench.pass(SECOND * 60);
    expect_push(&bench);
}

#[test]
fn another_that_has_not_expired_is_told() {
    let bench = bench();
    let writer = writer(&bench);
    write_expiring(&writer, AtLeastOnce, 2);
    writer.write("2", "for longer", AtLeastOnce);
    bench.advance(SECOND * 3);
    expect_push(&bench);
}

#[test]
fn of_what_is_not_kept_the_last_to_expire_counts() {
    let bench = bench();
    let writer = writer(&bench);
    write_expiring(&writer, AtMostOnce, 2);
    write_expiring(&writer, AtMostOnce, 6);
    let push = bench.next_push().unwrap();
    bench.settle_push(push, PushOutcome::Later(bench.now() + SECOND * 4));
    bench.advance(SECOND * 4);
    let push = bench.next_push().unwrap();
    bench.settle_push(push, PushOutcome::Later(bench.now() + SECOND * 4));
    bench.advance(SECOND * 4);
    expect_none(&bench);
}

#[test]
fn what_is_older_than_the_mailbox_keeps_is_not_told() {
    let bench = with_tokens(Bench::with(|rules| {
        served(rules);
        rules.user.max_age = SECOND * 3;
    }));
    writer(&bench).write("2", "hello", AtLeastOnce);
    bench.advance(SECOND * 5);
    expect_none(&bench);
}

// Connected, but silent.

#[test]
fn a_device_that_acknowledges_in_time_is_not_pushed() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let (writer, reader) = (writer(&bench), reader(&bench));
        writer.write("2", "hello", qos);
        bench.advance(DEADLINE - SECOND);
        let publish = reader.expect_message("1", "hello");
        reader.acknowledge(&publish);
        bench.advance(DEADLINE * 3);
        expect_none(&bench);
    }
}

#[test]
fn a_device_that_does_not_is_once() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let bench = bench();
        let (writer, _reader) = (writer(&bench), reader(&bench));
        writer.write("2", "hello", qos);
        bench.advance(DEADLINE - SECOND);
        expect_none(&bench);
        bench.advance(SECOND);
        expect_push(&bench);
        bench.advance(DEADLINE * 9);
        expect_none(&bench);
    }
}

#[test]
fn the_deadline_is_that_of_the_first_message_not_acknowledged() {
    let bench = bench();
    let (writer, reader) = (writer(&bench), reader(&bench));
    for second in 0..8 {
        writer.write("2", &second.to_string(), AtLeastOnce);
        bench.advance(SECOND);
    }
    for second in 0..3 {
        reader.read("1", &second.to_string());
    }
    // It is 8 now; what came at 3 is due at 13.
    bench.advance(SECOND * 4);
    expect_none(&bench);
    bench.advance(SECOND);
    expect_push(&bench);
    bench.advance(DEADLINE * 9);
    expect_none(&bench);
}

#[test]
fn a_stream_to_a_silent_device_is_told_of_once_in_the_window() {
    let bench = bench();
    let (writer, _reader) = (writer(&bench), reader(&bench));
    let mut pushes = 0;
    for _ in 0..90 {
        writer.write("2", "hello", AtLeastOnce);
        bench.advance(SECOND);
        pushes += bench.send_pushes().len();
    }
    // At 10, at 40 and at 70.
    assert_eq!(pushes, 3);
}

#[test]
fn a_device_that_woke_up_is_pushed_again_when_it_falls_silent() {
    let bench = bench();
    let (writer, reader) = (writer(&bench), reader(&bench));
    writer.write("2", "one", AtLeastOnce);
    bench.advance(DEADLINE);
    expect_push(&bench);
    reader.read("1", "one");
    writer.write("2", "two", AtLeastOnce);
    bench.advance(DEADLINE);
    expect_push(&bench);
}

#[test]
fn a_device_that_takes_qos_0_cannot_be_silent() {
    let bench = bench();
    let writer = writer(&bench);
    let reader = bench.client("2:phone", V4);
    reader.connect();
    reader.subscribe("/2/inbox", AtMostOnce);
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        writer.write("2", "hello", qos);
        reader.expect_message("1", "hello");
    }
    bench.advance(DEADLINE * 2);
    expect_none(&bench);
}

#[test]
fn a_device_that_does_not_subscribe_is_silent() {
    let bench = bench();
    let writer = writer(&bench);
    bench.client("2:phone", V4).connect();
    writer.write("2", "hello", AtLeastOnce);
    expect_none(&bench);
    bench.advance(DEADLINE);
    expect_push(&bench);
}

#[test]
fn one_device_of_several_is_enough() {
    let bench = with_tokens(Bench::with(|rules| {
        served(rules);
        rules.user.many_devices = true;
    }));
    let (writer, phone) = (writer(&bench), reader(&bench));
    let tablet = bench.at_inbox("2:tablet", V5);
    writer.write("2", "hello", AtLeastOnce);
    tablet.read("1", "hello");
    bench.advance(DEADLINE * 2);
    phone.drop_connection();
    expect_none(&bench);
    writer.write("2", "hello", AtLeastOnce);
    bench.advance(SECOND);
    expect_none(&bench);
    bench.advance(DEADLINE);
    expect_push(&bench);
}

/// With a deadline that is longer than the window.
#[test]
fn a_push_tells_of_everything_that_is_there() {
    let bench = with_tokens(Bench::with(|rules| {
        served(rules);
        (rules.user.push.deadline, rules.user.push.collapse) = (SECOND * 40, SECOND * 10);
    }));
    let (writer, _silent) = (writer(&bench), reader(&bench));
    for text in ["one", "two", "three"] {
        writer.write("2", text, AtLeastOnce);
        bench.advance(SECOND * 7);
    }
    bench.advance(SECOND * 19);
    expect_push(&bench);
    bench.advance(SECOND * 100);
    expect_none(&bench);
}

// The connection ends.

#[test]
fn who_leaves_a_message_unacknowledged_is_told_at_once() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for polite in [false, true] {
            let bench = bench();
            let (writer, reader) = (writer(&bench), reader(&bench));
            writer.write("2", "hello", qos);
            bench.advance(SECOND);
            if polite {
                reader.disconnect();
            }
            reader.drop_connection();
            expect_push(&bench);
            bench.advance(DEADLINE * 2);
            expect_none(&bench);
        }
    }
}

#[test]
fn also_of_a_message_that_is_in_its_grace() {
    for session in [true, false] {
        let bench = bench();
        let writer = writer(&bench);
        let reader = bench.client("2:phone", V5);
        reader.connect_with(|connect| {
            if session {
                lasting(connect);
            }
        });
        reader.subscribe_inbox();
        bench.be_graceful();
        let id = writer.publish("/2/inbox", packets::message("1", "hello"), AtLeastOnce);
        reader.drop_connection();
        bench.pass(SECOND);
        writer.expect_accepted(AtLeastOnce, id);
        expect_push(&bench);
    }
}

#[test]
fn who_has_acknowledged_everything_leaves_in_peace() {
    let bench = bench();
    let (writer, reader) = (writer(&bench), reader(&bench));
    writer.write("2", "hello", AtLeastOnce);
    reader.read("1", "hello");
    reader.drop_connection();
    bench.advance(DEADLINE * 2);
    expect_none(&bench);
}

#[test]
fn the_same_client_that_connects_again_has_the_rest_of_the_deadline() {
    let bench = bench();
    let (writer, reader) = (writer(&bench), reader(&bench));
    writer.write("2", "hello", AtLeastOnce);
    bench.advance(DEADLINE / 2);
    let again = bench.client("2:phone", V5);
    again.connect_with(lasting);
    assert!(reader.is_closed());
    bench.advance(DEADLINE / 2 - SECOND);
    expect_none(&bench);
    let publish = again.expect_again("1", "hello");
    again.acknowledge(&publish);
    bench.advance(DEADLINE * 2);
    expect_none(&bench);
}

/// What a phone that came and went has left in its bucket says nothing of what the store knows.
#[test]
fn a_message_whose_deadline_runs_is_owed_a_push_after_a_crash_though_others_were_sent() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    reader(&bench).drop_connection();
    let writer = writer(&bench);
    for text in ["one", "two"] {
        writer.write("2", text, AtLeastOnce);
        expect_push(&bench);
        come_read_and_go(&bench, text);
    }
    let reader = bench.client("2:phone", V5);
    reader.connect_with(lasting);
    writer.write("2", "three", AtLeastOnce);
    reader.expect_message("1", "three");
    bench.let_time_pass(SECOND);
    bench.crash();
    expect_push(&bench);
}

#[test]
fn a_stop_of_the_server_leaves_pushes_owed() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    let (writer, reader) = (writer(&bench), reader(&bench));
    writer.write("2", "hello", AtLeastOnce);
    reader.expect_message("1", "hello");
    bench.shut_down();
    bench.crash();
    expect_push(&bench);
}

// What is due is looked at once more before it goes out.

#[test]
fn who_comes_before_the_push_has_gone_out_has_a_deadline_again() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "one", AtLeastOnce);
    let reader = reader(&bench);
    expect_none(&bench);
    reader.read("1", "one");
    bench.advance(DEADLINE * 2);
    expect_none(&bench);
    writer.write("2", "two", AtLeastOnce);
    bench.advance(DEADLINE);
    assert!(reader.is_open());
    expect_push(&bench);
}

/// What is not kept is not there for who comes: only the push tells of it.
#[test]
fn who_comes_before_the_push_of_what_is_not_kept_is_told_all_the_same() {
    let bench = bench();
    writer(&bench).write("2", "one", AtMostOnce);
    let _reader = reader(&bench);
    expect_push(&bench);
}

/// Of what is not kept a push stays owed when the receiver comes.
#[test]
fn a_push_that_is_on_its_way_is_not_owed_anew_when_a_deadline_ends() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "one", AtMostOnce);
    let push = bench.next_push().unwrap();
    let _silent = reader(&bench);
    writer.write("2", "two", AtLeastOnce);
    bench.advance(DEADLINE);
    assert_eq!(bench.next_push(), None);
    bench.settle_push(push, PushOutcome::Sent);
    expect_none(&bench);
}

#[test]
fn who_comes_before_the_push_and_stays_silent_is_told_after_the_deadline() {
    let bench = bench();
    writer(&bench).write("2", "one", AtLeastOnce);
    let _reader = reader(&bench);
    bench.advance(DEADLINE - SECOND);
    expect_none(&bench);
    bench.advance(SECOND);
    expect_push(&bench);
}

#[test]
fn what_is_gone_is_not_told() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "hello", AtLeastOnce);
    let user = jam_core::ids::UserId::parse("2").unwrap();
    bench.router().purge(&user, u64::MAX, None);
    expect_none(&bench);
    // Nothing is remembered of it either.
    writer.write("2", "hello", AtLeastOnce);
    expect_push(&bench);
}

#[track_caller]
fn expect_not_kept<const N: usize>(writer: &Client, ids: [Option<u16>; N]) {
    for id in ids {
        let text = "the server cannot keep messages at the moment";
        writer.expect_refusal("mailbox", text, id);
    }
    for id in ids {
        writer.expect_answered(AtLeastOnce, id, ReasonCode::ImplementationSpecificError);
    }
}

#[test]
fn what_cannot_be_kept_is_not_told() {
    let bench = with_tokens(Bench::on_disk(served));
    let disk = bench.disk().unwrap();
    let writer = writer(&bench);
    disk.flush();
    bench.run();
    let id = writer.publish("/2/inbox", packets::message("1", "hello"), AtLeastOnce);
    assert_eq!(bench.next_push(), None);
    disk.fail();
    bench.run();
    expect_not_kept(&writer, [id]);
    disk.at_once(true);
    bench.run();
    expect_none(&bench);
    assert_eq!(disk.pushes(), []);
    writer.write("2", "hello", AtLeastOnce);
    expect_push(&bench);
}

#[test]
fn what_is_kept_is_told_not_before() {
    let bench = with_tokens(Bench::on_disk(served));
    let disk = bench.disk().unwrap();
    let writer = writer(&bench);
    disk.flush();
    bench.run();
    let id = writer.publish("/2/inbox", packets::message("1", "hello"), AtLeastOnce);
    disk.commit(usize::MAX);
    assert_eq!(bench.next_push(), None);
    disk.flush();
    bench.run();
    writer.expect_accepted(AtLeastOnce, id);
    expect_push(&bench);
}

/// The receiver has come and gone since the first push was due, which nobody has taken yet.
#[test]
fn what_is_kept_is_told_not_before_also_if_an_older_push_waits() {
    let bench = with_tokens(Bench::on_disk(served));
    let disk = bench.disk().unwrap();
    disk.at_once(true);
    reader(&bench).drop_connection();
    let writer = writer(&bench);
    writer.write("2", "one", AtLeastOnce);
    come_read_and_go(&bench, "one");
    bench.advance(SECOND);
    disk.at_once(false);
    writer.publish("/2/inbox", packets::message("1", "two"), AtLeastOnce);
    assert_eq!(bench.next_push(), None);
    disk.flush();
    bench.run();
    expect_push(&bench);
    expect_none(&bench);
}

/// Two that came together, of which the store has kept the second only.
#[test]
fn a_message_that_is_refused_leaves_the_deadline_of_another() {
    let bench = with_tokens(Bench::on_disk(served));
    let disk = bench.disk().unwrap();
    disk.at_once(true);
    let (writer, _silent) = (writer(&bench), reader(&bench));
    disk.at_once(false);
    writer.publish("/2/inbox", packets::message("1", "one"), AtLeastOnce);
    writer.publish("/2/inbox", packets::message("1", "two"), AtLeastOnce);
    assert_eq!(disk.waiting(), 2);
    disk.commit(1);
    disk.fail();
    disk.at_once(true);
    bench.advance(DEADLINE);
    expect_push(&bench);
}

/// The first is in its grace when the receiver goes; the second, which nobody is there to take, has it stored too.
#[test]
fn a_push_is_not_lost_with_messages_that_are_refused() {
    for kept in 0..3 {
        let bench = with_tokens(Bench::on_disk(served));
        let disk = bench.disk().unwrap();
        disk.at_once(true);
        let (writer, reader) = (writer(&bench), reader(&bench));
        bench.be_graceful();
        disk.at_once(false);
        let publish = |text| {
            let message = packets::message("1", text);
            writer.publish("/2/inbox", message, AtLeastOnce)
        };
        let one = publish("one");
        reader.drop_connection();
        disk.flush(); // that the reader is away
        let ids = [one, publish("two"), publish("three")];
        assert_eq!(disk.waiting(), 3);
        disk.commit(kept);
        disk.fail();
        disk.at_once(true);
        bench.run();
        if kept == 0 {
            expect_not_kept(&writer, ids);
            expect_none(&bench);
            writer.write("2", "four", AtLeastOnce);
        }
        expect_push(&bench);
        // Nothing is left of those that are gone, for which the next push would wait when the receiver comes and goes.
        let come_and_go = || {
            let phone = bench.client("2:phone", V5);
            phone.connect_with(lasting);
            phone.drop_connection();
            bench.advance(SECOND);
        };
        come_and_go();
        crate::writer(&bench).write("2", "five", AtLeastOnce);
        bench.advance(SECOND);
        come_and_go();
        expect_push(&bench);
    }
}

/// A push is owed for two messages, which wait for the store: the first was in its grace when the receiver went, the
/// second has it stored too.
fn two_that_wait_for_the_store() -> (Bench, Client) {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().expect("a disk").at_once(true);
    let (writer, reader) = (writer(&bench), reader(&bench));
    publish_two_and_go(&bench, &writer, &reader);
    (bench, writer)
}

fn publish_two_and_go(bench: &Bench, writer: &Client, reader: &Client) {
    let disk = bench.disk().expect("a disk");
    bench.be_graceful();
    disk.at_once(false);
    let publish = |text| writer.publish("/2/inbox", packets::message("1", text), AtLeastOnce);
    publish("one");
    reader.drop_connection();
    disk.flush(); // that the reader is away
    publish("two");
    assert_eq!(disk.waiting(), 2);
}

/// The store has the next message, and says so.
fn keep_one(bench: &Bench) {
    let disk = bench.disk().expect("a disk");
    while disk.unanswered() == 0 {
        assert!(disk.waiting() > 0, "no message waits");
        disk.commit(1);
    }
    disk.answer(0);
    bench.run();
}

#[test]
fn two_messages_that_are_kept_one_after_the_other_are_told_of_once() {
    let later = |bench: &Bench| bench.now() + SECOND;
    for outcome in 0..4 {
        let (bench, _writer) = two_that_wait_for_the_store();
        keep_one(&bench);
        let push = bench.next_push().unwrap();
        keep_one(&bench);
        assert_eq!(bench.next_push(), None, "the first try is under way");
        let (outcome, is_tried_again) = match outcome {
            0 => (PushOutcome::Sent, false),
            1 => (PushOutcome::Dropped, false),
            2 => (PushOutcome::Later(later(&bench)), true),
            _ => (PushOutcome::Deferred(later(&bench)), true),
        };
        bench.settle_push(push, outcome);
        bench.disk().unwrap().at_once(true);
        bench.advance(SECOND);
        if is_tried_again {
            expect_push(&bench);
        }
        expect_none(&bench);
        bench.advance(COLLAPSE * 2);
        expect_none(&bench);
        assert_eq!(bench.disk().unwrap().pushes(), []);
    }
}

/// With the store as it is when the first message, or both, are kept and nobody has said what came of the push.
#[test]
fn a_push_that_is_under_way_for_one_of_two_messages_survives_a_crash() {
    for kept in 1..=2 {
        let (bench, _writer) = two_that_wait_for_the_store();
        keep_one(&bench);
        assert!(bench.next_push().is_some());
        bench.disk().unwrap().commit(kept - 1);
        bench.crash();
        bench.disk().unwrap().at_once(true);
        expect_push(&bench);
        expect_none(&bench);
        bench.crash();
        bench.disk().unwrap().at_once(true);
        expect_none(&bench);
    }
}

/// The phone comes and goes before the store has the message: what is owed since then goes out once.
#[test]
fn a_message_that_is_kept_after_its_receiver_came_and_went_is_told_of_once() {
    let (bench, _writer) = two_that_wait_for_the_store();
    let phone = bench.client("2:phone", V5);
    phone.connect_with(lasting);
    phone.drop_connection();
    let mut pushes: Vec<_> = bench.next_push().into_iter().collect();
    for _ in 0..2 {
        keep_one(&bench);
        pushes.extend(bench.next_push());
    }
    assert_eq!(pushes.len(), 1);
    let failed = pushes.pop().unwrap();
    bench.settle_push(failed, PushOutcome::Later(bench.now()));
    expect_push(&bench);
    expect_none(&bench);
}

/// An older push of the pair waits, and the second message is refused when the first is kept.
#[test]
fn a_push_is_not_lost_with_the_second_of_two_messages_if_an_older_push_waits() {
    let bench = with_tokens(Bench::on_disk(served));
    let disk = bench.disk().unwrap();
    disk.at_once(true);
    reader(&bench).drop_connection();
    let writer = writer(&bench);
    writer.write("2", "zero", AtLeastOnce);
    come_read_and_go(&bench, "zero");
    bench.advance(SECOND);
    let phone = bench.client("2:phone", V5);
    phone.connect_with(lasting);
    publish_two_and_go(&bench, &writer, &phone);
    keep_one(&bench);
    let push = bench.next_push();
    disk.fail();
    disk.at_once(true);
    bench.run();
    assert!(push.is_some() || bench.next_push().is_some(), "it is lost");
}

/// Nothing is left of what the push is about; what comes then is told of by it.
#[test]
fn a_push_that_is_under_way_stays_the_only_one_when_its_messages_are_gone() {
    let (bench, writer) = two_that_wait_for_the_store();
    keep_one(&bench);
    let push = bench.next_push().unwrap();
    let user = jam_core::ids::UserId::parse("2").unwrap();
    let first = bench.router().view(&user).and_then(|it| it.mailbox.oldest);
    assert_eq!(bench.router().purge(&user, first.unwrap(), None), 1);
    bench.disk().unwrap().fail();
    bench.disk().unwrap().at_once(true);
    bench.run();
    bench.advance(SECOND);
    writer.publish("/2/inbox", packets::message("1", "three"), AtLeastOnce);
    bench.advance(SECOND);
    assert_eq!(bench.next_push(), None, "one is under way");
    bench.settle_push(push, PushOutcome::Later(bench.now()));
    expect_push(&bench);
    expect_none(&bench);
}

/// What failed comes back when the receiver has come and gone, and another push is under way.
#[test]
fn a_try_that_ends_late_takes_nothing_from_the_push_that_is_owed_by_then() {
    for outcome in [PushOutcome::Sent, PushOutcome::Dropped] {
        let (bench, writer) = away();
        writer.write("2", "one", AtLeastOnce);
        let late = bench.next_push().unwrap();
        bench.advance(SECOND);
        come_read_and_go(&bench, "one");
        writer.write("2", "two", AtLeastOnce);
        let push = bench.next_push().unwrap();
        bench.advance(SECOND);
        bench.settle_push(late, outcome);
        assert_eq!(bench.next_push(), None, "one is under way");
        bench.settle_push(push, PushOutcome::Later(bench.now()));
        expect_push(&bench);
        expect_none(&bench);
    }
}

// What comes of a push.

#[test]
fn what_failed_is_tried_again_when_it_is_time() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "hello", AtLeastOnce);
    for attempts in 0..3 {
        let push = bench.next_push().unwrap();
        assert_eq!(push.attempts(), attempts);
        let later = bench.now() + SECOND * 5;
        bench.settle_push(push, PushOutcome::Later(later));
        assert_eq!(bench.router().waiting_pushes(), 1);
        bench.advance(SECOND * 4);
        writer.write("2", "hello", AtLeastOnce);
        assert_eq!(bench.next_push(), None);
        bench.advance(SECOND);
    }
    expect_push(&bench);
    expect_none(&bench);
}

#[test]
fn what_failed_is_not_tried_again_for_who_has_read_it() {
    let bench = bench();
    writer(&bench).write("2", "hello", AtLeastOnce);
    let push = bench.next_push().unwrap();
    let reader = reader(&bench);
    reader.read("1", "hello");
    bench.settle_push(push, PushOutcome::Later(bench.now()));
    expect_none(&bench);
    bench.advance(DEADLINE * 2);
    expect_none(&bench);
}

#[test]
fn the_oldest_goes_first() {
    let bench = bench();
    bench.directory().befriend("1", "3");
    let writer = writer(&bench);
    writer.write("3", "hello", AtLeastOnce);
    bench.advance(SECOND);
    writer.write("2", "hello", AtLeastOnce);
    let expected = [("3".into(), "1".into()), ("2".into(), "1".into())];
    assert_eq!(bench.send_pushes(), expected);
}

#[test]
fn what_is_dropped_has_no_window() {
    let bench = bench();
    let writer = writer(&bench);
    writer.write("2", "hello", AtLeastOnce);
    let push = bench.next_push().unwrap();
    bench.settle_push(push, PushOutcome::Dropped);
    expect_none(&bench);
    writer.write("2", "hello", AtLeastOnce);
    expect_push(&bench);
}

// A crash.

#[test]
fn what_is_owed_survives_a_crash() {
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let bench = with_tokens(Bench::on_disk(served));
        bench.disk().unwrap().at_once(true);
        writer(&bench).write("2", "hello", qos);
        // Somebody has begun to send it.
        assert!(bench.next_push().is_some());
        bench.crash();
        bench.disk().unwrap().at_once(true);
        expect_push(&bench);
        bench.crash();
        bench.disk().unwrap().at_once(true);
        expect_none(&bench);
        writer(&bench).write("2", "hello", AtLeastOnce);
        expect_none(&bench);
        bench.advance(COLLAPSE);
        writer(&bench).write("2", "hello", AtLeastOnce);
        expect_push(&bench);
    }
}

#[test]
fn a_crash_ends_the_connection_of_a_silent_device() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    let (writer, reader) = (writer(&bench), reader(&bench));
    writer.write("2", "one", AtLeastOnce);
    reader.read("1", "one");
    writer.write("2", "two", AtLeastOnce);
    bench.crash();
    bench.disk().unwrap().at_once(true);
    expect_push(&bench);
}

#[test]
fn what_was_acknowledged_before_a_crash_is_not_told_after_it() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    let (writer, reader) = (writer(&bench), reader(&bench));
    writer.write("2", "hello", AtLeastOnce);
    reader.read("1", "hello");
    bench.crash();
    bench.disk().unwrap().at_once(true);
    expect_none(&bench);
    assert_eq!(bench.disk().unwrap().pushes(), []);
}

#[test]
fn the_push_is_kept_together_with_its_message() {
    let bench = with_tokens(Bench::on_disk(served));
    let disk = bench.disk().unwrap();
    let writer = writer(&bench);
    disk.flush();
    bench.run();
    writer.publish("/2/inbox", packets::message("1", "hello"), AtLeastOnce);
    disk.commit(1);
    assert_eq!((disk.kept(), disk.pushes().len()), (1, 1));
}

// Bounds.

#[test]
fn nothing_is_left_when_all_is_quiet() {
    let bench = with_tokens(Bench::on_disk(served));
    bench.disk().unwrap().at_once(true);
    let writer = writer(&bench);
    writer.write("2", "one", AtLeastOnce);
    expect_push(&bench);
    let reader = reader(&bench);
    writer.write("2", "two", AtLeastOnce);
    bench.advance(SECOND);
    reader.read("1", "one");
    reader.read("1", "two");
    writer.write("2", "three", AtMostOnce);
    reader.drop_connection();
    bench.advance(COLLAPSE * 2);
    let _ = bench.send_pushes();
    bench.advance(COLLAPSE * 2);
    assert_eq!(bench.disk().unwrap().pushes(), []);
    assert_eq!(bench.router().remembered_pushes(), 0);
}

#[test]
fn there_is_a_bound_to_what_is_owed() {
    let bench = Bench::with(|rules| {
        rules.user.push.audience = PushAudience::Everybody;
        rules.failed_auth = u32::MAX;
    });
    let writer = writer(&bench);
    for number in 0..=MAX_PUSHES {
        let user = format!("u{number}");
        bench.directory().allow("1", &user);
        writer.write(&user, "hello", AtMostOnce);
    }
    assert!(bench.router().pushes_are_full());
    assert_eq!(bench.router().waiting_pushes(), MAX_PUSHES);
    // There is room again, and the messages have come through all the while.
    let push = bench.next_push().unwrap();
    bench.settle_push(push, PushOutcome::Dropped);
    assert!(!bench.router().pushes_are_full());
}
