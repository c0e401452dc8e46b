//! SIGHUP: settings, TLS files and push key are read again, from where they were read at the start.
//!
//! What cannot be used changes nothing, and the log says why; what only a restart changes it names. Nothing on the path
//! of a message waits for it. Invariant: settings are applied all together or not at all.

use std::sync::{Arc, Mutex, PoisonError};

use jam_core::router::Router;

use super::Running;
use crate::client_log::ClientLog;
use crate::descriptors;
use crate::logging::{self, Usual};
use crate::permits::ConnectionPermits;
use crate::push::current::Current;
use crate::settings::{Settings, Sources};
use crate::threads::{OTHER_THREADS, Threads};
use crate::tls::Tls;

/// The settings that are applied without a restart. The others were told to clients, or are what the server stands on.
const APPLIED: [&str; 10] = [
    "log",
    "push.fcm_key",
    "push.fcm_url",
    "push.webhook_url",
    "push.webhook_secret",
    "limits.connections",
    "limits.connections_per_address",
    "limits.publish_rate",
    "limits.failed_auth",
    "limits.failed_auth_window",
];

/// See the module's description.
pub(super) struct Reload {
    sources: Sources,
    started: Settings,
    in_force: Mutex<Settings>,
    tls: Option<Arc<Tls>>,
    push: Option<Arc<Current>>,
    permits: Arc<ConnectionPermits>,
    threads: Arc<Threads>,
    router: Arc<Router>,
    client_log: Arc<ClientLog>,
}

impl Reload {
    pub(super) fn of(running: &Running, sources: Sources, started: Settings) -> Self {
        let parts = &running.parts;
        Self {
            sources,
            in_force: Mutex::new(started.clone()),
            started,
            tls: parts.tls.clone(),
            push: parts.push.clone(),
            permits: parts.permits.clone(),
            threads: parts.threads.clone(),
            router: parts.shared.router.clone(),
            client_log: parts.shared.client_log.clone(),
        }
    }

    /// The settings as they were read last.
    pub(super) fn in_force(&self) -> Settings {
        let in_force = self.in_force.lock();
        in_force.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads all of it. May take as long as a disk does.
    pub(super) fn read(&self) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        match Settings::load(&self.sources) {
            Ok(new) => {
                self.apply(&new, &in_force);
                *in_force = new;
            }
            Err(error) => {
                tracing::error!(%error, "settings not reloaded; those in force stay");
            }
        }
        if let Some(push) = &self.push
            && let Err(error) = push.replace(&in_force.push)
        {
            tracing::error!(%error, "push service not reloaded; the last one stays");
        }
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    fn apply(&self, new: &Settings, before: &Settings) {
        let limits = &new.limits;
        let threads = self.threads.len() + OTHER_THREADS;
        let places = descriptors::places(limits.connections, threads);
        self.permits
            .set_limits(places, limits.connections_per_address);
        self.router.set_publish_rate(limits.publish_rate);
        self.router
            .set_failed_auth(limits.failed_auth, limits.failed_auth_window);
        self.client_log.set_window(limits.failed_auth_window);
        if let Err(error) = logging::set_filter(new.log.as_deref(), Usual::Info) {
            tracing::error!(%error, "what is logged stays as it is");
        }
        let listed = |names: Vec<&str>| names.join(", ");
        let pushes = self.push.is_some();
        let is_applied =
            |name: &&str| APPLIED.contains(name) && (pushes || !name.starts_with("push."));
        let changed = listed(new.differences(before).filter(is_applied).collect());
        tracing::info!(changed, "settings reloaded");
        let waiting = new.differences(&self.started);
        let waiting = listed(waiting.filter(|name| !is_applied(name)).collect());
        if !waiting.is_empty() {
            tracing::warn!(
                settings = waiting,
                "a restart is needed for settings that have changed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_is_a_setting() {
        let known = Settings::default().to_toml();
        for name in APPLIED {
            let key = name.rsplit('.').next().unwrap();
            assert!(known.contains(&format!("{key} = ")), "{name}");
        }
    }
}
