//! Starting and stopping the server.
//!
//! [`start`] reads top-down, and [`Running::stop`] is the same list reversed. Whatever can be wrong with
//! the settings or the machine is found before the first connection is accepted. A stop is over when no
//! task of the server is left (`stopping_leaves_nothing`), or after `DRAIN_TIMEOUT`.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jam_core::UserLimits;
use jam_core::push::{PushAudience, PushRules};
use jam_core::router::{LONGEST_RIVAL_WAIT, OnCommit, Router, Rules};
use jam_core::store::{MailboxStore, Recovered};
use jam_core::time::Time;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client_log::{self, ClientLog};
use crate::clock::{self, Clock};
use crate::connection::Shared;
use crate::deferred_acks::DeferredAcks;
use crate::descriptors;
use crate::directory::{self, AccountsDatabase};
use crate::handshakes::Handshakes;
use crate::health::Health;
use crate::housekeeping::{self, Household};
use crate::http::Http;
use crate::listener::{Listener, Serves, Service, bind};
use crate::mailbox::{self, SqliteMailbox};
use crate::permissions;
use crate::permits::ConnectionPermits;
use crate::presence;
use crate::push::{self, Notifier, dispatcher};
use crate::settings::{Address, Devices, Proxies, Settings};
use crate::threads::{self, Threads};
use crate::tls::{Tls, TlsFiles};
use crate::turns::Turns;
pub use error::ServeError;

/// How long clients may take to be told goodbye. With the rest, a stop takes less than 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// How long housekeeping may take to end; the push dispatcher needs half a second of it. What takes longer waits for
/// something that does not answer, and is dropped where it waits.
const HOUSEKEEPING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the stores may take to close. Everything that was acknowledged is on the disk by then.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

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
    parts: Parts,
}

/// What a stop takes down, last first.
struct Parts {
    tls: Option<Arc<Tls>>,
    mailbox: Arc<dyn MailboxStore<OnCommit>>,
    shared: Arc<Shared>,
    permits: Arc<ConnectionPermits>,
    threads: Arc<Threads>,
    housekeepers: Crew,
    listeners: Crew,
}

/// Tasks that end when they are told to.
struct Crew {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
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
    let limits = &settings.limits;
    // A file that may not grow (`ulimit -f`) is an error of its write, for the log too, and not the end.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(ServeError::Io)?);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let sockets = Sockets::bind(&settings).await?;
    let mqtt = address_of(sockets.mqtt.as_ref())?;
    let mqtts = address_of(sockets.mqtts.as_ref())?;
    let http_address = address_of(sockets.http.as_ref())?;

    let tls = open_tls(&settings)?;
    let notifier = push::open(&settings.push).map_err(ServeError::Push)?;
    let (directory, mailbox, found) = open_stores(&settings)?;
    let rules = rules(
        &settings,
        push::audience(&settings.push, notifier.as_deref()),
    );
    let router = Router::new(rules, directory.clone(), mailbox.clone());
    let clock = Arc::new(restore(&*mailbox, found, &router)?);
    let shared = Arc::new(Shared {
        clock,
        router,
        directory,
        deferred_acks: Arc::new(DeferredAcks::new(settings.listen.defer_acks)),
        turns: Turns::default(),
        client_log: Arc::new(ClientLog::new(limits.failed_auth_window)),
    });
    let permits = ConnectionPermits::new(
        descriptors::places(
            limits.connections,
            threads::number_of(settings.listen.threads),
        ),
        limits.connections_per_address,
    );
    let health = Arc::new(Health::new(permits.clone(), mailbox.clone()));

    let housekeepers = housekeepers(&shared, &mailbox, &health, tls.as_ref(), notifier.clone());
    let http = Http::new(shared.clone(), health);
    let mut listeners = Crew::new();
    let threads = Threads::start(settings.listen.threads, settings.listen.fill_percent);
    let threads = Arc::new(threads.map_err(ServeError::Io)?);
    let handshakes = tls.is_some().then(Handshakes::start).transpose();
    let with_tls = tls.clone().zip(handshakes.map_err(ServeError::Io)?);
    let Proxies {
        mqtt: to_mqtt,
        mqtts: to_mqtts,
        http: to_http,
    } = settings.listen.proxies.clone();
    for (socket, serves, tls, proxies) in [
        (sockets.mqtt, Serves::Mqtt, None, to_mqtt),
        (sockets.mqtts, Serves::Mqtt, with_tls.clone(), to_mqtts),
        (sockets.http, Serves::Http(http), with_tls, to_http),
    ] {
        let Some(socket) = socket else { continue };
        let listener = Listener {
            socket,
            permits: permits.clone(),
            threads: threads.clone(),
            proxies,
            service: Service {
                serves,
                tls,
                shared: shared.clone(),
                handshake_timeout: limits.connect_timeout,
            },
        };
        listeners.spawn(|stop| listener.run(stop));
    }

