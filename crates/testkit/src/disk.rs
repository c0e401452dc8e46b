//! A store with a file, as a model: what is written reaches it in batches, and a crash loses the rest.
//!
//! It does nothing by itself but take calls: the simulator says when a batch is committed, when it fails,
//! when receipts are resolved (in any order), and when messages are read.
//!
//! Invariants: the file is what some prefix of the calls has left; no receipt is resolved before its call
//! is committed, but for an append that is removed before it was; that is, if no other call has to be committed first
//! ([`Write::AnswerAfter`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use jam_core::directory::Mark;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::policy::refusals;
use jam_core::push::PushRecord;
use jam_core::store::{
    Append, MailboxStore, OnLoaded, OutboundStates, OwnerRecord, Receipt, Recovered,
    RecoveredClaim, RecoveredEntry, RetainedTopic, Seq, SessionId, SessionRecord, WillId,
    WillRecord, Write, Writes, is_refusable,
};
use jam_core::time::Time;
use jam_wire::packet::PacketId;

/// What a user has in the store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// In the inbox.
    pub messages: usize,
    /// Of those.
    pub bytes: u64,
    /// Of retained messages.
    pub retained_bytes: u64,
    /// Of wills, due or not.
    pub will_bytes: u64,
    /// Of messages that wait to be written.
    pub pending_bytes: u64,
}

/// The store.
#[derive(Debug, Default)]
pub struct CrashingStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: File,
    calls: VecDeque<(Writes, Option<Receipt>)>,
    /// To be resolved.
    kept: Vec<Receipt>,
    loads: VecDeque<(Vec<Seq>, OnLoaded)>,
    /// Whether every call is committed and answered as soon as no lock is held.
    at_once: bool,
    /// Messages whose calls are not answered before the file has what was written up to now.
    answered_after: BTreeSet<Seq>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} calls)", self.calls.len())
    }
}

/// What survives.
#[derive(Debug, Default, Clone)]
struct File {
    sessions: BTreeMap<SessionId, (SessionRecord, BTreeSet<PacketId>, OutboundStates)>,
    /// With whether anybody has acknowledged it.
    entries: BTreeMap<Seq, (Append, bool)>,
    /// The retained messages among the entries.
    retained: BTreeSet<Seq>,
    claims: BTreeSet<(SessionId, Seq)>,
    wills: BTreeMap<WillId, WillRecord>,
    /// By receiver and sender.
    pushes: BTreeMap<(UserId, UserId), PushRecord>,
    owners: BTreeMap<UserId, OwnerRecord>,
    last: u64,
}

impl CrashingStore {
    /// Calls that wait for a commit.
    pub fn waiting(&self) -> usize {
        self.state().calls.len()
    }

    /// Receipts that wait to be resolved.
    pub fn unanswered(&self) -> usize {
        self.state().kept.len()
    }

    /// Messages in the file, but for those that are retained.
    pub fn kept(&self) -> usize {
        let state = self.state();
        state.file.entries.len() - state.file.retained.len()
    }

    /// What a user has in the file, and what waits to be written.
    pub fn weights(&self, user: &str) -> Weights {
        let state = self.state();
        let file = &state.file;
        let mut weights = Weights::default();
        for (seq, (append, _)) in &file.entries {
            if append.user.as_str() != user {
                continue;
            }
            let weight = append.message.weight();
            if append.inbox {
                weights.messages += 1;
                weights.bytes += weight;
            } else if file.retained.contains(seq) {
                weights.retained_bytes += weight;
            }
        }
        let sessions = file.sessions.values().map(|(record, ..)| record);
        let sessions = sessions.filter(|it| it.user.as_str() == user);
        let wills = file.wills.values().filter(|it| it.user.as_str() == user);
        let wills = sessions
            .filter_map(|it| it.will.as_ref())
            .chain(wills.map(|it| &it.will));
        weights.will_bytes = wills
            .map(|will| (will.topic.len() + will.payload.len()) as u64)
            .sum();
        for write in state.calls.iter().flat_map(|(writes, _)| writes) {
            if let Write::Append(append) | Write::Retain(append) = write
                && append.user.as_str() == user
            {
                weights.pending_bytes += append.message.weight();
            }
        }
        weights
    }

    /// Whether from now on every call is committed and answered as soon as no lock is held.
    pub fn at_once(&self, at_once: bool) {
        self.state().at_once = at_once;
        self.settle();
    }

