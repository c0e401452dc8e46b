//! Any calls, with the mailbox closed and opened in between, against maps in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use jam_core::directory::{Life, Mark};
use jam_core::ids::UserId;
use jam_core::store::{Append, OutboundState, OwnerRecord, PushRecord, Subscription, Write};
use jam_core::time::Time;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::setting::{
    Found, Kind, Setting, append_of, record, retain_of, subscription, user, will,
};

/// A time that is to come, as it comes back from the file.
fn up_to_millis(time: Time) -> Time {
    Time::from_millis(time.as_millis_up())
}

/// What is done to a mailbox.
#[derive(Debug, Clone)]
pub(in crate::mailbox) enum Step {
    Write(Vec<Write>),
    Flush,
    Reopen,
}

/// What the file should hold.
#[derive(Debug, Default, PartialEq)]
pub(in crate::mailbox) struct Model {
    pub(in crate::mailbox) messages: BTreeMap<u64, (u32, bool)>,
    sessions: BTreeMap<u64, u8>,
    subscriptions: BTreeMap<(u64, String), Option<u32>>,
    pub(in crate::mailbox) received: BTreeMap<(u64, u16), ()>,
    flights: Vec<(u64, u16, OutboundState)>,
    retained: BTreeMap<u64, String>,
    claims: BTreeSet<(u64, u64)>,
    pub(in crate::mailbox) wills: BTreeMap<u64, String>,
    pushes: BTreeMap<(UserId, UserId), PushRecord>,
    owners: BTreeMap<UserId, OwnerRecord>,
}

impl Model {
    pub(in crate::mailbox) fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(append) => {
                self.messages.insert(append.seq, (append.waits_for, false));
            }
            Write::Acknowledged { seq, waits_for } => {
                if let Some(message) = self.messages.get_mut(seq) {
                    *message = (*waits_for, true);
                }
            }
            Write::Remove(seq) => drop(self.messages.remove(seq)),
            Write::Session(record) => drop(self.sessions.insert(record.id, record.slot)),
            Write::EndSession(session) => {
                self.sessions.remove(session);
                self.subscriptions.retain(|(of, _), _| of != session);
                self.received.retain(|(of, _), ()| of != session);
                self.flights.retain(|(of, ..)| of != session);
                self.claims.retain(|(of, _)| of != session);
            }
            Write::Subscribe(session, it) => {
                let key = (*session, it.topic.to_string());
                self.subscriptions.insert(key, it.id);
            }
            Write::Unsubscribe(session, topic) => {
                self.subscriptions.remove(&(*session, topic.to_string()));
            }
            Write::Received(_, session, id) => drop(self.received.insert((*session, id.get()), ())),
            Write::Released(session, id) => drop(self.received.remove(&(*session, id.get()))),
            Write::InFlight(session, id, flight) => {
                self.flights
                    .retain(|(of, at, _)| (of, *at) != (session, id.get()));
                self.flights.push((*session, id.get(), *flight));
            }
            Write::EndInFlight(session, id) => {
                self.flights
                    .retain(|(of, at, _)| (of, *at) != (session, id.get()));
            }
            Write::Retain(append) => {
                self.messages.insert(append.seq, (append.waits_for, false));
                let topic = append.message.topic().to_string();
                self.retained.insert(append.seq, topic);
            }
            Write::Unretain(seq) => {
                self.retained.remove(seq);
                self.claims.retain(|(_, of)| of != seq);
            }
            Write::Claim(session, seq) => drop(self.claims.insert((*session, *seq))),
            Write::EndClaim(session, seq) => drop(self.claims.remove(&(*session, *seq))),
            Write::Will(due) => drop(self.wills.insert(due.id, due.will.topic.to_string())),
            Write::EndWill(_, id) => drop(self.wills.remove(id)),
            Write::Push(push) => {
                let key = (push.receiver.clone(), push.sender.clone());
                let mut push = (**push).clone();
                push.at = up_to_millis(push.at);
                push.expires_at = up_to_millis(push.expires_at);
                self.pushes.insert(key, push);
            }
            Write::EndPush(receiver, sender) => {
                self.pushes.remove(&(receiver.clone(), sender.clone()));
            }
            Write::AnswerAfter(..) => {}
            Write::Owner(owner) => {
                let mut owner = (**owner).clone();
                owner.gone_since = owner.gone_since.map(up_to_millis);
                self.owners.insert(owner.user.clone(), owner);
            }
            Write::EndOwner(user) => drop(self.owners.remove(user)),
        }
    }

    pub(in crate::mailbox) fn of(recovered: &Found) -> Self {
        let mut model = Self::default();
        for entry in &recovered.entries {
            model
                .messages
                .insert(entry.seq, (entry.waits_for, entry.acknowledged));
        }
        for (record, received, flights) in &recovered.sessions {
            model.sessions.insert(record.id, record.slot);
            let subscriptions = record.subscriptions.iter();
            model
                .subscriptions
                .extend(subscriptions.map(|it| ((record.id, it.topic.to_string()), it.id)));
            model
                .received
                .extend(received.iter().map(|id| ((record.id, id.get()), ())));
            let flights = flights
                .iter()
                .map(|(id, flight)| (record.id, id.get(), *flight));
            model.flights.extend(flights);
        }
        for retained in &recovered.retained {
            model
                .retained
                .insert(retained.seq, retained.topic.to_string());
        }
        let claims = recovered.claims.iter();
        model
            .claims
            .extend(claims.map(|claim| (claim.session, claim.seq)));
        for due in &recovered.wills {
            model.wills.insert(due.id, due.will.topic.to_string());
        }
        for push in &recovered.pushes {
            let key = (push.receiver.clone(), push.sender.clone());
            model.pushes.insert(key, push.clone());
        }
        for owner in &recovered.owners {
            model.owners.insert(owner.user.clone(), owner.clone());
        }
        model
    }

    /// Makes of a write one that the router could ask for. What it would ask for before.
    pub(in crate::mailbox) fn fit(&self, write: &mut Write) -> Vec<Write> {
        // A message is no longer retained when it leaves, and only what is retained is claimed.
        match write {
            Write::Remove(seq) if self.retained.contains_key(seq) => {
                *write = Write::Unretain(*seq);
            }
            Write::Claim(session, seq) if !self.retained.contains_key(seq) => {
                *write = Write::EndClaim(*session, *seq);
            }
            _ => {}
        }
        match write {
            Write::Unretain(seq) => {
                let claims = self.claims.iter().filter(|(_, of)| of == seq);
                let ends = claims.map(|(session, seq)| Write::EndClaim(*session, *seq));
                ends.collect()
            }
            // Packet ids and subscriptions belong to a session that is known.
            Write::Received(_, session, _)
            | Write::InFlight(session, ..)
            | Write::Claim(session, _)
            | Write::Subscribe(session, _)
                if !self.sessions.contains_key(session) =>
            {
                vec![Write::Session(record(*session))]
            }
            _ => Vec::new(),
        }
    }

    /// OutboundStates are in order within a session.
    pub(in crate::mailbox) fn sorted(mut self) -> Self {
        self.flights.sort_by_key(|(session, ..)| *session);
        self
    }
}

