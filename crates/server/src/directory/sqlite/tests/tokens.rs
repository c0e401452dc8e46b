//! API tokens as they stand in the file.

use jam_core::directory::{Mark, sha_256};
use rusqlite::types::Value;

use super::super::{schema, tokens};
use super::*;

/// A file of our own as it was made before tokens were hashed.
fn older(count: u32) -> TempDir {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    create(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 0).unwrap();
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO accounts (user_id, user_api_token) SELECT i, 'in-the-clear-' || i FROM n;
         INSERT INTO accounts (user_id, user_api_token) VALUES (100001, NULL), (100002, ''), (100003, 0);"
    );
    connection.execute_batch(&sql).unwrap();
    // What is left of tokens that are no longer anybody's.
    let sql = "UPDATE accounts SET user_api_token = 'in-the-clear-new' WHERE user_id = 1;
        DELETE FROM accounts WHERE user_id = 2;";
    connection.execute_batch(sql).unwrap();
    dir
}

/// Every byte that stands in the database's files.
fn bytes_of(dir: &TempDir) -> Vec<u8> {
    let files = std::fs::read_dir(dir.path()).unwrap();
    let read =
        |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file.unwrap().path()).unwrap();
    files.flat_map(read).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

fn stored(path: &Path, user: i64) -> Value {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT user_api_token FROM accounts WHERE user_id = ?1";
    connection.query_row(sql, [user], |row| row.get(0)).unwrap()
}

async fn mark_of(directory: &SqliteDirectory, user: &str) -> Mark {
    account(directory, user)
        .await
        .unwrap()
        .token
        .unwrap()
        .mark()
}

#[tokio::test]
async fn what_stands_in_the_file_lets_nobody_in() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let accounts = administration_of(&path);
    let token = NewToken::chosen("my secret").unwrap();
    accounts.add_user(&id("1"), None, &token).await.unwrap();
    assert!(!holds(&bytes_of(&dir), "my secret"));
    let Value::Blob(stolen) = stored(&path, 1) else {
        panic!("a BLOB")
    };
    let hash = sha_256(b"my secret");
    assert!(stolen.ends_with(&hash));
    assert!(
        std::str::from_utf8(&stolen).is_err(),
        "no client can send it"
    );
    let directory = SqliteDirectory::open(&path).unwrap();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = account(&directory, "1").await.unwrap().token.unwrap();
    for offered in [
        &stolen[..],
        &stolen[2..],
        &hash,
        hex.as_bytes(),
        b"my secre",
        b"",
    ] {
        assert!(!token.is(offered));
    }
    assert!(token.is(b"my secret"));
    assert_eq!(format!("{token:?}"), "[a SHA-256]");
    // A hash that is damaged is no token.
    let connection = Connection::open(&path).unwrap();
    for length in [2, 9, 10, 41, 43] {
        let damaged: Vec<u8> = stolen.iter().copied().cycle().take(length).collect();
        let sql = "UPDATE accounts SET user_api_token = ?1";
        connection.execute(sql, [&damaged]).unwrap();
        std::thread::sleep(AGE);
        let token = account(&directory, "1").await.unwrap().token;
        assert!(token.is_none(), "{length}");
    }
    // And a text that looks like one is a token as any other.
    connection
        .execute("UPDATE accounts SET user_api_token = ?1", [&hex])
        .unwrap();
    std::thread::sleep(AGE);
    assert!(token_is(&directory, "1", &hex).await);
    assert!(!token_is(&directory, "1", "my secret").await);
}

