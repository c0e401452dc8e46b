//! A second connection, and where it matters a second process, writes while the directory answers.

mod files;
mod lives;
mod pushing;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jam_core::directory::{
    Account, Answer, Answers, Directory, Fact, Friendship, Generation, Known, Lookup,
    NotificationToken, Question,
};
use jam_core::ids::UserId;
use rusqlite::{Connection, StatementStatus};
use tempfile::TempDir;

use super::admin::User;
use super::database::SILENCE;
use super::*;

mod presence;

const JAM: &str = "
    CREATE TABLE accounts (user_id INTEGER PRIMARY KEY AUTOINCREMENT, user_email TEXT UNIQUE,
        username TEXT UNIQUE, user_password_hash TEXT, user_notification_token TEXT,
        user_api_token TEXT, inactive BOOLEAN DEFAULT TRUE, public_key TEXT);
    CREATE TABLE user_friends (user_id INTEGER, friend_id INTEGER, blocked BOOLEAN,
        been_blocked BOOLEAN, PRIMARY KEY (user_id, friend_id));
    CREATE TABLE user_devices (user_id INTEGER PRIMARY KEY, device_id TEXT);
    INSERT INTO accounts (user_id, user_api_token) VALUES (1, 'one'), (2, 'two'), (3, 'three');
    INSERT INTO user_friends VALUES (1, 2, 0, 0), (2, 1, 0, 0);";

/// More than the age at which the file is looked at again.
const AGE: Duration = Duration::from_millis(2);

