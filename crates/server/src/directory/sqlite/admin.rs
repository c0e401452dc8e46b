//! Changes to the directory, for the commands and the admin API.
//!
//! Every change is one transaction, so that a server that reads the file at the same time sees all of
//! it or nothing. A friendship is two rows; `blocked` on (a, b) goes with `been_blocked` on (b, a)
//! (PROTOCOL.md, section 6). Works on a jam database as it stands: columns that it demands beyond ours
//! are filled with values that let nobody log in.

use std::path::Path;

use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::rows::{self, row_id};
use super::{DirectoryError, is_busy, schema};

/// Bytes of randomness in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// A directory that is open for changes.
#[derive(Debug)]
pub struct Administration {
    connection: Connection,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// The user id.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether there is a token to log in with.
    pub token: bool,
    /// Whether pushes can be addressed.
    pub push: bool,
    /// How many friends there are, blocked ones included.
    pub friends: u32,
}

/// A friend of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Friend {
    /// The friend's user id.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// The user has blocked the friend.
    pub blocked: bool,
    /// The friend has blocked the user.
    pub been_blocked: bool,
}

/// A user id of a jam database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowId(i64);

impl RowId {
    fn parse(id: &str) -> Result<Self, DirectoryError> {
        row_id(id).map(Self).ok_or_else(|| {
            DirectoryError::new(format!(
                "{id:?} is no user id: ids are decimal integers, such as 42"
            ))
        })
    }

    /// As others may have stored it in a column without a type.
    fn text(self) -> String {
        self.0.to_string()
    }
}

impl std::fmt::Display for RowId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Finds the row of a friendship, whatever type its ids have.
const OF_PAIR: &str = "user_id IN (?1, ?2) AND friend_id IN (?3, ?4)";

