//! Lists of users and of friends, a page at a time, each in the transaction of its caller.
//!
//! Invariant: a page is read from an index, from where it begins to where it ends, whatever the number of accounts; friends are
//! sorted only where somebody has stored their ids as text.

use std::collections::BTreeMap;

use jam_core::ids::UserId;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::numbers::{cut, first_of, one_more, ranges, row_id};
use super::changes::must_exist;
use super::{AdministrationError, Friend, Page, PageRequest, User, rows, schema};

/// The users whose ids begin with `prefix`, by number.
pub(super) fn users(
    connection: &Connection,
    prefix: &str,
    page: &PageRequest,
) -> Result<Page<User>, AdministrationError> {
    let sql = select_users(
        connection,
        "BETWEEN ?1 AND ?2 AND typeof(user_id) = 'integer'",
    )?;
    let mut statement = connection.prepare(&sql)?;
    let mut users = Vec::new();
    if let Some(first) = first_of(page)? {
        for range in ranges(prefix) {
            let from = first.max(*range.start());
            let found = statement.query_map(params![from, range.end(), one_more(page)], user_of)?;
            for user in found.take(usize::from(one_more(page)) - users.len()) {
                users.push(user?);
            }
        }
    }
    Ok(cut(users, page, |user| &user.id))
}

/// One user.
pub(super) fn user(connection: &Connection, user: &UserId) -> Result<User, AdministrationError> {
    let id = must_exist(connection, user)?;
    let sql = select_users(connection, "BETWEEN ?1 AND ?2")?;
    Ok(connection.query_row(&sql, params![id, id, 1], user_of)?)
}

/// The friends of a user by number. Of several rows that say the same friend, one that blocks is enough.
pub(super) fn friends(
    connection: &Connection,
    user: &UserId,
    page: &PageRequest,
) -> Result<Page<Friend>, AdministrationError> {
    let id = must_exist(connection, user)?;
    let mut found = BTreeMap::new();
    if let Some(first) = first_of(page)? {
        for id in [Value::Integer(id), Value::Text(id.to_string())] {
            for sql in [NUMBERS, TEXTS] {
                let mut statement = connection.prepare(sql)?;
                let mut rows = statement.query(params![id, first, one_more(page)])?;
                while let Some(row) = rows.next()? {
                    let flags: &mut (bool, bool) = found.entry(row.get(0)?).or_default();
                    flags.0 |= !rows::is_false(row.get_ref(1)?);
                    flags.1 |= !rows::is_false(row.get_ref(2)?);
                }
            }
        }
    }
    let sql = format!(
        "SELECT {} FROM accounts WHERE user_id = ?1",
        name_column(connection)?
    );
    let mut name = connection.prepare(&sql)?;
    let mut friends = Vec::new();
    for (friend, (blocked, been_blocked)) in found.into_iter().take(one_more(page).into()) {
        let friend: i64 = friend;
        let name = name.query_row([friend], |row| row.get(0)).optional()?;
        friends.push(Friend {
            id: friend.to_string(),
            name: name.flatten(),
            blocked,
            been_blocked,
        });
    }
    Ok(cut(friends, page, |friend| &friend.id))
}

/// One friend of a user, if they are friends.
pub(super) fn friend(
    connection: &Connection,
    user: &UserId,
    friend: &UserId,
) -> Result<Option<Friend>, AdministrationError> {
    must_exist(connection, user)?;
    let Some(id) = row_id(friend.as_str()) else {
        return Ok(None);
    };
    let before = id
        .checked_sub(1)
        .and_then(|id| UserId::parse(id.to_string()).ok());
    let page = PageRequest::new(before, 1).expect("one is a limit");
    let found = friends(connection, user, &page)?.items.into_iter();
    Ok(found.last().filter(|found| found.id == friend.as_str()))
}

/// Friends whose ids are numbers, as in all databases that declare them so. Texts come after numbers.
const NUMBERS: &str = "SELECT friend_id, blocked, been_blocked FROM user_friends
    WHERE user_id = ?1 AND friend_id >= ?2 AND friend_id < '' AND typeof(friend_id) = 'integer'
    ORDER BY friend_id LIMIT ?3";

/// Friends whose ids are texts that are user ids.
const TEXTS: &str = "SELECT CAST(friend_id AS INTEGER) AS id, blocked, been_blocked FROM user_friends
    WHERE user_id = ?1 AND friend_id >= '' AND typeof(friend_id) = 'text'
        AND CAST(CAST(friend_id AS INTEGER) AS TEXT) = friend_id AND CAST(friend_id AS INTEGER) >= ?2
    ORDER BY id LIMIT ?3";

/// With a condition on `user_id`, and how many as ?3.
fn select_users(connection: &Connection, condition: &str) -> rusqlite::Result<String> {
    let push = if schema::has_notification_tokens(connection)? {
        "coalesce(user_notification_token, '') <> ''"
    } else {
        "0"
    };
    Ok(format!(
        "SELECT user_id, {}, coalesce(user_api_token, '') <> '', {push},
            (SELECT count(*) FROM user_friends
             WHERE user_friends.user_id IN (accounts.user_id, CAST(accounts.user_id AS TEXT)))
         FROM accounts WHERE user_id {condition} ORDER BY user_id LIMIT ?3",
        name_column(connection)?
    ))
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<User> {
    let id: i64 = row.get(0)?;
    Ok(User {
        id: id.to_string(),
        name: row.get(1)?,
        token: row.get(2)?,
        push: row.get(3)?,
        friends: row.get(4)?,
    })
}

/// An expression for the name: not every jam database has one.
fn name_column(connection: &Connection) -> rusqlite::Result<&'static str> {
    let columns = schema::columns_of(connection, "accounts")?;
    let has_name = columns.iter().any(|column| column == "username");
    Ok(if has_name {
        "CAST(accounts.username AS TEXT)"
    } else {
        "NULL"
    })
}
