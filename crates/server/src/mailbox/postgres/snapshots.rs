//! For how long the database has had to keep deleted rows: the age of the oldest transaction number that somebody may still see.
//!
//! PostgreSQL says that number, whatever holds it: a transaction, a prepared one, a replication slot, a standby
//! that reports what its readers need. When the number was given out it does not say: that is remembered here. Deleted rows
//! are counted, as PostgreSQL's statistics have them.
//!
//! Invariant: what is remembered has a bound, however long this runs.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

/// So many looks are remembered; then those go that are as good as the one after them.
const REMEMBERED: usize = 2_000;

/// Ages are known to this part of them: the more, the more looks are needed for each doubling of the time.
const PRECISION: u32 = 100;

/// What one look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotLook {
    /// The transaction number that is given out next.
    next: u64,
    /// The oldest one that somebody may still see.
    oldest: u64,
    /// Deleted rows that are still there.
    pub(super) dead_rows: u64,
}

/// Which transaction numbers were given out when.
#[derive(Debug, Default)]
pub(super) struct SnapshotWatch(VecDeque<(u64, Instant)>);

impl SnapshotWatch {
    /// For how long what is deleted has had to be kept: since the last look at which the oldest number was still to come.
    pub(super) fn note(&mut self, look: SnapshotLook, now: Instant) -> Duration {
        if self.0.len() >= REMEMBERED {
            self.thin_out(now);
        }
        self.0.push_back((look.next, now));
        let still_to_come = self.0.partition_point(|(next, _)| *next <= look.oldest);
        let since = self.0.get(still_to_come.saturating_sub(1));
        since.map_or(Duration::ZERO, |(_, at)| now.duration_since(*at))
    }

    fn thin_out(&mut self, now: Instant) {
        let mut thinned = VecDeque::with_capacity(REMEMBERED);
        let mut after: Option<Instant> = None;
        for (next, at) in self.0.drain(..).rev() {
            let age = now.duration_since(at);
            if after.is_none_or(|after| after.duration_since(at) >= age / PRECISION) {
                thinned.push_front((next, at));
                after = Some(at);
            }
        }
        self.0 = thinned;
    }
}

/// What may see what is deleted in this database, our own session apart. A VACUUM holds up no other, and has no user.
/// All of this any user may read.
pub(super) async fn look(client: &Client) -> Result<SnapshotLook, tokio_postgres::Error> {
    let sql = "WITH own AS (SELECT oid FROM pg_database WHERE datname = current_database()),
         held(xmin) AS (
             SELECT s.xmin FROM pg_stat_activity a, own, LATERAL (VALUES (a.backend_xid), (a.backend_xmin)) s(xmin)
                 WHERE a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL AND (a.datid = own.oid OR a.datid IS NULL)
             UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
             UNION ALL SELECT xmin FROM pg_replication_slots)
         SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8, (SELECT coalesce(max(age(xmin)), 0)::int8 FROM held),
             (SELECT coalesce(sum(n_dead_tup), 0)::int8 FROM pg_stat_user_tables WHERE schemaname = current_schema())";
    let row = client.query_one(sql, &[]).await?;
    let unsigned = |index| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
    let (next, age) = (unsigned(0), unsigned(1));
    Ok(SnapshotLook {
        next,
        oldest: next.saturating_sub(age),
        dead_rows: unsigned(2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(next: u64, oldest: u64) -> SnapshotLook {
        SnapshotLook {
            next,
            oldest,
            dead_rows: 0,
        }
    }

    #[test]
    fn a_snapshot_is_as_old_as_its_number() {
        let began = Instant::now();
        let mut watch = SnapshotWatch::default();
        let mut at = |secs, next, oldest| {
            let now = began + Duration::from_secs(secs);
            watch.note(look(next, oldest), now).as_secs()
        };
        assert_eq!(at(0, 100, 100), 0, "nobody holds any");
        assert_eq!(
            at(5, 110, 90),
            5,
            "of before the first look: since then at least"
        );
        assert_eq!(at(10, 120, 112), 5);
        assert_eq!(at(15, 130, 112), 10);
        assert_eq!(at(20, 140, 112), 15);
        assert_eq!(at(25, 150, 150), 0);
        assert_eq!(at(30, 150, 149), 10, "it may be from any moment since 20 s");
        assert_eq!(at(35, 150, 150), 0, "nothing was written meanwhile");
    }

    #[test]
    fn a_month_is_remembered_in_little_room() {
        let began = Instant::now();
        let mut watch = SnapshotWatch::default();
        let mut age = Duration::ZERO;
        let looks = 30 * 24 * 3600 / 5;
        for number in 0..looks {
            let now = began + Duration::from_secs(5 * number);
            age = watch.note(look(number, number.min(looks / 2)), now);
            assert!(watch.0.len() <= REMEMBERED);
        }
        let right = Duration::from_secs(5 * looks / 2);
        assert!(
            age >= right && age < right + right / 50,
            "{age:?} of {right:?}"
        );
    }
}
