//! The admin API, `/api/v1`: what an operator's scripts and the console ask for (`docs/admin-api.md`).
//!
//! # Layout
//!
//! - this file: all routes, and what they share. [`document`]: the OpenAPI description of them.
//! - [`extract`]: what a request has to look like. [`page`]: lists, some of them at a time. [`disk`]: what waits for a file.
//! - [`server`], [`stats`], [`users`], [`friends`], [`devices`], [`mailboxes`], [`lockouts`]: the resources of those names. [`events`]: those
//!   of a user, of pushes, and the stream. [`diagnosis`] says why somebody gets no messages.
//!
//! Invariants: no handler blocks the thread, or takes longer than [`TIMEOUT`]; PUT and DELETE may be repeated, and say
//! whether anything has changed; a token is in no answer but the one that makes it.

#![expect(unused_qualifications, reason = "in what utoipa makes of `params(…)`")]

mod devices;
mod diagnosis;
mod disk;
mod document;
mod events;
mod extract;
mod friends;
mod lockouts;
mod mailboxes;
mod page;
mod server;
mod stats;
#[cfg(test)]
mod tests;
mod users;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use jam_core::ids::UserId;
use jam_core::router::{OnCommit, Router};
use jam_core::store::MailboxStore;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use crate::clock::Clock;
use crate::directory::{AccountsDatabase, Administration, AdministrationError};
use crate::events::Events;
use crate::settings::Settings;
use disk::Disk;

/// How long an answer may take to begin.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is administered.
pub(crate) struct Administered {
    pub(crate) settings: Settings,
    /// Where it is served, by the names in the settings.
    pub(crate) listeners: Vec<(&'static str, SocketAddr)>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) router: Arc<Router>,
    pub(crate) directory: Arc<dyn AccountsDatabase>,
    pub(crate) mailbox: Arc<dyn MailboxStore<OnCommit>>,
    pub(crate) events: Arc<Events>,
    pub(crate) started: Instant,
}

/// What the routes share.
pub(crate) struct Api {
    of: Administered,
    administration: Arc<dyn Administration>,
    disk: Disk,
    /// Tells cursors of this process from those of others.
    epoch: u32,
}

type Shared = axum::extract::State<Arc<Api>>;

impl Api {
    pub(crate) fn new(of: Administered) -> Result<Self, getrandom::Error> {
        Ok(Self {
            administration: of.directory.clone().administration(),
            of,
            disk: Disk::default(),
            epoch: getrandom::u32()?,
        })
    }

    /// An error, if there is no such account.
    async fn require_account(&self, user: &UserId) -> Result<(), Problem> {
        let found = self.administration.user(user).await;
        found.map(drop).map_err(refused)
    }
}

/// The answer to a write.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    /// Whether anything is different now: the same request twice changes nothing the second time.
    changed: bool,
}

/// All routes of `/api/v1`, and their description.
pub(super) fn routes(api: Arc<Api>) -> (axum::Router, utoipa::openapi::OpenApi) {
    let (router, description) = OpenApiRouter::with_openapi(document::head())
        .routes(routes!(server::show))
        .routes(routes!(stats::show))
        .routes(routes!(users::list))
        .routes(routes!(users::show, users::put, users::remove))
        .routes(routes!(users::put_token))
        .routes(routes!(diagnosis::show))
        .routes(routes!(friends::list))
        .routes(routes!(friends::befriend, friends::unfriend))
        .routes(routes!(friends::block, friends::unblock))
        .routes(routes!(devices::list))
        .routes(routes!(devices::of_user))
        .routes(routes!(devices::disconnect))
        .routes(routes!(mailboxes::list))
        .routes(routes!(mailboxes::show, mailboxes::purge))
        .routes(routes!(lockouts::list))
        .routes(routes!(lockouts::show, lockouts::lift))
        .routes(routes!(events::of_user))
        .routes(routes!(events::pushes))
        .routes(routes!(events::stream))
        .routes(routes!(document::show))
        .layer(from_fn(in_time))
        .split_for_parts();
    let description = document::complete(description);
    let text = document::Text::new(&description);
    (
        router.layer(axum::Extension(text)).with_state(api),
        description,
    )
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "this takes too long; a change may be made all the same: look before you try again",
        )
        .into_response(),
    }
}

/// A database or a disk does not answer.
fn unavailable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// Why the accounts database does not do it.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn refused(error: AdministrationError) -> Problem {
    let status = match &error {
        AdministrationError::NoUser(_) => StatusCode::NOT_FOUND,
        AdministrationError::UserExists(_)
        | AdministrationError::NotFriends(..)
        | AdministrationError::Refused(_) => StatusCode::CONFLICT,
        AdministrationError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}

/// The same for a list: what can be refused there is a cursor.
fn refused_list(error: AdministrationError) -> Problem {
    match error {
        AdministrationError::Refused(why) => extract::wrong(why),
        other => refused(other),
    }
}
