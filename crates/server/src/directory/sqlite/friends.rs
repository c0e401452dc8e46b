//! Friends in the directory's file, as presence needs them (PROTOCOL.md, section 10).
//!
//! Invariant: all rows about two users are heard, and one that forbids is enough, as for messages; a friend
//! is said once, however their id is written (`tests::presence`).

use jam_core::ids::UserId;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params};

use super::super::numbers::row_id;
use super::Who;
use super::rows::{is_false, of_pair};

/// Rows that are looked at before others get their turn.
pub(super) const AT_ONCE: u32 = 128;

/// Some of a user's friends.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Friends {
    /// In no order that means anything.
    pub(super) friends: Vec<UserId>,
    /// Where to go on, if there are more.
    pub(super) next: Option<ListCursor>,
}

/// A place in a user's rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ListCursor {
    /// SQLite keeps numbers and texts apart where a column has no type; numbers come first.
    in_texts: bool,
    after: Value,
}

impl ListCursor {
    /// Before the first row.
    pub(super) const START: Self = Self {
        in_texts: false,
        after: Value::Real(f64::NEG_INFINITY),
    };
}

/// Reads the friends in at most [`AT_ONCE`] rows of `user`, from `place` on.
pub(super) fn read(
    connection: &Connection,
    user: i64,
    who: Who,
    place: &ListCursor,
) -> rusqlite::Result<Friends> {
    let rows = rows(connection, user, place)?;
    let next = match rows.last() {
        Some(last) if rows.len() >= AT_ONCE as usize => Some(ListCursor {
            in_texts: place.in_texts,
            after: last.clone(),
        }),
        _ if !place.in_texts => Some(ListCursor {
            in_texts: true,
            ..ListCursor::START
        }),
        _ => None,
    };
    let mut friends = Vec::new();
    for row in rows {
        let (friend, is_text) = match row {
            Value::Integer(friend) => (friend, false),
            Value::Text(text) => match row_id(&text) {
                Some(friend) => (friend, true),
                None => continue,
            },
            _ => continue,
        };
        let may = match who {
            Who::SeesUser => may_see(connection, friend, user)?,
            Who::IsSeen => may_see(connection, user, friend)?,
        };
        let form = (place.in_texts, is_text);
        if may && (form == (false, false) || is_first(connection, user, friend, form)?) {
            friends.extend(UserId::parse(friend.to_string()).ok());
        }
    }
    Ok(Friends { friends, next })
}

fn rows(connection: &Connection, user: i64, place: &ListCursor) -> rusqlite::Result<Vec<Value>> {
    let (user, form) = if place.in_texts {
        (Value::Text(user.to_string()), "text")
    } else {
        (Value::Integer(user), "integer")
    };
    let mut statement = connection.prepare_cached(
        "SELECT friend_id FROM user_friends
         WHERE user_id = ?1 AND typeof(user_id) = ?2 AND friend_id > ?3
         ORDER BY friend_id LIMIT ?4",
    )?;
    let rows = statement.query_map(params![user, form, place.after, AT_ONCE], |row| row.get(0))?;
    rows.collect()
}

/// Whether `watcher` may know when `friend` is connected: they are friends, and `friend` has not blocked `watcher`.
fn may_see(connection: &Connection, watcher: i64, friend: i64) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(of_pair!(
        "blocked",
        ["?1", "?2"],
        ["?3", "?4"],
        concat!(
            "EXISTS (",
            of_pair!("1", ["?3", "?4"], ["?1", "?2"], "true"),
            ")"
        )
    ))?;
    let (watcher_text, friend_text) = (watcher.to_string(), friend.to_string());
    let mut rows = statement.query(params![friend, friend_text, watcher, watcher_text])?;
    let mut may = false;
    while let Some(row) = rows.next()? {
        let blocked: ValueRef<'_> = row.get_ref(0)?;
        if !is_false(blocked) {
            return Ok(false);
        }
        may = true;
    }
    Ok(may)
}

/// Whether no other row says the same, with an id as a number that is a text here.
pub(super) fn is_first(
    connection: &Connection,
    user: i64,
    friend: i64,
    (user_is_text, friend_is_text): (bool, bool),
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM user_friends
         WHERE user_id IN (?1, ?2) AND friend_id IN (?3, ?4)
           AND (typeof(user_id) = 'text', typeof(friend_id) = 'text') < (?5, ?6)",
    )?;
    let (user_text, friend_text) = (user.to_string(), friend.to_string());
    let is_other = statement.exists(params![
        user,
        user_text,
        friend,
        friend_text,
        user_is_text,
        friend_is_text
    ])?;
    Ok(!is_other)
}
