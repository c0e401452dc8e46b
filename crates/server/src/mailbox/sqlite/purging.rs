//! What another process asked the server to remove, in the table `purge`.

use rusqlite::{Connection, Error, Row};

use super::records::{self as rec, EVERYTHING};

/// Does what another process asked a server for that is not there any more, and forgets that it was asked: both or
/// neither.
pub(super) fn purge(connection: &Connection) -> Result<(), Error> {
    let asked: i64 = connection.query_row("SELECT count(*) FROM purge", [], |row| row.get(0))?;
    if asked == 0 {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    let sql = "DELETE FROM message WHERE EXISTS
         (SELECT 1 FROM purge WHERE purge.user = message.user AND message.id <= purge.up_to
          AND purge.sender IN ('', message.sender)) AND flags & ?1";
    transaction.execute(sql, [rec::INBOX])?;
    let everything = {
        let mut select = transaction.prepare("SELECT user, up_to FROM purge WHERE sender = ?1")?;
        let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
        let users = select.query_map([EVERYTHING], row)?;
        users.collect::<Result<Vec<_>, _>>()?
    };
    for (user, up_to) in everything {
        remove_everything(&transaction, &user, up_to)?;
    }
    transaction.execute("DELETE FROM purge", [])?;
    transaction.commit()
}

/// Removes everything of a user up to and with a number. How many messages there were.
pub(super) fn remove_everything(
    connection: &Connection,
    user: &str,
    up_to: i64,
) -> rusqlite::Result<u64> {
    let remove = |sql: &str| connection.execute(sql, (user, up_to));
    for table in ["received", "in_flight", "claim", "subscription"] {
        let sessions = "SELECT id FROM session WHERE user = ?1 AND id <= ?2";
        remove(&format!(
            "DELETE FROM {table} WHERE session IN ({sessions})"
        ))?;
    }
    for table in ["session", "will"] {
        remove(&format!("DELETE FROM {table} WHERE user = ?1 AND id <= ?2"))?;
    }
    for table in ["retained", "push"] {
        remove(&format!(
            "DELETE FROM {table} WHERE user = ?1 AND message <= ?2"
        ))?;
    }
    let messages = remove("DELETE FROM message WHERE user = ?1 AND id <= ?2")?;
    // What is left is still theirs.
    let sql = "DELETE FROM owner WHERE user = ?1
         AND NOT EXISTS (SELECT 1 FROM message WHERE user = ?1)
         AND NOT EXISTS (SELECT 1 FROM session WHERE user = ?1)
         AND NOT EXISTS (SELECT 1 FROM will WHERE user = ?1)";
    connection.execute(sql, [user])?;
    Ok(messages as u64)
}
