//! A server's life as a process: signals, and what the service manager is told meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jam_core::store::StoreError;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::crew::Crew;
use super::reload::Reload;
use super::{GivenSockets, Inherited, Running, ServeError, start_on};
use crate::mailbox;
use crate::settings::{Settings, Sources};
use crate::systemd::{NotifyState, Systemd};
use crate::ticks::ticks;
use crate::watchdog;

/// How often it is looked whether the mailbox can be served at all.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs the server until SIGTERM or SIGINT; SIGHUP has settings, TLS files and push key read
/// again from `sources`.
///
/// A second SIGTERM or SIGINT ends the stop at once. When the mailbox's database has lost what it had confirmed, the server
/// begins anew with what is there, as after a crash, and its sockets stay open (`tests/protocol/test_failover.py`).
///
/// # Errors
/// See [`super::start`]; and when the mailbox is another server's by now, or part of it is lost.
pub async fn run(
    sources: Sources,
    settings: Settings,
    given: GivenSockets,
) -> Result<(), ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::Io)?;
    let systemd = Arc::new(Systemd::from_environment());
    let (mut settings, mut before) = (settings, Inherited::default());
    before.sockets = given;
    loop {
        let lost_before = before.lost_batches;
        let running = tokio::select! {
            running = start_on(settings.clone(), before) => running?,
            never = systemd.extend_start() => match never {},
            () = signals.stop() => return Ok(()),
        };
        systemd.tell(&[NotifyState::Ready]).await;
        let attendants = attend(&running, &systemd);
        let reload = Arc::new(Reload::of(&running, sources.clone(), settings.clone()));
        let ended = until_end(&running, &reload, &systemd, &mut signals).await;
        let in_force = reload.in_force();
        drop(reload); // what it has in hand is to be closed
        let lost = ended.as_ref().map_or(0, mailbox::lost_batches);
        if lost == 0 {
            stop(running, attendants, &systemd, &mut signals).await;
            return ended.map_or(Ok(()), |why| Err(ServeError::Mailbox(why)));
        }
        let made_way = tokio::select! {
            sockets = make_way(running, attendants, &systemd) => sockets,
            () = signals.stop() => return Ok(()),
        };
        let Some(sockets) = made_way else {
            return ended.map_or(Ok(()), |why| Err(ServeError::Mailbox(why)));
        };
        before = Inherited {
            sockets: sockets.unmoved(&settings, &in_force),
            lost_batches: lost_before + lost,
        };
        settings = in_force;
    }
}

/// Those that a server listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// One that is to stop the server.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal stops it, or the mailbox has ended; then why.
async fn until_end(
    running: &Running,
    reload: &Arc<Reload>,
    systemd: &Arc<Systemd>,
    signals: &mut Signals,
) -> Option<StoreError> {
    let mut reloading = JoinSet::new();
    let mut looks = ticks(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
            _ = signals.hangup.recv(), if reloading.is_empty() => {
                let (systemd, reload) = (systemd.clone(), reload.clone());
                reloading.spawn(async move {
                    systemd.tell_reloading().await;
                    let read = tokio::task::spawn_blocking(move || reload.read());
                    read.await.expect("reading settings and files does not panic");
                    systemd.tell(&[NotifyState::Ready]).await;
                });
            }
            Some(_) = reloading.join_next() => {}
            _ = looks.tick() => {
                let ended = running.parts.mailbox.ended();
                if ended.is_some() {
                    return ended;
                }
            }
        }
    }
}

async fn stop(running: Running, attendants: Crew, systemd: &Systemd, signals: &mut Signals) {
    let connections = running.connections();
    tracing::info!(connections, "stopping");
    let stop = async {
        let status = format!("stopping, {connections} connections");
        // The watchdog's time begins anew, and the stop has its own bounds.
        let stopping = [NotifyState::Stopping, NotifyState::Status(&status)];
        systemd.tell(&stopping).await;
        systemd.tell(&[NotifyState::Watchdog]).await;
        attendants.stop("watching").await;
        running.stop().await;
    };
    tokio::select! {
        () = stop => {}
        () = signals.stop() => {}
    }
}

/// Takes the server down for another one in this process, which gets its sockets.
async fn make_way(running: Running, attendants: Crew, systemd: &Systemd) -> Option<GivenSockets> {
    let connections = running.connections();
    tracing::warn!(
        connections,
        "the server begins anew, with what is in the database"
    );
    systemd.tell_reloading().await;
    systemd.tell(&[NotifyState::Watchdog]).await;
    attendants.stop("watching").await;
    running.make_way().await
}

fn attend(running: &Running, systemd: &Arc<Systemd>) -> Crew {
    let parts = &running.parts;
    let mut crew = Crew::on(Handle::current());
    if systemd.is_there() {
        let work = watchdog::Watched {
            listeners: parts.pings.clone(),
            threads: parts.threads.clone(),
            mailbox: parts.mailbox.clone(),
        };
        let (health, permits) = (parts.health.clone(), parts.permits.clone());
        crew.spawn(|stop| watchdog::attend(systemd.clone(), work, health, permits, stop));
    }
    crew
}
