//! A server that hangs, dies, is full, or is another one: nothing stale is told, nobody waits for long, and it is taken up again.

use std::process::Command;

use super::*;
use crate::directory::postgres::thread::may_be_stale;
use crate::postgres::testing::behind_silent_hosts;

/// After trouble everything is as it was within so long.
const BACK: Duration = Duration::from_secs(2);

async fn fails(directory: &PostgresDirectory) -> (DirectoryError, Duration) {
    let began = Instant::now();
    let question = Question::Account(id("1"));
    let error = directory.answer(question).await.unwrap_err();
    (error, began.elapsed())
}

#[tokio::test]
async fn a_server_that_stands_still_is_not_waited_for_and_memory_is_not_believed() {
    let server = TestServer::start();
    let made = with_users(server.database());
    let directory = open_on(&made);
    assert!(are_friends(&directory, "1", "2").await);
    server.pause();
    let paused = Instant::now();
    until(LEASE + SLACK, "memory is not believed", async || {
        !knows_friendship(&directory, "1", "2")
    })
    .await;
    let (error, _) = fails(&directory).await;
    assert!(paused.elapsed() < SILENCE + SLACK, "{error}");
    assert!(
        error.to_string().contains("PostgreSQL has not answered"),
        "{error}"
    );
    // From now on nobody waits.
    let (_, waited) = fails(&directory).await;
    assert!(waited < SILENCE / 2, "{waited:?}");
    directory.look().await.unwrap_err();
    // Connections are given up meanwhile, and made anew.
    for pause in [Duration::ZERO, Duration::from_secs(4)] {
        tokio::time::sleep(pause).await;
        server.resume();
        until_it_answers(&directory, BACK + SLACK).await;
        assert!(are_friends(&directory, "1", "2").await);
        server.pause();
        until(SILENCE + SLACK, "it is silent", async || {
            directory.shared.is_silent()
        })
        .await;
    }
    server.resume();
    assert_eq!(directory.replacements(), 0);
}

#[tokio::test]
async fn a_server_that_dies_is_taken_up_again_with_what_was_written_since() {
    let mut server = TestServer::start();
    let made = with_users(server.database());
    let directory = open_on(&made);
    for (round, die) in [
        TestServer::stop_immediately as fn(&mut TestServer),
        TestServer::kill,
        TestServer::stop,
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("{round}");
        assert!(!token_is(&directory, "1", &token).await);
        die(&mut server);
        until(LEASE + SLACK, "memory is not believed", async || {
            matches!(directory.account(&id("1")), Lookup::Unknown)
        })
        .await;
        until(SILENCE + SLACK, "it is silent", async || {
            directory.shared.is_silent()
        })
        .await;
        let (error, waited) = fails(&directory).await;
        assert!(waited < SILENCE / 2, "{waited:?}");
        assert!(error.to_string().contains("refused"), "{error}");
        server.restart();
        let restarted = Instant::now();
        made.run(&format!(
            "UPDATE accounts SET user_api_token = '{token}' WHERE user_id = 1"
        ));
        until_it_answers(&directory, BACK + SLACK).await;
        assert!(restarted.elapsed() < BACK + SLACK);
        assert!(token_is(&directory, "1", &token).await);
    }
    assert_eq!(directory.replacements(), 0);
}

#[tokio::test]
async fn a_question_outlives_a_short_restart() {
    let mut server = TestServer::start();
    let made = with_users(server.database());
    let directory = open_on(&made);
    server.stop();
    let asked = async { token_is(&directory, "1", "one").await };
    let restarted = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let (answered, _server) = tokio::join!(asked, restarted);
    assert!(answered);
}

#[tokio::test]
async fn a_server_without_places_is_told_and_taken_up_when_it_has_some() {
    let server = TestServer::start_with(&[
        ("max_connections", "8"),
        ("superuser_reserved_connections", "0"),
        ("max_wal_senders", "0"),
    ]);
    let made = with_users(server.database());
    let directory = open_on(&made);
    // One ends all others and leaves no place for them.
    let address = made.address();
    let holder = open(&address, "holder").await.unwrap();
    let mut others = Vec::new();
    while let Ok(client) = open(&address, "holder").await {
        others.push(client);
    }
    assert!(token_is(&directory, "1", "one").await);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'jam-mqtt%'";
    holder.execute(ended, &[]).await.unwrap();
    while others.len() < 7 {
        others.extend(open(&address, "holder").await.ok());
        holder.execute(ended, &[]).await.unwrap();
    }
    until(SILENCE + SLACK, "it is silent", async || {
        directory.shared.is_silent()
    })
    .await;
    let (error, _) = fails(&directory).await;
    assert!(error.to_string().contains("max_connections"), "{error}");
    drop(others);
    until_it_answers(&directory, BACK + SLACK).await;
    assert!(token_is(&directory, "1", "one").await);
}

