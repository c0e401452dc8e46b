//! Starting and stopping the server.
//!
//! [`start`] reads top-down, and [`Running::stop`] is the same list reversed. Whatever can be wrong with
//! the settings or the machine is found before the first connection is accepted. A stop is over when no
//! task of the server is left (`stopping_leaves_nothing`), or after `DRAIN_TIMEOUT`. The thread that starts and stops
//! waits for no disk and for no other thread without a bound (`tests/cli/test_hangs.py`).
//!
//! # Layout
//!
//! - `sockets`: what is listened on. `stores`: what is opened and read before anything is served.
//! - `reload`: what SIGHUP has read again. `signals`: what they do, and what the service manager is told. `crew`: tasks that end when they are told to. `error`: why the server cannot start.

mod crew;
mod error;
mod reload;
mod signals;
mod sockets;
mod stores;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jam_core::time::Time;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::admin::access::Access;
use crate::admin::gathering::{self, Gatherer};
use crate::admin::{self, Administered, Api};
use crate::client_log::{self, ClientLog};
use crate::clock;
use crate::connection::Shared;
use crate::deferred_acks::DeferredAcks;
use crate::descriptors;
use crate::directory;
use crate::events::{self, Events};
use crate::friends;
use crate::handshakes::Handshakes;
use crate::health::Health;
use crate::housekeeping::{self, Household};
use crate::http::{self, Http};
use crate::listener::{Listener, Serves, Service};
use crate::metrics::{ListenerName, ServerMetrics, Traffic};
use crate::permits::ConnectionPermits;
use crate::presence;
use crate::push::current::Current;
use crate::push::{Notifier, dispatcher};
use crate::settings::Settings;
use crate::threads::{self, Threads};
use crate::tls::Tls;
use crate::turns::Turns;
use crate::watchdog::{self, Pings};
use crew::Crew;
pub use error::ServeError;
pub use signals::run;
pub use sockets::GivenSockets;
use sockets::{Addresses, Sockets};
use stores::{Mailbox, Stores};

/// How long after the beginning of a stop clients may be told goodbye. With the rest, a stop takes less than 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// How long threads and stores may take to close. Everything that was acknowledged is on the disk by then.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long they may take if another server is to follow in this process: a COMMIT that hangs is waited for that long.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the mailbox may take to keep what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that serves. End it with [`Running::stop`]: dropping it only stops accepting.
#[derive(Debug)]
pub struct Running {
    /// Where MQTT over TCP is served.
    pub mqtt: Option<SocketAddr>,
    /// Where MQTT over TLS is served.
    pub mqtts: Option<SocketAddr>,
    /// Where HTTP and WebSocket are served, over TLS if that is set up.
    pub http: Option<SocketAddr>,
    /// Where the admin API is served.
    pub admin: Option<SocketAddr>,
    /// What is listened on, for a start after this one.
    kept: GivenSockets,
    parts: Parts,
}

/// What a start has from before it.
#[derive(Debug, Default)]
struct Inherited {
    sockets: GivenSockets,
    /// Batches that the mailbox's database has lost in this process's life.
    lost_batches: u64,
}

/// What a stop takes down, last first.
struct Parts {
    tls: Option<Arc<Tls>>,
    push: Option<Arc<Current>>,
    mailbox: Mailbox,
    shared: Arc<Shared>,
    permits: Arc<ConnectionPermits>,
    threads: Arc<Threads>,
    health: Arc<Health>,
    /// Of the listeners.
    pings: Vec<Pings>,
    housekeepers: Crew,
    /// What serves the `admin` address.
    admin: Crew,
    /// With the watch of the threads.
    listeners: Crew,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("connections", &self.permits.len())
            .finish_non_exhaustive()
    }
}

/// Starts the server. When this returns it accepts connections.
///
/// # Errors
/// If an address, a TLS file or the directory cannot be used; nothing is served then.
pub async fn start(settings: Settings) -> Result<Running, ServeError> {
    start_on(settings, Inherited::default()).await
}

