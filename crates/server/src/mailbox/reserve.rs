//! Room on the disk for what has to be kept when the disk is full.
//!
//! Deliveries at QoS 2 and acknowledgements write, if only a little: that they go on, so that mailboxes become
//! empty, must not depend on a disk with room. So a file of [`RESERVE_BYTES`] stands beside the database, or a smaller
//! one where there is no room for that. It is given up when the disk is full, and taken again, before messages
//! are accepted again, when there is room. On a file system that cannot reserve room there is none.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};

/// Enough for the log to be moved into the database, and then for some time of small changes.
pub const RESERVE_BYTES: u64 = 16 << 20;

/// Less than this is no room; and so much more there has to be before the reserve is taken again.
pub(super) const LEAST_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
    /// What it has, or had before it was given up; 0 for none.
    bytes: u64,
}

impl Reserve {
    /// Takes it, or as much of it as there is room for.
    pub(super) fn at(path: PathBuf) -> Self {
        let mut reserve = Self {
            path,
            held: false,
            bytes: RESERVE_BYTES,
        };
        reserve.take_less();
        if !reserve.held {
            let path = reserve.path.display();
            tracing::warn!("no room can be reserved at {path} for when the disk is full");
        }
        reserve
    }

    /// Gives up the room; whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        std::mem::take(&mut self.held) && std::fs::remove_file(&self.path).is_ok()
    }

    /// Whether there is as much room as there was, and some more: it is taken then.
    pub(super) fn take(&mut self) -> bool {
        self.held = self.held || (self.bytes > 0 && self.allocate());
        self.held || self.bytes == 0
    }

    /// Takes as much as there is room for.
    pub(super) fn take_less(&mut self) {
        while !self.take() {
            self.bytes /= 2;
            if self.bytes < LEAST_BYTES {
                self.bytes = 0;
            }
        }
    }

    fn allocate(&self) -> bool {
        let allocated = || -> io::Result<()> {
            let mut options = File::options();
            options.create(true).truncate(true).write(true);
            let file = options.open(&self.path)?;
            fallocate(&file, FallocateFlags::empty(), 0, self.bytes + LEAST_BYTES)?;
            file.set_len(self.bytes)
        };
        let allocated = allocated();
        if let Err(error) = &allocated {
            tracing::debug!(%error, "no room for the reserve");
            drop(std::fs::remove_file(&self.path));
        }
        allocated.is_ok()
    }
}
