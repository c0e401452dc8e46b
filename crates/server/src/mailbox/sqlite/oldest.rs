//! Since when the oldest message waits: the one with the lowest number that is not retained.
//!
//! Invariants: a look reads at most [`ROWS`] rows, for the writer waits for it; what it has not passed by then the next
//! look goes on with. A walk begins where the last ones found nothing below that waits, so that retained messages, which
//! stay for ever, are passed once in [`ANEW`]: one that also waits in an inbox is found by then when it is no longer retained.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Error};

/// Between two walks.
const WALK_INTERVAL: Duration = Duration::from_secs(5);

/// Rows of a look.
const ROWS: i64 = 1_000;

/// After this time no message is committed with a lower number than those that were there: it is far longer than a grace,
/// and there is no walk while a commit lasts, for it is on the same thread.
const SETTLED: Duration = Duration::from_secs(60);

/// How often a walk begins with the first row of all.
const ANEW: Duration = Duration::from_secs(60 * 60);

const NEXT: &str = "SELECT id, received_at, id IN (SELECT message FROM retained) FROM message \
    WHERE id >= ?1 ORDER BY id LIMIT ?2";

#[derive(Debug, Default)]
pub(super) struct Oldest {
    /// Where walks begin.
    first: i64,
    /// Where this walk goes on, and when it began.
    walk: Option<(i64, Instant)>,
    /// When the last one began.
    walked: Option<Instant>,
    /// How far a walk came, and when: all below was retained.
    reached: Option<(i64, Instant)>,
    /// When one began with the first row of all.
    began_anew: Option<Instant>,
}

impl Oldest {
    /// When the oldest message was received, in milliseconds since 1970, and 0 if there is none; `None` while that is not
    /// known anew.
    pub(super) fn look(
        &mut self,
        connection: &Connection,
        now: Instant,
    ) -> Result<Option<u64>, Error> {
        let (from, began) = match self.walk {
            Some(walk) => walk,
            None if self.walked.is_some_and(|at| now - at < WALK_INTERVAL) => return Ok(None),
            None => {
                if self.began_anew.is_none_or(|at| now - at >= ANEW) {
                    (self.first, self.reached, self.began_anew) = (0, None, Some(now));
                }
                (self.first, now)
            }
        };
        self.walked = Some(began);
        self.walk = None;
        let mut select = connection.prepare_cached(NEXT)?;
        let mut rows = select.query([from, ROWS])?;
        let (mut at, mut passed) = (from, 0);
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if !row.get::<_, bool>(2)? {
                self.reach(id, now);
                let received: i64 = row.get(1)?;
                return Ok(Some(received.try_into().unwrap_or(0)));
            }
            (at, passed) = (id + 1, passed + 1);
        }
        if passed == ROWS {
            self.walk = Some((at, began));
            return Ok(None);
        }
        self.reach(at, now);
        Ok(Some(0))
    }

    /// All below `id` is retained, or was not there yet.
    fn reach(&mut self, id: i64, now: Instant) {
        let (before, at) = *self.reached.get_or_insert((id, now));
        if now - at >= SETTLED {
            self.first = before.min(id);
            self.reached = Some((id, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let tables = "CREATE TABLE message (id INTEGER PRIMARY KEY, received_at INTEGER NOT NULL);
             CREATE TABLE retained (message INTEGER PRIMARY KEY);";
        connection.execute_batch(tables).unwrap();
        connection
    }

    fn add(connection: &Connection, id: i64, is_retained: bool) {
        let sql = "INSERT INTO message VALUES (?1, 1000 + ?1)";
        connection.execute(sql, [id]).unwrap();
        if is_retained {
            let sql = "INSERT INTO retained VALUES (?1)";
            connection.execute(sql, [id]).unwrap();
        }
    }

    #[test]
    fn retained_messages_are_passed_once_and_a_thousand_at_a_look() {
        let connection = mailbox();
        for id in 1..=2500 {
            add(&connection, id, true);
        }
        add(&connection, 2501, false);
        let (mut oldest, mut now) = (Oldest::default(), Instant::now());
        let walk = |oldest: &mut Oldest, now| {
            let looks = (1..).find_map(|looks| {
                let found = oldest.look(&connection, now).unwrap();
                found.map(|found| (looks, found))
            });
            looks.unwrap()
        };
        assert_eq!(walk(&mut oldest, now), (3, 3501));
        assert_eq!(
            oldest.look(&connection, now).unwrap(),
            None,
            "not so soon again"
        );
        now += SETTLED;
        assert_eq!(walk(&mut oldest, now), (3, 3501));
        now += SETTLED;
        assert_eq!(walk(&mut oldest, now), (1, 3501));
        // The same when nothing waits.
        connection
            .execute("DELETE FROM message WHERE id = 2501", [])
            .unwrap();
        now += SETTLED;
        assert_eq!(walk(&mut oldest, now), (1, 0));
    }

    #[test]
    fn one_that_is_no_longer_retained_and_still_waits_is_found_within_the_hour() {
        let connection = mailbox();
        let (mut oldest, began) = (Oldest::default(), Instant::now());
        add(&connection, 1, true);
        add(&connection, 2, false);
        for minute in 0..10 {
            let now = began + minute * SETTLED;
            assert_eq!(oldest.look(&connection, now).unwrap(), Some(1002));
        }
        connection.execute("DELETE FROM retained", []).unwrap();
        let found = oldest.look(&connection, began + ANEW).unwrap();
        assert_eq!(found, Some(1001));
    }

    #[test]
    fn a_lower_number_that_is_committed_later_is_found() {
        let connection = mailbox();
        let (mut oldest, mut now) = (Oldest::default(), Instant::now());
        add(&connection, 7, false);
        assert_eq!(oldest.look(&connection, now).unwrap(), Some(1007));
        add(&connection, 5, false);
        for _ in 0..3 {
            now += SETTLED;
            assert_eq!(oldest.look(&connection, now).unwrap(), Some(1005));
        }
        connection
            .execute("DELETE FROM message WHERE id = 5", [])
            .unwrap();
        now += WALK_INTERVAL;
        assert_eq!(oldest.look(&connection, now).unwrap(), Some(1007));
    }
}
