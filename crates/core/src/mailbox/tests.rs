use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jam_wire::packet::{Publish, PublishProperties};
use proptest::prelude::*;

use super::senders::Senders;
use super::*;
use crate::ids::UserId;

const NOW: Time = Time::from_millis(1_000_000);
const MAX_AGE: Duration = Duration::from_secs(100);

fn message(qos: QoS, size: usize, at: Time, expiry_secs: Option<u32>) -> Arc<Message> {
    let properties = PublishProperties {
        message_expiry_secs: expiry_secs,
        ..PublishProperties::default()
    };
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: "/1/inbox".into(),
        packet_id: None,
        properties: Some(Box::new(properties)),
        payload: Bytes::from(vec![0; size]),
    };
    Arc::new(Message::new(publish, UserId::parse("2").unwrap(), at))
}

/// Appends as `User::append` does to a log whose devices keep up.
fn append(
    mailbox: &mut Mailbox,
    seq: Seq,
    message: Arc<Message>,
    kind: Kind,
    waits_for: DeviceSet,
) {
    let ephemeral = message.qos == QoS::AtMostOnce;
    let residence = if ephemeral {
        Residence::MemoryOnly
    } else {
        Residence::Grace
    };
    mailbox.append(seq, message, kind, residence, waits_for, MAX_AGE);
}

/// Whether the entry has left with this acknowledgement.
fn ack(mailbox: &mut Mailbox, seq: Seq, slot: Slot) -> bool {
    matches!(mailbox.ack(seq, slot), Acked::Gone(gone) if gone.seq == seq)
}

fn next(mailbox: &Mailbox, slot: Slot, after: Seq) -> Option<Seq> {
    mailbox.unsent(slot, after).next().map(|entry| entry.seq)
}

fn seqs(gone: &[Gone]) -> Vec<Seq> {
    gone.iter().map(|gone| gone.seq).collect()
}

fn slots(of: &[Slot]) -> DeviceSet {
    let mut slots = DeviceSet::default();
    of.iter().for_each(|slot| slots.insert(*slot));
    slots
}

#[test]
fn an_entry_leaves_when_the_last_device_has_acknowledged_it() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtLeastOnce, 10, NOW, None);
    append(&mut mailbox, 1, message, Kind::Inbox, slots(&[0, 31]));
    assert!(!ack(&mut mailbox, 1, 5));
    assert!(!ack(&mut mailbox, 2, 0));
    assert!(!ack(&mut mailbox, 1, 0));
    assert!(!ack(&mut mailbox, 1, 0));
    assert!(ack(&mut mailbox, 1, 31));
    assert!(mailbox.is_empty());
    assert_eq!(mailbox.kept(), Amount::default());
}

#[test]
fn what_nobody_acknowledged_waits_for_the_next_device() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::ExactlyOnce, 10, NOW, None);
    append(&mut mailbox, 1, message, Kind::Inbox, slots(&[0]));
    mailbox.sent(1, 0);
    let mut left = Vec::new();
    mailbox.release(0, &mut left);
    assert!(left.is_empty());
    assert!(next(&mailbox, 1, 0).is_none());
    mailbox.claim(1);
    assert_eq!(next(&mailbox, 1, 0), Some(1));
    mailbox.sent(1, 1);
    assert!(next(&mailbox, 1, 0).is_none());
    // It is claimed: nobody else gets it, not even the first device again.
    mailbox.claim(0);
    assert!(next(&mailbox, 0, 0).is_none());
    assert!(ack(&mut mailbox, 1, 1));
}

#[test]
fn what_one_device_has_acknowledged_leaves_with_the_session_of_the_last_other_one() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtLeastOnce, 10, NOW, None);
    append(&mut mailbox, 1, message, Kind::Inbox, slots(&[0, 1]));
    ack(&mut mailbox, 1, 0);
    let mut left = Vec::new();
    mailbox.release(1, &mut left);
    assert_eq!(seqs(&left), [1]);
    assert!(mailbox.is_empty());
}

