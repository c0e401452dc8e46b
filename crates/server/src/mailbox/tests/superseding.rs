//! What later calls make superfluous, without a file.

use std::sync::mpsc::{Receiver, sync_channel};

use jam_core::store::{Completion, OutboundState, Write};

use super::setting::{Outcome, Told, append, id, record, retain_of, subscription, user, will};
use crate::mailbox::kept::{Kept, PacketKey};
use crate::mailbox::pending::Pending;

/// Pushes calls, numbered from 1; what is left to write, the answers that are due, those that wait.
fn push(kept: &Kept, calls: Vec<Vec<Write>>) -> (Vec<String>, Vec<u64>, Vec<u64>) {
    let (to, from) = sync_channel(100);
    let mut pending = Pending::default();
    for (call, number) in calls.into_iter().zip(1..) {
        let answer = Told(to.clone(), number);
        pending.push(kept, 0, call.into_iter().collect(), Some(answer));
    }
    let left: Vec<String> = pending
        .ops
        .iter()
        .filter_map(|op| op.write.as_ref().map(name))
        .collect();
    assert_eq!(pending.is_idle(), left.is_empty());
    let early = pending.take_early();
    early.into_iter().for_each(Told::committed);
    let due = numbers(&from);
    for call in pending.take_calls() {
        call.completion.into_iter().for_each(Told::committed);
    }
    (left, due, numbers(&from))
}

fn numbers(from: &Receiver<Outcome>) -> Vec<u64> {
    from.try_iter().map(|(number, _)| number).collect()
}

fn name(write: &Write) -> String {
    match write {
        Write::Append(append) => format!("append {} for {}", append.seq, append.waits_for),
        Write::Retain(append) => format!("retain {}", append.seq),
        Write::Session(record) => format!("session {} in slot {}", record.id, record.slot),
        Write::Received(_, session, id) => format!("Received({session}, {id})"),
        other => format!("{other:?}"),
    }
}

#[test]
fn an_append_that_is_removed_is_answered_without_a_write() {
    let calls = vec![vec![append(1)], vec![append(2)], vec![Write::Remove(1)]];
    let (left, due, wait) = push(&Kept::default(), calls);
    assert_eq!(left, ["append 2 for 1"]);
    assert_eq!((due, wait), (vec![1], vec![2, 3]));
}

#[test]
fn an_append_that_belongs_to_more_waits_for_the_commit() {
    let received = Write::Received(user("7"), 9, id(4));
    let mut kept = Kept::default();
    kept.session(9);
    let calls = vec![vec![append(1), received], vec![Write::Remove(1)]];
    let (left, due, wait) = push(&kept, calls);
    assert_eq!(left, ["Received(9, 4)"]);
    assert_eq!((due, wait), (vec![], vec![1, 2]));
}

/// A receipt says that the message has arrived: its publisher is not told before that is kept.
#[test]
fn an_append_that_another_call_stands_for_waits_for_that() {
    let receipt = vec![Write::AnswerAfter(user("1"), 1), append(2)];
    let (left, due, wait) = push(
        &Kept::default(),
        vec![vec![append(1)], receipt.clone(), vec![Write::Remove(1)]],
    );
    assert_eq!(left, ["append 2 for 1"]);
    assert_eq!((due, wait), (vec![], vec![1, 2, 3]));
    // Of a message that is not here any more, there is nobody to answer.
    let (left, due, wait) = push(&Kept::default(), vec![receipt, vec![Write::Remove(1)]]);
    assert_eq!(left, ["append 2 for 1", "Remove(1)"]);
    assert_eq!((due, wait), (vec![], vec![1, 2]));
}

#[test]
fn an_acknowledgement_changes_the_append() {
    let acknowledged = Write::Acknowledged {
        seq: 1,
        waits_for: 6,
    };
    let (left, ..) = push(&Kept::default(), vec![vec![append(1)], vec![acknowledged]]);
    assert_eq!(left, ["append 1 for 6"]);
}

#[test]
fn nothing_comes_back_after_it_was_removed() {
    let acknowledged = Write::Acknowledged {
        seq: 1,
        waits_for: 6,
    };
    let (left, ..) = push(
        &Kept::default(),
        vec![vec![Write::Remove(1)], vec![acknowledged]],
    );
    assert_eq!(left, ["Remove(1)"]);
}

