//! How a device's connection and its session end, and what becomes of its will then.

use jam_core::time::Time;
use jam_wire::packet::Packet;

use super::Device;
use crate::client::Client;
use crate::packets;
use crate::simulator::SESSION;
use crate::simulator::wills::Fate;

impl Device {
    pub(in crate::simulator) fn leave(&mut self, polite: bool, now: Time) {
        // What it has acknowledged makes room for more.
        self.missed |= self.client.is_behind();
        if polite {
            self.client.disconnect();
            self.is_no_will();
        }
        self.client.drop_connection();
        self.lose_connection(now);
    }

    /// The connection has ended; the session goes on if it was asked to.
    pub(in crate::simulator) fn lose_connection(&mut self, now: Time) {
        self.connected = false;
        self.missed |= !self.reads || self.waits;
        self.acks_are_heard();
        (self.waits, self.reads) = (false, true);
        self.will_at = self.will.as_ref().map(|it| now + it.delay);
        self.look_at_will(now);
        self.unanswered.clear();
        self.errors.clear();
        self.todo.clear();
        self.window.clear();
        self.seen_here.clear();
        self.last_of.clear();
        self.session = Some(now + SESSION);
        if !self.lasting {
            self.end_session_at(now);
        }
    }

    /// The server was killed and started again.
    pub(in crate::simulator) fn crash(&mut self, now: Time) {
        self.client.drop_connection();
        let late = now + SESSION;
        self.doubtful |= self.unsure;
        if self.connected {
            self.lose_connection(now);
        } else if self.session.is_some() {
            self.ends_late = Some(late);
        }
        // Its delay may begin anew: it may come, and need not if the client is back before.
        if let Some(it) = self.will.take() {
            self.fates.push((it.number, Fate::Due(now)));
        }
        self.will_at = None;
        if self.unanswered_subscribes > 0 {
            self.owed.clear();
            (self.subscribed, self.maybe_subscribed) = (false, true);
            self.unanswered_subscribes = 0;
        }
        // Only QoS 2 ids are remembered on this side.
        let received = &self.received;
        self.in_flight.retain(|id, _| received.contains(id));
        self.crashed = true;
    }

    /// The account has ended, and everything of it.
    pub(in crate::simulator) fn end_life(&mut self) {
        self.is_no_will();
        if self.connected {
            assert!(
                self.client.is_closed(),
                "{} is still there",
                self.client.id()
            );
            self.client.drop_connection();
            self.lasting = false;
            self.lose_connection(Time::NEVER);
        }
        self.end_session();
    }

    /// The server has ended the connection; the session goes on.
    pub(in crate::simulator) fn is_evicted(&mut self, now: Time) {
        if self.connected {
            assert!(
                self.client.is_closed(),
                "{} is still there",
                self.client.id()
            );
            self.client.drop_connection();
            self.lose_connection(now);
        }
    }

    pub(in crate::simulator) fn expire(&mut self, now: Time) {
        let until = self.ends_late.max(self.session);
        if !self.connected {
            self.look_at_will(now);
        }
        if !self.connected && until.is_some_and(|until| until <= now) {
            self.end_session_at(now);
        }
    }

    /// As [`Self::end_session`]; a will that waits for the end of a delay is due.
    pub(in crate::simulator) fn end_session_at(&mut self, now: Time) {
        if self.will_at.take().is_some()
            && let Some(it) = self.will.take()
        {
            self.fates.push((it.number, Fate::Due(now)));
        }
        self.end_session();
    }

    /// A will whose delay is over is due.
    pub(super) fn look_at_will(&mut self, now: Time) {
        if let Some(at) = self.will_at.take_if(|at| *at <= now)
            && let Some(it) = self.will.take()
        {
            self.fates.push((it.number, Fate::Due(at)));
        }
    }

    /// The will is not to be written any more.
    pub(super) fn is_no_will(&mut self) {
        self.will_at = None;
        self.fates
            .extend(self.will.take().map(|it| (it.number, Fate::Never)));
    }

    /// A DISCONNECT on a connection of its own that is about to be displaced.
    pub(in crate::simulator) fn say_goodbye(&mut self, old: &Client) {
        old.disconnect();
        self.is_no_will();
    }

    /// The server forgets the session, and so does the device.
    pub(in crate::simulator) fn end_session(&mut self) {
        self.missed = false;
        self.session = None;
        (self.unsure, self.doubtful, self.crashed) = (false, false, false);
        (self.ends_late, self.ends_early) = (None, None);
        self.unanswered_subscribes = 0;
        self.maybe_subscribed = false;
        self.unsubscribing = false;
        self.subscribed = false;
        self.outgoing.clear();
        self.in_flight.clear();
        self.received.clear();
        self.acked.clear();
        self.seen.clear();
        self.seen_once.clear();
        self.owed.clear();
    }

    /// Another device of the user has come.
    pub(in crate::simulator) fn expect_logout(&mut self, now: Time) {
        let mut told = false;
        while let Some(packet) = self.client.next() {
            if let Packet::Publish(publish) = packet {
                let error =
                    packets::error("authenticate", "logout", "a new device has connected", None);
                told |= publish.topic == self.client.channel() && publish.payload == error;
            }
        }
        assert!(
            told || !self.reads,
            "{} was not told that it is logged out",
            self.client.id()
        );
        assert!(
            self.client.is_closed(),
            "{} is still there",
            self.client.id()
        );
        self.client.drop_connection();
        self.lasting = false;
        self.lose_connection(now);
    }
}
