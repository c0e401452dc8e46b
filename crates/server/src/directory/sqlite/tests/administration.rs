//! Changes to accounts and friendships, in files of all kinds.

use super::*;

fn page() -> PageRequest {
    PageRequest::after(None)
}

async fn ids_of_friends(accounts: &dyn Administration, user: &str) -> Vec<String> {
    let mut page = PageRequest::new(None, 1).unwrap();
    let mut ids = Vec::new();
    loop {
        let friends = accounts.friends(&id(user), &page).await.unwrap();
        ids.extend(friends.items.into_iter().map(|friend| friend.id));
        let Some(last) = friends.next else { return ids };
        page = PageRequest::new(Some(last), 1).unwrap();
    }
}

fn refused<T: std::fmt::Debug>(result: &Result<T, AdministrationError>, said: &str) {
    let Err(AdministrationError::Refused(why)) = result else {
        panic!("{result:?} should be refused");
    };
    assert!(why.contains(said), "{why:?} should hold {said:?}");
}

#[tokio::test]
async fn what_a_jam_database_cannot_hold_is_refused() {
    let jam = Jam::new("delete");
    let accounts = jam.administration();
    let token = NewToken::random().unwrap();
    for (user, said) in [
        ("01", "decimal integers"),
        ("ann", "decimal integers"),
        ("9223372036854775808", "decimal integers"),
        ("-1", "1 is the least"),
        ("0", "1 is the least"),
    ] {
        refused(&accounts.add_user(&id(user), None, &token).await, said);
        let nobody = AdministrationError::NoUser(id(user));
        assert_eq!(accounts.user(&id(user)).await, Err(nobody));
    }
    accounts
        .add_user(&id("4"), Some("Dan"), &token)
        .await
        .unwrap();
    let dan = accounts.add_user(&id("5"), Some("Dan"), &token).await;
    refused(&dan, "the name \"Dan\" may be taken");
    let expected = User {
        id: "4".into(),
        name: Some("Dan".into()),
        token: true,
        push: false,
        friends: 0,
    };
    assert_eq!(accounts.user(&id("4")).await.unwrap(), expected);
    let after = PageRequest::after(Some(id("ann")));
    refused(&accounts.users("", &after).await, "goes on after");
    let after = PageRequest::after(Some(id("9223372036854775807")));
    assert_eq!(accounts.users("", &after).await.unwrap().items, []);
}

#[tokio::test]
async fn a_block_is_two_rows() {
    let jam = Jam::new("delete");
    let accounts = jam.administration();
    let (one, two) = (id("1"), id("2"));
    let row = |a: i64, b: i64| -> (i64, i64) {
        let sql =
            "SELECT blocked, been_blocked FROM user_friends WHERE user_id = ? AND friend_id = ?";
        jam.other
            .query_row(sql, [a, b], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    accounts.set_blocked(&one, &two, true).await.unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((1, 0), (0, 1)));
    accounts.set_blocked(&two, &one, true).await.unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((1, 1), (1, 1)));
    accounts.set_blocked(&one, &two, false).await.unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((0, 1), (1, 0)));
    // Half a friendship is completed as its other half says.
    jam.run("DELETE FROM user_friends WHERE user_id = 1");
    assert_eq!(accounts.befriend(&one, &two).await, Ok(true));
    assert_eq!((row(1, 2), row(2, 1)), ((0, 1), (1, 0)));
    let friends = accounts.friends(&two, &page()).await.unwrap();
    assert!(friends.items[0].blocked && !friends.items[0].been_blocked);
}

