//! What the commands do with the database: [`PostgresMailboxAdministration`].
//!
//! Invariant: while a server has the mailbox, what is to be removed is written down in the table `purge` and nothing else is
//! changed. Without one, whatever could still write is fenced first.

use std::thread;
use std::time::Duration;

use jam_core::ids::{ClientId, UserId};
use jam_core::store::Seq;
use jam_core::time::Time;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::connection::{BEGIN, Database, Purpose, names};
use super::fence::{NODE, SILENCE};
use super::purging::{REMOVE_MESSAGES, REMOVE_THE_REST};
use super::recover::{self, NUMBER_BITS, RecoverError};
use super::rows::{part, part_of};
use super::schema::{self, Migration};
use super::{runtime, unread};
use crate::clock;
use crate::mailbox::values::{self as val, EVERYTHING};
use crate::mailbox::{
    Condition, ListOrder, Listed, MailboxAdministration, OpenError, Overview, PurgeScope, Purged,
    SessionOverview,
};
use crate::postgres::{Address, PostgresError};

/// How a command's connections are named.
const NAME: &str = "jam-mqtt command";

/// Between two looks at a server's beat.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What is read of a row goes through this on its way.
type AdminReply<T> = Result<T, RecoverError>;

/// The mailbox in a database.
#[derive(Debug)]
pub struct PostgresMailboxAdministration {
    address: Address,
}

impl PostgresMailboxAdministration {
    /// Of the mailbox in the database at `address`, if there is one.
    #[must_use]
    pub fn of(address: Address) -> Self {
        Self { address }
    }

    /// Makes the schema, in a database that has no tables but those of the accounts.
    ///
    /// # Errors
    /// If there are others, or it cannot be written.
    pub fn create(&self) -> Result<(), OpenError> {
        self.ask(async |database| {
            let client = database.client();
            client.batch_execute(BEGIN).await?;
            if let Some(table) = schema::tables(client).await?.first() {
                let what = format!(
                    "it is not empty: there is a table {table}. Name a new database, or drop what is in this one"
                );
                return Ok(Err(OpenError::database(&self.address, what)));
            }
            let encoding = "SELECT current_setting('server_encoding')";
            let encoding: String = client.query_one(encoding, &[]).await?.get(0);
            if encoding != "UTF8" {
                let what = format!("its encoding is {encoding}: create it with ENCODING 'UTF8'");
                return Ok(Err(OpenError::database(&self.address, what)));
            }
            schema::create(client).await?;
            client.batch_execute("COMMIT").await?;
            Ok(Ok(()))
        })?
    }

