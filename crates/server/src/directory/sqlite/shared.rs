//! [`DirectoryShared`]: the open file, what is in memory of it, and whether that may be believed now.
//!
//! Before memory is believed, the file is looked at if nobody has for [`LOOK_AGE`], less in WAL mode: `PRAGMA data_version`
//! on a connection held for that changes with every commit of any other connection or process. No look waits for
//! another. Look-ups and the loader both use it, each through what it needs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, TryLockError};
use std::time::{Duration, Instant};

use jam_core::directory::{Fact, Generation};
use rusqlite::Connection;
use rusqlite::types::FromSql;

use super::super::cache::{Cache, Key};
use super::direct::{Direct, may_read_here};
use super::files::{FileId, Files, Names};
use super::wal_index::WalIndex;
use super::{DirectoryError, is_busy, schema};
use crate::metrics::ServerMetrics;

/// How old the last look at the file may be when memory is believed.
///
/// Shorter than it takes another process to commit and then to have a client publish, so that the
/// publish meets the change (PROTOCOL.md, section 6: at once). A look takes 5 µs. No look succeeds while
/// a commit is written, which takes longer than this: the look before the commit is always too old.
pub(super) const LOOK_AGE: Duration = Duration::from_micros(250);

/// The same for a file in WAL mode, where looks go on succeeding until the commit is there: a script's
/// publish has been judged less than 40 µs after that. Where there is a [`WalIndex`], nothing is believed that is
/// older than the last commit.
const LOOK_AGE_IN_WAL: Duration = Duration::from_micros(10);

/// While another thread is just looking, a look may be so many times as old.
const DURING_LOOK: u32 = 2;

/// From here on a loader that shows no sign of life counts as one that does not answer: the disk, or whatever else
/// the system lets it wait for. To wait for another process's lock is a sign of life. Nobody waits for its answers
/// much longer than this, and once somebody has found it, nothing in memory is believed until a look is answered.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

pub(super) const NO_PANIC: &str = "no code that looks can panic";

/// How often the files are opened that may be replaced meanwhile.
const OPEN_TRIES: u32 = 3;

#[cfg(test)]
thread_local! {
    /// What the next look of this thread does once it has read the file's version.
    pub(super) static MEANWHILE: std::cell::Cell<Option<Box<dyn FnOnce()>>> = const { std::cell::Cell::new(None) };
}

/// What look-ups and the loader both use.
#[derive(Debug)]
pub(super) struct DirectoryShared {
    pub(super) path: PathBuf,
    pub(super) cache: Cache,
    pub(super) direct: Direct,
    /// `None` while no file is open.
    look: Mutex<Option<Look>>,
    /// Held for reading by connections that come and go, and for writing by who closes all the others: SQLite shares
    /// what it knows of a file among the connections of a process.
    pub(super) passing: Arc<RwLock<()>>,
    /// Whether `-shm` is mapped at all.
    maps_wal_index: AtomicBool,
    /// Of a file in WAL mode, where there is one.
    wal_index: RwLock<Option<WalIndex>>,
    /// When the last look began that succeeded, in microseconds of `clock`.
    looked: AtomicU64,
    /// When the loader last showed a sign of life, in microseconds of `clock`.
    heard: AtomicU64,
    /// The last look was not answered: nothing is believed until one is.
    pub(super) silent: AtomicBool,
    /// Whether the file was in WAL mode then.
    in_wal: AtomicBool,
    /// How often another file was found at the path.
    pub(super) replacements: AtomicU64,
    epoch: Instant,
    /// What a server counts in.
    pub(super) metrics: OnceLock<Arc<ServerMetrics>>,
}

/// What the loader needs of what has been opened.
#[derive(Debug)]
pub(super) struct OpenedDatabase {
    pub(super) reader: Connection,
    pub(super) names: Names,
    /// What the names stood for when it was opened.
    pub(super) files: Files,
}

/// The connection that is held for looks alone.
struct Look {
    connection: Connection,
    /// As of the last look; `None` before the first.
    version: Option<i64>,
    /// Changes when a backup is restored into the file, and with its tables.
    schema: Option<i64>,
    /// There is none that tells of commits, and it is not looked for again.
    had_no_wal_index: bool,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Look({:?})", self.version)
    }
}

