//! A store that keeps nothing and answers when and as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::router::OnCommit;
use jam_core::store::{
    Completion, MailboxStore, OnLoaded, RecoveredEntry, Seq, StoreError, StoreEvents, Write, Writes,
};
use jam_core::time::Time;
use jam_core::timekeeping::ClockRecord;

/// Says at once that a message is stored, unless it is told to [`hold`](FaultyStore::hold) its answers.
#[derive(Debug, Default)]
pub struct FaultyStore {
    state: Mutex<StoreState>,
}

#[derive(Debug, Default)]
struct StoreState {
    holding: bool,
    hangs: bool,
    turns: u64,
    in_trouble: bool,
    held: Vec<OnCommit>,
    /// Appended and not removed.
    kept: BTreeMap<Seq, Arc<Message>>,
    /// Those of them that are retained.
    retained: BTreeSet<Seq>,
    /// To be answered when no lock is held.
    settled: Vec<OnCommit>,
    appended: usize,
}

impl FaultyStore {
    /// Whether answers are held back from now on. Those that are held stay so.
    pub fn hold(&self, holding: bool) {
        self.state().holding = holding;
    }

    /// Whether appends are refused before they are tried from now on.
    pub fn trouble(&self, in_trouble: bool) {
        self.state().in_trouble = in_trouble;
    }

    /// Whether the thread that writes would hang from now on.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// How many answers are held back.
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Messages appended and not removed, but for those that are retained.
    pub fn kept(&self) -> usize {
        let state = self.state();
        state.kept.len() - state.retained.len()
    }

    /// Retained messages.
    pub fn retained(&self) -> usize {
        self.state().retained.len()
    }

    /// Messages appended so far.
    pub fn appended(&self) -> usize {
        self.state().appended
    }

    /// Answers the publish at this place among those held back: it is stored.
    pub fn release(&self, index: usize) {
        self.take(index).committed();
    }

    /// Answers all that are held back, in order.
    pub fn release_all(&self) {
        let held = std::mem::take(&mut self.state().held);
        held.into_iter().for_each(OnCommit::committed);
    }

    /// Answers the publish at this place among those held back: it could not be stored.
    pub fn reject(&self, index: usize) {
        self.take(index).rejected();
    }

    /// Never answers the publish at this place among those held back.
    pub fn lose(&self, index: usize) {
        drop(self.take(index));
    }

    fn take(&self, index: usize) -> OnCommit {
        self.state().held.remove(index)
    }

    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().expect("a test that panics has failed")
    }
}

impl MailboxStore<OnCommit> for FaultyStore {
    fn recover_entries(&self, _: &(dyn Fn(RecoveredEntry) + Sync)) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn attach(&self, _: Box<dyn StoreEvents>) {}

    fn keep_clock(&self, _: ClockRecord) {}

    /// Nothing is left to do but what is held back.
    fn flush(&self, _: Duration) -> bool {
        self.settle();
        self.held() == 0
    }

    fn write(&self, _: &UserId, writes: Writes, completion: Option<OnCommit>) {
        let mut state = self.state();
        for write in writes {
            match write {
                Write::Append(append) => {
                    state.appended += 1;
                    state.kept.insert(append.seq, append.message);
                }
                Write::Retain(append) => {
                    state.retained.insert(append.seq);
                    state.kept.insert(append.seq, append.message);
                }
                Write::Unretain(seq) => {
                    state.retained.remove(&seq);
                }
                Write::Remove(seq) => {
                    state.kept.remove(&seq);
                }
                _ => {}
            }
        }
        if state.holding {
            state.held.extend(completion);
        } else {
            state.settled.extend(completion);
        }
    }

    fn load(&self, _: &UserId, seqs: Vec<Seq>, then: OnLoaded) {
        let found = {
            let state = self.state();
            let find = |seq| Some((seq, state.kept.get(&seq)?.clone()));
            seqs.into_iter().filter_map(find).collect()
        };
        then(found);
    }

    fn received_at(&self, messages: &[(UserId, Seq)]) -> Result<Vec<(Seq, Time)>, StoreError> {
        let state = self.state();
        let seqs = messages.iter().map(|(_, seq)| *seq);
        let find = |seq| Some((seq, state.kept.get(&seq)?.received_at()));
        Ok(seqs.filter_map(find).collect())
    }

    fn turns(&self) -> Option<u64> {
        let mut state = self.state();
        state.turns += u64::from(!state.hangs);
        Some(state.turns)
    }

    fn accepts(&self) -> bool {
        !self.state().in_trouble
    }

    fn settle(&self) {
        let settled = std::mem::take(&mut self.state().settled);
        settled.into_iter().for_each(OnCommit::committed);
    }
}
