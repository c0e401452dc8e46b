//! Changes of others are in force within a second, as a rule at once, and nothing else is forgotten for them.

use super::*;

/// The end of the connection that LISTENs.
const CUT: &str = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'jam-mqtt directory listener'";

#[tokio::test]
async fn what_others_write_is_in_force_soon_and_what_it_is_not_about_stays_known() {
    let made = with_users(database());
    let directory = open_on(&made);
    made.run(
        "INSERT INTO user_friends (user_id, friend_id) VALUES (3, 4), (4, 3);
        INSERT INTO accounts (user_id) VALUES (4)",
    );
    for (sql, allowed) in [
        ("UPDATE user_friends SET blocked = true WHERE user_id = 2", false),
        ("UPDATE user_friends SET blocked = false WHERE user_id = 2", true),
        ("UPDATE user_friends SET been_blocked = NULL WHERE user_id = 2", false),
        ("UPDATE user_friends SET been_blocked = false WHERE user_id = 2", true),
        ("DELETE FROM user_friends WHERE user_id = 2", false),
        ("INSERT INTO user_friends (user_id, friend_id) VALUES (2, 1)", true),
        ("DELETE FROM accounts WHERE user_id = 1", false),
        ("INSERT INTO accounts (user_id) VALUES (1)", true),
        ("UPDATE accounts SET user_id = 9 WHERE user_id = 2", false),
        ("UPDATE accounts SET user_id = 2 WHERE user_id = 9", true),
        ("SET session_replication_role = replica; DELETE FROM user_friends WHERE user_id = 2", false),
        ("COPY user_friends (user_id, friend_id) FROM stdin;\n2\t1\n\\.\n", true),
        ("BEGIN; UPDATE user_friends SET blocked = true WHERE user_id = 2; ROLLBACK", true),
        ("TRUNCATE user_friends", false),
        ("INSERT INTO user_friends (user_id, friend_id) SELECT i, i + 1 FROM generate_series(1, 5000) i;
          INSERT INTO user_friends (user_id, friend_id) VALUES (2, 1), (4, 3)", true),
        ("TRUNCATE accounts", false),
    ] {
        assert_eq!(are_friends(&directory, "1", "2").await, !allowed || sql.starts_with("BEGIN"));
        directory.look().await.unwrap();
        are_friends(&directory, "3", "4").await;
        made.run(sql);
        let so = async || are_friends(&directory, "1", "2").await == allowed;
        in_force_within_a_second(sql, so).await;
        let is_about_all = ["TRUNCATE", "generate_series"].iter().any(|it| sql.contains(it));
        if !is_about_all {
            let known = async || knows_friendship(&directory, "3", "4");
            until(SLACK, &format!("still known: {sql}"), known).await;
        }
    }
}

#[tokio::test]
async fn each_column_that_a_server_reads_is_told_and_no_other() {
    let made = with_users(database());
    let directory = open_on(&made);
    for (sql, is_told) in [
        (
            "UPDATE accounts SET user_api_token = 'new' WHERE user_id = 1",
            true,
        ),
        (
            "UPDATE accounts SET user_api_token = 'new' WHERE user_id = 1",
            false,
        ),
        (
            "UPDATE accounts SET user_notification_token = 'new' WHERE user_id = 1",
            true,
        ),
        (
            "UPDATE accounts SET user_email = 'new' WHERE user_id = 1",
            true,
        ),
        (
            "UPDATE accounts SET username = 'new' WHERE user_id = 1",
            true,
        ),
        (
            "UPDATE accounts SET user_password_hash = 'new' WHERE user_id = 1",
            true,
        ),
        (
            "UPDATE accounts SET public_key = 'new' WHERE user_id = 1",
            true,
        ),
        (
            "UPDATE accounts SET life = gen_random_uuid() WHERE user_id = 1",
            true,
        ),
        ("UPDATE accounts SET inactive = false", false),
        ("INSERT INTO user_devices VALUES (1, 'phone')", false),
        ("UPDATE user_friends SET blocked = blocked", false),
    ] {
        let before = directory.look().await.unwrap();
        made.run(sql);
        let after = directory.look().await.unwrap();
        assert_eq!(after > before, is_told, "{sql}");
    }
}

/// Complaint T18: what came while nobody listened was missed.
#[tokio::test]
async fn a_block_that_comes_while_the_listening_connection_is_cut_is_in_force_within_a_second() {
    let made = with_users(database());
    let directory = open_on(&made);
    for round in 0..10 {
        let blocked = round % 2 == 0;
        assert_eq!(are_friends(&directory, "1", "2").await, blocked);
        // One after the other in one process, so that nothing comes between.
        made.run(&format!(
            "{CUT}; UPDATE user_friends SET blocked = {blocked} WHERE user_id = 2"
        ));
        in_force_within_a_second("the block", async || {
            are_friends(&directory, "1", "2").await != blocked
        })
        .await;
    }
}

#[tokio::test]
async fn a_look_tells_of_all_that_was_committed_before() {
    let made = with_users(database());
    let directory = open_on(&made);
    let mut before = directory.look().await.unwrap();
    for round in 0..20 {
        assert_eq!(directory.look().await.unwrap(), before);
        made.run(&format!(
            "UPDATE accounts SET username = '{round}' WHERE user_id = 3"
        ));
        let after = directory.look().await.unwrap();
        assert!(after > before);
        before = after;
    }
}

/// A fact that was read before a change may come after its notification.
#[tokio::test]
async fn what_is_read_while_it_changes_is_not_believed_after_it() {
    let made = with_users(database());
    let directory = Arc::new(open_on(&made));
    let writer = open(&made.address(), "jam-test").await.unwrap();
    let asking = tokio::spawn({
        let directory = Arc::clone(&directory);
        async move {
            loop {
                directory.answer(Question::Account(id("1"))).await.unwrap();
            }
        }
    });
    for round in 0..500 {
        let token = round.to_string();
        let sql = "UPDATE accounts SET user_api_token = $1 WHERE user_id = 1";
        writer.execute(sql, &[&token]).await.unwrap();
        directory.look().await.unwrap();
        if let Lookup::Known(account, _) = directory.account(&id("1")) {
            let known = account.unwrap().token.unwrap();
            assert!(known.is(token.as_bytes()), "{round}");
        }
    }
    asking.abort();
}

#[tokio::test]
async fn accounts_come_in_their_order_known_or_not() {
    let made = with_users(database());
    let directory = open_on(&made);
    let users = ["3", "nobody", "9", "1", "2", "1"].map(id);
    assert!(account(&directory, "2").await.is_some());
    for _ in 0..2 {
        let found = directory.accounts(&users).await.unwrap();
        let tokens = found.iter().map(|answer| match &answer.fact {
            Fact::Account(account) => account.as_ref().map(|it| it.token.clone().unwrap()),
            other => panic!("{other:?}"),
        });
        let expected = [
            Some("three"),
            None,
            None,
            Some("one"),
            Some("two"),
            Some("one"),
        ];
        for (found, expected) in tokens.zip(expected) {
            assert_eq!(found.is_some(), expected.is_some());
            assert!(found.is_none_or(|it| it.is(expected.unwrap().as_bytes())));
        }
    }
    // Known by now, and forgotten with the next change.
    assert!(matches!(
        directory.account(&id("3")),
        Lookup::Known(Some(_), _)
    ));
    made.run("UPDATE accounts SET user_api_token = 'other' WHERE user_id = 3");
    directory.look().await.unwrap();
    let found = directory.accounts(&users[..1]).await.unwrap();
    let Fact::Account(Some(account)) = &found[0].fact else {
        panic!("{found:?}");
    };
    assert!(account.token.as_ref().unwrap().is(b"other"));
}