#[tokio::test]
async fn a_deployed_schema_takes_accounts_too() {
    let jam = Jam::with(
        "delete",
        "CREATE TABLE accounts (user_id INTEGER NOT NULL UNIQUE, user_email TEXT NOT NULL UNIQUE,
            username TEXT NOT NULL UNIQUE, user_password_hash TEXT NOT NULL, user_api_token TEXT,
            inactive BOOLEAN NOT NULL DEFAULT TRUE, PRIMARY KEY (user_id AUTOINCREMENT));
        CREATE TABLE user_friends (user_id INTEGER NOT NULL, friend_id INTEGER NOT NULL,
            blocked BOOLEAN NOT NULL DEFAULT FALSE, been_blocked BOOLEAN NOT NULL DEFAULT FALSE,
            FOREIGN KEY (user_id) REFERENCES accounts (user_id), PRIMARY KEY (user_id, friend_id));
        CREATE TABLE spotify (user_id INTEGER REFERENCES accounts (user_id));",
    );
    let accounts = jam.administration();
    let token = NewToken::random().unwrap();
    accounts.add_user(&id("1"), None, &token).await.unwrap();
    accounts
        .add_user(&id("2"), Some("Bea"), &token)
        .await
        .unwrap();
    accounts.befriend(&id("1"), &id("2")).await.unwrap();
    assert!(!inspect(&jam.path()).unwrap().can_push);
    let one = accounts.user(&id("1")).await.unwrap();
    assert_eq!(one.name.as_deref(), Some("1"));
    accounts.remove_user(&id("1")).await.unwrap();
    jam.run("INSERT INTO spotify VALUES (2)");
    refused(&accounts.remove_user(&id("2")).await, "FOREIGN KEY");
    let users = accounts.users("", &page()).await.unwrap();
    assert_eq!(users.items.len(), 1);
}

#[tokio::test]
async fn friends_whose_ids_are_texts_are_listed_once_and_what_is_no_id_is_not() {
    let jam = Jam::with(
        "delete",
        "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT);
         CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);
         INSERT INTO accounts VALUES (1, 'one'), (2, 'two');
         INSERT INTO user_friends VALUES (1, 2, 0, 0), ('1', '2', 1, 0), (1, '2', 0, 0),
            (1, '10', 0, 0), (1, 9, 0, 0), ('1', 100, 0, 0), (1, '-5', 0, 0),
            (1, 'ann', 0, 0), (1, '01', 0, 0), (1, 1.5, 0, 0), (1, NULL, 0, 0), (1, x'31', 0, 0),
            (1, '9223372036854775808', 0, 0), (1, ' 3', 0, 0), (1, '', 0, 0);",
    );
    let accounts = jam.administration();
    let found = ids_of_friends(&*accounts, "1").await;
    assert_eq!(found, ["-5", "2", "9", "10", "100"]);
    let friends = accounts.friends(&id("1"), &page()).await.unwrap();
    let two = friends.items.iter().find(|friend| friend.id == "2");
    assert!(two.unwrap().blocked, "one row that blocks is enough");
}

#[tokio::test]
async fn in_a_server_it_holds_up_nobody_and_ends_in_time() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    let accounts = Arc::clone(&directory).administration();
    jam.run("BEGIN EXCLUSIVE");
    let began = Instant::now();
    let (one, token) = (id("1"), NewToken::random().unwrap());
    let mut changes = Vec::new();
    for _ in 0..8 {
        changes.push(accounts.set_token(&one, &token));
    }
    let changing = async {
        for change in futures_util::future::join_all(changes).await {
            change.unwrap_err();
        }
        began.elapsed()
    };
    let looking = async {
        // Nobody else waits for a thread meanwhile: what asks for no file is answered at once.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        began.elapsed()
    };
    let (changed, looked) = tokio::join!(changing, looking);
    assert!(looked < Duration::from_secs(2), "{looked:?}");
    assert!(changed < Duration::from_secs(15), "{changed:?}");
    jam.run("ROLLBACK");
    // What has failed is not done later.
    std::thread::sleep(AGE * 50);
    assert!(token_is(&directory, "1", "one").await);
    assert_eq!(accounts.set_token(&one, &token).await, Ok(true));
    std::thread::sleep(AGE);
    assert!(token_is(&directory, "1", token.expose()).await);
}
