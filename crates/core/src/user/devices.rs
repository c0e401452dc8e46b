//! Devices come and go (PROTOCOL.md, section 3, and MQTT 5.0, sections 3.1.2 and 4.1).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jam_wire::packet::Will;
use smallvec::SmallVec;

use super::{Alarm, Device, Effects, Listening, Outdated, User, UserLimits};
use crate::directory::{Generation, LifeFact, Mark};
use crate::ids::ClientId;
use crate::link::{Eviction, Link, LinkId};
use crate::loads::LoadPermit;
use crate::mailbox::{DeviceSet, MAX_DEVICES};
use crate::message::Message;
use crate::session::Session;
use crate::store::{Seq, Sequence, SessionId, Write};
use crate::time::Time;

/// What a new connection brings.
pub(crate) struct Attach {
    pub(crate) link: Arc<Link>,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: Duration,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) life: LifeFact,
}

/// Why a client that has authenticated is not let in all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAttached {
    /// The user has [`MAX_DEVICES`] devices connected already.
    TooManyDevices,
    /// What it was let in by is not the newest.
    Outdated,
}

impl From<Outdated> for NotAttached {
    fn from(Outdated: Outdated) -> Self {
        Self::Outdated
    }
}

/// What a connection finds when it has been let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) session_present: bool,
    /// Whether the CONNACK has to wait for the store: a crash would bring back the packet ids of a session that has
    /// ended, with this or just before; or it would lose a will.
    pub(crate) waits: bool,
    /// The session's number, if it outlives the connection.
    pub(crate) session: Option<SessionId>,
    /// Whether the store has yet to be told of that session.
    pub(crate) unrecorded: bool,
    /// QoS 2 ids that the session has received and not released.
    pub(crate) received: u16,
    /// Messages from this number on come while the client is connected.
    pub(crate) live_from: Seq,
}

