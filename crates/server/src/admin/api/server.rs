//! `GET server`: what runs here.

use std::borrow::Cow;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::extract::{Asked, Nothing};
use crate::limits;

/// A server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Server {
    /// Its version.
    version: &'static str,
    /// Since the start.
    uptime_secs: u64,
    /// What it listens on.
    listeners: Vec<Listener>,
    /// Every setting. Secrets are not shown, nor is what may be one in a URL.
    settings: Vec<Setting>,
    /// What one packet, connection, user, friend or address can make the server hold or do, with these settings.
    limits: Vec<Limit>,
}

/// Where something is served.
#[derive(Debug, Serialize, ToSchema)]
struct Listener {
    /// As in the settings: `mqtt`, `mqtts`, `http` or `admin`.
    #[schema(example = "mqtt")]
    name: &'static str,
    /// Address and port.
    #[schema(example = "0.0.0.0:1883")]
    address: String,
}

/// A setting.
#[derive(Debug, Serialize, ToSchema)]
struct Setting {
    /// Its name.
    #[schema(example = "mailbox.max_age")]
    name: &'static str,
    /// What it is.
    #[schema(example = "30d")]
    value: String,
    /// Where that comes from.
    #[schema(example = "the default")]
    from: String,
}

/// A bound (docs/limits.md).
#[derive(Debug, Serialize, ToSchema)]
struct Limit {
    /// Who or what is bounded.
    of: &'static str,
    /// What it is about.
    what: &'static str,
    /// How much.
    value: u64,
    /// Whether that is bytes.
    bytes: bool,
}

/// The server
///
/// Version, uptime, listeners, effective settings without secrets, and the limits that follow from them.
#[utoipa::path(
    get,
    path = "/server",
    tag = "server",
    responses((status = 200, description = "What runs here", body = Server)),
)]
pub(super) async fn show(State(api): Shared, Asked(Nothing {}): Asked<Nothing>) -> Json<Server> {
    let of = &api.of;
    let listener = |(name, address): &(&'static str, std::net::SocketAddr)| Listener {
        name,
        address: address.to_string(),
    };
    let setting = |(name, value, from): (&'static str, Cow<'_, str>, String)| Setting {
        name,
        value: value.into_owned(),
        from,
    };
    let limit = |bound: limits::Bound| Limit {
        of: bound.of,
        what: bound.what,
        value: bound.value,
        bytes: bound.is_bytes,
    };
    Json(Server {
        version: env!("CARGO_PKG_VERSION"),
        uptime_secs: of.started.elapsed().as_secs(),
        listeners: of.listeners.iter().map(listener).collect(),
        settings: of.settings.shown().map(setting).collect(),
        limits: limits::bounds(&of.settings)
            .into_iter()
            .map(limit)
            .collect(),
    })
}
