//! Pushes: telling the phone of a receiver who is away or silent (PROTOCOL.md, section 9).
//!
//! # Layout
//!
//! - `Notifier`: one push service. `open`: the one that the settings ask for.
//! - `fcm`: Firebase, with `account` (its key file) and `oauth` (its access tokens). `webhook`: any HTTP
//!   server. `http`: requests as both make them.
//! - `current`: the service in force, which a reload replaces.
//! - `dispatcher`: takes what the router says is due and has it delivered. `pace`: how fast, and what is
//!   said of a service that does not answer. `receivers`: whose pushes wait because one of theirs failed.
//!
//! Invariants: a push holds no content, and no message waits for one. Every wait, answer and number of
//! requests has a bound with a name. Notification tokens, access tokens and bodies are never logged
//! (`tests::fcm::no_token_is_logged`), nor what a service answers but for its error codes.

mod account;
pub(crate) mod current;
pub(crate) mod dispatcher;
mod fcm;
mod http;
mod oauth;
mod pace;
mod receivers;
#[cfg(test)]
mod tests;
mod webhook;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jam_core::ids::UserId;
use jam_core::push::PushAudience;
use jam_core::time::Stamp;
use secrecy::SecretString;

use self::account::ServiceAccount;
use self::fcm::Fcm;
use self::http::HttpClient;
pub(crate) use self::receivers::MAX_RECEIVERS;
use self::webhook::Webhook;
use crate::settings;

/// One push.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// Who is to be told.
    pub(crate) receiver: UserId,
    /// Who wrote.
    pub(crate) sender: UserId,
    /// Since when it is owed.
    pub(crate) since: Stamp,
    /// The receiver's notification token. There is one if [`Notifier::needs_token`].
    pub(crate) token: Option<SecretString>,
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The service has it.
    Delivered,
    /// The token is dead: no push will ever reach it.
    Unregistered,
    /// The service does not want this push, now or later.
    Rejected {
        /// What it said, in the words of its own error codes: `400 INVALID_ARGUMENT`.
        kind: String,
    },
    /// The service did not take it; it may later.
    Unavailable {
        /// What that says.
        scope: Scope,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
        /// In words for the log.
        why: String,
    },
}

/// What a push that could not be delivered says, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The service wants fewer pushes to this receiver, or is slow to reach them.
    Receiver,
    /// This request went wrong; whether others do is to be seen.
    Request,
    /// No request gets through.
    Service,
}

impl Delivery {
    fn unavailable(scope: Scope, why: impl Into<String>) -> Self {
        Self::Unavailable {
            scope,
            retry_after: None,
            why: why.into(),
        }
    }
}

/// What [`Notifier::deliver`] comes to.
pub(crate) type Delivering<'a> = Pin<Box<dyn Future<Output = Delivery> + Send + 'a>>;

/// A push service.
pub(crate) trait Notifier: fmt::Debug + Send + Sync {
    /// Delivers one push. Ends within a bounded time, whatever the service does.
    fn deliver<'a>(&'a self, push: &'a Push) -> Delivering<'a>;

    /// Whether a push needs the receiver's notification token: without one there is nowhere to send it.
    fn needs_token(&self) -> bool;

    /// Where pushes go, in words for the log.
    fn name(&self) -> String;
}

/// A push service cannot be used; in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushError(String);

impl PushError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PushError {}

/// The push service that the settings ask for. `None`: no push is sent, and none need be owed.
///
/// # Errors
/// If the service account's key file cannot be used, or HTTPS cannot.
pub(crate) fn open(push: &settings::Push) -> Result<Option<Arc<dyn Notifier>>, PushError> {
    if !push.enabled {
        return Ok(None);
    }
    if let Some(path) = &push.fcm_key {
        let account = ServiceAccount::read(path)?;
        let http = HttpClient::new(&[push.fcm_url.expose(), account.token_uri()])?;
        return Ok(Some(Arc::new(Fcm::new(http, account, &push.fcm_url))));
    }
    if let Some(webhook) = &push.webhook {
        let http = HttpClient::new(&[webhook.url.expose()])?;
        return Ok(Some(Arc::new(Webhook::new(http, webhook))));
    }
    Ok(None)
}

/// Which receivers pushes can reach.
pub(crate) fn audience(push: &settings::Push, notifier: Option<&dyn Notifier>) -> PushAudience {
    match notifier {
        _ if !push.enabled => PushAudience::Off,
        None => PushAudience::NoService,
        Some(notifier) if notifier.needs_token() => PushAudience::TokenHolders,
        Some(_) => PushAudience::Everybody,
    }
}

/// What [`open`] would do, in words: where pushes would go. `None`: nowhere.
///
/// # Errors
/// As [`open`].
pub(crate) fn check(push: &settings::Push) -> Result<Option<String>, PushError> {
    let found = open(push)?;
    Ok(found.map(|notifier| format!("would go to {}", notifier.name())))
}