#[tokio::test]
async fn tables_that_are_locked_hold_up_only_what_memory_does_not_know() {
    let made = with_users(database());
    let directory = Arc::new(open_on(&made));
    assert!(are_friends(&directory, "1", "2").await);
    let mut other = open(&made.address(), "jam-test").await.unwrap();
    let lock = other.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE accounts, user_friends")
        .await
        .unwrap();
    let began = Instant::now();
    let waits = tokio::spawn({
        let directory = Arc::clone(&directory);
        async move { directory.answer(Question::Account(id("3"))).await }
    });
    while !waits.is_finished() {
        assert!(knows_friendship(&directory, "1", "2"));
        directory.look().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    waits.await.unwrap().unwrap_err();
    assert!(began.elapsed() < thread::PATIENCE + SLACK);
    lock.commit().await.unwrap();
    assert!(token_is(&directory, "3", "three").await);
}

#[tokio::test]
async fn tables_that_are_others_are_read_again() {
    let made = with_users(database());
    let directory = open_on(&made);
    assert!(token_is(&directory, "1", "one").await);
    made.run("DROP TABLE accounts, user_friends, user_devices, jam_directory;
        DROP FUNCTION jam_directory_hash_token, jam_directory_tell, jam_directory_inserted, jam_directory_deleted,
            jam_directory_truncated, jam_directory_account_updated, jam_directory_friend_updated;");
    made.run(schema::SCHEMA);
    made.run("INSERT INTO accounts (user_id, user_api_token) VALUES (1, 'other')");
    until(BACK + SLACK, "the other tables are read", async || {
        let asked = directory.answer(Question::Account(id("1"))).await;
        asked.is_ok() && token_is(&directory, "1", "other").await && directory.replacements() == 1
    })
    .await;
}

#[tokio::test]
async fn a_trigger_that_is_switched_off_ends_belief_and_is_told() {
    let made = with_users(database());
    let directory = open_on(&made);
    assert!(are_friends(&directory, "1", "2").await);
    made.run("ALTER TABLE user_friends DISABLE TRIGGER jam_directory_update");
    until(LEASE + SLACK, "memory is not believed", async || {
        !knows_friendship(&directory, "1", "2")
    })
    .await;
    until(SILENCE + SLACK, "it is told", async || {
        let asked = directory.answer(Question::Account(id("1"))).await;
        asked.is_err_and(|error| error.to_string().contains("triggers"))
    })
    .await;
    made.run("ALTER TABLE user_friends ENABLE ALWAYS TRIGGER jam_directory_update");
    until_it_answers(&directory, BACK + SLACK).await;
    assert!(are_friends(&directory, "1", "2").await);
}

/// As a standby is promoted that has not had the last commits, or a backup is put back.
#[tokio::test]
async fn a_database_that_has_lost_commits_is_another_one() {
    let mut server = TestServer::start();
    let made = with_users(server.database());
    let directory = open_on(&made);
    server.stop();
    let copy = |from: &str, to: &str| {
        let dir = server.socket_folder();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(dir.join(from))
            .arg(dir.join(to))
            .status();
        assert!(copied.unwrap().success());
    };
    copy("data", "backup");
    server.restart();
    until_it_answers(&directory, BACK + SLACK).await;
    made.run("INSERT INTO accounts (user_id) VALUES (4)");
    assert!(account(&directory, "4").await.is_some());
    directory.look().await.unwrap();
    assert_eq!(directory.replacements(), 0);
    server.stop();
    std::fs::remove_dir_all(server.socket_folder().join("data")).unwrap();
    let dir = server.socket_folder();
    std::fs::rename(dir.join("backup"), dir.join("data")).unwrap();
    server.restart();
    until_it_answers(&directory, BACK + SLACK).await;
    assert_eq!(directory.replacements(), 1);
    assert!(account(&directory, "4").await.is_none());
}

#[tokio::test]
async fn what_operators_do_is_given_up_in_time() {
    let made = with_users(database());
    let accounts = PostgresAdministration::new(&made.address());
    let other = open(&made.address(), "jam-test").await.unwrap();
    other
        .batch_execute("BEGIN; LOCK TABLE accounts")
        .await
        .unwrap();
    let began = Instant::now();
    let error = accounts.remove_user(&id("1")).await.unwrap_err();
    assert!(
        matches!(error, AdministrationError::Unavailable(_)),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(accounts.remove_user(&id("1")).await, Ok(true));
}

#[tokio::test]
async fn hosts_that_say_nothing_do_not_keep_it_from_beginning() {
    let server = TestServer::start();
    let made = with_users(server.database());
    let (_hosts, address) = behind_silent_hosts(&made, 2);
    let directory = PostgresDirectory::open(&address).unwrap();
    assert!(are_friends(&directory, "1", "2").await);
    // The connections are made anew, and lead to the host that had answered.
    made.run(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'jam-mqtt%'",
    );
    until_it_answers(&directory, BACK + SLACK).await;
}

#[tokio::test]
async fn one_bad_row_is_no_reason_to_connect_anew() {
    let client = open(&database().address(), "jam-test").await.unwrap();
    let of = async |code: &str| {
        let raise = format!("DO $$ BEGIN RAISE 'x' USING ERRCODE = '{code}'; END $$");
        let error = client.batch_execute(&raise).await.unwrap_err();
        may_be_stale(&error.into())
    };
    for code in ["0A000", "42804", "42P01", "42501"] {
        assert!(of(code).await, "{code}");
    }
    for code in ["XX001", "53200", "54000", "22P02", "57014"] {
        assert!(!of(code).await, "{code}");
    }
}