    /// Whose the things in the file are.
    pub fn owners(&self) -> Vec<OwnerRecord> {
        self.state().file.owners.values().cloned().collect()
    }

    /// Whether anything is in the file: messages, retained or not, claims of those, packet ids, pushes, wills.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        let file = &state.file;
        let idle = |(_, received, flights): &(_, BTreeSet<PacketId>, OutboundStates)| {
            received.is_empty() && flights.is_empty()
        };
        file.entries.is_empty()
            && file.retained.is_empty()
            && file.claims.is_empty()
            && file.wills.is_empty()
            && file.pushes.is_empty()
            && file.sessions.values().all(idle)
    }

    /// Retained messages in the file, and claims of those.
    pub fn retained(&self) -> (usize, usize) {
        let state = self.state();
        (state.file.retained.len(), state.file.claims.len())
    }

    /// Sessions and wills are as an earlier version of the server kept them, which knew of no tokens.
    pub fn forget_tokens(&self) {
        let mut state = self.state();
        state
            .file
            .sessions
            .values_mut()
            .for_each(|(record, ..)| record.token = None);
        state
            .file
            .wills
            .values_mut()
            .for_each(|record| record.token = None);
    }

    /// The tokens that sessions are known to have been made with.
    #[must_use]
    pub fn session_tokens(&self) -> Vec<Option<Mark>> {
        let state = self.state();
        let sessions = state.file.sessions.values();
        sessions.map(|(record, ..)| record.token).collect()
    }

    /// Pushes in the file, owed or sent.
    pub fn pushes(&self) -> Vec<PushRecord> {
        self.state().file.pushes.values().cloned().collect()
    }

    /// Commits the first `count` calls.
    pub fn commit(&self, count: usize) {
        let mut state = self.state();
        for _ in 0..count {
            let Some((writes, receipt)) = state.calls.pop_front() else {
                break;
            };
            for write in writes {
                state.file.apply(write);
            }
            state.kept.extend(receipt);
        }
    }

    /// Fails to commit the first `count` calls. Those that [may be](is_refusable) are refused: the message and what stands or
    /// falls with it; whatever else they hold waits again, as the others do.
    pub fn fail(&self, count: usize) {
        let refused = {
            let mut state = self.state();
            let count = count.min(state.calls.len());
            let rest = state.calls.split_off(count);
            let mut refused = Vec::new();
            for (mut writes, mut receipt) in std::mem::take(&mut state.calls) {
                if is_refusable(&writes) {
                    refused.extend(receipt.take());
                    writes = writes.into_iter().filter_map(without_message).collect();
                }
                if !writes.is_empty() || receipt.is_some() {
                    state.calls.push_back((writes, receipt));
                }
            }
            state.calls.extend(rest);
            refused
        };
        for receipt in refused {
            receipt.refused(refusals::STORE);
        }
    }

    /// Resolves one of the receipts whose calls are committed.
    pub fn answer(&self, which: usize) {
        let receipt = self.state().kept.remove(which);
        receipt.stored();
    }

    /// Reads what was asked for first.
    pub fn read(&self) -> bool {
        let (then, found) = {
            let mut state = self.state();
            let Some((seqs, then)) = state.loads.pop_front() else {
                return false;
            };
            let find = |seq| Some((seq, state.find(seq)?));
            (then, seqs.into_iter().filter_map(find).collect())
        };
        then(found);
        true
    }

    /// Commits, answers and reads all there is; whether there was anything.
    pub fn flush(&self) -> bool {
        let mut busy = self.waiting() > 0;
        self.commit(usize::MAX);
        let kept = std::mem::take(&mut self.state().kept);
        busy |= !kept.is_empty();
        kept.into_iter().for_each(Receipt::stored);
        while self.read() {
            busy = true;
        }
        busy
    }

    /// What a store would find that is opened on what is committed.
    pub fn find(&self) -> (Vec<RecoveredEntry>, Recovered) {
        self.state().file.recover()
    }

    /// Whatever was not committed is gone; what a store finds when it is opened on the rest.
    pub fn crash(&self) -> (Vec<RecoveredEntry>, Recovered) {
        let mut state = self.state();
        state.calls.clear();
        state.kept.clear();
        state.loads.clear();
        state.answered_after.clear();
        state.file.recover()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test that panics has failed")
    }
}

