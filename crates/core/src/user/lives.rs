//! Accounts come and go, and ids are used again (PROTOCOL.md, section 6): what is kept of a user id belongs to one
//! account's life, and ends with it.
//!
//! Invariants, checked by `tests/lives.rs`: what an id held before the present life of its account is shown to nobody and
//! delivered to nobody; the store says whose it is from the first thing on that it keeps; what vanished without anybody
//! seeing how is kept for [`VANISHED_KEPT`], for its account may come back with the file that it was in.

use std::time::Duration;

use super::{Effects, User};
use crate::directory::{Account, Life};
use crate::link::Eviction;
use crate::store::{OwnerRecord, Receipt, Seq, Write, Writes};
use crate::time::Time;

/// How long that is kept whose account was not there any more after a start, or after the accounts were replaced.
pub const VANISHED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Whose everything is that a user has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    life: Life,
    /// Whether the store has been told.
    recorded: bool,
    /// Since when there is no account, if it may come back.
    gone_since: Option<Time>,
}

/// What has ended with accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Accounts.
    pub lives: usize,
    /// Messages that had not been delivered.
    pub messages: usize,
    /// Retained messages.
    pub retained: usize,
    /// Sessions.
    pub sessions: usize,
}

impl Ended {
    pub(crate) fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.messages += other.messages;
        self.retained += other.retained;
        self.sessions += other.sessions;
    }
}

impl User {
    /// The account has this life now. What belonged to another one ends; whether there was any.
    pub(crate) fn live(
        &mut self,
        life: &Life,
        effects: &mut Effects,
        next_id: &dyn Fn() -> Seq,
    ) -> bool {
        let Some(owner) = &mut self.owner else {
            self.begin(life);
            return false;
        };
        if owner.life == *life && owner.gone_since.is_none() {
            return false;
        }
        if owner.life.goes_on_as(life) {
            self.begin(life);
            return false;
        }
        self.end_life(effects, next_id);
        self.begin(life);
        true
    }

    fn begin(&mut self, life: &Life) {
        self.owner = Some(Box::new(Owner {
            life: *life,
            recorded: false,
            gone_since: None,
        }));
    }

    /// Whether there is nothing to do about what the directory says of the account.
    pub(crate) fn is_in_order(&self, account: Option<&Account>, now: Time) -> bool {
        let owner = self.owner.as_ref();
        let Some(account) = account else {
            return owner.is_some_and(|owner| owner.is_hidden(now)) && !self.is_connected();
        };
        let is_its = owner.is_some_and(|it| it.life == account.life && it.gone_since.is_none());
        is_its && self.belongs_to(account.token.as_ref().map(crate::directory::Token::mark))
    }

    /// There is no such account any more. If it `may_come_back`, what it has is kept for some time, and shown to nobody.
    pub(crate) fn vanish(
        &mut self,
        may_come_back: bool,
        now: Time,
        effects: &mut Effects,
        next_id: &dyn Fn() -> Seq,
    ) {
        if self.is_idle() {
            return;
        }
        let is_hidden = self.owner.as_ref().and_then(|owner| owner.gone_since);
        match is_hidden {
            Some(since) if now < since + VANISHED_KEPT => {}
            None if may_come_back => {
                let life = self.owner.as_ref().map_or(Life::default(), |it| it.life);
                self.begin(&life);
                if let Some(owner) = &mut self.owner {
                    owner.gone_since = Some(now);
                }
            }
            Some(_) | None => {
                self.end_life(effects, next_id);
                return;
            }
        }
        for link in self.links() {
            link.evict(Eviction::NotAuthorized);
        }
    }

    /// Everything of the account ends, and nothing more is said in its name.
    pub(crate) fn end_life(&mut self, effects: &mut Effects, next_id: &dyn Fn() -> Seq) {
        let mut ended = Ended {
            lives: 1,
            messages: self.mailbox.kept().messages,
            retained: self.retained.as_ref().map_or(0, |topics| topics.len()),
            sessions: self.devices.len(),
        };
        // The log first: nothing is passed on from one device to another.
        self.clear_retained(Seq::MAX, effects);
        let mut gone = Vec::new();
        self.mailbox.clear(Seq::MAX, &mut gone);
        effects.all_gone(gone);
        while let Some(last) = self.devices.len().checked_sub(1) {
            self.devices[last].will = None;
            self.end_session(last, Some(Eviction::NotAuthorized), effects, next_id);
        }
        self.end_pushes(effects);
        if self.owner.take().is_some_and(|owner| owner.recorded) {
            effects.write(Write::EndOwner(self.id.clone()));
        }
        if ended.messages + ended.retained + ended.sessions == 0 {
            ended.lives = 0;
        }
        effects.seldom().ended = Some(ended);
    }

    /// Everything ends that has a number up to this one, and what has none: the sessions that end with their connections.
    pub(crate) fn end_up_to(
        &mut self,
        up_to: Seq,
        effects: &mut Effects,
        next_id: &dyn Fn() -> Seq,
    ) {
        self.clear_retained(up_to, effects);
        let mut gone = Vec::new();
        self.mailbox.clear(up_to, &mut gone);
        self.land_gone(&gone, effects);
        effects.all_gone(gone);
        for index in (0..self.devices.len()).rev() {
            if self.devices[index].id().is_none_or(|id| id <= up_to) {
                self.devices[index].will = None;
                self.end_session(index, Some(Eviction::NotAuthorized), effects, next_id);
            }
        }
        if self.mailbox.is_empty() {
            self.end_pushes(effects);
        }
    }

    /// What a store has found.
    pub(crate) fn restore_owner(&mut self, found: &OwnerRecord) {
        self.owner = Some(Box::new(Owner {
            life: found.life,
            recorded: true,
            gone_since: found.gone_since,
        }));
    }

    /// What the store is to be told before it keeps anything else of this user.
    pub(crate) fn owner_write(&mut self) -> Option<Write> {
        let owner = self.owner.as_mut().filter(|owner| !owner.recorded)?;
        owner.recorded = true;
        Some(Write::Owner(Box::new(OwnerRecord {
            user: self.id.clone(),
            life: owner.life,
            gone_since: owner.gone_since,
        })))
    }

    /// The same, of a user of whom it keeps something already.
    pub(crate) fn owner_change(&mut self) -> Option<(Writes, Option<Receipt>)> {
        if self.is_idle() {
            return None;
        }
        Some((Writes::from_iter([self.owner_write()?]), None))
    }

    /// Has the store told whose it is, together with the first thing that it is to keep, and when there is nothing left.
    pub(crate) fn keep_owner(&mut self, effects: &mut Effects) {
        if self.is_idle() {
            if self.owner.take().is_some_and(|owner| owner.recorded) {
                effects.write(Write::EndOwner(self.id.clone()));
            }
        } else if !effects.writes.is_empty()
            && let Some(write) = self.owner_write()
        {
            // One that has ended in the same moment makes room for this one, and not after it.
            for (writes, _) in &mut effects.writes {
                writes.retain(|write| !matches!(write, Write::EndOwner(_)));
            }
            let (writes, _) = &mut effects.writes[0];
            let rest = std::mem::take(writes);
            *writes = Writes::from_iter([write].into_iter().chain(rest));
        }
    }
}

impl Owner {
    fn is_hidden(&self, now: Time) -> bool {
        self.gone_since
            .is_some_and(|since| now < since + VANISHED_KEPT)
    }
}
