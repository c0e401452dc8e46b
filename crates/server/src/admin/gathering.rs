//! The numbers that have to be gathered from others, for one [`Snapshot`].
//!
//! What is known is read; what has to be asked of a disk is looked at every [`SAMPLE`], on a thread that may wait, so that
//! a scrape waits for none. Nothing here looks at all users.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use jam_core::router::OnCommit;
use jam_core::store::MailboxStore;
use tokio::sync::watch;

use crate::connection::Shared;
use crate::health::Health;
use crate::logging;
use crate::metrics::{Gauge, Gauges, ServerMetrics, Snapshot, process};
use crate::permits::ConnectionPermits;
use crate::ticks::{next, ticks};
use crate::tls::Tls;

/// How often disks and files are looked at.
const SAMPLE: Duration = Duration::from_secs(5);

/// Everything that has a number.
pub(crate) struct Gatherer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) permits: Arc<ConnectionPermits>,
    pub(crate) health: Arc<Health>,
    pub(crate) mailbox: Arc<dyn MailboxStore<OnCommit>>,
    /// Of the listeners `mqtts` and `http`, if they are served and with TLS.
    pub(crate) tls: [Option<Arc<Tls>>; 2],
    pub(crate) sampled: Arc<Mutex<Sampled>>,
}

/// What is looked at now and then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sampled {
    db_bytes: f64,
    wal_bytes: f64,
    mailbox_disk: f64,
    directory_disk: f64,
    lockouts: f64,
}

/// `directory`: where the accounts database is, if it is a file. Waits for disks.
fn look(directory: Option<&Path>, mailbox: &dyn MailboxStore<OnCommit>) -> Sampled {
    let mailbox = mailbox.disk_use();
    let available = |path| {
        let found = rustix::fs::statvfs(path);
        number(found.map_or(0, |it| it.f_bavail.saturating_mul(it.f_frsize)))
    };
    Sampled {
        db_bytes: number(mailbox.bytes),
        wal_bytes: number(mailbox.log_bytes),
        mailbox_disk: number(mailbox.available_bytes),
        // That of another machine is not known, and nobody is to be warned of it.
        directory_disk: directory.map_or(f64::NAN, available),
        lockouts: 0.0,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
fn number(count: u64) -> f64 {
    count as f64
}

/// Looks now and then until the server stops. A disk that does not answer leaves the numbers as they were.
pub(crate) async fn sample(
    directory: Option<PathBuf>,
    gatherer: Arc<Gatherer>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(SAMPLE);
    while next(&mut ticks, &mut stop).await {
        let (directory, mailbox) = (directory.clone(), gatherer.mailbox.clone());
        let looking = tokio::task::spawn_blocking(move || look(directory.as_deref(), &*mailbox));
        let mut found = tokio::select! {
            found = looking => found.expect("looking at files does not panic"),
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let now = gatherer.shared.clock.now();
        found.lockouts = number(gatherer.shared.router.lockouts(now) as u64);
        *gatherer.sampled() = found;
    }
}

impl Gatherer {
    fn sampled(&self) -> std::sync::MutexGuard<'_, Sampled> {
        self.sampled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All numbers now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let router = &self.shared.router;
        let sampled = *self.sampled();
        let store = self.mailbox.gauges();
        let mut gauges = Gauges::default();
        let is = |it: bool| f64::from(u8::from(it));
        gauges.set(Gauge::BuildInfo, &[1.0]);
        gauges.set(
            Gauge::Ready,
            &[
                is(!self.health.directory_fails()),
                is(self.mailbox.accepts()),
                is(!self.permits.stopping() && !self.health.hangs()),
            ],
        );
        gauges.set(Gauge::ConnectionsMax, &[self.permits.most().into()]);
        let (messages, bytes) = router.kept();
        gauges.set(Gauge::MailboxMessages, &[number(messages)]);
        gauges.set(Gauge::MailboxBytes, &[number(bytes)]);
        let oldest = store.oldest.map_or(0.0, |oldest| {
            number(router.adjustments().stamp(oldest).as_millis()) / 1000.0
        });
        gauges.set(Gauge::MailboxOldest, &[oldest]);
        gauges.set(Gauge::MailboxPending, &[number(store.pending_bytes)]);
        gauges.set(Gauge::MailboxGrace, &[number(router.bytes_in_grace())]);
        gauges.set(Gauge::MailboxFile, &[sampled.db_bytes, sampled.wal_bytes]);
        gauges.set(Gauge::PostgresDeadRows, &[number(store.dead_rows)]);
        let oldest_snapshot = store.oldest_snapshot.as_secs_f64();
        gauges.set(Gauge::PostgresOldestSnapshot, &[oldest_snapshot]);
        gauges.set(
            Gauge::DiskAvailable,
            &[sampled.mailbox_disk, sampled.directory_disk],
        );
        gauges.set(Gauge::PushesOwed, &[number(router.waiting_pushes() as u64)]);
        gauges.set(Gauge::Lockouts, &[sampled.lockouts]);
        let ends = |tls: &Tls| tls.ends().duration_since(UNIX_EPOCH).unwrap_or_default();
        let certificate_ends = (self.tls.each_ref())
            .map(|tls| tls.as_ref().map_or(0.0, |tls| number(ends(tls).as_secs())));
        gauges.set(Gauge::CertificateExpiry, &certificate_ends);
        gauges.set(Gauge::LogLinesLost, &[number(logging::lost_lines())]);
        process::gather(&mut gauges);
        Snapshot::new(router.metrics(), &self.metrics, &gauges)
    }
}
