//! A mailbox of any kind in a place of its own, and shorthands.

use std::num::NonZeroU16;
use std::ops::Deref;
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

use crate::mailbox::{MailboxAdministration, OpenError};

pub(in crate::mailbox) const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a call, under its number.
pub(in crate::mailbox) type Outcome = (u64, Result<(), Rejected>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mailbox) struct Rejected;

/// Says what became of a call.
#[derive(Debug)]
pub(in crate::mailbox) struct Told(
    pub(in crate::mailbox) SyncSender<Outcome>,
    pub(in crate::mailbox) u64,
);

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
pub(in crate::mailbox) struct Hooks {
    pub(in crate::mailbox) on_purge: Option<OnPurge>,
    pub(in crate::mailbox) on_end: Option<Box<dyn Fn(Seq) + Send + Sync>>,
    pub(in crate::mailbox) on_failing: Option<Box<dyn Fn() + Send + Sync>>,
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

/// A kind of store, and a place for one.
pub(in crate::mailbox) trait Kind: Sized {
    type Store: MailboxStore<Told>;

    /// A place where there is nothing.
    fn new() -> Self;

    /// Opens what is there, or makes it.
    fn open(&self) -> Result<(Arc<Self::Store>, Recovered), OpenError>;

    fn admin(&self) -> Box<dyn MailboxAdministration>;

    /// Rows in a table.
    fn count(&self, table: &str) -> i64;
}

pub(in crate::mailbox) fn wait_until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
}

/// What is found when a mailbox is opened.
pub(in crate::mailbox) struct Found {
    /// In the order of their numbers.
    pub(in crate::mailbox) entries: Vec<RecoveredEntry>,
    rest: Recovered,
}

impl Deref for Found {
    type Target = Recovered;

    fn deref(&self) -> &Recovered {
        &self.rest
    }
}

/// With what is found there.
pub(in crate::mailbox) fn found<S: MailboxStore<Told>>(
    (mailbox, rest): (Arc<S>, Recovered),
) -> Result<(Arc<S>, Found), OpenError> {
    let entries = Mutex::new(Vec::new());
    let count = mailbox
        .recover_entries(&|entry| entries.lock().unwrap().push(entry))
        .map_err(|error| *error.downcast().unwrap())?;
    let mut entries = entries.into_inner().unwrap();
    assert_eq!(entries.len(), count);
    entries.sort_by_key(|entry| entry.seq);
    Ok((mailbox, Found { entries, rest }))
}

pub(in crate::mailbox) fn seqs(found: &Found) -> Vec<u64> {
    found.entries.iter().map(|entry| entry.seq).collect()
}

/// A mailbox, its place, and the answers it gives.
pub(in crate::mailbox) struct Setting<K: Kind> {
    pub(in crate::mailbox) mailbox: Option<Arc<K::Store>>,
    pub(in crate::mailbox) kind: K,
    to: SyncSender<Outcome>,
    pub(in crate::mailbox) answers: Receiver<Outcome>,
}

impl<K: Kind> Setting<K> {
    pub(in crate::mailbox) fn new() -> Self {
        Self::on(K::new())
    }

    /// In this place.
    pub(in crate::mailbox) fn on(kind: K) -> Self {
        let (mailbox, recovered) = kind.open().and_then(found).unwrap();
        assert!(recovered.entries.is_empty() && recovered.sessions.is_empty());
        let (to, answers) = sync_channel(1 << 16);
        Self {
            mailbox: Some(mailbox),
            kind,
            to,
            answers,
        }
    }

    pub(in crate::mailbox) fn mailbox(&self) -> &Arc<K::Store> {
        self.mailbox.as_ref().unwrap()
    }

    pub(in crate::mailbox) fn admin(&self) -> Box<dyn MailboxAdministration> {
        self.kind.admin()
    }

