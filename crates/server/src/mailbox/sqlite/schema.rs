//! The mailbox's file: its tables, its versions, and what is looked at before it is believed.
//! `docs/data-format.md` says what each column means.
//!
//! `files`: their names and the lock. `migrations`: what makes each version.
//!
//! Invariants: a mailbox comes into being complete, by a rename, so an empty file is never a new one;
//! what is not ours, not whole or from the future is left as it is (`tests::damage`).

mod files;
pub(super) mod migrations;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::mailbox::OpenError;
use crate::{file_uri, named_file};
pub(super) use files::{MailboxFiles, create_dir, sync_dir_of};
pub(super) use migrations::{VERSION, migrate};

/// "JAM2": stands in the header of each mailbox.
pub(super) const APPLICATION_ID: i64 = 0x4A41_4D32;

/// How long a statement waits for another process that has the file locked.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Of a database that this program makes: SQLite's default.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Pages of the log after which they are moved into the file itself: 32 MiB.
pub(super) const CHECKPOINT_PAGES: i64 = 8192;

/// Bytes that the log keeps on disk after it has been larger.
const JOURNAL_BYTES: i64 = 64 << 20;

/// KiB of the file that a writing connection holds in memory.
const CACHE_KIB: i64 = 16 << 10;

/// Largest file that is checked page by page when it was not closed properly.
const CHECKED_BYTES: u64 = 16 << 20;

/// Of an SQLite file's header.
const HEADER: usize = 100;

/// Makes an empty mailbox if there is none, and looks at the one that is there without touching it.
/// Says whether it was closed properly.
pub(super) fn prepare(files: &MailboxFiles) -> Result<bool, OpenError> {
    let error = |error: io::Error| OpenError::io(&files.db, error);
    let log = match fs::metadata(files.wal()) {
        Ok(meta) => Some(meta.len()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => return Err(error(why)),
    };
    match named_file::open(&files.db) {
        Ok(file) => inspect(&files.db, file, log.is_some())?,
        Err(why) if named_file::is_wrong_kind(&why) => {
            return Err(OpenError::wrong_kind(&files.db, why));
        }
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(error(why)),
        Err(_) if log.is_some() => {
            return Err(OpenError::damaged(
                &files.db,
                "the file is gone, its log is there",
            ));
        }
        Err(_) if files.reserve().exists() => {
            let what = "the file is gone, and mailbox.reserve is there, which is made beside it (to begin with an \
                 empty mailbox, delete that too)";
            return Err(OpenError::damaged(&files.db, what));
        }
        Err(_) => create(&files.db)?,
    }
    Ok(log.unwrap_or_default() == 0)
}

/// As [`prepare`], but without making one.
pub(super) fn prepare_existing(files: &MailboxFiles) -> Result<bool, OpenError> {
    if files.exist() {
        return prepare(files);
    }
    Err(OpenError::Missing(files.db.clone()))
}

/// What the header says, without SQLite, which would begin to repair things.
fn inspect(path: &Path, mut file: File, has_log: bool) -> Result<(), OpenError> {
    let mut header = [0; HEADER];
    let error = |error: io::Error| OpenError::io(path, error);
    let bytes = file.metadata().map_err(error)?.len();
    if bytes < HEADER as u64 {
        return Err(OpenError::damaged(path, format!("it has {bytes} bytes")));
    }
    file.read_exact(&mut header).map_err(error)?;
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(OpenError::damaged(
            path,
            "it does not begin as an SQLite file does",
        ));
    }
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if i64::from(number(68)) != APPLICATION_ID {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    check_version(path, number(60).into())?;
    let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        page => page,
    };
    let expected = u64::from(number(28)) * page;
    if !has_log && bytes < expected {
        let what = format!("it has {bytes} bytes of {expected}");
        return Err(OpenError::damaged(path, what));
    }
    Ok(())
}

pub(super) fn check_version(path: &Path, found: i64) -> Result<(), OpenError> {
    if found > VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(())
}

/// Makes an empty mailbox at `path`, where nothing is.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let error = |error: io::Error| OpenError::io(path, error);
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(error(why)),
        _ => {}
    }
    let fill = || -> rusqlite::Result<()> {
        let mut connection = Connection::open(&draft)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        migrate(&mut connection, 0)?;
        connection.pragma_update(None, "journal_mode", "WAL")
    };
    fill().map_err(|error| OpenError::sqlite(path, &error))?;
    File::open(&draft)
        .and_then(|file| file.sync_all())
        .map_err(error)?;
    fs::rename(&draft, path).map_err(error)?;
    sync_dir_of(path).map_err(error)
}

/// Opens the file that [`prepare`] has let through, checks it and brings it up to date.
pub(super) fn open(files: &MailboxFiles, closed: bool) -> Result<Connection, OpenError> {
    let path = &files.db;
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(path, &error);
    let mut connection = open_to_write(path).map_err(sqlite)?;
    // SQLite opens it all the same.
    if connection.is_readonly(MAIN_DB).map_err(sqlite)? {
        return Err(OpenError::ReadOnly(path.clone()));
    }
    let found = pragma(&connection, "user_version").map_err(sqlite)?;
    check_version(path, found)?;
    let bytes = fs::metadata(path).map_or(u64::MAX, |meta| meta.len());
    if !closed && bytes <= CHECKED_BYTES {
        check(&connection, path)?;
    }
    // A backup is no write-ahead log's.
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(sqlite)?;
    migrate(&mut connection, found).map_err(sqlite)?;
    Ok(connection)
}

/// Looks at every page.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let first: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| OpenError::sqlite(path, &error))?;
    if first == "ok" {
        return Ok(());
    }
    // A heading that says which database, and a line of what is wrong with it.
    let lines: Vec<&str> = first
        .lines()
        .filter(|line| !line.starts_with("***"))
        .collect();
    let first: String = lines.join("; ").chars().take(200).collect();
    Err(OpenError::damaged(path, first))
}

pub(super) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Moves the log into the file when it has so many pages.
pub(super) fn checkpoint_after(connection: &Connection, pages: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", pages)
}

/// Moves the log into the file now, as far as it goes, so that the next change begins it anew.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

/// Without CREATE: who makes a mailbox calls [`create`]. Without URI: `?` in a path is a character.
pub(super) fn open_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "synchronous", "FULL")?;
    checkpoint_after(&connection, CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Opens a file that no server has for a look: nothing is created beside it, nothing in it changes.
pub(super) fn open_to_inspect(files: &MailboxFiles) -> rusqlite::Result<Connection> {
    let connection = if files.wal().exists() {
        // The log's index in memory: a file for it would be made otherwise, and the log emptied in
        // the end. SQLite wants to be able to write for that.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&files.db, flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection
    } else {
        // With nothing but the file, and nobody who writes, it can be read as it is.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(
            file_uri::with_options(&files.db, "mode=ro&immutable=1"),
            flags,
        )?
    };
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}
