//! The thread that keeps the server's beat, and looks for what others want and for what the metrics show.
//!
//! Invariants: a beat that finds its row gone ends the mailbox, and so does a database that has gone back, also while nobody
//! writes or reads; a connection that has broken is replaced before anything is
//! said of it, and if it cannot be, appends are refused without waiting for one to fail.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jam_core::store::Completion;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::SimpleQueryMessage;

use super::connection::{BEGIN, Database, Purpose, name, no_answer};
use super::purging::PurgeRequest;
use super::schema::PARTS;
use super::snapshots::{self, SnapshotWatch};
use super::station::Station;
use super::tenure::{Ended, Tenure};
use crate::postgres::{Address, PostgresError};

/// Between two looks at what operators want.
pub(super) const PURGE_INTERVAL: Duration = Duration::from_millis(250);

/// Looks to a beat: one each 0.5 s.
const LOOKS_PER_BEAT: u32 = 2;

/// Between two looks at what the metrics show: it reads one row of each part.
const GAUGE_INTERVAL: Duration = Duration::from_secs(30);

/// Between two at deleted rows and at who holds them, which reads no table.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a look may take: then PostgreSQL counts as down.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one of these may take; it is given up, and nothing else follows. With a new connection it is still shorter than what
/// others wait for a beat (`fence`).
const GAUGE_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct Watch<C> {
    station: Arc<Station<C>>,
    database: Option<Database>,
    looks: u32,
    gauged: Option<Instant>,
    snapshots: SnapshotWatch,
    looked_at_snapshots: Option<Instant>,
}

impl<C: Completion> Watch<C> {
    pub(super) fn new(station: Arc<Station<C>>) -> Self {
        Self {
            station,
            database: None,
            looks: 0,
            gauged: None,
            snapshots: SnapshotWatch::default(),
            looked_at_snapshots: None,
        }
    }

    /// Until the mailbox is dropped.
    pub(super) fn run(mut self, runtime: &Runtime) {
        runtime.block_on(async {
            let station = Arc::clone(&self.station);
            while station.ended().is_none() {
                tokio::select! {
                    biased;
                    () = station.stopped() => break,
                    () = self.look() => {}
                }
                if timeout(PURGE_INTERVAL, station.stopped()).await.is_ok() {
                    break;
                }
            }
            if let Some(database) = self.database.take() {
                database.close().await;
            }
        });
    }

    /// One look; on a new connection if the one that is there has broken.
    async fn look(&mut self) {
        let had_one = self.database.is_some();
        let mut looked = self.try_to_look().await;
        if looked.is_err() && had_one {
            looked = self.try_to_look().await;
        }
        self.station.heard(looked);
    }

    async fn try_to_look(&mut self) -> Result<(), PostgresError> {
        // What is kept is in the database before it is said here.
        let kept = self.station.kept.load(Ordering::Acquire);
        let is_new = self.database.is_none();
        if is_new {
            self.database = Some(self.connect().await?);
        }
        let looked = match timeout(LOOK_TIMEOUT, self.beat_and_look(is_new, kept)).await {
            Ok(looked) => looked,
            Err(_) => Err(no_answer(LOOK_TIMEOUT)),
        };
        if looked.is_err()
            && let Some(database) = self.database.take()
        {
            database.give_up().await;
        }
        looked
    }

