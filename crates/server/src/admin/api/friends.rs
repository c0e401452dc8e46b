//! `users/{id}/friends` and `users/{a}/blocks`: who may write to whom.

use axum::Json;
use axum::extract::State;
use jam_core::ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Asked, At, Nothing, PairPath, UserPath};
use super::page::{Order, Page, PageLimit};
use super::{Api, Done, Shared, refused, refused_list};
use crate::admin::problem::Problem;
use crate::directory::{self, PageRequest};

/// A friend.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Friend {
    /// The friend's user id.
    #[schema(example = "1")]
    id: String,
    /// What people call them.
    name: Option<String>,
    /// Whether the user has blocked the friend.
    blocked: bool,
    /// Whether the friend has blocked the user.
    been_blocked: bool,
    /// Whether a device of the friend is connected.
    online: bool,
}

impl Api {
    fn friend(&self, friend: directory::Friend) -> Friend {
        let directory::Friend {
            id,
            name,
            blocked,
            been_blocked,
        } = friend;
        let online = UserId::parse(&id).is_ok_and(|id| self.of.router.is_online(&id));
        Friend {
            id,
            name,
            blocked,
            been_blocked,
            online,
        }
    }
}

/// Which friends.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichFriends {
    /// Friends of a page.
    #[serde(default)]
    #[param(value_type = u16, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Friends of a user
///
/// Blocked ones included, in the order of their ids.
#[utoipa::path(
    get,
    path = "/users/{id}/friends",
    tag = "friends",
    params(UserPath, WhichFriends),
    responses(
        (status = 200, description = "Some of the friends", body = Page<Friend>),
        (status = 404, description = "There is no such user, or no page begins after the cursor"),
    ),
)]
pub(super) async fn list(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(asked): Asked<WhichFriends>,
) -> Result<Json<Page<Friend>>, Problem> {
    let user = path.user()?;
    let after = Order::Directory.user(asked.after.as_deref())?;
    let page = PageRequest::new(after, asked.limit.count())
        .expect("limits are checked when they are read");
    let page = api.administration.friends(&user, &page).await;
    let directory::Page { items, next } = page.map_err(refused_list)?;
    Ok(Json(Page {
        items: items.into_iter().map(|friend| api.friend(friend)).collect(),
        next: next.map(|last| Order::Directory.cursor(last.as_str())),
    }))
}

/// Make two users friends
///
/// They may write to each other from now on. A block stays.
#[utoipa::path(
    put,
    path = "/users/{a}/friends/{b}",
    tag = "friends",
    params(PairPath),
    responses(
        (status = 200, description = "They are friends", body = Done),
        (status = 404, description = "One of them does not exist"),
        (status = 409, description = "Nobody is their own friend"),
    ),
)]
pub(super) async fn befriend(
    State(api): Shared,
    At(path): At<PairPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Done>, Problem> {
    let (a, b) = path.users()?;
    let changed = api.administration.befriend(&a, &b).await.map_err(refused)?;
    Ok(Json(Done { changed }))
}

/// End a friendship
///
/// Blocks included. That there is none is no error.
#[utoipa::path(
    delete,
    path = "/users/{a}/friends/{b}",
    tag = "friends",
    params(PairPath),
    responses(
        (status = 200, description = "They are not friends", body = Done),
        (status = 404, description = "One of them does not exist"),
        (status = 409, description = "This database does not let it go"),
    ),
)]
pub(super) async fn unfriend(
    State(api): Shared,
    At(path): At<PairPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Done>, Problem> {
    let (a, b) = path.users()?;
    let changed = api.administration.unfriend(&a, &b).await.map_err(refused)?;
    Ok(Json(Done { changed }))
}

/// Block a friend
///
/// Neither can write to the other any more.
#[utoipa::path(
    put,
    path = "/users/{a}/blocks/{b}",
    tag = "friends",
    params(PairPath),
    responses(
        (status = 200, description = "`a` blocks `b`", body = Done),
        (status = 404, description = "One of them does not exist"),
        (status = 409, description = "They are not friends"),
    ),
)]
pub(super) async fn block(
    State(api): Shared,
    At(path): At<PairPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Done>, Problem> {
    api.set_blocked(&path, true).await
}

/// Take a block back
///
/// What the other one blocks stays blocked.
#[utoipa::path(
    delete,
    path = "/users/{a}/blocks/{b}",
    tag = "friends",
    params(PairPath),
    responses(
        (status = 200, description = "`a` does not block `b`", body = Done),
        (status = 404, description = "One of them does not exist"),
        (status = 409, description = "They are not friends"),
    ),
)]
pub(super) async fn unblock(
    State(api): Shared,
    At(path): At<PairPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Done>, Problem> {
    api.set_blocked(&path, false).await
}

impl Api {
    async fn set_blocked(&self, path: &PairPath, blocked: bool) -> Result<Json<Done>, Problem> {
        let (a, b) = path.users()?;
        let changed = self.administration.set_blocked(&a, &b, blocked).await;
        let changed = changed.map_err(refused)?;
        Ok(Json(Done { changed }))
    }
}
