//! Copies one mailbox into another, of any kinds, through the seam that a server uses: a third kind needs nothing here.
//!
//! Invariants: the target is empty before; numbers, times and packet ids stay as they are; memory has a bound, but for some
//! 150 bytes for each message that waits. A copy counts as made once the target has been opened anew and holds as much of
//! everything ([`HeldMail`]).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jam_core::directory::Life;
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{
    Append, Completion, MailboxStore, Recovered, RecoveredEntry, Seq, StoreError, Write, Writes,
};
use serde::Serialize;
use smallvec::smallvec;

use super::OpenError;
use crate::settings::Settings;

/// Content that is on its way at once, unless a single message is larger.
const AT_ONCE_BYTES: u64 = 4 << 20;

/// Messages that are read at once.
const AT_ONCE: usize = 512;

/// How long either mailbox may take for so much.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much a mailbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct HeldMail {
    /// Messages that wait, retained ones included.
    pub messages: usize,
    /// Bytes of them, as they weigh.
    pub bytes: u64,
    /// Topics with a retained message.
    pub retained: usize,
    /// Sessions.
    pub sessions: usize,
    /// Subscriptions of these.
    pub subscriptions: usize,
    /// Packet ids of these that are in use, in both directions, and retained messages that are still to be sent to them.
    pub packet_ids: usize,
    /// Wills that are due.
    pub wills: usize,
    /// Pushes owed or sent.
    pub pushes: usize,
}

impl fmt::Display for HeldMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages ({} bytes), {} retained, {} sessions, {} subscriptions, {} packet ids, {} wills, {} pushes",
            self.messages,
            self.bytes,
            self.retained,
            self.sessions,
            self.subscriptions,
            self.packet_ids,
            self.wills,
            self.pushes
        )
    }
}

/// What was to be copied cannot be, in words that say why.
#[derive(Debug)]
pub struct CopyError(String);

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CopyError {}

impl From<OpenError> for CopyError {
    fn from(error: OpenError) -> Self {
        Self(error.to_string())
    }
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// The same account's life in the accounts beside this mailbox, and in those beside the target.
pub type KnownAs = HashMap<UserId, (Life, Life)>;

/// Whether anything could not be kept.
#[derive(Debug, Clone, Default)]
struct WhetherKept(Arc<AtomicBool>);

impl Completion for WhetherKept {
    fn committed(self) {}

    fn rejected(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A mailbox that has just been opened.
#[derive(Debug)]
struct CopyEnd {
    store: Arc<dyn MailboxStore<WhetherKept>>,
    found: Recovered,
    /// In the order of the logs.
    entries: Vec<RecoveredEntry>,
}

impl CopyEnd {
    fn of(settings: &Settings) -> Result<Self, CopyError> {
        let (store, found) = super::open(settings, Arc::default())?;
        let entries = Mutex::new(Vec::new());
        let take = |entry| entries.lock().expect("a push cannot panic").push(entry);
        store.recover_entries(&take)?;
        let mut entries = entries.into_inner().expect("a push cannot panic");
        entries.sort_by(|a, b| (a.user.as_str(), a.seq).cmp(&(b.user.as_str(), b.seq)));
        Ok(Self {
            store,
            found,
            entries,
        })
    }

    fn held(&self) -> HeldMail {
        let Recovered {
            sessions,
            retained,
            claims,
            wills,
            pushes,
            ..
        } = &self.found;
        let packet_ids = sessions
            .iter()
            .map(|(_, received, sent)| received.len() + sent.len());
        HeldMail {
            messages: self.entries.len(),
            bytes: self.entries.iter().map(|entry| u64::from(entry.size)).sum(),
            retained: retained.len(),
            sessions: sessions.len(),
            subscriptions: sessions
                .iter()
                .map(|(record, ..)| record.subscriptions.len())
                .sum(),
            packet_ids: packet_ids.sum::<usize>() + claims.len(),
            wills: wills.len(),
            pushes: pushes.len(),
        }
    }
}

/// Two mailboxes without a server, of which the target is empty.
#[derive(Debug)]
pub struct Copying {
    from: CopyEnd,
    to: CopyEnd,
    place: Settings,
}

impl Copying {
    /// From the mailbox of one server into that of another.
    ///
    /// # Errors
    /// If one is missing, damaged or in use, or the other is not empty.
    pub fn begin(from: &Settings, to: &Settings) -> Result<Self, CopyError> {
        // A mistyped place must not look like a mailbox with nothing in it, and nothing damaged is copied.
        super::administration(from).check()?;
        let (from, to, place) = (CopyEnd::of(from)?, CopyEnd::of(to)?, to.clone());
        if to.held() != HeldMail::default() || !to.found.owners.is_empty() {
            let what =
                "the mailbox that is to be filled is not empty: name a new one, or empty it first";
            return Err(CopyError(what.to_owned()));
        }
        Ok(Self { from, to, place })
    }

    /// Fills the target, and opens it anew to see what it holds.
    ///
    /// # Errors
    /// If one cannot be read or the other not be written; the other one may then hold a part.
    pub fn finish(self, known_as: &KnownAs) -> Result<HeldMail, CopyError> {
        let Self { from, to, place } = self;
        fill(&from, &to, known_as)?;
        drop(to);
        super::skip_to(&place, from.found.last_seq)?;
        let (read, held) = (from.held(), CopyEnd::of(&place)?.held());
        if read != held {
            return Err(CopyError(format!(
                "the copy of the mailbox holds {held} where {read} was read: do not use it"
            )));
        }
        Ok(held)
    }
}

fn fill(from: &CopyEnd, to: &CopyEnd, known_as: &KnownAs) -> Result<(), CopyError> {
    let filling = Filling {
        from: &*from.store,
        to: &*to.store,
        kept: WhetherKept::default(),
        known_as,
    };
    filling.messages(&from.entries, &from.found)?;
    filling.all_else(&from.found)?;
    if let Some(clock) = from.found.clock {
        to.store.keep_clock(clock);
    }
    filling.flush()
}

struct Filling<'a> {
    from: &'a dyn MailboxStore<WhetherKept>,
    to: &'a dyn MailboxStore<WhetherKept>,
    kept: WhetherKept,
    known_as: &'a KnownAs,
}

impl Filling<'_> {
    fn messages(&self, entries: &[RecoveredEntry], found: &Recovered) -> Result<(), CopyError> {
        let retained: HashSet<Seq> = found.retained.iter().map(|topic| topic.seq).collect();
        for of_one in entries.chunk_by(|a, b| a.user == b.user) {
            let mut rest = of_one;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(at_once(rest));
                let messages = self.read(now)?;
                for (entry, mut message) in now.iter().zip(messages) {
                    if let Some(life) = message.sender_life() {
                        let there = self.life(message.sender(), life);
                        Arc::make_mut(&mut message).set_sender_life(there);
                    }
                    self.write(&entry.user, message_writes(entry, message, &retained));
                }
                self.flush()?;
                rest = later;
            }
        }
        Ok(())
    }

