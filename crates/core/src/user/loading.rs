//! Content that was read from the store for a device, until it is sent.

use std::sync::Arc;

use super::Device;
use crate::loads::LoadPermit;
use crate::message::Message;
use crate::store::Seq;

/// In the order in which it will be sent.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    messages: Vec<(Seq, Arc<Message>)>,
    permit: Option<LoadPermit>,
}

impl Device {
    /// What was read of a message.
    pub(super) fn loaded(&self, seq: Seq) -> Option<&Arc<Message>> {
        let mut messages = self.loaded.as_ref()?.messages.iter();
        let (_, message) = messages.find(|(loaded, _)| *loaded == seq)?;
        Some(message)
    }

    /// More was read.
    pub(super) fn load(&mut self, found: Vec<(Seq, Arc<Message>)>, permit: LoadPermit) {
        let loaded = self.loaded.get_or_insert_default();
        loaded.messages.extend(found);
        match &mut loaded.permit {
            Some(before) => before.join(permit),
            none => *none = Some(permit),
        }
        if loaded.messages.is_empty() {
            self.loaded = None;
        }
    }

    /// A message that nobody else has is needed again.
    pub(super) fn keep(&mut self, seq: Seq, message: Arc<Message>) {
        if self.loaded(seq).is_none() {
            let loaded = self.loaded.get_or_insert_default();
            loaded.messages.push((seq, message));
        }
    }

    /// What was read of this message is not needed any more.
    pub(super) fn unload(&mut self, seq: Seq) {
        let Some(loaded) = &mut self.loaded else {
            return;
        };
        if let Some(place) = loaded.messages.iter().position(|(other, _)| *other == seq) {
            let (_, message) = loaded.messages.remove(place);
            if let Some(permit) = &mut loaded.permit {
                permit.give_back(message.weight());
            }
        }
        if loaded.messages.is_empty() {
            self.loaded = None;
        }
    }
}