#[test]
fn a_packet_id_that_is_free_again_needs_no_write_unless_it_is_in_the_file() {
    let flight = || vec![Write::InFlight(9, id(4), OutboundState::AwaitsPubAck(1))];
    let ended = || vec![Write::EndInFlight(9, id(4))];
    let mut kept = Kept::default();
    assert!(push(&kept, vec![flight(), ended()]).0.is_empty());
    assert!(push(&kept, vec![ended()]).0.is_empty());
    let mut written = Pending::<Told>::default();
    written.push(&kept, 0, flight().into_iter().collect(), None);
    written.note(&mut kept);
    assert_eq!(
        push(&kept, vec![flight(), ended()]).0,
        ["EndInFlight(9, 4)"]
    );
    assert_eq!(push(&kept, vec![ended(), flight()]).0.len(), 1);
}

#[test]
fn the_last_record_of_a_session_counts_and_its_end_drops_it() {
    let session = |slot| {
        let mut record = record(9);
        record.slot = slot;
        vec![Write::Session(record)]
    };
    let flight = || vec![Write::InFlight(9, id(4), OutboundState::AwaitsPubAck(1))];
    let end = || vec![Write::EndSession(9)];
    let mut kept = Kept::default();
    assert_eq!(
        push(&kept, vec![session(1), session(2)]).0,
        ["session 9 in slot 2"]
    );
    assert!(push(&kept, vec![session(1), flight(), end()]).0.is_empty());
    kept.session(9);
    assert_eq!(
        push(&kept, vec![session(1), flight(), end()]).0,
        ["EndSession(9)"]
    );
}

/// What it leaves is not looked for among too many: then it is written, and deleted.
#[test]
fn the_end_of_a_session_is_written_when_much_waits() {
    let flight = Write::InFlight(9, id(4), OutboundState::AwaitsPubAck(1));
    let session = vec![Write::Session(record(9)), flight];
    let much = (1..2000).map(append).collect();
    let end = vec![Write::EndSession(9)];
    let (left, ..) = push(&Kept::default(), vec![session, much, end]);
    assert_eq!(left[0], "InFlight(9, 4, AwaitsPubAck(1))");
    assert_eq!(left.last().unwrap(), "EndSession(9)");
}

#[test]
fn a_refused_call_takes_nothing_of_earlier_calls_with_it() {
    // The id is released and used again for a message that cannot be kept.
    let mut kept = Kept::default();
    let (to, from) = sync_channel(100);
    let mut pending = Pending::default();
    let calls = [
        vec![Write::Received(user("7"), 9, id(4))],
        vec![Write::Released(9, id(4))],
        vec![append(5), Write::Received(user("7"), 9, id(4))],
        vec![Write::InFlight(8, id(1), OutboundState::AwaitsPubComp)],
    ];
    kept.session(9);
    for (call, number) in calls.into_iter().zip(1..) {
        pending.push(
            &kept,
            0,
            call.into_iter().collect(),
            Some(Told(to.clone(), number)),
        );
    }
    let calls = pending.take_calls();
    pending.note(&mut kept);
    let (mut again, rejected) = pending.retry(calls, &mut kept);
    let left: Vec<_> = again
        .ops
        .iter()
        .filter_map(|op| op.write.as_ref().map(name))
        .collect();
    assert_eq!(left, ["Released(9, 4)", "InFlight(8, 1, AwaitsPubComp)"]);
    rejected.into_iter().for_each(Told::committed);
    assert_eq!(numbers(&from), [3]);
    again
        .take_calls()
        .into_iter()
        .filter_map(|call| call.completion)
        .for_each(Told::committed);
    assert_eq!(numbers(&from), [1, 2, 4]);
}

