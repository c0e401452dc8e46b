//! The mailbox's file: its tables, its versions, and what is looked at before it is believed.
//! `docs/data-format.md` says what each column means.
//!
//! Invariants: a mailbox comes into being complete, by a rename, so an empty file is never a new one;
//! what is not ours, not whole or from the future is left as it is (`tests::damage`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;
use super::{apply, records};

/// "JAM2": stands in the header of each mailbox.
pub(super) const APPLICATION_ID: i64 = 0x4A41_4D32;

/// The schema that this program writes; [`MIGRATIONS`] lead there.
pub(super) const VERSION: i64 = 6;

/// What makes version n+1 out of version n, for n from 0.
pub(super) const MIGRATIONS: [&str; 6] = [
    "
    CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        user TEXT NOT NULL,
        sender TEXT NOT NULL,
        flags INTEGER NOT NULL,
        waits_for INTEGER NOT NULL,
        acknowledged INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        expires_at INTEGER,
        size INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE session (
        id INTEGER PRIMARY KEY,
        user TEXT NOT NULL,
        client TEXT NOT NULL,
        slot INTEGER NOT NULL,
        expiry INTEGER NOT NULL,
        ends_at INTEGER,
        will BLOB,
        will_delay INTEGER,
        will_at INTEGER,
        subscriptions BLOB NOT NULL
    );
    CREATE TABLE received (
        session INTEGER NOT NULL,
        packet_id INTEGER NOT NULL,
        PRIMARY KEY (session, packet_id)
    ) WITHOUT ROWID;
    CREATE TABLE in_flight (
        session INTEGER NOT NULL,
        packet_id INTEGER NOT NULL,
        state INTEGER NOT NULL,
        message INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (session, packet_id)
    ) WITHOUT ROWID;
    CREATE TABLE retained (
        user TEXT NOT NULL,
        topic TEXT NOT NULL,
        sender TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        expires_at INTEGER,
        body BLOB NOT NULL,
        PRIMARY KEY (user, topic)
    ) WITHOUT ROWID;
    CREATE TABLE push (
        user TEXT NOT NULL,
        sender TEXT NOT NULL,
        message INTEGER NOT NULL,
        sent INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (user, sender)
    ) WITHOUT ROWID;
    CREATE TABLE purge (
        user TEXT PRIMARY KEY,
        up_to INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) WITHOUT ROWID;",
    "
    ALTER TABLE session ADD COLUMN maybe_sent INTEGER NOT NULL DEFAULT 0;",
    "
    CREATE TABLE will (
        id INTEGER PRIMARY KEY,
        user TEXT NOT NULL,
        body BLOB NOT NULL
    );
    UPDATE session SET maybe_sent = (SELECT coalesce(max(id), 0) FROM message) WHERE ends_at IS NULL;",
    // The highest time seen is the latest that anything was stamped with.
    "
    INSERT INTO meta (name, value)
    SELECT 'time', max(at) FROM (
        SELECT max(received_at) AS at FROM message
        UNION ALL SELECT max(received_at) FROM retained
        UNION ALL SELECT max(at) FROM push
        UNION ALL SELECT max(ends_at - expiry) FROM session WHERE ends_at < 9223372036854775807
    ) HAVING max(at) >= 0;
    ALTER TABLE session ADD COLUMN token BLOB;
    ALTER TABLE will ADD COLUMN token BLOB;

    UPDATE message SET size = length(body) WHERE length(body) > size + 1024;

    ALTER TABLE purge RENAME TO purge_of_3;
    CREATE TABLE purge (
        user TEXT NOT NULL,
        sender TEXT NOT NULL DEFAULT '',
        up_to INTEGER NOT NULL,
        PRIMARY KEY (user, sender)
    ) WITHOUT ROWID;
    INSERT INTO purge (user, up_to) SELECT user, up_to FROM purge_of_3;
    DROP TABLE purge_of_3;

    CREATE TABLE owner (
        user TEXT PRIMARY KEY,
        email BLOB,
        name BLOB,
        made_up INTEGER NOT NULL,
        gone_since INTEGER
    ) WITHOUT ROWID;

    CREATE TABLE subscription (
        session INTEGER NOT NULL,
        topic TEXT NOT NULL,
        options INTEGER NOT NULL,
        id INTEGER,
        PRIMARY KEY (session, topic)
    ) WITHOUT ROWID;

    -- Retained messages get numbers of their own, above all that have been used, and lie where all messages do.
    INSERT OR REPLACE INTO meta (name, value) VALUES ('last_seq', max(
        coalesce((SELECT value FROM meta WHERE name = 'last_seq'), 0),
        coalesce((SELECT max(id) FROM message), 0),
        coalesce((SELECT max(id) FROM session), 0),
        coalesce((SELECT max(id) FROM will), 0)));
    CREATE TABLE retained_message (
        message INTEGER PRIMARY KEY,
        user TEXT NOT NULL,
        topic TEXT NOT NULL
    );
    INSERT INTO retained_message (message, user, topic)
        SELECT (SELECT value FROM meta WHERE name = 'last_seq') + row_number() OVER (ORDER BY user, topic),
            user, topic FROM retained;
    INSERT INTO message (id, user, sender, flags, waits_for, acknowledged, received_at, expires_at, size, body)
        SELECT retained_message.message, user, retained.sender,
            8 | CASE hex(substr(retained.body, 1, 1)) WHEN '32' THEN 1 WHEN '33' THEN 1 WHEN '34' THEN 2
                WHEN '35' THEN 2 ELSE 0 END,
            0, 0, retained.received_at, retained.expires_at, length(retained.body), retained.body
        FROM retained_message JOIN retained USING (user, topic) ORDER BY retained_message.message;
    UPDATE meta SET value = value + (SELECT count(*) FROM retained_message) WHERE name = 'last_seq';
    DROP TABLE retained;
    ALTER TABLE retained_message RENAME TO retained;
    CREATE TABLE claim (
        session INTEGER NOT NULL,
        message INTEGER NOT NULL,
        PRIMARY KEY (session, message)
    ) WITHOUT ROWID;",
    "
    ALTER TABLE owner ADD COLUMN password BLOB;
    ALTER TABLE push ADD COLUMN expires_at INTEGER;",
    "
    ALTER TABLE message ADD COLUMN sender_life BLOB;",
];

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

