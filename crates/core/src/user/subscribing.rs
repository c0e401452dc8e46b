//! Subscriptions come and go (PROTOCOL.md, section 5).

use std::sync::Arc;

use jam_wire::packet::{QoS, RetainHandling};

use super::{Effects, PRESENCE, User};
use crate::link::LinkId;
use crate::mailbox::{Kind, Mailbox, Place, Slots};
use crate::message::Message;
use crate::store::{Append, Receipt, Seq, Subscription, Write, Writes};
use crate::time::Time;
use crate::user::UserLimits;

impl User {
    /// Subscribes a connected device. Whether there was room, `None` if the connection is no longer the
    /// device's; and the retained message that is to be sent to it. What is to be kept of it is added to `changes`.
    pub(crate) fn subscribe(
        &mut self,
        link: LinkId,
        subscription: Subscription,
        retain_handling: RetainHandling,
        now: Time,
        changes: &mut Writes,
    ) -> (Option<bool>, Option<Arc<Message>>) {
        let mut devices = self.devices.iter_mut();
        let Some(device) = devices.find(|device| device.is_linked(link)) else {
            return (None, None);
        };
        let topic = subscription.topic.clone();
        let before = device.session.subscription(&topic);
        let change = (before != Some(&subscription)).then(|| subscription.clone());
        let Some(is_new) = device.session.subscribe(subscription) else {
            return (Some(false), None);
        };
        if let (Some(id), Some(change)) = (device.id(), change) {
            changes.push(Write::Subscribe(id, Box::new(change)));
        }
        let slot = device.slot;
        device.awaits_presence |= self.id.own_channel(&topic) == Some(PRESENCE);
        if self.id.is_inbox(&topic) {
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
        (Some(true), retained.cloned())
    }

    /// Appends a retained message for a device that has subscribed, and says what of that is to be stored:
    /// what a session that outlives its connection is to get at QoS 1 or 2 is kept, if there is room.
    pub(crate) fn send_retained(
        &mut self,
        link: LinkId,
        seq: Seq,
        message: Arc<Message>,
        limits: &UserLimits,
        accepts: bool,
        effects: &mut Effects,
    ) -> Option<Append> {
        let device = self.devices.iter().find(|device| device.is_linked(link))?;
        let (slot, lasts) = (Slots::one(device.slot), device.id().is_some());
        let granted = device.reads(&message.topic)?.qos;
        let qos = granted.min(message.qos);
        let keeps = lasts && accepts && qos != QoS::AtMostOnce;
        let place = match qos {
            _ if !keeps || !self.has_room(&message, limits, effects) => Place::Ephemeral,
            QoS::ExactlyOnce => Place::Storing,
            QoS::AtMostOnce | QoS::AtLeastOnce => Place::Store,
        };
        if place == Place::Ephemeral && !self.has_room_for_ephemeral(&message) {
            return None;
        }
        let (kind, max_age) = (Kind::Retained, limits.max_age);
        self.mailbox
            .append(seq, message.clone(), kind, place, slot, max_age);
        (place != Place::Ephemeral).then(|| Mailbox::to_append(seq, &self.id, message, kind, slot))
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

    /// Has the store keep what has changed of the subscriptions; the receipt is resolved when it has that,
    /// and given back if the session ends with its connection.
    pub(crate) fn keep_subscriptions(
        &mut self,
        link: LinkId,
        changes: Writes,
        receipt: Receipt,
        effects: &mut Effects,
    ) -> Option<Receipt> {
        self.update_listening(link, effects);
        self.ask_for_presence(effects);
        let mut devices = self.devices.iter_mut();
        let device = devices.find(|device| device.is_linked(link));
        let Some(device) = device.filter(|device| device.id().is_some()) else {
            return Some(receipt);
        };
        let mut writes = Writes::new();
        if !device.recorded {
            writes.extend(device.record(&self.id));
        }
        writes.extend(changes);
        effects.writes.push((writes, Some(receipt)));
        None
    }
}
