//! Connections that break while a COMMIT is on its way: the ledger is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use jam_core::store::{MailboxStore as _, Write};
use jam_testkit::cut::{Cut, Cutting, How, Place};
use jam_testkit::random::{Random, Source as _};

use super::failing::BACK;
use super::setting::{Setting, append, wait_until};
use crate::postgres::Address;
use crate::postgres::testing::{TestDatabase, database};

/// Cuts in a run of the tests; a longer one is asked for by `JAM_TEST_CUTS`.
const CUTS: u64 = 50;

/// Bytes that the answers to a small batch have, or a few more: then it is cut in those of the next.
const ANSWERS: usize = 280;

/// A database, through a proxy.
pub(super) fn through(proxy: &Cut, database: &TestDatabase) -> Address {
    let (port, name) = (proxy.port(), database.name());
    Address::parse(&format!("postgres://postgres@127.0.0.1:{port}/{name}")).unwrap()
}

/// The writer's connection, somewhere around its next COMMIT.
fn cutting(random: &mut Random) -> Cutting {
    let mut below = |bound| random.below(bound).unwrap();
    let place = match below(10) {
        0..3 => Place::Unsent(below(1_000)),
        3..5 => Place::Sent,
        5 => Place::Answered(0),
        _ => Place::Answered(below(ANSWERS)),
    };
    let how = match below(24) {
        0 => How::Silence,
        1..12 => How::Close,
        _ => How::Reset,
    };
    Cutting {
        greeting: b"-writer",
        mark: b"SELECT 1; COMMIT",
        place,
        how,
    }
}

fn below(random: &mut Random, bound: usize) -> u64 {
    random.below(bound).unwrap() as u64
}

/// What was asked for and what was said of it.
#[derive(Default)]
pub(super) struct Ledger {
    next: u64,
    /// By the number of the call: the message that it adds, and the one that it removes.
    calls: BTreeMap<u64, (Option<u64>, Option<u64>)>,
    kept: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    answered: BTreeSet<u64>,
    /// The last call that was kept.
    last: u64,
}

impl Ledger {
    /// Asks for some messages, and for the removal of some that are kept.
    pub(super) fn ask(&mut self, setting: &Setting, random: &mut Random) {
        for _ in 0..=below(random, 8) {
            self.next += 1;
            let number = self.next;
            let old = self.kept.iter().next().copied();
            let old = old.filter(|_| below(random, 3) == 0);
            if let Some(old) = old {
                self.kept.remove(&old);
                setting.ask(number, [Write::Remove(old)]);
                self.calls.insert(number, (None, Some(old)));
            } else {
                setting.ask(number, [append(number)]);
                self.calls.insert(number, (Some(number), None));
            }
        }
        self.hear(setting);
    }

    pub(super) fn hear(&mut self, setting: &Setting) {
        for (number, outcome) in setting.answers.try_iter() {
            assert!(self.answered.insert(number), "{number} was answered twice");
            if outcome.is_ok() {
                let last = std::mem::replace(&mut self.last, number);
                assert!(last < number, "{number} was kept after {last}");
            }
            match (self.calls[&number], outcome) {
                ((Some(seq), _), Ok(())) => drop(self.kept.insert(seq)),
                ((Some(seq), _), Err(_)) => drop(self.refused.insert(seq)),
                ((_, Some(seq)), outcome) => {
                    assert_eq!(outcome, Ok(()));
                    self.removed.insert(seq);
                }
                _ => unreachable!(),
            }
        }
    }

    /// Everything was answered, and what is there is what was said.
    pub(super) fn check(mut self, setting: &mut Setting) {
        setting.flush();
        self.hear(setting);
        assert_eq!(self.answered.len(), self.calls.len());
        let gaps = "SELECT count(*) FROM (SELECT n - lag(n) OVER (ORDER BY n) AS step FROM batch) b WHERE step <> 1";
        assert_eq!(setting.sql(gaps), "0", "the chain has gaps");
        let there: BTreeSet<u64> = setting
            .reopen()
            .entries
            .iter()
            .map(|entry| entry.seq)
            .collect();
        let lost: Vec<_> = self.kept.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let back: Vec<_> = self.removed.intersection(&there).collect();
        assert!(back.is_empty(), "removed and there again: {back:?}");
        let refused: Vec<_> = self.refused.intersection(&there).collect();
        assert!(refused.is_empty(), "refused and there: {refused:?}");
        assert_eq!(there, self.kept);
    }
}

/// Before a COMMIT is sent, while it is on its way, and in each byte of what is answered.
#[test]
fn whatever_is_cut_what_was_acknowledged_is_there_once() {
    let cuts = std::env::var("JAM_TEST_CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    let database = database();
    let proxy = Cut::before(database.port());
    let mut setting = Setting::in_database(&database, Some(through(&proxy, &database)));
    let mut random = Random::new(cuts);
    let mut ledger = Ledger::default();
    let mut drawn: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..cuts {
        let before = proxy.cuts();
        let cutting = cutting(&mut random);
        proxy.cut_next(cutting);
        while proxy.cuts() == before {
            ledger.ask(&setting, &mut random);
            thread::sleep(Duration::from_millis(below(&mut random, 10)));
        }
        ledger.ask(&setting, &mut random);
        wait_until(|| setting.mailbox().accepts());
        ledger.ask(&setting, &mut random);
        let place = match cutting.place {
            Place::Unsent(_) => "unsent",
            Place::Sent => "sent",
            Place::Answered(_) => "answered",
        };
        *drawn
            .entry(format!("{place}, {:?}", cutting.how))
            .or_default() += 1;
    }
    println!(
        "{drawn:?}: {} kept, {} refused",
        ledger.kept.len() + ledger.removed.len(),
        ledger.refused.len()
    );
    assert!(ledger.kept.len() + ledger.removed.len() > 10 && !ledger.removed.is_empty());
    ledger.check(&mut setting);
}

/// The same of a database that stops in the middle of it, and recovers (T2, T15).
#[test]
fn what_was_acknowledged_is_there_after_an_immediate_stop() {
    let mut server = crate::postgres::testing::TestServer::start();
    let database = server.database();
    let mut setting = Setting::in_database(&database, None);
    let mut random = Random::new(7);
    let mut ledger = Ledger::default();
    for round in 0..4 {
        for _ in 0..20 + below(&mut random, 40) {
            ledger.ask(&setting, &mut random);
            thread::sleep(Duration::from_millis(below(&mut random, 4)));
        }
        if round % 2 == 0 {
            server.stop_immediately();
        } else {
            server.kill();
        }
        ledger.ask(&setting, &mut random);
        wait_until(|| !setting.mailbox().accepts());
        server.restart();
        let began = std::time::Instant::now();
        wait_until(|| setting.mailbox().accepts());
        assert!(began.elapsed() < BACK, "{:?}", began.elapsed());
    }
    assert!(ledger.kept.len() > 10);
    ledger.check(&mut setting);
}
