//! A database that is copied, or filled with a copy.

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{Client, Row};

use super::super::copy::{
    AT_ONCE, AccountRow, CopiedRows, CopySource, CopyTarget, DeviceRow, FriendRow, HeldAccounts,
    not_empty,
};
use super::super::lives::made_up_address_of;
use super::{DirectoryError, Reply, tokens};
use crate::postgres::{self, Address, PostgresError};

/// What `pg_stat_activity` shows.
const NAME: &str = "jam-mqtt copy";

/// A database as it is at one moment: in a transaction that reads.
pub(in crate::directory) struct PostgresSource(Client);

impl PostgresSource {
    pub(in crate::directory) async fn open(address: &Address) -> Result<Self, DirectoryError> {
        let client = postgres::open(address, NAME).await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client
            .batch_execute(begin)
            .await
            .map_err(PostgresError::from)?;
        Ok(Self(client))
    }

    async fn query<T>(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        row: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, DirectoryError> {
        let rows = self
            .0
            .query(sql, parameters)
            .await
            .map_err(PostgresError::from)?;
        let rows = rows.iter().map(row).collect::<Result<_, _>>();
        Ok(rows.map_err(PostgresError::from)?)
    }
}

impl CopySource for PostgresSource {
    fn accounts(&mut self, after: i64) -> Reply<'_, Vec<AccountRow>> {
        let sql = "SELECT user_id, user_email, username, user_password_hash, user_notification_token, user_api_token,
            inactive, public_key, life::text FROM accounts WHERE user_id > $1 ORDER BY user_id LIMIT $2";
        Box::pin(async move {
            self.query(sql, &[&after, &i64::from(AT_ONCE)], account)
                .await
        })
    }

    fn friends(&mut self, after: (i64, i64)) -> Reply<'_, Vec<FriendRow>> {
        let sql = "SELECT user_id, friend_id, blocked, been_blocked FROM user_friends
            WHERE (user_id, friend_id) > ($1, $2) ORDER BY user_id, friend_id LIMIT $3";
        let row = |row: &Row| {
            Ok(FriendRow {
                user: row.try_get(0)?,
                friend: row.try_get(1)?,
                blocked: row.try_get(2)?,
                been_blocked: row.try_get(3)?,
            })
        };
        Box::pin(async move {
            self.query(sql, &[&after.0, &after.1, &i64::from(AT_ONCE)], row)
                .await
        })
    }

    fn devices(&mut self, after: i64) -> Reply<'_, Vec<DeviceRow>> {
        let sql = "SELECT user_id, device_id FROM user_devices WHERE user_id > $1 ORDER BY user_id LIMIT $2";
        let row = |row: &Row| {
            let (user, device) = (row.try_get(0)?, row.try_get(1)?);
            Ok(DeviceRow { user, device })
        };
        Box::pin(async move { self.query(sql, &[&after, &i64::from(AT_ONCE)], row).await })
    }

    fn last_id(&mut self) -> Reply<'_, i64> {
        // Of numbers that a sequence has given: the highest, whether its account is still there or not.
        let sql = "SELECT greatest(
                (SELECT max(user_id) FROM accounts),
                pg_sequence_last_value(pg_get_serial_sequence('accounts', 'user_id')::regclass), 0)";
        Box::pin(async move {
            let last = self.query(sql, &[], |row| row.try_get(0)).await?;
            Ok(last.into_iter().next().unwrap_or(0))
        })
    }
}

/// A file knows an account that has no address by one that is made up.
fn account(row: &Row) -> Result<AccountRow, tokio_postgres::Error> {
    let id = row.try_get(0)?;
    let (email, life): (Option<String>, Option<String>) = (row.try_get(1)?, row.try_get(8)?);
    let secret = |index| -> Result<Option<SecretString>, tokio_postgres::Error> {
        Ok(row
            .try_get::<_, Option<String>>(index)?
            .map(SecretString::from))
    };
    let token: Option<String> = row.try_get(5)?;
    Ok(AccountRow {
        id,
        email: email.or_else(|| life.as_deref().map(made_up_address_of)),
        name: row.try_get(2)?,
        password: secret(3)?,
        notification_token: secret(4)?,
        token: token.and_then(tokens::as_stored),
        inactive: row.try_get(6)?,
        public_key: row.try_get(7)?,
    })
}

/// An empty database, in a transaction that fills it.
pub(in crate::directory) struct PostgresTarget(Client);