    /// Numbers up to and with `last` are in use: the next start has others.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(in crate::mailbox) fn skip_to(&self, last: Seq) -> Result<(), OpenError> {
        let epoch = i64::try_from(last >> NUMBER_BITS).unwrap_or(i64::MAX);
        self.ask(async |database| {
            let client = database.client();
            client.batch_execute(BEGIN).await?;
            let sql = "UPDATE cluster SET epoch = greatest(epoch, $1)";
            client.execute(sql, &[&epoch]).await?;
            client.batch_execute("COMMIT").await?;
            Ok(())
        })
    }

    /// What `cluster migrate` would do.
    ///
    /// # Errors
    /// If there is no schema, or it cannot be read.
    pub fn migration(&self) -> Result<Migration, OpenError> {
        let from = self
            .ask(async |database| Ok(schema::version(database.client(), &self.address).await))??;
        let to = schema::VERSION;
        Ok(Migration { from, to })
    }

    /// When messages were received; those that are gone are missing.
    pub(super) fn received_at(
        &self,
        messages: &[(UserId, Seq)],
    ) -> Result<Vec<(Seq, Time)>, OpenError> {
        let parts: Vec<i16> = messages
            .iter()
            .map(|(user, _)| part(part_of(user)))
            .collect();
        let seqs: Vec<i64> = messages.iter().map(|(_, seq)| val::number(*seq)).collect();
        self.ask(async |database| {
            let sql = "SELECT m.seq, m.received_at FROM unnest($1::int2[], $2::int8[]) d(part, seq)
                 JOIN message m ON m.part = d.part AND m.seq = d.seq";
            let rows = database.client().query(sql, &[&parts, &seqs]).await?;
            let found = rows.iter().map(|row| {
                let at = Time::from_millis(val::from_number(row.get(1))?);
                Ok((val::from_number(row.get(0))?, at))
            });
            found.collect()
        })
    }

    /// On a connection of its own, and a thread, for the caller may be a task.
    fn ask<T: Send>(
        &self,
        ask: impl AsyncFnOnce(&Database) -> AdminReply<T> + Send,
    ) -> Result<T, OpenError> {
        let address = &self.address;
        let asked = move || {
            runtime(address)?.block_on(async {
                let database = Database::connect(address, NAME, Purpose::Administration).await;
                let database = database.map_err(|error| OpenError::postgres(address, &error))?;
                let asked = ask(&database).await;
                database.close().await;
                asked.map_err(|error| unread(address, error))
            })
        };
        let asked = thread::scope(|scope| scope.spawn(asked).join());
        asked.expect("a command does not panic")
    }

    /// The same in one transaction that reads, of a mailbox that is there.
    fn look<T: Send>(
        &self,
        look: impl AsyncFnOnce(&Client) -> AdminReply<T> + Send,
    ) -> Result<T, OpenError> {
        self.ask(async |database| {
            let client = database.client();
            if let Err(error) = schema::require(client, &self.address).await {
                return Ok(Err(error));
            }
            client
                .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await?;
            look(client).await.map(Ok)
        })?
    }

    /// Changes the mailbox, which no server has and none gets meanwhile.
    fn change<T: Send>(
        &self,
        change: impl AsyncFnOnce(&Client) -> AdminReply<T> + Send,
    ) -> Result<T, OpenError> {
        self.ask(async |database| {
            let client = database.client();
            if let Err(error) = schema::require(client, &self.address).await {
                return Ok(Err(error));
            }
            if is_served(client).await? {
                return Ok(Err(OpenError::served(&self.address)));
            }
            // A server that starts waits for this, and one that is silent and comes back finds itself fenced.
            let free = format!(
                "{BEGIN}; LOCK TABLE node IN SHARE ROW EXCLUSIVE MODE;
                 DELETE FROM fence f USING node n WHERE f.incarnation = n.incarnation;
                 DELETE FROM batch b USING node n WHERE b.incarnation = n.incarnation; DELETE FROM node"
            );
            client.batch_execute(&free).await?;
            let changed = change(client).await?;
            client.batch_execute("COMMIT").await?;
            Ok(Ok(changed))
        })?
    }

    /// Has the server do it that has the mailbox.
    fn request(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<(), OpenError> {
        let numbers = match scope {
            PurgeScope::Inbox | PurgeScope::InboxFrom(_) => {
                "SELECT max(seq) AS id FROM message WHERE part = $1"
            }
            PurgeScope::Everything => {
                "SELECT max(seq) AS id FROM message WHERE part = $1
                 UNION ALL SELECT max(id) FROM session WHERE part = $1
                 UNION ALL SELECT max(id) FROM will WHERE part = $1"
            }
        };
        let sql = format!(
            r#"INSERT INTO purge (part, "user", sender, up_to)
             SELECT $1, $2, $3, coalesce(max(id), 0) FROM ({numbers}) AS numbers
             ON CONFLICT (part, "user", sender) DO UPDATE SET up_to = excluded.up_to"#
        );
        self.ask(async |database| {
            let client = database.client();
            client.batch_execute(BEGIN).await?;
            client
                .execute(&sql, &[&of(user), &user.as_str(), &sender(scope)])
                .await?;
            client.batch_execute("COMMIT").await?;
            Ok(())
        })
    }
}

fn of(user: &UserId) -> i16 {
    part(part_of(user))
}

/// In `purge.sender`.
fn sender(scope: PurgeScope<'_>) -> &str {
    match scope {
        PurgeScope::Inbox => "",
        PurgeScope::InboxFrom(sender) => sender.as_str(),
        PurgeScope::Everything => EVERYTHING,
    }
}

