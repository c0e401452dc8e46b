//! Real servers, and other programs that write to them.

mod notified;
mod trouble;
mod values;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jam_core::directory::{
    Account, Answers, Directory, Fact, Friendship, Generation, Known, Lookup, NotificationToken,
    Question,
};
use jam_core::ids::UserId;

use super::shared::{LEASE, SILENCE};
use super::*;
use crate::postgres::testing::{HasAddress as _, TestDatabase, TestServer, database};

/// Users 1, 2 and 3: 1 and 2 are friends.
const USERS: &str = "
    INSERT INTO accounts (user_id, user_api_token) VALUES (1, 'one'), (2, 'two'), (3, 'three');
    INSERT INTO user_friends (user_id, friend_id) VALUES (1, 2), (2, 1);";

/// What a machine with other things to do adds.
const SLACK: Duration = Duration::from_secs(3);

/// A database with the tables, and nothing in them.
pub(crate) fn made_in_postgres() -> TestDatabase {
    let made = database();
    made.run(schema::SCHEMA);
    made
}

fn with_users(made: TestDatabase) -> TestDatabase {
    made.run(schema::SCHEMA);
    made.run(USERS);
    made
}

fn open_on(made: &TestDatabase) -> PostgresDirectory {
    PostgresDirectory::open(&made.address()).unwrap()
}

fn id(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// Asks as a connection does: looks up, and asks once for what memory does not know.
async fn ask<T>(
    directory: &PostgresDirectory,
    look_up: impl Fn(Known<'_>) -> Result<(T, Generation), Question>,
) -> Result<T, DirectoryError> {
    let known = |answers| Known { directory, answers };
    let question = match look_up(known(Answers::NONE)) {
        Ok((fact, _)) => return Ok(fact),
        Err(question) => question,
    };
    let answers = Answers::of(directory.answer(question).await?);
    match look_up(Known {
        directory,
        answers: &answers,
    }) {
        Ok((fact, _)) => Ok(fact),
        Err(question) => panic!("{question:?} is not answered"),
    }
}

async fn are_friends(directory: &PostgresDirectory, sender: &str, receiver: &str) -> bool {
    let (sender, receiver) = (id(sender), id(receiver));
    let friendship = ask(directory, |it| it.friendship(&sender, &receiver)).await;
    friendship.unwrap() != Friendship::NotFriends
}

async fn account(directory: &PostgresDirectory, user: &str) -> Option<Account> {
    let user = id(user);
    ask(directory, |it| it.account(&user)).await.unwrap()
}

async fn token_is(directory: &PostgresDirectory, user: &str, token: &str) -> bool {
    let account = account(directory, user).await;
    let known = account.and_then(|account| account.token);
    known.is_some_and(|known| known.is(token.as_bytes()))
}

/// Whether memory knows it, and is believed.
fn knows_friendship(directory: &PostgresDirectory, sender: &str, receiver: &str) -> bool {
    directory.friendship(&id(sender), &id(receiver)) != Lookup::Unknown
}

/// Waits until it is so, and gives back how long that took.
async fn until(patience: Duration, what: &str, is_so: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Nobody who asks a second after a change is told what was before it.
async fn in_force_within_a_second(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        if is_so().await {
            return assert!(began.elapsed() < LEASE + SLACK, "{what}");
        }
        assert!(asked < LEASE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Until a client of the database would be answered.
async fn until_it_answers(directory: &PostgresDirectory, patience: Duration) -> Duration {
    until(patience, "it answers", async || {
        directory.look().await.is_ok()
    })
    .await
}
