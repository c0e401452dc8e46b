//! `users`: accounts and their tokens.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, stream};
use jam_core::ids::UserId;
use jam_core::router::UserFilter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Asked, At, Body, Nothing, UserPath, wrong};
use super::page::{Order, Page, PageLimit, pick, walk};
use super::{Api, Done, Shared, refused, refused_list};
use crate::admin::problem::Problem;
use crate::directory::{self, AdministrationError, NewToken, PageRequest};

/// Accounts that are read at once.
const READ_AT_ONCE: usize = 4;

/// An answer with a token in it is kept by nobody.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct User {
    /// The user id.
    #[schema(example = "2")]
    id: String,
    /// What people call them.
    name: Option<String>,
    /// Whether there is a token to log in with.
    token: bool,
    /// Whether pushes can be addressed.
    push: bool,
    /// How many friends there are, blocked ones included.
    friends: u32,
    /// Whether a device of theirs is connected.
    online: bool,
}

impl Api {
    fn is_online(&self, id: &str) -> bool {
        UserId::parse(id).is_ok_and(|id| self.of.router.is_online(&id))
    }

    fn user(&self, user: directory::User) -> User {
        let directory::User {
            id,
            name,
            token,
            push,
            friends,
        } = user;
        let online = self.is_online(&id);
        User {
            id,
            name,
            token,
            push,
            friends,
            online,
        }
    }
}

/// Which users.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichUsers {
    /// Only those whose ids begin with this.
    #[serde(default)]
    #[param(required = false)]
    prefix: String,
    /// Only those with a device that is connected, or only those without.
    online: Option<bool>,
    /// Users of a page.
    #[serde(default)]
    #[param(value_type = u16, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Accounts
///
/// In the order of their ids. With `online=false` a page may have fewer than `limit`, or none, although there are more, if
/// among the next 10000 accounts so many are online: go on until `next` is `null`. With `online=true` the order means
/// nothing; it changes with each start of the server, and a cursor of before is refused.
#[utoipa::path(
    get,
    path = "/users",
    tag = "users",
    params(WhichUsers),
    responses((status = 200, description = "Some of the accounts", body = Page<User>)),
)]
pub(super) async fn list(
    State(api): Shared,
    Asked(asked): Asked<WhichUsers>,
) -> Result<Json<Page<User>>, Problem> {
    let order = match asked.online {
        Some(true) => Order::Memory(api.epoch),
        Some(false) | None => Order::Directory,
    };
    let after = order.user(asked.after.as_deref())?;
    if asked.online == Some(true) {
        return api.online_users(&asked, after, order).await.map(Json);
    }
    let page = match asked.online {
        Some(_) => api.offline_users(&asked, after).await,
        None => {
            let page = PageRequest::new(after, asked.limit.count())
                .expect("limits are checked when they are read");
            api.administration.users(&asked.prefix, &page).await
        }
    };
    let directory::Page { items, next } = page.map_err(refused_list)?;
    Ok(Json(Page {
        items: items.into_iter().map(|user| api.user(user)).collect(),
        next: next.map(|last| order.cursor(last.as_str())),
    }))
}

impl Api {
    async fn offline_users(
        &self,
        asked: &WhichUsers,
        after: Option<UserId>,
    ) -> Result<directory::Page<directory::User>, AdministrationError> {
        let read = |request: PageRequest| async move {
            self.administration.users(&asked.prefix, &request).await
        };
        let is_offline = |user: &directory::User| !self.is_online(&user.id);
        pick(asked.limit, after, read, is_offline, |user| &user.id).await
    }

    async fn online_users(
        &self,
        asked: &WhichUsers,
        after: Option<UserId>,
        order: Order,
    ) -> Result<Page<User>, Problem> {
        let (mut ids, mut is_over) = (Vec::new(), true);
        walk(
            &self.of.router,
            UserFilter::Connected,
            after.as_ref(),
            |user| {
                if Some(&user) == after.as_ref() || !user.as_str().starts_with(&asked.prefix) {
                    return true;
                }
                if ids.len() == usize::from(asked.limit.count()) {
                    is_over = false;
                    return false;
                }
                ids.push(user);
                true
            },
        )
        .await;
        let next = ids
            .last()
            .filter(|_| !is_over)
            .map(|last| order.cursor(last.as_str()));
        let read = stream::iter(ids).map(|id| {
            let accounts = self.administration.clone();
            async move {
                match accounts.user(&id).await {
                    // Removed a moment ago.
                    Err(AdministrationError::NoUser(_)) => Ok(None),
                    read => read.map(Some),
                }
            }
        });
        let read = read.buffered(READ_AT_ONCE);
        let found: Vec<_> = read.try_collect().await.map_err(refused)?;
        let items = found
            .into_iter()
            .flatten()
            .map(|user| self.user(user))
            .collect();
        Ok(Page { items, next })
    }
}

