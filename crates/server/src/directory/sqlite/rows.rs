//! What others have written into the file: ids, tokens, flags and friendships as they stand in its rows.
//!
//! SQLite stores any type in any column and converts when it compares; nothing here relies on that.

use jam_core::directory::{Account, Fact, Friendship, Life, NotificationToken};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use secrecy::{ExposeSecret, SecretString};

use super::super::cache::Key;
use super::super::lives::life_of;
use super::PushAddress;
use super::schema::has_notification_tokens;
use super::tokens;
use super::values::token;

/// Selects the rows of a user that have a friend, each id as a number or as a text; where `$also`.
/// A row may come more than once: SQLite makes a text of a number where the columns are of text.
///
/// Each form is looked for by itself. `IN (?1, ?2)` is shorter, and takes five times as long: SQLite makes
/// a table of its own for each such list. Where the columns are of numbers it makes a number of a text, and all forms
/// find the same row; `typeof` is known from the index, before the row and `$also` are read for nothing.
macro_rules! of_pair {
    ($columns:literal, [$user:literal, $user_text:literal], [$friend:literal, $friend_text:literal], $also:expr) => {
        concat!(
            of_pair!($columns, $user, $friend, $also),
            " UNION ALL ",
            of_pair!(
                $columns,
                $user,
                $friend_text,
                concat!("typeof(friend_id) = 'text' AND ", $also)
            ),
            " UNION ALL ",
            of_pair!(
                $columns,
                $user_text,
                $friend,
                concat!("typeof(user_id) = 'text' AND ", $also)
            ),
            " UNION ALL ",
            of_pair!(
                $columns,
                $user_text,
                $friend_text,
                concat!(
                    "typeof(user_id) = 'text' AND typeof(friend_id) = 'text' AND ",
                    $also
                )
            )
        )
    };
    ($columns:literal, $user:literal, $friend:literal, $also:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM user_friends WHERE user_id = ",
            $user,
            " AND friend_id = ",
            $friend,
            " AND ",
            $also
        )
    };
}
pub(super) use of_pair;

/// Reads what is asked.
pub(super) fn read(connection: &Connection, key: &Key) -> rusqlite::Result<Fact> {
    Ok(match *key {
        Key::Account(id) => Fact::Account(read_account(connection, id)?),
        Key::Friendship { sender, receiver } => {
            Fact::Friendship(read_friendship(connection, sender, receiver)?)
        }
        Key::NotificationToken(id) => {
            Fact::NotificationToken(read_notification_token(connection, id)?)
        }
    })
}

/// Every column: not all databases have those that tell an account's life.
const ACCOUNT: &str = "SELECT * FROM accounts WHERE user_id = ?1";

/// Reads an account.
pub(super) fn read_account(connection: &Connection, id: i64) -> rusqlite::Result<Option<Account>> {
    let mut statement = connection.prepare_cached(ACCOUNT)?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(Account {
        token: tokens::read(id, row.get_ref("user_api_token")?),
        life: life(row)?,
    }))
}

/// Reads which account an id stands for.
fn read_life(connection: &Connection, id: i64) -> rusqlite::Result<Life> {
    let mut statement = connection.prepare_cached(ACCOUNT)?;
    let mut rows = statement.query([id])?;
    rows.next()?.map_or(Ok(Life::default()), life)
}

fn life(row: &Row<'_>) -> rusqlite::Result<Life> {
    let value = |column: &str| match row.as_ref().column_index(column) {
        Ok(index) => row.get_ref(index).map(token),
        Err(_) => Ok(None),
    };
    let (email, name) = (value("user_email")?, value("username")?);
    let password = value("user_password_hash")?;
    Ok(life_of(
        email.as_deref(),
        name.as_deref(),
        password.as_deref(),
    ))
}

/// The receiver's id as ?1 and ?2, the sender's as ?3 and ?4.
pub(super) const FRIENDSHIP: &str = of_pair!(
    "blocked, been_blocked",
    ["?1", "?2"],
    ["?3", "?4"],
    "EXISTS (SELECT 1 FROM accounts WHERE user_id = ?1)
     AND EXISTS (SELECT 1 FROM accounts WHERE user_id = ?3)"
);

