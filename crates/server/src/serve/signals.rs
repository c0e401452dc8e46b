//! A server's life as a process: signals, and what the service manager is told meanwhile.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::crew::Crew;
use super::reload::Reload;
use super::{GivenSockets, Running, ServeError, start_on};
use crate::settings::{Settings, Sources};
use crate::systemd::{NotifyState, Systemd};
use crate::watchdog;

/// Runs the server until SIGTERM or SIGINT; SIGHUP has settings, TLS files and push key read
/// again from `sources`.
///
/// A second SIGTERM or SIGINT ends the stop at once.
///
/// # Errors
/// See [`super::start`].
pub async fn run(
    sources: Sources,
    settings: Settings,
    given: GivenSockets,
) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Io)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Io)?;
    let systemd = Arc::new(Systemd::from_environment());
    let running = tokio::select! {
        running = start_on(settings.clone(), given) => running?,
        never = systemd.extend_start() => match never {},
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    systemd.tell(&[NotifyState::Ready]).await;
    let attendants = attend(&running, &systemd);
    let reload = Arc::new(Reload::of(&running, sources, settings));
    let mut reloading = JoinSet::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv(), if reloading.is_empty() => {
                let (systemd, reload) = (systemd.clone(), reload.clone());
                reloading.spawn(async move {
                    systemd.tell_reloading().await;
                    let read = tokio::task::spawn_blocking(move || reload.read());
                    read.await.expect("reading settings and files does not panic");
                    systemd.tell(&[NotifyState::Ready]).await;
                });
            }
            Some(_) = reloading.join_next() => {}
        }
    }
    drop(reload); // what it has in hand is to be closed
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
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn attend(running: &Running, systemd: &Arc<Systemd>) -> Crew {
    let parts = &running.parts;
    let mut crew = Crew::on(Handle::current());
    if systemd.is_there() {
        let work = watchdog::Work {
            listeners: parts.pings.clone(),
            threads: parts.threads.clone(),
            mailbox: parts.mailbox.clone(),
        };
        let (health, permits) = (parts.health.clone(), parts.permits.clone());
        crew.spawn(|stop| watchdog::attend(systemd.clone(), work, health, permits, stop));
    }
    crew
}