impl DirectoryShared {
    /// Of the database at `path`; nothing is open yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            cache: Cache::new(),
            direct: Direct::closed(),
            look: Mutex::new(None),
            passing: Arc::default(),
            maps_wal_index: AtomicBool::new(true),
            wal_index: RwLock::new(None),
            looked: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            in_wal: AtomicBool::new(true),
            replacements: AtomicU64::new(0),
            epoch: Instant::now(),
            metrics: OnceLock::new(),
        }
    }

    /// Asks SQLite for commits of other processes from now on, and maps no `-shm`.
    pub(super) fn leave_wal_index(&self) {
        self.maps_wal_index.store(false, Ordering::Relaxed);
        let look = self.look.lock().expect(NO_PANIC);
        self.set_wal_index(None);
        drop(look);
    }

    /// Whether memory may be believed now. Does not wait.
    pub(super) fn is_fresh(&self) -> bool {
        let allowed = match self.with_wal_index(WalIndex::is_as_seen) {
            Some(true) => return true,
            Some(false) => None, // there is a commit
            None if self.in_wal.load(Ordering::Relaxed) => Some(LOOK_AGE_IN_WAL),
            None => Some(LOOK_AGE),
        };
        let now = self.clock();
        let age = Duration::from_micros(now.saturating_sub(self.looked.load(Ordering::Acquire)));
        let is_within = |times: u32| allowed.is_some_and(|allowed| age <= allowed * times);
        if is_within(1) {
            return true;
        }
        if !may_read_here() {
            return false;
        }
        match self.look.try_lock() {
            Ok(mut look) => self.look_with(&mut look).is_ok(),
            Err(TryLockError::WouldBlock) => is_within(DURING_LOOK),
            Err(TryLockError::Poisoned(_)) => false,
        }
    }

    /// Reads a fact from the file. Does not wait.
    #[cold]
    pub(super) fn read<T>(
        &self,
        key: &Key,
        pick: impl FnOnce(&Fact) -> Option<T>,
    ) -> Option<(T, Generation)> {
        let generation = self.cache.generation();
        let fact = self.direct.read(key)?;
        let picked = pick(&fact);
        self.cache.insert(*key, fact, generation);
        Some((picked?, generation))
    }

    /// Looks at the file, for the loader's thread: may wait for the one who is just looking.
    pub(super) fn look(&self) -> Result<(), LookError> {
        let mut look = self.look.lock().expect(NO_PANIC);
        self.look_with(&mut look)
    }

    /// Opens what stands at the path now: every connection, the loader's included.
    pub(super) fn open_connections(&self) -> Result<OpenedDatabase, DirectoryError> {
        for _ in 0..OPEN_TRIES {
            let names = Names::of(&self.path);
            let before = names.look();
            let reader = schema::open_for_reading(&self.path)?;
            let look = Look::open(&self.path)?;
            let direct = schema::open_for_reading(&self.path)?;
            let files = names.look();
            // What is put there from now on is noticed later. Of what was put there meanwhile it is not known who has
            // opened it.
            if !before.became(&files) {
                for connection in [&reader, &look.connection, &direct] {
                    schema::leave_files_alone(connection);
                }
                continue;
            }
            *self.look.lock().expect(NO_PANIC) = Some(look);
            self.direct.open(direct);
            self.cache.invalidate();
            return Ok(OpenedDatabase {
                reader,
                names,
                files,
            });
        }
        Err(DirectoryError::new(format!(
            "the files of {} are replaced faster than they can be opened",
            self.path.display()
        )))
    }

    /// Closes every connection, `reader` included; `None` while one of those that come and go is open. What memory does
    /// not know is not answered then.
    pub(super) fn close_connections(
        &self,
        reader: &mut Option<Connection>,
        may_checkpoint: bool,
    ) -> Option<()> {
        let _passing = self.passing.try_write().ok()?;
        let look = self.look.lock().expect(NO_PANIC).take();
        let look = look.map(|look| look.connection);
        let connections = [reader.take(), look, self.direct.close()];
        for connection in connections.into_iter().flatten() {
            if !may_checkpoint {
                schema::leave_files_alone(&connection);
            }
            drop(connection);
        }
        let index = self.wal_index.write().expect(NO_PANIC).take();
        index.into_iter().for_each(WalIndex::close);
        self.cache.invalidate();
        Some(())
    }

    /// Which `-shm` is looked at for commits.
    pub(super) fn index_id(&self) -> Option<FileId> {
        self.with_wal_index(WalIndex::id)
    }

    fn look_with(&self, look: &mut Option<Look>) -> Result<(), LookError> {
        let Some(look) = look else {
            return Err(LookError::Closed);
        };
        let began = self.clock();
        let before = self.with_wal_index(WalIndex::header);
        let version = look.read_version()?;
        #[cfg(test)]
        MEANWHILE
            .take()
            .into_iter()
            .for_each(|meanwhile| meanwhile());
        if look.version != Some(version) {
            let in_wal = look.is_in_wal()?;
            self.in_wal.store(in_wal, Ordering::Relaxed);
            if !in_wal {
                self.set_wal_index(None);
            } else if before.is_none()
                && !look.had_no_wal_index
                && self.maps_wal_index.load(Ordering::Relaxed)
            {
                let index = WalIndex::open(&self.path);
                look.had_no_wal_index = index.is_none();
                self.set_wal_index(index);
            }
            let schema = look.pragma("PRAGMA schema_version")?;
            if look
                .schema
                .replace(schema)
                .is_some_and(|before| before != schema)
            {
                self.replacements.fetch_add(1, Ordering::AcqRel);
            }
            look.version = Some(version);
            self.cache.invalidate();
        }
        if let Some(before) = before {
            self.with_wal_index(|index| index.see(before));
        }
        // After the generation, so that who sees this time also sees that generation.
        self.looked.store(began, Ordering::Release);
        Ok(())
    }

    /// Counts what somebody who asked is told.
    pub(super) fn count(&self, error: DirectoryError) -> DirectoryError {
        if let Some(metrics) = self.metrics.get() {
            metrics.directory_failed(error.failure);
        }
        error
    }

    /// A sign of life of the loader.
    pub(super) fn hear(&self) {
        self.heard.store(self.clock(), Ordering::Relaxed);
    }

    /// Whether the loader has shown no sign of life for [`SILENCE`], when there is something to do for it.
    pub(super) fn is_unheard(&self) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        Duration::from_micros(self.clock().saturating_sub(heard)) >= SILENCE
    }

    pub(super) fn with_wal_index<T>(&self, ask: impl FnOnce(&WalIndex) -> T) -> Option<T> {
        let index = self.wal_index.read();
        index.expect(NO_PANIC).as_ref().map(ask)
    }

    pub(super) fn set_wal_index(&self, index: Option<WalIndex>) {
        *self.wal_index.write().expect(NO_PANIC) = index;
    }

    /// Microseconds. Starts so late that nothing looks fresh at the beginning.
    fn clock(&self) -> u64 {
        let start = Duration::from_secs(1);
        u64::try_from((start + self.epoch.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Why a look failed.
#[derive(Debug)]
pub(super) enum LookError {
    /// Another process holds a lock.
    Busy,
    /// No file is open.
    Closed,
    /// Anything else.
    Failed(DirectoryError),
}

impl Look {
    fn open(path: &Path) -> Result<Self, DirectoryError> {
        let connection = schema::open_for_reading(path)?;
        Ok(Self {
            connection,
            version: None,
            schema: None,
            had_no_wal_index: false,
        })
    }

    fn read_version(&self) -> Result<i64, LookError> {
        self.pragma("PRAGMA data_version")
    }

    fn is_in_wal(&self) -> Result<bool, LookError> {
        let mode: String = self.pragma("PRAGMA journal_mode")?;
        Ok(mode == "wal")
    }

    fn pragma<T: FromSql>(&self, sql: &str) -> Result<T, LookError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row([], |row| row.get(0))
        };
        read().map_err(|error: rusqlite::Error| match error {
            error if is_busy(&error) => LookError::Busy,
            error => LookError::Failed(error.into()),
        })
    }
}
