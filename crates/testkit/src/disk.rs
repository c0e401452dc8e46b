//! A store with a file, as a model: what is written reaches the file in batches, and a crash loses the rest.
//!
//! It does nothing by itself but take calls: the simulator says when a batch is committed, when it fails,
//! when completions are called (in any order), and when messages are read.
//!
//! Invariants: the file is what some prefix of the calls has left; no completion is called before its call
//! is committed, but for an append that is removed before it was; that is, if no other call has to be committed first
//! ([`Write::AnswerAfter`]). What is kept is kept by user: a write that names another one than whose it is changes
//! nothing.

mod file;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jam_core::directory::Mark;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::router::OnCommit;
use jam_core::store::{
    Completion, MailboxStore, OnLoaded, OutboundStates, OwnerRecord, PushRecord, Recovered,
    RecoveredEntry, Seq, StoreError, StoreEvents, Write, Writes, is_refusable,
};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;
use jam_wire::packet::PacketId;

use file::{File, Kept, apply, recover};

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

    /// As [`Self::fail`], of a commit that has reached the file all the same: what is rejected leaves it with the next one.
    pub fn fail_in_the_file(&self) {
        let mut removals = VecDeque::new();
        {
            let mut state = self.state();
            let state = &mut *state;
            for call in &state.calls {
                for write in &call.writes {
                    apply(&mut state.file, &call.user, write.clone());
                    if let Write::Append(append) = write
                        && is_refusable(&call.writes)
                    {
                        removals.push_back(Call {
                            user: call.user.clone(),
                            writes: Writes::from_iter([Write::Remove(append.seq)]),
                            completion: None,
                        });
                    }
                }
            }
        }
        self.fail();
        self.state().calls.append(&mut removals);
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

    fn received_at(&self, messages: &[(UserId, Seq)]) -> Result<Vec<(Seq, Time)>, StoreError> {
        let state = self.state();
        let find = |(user, seq): &(UserId, Seq)| {
            let (append, _) = state.file.get(user)?.entries.get(seq)?;
            Some((*seq, append.message.received_at()))
        };
        Ok(messages.iter().filter_map(find).collect())
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
