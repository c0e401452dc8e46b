//! What others commit is seen, and looking costs little.

use super::*;

#[tokio::test]
async fn what_another_process_commits_is_seen_by_the_next_look_up() {
    for mode in ["delete", "wal", "truncate", "persist"] {
        let jam = Jam::new(mode);
        let both = jam.open_both();
        let mut other = OtherProcess::start(&jam);
        let mut commit = |sql: &str| {
            other.run(sql);
            std::thread::sleep(AGE);
        };
        for directory in &both {
            assert!(friends(directory, "1", "2").await);
            assert!(token_is(directory, "1", "one").await);
            for _ in 0..20 {
                commit("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
                assert!(!friends(directory, "1", "2").await, "{mode}: blocked");
                commit("UPDATE user_friends SET blocked = 0 WHERE user_id = 2");
                assert!(friends(directory, "1", "2").await, "{mode}: unblocked");
            }
        }
        commit("UPDATE user_friends SET been_blocked = 1 WHERE user_id = 2");
        for directory in &both {
            assert!(!friends(directory, "1", "2").await, "{mode}: been blocked");
            assert!(
                friends(directory, "2", "1").await,
                "{mode}: the other way has its own row"
            );
        }
        commit("UPDATE accounts SET user_api_token = 'new' WHERE user_id = 1");
        for directory in &both {
            assert!(token_is(directory, "1", "new").await, "{mode}: new token");
            assert!(!token_is(directory, "1", "one").await, "{mode}: old token");
        }
        commit("DELETE FROM accounts WHERE user_id = 1");
        for directory in &both {
            assert!(account(directory, "1").await.is_none(), "{mode}: deleted");
            assert!(
                !friends(directory, "2", "1").await,
                "{mode}: the receiver is gone"
            );
            assert!(
                !friends(directory, "1", "2").await,
                "{mode}: the sender is gone"
            );
        }
    }
}

#[test]
fn what_memory_does_not_know_is_read_at_once() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let [direct, loading] = jam.open_both();
        // Without the loader; on a busy machine a read may be slow, and a rest follows.
        let known = || {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(30) {
                if let Lookup::Known(friendship, _) = direct.friendship(&id("1"), &id("2")) {
                    return friendship;
                }
                std::thread::sleep(AGE);
            }
            panic!("{mode}: it is left to the loader");
        };
        assert_ne!(known(), Friendship::NotFriends);
        jam.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
        std::thread::sleep(AGE);
        assert_eq!(known(), Friendship::NotFriends);
        let unknown = loading.friendship(&id("1"), &id("2"));
        assert_eq!(unknown, Lookup::Unknown, "that one is not asked directly");
    }
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_what_was_committed() {
    let fill = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO accounts (user_id, user_api_token) SELECT i, hex(randomblob(50)) FROM n;";
    for mode in ["delete", "wal"] {
        let jam = Jam::with(mode, &format!("{JAM} {fill}"));
        let directory = jam.open();
        assert!(friends(&directory, "1", "2").await);
        let mut other = OtherProcess::start(&jam);
        // So small a cache that the file itself is written to before the commit.
        other.run("PRAGMA cache_size = 1");
        other.run("BEGIN IMMEDIATE");
        other.run("UPDATE user_friends SET blocked = 1");
        other.run("UPDATE accounts SET user_api_token = user_api_token || 'changed'");
        drop(other);
        let journal = jam.dir.path().join("jam.db-journal");
        assert_eq!(
            journal.exists(),
            mode == "delete",
            "there is something to roll back"
        );
        std::thread::sleep(AGE);
        assert!(friends(&directory, "1", "2").await, "{mode}");
        assert!(token_is(&directory, "1", "one").await, "{mode}");
        jam.run("UPDATE accounts SET user_api_token = 'new' WHERE user_id = 1");
        std::thread::sleep(AGE);
        assert!(token_is(&directory, "1", "new").await, "{mode}");
    }
}

#[tokio::test]
async fn the_journal_mode_may_change() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    jam.other
        .pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
        .unwrap();
    for (blocked, allowed) in [("1", false), ("0", true)] {
        jam.run(&format!("UPDATE user_friends SET blocked = {blocked}"));
        std::thread::sleep(AGE);
        assert_eq!(friends(&directory, "1", "2").await, allowed);
    }
}

/// A cheap look that was believed where it says nothing would make the directory blind.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn looks_are_cheap_in_wal_mode_and_see_every_commit() {
    let jam = Jam::new("delete");
    // What a process has left behind that was killed before the mode was changed back.
    let mut left_behind = jam.path().into_os_string();
    left_behind.push("-shm");
    std::fs::write(&left_behind, [0; 32 * 1024]).unwrap();
    let directory = jam.open();
    let block = |blocked: u8| jam.run(&format!("UPDATE user_friends SET blocked = {blocked}"));
    for mode in ["delete", "wal"] {
        jam.other
            .pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
            .unwrap();
        for _ in 0..50 {
            for blocked in [1, 0] {
                block(blocked);
                std::thread::sleep(AGE);
                assert_eq!(friends(&directory, "1", "2").await, blocked == 0, "{mode}");
                // The look that has seen the commit may be the one that found the file.
                directory.look().await.unwrap();
                assert_eq!(directory.looks_cheaply(), mode == "wal");
            }
        }
        block(1);
        assert!(
            !directory.looks_cheaply(),
            "{mode}: something was committed"
        );
        block(0);
    }
}

