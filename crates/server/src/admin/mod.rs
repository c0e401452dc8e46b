//! What the `admin` address serves: metrics, the admin API and its console (`docs/operations.md`).
//!
//! It lives on the main thread, beside signals and `/readyz`: nothing that an operator asks for takes time from a
//! thread that serves clients, and no thread that hangs keeps an operator from asking. What waits for a file goes to the
//! pool for blocking work.
//!
//! # Layout
//!
//! - [`access`]: who may ask. [`audit`]: what is logged of it. [`problem`]: what an error looks like.
//! - [`api`]: the admin API. [`console`]: the pages that show it.
//! - [`gathering`]: the numbers behind `/metrics`.
//! - [`listener`]: from the socket to requests, bounded in number and time.
//!
//! Invariant: every answer that is an error is an `application/problem+json` (RFC 9457), whoever made it
//! (`tests::every_error_is_a_problem`).

pub(crate) mod access;
mod api;
mod audit;
mod console;
pub(crate) mod gathering;
pub(crate) mod listener;
mod problem;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Extension;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::admin_bounds::MAX_BODY_BYTES;
use crate::client_log::ClientLog;
use crate::{http, metrics};
use access::Access;
pub(crate) use api::{Administered, Api};
use gathering::Gatherer;
use problem::Problem;

/// What the routes share.
#[derive(Clone)]
pub(crate) struct Served {
    access: Arc<Access>,
    client_log: Arc<ClientLog>,
    gatherer: Arc<Gatherer>,
}

/// All routes of the `admin` address.
pub(crate) fn router(
    access: Access,
    api: Api,
    gatherer: Arc<Gatherer>,
    metrics_open: bool,
) -> axum::Router {
    let metrics = gatherer.metrics.clone();
    let served = Served {
        access: Arc::new(access),
        client_log: gatherer.shared.client_log.clone(),
        gatherer: gatherer.clone(),
    };
    let shown = get(show_metrics);
    let shown = if metrics_open {
        shown
    } else {
        shown.layer(from_fn_with_state(served.clone(), access::require))
    };
    let (api, _) = api::routes(Arc::new(api));
    let api = api
        .fallback(problem::not_found)
        .layer(Extension(gatherer))
        .layer(from_fn(audit::log_writes))
        .layer(from_fn_with_state(served.clone(), access::require));
    axum::Router::new()
        .nest("/api/v1", api)
        .merge(console::routes())
        .route("/metrics", shown.with_state(served))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(refuse_large))
        .layer(map_response(problem::into_problem))
        .layer(from_fn_with_state(metrics, http::count))
}

async fn show_metrics(State(served): State<Served>) -> impl IntoResponse {
    let text = served.gatherer.snapshot().to_text();
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text)
}

/// Refuses a body that says how large it is before a byte of it is read, whatever the route would do with it.
async fn refuse_large(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
        let detail = format!("a body has at most {MAX_BODY_BYTES} bytes");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
    }
    next.run(request).await
}
