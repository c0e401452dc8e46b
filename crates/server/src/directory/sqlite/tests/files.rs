//! Files that belong together are removed and replaced while the database is open.
//!
//! Only other processes write here: SQLite shares what it knows of a file among the connections of one process.

use std::path::{Path, PathBuf};

use super::*;

/// A jam database in WAL mode that nobody has open.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        let Jam { dir, other } = Jam::new("wal");
        other.close().unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("jam.db")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("jam.db{suffix}"))
    }

    fn writer(&self) -> OtherProcess {
        OtherProcess::on(&self.path())
    }

    /// Replaces the file by one with these tokens.
    fn replace(&self, mode: &str, token: &str) {
        let new = Jam::new(mode);
        new.run(&format!("UPDATE accounts SET user_api_token = '{token}'"));
        let path = new.path();
        new.other.close().unwrap();
        std::fs::rename(path, self.path()).unwrap();
    }
}

#[tokio::test]
async fn a_log_that_is_removed_is_noticed() {
    for removed in [&["-wal", "-shm"][..], &["-shm"], &["-wal"]] {
        for held in [false, true] {
            let files = Files::new();
            let mut before = files.writer();
            before.run("UPDATE accounts SET inactive = 1");
            let directory = SqliteDirectory::open(&files.path()).unwrap();
            assert!(token_is(&directory, "1", "one").await);
            let before = held.then_some(before);
            for suffix in removed {
                std::fs::remove_file(files.beside(suffix)).unwrap();
            }
            let mut after = files.writer();
            after.run("UPDATE accounts SET user_api_token = 'new' WHERE user_id = 1");
            directory.look().await.unwrap();
            assert!(
                token_is(&directory, "1", "new").await,
                "{removed:?}, held: {held}"
            );
            after.run("UPDATE accounts SET user_api_token = 'newer' WHERE user_id = 1");
            std::thread::sleep(AGE);
            assert!(token_is(&directory, "1", "newer").await, "{removed:?}");
            drop(before);
        }
    }
}

#[tokio::test]
async fn a_replaced_file_is_not_read_with_the_log_of_the_old_one() {
    for mode in ["wal", "delete"] {
        let files = Files::new();
        let directory = SqliteDirectory::open(&files.path()).unwrap();
        let mut web = files.writer();
        web.run("PRAGMA wal_autocheckpoint = 0");
        web.run("UPDATE accounts SET user_api_token = 'later'");
        std::thread::sleep(AGE);
        assert!(token_is(&directory, "1", "later").await);
        files.replace(mode, "restored");
        directory.look().await.unwrap();
        assert!(token_is(&directory, "1", "restored").await, "{mode}");
        assert!(files.beside("-wal.replaced").exists());
        // Who opens it from now on is on the same file.
        files
            .writer()
            .run("UPDATE accounts SET user_api_token = 'newest'");
        std::thread::sleep(AGE);
        assert!(token_is(&directory, "1", "newest").await, "{mode}");
    }
}

/// SQLite would roll the new file back to what the old one was.
#[tokio::test]
async fn a_replaced_file_is_not_read_with_the_journal_of_the_old_one() {
    for mode in ["wal", "delete"] {
        let files = Files::new();
        files.writer().run("PRAGMA journal_mode = delete");
        let directory = SqliteDirectory::open(&files.path()).unwrap();
        let mut web = files.writer();
        web.run("BEGIN IMMEDIATE");
        web.run("UPDATE accounts SET user_api_token = 'never committed'");
        assert!(files.beside("-journal").exists());
        directory.look().await.unwrap();
        files.replace(mode, "new");
        directory.look().await.unwrap();
        assert!(token_is(&directory, "1", "new").await, "{mode}");
        assert!(!files.beside("-journal").exists(), "{mode}");
        assert!(files.beside("-journal.replaced").exists(), "{mode}");
    }
}

