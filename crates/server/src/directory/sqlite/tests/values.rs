//! What others write into the rows, and what is missing.

use super::*;

#[tokio::test]
async fn hostile_ids_are_nobody() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    for hostile in [
        "01",
        "1.0",
        "1e0",
        " 1",
        "1 ",
        "-0",
        "00",
        "0x1",
        "1_",
        "9223372036854775808",
        "１",
        "-9223372036854775809",
        "1\n",
        "one",
        "NULL",
        "1;",
    ] {
        assert!(account(&directory, hostile).await.is_none(), "{hostile:?}");
        assert!(!friends(&directory, hostile, "2").await, "{hostile:?}");
        assert!(!friends(&directory, "2", hostile).await, "{hostile:?}");
        assert_eq!(
            push(&directory, hostile).await,
            NotificationToken::Absent,
            "{hostile:?}"
        );
    }
}

#[tokio::test]
async fn flags_as_others_write_them() {
    for (flags, allowed) in [
        ("0, 0", true),
        ("0.0, '0'", true),
        ("FALSE, 'false'", true),
        ("'False', 0", true),
        ("1, 0", false),
        ("0, 1", false),
        ("0, 2.5", false),
        ("'true', 0", false),
        ("0, 'yes'", false),
        ("NULL, 0", false),
        ("0, NULL", false),
        ("0, x'00'", false),
        ("'', 0", false),
    ] {
        let jam = Jam::new("delete");
        jam.run(&format!("REPLACE INTO user_friends VALUES (2, 1, {flags})"));
        assert_eq!(friends(&jam.open(), "1", "2").await, allowed, "{flags}");
    }
}

#[tokio::test]
async fn ids_in_columns_without_a_type() {
    let sql = "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT);
        INSERT INTO accounts VALUES (1, 'one'), (2, 'two'), (3, 'three');
        CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);
        INSERT INTO user_friends VALUES ('2', '1', 0, 0), (3, 1, 0, 0), ('3', '1', 1, 0);";
    let jam = Jam::with("delete", sql);
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    assert!(
        !friends(&directory, "1", "3").await,
        "one row that forbids is enough"
    );
}

#[tokio::test]
async fn tokens_as_others_write_them() {
    let sql = "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token);
        CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);
        INSERT INTO accounts VALUES (1, 42), (2, x'0aff'), (3, NULL), (4, ''), (5, 1.5), (6, x'');";
    let jam = Jam::with("delete", sql);
    let directory = jam.open();
    assert!(token_is(&directory, "1", "42").await);
    let blob = account(&directory, "2").await.unwrap().token.unwrap();
    assert!(blob.is(&[0x0a, 0xff]));
    for nobody in ["3", "4", "5", "6"] {
        assert!(
            account(&directory, nobody).await.unwrap().token.is_none(),
            "{nobody}"
        );
    }
    let users = ["1", "3", "01", "9"].map(id);
    let accounts = directory.accounts(&users).await.unwrap();
    let has_token = |answer: &Answer| match &answer.fact {
        Fact::Account(account) => account.as_ref().map(|it| it.token.is_some()),
        other => panic!("{other:?}"),
    };
    let tokens: Vec<_> = accounts.iter().map(has_token).collect();
    assert_eq!(tokens, [Some(true), Some(false), None, None]);
}

#[tokio::test]
async fn notification_tokens() {
    let jam = Jam::new("delete");
    jam.run("UPDATE accounts SET user_notification_token = 'n' WHERE user_id = 1");
    jam.run("UPDATE accounts SET user_notification_token = '' WHERE user_id = 2");
    let directory = jam.open();
    assert_eq!(push(&directory, "1").await, NotificationToken::Present);
    for without in ["2", "3", "4"] {
        assert_eq!(push(&directory, without).await, NotificationToken::Absent);
    }
    jam.run("ALTER TABLE accounts DROP COLUMN user_notification_token");
    std::thread::sleep(AGE);
    assert_eq!(push(&directory, "1").await, NotificationToken::Unreadable);
    assert!(
        friends(&directory, "1", "2").await,
        "everything else goes on"
    );
    assert_eq!(push(&jam.open(), "1").await, NotificationToken::Unreadable);
    jam.run("ALTER TABLE accounts ADD COLUMN user_notification_token TEXT");
    std::thread::sleep(AGE);
    assert_eq!(push(&directory, "1").await, NotificationToken::Absent);
}

#[test]
fn what_is_missing_is_named() {
    for (change, said) in [
        ("DROP TABLE accounts", "no table accounts"),
        ("DROP TABLE user_friends", "no table user_friends"),
        (
            "ALTER TABLE accounts DROP COLUMN user_api_token",
            "no column user_api_token",
        ),
        (
            "ALTER TABLE user_friends DROP COLUMN blocked",
            "no column blocked",
        ),
        (
            "ALTER TABLE user_friends DROP COLUMN been_blocked",
            "no column been_blocked",
        ),
    ] {
        let jam = Jam::new("delete");
        jam.run(change);
        let error = SqliteDirectory::open(&jam.path()).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("jam.db"), "{error}");
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let error = SqliteDirectory::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("there is no accounts database at"),
        "{error}"
    );
    assert!(!path.exists(), "opening creates nothing");
    std::fs::write(
        &path,
        "this is text and long enough to be read as a header".repeat(40),
    )
    .unwrap();
    let error = SqliteDirectory::open(&path).unwrap_err().to_string();
    assert!(error.contains("not an SQLite database"), "{error}");
}

#[tokio::test]
async fn a_table_that_goes_away_later_is_an_error_and_not_an_answer() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    jam.run("DROP TABLE user_friends");
    std::thread::sleep(AGE);
    assert_eq!(directory.friendship(&id("1"), &id("2")), Lookup::Unknown);
    let question = Question::Friendship {
        sender: id("1"),
        receiver: id("2"),
    };
    let error = directory.answer(question).await.unwrap_err().to_string();
    assert!(error.contains("user_friends"), "{error}");
}

/// Otherwise each look-up of another pair would take several times as long.
#[test]
fn a_friendship_is_read_without_preparing_the_statement_again() {
    let jam = Jam::new("wal");
    let reader = schema::open_for_reading(&jam.path()).unwrap();
    for (sender, receiver) in [(1, 2), (2, 1), (1, 3), (3, 2)] {
        let found = rows::read_friendship(&reader, sender, receiver).unwrap();
        assert_eq!(found != Friendship::NotFriends, sender + receiver == 3);
    }
    let statement = reader.prepare_cached(rows::FRIENDSHIP).unwrap();
    assert_eq!(statement.get_status(StatementStatus::Run), 4);
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}
