//! What the mailbox costs: CPU for an append and its removal, and the time to open a million messages.
//!
//! `cargo bench --bench mailbox [-- MESSAGES [BATCH [DIRECTORY]]]`

#![allow(clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{Append, MailboxStore, Seq, Write};
use jam_core::time::Time;
use jam_mqtt::mailbox::sqlite::SqliteMailbox;
use jam_wire::packet::{PacketId, Publish, QoS};

const PATIENCE: Duration = Duration::from_secs(60);
const PAYLOAD: usize = 300;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let number = |at: usize, default| {
        arguments
            .get(at)
            .map_or(default, |a| a.parse().expect("a number"))
    };
    let messages: u64 = number(0, 1_000_000);
    let batch: u64 = number(1, 500);
    let dir = match arguments.get(2) {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .expect("a directory");
    cycle(&dir.path().join("cycle"), messages, batch);
    recover(&dir.path().join("recover"), messages);
}

fn open(dir: &Path) -> Arc<SqliteMailbox> {
    let (mailbox, _) = SqliteMailbox::open(dir).expect("a mailbox");
    mailbox
}

/// Appends a batch and removes the one before, over and over.
fn cycle(dir: &Path, messages: u64, batch: u64) {
    let mailbox = open(dir);
    let user = UserId::parse("1000").expect("a user id");
    let message = message();
    let (started, cpu) = (Instant::now(), cpu());
    for first in (1..=messages).step_by(usize::try_from(batch).expect("a batch")) {
        for seq in first..first + batch {
            mailbox.write(
                &user,
                [append(seq, &user, &message)].into_iter().collect(),
                None,
            );
        }
        for seq in first.saturating_sub(batch)..first {
            mailbox.write(&user, [Write::Remove(seq)].into_iter().collect(), None);
        }
        assert!(mailbox.flush(PATIENCE));
    }
    report("append and remove", messages, started, cpu);
}

/// Leaves messages in the file, reads them, and opens it again.
fn recover(dir: &Path, messages: u64) {
    let mailbox = open(dir);
    let users: Vec<_> = (0..10_000)
        .map(|n| UserId::parse(n.to_string()).expect("a user id"))
        .collect();
    let message = message();
    let (started, before) = (Instant::now(), cpu());
    for seq in 1..=messages {
        let user = &users[usize::try_from(seq).expect("a number") * 7919 % users.len()];
        mailbox.write(
            user,
            [append(seq, user, &message)].into_iter().collect(),
            None,
        );
        if seq % 1000 == 0 {
            assert!(mailbox.flush(PATIENCE));
        }
    }
    assert!(mailbox.flush(PATIENCE));
    report("append", messages, started, before);
    drop(mailbox);

    let (started, before) = (Instant::now(), cpu());
    let mailbox = open(dir);
    let found = mailbox.recover_entries(&drop).expect("all messages");
    assert_eq!(found as u64, messages);
    report("recover", messages, started, before);

    let (started, before) = (Instant::now(), cpu());
    let (to, from) = std::sync::mpsc::sync_channel(1);
    let seqs: Vec<Seq> = (1..=messages).collect();
    for seqs in seqs.chunks(50) {
        let to = to.clone();
        let seqs = seqs.to_vec();
        mailbox.load(
            &users[0],
            seqs,
            Box::new(move |found| to.send(found).expect("the receiver waits")),
        );
        assert_eq!(from.recv().expect("an answer").len(), 50);
    }
    report("load by 50", messages, started, before);
}

fn append(seq: Seq, user: &UserId, message: &Arc<Message>) -> Write {
    let (user, message) = (user.clone(), Arc::clone(message));
    Write::Append(Append {
        seq,
        user,
        message,
        inbox: true,
        retained: false,
        waits_for: 1,
    })
}

fn message() -> Arc<Message> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "/1000/inbox".into(),
        packet_id: Some(PacketId::MIN),
        properties: None,
        payload: vec![b'x'; PAYLOAD].into(),
    };
    let sender = UserId::parse("1001").expect("a user id");
    let at = Time::from_millis(1_700_000_000_000);
    Arc::new(Message::from_stored(publish, sender, None, at, Time::NEVER))
}

/// CPU time of this process in clock ticks of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

fn report(what: &str, messages: u64, started: Instant, before: Duration) {
    let (wall, cpu) = (started.elapsed(), cpu() - before);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / messages as f64;
    println!(
        "{what:20} {messages} in {:.3} s: {:.2} µs each, {:.2} µs of CPU",
        wall.as_secs_f64(),
        each(wall),
        each(cpu)
    );
}