    /// Writes, and has the answer come under `number`.
    pub(in crate::mailbox) fn ask(&self, number: u64, writes: impl IntoIterator<Item = Write>) {
        let answer = Told(self.to.clone(), number);
        let writes: Writes = writes.into_iter().collect();
        self.mailbox().write(&whose(&writes), writes, Some(answer));
    }

    pub(in crate::mailbox) fn write(&self, writes: impl IntoIterator<Item = Write>) {
        let writes: Writes = writes.into_iter().collect();
        self.mailbox().write(&whose(&writes), writes, None);
    }

    pub(in crate::mailbox) fn flush(&self) {
        assert!(self.mailbox().flush(PATIENCE));
    }

    pub(in crate::mailbox) fn answer(&self) -> Outcome {
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    /// Messages of user 1.
    pub(in crate::mailbox) fn load(&self, seqs: &[Seq]) -> Vec<(Seq, Arc<Message>)> {
        self.load_of("1", seqs)
    }

    pub(in crate::mailbox) fn load_of(&self, of: &str, seqs: &[Seq]) -> Vec<(Seq, Arc<Message>)> {
        let (to, from) = sync_channel(1);
        let then = Box::new(move |found| to.send(found).unwrap());
        self.mailbox().load(&user(of), seqs.to_vec(), then);
        from.recv_timeout(PATIENCE).unwrap()
    }

    pub(in crate::mailbox) fn count(&self, table: &str) -> i64 {
        self.kind.count(table)
    }

    pub(in crate::mailbox) fn close(&mut self) {
        let mailbox = self.mailbox.take().unwrap();
        drop(Arc::try_unwrap(mailbox).unwrap());
    }

    pub(in crate::mailbox) fn reopen(&mut self) -> Found {
        if self.mailbox.is_some() {
            self.close();
        }
        let (mailbox, recovered) = self.open_closed().unwrap();
        self.mailbox = Some(mailbox);
        recovered
    }

    /// Opens what has been closed.
    pub(in crate::mailbox) fn open_closed(&self) -> Result<(Arc<K::Store>, Found), OpenError> {
        let started = Instant::now();
        loop {
            match self.kind.open().and_then(found) {
                // A process that another test starts has the lock too, until it is that process.
                Err(OpenError::InUse { .. }) if started.elapsed() < PATIENCE => thread::yield_now(),
                opened => return opened,
            }
        }
    }
}

/// Whom a call is about: all of its messages are in one log.
fn whose(writes: &[Write]) -> UserId {
    let of = writes.iter().find_map(|write| match write {
        Write::Append(append) | Write::Retain(append) => Some(append.user.clone()),
        _ => None,
    });
    of.unwrap_or_else(|| user("1"))
}

pub(in crate::mailbox) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(in crate::mailbox) fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

pub(in crate::mailbox) fn message(topic: &str, payload: impl Into<Bytes>) -> Arc<Message> {
    message_under(Some(NonZeroU16::MIN), topic, payload)
}

/// A message of 7 to 1, written by one of the accounts that have had that id.
pub(in crate::mailbox) fn append_by(seq: Seq, account: Option<Life>) -> Write {
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
pub(in crate::mailbox) fn message_under(
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

pub(in crate::mailbox) fn append(seq: Seq) -> Write {
    append_of(seq, "1", seq.to_string())
}

pub(in crate::mailbox) fn append_of(seq: Seq, to: &str, payload: impl Into<Bytes>) -> Write {
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
pub(in crate::mailbox) fn retain_of(seq: Seq, topic: &str, payload: impl Into<Bytes>) -> Write {
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
pub(in crate::mailbox) fn will(topic: &str) -> WillRecord {
    WillRecord {
        id: 0,
        user: user("1"),
        will: packets::will(topic, "bye"),
        token: Some(Mark::new([1; Mark::LEN])),
    }
}

pub(in crate::mailbox) fn subscription(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: true,
        id: Some(9),
    }
}

pub(in crate::mailbox) fn record(id: u64) -> Box<SessionRecord> {
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
