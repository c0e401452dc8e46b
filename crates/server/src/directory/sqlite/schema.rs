//! The directory's file: opening it, creating it, checking it, and reading what others wrote into it.
//!
//! SQLite stores any type in any column and converts when it compares; nothing here relies on that.
//! A file that this server did not create is somebody else's: its schema, its journal mode and its
//! checkpoints stay as they are.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jam_core::directory::{Account, Fact, Friendship, Life, Mark, NotificationToken, Token};
use ring::digest;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params};
use secrecy::{ExposeSecret, SecretString};

use super::cache::Key;
use super::{DirectoryError, PushAddress};

/// How long another process may lock the file before what waits for it fails.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// "JAM1": stands in the header of the files this server creates.
const APPLICATION_ID: i32 = 0x4A41_4D31;

/// PROTOCOL.md, section 6. The defaults let writers leave the two flags out.
const TABLES: &str = "
    CREATE TABLE accounts (
        user_id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_email TEXT UNIQUE,
        username TEXT UNIQUE,
        user_password_hash TEXT,
        user_notification_token TEXT,
        user_api_token TEXT,
        inactive BOOLEAN DEFAULT TRUE,
        public_key TEXT
    );
    CREATE TABLE user_friends (
        user_id INTEGER NOT NULL,
        friend_id INTEGER NOT NULL,
        blocked BOOLEAN DEFAULT FALSE,
        been_blocked BOOLEAN DEFAULT FALSE,
        PRIMARY KEY (user_id, friend_id)
    );
    CREATE TABLE user_devices (
        user_id INTEGER PRIMARY KEY,
        device_id TEXT
    );";

/// What cannot be done without. The notification token's column is missed only when it is asked for.
const NEEDED: &[(&str, &[&str])] = &[
    ("accounts", &["user_id", "user_api_token"]),
    (
        "user_friends",
        &["user_id", "friend_id", "blocked", "been_blocked"],
    ),
];

/// The canonical decimal form of an `i64`, which is the only form of an id in a jam database.
///
/// `None` for `01`, `+1`, `-0`, ` 1`, `1.0`, `1e0` and all that SQLite would also take for a number.
pub(super) fn row_id(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    canonical.then(|| text.parse().ok()).flatten()
}

/// Opens and checks the file for reading. From then on its connection does not wait for locks.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, DirectoryError> {
    let connection = open(path)?;
    check(&connection, path)?;
    let prepare = || -> rusqlite::Result<()> {
        connection.pragma_update(None, "query_only", true)?;
        connection.busy_timeout(Duration::ZERO)
    };
    prepare().map_err(|error| describe(path, &error))?;
    Ok(connection)
}

/// Opens and checks the file for changes, which wait [`LOCK_PATIENCE`] for locks.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, DirectoryError> {
    let connection = open(path)?;
    check(&connection, path)?;
    Ok(connection)
}

fn open(path: &Path) -> Result<Connection, DirectoryError> {
    // Without CREATE: a missing file is made by `create_if_missing`, or not at all. Without URI: `?` in
    // a path is a character.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(LOCK_PATIENCE)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        // Otherwise a statement may be prepared anew for each set of values that it is run with, in the
        // hope of a better plan: several times what it takes to run it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        leave_checkpoints_to_owner(&connection)?;
        Ok(connection)
    };
    open().map_err(|error| describe(path, &error))
}

/// Closing `connection` moves nothing into the file and removes no log: what bears its name is another one by now.
pub(super) fn leave_files_alone(connection: &Connection) {
    // Of a connection that is about to be closed; it cannot fail for a known option.
    drop(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
}

fn leave_checkpoints_to_owner(connection: &Connection) -> rusqlite::Result<()> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id != APPLICATION_ID {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    Ok(())
}

fn describe(path: &Path, error: &rusqlite::Error) -> DirectoryError {
    if !path.exists() {
        return DirectoryError::new(format!(
            "there is no accounts database at {}; `jam-mqtt user add ID` makes one",
            path.display()
        ));
    }
    let path = path.display();
    DirectoryError::new(match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => {
            format!("the accounts database {path} is not an SQLite database")
        }
        Some(rusqlite::ErrorCode::DatabaseBusy) => {
            format!("the accounts database {path} is locked by another process; try again")
        }
        _ => format!(
            "the accounts database {path} cannot be opened: {error}; look whether its disk is full, and whether \
             this user may write to it and its folder"
        ),
    })
}

/// Opens the file without a trace: nothing is created beside it, nothing in it changes.
pub(super) fn open_for_inspection(path: &Path) -> Result<Connection, DirectoryError> {
    // A reader of a file in WAL mode makes a `-shm` and a `-wal`, unless it is told that nobody
    // writes. Somebody does if there is a `-wal`; then there is nothing left to create.
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let immutable = if Path::new(&wal).exists() {
        ""
    } else {
        "&immutable=1"
    };
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro");
    uri.push_str(immutable);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).map_err(|error| describe(path, &error))
}

