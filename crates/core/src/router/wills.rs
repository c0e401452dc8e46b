//! Wills that are due wait here until they are judged and published, as any PUBLISH of their clients.
//!
//! Invariants: a will whose session was kept is in the store from the moment on at which it leaves the session, and
//! leaves it together with the message that it becomes (`tests/crashing.rs`); one that cannot be kept as a
//! message waits until it can.

use std::collections::VecDeque;

use jam_wire::packet::{Publish, QoS};

use super::Router;
use super::shard::lock;
use crate::directory::{Answers, LifeFact, Question};
use crate::ids::UserId;
use crate::metrics::Dropped;
use crate::policy::{Refusal, Stop, refusals};
use crate::store::{Seq, WillRecord, Write};
use crate::time::Time;
use crate::user::{DueWill, Origin, Outdated};

/// Wills that wait, and bytes of memory that they take; beyond, they are dropped.
pub const MAX_DUE_WILLS: usize = 65_536;
/// See [`MAX_DUE_WILLS`].
pub const MAX_DUE_WILL_BYTES: u64 = 64 * 1024 * 1024;

/// Wills that wait.
#[derive(Default)]
pub(super) struct Wills {
    queue: VecDeque<DueWill>,
    bytes: u64,
}

impl Wills {
    /// Gives it back if there is no room.
    fn push(&mut self, due: DueWill) -> Option<DueWill> {
        let bytes = self.bytes + due.bytes();
        if self.queue.len() >= MAX_DUE_WILLS || bytes > MAX_DUE_WILL_BYTES {
            return Some(due);
        }
        self.bytes = bytes;
        self.queue.push_back(due);
        None
    }

    fn take(&mut self, index: usize) -> Option<DueWill> {
        let due = self.queue.remove(index)?;
        self.bytes -= due.bytes();
        Some(due)
    }

    fn take_all_of(&mut self, user: &UserId, up_to: Seq) -> Vec<DueWill> {
        let is_its =
            |due: &DueWill| due.user == *user && due.id.is_none_or(|number| number <= up_to);
        let indexes = (0..self.queue.len()).rev();
        let indexes: Vec<_> = indexes
            .filter(|index| is_its(&self.queue[*index]))
            .collect();
        let wills = indexes.into_iter().filter_map(|index| self.take(index));
        wills.collect()
    }
}

impl Router {
    /// Takes a will that is due. While the store cannot keep messages, only one that needs no store.
    #[must_use]
    pub fn next_will(&self) -> Option<DueWill> {
        let mut wills = lock(&self.wills);
        if self.store.accepts() {
            return wills.take(0);
        }
        let needs_none = |due: &DueWill| due.will.qos == QoS::AtMostOnce && due.id.is_none();
        let index = wills.queue.iter().position(needs_none)?;
        wills.take(index)
    }

