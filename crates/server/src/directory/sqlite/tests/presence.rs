//! Which friends are told.

use super::*;

/// All friends of a user, chunk by chunk.
async fn all(directory: &SqliteDirectory, user: &str, who: Who) -> Vec<String> {
    let (mut found, mut friends) = (Vec::new(), directory.friends(&id(user), who));
    while let Some(some) = friends.next().await.unwrap() {
        found.extend(some.iter().map(ToString::to_string));
    }
    found.sort();
    found
}

/// The friends that a user sees, and those who see the user.
async fn both(directory: &SqliteDirectory, user: &str) -> (Vec<String>, Vec<String>) {
    (
        all(directory, user, Who::IsSeen).await,
        all(directory, user, Who::SeesUser).await,
    )
}

#[tokio::test]
async fn a_friendship_has_two_rows() {
    let jam = Jam::new("wal");
    jam.run("INSERT INTO user_friends VALUES (1, 3, 0, 0)");
    let directory = jam.open();
    let two = vec!["2".to_owned()];
    assert_eq!(both(&directory, "1").await, (two.clone(), two));
    assert_eq!(both(&directory, "3").await, (vec![], vec![]));
    assert_eq!(both(&directory, "4").await, (vec![], vec![]));
    assert_eq!(both(&directory, "nobody").await, (vec![], vec![]));
}

#[tokio::test]
async fn a_block_hides_the_one_who_blocks_from_the_other_at_once() {
    for mode in ["delete", "wal", "truncate", "persist"] {
        let jam = Jam::new(mode);
        let directory = jam.open();
        let mut other = OtherProcess::start(&jam);
        let (two, nobody) = (vec!["2".to_owned()], Vec::<String>::new());
        for _ in 0..20 {
            other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
            assert_eq!(all(&directory, "1", Who::IsSeen).await, nobody, "{mode}");
            assert_eq!(all(&directory, "1", Who::SeesUser).await, two, "{mode}");
            other.run("UPDATE user_friends SET blocked = 0 WHERE user_id = 2");
            assert_eq!(all(&directory, "1", Who::IsSeen).await, two, "{mode}");
            other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 1");
            assert_eq!(all(&directory, "1", Who::IsSeen).await, two, "{mode}");
            assert_eq!(all(&directory, "1", Who::SeesUser).await, nobody, "{mode}");
            other.run("UPDATE user_friends SET blocked = 0 WHERE user_id = 1");
            assert_eq!(all(&directory, "1", Who::SeesUser).await, two, "{mode}");
        }
        other.run("DELETE FROM user_friends WHERE user_id = 2");
        assert_eq!(both(&directory, "1").await, (vec![], vec![]), "{mode}");
    }
}

#[tokio::test]
async fn a_block_as_others_write_it() {
    for (blocked, seen) in [
        ("0", true),
        ("0.0", true),
        ("'0'", true),
        ("FALSE", true),
        ("'false'", true),
        ("1", false),
        ("2.5", false),
        ("'true'", false),
        ("NULL", false),
        ("x'00'", false),
        ("''", false),
    ] {
        let jam = Jam::new("delete");
        jam.run(&format!(
            "REPLACE INTO user_friends VALUES (2, 1, {blocked}, 0)"
        ));
        let expected: &[&str] = if seen { &["2"] } else { &[] };
        let directory = jam.open();
        assert_eq!(
            all(&directory, "1", Who::IsSeen).await,
            expected,
            "{blocked}"
        );
        assert_eq!(
            all(&directory, "2", Who::SeesUser).await.len(),
            expected.len(),
            "{blocked}"
        );
    }
}

#[tokio::test]
async fn ids_without_a_type_are_all_heard_and_said_once() {
    let sql = "CREATE TABLE accounts (user_id, user_api_token);
        CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked,
            PRIMARY KEY (user_id, friend_id));
        INSERT INTO user_friends VALUES
            ('1', '2', 0, 0), (2, '1', 0, 0),
            (1, 3, 0, 0), (1, '3', 0, 0), ('1', 3, 0, 0), ('1', '3', 0, 0), ('3', 1, 0, 0),
            (1, 4, 0, 0), (4, 1, 0, 0), ('4', 1, 1, 0),
            (1, '05', 0, 0), (5, 1, 0, 0), (1, 'x', 0, 0), (1, NULL, 0, 0), (1, 6.5, 0, 0),
            ('7', 1, 0, 0), (1, '7', 0, 0), ('1', 7, 1, 0);";
    let jam = Jam::with("delete", sql);
    let directory = jam.open();
    assert_eq!(all(&directory, "1", Who::IsSeen).await, ["2", "3", "7"]);
    assert_eq!(all(&directory, "1", Who::SeesUser).await, ["2", "3", "4"]);
    assert_eq!(all(&directory, "2", Who::IsSeen).await, ["1"]);
    assert_eq!(all(&directory, "3", Who::IsSeen).await, ["1"]);
    let sql = "DROP TABLE user_friends;
        CREATE TABLE user_friends (user_id TEXT, friend_id TEXT, blocked, been_blocked,
            PRIMARY KEY (user_id, friend_id));
        INSERT INTO user_friends VALUES (1, 2, 0, 0), (2, 1, 0, 0), (1, 3, 0, 0), (3, 1, 1, 0);";
    jam.run(sql);
    assert_eq!(all(&directory, "1", Who::IsSeen).await, ["2"]);
    assert_eq!(all(&directory, "1", Who::SeesUser).await, ["2", "3"]);
}

#[tokio::test]
async fn many_friends_come_in_parts() {
    for declared in ["INTEGER", ""] {
        let jam = Jam::with(
            "wal",
            &format!(
                "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT);
                CREATE TABLE user_friends (user_id {declared}, friend_id {declared}, blocked,
                    been_blocked, PRIMARY KEY (user_id, friend_id));
                WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                    INSERT INTO user_friends SELECT 1, i, 0, 0 FROM n
                    UNION ALL SELECT i, 1, i % 10 = 0, 0 FROM n;"
            ),
        );
        let directory = jam.open();
        let mut reading = directory.friends(&id("1"), Who::IsSeen);
        let mut found = Vec::new();
        while let Some(some) = reading.next().await.unwrap() {
            assert!(some.len() <= friends::AT_ONCE as usize);
            found.extend(some);
            // Others are not kept waiting.
            assert!(!friends(&directory, "1", "20000").await);
        }
        let expected: Vec<_> = (2..=10_000).filter(|i| i % 10 != 0).collect();
        let found: Vec<u32> = found
            .iter()
            .map(|id| id.as_str().parse().unwrap())
            .collect();
        assert_eq!(found, expected);
        assert_eq!(all(&directory, "1", Who::SeesUser).await.len(), 9999);
    }
}

#[tokio::test]
async fn a_lock_only_delays_and_what_cannot_be_read_is_an_error() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
    let asking = Arc::clone(&directory);
    let answer = tokio::spawn(async move { all(&asking, "1", Who::IsSeen).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!answer.is_finished());
    other.run("COMMIT");
    assert!(answer.await.unwrap().is_empty());
    jam.run("DROP TABLE user_friends");
    let failed = directory.friends(&id("1"), Who::IsSeen).next().await;
    assert!(failed.is_err());
}
