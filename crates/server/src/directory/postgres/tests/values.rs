//! What others write into the tables, and what is read of it.

use jam_core::friends::{PAGE_BYTES, PART_BYTES};
use secrecy::{ExposeSecret, SecretString};

use super::rows::Statements;
use super::*;
use crate::directory::random_token;

#[tokio::test]
async fn tokens_are_hashed_whoever_writes_them() {
    let made = with_users(database());
    let directory = open_on(&made);
    made.run(
        "UPDATE accounts SET user_api_token = 'tökén' WHERE user_id = 2;
        UPDATE accounts SET user_api_token = '' WHERE user_id = 3;
        INSERT INTO accounts (user_id, user_api_token) VALUES (4, NULL)",
    );
    directory.look().await.unwrap();
    assert!(token_is(&directory, "1", "one").await && token_is(&directory, "2", "tökén").await);
    for user in ["3", "4"] {
        assert!(account(&directory, user).await.unwrap().token.is_none());
    }
    let stored = made.run("SELECT user_api_token FROM accounts WHERE user_id IN (1, 2) ORDER BY 1");
    assert!(!stored.contains("one") && !stored.contains("tökén"));
    // The database makes what this program makes.
    let expected = [tokens::stored(1, "one"), tokens::stored(2, "tökén")];
    let mut found: Vec<_> = stored.lines().collect();
    found.sort_by_key(|it| *it != expected[0]);
    assert_eq!(found, expected);
    // A hash is no password, and is not hashed again.
    assert!(!token_is(&directory, "1", &expected[0]).await);
    made.run(&format!(
        "UPDATE accounts SET user_api_token = '{}' WHERE user_id = 3",
        expected[0]
    ));
    directory.look().await.unwrap();
    assert!(token_is(&directory, "3", "one").await);
    // One that the trigger has not seen is understood.
    made.run(
        "BEGIN; ALTER TABLE accounts DISABLE TRIGGER jam_directory_hash_token;
        UPDATE accounts SET user_api_token = 'clear' WHERE user_id = 3;
        ALTER TABLE accounts ENABLE ALWAYS TRIGGER jam_directory_hash_token; COMMIT",
    );
    directory.look().await.unwrap();
    assert!(token_is(&directory, "3", "clear").await);
}

