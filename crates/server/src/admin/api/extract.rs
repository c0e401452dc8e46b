//! What a request has to look like: path, query and body.
//!
//! Invariant: what is not understood is an error, and changes nothing: an unknown query key or field as much as a wrong
//! value (422). A text in a path that can name nothing names nothing (404).

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use jam_core::ids::{ClientId, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::admin::problem::Problem;

/// A user in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UserPath {
    /// A user id, percent-encoded.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = "^[^/+#$:\\u0000]+$",
        example = "2"
    )]
    id: String,
}

/// Whose mailbox it is, in a path. A mailbox is not removed as what is named by its own id is: one that was purged is
/// empty, and its owner goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OwnerPath {
    /// The id of the user whose mailbox it is, percent-encoded.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = "^[^/+#$:\\u0000]+$",
        example = "2"
    )]
    owner: String,
}

/// A user and a friend in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PairPath {
    /// A user id, percent-encoded.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = "^[^/+#$:\\u0000]+$",
        example = "1"
    )]
    a: String,
    /// The other user's id, percent-encoded.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = "^[^/+#$:\\u0000]+$",
        example = "2"
    )]
    b: String,
}

/// A device in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DevicePath {
    /// A user id, percent-encoded.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = "^[^/+#$:\\u0000]+$",
        example = "2"
    )]
    id: String,
    /// The device's client id as `GET users/{id}/devices` has it, percent-encoded.
    #[param(min_length = 1, max_length = 256, example = "2:phone")]
    device: String,
}

impl UserPath {
    pub(super) fn user(&self) -> Result<UserId, Problem> {
        user(&self.id)
    }
}

impl OwnerPath {
    pub(super) fn owner(&self) -> Result<UserId, Problem> {
        user(&self.owner)
    }
}

impl PairPath {
    pub(super) fn users(&self) -> Result<(UserId, UserId), Problem> {
        Ok((user(&self.a)?, user(&self.b)?))
    }
}

impl DevicePath {
    pub(super) fn device(&self) -> Result<(UserId, ClientId), Problem> {
        let user = user(&self.id)?;
        let client = ClientId::new(&self.device);
        let is_its = self.device.len() <= ClientId::MAX_LEN && client.user_part() == user.as_str();
        if !is_its {
            let detail = format!(
                "user {user} has no such device: a client id of theirs begins with {user}:"
            );
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        }
        Ok((user, client))
    }
}

/// The user with this id, be there one or not.
pub(super) fn user(id: &str) -> Result<UserId, Problem> {
    UserId::parse(id).map_err(|why| {
        let detail = format!("there can be no such user: {why}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

/// What is wrong with what was sent.
pub(super) fn wrong(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// Where a route leads to.
pub(super) struct At<T>(pub(super) T);

impl<S: Sync + Send, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(Problem::new(StatusCode::NOT_FOUND, rejection.body_text())),
        }
    }
}

/// The query of a route, with unknown keys denied by its type.
pub(super) struct Asked<T>(pub(super) T);

/// The query of a route that takes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<S: Sync + Send, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(QueryRejection::FailedToDeserializeQueryString(why)) => Err(wrong(format!(
                "the query is not understood: {}",
                inner(&why)
            ))),
            Err(other) => Err(wrong(other.body_text())),
        }
    }
}

/// The body of a route; [`Default`] if there is none.
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync + Send, T: DeserializeOwned + Default> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(request.headers().get(header::CONTENT_TYPE));
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|why| too_large(&why))?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            let detail = "the body has to be JSON: send Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        // Serde would take a list of values for an object.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(wrong("the body has to be a JSON object"));
        }
        let body = serde_json::from_slice(&bytes);
        body.map(Self).map_err(|why| {
            wrong(format!(
                "the body is not understood: {}",
                without_text(&why)
            ))
        })
    }
}

fn is_json(content_type: Option<&header::HeaderValue>) -> bool {
    let value = content_type.and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    })
}

fn too_large(why: &BytesRejection) -> Problem {
    let detail = format!(
        "a body has at most {} bytes",
        crate::admin_bounds::MAX_BODY_BYTES
    );
    match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
        _ => wrong("the body ends before its end"),
    }
}

fn inner(why: &dyn std::error::Error) -> String {
    why.source().map_or_else(|| why.to_string(), inner)
}

/// What serde says quotes wrong values, and one may be a token.
fn without_text(why: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", why.line(), why.column());
    let text = why.to_string();
    match why.classify() {
        serde_json::error::Category::Data if text.starts_with("unknown field") => text,
        serde_json::error::Category::Data => format!("a wrong value before {place}"),
        _ => format!("no JSON at {place}"),
    }
}
