//! Statements that a running server reads with, prepared on one connection, and what their rows mean.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use jam_core::directory::{Account, Fact, Friendship, Life, NotificationToken};
use jam_core::friends::{PAGE_BYTES, PART_BYTES};
use jam_core::ids::UserId;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::super::cache::Key;
use super::super::lives::{life_of, mark};
use super::{PushAddress, Who, tokens};
use crate::postgres::PostgresError;

/// Friends that are read before others get their turn.
pub(super) const AT_ONCE: usize = 128;

/// The columns that tell an account's life come first.
const ACCOUNT: &str =
    "SELECT life::text, user_email, username, user_password_hash, user_id, user_api_token
    FROM accounts WHERE user_id = $1";

const ACCOUNTS: &str =
    "SELECT life::text, user_email, username, user_password_hash, user_id, user_api_token
    FROM accounts WHERE user_id = ANY ($1)";

/// The receiver as $1, the sender as $2. Both have to have an account. A flag that is NULL is on.
const FRIENDSHIP: &str =
    "SELECT life::text, user_email, username, user_password_hash, user_notification_token
    FROM user_friends JOIN accounts USING (user_id)
    WHERE user_id = $1 AND friend_id = $2 AND NOT blocked AND NOT been_blocked
        AND EXISTS (SELECT 1 FROM accounts WHERE user_id = $2)";

const NOTIFICATION_TOKEN: &str =
    "SELECT 1 FROM accounts WHERE user_id = $1 AND user_notification_token <> ''";

const CLEAR_NOTIFICATION_TOKEN: &str = "UPDATE accounts SET user_notification_token = NULL
    WHERE user_id = $1 AND user_notification_token = $2";

/// Friends after $2, whom the user $1 has not blocked.
const SEES_USER: &str = "SELECT friend_id FROM user_friends AS own
    WHERE user_id = $1 AND friend_id > $2 AND NOT blocked
        AND EXISTS (SELECT 1 FROM user_friends WHERE user_id = own.friend_id AND friend_id = $1)
    ORDER BY friend_id LIMIT $3";

/// Friends after $2, who have not blocked the user $1.
const IS_SEEN: &str = "SELECT own.friend_id FROM user_friends AS own
    JOIN user_friends AS other ON other.user_id = own.friend_id AND other.friend_id = own.user_id
    WHERE own.user_id = $1 AND own.friend_id > $2 AND NOT other.blocked
    ORDER BY own.friend_id LIMIT $3";

/// Friends after $2 as the user $1 is shown them: what the other side has done is not read. What is too long to be shown is
/// cut where that can still be seen ($4).
const SHOWN: &str =
    "SELECT friend_id, left(username, $4), blocked IS NOT FALSE, left(public_key, $4)
    FROM user_friends AS own JOIN accounts ON accounts.user_id = own.friend_id
    WHERE own.user_id = $1 AND friend_id > $2
        AND EXISTS (SELECT 1 FROM user_friends WHERE user_id = own.friend_id AND friend_id = $1)
    ORDER BY friend_id LIMIT $3";

/// A connection with its statements.
pub(super) struct Statements {
    client: Client,
    account: Statement,
    accounts: Statement,
    friendship: Statement,
    notification_token: Statement,
    clear_notification_token: Statement,
    sees_user: Statement,
    is_seen: Statement,
    shown: Statement,
}

/// Some of a user's friends, and where to go on, if there are more.
#[derive(Debug)]
pub(super) struct FriendsRead {
    pub(super) friends: Vec<UserId>,
    pub(super) next: Option<i64>,
}

/// The same, as they are shown.
#[derive(Debug)]
pub(super) struct ListRead {
    pub(super) friends: Vec<FriendShown>,
    pub(super) next: Option<i64>,
}

#[derive(Debug)]
pub(super) struct FriendShown {
    pub(super) id: i64,
    pub(super) name: Option<String>,
    pub(super) blocked: bool,
    pub(super) public_key: Option<String>,
}

type Parameter<'a> = &'a (dyn ToSql + Sync);

impl Statements {
    pub(super) async fn prepare(client: Client) -> Result<Self, PostgresError> {
        let all = [
            ACCOUNT,
            ACCOUNTS,
            FRIENDSHIP,
            NOTIFICATION_TOKEN,
            CLEAR_NOTIFICATION_TOKEN,
            SEES_USER,
            IS_SEEN,
            SHOWN,
        ];
        let prepared = try_join_all(all.iter().map(|sql| client.prepare(sql))).await?;
        let prepared = <[Statement; 8]>::try_from(prepared).expect("as many as there were");
        let [
            account,
            accounts,
            friendship,
            notification_token,
            clear_notification_token,
            sees_user,
            is_seen,
            shown,
        ] = prepared;
        Ok(Self {
            client,
            account,
            accounts,
            friendship,
            notification_token,
            clear_notification_token,
            sees_user,
            is_seen,
            shown,
        })
    }