/// 256 random bits in hexadecimal.
///
/// # Errors
/// If the system has no randomness to give.
pub fn random_token() -> Result<String, DirectoryError> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| DirectoryError::new(format!("no randomness for a token: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Administration {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// If the file is missing, is no jam database, or lacks a table or column.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        Ok(Self {
            connection: schema::open_for_writing(path)?,
        })
    }

    /// As [`Self::open`], but makes an empty directory if there is none.
    ///
    /// # Errors
    /// As [`Self::open`], or if it cannot be made.
    pub fn open_or_create(path: &Path) -> Result<Self, DirectoryError> {
        schema::create_if_missing(path)?;
        Self::open(path)
    }

    /// Opens the directory at `path` for a look: leaves no trace, and cannot change anything.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn inspect(path: &Path) -> Result<Self, DirectoryError> {
        if !path.exists() {
            return Err(DirectoryError::new(format!(
                "there is no {}",
                path.display()
            )));
        }
        let connection = schema::open_for_inspection(path)?;
        schema::check(&connection, path)?;
        Ok(Self { connection })
    }

    /// How many accounts there are.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn count_users(&self) -> Result<i64, DirectoryError> {
        Ok(self
            .connection
            .query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))?)
    }

    /// Whether accounts can have notification tokens.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn has_notification_tokens(&self) -> Result<bool, DirectoryError> {
        Ok(schema::has_notification_tokens(&self.connection)?)
    }

    /// Adds an account; with a random token if none is given. Returns the token.
    ///
    /// # Errors
    /// If the id or the name is taken, or the token is empty.
    pub fn add_user(
        &mut self,
        id: &str,
        name: Option<&str>,
        token: Option<&str>,
    ) -> Result<String, DirectoryError> {
        let id = RowId::parse(id)?;
        if id.0 < 1 {
            return Err(DirectoryError::new(format!(
                "{id} is no id for a new user: 1 is the least"
            )));
        }
        let token = usable_token(token)?;
        self.change(|tx| {
            if exists(tx, id)? {
                return Err(DirectoryError::new(format!(
                    "user {id} exists already; `jam-mqtt user token {id}` makes a new token"
                )));
            }
            insert_account(tx, id, name, &token)
        })?;
        Ok(token)
    }

    /// Gives a user a new token: the given one, or a random one. Returns it.
    ///
    /// # Errors
    /// If there is no such user, or the token is empty.
    pub fn set_token(&mut self, id: &str, token: Option<&str>) -> Result<String, DirectoryError> {
        let id = RowId::parse(id)?;
        let token = usable_token(token)?;
        self.change(|tx| {
            must_exist(tx, id)?;
            let sql = "UPDATE accounts SET user_api_token = ?2 WHERE user_id = ?1";
            tx.execute(sql, params![id.0, token])?;
            Ok(())
        })?;
        Ok(token)
    }

    /// Removes an account, its friendships and its device.
    ///
    /// # Errors
    /// If there is no such user, or other tables of the database still refer to it.
    pub fn remove_user(&mut self, id: &str) -> Result<(), DirectoryError> {
        let id = RowId::parse(id)?;
        self.change(|tx| {
            must_exist(tx, id)?;
            let both = params![id.0, id.text()];
            let friendships = "DELETE FROM user_friends
                WHERE user_id IN (?1, ?2) OR friend_id IN (?1, ?2)";
            tx.execute(friendships, both)?;
            if has_table(tx, "user_devices")? {
                tx.execute("DELETE FROM user_devices WHERE user_id IN (?1, ?2)", both)?;
            }
            tx.execute("DELETE FROM accounts WHERE user_id = ?1", [id.0])?;
            Ok(())
        })
    }

    /// All accounts by id.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn users(&self) -> Result<Vec<User>, DirectoryError> {
        self.select_users("")
    }

    /// One account.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn user(&self, id: &str) -> Result<User, DirectoryError> {
        let id = RowId::parse(id)?;
        let user = self.select_users(&format!("WHERE user_id = {id}"))?.pop();
        user.ok_or_else(|| no_such_user(id))
    }

    /// Makes two users friends.
    ///
    /// # Errors
    /// If one of them doesn't exist, both are the same, or they are friends already.
    pub fn add_friend(&mut self, a: &str, b: &str) -> Result<(), DirectoryError> {
        let (a, b) = pair(a, b)?;
        self.change(|tx| {
            must_exist(tx, a)?;
            must_exist(tx, b)?;
            let (there, back) = (flags(tx, a, b)?, flags(tx, b, a)?);
            if there.is_some() && back.is_some() {
                return Err(DirectoryError::new(format!(
                    "{a} and {b} are friends already"
                )));
            }
            // Half a friendship is completed without lifting a block.
            for (from, to, half, other) in [(a, b, &there, &back), (b, a, &back, &there)] {
                if half.is_none() {
                    let (blocked, been_blocked) = other.unwrap_or_default();
                    let sql = "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
                        VALUES (?1, ?2, ?3, ?4)";
                    tx.execute(sql, params![from.0, to.0, been_blocked, blocked])?;
                }
            }
            Ok(())
        })
    }

    /// Ends a friendship.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_friend(&mut self, a: &str, b: &str) -> Result<(), DirectoryError> {
        let (a, b) = pair(a, b)?;
        self.change(|tx| {
            let sql = format!("DELETE FROM user_friends WHERE {OF_PAIR}");
            let there = tx.execute(&sql, params![a.0, a.text(), b.0, b.text()])?;
            let back = tx.execute(&sql, params![b.0, b.text(), a.0, a.text()])?;
            if there + back == 0 {
                return Err(not_friends(a, b));
            }
            Ok(())
        })
    }

    /// The friends of a user by id, blocked ones included.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn friends(&self, id: &str) -> Result<Vec<Friend>, DirectoryError> {
        let id = RowId::parse(id)?;
        must_exist(&self.connection, id)?;
        let sql = format!(
            "SELECT friend_id, {}, blocked, been_blocked
             FROM user_friends LEFT JOIN accounts ON accounts.user_id = friend_id
             WHERE user_friends.user_id IN (?1, ?2) ORDER BY CAST(friend_id AS INTEGER)",
            self.name_column()?
        );
        let mut statement = self.connection.prepare(&sql)?;
        let friends = statement.query_map(params![id.0, id.text()], |row| {
            Ok(Friend {
                id: text_of(row.get(0)?),
                name: row.get(1)?,
                blocked: !rows::is_false(row.get_ref(2)?),
                been_blocked: !rows::is_false(row.get_ref(3)?),
            })
        })?;
        Ok(friends.collect::<rusqlite::Result<_>>()?)
    }

    /// `a` blocks `b`, or takes it back.
    ///
    /// # Errors
    /// If they are no friends.
    pub fn set_blocked(&mut self, a: &str, b: &str, blocked: bool) -> Result<(), DirectoryError> {
        let (a, b) = pair(a, b)?;
        self.change(|tx| {
            must_exist(tx, a)?;
            must_exist(tx, b)?;
            let there = format!("UPDATE user_friends SET blocked = ?5 WHERE {OF_PAIR}");
            let there = tx.execute(&there, params![a.0, a.text(), b.0, b.text(), blocked])?;
            let back = format!("UPDATE user_friends SET been_blocked = ?5 WHERE {OF_PAIR}");
            let back = tx.execute(&back, params![b.0, b.text(), a.0, a.text(), blocked])?;
            if there + back == 0 {
                return Err(not_friends(a, b));
            }
            Ok(())
        })
    }

    /// Runs one transaction; what fails changes nothing.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, DirectoryError>,
    ) -> Result<T, DirectoryError> {
        // Immediate: a transaction that begins by reading could not wait for a writer later.
        let tx = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| cannot_write(&error))?;
        let result = change(&tx)?;
        tx.commit().map_err(|error| cannot_write(&error))?;
        Ok(result)
    }

    fn select_users(&self, condition: &str) -> Result<Vec<User>, DirectoryError> {
        let push = if schema::has_notification_tokens(&self.connection)? {
            "coalesce(user_notification_token, '') <> ''"
        } else {
            "0"
        };
        let sql = format!(
            "SELECT user_id, {}, coalesce(user_api_token, '') <> '', {push},
                (SELECT count(*) FROM user_friends
                 WHERE user_friends.user_id IN (accounts.user_id, CAST(accounts.user_id AS TEXT)))
             FROM accounts {condition} ORDER BY user_id",
            self.name_column()?
        );
        let mut statement = self.connection.prepare(&sql)?;
        let users = statement.query_map([], |row| {
            Ok(User {
                id: text_of(row.get(0)?),
                name: row.get(1)?,
                token: row.get(2)?,
                push: row.get(3)?,
                friends: row.get(4)?,
            })
        })?;
        Ok(users.collect::<rusqlite::Result<_>>()?)
    }

    /// An expression for the name: not every jam database has one.
    fn name_column(&self) -> Result<&'static str, DirectoryError> {
        let columns = schema::columns_of(&self.connection, "accounts")?;
        let has_name = columns.iter().any(|column| column == "username");
        Ok(if has_name {
            "CAST(accounts.username AS TEXT)"
        } else {
            "NULL"
        })
    }
}