    /// The contents of these, in their order.
    fn read(&self, entries: &[RecoveredEntry]) -> Result<Vec<Arc<Message>>, CopyError> {
        let Some(first) = entries.first() else {
            return Ok(Vec::new());
        };
        let (say, read) = sync_channel(1);
        let then = move |messages| drop(say.send(messages));
        let seqs = entries.iter().map(|entry| entry.seq).collect();
        self.from.load(&first.user, seqs, Box::new(then));
        let unread = || CopyError(format!("messages of user {} cannot be read", first.user));
        let messages = read.recv_timeout(TIMEOUT).map_err(|_| unread())?;
        let is_whole = messages
            .iter()
            .map(|(seq, _)| *seq)
            .eq(entries.iter().map(|entry| entry.seq));
        if !is_whole {
            return Err(unread());
        }
        Ok(messages.into_iter().map(|(_, message)| message).collect())
    }

    fn all_else(&self, found: &Recovered) -> Result<(), CopyError> {
        for (record, received, sent) in &found.sessions {
            let (id, user) = (record.id, &record.user);
            let mut writes: Writes = smallvec![Write::Session(Box::new(record.clone()))];
            let subscriptions = record.subscriptions.iter().cloned().map(Box::new);
            writes.extend(subscriptions.map(|it| Write::Subscribe(id, it)));
            writes.extend(
                received
                    .iter()
                    .map(|it| Write::Received(user.clone(), id, *it)),
            );
            writes.extend(
                sent.iter()
                    .map(|(packet, state)| Write::InFlight(id, *packet, *state)),
            );
            self.write(user, writes);
            self.flush()?;
        }
        for claim in &found.claims {
            self.write(
                &claim.user,
                smallvec![Write::Claim(claim.session, claim.seq)],
            );
        }
        for will in &found.wills {
            self.write(&will.user, smallvec![Write::Will(Box::new(will.clone()))]);
            self.flush()?;
        }
        for push in &found.pushes {
            self.write(
                &push.receiver,
                smallvec![Write::Push(Box::new(push.clone()))],
            );
        }
        for owner in &found.owners {
            let mut record = owner.clone();
            record.life = self.life(&owner.user, owner.life);
            self.write(&owner.user, smallvec![Write::Owner(Box::new(record))]);
        }
        Ok(())
    }

    /// The account's life in the accounts beside the target.
    fn life(&self, user: &UserId, life: Life) -> Life {
        match self.known_as.get(user) {
            Some((here, there)) if life.goes_on_as(here) => *there,
            _ => life,
        }
    }

    fn write(&self, user: &UserId, writes: Writes) {
        self.to.write(user, writes, Some(self.kept.clone()));
        self.to.settle();
    }

    /// Waits until all of it is kept.
    fn flush(&self) -> Result<(), CopyError> {
        let is_kept = self.to.flush(TIMEOUT) && !self.kept.0.load(Ordering::Relaxed);
        is_kept.then_some(()).ok_or_else(|| {
            CopyError("the mailbox cannot be written; what it holds is incomplete: empty it and begin again".to_owned())
        })
    }
}

/// How many of these are read at once; one at least.
fn at_once(entries: &[RecoveredEntry]) -> usize {
    let mut bytes = 0;
    let fit = entries.iter().take(AT_ONCE).take_while(|entry| {
        bytes += u64::from(entry.size);
        bytes <= AT_ONCE_BYTES
    });
    fit.count().max(1)
}

fn message_writes(
    entry: &RecoveredEntry,
    message: Arc<Message>,
    retained: &HashSet<Seq>,
) -> Writes {
    let append = Append {
        seq: entry.seq,
        user: entry.user.clone(),
        message,
        inbox: entry.inbox,
        retained: entry.retained,
        waits_for: entry.waits_for,
    };
    let mut writes: Writes = smallvec![match retained.contains(&entry.seq) {
        true => Write::Retain(append),
        false => Write::Append(append),
    }];
    if entry.acknowledged {
        writes.push(Write::Acknowledged {
            seq: entry.seq,
            waits_for: entry.waits_for,
        });
    }
    writes
}
