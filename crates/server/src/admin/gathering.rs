//! The numbers that have to be gathered from others, for one [`Snapshot`].
//!
//! What is known is read; what has to be asked of a disk is looked at every [`SAMPLE`], on a thread that may wait, so that
//! a scrape waits for none. Nothing here looks at all users.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jam_core::router::OnCommit;
use jam_core::store::MailboxStore;
use tokio::sync::watch;

use crate::connection::Shared;
use crate::health::Health;
use crate::metrics::{Gauge, Gauges, ServerMetrics, Snapshot, process};
use crate::permits::ConnectionPermits;
use crate::settings::Settings;
use crate::ticks::{next, ticks};
use crate::tls::TlsFiles;
use crate::tls::validity::{Validity, validity};

/// How often disks and files are looked at.
const SAMPLE: Duration = Duration::from_secs(5);

/// Everything that has a number.
pub(crate) struct Gatherer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) permits: Arc<ConnectionPermits>,
    pub(crate) health: Arc<Health>,
    pub(crate) mailbox: Arc<dyn MailboxStore<OnCommit>>,
    pub(crate) sampled: Arc<Mutex<Sampled>>,
}

/// What is looked at now and then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sampled {
    db_bytes: f64,
    wal_bytes: f64,
    mailbox_disk: f64,
    directory_disk: f64,
    /// Of `mqtts` and `http`.
    certificate_ends: [f64; 2],
    lockouts: f64,
}

/// Where that is looked for.
#[derive(Debug, Clone)]
pub(crate) struct Sampling {
    directory: PathBuf,
    tls: Option<TlsFiles>,
    /// Whether `mqtts` and `http` are served.
    with_tls: [bool; 2],
}

impl Sampling {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            directory: settings.directory.path.clone(),
            tls: TlsFiles::of(&settings.tls),
            with_tls: [
                settings.listen.mqtts.is_some(),
                settings.listen.http.is_some(),
            ],
        }
    }

    /// Waits for disks.
    fn look(&self, mailbox: &dyn MailboxStore<OnCommit>) -> Sampled {
        let mailbox = mailbox.disk_use();
        let available = |path: &Path| {
            let found = rustix::fs::statvfs(path);
            found.map_or(0.0, |it| number(it.f_bavail.saturating_mul(it.f_frsize)))
        };
        let ends = self.tls.as_ref().and_then(certificate_end).unwrap_or(0.0);
        Sampled {
            db_bytes: number(mailbox.bytes),
            wal_bytes: number(mailbox.log_bytes),
            mailbox_disk: number(mailbox.available_bytes),
            directory_disk: available(&self.directory),
            certificate_ends: self.with_tls.map(|is| if is { ends } else { 0.0 }),
            lockouts: 0.0,
        }
    }
}

/// The first end of a certificate in the files, in seconds since 1970.
fn certificate_end(files: &TlsFiles) -> Option<f64> {
    let identity = &files.identity;
    let named = [
        Some((&identity.cert, "tls.cert")),
        identity.chain.as_ref().map(|chain| (chain, "tls.chain")),
    ];
    let ends = named.into_iter().flatten().filter_map(|(path, setting)| {
        // At the beginning of time nothing has ended.
        match validity(path, setting, SystemTime::UNIX_EPOCH).ok()? {
            Validity::Until(end) | Validity::EndsSoon(end) | Validity::Ended(end) => Some(end),
            Validity::Begins(_) => None,
        }
    });
    let end = ends.min()?;
    Some(number(end.duration_since(UNIX_EPOCH).ok()?.as_secs()))
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
    sampling: Sampling,
    gatherer: Arc<Gatherer>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(SAMPLE);
    while next(&mut ticks, &mut stop).await {
        let (looking, mailbox) = (sampling.clone(), gatherer.mailbox.clone());
        let looking = tokio::task::spawn_blocking(move || looking.look(&*mailbox));
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
                is(!self.permits.stopping()),
            ],
        );
        gauges.set(Gauge::ConnectionsMax, &[self.permits.most().into()]);
        let oldest = store.oldest.map_or(0.0, |oldest| {
            number(router.adjustments().stamp(oldest).as_millis()) / 1000.0
        });
        gauges.set(Gauge::MailboxOldest, &[oldest]);
        gauges.set(Gauge::MailboxPending, &[number(store.pending_bytes)]);
        gauges.set(Gauge::MailboxGrace, &[number(router.bytes_in_grace())]);
        gauges.set(Gauge::MailboxFile, &[sampled.db_bytes, sampled.wal_bytes]);
        gauges.set(
            Gauge::DiskAvailable,
            &[sampled.mailbox_disk, sampled.directory_disk],
        );
        gauges.set(Gauge::PushesOwed, &[number(router.waiting_pushes() as u64)]);
        gauges.set(Gauge::Lockouts, &[sampled.lockouts]);
        gauges.set(Gauge::CertificateExpiry, &sampled.certificate_ends);
        process::gather(&mut gauges);
        Snapshot::new(router.metrics(), &self.metrics, &gauges)
    }
}
