//! What is changed through the API is in the log (docs/logs.md): which route, about what, and what came of it.
//!
//! Invariant: neither a token nor a body is in it.

use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

/// Bytes of a path that are logged.
const SHOWN_BYTES: usize = 512;

/// Logs a request that may change something.
pub(super) async fn log_writes(
    OriginalUri(uri): OriginalUri,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(&method) {
        return response;
    }
    // A URI is ASCII without control characters; what is not was percent-encoded by whoever sent it. In a query that no route has
    // there may be anything, a token also.
    let target = match uri.path_and_query() {
        Some(known) if !response.status().is_client_error() => known.as_str(),
        _ => uri.path(),
    };
    let target = &target[..target.len().min(SHOWN_BYTES)];
    let route = route.as_ref().map_or("", |route| route.as_str());
    let status = response.status().as_u16();
    tracing::info!(target: "jam_mqtt::admin", %method, route, uri = target, status, "administration");
    response
}
