//! `users/{id}/mailbox` and `mailboxes`: how much waits, never what; and removing it.
//!
//! Numbers come from memory. Of the oldest message only its number is there: its age is read from the disk.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jam_core::ids::UserId;
use jam_core::router::{MailboxView, SHARDS, UserView};
use jam_core::store::Seq;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::devices::Device;
use super::extract::{Asked, At, Nothing, OwnerPath, user};
use super::page::{Page, PageLimit};
use super::{Api, Shared, unavailable};
use crate::admin::problem::Problem;
use crate::mailbox::ListOrder;

/// How long the answer to a purge waits for the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What waits for a user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Mailbox {
    /// Whose it is.
    user: String,
    /// Messages that wait.
    messages: usize,
    /// Bytes of them.
    bytes: u64,
    /// How long the oldest has waited; `null` if there is none.
    pub(super) oldest_secs: Option<u64>,
    /// Retained messages.
    retained: usize,
}

/// What waits for a user, and for which devices.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MailboxOfUser {
    #[serde(flatten)]
    mailbox: Mailbox,
    /// The user's devices.
    sessions: Vec<Device>,
}

/// What waits for a user
///
/// How much, and what is on its way to each device; never contents.
#[utoipa::path(
    get,
    path = "/users/{owner}/mailbox",
    tag = "mailboxes",
    params(OwnerPath),
    responses(
        (status = 200, description = "The mailbox in numbers", body = MailboxOfUser),
        (status = 404, description = "There is no such user"),
    ),
)]
pub(super) async fn show(
    State(api): Shared,
    At(path): At<OwnerPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<MailboxOfUser>, Problem> {
    let user = path.owner()?;
    let view = api.of.router.view(&user);
    if view.is_none() {
        api.require_account(&user).await?;
    }
    let mailbox = api.mailbox(&user, view.as_ref()).await?;
    let sessions = Device::all_of(&user, view, api.of.clock.now());
    Ok(Json(MailboxOfUser { mailbox, sessions }))
}

impl Api {
    pub(super) async fn mailbox(
        &self,
        user: &UserId,
        view: Option<&UserView>,
    ) -> Result<Mailbox, Problem> {
        let view = view.map(|view| view.mailbox).unwrap_or_default();
        let mut mailboxes = self.with_ages(vec![(user.clone(), view)]).await?;
        Ok(mailboxes.remove(0))
    }

    async fn with_ages(&self, views: Vec<(UserId, MailboxView)>) -> Result<Vec<Mailbox>, Problem> {
        let oldest = |(user, view): &(UserId, MailboxView)| Some((user.clone(), view.oldest?));
        let oldest: Vec<(UserId, Seq)> = views.iter().filter_map(oldest).collect();
        let mailbox = self.of.mailbox.clone();
        let received = if oldest.is_empty() {
            Vec::new()
        } else {
            let read = self.disk.wait_for(move || mailbox.received_at(&oldest));
            read.await?.map_err(|error| unavailable(&error))?
        };
        let now = self.of.clock.now();
        let age = |seq: Seq| {
            let found = received.iter().find(|(other, _)| *other == seq);
            // The disk does not have it yet: it has just come.
            found.map_or(0, |(_, at)| now.since(*at).as_secs())
        };
        let mailbox = |(user, view): (UserId, MailboxView)| Mailbox {
            user: user.to_string(),
            messages: view.messages,
            bytes: view.bytes,
            oldest_secs: view.oldest.map(age),
            retained: view.retained,
        };
        Ok(views.into_iter().map(mailbox).collect())
    }
}

/// What to remove.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhatToPurge {
    /// Only what this user has sent.
    #[param(min_length = 1, max_length = 64, pattern = "^[^/+#$:\\u0000]+$")]
    from: Option<String>,
    /// Retained messages, sessions and wills too; ends the user's connections. Not together with `from`.
    #[serde(default)]
    #[param(required = false, default = false)]
    all: bool,
}

/// The answer to a purge.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Purged {
    /// Messages that are gone.
    removed: usize,
}

/// Remove what waits for a user
///
/// Messages only: sessions, subscriptions and retained messages stay, unless you say `all`. What arrives meanwhile stays
/// too. That nothing waits is no error.
#[utoipa::path(
    delete,
    path = "/users/{owner}/mailbox",
    tag = "mailboxes",
    params(OwnerPath, WhatToPurge),
    responses(
        (status = 200, description = "It is gone", body = Purged),
        (status = 404, description = "There can be no such user"),
        (status = 409, description = "Both `from` and `all`"),
    ),
)]
pub(super) async fn purge(
    State(api): Shared,
    At(path): At<OwnerPath>,
    Asked(asked): Asked<WhatToPurge>,
) -> Result<Json<Purged>, Problem> {
    let owner = path.owner()?;
    let from = asked.from.as_deref().map(user).transpose()?;
    let router = &api.of.router;
    let removed = match (from, asked.all) {
        (Some(_), true) => {
            let detail = "from and all contradict each other: send one of them";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        (None, true) => {
            let view = router.view(&owner);
            router.end(&owner, Seq::MAX);
            view.map_or(0, |view| view.mailbox.messages)
        }
        (from, false) => router.purge(&owner, Seq::MAX, from.as_ref()),
    };
    let mailbox = api.of.mailbox.clone();
    if !api
        .disk
        .wait_for(move || mailbox.flush(FLUSH_TIMEOUT))
        .await?
    {
        return Err(unavailable(
            &"it is done as far as clients can see, and will be on the disk when the mailbox can be written again",
        ));
    }
    Ok(Json(Purged { removed }))
}

/// Which mailboxes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichMailboxes {
    /// What comes first: `bytes` if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    sort: ListOrder,
    /// How many.
    #[serde(default)]
    #[param(value_type = u16, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PageLimit,
}

/// Mailboxes in which most waits
///
/// The first ones only: there is no next page.
#[utoipa::path(
    get,
    path = "/mailboxes",
    tag = "mailboxes",
    params(WhichMailboxes),
    responses((status = 200, description = "The first ones", body = Page<Mailbox>)),
)]
pub(super) async fn list(
    State(api): Shared,
    Asked(asked): Asked<WhichMailboxes>,
) -> Result<Json<Page<Mailbox>>, Problem> {
    let count = usize::from(asked.limit.count());
    let rank = |(_, view): &(UserId, MailboxView)| match asked.sort {
        ListOrder::Bytes => u64::MAX - view.bytes,
        ListOrder::Oldest => view.oldest.unwrap_or(Seq::MAX),
    };
    let mut first: Vec<(UserId, MailboxView)> = Vec::new();
    for part in 0..SHARDS {
        first.extend(api.of.router.mailboxes_of(part));
        if first.len() > count {
            first.select_nth_unstable_by_key(count - 1, rank);
            first.truncate(count);
        }
        tokio::task::yield_now().await;
    }
    first.sort_by_key(rank);
    let items = api.with_ages(first).await?;
    Ok(Json(Page { items, next: None }))
}
