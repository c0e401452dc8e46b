//! A store that keeps nothing and answers when and as it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::policy::Refusal;
use jam_core::store::{MailboxStore, Receipt, Seq};

/// Says at once that a message is stored, unless it is told to [`hold`](FaultyStore::hold) its answers.
#[derive(Debug, Default)]
pub struct FaultyStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holding: bool,
    held: Vec<Receipt>,
    /// Appended and not removed.
    kept: BTreeSet<Seq>,
    appended: usize,
}

impl FaultyStore {
    /// Whether answers are held back from now on. Those that are held stay so.
    pub fn hold(&self, holding: bool) {
        self.state().holding = holding;
    }

    /// How many answers are held back.
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Messages appended and not removed.
    pub fn kept(&self) -> usize {
        self.state().kept.len()
    }

    /// Messages appended so far.
    pub fn appended(&self) -> usize {
        self.state().appended
    }

    /// Answers the publish at this place among those held back: it is stored.
    pub fn release(&self, index: usize) {
        self.take(index).stored();
    }

    /// Answers all that are held back, in order.
    pub fn release_all(&self) {
        let held = std::mem::take(&mut self.state().held);
        held.into_iter().for_each(Receipt::stored);
    }

    /// Answers the publish at this place among those held back: it could not be stored.
    pub fn refuse(&self, index: usize, refusal: Refusal) {
        self.take(index).refused(refusal);
    }

    /// Never answers the publish at this place among those held back.
    pub fn lose(&self, index: usize) {
        drop(self.take(index));
    }

    fn take(&self, index: usize) -> Receipt {
        self.state().held.remove(index)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test that panics has failed")
    }
}

impl MailboxStore for FaultyStore {
    fn append(&self, seq: Seq, _: &UserId, _: &Arc<Message>, receipt: Option<Receipt>) {
        let mut state = self.state();
        state.kept.insert(seq);
        state.appended += 1;
        if state.holding {
            state.held.extend(receipt);
            return;
        }
        drop(state);
        receipt.into_iter().for_each(Receipt::stored);
    }

    fn remove(&self, seq: Seq, _: &UserId) {
        self.state().kept.remove(&seq);
    }
}