impl PostgresTarget {
    pub(in crate::directory) async fn open(address: &Address) -> Result<Self, DirectoryError> {
        let client = postgres::open(address, NAME).await?;
        let lock = "BEGIN; LOCK accounts, user_friends, user_devices IN EXCLUSIVE MODE";
        client
            .batch_execute(lock)
            .await
            .map_err(PostgresError::from)?;
        if held(&client).await? != HeldAccounts::default() {
            return Err(not_empty(&address.to_string()));
        }
        Ok(Self(client))
    }

    /// Accounts are told from later ones under their ids by what told them so far: `life` stays NULL.
    async fn put_accounts(&self, rows: Vec<AccountRow>) -> Result<u64, tokio_postgres::Error> {
        let sql = "INSERT INTO accounts (user_id, user_email, username, user_password_hash, user_notification_token,
                user_api_token, inactive, public_key, life)
            SELECT *, NULL FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[],
                $8::text[])";
        let token = |row: &AccountRow| {
            row.token
                .as_ref()
                .map(|token| tokens::of_copy(row.id, token))
        };
        let exposed =
            |secret: &Option<SecretString>| secret.as_ref().map(|it| it.expose_secret().to_owned());
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let emails: Vec<_> = rows.iter().map(|row| row.email.as_deref()).collect();
        let names: Vec<_> = rows.iter().map(|row| row.name.as_deref()).collect();
        let passwords: Vec<_> = rows.iter().map(|row| exposed(&row.password)).collect();
        let pushes: Vec<_> = rows
            .iter()
            .map(|row| exposed(&row.notification_token))
            .collect();
        let api_tokens: Vec<_> = rows.iter().map(token).collect();
        let inactive: Vec<_> = rows.iter().map(|row| row.inactive).collect();
        let keys: Vec<_> = rows.iter().map(|row| row.public_key.as_deref()).collect();
        self.0
            .execute(
                sql,
                &[
                    &ids,
                    &emails,
                    &names,
                    &passwords,
                    &pushes,
                    &api_tokens,
                    &inactive,
                    &keys,
                ],
            )
            .await
    }

    async fn put_friends(&self, rows: Vec<FriendRow>) -> Result<u64, tokio_postgres::Error> {
        let sql = "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
            SELECT * FROM unnest($1::int8[], $2::int8[], $3::bool[], $4::bool[])";
        let users: Vec<_> = rows.iter().map(|row| row.user).collect();
        let friends: Vec<_> = rows.iter().map(|row| row.friend).collect();
        let blocked: Vec<_> = rows.iter().map(|row| row.blocked).collect();
        let been_blocked: Vec<_> = rows.iter().map(|row| row.been_blocked).collect();
        self.0
            .execute(sql, &[&users, &friends, &blocked, &been_blocked])
            .await
    }

    async fn put_devices(&self, rows: Vec<DeviceRow>) -> Result<u64, tokio_postgres::Error> {
        let sql = "INSERT INTO user_devices (user_id, device_id) SELECT * FROM unnest($1::int8[], $2::text[])";
        let users: Vec<_> = rows.iter().map(|row| row.user).collect();
        let devices: Vec<_> = rows.iter().map(|row| row.device.as_deref()).collect();
        self.0.execute(sql, &[&users, &devices]).await
    }
}

impl CopyTarget for PostgresTarget {
    fn put(&mut self, rows: CopiedRows) -> Reply<'_, ()> {
        Box::pin(async move {
            let put = match rows {
                CopiedRows::Accounts(rows) => self.put_accounts(rows).await,
                CopiedRows::Friends(rows) => self.put_friends(rows).await,
                CopiedRows::Devices(rows) => self.put_devices(rows).await,
            };
            put.map(drop)
                .map_err(|error| PostgresError::from(error).into())
        })
    }

    fn keep<'a>(self: Box<Self>, last_id: i64) -> Reply<'a, HeldAccounts>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let client = &self.0;
            let kept = async {
                if last_id > 0 {
                    let sql = "SELECT setval(pg_get_serial_sequence('accounts', 'user_id'), $1)";
                    client.execute(sql, &[&last_id]).await?;
                }
                client.batch_execute("COMMIT").await
            };
            kept.await.map_err(PostgresError::from)?;
            Ok(held(client).await?)
        })
    }
}

async fn held(client: &Client) -> Result<HeldAccounts, PostgresError> {
    let sql = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM user_friends),
        (SELECT count(*) FROM user_devices)";
    let row = client.query_one(sql, &[]).await?;
    let count = |index| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
    Ok(HeldAccounts {
        accounts: count(0),
        friends: count(1),
        devices: count(2),
    })
}