fn id(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// A jam database made by somebody else.
struct Jam {
    dir: TempDir,
    other: Connection,
}

impl Jam {
    fn new(journal_mode: &str) -> Self {
        Self::with(journal_mode, JAM)
    }

    fn with(journal_mode: &str, sql: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let other = Connection::open(dir.path().join("jam.db")).unwrap();
        other
            .pragma_update_and_check(None, "journal_mode", journal_mode, |_| Ok(()))
            .unwrap();
        other.execute_batch(sql).unwrap();
        Self { dir, other }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("jam.db")
    }

    fn open(&self) -> SqliteDirectory {
        SqliteDirectory::open(&self.path()).unwrap()
    }

    /// One that reads at once what it has to, and one that leaves it to its thread.
    fn open_both(&self) -> [SqliteDirectory; 2] {
        let both = [self.open(), self.open()];
        both[1].leave_all_to_the_loader();
        both
    }

    fn run(&self, sql: &str) {
        self.other.execute_batch(sql).unwrap();
    }
}

/// Asks as a connection does: looks up, and asks once for what memory does not know.
async fn ask<T>(
    directory: &SqliteDirectory,
    look_up: impl Fn(Known<'_>) -> Result<(T, Generation), Question>,
) -> T {
    let mut answers = Answers::default();
    for is_first in [true, false] {
        let answers_now = Known {
            directory,
            answers: &answers,
        };
        match look_up(answers_now) {
            Ok((fact, _)) => return fact,
            Err(question) if is_first => {
                let answer = directory.answer(question).await.unwrap();
                answers.add(answer).unwrap();
            }
            Err(question) => panic!("{question:?} is not answered"),
        }
    }
    unreachable!("the second time it is answered");
}

async fn friends(directory: &SqliteDirectory, sender: &str, receiver: &str) -> bool {
    let (sender, receiver) = (id(sender), id(receiver));
    ask(directory, |it| it.friendship(&sender, &receiver)).await != Friendship::NotFriends
}

async fn account(directory: &SqliteDirectory, user: &str) -> Option<Account> {
    let user = id(user);
    ask(directory, |it| it.account(&user)).await
}

async fn token_is(directory: &SqliteDirectory, user: &str, token: &str) -> bool {
    let account = account(directory, user).await;
    let known = account.and_then(|account| account.token);
    known.is_some_and(|known| known.is(token.as_bytes()))
}

/// The thread of a directory hangs until what comes back is dropped.
pub(crate) async fn hang(directory: &dyn AccountsDatabase) -> tokio::sync::oneshot::Sender<()> {
    let directory: &dyn std::any::Any = directory;
    let directory = directory.downcast_ref::<SqliteDirectory>();
    directory.expect("a thread that can hang").hang().await
}

async fn push(directory: &SqliteDirectory, user: &str) -> NotificationToken {
    let user = id(user);
    ask(directory, |it| it.notification_token(&user)).await
}

/// Python with a connection of its own: each line sent is a statement, each line back says "done".
struct OtherProcess {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl OtherProcess {
    fn start(jam: &Jam) -> Self {
        Self::on(&jam.path())
    }

    fn on(path: &std::path::Path) -> Self {
        let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for line in sys.stdin:
    db.execute(line)
    print('done', flush=True)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 plays the other process");
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn run(&mut self, sql: &str) {
        writeln!(self.to, "{sql}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n", "{sql}");
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
async fn a_writer_is_never_in_the_way() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = jam.open();
        let mut other = OtherProcess::start(&jam);
        assert!(friends(&directory, "1", "2").await);
        other.run("BEGIN IMMEDIATE");
        other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
        for _ in 0..20 {
            std::thread::sleep(AGE);
            // What is not committed is not seen, and memory goes on answering without the thread.
            let known = directory.friendship(&id("1"), &id("2"));
            assert!(
                matches!(known, Lookup::Known(Friendship::Friends(_), _)),
                "{mode}"
            );
            assert!(!friends(&directory, "1", "3").await, "{mode}");
        }
        // Nor is the directory in the writer's way: no lock of ours delays this commit.
        let began = Instant::now();
        other.run("COMMIT");
        assert!(began.elapsed() < Duration::from_secs(1), "{mode}");
        std::thread::sleep(AGE);
        assert!(!friends(&directory, "1", "2").await, "{mode}");
    }
}

#[tokio::test]
async fn an_exclusive_lock_only_delays() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    assert!(friends(&directory, "1", "2").await);
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
    tokio::time::sleep(AGE * 2).await;

    let began = Instant::now();
    let looked_up = directory.friendship(&id("1"), &id("2"));
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "a look-up never waits"
    );
    assert_eq!(
        looked_up,
        Lookup::Unknown,
        "what may have changed is not told"
    );

    let asking = Arc::clone(&directory);
    let answer = tokio::spawn(async move { friends(&asking, "1", "2").await });
    // This test has one worker; it is free for others all the while.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!answer.is_finished());
    other.run("COMMIT");
    assert!(!answer.await.unwrap(), "then the right answer comes");
}

#[tokio::test]
async fn nobody_waits_for_a_lock_longer_than_his_own_five_seconds() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    let mut asking = tokio::task::JoinSet::new();
    // They come while others wait, who are not to cost them their time.
    for _ in 0..8 {
        for receiver in ["2", "3"] {
            let directory = Arc::clone(&directory);
            let (sender, receiver) = (id("1"), id(receiver));
            asking.spawn(async move {
                let began = Instant::now();
                let question = Question::Friendship { sender, receiver };
                assert!(directory.answer(question).await.is_err());
                began.elapsed()
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    while let Some(waited) = asking.join_next().await {
        let waited = waited.unwrap();
        assert!(waited >= Duration::from_millis(4900), "{waited:?}");
        assert!(waited < Duration::from_millis(5900), "{waited:?}");
    }
}

#[tokio::test]
async fn a_thread_that_hangs_does_not_answer() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = Arc::new(jam.open());
        assert!(friends(&directory, "1", "2").await);
        assert!(directory.look().await.is_ok());
        let hang = hang(&*directory).await;

        // A question that is asked before that is known is answered in a bounded time.
        let began = Instant::now();
        let question = || Question::Account(id("1"));
        let (loaded, looked) = tokio::join!(directory.answer(question()), directory.look());
        assert!(loaded.is_err() && looked.is_err());
        assert!(began.elapsed() < SILENCE * 3);

        // From then on memory is not believed, and a question is answered at once.
        assert_eq!(directory.friendship(&id("1"), &id("2")), Lookup::Unknown);
        let began = Instant::now();
        assert!(directory.answer(question()).await.is_err());
        assert!(directory.accounts(&[id("1")]).await.is_err());
        assert!(began.elapsed() < SILENCE / 2);

        drop(hang);
        assert!(directory.look().await.is_ok());
        assert!(friends(&directory, "1", "2").await, "it answers again");
    }
}

/// A connections' thread waits for the disk in a look. The others do not wait with it, and learn that the file does not
/// answer.
#[tokio::test]
async fn a_look_that_hangs_holds_its_own_thread_alone() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = Arc::new(jam.open());
        assert!(friends(&directory, "1", "2").await);
        let (hangs, hung) = std::sync::mpsc::sync_channel(1);
        let (end, until) = std::sync::mpsc::sync_channel::<()>(1);
        let other = Arc::clone(&directory);
        let hanging = std::thread::spawn(move || {
            other.look_while(move || {
                hangs.send(()).unwrap();
                until.recv().unwrap_err();
            });
        });
        hung.recv().unwrap();
        std::thread::sleep(AGE);
        let began = Instant::now();
        let _ = directory.friendship(&id("1"), &id("2"));
        assert!(began.elapsed() < SILENCE / 2, "{mode}: it waits for nobody");
        assert!(directory.look().await.is_err());
        assert!(began.elapsed() < SILENCE * 3, "{mode}");
        assert_eq!(directory.friendship(&id("1"), &id("2")), Lookup::Unknown);
        drop(end);
        hanging.join().unwrap();
        assert!(directory.look().await.is_ok());
        assert!(friends(&directory, "1", "2").await, "it answers again");
    }
}

/// The same in a read: the loader answers all other questions.
#[tokio::test]
async fn a_read_that_hangs_holds_its_own_thread_alone() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = Arc::new(jam.open());
        let (hangs, hung) = std::sync::mpsc::sync_channel(1);
        let (end, until) = std::sync::mpsc::sync_channel::<()>(1);
        let other = Arc::clone(&directory);
        let hanging = std::thread::spawn(move || {
            other.hang_reading_while(|| {
                hangs.send(()).unwrap();
                until.recv().unwrap_err();
            });
        });
        hung.recv().unwrap();
        let began = Instant::now();
        assert!(friends(&directory, "1", "2").await, "{mode}");
        assert!(directory.look().await.is_ok(), "{mode}");
        assert!(began.elapsed() < SILENCE / 2, "{mode}");
        drop(end);
        hanging.join().unwrap();
        assert!(friends(&directory, "2", "1").await, "{mode}");
    }
}

