//! A store with a file, as a model: what is written reaches it in batches, and a crash loses the rest.
//!
//! It does nothing by itself but take calls: the simulator says when a batch is committed, when it fails,
//! when completions are called (in any order), and when messages are read.
//!
//! Invariants: the file is what some prefix of the calls has left; no completion is called before its call
//! is committed, but for an append that is removed before it was; that is, if no other call has to be committed first
//! ([`Write::AnswerAfter`]). What is kept is kept by user: a write that names another one than whose it is changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jam_core::directory::Mark;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::router::OnCommit;
use jam_core::store::{
    Append, Completion, MailboxStore, OnLoaded, OutboundStates, OwnerRecord, PushRecord, Recovered,
    RecoveredClaim, RecoveredEntry, RetainedTopic, Seq, SessionId, SessionRecord, StoreError,
    StoreEvents, WillId, WillRecord, Write, Writes, is_refusable,
};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
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
    calls: VecDeque<Call>,
    /// Committed, and to be called.
    kept: Vec<OnCommit>,
    loads: VecDeque<(UserId, Vec<Seq>, OnLoaded)>,
    events: Option<Arc<dyn StoreEvents>>,
    /// Survives as soon as it is said.
    clock: Option<ClockRecord>,
    /// Whether every call is committed and answered as soon as no lock is held.
    at_once: bool,
    /// Messages whose calls are not answered before the file has what was written up to now.
    answered_after: BTreeSet<(UserId, Seq)>,
}

/// What is kept together.
struct Call {
    user: UserId,
    writes: Writes,
    completion: Option<OnCommit>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} calls)", self.calls.len())
    }
}

/// What survives, by user.
type File = BTreeMap<UserId, Kept>;

/// What survives of one user.
#[derive(Debug, Default, Clone)]
struct Kept {
    sessions: BTreeMap<SessionId, (SessionRecord, BTreeSet<PacketId>, OutboundStates)>,
    /// With whether anybody has acknowledged it.
    entries: BTreeMap<Seq, (Append, bool)>,
    /// The retained messages among the entries.
    retained: BTreeSet<Seq>,
    claims: BTreeSet<(SessionId, Seq)>,
    wills: BTreeMap<WillId, WillRecord>,
    /// By sender.
    pushes: BTreeMap<UserId, PushRecord>,
    owner: Option<OwnerRecord>,
    last: u64,
}

impl CrashingStore {
    /// Calls that wait for a commit.
    pub fn waiting(&self) -> usize {
        self.state().calls.len()
    }

    /// Completions that wait to be called.
    pub fn unanswered(&self) -> usize {
        self.state().kept.len()
    }

    /// Messages in the file, but for those that are retained.
    pub fn kept(&self) -> usize {
        let messages = |kept: &Kept| kept.entries.len() - kept.retained.len();
        self.state().file.values().map(messages).sum()
    }

    /// What a user has in the file, and what waits to be written.
    pub fn weights(&self, user: &str) -> Weights {
        let state = self.state();
        let mut weights = Weights::default();
        let is_its = |(id, _): &(&UserId, &Kept)| id.as_str() == user;
        if let Some((_, kept)) = state.file.iter().find(is_its) {
            for (seq, (append, _)) in &kept.entries {
                let weight = append.message.weight();
                if append.inbox {
                    weights.messages += 1;
                    weights.bytes += weight;
                } else if kept.retained.contains(seq) {
                    weights.retained_bytes += weight;
                }
            }
            let sessions = kept.sessions.values();
            let wills = sessions.filter_map(|(record, ..)| record.will.as_ref());
            let wills = wills.chain(kept.wills.values().map(|it| &it.will));
            weights.will_bytes = wills
                .map(|will| (will.topic.len() + will.payload.len()) as u64)
                .sum();
        }
        let calls = state.calls.iter().filter(|it| it.user.as_str() == user);
        for write in calls.flat_map(|call| &call.writes) {
            if let Write::Append(append) | Write::Retain(append) = write {
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
        let state = self.state();
        let owners = state.file.values().filter_map(|kept| kept.owner.clone());
        owners.collect()
    }

    /// Whether anything is in the file: messages, retained or not, claims of those, packet ids, pushes, wills.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        let idle = |(_, received, flights): &(_, BTreeSet<PacketId>, OutboundStates)| {
            received.is_empty() && flights.is_empty()
        };
        state.file.values().all(|kept| {
            kept.entries.is_empty()
                && kept.retained.is_empty()
                && kept.claims.is_empty()
                && kept.wills.is_empty()
                && kept.pushes.is_empty()
                && kept.sessions.values().all(idle)
        })
    }

