//! A file that is copied, or filled with a copy.

use std::path::{Path, PathBuf};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, TransactionBehavior, params};
use secrecy::{ExposeSecret, SecretString};

use super::rows::is_false;
use super::schema::{self, columns_of};
use super::{DirectoryError, tokens};
use crate::directory::Reply;
use crate::directory::copy::{
    AT_ONCE, AccountRow, CopiedRows, CopySource, CopyTarget, DeviceRow, FriendRow, HeldAccounts,
    StoredToken, not_empty,
};

/// The columns of `accounts` in the order of [`AccountRow`]; those that a file lacks are NULL.
const ACCOUNT_COLUMNS: [&str; 8] = [
    "user_id",
    "user_email",
    "username",
    "user_password_hash",
    "user_notification_token",
    "user_api_token",
    "inactive",
    "public_key",
];

/// A file as it is at one moment: in a transaction that reads.
pub(in crate::directory) struct SqliteSource {
    connection: Connection,
    accounts: String,
    has_devices: bool,
}

impl SqliteSource {
    pub(in crate::directory) fn open(path: &Path) -> Result<Self, DirectoryError> {
        let connection = schema::open_for_reading(path)?;
        connection.busy_timeout(schema::LOCK_PATIENCE)?;
        connection.execute_batch("BEGIN")?;
        refuse_texts(&connection)?;
        let present = columns_of(&connection, "accounts")?;
        let columns = ACCOUNT_COLUMNS.map(|column| {
            let is_there = present.iter().any(|name| name.eq_ignore_ascii_case(column));
            if is_there { column } else { "NULL" }
        });
        let accounts = format!(
            "SELECT {} FROM accounts WHERE user_id > ?1 ORDER BY user_id LIMIT ?2",
            columns.join(", ")
        );
        let devices = columns_of(&connection, "user_devices")?;
        let has_devices = ["user_id", "device_id"]
            .iter()
            .all(|column| devices.iter().any(|name| name.eq_ignore_ascii_case(column)));
        Ok(Self {
            connection,
            accounts,
            has_devices,
        })
    }

    fn read_accounts(&self, after: i64) -> Result<Vec<AccountRow>, DirectoryError> {
        let mut statement = self.connection.prepare_cached(&self.accounts)?;
        let mut rows = statement.query((after, AT_ONCE))?;
        let mut accounts = Vec::new();
        while let Some(row) = rows.next()? {
            accounts.push(account(row)?);
        }
        Ok(accounts)
    }

    fn read_friends(&self, after: (i64, i64)) -> Result<Vec<FriendRow>, DirectoryError> {
        // What is neither a number nor a text is nobody's id.
        let sql = "SELECT user_id, friend_id, blocked, been_blocked FROM user_friends
            WHERE typeof(user_id) = 'integer' AND typeof(friend_id) = 'integer' AND (user_id, friend_id) > (?1, ?2)
            ORDER BY user_id, friend_id LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = |row: &Row<'_>| {
            Ok(FriendRow {
                user: row.get(0)?,
                friend: row.get(1)?,
                blocked: flag(row.get_ref(2)?),
                been_blocked: flag(row.get_ref(3)?),
            })
        };
        let rows = statement.query_map((after.0, after.1, AT_ONCE), row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn read_devices(&self, after: i64) -> Result<Vec<DeviceRow>, DirectoryError> {
        if !self.has_devices {
            return Ok(Vec::new());
        }
        let sql = "SELECT user_id, device_id FROM user_devices
            WHERE typeof(user_id) = 'integer' AND user_id > ?1 ORDER BY user_id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((after, AT_ONCE))?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            let user = row.get(0)?;
            let device = text(user, "device_id", row.get_ref(1)?)?;
            devices.push(DeviceRow { user, device });
        }
        Ok(devices)
    }
}

impl CopySource for SqliteSource {
    fn accounts(&mut self, after: i64) -> Reply<'_, Vec<AccountRow>> {
        let read = self.read_accounts(after);
        Box::pin(async { read })
    }

    fn friends(&mut self, after: (i64, i64)) -> Reply<'_, Vec<FriendRow>> {
        let read = self.read_friends(after);
        Box::pin(async { read })
    }

    fn devices(&mut self, after: i64) -> Reply<'_, Vec<DeviceRow>> {
        let read = self.read_devices(after);
        Box::pin(async { read })
    }

    fn last_id(&mut self) -> Reply<'_, i64> {
        let read = last_id(&self.connection).map_err(DirectoryError::from);
        Box::pin(async { read })
    }
}

fn account(row: &Row<'_>) -> Result<AccountRow, DirectoryError> {
    let id = row.get(0)?;
    let column = |index: usize| text(id, ACCOUNT_COLUMNS[index], row.get_ref(index)?);
    Ok(AccountRow {
        id,
        email: column(1)?,
        name: column(2)?,
        password: column(3)?.map(SecretString::from),
        notification_token: column(4)?.map(SecretString::from),
        token: tokens::as_stored(row.get_ref(5)?).map_err(|_| no_text(id, ACCOUNT_COLUMNS[5]))?,
        inactive: flag(row.get_ref(6)?),
        public_key: column(7)?,
    })
}

/// A value of any type as text. Errors name its column, not it.
fn text(id: i64, column: &str, value: ValueRef<'_>) -> Result<Option<String>, DirectoryError> {
    let bytes = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(number) => return Ok(Some(number.to_string())),
        ValueRef::Real(number) => return Ok(Some(number.to_string())),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
    };
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'));
    let text = text.ok_or_else(|| no_text(id, column))?;
    Ok(Some(text.to_owned()))
}