/// A commit that failed may have reached the file or not. What was to be deleted then is deleted later, also if it has come
/// back and gone again meanwhile.
#[test]
fn what_a_failed_commit_was_to_delete_is_deleted_when_it_is_tried_again() {
    let mut kept = Kept::default();
    kept.packet(PacketKey::received(9, id(4)));
    kept.packet(PacketKey::in_flight(9, id(2)));
    kept.claim(9, 7);
    kept.session(8);
    let in_flight = Write::InFlight(9, id(2), OutboundState::AwaitsPubComp);
    let ends = || {
        [
            Write::Released(9, id(4)),
            Write::EndInFlight(9, id(2)),
            Write::EndClaim(9, 7),
            Write::EndSession(8),
        ]
    };
    let begins = [
        Write::Received(user("7"), 9, id(4)),
        in_flight,
        Write::Claim(9, 7),
        Write::Session(record(8)),
    ];
    let mut failed = Pending::<Told>::default();
    failed.push(&kept, 0, ends().into_iter().collect(), None);
    let calls = failed.take_calls();
    failed.note(&mut kept);
    let (mut again, _) = failed.retry(calls, &mut kept);
    let mut later = Pending::<Told>::default();
    later.push(&kept, 0, begins.into_iter().collect(), None);
    again.absorb(&kept, later);
    let mut last = Pending::<Told>::default();
    last.push(&kept, 0, ends().into_iter().collect(), None);
    again.absorb(&kept, last);
    let mut left: Vec<_> = again
        .ops
        .iter()
        .filter_map(|op| op.write.as_ref().map(name))
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "EndClaim(9, 7)",
            "EndInFlight(9, 2)",
            "EndSession(8)",
            "Released(9, 4)"
        ]
    );
}

/// The same of what it was to add: a message that was not refused, and a will.
#[test]
fn what_a_failed_commit_may_have_added_is_deleted_when_it_goes() {
    for forgets in [false, true] {
        what_it_may_have_added_is_deleted(forgets);
    }
}

fn what_it_may_have_added_is_deleted(forgets: bool) {
    let mut kept = Kept::default();
    let mut due = will("/1/inbox");
    due.id = 7;
    let mut failed = Pending::<Told>::default();
    let call = [Write::Unretain(3), append(6)];
    failed.push(&kept, 0, call.into_iter().collect(), None);
    let call = [Write::Will(Box::new(due))];
    failed.push(&kept, 0, call.into_iter().collect(), None);
    let calls = failed.take_calls();
    failed.note(&mut kept);
    let (mut again, _) = failed.retry(calls, &mut kept);
    if forgets {
        again.forget_obsolete(&kept);
    }
    let mut later = Pending::<Told>::default();
    let call = [Write::Remove(6), Write::EndWill(user("1"), 7)];
    later.push(&kept, 0, call.into_iter().collect(), None);
    again.absorb(&kept, later);
    let left = again.ops.iter().filter_map(|op| op.write.as_ref());
    let left: Vec<_> = left.map(name).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(left[..2], ["Unretain(3)", "Remove(6)"]);
    assert!(left[2].starts_with("EndWill("), "{left:?}");
    // The message is not found meanwhile.
    assert!(again.removes(6));
}

/// A store that holds for hours while a device subscribes and unsubscribes.
#[test]
fn a_batch_that_waits_stays_as_small_as_what_it_changes() {
    let mut kept = Kept::default();
    kept.session(9);
    let mut pending = Pending::<Told>::default();
    let mut most = 0;
    let one = |write| [write].into_iter().collect();
    pending.push(&kept, 0, one(append(1)), None);
    let first = Write::Acknowledged {
        seq: 1,
        waits_for: 2,
    };
    pending.push(&kept, 0, one(first), None);
    for number in 0..300_000 {
        let it = subscription(["/1/inbox", "/1/receipts"][number % 2]);
        let write = if number % 3 == 0 {
            Write::Unsubscribe(9, it.topic)
        } else {
            Write::Subscribe(9, it.into())
        };
        pending.push(&kept, 0, one(write), None);
        most = most.max(pending.bytes());
    }
    assert!(most < 32 << 20, "{most}");
    pending.forget_obsolete(&kept);
    assert!(pending.ops[0].acknowledged);
    let left = pending.ops.iter().filter_map(|op| op.write.as_ref());
    let left: Vec<_> = left.map(name).collect();
    assert_eq!((left.len(), &*left[0]), (3, "append 1 for 2"));
    assert!(
        left[1].contains("/1/inbox") && left[2].contains("/1/receipts"),
        "{left:?}"
    );
}

/// They hold their connections.
#[test]
fn calls_that_wait_count() {
    let (to, _from) = sync_channel(100);
    let mut pending = Pending::default();
    for number in 0..100 {
        let write = [Write::Session(record(8))].into_iter().collect();
        pending.push(&Kept::default(), 0, write, Some(Told(to.clone(), number)));
    }
    assert!(pending.bytes() > 100 * 2 * 256);
}

