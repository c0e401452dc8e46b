//! What a device has acknowledged, as far as the server and its store know.

use std::collections::HashSet;

use super::Device;
use crate::simulator::{Message, Messages};

/// More than the will of a session weighs whose fate a crash has made doubtful.
const ANY_WILL: u64 = 300;

impl Device {
    pub(super) fn has_acked(&mut self, number: usize, messages: &Messages) {
        self.fresh_acks.push(number);
        // Of several copies it may be any.
        if messages[number].resent > 0 {
            return;
        }
        if self.is_heard() {
            self.acked.insert(number);
        } else {
            self.late_acks.push(number);
        }
    }

    /// The server has handled what the device had sent.
    pub(super) fn acks_are_heard(&mut self) {
        self.acked.extend(self.late_acks.drain(..));
    }

    /// The store knows of them.
    pub(in crate::simulator) fn acks_are_kept(&mut self) {
        self.fresh_acks.clone_from(&self.late_acks);
    }

    /// The server was killed: nobody may know of them.
    pub(in crate::simulator) fn acks_are_undone(&mut self, messages: &mut Messages) {
        self.late_acks.clear();
        for number in self.fresh_acks.drain(..) {
            self.acked.remove(&number);
            messages[number].is_doubtful = true;
        }
        // What was another's since an UNSUBSCRIBE may wait for it again if it has subscribed since: it has not had it
        // (PROTOCOL.md, section 7.6).
        self.acked.retain(|number| self.seen.contains(number));
    }

    /// Everything that is for the device has been sent to it.
    pub(in crate::simulator) fn is_caught_up(&self) -> bool {
        let has_room = self.window.len() < self.most_in_window();
        self.is_heard() && self.reads && self.subscribed && has_room && self.max_packet.is_none()
    }

    /// What the device has been sent and has not acknowledged.
    pub(in crate::simulator) fn on_its_way(&self) -> HashSet<usize> {
        self.in_flight.values().flatten().copied().collect()
    }

    pub(in crate::simulator) fn is_on_its_way(&self, number: usize) -> bool {
        self.in_flight.values().any(|it| *it == Some(number))
    }

    pub(in crate::simulator) fn has_seen(&self, number: usize) -> bool {
        self.seen.contains(&number)
    }

    /// Whether something may have been sent to it that it has not seen.
    pub(in crate::simulator) fn may_have_missed(&self) -> bool {
        self.missed || self.crashed || !self.reads
    }

    /// Whether a message may wait for this device.
    pub(in crate::simulator) fn may_be_its(&self, number: usize) -> bool {
        let reads = self.subscribed || self.maybe_subscribed;
        reads || self.owed.contains(&number) || self.seen.contains(&number)
    }

    /// Whether it has a connection on which large messages do not come.
    pub(in crate::simulator) fn takes_little(&self) -> bool {
        self.connected && self.max_packet.is_some()
    }

    /// What the will weighs that the session has.
    pub(in crate::simulator) fn will_weight(&self) -> u64 {
        let own = self.will.as_ref();
        let own = own.map_or(0, |it| (it.will.topic.len() + it.will.payload.len()) as u64);
        own + if self.crashed { ANY_WILL } else { 0 }
    }

    /// Whether the server was right about the room for a message.
    pub(super) fn check_refusal(&self, is_quota: bool, refusal: Option<bool>, message: &Message) {
        if let Some(refusal) = refusal {
            let user = &self.user;
            assert_eq!(is_quota, refusal, "{user}: no room for {message:?}?");
        }
    }
}
