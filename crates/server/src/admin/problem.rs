//! What an error looks like: `application/problem+json`, RFC 9457.

use axum::body::{Body, to_bytes};
use axum::extract::OriginalUri;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Bytes of a text that become a detail.
const MAX_DETAIL_BYTES: usize = 1024;

/// An error. There is no type of its own for any: the status says what kind it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The HTTP status.
    status: u16,
    /// What the status means.
    title: String,
    /// What is wrong, and what to do.
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
        }
    }

    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("made of a status");
        let body = serde_json::to_vec(&self).expect("three plain fields");
        (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}

/// No such path.
pub(super) async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
}

/// Makes a problem of an error that axum or an extractor has answered with.
pub(super) async fn into_problem(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&MEDIA_TYPE) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_DETAIL_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let detail = match text.trim() {
        "" if status == StatusCode::METHOD_NOT_ALLOWED => {
            "the Allow header has what this path takes"
        }
        "" => status.canonical_reason().unwrap_or("Error"),
        text => text,
    };
    let problem = Problem::new(status, detail);
    parts.headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = serde_json::to_vec(&problem).expect("three plain fields");
    Response::from_parts(parts, Body::from(body))
}
