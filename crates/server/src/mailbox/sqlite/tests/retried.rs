//! Any calls, with commits that fail, against the maps of `mailbox::tests::model`. A commit that failed may have reached the file
//! all the same, and calls come while it is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jam_core::store::{Completion, Write, is_refusable};
use proptest::prelude::*;
use rusqlite::Connection;

use super::setting::{Setting, Told};
use crate::mailbox::shared::{MailboxShared, Whereabouts};
use crate::mailbox::sqlite::apply::{Applier, Purge};
use crate::mailbox::sqlite::records;
use crate::mailbox::sqlite::schema::MailboxFiles;
use crate::mailbox::sqlite::{Opened, open_files};
use crate::mailbox::tests::model::{Model, Numbers, write};
use crate::mailbox::tests::setting::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    Succeeds,
    Fails,
    /// It says that it failed, and has reached the file.
    FailsInTheFile,
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Write>),
    /// With calls that come while it is on its way.
    Commit(Commit, Vec<Vec<Write>>),
}

/// The mailbox's writer, a step at a time.
struct Stepped {
    shared: MailboxShared<Told>,
    connection: Connection,
    applier: Applier,
    numbers: Numbers,
    calls: BTreeMap<u64, Vec<Write>>,
    /// Whether they were kept.
    answered: BTreeMap<u64, bool>,
    may_have_reached: bool,
    to: SyncSender<Outcome>,
    answers: Receiver<Outcome>,
}

impl Stepped {
    fn new(setting: &Setting) -> Self {
        let files = MailboxFiles::of(setting.path());
        let Opened {
            connection, found, ..
        } = open_files(&files).unwrap();
        connection.pragma_update(None, "synchronous", 0).unwrap();
        connection
            .execute_batch(
                "INSERT INTO purge VALUES ('1', '9', 0);
                 CREATE TEMP TRIGGER fails BEFORE DELETE ON purge BEGIN SELECT RAISE(ABORT, 'as wanted'); END",
            )
            .unwrap();
        let (to, answers) = sync_channel(1 << 10);
        Self {
            shared: MailboxShared::new(found.kept),
            connection,
            applier: Applier::new(found.reserved, found.position),
            numbers: Numbers::default(),
            calls: BTreeMap::new(),
            answered: BTreeMap::new(),
            may_have_reached: false,
            to,
            answers,
        }
    }

    /// What there is as far as the router knows: a call counts until it is refused.
    fn model(&self) -> Model {
        let mut model = Model::default();
        for (number, call) in &self.calls {
            if self.answered.get(number) != Some(&false) {
                call.iter().for_each(|write| model.apply(write));
            }
        }
        model
    }

    fn call(&mut self, call: Vec<Write>) {
        let number = self.calls.len() as u64 + 1;
        let answer = Told(self.to.clone(), number);
        self.shared
            .push(0, call.iter().cloned().collect(), Some(answer));
        self.calls.insert(number, call);
    }

    fn write(&mut self, mut writes: Vec<Write>) {
        let mut model = self.model();
        let refusable = is_refusable(&writes);
        let mut call = Vec::new();
        for write in &mut writes {
            self.numbers.assign(write);
            // What the router asks for together with a message that may be refused.
            let fits = match write {
                Write::Append(_) | Write::AnswerAfter(..) => true,
                Write::EndWill(_, id) => model.wills.contains_key(id),
                Write::Received(_, session, id) => {
                    !model.received.contains_key(&(*session, id.get()))
                }
                _ => false,
            };
            if refusable && !fits {
                continue;
            }
            for before in model.fit(write) {
                model.apply(&before);
                self.call(vec![before]);
            }
            model.apply(write);
            call.push(write.clone());
        }
        self.call(call);
    }

    fn commit(&mut self, commit: Commit, meanwhile: Vec<Vec<Write>>) {
        let mut batch = self.shared.take();
        batch.answer_unwritten();
        self.hear();
        meanwhile.into_iter().for_each(|call| self.write(call));
        self.look();
        let fails = Purge {
            user: "1".to_owned(),
            sender: "9".to_owned(),
            up_to: 0,
        };
        let done = if commit == Commit::Fails {
            &[fails][..]
        } else {
            &[]
        };
        // As one that was told of a failure: what it knows of the file is what it knew before.
        let mut applier = self.applier.clone();
        let outcome = applier.commit(&mut self.connection, &batch.ops, None, done, true);
        assert_eq!(outcome.is_ok(), commit != Commit::Fails, "{outcome:?}");
        if commit != Commit::FailsInTheFile {
            self.applier = applier;
        }
        self.may_have_reached |= commit == Commit::FailsInTheFile;
        let is_ok = commit == Commit::Succeeds;
        self.shared.trouble.store(!is_ok, Ordering::Relaxed);
        if is_ok {
            let calls = std::mem::take(&mut batch.calls);
            self.shared.committed(batch.ops);
            let told = calls.into_iter().filter_map(|call| call.completion);
            told.for_each(Told::committed);
        } else {
            let (rejected, _) = self.shared.failed(batch);
            rejected.into_iter().for_each(Told::rejected);
        }
        self.hear();
        self.look();
    }

