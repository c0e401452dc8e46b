//! Friends in the directory's file, as users are shown theirs (PROTOCOL.md, section 10).
//!
//! Invariants: of the other side's row it is known that it is there, and nothing else; `been_blocked` is not read
//! (`tests::shown`). As for messages, all rows about two users are heard, and a friend is said once, however their id is
//! written.

use jam_core::friends::{PAGE_BYTES, PART_BYTES};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::numbers::row_id;
use super::friends::{AT_ONCE, is_first};
use super::rows::{is_false, of_pair};

/// Some of a user's friends.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// By their numbers; those whose id was stored as a text come last.
    pub(super) friends: Vec<ShownFriend>,
    /// Rows that were looked at.
    pub(super) rows: usize,
    /// Where to go on, if there are more.
    pub(super) next: Option<ShownCursor>,
}

/// A friend.
#[derive(Debug, PartialEq)]
pub(super) struct ShownFriend {
    pub(super) id: i64,
    pub(super) name: Option<String>,
    pub(super) blocked: bool,
    pub(super) public_key: Option<String>,
}

impl ShownFriend {
    /// Of name and key.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.name, &self.public_key];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

/// A place in a user's rows.
#[derive(Debug, Clone)]
pub(super) struct ShownCursor {
    /// Whether they are looked for by the user's id as a text: SQLite keeps those apart where a column has no type.
    in_texts: bool,
    after: Value,
    texts: Option<Texts>,
}

/// Whether there are rows that have an id as a text: in all databases that declare ids as numbers there are none.
#[derive(Debug, Clone, Copy)]
struct Texts {
    of_user: bool,
    of_friends: bool,
}

impl ShownCursor {
    /// Before the first row.
    pub(super) const START: Self = Self {
        in_texts: false,
        after: Value::Real(f64::NEG_INFINITY),
        texts: None,
    };
}

/// The rows of the user ?1, also with that id as another type, from ?3 on. Every column of accounts: not all databases have
/// those that are shown.
const ROWS: &str = "
    SELECT f.friend_id, f.blocked, a.user_id IS NOT NULL,
        EXISTS (SELECT 1 FROM user_friends WHERE user_id = f.friend_id AND friend_id = ?1), a.*
    FROM (SELECT friend_id, blocked FROM user_friends
          WHERE user_id = ?1 AND typeof(user_id) = ?2 AND friend_id > ?3
          ORDER BY friend_id LIMIT ?4) AS f
    LEFT JOIN accounts AS a ON a.user_id = CAST(f.friend_id AS INTEGER)";

/// Reads the friends in at most [`AT_ONCE`] rows of `user`, from `place` on.
pub(super) fn read(
    connection: &Connection,
    user: i64,
    place: &ShownCursor,
) -> rusqlite::Result<Shown> {
    let texts = match place.texts {
        Some(texts) => texts,
        None => Texts::of(connection, user)?,
    };
    let (id, form) = if place.in_texts {
        (Value::Text(user.to_string()), "text")
    } else {
        (Value::Integer(user), "integer")
    };
    let mut statement = connection.prepare_cached(ROWS)?;
    let mut rows = statement.query(params![id, form, place.after, AT_ONCE])?;
    let mut shown = Shown::default();
    let (mut last, mut bytes) = (None, 0);
    while bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        shown.rows += 1;
        let value: Value = row.get(0)?;
        let friend = friend(connection, user, place.in_texts, texts, &value, row)?;
        bytes += friend.as_ref().map_or(0, ShownFriend::bytes);
        shown.friends.extend(friend);
        last = Some(value);
    }
    let after = |in_texts, after| ShownCursor {
        in_texts,
        after,
        texts: Some(texts),
    };
    shown.next = match last {
        Some(last) if bytes >= PAGE_BYTES || shown.rows >= AT_ONCE as usize => {
            Some(after(place.in_texts, last))
        }
        _ if texts.of_user && !place.in_texts => Some(after(true, ShownCursor::START.after)),
        _ => None,
    };
    Ok(shown)
}

/// What a row of [`ROWS`] says, if it is of a friend who has not been said.
fn friend(
    connection: &Connection,
    user: i64,
    in_texts: bool,
    texts: Texts,
    friend_id: &Value,
    row: &Row<'_>,
) -> rusqlite::Result<Option<ShownFriend>> {
    let (id, is_text) = match friend_id {
        Value::Integer(friend) => (*friend, false),
        Value::Text(text) => match row_id(text) {
            Some(friend) => (friend, true),
            None => return Ok(None),
        },
        Value::Null | Value::Real(_) | Value::Blob(_) => return Ok(None),
    };
    let (has_account, is_mutual): (bool, bool) = (row.get(2)?, row.get(3)?);
    if !has_account || !(is_mutual || has_row(connection, id, user)?) {
        return Ok(None);
    }
    let mut blocked = !is_false(row.get_ref(1)?);
    if texts.of_user || texts.of_friends {
        let form = (in_texts, is_text);
        if form != (false, false) && !is_first(connection, user, id, form)? {
            return Ok(None);
        }
        blocked |= has_blocked(connection, user, id)?;
    }
    Ok(Some(ShownFriend {
        id,
        name: text(row, "username")?,
        blocked,
        public_key: text(row, "public_key")?,
    }))
}

impl Texts {
    fn of(connection: &Connection, user: i64) -> rusqlite::Result<Self> {
        // Where the column is of numbers, SQLite makes a number of the text and finds those rows.
        let sql = "SELECT typeof(user_id) = 'text' FROM user_friends WHERE user_id = ?1 LIMIT 1";
        let mut statement = connection.prepare_cached(sql)?;
        let of_user = statement.query_row([user.to_string()], |row| row.get(0));
        let of_user = of_user.optional()?.unwrap_or(false);
        // Texts come after numbers, so that none are looked at but those.
        let sql = "SELECT 1 FROM user_friends
             WHERE user_id = ?1 AND friend_id >= '' AND typeof(friend_id) = 'text'";
        let of_friends = connection.prepare_cached(sql)?.exists([user])?;
        Ok(Self {
            of_user,
            of_friends,
        })
    }
}

/// Whether `user` has `other` as a friend, however their ids are written.
fn has_row(connection: &Connection, user: i64, other: i64) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached(of_pair!("1", ["?1", "?2"], ["?3", "?4"], "true"))?;
    let (user_text, other_text) = (user.to_string(), other.to_string());
    statement.exists(params![user, user_text, other, other_text])
}

/// Whether one of the user's rows says that they have blocked `other`.
fn has_blocked(connection: &Connection, user: i64, other: i64) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached(of_pair!("blocked", ["?1", "?2"], ["?3", "?4"], "true"))?;
    let (user_text, other_text) = (user.to_string(), other.to_string());
    let mut rows = statement.query(params![user, user_text, other, other_text])?;
    while let Some(row) = rows.next()? {
        if !is_false(row.get_ref(0)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A column of an account, if there is such a one. What is no UTF-8 is shown as far as it is; what is too long to be shown is
/// cut where that can still be seen.
fn text(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<String>> {
    let Ok(index) = row.as_ref().column_index(column) else {
        return Ok(None);
    };
    Ok(match row.get_ref(index)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let bytes = &bytes[..bytes.len().min(PART_BYTES + 1)];
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    })
}