#[test]
fn who_no_longer_subscribes_keeps_what_is_on_its_way() {
    let mut mailbox = Mailbox::default();
    for seq in 1..=3 {
        let message = message(QoS::AtLeastOnce, 1, NOW, None);
        let kind = if seq == 3 { Kind::Channel } else { Kind::Inbox };
        append(&mut mailbox, seq, message, kind, slots(&[0]));
    }
    mailbox.sent(1, 0);
    let mut left = Vec::new();
    mailbox.disclaim(0, &mut left);
    assert!(left.is_empty());
    assert!(ack(&mut mailbox, 1, 0));
    // The second is unclaimed; the third is of another topic.
    mailbox.claim(1);
    assert_eq!(next(&mailbox, 1, 0), Some(2));
    assert_eq!(next(&mailbox, 0, 0), Some(3));
}

#[test]
fn what_is_not_for_the_inbox_waits_for_nobody_else() {
    for kind in [Kind::Channel, Kind::Replaced] {
        let mut mailbox = Mailbox::default();
        append(
            &mut mailbox,
            1,
            message(QoS::AtLeastOnce, 1, NOW, None),
            kind,
            slots(&[0]),
        );
        let mut left = Vec::new();
        mailbox.disconnected(0, &mut left);
        assert!(left.is_empty());
        mailbox.release(0, &mut left);
        assert_eq!(seqs(&left), [1]);
    }
}

#[test]
fn qos_0_leaves_with_the_connection() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtMostOnce, 7, NOW, None);
    append(&mut mailbox, 1, message, Kind::Inbox, slots(&[0, 1]));
    assert_eq!(
        mailbox.ephemeral(),
        Amount {
            messages: 1,
            bytes: 7 + "/1/inbox".len() as u64
        }
    );
    let mut left = Vec::new();
    mailbox.disconnected(0, &mut left);
    assert!(left.is_empty());
    mailbox.disconnected(1, &mut left);
    assert_eq!(seqs(&left), [1]);
    assert_eq!(mailbox.ephemeral(), Amount::default());
}

#[test]
fn what_expires_leaves_unless_it_is_on_its_way() {
    let mut mailbox = Mailbox::default();
    let qos = QoS::AtLeastOnce;
    append(
        &mut mailbox,
        1,
        message(qos, 1, NOW, Some(10)),
        Kind::Inbox,
        slots(&[]),
    );
    append(
        &mut mailbox,
        2,
        message(qos, 1, NOW, Some(10)),
        Kind::Inbox,
        slots(&[0]),
    );
    append(
        &mut mailbox,
        3,
        message(qos, 1, NOW, None),
        Kind::Inbox,
        slots(&[0]),
    );
    append(
        &mut mailbox,
        4,
        message(qos, 1, NOW, Some(1000)),
        Kind::Inbox,
        slots(&[0]),
    );
    mailbox.sent(2, 0);
    let mut left = Vec::new();
    mailbox.expire(NOW + Duration::from_millis(9_999), &mut left);
    assert!(left.is_empty());
    mailbox.expire(NOW + Duration::from_secs(10), &mut left);
    assert_eq!(seqs(&left), [1]);
    mailbox.expire(NOW + MAX_AGE, &mut left);
    assert_eq!(seqs(&left), [1, 3, 4]);
    assert!(ack(&mut mailbox, 2, 0));
}

#[test]
fn a_purge_of_one_sender_leaves_what_another_sent_at_qos_0() {
    let mut mailbox = Mailbox::default();
    let mut kept = Arc::try_unwrap(message(QoS::AtLeastOnce, 1, NOW, None)).unwrap();
    kept.sender = UserId::parse("3").unwrap();
    let not_kept = message(QoS::AtMostOnce, 1, NOW, None);
    append(&mut mailbox, 1, Arc::new(kept), Kind::Inbox, slots(&[0]));
    append(&mut mailbox, 2, not_kept, Kind::Inbox, slots(&[0]));
    let mut left = Vec::new();
    let sender = UserId::parse("3").unwrap();
    mailbox.purge(9, Some(&sender), &mut left);
    assert_eq!(seqs(&left), [1]);
}

#[test]
fn a_load_has_room_up_to_both_limits() {
    let mut load = Amount::default();
    load.add(10);
    assert!(load.has_room(5, 2, 15));
    assert!(!load.has_room(5, 1, 15));
    assert!(!load.has_room(5, 2, 14));
}

/// Anything that happens to a mailbox.
#[derive(Debug, Clone)]
enum Operation {
    Append {
        qos: u8,
        kind: u8,
        readers: Vec<Slot>,
        size: usize,
    },
    Fetch(Slot),
    Ack(Slot, prop::sample::Index),
    Claim(Slot),
    Disclaim(Slot),
    Disconnected(Slot),
    Release(Slot),
    Expire(u64),
    Retain(usize, Option<u32>),
    ClaimRetained(Slot, prop::sample::Index),
    EndRetained(prop::sample::Index),
}