impl User {
    /// A client has been let in: others of this user make room, and it finds its session or a new one.
    pub(crate) fn attach(
        &mut self,
        new: Attach,
        limits: &UserLimits,
        now: Time,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Result<Attached, NotAttached> {
        let client = new.link.identity().client();
        let token = new.link.identity().token().mark();
        self.live(&new.life, effects, numbers)?;
        self.end_sessions_of_other_tokens(Some(token), new.life.as_of, effects, numbers)?;
        if !limits.many_devices {
            while let Some(other) = self
                .devices
                .iter()
                .position(|device| device.client != *client)
            {
                self.end_session(other, Some(Eviction::Logout), effects, numbers);
            }
        }
        let known = self
            .devices
            .iter()
            .position(|device| device.client == *client);
        let known =
            known.and_then(|index| self.take_over(index, new.clean_start, effects, numbers));
        let session_present = known.is_some();
        let index = match known {
            Some(index) => index,
            None => self
                .new_device(client.clone(), token, effects, numbers)
                .ok_or(NotAttached::TooManyDevices)?,
        };
        self.change_devices(effects, |user| user.devices[index].link = Some(new.link));
        let device = &mut self.devices[index];
        device.token = Some(token);
        // What was too large for the last connection may not be for this one.
        device.session.cursor = 0;
        device.will = new.will;
        (device.maybe_sent_now, device.has_room) = (0, false);
        device.set_session_expiry(new.session_expiry);
        if device.id().is_none() && !new.session_expiry.is_zero() {
            device.number = NonZeroU64::new(numbers.next());
        }
        // Of a new session there is nothing yet that could be lost: its first subscription, which usually
        // comes at once, is recorded with it, or else `keep_session` does it.
        if session_present || device.will.is_some() {
            let record = device.record(&self.id);
            record.into_iter().for_each(|record| effects.write(record));
        }
        let received = device.session.received();
        let mut writes = effects.writes.iter().flat_map(|(writes, _)| writes);
        let waits = writes.any(|write| match write {
            Write::EndSession(_) => true,
            Write::Session(record) => record.will.is_some(),
            _ => false,
        });
        let session = device.id();
        let unrecorded = session.is_some() && !device.recorded;
        self.has_come(now, &limits.push, effects);
        Ok(Attached {
            session_present,
            waits,
            session,
            unrecorded,
            received,
            live_from: numbers.upcoming(),
        })
    }

    /// The connections that end when this client comes.
    pub(crate) fn displaced_by(
        &self,
        client: &ClientId,
        many_devices: bool,
    ) -> SmallVec<[Arc<Link>; 1]> {
        let devices = self.devices.iter();
        devices
            .filter(|device| !many_devices || device.client == *client)
            .filter_map(|device| device.link.clone())
            .collect()
    }

    /// Has the store told of a connection's session, if it has not been yet.
    pub(crate) fn keep_session(&mut self, link: LinkId, effects: &mut Effects) {
        let mut devices = self.devices.iter_mut();
        if let Some(device) = devices.find(|device| device.is_linked(link) && !device.recorded) {
            let record = device.record(&self.id);
            record.into_iter().for_each(|record| effects.write(record));
        }
    }

    /// The same for the sessions of devices that a message is to wait for.
    pub(super) fn keep_sessions(&mut self, slots: DeviceSet, effects: &mut Effects) {
        let devices = self.devices.iter_mut();
        for device in devices.filter(|it| !it.recorded && slots.contains(it.slot)) {
            let record = device.record(&self.id);
            record.into_iter().for_each(|record| effects.write(record));
        }
    }

    /// The same client connects again. Returns where its session is, if that goes on.
    fn take_over(
        &mut self,
        index: usize,
        clean: bool,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Option<usize> {
        let device = &mut self.devices[index];
        effects.rare().unset.extend(device.timer());
        (device.will_at, device.ends_at) = (Time::NEVER, Time::NEVER);
        if clean || (device.link.is_some() && device.session_expiry().is_zero()) {
            self.end_session(index, Some(Eviction::TakenOver), effects, numbers);
            return None;
        }
        if let Some(old) = self.change_devices(effects, |user| user.devices[index].link.take()) {
            let device = &mut self.devices[index];
            old.evict(Eviction::TakenOver);
            effects.rare().displaced = Some(old);
            // MQTT 5.0, section 3.1.2.5: with a delay, the will of a client that is back is not sent.
            let will = device
                .will
                .take()
                .filter(|will| will.delay_secs.unwrap_or(0) == 0);
            let left = will.map(|will| device.leave(will, &self.id, numbers));
            effects.wills_due(left);
            self.disconnected(index, effects);
        }
        self.devices[index].will = None;
        Some(index)
    }

    /// One more device; of too many, the one that has been away longest makes room (PROTOCOL.md, section 7).
    fn new_device(
        &mut self,
        client: ClientId,
        token: Mark,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Option<usize> {
        if self.devices.len() >= MAX_DEVICES {
            let away = self.devices.iter().enumerate();
            let away = away.filter(|(_, device)| device.link.is_none());
            let (longest, _) = away.min_by_key(|(_, device)| device.away_since())?;
            self.end_session(longest, None, effects, numbers);
        }
        let mut taken = DeviceSet::default();
        self.devices
            .iter()
            .for_each(|device| taken.insert(device.slot));
        let slot = (0..)
            .take(MAX_DEVICES)
            .find(|slot| !taken.contains(*slot))?;
        let device = Device {
            client,
            slot,
            token: Some(token),
            listening: Listening::default(),
            awaits_presence: false,
            awaits_friends: false,
            session: Session::default(),
            number: None,
            recorded: false,
            expiry_millis: 0,
            link: None,
            will: None,
            will_at: Time::NEVER,
            ends_at: Time::NEVER,
            maybe_sent_before_crash: 0,
            maybe_sent_now: 0,
            maybe_sent_now_is_stored: false,
            has_room: false,
            loaded: None,
            loading: false,
        };
        self.change_devices(effects, |user| user.devices.push(device));
        Some(self.devices.len() - 1)
    }

    /// Whether every session was made with this token.
    pub(super) fn belongs_to(&self, token: Option<Mark>) -> bool {
        let mut devices = self.devices.iter();
        devices.all(|device| device.token.is_some() && device.token == token)
    }

    /// The account's token is this one, or there is none: what was made with another ends, and nothing is said in its
    /// name any more (PROTOCOL.md, section 6).
    pub(crate) fn end_sessions_of_other_tokens(
        &mut self,
        token: Option<Mark>,
        as_of: Generation,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Result<(), Outdated> {
        self.judge_sessions(as_of, !self.belongs_to(token))?;
        for index in (0..self.devices.len()).rev() {
            let device = &mut self.devices[index];
            match (device.token, token) {
                (Some(own), Some(token)) if own == token => {}
                (None, Some(token)) => {
                    device.token = Some(token);
                    let record = device.record(&self.id);
                    record.into_iter().for_each(|record| effects.write(record));
                }
                (_, None) | (Some(_), Some(_)) => {
                    device.will = None;
                    self.end_session(index, Some(Eviction::NotAuthorized), effects, numbers);
                }
            }
        }
        Ok(())
    }

    /// A device's session ends; so does its connection, if it has one.
    pub(super) fn end_session(
        &mut self,
        index: usize,
        why: Option<Eviction>,
        effects: &mut Effects,
        numbers: &Sequence,
    ) {
        let mut device = self.change_devices(effects, |user| user.devices.remove(index));
        device.stop_listening(effects);
        effects.rare().unset.extend(device.timer());
        if let (Some(link), Some(why)) = (device.link.take(), why) {
            link.evict(why);
        }
        let will = device.will.take();
        effects.wills_due(will.map(|will| device.leave(will, &self.id, numbers)));
        device
            .id()
            .filter(|_| device.recorded)
            .into_iter()
            .for_each(|id| effects.write(Write::EndSession(id)));
        let mut gone = Vec::new();
        self.mailbox.release(device.slot, &mut gone);
        effects.all_gone(gone);
        self.pass_on(effects);
    }

    /// What a device has left unclaimed goes to another one that reads the inbox, if there is one.
    pub(super) fn pass_on(&mut self, effects: &mut Effects) {
        let heir = self
            .devices
            .iter_mut()
            .find(|other| other.reads_inbox(&self.id));
        if let Some(heir) = heir {
            heir.session.cursor = 0;
            self.mailbox.claim(heir.slot);
            effects.wake.extend(heir.link.clone());
        }
    }

    fn disconnected(&mut self, index: usize, effects: &mut Effects) {
        let device = &mut self.devices[index];
        device.session.disconnected();
        device.loaded = None;
        device.loading = false;
        let mut gone = Vec::new();
        self.mailbox.disconnected(device.slot, &mut gone);
        effects.all_gone(gone);
    }

    /// A connection has ended. `goodbye` is a DISCONNECT that discards the will.
    pub(crate) fn detach(
        &mut self,
        link: LinkId,
        goodbye: bool,
        session_expiry: Option<Duration>,
        now: Time,
        effects: &mut Effects,
        numbers: &Sequence,
    ) {
        let Some(index) = self
            .devices
            .iter()
            .position(|device| device.is_linked(link))
        else {
            return;
        };
        let watched = self.devices[index].watches_friends();
        self.change_devices(effects, |user| user.devices[index].link = None);
        if watched {
            effects.rare().look_at_friends = true;
        }
        let device = &mut self.devices[index];
        device.maybe_sent_now = 0;
        if let Some(session_expiry) = session_expiry {
            device.set_session_expiry(session_expiry);
        }
        if goodbye {
            device.will = None;
        }
        if device.session_expiry().is_zero() {
            self.end_session(index, None, effects, numbers);
            return;
        }
        device.ends_at = now + device.session_expiry();
        if let Some(will) = &device.will {
            device.will_at = now + Duration::from_secs(will.delay_secs.unwrap_or(0).into());
        }
        self.keep_away(index, now, effects, numbers);
        self.disconnected(index, effects);
    }

    /// Of a device without a connection: its will leaves it when it is due, and the rest is kept and waited for.
    fn keep_away(&mut self, index: usize, now: Time, effects: &mut Effects, numbers: &Sequence) {
        let device = &mut self.devices[index];
        if device.will_at <= now {
            device.will_at = Time::NEVER;
            let will = device.will.take();
            effects.wills_due(will.map(|will| device.leave(will, &self.id, numbers)));
        }
        effects.rare().set.extend(device.timer());
        let record = device.record(&self.id);
        record.into_iter().for_each(|record| effects.write(record));
    }

    /// A timer has run out. No timer that this sets is due by `now`.
    pub(crate) fn handle_timeout(
        &mut self,
        alarm: &Alarm,
        now: Time,
        limits: &UserLimits,
        effects: &mut Effects,
        numbers: &Sequence,
    ) {
        match alarm {
            Alarm::Device(client) => self.device_timeout(client, now, effects, numbers),
            Alarm::Pushes => self.look_at_pushes(now, &limits.push, effects),
            Alarm::Presence => self.look_at_presence(now, effects),
            Alarm::Expiry => self.look_at_expiry(now, effects),
        }
        // What was on its way to a session that has ended may have expired meanwhile.
        self.expire(now, effects);
        self.watch_expiry(effects);
        effects.postpone_timers(now);
    }

    fn device_timeout(
        &mut self,
        client: &ClientId,
        now: Time,
        effects: &mut Effects,
        numbers: &Sequence,
    ) {
        let Some(index) = self
            .devices
            .iter()
            .position(|device| device.client == *client)
        else {
            return;
        };
        let device = &self.devices[index];
        if device.ends_at <= now {
            self.end_session(index, None, effects, numbers);
        } else if device.will_at <= now {
            self.keep_away(index, now, effects, numbers);
        }
    }

    /// What the store was asked to read for a device is here. What it no longer has leaves the log.
    pub(crate) fn loaded(
        &mut self,
        link: LinkId,
        asked: &[Seq],
        found: Vec<(Seq, Arc<Message>)>,
        permit: LoadPermit,
        effects: &mut Effects,
    ) {
        let missing = asked
            .iter()
            .filter(|seq| !found.iter().any(|(other, _)| other == *seq));
        missing.for_each(|seq| self.forget(*seq, effects));
        if let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.is_linked(link))
        {
            device.load(found, permit);
            device.loading = false;
            effects.wake.extend(device.link.clone());
        }
    }
}