#[tokio::test]
async fn opening_waits_for_a_lock() {
    let jam = Jam::new("delete");
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    let path = jam.path();
    let opening = tokio::task::spawn_blocking(move || SqliteDirectory::open(&path));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    other.run("COMMIT");
    assert!(friends(&opening.await.unwrap().unwrap(), "1", "2").await);
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

#[tokio::test]
async fn hostile_ids_are_nobody() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    for hostile in [
        "01",
        "1.0",
        "1e0",
        " 1",
        "1 ",
        "-0",
        "00",
        "0x1",
        "1_",
        "9223372036854775808",
        "１",
        "-9223372036854775809",
        "1\n",
        "one",
        "NULL",
        "1;",
    ] {
        assert!(account(&directory, hostile).await.is_none(), "{hostile:?}");
        assert!(!friends(&directory, hostile, "2").await, "{hostile:?}");
        assert!(!friends(&directory, "2", hostile).await, "{hostile:?}");
        assert_eq!(
            push(&directory, hostile).await,
            NotificationToken::Absent,
            "{hostile:?}"
        );
    }
    assert_eq!(schema::row_id("+1"), None);
    assert_eq!(schema::row_id(""), None);
    assert_eq!(schema::row_id("-"), None);
    assert_eq!(schema::row_id("-5"), Some(-5));
    assert_eq!(schema::row_id("0"), Some(0));
    assert_eq!(schema::row_id("9223372036854775807"), Some(i64::MAX));
}

#[tokio::test]
async fn flags_as_others_write_them() {
    for (flags, allowed) in [
        ("0, 0", true),
        ("0.0, '0'", true),
        ("FALSE, 'false'", true),
        ("'False', 0", true),
        ("1, 0", false),
        ("0, 1", false),
        ("0, 2.5", false),
        ("'true', 0", false),
        ("0, 'yes'", false),
        ("NULL, 0", false),
        ("0, NULL", false),
        ("0, x'00'", false),
        ("'', 0", false),
    ] {
        let jam = Jam::new("delete");
        jam.run(&format!("REPLACE INTO user_friends VALUES (2, 1, {flags})"));
        assert_eq!(friends(&jam.open(), "1", "2").await, allowed, "{flags}");
    }
}

