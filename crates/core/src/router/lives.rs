//! What the directory says of accounts takes effect on what is kept of them (PROTOCOL.md, section 6).

use super::Router;
use super::shard::lock;
use crate::directory::{Account, Life, Lookup, Question};
use crate::ids::UserId;
use crate::store::Seq;
use crate::time::Time;
use crate::user::Ended;

impl Router {
    /// Everybody of whom anything is remembered, connected or not, some at a time: of one in [`SHARDS`] parts.
    ///
    /// [`SHARDS`]: super::SHARDS
    #[must_use]
    pub fn users_of(&self, part: usize) -> Vec<UserId> {
        let shard = lock(&self.shards[part]);
        shard.users.iter().map(|user| user.id().clone()).collect()
    }

    /// Ends what was made with what is no longer a user's token: connections, sessions, their wills (PROTOCOL.md,
    /// section 6); and everything of an account that is gone, or that was another one. `account` is what was read a moment
    /// ago. If it `may_come_back`, what is gone is only hidden for [`VANISHED_KEPT`].
    ///
    /// [`VANISHED_KEPT`]: crate::VANISHED_KEPT
    ///
    /// # Errors
    /// The account has to be loaded before anything ends: who has just come in may have been let in by what is newer.
    pub fn recheck(
        &self,
        user: &UserId,
        account: Option<&Account>,
        may_come_back: bool,
        now: Time,
    ) -> Result<(), Question> {
        let hash = self.hash(user);
        let is_in_order = lock(self.shard(hash))
            .find(user, hash)
            .is_none_or(|user| user.is_in_order(account, now));
        if is_in_order {
            return Ok(());
        }
        let Lookup::Known(account) = self.directory.account(user) else {
            return Err(Question::Account(user.clone()));
        };
        self.with_user(user, |user, effects| {
            let next_id = &|| self.next_seq();
            let Some(account) = &account else {
                user.vanish(may_come_back, now, effects, next_id);
                // The store is to know since when.
                effects.writes.extend(user.owner_change());
                return;
            };
            user.live(&account.life, effects, next_id);
            let mark = account.token.as_ref().map(crate::directory::Token::mark);
            user.end_sessions_of_other_tokens(mark, effects, next_id);
            effects.writes.extend(user.owner_change());
        });
        Ok(())
    }

    /// Ends everything of a user up to and with a number, and every connection whose session is not younger than that, as
    /// the operator asks.
    pub fn end(&self, user: &UserId, up_to: Seq) {
        self.with_user(user, |user, effects| {
            user.end_up_to(up_to, effects, &|| self.next_seq());
        });
        self.drop_wills_of(user, up_to);
    }

    /// Whether something of a user belonged to another account than the one of this life; it has ended.
    pub(super) fn live(&self, user: &UserId, life: &Life) -> bool {
        self.with_user(user, |user, effects| {
            user.live(life, effects, &|| self.next_seq())
        })
    }

    /// What has ended with accounts since this was last asked.
    #[must_use]
    pub fn take_ended(&self) -> Ended {
        std::mem::take(&mut *lock(&self.ended))
    }

    pub(super) fn has_ended(&self, user: &UserId, ended: Ended) {
        lock(&self.ended).add(ended);
        self.drop_wills_of(user, Seq::MAX);
    }
}