/// Inserts an account, with something in every column that the database demands.
fn insert_account(
    tx: &Transaction<'_>,
    id: RowId,
    name: Option<&str>,
    token: &str,
) -> Result<(), DirectoryError> {
    let mut columns = vec!["user_id", "user_api_token"];
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(id.0), Box::new(token.to_owned())];
    let demanded = demanded_columns(tx)?;
    if let Some(name) = name {
        columns.push("username");
        values.push(Box::new(name.to_owned()));
    } else if demanded.iter().any(|column| column == "username") {
        columns.push("username");
        values.push(Box::new(id.text()));
    }
    // Neither is an address or a hash, so the database's own login lets nobody in by them. The address tells this account
    // from one that has its id, and perhaps its name, after it.
    if schema::columns_of(tx, "accounts")?
        .iter()
        .any(|column| column == "user_email")
    {
        columns.push("user_email");
        let mut random = random_token()?;
        random.truncate(rows::MADE_UP_CHARACTERS);
        values.push(Box::new(random + rows::MADE_UP));
    }
    if demanded.iter().any(|column| column == "user_password_hash") {
        columns.push("user_password_hash");
        values.push(Box::new("!".to_owned()));
    }
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    let sql = format!(
        "INSERT INTO accounts ({}) VALUES ({})",
        columns.join(", "),
        places.join(", ")
    );
    tx.execute(&sql, rusqlite::params_from_iter(values))
        .map_err(|error| match name {
            Some(name) if is_constraint(&error) => DirectoryError::new(format!(
                "user {id} cannot be added: the name {name:?} may be taken; choose another ({error})"
            )),
            _ => cannot_write(&error),
        })?;
    Ok(())
}

