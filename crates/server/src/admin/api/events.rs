//! What has happened: `users/{id}/events`, `pushes`, and `events`, the stream of all of it.
//!
//! Invariant: a reader of the stream that does not read holds one of the places, its socket's buffer and one event; it is
//! never waited for (`tests::who_never_reads_costs_the_others_nothing`).

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jam_core::ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::extract::{Asked, At, Nothing, UserPath, wrong};
use super::page::{Order, Page, PageLimit, no_page};
use crate::admin::problem::Problem;
use crate::events::{Entry, Filter, Kind, READERS, Told};

/// A comment in the stream when nothing has happened for so long, so that proxies keep the connection.
const COMMENT_PERIOD: Duration = Duration::from_secs(15);

/// The header with which a reader of the stream comes back.
const LAST_EVENT_ID: &str = "last-event-id";

/// Something that has happened to a client or a push. There is never a topic, a payload or a token in it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Event {
    /// Its id in the stream.
    id: String,
    /// When, in UTC.
    #[schema(example = "2026-11-29T12:00:00.007Z")]
    time: String,
    /// `connect`, `refused`, `held_back`, `logout`, `kick`, `disconnect`, `lockout`, `push` or `dropped`.
    #[schema(example = "refused")]
    r#type: &'static str,
    /// Whose client it is, or who was to be told by the push. Of a client that was not let in: who it said that it is.
    #[schema(example = "2")]
    user: Option<String>,
    /// The client id.
    #[schema(example = "2:phone")]
    client: Option<String>,
    /// Where the client is.
    address: Option<String>,
    /// What was refused: `connect`, `publish` or `subscribe`.
    packet: Option<&'static str>,
    /// Why it was refused, or why the connection has ended, or what came of the push.
    #[schema(example = "not_friends")]
    reason: Option<&'static str>,
    /// What the push service says, in its error codes.
    detail: Option<String>,
    /// Who wrote the message that the push is about.
    sender: Option<String>,
    /// How many times.
    count: u64,
    /// Whether this sums up what came too fast to be shown one by one.
    sum: bool,
}

impl Event {
    fn of(entry: &Entry) -> Self {
        let event = &entry.event;
        let user = |user: &Option<UserId>| user.as_ref().map(UserId::to_string);
        Self {
            id: entry.id(),
            time: event.time.to_string(),
            r#type: event.kind.name(),
            user: user(&event.user),
            client: event.client.as_ref().map(ToString::to_string),
            address: event.address.map(|it| it.to_canonical().to_string()),
            packet: event.packet,
            reason: event.reason,
            detail: event.detail.as_deref().map(str::to_owned),
            sender: user(&event.sender),
            count: event.count,
            sum: event.is_sum,
        }
    }
}

/// Events of a user
///
/// The last 64 since the server's start, the newest first: connections and how they ended, refusals with the row of the
/// protocol that refused, logouts, and what came of pushes. They are in memory only; of the users to whom nothing has
/// happened for longest they are forgotten first.
#[utoipa::path(
    get,
    path = "/users/{id}/events",
    tag = "events",
    params(UserPath),
    responses(
        (status = 200, description = "The last events of the user", body = Page<Event>),
        (status = 404, description = "There is no such user", body = Problem),
    ),
)]
pub(super) async fn of_user(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Page<Event>>, Problem> {
    let user = path.user()?;
    let entries = api.of.events.of_user(&user);
    if entries.is_empty() {
        api.require_account(&user).await?;
    }
    let items = entries.iter().map(|entry| Event::of(entry)).collect();
    Ok(Json(Page { items, next: None }))
}

/// What came of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The push service has it.
    Sent,
    /// The receiver's notification token is dead.
    TokenDead,
    /// The push service does not want it.
    Refused,
    /// It was not sent, and is tried again; shown the first time.
    Retry,
    /// It had waited for more than a day.
    Expired,
    /// There is nobody any more who is to be told.
    Withdrawn,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::TokenDead => "token_dead",
            Self::Refused => "refused",
            Self::Retry => "retry",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Which pushes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichPushes {
    /// Only those of which this came.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Pushes of a page.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 1000, default = 100)]
    limit: PageLimit,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Pushes
///
/// The last 1,000 since the server's start, the newest first. Of a push that is tried again, the first time and the end are
/// shown.
#[utoipa::path(
    get,
    path = "/pushes",
    tag = "events",
    params(WhichPushes),
    responses((status = 200, description = "Some of the pushes", body = Page<Event>)),
)]
pub(super) async fn pushes(
    State(api): Shared,
    Asked(asked): Asked<WhichPushes>,
) -> Result<Json<Page<Event>>, Problem> {
    let order = Order::Memory(api.epoch);
    let before: Option<u64> = match asked.after {
        Some(after) => {
            let number = order.key(&after)?.parse();
            Some(number.map_err(|_| no_page())?)
        }
        None => None,
    };
    let pushes = api.of.events.pushes();
    let mut rest = pushes.iter().filter(|entry| {
        let is_meant = |outcome: Outcome| entry.event.reason == Some(outcome.name());
        before.is_none_or(|before| entry.number < before) && asked.outcome.is_none_or(is_meant)
    });
    let limit = usize::from(asked.limit.count());
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let last = page.last().filter(|_| rest.next().is_some());
    let next = last.map(|entry| order.cursor(&entry.number.to_string()));
    let items = page.into_iter().map(|entry| Event::of(entry)).collect();
    Ok(Json(Page { items, next }))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichEvents {
    /// Only those of these types, with commas between them.
    #[param(
        example = "refused,lockout",
        pattern = "^(connect|refused|held_back|logout|kick|disconnect|lockout|push|dropped)(,(connect|refused|held_back|logout|kick|disconnect|lockout|push|dropped))*$"
    )]
    types: Option<String>,
    /// Only those of this user.
    #[param(min_length = 1, max_length = 64, pattern = "^[^/+#$:\\u0000]+$")]
    user: Option<String>,
}

