//! Content that is read from the store for a device, and kept until it is sent.

use std::sync::Arc;

use super::Device;
use crate::ids::UserId;
use crate::link::LinkId;
use crate::loads::{Load, LoadPermit};
use crate::mailbox::{Entry, Mailbox, Residence};
use crate::message::Message;
use crate::output::OUTPUT_ENOUGH;
use crate::store::{OutboundState, Seq};

/// Messages that are read from the store at once for one device.
const LOAD_MESSAGES: usize = 64;
/// Bytes of those, or one message: no more than goes into an output at once.
const LOAD_BYTES: u64 = OUTPUT_ENOUGH as u64;

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

    /// Keeps a message that is needed again and is in memory nowhere else.
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

/// What a device will need of the store next. `open`: how many more messages its window has room for.
pub(super) fn to_load(
    user: &UserId,
    link: LinkId,
    device: &Device,
    mailbox: &Mailbox,
    open: usize,
) -> Load {
    // What is in the window already needs no further place in it.
    let due = device.session.due().filter_map(|it| match it.flight {
        OutboundState::AwaitsPubAck(seq) | OutboundState::AwaitsPubRec(seq) => {
            Some((mailbox.get(seq)?, !it.in_window))
        }
        OutboundState::AwaitsPubComp => None,
    });
    let new = mailbox.unsent(device.slot, device.session.cursor);
    let new = new.take_while(|entry| entry.residence != Residence::Committing);
    let new = new.map(|entry| (entry, true));
    let mut load = Load {
        user: user.clone(),
        link,
        seqs: Vec::new(),
        bytes: 0,
    };
    let missing =
        |(entry, _): &(&Entry, bool)| entry.message.is_none() && device.loaded(entry.seq).is_none();
    let mut places = open.max(1);
    for (entry, takes_place) in due.chain(new).filter(missing).take(LOAD_MESSAGES) {
        let is_full = load.bytes > 0 && load.bytes + entry.size() > LOAD_BYTES;
        if is_full || (takes_place && places == 0) {
            break;
        }
        places -= usize::from(takes_place);
        load.seqs.push(entry.seq);
        load.bytes += entry.size().max(1);
    }
    load
}
