//! The accounts of one database in another one: the same to a server, and to those who log in.

use jam_core::directory::{Account, Fact, NotificationToken};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::directory::postgres::tests::made_in_postgres;
use crate::postgres::testing::HasAddress as _;
use crate::settings::{DirectoryFile, DirectorySettings};

/// As other programs leave it: values of any type, tokens in the clear, a friendship that only one side has.
const JAM: &str = "
    CREATE TABLE accounts (user_id INTEGER PRIMARY KEY AUTOINCREMENT, user_email TEXT UNIQUE,
        username TEXT UNIQUE, user_password_hash TEXT, user_notification_token TEXT,
        user_api_token, inactive BOOLEAN DEFAULT TRUE, public_key TEXT);
    CREATE TABLE user_friends (user_id INTEGER, friend_id INTEGER, blocked, been_blocked, PRIMARY KEY (user_id, friend_id));
    CREATE TABLE user_devices (user_id INTEGER PRIMARY KEY, device_id TEXT);
    INSERT INTO accounts VALUES (1, 'a@b', 'änn', 'hash', 'phone', 'one', 0, 'key'),
        (2, NULL, 'ben', NULL, '', 22, NULL, NULL), (3, 'c@b', NULL, NULL, NULL, NULL, 1, NULL), (9, NULL, NULL, NULL, NULL, '', 1, NULL);
    DELETE FROM accounts WHERE user_id = 9;
    INSERT INTO user_friends VALUES (1, 2, 0, 'false'), (2, 1, 0, 0), (1, 3, 'true', 0), (3, 1, NULL, 1), (2, 3, '0', x'00');
    INSERT INTO user_devices VALUES (1, 'phone'), (2, NULL);";

fn file(dir: &TempDir, name: &str) -> DirectorySettings {
    DirectorySettings::Sqlite(DirectoryFile {
        path: dir.path().join(name),
        named: true,
        map_shm: true,
    })
}

fn path(settings: &DirectorySettings) -> &std::path::Path {
    &settings.file().unwrap().path
}

fn jam(dir: &TempDir) -> DirectorySettings {
    let jam = file(dir, "jam.db");
    let connection = Connection::open(path(&jam)).unwrap();
    connection.execute_batch(JAM).unwrap();
    jam
}

fn in_postgres() -> (crate::postgres::testing::TestDatabase, DirectorySettings) {
    let made = made_in_postgres();
    let settings = DirectorySettings::Postgres(Box::new(made.address()));
    (made, settings)
}

async fn account(directory: &dyn AccountsDatabase, id: &str) -> Option<Account> {
    let answer = directory.answer(Question::Account(user(id))).await.unwrap();
    match answer.fact {
        Fact::Account(account) => account,
        other => panic!("{other:?}"),
    }
}

/// What a server is told of it.
async fn facts(directory: &dyn AccountsDatabase) -> Vec<String> {
    let mut facts = Vec::new();
    let ids = ["1", "2", "3", "9"];
    for id in ids {
        let account = account(directory, id).await;
        let token = account.and_then(|it| it.token);
        let tokens = ["one", "22", "", "three"];
        let lets_in = tokens.map(|sent| token.as_ref().is_some_and(|it| it.is(sent.as_bytes())));
        facts.push(format!("{id} {:?} {lets_in:?}", token.map(|it| it.mark())));
        let push = Question::NotificationToken(user(id));
        let Fact::NotificationToken(push) = directory.answer(push).await.unwrap().fact else {
            panic!("another fact");
        };
        facts.push(format!("{}", push == NotificationToken::Present));
        let list = directory.list_friends(&user(id)).await.unwrap();
        facts.extend(
            list.friends()
                .map(|it| String::from_utf8(it.to_vec()).unwrap()),
        );
        for other in ids {
            let question = Question::Friendship {
                sender: user(id),
                receiver: user(other),
            };
            let Fact::Friendship(may) = directory.answer(question).await.unwrap().fact else {
                panic!("another fact");
            };
            let may = may != jam_core::directory::Friendship::NotFriends;
            facts.push(format!("{id} to {other}: {may}"));
        }
    }
    facts
}

