//! Which friends a user is shown.

use jam_core::friends::{PAGE_BYTES, PART_BYTES};

use super::*;
use crate::directory::sqlite::shown::{ShownCursor, ShownFriend, read};

/// The list of a user, friend by friend.
async fn list(directory: &SqliteDirectory, user: &str) -> Vec<String> {
    let list = directory.list_friends(&id(user)).await.unwrap();
    let text = |json: &[u8]| String::from_utf8(json.to_vec()).unwrap();
    list.friends().map(text).collect()
}

fn friend(user: i64, name: &str, blocked: bool, key: &str) -> String {
    format!(r#"{{"user":"{user}","name":{name},"blocked":{blocked},"publicKey":{key}}}"#)
}

fn plain(user: i64) -> String {
    friend(user, "null", false, "null")
}

#[tokio::test]
async fn a_block_by_the_other_side_never_shows() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        jam.run(
            "UPDATE accounts SET username = 'n' || user_id, public_key = 'k' || user_id;
             INSERT INTO user_friends VALUES (1, 3, 0, 0), (3, 1, 0, 0);",
        );
        let directory = jam.open();
        let mut other = OtherProcess::start(&jam);
        let before = list(&directory, "1").await;
        assert_eq!(
            before,
            [
                friend(2, "\"n2\"", false, "\"k2\""),
                friend(3, "\"n3\"", false, "\"k3\"")
            ]
        );
        for flag in ["1", "0", "2.5", "'true'", "'0'", "NULL", "x'00'", "''"] {
            other.run(&format!(
                "UPDATE user_friends SET blocked = {flag} WHERE user_id = 2 AND friend_id = 1"
            ));
            assert_eq!(list(&directory, "1").await, before, "{mode} {flag}");
            other.run(&format!(
                "UPDATE user_friends SET been_blocked = {flag} WHERE user_id = 1 AND friend_id = 2"
            ));
            assert_eq!(list(&directory, "1").await, before, "{mode} {flag}");
        }
    }
}

#[tokio::test]
async fn the_own_block_shows_as_others_write_it() {
    for (flag, blocked) in [
        ("0", false),
        ("0.0", false),
        ("'0'", false),
        ("FALSE", false),
        ("'false'", false),
        ("1", true),
        ("2.5", true),
        ("'true'", true),
        ("NULL", true),
        ("x'00'", true),
        ("''", true),
    ] {
        let jam = Jam::new("delete");
        jam.run(&format!(
            "REPLACE INTO user_friends VALUES (1, 2, {flag}, 0)"
        ));
        let directory = jam.open();
        assert_eq!(
            list(&directory, "1").await,
            [friend(2, "null", blocked, "null")],
            "{flag}"
        );
        assert_eq!(list(&directory, "2").await, [plain(1)], "{flag}");
    }
}

#[tokio::test]
async fn a_friend_has_an_account_and_both_rows() {
    let jam = Jam::new("wal");
    jam.run(
        "INSERT INTO user_friends VALUES (1, 3, 0, 0), (1, 77, 0, 0), (77, 1, 0, 0), (4, 1, 0, 0), (1, 1, 0, 0);",
    );
    let directory = jam.open();
    // Who is a friend of themselves may be: their rows say so.
    assert_eq!(list(&directory, "1").await, [plain(1), plain(2)]);
    assert!(list(&directory, "3").await.is_empty());
    assert!(list(&directory, "4").await.is_empty());
    for nobody in ["nobody", "01", "99999999999999999999"] {
        assert!(list(&directory, nobody).await.is_empty());
    }
    jam.run("DELETE FROM accounts WHERE user_id = 2");
    assert_eq!(list(&directory, "1").await, [plain(1)]);
}

/// Rows are read many at a time: a key that no list has room for takes no more memory than the largest that one has.
#[test]
fn of_a_long_key_no_more_is_read_than_shows_that_it_is_too_long() {
    let jam = Jam::new("delete");
    jam.run("UPDATE accounts SET public_key = printf('%.*c', 10000000, 'k') WHERE user_id = 2");
    let connection = Connection::open(jam.path()).unwrap();
    let shown = read(&connection, 1, &ShownCursor::START).unwrap();
    let key = shown.friends[0].public_key.as_ref().unwrap();
    assert_eq!(key.len(), PART_BYTES + 1);
}

