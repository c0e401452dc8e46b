//! `devices` and `users/{id}/devices`: who is connected, and ending that.

use axum::Json;
use axum::extract::State;
use jam_core::ids::{ClientId, UserId};
use jam_core::router::{DevicePresence, DeviceView, Kicked, UserFilter, UserView};
use jam_core::time::Time;
use jam_wire::packet::Version;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Asked, At, DevicePath, Nothing, UserPath};
use super::page::{Order, Page, PageLimit, walk};
use super::{Api, Shared};
use crate::admin::problem::Problem;

/// A device: connected, or remembered because its session goes on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Device {
    /// Whose it is.
    user: String,
    /// Its client id.
    #[schema(example = "2:phone")]
    client: String,
    /// Whether it is connected.
    pub(super) connected: bool,
    /// For how long it has been connected, or away.
    since_secs: u64,
    /// Where it is connected from.
    address: Option<String>,
    /// The version of MQTT that it speaks: `3.1`, `3.1.1` or `5.0`.
    version: Option<&'static str>,
    /// Topics that it has subscribed to.
    subscriptions: usize,
    /// Whether the user's inbox is one of them. Without it, no message of a friend reaches this device.
    pub(super) inbox: bool,
    /// Messages that were sent to it and that it has not acknowledged.
    pub(super) in_flight: usize,
    /// QoS 2 messages from it whose handshake is not over.
    received: u16,
    /// For how long its session goes on without a connection; `null` while it is away.
    session_expiry_secs: Option<u64>,
    /// When its session ends; `null` while it is connected, or if it never does.
    session_ends_in_secs: Option<u64>,
}

impl Device {
    fn of(user: &UserId, view: &DeviceView, now: Time) -> Self {
        let (connected, since, peer, expiry, ends_at) = match view.presence {
            DevicePresence::Connected {
                peer,
                session_expiry,
            } => (
                true,
                peer.since,
                Some(peer),
                Some(session_expiry),
                Time::NEVER,
            ),
            DevicePresence::Away {
                since,
                session_ends_at,
            } => (false, since, None, None, session_ends_at),
        };
        Self {
            user: user.to_string(),
            client: view.client.to_string(),
            connected,
            since_secs: now.since(since).as_secs(),
            address: peer.map(|peer| peer.address.to_string()),
            version: peer.map(|peer| version(peer.version)),
            subscriptions: view.subscriptions,
            inbox: view.reads_inbox,
            in_flight: view.in_flight,
            received: view.received,
            session_expiry_secs: expiry.map(|expiry| expiry.as_secs()),
            session_ends_in_secs: (ends_at != Time::NEVER).then(|| ends_at.since(now).as_secs()),
        }
    }

