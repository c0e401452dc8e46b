//! A mailbox in a directory of its own, and shorthands.

use std::fs;
use std::num::NonZeroU16;
use std::ops::Deref;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jam_core::directory::{Life, Mark};
use jam_core::ids::{ClientId, UserId};
use jam_core::message::Message;
use jam_core::store::{
    Append, Completion, MailboxStore, Recovered, RecoveredEntry, Seq, SessionRecord, StoreEvents,
    Subscription, WillRecord, Write, Writes,
};
use jam_core::time::Time;
use jam_testkit::packets;
use jam_wire::packet::{Publish, QoS};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::mailbox::sqlite::{OpenError, SqliteMailbox, SqliteMailboxAdministration, schema};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a call, under its number.
pub(super) type Outcome = (u64, Result<(), Rejected>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejected;

/// Says what became of a call.
#[derive(Debug)]
pub(super) struct Told(pub(super) SyncSender<Outcome>, pub(super) u64);

impl Completion for Told {
    fn committed(self) {
        let _ = self.0.send((self.1, Ok(())));
    }

    fn rejected(self) {
        let _ = self.0.send((self.1, Err(Rejected)));
    }
}

type OnPurge = Box<dyn Fn(UserId, Seq, Option<UserId>) + Send + Sync>;

/// Tells a test what happens.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) on_purge: Option<OnPurge>,
    pub(super) on_end: Option<Box<dyn Fn(Seq) + Send + Sync>>,
    pub(super) on_failing: Option<Box<dyn Fn() + Send + Sync>>,
}

impl StoreEvents for Hooks {
    fn purge(&self, user: &UserId, up_to: Seq, from: Option<&UserId>) {
        (self.on_purge.as_ref().unwrap())(user.clone(), up_to, from.cloned());
    }

    fn end(&self, _: &UserId, up_to: Seq) {
        (self.on_end.as_ref().unwrap())(up_to);
    }

    fn failing(&self) {
        if let Some(on_failing) = &self.on_failing {
            on_failing();
        }
    }
}

/// A mailbox whose completions tell tests.
pub(super) type Mailbox = SqliteMailbox<Told>;

pub(super) fn wait_until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
}

/// What is found when a mailbox is opened.
pub(super) struct Found {
    /// In the order of their numbers.
    pub(super) entries: Vec<RecoveredEntry>,
    rest: Recovered,
}

impl Deref for Found {
    type Target = Recovered;

    fn deref(&self) -> &Recovered {
        &self.rest
    }
}

pub(super) fn admin(dir: &Path) -> SqliteMailboxAdministration {
    SqliteMailboxAdministration::of(dir.to_owned())
}

pub(super) fn open(dir: &Path) -> Result<(Arc<Mailbox>, Found), OpenError> {
    let (mailbox, rest) = Mailbox::open(dir)?;
    let entries = Mutex::new(Vec::new());
    let count = mailbox
        .recover_entries(&|entry| entries.lock().unwrap().push(entry))
        .map_err(|error| *error.downcast().unwrap())?;
    let mut entries = entries.into_inner().unwrap();
    assert_eq!(entries.len(), count);
    entries.sort_by_key(|entry| entry.seq);
    Ok((mailbox, Found { entries, rest }))
}

/// A mailbox, its directory, and the answers it gives.
pub(super) struct Setting {
    pub(super) mailbox: Option<Arc<Mailbox>>,
    pub(super) dir: TempDir,
    to: SyncSender<Outcome>,
    pub(super) answers: Receiver<Outcome>,
}

impl Setting {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mailbox, recovered) = open(dir.path()).unwrap();
        assert!(recovered.entries.is_empty() && recovered.sessions.is_empty());
        let (to, answers) = sync_channel(1 << 16);
        Self {
            mailbox: Some(mailbox),
            dir,
            to,
            answers,
        }
    }

    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        self.mailbox.as_ref().unwrap()
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes, and has the answer come under `number`.
    pub(super) fn ask(&self, number: u64, writes: impl IntoIterator<Item = Write>) {
        let answer = Told(self.to.clone(), number);
        self.mailbox()
            .shared
            .push(writes.into_iter().collect(), Some(answer));
    }

    pub(super) fn write(&self, writes: impl IntoIterator<Item = Write>) {
        self.mailbox()
            .write(&user("1"), writes.into_iter().collect::<Writes>(), None);
    }

    pub(super) fn flush(&self) {
        assert!(self.mailbox().flush(PATIENCE));
    }

    pub(super) fn answer(&self) -> Outcome {
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    pub(super) fn load(&self, seqs: &[Seq]) -> Vec<(Seq, Arc<Message>)> {
        let (to, from) = sync_channel(1);
        let then = Box::new(move |found| to.send(found).unwrap());
        self.mailbox().load(&user("1"), seqs.to_vec(), then);
        from.recv_timeout(PATIENCE).unwrap()
    }

    pub(super) fn close(&mut self) {
        let mailbox = self.mailbox.take().unwrap();
        drop(Arc::try_unwrap(mailbox).unwrap());
    }

    pub(super) fn reopen(&mut self) -> Found {
        if self.mailbox.is_some() {
            self.close();
        }
        let (mailbox, recovered) = self.open_closed().unwrap();
        self.mailbox = Some(mailbox);
        recovered
    }

    /// Opens what has been closed.
    pub(super) fn open_closed(&self) -> Result<(Arc<Mailbox>, Found), OpenError> {
        let started = Instant::now();
        loop {
            match open(self.dir.path()) {
                // A process that another test starts has the lock too, until it is that process.
                Err(OpenError::InUse(_)) if started.elapsed() < PATIENCE => thread::yield_now(),
                opened => return opened,
            }
        }
    }
}