pub(in crate::mailbox) fn write() -> impl Strategy<Value = Write> {
    let ids = || {
        (
            1_u64..4,
            (1_u16..4).prop_map(|id| NonZeroU16::new(id).unwrap()),
        )
    };
    let flight = prop_oneof![
        (1_u64..20).prop_map(OutboundState::AwaitsPubAck),
        (1_u64..20).prop_map(OutboundState::AwaitsPubRec),
        Just(OutboundState::AwaitsPubComp)
    ];
    prop_oneof![
        // Numbers are given out while the steps are taken; this one is replaced.
        6 => Just(append_of(0, "1", "x")),
        2 => (0_u64..8, any::<u32>()).prop_map(|(seq, waits_for)| Write::Acknowledged { seq, waits_for }),
        4 => (0_u64..8).prop_map(Write::Remove),
        1 => (0_u64..8).prop_map(|seq| Write::AnswerAfter(user("1"), seq)),
        2 => (1_u64..4, any::<u8>()).prop_map(|(id, slot)| {
            let mut record = record(id);
            record.slot = slot;
            Write::Session(record)
        }),
        1 => (1_u64..4).prop_map(Write::EndSession),
        2 => (1_u64..4, 0_u8..3, any::<Option<u16>>()).prop_map(|(session, topic, id)| {
            let id = id.map(u32::from);
            let subscription = Subscription { id, ..subscription(&format!("/1/{topic}")) };
            Write::Subscribe(session, Box::new(subscription))
        }),
        1 => (1_u64..4, 0_u8..3).prop_map(|(session, topic)| {
            Write::Unsubscribe(session, format!("/1/{topic}").into())
        }),
        2 => ids().prop_map(|(session, id)| Write::Received(user("1"), session, id)),
        2 => ids().prop_map(|(session, id)| Write::Released(session, id)),
        4 => (ids(), flight).prop_map(|((session, id), flight)| Write::InFlight(session, id, flight)),
        3 => ids().prop_map(|(session, id)| Write::EndInFlight(session, id)),
        2 => (0_u8..3).prop_map(|topic| retain_of(0, &format!("/1/{topic}"), "x")),
        2 => (1_u64..4, 0_u64..8).prop_map(|(session, seq)| Write::Claim(session, seq)),
        2 => (1_u64..4, 0_u64..8).prop_map(|(session, seq)| Write::EndClaim(session, seq)),
        2 => (1_u8..4, any::<bool>(), 0_u64..99).prop_map(|(sender, sent, number)| {
            Write::Push(Box::new(PushRecord {
                receiver: user("1"),
                sender: user(&sender.to_string()),
                seq: number,
                sent,
                at: Time::from_micros(number * 337),
                expires_at: if sent { Time::NEVER } else { Time::from_micros(number * 337 + 1) },
            }))
        }),
        1 => (1_u8..4).prop_map(|sender| Write::EndPush(user("1"), user(&sender.to_string()))),
        1 => (0_u8..3).prop_map(|topic| Write::Will(Box::new(will(&format!("/1/{topic}"))))),
        1 => (0_u64..8).prop_map(|id| Write::EndWill(user("1"), id)),
        2 => (1_u8..3, any::<Option<u8>>(), any::<bool>(), any::<Option<u32>>()).prop_map(
            |(of, name, made_up, gone)| Write::Owner(Box::new(OwnerRecord {
                user: user(&of.to_string()),
                life: Life {
                    email: Some(Mark::new([7; Mark::LEN])),
                    name: name.map(|name| Mark::new([name; Mark::LEN])),
                    password: name.map(|name| Mark::new([name; Mark::LEN])),
                    made_up,
                },
                gone_since: gone.map(|at| Time::from_micros(at.into())),
            }))
        ),
        1 => (1_u8..3).prop_map(|of| Write::EndOwner(user(&of.to_string()))),
        1 => (0_u64..8).prop_map(Write::Unretain),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(write(), 1..4).prop_map(Step::Write),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Numbers of messages go up; those that steps speak of are counted back from the last one. Sessions
/// that have ended get a new number.
#[derive(Default)]
pub(in crate::mailbox) struct Numbers {
    last: u64,
    sessions: BTreeMap<u64, u64>,
}

impl Numbers {
    pub(in crate::mailbox) fn assign(&mut self, write: &mut Write) {
        match write {
            Write::Append(append) | Write::Retain(append) => {
                self.last += 1;
                append.seq = self.last;
            }
            Write::Will(due) => {
                self.last += 1;
                due.id = self.last;
            }
            Write::Acknowledged { seq, .. }
            | Write::Remove(seq)
            | Write::Unretain(seq)
            | Write::EndWill(_, seq)
            | Write::AnswerAfter(_, seq) => {
                *seq = self.last.saturating_sub(*seq);
            }
            Write::Session(record) => record.id = self.session(record.id),
            Write::EndSession(session) => {
                let named = *session;
                *session = self.session(named);
                self.sessions.remove(&named);
            }
            Write::Subscribe(session, _)
            | Write::Unsubscribe(session, _)
            | Write::Received(_, session, _)
            | Write::Released(session, _)
            | Write::InFlight(session, ..)
            | Write::EndInFlight(session, _) => *session = self.session(*session),
            Write::Claim(session, seq) | Write::EndClaim(session, seq) => {
                *session = self.session(*session);
                *seq = self.last.saturating_sub(*seq);
            }
            Write::Push(_) | Write::EndPush(..) | Write::Owner(_) | Write::EndOwner(_) => {}
        }
    }

    fn session(&mut self, named: u64) -> u64 {
        *self.sessions.entry(named).or_insert_with(|| {
            self.last += 1;
            self.last
        })
    }
}

/// Any calls, also with a mailbox that is closed and opened in between, give what the maps say.
pub(in crate::mailbox) fn what_is_kept_is_what_the_calls_say<K: Kind>(
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut setting = Setting::<K>::new();
    let mut model = Model::default();
    let mut numbers = Numbers::default();
    let mut asked = 0;
    let mut highest = 0;
    for step in steps.into_iter().chain([Step::Reopen]) {
        match step {
            Step::Write(mut writes) => {
                for write in &mut writes {
                    numbers.assign(write);
                    for before in model.fit(write) {
                        model.apply(&before);
                        setting.write([before]);
                    }
                    model.apply(write);
                    match write {
                        Write::Append(Append { seq: number, .. })
                        | Write::Retain(Append { seq: number, .. }) => {
                            highest = highest.max(*number);
                        }
                        Write::Will(due) => highest = highest.max(due.id),
                        _ => {}
                    }
                }
                asked += 1;
                setting.ask(asked, writes);
            }
            Step::Flush => setting.flush(),
            Step::Reopen => {
                let recovered = setting.reopen();
                prop_assert!(recovered.last_seq >= highest);
                prop_assert_eq!(Model::of(&recovered), std::mem::take(&mut model).sorted());
                model = Model::of(&recovered);
                let seqs: Vec<u64> = model.messages.keys().copied().collect();
                let loaded: Vec<u64> = setting.load(&seqs).iter().map(|(seq, _)| *seq).collect();
                prop_assert_eq!(loaded, seqs);
            }
        }
    }
    let mut answered: Vec<u64> = Vec::new();
    while answered.len() < usize::try_from(asked).unwrap() {
        let (number, outcome) = setting
            .answers
            .recv_timeout(Duration::from_secs(5))
            .unwrap();
        prop_assert_eq!(outcome, Ok(()));
        answered.push(number);
    }
    answered.sort_unstable();
    prop_assert_eq!(answered, (1..=asked).collect::<Vec<_>>());
    Ok(())
}

pub(in crate::mailbox) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60)
}
