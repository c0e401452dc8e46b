use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jam_wire::packet::{Publish, PublishProperties};
use proptest::prelude::*;

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
        properties,
        payload: Bytes::from(vec![0; size]),
    };
    Arc::new(Message::new(publish, UserId::parse("2").unwrap(), at))
}

fn slots(of: &[Slot]) -> Slots {
    let mut slots = Slots::default();
    of.iter().for_each(|slot| slots.insert(*slot));
    slots
}

#[test]
fn an_entry_leaves_when_the_last_device_has_acknowledged_it() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtLeastOnce, 10, NOW, None);
    mailbox.append(1, message, Kind::Inbox, slots(&[0, 31]));
    assert!(!mailbox.ack(1, 5));
    assert!(!mailbox.ack(2, 0));
    assert!(!mailbox.ack(1, 0));
    assert!(!mailbox.ack(1, 0));
    assert!(mailbox.ack(1, 31));
    assert!(mailbox.is_empty());
    assert_eq!(mailbox.kept(), Load::default());
}

#[test]
fn what_nobody_acknowledged_waits_for_the_next_device() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::ExactlyOnce, 10, NOW, None);
    mailbox.append(1, message, Kind::Inbox, slots(&[0]));
    mailbox.sent(1, 0);
    let mut left = Vec::new();
    mailbox.release(0, &mut left);
    assert!(left.is_empty());
    assert!(mailbox.next(1, 0).is_none());
    mailbox.claim(1);
    assert_eq!(mailbox.next(1, 0).map(|(seq, _)| seq), Some(1));
    mailbox.sent(1, 1);
    assert!(mailbox.next(1, 0).is_none());
    // It is claimed: nobody else gets it, not even the first device again.
    mailbox.claim(0);
    assert!(mailbox.next(0, 0).is_none());
    assert!(mailbox.ack(1, 1));
}

#[test]
fn what_one_device_has_acknowledged_leaves_with_the_session_of_the_last_other_one() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtLeastOnce, 10, NOW, None);
    mailbox.append(1, message, Kind::Inbox, slots(&[0, 1]));
    mailbox.ack(1, 0);
    let mut left = Vec::new();
    mailbox.release(1, &mut left);
    assert_eq!(left, [1]);
    assert!(mailbox.is_empty());
}

#[test]
fn who_no_longer_subscribes_keeps_what_is_on_its_way() {
    let mut mailbox = Mailbox::default();
    for seq in 1..=3 {
        let message = message(QoS::AtLeastOnce, 1, NOW, None);
        let kind = if seq == 3 { Kind::Channel } else { Kind::Inbox };
        mailbox.append(seq, message, kind, slots(&[0]));
    }
    mailbox.sent(1, 0);
    let mut left = Vec::new();
    mailbox.disclaim(0, &mut left);
    assert!(left.is_empty());
    assert!(mailbox.ack(1, 0));
    // The second is unclaimed; the third is of another topic.
    mailbox.claim(1);
    assert_eq!(mailbox.next(1, 0).map(|(seq, _)| seq), Some(2));
    assert_eq!(mailbox.next(0, 0).map(|(seq, _)| seq), Some(3));
}

#[test]
fn what_is_not_for_the_inbox_waits_for_nobody_else() {
    for kind in [Kind::Channel, Kind::Retained] {
        let mut mailbox = Mailbox::default();
        mailbox.append(
            1,
            message(QoS::AtLeastOnce, 1, NOW, None),
            kind,
            slots(&[0]),
        );
        let mut left = Vec::new();
        mailbox.disconnected(0, &mut left);
        assert!(left.is_empty());
        mailbox.release(0, &mut left);
        assert_eq!(left, [1]);
    }
}

#[test]
fn qos_0_leaves_with_the_connection() {
    let mut mailbox = Mailbox::default();
    let message = message(QoS::AtMostOnce, 7, NOW, None);
    mailbox.append(1, message, Kind::Inbox, slots(&[0, 1]));
    assert_eq!(
        mailbox.ephemeral(),
        Load {
            messages: 1,
            bytes: 7
        }
    );
    let mut left = Vec::new();
    mailbox.disconnected(0, &mut left);
    assert!(left.is_empty());
    mailbox.disconnected(1, &mut left);
    assert_eq!(left, [1]);
    assert_eq!(mailbox.ephemeral(), Load::default());
}

