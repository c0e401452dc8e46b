//! Which devices of a user are to be told of the user's friends, and that they are (PROTOCOL.md, section 10).
//!
//! Invariants, checked by `tests/friends.rs`: *one list*: the next list waits until a device has been sent all of the last one;
//! *whole*: a list joins the log with all of its parts or not at all.

use std::num::NonZeroU32;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Device, Effects, MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES, User, UserLimits};
use crate::link::LinkId;
use crate::mailbox::{DeviceSet, Kind, Residence};
use crate::message::Message;
use crate::store::{Seq, Sequence};
use crate::time::Time;

/// The connections that subscribe to their user's friends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Watching {
    /// Those that may be told now.
    pub(crate) ready: SmallVec<[LinkId; 1]>,
    /// Those of them that are to be told whatever they know.
    pub(crate) asked: SmallVec<[LinkId; 1]>,
    /// Those that have not been sent all of their last list.
    pub(crate) behind: SmallVec<[LinkId; 1]>,
}

impl Device {
    /// Whether it is connected and to be told of its user's friends.
    pub(super) fn watches_friends(&self) -> bool {
        self.link.is_some() && self.listening.friends()
    }
}

impl User {
    /// A connection has begun. If its session subscribes to friends, it is told of them: of what has changed meanwhile it
    /// would not hear otherwise.
    pub(crate) fn note_return(&mut self, link: LinkId, effects: &mut Effects) {
        let mut devices = self.devices.iter_mut();
        if let Some(device) = devices.find(|device| device.is_linked(link))
            && device.watches_friends()
        {
            device.awaits_friends = true;
            effects.rare().look_at_friends = true;
        }
    }

    /// Has the router look at devices that ask for their user's friends.
    pub(super) fn ask_for_friends(&self, effects: &mut Effects) {
        let mut devices = self.devices.iter();
        if devices.any(|device| device.awaits_friends && device.watches_friends()) {
            effects.rare().look_at_friends = true;
        }
    }

    /// The connections that are to be sent the list. From now on those that asked count as served. `last` is the last part
    /// of the list that a connection has been sent.
    pub(crate) fn take_watching(&mut self, last: impl Fn(LinkId) -> Option<Seq>) -> Watching {
        let mut watching = Watching::default();
        for device in &mut self.devices {
            let Some(link) = device.link.as_ref().map(|link| link.id()) else {
                continue;
            };
            if !device.listening.friends() {
                continue;
            }
            let last = last(link).and_then(|last| self.mailbox.get(last));
            if last.is_some_and(|entry| entry.waits_for().contains(device.slot)) {
                watching.behind.push(link);
                continue;
            }
            watching.ready.push(link);
            if std::mem::take(&mut device.awaits_friends) {
                watching.asked.push(link);
            }
        }
        watching
    }

    /// The list could not be sent to those that asked: they ask again.
    pub(crate) fn ask_again(&mut self, asked: &[LinkId]) {
        for device in &mut self.devices {
            let link = device.link.as_ref().map(|link| link.id());
            device.awaits_friends |= link.is_some_and(|link| asked.contains(&link));
        }
    }

    /// Bytes of a packet that all of these connections take, if one of them said so.
    pub(crate) fn largest_packet(&self, links: &[LinkId]) -> Option<NonZeroU32> {
        let own = self.links().filter(|link| links.contains(&link.id()));
        own.filter_map(|link| link.peer().max_packet).min()
    }

    /// Tells connections of this user of the user's friends: the number of the last part. `None` if there is no room.
    pub(crate) fn tell_friends(
        &mut self,
        parts: Vec<Message>,
        to: &[LinkId],
        now: Time,
        limits: &UserLimits,
        numbers: &Sequence,
        effects: &mut Effects,
    ) -> Option<Seq> {
        let mut readers = DeviceSet::default();
        let mut wake = SmallVec::<[_; 1]>::new();
        for device in self.devices.iter().filter(|it| it.listening.friends()) {
            let Some(link) = &device.link else { continue };
            if to.contains(&link.id()) {
                readers.insert(device.slot);
                wake.push(link.clone());
            }
        }
        if readers.is_empty() {
            return Some(0);
        }
        let bytes: u64 = parts.iter().map(Message::weight).sum();
        if !self.has_room_for_list(parts.len(), bytes) {
            self.expire(now, effects);
            if !self.has_room_for_list(parts.len(), bytes) {
                return None;
            }
        }
        let (kind, residence, max_age) = (Kind::Channel, Residence::MemoryOnly, limits.max_age);
        let mut last = 0;
        for part in parts {
            last = numbers.next();
            self.mailbox
                .append(last, Arc::new(part), kind, residence, readers, max_age);
        }
        effects.wake.extend(wake);
        Some(last)
    }

    fn has_room_for_list(&self, parts: usize, bytes: u64) -> bool {
        let load = self.mailbox.ephemeral();
        load.messages + parts <= MAX_EPHEMERAL && load.bytes + bytes <= MAX_EPHEMERAL_BYTES
    }
}
