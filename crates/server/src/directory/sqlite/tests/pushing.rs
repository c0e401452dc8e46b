//! Where pushes go, and tokens that are dead.

use secrecy::{ExposeSecret, SecretString};

use super::*;

const TOKENS: &str = "UPDATE accounts SET user_notification_token = 'phone-of-' || user_id";

/// Whether a push may be sent, and to which token.
async fn address(
    directory: &SqliteDirectory,
    sender: &str,
    receiver: &str,
) -> Option<Option<String>> {
    let address = directory.push_address(&id(sender), &id(receiver)).await;
    let token = |it: PushAddress| it.token.map(|token| token.expose_secret().to_owned());
    address.unwrap().map(token)
}

async fn clear(directory: &SqliteDirectory, user: &str, token: &str) -> bool {
    let token = SecretString::from(token);
    directory
        .clear_notification_token(&id(user), &token)
        .await
        .unwrap()
}

fn token_of(jam: &Jam, user: &str) -> Option<String> {
    let sql = "SELECT user_notification_token FROM accounts WHERE user_id = ?1";
    jam.other.query_row(sql, [user], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn where_pushes_go() {
    let jam = Jam::new("wal");
    jam.run(TOKENS);
    let directory = jam.open();
    let to_2 = Some(Some("phone-of-2".to_owned()));
    assert_eq!(address(&directory, "1", "2").await, to_2);
    for (sender, receiver) in [("1", "3"), ("1", "9"), ("9", "1"), ("1", "02"), ("x", "2")] {
        assert_eq!(address(&directory, sender, receiver).await, None);
    }
    for (change, expected) in [
        (
            "UPDATE accounts SET user_notification_token = NULL",
            Some(None),
        ),
        (
            "UPDATE accounts SET user_notification_token = ''",
            Some(None),
        ),
        (
            "UPDATE accounts SET user_notification_token = x'FFFE'",
            Some(None),
        ),
        (TOKENS, to_2.clone()),
        (
            "UPDATE user_friends SET blocked = 1 WHERE user_id = 2",
            None,
        ),
        (
            "UPDATE user_friends SET blocked = 0, been_blocked = 1 WHERE user_id = 2",
            None,
        ),
        ("UPDATE user_friends SET been_blocked = 0", to_2),
        // Without the column there is no token, which only matters to who needs one.
        (
            "ALTER TABLE accounts DROP COLUMN user_notification_token",
            Some(None),
        ),
    ] {
        jam.run(change);
        // At once: nothing of this comes from memory.
        assert_eq!(address(&directory, "1", "2").await, expected, "{change}");
    }
    jam.run("ALTER TABLE user_friends RENAME TO gone");
    let failed = directory.push_address(&id("1"), &id("2")).await;
    assert!(failed.unwrap_err().to_string().contains("user_friends"));
}

/// Its own commit ends what is in memory, as everybody else's does.
#[tokio::test]
async fn a_dead_token_is_cleared_and_forgotten() {
    for mode in ["wal", "delete"] {
        let jam = Jam::new(mode);
        jam.run(TOKENS);
        let directory = jam.open();
        assert_eq!(push(&directory, "2").await, NotificationToken::Present);
        assert!(clear(&directory, "2", "phone-of-2").await);
        std::thread::sleep(AGE);
        assert_eq!(
            push(&directory, "2").await,
            NotificationToken::Absent,
            "{mode}"
        );
        assert_eq!(address(&directory, "1", "2").await, Some(None));
        assert_eq!(token_of(&jam, "2"), None);
        assert_eq!(
            token_of(&jam, "1").as_deref(),
            Some("phone-of-1"),
            "nobody else's"
        );
        let now: String = jam
            .other
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(now, mode);
    }
}

#[tokio::test]
async fn another_token_stays() {
    let jam = Jam::new("wal");
    jam.run(TOKENS);
    let directory = jam.open();
    for (user, token) in [
        ("2", "phone-of-1"),
        ("2", "PHONE-OF-2"),
        ("2", ""),
        ("9", "phone-of-2"),
        ("x", "phone-of-2"),
    ] {
        assert!(!clear(&directory, user, token).await, "{user} {token}");
    }
    assert_eq!(token_of(&jam, "2").as_deref(), Some("phone-of-2"));
    // As somebody may have stored it.
    jam.run("UPDATE accounts SET user_notification_token = CAST('blob' AS BLOB) WHERE user_id = 2");
    assert!(clear(&directory, "2", "blob").await);
}

/// A program that writes to the file meanwhile delays the clearing, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_only_delays_the_clearing() {
    let jam = Jam::new("wal");
    jam.run(TOKENS);
    let directory = Arc::new(jam.open());
    jam.run("BEGIN IMMEDIATE");
    let clearing = tokio::spawn({
        let directory = directory.clone();
        async move { clear(&directory, "2", "phone-of-2").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = Instant::now();
    assert!(friends(&directory, "1", "2").await);
    assert!(asked.elapsed() < Duration::from_millis(200));
    assert!(!clearing.is_finished());
    jam.run("COMMIT");
    assert!(clearing.await.unwrap());
    assert_eq!(token_of(&jam, "2"), None);
}

#[tokio::test]
async fn what_cannot_be_written_is_an_error() {
    let jam = Jam::new("wal");
    jam.run(TOKENS);
    let directory = jam.open();
    jam.run("CREATE TRIGGER no BEFORE UPDATE ON accounts BEGIN SELECT RAISE(FAIL, 'no'); END");
    let token = SecretString::from("phone-of-2");
    let cleared = directory.clear_notification_token(&id("2"), &token).await;
    assert!(cleared.is_err());
    assert!(friends(&directory, "1", "2").await);

    let reader = schema::open_for_reading(&jam.path()).unwrap();
    let error = rows::clear_notification_token(&reader, 2, &token).unwrap_err();
    let error = DirectoryError::from(error).to_string();
    assert!(
        error.starts_with("the accounts database cannot be written"),
        "{error}"
    );
}
