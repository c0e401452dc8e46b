//! Whether the server is ready, for `/readyz`.
//!
//! Each part says how it is; nothing is tried, and no thread waited for, when it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jam_core::router::OnCommit;
use jam_core::store::MailboxStore;

use crate::permits::ConnectionPermits;
use crate::threads::Threads;

/// How the parts of the server are.
pub(crate) struct Health {
    permits: Arc<ConnectionPermits>,
    mailbox: Arc<dyn MailboxStore<OnCommit>>,
    threads: Arc<Threads>,
    directory_fails: AtomicBool,
}

impl Health {
    /// All is well.
    pub(crate) fn new(
        permits: Arc<ConnectionPermits>,
        mailbox: Arc<dyn MailboxStore<OnCommit>>,
        threads: Arc<Threads>,
    ) -> Self {
        Self {
            permits,
            mailbox,
            threads,
            directory_fails: AtomicBool::new(false),
        }
    }

    /// The directory answers, or does not. Returns whether that is news.
    pub(crate) fn set_directory_fails(&self, fails: bool) -> bool {
        self.directory_fails.swap(fails, Ordering::Relaxed) != fails
    }

    /// Whether the accounts database does not answer.
    pub(crate) fn directory_fails(&self) -> bool {
        self.directory_fails.load(Ordering::Relaxed)
    }

    /// Whether one of its threads hangs.
    pub(crate) fn hangs(&self) -> bool {
        self.threads.troubles().next().is_some()
    }

    /// All reasons why the server is not ready; none: it is. What may follow from another comes after it.
    pub(crate) fn troubles(&self) -> Vec<&'static str> {
        let directory_fails = self.directory_fails();
        let mut troubles = Vec::new();
        troubles.extend(self.permits.stopping().then_some("stopping"));
        troubles.extend(self.threads.troubles());
        troubles.extend(directory_fails.then_some("the accounts database does not answer"));
        troubles.extend((!self.mailbox.accepts()).then_some("the mailbox cannot be written"));
        troubles
    }
}

#[cfg(test)]
mod tests {
    use jam_testkit::store::FaultyStore;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let permits = ConnectionPermits::new(1, 1);
        let disk = Arc::new(FaultyStore::default());
        let threads = Arc::new(Threads::start(1, 50, || ()).unwrap());
        let health = Health::new(permits.clone(), disk.clone(), Arc::clone(&threads));
        assert!(health.troubles().is_empty());
        assert!(health.set_directory_fails(true));
        assert!(!health.set_directory_fails(true));
        assert_eq!(health.troubles(), ["the accounts database does not answer"]);
        disk.trouble(true);
        permits.stop();
        let all = [
            "stopping",
            "the accounts database does not answer",
            "the mailbox cannot be written",
        ];
        assert_eq!(health.troubles(), all);
        assert!(health.set_directory_fails(false));
        assert_eq!(health.troubles(), [all[0], all[2]]);
        disk.trouble(false);
        assert_eq!(health.troubles(), ["stopping"]);
        assert!(!health.hangs());
        threads.hang_for_test(false);
        assert!(health.hangs());
        let hangs = "a thread that serves connections hangs";
        assert_eq!(health.troubles(), ["stopping", hangs]);
    }
}