impl State {
    fn find(&self, seq: Seq) -> Option<Arc<Message>> {
        let waiting = self.calls.iter().flat_map(|(writes, _)| writes);
        let appended = waiting.filter_map(|write| match write {
            Write::Append(append) | Write::Retain(append) if append.seq == seq => {
                Some(&append.message)
            }
            _ => None,
        });
        let filed = self
            .file
            .entries
            .get(&seq)
            .map(|(append, _)| &append.message);
        appended.chain(filed).next().cloned()
    }

    /// An append that waits is removed: it is never written. Whether it was so.
    fn spare(&mut self, seq: Seq) -> bool {
        let is_it = |(writes, _): &(Writes, _)| matches!(&writes[..], [Write::Append(append)] if append.seq == seq);
        let Some(index) = self.calls.iter().position(is_it) else {
            return false;
        };
        let (_, receipt) = self.calls.remove(index).expect("it was found there");
        if self.answered_after.remove(&seq) {
            self.calls.push_back((Writes::new(), receipt));
        } else {
            self.kept.extend(receipt);
        }
        true
    }
}

/// What is left of a write when the message in its call is refused.
fn without_message(write: Write) -> Option<Write> {
    match write {
        Write::Append(_) | Write::EndWill(_) => None,
        Write::Received(session, id) => Some(Write::Released(session, id)),
        other => Some(other),
    }
}

/// A time as it comes back from a file that keeps milliseconds.
fn up_to_millis(time: Time) -> Time {
    Time::from_millis(time.as_millis_up())
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

impl File {
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
            Write::Received(id, packet_id) => {
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
            Write::EndWill(id) => {
                self.wills.remove(&id);
            }
            Write::Push(mut record) => {
                record.at = up_to_millis(record.at);
                record.expires_at = up_to_millis(record.expires_at);
                let key = (record.receiver.clone(), record.sender.clone());
                self.pushes.insert(key, *record);
            }
            Write::EndPush(receiver, sender) => {
                self.pushes.remove(&(receiver, sender));
            }
            Write::AnswerAfter(_) => {}
            Write::Owner(mut owner) => {
                owner.gone_since = owner.gone_since.map(up_to_millis);
                self.owners.insert(owner.user.clone(), *owner);
            }
            Write::EndOwner(user) => {
                self.owners.remove(&user);
            }
        }
    }

    fn recover(&self) -> (Vec<RecoveredEntry>, Recovered) {
        let sessions = self.sessions.values().cloned();
        let sessions = sessions
            .map(|(record, received, flights)| (record, received.into_iter().collect(), flights));
        let entry = |(append, acknowledged): &(Append, bool)| {
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
        };
        let entries = self.entries.values().map(entry).collect();
        let retained = self.retained.iter().map(|seq| {
            let (append, _) = &self.entries[seq];
            let topic = append.message.topic();
            RetainedTopic {
                user: append.user.clone(),
                topic: (&**topic).into(),
                seq: *seq,
            }
        });
        let claims = self.claims.iter().map(|(session, seq)| {
            let (record, ..) = &self.sessions[session];
            RecoveredClaim {
                user: record.user.clone(),
                session: *session,
                seq: *seq,
            }
        });
        let rest = Recovered {
            sessions: sessions.collect(),
            retained: retained.collect(),
            claims: claims.collect(),
            wills: self.wills.values().cloned().collect(),
            pushes: self.pushes.values().cloned().collect(),
            owners: self.owners.values().cloned().collect(),
            last_seq: self.last,
        };
        (entries, rest)
    }
}

impl MailboxStore for CrashingStore {
    fn write(&self, mut writes: Writes, receipt: Option<Receipt>) {
        let mut state = self.state();
        for write in &writes {
            if let Write::AnswerAfter(seq) = write {
                state.answered_after.insert(*seq);
            }
        }
        writes.retain(|write| !matches!(write, Write::Remove(seq) if state.spare(*seq)));
        if !writes.is_empty() || receipt.is_some() {
            state.calls.push_back((writes, receipt));
        }
    }

    fn load(&self, seqs: Vec<Seq>, then: OnLoaded) {
        self.state().loads.push_back((seqs, then));
        self.settle();
    }

    fn is_ending_sessions(&self) -> bool {
        let state = self.state();
        let mut writes = state.calls.iter().flat_map(|(writes, _)| writes);
        writes.any(|write| matches!(write, Write::EndSession(_)))
    }

    fn settle(&self) {
        // Resolving receipts makes calls, which come here again: one level is enough.
        let at_once = std::mem::take(&mut self.state().at_once);
        if at_once {
            while self.flush() {}
            self.state().at_once = true;
        }
    }
}
