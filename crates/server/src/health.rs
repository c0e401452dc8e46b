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

    /// Why the server is not ready; `None`: it is.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        if self.permits.stopping() {
            Some("stopping")
        } else if let Some(trouble) = self.threads.trouble() {
            Some(trouble) // before what may follow from it
        } else if self.directory_fails.load(Ordering::Relaxed) {
            Some("the accounts database does not answer")
        } else if !self.mailbox.accepts() {
            Some("the mailbox cannot be written")
        } else {
            None
        }
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
        let health = Health::new(permits.clone(), disk.clone(), threads);
        assert_eq!(health.trouble(), None);
        assert!(health.set_directory_fails(true));
        assert!(!health.set_directory_fails(true));
        assert_eq!(
            health.trouble(),
            Some("the accounts database does not answer")
        );
        assert!(health.set_directory_fails(false));
        disk.trouble(true);
        assert_eq!(health.trouble(), Some("the mailbox cannot be written"));
        disk.trouble(false);
        assert_eq!(health.trouble(), None);
        permits.stop();
        assert_eq!(health.trouble(), Some("stopping"));
    }
}
