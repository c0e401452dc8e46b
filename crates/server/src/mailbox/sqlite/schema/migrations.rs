//! What makes a file of this version out of an older one.
//!
//! Invariant: all of it or nothing, and what has been released is never changed.

use rusqlite::Connection;

use crate::mailbox::sqlite::{records, statements};

/// The schema that this program writes; [`MIGRATIONS`] lead there.
pub(in crate::mailbox::sqlite) const VERSION: i64 = 6;

/// What makes version n+1 out of version n, for n from 0.
pub(in crate::mailbox::sqlite) const MIGRATIONS: [&str; 6] = [
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

/// Brings a file of version `from` to [`VERSION`]: all of it or nothing.
pub(in crate::mailbox::sqlite) fn migrate(
    connection: &mut Connection,
    from: i64,
) -> rusqlite::Result<()> {
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
            statements::put_subscription(transaction, row.get(0)?, row_of)?;
        }
    }
    transaction.execute_batch("ALTER TABLE session DROP COLUMN subscriptions")
}
