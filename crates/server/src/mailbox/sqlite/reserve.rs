//! Room on the disk for what has to be kept when the disk is full.
//!
//! Deliveries at QoS 2 and acknowledgements write, if only a little: that they go on, so that mailboxes become
//! empty, must not depend on a disk with room. So a file of [`RESERVE_BYTES`] stands beside the database, or a smaller
//! one where there is no room for that. It is given up when the disk is full, and taken again, before messages
//! are accepted again, when there is room. On a file system that cannot reserve room there is none. A mailbox that cannot
//! be opened for want of room is opened in it.
//!
//! Invariant: it has room for the whole log to be moved into the database ([`Reserve::log_pages`]).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::schema::{CHECKPOINT_PAGES, PAGE_BYTES};

/// The log, which is moved into the database then, and as much as small changes take for some time.
pub const RESERVE_BYTES: u64 = 40 << 20;

/// Less than this is no room; and so much more there has to be before the reserve is taken again.
pub(super) const LEAST_BYTES: u64 = 1 << 20;

/// A disk with less than this is full: opening a mailbox takes files and pages too.
const FULL_BYTES: u64 = 256 << 10;

/// What is left for small changes when the log has been moved.
const CHANGES_BYTES: u64 = 8 << 20;

/// Pages of the log when there is no reserve: 1 MiB.
const LEAST_PAGES: u64 = 256;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// 0 if there is none.
    held: u64,
    /// What there was before it was given up.
    had: u64,
    /// Whether the file system can reserve room.
    is_possible: bool,
}

impl Reserve {
    /// Takes it, or as much of it as there is room for.
    pub(super) fn at(path: PathBuf) -> Self {
        drop(fs::remove_file(&path)); // its room is free room
        let mut reserve = Self {
            path,
            held: 0,
            had: 0,
            is_possible: true,
        };
        reserve.take_any();
        if reserve.held == 0 {
            let path = reserve.path.display();
            tracing::warn!("no room can be reserved at {path} for when the disk is full");
        }
        reserve
    }

    /// Gives up what there is at the start, for want of room to open the mailbox in. `None` if there is nothing.
    pub(super) fn given_up(path: PathBuf) -> Option<Self> {
        let held = fs::metadata(&path).ok()?.len();
        fs::remove_file(&path).ok()?;
        Some(Self {
            path,
            held: 0,
            had: held.max(LEAST_BYTES),
            is_possible: true,
        })
    }

    /// Pages that the log may have, so that there is room for them; where no room can be reserved, as many as ever.
    pub(super) fn log_pages(&self) -> i64 {
        if !self.is_possible {
            return CHECKPOINT_PAGES;
        }
        let pages = self.held.saturating_sub(CHANGES_BYTES) / PAGE_BYTES;
        i64::try_from(pages.max(LEAST_PAGES))
            .map_or(CHECKPOINT_PAGES, |it| it.min(CHECKPOINT_PAGES))
    }

    /// Gives up the room; whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        if self.held == 0 {
            return false;
        }
        (self.had, self.held) = (self.held, 0);
        fs::remove_file(&self.path).is_ok()
    }

    /// Whether there is as much room as there was: it is taken then.
    pub(super) fn take_back(&mut self) -> bool {
        self.held > 0 || self.had == 0 || !self.is_possible || self.take(self.had)
    }

    /// Takes as much as there is room for, if that is more than what there is. Whether it was.
    pub(super) fn take_any(&mut self) -> bool {
        let before = self.held;
        let mut bytes = RESERVE_BYTES;
        while self.is_possible && bytes > self.held && bytes >= LEAST_BYTES && !self.take(bytes) {
            bytes /= 2;
        }
        self.held > before
    }

    fn take(&mut self, bytes: u64) -> bool {
        // A failed try would take what is left of the room for a moment.
        if self.held + self.room() < bytes + LEAST_BYTES {
            return false;
        }
        match self.allocate(bytes) {
            Ok(()) => self.held = bytes,
            Err(error) => {
                tracing::debug!(%error, "no room for the reserve");
                drop(fs::remove_file(&self.path));
                self.held = 0;
                // Whatever else is in the way will be the next time too.
                use io::ErrorKind::{QuotaExceeded, StorageFull};
                self.is_possible = matches!(error.kind(), StorageFull | QuotaExceeded);
            }
        }
        self.held == bytes
    }

    fn room(&self) -> u64 {
        room_beside(&self.path).unwrap_or(u64::MAX >> 1)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut options = File::options();
        options.create(true).truncate(true).write(true);
        let file = options.open(&self.path)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    }
}

/// Bytes that may still be written to the file system of the nearest directory above `path` that exists. `None`: it does
/// not say.
pub(super) fn room_beside(path: &Path) -> Option<u64> {
    let mut above = path.ancestors().skip(1);
    let found = above.find_map(|dir| {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        statvfs(dir).ok()
    })?;
    Some(found.f_bavail.saturating_mul(found.f_frsize) & (u64::MAX >> 1))
}

/// Whether not even a small file finds room beside `path`: the disk is full, or a quota is used up, of which the file system
/// does not say beforehand how much is left.
pub(super) fn has_no_room(path: &Path) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let probe = path.with_extension("room");
    let mut bytes = io::repeat(0).take(LEAST_BYTES);
    let written = File::create(&probe).and_then(|mut file| io::copy(&mut bytes, &mut file));
    drop(fs::remove_file(&probe));
    written.is_err_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

/// Whether there is too little room to open a mailbox in.
pub(super) fn is_full(path: &Path) -> bool {
    room_beside(path).is_some_and(|room| room < FULL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often it was given up meanwhile.
    #[test]
    fn it_is_taken_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailbox.reserve");
        let mut reserve = Reserve::at(path.clone());
        assert!(reserve.give_up() && !path.exists());
        assert!(!reserve.give_up());
        assert!(reserve.take_back());
        assert_eq!(fs::metadata(&path).unwrap().len(), RESERVE_BYTES);
    }

    /// A file system without that, and what stands in its place: it is not tried again, and nothing waits for it.
    #[test]
    fn where_no_room_can_be_reserved_the_log_is_as_long_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailbox.reserve");
        fs::create_dir(&path).unwrap();
        let mut reserve = Reserve::at(path.clone());
        assert_eq!(reserve.log_pages(), CHECKPOINT_PAGES);
        assert!(!reserve.give_up() && reserve.take_back());
        fs::remove_dir(&path).unwrap();
        assert!(!reserve.take_any() && !path.exists());
        // What there was at the start cannot be taken again either.
        fs::write(&path, "as it was").unwrap();
        let mut reserve = Reserve::given_up(path.clone()).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!reserve.take_back());
        assert!(reserve.take_back(), "trouble ends");
        assert_eq!(reserve.log_pages(), CHECKPOINT_PAGES);
    }

    /// What is left of it is for small changes, but where it is smaller than that.
    #[test]
    fn the_log_has_room_in_the_reserve() {
        let pages = |mebibytes: u64, is_possible| {
            let (path, held) = (PathBuf::new(), mebibytes << 20);
            let reserve = Reserve {
                path,
                held,
                had: 0,
                is_possible,
            };
            reserve.log_pages()
        };
        assert_eq!(pages(40, true), CHECKPOINT_PAGES);
        assert_eq!(pages(20, true), 12 * 256);
        assert_eq!(pages(9, true), 256);
        assert_eq!(pages(5, true), 256);
        assert_eq!(pages(0, true), 256);
        assert_eq!(pages(0, false), CHECKPOINT_PAGES);
    }
}