    warn_of_what_is_not_served(&settings);
    for exposed in permissions::exposed_secrets(&settings) {
        tracing::warn!("{exposed}");
    }
    say_where_pushes_go(&settings, notifier.as_deref());
    tracing::info!(threads = threads.len(), "threads for connections");
    let http_name = if tls.is_some() { "https" } else { "http" };
    for (name, address) in [("mqtt", mqtt), ("mqtts", mqtts), (http_name, http_address)] {
        if let Some(address) = address {
            tracing::info!(%address, "serving {name}");
        }
    }
    let parts = Parts {
        tls,
        mailbox,
        shared,
        permits,
        threads,
        housekeepers,
        listeners,
    };
    Ok(Running {
        mqtt,
        mqtts,
        http: http_address,
        parts,
    })
}

impl Running {
    /// How many connections there are, those that have not logged in yet included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.parts.permits.len()
    }

    /// Reads the TLS files again; bad ones change nothing and are logged.
    pub async fn reload(&self) {
        if let Some(tls) = self.parts.tls.clone() {
            let reload = tokio::task::spawn_blocking(move || tls.reload());
            reload.await.expect("reading TLS files does not panic");
        }
    }

    /// Stops: no new connections, every client told, every queued byte written, every task ended.
    ///
    /// Takes at most about 10 s; a client that does not read is given 3 s.
    pub async fn stop(self) {
        let Parts {
            tls: _,
            mailbox,
            shared,
            permits,
            threads,
            housekeepers,
            listeners,
        } = self.parts;
        listeners.stop().await;
        acknowledge(&shared, &mailbox).await;
        permits.stop();
        if tokio::time::timeout(DRAIN_TIMEOUT, permits.all_free())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = permits.len(),
                "connections did not end in time"
            );
        }
        housekeepers.stop().await;
        shared.router.hand_over(Time::NEVER);
        let flush = tokio::task::spawn_blocking(move || mailbox.flush(FLUSH_TIMEOUT));
        if !flush.await.expect("waiting for the mailbox does not panic") {
            tracing::error!("the mailbox could not keep everything in time");
        }
        // The last one closes the directory and the mailbox. Each waits for its threads.
        let close = tokio::task::spawn_blocking(move || drop((threads, shared)));
        if tokio::time::timeout(CLOSE_TIMEOUT, close).await.is_err() {
            tracing::error!("the stores did not close in time: a disk does not answer");
        }
        tracing::info!("stopped");
    }
}

/// Has everything acknowledged that has been taken, if the mailbox can keep it: who has to publish it
/// again after the restart makes a duplicate of it.
async fn acknowledge(shared: &Shared, mailbox: &Arc<dyn MailboxStore<OnCommit>>) {
    if !mailbox.accepts() {
        return;
    }
    shared.router.hand_over(Time::NEVER);
    let mailbox = mailbox.clone();
    let flush = tokio::task::spawn_blocking(move || mailbox.flush(FLUSH_TIMEOUT));
    let _ = flush.await.expect("waiting for the mailbox does not panic");
}

/// Runs the server until SIGTERM or SIGINT; SIGHUP reloads the TLS files.
///
/// A second SIGTERM or SIGINT ends the stop at once.
///
/// # Errors
/// See [`start`].
pub async fn run(settings: Settings) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Io)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Io)?;
    let running = start(settings).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => running.reload().await,
        }
    }
    tracing::info!(connections = running.connections(), "stopping");
    tokio::select! {
        () = running.stop() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Starts what is done without a packet that asks for it.
fn housekeepers(
    shared: &Arc<Shared>,
    mailbox: &Arc<dyn MailboxStore<OnCommit>>,
    health: &Arc<Health>,
    tls: Option<&Arc<Tls>>,
    notifier: Option<Arc<dyn Notifier>>,
) -> Crew {
    let mut crew = Crew::new();
    let household = Household {
        clock: shared.clock.clone(),
        router: shared.router.clone(),
        directory: shared.directory.clone(),
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
    crew.spawn(|stop| housekeeping::watch_directory(household.clone(), health.clone(), stop));
    if let Some(tls) = tls {
        crew.spawn(|stop| housekeeping::watch_tls(tls.clone(), stop));
    }
    if let Some(notifier) = notifier {
        crew.spawn(|stop| dispatcher::send_pushes(household.clone(), notifier, stop));
    }
    crew
}

impl Crew {
    fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            tasks: JoinSet::new(),
        }
    }

    fn spawn<F>(&mut self, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.subscribe()));
    }

    /// Tells the tasks to end and waits until they have, or are dropped.
    async fn stop(self) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(HOUSEKEEPING_TIMEOUT, self.tasks.join_all());
        if ended.await.is_err() {
            tracing::warn!("housekeeping did not end in time");
        }
    }
}