#[test]
fn what_expires_leaves_unless_it_is_on_its_way() {
    let mut mailbox = Mailbox::default();
    let qos = QoS::AtLeastOnce;
    mailbox.append(1, message(qos, 1, NOW, Some(10)), Kind::Inbox, slots(&[]));
    mailbox.append(2, message(qos, 1, NOW, Some(10)), Kind::Inbox, slots(&[0]));
    mailbox.append(3, message(qos, 1, NOW, None), Kind::Inbox, slots(&[0]));
    mailbox.append(
        4,
        message(qos, 1, NOW, Some(1000)),
        Kind::Inbox,
        slots(&[0]),
    );
    mailbox.sent(2, 0);
    let mut left = Vec::new();
    mailbox.expire(MAX_AGE, NOW + Duration::from_millis(9_999), &mut left);
    assert!(left.is_empty());
    mailbox.expire(MAX_AGE, NOW + Duration::from_secs(10), &mut left);
    assert_eq!(left, [1]);
    mailbox.expire(MAX_AGE, NOW + MAX_AGE, &mut left);
    assert_eq!(left, [1, 3, 4]);
    assert!(mailbox.ack(2, 0));
}

#[test]
fn a_load_has_room_up_to_both_limits() {
    let mut load = Load::default();
    load.add(&message(QoS::AtLeastOnce, 10, NOW, None));
    let next = message(QoS::AtLeastOnce, 5, NOW, None);
    assert!(load.has_room(&next, 2, 15));
    assert!(!load.has_room(&next, 1, 15));
    assert!(!load.has_room(&next, 2, 14));
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
}

const SLOTS: Slot = 4;

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{Ack, Append, Claim, Disclaim, Disconnected, Expire, Fetch, Release};
    let slot = || 0..SLOTS;
    prop_oneof![
        4 => (0..3u8, 0..3u8, prop::collection::vec(slot(), 0..3), 0..50usize)
            .prop_map(|(qos, kind, readers, size)| Append { qos, kind, readers, size }),
        4 => slot().prop_map(Fetch),
        4 => (slot(), any::<prop::sample::Index>()).prop_map(|(slot, index)| Ack(slot, index)),
        2 => slot().prop_map(Claim),
        1 => slot().prop_map(Disclaim),
        1 => slot().prop_map(Disconnected),
        1 => slot().prop_map(Release),
        1 => (0..150u64).prop_map(Expire),
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
                let next = self.mailbox.next(*slot, cursor.copied().unwrap_or(0));
                if let Some(seq) = next.map(|(seq, _)| seq) {
                    self.mailbox.sent(seq, *slot);
                    self.sent.entry(*slot).or_default().push(seq);
                }
            }
            Operation::Ack(slot, index) => {
                let sent = self.sent.entry(*slot).or_default();
                if !sent.is_empty() {
                    let seq = sent.remove(index.index(sent.len()));
                    self.promised.remove(&seq);
                    left.extend(self.mailbox.ack(seq, *slot).then_some(seq));
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
                self.mailbox.expire(MAX_AGE, now, &mut left);
                self.promised.retain(|seq| !left.contains(seq));
            }
        }
        left.iter()
            .for_each(|seq| assert!(self.mailbox.get(*seq).is_none()));
    }

    fn append(&mut self, qos: u8, kind: u8, readers: &[Slot], size: usize) {
        let qos = QoS::from_bits(qos).unwrap();
        let kind = [Kind::Inbox, Kind::Channel, Kind::Retained][usize::from(kind)];
        let promised = kind == Kind::Inbox && qos != QoS::AtMostOnce;
        // As `User::append`: what nobody is to get is only appended if it waits.
        if readers.is_empty() && !promised {
            return;
        }
        self.next += 1;
        let message = message(qos, size, NOW, None);
        self.mailbox
            .append(self.next, message, kind, slots(readers));
        if promised {
            self.promised.insert(self.next);
        }
    }

    fn check(&self) {
        let (mut kept, mut ephemeral) = (Load::default(), Load::default());
        for entry in self.mailbox.entries.values() {
            let load = if entry.is_kept() {
                &mut kept
            } else {
                &mut ephemeral
            };
            load.add(&entry.message);
            assert!(!entry.may_leave(), "what may leave has left");
            assert_eq!(
                entry.sent_to.0 & !entry.waits_for.0,
                0,
                "sent to who does not wait"
            );
        }
        assert_eq!(
            (self.mailbox.kept(), self.mailbox.ephemeral()),
            (kept, ephemeral)
        );
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
