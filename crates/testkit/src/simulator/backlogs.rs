//! The server does not read what a client sends, or a client what the server writes: what stands behind that is handled
//! all the same before the connection ends, or another one takes its place.

use jam_wire::packet::{Packet, QoS};

use super::Simulator;
use super::device::Device;
use crate::packets;

/// Filters in one packet, and bytes of each: together they bring about more errors than the server writes for somebody
/// who does not read.
const FILTERS: usize = 256;
const FILTER_BYTES: usize = 1000;

impl Simulator<'_> {
    /// A connection gets, or loses, a backlog.
    pub(super) fn backlog(&mut self) -> Option<()> {
        let (what, which) = (
            self.source.below(6)?,
            self.source.below(self.devices.len())?,
        );
        let device = &mut self.devices[which];
        if !device.connected {
            return Some(());
        }
        match what {
            0..3 => device.is_let_wait(true),
            3 => device.is_let_wait(false),
            4 => device.set_reading(false),
            _ => {
                device.set_reading(false);
                (0..2).for_each(|_| device.ask_in_vain());
            }
        }
        Some(())
    }

    /// What has been sent is handled, and looked at.
    pub(super) fn hear_all(&mut self) {
        self.mend_directory();
        for device in self.devices.iter_mut().filter(|it| it.connected) {
            device.set_reading(true);
            device.is_let_wait(false);
        }
        self.drain();
    }
}

impl Device {
    /// The server is busy with others.
    fn is_let_wait(&mut self, busy: bool) {
        self.waits = busy;
        self.client.set_busy(busy);
    }

    fn set_reading(&mut self, reading: bool) {
        if self.reads != reading {
            self.reads = reading;
            self.is_late = true;
            self.client.set_reading(reading);
        }
    }

    /// Whether what it sends is handled at once.
    pub(super) fn is_heard(&self) -> bool {
        self.connected && !self.waits && !self.client.is_behind()
    }

    /// Subscribes to what is refused, with as large an answer as can be.
    fn ask_in_vain(&mut self) {
        if !self.is_heard() {
            return;
        }
        let filter = |n| {
            let topic = format!("/{}/#{n}{}", self.user, "x".repeat(FILTER_BYTES));
            packets::filter(&topic, QoS::AtMostOnce)
        };
        let filters = (0..FILTERS).map(filter).collect();
        let subscribe = packets::subscribe(self.client.take_id(), filters);
        self.is_subscribing();
        self.send(Packet::Subscribe(Box::new(subscribe)));
    }
}
