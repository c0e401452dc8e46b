//! Changes to accounts and friendships, each in the transaction of its caller.
//!
//! A server that reads the file at the same time sees all of a change or nothing. A friendship is two rows; `blocked` on
//! (a, b) goes with `been_blocked` on (b, a) (PROTOCOL.md, section 6). Works on a jam database as it stands: columns that
//! it demands beyond ours are filled with values that let nobody log in.

use jam_core::ids::UserId;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::lives::made_up_address;
use super::super::numbers::{must_differ, row_id};
use super::{
    AdministrationError, DirectoryError, NewToken, failure, is_busy, rows, schema, tokens,
};

/// Finds the row of a friendship, whatever type its ids have.
const OF_PAIR: &str = "user_id IN (?1, ?2) AND friend_id IN (?3, ?4)";

/// Adds an account, with something in every column that the database demands.
pub(super) fn add(
    tx: &Transaction<'_>,
    user: &UserId,
    id: i64,
    name: Option<&str>,
    token: &NewToken,
) -> Result<(), AdministrationError> {
    if exists(tx, id)? {
        return Err(AdministrationError::UserExists(user.clone()));
    }
    let mut columns = vec!["user_id", "user_api_token"];
    let mut values: Vec<Box<dyn ToSql>> = vec![
        Box::new(id),
        Box::new(tokens::stored(tx, id, token.expose())?),
    ];
    let demanded = demanded_columns(tx)?;
    if let Some(name) = name {
        columns.push("username");
        values.push(Box::new(name.to_owned()));
    } else if demanded.iter().any(|column| column == "username") {
        columns.push("username");
        values.push(Box::new(id.to_string()));
    }
    // Neither is an address or a hash, so the database's own login lets nobody in by them. The address tells this account
    // from one that has its id, and perhaps its name, after it.
    if schema::columns_of(tx, "accounts")?
        .iter()
        .any(|column| column == "user_email")
    {
        columns.push("user_email");
        values.push(Box::new(made_up_address()?));
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
            Some(name) if is_constraint(&error) => AdministrationError::Refused(format!(
                "user {id} cannot be added: the name {name:?} may be taken; choose another ({error})"
            )),
            _ => cannot_write(&error),
        })?;
    Ok(())
}

/// Whether it is another token than before.
pub(super) fn set_token(
    tx: &Transaction<'_>,
    user: &UserId,
    token: &NewToken,
) -> Result<bool, AdministrationError> {
    let id = must_exist(tx, user)?;
    let sql =
        "UPDATE accounts SET user_api_token = ?2 WHERE user_id = ?1 AND user_api_token IS NOT ?2";
    Ok(tx.execute(sql, params![id, tokens::stored(tx, id, token.expose())?])? > 0)
}

/// Removes an account, its friendships and its device, if there is such an account. Whether there was.
pub(super) fn remove(tx: &Transaction<'_>, user: &UserId) -> Result<bool, AdministrationError> {
    let Some(id) = row_id(user.as_str()) else {
        return Ok(false);
    };
    if !exists(tx, id)? {
        return Ok(false);
    }
    let both = params![id, user.as_str()];
    let friendships = "DELETE FROM user_friends
        WHERE user_id IN (?1, ?2) OR friend_id IN (?1, ?2)";
    tx.execute(friendships, both)?;
    if !schema::columns_of(tx, "user_devices")?.is_empty() {
        tx.execute("DELETE FROM user_devices WHERE user_id IN (?1, ?2)", both)?;
    }
    tx.execute("DELETE FROM accounts WHERE user_id = ?1", [id])?;
    Ok(true)
}

/// Whether they were no friends, or only by half.
pub(super) fn befriend(
    tx: &Transaction<'_>,
    a: &UserId,
    b: &UserId,
) -> Result<bool, AdministrationError> {
    let (a_id, b_id) = must_be_two(tx, a, b)?;
    let (there, back) = (flags(tx, a_id, b_id)?, flags(tx, b_id, a_id)?);
    for (from, to, half, other) in [(a_id, b_id, &there, &back), (b_id, a_id, &back, &there)] {
        if half.is_none() {
            let (blocked, been_blocked) = other.unwrap_or_default();
            let sql = "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
                VALUES (?1, ?2, ?3, ?4)";
            tx.execute(sql, params![from, to, been_blocked, blocked])?;
        }
    }
    Ok(there.is_none() || back.is_none())
}