/// An account
///
/// Whether there is a token, never which.
#[utoipa::path(
    get,
    path = "/users/{id}",
    tag = "users",
    params(UserPath),
    responses(
        (status = 200, description = "The account", body = User),
        (status = 404, description = "There is no such user"),
    ),
)]
pub(super) async fn show(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<User>, Problem> {
    let user = api.administration.user(&path.user()?).await;
    Ok(Json(api.user(user.map_err(refused)?)))
}

/// A new account; every field may be left out, and so may the body.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewUser {
    /// What people call them.
    name: Option<String>,
    /// The token to log in with; a random one if there is none.
    #[schema(min_length = 1)]
    token: Option<String>,
}

/// What has become of an account.
#[derive(Serialize, ToSchema)]
pub(super) struct UserPut {
    /// The user id.
    id: String,
    /// Whether the account is new.
    created: bool,
    /// Whether anything is different now.
    changed: bool,
    /// The token of a new account. It is not shown again.
    token: Option<String>,
}

/// Add an account
///
/// Of a new one the token is shown, once. For one that exists this changes its token if you give one, and is refused if the
/// name is another.
#[utoipa::path(
    put,
    path = "/users/{id}",
    tag = "users",
    params(UserPath),
    request_body(content = NewUser, content_type = "application/json"),
    responses(
        (status = 200, description = "It was there already", body = UserPut),
        (status = 201, description = "It is new", body = UserPut),
        (status = 404, description = "There can be no such user"),
        (status = 409, description = "It cannot be in this database, or has another name"),
    ),
)]
pub(super) async fn put(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(Nothing {}): Asked<Nothing>,
    Body(new): Body<NewUser>,
) -> Result<Response, Problem> {
    let user = path.user()?;
    let chosen = new.token.as_deref().map(chosen).transpose()?;
    let token = match &chosen {
        Some(token) => token.clone(),
        None => NewToken::random().map_err(|error| super::unavailable(&error))?,
    };
    let accounts = &api.administration;
    let (created, changed) = match accounts.add_user(&user, new.name.as_deref(), &token).await {
        Ok(()) => (true, true),
        Err(AdministrationError::UserExists(_)) => {
            let present = accounts.user(&user).await.map_err(refused)?;
            if new.name.is_some() && new.name != present.name {
                let detail = format!("user {user} exists already, and has another name");
                return Err(Problem::new(StatusCode::CONFLICT, detail));
            }
            let changed = match &chosen {
                Some(token) => accounts.set_token(&user, token).await.map_err(refused)?,
                None => false,
            };
            (false, changed)
        }
        Err(error) => return Err(refused(error)),
    };
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let put = UserPut {
        id: user.to_string(),
        created,
        changed,
        token: created.then(|| token.expose().to_owned()),
    };
    Ok((status, NO_STORE, Json(put)).into_response())
}

/// Remove an account
///
/// And its friendships. Within a second its connections end, and what waits for it goes. One that is not there is no error.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    tag = "users",
    params(UserPath),
    responses(
        (status = 200, description = "There is no such account", body = Done),
        (status = 404, description = "There can be no such user"),
        (status = 409, description = "This database does not let it go"),
    ),
)]
pub(super) async fn remove(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Done>, Problem> {
    let removed = api.administration.remove_user(&path.user()?).await;
    let changed = removed.map_err(refused)?;
    Ok(Json(Done { changed }))
}

/// A token; a random one if there is none, or no body.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TokenChosen {
    /// The token to log in with.
    #[schema(min_length = 1)]
    token: Option<String>,
}

/// A token that has been set.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenPut {
    /// The user id.
    id: String,
    /// The token. It is not shown again.
    token: String,
    /// Whether it was another one before.
    changed: bool,
}

/// Give a user a token
///
/// In place of the one they have; who is logged in with that is logged out within a second, and their sessions end. The
/// answer shows it, once.
#[utoipa::path(
    put,
    path = "/users/{id}/token",
    tag = "users",
    params(UserPath),
    request_body(content = TokenChosen, content_type = "application/json"),
    responses(
        (status = 200, description = "The token", body = TokenPut),
        (status = 404, description = "There is no such user"),
        (status = 409, description = "This database does not take it"),
    ),
)]
pub(super) async fn put_token(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(Nothing {}): Asked<Nothing>,
    Body(body): Body<TokenChosen>,
) -> Result<Response, Problem> {
    let user = path.user()?;
    let token = match body.token.as_deref() {
        Some(token) => chosen(token)?,
        None => NewToken::random().map_err(|error| super::unavailable(&error))?,
    };
    let set = api.administration.set_token(&user, &token).await;
    let put = TokenPut {
        id: user.to_string(),
        token: token.expose().to_owned(),
        changed: set.map_err(refused)?,
    };
    Ok((NO_STORE, Json(put)).into_response())
}

fn chosen(token: &str) -> Result<NewToken, Problem> {
    NewToken::chosen(token).map_err(|error| wrong(error.to_string()))
}