    /// Those of a user, in the order of their client ids.
    pub(super) fn all_of(user: &UserId, view: Option<UserView>, now: Time) -> Vec<Self> {
        let mut views = view.map_or_else(Vec::new, |view| view.devices);
        views.sort_by(|a, b| a.client.cmp(&b.client));
        let devices = views.iter().map(|view| Self::of(user, view, now));
        devices.collect()
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::V3 => "3.1",
        Version::V4 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichDevices {
    /// Only those that are connected, or only those that are not.
    connected: Option<bool>,
    /// Only those whose client ids begin with this.
    prefix: Option<String>,
    /// Devices of a page.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 1000, default = 100)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Devices of all users
///
/// In no order that means anything; it changes with each start of the server, and a cursor of before is refused.
#[utoipa::path(
    get,
    path = "/devices",
    tag = "devices",
    params(WhichDevices),
    responses((status = 200, description = "Some of the devices", body = Page<Device>)),
)]
pub(super) async fn list(
    State(api): Shared,
    Asked(asked): Asked<WhichDevices>,
) -> Result<Json<Page<Device>>, Problem> {
    let order = Order::Memory(api.epoch);
    let after = asked.after.map(|after| order.key(&after)).transpose()?;
    let after = after.map(ClientId::new);
    // A cursor of this process was made of a client that was let in.
    let first = after
        .as_ref()
        .and_then(|it| UserId::parse(it.user_part()).ok());
    let which = match asked.connected {
        Some(true) => UserFilter::Connected,
        Some(false) | None => UserFilter::WithDevice,
    };
    let prefix = asked.prefix.unwrap_or_default();
    let (router, now) = (&api.of.router, api.of.clock.now());
    let limit = usize::from(asked.limit.count());
    let (mut items, mut is_over) = (Vec::new(), true);
    walk(router, which, first.as_ref(), |user| {
        let id = user.as_str();
        if !id.starts_with(&prefix) && !prefix.starts_with(id) {
            return true;
        }
        for device in Device::all_of(&user, router.view(&user), now) {
            let is_after = Some(&user) != first.as_ref()
                || after
                    .as_ref()
                    .is_none_or(|after| device.client.as_str() > after.as_str());
            let is_meant = device.client.starts_with(&prefix)
                && asked
                    .connected
                    .is_none_or(|connected| device.connected == connected);
            if is_after && is_meant {
                if items.len() == limit {
                    is_over = false;
                    return false;
                }
                items.push(device);
            }
        }
        true
    })
    .await;
    let last = items.last().filter(|_| !is_over);
    let next = last.map(|device| order.cursor(&device.client));
    Ok(Json(Page { items, next }))
}

/// Devices of a user
///
/// All of them: a user has at most 32.
#[utoipa::path(
    get,
    path = "/users/{id}/devices",
    tag = "devices",
    params(UserPath),
    responses(
        (status = 200, description = "All devices of the user", body = Page<Device>),
        (status = 404, description = "There is no such user"),
    ),
)]
pub(super) async fn of_user(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Page<Device>>, Problem> {
    let user = path.user()?;
    let items = api.devices_of(&user);
    if items.is_empty() {
        api.require_account(&user).await?;
    }
    Ok(Json(Page { items, next: None }))
}

impl Api {
    pub(super) fn devices_of(&self, user: &UserId) -> Vec<Device> {
        Device::all_of(user, self.of.router.view(user), self.of.clock.now())
    }
}

/// What becomes of the session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SessionFate {
    /// It goes on: what waits is delivered when the device is back.
    #[default]
    Keep,
    /// It ends: its subscriptions and what is on its way to the device go with it.
    End,
}

/// How to disconnect a device.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HowToDisconnect {
    /// What becomes of its session: `keep` if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    session: SessionFate,
}

/// The answer to a disconnection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Disconnected {
    /// Whether anything is different now.
    changed: bool,
    /// What to know about it.
    note: &'static str,
}

/// Disconnect a device
///
/// An MQTT 5.0 client is sent DISCONNECT 0x98 (Administrative action). **It comes back at once**, as clients do, as long as
/// its token holds: to keep a person out, give them another token (`PUT users/{id}/token`) or remove the account. Its will,
/// if it has one, is due. A device that is not there is no error.
#[utoipa::path(
    delete,
    path = "/users/{id}/devices/{device}",
    tag = "devices",
    params(DevicePath, HowToDisconnect),
    responses(
        (status = 200, description = "It is not connected, or about to be disconnected", body = Disconnected),
        (status = 404, description = "A user can have no such device"),
    ),
)]
pub(super) async fn disconnect(
    State(api): Shared,
    At(path): At<DevicePath>,
    Asked(how): Asked<HowToDisconnect>,
) -> Result<Json<Disconnected>, Problem> {
    let (user, client) = path.device()?;
    let ends_session = how.session == SessionFate::End;
    let (changed, note) = match api.of.router.kick(&user, &client, ends_session) {
        Kicked::Unknown => (false, "there is no such device"),
        Kicked::WasAway => (false, "it was not connected; its session goes on"),
        Kicked::Disconnected => (
            true,
            "it comes back at once, unless the user's token is changed: PUT users/{id}/token",
        ),
        Kicked::SessionEnded => (
            true,
            "its session has ended; it comes back with a new one, unless the user's token is changed: PUT users/{id}/token",
        ),
    };
    Ok(Json(Disconnected { changed, note }))
}
