//! The thread that owns the connection by which the file is changed.
//!
//! A batch is what came while the last one was committed, so it grows with the load, and a lone call
//! waits for nobody. When a commit fails, appends are refused, everything else waits, and once in
//! [`PROBE_INTERVAL`] it is tried again until it succeeds. So it goes when a file is
//! not where it was (`at_place`). When that is for want of room, the reserve is given up: then
//! everything but appends goes on in it, until there is room for the reserve again, or in the file itself.
//!
//! Invariants: no completion is called before the commit, or under a lock; they are called in the order of the
//! calls; the log says once that trouble began and once that it ended, and holds no content.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jam_core::store::Completion;
use jam_core::timekeeping::ClockRecord;
use rusqlite::{Connection, Error, ErrorCode};

use super::apply::{Applier, Purge};
use super::at_place::{AtPlace, is_moved};
use super::oldest::Oldest;
use super::records::{self, EVERYTHING};
use super::reserve::{self, LEAST_BYTES, Reserve};
use super::schema;
use crate::mailbox::clock;
use crate::mailbox::shared::{Batch, MailboxShared, Waited};
use crate::metrics::{ServerMetrics, StoreFailure};

/// How often a file that could not be written is tried again.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often an idle writer looks for what other processes ask.
pub const PURGE_INTERVAL: Duration = Duration::from_millis(250);

/// How often a file that another process has locked is waited for, each time for the busy timeout.
const BUSY_TRIES: u32 = 3;

#[derive(Debug)]
pub(super) struct Writer<C> {
    shared: Arc<MailboxShared<C>>,
    place: Arc<AtPlace>,
    connection: Connection,
    applier: Applier,
    /// `PRAGMA data_version` when it was last looked at.
    seen: i64,
    /// What other processes asked for and the router has done, until that is kept.
    purged: Vec<Purge>,
    /// Whether the connection is to be replaced before the next try.
    suspect: bool,
    reserve: Reserve,
    /// When it was last tried whether the trouble is over.
    probed: Instant,
    /// What the file remembers of the clocks.
    clock: Option<ClockRecord>,
    metrics: Arc<ServerMetrics>,
    oldest: Oldest,
}

impl<C: Completion> Writer<C> {
    pub(super) fn new(
        shared: Arc<MailboxShared<C>>,
        place: Arc<AtPlace>,
        connection: Connection,
        applier: Applier,
        reserve: Reserve,
        clock: Option<ClockRecord>,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        Self {
            shared,
            place,
            connection,
            applier,
            seen: -1,
            purged: Vec::new(),
            suspect: false,
            reserve,
            probed: Instant::now(),
            clock,
            metrics,
            oldest: Oldest::default(),
        }
    }

    /// Until the mailbox is dropped.
    pub(super) fn run(mut self) {
        self.limit_log();
        let mut looked = Instant::now();
        loop {
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            if looked.elapsed() >= PURGE_INTERVAL {
                looked = Instant::now();
                self.look_for_purges();
                self.look_for_the_oldest();
            }
            let patience = if self.in_trouble() {
                PROBE_INTERVAL.saturating_sub(self.probed.elapsed())
            } else {
                PURGE_INTERVAL
            };
            let waited = if self.is_failing() {
                self.shared.wait_before_retry(patience)
            } else {
                self.shared.wait_for_work(patience)
            };
            match waited {
                Waited::Work => {
                    let batch = self.shared.take();
                    let kept = self.write(batch);
                    if !kept && self.is_failing() && self.shared.is_stopping() {
                        tracing::error!("the mailbox stops without having kept everything");
                        return;
                    }
                }
                Waited::Idle => self.keep_clock(false),
                Waited::Stop => {
                    self.look_at_place();
                    self.keep_clock(true);
                    return;
                }
            }
            if self.probed.elapsed() >= PROBE_INTERVAL {
                self.probed = Instant::now();
                if self.in_trouble() {
                    self.end_trouble();
                } else if self.look_at_place() && self.reserve.take_any() {
                    self.limit_log();
                }
            }
        }
    }

    /// Whether all files are where they were.
    fn look_at_place(&mut self) -> bool {
        let misplaced = self.place.look(&self.connection);
        if let Some(misplaced) = &misplaced {
            self.fail(&misplaced.error());
        }
        misplaced.is_none()
    }