/// Columns of `accounts` that are NOT NULL without a default.
fn demanded_columns(connection: &Connection) -> Result<Vec<String>, DirectoryError> {
    let sql = "SELECT name FROM pragma_table_info('accounts')
        WHERE \"notnull\" AND dflt_value IS NULL AND NOT pk";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

fn has_table(connection: &Connection, table: &str) -> Result<bool, DirectoryError> {
    Ok(!schema::columns_of(connection, table)?.is_empty())
}

fn exists(connection: &Connection, id: RowId) -> Result<bool, DirectoryError> {
    let sql = "SELECT 1 FROM accounts WHERE user_id = ?1";
    let found = connection.query_row(sql, [id.0], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

fn must_exist(connection: &Connection, id: RowId) -> Result<(), DirectoryError> {
    if exists(connection, id)? {
        Ok(())
    } else {
        Err(no_such_user(id))
    }
}

/// `blocked` and `been_blocked` of a row, if there is one.
fn flags(
    connection: &Connection,
    user: RowId,
    friend: RowId,
) -> Result<Option<(bool, bool)>, DirectoryError> {
    let sql = format!("SELECT blocked, been_blocked FROM user_friends WHERE {OF_PAIR}");
    let read = |row: &rusqlite::Row<'_>| {
        Ok((
            !rows::is_false(row.get_ref(0)?),
            !rows::is_false(row.get_ref(1)?),
        ))
    };
    let ids = params![user.0, user.text(), friend.0, friend.text()];
    Ok(connection.query_row(&sql, ids, read).optional()?)
}

fn pair(a: &str, b: &str) -> Result<(RowId, RowId), DirectoryError> {
    let (a, b) = (RowId::parse(a)?, RowId::parse(b)?);
    if a == b {
        return Err(DirectoryError::new(format!(
            "{a} and {b} are the same user; name two"
        )));
    }
    Ok((a, b))
}

fn usable_token(token: Option<&str>) -> Result<String, DirectoryError> {
    match token {
        None => random_token(),
        Some("") => Err(DirectoryError::new(
            "an empty token lets nobody in; give another one",
        )),
        Some(token) => Ok(token.to_owned()),
    }
}

fn text_of(id: Value) -> String {
    match id {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Real(number) => number.to_string(),
        Value::Null => "NULL".to_owned(),
        Value::Blob(bytes) => format!("a value of {} bytes that is no text", bytes.len()),
    }
}

fn no_such_user(id: RowId) -> DirectoryError {
    DirectoryError::new(format!(
        "there is no user {id}; add it with `jam-mqtt user add {id}`"
    ))
}

fn not_friends(a: RowId, b: RowId) -> DirectoryError {
    DirectoryError::new(format!("{a} and {b} are not friends"))
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

fn cannot_write(error: &rusqlite::Error) -> DirectoryError {
    DirectoryError::new(if is_busy(error) {
        "another process is writing to the accounts database; try again".to_owned()
    } else {
        format!("the accounts database cannot be changed: {error}")
    })
}