    /// Retained messages in the file, and claims of those.
    pub fn retained(&self) -> (usize, usize) {
        let state = self.state();
        let retained = state.file.values().map(|kept| kept.retained.len());
        let claims = state.file.values().map(|kept| kept.claims.len());
        (retained.sum(), claims.sum())
    }

    /// Sessions and wills are as an earlier version of the server kept them, which knew of no tokens.
    pub fn forget_tokens(&self) {
        let mut state = self.state();
        for kept in state.file.values_mut() {
            let sessions = kept.sessions.values_mut();
            sessions.for_each(|(record, ..)| record.token = None);
            let wills = kept.wills.values_mut();
            wills.for_each(|record| record.token = None);
        }
    }

    /// The tokens that sessions are known to have been made with.
    #[must_use]
    pub fn session_tokens(&self) -> Vec<Option<Mark>> {
        let state = self.state();
        let sessions = state.file.values().flat_map(|kept| kept.sessions.values());
        let mut sessions: Vec<_> = sessions.map(|(record, ..)| record).collect();
        sessions.sort_by_key(|record| record.id);
        sessions.iter().map(|record| record.token).collect()
    }

    /// Pushes in the file, owed or sent.
    pub fn pushes(&self) -> Vec<PushRecord> {
        let state = self.state();
        let pushes = state.file.values().flat_map(|kept| kept.pushes.values());
        pushes.cloned().collect()
    }

    /// Commits the first `count` calls.
    pub fn commit(&self, count: usize) {
        let mut state = self.state();
        for _ in 0..count {
            let Some(call) = state.calls.pop_front() else {
                break;
            };
            for write in call.writes {
                apply(&mut state.file, &call.user, write);
            }
            state.kept.extend(call.completion);
        }
    }

    /// Fails to commit. The calls that [may be](is_refusable) are rejected, those that came since with them: the message
    /// and what stands or falls with it; whatever else they hold waits again, as the others do.
    pub fn fail(&self) {
        let rejected = {
            let mut state = self.state();
            let mut rejected = Vec::new();
            for mut call in std::mem::take(&mut state.calls) {
                if is_refusable(&call.writes) {
                    rejected.extend(call.completion.take());
                    let writes = call.writes.into_iter();
                    let (freed, others) = writes.partition(|it| matches!(it, Write::Received(..)));
                    call.writes = others;
                    call.writes
                        .retain(|it| !matches!(it, Write::Append(_) | Write::EndWill(..)));
                    state.calls.extend(freed_ids(freed));
                }
                if !call.writes.is_empty() || call.completion.is_some() {
                    state.calls.push_back(call);
                }
            }
            rejected
        };
        rejected.into_iter().for_each(OnCommit::rejected);
        let events = self.state().events.clone();
        if let Some(events) = events {
            events.failing();
        }
    }

    /// Calls one of the completions of what is committed.
    pub fn answer(&self, which: usize) {
        let completion = self.state().kept.remove(which);
        completion.committed();
    }

    /// Reads what was asked for first.
    pub fn read(&self) -> bool {
        let (then, found) = {
            let mut state = self.state();
            let Some((user, seqs, then)) = state.loads.pop_front() else {
                return false;
            };
            let find = |seq| Some((seq, state.find(&user, seq)?));
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
        kept.into_iter().for_each(OnCommit::committed);
        while self.read() {
            busy = true;
        }
        busy
    }

    /// What a store would find that is opened on what is committed.
    pub fn find(&self) -> (Vec<RecoveredEntry>, Recovered) {
        self.state().find_all()
    }

    /// Whatever was not committed is gone; what a store finds when it is opened on the rest, besides the entries.
    pub fn crash(&self) -> Recovered {
        let mut state = self.state();
        state.calls.clear();
        state.kept.clear();
        state.loads.clear();
        state.answered_after.clear();
        state.events = None;
        let (_, found) = state.find_all();
        found
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test that panics has failed")
    }
}

impl State {
    fn find_all(&self) -> (Vec<RecoveredEntry>, Recovered) {
        let (entries, mut found) = recover(&self.file);
        found.clock = self.clock;
        (entries, found)
    }

