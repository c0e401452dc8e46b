//! What survives a crash, by user: what writes do to it, and what a store finds that is opened on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{
    Append, OutboundStates, OwnerRecord, PushRecord, Recovered, RecoveredClaim, RecoveredEntry,
    RetainedTopic, Seq, SessionId, SessionRecord, WillId, WillRecord, Write,
};
use jam_core::time::Time;
use jam_wire::packet::PacketId;

/// What survives, by user.
pub(super) type File = BTreeMap<UserId, Kept>;

/// What survives of one user.
#[derive(Debug, Default, Clone)]
pub(super) struct Kept {
    pub(super) sessions: BTreeMap<SessionId, (SessionRecord, BTreeSet<PacketId>, OutboundStates)>,
    /// With whether anybody has acknowledged it.
    pub(super) entries: BTreeMap<Seq, (Append, bool)>,
    /// The retained messages among the entries.
    pub(super) retained: BTreeSet<Seq>,
    pub(super) claims: BTreeSet<(SessionId, Seq)>,
    pub(super) wills: BTreeMap<WillId, WillRecord>,
    /// By sender.
    pub(super) pushes: BTreeMap<UserId, PushRecord>,
    pub(super) owner: Option<OwnerRecord>,
    pub(super) last: u64,
}

/// What a write does to the file: to what is kept of `user`, unless it names another.
pub(super) fn apply(file: &mut File, user: &UserId, write: Write) {
    let named = match &write {
        Write::Received(other, ..) | Write::EndWill(other, _) => other,
        _ => user,
    };
    file.entry(named.clone()).or_default().apply(write);
}

/// What is found in the file, in ascending order of numbers.
pub(super) fn recover(file: &File) -> (Vec<RecoveredEntry>, Recovered) {
    let entries = file.values().flat_map(|kept| kept.entries.values());
    let mut entries: Vec<_> = entries.map(entry).collect();
    entries.sort_by_key(|entry| entry.seq);
    let mut found = Recovered::default();
    file.values().for_each(|kept| kept.recover(&mut found));
    found.sessions.sort_by_key(|(record, ..)| record.id);
    found.retained.sort_by_key(|retained| retained.seq);
    found.claims.sort_by_key(|claim| (claim.session, claim.seq));
    found.wills.sort_by_key(|record| record.id);
    (entries, found)
}

