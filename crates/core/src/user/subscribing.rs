//! Subscriptions come and go (PROTOCOL.md, section 5).

use jam_wire::packet::RetainHandling;

use super::{Effects, FRIENDS, PRESENCE, User};
use crate::link::LinkId;
use crate::store::{Subscription, Write, Writes};
use crate::time::Time;

/// Entries of a log that are looked at, and perhaps changed, in one unit of work
/// ([`Connection::take_work`](crate::connection::Connection::take_work)).
const ENTRIES_A_UNIT: usize = 256;

impl User {
    /// How much work it is to begin or end a subscription to a topic: with one to the inbox, all that waits is looked at.
    pub(crate) fn subscribing_work(&self, topic: &str) -> usize {
        if self.id.is_inbox(topic) {
            self.mailbox.len() / ENTRIES_A_UNIT
        } else {
            0
        }
    }

    /// Subscribes a connected device. Whether there was room, `None` if the connection is no longer the
    /// device's. What is to be kept of it, and of the retained message that it gets, is added to `changes`.
    pub(crate) fn subscribe(
        &mut self,
        link: LinkId,
        subscription: Subscription,
        retain_handling: RetainHandling,
        now: Time,
        changes: &mut Writes,
    ) -> Option<bool> {
        let mut devices = self.devices.iter();
        let index = devices.position(|device| device.is_linked(link))?;
        let device = &mut self.devices[index];
        let topic = subscription.topic.clone();
        let before = device.session.subscription(&topic);
        let change = (before != Some(&subscription)).then(|| subscription.clone());
        let Some(is_new) = device.session.subscribe(subscription) else {
            return Some(false);
        };
        if let (Some(id), Some(change)) = (device.id(), change) {
            changes.push(Write::Subscribe(id, Box::new(change)));
        }
        let slot = device.slot;
        let channel = self.id.own_channel(&topic);
        device.awaits_presence |= channel == Some(PRESENCE);
        device.awaits_friends |= channel == Some(FRIENDS);
        if self.id.is_inbox(&topic) {
            self.mailbox.claim(slot);
            device.session.cursor = 0;
        }
        let wanted = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if wanted {
            changes.extend(self.claim_retained(index, &topic, now));
        }
        Some(true)
    }

    /// Whether there was such a subscription. What is to be kept of that is added to `changes`.
    pub(crate) fn unsubscribe(
        &mut self,
        link: LinkId,
        topic: &str,
        effects: &mut Effects,
        changes: &mut Writes,
    ) -> bool {
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return false;
        };
        let existed = device.session.unsubscribe(topic);
        if existed && let Some(id) = device.id() {
            changes.push(Write::Unsubscribe(id, topic.into()));
        }
        if existed && self.id.is_inbox(topic) {
            let mut gone = Vec::new();
            self.mailbox.disclaim(device.slot, &mut gone);
            effects.all_gone(gone);
            self.pass_on(effects);
        }
        existed
    }

    /// The subscriptions have changed: what is to be kept of that and awaited. `None` if the session ends with its
    /// connection.
    pub(crate) fn keep_subscriptions(
        &mut self,
        link: LinkId,
        changes: Writes,
        effects: &mut Effects,
    ) -> Option<Writes> {
        self.update_listening(link, effects);
        self.ask_for_presence(effects);
        self.ask_for_friends(effects);
        let mut devices = self.devices.iter_mut();
        let device = devices.find(|device| device.is_linked(link));
        let device = device.filter(|device| device.id().is_some())?;
        let mut writes = Writes::new();
        if !device.recorded {
            writes.extend(device.record(&self.id));
        }
        writes.extend(changes);
        Some(writes)
    }
}