/// Starts the server on the sockets that are there, and binds those that are missing.
async fn start_on(settings: Settings, before: Inherited) -> Result<Running, ServeError> {
    // A file that may not grow (`ulimit -f`) is an error of its write, for the log too, and not the end.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(ServeError::Io)?);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let mut sockets = Sockets::bind(&settings, before.sockets).await?;
    let (addresses, kept) = (sockets.addresses()?, sockets.kept()?);
    let opening = settings.clone();
    let stores = tokio::task::spawn_blocking(move || Stores::open(&opening));
    let mut stores = stores.await.expect("opening the stores does not panic")?;
    let (metrics, access) = (stores.metrics.clone(), stores.access.take());
    metrics.lost_batches(before.lost_batches);
    let mut parts = Parts::new(&settings, stores, addresses.admin.is_some())?;
    if let Some((socket, access)) = sockets.admin.take().zip(access) {
        parts.serve_admin(&settings, socket, access, addresses, &metrics)?;
    }
    parts.serve_clients(&settings, sockets, &metrics)?;

    let notifier = parts.push.as_deref().map(|it| it as &dyn Notifier);
    say_where_pushes_go(&settings, notifier);
    tracing::info!(threads = parts.threads.len(), "threads for connections");
    for (name, address) in addresses.named() {
        let is_https = name == "http" && parts.tls.is_some();
        tracing::info!(%address, "serving {name}{}", if is_https { "s" } else { "" });
    }
    Ok(Running {
        mqtt: addresses.mqtt,
        mqtts: addresses.mqtts,
        http: addresses.http,
        admin: addresses.admin,
        kept,
        parts,
    })
}

impl Parts {
    /// All but the listeners: the threads run, and so does housekeeping.
    fn new(settings: &Settings, stores: Stores, is_administered: bool) -> Result<Self, ServeError> {
        let Stores {
            tls,
            notifier,
            directory,
            mailbox,
            router,
            clock,
            metrics,
            access: _,
        } = stores;
        let (limits, listen) = (&settings.limits, &settings.listen);
        let events = if is_administered {
            Events::new(clock.stamp(clock.now()).as_millis())
        } else {
            Events::off()
        };
        let shared = Arc::new(Shared {
            clock,
            router,
            directory,
            deferred_acks: Arc::new(DeferredAcks::new(listen.defer_acks)),
            turns: Turns::default(),
            client_log: Arc::new(ClientLog::new(limits.failed_auth_window)),
            events: Arc::new(events),
        });
        let first = directory::leave_reading_to_the_loader;
        let threads = Threads::start(listen.threads, listen.fill_percent, first);
        let threads = Arc::new(threads.map_err(ServeError::Io)?);
        let permits = ConnectionPermits::new(
            descriptors::places(limits.connections, threads.len() + threads::OTHER_THREADS),
            limits.connections_per_address,
        );
        let health = Health::new(permits.clone(), mailbox.clone(), threads.clone());
        let health = Arc::new(health);
        let housekeepers = housekeepers(
            threads.housekeeping(),
            &shared,
            &mailbox,
            &health,
            tls.as_ref(),
            notifier.clone().map(|it| it as Arc<dyn Notifier>),
            &metrics,
        );
        let mut listeners = Crew::on(Handle::current());
        listeners.spawn(|stop| Threads::watch(threads.clone(), stop));
        Ok(Self {
            tls,
            push: notifier,
            mailbox,
            shared,
            permits,
            threads,
            health,
            pings: Vec::new(),
            housekeepers,
            admin: Crew::on(Handle::current()),
            listeners,
        })
    }

