//! A COMMIT that waits for a synchronous standby: what is on the primary alone is not kept.

use std::thread;
use std::time::Duration;

use jam_core::store::MailboxStore as _;

use super::setting::{PATIENCE, Setting, append, seqs, wait_until};
use super::warnings::WARNS_AT_COMMIT;
use crate::postgres::testing::TestServer;

/// Requires a standby that is not there, or none.
fn require_standby(setting: &Setting, name: &str) {
    setting.sql(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = '{name}'"
    ));
    setting.sql("SELECT pg_reload_conf()");
}

fn waiting(setting: &Setting) -> String {
    setting.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'
         AND application_name LIKE 'jam-%-writer'",
    )
}

/// A wait that is cancelled is reported as success, with a warning; so is one whose back end is ended. The row is there, and
/// is not kept before a later COMMIT has found the standby; also where every COMMIT warns of something else.
#[test]
fn a_commit_whose_wait_is_cut_short_is_not_kept() {
    for (how, warns) in [
        ("pg_cancel_backend", false),
        ("pg_cancel_backend", true),
        ("pg_terminate_backend", false),
    ] {
        let server = TestServer::start();
        let mut setting = Setting::in_database(&server.database(), None);
        if warns {
            setting.sql(WARNS_AT_COMMIT);
        }
        setting.ask(1, [append(1)]);
        assert_eq!(setting.answer(), (1, Ok(())));
        require_standby(&setting, "nobody");
        // The setting reaches back ends a little later.
        thread::sleep(Duration::from_millis(300));
        setting.ask(2, [append(2)]);
        wait_until(|| !waiting(&setting).is_empty());
        setting.sql(&format!("SELECT {how}({})", waiting(&setting)));
        wait_until(|| !setting.mailbox().accepts());
        // It is there, and so is the one that is sent after it; each time it is tried.
        wait_until(|| setting.count("message") == 2);
        thread::sleep(Duration::from_secs(2));
        assert!(setting.answers.try_recv().is_err(), "{how}");
        assert!(!setting.mailbox().accepts());
        require_standby(&setting, "");
        assert_eq!(setting.answers.recv_timeout(PATIENCE).unwrap(), (2, Ok(())));
        wait_until(|| setting.mailbox().accepts());
        setting.ask(3, [append(3)]);
        assert_eq!(setting.answer(), (3, Ok(())));
        assert_eq!(seqs(&setting.reopen()), [1, 2, 3]);
    }
}
