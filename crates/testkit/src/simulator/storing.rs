//! What the store does, and when.

use jam_core::router::GRACE;

use super::device::Device;
use super::{Simulator, USERS};

impl Simulator<'_> {
    pub(super) fn release(&mut self) -> Option<()> {
        let held = self.bench.store().held();
        if self.source.below(2)? == 0 {
            self.bench.store().hold(false);
            self.bench.store().release_all();
        } else if held > 0 {
            let which = self.source.below(held)?;
            self.bench.store().release(which);
        }
        self.bench.run();
        Some(())
    }

    /// The store does something, or the server is killed.
    pub(super) fn disk(&mut self, operation: usize) -> Option<()> {
        let choice = self.source.below(8)?;
        let some = self.source.below(8)?;
        if let (27, 0..2) = (operation, choice) {
            self.crash();
            self.bench.run();
            return Some(());
        }
        let Some(disk) = self.bench.disk() else {
            return Some(());
        };
        match (operation, choice) {
            (27, 2) if self.fails => {
                disk.fail();
                self.devices.iter_mut().for_each(Device::may_be_rejected);
            }
            (27, _) => {
                let _ = disk.read();
            }
            (28, _) => disk.commit(some),
            (_, 0) => {
                let _ = disk.flush();
            }
            _ => {
                for _ in 0..some.min(disk.unanswered()) {
                    disk.answer(self.source.below(disk.unanswered())?);
                }
            }
        }
        self.bench.run();
        Some(())
    }

    /// Nothing waits for the store any more.
    pub(super) fn flush(&mut self) {
        if let Some(disk) = self.bench.disk() {
            self.bench.pass(GRACE);
            while disk.flush() {
                self.bench.run();
            }
            self.wills_are_kept();
            if self.worldly {
                self.age();
                self.drain();
                self.weigh();
            }
            return;
        }
        self.bench.store().hold(false);
        self.bench.store().release_all();
        self.bench.run();
    }

    pub(super) fn crash(&mut self) {
        self.bench.crash();
        let now = self.bench.now();
        for device in &mut self.devices {
            device.crash(now);
            device.acks_are_undone(&mut self.messages);
        }
        self.pushes.crash();
        self.wills_after_crash();
        if self.worldly {
            // As at each start.
            self.mend_directory();
            self.accounts.lingering.extend(USERS);
            self.bench.recheck_that(true);
        }
    }
}
