//! Accounts come and go, and ids are used again (PROTOCOL.md, section 6): what is kept of a user id belongs to one
//! account's life, and ends with it.
//!
//! Invariants, checked by `tests/lives.rs`: what an id held before the present life of its account is neither shown nor
//! delivered; the store says whose it is from the first thing on that it keeps; what vanished without anybody
//! seeing how is kept for [`VANISHED_KEPT`], for its account may come back with the file that it was in; a fact ends only
//! what an older one has made ([`Outdated`]).

use std::time::Duration;

use super::tally::count;
use super::{Awaits, Effects, User};
use crate::directory::{Account, Generation, Life, LifeFact};
use crate::link::Eviction;
use crate::store::{OwnerRecord, Seq, Sequence, Write, Writes};
use crate::time::Time;

/// How long that is kept whose account was not there any more after a start, or after the accounts were replaced.
pub const VANISHED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Whose everything is that a user has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    life: Life,
    /// Of the newest fact that has said so.
    as_of: Generation,
    /// Of the newest fact that has said which sessions are the account's.
    sessions_as_of: Generation,
    /// Whether the store has been told.
    recorded: bool,
    /// Since when there is no such account, if it may come back.
    gone_since: Option<Time>,
    /// Of the newest fact that has said that.
    gone_as_of: Generation,
}

/// A fact contradicts one that is as new or newer: it is to be asked for again. It was read before the lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outdated;

/// What has ended with accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndedAccounts {
    /// Accounts.
    pub lives: usize,
    /// Messages that had not been delivered.
    pub messages: usize,
    /// Retained messages.
    pub retained: usize,
    /// Sessions.
    pub sessions: usize,
    /// Accounts of which nothing has ended yet: they may come back.
    pub hidden: usize,
}

impl EndedAccounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.messages += other.messages;
        self.retained += other.retained;
        self.sessions += other.sessions;
        self.hidden += other.hidden;
    }
}

impl User {
    /// The account of this life has the id now and uses it. What belonged to another one ends.
    pub(crate) fn live(
        &mut self,
        fact: &LifeFact,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Result<(), Outdated> {
        let Some(owner) = &mut self.owner else {
            self.begin(fact, Generation::default());
            return Ok(());
        };
        if owner.life == fact.life && owner.gone_since.is_none() {
            owner.as_of = owner.as_of.max(fact.as_of);
            return Ok(());
        }
        let is_another = !owner.goes_on_as(&fact.life);
        let contradicted = match owner.gone_since {
            Some(_) if !is_another => owner.gone_as_of,
            Some(_) | None => owner.as_of,
        };
        if fact.as_of <= contradicted {
            return Err(Outdated);
        }
        let sessions_as_of = owner.sessions_as_of;
        if is_another {
            self.end_life(effects, numbers);
        }
        self.begin(fact, sessions_as_of);
        Ok(())
    }

    /// Whether the account of this life, that of the id by now, is the one that everything belongs to. If not, nothing ends.
    pub(crate) fn goes_on(
        &mut self,
        fact: &LifeFact,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Result<bool, Outdated> {
        let owner = self.owner.as_ref();
        if let Some(owner) = owner.filter(|owner| !owner.goes_on_as(&fact.life)) {
            let is_newer = fact.as_of > owner.as_of;
            return is_newer.then_some(false).ok_or(Outdated);
        }
        self.live(fact, effects, numbers)?;
        Ok(true)
    }

    fn begin(&mut self, fact: &LifeFact, sessions_as_of: Generation) {
        self.owner = Some(Box::new(Owner {
            life: fact.life,
            as_of: fact.as_of,
            sessions_as_of,
            recorded: false,
            gone_since: None,
            gone_as_of: Generation::default(),
        }));
    }

    /// Whether what there is belongs to another account than that of this life.
    pub(crate) fn is_of_another(&self, life: &Life) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| !owner.goes_on_as(life))
    }