impl Kept {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Append(append) => {
                self.last = self.last.max(append.seq);
                self.entries.insert(append.seq, (as_kept(append), false));
            }
            Write::Acknowledged { seq, waits_for } => {
                if let Some((append, acknowledged)) = self.entries.get_mut(&seq) {
                    (append.waits_for, *acknowledged) = (waits_for, true);
                }
            }
            Write::Remove(seq) => {
                self.entries.remove(&seq);
            }
            Write::Session(mut record) => {
                self.last = self.last.max(record.id);
                let id = record.id;
                let (before, received, flights) = self
                    .sessions
                    .remove(&id)
                    .unwrap_or_else(|| ((*record).clone(), BTreeSet::new(), OutboundStates::new()));
                record.subscriptions = before.subscriptions;
                record.ends_at = record.ends_at.map(up_to_millis);
                record.will_at = record.will_at.map(up_to_millis);
                self.sessions.insert(id, (*record, received, flights));
            }
            Write::EndSession(id) => {
                self.sessions.remove(&id);
                self.claims.retain(|(session, _)| *session != id);
            }
            Write::Subscribe(id, subscription) => {
                if let Some((record, ..)) = self.sessions.get_mut(&id) {
                    let subscriptions = &mut record.subscriptions;
                    subscriptions.retain(|other| other.topic != subscription.topic);
                    subscriptions.push(*subscription);
                }
            }
            Write::Unsubscribe(id, topic) => {
                if let Some((record, ..)) = self.sessions.get_mut(&id) {
                    record.subscriptions.retain(|other| other.topic != topic);
                }
            }
            Write::Received(_, id, packet_id) => {
                if let Some((_, received, _)) = self.sessions.get_mut(&id) {
                    received.insert(packet_id);
                }
            }
            Write::Released(id, packet_id) => {
                if let Some((_, received, _)) = self.sessions.get_mut(&id) {
                    received.remove(&packet_id);
                }
            }
            Write::InFlight(id, packet_id, flight) => {
                if let Some((_, _, flights)) = self.sessions.get_mut(&id) {
                    flights.retain(|(other, _)| *other != packet_id);
                    flights.push((packet_id, flight));
                }
            }
            Write::EndInFlight(id, packet_id) => {
                if let Some((_, _, flights)) = self.sessions.get_mut(&id) {
                    flights.retain(|(other, _)| *other != packet_id);
                }
            }
            Write::Retain(append) => {
                self.last = self.last.max(append.seq);
                self.retained.insert(append.seq);
                self.entries.insert(append.seq, (as_kept(append), false));
            }
            Write::Unretain(seq) => {
                self.retained.remove(&seq);
            }
            Write::Claim(session, seq) => {
                self.claims.insert((session, seq));
            }
            Write::EndClaim(session, seq) => {
                self.claims.remove(&(session, seq));
            }
            Write::Will(record) => {
                self.last = self.last.max(record.id);
                self.wills.insert(record.id, *record);
            }
            Write::EndWill(_, id) => {
                self.wills.remove(&id);
            }
            Write::Push(mut record) => {
                record.at = up_to_millis(record.at);
                record.expires_at = up_to_millis(record.expires_at);
                self.pushes.insert(record.sender.clone(), *record);
            }
            Write::EndPush(_, sender) => {
                self.pushes.remove(&sender);
            }
            Write::AnswerAfter(..) => {}
            Write::Owner(mut owner) => {
                owner.gone_since = owner.gone_since.map(up_to_millis);
                self.owner = Some(*owner);
            }
            Write::EndOwner(_) => {
                self.owner = None;
            }
        }
    }

    /// What is found of this user, besides the entries.
    fn recover(&self, found: &mut Recovered) {
        let sessions = self.sessions.values().cloned();
        let sessions = sessions
            .map(|(record, received, flights)| (record, received.into_iter().collect(), flights));
        found.sessions.extend(sessions);
        found.retained.extend(self.retained.iter().map(|seq| {
            let (append, _) = &self.entries[seq];
            let topic = append.message.topic();
            RetainedTopic {
                user: append.user.clone(),
                topic: (&**topic).into(),
                seq: *seq,
            }
        }));
        found
            .claims
            .extend(self.claims.iter().map(|(session, seq)| {
                let (record, ..) = &self.sessions[session];
                RecoveredClaim {
                    user: record.user.clone(),
                    session: *session,
                    seq: *seq,
                }
            }));
        found.wills.extend(self.wills.values().cloned());
        found.pushes.extend(self.pushes.values().cloned());
        found.owners.extend(self.owner.clone());
        found.last_seq = found.last_seq.max(self.last);
    }
}

fn entry((append, acknowledged): &(Append, bool)) -> RecoveredEntry {
    let stored = append.message.to_stored();
    RecoveredEntry {
        seq: append.seq,
        user: append.user.clone(),
        sender: append.message.sender().clone(),
        inbox: append.inbox,
        retained: append.retained,
        qos: stored.qos,
        size: u32::try_from(append.message.weight()).expect("a packet's weight"),
        waits_for: append.waits_for,
        acknowledged: *acknowledged,
        expires_at: append.message.expires_at(),
        received_at: append.message.received_at(),
    }
}

/// A message as it comes back from the file.
fn as_kept(mut append: Append) -> Append {
    let message = &append.message;
    let mut stored = message.to_stored();
    stored.packet_id = message.packet_id();
    append.message = Arc::new(Message::from_stored(
        stored,
        message.sender().clone(),
        message.sender_life(),
        Time::from_millis(message.received_at().as_millis()),
        up_to_millis(message.expires_at()),
    ));
    append
}

/// A time as it comes back from a file that keeps milliseconds.
fn up_to_millis(time: Time) -> Time {
    Time::from_millis(time.as_millis_up())
}