    /// As many hosts as there are may each take their time; that the beat is missing is told meanwhile.
    async fn connect(&self) -> Result<Database, PostgresError> {
        let station = &self.station;
        let name = name(station.incarnation, Purpose::Watch);
        let mut connecting =
            std::pin::pin!(Database::connect(&station.address, &name, Purpose::Watch));
        match timeout(LOOK_TIMEOUT, &mut connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                station.heard(Err(no_answer(LOOK_TIMEOUT)));
                connecting.await
            }
        }
    }

    async fn beat_and_look(&mut self, is_new: bool, kept: i64) -> Result<(), PostgresError> {
        let station = &self.station;
        let Some(database) = &self.database else {
            return Ok(());
        };
        let is_beat = self.looks.is_multiple_of(LOOKS_PER_BEAT);
        let is_gone = is_beat && !beat(database, station.incarnation).await?;
        if is_new || is_gone {
            let tenure = Tenure::look(database.client(), station.incarnation).await?;
            if station.judge(tenure, kept).is_some() {
                return Ok(());
            }
            if is_gone {
                station.end(Ended::Fenced);
                return Ok(());
            }
        }
        self.looks = self.looks.wrapping_add(1);
        let forgotten = station.forgotten();
        station.ask(purges(database).await?, forgotten);
        let Ok(gauged) = timeout(GAUGE_TIMEOUT, self.gauge()).await else {
            tracing::debug!("the mailbox's gauges took too long");
            if let Some(database) = self.database.take() {
                database.give_up().await;
            }
            return Ok(());
        };
        gauged
    }

    /// What the metrics show, when it is time.
    async fn gauge(&mut self) -> Result<(), PostgresError> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let station = &self.station;
        if is_time(&mut self.looked_at_snapshots, SNAPSHOT_INTERVAL) {
            let look = snapshots::look(database.client()).await?;
            let held = self.snapshots.note(look, Instant::now());
            let held = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
            (station.oldest_snapshot_millis).store(held, Ordering::Relaxed);
            station.dead_rows.store(look.dead_rows, Ordering::Relaxed);
        }
        if is_time(&mut self.gauged, GAUGE_INTERVAL) {
            let (oldest, bytes) = gauges(database).await?;
            station.shared.oldest.store(oldest, Ordering::Relaxed);
            station.bytes.store(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether it is, and then it was now.
fn is_time(last: &mut Option<Instant>, interval: Duration) -> bool {
    let is_time = last.is_none_or(|at| at.elapsed() >= interval);
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}

/// Keeps the beat of a process that is still reading what there is. Whatever goes wrong, the next batch finds it too.
pub(super) async fn keep_beat(address: &Address, incarnation: i64) -> Infallible {
    let name = name(incarnation, Purpose::Watch);
    loop {
        if let Ok(database) = Database::connect(address, &name, Purpose::Watch).await {
            while let Ok(Ok(true)) = timeout(LOOK_TIMEOUT, beat(&database, incarnation)).await {
                sleep(PURGE_INTERVAL * LOOKS_PER_BEAT).await;
            }
            database.give_up().await;
        }
        sleep(PURGE_INTERVAL).await;
    }
}

/// Whether the row is still ours. It may be lost by a crash of PostgreSQL, and need not wait for the disk. All of it is one
/// message: however this ends, no transaction is left with the row locked.
async fn beat(database: &Database, incarnation: i64) -> Result<bool, PostgresError> {
    let sql = format!(
        "{BEGIN}; SET LOCAL synchronous_commit = off;
         UPDATE node SET beat = beat + 1 WHERE incarnation = {incarnation}; COMMIT"
    );
    let answers = database.client().simple_query(&sql).await?;
    let is_row =
        |answer: &SimpleQueryMessage| matches!(answer, SimpleQueryMessage::CommandComplete(1));
    Ok(answers.iter().any(is_row))
}

async fn purges(database: &Database) -> Result<Vec<PurgeRequest>, PostgresError> {
    let sql = r#"SELECT part, "user", sender, up_to FROM purge"#;
    let rows = database.client().query(sql, &[]).await?;
    let purge = |row: &tokio_postgres::Row| PurgeRequest {
        part: row.get(0),
        user: row.get(1),
        sender: row.get(2),
        up_to: row.get(3),
    };
    Ok(rows.iter().map(purge).collect())
}

/// When the oldest message was received that is not retained, in milliseconds (0: there is none), and bytes on the disk.
async fn gauges(database: &Database) -> Result<(u64, u64), PostgresError> {
    let oldest = format!(
        "SELECT min(first.received_at) FROM generate_series(0, {}) AS part,
         LATERAL (SELECT received_at FROM message m WHERE m.part = part
             AND NOT EXISTS (SELECT FROM retained r WHERE r.part = m.part AND r.message = m.seq)
             ORDER BY m.seq LIMIT 1) first",
        PARTS - 1
    );
    let client = database.client();
    let oldest: Option<i64> = client.query_one(&oldest, &[]).await?.get(0);
    let bytes = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::int8 FROM pg_class
         WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'";
    let bytes: i64 = client.query_one(bytes, &[]).await?.get(0);
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok((unsigned(oldest.unwrap_or(0)), unsigned(bytes)))
}
