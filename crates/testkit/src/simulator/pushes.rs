//! The model of pushes: at most one in the window, and one for whatever nobody has acknowledged.

use std::collections::HashMap;
use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::push::{DuePush, PushOutcome};
use jam_core::time::Time;

use super::Message;
use crate::bench::Bench;

/// By receiver and sender.
type Pairs = HashMap<(String, String), Time>;

/// A push that somebody is sending.
struct UnderWay {
    push: DuePush,
    /// Whether its receiver may have been heard of since: there may be another one.
    is_outdated: bool,
}

fn pair_of(push: &DuePush) -> (String, String) {
    (push.receiver().to_string(), push.sender().to_string())
}

/// What has been sent, or is being sent.
pub(super) struct Pushes {
    collapse: Duration,
    last: Pairs,
    /// Of those whose receiver has not been heard of since.
    window: Pairs,
    /// Taken, and not settled.
    under_way: Vec<UnderWay>,
    /// Users whose acknowledgements the server has not handled: it hears of them whenever it does.
    behind: Vec<&'static str>,
}

impl Pushes {
    pub(super) fn new(collapse: Duration) -> Self {
        Self {
            collapse,
            last: Pairs::new(),
            window: Pairs::new(),
            under_way: Vec::new(),
            behind: Vec::new(),
        }
    }

    /// A user has come, or may have acknowledged something.
    pub(super) fn heard_of(&mut self, user: &str) {
        self.window.retain(|(receiver, _), _| receiver != user);
        self.outdate(|push| push.receiver().as_str() == user);
    }

    fn outdate(&mut self, which: impl Fn(&DuePush) -> bool) {
        for it in &mut self.under_way {
            it.is_outdated |= which(&it.push);
        }
    }

    /// These have sent what the server may not have handled.
    pub(super) fn are_behind(&mut self, users: impl Iterator<Item = &'static str>) {
        self.behind.clear();
        self.behind.extend(users);
    }

    /// A user's account has ended: nothing is known of pushes to it, or for it.
    pub(super) fn end_life(&mut self, user: &str) {
        self.window
            .retain(|(receiver, sender), _| receiver != user && sender != user);
        self.outdate(|push| {
            [push.receiver(), push.sender()]
                .map(UserId::as_str)
                .contains(&user)
        });
    }

    /// That a push has gone out may have been forgotten, and what was under way is not.
    pub(super) fn crash(&mut self) {
        self.window.clear();
        self.under_way.clear();
    }

    /// A push is taken to be sent.
    pub(super) fn take(&mut self, push: DuePush) {
        let pair = pair_of(&push);
        assert_ne!(pair.0, pair.1, "a push to the sender");
        assert!(
            pair.0 == "1" || pair.1 == "1",
            "a push from a stranger: {pair:?}"
        );
        let mut others = self.under_way.iter();
        assert!(
            others.all(|it| it.is_outdated || pair_of(&it.push) != pair),
            "a push is under way twice: {pair:?}"
        );
        self.under_way.push(UnderWay {
            push,
            is_outdated: false,
        });
    }

    /// All that is under way is sent, or cannot be.
    pub(super) fn settle(&mut self, bench: &Bench, fails: bool) {
        let now = bench.now();
        for UnderWay { push, is_outdated } in std::mem::take(&mut self.under_way) {
            if fails {
                bench.settle_push(push, PushOutcome::Later(now + Duration::from_secs(1)));
                continue;
            }
            let pair = pair_of(&push);
            bench.settle_push(push, PushOutcome::Sent);
            self.last.insert(pair.clone(), now);
            if is_outdated {
                continue;
            }
            let before = self.window.insert(pair.clone(), now);
            assert!(
                before.is_none_or(|before| before + self.collapse <= now),
                "two pushes in a window: {pair:?}"
            );
            if self.behind.iter().any(|user| *user == pair.0) {
                self.window.remove(&pair);
            }
        }
    }

    /// Somebody has been told of each message that nobody has acknowledged.
    pub(super) fn check_complete(&self, messages: &[Message]) {
        for (number, message) in messages.iter().enumerate() {
            let waits = message.accepted
                && !message.acknowledged
                && message.is_kept()
                && !message.excused
                && message.expires.is_none();
            if !waits || message.sender == message.receiver {
                continue;
            }
            let pair = (message.receiver.to_owned(), message.sender.to_owned());
            let told = self.last.get(&pair);
            assert!(
                told.is_some_and(|told| *told + self.collapse >= message.published_at),
                "nobody was told of message {number}: {message:?}, the last push at {told:?}"
            );
        }
    }
}
