//! `prepare`: a directory with pairs of friends, made in one transaction.

use std::path::Path;

use rusqlite::{Connection, params};

use super::BenchError;
use super::users::Roster;
use jam_mqtt::directory::{self, DirectoryError};

impl From<DirectoryError> for BenchError {
    fn from(error: DirectoryError) -> Self {
        Self::new(error.to_string())
    }
}

/// Makes users 1 to 2 × `pairs`, where 2k - 1 and 2k are friends, with tokens as the template says.
///
/// # Errors
/// If there are accounts in the directory already: they may be somebody's.
pub(crate) fn prepare(path: &Path, pairs: usize, password: &str) -> Result<(), BenchError> {
    directory::create(path)?;
    let cannot = |error| BenchError::new(format!("cannot write to {}: {error}", path.display()));
    let mut connection = Connection::open(path).map_err(cannot)?;
    let is_empty = "SELECT NOT EXISTS (SELECT 1 FROM accounts)";
    if !connection
        .query_row(is_empty, [], |row| row.get(0))
        .map_err(cannot)?
    {
        return Err(BenchError::new(format!(
            "there are accounts in {} already, and a benchmark has no business among them; name a new file",
            path.display()
        )));
    }
    insert(&mut connection, pairs, password).map_err(cannot)
}

fn insert(connection: &mut Connection, pairs: usize, password: &str) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    // A database of another program, whose tokens stay in the clear: the other workloads read them there.
    tx.pragma_update(None, "application_id", 0)?;
    {
        let mut account =
            tx.prepare("INSERT INTO accounts (user_id, user_api_token) VALUES (?1, ?2)")?;
        let mut friend = tx.prepare(
            "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
             VALUES (?1, ?2, FALSE, FALSE)",
        )?;
        let roster = Roster::numbered(2 * pairs, password);
        let users = roster.take(2 * pairs).unwrap_or_default();
        for (pair, users) in (0_i64..).zip(users.chunks_exact(2)) {
            let (a, b) = (2 * pair + 1, 2 * pair + 2);
            account.execute(params![a, users[0].token])?;
            account.execute(params![b, users[1].token])?;
            friend.execute([a, b])?;
            friend.execute([b, a])?;
        }
    }
    tx.commit()
}
