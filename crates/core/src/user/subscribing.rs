//! Subscriptions come and go (PROTOCOL.md, section 5).

use jam_wire::packet::RetainHandling;

use super::{Effects, PRESENCE, User};
use crate::link::LinkId;
use crate::mailbox::{Kind, Place, Slots};
use crate::store::{Receipt, Seq, Subscription};
use crate::time::Time;
use crate::user::UserLimits;

impl User {
    /// Subscribes a connected device; retained messages follow under numbers from `next_seq`. Whether
    /// there was room, `None` if the connection is no longer the device's.
    pub(crate) fn subscribe(
        &mut self,
        link: LinkId,
        subscription: Subscription,
        retain_handling: RetainHandling,
        now: Time,
        limits: &UserLimits,
        next_seq: impl FnOnce() -> Seq,
    ) -> Option<bool> {
        let device = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))?;
        let topic = subscription.topic.clone();
        let Some(is_new) = device.session.subscribe(subscription) else {
            return Some(false);
        };
        let slot = device.slot;
        device.awaits_presence |= self.id.own_channel(&topic) == Some(PRESENCE);
        if topic == self.inbox {
            self.mailbox.claim(slot);
            device.session.cursor = 0;
        }
        let wanted = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        self.retained.retain(|message| message.expires_at > now);
        let retained = self.retained.iter().find(|it| wanted && it.topic == topic);
        if let Some(message) = retained
            && self.has_room_for_ephemeral(message)
        {
            let (message, reader) = (message.clone(), Slots::one(slot));
            let kind = Kind::Retained;
            self.mailbox.append(
                next_seq(),
                message,
                kind,
                Place::Ephemeral,
                reader,
                limits.max_age,
            );
        }
        Some(true)
    }

    /// Whether there was such a subscription.
    pub(crate) fn unsubscribe(&mut self, link: LinkId, topic: &str, effects: &mut Effects) -> bool {
        let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        else {
            return false;
        };
        let existed = device.session.unsubscribe(topic);
        if existed && self.inbox == topic {
            let mut gone = Vec::new();
            self.mailbox.disclaim(device.slot, &mut gone);
            effects.all_gone(gone);
            self.pass_on(effects);
        }
        existed
    }

    /// Has the store keep the subscriptions as they are now; the receipt is resolved when it has them,
    /// and given back if the session ends with its connection.
    pub(crate) fn keep_subscriptions(
        &mut self,
        link: LinkId,
        receipt: Receipt,
        effects: &mut Effects,
    ) -> Option<Receipt> {
        self.update_listening(link, effects);
        self.ask_for_presence(effects);
        let device = self.devices.iter().find(|device| device.is_linked(link));
        let Some(record) = device.and_then(|device| device.record(&self.id)) else {
            return Some(receipt);
        };
        effects
            .writes
            .push((smallvec::SmallVec::from_iter([record]), Some(receipt)));
        None
    }
}