/// The bound sockets, one for each address that is set.
struct Sockets {
    mqtt: Option<TcpListener>,
    mqtts: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl Sockets {
    async fn bind(settings: &Settings) -> Result<Self, ServeError> {
        let listen = &settings.listen;
        Ok(Self {
            mqtt: bind_setting("listen.mqtt", listen.mqtt.as_ref()).await?,
            mqtts: bind_setting("listen.mqtts", listen.mqtts.as_ref()).await?,
            http: bind_setting("listen.http", listen.http.as_ref()).await?,
        })
    }
}

/// Where it is bound: port 0 has become a real one.
fn address_of(socket: Option<&TcpListener>) -> Result<Option<SocketAddr>, ServeError> {
    socket
        .map(TcpListener::local_addr)
        .transpose()
        .map_err(ServeError::Io)
}

async fn bind_setting(
    setting: &'static str,
    address: Option<&Address>,
) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else {
        return Ok(None);
    };
    match bind(address.as_str()).await {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => Err(ServeError::Bind {
            setting,
            address: address.to_string(),
            error,
        }),
    }
}

fn open_tls(settings: &Settings) -> Result<Option<Arc<Tls>>, ServeError> {
    let files = TlsFiles::of(&settings.tls);
    let tls = files.map(Tls::open).transpose().map_err(ServeError::Tls)?;
    Ok(tls.map(Arc::new))
}

type Mailbox = Arc<dyn MailboxStore<OnCommit>>;
type Stores = (Arc<dyn AccountsDatabase>, Mailbox, Recovered);

/// Opens the accounts database, then the mailbox; the other way round on a full disk, where the mailbox has a reserve to
/// give up.
fn open_stores(settings: &Settings) -> Result<Stores, ServeError> {
    match open_directory(settings) {
        Ok(directory) => {
            let (mailbox, found) = open_mailbox(settings)?;
            Ok((directory, mailbox, found))
        }
        Err(_) if mailbox::admin::room(&settings.mailbox_dir()).is_err() => {
            let (mailbox, found) = open_mailbox(settings)?;
            Ok((open_directory(settings)?, mailbox, found))
        }
        Err(error) => Err(error),
    }
}

/// The one place that knows which store it is.
fn open_mailbox(settings: &Settings) -> Result<(Mailbox, Recovered), ServeError> {
    let path = settings.mailbox_dir();
    // A slow disk may take its time: the log says what the start waits for.
    tracing::info!(path = %path.display(), "opening the mailbox");
    match SqliteMailbox::open(&path) {
        Ok((mailbox, found)) => Ok((mailbox, found)),
        Err(error) => Err(ServeError::Mailbox(error.into())),
    }
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
        clock::say(change, router, clock.now());
    }
    mailbox.attach(Box::new(Arc::downgrade(router)));
    tracing::info!(messages, "the mailbox is open");
    Ok(clock)
}

fn open_directory(settings: &Settings) -> Result<Arc<dyn AccountsDatabase>, ServeError> {
    directory::open(&settings.directory).map_err(ServeError::Directory)
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

fn say_where_pushes_go(settings: &Settings, notifier: Option<&dyn Notifier>) {
    match notifier {
        Some(notifier) => tracing::info!("pushes go to {}", notifier.name()),
        None if !settings.push.enabled => tracing::info!("push is switched off"),
        None => tracing::info!("no push is sent: neither push.fcm_key nor push.webhook_url is set"),
    }
}

fn warn_of_what_is_not_served(settings: &Settings) {
    for not_served in settings.not_served() {
        tracing::warn!(
            "{} has no effect yet: {}",
            not_served.key,
            not_served.instead
        );
    }
}