/// The session is new, and its record was written again after the packet id.
#[test]
fn a_packet_id_that_came_while_a_commit_failed_is_kept_with_its_new_session() {
    let kept = Kept::default();
    let mut later = Pending::<Told>::default();
    for write in [
        Write::Session(record(9)),
        Write::Received(user("7"), 9, id(4)),
        Write::Session(record(9)),
    ] {
        later.push(&kept, 0, [write].into_iter().collect(), None);
    }
    let mut again = Pending::default();
    again.absorb(&kept, later);
    let left = again.ops.iter().filter_map(|op| op.write.as_ref());
    let mut left: Vec<_> = left.map(name).collect();
    left.sort_unstable();
    assert_eq!(left, ["Received(9, 4)", "session 9 in slot 3"]);
}

/// New subscriptions are sent it already: it is tried again, and what has become of its copy meanwhile stays so.
#[test]
fn a_call_that_changes_what_is_retained_is_tried_again_as_a_whole() {
    let mut kept = Kept::default();
    kept.session(9);
    let (to, from) = sync_channel(1);
    let mut pending = Pending::default();
    let call = vec![
        Write::Received(user("7"), 9, id(4)),
        Write::Unretain(3),
        retain_of(5, "/1/x", "new"),
        append(6),
    ];
    pending.push(&kept, 0, call.into_iter().collect(), Some(Told(to, 1)));
    let acknowledged = Write::Acknowledged {
        seq: 6,
        waits_for: 4,
    };
    pending.push(&kept, 0, [acknowledged].into_iter().collect(), None);
    // It came while another commit failed, and then its own does, twice.
    let mut again = Pending::default();
    again.absorb(&kept, pending);
    pending = again;
    for _ in 0..2 {
        let calls = pending.take_calls();
        let (again, rejected) = pending.retry(calls, &mut kept);
        assert_eq!(rejected.len(), 0);
        pending = again;
    }
    let left: Vec<_> = pending
        .ops
        .iter()
        .filter_map(|op| op.write.as_ref().map(name))
        .collect();
    assert_eq!(
        left,
        [
            "Received(9, 4)",
            "Unretain(3)",
            "retain 5",
            "append 6 for 4"
        ]
    );
    assert!(pending.ops[3].acknowledged);
    let calls = pending.take_calls();
    calls
        .into_iter()
        .filter_map(|call| call.completion)
        .for_each(Told::committed);
    assert_eq!(numbers(&from), [1]);
}

#[test]
fn a_will_is_still_due_when_what_it_became_is_refused() {
    for is_asked in [true, false] {
        let mut kept = Kept::default();
        let mut pending = Pending::default();
        let mut due = will("/1/inbox");
        due.id = 7;
        let call = [Write::Will(Box::new(due))];
        pending.push(&kept, 0, call.into_iter().collect(), None);
        let (to, from) = sync_channel(1);
        let becomes = [Write::EndWill(user("1"), 7), append(8)];
        let answer = is_asked.then_some(Told(to, 1));
        pending.push(&kept, 0, becomes.into_iter().collect(), answer);
        let calls = pending.take_calls();
        let (again, rejected) = pending.retry(calls, &mut kept);
        let left = again.ops.iter().filter_map(|op| op.write.as_ref());
        let left: Vec<_> = left.collect();
        assert!(matches!(left[..], [Write::Will(_)]), "{left:?}");
        assert_eq!(rejected.len(), usize::from(is_asked));
        assert_eq!(from.try_iter().count(), 0);
    }
}

/// A device may have been sent it, and what is kept of that speaks of its number.
#[test]
fn the_number_of_what_was_refused_is_used_up() {
    let mut kept = Kept::default();
    let mut pending = Pending::<Told>::default();
    pending.push(&kept, 0, [append(8)].into_iter().collect(), None);
    let calls = pending.take_calls();
    let (mut again, _) = pending.retry(calls, &mut kept);
    assert!(again.is_idle());
    assert_eq!(again.highest(), 8);
    let mut later = Pending::default();
    later.push(&kept, 0, [append(9)].into_iter().collect(), None);
    later.push(&kept, 0, [Write::Remove(9)].into_iter().collect(), None);
    again.absorb(&kept, later);
    assert_eq!(again.highest(), 9);
}

#[test]
fn a_will_that_is_dropped_before_its_commit_is_never_written() {
    let mut due = will("/1/inbox");
    due.id = 7;
    let calls = vec![
        vec![Write::Will(Box::new(due))],
        vec![Write::EndWill(user("1"), 7)],
    ];
    let (left, ..) = push(&Kept::default(), calls);
    assert!(left.is_empty(), "{left:?}");
}