    /// Judges a due will as any PUBLISH of its client and publishes it; a refused one is dropped, and so is one that was
    /// left with what is no longer the account's token (PROTOCOL.md, section 6).
    ///
    /// # Errors
    /// What has to be answered before the will can be judged.
    pub fn publish_will(
        &self,
        due: &DueWill,
        answers: &Answers,
        now: Time,
    ) -> Result<(), Question> {
        let (account, as_of) = self.known(answers).account(&due.user)?;
        let Some(life) = account
            .filter(|account| account.is_behind(due.token))
            .map(|account| account.life)
        else {
            self.drop_will(due);
            return Ok(());
        };
        let fact = LifeFact { life, as_of };
        let goes_on = self.with_user(&due.user, |user, effects| {
            user.goes_on(&fact, effects, &self.numbers)
        });
        if !goes_on.map_err(|Outdated| Question::Account(due.user.clone()))? {
            self.drop_will(due);
            return Ok(());
        }
        let will = &due.will;
        let publish = Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: will.topic.clone(),
            packet_id: None,
            properties: Some(Box::new(will.properties.clone())),
            payload: will.payload.clone(),
        };
        let permit = match self.authorize_publish(&due.user, &publish, answers) {
            Ok(permit) => permit,
            Err(Stop::Refused(refusal)) => {
                self.refuse_will(due, &refusal);
                return Ok(());
            }
            Err(Stop::Ask(question)) => return Err(question),
        };
        // Last, for the rest is gone through again with each answer; and once, also if the store gives it back.
        if !due.is_counted && !self.may_publish_will(&due.user, now) {
            self.refuse_will(due, &refusals::RATE);
            return Ok(());
        }
        let mut due = due.clone();
        due.is_counted = true;
        let origin = Origin::Will(due.clone());
        let permit = permit.by(life).for_own_life(fact);
        match self.publish(permit, publish, None, None, origin, now) {
            Ok(_) => {}
            Err(refusal)
                if [refusals::STORE, refusals::PUBLISH_WITHOUT_DIRECTORY].contains(&refusal) =>
            {
                self.put_back_will(due);
            }
            // A mailbox without room drops a will, which nobody waits for an answer to.
            Err(refusal) => self.refuse_will(&due, &refusal),
        }
        Ok(())
    }

    /// A will that cannot be judged or kept at the moment is due again.
    pub fn put_back_will(&self, due: DueWill) {
        self.wills_due([due]);
    }

    pub(super) fn wills_due(&self, due: impl IntoIterator<Item = DueWill>) {
        let too_many: Vec<_> = {
            let mut wills = lock(&self.wills);
            due.into_iter().filter_map(|due| wills.push(due)).collect()
        };
        too_many.iter().for_each(|due| self.drop_will(due));
    }

    pub(super) fn restore_wills(&self, found: Vec<WillRecord>) {
        self.wills_due(found.into_iter().map(|record| DueWill {
            id: Some(record.id),
            user: record.user,
            will: record.will,
            token: record.token,
            is_counted: false,
        }));
    }

    /// Nothing more is said in the name of an account that is gone; of what is kept, up to and with a number.
    pub(super) fn drop_wills_of(&self, user: &UserId, up_to: Seq) {
        let dropped = lock(&self.wills).take_all_of(user, up_to);
        dropped.iter().for_each(|due| self.drop_will(due));
    }

    fn refuse_will(&self, due: &DueWill, refusal: &Refusal) {
        self.metrics.refused(refusal);
        self.metrics.dropped(Dropped::Will, 1);
        self.drop_will(due);
    }

    fn drop_will(&self, due: &DueWill) {
        if let Some(id) = due.id {
            self.with_user(&due.user, |_, effects| {
                let write = Write::EndWill(due.user.clone(), id);
                effects.write_all([write].into_iter().collect());
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jam_wire::packet::{PublishProperties, Will};

    fn due(user: &str, bytes: usize) -> DueWill {
        let will = Will {
            topic: "/2/inbox".into(),
            payload: vec![0; bytes].into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_secs: None,
            properties: PublishProperties::default(),
        };
        DueWill {
            id: None,
            user: UserId::parse(user).unwrap(),
            will: Box::new(will),
            token: None,
            is_counted: false,
        }
    }

    #[test]
    fn there_is_a_bound_to_their_number() {
        let mut wills = Wills::default();
        for _ in 0..MAX_DUE_WILLS {
            assert!(wills.push(due("1", 0)).is_none());
        }
        assert!(wills.push(due("1", 0)).is_some());
        assert!(wills.take(0).is_some());
        assert!(wills.push(due("1", 0)).is_none());
        assert!(wills.push(due("1", 0)).is_some());
    }

    #[test]
    fn there_is_a_bound_to_their_bytes() {
        let mut wills = Wills::default();
        let half = usize::try_from(MAX_DUE_WILL_BYTES / 2).unwrap();
        // What has left takes no room.
        for _ in 0..4 {
            assert!(wills.push(due("1", half)).is_none());
            assert!(wills.push(due("2", half)).is_some());
            assert!(wills.push(due("2", half - 1024)).is_none());
            let taken = wills.take_all_of(&UserId::parse("1").unwrap(), Seq::MAX);
            assert_eq!(taken.len(), 1);
            assert!(wills.take(0).is_some());
        }
        assert_eq!((wills.bytes, wills.queue.len()), (0, 0));
    }
}