/// The files of a mailbox.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The database.
    pub(super) db: PathBuf,
    /// Its write-ahead log.
    wal: PathBuf,
    /// Held by the server that has the mailbox.
    lock: PathBuf,
}

impl Files {
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            db: dir.join("mailbox.db"),
            wal: dir.join("mailbox.db-wal"),
            lock: dir.join("mailbox.lock"),
        }
    }

    pub(super) fn wal(&self) -> &Path {
        &self.wal
    }

    /// The log's index in memory that processes share.
    pub(super) fn shm(&self) -> PathBuf {
        self.db.with_extension("db-shm")
    }

    pub(super) fn lock_path(&self) -> &Path {
        &self.lock
    }

    /// Room for when the disk is full. Made after the database, so it is not there without that.
    pub(super) fn reserve(&self) -> PathBuf {
        self.db.with_extension("reserve")
    }

    /// Whether there is anything of a mailbox, be it damaged.
    pub(super) fn exist(&self) -> bool {
        self.db.exists() || self.wal.exists()
    }

    /// Keeps servers out for as long as the file is open, without making one; `None`: a server has the
    /// mailbox.
    pub(super) fn keep_free(&self) -> Result<Option<Free>, OpenError> {
        let error = |error: io::Error| OpenError::io(&self.lock, error);
        let file = match File::open(&self.lock) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Some(Free(None))),
            Err(why) => return Err(error(why)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Free(Some(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(why)) => Err(error(why)),
        }
    }

    /// Takes the mailbox for as long as the file is open.
    pub(super) fn lock(&self) -> Result<File, OpenError> {
        let error = |error: io::Error| OpenError::io(&self.lock, error);
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)
            .map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(self.db.clone())),
            Err(fs::TryLockError::Error(why)) => Err(error(why)),
        }
    }
}

/// No server has the mailbox; none gets it while this is held, if there has ever been one.
#[derive(Debug)]
pub(super) struct Free(#[expect(dead_code, reason = "held for its lock")] Option<File>);

/// The directory, readable for nobody else.
pub(super) fn create_dir(dir: &Path) -> Result<(), OpenError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(dir)
        .map_err(|error| OpenError::io(dir, error))
}

/// Makes an empty mailbox if there is none, and looks at the one that is there without touching it.
/// Says whether it was closed properly.
pub(super) fn prepare(files: &Files) -> Result<bool, OpenError> {
    let error = |error: io::Error| OpenError::io(&files.db, error);
    let log = match fs::metadata(&files.wal) {
        Ok(meta) => Some(meta.len()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => return Err(error(why)),
    };
    match File::open(&files.db) {
        Ok(file) => inspect(&files.db, file, log.is_some())?,
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
pub(super) fn prepare_existing(files: &Files) -> Result<bool, OpenError> {
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

/// Makes a rename last.
pub(super) fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}

/// Brings a file of version `from` to [`VERSION`]: all of it or nothing.
pub(super) fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    if from >= VERSION {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    move_subscriptions(&transaction)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Before version 4, a session's subscriptions were one value, which each SUBSCRIBE wrote anew.
fn move_subscriptions(transaction: &Connection) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT id, subscriptions FROM session")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        for subscription in records::decode_subscriptions(row.get_ref(1)?.as_blob()?)? {
            let row_of = records::subscription_row(&subscription);
            apply::put_subscription(transaction, row.get(0)?, row_of)?;
        }
    }
    transaction.execute_batch("ALTER TABLE session DROP COLUMN subscriptions")
}

/// Opens the file that [`prepare`] has let through, checks it and brings it up to date.
pub(super) fn open(files: &Files, closed: bool) -> Result<Connection, OpenError> {
    let path = &files.db;
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(path, &error);
    let mut connection = open_to_write(path).map_err(sqlite)?;
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
pub(super) fn open_to_inspect(files: &Files) -> rusqlite::Result<Connection> {
    let connection = if files.wal.exists() {
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
        Connection::open_with_flags(immutable_uri(&files.db), flags)?
    };
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    uri
}
