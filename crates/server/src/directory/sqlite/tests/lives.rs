//! Which account an id stands for.

use jam_core::directory::Life;

use super::*;

async fn life(directory: &SqliteDirectory, user: &str) -> Life {
    account(directory, user).await.expect("an account").life
}

#[tokio::test]
async fn an_account_is_told_by_its_address_and_its_name() {
    let jam = Jam::new("delete");
    jam.run("UPDATE accounts SET user_email = 'a@x', username = 'ann' WHERE user_id = 1");
    let directory = jam.open();
    for (change, same) in [
        (
            "user_api_token = 'new', user_notification_token = 'new', user_password_hash = 'new'",
            true,
        ),
        ("user_email = 'other@x'", true),
        ("username = 'other'", true),
        ("username = 'anne', public_key = 'x', inactive = 1", true),
        ("user_email = 'new@x', username = 'new'", false),
        // An address is not a name.
        ("user_email = 'new', username = 'new@x'", false),
        ("user_email = NULL", true),
        ("username = 'back'", true),
        ("username = NULL, user_email = 'new@x'", true),
        ("user_email = 'newer@x'", true),
        (
            "user_email = 'newest@x', user_password_hash = 'newer'",
            false,
        ),
        ("user_email = NULL", true),
        ("user_password_hash = 'newest'", false),
        ("user_api_token = 'newest'", true),
        ("username = 'ann', user_password_hash = NULL", false),
        // A name that is all that there is.
        ("username = 'anne'", true),
        ("username = 'anne', user_email = 'ann@x'", true),
        ("username = '', user_email = NULL", false),
        // There was nothing to know it by.
        ("username = NULL, user_email = 'again@x'", true),
        ("username = 'bob', user_email = 'a@jam.invalid'", false),
        // Made up by somebody else.
        ("user_email = 'b@jam.invalid'", true),
    ] {
        let before = life(&directory, "1").await;
        jam.run(&format!("UPDATE accounts SET {change} WHERE user_id = 1"));
        std::thread::sleep(AGE);
        let after = life(&directory, "1").await;
        assert_eq!(before.goes_on_as(&after), same, "{change}");
        let sender = Friendship::Friends(after);
        let known = directory.answer(Question::Friendship {
            sender: id("2"),
            receiver: id("1"),
        });
        let known = known.await.unwrap().fact;
        assert!(matches!(known, Fact::Friendship(found) if found == sender));
    }
}

#[tokio::test]
async fn the_commands_make_a_new_account_each_time() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let directory = SqliteDirectory::open_or_create(&path).unwrap();
    let accounts = administration_of(&path);
    let one = id("1");
    for name in [None, Some("Ann")] {
        let mut lives = Vec::new();
        for _ in 0..2 {
            let token = NewToken::chosen("the same").unwrap();
            accounts.add_user(&one, name, &token).await.unwrap();
            std::thread::sleep(AGE);
            lives.push(life(&directory, "1").await);
            let token = NewToken::random().unwrap();
            accounts.set_token(&one, &token).await.unwrap();
            std::thread::sleep(AGE);
            assert!(
                lives
                    .last()
                    .unwrap()
                    .goes_on_as(&life(&directory, "1").await)
            );
            accounts.remove_user(&one).await.unwrap();
        }
        assert!(!lives[0].goes_on_as(&lives[1]), "{name:?}");
    }
}

#[tokio::test]
async fn a_database_without_addresses_and_names_is_served() {
    let jam = Jam::with(
        "delete",
        "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT);
         CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);
         INSERT INTO accounts VALUES (1, 'one');",
    );
    assert_eq!(life(&jam.open(), "1").await, Life::default());
}