#[tokio::test]
async fn an_older_file_is_hashed_and_nobody_notices() {
    let dir = older(5000);
    let path = dir.path().join("jam.db");
    assert!(holds(&bytes_of(&dir), "in-the-clear-"));
    let directory = SqliteDirectory::open(&path).unwrap();
    let users = ["1", "3", "4999", "100003"];
    let mut before = Vec::new();
    for user in users {
        before.push(mark_of(&directory, user).await);
    }
    assert_eq!(tokens::hash_all(&path).unwrap(), 5000);
    assert!(
        !holds(&bytes_of(&dir), "in-the-clear-"),
        "in no page, no log"
    );
    std::thread::sleep(AGE);
    for (user, before) in users.into_iter().zip(before) {
        assert_eq!(mark_of(&directory, user).await, before, "sessions go on");
    }
    for (user, token) in [
        ("1", "in-the-clear-new"),
        ("3", "in-the-clear-3"),
        ("100003", "0"),
    ] {
        assert!(token_is(&directory, user, token).await, "{user}");
        assert!(matches!(
            stored(&path, user.parse().unwrap()),
            Value::Blob(_)
        ));
    }
    assert!(!token_is(&directory, "1", "in-the-clear-1").await);
    for nobody in ["100001", "100002"] {
        assert!(account(&directory, nobody).await.unwrap().token.is_none());
    }
    assert_eq!(tokens::hash_all(&path).unwrap(), 0, "once");

    // What another program writes later is a token in the clear until the next start.
    let other = Connection::open(&path).unwrap();
    let sql = "UPDATE accounts SET user_api_token = 'in-the-clear-later' WHERE user_id = 3";
    other.execute(sql, []).unwrap();
    std::thread::sleep(AGE);
    assert!(token_is(&directory, "3", "in-the-clear-later").await);
    let before = mark_of(&directory, "3").await;
    let sql = "UPDATE accounts SET user_api_token = 'in-the-clear-' || hex(zeroblob(200))
        WHERE user_id BETWEEN 4 AND 1003";
    other.execute(sql, []).unwrap();
    assert_eq!(tokens::hash_all(&path).unwrap(), 1001);
    assert!(!holds(&bytes_of(&dir), "in-the-clear-"));
    std::thread::sleep(AGE);
    assert_eq!(mark_of(&directory, "3").await, before);
    other
        .execute("UPDATE accounts SET user_api_token = NULL", [])
        .unwrap();
    std::thread::sleep(AGE);
    assert!(
        account(&directory, "3").await.unwrap().token.is_none(),
        "logged out"
    );
}

/// A server that knows no hashes may be running on it.
#[tokio::test]
async fn commands_leave_an_older_file_in_the_clear() {
    let dir = older(5);
    let path = dir.path().join("jam.db");
    let accounts = administration_of(&path);
    let token = NewToken::chosen("given").unwrap();
    for hashes in [false, true] {
        accounts
            .set_token(&id("3"), &NewToken::random().unwrap())
            .await
            .unwrap();
        assert_eq!(accounts.set_token(&id("3"), &token).await, Ok(true));
        assert_eq!(accounts.set_token(&id("3"), &token).await, Ok(false));
        let is_hashed = matches!(stored(&path, 3), Value::Blob(_));
        assert_eq!(is_hashed, hashes);
        tokens::hash_all(&path).unwrap();
    }
}

#[tokio::test]
async fn a_database_of_another_program_keeps_its_tokens() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let before = std::fs::read(jam.path()).unwrap();
        assert_eq!(tokens::hash_all(&jam.path()).unwrap(), 0);
        assert_eq!(std::fs::read(jam.path()).unwrap(), before);
        let token = NewToken::chosen("given").unwrap();
        let accounts = jam.administration();
        accounts.set_token(&id("1"), &token).await.unwrap();
        accounts.add_user(&id("7"), None, &token).await.unwrap();
        for user in [1, 7] {
            assert_eq!(stored(&jam.path(), user), Value::Text("given".into()));
        }
        assert_eq!(stored(&jam.path(), 2), Value::Text("two".into()));
    }
}

#[test]
fn many_processes_may_hash_at_once() {
    let dir = older(2000);
    let path = dir.path().join("jam.db");
    // One that meets another's lock, for longer than it waits on a slow disk, leaves it to its next start.
    let hash = || loop {
        match tokens::hash_all(&path) {
            Ok(count) => break count,
            Err(error) => {
                let why = error.to_string();
                assert!(why.contains("locked") || why.contains("reading"), "{why}");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(hash)).collect();
        for thread in threads {
            let count = thread.join().unwrap();
            assert!([0, 2000].contains(&count), "{count}");
        }
    });
    for user in [3, 1000, 2000] {
        let once = tokens::hashed(user, format!("in-the-clear-{user}").as_bytes());
        assert_eq!(stored(&path, user), Value::Blob(once));
    }
    assert!(!holds(&bytes_of(&dir), "in-the-clear-"));
    let connection = Connection::open(&path).unwrap();
    assert!(schema::is_ours(&connection).unwrap());
}

/// What reads on keeps the log: the next start empties it.
#[test]
fn a_reader_delays_the_end_of_what_stood_in_the_clear() {
    let dir = older(50);
    let path = dir.path().join("jam.db");
    let reader = Connection::open(&path).unwrap();
    reader
        .execute_batch("BEGIN; SELECT * FROM accounts")
        .unwrap();
    let error = tokens::hash_all(&path).unwrap_err();
    assert!(error.to_string().contains("reading"), "{error}");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(tokens::hash_all(&path).unwrap(), 0, "they had been hashed");
    assert!(!holds(&bytes_of(&dir), "in-the-clear-"));
}