const SLOTS: Slot = 4;

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{
        Ack, Append, Claim, ClaimRetained, Disclaim, Disconnected, EndRetained, Expire, Fetch,
        Release, Retain,
    };
    let slot = || 0..SLOTS;
    prop_oneof![
        4 => (0..3u8, 0..2u8, prop::collection::vec(slot(), 0..3), 0..50usize)
            .prop_map(|(qos, kind, readers, size)| Append { qos, kind, readers, size }),
        4 => slot().prop_map(Fetch),
        4 => (slot(), any::<prop::sample::Index>()).prop_map(|(slot, index)| Ack(slot, index)),
        2 => slot().prop_map(Claim),
        1 => slot().prop_map(Disclaim),
        1 => slot().prop_map(Disconnected),
        1 => slot().prop_map(Release),
        1 => (0..150u64).prop_map(Expire),
        2 => (1..50usize, prop::option::of(0..150u32)).prop_map(|(size, expiry)| Retain(size, expiry)),
        3 => (slot(), any::<prop::sample::Index>()).prop_map(|(slot, index)| ClaimRetained(slot, index)),
        1 => any::<prop::sample::Index>().prop_map(EndRetained),
    ]
}

/// A mailbox and what happened to it.
#[derive(Default)]
struct Watched {
    mailbox: Mailbox,
    next: Seq,
    /// Inbox messages of QoS 1 and 2 that nobody has acknowledged and that have not expired.
    promised: BTreeSet<Seq>,
    sent: BTreeMap<Slot, Vec<Seq>>,
    retained: Vec<Seq>,
}

impl Watched {
    fn apply(&mut self, operation: &Operation) {
        let mut left = Vec::new();
        match operation {
            Operation::Append {
                qos,
                kind,
                readers,
                size,
            } => self.append(*qos, *kind, readers, *size),
            Operation::Fetch(slot) => {
                let cursor = self.sent.get(slot).and_then(|sent| sent.iter().max());
                let next = next(&self.mailbox, *slot, cursor.copied().unwrap_or(0));
                if let Some(seq) = next {
                    self.mailbox.sent(seq, *slot);
                    self.sent.entry(*slot).or_default().push(seq);
                }
            }
            Operation::Ack(slot, index) => {
                let sent = self.sent.entry(*slot).or_default();
                if !sent.is_empty() {
                    let seq = sent.remove(index.index(sent.len()));
                    self.promised.remove(&seq);
                    if let Acked::Gone(gone) = self.mailbox.ack(seq, *slot) {
                        left.push(gone);
                    }
                }
            }
            Operation::Claim(slot) => self.mailbox.claim(*slot),
            Operation::Disclaim(slot) => self.mailbox.disclaim(*slot, &mut left),
            Operation::Disconnected(slot) => self.mailbox.disconnected(*slot, &mut left),
            Operation::Release(slot) => {
                self.mailbox.release(*slot, &mut left);
                self.sent.remove(slot);
            }
            Operation::Expire(secs) => {
                let now = NOW + Duration::from_secs(*secs);
                // As `User::expire`.
                let expired = |seq: &Seq| self.mailbox.get(*seq).unwrap().is_expired(now);
                let ending: Vec<_> = self.retained.iter().copied().filter(expired).collect();
                for seq in ending {
                    self.retained.retain(|other| *other != seq);
                    left.extend(self.mailbox.end_retained(seq).1);
                }
                self.mailbox.expire(now, &mut left);
                let left = seqs(&left);
                self.promised.retain(|seq| !left.contains(seq));
                let here = |entry: &Entry| !entry.is_expired(now) || !entry.sent_to().is_empty();
                assert!(self.mailbox.entries.iter().all(here));
                assert!(!self.mailbox.may_have_expired(now));
            }
            Operation::Retain(size, expiry) => {
                self.next += 1;
                let message = message(QoS::AtLeastOnce, *size, NOW, *expiry);
                let nobody = DeviceSet::default();
                self.mailbox.append_retained(self.next, &message, nobody);
                self.retained.push(self.next);
            }
            Operation::ClaimRetained(slot, index) => {
                if !self.retained.is_empty() {
                    let seq = self.retained[index.index(self.retained.len())];
                    let waits = self.mailbox.get(seq).unwrap().waits_for().contains(*slot);
                    assert_eq!(self.mailbox.claim_retained(seq, *slot), !waits);
                }
            }
            Operation::EndRetained(index) => {
                if !self.retained.is_empty() {
                    let seq = self.retained.remove(index.index(self.retained.len()));
                    let (_, gone) = self.mailbox.end_retained(seq);
                    let entry = self.mailbox.get(seq);
                    assert_eq!(entry.is_some(), gone.is_none());
                    assert!(entry.is_none_or(|entry| entry.waits_for() == entry.sent_to()));
                    left.extend(gone);
                }
            }
        }
        left.iter()
            .for_each(|gone| assert!(self.mailbox.get(gone.seq).is_none()));
    }

