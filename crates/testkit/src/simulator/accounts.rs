//! What happens to the directory, and what is written there: it does not answer, or not in time; accounts end and begin
//! anew; tokens change; an older copy takes its place for a while.

use std::collections::{HashMap, HashSet};

use jam_wire::ConnectReturnCode;
use jam_wire::packet::ConnectCode;

use super::device::Device;
use super::{Simulator, USERS};
use crate::directory::Snapshot;
use crate::packets;

/// What the model knows of the directory.
#[derive(Default)]
pub(super) struct Accounts {
    /// The number of each user's token, of that and of the newest there has been.
    tokens: HashMap<&'static str, (usize, usize)>,
    /// The user whose account is not in the copy that is there at the moment.
    pub(super) hidden: Option<&'static str>,
    /// Users with something left, perhaps, of an account before theirs: a crash has undone its end. Another file may have stood in
    /// the place of the right one, so that it is hidden, for a day at most or until the present account comes.
    pub(super) lingering: HashSet<&'static str>,
    /// What somebody read of the accounts some time ago.
    looked: Option<Snapshot>,
}

impl Simulator<'_> {
    /// Something happens to the directory.
    pub(super) fn directory(&mut self) -> Option<()> {
        match self.source.below(8)? {
            0 if self.fails => self.lose_directory(),
            0 | 1 => self.hang(),
            2 => self.end_account()?,
            3 => self.change_token()?,
            4 => self.hide()?,
            5 => self.show(),
            6 => self.look(),
            _ => self.recheck_looked(),
        }
        Some(())
    }

    pub(super) fn is_hidden(&self, user: &str) -> bool {
        self.accounts.hidden == Some(user)
    }

    /// The directory does not answer any more, and what was known of it is not believed: until somebody comes.
    fn lose_directory(&mut self) {
        self.bench.directory().forget();
        self.bench.directory().fail(true);
    }

    /// The same, but a question waits for its answer.
    fn hang(&mut self) {
        self.bench.directory().forget();
        self.bench.directory().hang(true);
    }

    /// The directory answers.
    pub(super) fn mend_directory(&self) {
        self.bench.directory().fail(false);
        self.bench.directory().hang(false);
        self.bench.run();
    }

    /// The server looks at all accounts again.
    pub(super) fn recheck(&self) {
        self.bench.recheck_that(self.accounts.hidden.is_some());
    }

    /// An account ends, and another one gets its id, and, as it happens, its token.
    fn end_account(&mut self) -> Option<()> {
        let user = USERS[self.source.below(USERS.len())?];
        let is_seen_between = self.source.below(2)? == 0;
        self.show();
        self.hear_all();
        self.bench.directory().remove_account(user);
        if is_seen_between {
            self.recheck();
        }
        let (current, _) = self.accounts.tokens.get(user).copied().unwrap_or_default();
        self.bench
            .directory()
            .set_account(user, Some(&token(user, current)));
        self.recheck();
        self.wills_are_doubtful();
        self.drain_others(user);
        for (number, message) in self.messages.iter_mut().enumerate() {
            if message.receiver == user {
                let is_sent_again = |device: &Device| device.is_publishing(number);
                message.excused = true;
                // A will that may not have been written yet goes to the account that has the id then.
                let may_come = message.is_will && !message.accepted;
                message.gone |= !may_come && !self.devices.iter().any(is_sent_again);
            }
        }
        for device in self.devices.iter_mut().filter(|it| it.user == user) {
            device.end_life();
        }
        self.pushes.end_life(user);
        Some(())
    }

    /// A user gets a new token, or has the one of before again, with an older copy of the directory: everything that was
    /// made with the other one ends, and the messages stay.
    fn change_token(&mut self) -> Option<()> {
        let user = USERS[self.source.below(USERS.len())?];
        let is_older = self.source.below(3)? == 0;
        self.show();
        self.hear_all();
        let (current, newest) = self.accounts.tokens.entry(user).or_default();
        *current = match current.checked_sub(1) {
            Some(older) if is_older => older,
            _ => *newest + 1,
        };
        *newest = (*newest).max(*current);
        let token = token(user, *current);
        if is_older {
            // What ends with a token is its owner's again if that token comes back and a crash undoes the end.
            self.flush();
            self.drain();
        }
        self.bench.directory().set_account(user, Some(&token));
        self.recheck();
        self.wills_are_doubtful();
        self.drain_others(user);
        for device in self.devices.iter_mut().filter(|it| it.user == user) {
            device.token.clone_from(&token);
            device.end_life();
        }
        Some(())
    }

    /// An older copy, in which a user is not, takes the directory's place.
    fn hide(&mut self) -> Option<()> {
        let user = USERS[self.source.below(USERS.len())?];
        self.show();
        self.hear_all();
        self.bench.directory().hide_account(user, true);
        self.accounts.hidden = Some(user);
        self.recheck();
        self.wills_are_doubtful();
        self.drain_others(user);
        let now = self.bench.now();
        for device in self.devices.iter_mut().filter(|it| it.user == user) {
            device.is_evicted(now);
        }
        self.wills_are_doubtful();
        Some(())
    }

    /// The directory is the right one again: what the hidden user had is there.
    pub(super) fn show(&mut self) {
        self.judge_wills();
        if self.accounts.hidden.is_some() {
            self.hear_all();
        }
        let Some(user) = self.accounts.hidden.take() else {
            return;
        };
        self.bench.directory().hide_account(user, false);
        self.recheck();
        for (number, message) in self.messages.iter_mut().enumerate() {
            // What was refused for that reason is sent again by senders that have not been told.
            if message.receiver == user && message.is_to_hidden {
                let senders = self.devices.iter_mut();
                for sender in senders.filter(|it| it.is_publishing(number)) {
                    sender.is_allowed_now(number);
                    message.allowed = true;
                }
            }
        }
    }

    /// Reads all accounts.
    fn look(&mut self) {
        self.accounts.looked = Some(self.bench.directory().snapshot());
    }

    /// The server gets what was read before the last changes: nobody is ended by that who is in by what is newer.
    fn recheck_looked(&mut self) {
        let Some(looked) = self.accounts.looked.take() else {
            return;
        };
        self.mend_directory();
        let is_hidden = self.accounts.hidden.is_some();
        self.bench.recheck_seeing(&looked, is_hidden);
    }

    /// Somebody tries to come under a device's name with a wrong token, or with the right one that is not in the directory
    /// at the moment: nothing comes of it.
    pub(super) fn try_in_vain(&mut self, which: usize) {
        self.mend_directory();
        let device = &self.devices[which];
        let token = if self.is_hidden(device.user) {
            device.token.clone()
        } else {
            "a guess".to_owned()
        };
        let other = self.bench.client(device.client.id(), device.version);
        let conn_ack = other.try_connect(|connect| connect.password = Some(token.into()));
        let is_refused = match conn_ack.code {
            ConnectCode::V5(reason) => reason.is_error(),
            ConnectCode::V3(code) => code != ConnectReturnCode::Accepted,
        };
        assert!(is_refused, "{conn_ack:?}");
        other.drop_connection();
    }
}

/// The token with this number.
fn token(user: &str, number: usize) -> String {
    match number {
        0 => packets::token(user),
        _ => format!("{} {number}", packets::token(user)),
    }
}