/// Whether there was a friendship, or half of one.
pub(super) fn unfriend(
    tx: &Transaction<'_>,
    a: &UserId,
    b: &UserId,
) -> Result<bool, AdministrationError> {
    must_differ(a, b)?;
    let (Some(a_id), Some(b_id)) = (row_id(a.as_str()), row_id(b.as_str())) else {
        return Ok(false);
    };
    let sql = format!("DELETE FROM user_friends WHERE {OF_PAIR}");
    let there = tx.execute(&sql, params![a_id, a.as_str(), b_id, b.as_str()])?;
    let back = tx.execute(&sql, params![b_id, b.as_str(), a_id, a.as_str()])?;
    Ok(there + back > 0)
}

/// Whether it was otherwise before.
pub(super) fn set_blocked(
    tx: &Transaction<'_>,
    user: &UserId,
    friend: &UserId,
    blocked: bool,
) -> Result<bool, AdministrationError> {
    let (a, b) = must_be_two(tx, user, friend)?;
    if flags(tx, a, b)?.is_none() && flags(tx, b, a)?.is_none() {
        let (a, b) = (user.clone(), friend.clone());
        return Err(AdministrationError::NotFriends(a, b));
    }
    let set = |column, a: i64, b: i64| {
        let sql =
            format!("UPDATE user_friends SET {column} = ?5 WHERE {OF_PAIR} AND {column} IS NOT ?5");
        let (a_text, b_text) = (a.to_string(), b.to_string());
        tx.execute(&sql, params![a, a_text, b, b_text, blocked])
    };
    Ok(set("blocked", a, b)? + set("been_blocked", b, a)? > 0)
}

/// Columns of `accounts` that are NOT NULL without a default.
fn demanded_columns(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_info('accounts')
        WHERE \"notnull\" AND dflt_value IS NULL AND NOT pk";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

fn exists(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM accounts WHERE user_id = ?1";
    let found = connection.query_row(sql, [id], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

pub(super) fn must_exist(
    connection: &Connection,
    user: &UserId,
) -> Result<i64, AdministrationError> {
    match row_id(user.as_str()) {
        Some(id) if exists(connection, id)? => Ok(id),
        _ => Err(AdministrationError::NoUser(user.clone())),
    }
}

fn must_be_two(
    connection: &Connection,
    a: &UserId,
    b: &UserId,
) -> Result<(i64, i64), AdministrationError> {
    must_differ(a, b)?;
    Ok((must_exist(connection, a)?, must_exist(connection, b)?))
}

/// `blocked` and `been_blocked` of a row, if there is one.
fn flags(
    connection: &Connection,
    user: i64,
    friend: i64,
) -> rusqlite::Result<Option<(bool, bool)>> {
    let sql = format!("SELECT blocked, been_blocked FROM user_friends WHERE {OF_PAIR}");
    let read = |row: &rusqlite::Row<'_>| {
        Ok((
            !rows::is_false(row.get_ref(0)?),
            !rows::is_false(row.get_ref(1)?),
        ))
    };
    let ids = params![user, user.to_string(), friend, friend.to_string()];
    connection.query_row(&sql, ids, read).optional()
}

pub(super) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

pub(super) fn cannot_write(error: &rusqlite::Error) -> AdministrationError {
    let why = if is_busy(error) {
        "another process is writing to the accounts database; try again".to_owned()
    } else if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) {
        format!(
            "the accounts database cannot be changed: {error}; look whether this user may write to it and its folder"
        )
    } else {
        format!("the accounts database cannot be changed: {error}")
    };
    if is_constraint(error) {
        AdministrationError::Refused(why)
    } else {
        AdministrationError::Unavailable(DirectoryError::of(failure(error), why))
    }
}
