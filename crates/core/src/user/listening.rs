//! Which devices subscribe to what the server itself writes (PROTOCOL.md, section 10).
//!
//! Invariant: what a device listens to is what its subscriptions say; the router has the sums of all
//! devices, so that what nobody listens to costs nothing.

use super::{Device, Effects, User};
use crate::ids::UserId;
use crate::link::LinkId;
use crate::session::Session;

/// `/<user id>/receipts`.
pub(crate) const RECEIPTS: &str = "receipts";
/// `/<user id>/presence`.
pub(crate) const PRESENCE: &str = "presence";

/// `/<user id>/friends`.
pub(crate) const FRIENDS: &str = "friends";

/// What a device subscribes to, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Listening(u8);

/// How many more devices than before subscribe to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Listeners {
    pub(crate) receipts: i32,
    pub(crate) presence: i32,
}

impl Listening {
    const CHANNELS: [&'static str; 3] = [RECEIPTS, PRESENCE, FRIENDS];

    pub(super) fn of(user: &UserId, session: &Session) -> Self {
        let has = |channel| {
            let topic = format!("/{user}/{channel}");
            session.subscription(&topic).is_some()
        };
        let bits = Self::CHANNELS.map(|channel| u8::from(has(channel)));
        Self(bits[0] | bits[1] << 1 | bits[2] << 2)
    }

    pub(super) fn receipts(self) -> bool {
        self.0 & 1 != 0
    }

    pub(super) fn presence(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    pub(super) fn friends(self) -> bool {
        self.0 & 1 << 2 != 0
    }
}

impl Listeners {
    fn change(&mut self, from: Listening, to: Listening) {
        self.receipts += i32::from(to.receipts()) - i32::from(from.receipts());
        self.presence += i32::from(to.presence()) - i32::from(from.presence());
    }
}

impl Device {
    /// The subscriptions are others than before.
    pub(super) fn listen(&mut self, user: &UserId, effects: &mut Effects) {
        let now = Listening::of(user, &self.session);
        effects.rare().listeners.change(self.listening, now);
        effects.rare().look_at_friends |=
            self.link.is_some() && now.friends() != self.listening.friends();
        self.listening = now;
    }

    /// The session has ended.
    pub(super) fn stop_listening(&self, effects: &mut Effects) {
        let nothing = Listening::default();
        effects.rare().listeners.change(self.listening, nothing);
        effects.rare().look_at_friends |= self.watches_friends();
    }
}

impl User {
    /// The subscriptions of a connected device are others than before.
    pub(super) fn update_listening(&mut self, link: LinkId, effects: &mut Effects) {
        let mut devices = self.devices.iter_mut();
        if let Some(device) = devices.find(|device| device.is_linked(link)) {
            device.listen(&self.id, effects);
        }
    }
}