fn no_text(id: i64, column: &str) -> DirectoryError {
    DirectoryError::new(format!(
        "account {id} has a {column} that is no text in UTF-8, which PostgreSQL does not take: correct it first"
    ))
}

/// As the server takes it, which is not always as SQLite does; `None` for NULL.
fn flag(value: ValueRef<'_>) -> Option<bool> {
    match value {
        ValueRef::Null => None,
        value => Some(!is_false(value)),
    }
}

/// Ids that others have stored as texts count as numbers, and two rows may then be about one pair.
fn refuse_texts(connection: &Connection) -> Result<(), DirectoryError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user_friends WHERE typeof(user_id) = 'text' OR typeof(friend_id) = 'text')";
    if !connection.query_row(sql, [], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    let why = "user_friends has ids that are stored as text, which cannot be copied: make them integers first \
        (UPDATE user_friends SET user_id = CAST(user_id AS INTEGER), friend_id = CAST(friend_id AS INTEGER))";
    Err(DirectoryError::new(why))
}

/// The highest id that was ever given.
fn last_id(connection: &Connection) -> rusqlite::Result<i64> {
    let highest = "SELECT coalesce(max(user_id), 0) FROM accounts";
    let highest: i64 = connection.query_row(highest, [], |row| row.get(0))?;
    let given = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'accounts'";
    // Without AUTOINCREMENT there is no such table.
    let given = connection
        .query_row(given, [], |row| row.get(0))
        .unwrap_or(0);
    Ok(highest.max(given))
}

/// A new file, or an empty one, in a transaction that fills it.
pub(in crate::directory) struct SqliteTarget {
    connection: Connection,
    path: PathBuf,
}

impl SqliteTarget {
    pub(in crate::directory) fn open(path: &Path) -> Result<Self, DirectoryError> {
        schema::create_if_missing(path)?;
        let mut connection = schema::open_for_writing(path)?;
        connection.set_transaction_behavior(TransactionBehavior::Immediate);
        connection.execute_batch("BEGIN IMMEDIATE")?;
        if held(&connection)? != HeldAccounts::default() {
            return Err(not_empty(&path.display().to_string()));
        }
        let path = path.to_owned();
        Ok(Self { connection, path })
    }

    fn fill(&self, rows: CopiedRows) -> rusqlite::Result<()> {
        match rows {
            CopiedRows::Accounts(rows) => rows.iter().try_for_each(|row| self.put_account(row)),
            CopiedRows::Friends(rows) => {
                let sql = "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked) VALUES (?1, ?2, ?3, ?4)";
                let mut insert = self.connection.prepare_cached(sql)?;
                rows.into_iter().try_for_each(|row| {
                    insert
                        .execute(params![row.user, row.friend, row.blocked, row.been_blocked])
                        .map(drop)
                })
            }
            CopiedRows::Devices(rows) => {
                let mut insert = self.connection.prepare_cached(
                    "INSERT INTO user_devices (user_id, device_id) VALUES (?1, ?2)",
                )?;
                rows.into_iter()
                    .try_for_each(|row| insert.execute(params![row.user, row.device]).map(drop))
            }
        }
    }

    fn put_account(&self, row: &AccountRow) -> rusqlite::Result<()> {
        let token = match &row.token {
            None => Value::Null,
            Some(StoredToken::Clear(token)) => tokens::stored(&self.connection, row.id, token)?,
            Some(StoredToken::Hashed { mark, hash }) => tokens::of_hash(*mark, hash),
        };
        let sql = format!(
            "INSERT INTO accounts ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            ACCOUNT_COLUMNS.join(", ")
        );
        let mut insert = self.connection.prepare_cached(&sql)?;
        let exposed =
            |secret: &Option<SecretString>| secret.as_ref().map(|it| it.expose_secret().to_owned());
        let row = params![
            row.id,
            row.email,
            row.name,
            exposed(&row.password),
            exposed(&row.notification_token),
            token,
            row.inactive,
            row.public_key,
        ];
        insert.execute(row).map(drop)
    }

    fn remember(&self, last: i64) -> rusqlite::Result<()> {
        let changed = self.connection.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'accounts'",
            [last],
        )?;
        if changed == 0 && last > 0 {
            let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('accounts', ?1)";
            self.connection.execute(sql, [last])?;
        }
        Ok(())
    }
}

impl CopyTarget for SqliteTarget {
    fn put(&mut self, rows: CopiedRows) -> Reply<'_, ()> {
        let put = self.fill(rows).map_err(DirectoryError::from);
        Box::pin(async { put })
    }

    fn keep<'a>(self: Box<Self>, last_id: i64) -> Reply<'a, HeldAccounts>
    where
        Self: 'a,
    {
        let kept = || -> rusqlite::Result<HeldAccounts> {
            self.remember(last_id)?;
            self.connection.execute_batch("COMMIT")?;
            held(&self.connection)
        };
        let kept = kept().map_err(|error| {
            DirectoryError::new(format!(
                "{} cannot be written: {error}",
                self.path.display()
            ))
        });
        Box::pin(async { kept })
    }
}

fn held(connection: &Connection) -> rusqlite::Result<HeldAccounts> {
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        Ok::<_, rusqlite::Error>(u64::try_from(count).unwrap_or(0))
    };
    let has_devices = !columns_of(connection, "user_devices")?.is_empty();
    Ok(HeldAccounts {
        accounts: count("accounts")?,
        friends: count("user_friends")?,
        devices: if has_devices {
            count("user_devices")?
        } else {
            0
        },
    })
}