    fn append(&mut self, qos: u8, kind: u8, readers: &[Slot], size: usize) {
        let qos = QoS::from_bits(qos).unwrap();
        let kind = [Kind::Inbox, Kind::Channel][usize::from(kind)];
        let promised = kind == Kind::Inbox && qos != QoS::AtMostOnce;
        // As `User::append`: what nobody is to get is only appended if it waits.
        if readers.is_empty() && !promised {
            return;
        }
        self.next += 1;
        let message = message(qos, size, NOW, None);
        append(&mut self.mailbox, self.next, message, kind, slots(readers));
        if promised {
            self.promised.insert(self.next);
        }
    }

    fn check(&self) {
        let (mut kept, mut ephemeral) = (Amount::default(), Amount::default());
        let mut retained = 0;
        for entry in &self.mailbox.entries {
            if entry.is_retained() {
                retained += entry.size();
            } else if entry.is_kept() {
                kept.add(entry.size());
            } else {
                ephemeral.add(entry.size());
            }
            assert!(!entry.may_leave(), "what may leave has left");
            assert_eq!(
                entry.sent_to().without(entry.waits_for()),
                DeviceSet::default(),
                "sent to who does not wait"
            );
        }
        assert_eq!(
            (self.mailbox.kept(), self.mailbox.ephemeral()),
            (kept, ephemeral)
        );
        assert_eq!(self.mailbox.retained_bytes(), retained);
        for seq in &self.retained {
            assert!(self.mailbox.get(*seq).is_some(), "{seq} is retained");
        }
        for seq in &self.promised {
            assert!(self.mailbox.get(*seq).is_some(), "{seq} is lost");
        }
        assert_eq!(self.mailbox.is_empty(), self.mailbox.last() == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// *Kept*, *Ephemeral* and *Counted*, whatever happens.
    #[test]
    fn invariants_hold(operations in prop::collection::vec(operation(), 0..60)) {
        let mut watched = Watched::default();
        for operation in &operations {
            watched.apply(operation);
            watched.check();
        }
    }
}

#[test]
fn a_message_that_waits_is_small() {
    let mut mailbox = Mailbox::default();
    for seq in 1..=10_000 {
        let message = message(QoS::AtLeastOnce, 1, NOW, None);
        mailbox.append(
            seq,
            message,
            Kind::Inbox,
            Residence::Stored,
            slots(&[]),
            MAX_AGE,
        );
        if seq > 64 {
            let waiting = usize::try_from(seq).unwrap();
            assert!(
                mailbox.memory() <= waiting * MAX_ENTRY_BYTES,
                "{seq}: {}",
                mailbox.memory()
            );
        }
    }
    let mut gone = Vec::new();
    mailbox.purge(10_000, None, &mut gone);
    assert!(mailbox.memory() <= 64 * MAX_ENTRY_BYTES);
}

#[test]
fn content_is_here_only_as_long_as_nobody_else_has_it() {
    let mut mailbox = Mailbox::default();
    append(
        &mut mailbox,
        1,
        message(QoS::AtLeastOnce, 1, NOW, None),
        Kind::Inbox,
        slots(&[0]),
    );
    assert!(mailbox.get(1).unwrap().message.is_some());
    assert!(mailbox.move_to(1, Residence::Stored).is_some());
    assert!(mailbox.get(1).unwrap().message.is_none());
    let content = message(QoS::ExactlyOnce, 1, NOW, None);
    mailbox.append(
        2,
        content,
        Kind::Inbox,
        Residence::Committing,
        slots(&[0]),
        MAX_AGE,
    );
    assert!(mailbox.get(2).unwrap().message.is_none());
}

#[test]
fn senders_are_counted_however_many_they_are() {
    let mut senders = Senders::default();
    let id = |n: u32| UserId::parse(n.to_string()).unwrap();
    for round in 0..3 {
        let numbers: Vec<_> = (0..100)
            .map(|n| senders.add(&id(n + round * 50), 10))
            .collect();
        assert!(numbers.iter().all(|number| *number < 200));
        assert_eq!(senders.add(&id(round * 50), 5), numbers[0]);
        let load = senders.load(&id(round * 50));
        assert_eq!((load.messages, load.bytes), (2, 15));
        assert_eq!(senders.find(&id(round * 50)), Some(numbers[0]));
        senders.subtract(numbers[0], 5);
        numbers
            .iter()
            .for_each(|number| senders.subtract(*number, 10));
        for n in 0..300 {
            assert_eq!(senders.load(&id(n)), Amount::default());
            assert_eq!(senders.find(&id(n)), None);
        }
    }
    // As many as are told apart, and one more.
    for n in 0..=u32::from(u16::MAX) {
        senders.add(&id(n), 1);
    }
    let one_more = senders.load(&id(u32::from(u16::MAX)));
    assert_eq!((one_more.messages, one_more.bytes), (1, 1));
}

#[test]
fn who_was_not_to_get_a_message_does_not_acknowledge_it() {
    let mut mailbox = Mailbox::default();
    let unclaimed = message(QoS::AtLeastOnce, 1, NOW, None);
    append(
        &mut mailbox,
        1,
        unclaimed,
        Kind::Inbox,
        DeviceSet::default(),
    );
    assert_eq!(mailbox.ack(1, 5), Acked::No);
    assert!(!mailbox.get(1).unwrap().is_acknowledged());
}

#[test]
fn a_purge_ends_what_waits_in_the_inbox_up_to_a_number() {
    let mut mailbox = Mailbox::default();
    for seq in 1..=4 {
        let kind = if seq == 2 { Kind::Channel } else { Kind::Inbox };
        let message = message(QoS::AtLeastOnce, 1, NOW, None);
        append(&mut mailbox, seq, message, kind, slots(&[0]));
    }
    let mut gone = Vec::new();
    let stranger = UserId::parse("3").unwrap();
    mailbox.purge(3, Some(&stranger), &mut gone);
    assert!(gone.is_empty());
    let sender = UserId::parse("2").unwrap();
    mailbox.purge(1, Some(&sender), &mut gone);
    assert_eq!(seqs(&gone), [1]);
    mailbox.purge(3, None, &mut gone);
    assert_eq!(seqs(&gone), [1, 3]);
    assert!(mailbox.get(2).is_some() && mailbox.get(4).is_some());
}

#[test]
fn what_expires_between_two_times() {
    let mut mailbox = Mailbox::default();
    for (seq, secs) in [(1, 1), (2, 2), (3, 3)] {
        let message = message(QoS::AtLeastOnce, 1, NOW, Some(secs));
        append(
            &mut mailbox,
            seq,
            message,
            Kind::Inbox,
            DeviceSet::default(),
        );
    }
    let second = Duration::from_secs(1);
    let expiring = mailbox.expiring(NOW + second, NOW + second * 2);
    assert_eq!(expiring.map(|entry| entry.seq).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_was_in_its_grace_expires_when_the_store_has_it() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtLeastOnce, 1, NOW, Some(1));
    append(&mut mailbox, 1, message, Kind::Inbox, slots(&[0]));
    mailbox.move_to(1, Residence::Stored);
    let expires_at = NOW + Duration::from_secs(1);
    assert_eq!(mailbox.next_expiry(), expires_at);
    assert!(mailbox.may_have_expired(expires_at));
}

/// PROTOCOL.md, section 9: a message of the inbox that nobody has acknowledged.
#[test]
fn what_a_push_may_be_about() {
    let mut mailbox = Mailbox::default();
    for (seq, kind, expiry_secs) in [
        (1, Kind::Inbox, Some(1)),
        (2, Kind::Channel, None),
        (3, Kind::Inbox, None),
    ] {
        let message = message(QoS::AtLeastOnce, 1, NOW, expiry_secs);
        append(&mut mailbox, seq, message, kind, slots(&[0, 1]));
        mailbox.sent(seq, 0);
    }
    let is_silent = |mailbox: &Mailbox, first, last, secs| {
        mailbox.is_silent_about(first, last, NOW + Duration::from_secs(secs))
    };
    assert!(is_silent(&mailbox, 1, 2, 0));
    assert!(!is_silent(&mailbox, 1, 2, 1), "it has expired");
    assert!(
        !is_silent(&mailbox, 2, 2, 0),
        "it is no message to the inbox"
    );
    assert!(is_silent(&mailbox, 2, 3, 1));
    ack(&mut mailbox, 3, 0);
    assert!(!is_silent(&mailbox, 2, 3, 1), "one device has it");
}

#[test]
fn a_retained_message_of_qos_0_leaves_with_the_connection_it_waits_for() {
    let mut mailbox = Mailbox::default();
    for (seq, qos) in [(1, QoS::AtMostOnce), (2, QoS::AtLeastOnce)] {
        let retained = message(qos, 1, NOW, None);
        mailbox.append_retained(seq, &retained, slots(&[0]));
    }
    mailbox.disconnected(0, &mut Vec::new());
    assert_eq!(next(&mailbox, 0, 0), Some(2));
    // A device that subscribes gets it, and not one that has been replaced.
    assert!(mailbox.claim_retained(1, 1));
    assert!(!mailbox.claim_retained(1, 1));
    mailbox.sent(1, 1);
    // The next one is for those who have not been sent this one.
    assert!(mailbox.claim_retained(1, 2));
    assert_eq!(mailbox.end_retained(1), (slots(&[2]), None));
    assert!(!mailbox.claim_retained(1, 0));
    // They take nothing of what their sender may have waiting.
    let sender = UserId::parse("2").unwrap();
    assert_eq!(mailbox.usage.number_of(&sender), None);
}

#[test]
fn what_was_on_its_way_when_it_expired_is_looked_at_when_it_no_longer_is() {
    let later = NOW + Duration::from_secs(2);
    let ends: [fn(&mut Mailbox); 2] = [
        |mailbox| assert!(!ack(mailbox, 1, 0)),
        |mailbox| mailbox.release(0, &mut Vec::new()),
    ];
    for end in ends {
        let mut mailbox = Mailbox::default();
        let message = message(QoS::AtLeastOnce, 1, NOW, Some(1));
        append(&mut mailbox, 1, message, Kind::Inbox, slots(&[0, 1]));
        mailbox.move_to(1, Residence::Stored);
        mailbox.sent(1, 0);
        let mut gone = Vec::new();
        mailbox.expire(later, &mut gone);
        assert!(gone.is_empty() && !mailbox.may_have_expired(later));
        end(&mut mailbox);
        assert!(mailbox.may_have_expired(later));
        mailbox.expire(later, &mut gone);
        assert_eq!(seqs(&gone), [1]);
    }
}

#[test]
fn what_a_store_has_found_and_nobody_is_to_get_leaves() {
    let mut mailbox = Mailbox::default();
    for (seq, inbox, acknowledged, slot) in [
        (1, true, true, 0),
        (2, true, false, 0),
        (3, false, false, 0),
        (4, true, true, 1),
    ] {
        let found = RecoveredEntry {
            seq,
            user: UserId::parse("1").unwrap(),
            sender: UserId::parse("2").unwrap(),
            inbox,
            retained: false,
            qos: QoS::AtLeastOnce,
            size: 1,
            received_at: NOW,
            expires_at: Time::NEVER,
            waits_for: slots(&[slot]).bits(),
            acknowledged,
        };
        mailbox.restore(&found, MAX_AGE);
    }
    mailbox.restored(|_| slots(&[1]));
    let mut gone = Vec::new();
    mailbox.drop_leavers(&mut gone);
    assert_eq!(seqs(&gone), [1, 3]);
    // Its sender was told before.
    assert_eq!(mailbox.claim_receipt(4), None);
}

#[test]
fn a_sender_who_comes_back_is_not_taken_for_who_has_their_place() {
    let id = |n: u32| UserId::parse(n.to_string()).unwrap();
    let mut senders = Senders::default();
    let numbers: Vec<_> = (0..20).map(|n| senders.add(&id(n), 10)).collect();
    senders.subtract(numbers[7], 10);
    assert_eq!(senders.add(&id(50), 3), numbers[7]);
    assert_eq!(senders.load(&id(7)), Amount::default());
    let load = senders.load(&id(50));
    assert_eq!((load.messages, load.bytes), (1, 3));
    assert_ne!(senders.add(&id(7), 10), numbers[7]);
}