#[tokio::test]
async fn without_the_map_sqlite_is_asked_and_every_commit_is_seen() {
    let jam = Jam::new("wal");
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    directory.look().await.unwrap();
    directory.leave_wal_index();
    for blocked in [1, 0, 1] {
        jam.run(&format!("UPDATE user_friends SET blocked = {blocked}"));
        std::thread::sleep(AGE);
        assert_eq!(friends(&directory, "1", "2").await, blocked == 0);
        directory.look().await.unwrap();
        #[cfg(target_os = "linux")]
        assert!(!directory.looks_cheaply());
    }
}

#[tokio::test]
async fn a_commit_in_the_middle_of_a_look_is_seen_by_the_next_look_up() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = jam.open();
        assert!(friends(&directory, "1", "2").await);
        directory.look().await.unwrap();
        assert!(friends(&directory, "1", "2").await);
        let path = jam.path();
        directory.look_while(move || {
            let other = Connection::open(path).unwrap();
            other
                .execute_batch("UPDATE user_friends SET blocked = 1")
                .unwrap();
            std::mem::forget(other);
        });
        std::thread::sleep(AGE);
        assert!(!friends(&directory, "1", "2").await, "{mode}");
    }
}

#[tokio::test]
async fn what_is_restored_into_the_file_counts_as_another_one() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = jam.open();
        directory.look().await.unwrap();
        let before = directory.replacements();
        jam.run("UPDATE accounts SET user_api_token = 'new'");
        directory.look().await.unwrap();
        assert_eq!(directory.replacements(), before);
        jam.run("CREATE TABLE more (x)");
        directory.look().await.unwrap();
        assert_eq!(directory.replacements(), before + 1, "{mode}");
    }
}

#[tokio::test]
async fn commits_without_end_hold_nobody_up() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let both = jam.open_both();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (jam.path(), Arc::clone(&stop));
        let writer = std::thread::spawn(move || {
            let other = Connection::open(path).unwrap();
            other.busy_timeout(Duration::from_secs(10)).unwrap();
            other.pragma_update(None, "synchronous", "off").unwrap();
            let mut commits = 0;
            while !stopped.load(Ordering::Relaxed) {
                other
                    .execute("UPDATE user_devices SET device_id = 'x'", [])
                    .unwrap();
                other
                    .execute("INSERT INTO user_devices (device_id) VALUES ('y')", [])
                    .unwrap();
                commits += 2;
            }
            commits
        });
        // `ask` asks once.
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            for directory in &both {
                assert!(friends(directory, "1", "2").await);
                assert!(!friends(directory, "1", "3").await);
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 100, "{mode}: the writer did write");
    }
}

/// Microseconds of a clock that all threads of a test share.
fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap()
}

#[test]
fn nothing_stale_is_told() {
    const STALE: u64 = 30_000;
    for mode in ["delete", "wal"] {
        let jam = Jam::with(
            mode,
            &format!("{JAM} UPDATE accounts SET user_api_token = '0';"),
        );
        let both = jam.open_both().map(Arc::new);
        jam.run("PRAGMA synchronous = off");
        // The token counts up; `committed_at[n]` is when n had been committed.
        let committed_at: Arc<Vec<AtomicU64>> =
            Arc::new((0..400).map(|_| AtomicU64::new(u64::MAX)).collect());
        committed_at[0].store(clock(), Ordering::SeqCst);
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|n| {
                let (directory, stop) = (Arc::clone(&both[n % 2]), Arc::clone(&stop));
                let committed_at = Arc::clone(&committed_at);
                std::thread::spawn(move || read_tokens(&directory, &committed_at, &stop, STALE))
            })
            .collect();
        for n in 1..committed_at.len() {
            jam.run(&format!(
                "UPDATE accounts SET user_api_token = '{n}' WHERE user_id = 1"
            ));
            committed_at[n].store(clock(), Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1 + n as u64 % 7));
        }
        stop.store(true, Ordering::SeqCst);
        for reader in readers {
            assert!(
                reader.join().unwrap() > 1000,
                "{mode}: the readers did read"
            );
        }
    }
}

/// Asserts that no token is told when its successor had been committed `stale` microseconds before.
fn read_tokens(
    directory: &SqliteDirectory,
    committed_at: &[AtomicU64],
    stop: &AtomicBool,
    stale: u64,
) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let tokens: Vec<String> = (0..committed_at.len()).map(|n| n.to_string()).collect();
    let (mut answers, mut newest) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        let asked_at = clock();
        let account = runtime.block_on(account(directory, "1")).unwrap();
        let token = account.token.unwrap();
        let told = (0..tokens.len())
            .rev()
            .find(|&n| token.is(tokens[n].as_bytes()))
            .unwrap();
        if let Some(next) = committed_at.get(told + 1) {
            let next = next.load(Ordering::SeqCst);
            assert!(
                asked_at < next.saturating_add(stale),
                "{told} was told {} µs after its successor",
                asked_at - next
            );
        }
        newest = newest.max(told);
        answers += 1;
    }
    answers
}

/// As if another file had stood at the path for a moment when it was opened.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn an_index_that_tells_of_no_commit_is_given_up() {
    let (jam, other) = (Jam::new("wal"), Jam::new("wal"));
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    directory.map_the_index_of(&other.path());
    directory.look().await.unwrap();
    assert!(directory.looks_cheaply());
    jam.run("UPDATE user_friends SET blocked = 1");
    assert!(!directory.looks_cheaply());
    assert!(!friends(&directory, "1", "2").await);
}

#[tokio::test]
async fn a_look_tells_of_changes() {
    let jam = Jam::new("wal");
    let directory = jam.open();
    let first = directory.look().await.unwrap();
    assert_eq!(directory.look().await.unwrap(), first);
    jam.run("UPDATE accounts SET user_api_token = 'new' WHERE user_id = 1");
    let second = directory.look().await.unwrap();
    assert_ne!(second, first);
    assert_eq!(directory.look().await.unwrap(), second);
}