/// Descriptors of this process that are open on something in `dir`.
#[cfg(target_os = "linux")]
fn descriptors_in(dir: &Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|file| file.starts_with(dir))
        .count()
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn replacements_leave_no_descriptor() {
    for mode in ["wal", "delete"] {
        let files = Files::new();
        let directory = SqliteDirectory::open(&files.path()).unwrap();
        let mut counts = Vec::new();
        for round in 0..10 {
            let token = format!("token-{round}");
            files.replace(mode, &token);
            for _ in 0..3 {
                directory.look().await.unwrap();
            }
            assert!(token_is(&directory, "1", &token).await);
            counts.push(descriptors_in(files.dir.path()));
        }
        assert_eq!(
            counts[2..].iter().max(),
            counts[2..].iter().min(),
            "{counts:?}"
        );
    }
}

#[tokio::test]
async fn after_an_error_the_file_is_opened_anew() {
    let jam = Jam::new("delete");
    let directory = jam.open();
    assert!(token_is(&directory, "1", "one").await);
    let whole = std::fs::read(jam.path()).unwrap();
    // In place, as a failing disk does it.
    std::fs::write(jam.path(), [0xFF; 4096]).unwrap();
    directory.look().await.unwrap_err();
    assert!(matches!(directory.account(&id("1")), Lookup::Unknown));
    std::fs::write(jam.path(), &whole).unwrap();
    let began = Instant::now();
    while directory.look().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(token_is(&directory, "1", "one").await);
}

/// A file that is gone for a moment, and one that cannot be opened for a while.
#[tokio::test]
async fn what_comes_back_is_taken_up() {
    let files = Files::new();
    let directory = SqliteDirectory::open(&files.path()).unwrap();
    let away = files.beside(".away");
    std::fs::rename(files.path(), &away).unwrap();
    directory.look().await.unwrap();
    assert!(token_is(&directory, "1", "one").await, "as it was");
    std::fs::write(files.path(), "no database").unwrap();
    directory.look().await.unwrap_err();
    std::fs::rename(&away, files.path()).unwrap();
    let began = Instant::now();
    while directory.look().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    files
        .writer()
        .run("UPDATE accounts SET user_api_token = 'new'");
    std::thread::sleep(AGE);
    assert!(token_is(&directory, "1", "new").await);
}

#[tokio::test]
async fn a_foreign_file_stays_as_it_is() {
    let jam = Jam::new("delete");
    let before = std::fs::read(jam.path()).unwrap();
    let directory = jam.open();
    assert!(friends(&directory, "1", "2").await);
    drop(directory);
    assert_eq!(std::fs::read(jam.path()).unwrap(), before);

    let (one, two) = (id("1"), id("2"));
    jam.administration()
        .set_blocked(&two, &one, true)
        .await
        .unwrap();
    let mode: String = jam
        .other
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "delete");

    let jam = Jam::new("wal");
    jam.administration()
        .set_blocked(&two, &one, true)
        .await
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

#[tokio::test]
async fn a_new_directory() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let directory = SqliteDirectory::open_or_create(&path).unwrap();
    assert!(account(&directory, "1").await.is_none());
    let accounts = administration_of(&path);
    let token = NewToken::random().unwrap();
    accounts
        .add_user(&id("1"), Some("Ann"), &token)
        .await
        .unwrap();
    accounts.add_user(&id("2"), None, &token).await.unwrap();
    accounts.befriend(&id("1"), &id("2")).await.unwrap();
    std::thread::sleep(AGE);
    assert!(token_is(&directory, "1", token.expose()).await);
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

#[tokio::test]
async fn many_processes_may_create_the_directory_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jam.db");
    let add = |n: u32| {
        let accounts = administration_of(&path);
        tokio::spawn(async move {
            let token = NewToken::random().unwrap();
            accounts.add_user(&id(&n.to_string()), None, &token).await
        })
    };
    for added in (1..=8).map(add).collect::<Vec<_>>() {
        added.await.unwrap().unwrap();
    }
    assert_eq!(inspect(&path).unwrap().accounts, 8);
}
