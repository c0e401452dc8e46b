//! Lists of users and of friends, a page at a time, each in the transaction of its caller.
//!
//! Invariant: a page is read from an index, from where it begins to where it ends, whatever the number of accounts.

use jam_core::ids::UserId;
use tokio_postgres::{Row, Transaction};

use super::super::numbers::{cut, first_of, one_more, ranges, row_id};
use super::changes::must_exist;
use super::{AdministrationError, Friend, Page, PageRequest, PostgresError, User};

type Read<T> = Result<T, AdministrationError>;

const USERS: &str = "SELECT user_id, username, coalesce(user_api_token, '') <> '', coalesce(user_notification_token, '') <> '',
        (SELECT count(*) FROM user_friends WHERE user_friends.user_id = accounts.user_id)
    FROM accounts WHERE user_id BETWEEN $1 AND $2 ORDER BY user_id LIMIT $3";

const FRIENDS: &str = "SELECT friend_id, username, blocked IS NOT FALSE, been_blocked IS NOT FALSE
    FROM user_friends LEFT JOIN accounts ON accounts.user_id = friend_id
    WHERE user_friends.user_id = $1 AND friend_id BETWEEN $2 AND $3 ORDER BY friend_id LIMIT $4";

/// The users whose ids begin with `prefix`, by number.
pub(super) async fn users(
    tx: &Transaction<'_>,
    prefix: &str,
    page: &PageRequest,
) -> Read<Page<User>> {
    let mut users = Vec::new();
    if let Some(first) = first_of(page)? {
        let statement = tx.prepare(USERS).await.map_err(PostgresError::from)?;
        for range in ranges(prefix) {
            let from = first.max(*range.start());
            let most = i64::from(one_more(page)) - i64::try_from(users.len()).unwrap_or(i64::MAX);
            if most <= 0 {
                break;
            }
            let found = tx.query(&statement, &[&from, range.end(), &most]).await;
            for row in found.map_err(PostgresError::from)? {
                users.push(user_of(&row)?);
            }
        }
    }
    Ok(cut(users, page, |user| &user.id))
}

/// One user.
pub(super) async fn user(tx: &Transaction<'_>, user: &UserId) -> Read<User> {
    let id = must_exist(tx, user).await?;
    let row = tx.query_opt(USERS, &[&id, &id, &1_i64]).await;
    let row = row.map_err(PostgresError::from)?;
    let row = row.ok_or_else(|| AdministrationError::NoUser(user.clone()))?;
    Ok(user_of(&row)?)
}

/// The friends of a user by number.
pub(super) async fn friends(
    tx: &Transaction<'_>,
    user: &UserId,
    page: &PageRequest,
) -> Read<Page<Friend>> {
    let id = must_exist(tx, user).await?;
    let mut friends = Vec::new();
    if let Some(first) = first_of(page)? {
        let most = i64::from(one_more(page));
        let found = tx.query(FRIENDS, &[&id, &first, &i64::MAX, &most]).await;
        for row in found.map_err(PostgresError::from)? {
            friends.push(friend_of(&row)?);
        }
    }
    Ok(cut(friends, page, |friend| &friend.id))
}

/// One friend of a user, if they are friends.
pub(super) async fn friend(
    tx: &Transaction<'_>,
    user: &UserId,
    friend: &UserId,
) -> Read<Option<Friend>> {
    let id = must_exist(tx, user).await?;
    let Some(friend) = row_id(friend.as_str()) else {
        return Ok(None);
    };
    let found = tx
        .query_opt(FRIENDS, &[&id, &friend, &friend, &1_i64])
        .await;
    let found = found.map_err(PostgresError::from)?;
    Ok(found.as_ref().map(friend_of).transpose()?)
}

fn user_of(row: &Row) -> Result<User, PostgresError> {
    let (id, friends): (i64, i64) = (row.try_get(0)?, row.try_get(4)?);
    Ok(User {
        id: id.to_string(),
        name: row.try_get(1)?,
        token: row.try_get(2)?,
        push: row.try_get(3)?,
        friends: u32::try_from(friends).unwrap_or(u32::MAX),
    })
}

fn friend_of(row: &Row) -> Result<Friend, PostgresError> {
    let id: i64 = row.try_get(0)?;
    Ok(Friend {
        id: id.to_string(),
        name: row.try_get(1)?,
        blocked: row.try_get(2)?,
        been_blocked: row.try_get(3)?,
    })
}
