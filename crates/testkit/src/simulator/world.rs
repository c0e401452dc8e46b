//! Time passes, and the machine's clocks do what clocks do.

use std::time::Duration;

use jam_core::router::GRACE;

use super::{FAR_MILLIS, SESSION, Simulator};

impl Simulator<'_> {
    pub(super) fn pass(&mut self) -> Option<()> {
        let by = match self.source.below(8)? {
            0 => SESSION,
            1 => SESSION / 2,
            n => Duration::from_micros(n as u64 * 1_000_137),
        };
        if by >= SESSION / 2 {
            self.show();
            // When a connection has ended is not forgotten after so long.
            self.flush();
            self.drain();
        }
        if self.worldly {
            self.drain();
        }
        self.bench.pass(by);
        self.age();
        if by >= SESSION / 2 {
            self.flush();
        }
        self.age();
        Some(())
    }

    /// What has come to its time by now has come to its end.
    pub(super) fn age(&mut self) {
        let now = self.bench.now();
        let devices = self.devices.iter_mut();
        devices.for_each(|device| device.expire(now));
    }

    /// The machine's clocks do something that is not the server's doing.
    pub(super) fn clocks(&mut self) -> Option<()> {
        let (what, hours) = (self.source.below(6)?, self.source.below(24)?);
        let is_killed = self.source.below(4)? == 0;
        let millis = i64::try_from(hours).ok()? * 3_600_000;
        let far = millis * 24 + FAR_MILLIS;
        // When a connection has ended is not forgotten after so long.
        self.show();
        self.flush();
        self.drain();
        match what {
            0 => self.bench.sleep(Duration::from_secs(hours as u64 * 60)),
            1 => self.bench.step_wall_clock(millis / 24),
            2 => self.bench.step_wall_clock(-millis),
            3 => self.bench.step_wall_clock(far),
            _ => self.bench.step_wall_clock(-far),
        }
        if is_killed {
            self.crash();
        } else {
            self.bench.pass(GRACE);
        }
        self.age();
        self.flush();
        self.age();
        Some(())
    }
}