#[tokio::test]
async fn ids_in_columns_without_a_type() {
    let sql = "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token TEXT);
        INSERT INTO accounts VALUES (1, 'one'), (2, 'two'), (3, 'three');
        CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);
        INSERT INTO user_friends VALUES ('2', '1', 0, 0), (3, 1, 0, 0), ('3', '1', 1, 0);";
    let jam = Jam::with("delete", sql);
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    assert!(
        !friends(&directory, "1", "3").await,
        "one row that forbids is enough"
    );
}

#[tokio::test]
async fn tokens_as_others_write_them() {
    let sql = "CREATE TABLE accounts (user_id INTEGER PRIMARY KEY, user_api_token);
        CREATE TABLE user_friends (user_id, friend_id, blocked, been_blocked);
        INSERT INTO accounts VALUES (1, 42), (2, x'0aff'), (3, NULL), (4, ''), (5, 1.5), (6, x'');";
    let jam = Jam::with("delete", sql);
    let directory = jam.open();
    assert!(token_is(&directory, "1", "42").await);
    let blob = account(&directory, "2").await.unwrap().token.unwrap();
    assert!(blob.is(&[0x0a, 0xff]));
    for nobody in ["3", "4", "5", "6"] {
        assert!(
            account(&directory, nobody).await.unwrap().token.is_none(),
            "{nobody}"
        );
    }
    let users = ["1", "3", "01", "9"].map(id);
    let accounts = directory.accounts(&users).await.unwrap();
    let has_token = |answer: &Answer| match &answer.fact {
        Fact::Account(account) => account.as_ref().map(|it| it.token.is_some()),
        other => panic!("{other:?}"),
    };
    let tokens: Vec<_> = accounts.iter().map(has_token).collect();
    assert_eq!(tokens, [Some(true), Some(false), None, None]);
}

#[tokio::test]
async fn notification_tokens() {
    let jam = Jam::new("delete");
    jam.run("UPDATE accounts SET user_notification_token = 'n' WHERE user_id = 1");
    jam.run("UPDATE accounts SET user_notification_token = '' WHERE user_id = 2");
    let directory = jam.open();
    assert_eq!(push(&directory, "1").await, NotificationToken::Present);
    for without in ["2", "3", "4"] {
        assert_eq!(push(&directory, without).await, NotificationToken::Absent);
    }
    jam.run("ALTER TABLE accounts DROP COLUMN user_notification_token");
    std::thread::sleep(AGE);
    assert_eq!(push(&directory, "1").await, NotificationToken::Unreadable);
    assert!(
        friends(&directory, "1", "2").await,
        "everything else goes on"
    );
    assert_eq!(push(&jam.open(), "1").await, NotificationToken::Unreadable);
    jam.run("ALTER TABLE accounts ADD COLUMN user_notification_token TEXT");
    std::thread::sleep(AGE);
    assert_eq!(push(&directory, "1").await, NotificationToken::Absent);
}

#[test]
fn what_is_missing_is_named() {
    for (change, said) in [
        ("DROP TABLE accounts", "no table accounts"),
        ("DROP TABLE user_friends", "no table user_friends"),
        (
            "ALTER TABLE accounts DROP COLUMN user_api_token",
            "no column user_api_token",
        ),
        (
            "ALTER TABLE user_friends DROP COLUMN blocked",
            "no column blocked",
        ),
        (
            "ALTER TABLE user_friends DROP COLUMN been_blocked",
            "no column been_blocked",
        ),
    ] {
        let jam = Jam::new("delete");
        jam.run(change);
        let error = SqliteDirectory::open(&jam.path()).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("jam.db"), "{error}");
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let error = SqliteDirectory::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("there is no accounts database at"),
        "{error}"
    );
    assert!(!path.exists(), "opening creates nothing");
    std::fs::write(
        &path,
        "this is text and long enough to be read as a header".repeat(40),
    )
    .unwrap();
    let error = SqliteDirectory::open(&path).unwrap_err().to_string();
    assert!(error.contains("not an SQLite database"), "{error}");
}