    /// Reads what is asked.
    pub(super) async fn fact(&self, key: Key) -> Result<Fact, PostgresError> {
        Ok(match key {
            Key::Account(id) => {
                let row = self.client.query_opt(&self.account, &[&id]).await?;
                Fact::Account(row.map(|row| account_of(&row)).transpose()?)
            }
            Key::Friendship { sender, receiver } => {
                Fact::Friendship(match self.friendship(sender, receiver).await? {
                    Some(row) => Friendship::Friends(life(&row)?),
                    None => Friendship::NotFriends,
                })
            }
            Key::NotificationToken(id) => {
                let sql = &self.notification_token;
                Fact::NotificationToken(match self.client.query_opt(sql, &[&id]).await? {
                    Some(_) => NotificationToken::Present,
                    None => NotificationToken::Absent,
                })
            }
        })
    }

    async fn friendship(&self, sender: i64, receiver: i64) -> Result<Option<Row>, PostgresError> {
        let parameters: [Parameter<'_>; 2] = [&receiver, &sender];
        Ok(self.client.query_opt(&self.friendship, &parameters).await?)
    }

    /// The accounts of those of `ids` that have one, with their ids.
    pub(super) async fn accounts(&self, ids: &[i64]) -> Result<Vec<(i64, Account)>, PostgresError> {
        let rows = self.client.query(&self.accounts, &[&ids]).await?;
        let found = rows
            .iter()
            .map(|row| Ok((row.try_get(4)?, account_of(row)?)));
        found.collect()
    }

    /// Where a push from `sender` to `receiver` goes. `None`: `sender` may not write to `receiver`.
    pub(super) async fn push_address(
        &self,
        sender: i64,
        receiver: i64,
    ) -> Result<Option<PushAddress>, PostgresError> {
        let Some(row) = self.friendship(sender, receiver).await? else {
            return Ok(None);
        };
        let token: Option<String> = row.try_get(4)?;
        let token = token.filter(|token| !token.is_empty());
        let token = token.map(SecretString::from);
        Ok(Some(PushAddress { token }))
    }

    /// Whether it was this one that the user had.
    pub(super) async fn clear_notification_token(
        &self,
        id: i64,
        token: &SecretString,
    ) -> Result<bool, PostgresError> {
        let parameters: [Parameter<'_>; 2] = [&id, &token.expose_secret()];
        let sql = &self.clear_notification_token;
        Ok(self.client.execute(sql, &parameters).await? > 0)
    }

    /// Friends of `user` after `after`.
    pub(super) async fn friends(
        &self,
        user: i64,
        who: Who,
        after: i64,
    ) -> Result<FriendsRead, PostgresError> {
        let statement = match who {
            Who::SeesUser => &self.sees_user,
            Who::IsSeen => &self.is_seen,
        };
        let most = i64::try_from(AT_ONCE).expect("it fits");
        let parameters: [Parameter<'_>; 3] = [&user, &after, &most];
        let rows = self.client.query(statement, &parameters).await?;
        let ids = rows.iter().map(|row| row.try_get(0));
        let ids = ids.collect::<Result<Vec<i64>, _>>()?;
        let next = ids.last().copied().filter(|_| ids.len() >= AT_ONCE);
        let users = ids.iter().map(|id| UserId::parse(id.to_string()));
        let friends = users.filter_map(Result::ok).collect();
        Ok(FriendsRead { friends, next })
    }

    /// The same, as they are shown to `user`.
    pub(super) async fn shown(&self, user: i64, after: i64) -> Result<ListRead, PostgresError> {
        let most = i64::try_from(AT_ONCE).expect("it fits");
        let longest = i32::try_from(PART_BYTES + 1).expect("it fits");
        let parameters: [Parameter<'_>; 4] = [&user, &after, &most, &longest];
        // Row by row: a page of them may be many megabytes.
        let rows = self.client.query_raw(&self.shown, parameters).await?;
        let mut rows = pin!(rows);
        let (mut friends, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = rows.try_next().await?
        {
            let friend = FriendShown {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                blocked: row.try_get(2)?,
                public_key: row.try_get(3)?,
            };
            let texts = [&friend.name, &friend.public_key];
            bytes += texts.into_iter().flatten().map(String::len).sum::<usize>();
            friends.push(friend);
        }
        let next = friends.last().map(|friend| friend.id);
        let next = next.filter(|_| bytes >= PAGE_BYTES || friends.len() >= AT_ONCE);
        Ok(ListRead { friends, next })
    }
}

fn account_of(row: &Row) -> Result<Account, PostgresError> {
    let token: Option<&str> = row.try_get(5)?;
    Ok(Account {
        token: tokens::read(row.try_get(4)?, token),
        life: life(row)?,
    })
}

/// What is in the column of that name tells accounts apart by itself. Those that were copied from an SQLite database have
/// nothing there, and are told apart as they were in it.
fn life(row: &Row) -> Result<Life, PostgresError> {
    if let Some(life) = row.try_get::<_, Option<&str>>(0)? {
        return Ok(Life {
            email: Some(mark(&[b"life", life.as_bytes()])),
            made_up: true,
            ..Life::default()
        });
    }
    let text = |column| -> Result<Option<&[u8]>, PostgresError> {
        let text: Option<&str> = row.try_get(column)?;
        Ok(text.filter(|text| !text.is_empty()).map(str::as_bytes))
    };
    Ok(life_of(text(1)?, text(2)?, text(3)?))
}
