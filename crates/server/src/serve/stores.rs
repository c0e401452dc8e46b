//! What is read before anything is served: stores, TLS files, push key and admin token.
//!
//! It may wait for a disk, so it is not done on the main thread.

use std::sync::Arc;

use jam_core::UserLimits;
use jam_core::metrics::Metrics;
use jam_core::push::{PushAudience, PushRules};
use jam_core::router::{LONGEST_RIVAL_WAIT, OnCommit, Router, Rules};
use jam_core::store::{MailboxStore, Recovered};

use super::ServeError;
use crate::admin::access::Access;
use crate::clock::{self, Clock};
use crate::directory::{self, AccountsDatabase};
use crate::mailbox;
use crate::metrics::ServerMetrics;
use crate::permissions;
use crate::push::current::Current;
use crate::push::{self, Notifier};
use crate::settings::{Devices, Settings};
use crate::threads;
use crate::tls::{Tls, TlsFiles};

/// See the module's description.
pub(super) struct Stores {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) notifier: Option<Arc<Current>>,
    pub(super) directory: Arc<dyn AccountsDatabase>,
    pub(super) mailbox: Mailbox,
    pub(super) router: Arc<Router>,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<ServerMetrics>,
    /// If there is an admin address.
    pub(super) access: Option<Access>,
}

impl Stores {
    /// # Errors
    /// If a TLS file, the push key, the accounts database, the mailbox or the admin token cannot be used.
    pub(super) fn open(settings: &Settings) -> Result<Self, ServeError> {
        let tls = open_tls(settings)?;
        let notifier = push::open(&settings.push).map_err(ServeError::Push)?;
        let notifier = notifier.map(|service| Arc::new(Current::new(service)));
        // Each thread for connections has cells of its own.
        let slots = threads::number_of(settings.listen.threads);
        let metrics = Arc::new(ServerMetrics::with_slots(slots));
        let (directory, mailbox, found) = open_both(settings, &metrics)?;
        hash_tokens(settings);
        let is_administered = settings.listen.admin.is_some();
        let access = is_administered.then(|| Access::open(settings));
        let access = access.transpose().map_err(ServeError::Admin)?;
        let audience = push::audience(
            &settings.push,
            notifier.as_deref().map(|it| it as &dyn Notifier),
        );
        let rules = rules(settings, audience);
        let router = Router::with_metrics(
            rules,
            directory.clone(),
            mailbox.clone(),
            Arc::new(metrics_of_the_rules(slots)),
        );
        let clock = restore(&*mailbox, found, &router)?;
        for exposed in permissions::exposed_secrets(settings) {
            tracing::warn!("{exposed}");
        }
        if is_administered {
            for short in settings.short_tokens() {
                tracing::warn!("{short}");
            }
        }
        Ok(Self {
            tls,
            notifier,
            directory,
            mailbox,
            router,
            clock: Arc::new(clock),
            metrics,
            access,
        })
    }
}

fn metrics_of_the_rules(slots: usize) -> Metrics {
    let metrics = Metrics::with_slots(slots);
    #[cfg(feature = "otel")]
    let metrics = metrics.on_answered(crate::spans::published);
    metrics
}

fn open_tls(settings: &Settings) -> Result<Option<Arc<Tls>>, ServeError> {
    let files = TlsFiles::of(&settings.tls);
    let tls = files.map(Tls::open).transpose().map_err(ServeError::Tls)?;
    Ok(tls.map(Arc::new))
}

pub(super) type Mailbox = Arc<dyn MailboxStore<OnCommit>>;
type Both = (Arc<dyn AccountsDatabase>, Mailbox, Recovered);

/// Opens the accounts database, then the mailbox; the other way round on a full disk, where the mailbox has a reserve to
/// give up.
fn open_both(settings: &Settings, metrics: &Arc<ServerMetrics>) -> Result<Both, ServeError> {
    match open_directory(settings, metrics) {
        Ok(directory) => {
            let (mailbox, found) = open_mailbox(settings, metrics)?;
            Ok((directory, mailbox, found))
        }
        Err(_) if mailbox::administration(settings).room().is_err() => {
            let (mailbox, found) = open_mailbox(settings, metrics)?;
            Ok((open_directory(settings, metrics)?, mailbox, found))
        }
        Err(error) => Err(error),
    }
}

fn open_mailbox(
    settings: &Settings,
    metrics: &Arc<ServerMetrics>,
) -> Result<(Mailbox, Recovered), ServeError> {
    let opened = mailbox::open(settings, metrics.clone());
    opened.map_err(|error| ServeError::Mailbox(error.into()))
}

/// Tells the router what is in the mailbox.
fn restore(
    mailbox: &dyn MailboxStore<OnCommit>,
    found: Recovered,
    router: &Arc<Router>,
) -> Result<Clock, ServeError> {
    let messages = mailbox
        .recover_entries(&|entry| router.restore_entry(&entry))
        .map_err(ServeError::Mailbox)?;
    let (clock, change) = Clock::start(router.adjustments().clone(), found.clock);
    router.restore(found, clock.now());
    if let Some(change) = change {
        clock::report(change, router, clock.now());
    }
    mailbox.attach(Box::new(Arc::downgrade(router)));
    tracing::info!(messages, "the mailbox is open");
    Ok(clock)
}

fn open_directory(
    settings: &Settings,
    metrics: &Arc<ServerMetrics>,
) -> Result<Arc<dyn AccountsDatabase>, ServeError> {
    directory::open_counted(&settings.directory, metrics.clone()).map_err(ServeError::Directory)
}

/// To be called once the mailbox is ours: then no older server runs here, which would let nobody in by a hash.
fn hash_tokens(settings: &Settings) {
    match directory::hash_tokens(&settings.directory) {
        Ok(0) => {}
        Ok(count) => tracing::info!(
            count,
            "tokens in the accounts database are hashed from now on"
        ),
        Err(error) => tracing::warn!(
            %error, "tokens stay in the accounts database in the clear until the next start"
        ),
    }
}

fn rules(settings: &Settings, audience: PushAudience) -> Rules {
    let Settings {
        mailbox,
        sessions,
        limits,
        push,
        ..
    } = settings;
    Rules {
        user: UserLimits {
            many_devices: sessions.devices == Devices::Many,
            max_messages: mailbox.max_messages as usize,
            max_bytes: mailbox.max_bytes,
            max_age: mailbox.max_age,
            push: PushRules {
                audience,
                deadline: push.deadline,
                collapse: push.collapse,
            },
        },
        session_expiry: sessions.expiry,
        packet: limits.packet as usize,
        inflight: limits.inflight,
        longest_rival_wait: LONGEST_RIVAL_WAIT,
        publish_rate: limits.publish_rate,
        connect_timeout: limits.connect_timeout,
        failed_auth: limits.failed_auth,
        failed_auth_window: limits.failed_auth_window,
    }
}