/// Fails if a table or column is missing that nothing works without.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), DirectoryError> {
    for (table, columns) in NEEDED {
        let present = columns_of(connection, table).map_err(|error| describe(path, &error))?;
        let file = path.display();
        if present.is_empty() {
            return Err(DirectoryError::new(format!(
                "the accounts database {file} has no table {table}; is it a jam database?"
            )));
        }
        for column in *columns {
            if !present.iter().any(|name| name.eq_ignore_ascii_case(column)) {
                return Err(DirectoryError::new(format!(
                    "the accounts database {file} has no column {column} in its table {table}"
                )));
            }
        }
    }
    Ok(())
}

/// Whether pushes can be addressed at all.
pub(super) fn has_notification_tokens(connection: &Connection) -> rusqlite::Result<bool> {
    let columns = columns_of(connection, "accounts")?;
    Ok(columns
        .iter()
        .any(|name| name.eq_ignore_ascii_case("user_notification_token")))
}

/// Empty if there is no such table.
pub(super) fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// Makes an empty directory at `path` unless something is there.
///
/// It comes into being under its name complete, so that nobody ever sees half of it; of two processes
/// that try, one wins and the other uses what the winner made.
pub(super) fn create_if_missing(path: &Path) -> Result<(), DirectoryError> {
    if path.exists() {
        return Ok(());
    }
    let cannot = |why: &dyn std::fmt::Display| {
        DirectoryError::new(format!(
            "the accounts database {} cannot be created: {why}",
            path.display()
        ))
    };
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.map_or_else(|| PathBuf::from("."), Path::to_owned);
    // A private name that is removed whatever happens. Tokens will stand in it: mode 0600.
    let draft = tempfile::Builder::new()
        .prefix(".jam-directory-")
        .tempfile_in(&parent)
        .map_err(|error| cannot(&error))?
        .into_temp_path();
    fill(&draft).map_err(|error| cannot(&error))?;
    match fs::hard_link(&draft, path) {
        // Not every file system has links. The window between the look and the rename is small.
        Err(_) if !path.exists() => fs::rename(&draft, path).map_err(|error| cannot(&error)),
        // Done, or another process was faster.
        Ok(()) | Err(_) => Ok(()),
    }
}

fn fill(draft: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(draft)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.execute_batch(TABLES)?;
    connection.close().map_err(|(_, error)| error)
}

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
        token: api_token(id, row.get_ref("user_api_token")?),
        life: life(row)?,
    }))
}

/// Reads which account an id stands for.
fn read_life(connection: &Connection, id: i64) -> rusqlite::Result<Life> {
    let mut statement = connection.prepare_cached(ACCOUNT)?;
    let mut rows = statement.query([id])?;
    rows.next()?.map_or(Ok(Life::default()), life)
}

/// The addresses that [`super::admin`] makes up: one for each account.
pub(super) const MADE_UP: &str = "@jam.invalid";
/// Characters before that.
pub(super) const MADE_UP_CHARACTERS: usize = 32;

fn life(row: &Row<'_>) -> rusqlite::Result<Life> {
    let value = |column: &str| match row.as_ref().column_index(column) {
        Ok(index) => row.get_ref(index).map(token),
        Err(_) => Ok(None),
    };
    let (email, name) = (value("user_email")?, value("username")?);
    let password = value("user_password_hash")?;
    let is_made_up = |email: &[u8]| {
        let random = email.strip_suffix(MADE_UP.as_bytes());
        random.is_some_and(|it| {
            it.len() == MADE_UP_CHARACTERS && it.iter().all(u8::is_ascii_hexdigit)
        })
    };
    Ok(Life {
        made_up: email.as_deref().is_some_and(is_made_up),
        email: email.map(|email| mark(&[b"user_email", &email])),
        name: name.map(|name| mark(&[b"username", &name])),
        password: password.map(|hash| mark(&[b"user_password_hash", &hash])),
    })
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

fn api_token(id: i64, value: ValueRef<'_>) -> Option<Token> {
    let mark = |bytes: &[u8]| mark(&[b"token", &id.to_be_bytes(), bytes]);
    token(value).map(|bytes| Token::new(&bytes, mark(&bytes)))
}

/// What is remembered of a value that is not to be kept: the beginning of the SHA-256 of its parts. The first says what it is,
/// so that equal values of different kinds or users have different marks.
fn mark(parts: &[&[u8]]) -> Mark {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let (begin, _) = digest.as_ref().split_at(Mark::LEN);
    Mark::new(begin.try_into().expect("it was split there"))
}

/// NULL, the empty text and what nobody can send are no token.
fn token(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if !bytes.is_empty() => Some(bytes.into()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
        _ => None,
    }
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
