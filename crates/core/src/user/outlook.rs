//! What would expire of a user's if it were later.

use super::User;
use crate::time::Time;

/// How much would expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Messages that wait.
    pub messages: usize,
    /// Sessions of devices that are away.
    pub sessions: usize,
    /// Retained messages.
    pub retained: usize,
}

impl User {
    /// Adds what expires after one time and not after another, later one.
    pub(crate) fn look_ahead(&self, after: Time, until: Time, outlook: &mut Outlook) {
        let expires = |at: Time| after < at && at <= until;
        for entry in self.mailbox.expiring(after, until) {
            if entry.is_retained() {
                outlook.retained += 1;
            } else {
                outlook.messages += 1;
            }
        }
        let away = self.devices.iter().filter(|it| it.link.is_none());
        outlook.sessions += away.filter(|it| expires(it.ends_at)).count();
    }
}