#[tokio::test]
async fn names_and_keys_as_they_stand_there() {
    for (value, shown) in [
        ("'ben'", r#""ben""#.to_owned()),
        ("''", r#""""#.to_owned()),
        ("'a\"b\\c'", r#""a\"b\\c""#.to_owned()),
        (
            "char(10) || char(9) || char(1)",
            r#""\n\t\u0001""#.to_owned(),
        ),
        ("'ж' || char(128512)", r#""ж😀""#.to_owned()),
        ("17", r#""17""#.to_owned()),
        ("NULL", "null".to_owned()),
        ("x'41ff42'", "\"A\u{fffd}B\"".to_owned()),
        ("CAST(x'41ff42' AS TEXT)", "\"A\u{fffd}B\"".to_owned()),
    ] {
        let jam = Jam::new("wal");
        jam.run(&format!(
            "UPDATE accounts SET username = {value}, public_key = {value} WHERE user_id = 2"
        ));
        let directory = jam.open();
        assert_eq!(
            list(&directory, "1").await,
            [friend(2, &shown, false, &shown)],
            "{value}"
        );
    }
}

#[tokio::test]
async fn older_databases_have_neither_names_nor_keys() {
    let old = "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT, blocked, friend_id);
        CREATE TABLE user_friends (user_id INTEGER, friend_id INTEGER, blocked BOOLEAN,
            been_blocked BOOLEAN, PRIMARY KEY (user_id, friend_id));
        INSERT INTO accounts VALUES (1, 'one', 1, 9), (2, 'two', 1, 9);
        INSERT INTO user_friends VALUES (1, 2, 0, 0), (2, 1, 0, 0);";
    let jam = Jam::with("wal", old);
    let directory = jam.open();
    assert_eq!(list(&directory, "1").await, [plain(2)]);
    // They come while the server runs, and go.
    jam.run(
        "ALTER TABLE accounts ADD COLUMN public_key TEXT; UPDATE accounts SET public_key = 'k'",
    );
    assert_eq!(
        list(&directory, "1").await,
        [friend(2, "null", false, "\"k\"")]
    );
    jam.run("ALTER TABLE accounts ADD COLUMN Username TEXT; UPDATE accounts SET username = 'n'");
    assert_eq!(
        list(&directory, "1").await,
        [friend(2, "\"n\"", false, "\"k\"")]
    );
    jam.run("ALTER TABLE accounts DROP COLUMN public_key");
    assert_eq!(
        list(&directory, "1").await,
        [friend(2, "\"n\"", false, "null")]
    );
}

#[tokio::test]
async fn ids_without_a_type_are_all_heard_and_said_once() {
    let rows = "('1', '2', 0, 0), (2, '1', 0, 0),
            (1, 3, 0, 0), (1, '3', 0, 0), ('1', 3, 1, 0), ('1', '3', 0, 0), ('3', 1, 0, 0),
            (1, 4, 0, 0), (4, 1, 0, 0), ('4', 1, 1, 0),
            (1, '05', 0, 0), (5, 1, 0, 0), (1, 'x', 0, 0), (1, NULL, 0, 0), (1, 6.5, 0, 0), (6, 1, 0, 0),
            ('7', 1, 0, 0), (1, '7', 0, 0), ('1', 7, 0, 0), (1, 8, 0, 0), ('8', '1', 0, 0)";
    let jam = Jam::with("delete", &format!(
        "CREATE TABLE accounts (user_id, user_api_token);
        CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked,
            PRIMARY KEY (user_id, friend_id));
        INSERT INTO accounts VALUES (1, 'a'), (2, 'a'), (3, 'a'), (4, 'a'), (5, 'a'), (6, 'a'), (7, 'a'), (8, 'a');
        INSERT INTO user_friends VALUES {rows};"
    ));
    let directory = jam.open();
    let mut found = list(&directory, "1").await;
    found.sort();
    let blocked = friend(3, "null", true, "null");
    assert_eq!(found, [plain(2), blocked, plain(4), plain(7), plain(8)]);
    for user in ["2", "3", "4", "7", "8"] {
        assert_eq!(list(&directory, user).await.len(), 1, "{user}");
    }
    let sql = "DROP TABLE user_friends;
        CREATE TABLE user_friends (user_id TEXT, friend_id TEXT, blocked, been_blocked,
            PRIMARY KEY (user_id, friend_id));
        INSERT INTO user_friends VALUES (1, 2, 0, 0), (2, 1, 0, 0), (1, 3, 1, 0), (3, 1, 1, 0);";
    jam.run(sql);
    assert_eq!(
        list(&directory, "1").await,
        [plain(2), friend(3, "null", true, "null")]
    );
}

#[tokio::test]
async fn many_friends_come_by_number_and_hold_up_nobody() {
    for declared in ["INTEGER", ""] {
        let jam = Jam::with(
            "wal",
            &format!(
                "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT, username TEXT);
                CREATE TABLE user_friends (user_id {declared}, friend_id {declared}, blocked,
                    been_blocked, PRIMARY KEY (user_id, friend_id));
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                    INSERT INTO accounts SELECT i, 't', 'n' || i FROM n;
                WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                    INSERT INTO user_friends SELECT 1, i, i % 3 = 0, 1 FROM n
                    UNION ALL SELECT i, 1, 1, 0 FROM n WHERE i % 10 <> 0;"
            ),
        );
        let directory = jam.open();
        let expected: Vec<_> = (2..=10_000)
            .filter(|i| i % 10 != 0)
            .map(|i| friend(i, &format!("\"n{i}\""), i % 3 == 0, "null"))
            .collect();
        assert_eq!(list(&directory, "1").await, expected);
        let mut place = Some(ShownCursor::START);
        let connection = Connection::open(jam.path()).unwrap();
        while let Some(from) = place {
            let shown = read(&connection, 1, &from).unwrap();
            assert!(shown.rows <= friends::AT_ONCE as usize);
            place = shown.next;
        }
    }
}

#[tokio::test]
async fn large_names_and_keys_are_read_a_few_at_a_time() {
    let jam = Jam::new("wal");
    jam.run(
        "WITH RECURSIVE n(i) AS (SELECT 11 UNION ALL SELECT i + 1 FROM n WHERE i < 90)
            INSERT INTO accounts (user_id, public_key) SELECT i, printf('%.*c', 60000, 'k') FROM n;
         INSERT INTO user_friends SELECT 1, user_id, 0, 0 FROM accounts WHERE user_id > 10;
         INSERT INTO user_friends SELECT user_id, 1, 0, 0 FROM accounts WHERE user_id > 10;",
    );
    let directory = jam.open();
    assert_eq!(
        list(&directory, "1")
            .await
            .iter()
            .filter(|it| it.len() > 60_000)
            .count(),
        80
    );
    let connection = Connection::open(jam.path()).unwrap();
    let first = read(&connection, 1, &ShownCursor::START).unwrap();
    let bytes: usize = first.friends.iter().map(ShownFriend::bytes).sum();
    assert!(
        (PAGE_BYTES..PAGE_BYTES + 2 * PART_BYTES).contains(&bytes),
        "{bytes}"
    );
}

#[tokio::test]
async fn a_list_ends_after_so_many_rows_and_says_so() {
    let jam = Jam::new("wal");
    jam.run(
        "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 70000)
            INSERT INTO user_friends SELECT 1, i, 0, 0 FROM n;
         INSERT INTO accounts (user_id) VALUES (80000);
         INSERT INTO user_friends VALUES (1, 80000, 0, 0), (80000, 1, 0, 0);",
    );
    let directory = jam.open();
    let list = directory.list_friends(&id("1")).await.unwrap();
    assert!(list.is_cut());
    assert_eq!(list.len(), 1);
    assert!(!directory.list_friends(&id("2")).await.unwrap().is_cut());
}

#[tokio::test]
async fn a_lock_only_delays_and_what_cannot_be_read_is_an_error() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 1");
    let asking = Arc::clone(&directory);
    let answer = tokio::spawn(async move { list(&asking, "1").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!answer.is_finished());
    other.run("COMMIT");
    assert_eq!(answer.await.unwrap(), [friend(2, "null", true, "null")]);
    jam.run("DROP TABLE user_friends");
    assert!(directory.list_friends(&id("1")).await.is_err());
}