    /// Serves operators: the API, the console and the metrics.
    fn serve_admin(
        &mut self,
        settings: &Settings,
        socket: TcpListener,
        access: Access,
        addresses: Addresses,
        metrics: &Arc<ServerMetrics>,
    ) -> Result<(), ServeError> {
        let shared = &self.shared;
        let api = Api::new(Administered {
            settings: settings.clone(),
            listeners: addresses.named().collect(),
            clock: shared.clock.clone(),
            router: shared.router.clone(),
            directory: shared.directory.clone(),
            mailbox: self.mailbox.clone(),
            events: shared.events.clone(),
            started: Instant::now(),
        });
        let api = api.map_err(|error| ServeError::Io(io::Error::other(error)))?;
        let (events, clock) = (shared.events.clone(), shared.clock.clone());
        self.admin
            .spawn(|stop| events::collect(events, clock, stop));
        let gatherer = Arc::new(Gatherer {
            shared: shared.clone(),
            metrics: metrics.clone(),
            permits: self.permits.clone(),
            health: self.health.clone(),
            mailbox: self.mailbox.clone(),
            tls: [addresses.mqtts, addresses.http]
                .map(|address| self.tls.clone().filter(|_| address.is_some())),
            sampled: Arc::default(),
        });
        let directory = settings.directory.file().map(|file| file.path.clone());
        self.admin
            .spawn(|stop| gathering::sample(directory, gatherer.clone(), stop));
        let router = admin::router(access, api, gatherer, settings.admin.metrics_open);
        self.admin
            .spawn(|stop| admin::listener::serve(socket, router, stop));
        Ok(())
    }

    /// Serves clients: MQTT over TCP, TLS and WebSocket, and the pages.
    fn serve_clients(
        &mut self,
        settings: &Settings,
        sockets: Sockets,
        metrics: &Arc<ServerMetrics>,
    ) -> Result<(), ServeError> {
        use ListenerName::{Http as AtHttp, Mqtt as AtMqtt, Mqtts as AtMqtts};
        let listen = &settings.listen;
        let served = http::HttpState {
            shared: self.shared.clone(),
            threads: self.threads.clone(),
            health: self.health.clone(),
            origins: listen.origins.clone().into(),
            traffic: Traffic::at(AtHttp, metrics),
            refusals: Arc::default(),
        };
        let http = Serves::Http(Http::new(served, metrics.clone(), listen.chat));
        let handshakes = self.tls.is_some().then(Handshakes::start).transpose();
        let tls = self.tls.clone().zip(handshakes.map_err(ServeError::Io)?);
        let to = listen.proxies.clone();
        for (name, socket, serves, tls, proxies) in [
            (AtMqtt, sockets.mqtt, Serves::Mqtt, None, to.mqtt),
            (AtMqtts, sockets.mqtts, Serves::Mqtt, tls.clone(), to.mqtts),
            (AtHttp, sockets.http, http, tls, to.http),
        ] {
            let Some(socket) = socket else { continue };
            let listener = Listener {
                socket,
                permits: self.permits.clone(),
                threads: self.threads.clone(),
                proxies,
                service: Service {
                    serves,
                    tls,
                    shared: self.shared.clone(),
                    handshake_timeout: settings.limits.connect_timeout,
                    traffic: Traffic::at(name, metrics),
                },
            };
            let (pings, asked) = watchdog::pings();
            self.pings.push(pings);
            self.listeners.spawn(|stop| listener.run(asked, stop));
        }
        Ok(())
    }
}

impl Running {
    /// How many connections there are, those that have not logged in yet included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.parts.permits.len()
    }

    /// Stops: no new connections, every client told, every queued byte written, every task ended.
    ///
    /// Takes at most about 10 s; a client that does not read is given 3 s.
    pub async fn stop(self) {
        drop(self.kept);
        self.parts.stop(CLOSE_TIMEOUT).await;
        tracing::info!("stopped");
    }

    /// The same, of a server whose mailbox has ended, for another one in this process: new connections wait for that.
    /// `None`: something is left of this one.
    async fn make_way(self) -> Option<GivenSockets> {
        let is_closed = self.parts.stop(RELEASE_TIMEOUT).await;
        is_closed.then_some(self.kept)
    }
}

