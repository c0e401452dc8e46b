//! Devices come, go, and take the place of others.

use super::device::Device;
use super::{MOST_IN_WINDOW, Simulator};

impl Simulator<'_> {
    pub(super) fn connect(&mut self, which: usize) -> Option<()> {
        let (lasting, clean) = (self.source.below(4)? != 0, self.source.below(6)? == 0);
        if self.is_hidden(self.devices[which].user) {
            self.try_in_vain(which);
            return Some(());
        }
        self.hear_out(which);
        self.make_room(which);
        self.let_in(which, lasting, clean);
        self.check_evicted(which);
        Some(())
    }

    pub(super) fn let_in(&mut self, which: usize, lasting: bool, clean: bool) {
        self.mend_directory();
        if self.worldly {
            let most = self.source.below(MOST_IN_WINDOW);
            let takes_little = self.source.below(4) == Some(0) && !self.is_ending;
            self.devices[which].max_packet = takes_little.then_some(super::weights::MAX_PACKET);
            self.devices[which].receive_maximum = most.and_then(|it| u16::try_from(it + 1).ok());
        }
        self.devices[which].next_will = self.make_will(which);
        // The CONNACK of a connection that ends a session waits for the store, and this client for it.
        if let Some(disk) = self.bench.disk() {
            disk.at_once(true);
        } else {
            self.bench.store().hold(false);
        }
        let now = self.bench.now();
        self.devices[which].connect(lasting, clean, now, &mut self.messages);
        if let Some(disk) = self.bench.disk() {
            disk.at_once(false);
            self.wills_are_kept();
        }
        self.accounts.lingering.remove(self.devices[which].user);
        self.pushes.heard_of(self.devices[which].user);
    }

    /// The same device connects again while its connection is still there.
    pub(super) fn take_over(&mut self, which: usize) -> Option<()> {
        let (lasting, clean) = (self.source.below(4)? != 0, self.source.below(6)? == 0);
        self.mend_directory();
        self.drain();
        if self.bench.disk().is_some() {
            // What the store brings about goes to the old connection as long as it is looked at.
            self.flush();
            self.drain();
        }
        self.hear_out(which);
        let now = self.bench.now();
        // Drawn before anything changes: the source may end here.
        let says_goodbye = self.worldly && self.source.below(2)? == 0;
        let fresh = self
            .bench
            .client(self.devices[which].client.id(), self.devices[which].version);
        let old = std::mem::replace(&mut self.devices[which].client, fresh);
        if says_goodbye {
            // The goodbye stands behind whatever the server has not looked at.
            self.devices[which].say_goodbye(&old);
        }
        self.devices[which].lose_connection(now);
        self.let_in(which, lasting, clean);
        assert!(old.is_closed(), "the old connection is still there");
        old.drop_connection();
        Some(())
    }

    pub(super) fn leave(&mut self, which: usize) -> Option<()> {
        let polite = self.source.below(3)? == 0;
        let now = self.bench.now();
        self.devices[which].leave(polite, now);
        Some(())
    }

    /// A client that comes waits until the server has handled what those had sent that make way. What they wait for is the
    /// store: it answers now.
    fn hear_out(&mut self, which: usize) {
        let user = self.devices[which].user;
        let is_held_up =
            |device: &Device| device.user == user && device.connected && !device.client.is_wanted();
        if self.devices.iter().any(is_held_up) {
            self.flush();
            self.drain();
        }
    }

    /// With one device at a time, the session of every other device of the user ends.
    pub(super) fn make_room(&mut self, which: usize) {
        self.mend_directory();
        self.drain();
        if self.many {
            return;
        }
        let (user, now) = (self.devices[which].user, self.bench.now());
        for (index, other) in self.devices.iter_mut().enumerate() {
            if index != which && other.user == user {
                other.end_session_at(now);
            }
        }
    }

    /// Devices that had to make room have been told and are out.
    pub(super) fn check_evicted(&mut self, which: usize) {
        let (user, now) = (self.devices[which].user, self.bench.now());
        for (index, other) in self.devices.iter_mut().enumerate() {
            if !self.many && index != which && other.user == user && other.connected {
                other.expect_logout(now);
            }
        }
    }
}
