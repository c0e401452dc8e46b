//! The database's file: opening it, creating it, checking it.
//!
//! A file that this server did not create is somebody else's: its schema, its journal mode and its
//! checkpoints stay as they are.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{DirectoryError, failure};
use crate::metrics::StoreFailure;
use crate::{file_uri, folders, named_file};

/// How long another process may lock the file before what waits for it fails.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// "JAM1": stands in the header of the files this server creates.
const APPLICATION_ID: i32 = 0x4A41_4D31;

/// `user_version` of a file of ours whose tokens have been hashed and stand in none of its pages any more.
pub(super) const HASHED: i64 = 1;

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
    if !is_ours(connection)? {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    Ok(())
}

/// Whether this server has made the file: then it may say how things stand in it.
pub(super) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok(id == APPLICATION_ID)
}

fn describe(path: &Path, error: &rusqlite::Error) -> DirectoryError {
    if !path.exists() {
        return DirectoryError::new(format!(
            "there is no accounts database at {}; `jam-mqtt user add ID` makes one",
            path.display()
        ));
    }
    if let Err(wrong_kind) = expect_file(path) {
        return wrong_kind;
    }
    let path = path.display();
    let message = match error.sqlite_error_code() {
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
    };
    DirectoryError::of(failure(error), message)
}

/// Fails if something else than a file is there. To open a pipe would be to wait for its writer; to open and close the
/// database beside SQLite would be to give up its locks.
fn expect_file(path: &Path) -> Result<(), DirectoryError> {
    let found = named_file::expect_file(path).err();
    let Some(what) = found.filter(named_file::is_wrong_kind) else {
        return Ok(());
    };
    Err(DirectoryError::new(format!(
        "{} is no accounts database: {what}; set directory.url to the file",
        path.display()
    )))
}

/// Opens the file without a trace: nothing is created beside it, nothing in it changes.
pub(super) fn open_for_inspection(path: &Path) -> Result<Connection, DirectoryError> {
    expect_file(path)?;
    // A reader of a file in WAL mode makes a `-shm` and a `-wal`, unless it is told that nobody
    // writes. Somebody does if there is a `-wal`; then there is nothing left to create.
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let options = if Path::new(&wal).exists() {
        "mode=ro"
    } else {
        "mode=ro&immutable=1"
    };
    let uri = file_uri::with_options(path, options);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).map_err(|error| describe(path, &error))
}

/// Fails if a table or column is missing that nothing works without.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), DirectoryError> {
    let wrong = |message| DirectoryError::of(StoreFailure::Corrupt, message);
    for (table, columns) in NEEDED {
        let present = columns_of(connection, table).map_err(|error| describe(path, &error))?;
        let file = path.display();
        if present.is_empty() {
            return Err(wrong(format!(
                "the accounts database {file} has no table {table}; is it a jam database?"
            )));
        }
        for column in *columns {
            if !present.iter().any(|name| name.eq_ignore_ascii_case(column)) {
                return Err(wrong(format!(
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
            "the accounts database {} cannot be created: {why}; look whether the disk is full, and whether this user may \
             write to its folder",
            path.display()
        ))
    };
    // A private name that is removed whatever happens. Tokens will stand in it: mode 0600.
    let draft = tempfile::Builder::new()
        .prefix(".jam-directory-")
        .tempfile_in(folders::of(path))
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
    connection.pragma_update(None, "user_version", HASHED)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.execute_batch(TABLES)?;
    connection.close().map_err(|(_, error)| error)
}
