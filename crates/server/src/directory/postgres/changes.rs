//! Changes to accounts and friendships, each in the transaction of its caller.
//!
//! A friendship is two rows; `blocked` on (a, b) goes with `been_blocked` on (b, a) (PROTOCOL.md, section 6). Who changes the
//! friendships of two users has their accounts locked, in the order of their ids: changes of the same two come one after the other,
//! and an account that is removed leaves none behind.

use jam_core::ids::UserId;
use tokio_postgres::Transaction;

use super::super::numbers::{must_differ, row_id};
use super::{AdministrationError, FailureKind, NewToken, PostgresError, tokens};

type Changed<T> = Result<T, AdministrationError>;

/// Adds an account.
pub(super) async fn add(
    tx: &Transaction<'_>,
    user: &UserId,
    id: i64,
    name: Option<&str>,
    token: &NewToken,
) -> Changed<()> {
    let sql = "INSERT INTO accounts (user_id, username, user_api_token) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO NOTHING";
    let stored = tokens::stored(id, token.expose());
    let added = tx.execute(sql, &[&id, &name, &stored]).await;
    let added = added.map_err(|error| {
        let error = PostgresError::from(error);
        match name {
            Some(name) if error.kind() == FailureKind::Constraint => {
                AdministrationError::Refused(format!(
                    "user {id} cannot be added: the name {name:?} may be taken; choose another ({error})"
                ))
            }
            _ => error.into(),
        }
    })?;
    if added == 0 {
        return Err(AdministrationError::UserExists(user.clone()));
    }
    // Ids that the database gives by itself go on after this one.
    let sql = "SELECT setval(ids, $1)
        FROM (SELECT pg_get_serial_sequence('accounts', 'user_id')::regclass AS ids) AS sequence
        WHERE $1 > coalesce(pg_sequence_last_value(ids), 0)";
    tx.execute(sql, &[&id]).await.map_err(PostgresError::from)?;
    Ok(())
}

/// Whether it is another token than before.
pub(super) async fn set_token(
    tx: &Transaction<'_>,
    user: &UserId,
    token: &NewToken,
) -> Changed<bool> {
    let id = must_exist(tx, user).await?;
    let sql = "UPDATE accounts SET user_api_token = $2
        WHERE user_id = $1 AND user_api_token IS DISTINCT FROM $2";
    let stored = tokens::stored(id, token.expose());
    execute(tx, sql, &[&id, &stored]).await
}

/// Removes an account, its friendships and its device, if there is such an account. Whether there was.
pub(super) async fn remove(tx: &Transaction<'_>, user: &UserId) -> Changed<bool> {
    let Some(id) = row_id(user.as_str()) else {
        return Ok(false);
    };
    // First: who is about to make a friend of them has locked it, or finds it gone.
    if !execute(tx, "DELETE FROM accounts WHERE user_id = $1", &[&id]).await? {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM user_friends WHERE user_id = $1 OR friend_id = $1",
        "DELETE FROM user_devices WHERE user_id = $1",
    ] {
        execute(tx, sql, &[&id]).await?;
    }
    Ok(true)
}

/// Whether they were no friends, or only by half.
pub(super) async fn befriend(tx: &Transaction<'_>, a: &UserId, b: &UserId) -> Changed<bool> {
    let (a, b) = lock_two(tx, a, b).await?;
    // Where there is half of it, what that says is said from the other side.
    let sql = "INSERT INTO user_friends (user_id, friend_id, blocked, been_blocked)
        SELECT wanted.a, wanted.b, other.user_id IS NOT NULL AND other.been_blocked IS NOT FALSE,
            other.user_id IS NOT NULL AND other.blocked IS NOT FALSE
        FROM (VALUES ($1::bigint, $2::bigint), ($2, $1)) AS wanted (a, b)
        LEFT JOIN user_friends AS other ON other.user_id = wanted.b AND other.friend_id = wanted.a
        ON CONFLICT (user_id, friend_id) DO NOTHING";
    execute(tx, sql, &[&a, &b]).await
}

/// Whether there was a friendship, or half of one.
pub(super) async fn unfriend(tx: &Transaction<'_>, a: &UserId, b: &UserId) -> Changed<bool> {
    must_differ(a, b)?;
    let (Some(a), Some(b)) = (row_id(a.as_str()), row_id(b.as_str())) else {
        return Ok(false);
    };
    let sql = "DELETE FROM user_friends WHERE (user_id, friend_id) IN (($1, $2), ($2, $1))";
    execute(tx, sql, &[&a, &b]).await
}

/// Whether it was otherwise before.
pub(super) async fn set_blocked(
    tx: &Transaction<'_>,
    user: &UserId,
    friend: &UserId,
    blocked: bool,
) -> Changed<bool> {
    let (a, b) = lock_two(tx, user, friend).await?;
    let sql = "SELECT EXISTS (SELECT 1 FROM user_friends WHERE (user_id, friend_id) IN (($1, $2), ($2, $1)))";
    let row = tx.query_one(sql, &[&a, &b]).await;
    if !row.map_err(PostgresError::from)?.get::<_, bool>(0) {
        let (a, b) = (user.clone(), friend.clone());
        return Err(AdministrationError::NotFriends(a, b));
    }
    let mut has_changed = false;
    for (sql, user, friend) in [
        (
            "UPDATE user_friends SET blocked = $3
             WHERE user_id = $1 AND friend_id = $2 AND blocked IS DISTINCT FROM $3",
            a,
            b,
        ),
        (
            "UPDATE user_friends SET been_blocked = $3
             WHERE user_id = $1 AND friend_id = $2 AND been_blocked IS DISTINCT FROM $3",
            b,
            a,
        ),
    ] {
        has_changed |= execute(tx, sql, &[&user, &friend, &blocked]).await?;
    }
    Ok(has_changed)
}

/// Whether it changed anything.
async fn execute(
    tx: &Transaction<'_>,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Changed<bool> {
    let changed = tx.execute(sql, parameters).await;
    Ok(changed.map_err(PostgresError::from)? > 0)
}

pub(super) async fn must_exist(tx: &Transaction<'_>, user: &UserId) -> Changed<i64> {
    let no_user = || AdministrationError::NoUser(user.clone());
    let id = row_id(user.as_str()).ok_or_else(no_user)?;
    let sql = "SELECT 1 FROM accounts WHERE user_id = $1";
    let found = tx.query_opt(sql, &[&id]).await;
    found.map_err(PostgresError::from)?.ok_or_else(no_user)?;
    Ok(id)
}

async fn lock_two(tx: &Transaction<'_>, a: &UserId, b: &UserId) -> Changed<(i64, i64)> {
    must_differ(a, b)?;
    let ids = (row_id(a.as_str()), row_id(b.as_str()));
    if let (Some(a_id), Some(b_id)) = ids {
        let sql =
            "SELECT 1 FROM accounts WHERE user_id IN ($1, $2) ORDER BY user_id FOR NO KEY UPDATE";
        let locked = tx.query(sql, &[&a_id, &b_id]).await;
        if locked.map_err(PostgresError::from)?.len() == 2 {
            return Ok((a_id, b_id));
        }
    }
    Ok((must_exist(tx, a).await?, must_exist(tx, b).await?))
}