    fn find(&self, user: &UserId, seq: Seq) -> Option<Arc<Message>> {
        let calls = self.calls.iter().filter(|call| call.user == *user);
        let appended = calls.flat_map(|call| &call.writes);
        let appended = appended.filter_map(|write| match write {
            Write::Append(append) | Write::Retain(append) if append.seq == seq => {
                Some(&append.message)
            }
            _ => None,
        });
        let kept = self.file.get(user);
        let filed = kept.and_then(|kept| kept.entries.get(&seq));
        let filed = filed.map(|(append, _)| &append.message);
        appended.chain(filed).next().cloned()
    }

    /// An append that waits is removed: it is never written. Whether it was so.
    fn spare(&mut self, user: &UserId, seq: Seq) -> bool {
        let is_it = |call: &Call| {
            call.user == *user
                && matches!(&call.writes[..], [Write::Append(append)] if append.seq == seq)
        };
        let Some(index) = self.calls.iter().position(is_it) else {
            return false;
        };
        let mut call = self.calls.remove(index).expect("it was found there");
        if self.answered_after.remove(&(user.clone(), seq)) {
            call.writes = Writes::new();
            self.calls.push_back(call);
        } else {
            self.kept.extend(call.completion);
        }
        true
    }
}

/// The ids of QoS 2 messages that are rejected are free again, whatever has reached the file.
fn freed_ids(received: Writes) -> impl Iterator<Item = Call> {
    received.into_iter().filter_map(|write| match write {
        Write::Received(user, session, id) => Some(Call {
            user,
            writes: Writes::from_iter([Write::Released(session, id)]),
            completion: None,
        }),
        _ => None,
    })
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

/// What a write does to the file: to what is kept of `user`, unless it names another.
fn apply(file: &mut File, user: &UserId, write: Write) {
    let named = match &write {
        Write::Received(other, ..) | Write::EndWill(other, _) => other,
        _ => user,
    };
    file.entry(named.clone()).or_default().apply(write);
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

/// What is found in the file, in ascending order of numbers.
fn recover(file: &File) -> (Vec<RecoveredEntry>, Recovered) {
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

impl MailboxStore<OnCommit> for CrashingStore {
    fn recover_entries(&self, take: &(dyn Fn(RecoveredEntry) + Sync)) -> Result<usize, StoreError> {
        let (entries, _) = self.find();
        let count = entries.len();
        // In any order.
        entries.into_iter().rev().for_each(take);
        Ok(count)
    }

    fn attach(&self, events: Box<dyn StoreEvents>) {
        self.state().events = Some(events.into());
    }

    fn keep_clock(&self, record: ClockRecord) {
        self.state().clock = Some(record);
    }

    fn flush(&self, _: Duration) -> bool {
        while self.flush() {}
        true
    }

    fn write(&self, user: &UserId, mut writes: Writes, completion: Option<OnCommit>) {
        let mut state = self.state();
        for write in &writes {
            if let Write::AnswerAfter(receiver, seq) = write {
                state.answered_after.insert((receiver.clone(), *seq));
            }
        }
        writes.retain(|write| !matches!(write, Write::Remove(seq) if state.spare(user, *seq)));
        if !writes.is_empty() || completion.is_some() {
            let user = user.clone();
            state.calls.push_back(Call {
                user,
                writes,
                completion,
            });
        }
    }

    fn load(&self, user: &UserId, seqs: Vec<Seq>, then: OnLoaded) {
        self.state().loads.push_back((user.clone(), seqs, then));
        self.settle();
    }

    fn is_ending_sessions(&self) -> bool {
        let state = self.state();
        let mut writes = state.calls.iter().flat_map(|call| &call.writes);
        writes.any(|write| matches!(write, Write::EndSession(_)))
    }

    fn settle(&self) {
        // Completions make calls, which come here again: one level is enough.
        let at_once = std::mem::take(&mut self.state().at_once);
        if at_once {
            while self.flush() {}
            self.state().at_once = true;
        }
    }
}
