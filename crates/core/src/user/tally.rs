//! What has become of a user's messages and sessions, to be counted.
//!
//! Invariant: each change of whether a device is there, or connected, is in [`User::change_devices`].

use super::{Effects, User};
use crate::mailbox::Gone;
use crate::metrics::{Dropped, Metrics};

/// Numbers of what has happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Messages.
    pub(super) expired: u32,
    pub(super) purged: u32,
    /// QoS 0 messages for which there was no room.
    pub(super) dropped: u32,
    /// Messages that ended with their account.
    pub(super) ended: u32,
    connected: i32,
    away: i32,
    /// Users.
    online: i32,
}

pub(super) fn count(gone: &[Gone]) -> u32 {
    u32::try_from(gone.len()).unwrap_or(u32::MAX)
}

/// Devices of a user.
struct Devices {
    connected: i32,
    away: i32,
}

impl Tally {
    pub(crate) fn count(&self, metrics: &Metrics) {
        let messages = [
            (self.dropped, Dropped::QoS0),
            (self.ended, Dropped::Account),
        ];
        for (count, what) in messages {
            if count > 0 {
                metrics.dropped(what, count);
            }
        }
        if self.expired > 0 {
            metrics.expired(self.expired);
        }
        if self.purged > 0 {
            metrics.purged(self.purged);
        }
        if (self.connected, self.away, self.online) != (0, 0, 0) {
            metrics.sessions(self.connected, self.away, self.online);
        }
    }
}

impl User {
    fn count_devices(&self) -> Devices {
        let mut devices = Devices {
            connected: 0,
            away: 0,
        };
        for device in &self.devices {
            match device.link {
                Some(_) => devices.connected += 1,
                None => devices.away += 1,
            }
        }
        devices
    }

    /// How many are connected, and how many are not.
    pub(crate) fn devices(&self) -> (u64, u64) {
        let Devices { connected, away } = self.count_devices();
        (
            u64::from(connected.unsigned_abs()),
            u64::from(away.unsigned_abs()),
        )
    }

    /// Makes a change of devices or of their links, and counts it.
    pub(super) fn change_devices<T>(
        &mut self,
        effects: &mut Effects,
        change: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.count_devices();
        let changed = change(self);
        let now = self.count_devices();
        let tally = &mut effects.rare().tally;
        tally.connected += now.connected - before.connected;
        tally.away += now.away - before.away;
        tally.online += i32::from(now.connected > 0) - i32::from(before.connected > 0);
        changed
    }
}
