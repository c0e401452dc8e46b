//! What the directory says of accounts takes effect on what is kept of them (PROTOCOL.md, section 6).

use std::sync::atomic::Ordering;

use super::Router;
use super::shard::lock;
use crate::directory::{Account, Answers, Generation, LifeFact, Question, Token};
use crate::ids::UserId;
use crate::store::Seq;
use crate::time::Time;
use crate::user::{EndedAccounts, Outdated, User};

impl Router {
    /// All users that are remembered, connected or not, some at a time: those of one of [`SHARDS`] parts.
    ///
    /// [`SHARDS`]: super::SHARDS
    #[must_use]
    pub fn users_of(&self, part: usize) -> Vec<UserId> {
        let shard = lock(&self.shards[part]);
        shard.users.iter().map(|user| user.id().clone()).collect()
    }

    /// All accounts are about to be checked by what the directory has been since this generation. From now on a client is
    /// let in only by a fact that is as new: the check would miss one that an older fact lets in.
    pub fn begin_check(&self, as_of: Generation) {
        self.checked.fetch_max(as_of.0, Ordering::Relaxed);
    }

    /// Whether a fact is older than what all accounts have been checked by. To be asked under the lock of its user.
    pub(super) fn is_before_check(&self, as_of: Generation) -> bool {
        as_of.0 < self.checked.load(Ordering::Relaxed)
    }

    /// Ends what was made with what is no longer a user's token: connections, sessions, their wills (PROTOCOL.md,
    /// section 6); and everything of an account that is gone, or that was another one. `answers` has what was read of the
    /// account a moment ago, if it has been. If it `may_come_back`, what is gone is only hidden for [`VANISHED_KEPT`], or until another account uses the id.
    ///
    /// [`VANISHED_KEPT`]: crate::VANISHED_KEPT
    ///
    /// # Errors
    /// The directory has to be asked for the account before anything ends: a device that has just connected was let in by a
    /// newer fact.
    pub fn recheck(
        &self,
        user: &UserId,
        answers: &Answers,
        may_come_back: bool,
        now: Time,
    ) -> Result<(), Question> {
        let hash = self.hash(user);
        let is_in_order = |user: &User| {
            let account = answers.account();
            account.is_some_and(|account| user.is_in_order(account.as_ref(), now))
        };
        let shard = lock(self.shard(hash));
        let found = shard.users.find(user, hash).or_nothing();
        let is_in_order = found.is_none_or(is_in_order);
        drop(shard);
        if is_in_order {
            return Ok(());
        }
        let (account, as_of) = self.known(answers).account(user)?;
        if self.is_before_check(as_of) {
            // What was so before may have been put right since.
            return Err(Question::Account(user.clone()));
        }
        let checked = self.with_user(user, |user, effects| {
            let present = account.filter(|account| !user.is_of_another(&account.life));
            if let Some(Account { life, token }) = present {
                user.live(&LifeFact { life, as_of }, effects, &self.numbers)?;
                let mark = token.as_ref().map(Token::mark);
                user.end_sessions_of_other_tokens(mark, as_of, effects, &self.numbers)?;
            } else {
                user.vanish(as_of, may_come_back, now, effects, &self.numbers)?;
            }
            // The store is to know since when.
            effects.writes.extend(user.owner_change());
            Ok(())
        });
        checked.map_err(|Outdated| Question::Account(user.clone()))
    }

    /// Ends everything of a user up to and with a number, and every connection whose session is not younger than that, as
    /// the operator asks.
    pub fn end(&self, user: &UserId, up_to: Seq) {
        self.with_user(user, |user, effects| {
            user.end_up_to(up_to, effects, &self.numbers);
        });
        self.drop_wills_of(user, up_to);
    }

    /// What has ended with accounts since this was last asked.
    #[must_use]
    pub fn take_ended(&self) -> EndedAccounts {
        std::mem::take(&mut *lock(&self.ended))
    }

    pub(super) fn has_ended(&self, user: &UserId, ended: EndedAccounts) {
        lock(&self.ended).add(ended);
        if ended.hidden == 0 {
            self.drop_wills_of(user, Seq::MAX);
        }
    }
}