impl Parts {
    /// Whether everything is closed; it may take `patience` in the end.
    async fn stop(self, patience: Duration) -> bool {
        let Self {
            tls: _,
            push: _,
            mailbox,
            shared,
            permits,
            threads,
            health: _,
            pings: _,
            housekeepers,
            admin,
            listeners,
        } = self;
        let drained = Instant::now() + DRAIN_TIMEOUT;
        listeners.stop("accepting").await;
        acknowledge(&shared, &mailbox).await;
        permits.stop();
        if tokio::time::timeout_at(drained, permits.all_free())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = permits.len(),
                "connections did not end in time"
            );
        }
        housekeepers.stop("housekeeping").await;
        admin.stop("the admin address").await;
        shared.router.hand_over(Time::NEVER);
        // One that has ended keeps nothing.
        let flush = move || mailbox.ended().is_some() || mailbox.flush(FLUSH_TIMEOUT);
        let flush = tokio::task::spawn_blocking(flush);
        if !flush.await.expect("waiting for the mailbox does not panic") {
            tracing::error!("the mailbox could not keep everything in time");
        }
        // The last one closes the directory and the mailbox. Each waits for its threads.
        let close = tokio::task::spawn_blocking(move || {
            threads.join();
            drop(shared);
        });
        let is_closed = tokio::time::timeout(patience, close).await.is_ok();
        if !is_closed {
            tracing::error!("threads and stores did not close in time: a disk does not answer");
        }
        is_closed
    }
}

/// Has everything acknowledged that has been taken, if the mailbox can keep it: who has to publish it
/// again after the restart makes a duplicate of it.
async fn acknowledge(shared: &Shared, mailbox: &Mailbox) {
    if !mailbox.accepts() {
        return;
    }
    shared.router.hand_over(Time::NEVER);
    let mailbox = mailbox.clone();
    let flush = tokio::task::spawn_blocking(move || mailbox.flush(FLUSH_TIMEOUT));
    let _ = flush.await.expect("waiting for the mailbox does not panic");
}

/// Starts what is done without a packet that asks for it.
fn housekeepers(
    thread: &Handle,
    shared: &Arc<Shared>,
    mailbox: &Mailbox,
    health: &Arc<Health>,
    tls: Option<&Arc<Tls>>,
    notifier: Option<Arc<dyn Notifier>>,
    metrics: &Arc<ServerMetrics>,
) -> Crew {
    let mut crew = Crew::on(thread.clone());
    let household = Household {
        clock: shared.clock.clone(),
        router: shared.router.clone(),
        directory: shared.directory.clone(),
        events: shared.events.clone(),
    };
    let (clock, router) = (&household.clock, &household.router);
    crew.spawn(|stop| clock::watch(clock.clone(), router.clone(), mailbox.clone(), stop));
    crew.spawn(|stop| housekeeping::keep_time(household.clone(), stop));
    crew.spawn(|stop| {
        let deferred_acks = shared.deferred_acks.clone();
        housekeeping::end_graces(clock.clone(), router.clone(), deferred_acks, stop)
    });
    crew.spawn(|stop| client_log::sum_up(shared.client_log.clone(), stop));
    crew.spawn(|stop| presence::tell_presence(household.clone(), stop));
    crew.spawn(|stop| friends::tell_friends(household.clone(), stop));
    crew.spawn(|stop| housekeeping::watch_directory(household.clone(), health.clone(), stop));
    if let Some(tls) = tls {
        crew.spawn(|stop| housekeeping::watch_tls(tls.clone(), stop));
    }
    if let Some(notifier) = notifier {
        crew.spawn(|stop| {
            dispatcher::send_pushes(household.clone(), notifier, metrics.clone(), stop)
        });
    }
    crew
}

fn say_where_pushes_go(settings: &Settings, notifier: Option<&dyn Notifier>) {
    match notifier {
        Some(notifier) => tracing::info!("pushes go to {}", notifier.name()),
        None if !settings.push.enabled => tracing::info!("push is switched off"),
        None => tracing::info!("no push is sent: neither push.fcm_key nor push.webhook_url is set"),
    }
}
