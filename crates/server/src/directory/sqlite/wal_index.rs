//! [`WalIndex`]: whether anything was committed, without asking the system.
//!
//! The first bytes of the file's `-shm` change with every commit while the file is in WAL mode (SQLite's
//! "WAL-mode File Format", section 2.1). Every connection of this process has that file in memory; here it is
//! once more, so that to see that nothing has changed since SQLite was asked costs no system call.
//!
//! Invariant: what is as seen is as the last look saw it (`tests::looking::looks_are_cheap_in_wal_mode_and_see_every_commit`,
//! `tests::looking::nothing_stale_is_told`).

/// Words of the header, in which each commit changes several.
const WORDS: usize = 6;

/// A header, as it is or was.
pub(super) type WalHeader = [u64; WORDS];

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(super) use linux::WalIndex;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod linux {
    use std::fs::File;
    use std::mem::{ManuallyDrop, size_of};
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering, fence};

    use memmap2::{MmapOptions, MmapRaw};

    use super::super::files::FileId;
    use super::{WORDS, WalHeader};

    /// The beginning of an open file's `-shm`.
    #[derive(Debug)]
    pub(in super::super) struct WalIndex {
        map: MmapRaw,
        /// Closed only by [`Self::close`]: that takes away the locks that SQLite holds on the same file in this process.
        file: ManuallyDrop<File>,
        id: FileId,
        /// As of the last look. No header is all zero.
        seen: [AtomicU64; WORDS],
    }

    impl WalIndex {
        /// For the file at `path`, which is open and in WAL mode. `None` where this is not known to work.
        pub(in super::super) fn open(path: &Path) -> Option<Self> {
            // SQLite follows links, and puts it beside what they lead to.
            let mut name = path.canonicalize().ok()?.into_os_string();
            name.push("-shm");
            let file = ManuallyDrop::new(File::open(name).ok()?);
            let metadata = file.metadata().ok()?;
            if metadata.len() < size_of::<WalHeader>() as u64 {
                return None;
            }
            let map = MmapOptions::new()
                .len(size_of::<WalHeader>())
                .map_raw_read_only(&*file)
                .ok()?;
            Some(Self {
                map,
                file,
                id: FileId::from_metadata(&metadata),
                seen: [const { AtomicU64::new(0) }; WORDS],
            })
        }

        /// Which file it is.
        pub(in super::super) fn id(&self) -> FileId {
            self.id
        }

        /// To be called when no connection of this process has the database open.
        pub(in super::super) fn close(self) {
            drop(self.map);
            drop(ManuallyDrop::into_inner(self.file));
        }

        /// What stands there now. It may be half of one and half of the next, which is like neither.
        pub(in super::super) fn header(&self) -> WalHeader {
            let header = self.words().each_ref().map(|it| it.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            header
        }

        /// Whether nothing has been committed since the last look.
        pub(in super::super) fn is_as_seen(&self) -> bool {
            let header = self.header();
            let seen = self.seen.each_ref().map(|it| it.load(Ordering::Acquire));
            header == seen && header != [0; WORDS]
        }

        /// To be called when what the look has found is known to all, with the header as it was before the look.
        pub(in super::super) fn see(&self, header: WalHeader) {
            for (seen, word) in self.seen.iter().zip(header) {
                seen.store(word, Ordering::Release);
            }
        }

        #[allow(unsafe_code)] // no library reads what other processes write
        fn words(&self) -> &[AtomicU64; WORDS] {
            // SAFETY: the map begins at a page, is that long, is there as long as `self`, and is only read, with
            // loads that the processor does on read-only memory as well (`std::sync::atomic`); others write to it,
            // which is what atomics are for. SQLite shortens the file to 3 bytes at the least, which leaves its
            // first page, and reads it in the same way itself.
            unsafe { &*self.map.as_ptr().cast() }
        }
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(super) use elsewhere::WalIndex;

/// Where nobody has tried it.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
mod elsewhere {
    use std::path::Path;

    use super::super::files::FileId;
    use super::WalHeader;

    #[derive(Debug)]
    pub(in super::super) enum WalIndex {}

    impl WalIndex {
        pub(in super::super) fn open(_: &Path) -> Option<Self> {
            None
        }

        pub(in super::super) fn id(&self) -> FileId {
            match *self {}
        }

        pub(in super::super) fn close(self) {
            match self {}
        }

        pub(in super::super) fn header(&self) -> WalHeader {
            match *self {}
        }

        pub(in super::super) fn is_as_seen(&self) -> bool {
            match *self {}
        }

        pub(in super::super) fn see(&self, _: WalHeader) {
            match *self {}
        }
    }
}