#[tokio::test]
async fn a_copy_is_the_same_to_a_server_both_ways() {
    let dir = TempDir::new().unwrap();
    let (from, (_, between), to) = (jam(&dir), in_postgres(), file(&dir, "back.db"));
    let expected = HeldAccounts {
        accounts: 3,
        friends: 5,
        devices: 2,
    };
    assert_eq!(copy(&from, &between).await, Ok(expected));
    assert_eq!(copy(&between, &to).await, Ok(expected));
    let all = [&from, &between, &to].map(|settings| open(settings).unwrap());
    let before = facts(&*all[0]).await;
    for copied in &all[1..] {
        assert_eq!(facts(&**copied).await, before);
        for id in ["1", "2", "3"] {
            let [one, other] = [account(&*all[0], id).await, account(&**copied, id).await];
            let [one, other] = [one.unwrap().life, other.unwrap().life];
            assert!(one.goes_on_as(&other) && other.goes_on_as(&one), "{id}");
        }
    }
    // What lies there is a hash.
    let file = Connection::open(path(&to)).unwrap();
    let sql = "SELECT count(*) FROM accounts WHERE typeof(user_api_token) = 'text'";
    assert_eq!(file.query_row(sql, [], |row| row.get::<_, i64>(0)), Ok(0));
}

#[tokio::test]
async fn accounts_made_in_postgresql_are_the_same_in_a_file() {
    let dir = TempDir::new().unwrap();
    let ((made, from), to) = (in_postgres(), file(&dir, "to.db"));
    made.run(
        "INSERT INTO accounts (username, user_api_token) VALUES ('ann', 'one'), (NULL, '22');
        INSERT INTO accounts (user_email, username) VALUES ('c@b', 'carla')",
    );
    copy(&from, &to).await.unwrap();
    let [before, after] = [&from, &to].map(|settings| open(settings).unwrap());
    assert_eq!(facts(&*before).await, facts(&*after).await);
}

#[tokio::test]
async fn no_id_is_given_again() {
    let dir = TempDir::new().unwrap();
    let (from, (made, between), to) = (jam(&dir), in_postgres(), file(&dir, "back.db"));
    copy(&from, &between).await.unwrap();
    copy(&between, &to).await.unwrap();
    let add = "INSERT INTO accounts (username) VALUES ('new') RETURNING user_id";
    assert_eq!(made.run(add), "10");
    let file = Connection::open(path(&to)).unwrap();
    assert_eq!(file.query_row(add, [], |row| row.get::<_, i64>(0)), Ok(10));
}

#[tokio::test]
async fn only_an_empty_database_is_filled_and_all_of_it_or_nothing() {
    let dir = TempDir::new().unwrap();
    let (from, (made, to)) = (jam(&dir), in_postgres());
    let run = async |sql: &'static str| {
        let made = made.clone();
        let ran = tokio::task::spawn_blocking(move || made.run(sql));
        ran.await.unwrap()
    };
    run("INSERT INTO user_friends (user_id, friend_id) VALUES (7, 8)").await;
    let error = copy(&from, &to).await.unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    // What failed lets go of its locks meanwhile.
    run("TRUNCATE user_friends").await;
    let other = TempDir::new().unwrap();
    let error = copy(&from, &jam(&other)).await.unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    // A second account of which PostgreSQL takes the first only.
    let file = Connection::open(path(&from)).unwrap();
    for (sql, said) in [
        (
            "UPDATE accounts SET username = x'ff' WHERE user_id = 3",
            "username",
        ),
        (
            "UPDATE accounts SET username = 'c', user_api_token = x'fe' WHERE user_id = 3",
            "user_api_token",
        ),
        (
            "UPDATE accounts SET user_api_token = 'three'; INSERT INTO user_friends VALUES ('x', '3', 0, 0)",
            "stored as text",
        ),
    ] {
        file.execute_batch(sql).unwrap();
        let error = copy(&from, &to).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        let left = "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM user_friends)";
        assert_eq!(run(left).await, "0", "{said}");
    }
    file.execute_batch("DELETE FROM user_friends WHERE user_id = 'x'")
        .unwrap();
    assert_eq!(copy(&from, &to).await.unwrap().accounts, 3);
}