/// Reads whether `sender` may write to `receiver`.
///
/// Both must have an account: rows outlive accounts, and the connection of a removed one lasts up to a
/// second longer. Ids that somebody stored as text count as well; one row that forbids is enough.
pub(super) fn read_friendship(
    connection: &Connection,
    sender: i64,
    receiver: i64,
) -> rusqlite::Result<Friendship> {
    let mut statement = connection.prepare_cached(FRIENDSHIP)?;
    let mut rows = statement.query(params![
        receiver,
        receiver.to_string(),
        sender,
        sender.to_string()
    ])?;
    let mut are_friends = false;
    while let Some(row) = rows.next()? {
        if !is_false(row.get_ref(0)?) || !is_false(row.get_ref(1)?) {
            return Ok(Friendship::NotFriends);
        }
        are_friends = true;
    }
    if !are_friends {
        return Ok(Friendship::NotFriends);
    }
    Ok(Friendship::Friends(read_life(connection, receiver)?))
}

/// Reads whether a push to a user could be addressed.
pub(super) fn read_notification_token(
    connection: &Connection,
    id: i64,
) -> rusqlite::Result<NotificationToken> {
    let read = || -> rusqlite::Result<NotificationToken> {
        let sql = "SELECT user_notification_token FROM accounts WHERE user_id = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        let present = match rows.next()? {
            Some(row) => token(row.get_ref(0)?).is_some(),
            None => false,
        };
        Ok(if present {
            NotificationToken::Present
        } else {
            NotificationToken::Absent
        })
    };
    // That a column is missing is told in words only, so it is looked for.
    read().or_else(|error| match has_notification_tokens(connection) {
        Ok(false) => Ok(NotificationToken::Unreadable),
        _ => Err(error),
    })
}

/// Reads where a push from `sender` to `receiver` goes. `None`: `sender` may not write to `receiver`.
///
/// A column that is missing holds no token.
pub(super) fn read_push_address(
    connection: &Connection,
    sender: i64,
    receiver: i64,
) -> rusqlite::Result<Option<PushAddress>> {
    if read_friendship(connection, sender, receiver)? == Friendship::NotFriends {
        return Ok(None);
    }
    let read = || -> rusqlite::Result<Option<SecretString>> {
        let sql = "SELECT CAST(user_notification_token AS TEXT) FROM accounts WHERE user_id = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([receiver])?;
        Ok(match rows.next()? {
            // What is not UTF-8 is no token that a service has ever given out.
            Some(row) => {
                let text = row.get_ref(0)?.as_str_or_null().unwrap_or_default();
                text.map(SecretString::from)
            }
            None => None,
        })
    };
    let token = read().or_else(|error| match has_notification_tokens(connection) {
        Ok(false) => Ok(None),
        _ => Err(error),
    })?;
    let token = token.filter(|token| !token.expose_secret().is_empty());
    Ok(Some(PushAddress { token }))
}

/// Takes a notification token away from a user, if they have no other one by now. Returns whether it did.
pub(super) fn clear_notification_token(
    connection: &Connection,
    id: i64,
    token: &SecretString,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE accounts SET user_notification_token = NULL
         WHERE user_id = ?1 AND CAST(user_notification_token AS TEXT) = ?2";
    let changed = connection.execute(sql, params![id, token.expose_secret()])?;
    Ok(changed > 0)
}

/// Whether a flag is off: 0, or the text `false`. NULL is not 0 (section 6 asks for `= 0`), and what
/// is unknown forbids.
pub(super) fn is_false(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Integer(number) => number == 0,
        ValueRef::Real(number) => number == 0.0,
        ValueRef::Text(text) => text == b"0" || text.eq_ignore_ascii_case(b"false"),
        ValueRef::Null | ValueRef::Blob(_) => false,
    }
}
