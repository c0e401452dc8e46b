//! When a user's friends are sent that the user comes or goes, and what the user is sent of friends
//! (PROTOCOL.md, section 10).
//!
//! Invariants, checked by `tests/presence.rs`: *in pairs*: that a user goes is sent only after it was sent that they came,
//! or if there was nobody to send that to; *no flicker*: a user who is back within [`AWAY`] has not gone; *once*: a device
//! that has just subscribed is sent each friend once, either with all who are online or because they come.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Alarm, Effects, User, UserLimits};
use crate::link::LinkId;
use crate::mailbox::{DeviceSet, Kind, Residence};
use crate::message::Message;
use crate::store::Seq;
use crate::time::Time;

/// How long a user must be away before their friends are told.
pub const AWAY: Duration = Duration::from_secs(5);

/// What is remembered of a user's coming and going, in eight bytes.
#[derive(Debug, Default)]
pub(super) struct Presence {
    state: State,
    /// Whether the router is to look at this user.
    queued: bool,
    /// Whether an alarm is set.
    armed: bool,
    /// When they left, in milliseconds, less the higher bits.
    left_millis: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Not connected, as far as anybody knows.
    #[default]
    Offline,
    /// Connected; nobody has been told yet.
    Coming,
    /// Connected; friends have been told.
    Online,
    /// No longer connected, for less than [`AWAY`].
    Leaving,
    /// Gone; nobody has been told yet.
    Going,
}

/// What is to be told about a user, and to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Telling {
    /// Whether they are online, if that is news to their friends.
    pub(crate) online: Option<bool>,
    /// Their connections that have subscribed to presence since the last time.
    pub(crate) subscribed: SmallVec<[LinkId; 1]>,
}

impl Presence {
    /// Whether nothing would be lost if this were forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Offline && !self.queued
    }

    fn queue(&mut self, effects: &mut Effects) {
        if !self.queued {
            effects.rare().look = true;
        }
        self.queued = true;
    }

    /// Not at all, if they have left later than that: another thread may have read the clock a little earlier.
    fn away(&self, now: Time) -> Duration {
        let millis = now.low_millis().wrapping_sub(self.left_millis);
        Duration::from_millis(u64::try_from(millis.cast_signed()).unwrap_or(0))
    }

    fn arm(&mut self, due: Time, effects: &mut Effects) {
        if !self.armed {
            self.armed = true;
            effects.rare().set.push((due, Alarm::Presence));
        }
    }
}

impl User {
    /// A device has connected. `watched` is whether anybody subscribes to presence.
    pub(crate) fn note_arrival(&mut self, watched: bool, effects: &mut Effects) {
        match self.presence.state {
            State::Offline if watched => {
                self.presence.state = State::Coming;
                self.presence.queue(effects);
            }
            State::Offline | State::Leaving | State::Going => self.presence.state = State::Online,
            State::Coming | State::Online => {}
        }
    }

    /// A connection has ended, if it was the last.
    pub(crate) fn note_departure(&mut self, watched: bool, now: Time, effects: &mut Effects) {
        if self.is_connected() || self.presence.state != State::Online {
            return;
        }
        if !watched {
            self.presence.state = State::Offline;
            return;
        }
        self.presence.state = State::Leaving;
        self.presence.left_millis = now.low_millis();
        self.presence.arm(now + AWAY, effects);
    }

    /// The alarm rings: it was set when the user left, now or an earlier time.
    pub(crate) fn look_at_presence(&mut self, now: Time, effects: &mut Effects) {
        self.presence.armed = false;
        if self.presence.state != State::Leaving {
            return;
        }
        match AWAY.checked_sub(self.presence.away(now)) {
            Some(left) if !left.is_zero() => self.presence.arm(now + left, effects),
            _ => {
                self.presence.state = State::Going;
                self.presence.queue(effects);
            }
        }
    }

    /// Whether friends who ask are told that this user is online: from the moment on at which the others are told.
    pub(crate) fn is_online(&self) -> bool {
        matches!(self.presence.state, State::Online | State::Leaving)
    }

    /// What the router was to look at this user for. From now on it counts as told.
    pub(crate) fn take_telling(&mut self) -> Telling {
        self.presence.queued = false;
        let online = match self.presence.state {
            State::Coming => self.is_connected().then_some(true),
            State::Going => Some(false),
            State::Offline | State::Online | State::Leaving => None,
        };
        match (self.presence.state, online) {
            (State::Coming, Some(_)) => self.presence.state = State::Online,
            (State::Coming | State::Going, _) => self.presence.state = State::Offline,
            _ => {}
        }
        let mut subscribed = SmallVec::new();
        for device in &mut self.devices {
            if std::mem::take(&mut device.awaits_presence) {
                subscribed.extend(device.link.as_ref().map(|link| link.id()));
            }
        }
        Telling { online, subscribed }
    }

    /// Has the router look at devices that have just subscribed to presence.
    pub(super) fn ask_for_presence(&mut self, effects: &mut Effects) {
        if self.devices.iter().any(|device| device.awaits_presence) {
            self.presence.queue(effects);
        }
    }

    /// Whether a connected device is to be told of friends who come and go.
    pub(crate) fn watches_presence(&self) -> bool {
        let mut devices = self.devices.iter();
        devices.any(|device| device.link.is_some() && device.listening.presence())
    }

    /// Tells one connection of this user, or all but those that will be told of everybody at once, that a
    /// friend is online or is not. Whether there was room.
    pub(crate) fn tell_presence(
        &mut self,
        seq: Seq,
        message: Message,
        to: Option<LinkId>,
        limits: &UserLimits,
        effects: &mut Effects,
    ) -> bool {
        let mut readers = DeviceSet::default();
        for device in self.devices.iter().filter(|it| it.listening.presence()) {
            let Some(link) = &device.link else { continue };
            if to.map_or(!device.awaits_presence, |to| to == link.id()) {
                readers.insert(device.slot);
                effects.wake.push(link.clone());
            }
        }
        if readers.is_empty() {
            return true;
        }
        if !self.has_room_for_ephemeral(&message, effects) {
            return false;
        }
        let (kind, residence) = (Kind::Channel, Residence::MemoryOnly);
        self.mailbox.append(
            seq,
            Arc::new(message),
            kind,
            residence,
            readers,
            limits.max_age,
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_later_than_now_is_not_away_for_weeks() {
        let left_at = |millis: u64| Presence {
            left_millis: Time::from_millis(millis).low_millis(),
            ..Presence::default()
        };
        let now = 1_700_000_000_000;
        for (left, away) in [
            (now + 1, 0),
            (now + 5_000, 0),
            (now, 0),
            (now - 4_999, 4_999),
        ] {
            let away = Duration::from_millis(away);
            assert_eq!(left_at(left).away(Time::from_millis(now)), away);
        }
        let wrapped = left_at((1 << 32) - 2);
        assert_eq!(
            wrapped.away(Time::from_millis((1 << 32) + 3)),
            Duration::from_millis(5)
        );
    }
}
