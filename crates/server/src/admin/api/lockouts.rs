//! `lockouts`: addresses that are refused; of one, the failed logins that count against it, and forgetting them.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jam_core::attempts;
use jam_core::source::Source;
use jam_core::time::Time;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Asked, At, Nothing};
use super::page::{Order, Page, PageLimit, no_page};
use super::{Done, Shared};
use crate::admin::problem::Problem;

/// An address in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AddressPath {
    /// An IPv4 or IPv6 address, or a source as `GET lockouts` has it, percent-encoded.
    #[param(example = "192.0.2.7", pattern = "^[0-9a-fA-F:.]+(/64)?$")]
    address: String,
}

impl AddressPath {
    fn source(&self) -> Result<Source, Problem> {
        let source = source(&self.address);
        source.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "this is no IP address"))
    }
}

/// Of an address, or of a /64 as [`Source`] is written.
fn source(text: &str) -> Option<Source> {
    let address = text.strip_suffix("/64").unwrap_or(text);
    address.parse::<IpAddr>().ok().map(Source::from)
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
    /// When a lockout ends; without one, when the first failure no longer counts.
    ends_in_secs: Option<u64>,
}

impl Lockout {
    fn of(source: Source, found: Option<attempts::Lockout>, now: Time) -> Self {
        Self {
            source: source.to_string(),
            failures: found.map_or(0, |it| it.failures),
            locked: found.is_some_and(|it| it.is_locked),
            ends_in_secs: found.map(|it| it.until.since(now).as_secs()),
        }
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Addresses of a page.
    #[serde(default)]
    #[param(value_type = u16, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Addresses that are refused now
///
/// Each for too many failed logins, in the order of addresses, IPv4 before IPv6.
#[utoipa::path(
    get,
    path = "/lockouts",
    tag = "lockouts",
    params(Which),
    responses((status = 200, description = "Some of the addresses", body = Page<Lockout>)),
)]
pub(super) async fn list(
    State(api): Shared,
    Asked(asked): Asked<Which>,
) -> Result<Json<Page<Lockout>>, Problem> {
    let order = Order::Addresses;
    let place = |cursor: String| source(&order.key(&cursor)?).ok_or_else(no_page);
    let after = asked.after.map(place).transpose()?;
    let limit = usize::from(asked.limit.count());
    let now = api.of.clock.now();
    let mut found = api.of.router.locked_out(after, limit + 1, now);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|(last, _)| order.cursor(&last.to_string()));
    let items = found.into_iter();
    let items = items.map(|(source, found)| Lockout::of(source, Some(found), now));
    Ok(Json(Page {
        items: items.collect(),
        next,
    }))
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
    let found = api.of.router.lockout(source, now);
    Ok(Json(Lockout::of(source, found, now)))
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
