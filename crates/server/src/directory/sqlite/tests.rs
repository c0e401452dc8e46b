//! A second connection, and where it matters a second process, writes while the directory answers.

mod administration;
mod files;
mod lives;
mod looking;
mod presence;
mod pushing;
mod shown;
mod tokens;
mod values;
mod waiting;

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

use super::shared::SILENCE;
use super::*;
use crate::settings::DirectoryFile;

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

    fn administration(&self) -> Arc<dyn Administration> {
        administration_of(&self.path())
    }

    fn run(&self, sql: &str) {
        self.other.execute_batch(sql).unwrap();
    }
}

/// As the commands have it, for a file that the server makes by itself.
fn administration_of(path: &Path) -> Arc<dyn Administration> {
    Arc::new(SqliteAdministration::new(&DirectoryFile {
        path: path.to_owned(),
        named: false,
        map_shm: true,
    }))
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

    fn on(path: &Path) -> Self {
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