    fn hear(&mut self) {
        self.shared.complete_early();
        for (number, outcome) in self.answers.try_iter() {
            let before = self.answered.insert(number, outcome.is_ok());
            assert_eq!(before, None, "{number} was answered twice");
            let call = &self.calls[&number];
            assert!(outcome.is_ok() || is_refusable(call), "{call:?}");
        }
    }

    /// Each message is found, in memory or in the file, and none that is gone.
    fn look(&self) {
        let model = self.model();
        let refused = self.refused();
        let appended = self.calls.values().flatten().filter_map(number);
        let seqs: Vec<_> = appended.filter(|seq| !refused.contains(seq)).collect();
        for (seq, found) in self.shared.in_memory(&seqs) {
            let is_there = match found {
                Whereabouts::Here(_) => true,
                Whereabouts::Gone => false,
                Whereabouts::InFile => self.is_in_file(seq),
            };
            assert_eq!(is_there, model.messages.contains_key(&seq), "{seq}");
        }
    }

    fn is_in_file(&self, seq: u64) -> bool {
        let sql = "SELECT count(*) FROM message WHERE id = ?1";
        let count = self
            .connection
            .query_row(sql, [records::number(seq)], |row| row.get(0));
        count == Ok(1)
    }

    /// The messages of calls that were refused.
    fn refused(&self) -> BTreeSet<u64> {
        let calls = self.calls.iter();
        let refused = calls.filter(|(number, _)| self.answered.get(number) == Some(&false));
        refused
            .flat_map(|(_, call)| call.iter().filter_map(number))
            .collect()
    }

    /// The file may hold what was refused, and then not the will that it came of.
    fn check(&self, found: &mut Model) {
        let mut expected = self.model();
        for (number_of, call) in &self.calls {
            if self.answered[number_of] {
                continue;
            }
            let mut is_there = false;
            for seq in call.iter().filter_map(number) {
                is_there |= found.messages.remove(&seq).is_some();
            }
            assert!(!is_there || self.may_have_reached);
            for write in call {
                if let Write::EndWill(_, id) = write
                    && is_there
                    && !found.wills.contains_key(id)
                {
                    expected.wills.remove(id);
                }
            }
        }
        assert_eq!(*found, expected.sorted());
    }
}

fn number(write: &Write) -> Option<u64> {
    match write {
        Write::Append(append) | Write::Retain(append) => Some(append.seq),
        _ => None,
    }
}

fn call() -> impl Strategy<Value = Vec<Write>> {
    prop::collection::vec(write(), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let commit = prop_oneof![
        3 => Just(Commit::Succeeds),
        1 => Just(Commit::Fails),
        1 => Just(Commit::FailsInTheFile)
    ];
    let commit = (commit, prop::collection::vec(call(), 0..4));
    prop_oneof![
        5 => call().prop_map(Step::Write),
        2 => commit.prop_map(|(commit, meanwhile)| Step::Commit(commit, meanwhile)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_the_file_is_what_was_not_refused(steps in prop::collection::vec(step(), 1..50)) {
        let mut setting = Setting::new();
        setting.close();
        let mut stepped = Stepped::new(&setting);
        for step in steps {
            match step {
                Step::Write(call) => stepped.write(call),
                Step::Commit(commit, meanwhile) => stepped.commit(commit, meanwhile),
            }
        }
        stepped.commit(Commit::Succeeds, Vec::new());
        prop_assert!(!stepped.shared.is_ending());
        let state = stepped.shared.state();
        prop_assert!(state.pending.is_empty());
        prop_assert_eq!(state.pending.bytes(), 0);
        drop(state);
        prop_assert_eq!(stepped.answered.len(), stepped.calls.len());
        stepped.connection = Connection::open_in_memory().unwrap();
        let mut found = Model::of(&setting.reopen());
        stepped.check(&mut found);
    }
}
