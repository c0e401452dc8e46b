//! `lockouts/{address}`: failed logins that count against an address, and forgetting them.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jam_core::source::Source;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Asked, At, Nothing};
use super::{Done, Shared};
use crate::admin::problem::Problem;

/// An address in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AddressPath {
    /// An IPv4 or IPv6 address, percent-encoded.
    #[param(example = "192.0.2.7", pattern = "^[0-9a-fA-F:.]+$")]
    address: String,
}

impl AddressPath {
    fn source(&self) -> Result<Source, Problem> {
        let address: IpAddr = self
            .address
            .parse()
            .map_err(|_| Problem::new(StatusCode::NOT_FOUND, "this is no IP address"))?;
        Ok(address.into())
    }
}

/// What counts against an address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lockout {
    /// What is counted: an IPv4 address, or an IPv6 /64.
    #[schema(example = "192.0.2.7")]
    source: String,
    /// Failed logins that count.
    failures: usize,
    /// Whether further attempts are refused.
    locked: bool,
    /// When the first failure no longer counts; of a lockout, when it ends.
    ends_in_secs: Option<u64>,
}

/// Failed logins of an address
///
/// Too many lock an address out (`limits.failed_auth`): its clients are refused with `too many failed auth attempts` whatever
/// their tokens are.
#[utoipa::path(
    get,
    path = "/lockouts/{address}",
    tag = "lockouts",
    params(AddressPath),
    responses(
        (status = 200, description = "What counts against the address", body = Lockout),
        (status = 404, description = "This is no IP address"),
    ),
)]
pub(super) async fn show(
    State(api): Shared,
    At(path): At<AddressPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Lockout>, Problem> {
    let source = path.source()?;
    let now = api.of.clock.now();
    let lockout = api.of.router.lockout(source, now);
    Ok(Json(Lockout {
        source: source.to_string(),
        failures: lockout.map_or(0, |it| it.failures),
        locked: lockout.is_some_and(|it| it.is_locked),
        ends_in_secs: lockout.map(|it| it.until.since(now).as_secs()),
    }))
}

/// Lift a lockout
///
/// Forgets the failed logins of an address.
#[utoipa::path(
    delete,
    path = "/lockouts/{address}",
    tag = "lockouts",
    params(AddressPath),
    responses(
        (status = 200, description = "Nothing counts against the address", body = Done),
        (status = 404, description = "This is no IP address"),
    ),
)]
pub(super) async fn lift(
    State(api): Shared,
    At(path): At<AddressPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Done>, Problem> {
    let changed = api.of.router.lift_lockout(path.source()?);
    Ok(Json(Done { changed }))
}