#[tokio::test]
async fn an_account_that_gets_the_id_of_another_is_another_one() {
    let made = with_users(database());
    let directory = open_on(&made);
    let life = async || {
        directory.look().await.unwrap();
        account(&directory, "1").await.unwrap().life
    };
    let before = life().await;
    made.run("UPDATE accounts SET user_email = 'a', username = 'a', user_password_hash = 'a', user_api_token = 'a' WHERE user_id = 1");
    assert!(before.goes_on_as(&life().await));
    made.run("DELETE FROM accounts WHERE user_id = 1;
        INSERT INTO accounts (user_id, user_email, username, user_password_hash) VALUES (1, 'a', 'a', 'a')");
    assert!(!before.goes_on_as(&life().await));
    // One that comes from an SQLite file is told apart as it was there.
    made.run("UPDATE accounts SET life = NULL");
    let before = life().await;
    made.run("UPDATE accounts SET user_email = 'b', username = 'b', user_password_hash = 'b' WHERE user_id = 1");
    assert!(!before.goes_on_as(&life().await));
}

#[tokio::test]
async fn who_may_write_follows_from_both_flags_and_both_accounts() {
    let made = with_users(database());
    let directory = open_on(&made);
    for (flags, allowed) in [
        ("false, false", true),
        ("true, false", false),
        ("false, true", false),
        ("NULL, false", false),
        ("false, NULL", false),
    ] {
        made.run(&format!(
            "UPDATE user_friends SET (blocked, been_blocked) = ROW({flags}) WHERE user_id = 2"
        ));
        directory.look().await.unwrap();
        assert_eq!(are_friends(&directory, "1", "2").await, allowed, "{flags}");
        assert!(are_friends(&directory, "2", "1").await);
    }
    for nobody in ["01", "x", "9", "9223372036854775808"] {
        assert!(!are_friends(&directory, nobody, "1").await);
        assert!(!are_friends(&directory, "1", nobody).await);
        assert!(account(&directory, nobody).await.is_none());
    }
}

#[tokio::test]
async fn pushes_go_where_the_database_says() {
    let made = with_users(database());
    let directory = open_on(&made);
    let (one, two, three) = (id("1"), id("2"), id("3"));
    let push = async || {
        directory.look().await.unwrap();
        let known = ask(&directory, |it| it.notification_token(&two))
            .await
            .unwrap();
        let address = directory.push_address(&one, &two).await.unwrap();
        let token = address.unwrap().token;
        (known, token.map(|token| token.expose_secret().to_owned()))
    };
    let absent = (NotificationToken::Absent, None);
    assert_eq!(push().await, absent);
    made.run("UPDATE accounts SET user_notification_token = ''");
    assert_eq!(push().await, absent);
    made.run("UPDATE accounts SET user_notification_token = 'phone'");
    let phone = (NotificationToken::Present, Some("phone".to_owned()));
    assert_eq!(push().await, phone);
    assert!(
        directory
            .push_address(&one, &three)
            .await
            .unwrap()
            .is_none()
    );
    let clear = async |token: &str| {
        let token = SecretString::from(token);
        directory
            .clear_notification_token(&two, &token)
            .await
            .unwrap()
    };
    assert!(!clear("another").await);
    assert_eq!(push().await, phone);
    assert!(clear("phone").await && !clear("phone").await);
    assert_eq!(push().await, absent);
    assert_eq!(
        made.run("SELECT count(*) FROM accounts WHERE user_notification_token = 'phone'"),
        "2"
    );
}

async fn all(directory: &PostgresDirectory, user: &str, who: Who) -> Vec<String> {
    let mut list = directory.friends(&id(user), who);
    let mut all = Vec::new();
    while let Some(some) = list.next().await.unwrap() {
        assert!(some.len() <= rows::AT_ONCE);
        all.extend(some.into_iter().map(|it| it.as_str().to_owned()));
    }
    all
}

#[tokio::test]
async fn friends_are_those_of_both_sides_whom_a_block_does_not_hide() {
    let made = with_users(database());
    let directory = open_on(&made);
    // 3 has blocked 1; 4 is a friend on one side only; 5 to 304 are many.
    made.run("INSERT INTO user_friends (user_id, friend_id, blocked) VALUES (1, 3, false), (3, 1, true), (1, 4, false);
        INSERT INTO accounts (user_id, username, public_key) SELECT i, 'n' || i, 'k' FROM generate_series(5, 304) i;
        INSERT INTO user_friends (user_id, friend_id) SELECT 1, i FROM generate_series(5, 304) i;
        INSERT INTO user_friends (user_id, friend_id) SELECT i, 1 FROM generate_series(5, 304) i;");
    let many: Vec<_> = (5..=304).map(|id| id.to_string()).collect();
    let with = |some: &[&str]| -> Vec<String> {
        let some = some.iter().map(|it| (*it).to_owned());
        some.chain(many.iter().cloned()).collect()
    };
    assert_eq!(all(&directory, "1", Who::SeesUser).await, with(&["2", "3"]));
    assert_eq!(all(&directory, "1", Who::IsSeen).await, with(&["2"]));
    assert_eq!(all(&directory, "3", Who::SeesUser).await, [""; 0]);
    assert_eq!(all(&directory, "3", Who::IsSeen).await, ["1"]);
    assert_eq!(all(&directory, "x", Who::IsSeen).await, [""; 0]);
}

/// The list of a user, friend by friend.
async fn shown(directory: &PostgresDirectory, user: &str) -> Vec<String> {
    let list = directory.list_friends(&id(user)).await.unwrap();
    let text = |json: &[u8]| String::from_utf8(json.to_vec()).unwrap();
    list.friends().map(text).collect()
}

#[tokio::test]
async fn a_user_is_shown_nothing_of_what_the_other_side_has_done() {
    let made = with_users(database());
    let directory = open_on(&made);
    let friend = |name: &str, blocked: bool, key: &str| {
        [format!(
            r#"{{"user":"2","name":{name},"blocked":{blocked},"publicKey":{key}}}"#
        )]
    };
    for (sql, expected) in [
        ("SELECT 1", friend("null", false, "null")),
        (
            "UPDATE user_friends SET blocked = true WHERE user_id = 2",
            friend("null", false, "null"),
        ),
        (
            "UPDATE user_friends SET been_blocked = true WHERE user_id = 1",
            friend("null", false, "null"),
        ),
        (
            "UPDATE user_friends SET blocked = NULL WHERE user_id = 1",
            friend("null", true, "null"),
        ),
        (
            "UPDATE accounts SET username = 'ben' WHERE user_id = 2",
            friend("\"ben\"", true, "null"),
        ),
        (
            "UPDATE accounts SET public_key = 'key' WHERE user_id = 2",
            friend("\"ben\"", true, "\"key\""),
        ),
    ] {
        made.run(sql);
        assert_eq!(shown(&directory, "1").await, expected, "{sql}");
    }
    made.run("UPDATE accounts SET username = repeat('x', 70000) WHERE user_id = 2");
    let list = directory.list_friends(&id("1")).await.unwrap();
    assert!(list.is_cut() && list.is_empty());
    made.run("DELETE FROM user_friends WHERE user_id = 2");
    assert_eq!(shown(&directory, "1").await, [""; 0]);
}

#[tokio::test]
async fn a_long_list_is_shown_whole() {
    let made = with_users(database());
    let directory = open_on(&made);
    made.run(
        "INSERT INTO accounts (user_id) SELECT i FROM generate_series(5, 304) i;
        INSERT INTO user_friends (user_id, friend_id) SELECT 1, i FROM generate_series(5, 304) i;
        INSERT INTO user_friends (user_id, friend_id) SELECT i, 1 FROM generate_series(5, 304) i;",
    );
    assert_eq!(shown(&directory, "1").await.len(), 301);
}

#[tokio::test]
async fn large_names_and_keys_are_read_a_few_at_a_time() {
    let made = with_users(database());
    made.run(
        "INSERT INTO accounts (user_id, public_key) SELECT i, repeat('k', 60000) FROM generate_series(11, 90) i;
        INSERT INTO user_friends (user_id, friend_id) SELECT 1, i FROM generate_series(11, 90) i;
        INSERT INTO user_friends (user_id, friend_id) SELECT i, 1 FROM generate_series(11, 90) i;",
    );
    let directory = open_on(&made);
    let friends = shown(&directory, "1").await;
    assert_eq!(friends.iter().filter(|it| it.len() > 60_000).count(), 80);
    let statements = Statements::prepare(open(&made.address(), "jam-test").await.unwrap());
    let first = statements.await.unwrap().shown(1, 2).await.unwrap();
    let keys = first
        .friends
        .iter()
        .filter_map(|friend| friend.public_key.as_ref());
    let bytes: usize = keys.map(String::len).sum();
    assert!(
        (PAGE_BYTES..PAGE_BYTES + 2 * PART_BYTES).contains(&bytes),
        "{bytes}"
    );
}

#[tokio::test]
async fn a_user_that_is_added_takes_no_id_that_the_database_will_give() {
    let made = made_in_postgres();
    let accounts = PostgresAdministration::new(&made.address());
    let token = NewToken::chosen(&random_token().unwrap()).unwrap();
    accounts
        .add_user(&id("7"), Some("ann"), &token)
        .await
        .unwrap();
    made.run("INSERT INTO accounts (username) VALUES ('ben')");
    assert_eq!(
        made.run("SELECT user_id FROM accounts WHERE username = 'ben'"),
        "8"
    );
    let taken = accounts
        .add_user(&id("9"), Some("ann"), &token)
        .await
        .unwrap_err();
    assert!(
        matches!(&taken, AdministrationError::Refused(why) if why.contains("taken")),
        "{taken}"
    );
    accounts.add_user(&id("3"), None, &token).await.unwrap();
    made.run("INSERT INTO accounts (username) VALUES ('carla')");
    assert_eq!(
        made.run("SELECT user_id FROM accounts WHERE username = 'carla'"),
        "9"
    );
}

#[tokio::test]
async fn a_database_without_the_tables_is_told_with_what_makes_them() {
    let made = database();
    let said = |made: &TestDatabase| {
        let error = PostgresDirectory::open(&made.address()).unwrap_err();
        error.to_string()
    };
    assert!(
        said(&made).contains("jam-mqtt cluster init"),
        "{}",
        said(&made)
    );
    let error = inspect(&made.address()).await.unwrap_err().to_string();
    assert!(error.contains("jam-mqtt cluster init"), "{error}");
    let made = with_users(made);
    assert_eq!(inspect(&made.address()).await.unwrap().accounts, 3);
    made.run("ALTER TABLE user_friends DISABLE TRIGGER jam_directory_update");
    assert!(said(&made).contains("triggers"));
    made.run("ALTER TABLE user_friends ENABLE TRIGGER jam_directory_update; UPDATE jam_directory SET version = 2");
    assert!(said(&made).contains("version 2"));
}

#[tokio::test]
async fn a_check_refuses_a_server_that_a_power_cut_would_destroy() {
    let server = TestServer::start_with(&[("fsync", "off")]);
    let made = with_users(server.database());
    let error = inspect(&made.address()).await.unwrap_err().to_string();
    assert!(error.contains("set fsync = on"), "{error}");
}

#[tokio::test]
async fn the_schema_is_made_whole_or_not_at_all() {
    let made = database();
    let mut client = open(&made.address(), "jam-test").await.unwrap();
    assert!(!has_schema(&client).await.unwrap());
    let tx = client.transaction().await.unwrap();
    create_schema(&tx).await.unwrap();
    tx.commit().await.unwrap();
    assert!(has_schema(&client).await.unwrap());
    drop(PostgresDirectory::open(&made.address()).unwrap());
    let tx = client.transaction().await.unwrap();
    create_schema(&tx).await.unwrap_err();
}
