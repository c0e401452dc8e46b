//! The thread that owns the connection by which the file is changed.
//!
//! A batch is what came while the last one was committed, so it grows with the load, and a lone call
//! waits for nobody. When a commit fails, appends are refused, everything else waits, and once in
//! [`PROBE_INTERVAL`] it is tried again until it succeeds.
//!
//! Invariants: nobody is answered before the commit, or under a lock; answers are in the order of the
//! calls; the log says once that trouble began and once that it ended, and holds no content.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jam_core::policy::refusals;
use rusqlite::{Connection, Error, ErrorCode};

use super::apply::Applier;
use super::records;
use super::schema;
use super::shared::{Batch, Shared, Waited};

/// How often a file that could not be written is tried again.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often an idle writer looks for what other processes ask.
pub const PURGE_INTERVAL: Duration = Duration::from_millis(250);

/// How often a file that another process has locked is waited for, each time for the busy timeout.
const BUSY_TRIES: u32 = 3;

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    applier: Applier,
    /// `PRAGMA data_version` when it was last looked at.
    seen: i64,
    /// Whether the connection is to be replaced before the next try.
    suspect: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, applier: Applier) -> Self {
        Self {
            shared,
            connection,
            applier,
            seen: -1,
            suspect: false,
        }
    }

    /// Until the mailbox is dropped.
    pub(super) fn run(mut self) {
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= PURGE_INTERVAL {
                looked = Instant::now();
                self.look_for_purges();
            }
            let trouble = self.shared.trouble.load(Ordering::Relaxed);
            let patience = if trouble {
                PROBE_INTERVAL
            } else {
                PURGE_INTERVAL
            };
            match self.shared.wait_for_work(patience, trouble) {
                Waited::Work => {
                    let batch = self.shared.take();
                    let kept = self.write(batch, trouble);
                    if !kept && self.shared.is_stopping() {
                        tracing::error!("the mailbox stops without having kept everything");
                        return;
                    }
                }
                Waited::Idle => {}
                Waited::Stop => return,
            }
        }
    }

    /// Whether the batch is kept.
    fn write(&mut self, mut batch: Batch, trouble: bool) -> bool {
        for answer in std::mem::take(&mut batch.early) {
            answer.stored();
        }
        let new_numbers = self.applier.must_reserve(&batch.ops);
        let outcome = if batch.ops.is_idle() && !trouble && !new_numbers {
            Ok(())
        } else {
            self.commit(&batch, trouble)
        };
        match outcome {
            Ok(()) => {
                if trouble {
                    self.shared.trouble.store(false, Ordering::Relaxed);
                    tracing::info!("the mailbox can be written again; messages are taken again");
                }
                let upto = batch.upto();
                let calls = batch.calls;
                self.shared.committed(batch.ops);
                for answer in calls.into_iter().filter_map(|call| call.answer) {
                    answer.stored();
                }
                self.shared.answered(upto);
                true
            }
            Err(error) => {
                self.fail(&error, trouble);
                let upto = batch.upto();
                let (refused, nothing_waits) = self.shared.failed(batch);
                for answer in refused {
                    answer.refused(refusals::STORE);
                }
                if nothing_waits {
                    self.shared.answered(upto);
                }
                false
            }
        }
    }

    fn commit(&mut self, batch: &Batch, probe: bool) -> Result<(), Error> {
        if std::mem::take(&mut self.suspect) {
            self.connection = schema::open_to_write(&self.shared.files.db)?;
            self.seen = -1;
        }
        #[cfg(test)]
        self.limit_pages()?;
        let mut tries = 0;
        loop {
            let outcome = self.applier.commit(&mut self.connection, &batch.ops, probe);
            tries += 1;
            match &outcome {
                Err(error) if is_busy(error) && tries < BUSY_TRIES => {}
                _ => return outcome,
            }
        }
    }

    fn fail(&mut self, error: &Error, trouble: bool) {
        let code = error.sqlite_error_code();
        // A connection that has seen the disk fail may believe what is not so.
        self.suspect = code != Some(ErrorCode::DiskFull);
        if trouble {
            return;
        }
        self.shared.trouble.store(true, Ordering::Relaxed);
        let path = self.shared.files.db.display();
        let advice = match code {
            Some(ErrorCode::DiskFull) => "make room on the disk",
            Some(ErrorCode::ReadOnly) => "make the file and its directory writable",
            Some(ErrorCode::DatabaseBusy) => "end the process that has it locked",
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "run `jam-mqtt check`",
            _ => "look at the disk",
        };
        tracing::error!(
            "the mailbox {path} cannot be written: {error}; {advice}. Until then messages are refused, \
             what is there is delivered, and the file is tried again each second"
        );
    }

    /// Tells the router what another process wants removed.
    fn look_for_purges(&mut self) {
        let Some(on_purge) = self.shared.on_purge.get() else {
            return;
        };
        let look = || -> Result<_, Error> {
            let version = schema::pragma(&self.connection, "data_version")?;
            if version == self.seen {
                return Ok((version, Vec::new()));
            }
            let mut select = self
                .connection
                .prepare_cached("SELECT user, up_to FROM purge")?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
            let purges = select.query_map([], row)?.collect::<Result<Vec<_>, _>>()?;
            Ok((version, purges))
        };
        // What cannot be read now can be read a little later.
        let Ok((version, purges)) = look() else {
            return;
        };
        for (user, up_to) in &purges {
            if let (Ok(user), Ok(up_to)) = (records::user(user), records::from_number(*up_to)) {
                on_purge.0(user, up_to);
            }
        }
        if !purges.is_empty() {
            // The request is forgotten after what it asked for is kept, or a crash would undo it.
            let batch = self.shared.take();
            if !self.write(batch, false) {
                return;
            }
        }
        for (user, up_to) in &purges {
            let sql = "DELETE FROM purge WHERE user = ?1 AND up_to = ?2";
            if self.connection.execute(sql, (user, up_to)).is_err() {
                return;
            }
        }
        self.seen = version;
    }

    #[cfg(test)]
    fn limit_pages(&self) -> Result<(), Error> {
        let pages = self.shared.max_pages.load(Ordering::Relaxed);
        let pages = if pages == 0 { 4_294_967_294 } else { pages };
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }
}

fn is_busy(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