/// Whether a server has the mailbox: it is connected, or its beat goes on.
async fn is_served(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let look = async || {
        let row = client.query_opt("SELECT incarnation, beat FROM node WHERE id = $1", &[&NODE]);
        let row = row.await?;
        Ok(row.map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1))))
    };
    let Some(first) = look().await? else {
        return Ok(false);
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE $1)";
    let began = tokio::time::Instant::now();
    loop {
        let is_connected: bool = client.query_one(sql, &[&names(first.0)]).await?.get(0);
        let now: Option<(i64, i64)> = look().await?;
        if is_connected || now != Some(first) {
            return Ok(true);
        }
        if began.elapsed() >= SILENCE {
            return Ok(false);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn time_of(client: &Client) -> AdminReply<Time> {
    Ok(clock::time_after(recover::clock(client).await?))
}

/// Those that have not ended: the next start removes the others.
async fn sessions(client: &Client, user: &UserId, now: Time) -> AdminReply<Vec<SessionOverview>> {
    let sql = r#"SELECT client, ends_at,
             (SELECT count(*) FROM subscription t WHERE t.part = s.part AND t.session = s.id),
             (SELECT count(*) FROM received t WHERE t.part = s.part AND t.session = s.id),
             (SELECT count(*) FROM in_flight t WHERE t.part = s.part AND t.session = s.id)
         FROM session s WHERE part = $1 AND "user" = $2 AND (ends_at IS NULL OR ends_at > $3) ORDER BY id"#;
    let rows = client
        .query(sql, &[&of(user), &user.as_str(), &val::received(now)])
        .await?;
    let session = |row: &tokio_postgres::Row| {
        Ok(SessionOverview {
            client: row.get(0),
            ends_at: val::time(row.get(1))?,
            subscriptions: usize::try_from(row.get::<_, i64>(2)).unwrap_or(0),
            received: val::from_number(row.get(3))?,
            in_flight: val::from_number(row.get(4))?,
        })
    };
    rows.iter().map(session).collect()
}

/// How many messages there were.
async fn remove(client: &Client, user: &UserId, scope: PurgeScope<'_>) -> AdminReply<u64> {
    // What a server was asked for that is not there any more.
    client
        .batch_execute(&format!("{REMOVE_MESSAGES}; {REMOVE_THE_REST}"))
        .await?;
    let sql = r#"INSERT INTO purge (part, "user", sender, up_to) VALUES ($1, $2, $3, $4)"#;
    client
        .execute(sql, &[&of(user), &user.as_str(), &sender(scope), &i64::MAX])
        .await?;
    let removed = client.execute(REMOVE_MESSAGES, &[]).await?;
    client.batch_execute(REMOVE_THE_REST).await?;
    Ok(removed)
}

const COUNT_ALL: &str = r#"SELECT count(*) FROM message m WHERE part = $1 AND "user" = $2
    AND NOT EXISTS (SELECT FROM retained r WHERE r.part = m.part AND r.message = m.seq)"#;

const COUNT_INBOX: &str = r#"SELECT count(*) FROM message WHERE part = $1 AND "user" = $2
    AND $3 IN ('', sender) AND flags & 4 <> 0"#;

impl MailboxAdministration for PostgresMailboxAdministration {
    fn place(&self) -> String {
        self.address.to_string()
    }

    fn show(&self, user: &UserId) -> Result<Overview, OpenError> {
        self.look(async |client| {
            let sql = r#"SELECT count(*), coalesce(sum(size), 0)::int8, min(received_at) FROM message m
                 WHERE part = $1 AND "user" = $2
                 AND NOT EXISTS (SELECT FROM retained r WHERE r.part = m.part AND r.message = m.seq)"#;
            let (part, id) = (of(user), user.as_str());
            let whose: [&(dyn ToSql + Sync); 2] = [&part, &id];
            let row = client.query_one(sql, &whose).await?;
            let sql = r#"SELECT count(*) FROM retained WHERE part = $1 AND "user" = $2"#;
            let retained = client.query_one(sql, &whose).await?;
            let now = time_of(client).await?;
            Ok(Overview {
                messages: val::from_number(row.get(0))?,
                bytes: val::from_number(row.get(1))?,
                now,
                oldest: val::time(row.get(2))?,
                retained: val::from_number(retained.get(0))?,
                sessions: sessions(client, user, now).await?,
            })
        })
    }

    /// Reads all rows but their contents.
    fn list(&self, order: ListOrder, most: u32) -> Result<Vec<Listed>, OpenError> {
        self.look(async |client| {
            let now = time_of(client).await?;
            let first = match order {
                ListOrder::Bytes => "3 DESC",
                ListOrder::Oldest => "4",
            };
            let sql = format!(
                r#"SELECT "user", count(*), sum(size)::int8, min(received_at), coalesce(max(k.kept), 0)
                 FROM message m
                 LEFT JOIN (SELECT "user", count(*) AS kept FROM retained GROUP BY 1) k USING ("user")
                 WHERE NOT EXISTS (SELECT FROM retained r WHERE r.part = m.part AND r.message = m.seq)
                 GROUP BY "user" ORDER BY {first}, "user" LIMIT $1"#
            );
            let rows = client.query(&sql, &[&i64::from(most)]).await?;
            let listed = |row: &tokio_postgres::Row| {
                Ok(Listed {
                    user: row.get(0),
                    messages: val::from_number(row.get(1))?,
                    bytes: val::from_number(row.get(2))?,
                    oldest: now.since(Time::from_millis(val::from_number(row.get(3))?)),
                    retained: val::from_number(row.get(4))?,
                })
            };
            rows.iter().map(listed).collect()
        })
    }

    /// A session that has ended by the time that is in the database has ended whatever the next start's clocks say.
    fn end_sessions(&self, user: &UserId, client_id: Option<&ClientId>) -> Result<u64, OpenError> {
        self.change(async |client| {
            let last = recover::clock(client).await?.map(|record| record.time);
            let sql = r#"UPDATE session SET ends_at = $4, expiry = 0
                 WHERE part = $1 AND "user" = $2 AND ($3::text IS NULL OR client = $3)
                 AND (ends_at IS NULL OR ends_at > $5)"#;
            let ended = val::received(last.unwrap_or_default());
            let now = val::received(time_of(client).await?);
            let device = client_id.map(ClientId::as_str);
            let whose = (of(user), user.as_str());
            let ended = client
                .execute(sql, &[&whose.0, &whose.1, &device, &ended, &now])
                .await?;
            Ok(ended)
        })
    }

    fn is_served(&self) -> Result<bool, OpenError> {
        self.look(async |_| Ok(()))?;
        self.ask(async |database| Ok(is_served(database.client()).await?))
    }

    fn count(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<u64, OpenError> {
        self.look(async |client| {
            let row = if scope == PurgeScope::Everything {
                client
                    .query_one(COUNT_ALL, &[&of(user), &user.as_str()])
                    .await?
            } else {
                let whose = (of(user), user.as_str(), sender(scope));
                client
                    .query_one(COUNT_INBOX, &[&whose.0, &whose.1, &whose.2])
                    .await?
            };
            Ok(val::from_number(row.get(0))?)
        })
    }

    fn purge(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<Purged, OpenError> {
        let removed = self.change(async |client| remove(client, user, scope).await);
        match removed {
            Err(OpenError::InUse { .. }) => {
                self.request(user, scope)?;
                Ok(Purged::Asked)
            }
            removed => removed.map(Purged::Removed),
        }
    }

    fn is_purge_due(&self, user: &UserId, scope: PurgeScope<'_>) -> Result<bool, OpenError> {
        self.look(async |client| {
            let sql = r#"SELECT EXISTS (SELECT 1 FROM purge WHERE part = $1 AND "user" = $2 AND sender = $3)"#;
            let row = client.query_one(sql, &[&of(user), &user.as_str(), &sender(scope)]).await?;
            Ok(row.get(0))
        })
    }

    fn remove_unserved(&self, user: &UserId) -> Result<u64, OpenError> {
        self.change(async |client| remove(client, user, PurgeScope::Everything).await)
    }

    fn check(&self) -> Result<Condition, OpenError> {
        let version = self.migration()?.from;
        let served = self.is_served()?;
        let checked = self.ask(async |database| {
            if let Err(what) = schema::durability(database.client()).await {
                return Ok(Err(OpenError::database(&self.address, what)));
            }
            recover::contents(database).await.map(Ok)
        });
        Ok(Condition {
            version: version.into(),
            served,
            messages: checked??,
        })
    }

    fn warnings(&self) -> Vec<String> {
        let said = self.ask(async |database| Ok(schema::durability(database.client()).await));
        match said {
            Ok(Ok(said)) => said,
            // What is wrong with it, `check` says.
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    fn room(&self) -> Result<String, String> {
        Ok("the mailbox is on the database server".to_owned())
    }
}

impl From<PostgresError> for RecoverError {
    fn from(error: PostgresError) -> Self {
        Self::Database(error)
    }
}