    /// Whether what there is belongs to the account of this life, which had the id at some time.
    pub(crate) fn is_still_of(&self, life: &Life) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| life.goes_on_as(&owner.life))
    }

    /// What says which sessions are the account's is of this generation, and contradicts what there is or not: whether
    /// it may.
    pub(super) fn judge_sessions(
        &mut self,
        as_of: Generation,
        contradicts: bool,
    ) -> Result<(), Outdated> {
        let Some(owner) = &mut self.owner else {
            return Ok(());
        };
        if as_of < owner.sessions_as_of || (contradicts && as_of == owner.sessions_as_of) {
            return Err(Outdated);
        }
        owner.sessions_as_of = as_of;
        Ok(())
    }

    /// Whether there is nothing to do about what the directory says of the account.
    pub(crate) fn is_in_order(&self, account: Option<&Account>, now: Time) -> bool {
        let owner = self.owner.as_ref();
        let Some(account) = account.filter(|account| !self.is_of_another(&account.life)) else {
            return owner.is_some_and(|owner| owner.is_hidden(now)) && !self.is_connected();
        };
        let is_its = owner.is_some_and(|it| it.life == account.life && it.gone_since.is_none());
        is_its && self.belongs_to(account.token.as_ref().map(crate::directory::Token::mark))
    }

    /// There is no such account any more: none, or another one. If it `may_come_back`, what it has is kept for some time,
    /// and shown to nobody.
    pub(crate) fn vanish(
        &mut self,
        as_of: Generation,
        may_come_back: bool,
        now: Time,
        effects: &mut Effects,
        numbers: &Sequence,
    ) -> Result<(), Outdated> {
        if self.is_idle() {
            return Ok(());
        }
        if self.owner.is_none() {
            self.begin(&LifeFact::default(), Generation::default());
        }
        let Some(owner) = &mut self.owner else {
            return Ok(());
        };
        if owner.gone_since.is_none() && as_of <= owner.as_of {
            return Err(Outdated);
        }
        owner.gone_as_of = owner.gone_as_of.max(as_of);
        match owner.gone_since {
            Some(since) if now < since + VANISHED_KEPT => {}
            None if may_come_back => {
                owner.gone_since = Some(now);
                owner.recorded = false;
                effects.rare().ended = Some(EndedAccounts {
                    hidden: 1,
                    ..EndedAccounts::default()
                });
            }
            Some(_) | None => {
                self.end_life(effects, numbers);
                return Ok(());
            }
        }
        for link in self.links() {
            link.evict(Eviction::NotAuthorized);
        }
        Ok(())
    }

    /// Whether what there is belongs to an account that is gone, and may come back.
    pub(super) fn is_hidden(&self) -> bool {
        let owner = self.owner.as_ref();
        owner.is_some_and(|owner| owner.gone_since.is_some())
    }

    /// Everything of the account ends, and nothing more is said in its name.
    pub(crate) fn end_life(&mut self, effects: &mut Effects, numbers: &Sequence) {
        let mut ended = EndedAccounts {
            lives: 1,
            messages: self.mailbox.kept().messages,
            retained: self.retained.as_ref().map_or(0, |topics| topics.len()),
            sessions: self.devices.len(),
            hidden: 0,
        };
        // The log first: nothing is passed on from one device to another.
        self.clear_retained(Seq::MAX, effects);
        let mut gone = Vec::new();
        self.mailbox.clear(Seq::MAX, &mut gone);
        effects.rare().tally.ended += count(&gone);
        effects.all_gone(gone);
        while let Some(last) = self.devices.len().checked_sub(1) {
            self.devices[last].will = None;
            self.end_session(last, Some(Eviction::NotAuthorized), effects, numbers);
        }
        self.end_pushes(effects);
        if self.owner.take().is_some_and(|owner| owner.recorded) {
            effects.write(Write::EndOwner(self.id.clone()));
        }
        if ended.messages + ended.retained + ended.sessions == 0 {
            ended.lives = 0;
        }
        effects.rare().ended = Some(ended);
    }

    /// Everything ends that has a number up to this one, and what has none: the sessions that end with their connections.
    pub(crate) fn end_up_to(&mut self, up_to: Seq, effects: &mut Effects, numbers: &Sequence) {
        self.clear_retained(up_to, effects);
        let mut gone = Vec::new();
        self.mailbox.clear(up_to, &mut gone);
        effects.rare().tally.purged += count(&gone);
        self.land_gone(&gone, effects);
        effects.all_gone(gone);
        for index in (0..self.devices.len()).rev() {
            if self.devices[index].id().is_none_or(|id| id <= up_to) {
                self.devices[index].will = None;
                self.end_session(index, Some(Eviction::NotAuthorized), effects, numbers);
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
            as_of: Generation::default(),
            sessions_as_of: Generation::default(),
            recorded: true,
            gone_since: found.gone_since,
            gone_as_of: Generation::default(),
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

    /// The same, for a user with something in the store already.
    pub(crate) fn owner_change(&mut self) -> Option<(Writes, Option<Awaits>)> {
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
    fn goes_on_as(&self, life: &Life) -> bool {
        self.life.goes_on_as(life)
    }

    fn is_hidden(&self, now: Time) -> bool {
        self.gone_since
            .is_some_and(|since| now < since + VANISHED_KEPT)
    }
}
