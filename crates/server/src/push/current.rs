//! The push service in force: the settings and the key file are read again while the server runs.
//!
//! Invariant: there is always one that could be used (`tests::what_cannot_be_used_replaces_nothing`). What is on its way
//! ends with the service that it began with.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Delivering, Notifier, Push, PushError, open};
use crate::settings;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<dyn Notifier>>);

impl Current {
    pub(crate) fn new(service: Arc<dyn Notifier>) -> Self {
        Self(RwLock::new(service))
    }

    /// Reads the key file again, and takes the service that these settings ask for. Blocks.
    ///
    /// # Errors
    /// If it cannot be used, or reaches other receivers, which only a start can begin with: the last one stays.
    pub(crate) fn replace(&self, settings: &settings::Push) -> Result<(), PushError> {
        let service = open(settings)?.filter(|it| it.needs_token() == self.needs_token());
        let service = service.ok_or_else(|| {
            PushError::new("whether there is a push service, and whether it is Firebase, changes with a restart")
        })?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = service;
        Ok(())
    }

    fn get(&self) -> Arc<dyn Notifier> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Notifier for Current {
    fn deliver<'a>(&'a self, push: &'a Push) -> Delivering<'a> {
        let service = self.get();
        Box::pin(async move { service.deliver(push).await })
    }

    fn needs_token(&self) -> bool {
        self.get().needs_token()
    }

    fn name(&self) -> String {
        self.get().name()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn what_cannot_be_used_replaces_nothing() {
        let of = |url: &str| {
            let mut push = Settings::default().push;
            push.webhook = Some(settings::Webhook {
                url: settings::ServiceUrl::parse(url).unwrap(),
                secret: SecretString::from("s"),
            });
            push
        };
        let current = Current::new(open(&of("http://a/")).unwrap().unwrap());
        let before = current.name();
        let mut off = of("http://b/");
        off.enabled = false;
        let mut missing = Settings::default().push;
        missing.fcm_key = Some("/no/such/key.json".into());
        for wrong in [off, missing, Settings::default().push] {
            assert!(current.replace(&wrong).is_err());
            assert_eq!(current.name(), before);
        }
        current.replace(&of("http://b/")).unwrap();
        assert_ne!(current.name(), before);
    }
}
