//! One user as an operator sees them.

use std::time::Duration;

use super::{Device, Effects, User, UserLimits};
use crate::ids::{ClientId, UserId};
use crate::link::{Eviction, Peer};
use crate::mailbox::Amount;
use crate::store::{Seq, Sequence};
use crate::time::Time;

/// A user as an operator sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserView {
    /// Connected ones, and those whose session goes on without a connection.
    pub devices: Vec<DeviceView>,
    /// What waits for the user.
    pub mailbox: MailboxView,
}

/// A device as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// Its client id.
    pub client: ClientId,
    /// Connected, or since when it is not.
    pub presence: DevicePresence,
    /// Topics that it has subscribed to.
    pub subscriptions: usize,
    /// Whether the inbox is among them: without it, no message of a friend reaches the device.
    pub reads_inbox: bool,
    /// Messages sent to it that it has not acknowledged.
    pub in_flight: usize,
    /// QoS 2 packet ids from it that are not released.
    pub received: u16,
}

/// Whether a device is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePresence {
    /// It is.
    Connected {
        /// Its connection.
        peer: Peer,
        /// How long its session goes on without a connection.
        session_expiry: Duration,
    },
    /// Its session goes on without a connection.
    Away {
        /// Since when; after a crash, since the restart.
        since: Time,
        /// When the session ends; [`Time::NEVER`] is possible.
        session_ends_at: Time,
    },
}

/// A mailbox in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailboxView {
    /// Messages that wait.
    pub messages: usize,
    /// Their bytes, as they weigh.
    pub bytes: u64,
    /// The number of the message that has waited longest. The store has its time.
    pub oldest: Option<Seq>,
    /// Retained messages.
    pub retained: usize,
}

/// What became of a device that an operator has disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kicked {
    /// There is no such device.
    Unknown,
    /// Its session goes on, and it had no connection.
    WasAway,
    /// Its connection ends, and the session goes on if it outlives connections.
    Disconnected,
    /// Its session has ended, and its connection ends if it had one.
    SessionEnded,
}

impl User {
    pub(crate) fn view(&self) -> UserView {
        UserView {
            devices: self.devices.iter().map(|it| it.view(&self.id)).collect(),
            mailbox: self.mailbox_view(),
        }
    }

    pub(crate) fn mailbox_view(&self) -> MailboxView {
        let Amount { messages, bytes } = self.mailbox.kept();
        MailboxView {
            messages,
            bytes,
            oldest: self.mailbox.oldest(),
            retained: self.retained.as_ref().map_or(0, |topics| topics.len()),
        }
    }

    pub(crate) fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Whether there is room for one more message of a sender.
    pub(crate) fn has_room_for(&self, sender: &UserId, limits: &UserLimits) -> bool {
        let (messages, bytes) = (limits.max_messages, limits.max_bytes);
        self.mailbox.has_room(sender, 1, messages, bytes)
    }

    /// An operator disconnects a device; its session ends with that or goes on.
    pub(crate) fn kick(
        &mut self,
        client: &ClientId,
        ends_session: bool,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Kicked {
        let mut devices = self.devices.iter();
        let Some(index) = devices.position(|device| device.client == *client) else {
            return Kicked::Unknown;
        };
        if ends_session {
            self.end_session(index, Some(Eviction::Kicked), effects, numbers);
            return Kicked::SessionEnded;
        }
        match &self.devices[index].link {
            Some(link) => {
                link.evict(Eviction::Kicked);
                Kicked::Disconnected
            }
            None => Kicked::WasAway,
        }
    }
}

impl Device {
    fn view(&self, user: &UserId) -> DeviceView {
        DeviceView {
            client: self.client.clone(),
            presence: match &self.link {
                Some(link) => DevicePresence::Connected {
                    peer: *link.peer(),
                    session_expiry: self.session_expiry(),
                },
                None => DevicePresence::Away {
                    since: self.away_since(),
                    session_ends_at: self.ends_at,
                },
            },
            subscriptions: self.session.subscriptions(),
            reads_inbox: self.reads_inbox(user),
            in_flight: self.session.in_flight(),
            received: self.session.received(),
        }
    }
}
