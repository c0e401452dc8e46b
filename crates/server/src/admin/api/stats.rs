//! `GET stats`: the numbers of `/metrics` as JSON.

use std::sync::Arc;

use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Json};

use super::extract::{Asked, Nothing};
use crate::admin::gathering::Gatherer;

/// All numbers
///
/// The snapshot that `/metrics` shows, by the names there (docs/metrics.md): for each metric a list of its series, with
/// `labels` and `value`; a histogram has `count`, `sum` and `buckets`, each a bound and how many values are no larger.
#[utoipa::path(
    get,
    path = "/stats",
    tag = "server",
    responses((status = 200, description = "All metrics at one moment", body = serde_json::Value)),
)]
pub(super) async fn show(
    Extension(gatherer): Extension<Arc<Gatherer>>,
    Asked(Nothing {}): Asked<Nothing>,
) -> impl IntoResponse {
    (
        [(header::CACHE_CONTROL, "no-store")],
        Json(gatherer.snapshot()),
    )
}
