//! What a store has found of a user when the server starts, before anybody is let in.
//!
//! Messages come first, then sessions and the rest; [`User::restored`] holds them together.

use std::num::NonZeroU64;
use std::time::Duration;

use jam_wire::packet::PacketId;
use smallvec::SmallVec;

use super::{Alarm, Device, Effects, Listening, User, UserLimits, millis};
use crate::mailbox::DeviceSet;
use crate::session::{PubRecOutcome, SendState, Session};
use crate::store::{OutboundState, OutboundStates, RecoveredEntry, SessionRecord, Write};
use crate::time::Time;

impl User {
    /// A message of the log that a store has found.
    pub(crate) fn restore_entry(&mut self, found: &RecoveredEntry, limits: &UserLimits) {
        self.mailbox.restore(found, limits.max_age);
    }

    /// A session that a store has found. Its client was connected, or was not: it is not any more.
    pub(crate) fn restore_session(
        &mut self,
        record: SessionRecord,
        received: Vec<PacketId>,
        flights: OutboundStates,
        now: Time,
        effects: &mut Effects,
    ) {
        let was_connected = record.ends_at.is_none();
        let will_delay = record
            .will
            .as_ref()
            .map(|will| Duration::from_secs(will.delay_secs.unwrap_or(0).into()));
        let mut session = Session::restore(record.subscriptions, received, flights);
        if was_connected {
            session.skip_packet_ids(now);
        }
        let mut device = Device {
            client: record.client,
            slot: record.slot,
            token: record.token,
            listening: Listening::default(),
            awaits_presence: false,
            awaits_friends: false,
            session,
            number: NonZeroU64::new(record.id),
            recorded: true,
            expiry_millis: millis(record.expiry),
            link: None,
            will: record.will,
            will_at: record
                .will_at
                .or(will_delay.map(|delay| now + delay))
                .unwrap_or(Time::NEVER),
            ends_at: record.ends_at.unwrap_or(now + record.expiry),
            maybe_sent_before_crash: record.maybe_sent_before_crash,
            maybe_sent_now: 0,
            maybe_sent_now_is_stored: false,
            has_room: false,
            loaded: None,
            loading: false,
        };
        device.listen(&self.id, effects);
        self.change_devices(effects, |user| user.devices.push(device));
        if was_connected {
            // The time that it has left does not begin anew at the next start.
            let device = self.devices.last_mut();
            let record = device.and_then(|device| device.record(&self.id));
            record.into_iter().for_each(|record| effects.write(record));
        }
    }

    /// Everything that a store has found is here. Returns the timers of the devices.
    pub(crate) fn restored(
        &mut self,
        now: Time,
        effects: &mut Effects,
    ) -> SmallVec<[(Time, Alarm); 1]> {
        let mut gone = Vec::new();
        // A message waits for no session that is younger than itself: such a one only has the place of
        // another that has ended.
        self.mailbox.restored(|seq| {
            let mut slots = DeviceSet::default();
            self.devices
                .iter()
                .filter(|device| device.id().is_some_and(|id| id < seq))
                .for_each(|device| slots.insert(device.slot));
            slots
        });
        self.restored_retained(effects);
        self.restore_flights(effects);
        self.expire(now, effects);
        self.mailbox.drop_leavers(&mut gone);
        self.pass_on(effects);
        // When a device unsubscribes, the store is not told that messages no longer wait for it.
        let devices = self.devices.iter();
        for device in devices.filter(|device| !device.reads_inbox(&self.id)) {
            self.mailbox.disclaim(device.slot, &mut gone);
        }
        effects.all_gone(gone);
        self.pass_on(effects);
        self.expiry_alarm = self.mailbox.next_expiry();
        let expiry = Some((self.expiry_alarm, Alarm::Expiry));
        let timers = self.devices.iter().filter_map(Device::timer);
        timers
            .chain(expiry.filter(|(due, _)| *due != Time::NEVER))
            .collect()
    }

    /// What is on its way to a device is that device's, also if another device has claimed it. Packet ids
    /// of messages that are gone stand for nothing; of QoS 2, where the device may remember the id, they are
    /// released.
    fn restore_flights(&mut self, effects: &mut Effects) {
        for device in &mut self.devices {
            let flights: Vec<_> = device.session.due().collect();
            for it in flights {
                let (OutboundState::AwaitsPubAck(seq) | OutboundState::AwaitsPubRec(seq)) =
                    it.flight
                else {
                    continue;
                };
                if self.mailbox.restore_sent(seq, device.slot) {
                    continue;
                }
                let write = if let OutboundState::AwaitsPubRec(_) = it.flight {
                    let received = device
                        .session
                        .pub_rec(it.packet_id, false, SendState::Resend);
                    debug_assert_eq!(received, Ok(PubRecOutcome::Acked(seq)));
                    |id, packet_id| Write::InFlight(id, packet_id, OutboundState::AwaitsPubComp)
                } else {
                    device.session.complete(it.packet_id);
                    Write::EndInFlight
                };
                if let Some(id) = device.id() {
                    effects.write(write(id, it.packet_id));
                }
            }
        }
    }
}
