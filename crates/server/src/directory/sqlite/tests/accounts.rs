//! Changes to accounts and friendships.

use super::*;

#[test]
fn administration() {
    let jam = Jam::new("delete");
    let mut admin = Administration::open(&jam.path()).unwrap();
    fails(admin.add_user("01", None, None), "decimal integers");
    fails(admin.add_user("-1", None, None), "1 is the least");
    fails(admin.add_user("1", None, None), "exists already");
    fails(admin.add_user("9", None, Some("")), "empty token");
    fails(admin.set_token("9", None), "there is no user 9");
    fails(admin.user("9"), "there is no user 9");
    fails(admin.friends("9"), "there is no user 9");
    fails(admin.remove_user("9"), "there is no user 9");
    fails(admin.add_friend("1", "1"), "the same user");
    fails(admin.add_friend("1", "9"), "there is no user 9");
    fails(admin.add_friend("1", "2"), "friends already");
    fails(admin.remove_friend("1", "3"), "not friends");
    fails(admin.set_blocked("1", "3", true), "not friends");

    admin.add_user("4", Some("Dan"), Some("four")).unwrap();
    fails(
        admin.add_user("5", Some("Dan"), None),
        "the name \"Dan\" may be taken",
    );
    admin.set_token("4", Some("vier")).unwrap();
    admin.add_friend("4", "1").unwrap();
    let dan = User {
        id: "4".into(),
        name: Some("Dan".into()),
        token: true,
        push: false,
        friends: 1,
    };
    assert_eq!(admin.user("4").unwrap(), dan);
    assert_eq!(admin.users().unwrap().len(), 4);
    admin.remove_user("4").unwrap();
    assert_eq!(
        admin.friends("1").unwrap().len(),
        1,
        "friendships go with the account"
    );
}

#[test]
fn a_block_is_two_rows() {
    let jam = Jam::new("delete");
    let mut admin = Administration::open(&jam.path()).unwrap();
    let row = |a: i64, b: i64| -> (i64, i64) {
        let sql =
            "SELECT blocked, been_blocked FROM user_friends WHERE user_id = ? AND friend_id = ?";
        jam.other
            .query_row(sql, [a, b], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    admin.set_blocked("1", "2", true).unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((1, 0), (0, 1)));
    admin.set_blocked("2", "1", true).unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((1, 1), (1, 1)));
    admin.set_blocked("1", "2", false).unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((0, 1), (1, 0)));
    // Half a friendship is completed as its other half says.
    jam.run("DELETE FROM user_friends WHERE user_id = 1");
    admin.add_friend("1", "2").unwrap();
    assert_eq!((row(1, 2), row(2, 1)), ((0, 1), (1, 0)));
    let friend = &admin.friends("2").unwrap()[0];
    assert!(friend.blocked && !friend.been_blocked);
}

#[test]
fn a_deployed_schema_takes_accounts_too() {
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
    let mut admin = Administration::open(&jam.path()).unwrap();
    admin.add_user("1", None, None).unwrap();
    admin.add_user("2", Some("Bea"), None).unwrap();
    admin.add_friend("1", "2").unwrap();
    assert!(!admin.has_notification_tokens().unwrap());
    assert_eq!(admin.users().unwrap()[0].name.as_deref(), Some("1"));
    admin.remove_user("1").unwrap();
    jam.run("INSERT INTO spotify VALUES (2)");
    fails(admin.remove_user("2"), "FOREIGN KEY");
    assert_eq!(admin.users().unwrap().len(), 1);
}
