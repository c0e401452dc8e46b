//! The end of a run: everybody comes and fetches what is theirs, and nothing is missing or left.

use jam_wire::packet::QoS;

use super::Simulator;
use crate::bench::rules;
use crate::disk::CrashingStore;

impl Simulator<'_> {
    pub(super) fn finish(&mut self) {
        self.show();
        self.hear_all();
        self.push_all();
        self.is_ending = true;
        let now = self.bench.now();
        for device in self.devices.iter_mut().filter(|it| it.takes_little()) {
            device.leave(false, now);
        }
        for which in 0..self.devices.len() {
            let device = &self.devices[which];
            let last_of_user = !self.devices[which + 1..]
                .iter()
                .any(|other| other.user == device.user);
            if !device.connected && (device.has_session() || last_of_user) {
                self.make_room(which);
                self.let_in(which, true, false);
                self.check_evicted(which);
            }
            if self.devices[which].connected && last_of_user {
                self.devices[which].subscribe(true);
            }
        }
        for device in &mut self.devices {
            device.catch_up();
        }
        for _ in 0..=self.messages.len() * 4 + 1000 {
            self.flush();
            self.drain();
            let messages = &mut self.messages;
            let acted = self
                .devices
                .iter_mut()
                .map(|device| device.act(0, messages));
            if acted.filter(|acted| *acted).count() == 0 {
                break;
            }
        }
        for device in &self.devices {
            device.check_complete(&self.messages);
        }
        for (number, message) in self.messages.iter().enumerate() {
            let promised = message.accepted && message.qos != QoS::AtMostOnce && !message.excused;
            let promised = promised && message.expires.is_none();
            assert!(
                !promised || message.acknowledged,
                "message {number} is lost: {message:?}"
            );
        }
        self.flush();
        let kept = self.bench.disk().map(CrashingStore::kept);
        let kept = kept.unwrap_or_else(|| self.bench.store().kept());
        assert_eq!(kept, 0, "the store keeps what nobody is to get");
    }

    /// What is due by now, or would be soon, is sent.
    pub(super) fn push_all(&mut self) {
        self.pushes.settle(&self.bench, true);
        // A push for somebody whose account was not there looks for it once a minute.
        let rounds = if self.worldly { 8 } else { 2 };
        for _ in 0..rounds {
            self.flush();
            self.drain();
            self.bench.pass(rules().user.push.deadline);
            self.age();
        }
        self.flush();
        self.drain();
        while let Some(push) = self.bench.next_push() {
            self.pushes.take(push);
            self.pushes.settle(&self.bench, false);
        }
        self.pushes.check_complete(&self.messages);
    }
}