#[tokio::test]
async fn a_table_that_goes_away_later_is_an_error_and_not_an_answer() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    jam.run("DROP TABLE user_friends");
    std::thread::sleep(AGE);
    assert_eq!(directory.friendship(&id("1"), &id("2")), Lookup::Unknown);
    let question = Question::Friendship {
        sender: id("1"),
        receiver: id("2"),
    };
    let error = directory.answer(question).await.unwrap_err().to_string();
    assert!(error.contains("user_friends"), "{error}");
}

#[tokio::test]
async fn a_foreign_file_stays_as_it_is() {
    let jam = Jam::new("delete");
    let before = std::fs::read(jam.path()).unwrap();
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    drop(directory);
    assert_eq!(std::fs::read(jam.path()).unwrap(), before);

    let mut admin = Administration::open(&jam.path()).unwrap();
    admin.set_blocked("2", "1", true).unwrap();
    let mode: String = jam
        .other
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "delete");

    let jam = Jam::new("wal");
    Administration::open(&jam.path())
        .unwrap()
        .set_blocked("2", "1", true)
        .unwrap();
    jam.run("PRAGMA wal_checkpoint"); // the owner's business, and nothing is in its way
}

#[tokio::test]
async fn another_file_at_the_same_path() {
    let jam = Jam::new("wal");
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    let before = directory.look().await.unwrap();
    assert_eq!(directory.look().await.unwrap(), before);

    let restored = Jam::new("delete");
    restored.run("UPDATE user_friends SET blocked = 1");
    std::fs::rename(restored.path(), jam.path()).unwrap();
    let _ = std::fs::remove_file(jam.dir.path().join("jam.db-wal"));
    assert_ne!(directory.look().await.unwrap(), before);
    assert!(!friends(&directory, "1", "2").await);
}

#[tokio::test]
async fn what_cannot_be_opened_is_not_answered_from_the_file_before_it() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    let garbage = jam.dir.path().join("garbage");
    std::fs::write(&garbage, "no database").unwrap();
    std::fs::rename(garbage, jam.path()).unwrap();
    directory.look().await.unwrap_err();
    // After a rest, if there was one.
    std::thread::sleep(Duration::from_millis(100));
    let (sender, receiver) = (id("2"), id("1"));
    assert_eq!(directory.friendship(&sender, &receiver), Lookup::Unknown);
    let question = Question::Friendship { sender, receiver };
    directory.answer(question).await.unwrap_err();
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

#[tokio::test]
async fn a_new_directory() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let directory = SqliteDirectory::open_or_create(&path).unwrap();
    assert!(account(&directory, "1").await.is_none());
    let mut admin = Administration::open_or_create(&path).unwrap();
    let token = admin.add_user("1", Some("Ann"), None).unwrap();
    assert_eq!(token.len(), 64);
    admin.add_user("2", None, Some("two")).unwrap();
    admin.add_friend("1", "2").unwrap();
    std::thread::sleep(AGE);
    assert!(token_is(&directory, "1", &token).await);
    assert!(friends(&directory, "1", "2").await);
    let other = Connection::open(&path).unwrap();
    let mode: String = other
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap())
        .collect();
    let strays = files
        .iter()
        .filter(|e| !e.file_name().to_string_lossy().starts_with("jam.db"));
    assert_eq!(strays.count(), 0, "{files:?}");
}

#[test]
fn many_processes_may_create_the_directory_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let path = &path;
            scope.spawn(move || {
                let mut admin = Administration::open_or_create(path).unwrap();
                admin.add_user(&n.to_string(), None, None).unwrap();
            });
        }
    });
    assert_eq!(
        Administration::open(&path).unwrap().users().unwrap().len(),
        8
    );
}

fn fails<T: std::fmt::Debug>(result: Result<T, DirectoryError>, said: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(said), "{error:?} should hold {said:?}");
}

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

/// Otherwise each look-up of another pair would take several times as long.
#[test]
fn a_friendship_is_read_without_preparing_the_statement_again() {
    let jam = Jam::new("wal");
    let reader = schema::open_for_reading(&jam.path()).unwrap();
    for (sender, receiver) in [(1, 2), (2, 1), (1, 3), (3, 2)] {
        let found = schema::read_friendship(&reader, sender, receiver).unwrap();
        assert_eq!(found != Friendship::NotFriends, sender + receiver == 3);
    }
    let statement = reader.prepare_cached(schema::FRIENDSHIP).unwrap();
    assert_eq!(statement.get_status(StatementStatus::Run), 4);
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}