impl WhichEvents {
    fn filter(&self) -> Result<Filter, Problem> {
        let kinds = self.types.as_deref().map_or(Ok(Vec::new()), |types| {
            let kind = |name| {
                Kind::parse(name).ok_or_else(|| {
                    let known = Kind::ALL.map(Kind::name).join(", ");
                    wrong(format!("types are, with commas between them: {known}"))
                })
            };
            types.split(',').map(kind).collect()
        })?;
        let user = self.user.as_deref().map(UserId::parse).transpose();
        let user = user.map_err(|why| wrong(format!("user: {why}")))?;
        Ok(Filter { kinds, user })
    }
}

/// The stream of events
///
/// Server-sent events, from now on. Each has an `id`, its type as `event`, and as `data` what `users/{id}/events` shows. After
/// an interruption send the last `id` as `Last-Event-ID`: the last 4,096 events are still there. `Last-Event-ID: 0` begins
/// with the oldest of them. A reader that is slower than that gets an event `dropped` whose `count` is how many it has
/// missed, of whatever type. When nothing happens there is a comment every 15 seconds. 16 readers at most.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(
        WhichEvents,
        ("Last-Event-ID" = String, Header, description = "The `id` of the last event that was seen; 0: none was",
            pattern = "^(0|[0-9a-f]{1,16}\\.[0-9]{1,19})$"),
    ),
    responses(
        (status = 200, description = "Server-sent events, without end", body = String, content_type = "text/event-stream"),
        (status = 503, description = "There are 16 readers already", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stream(
    State(api): Shared,
    Asked(asked): Asked<WhichEvents>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = asked.filter()?;
    let events = &api.of.events;
    let after = match headers.get(LAST_EVENT_ID) {
        Some(id) => {
            let number = id.to_str().ok().and_then(|id| events.number_of(id));
            Some(number.ok_or_else(|| wrong("Last-Event-ID is no id of an event, nor 0"))?)
        }
        None => None,
    };
    let Some(reader) = events.follow(after, filter) else {
        let detail = format!("{READERS} readers follow the events already");
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return Ok(([(header::RETRY_AFTER, "15")], problem).into_response());
    };
    let stream = stream::unfold(reader, |mut reader| async {
        let told = reader.next().await?;
        Some((Ok::<_, Infallible>(in_stream(&told)), reader))
    });
    let keep_alive = KeepAlive::new().interval(COMMENT_PERIOD);
    // A proxy that collects answers would hold the events back.
    let unbuffered = [("x-accel-buffering", "no")];
    Ok((unbuffered, Sse::new(stream).keep_alive(keep_alive)).into_response())
}

fn in_stream(told: &Told) -> sse::Event {
    #[derive(Serialize)]
    struct Missed {
        count: u64,
    }
    let (event, data) = match told {
        Told::Event(entry) => (
            sse::Event::default().id(entry.id()),
            serde_json::to_string(&Event::of(entry)),
        ),
        Told::Dropped(count) => (
            sse::Event::default(),
            serde_json::to_string(&Missed { count: *count }),
        ),
    };
    let name = match told {
        Told::Event(entry) => entry.event.kind.name(),
        Told::Dropped(_) => Kind::Dropped.name(),
    };
    event.event(name).data(data.expect("plain fields"))
}