impl Setting {
    /// A mailbox as an earlier version of the schema had it, empty and closed.
    pub(super) fn of_version(version: usize) -> Self {
        let mut setting = Self::new();
        setting.close();
        fs::remove_file(setting.path().join("mailbox.db")).unwrap();
        let id = schema::APPLICATION_ID;
        setting.sql(&format!(
            "PRAGMA application_id = {id}; PRAGMA user_version = {version}"
        ));
        schema::migrations::MIGRATIONS[..version]
            .iter()
            .for_each(|step| setting.sql(step));
        setting
    }

    fn connection(&self) -> Connection {
        Connection::open(self.path().join("mailbox.db")).unwrap()
    }

    /// Rows in a table of the file.
    pub(super) fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let connection = self.connection();
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// Changes the file by SQL.
    pub(super) fn sql(&self, sql: &str) {
        self.connection().execute_batch(sql).unwrap();
    }
}

pub(super) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(super) fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

pub(super) fn message(topic: &str, payload: impl Into<Bytes>) -> Arc<Message> {
    message_under(Some(NonZeroU16::MIN), topic, payload)
}

/// A message of 7 to 1, written by one of the accounts that have had that id.
pub(super) fn append_by(seq: Seq, account: Option<Life>) -> Write {
    let publish = message("/1/inbox", r#"{"from":"7"}"#).to_stored();
    let (at, never) = (Time::from_millis(1_700_000_000_000), Time::NEVER);
    Write::Append(Append {
        seq,
        user: user("1"),
        message: Arc::new(Message::from_stored(publish, user("7"), account, at, never)),
        inbox: true,
        retained: false,
        waits_for: 1,
    })
}

/// A message that was published under this packet id; a will has none.
pub(super) fn message_under(
    packet_id: Option<NonZeroU16>,
    topic: &str,
    payload: impl Into<Bytes>,
) -> Arc<Message> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: topic.to_owned().into(),
        packet_id,
        properties: None,
        payload: payload.into(),
    };
    let at = Time::from_micros(1_700_000_000_000_999);
    Arc::new(Message::from_stored(
        publish,
        user("7"),
        None,
        at,
        Time::NEVER,
    ))
}

pub(super) fn append(seq: Seq) -> Write {
    append_of(seq, "1", seq.to_string())
}

pub(super) fn append_of(seq: Seq, to: &str, payload: impl Into<Bytes>) -> Write {
    Write::Append(Append {
        seq,
        user: user(to),
        message: message(&format!("/{to}/inbox"), payload),
        inbox: true,
        retained: false,
        waits_for: 1,
    })
}

/// A retained message of user 1.
pub(super) fn retain_of(seq: Seq, topic: &str, payload: impl Into<Bytes>) -> Write {
    Write::Retain(Append {
        seq,
        user: user("1"),
        message: message(topic, payload),
        inbox: false,
        retained: true,
        waits_for: 0,
    })
}

/// Its number is to be set.
pub(super) fn will(topic: &str) -> WillRecord {
    WillRecord {
        id: 0,
        user: user("1"),
        will: packets::will(topic, "bye"),
        token: Some(Mark::new([1; Mark::LEN])),
    }
}

pub(super) fn subscription(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: true,
        id: Some(9),
    }
}

pub(super) fn record(id: u64) -> Box<SessionRecord> {
    Box::new(SessionRecord {
        id,
        user: user("1"),
        client: ClientId::new("1:phone"),
        slot: 3,
        expiry: Duration::from_secs(3600),
        ends_at: None,
        will: None,
        will_at: None,
        maybe_sent_before_crash: 0,
        subscriptions: Vec::new(),
        token: Some(Mark::new([2; Mark::LEN])),
    })
}