    fn in_trouble(&self) -> bool {
        self.shared.trouble.load(Ordering::Relaxed)
    }

    fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }

    /// Writes down what is to be remembered of the clocks when there is no batch to do it with.
    fn keep_clock(&mut self, is_last: bool) {
        let record = self.shared.state().clock;
        let Some(record) = record.filter(|it| is_last || clock::is_news(it, self.clock.as_ref()))
        else {
            return;
        };
        if !self.in_trouble()
            && self
                .applier
                .keep_clock(&mut self.connection, &record)
                .is_ok()
        {
            self.clock = Some(record);
            self.shared.clock_kept(record);
        }
    }

    /// Whether the batch is kept.
    fn write(&mut self, mut batch: Batch<C>) -> bool {
        batch.answer_unwritten();
        let new_numbers = self.applier.must_reserve(&batch.ops);
        let wrote =
            !batch.ops.is_idle() || self.is_failing() || new_numbers || !self.purged.is_empty();
        let began = Instant::now();
        let outcome = if wrote { self.commit(&batch) } else { Ok(()) };
        if wrote && outcome.is_ok() {
            let changes = batch.ops.changes();
            self.metrics.committed(changes, began.elapsed());
        }
        let upto = batch.upto();
        match outcome {
            Ok(()) => {
                self.shared.failing.store(false, Ordering::Relaxed);
                self.purged.clear();
                if let Some(record) = batch.clock.filter(|_| wrote) {
                    self.clock = Some(record);
                    self.shared.clock_kept(record);
                }
                let calls = batch.calls;
                self.shared.committed(batch.ops);
                calls
                    .into_iter()
                    .filter_map(|call| call.completion)
                    .for_each(C::committed);
                self.shared.completed(upto);
                true
            }
            Err(error) => {
                self.fail(&error);
                let (rejected, nothing_waits) = self.shared.failed(batch);
                rejected.into_iter().for_each(C::rejected);
                if nothing_waits {
                    self.shared.completed(upto);
                }
                false
            }
        }
    }

    /// Appends are taken again when something has been written, and there is room.
    fn end_trouble(&mut self) {
        if self.is_failing() {
            return;
        }
        if !self.reserve.take_back() {
            if !self.has_free_pages() {
                return;
            }
            self.reserve.take_any();
        }
        self.limit_log();
        self.shared.trouble.store(false, Ordering::Relaxed);
        tracing::info!("the mailbox can be written again; messages are taken again");
    }

    /// Keeps the log so small that there is room for what is in it.
    fn limit_log(&self) {
        drop(schema::checkpoint_after(
            &self.connection,
            self.reserve.log_pages(),
        ));
    }

    /// Whether what was delivered has left room in the file itself.
    fn has_free_pages(&self) -> bool {
        let pragma = |name| schema::pragma(&self.connection, name).unwrap_or(0);
        let bytes = pragma("freelist_count") * pragma("page_size");
        u64::try_from(bytes).is_ok_and(|bytes| bytes >= LEAST_BYTES)
    }

    fn commit(&mut self, batch: &Batch<C>) -> Result<(), Error> {
        // Something has to be written to find out whether it can be.
        let probe = self.is_failing();
        if let Some(misplaced) = self.place.look(&self.connection) {
            return Err(misplaced.error());
        }
        if self.suspect {
            self.connection = schema::open_to_write(&self.place.files.db)?;
            self.suspect = false;
            self.seen = -1;
            self.limit_log();
        }
        #[cfg(test)]
        self.limit_pages()?;
        let mut tries = 0;
        loop {
            let clock = batch.clock.as_ref();
            let connection = &mut self.connection;
            let outcome = {
                let done = &self.purged;
                self.applier
                    .commit(connection, &batch.ops, clock, done, probe)
            };
            tries += 1;
            match &outcome {
                Err(error) if is_busy(error) && tries < BUSY_TRIES => {}
                _ => return outcome,
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        let code = error.sqlite_error_code();
        let is_full = self.is_full(error);
        self.metrics.mailbox_failed(match is_full {
            true => StoreFailure::Full,
            false => failure(error),
        });
        // A connection that has seen the disk fail may believe what is not so.
        self.suspect |= code != Some(ErrorCode::DiskFull);
        let is_news = !self.shared.trouble.swap(true, Ordering::Relaxed);
        if is_news {
            self.probed = Instant::now();
        }
        let has_room = is_full && self.reserve.give_up();
        if is_full {
            // The log begins anew, in the room that it has, if what is in it finds a place.
            self.limit_log();
            drop(schema::checkpoint(&self.connection));
        }
        if !has_room
            && !self.shared.failing.swap(true, Ordering::Relaxed)
            && let Some(events) = self.shared.events()
        {
            events.failing();
        }
        if !is_news {
            return;
        }
        let path = self.place.files.db.display();
        let advice = match code {
            _ if is_moved(error) => "",
            Some(ErrorCode::DiskFull) => "; make room on the disk",
            _ if is_full => "; the disk quota is used up: make room, or raise it",
            Some(ErrorCode::ReadOnly) => "; make the file and its directory writable",
            Some(ErrorCode::DatabaseBusy) => "; end the process that has it locked",
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "; run `jam-mqtt check`",
            _ => "; look at the disk",
        };
        tracing::error!(
            "the mailbox {path} cannot be written: {error}{advice}. Until then messages are refused, \
             what is there is delivered, and the file is tried again each second"
        );
    }

    /// Whether there is no room. Of a quota that is used up SQLite says no more than that a write failed.
    fn is_full(&self, error: &Error) -> bool {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            Some(ErrorCode::SystemIoFailure) => reserve::has_no_room(&self.place.files.db),
            _ => false,
        }
    }

    /// Has the router remove what another process wants removed, and forgets the request in the commit that keeps that: it
    /// is done once, and a crash undoes both or neither.
    fn look_for_purges(&mut self) {
        let look = || -> Result<_, Error> {
            let version = schema::pragma(&self.connection, "data_version")?;
            if version == self.seen {
                return Ok((version, Vec::new()));
            }
            Ok((version, Purge::all(&self.connection)?))
        };
        // What cannot be read now can be read a little later.
        let Ok((version, mut asked)) = look() else {
            return;
        };
        asked.retain(|purge| !self.purged.contains(purge));
        self.seen = version;
        for purge in asked {
            if self.purge(&purge) {
                self.purged.push(purge);
            } else {
                self.seen = -1;
            }
        }
        if !self.purged.is_empty() && !self.is_failing() {
            let batch = self.shared.take();
            self.write(batch);
        }
    }

    /// For the metrics.
    fn look_for_the_oldest(&mut self) {
        match self.oldest.look(&self.connection, Instant::now()) {
            Ok(Some(millis)) => self.shared.oldest.store(millis, Ordering::Relaxed),
            Ok(None) => {}
            // Its writes say what is wrong with the file.
            Err(error) => tracing::debug!(%error, "cannot look for the oldest message"),
        }
    }

    /// Whether the router has been told, or there is nothing that it could be told.
    fn purge(&self, purge: &Purge) -> bool {
        let (user, up_to) = (
            records::user(&purge.user),
            records::from_number(purge.up_to),
        );
        let (Ok(user), Ok(up_to)) = (user, up_to) else {
            return true;
        };
        let Some(events) = self.shared.events() else {
            return false;
        };
        if purge.sender == EVERYTHING {
            events.end(&user, up_to);
        } else {
            let from = records::user(&purge.sender).ok();
            if from.is_none() && !purge.sender.is_empty() {
                return true;
            }
            events.purge(&user, up_to, from.as_ref());
        }
        true
    }

    /// Says how the connection commits, and how large the file may become.
    #[cfg(test)]
    fn limit_pages(&self) -> Result<(), Error> {
        let synchronous = schema::pragma(&self.connection, "synchronous")?;
        self.place.synchronous.store(synchronous, Ordering::Relaxed);
        let pages = self.place.max_pages.load(Ordering::Relaxed);
        let pages = if pages == 0 { 4_294_967_294 } else { pages };
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }
}

/// As it is counted.
fn failure(error: &Error) -> StoreFailure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreFailure::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreFailure::Corrupt,
        _ => StoreFailure::Io,
    }
}

fn is_busy(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
