//! What the `http` address answers: `/mqtt`, the chat page, `/healthz` and `/readyz` (`docs/operations.md`).
//!
//! The HTTP side of a connection holds no state of MQTT's: an upgrade takes the connection's permit along
//! and becomes a connection like any other, on a thread for connections. Any other request is served
//! from memory, on the main thread, which hangs with no disk; then the connection ends. A client has to send its CONNECT within the usual time, counted from when
//! the connection was accepted, whatever it requests (`serve::tests::a_web_socket_has_no_more_time_than_others`).

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jam_core::time::Time;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::chat_page;
use crate::connection::{self, Shared};
use crate::health::Health;
use crate::heard::Heard;
use crate::logging::LogPace;
use crate::metrics::{RefusedConnection, ServerMetrics, Traffic};
use crate::permits::{ConnectionPermit, End};
use crate::static_files;
use crate::threads::Threads;
use crate::websocket::{self, WebSocketStream};

/// How many bytes the head of a request may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Bytes of a refused origin that are logged.
const MAX_SHOWN_ORIGIN: usize = 200;

/// How long a request may still take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that the requests need.
#[derive(Clone)]
pub(crate) struct Http {
    router: axum::Router,
}

/// What the routes share.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Arc<Threads>,
    pub(crate) health: Arc<Health>,
    /// Of the pages that may open a WebSocket; none is any.
    pub(crate) origins: Arc<[String]>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) refusals: Arc<LogPace>,
}

/// What HTTP is spoken over.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The socket below.
    fn socket(&mut self) -> &mut TcpStream;
}

impl Carrier for Heard<TcpStream> {
    fn socket(&mut self) -> &mut TcpStream {
        self.get_mut()
    }
}

impl Carrier for TlsStream<Heard<TcpStream>> {
    fn socket(&mut self) -> &mut TcpStream {
        self.get_mut().0.get_mut()
    }
}

/// The connection that a request came in on.
#[derive(Clone)]
struct Incoming {
    address: IpAddr,
    accepted: Time,
    /// What becomes of it after an upgrade.
    go_on: fn(Upgraded, HttpState, ConnectionPermit, IpAddr, Time),
    /// The connection's permit, until an upgrade takes it.
    permit: Arc<Mutex<Option<ConnectionPermit>>>,
}

impl Http {
    /// `with_page`: whether there is a chat page.
    pub(crate) fn new(served: HttpState, metrics: Arc<ServerMetrics>, with_page: bool) -> Self {
        let router = axum::Router::new()
            .route("/mqtt", get(mqtt))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .merge(chat_page::routes(with_page))
            .fallback(async || StatusCode::NOT_FOUND)
            .layer(map_response(answer_once))
            .layer(from_fn_with_state(metrics, count))
            .with_state(served);
        Self { router }
    }

    /// Serves one connection until it ends or is upgraded, which it must be by `deadline`. `accepted` is when the socket
    /// was accepted: the time for CONNECT counts from then.
    pub(crate) async fn serve<S>(
        self,
        permit: ConnectionPermit,
        address: IpAddr,
        accepted: Time,
        deadline: Instant,
        stream: S,
    ) where
        S: Carrier,
    {
        let ended = permit.ended();
        let incoming = Incoming {
            address,
            accepted,
            go_on: go_on::<S>,
            permit: Arc::new(Mutex::new(Some(permit))),
        };
        let service = TowerToHyperService::new(self.router.layer(Extension(incoming)));
        let connection = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            end = tokio::time::timeout_at(deadline, ended) => match end {
                Ok(End::Displaced) | Err(_) => Ok(()),
                Ok(End::Stopping) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(STOP_TIMEOUT, connection).await.unwrap_or(Ok(()))
                }
            },
        };
        if let Err(error) = served {
            tracing::debug!(%error, "HTTP connection broken");
        }
    }
}

/// Counts a request, of either address.
pub(crate) async fn count(
    State(metrics): State<Arc<ServerMetrics>>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    metrics.requested(uri.path(), method.as_str(), response.status().as_u16());
    response
}

/// A connection that is not upgraded ends with its answer: what is upgraded later could be only when its CONNECT should
/// have been there.
async fn answer_once(response: Response) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let mut response = static_files::harden(response).await;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// As far as it fits a log line.
fn shown_origin(headers: &HeaderMap) -> String {
    let origin = headers
        .get(header::ORIGIN)
        .map_or(&[][..], HeaderValue::as_bytes);
    origin[..origin.len().min(MAX_SHOWN_ORIGIN)]
        .escape_ascii()
        .to_string()
}

/// Whether the page that asks may open a WebSocket. What asks without an origin is no page: a browser always sends one.
fn is_allowed(origins: &[String], headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(header::ORIGIN).into_iter();
    origins.is_empty()
        || asked.all(|origin| origins.iter().any(|allowed| origin == allowed.as_str()))
}

async fn mqtt(
    State(served): State<HttpState>,
    Extension(incoming): Extension<Incoming>,
    mut request: Request<Body>,
) -> Response {
    if !is_allowed(&served.origins, request.headers()) {
        served.traffic.refused(RefusedConnection::Origin);
        if served.refusals.is_due() {
            let origin = shown_origin(request.headers());
            tracing::warn!(address = %incoming.address, %origin, "refused: listen.origins does not name this origin");
        }
        let why = "this origin may not open the WebSocket: it is not in listen.origins\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let (response, upgrade) = match websocket::accept(&mut request) {
        Ok(accepted) => accepted,
        Err(refused) => return *refused,
    };
    let permit = incoming
        .permit
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(permit) = permit else {
        return StatusCode::BAD_REQUEST.into_response(); // one connection, two upgrades
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let Incoming {
                    address, accepted, ..
                } = incoming;
                (incoming.go_on)(upgraded, served, permit, address, accepted);
            }
            Err(error) => tracing::debug!(%error, "HTTP connection broken"),
        }
    });
    response
}

/// Hands an upgraded connection over to a thread for connections.
fn go_on<S: Carrier>(
    upgraded: Upgraded,
    served: HttpState,
    permit: ConnectionPermit,
    address: IpAddr,
    accepted: Time,
) {
    let parts = upgraded.downcast::<TokioIo<S>>();
    let parts = parts.expect("it is what was served");
    let mut io = parts.io.into_inner();
    match served.threads.take_over(io.socket()) {
        Ok(thread) => {
            let stream = WebSocketStream::after(parts.read_buf, io);
            thread.spawn(connection::serve(
                served.shared,
                permit,
                address,
                accepted,
                stream,
            ));
        }
        Err(error) => tracing::debug!(%error, "connection broken"),
    }
}

async fn readyz(State(served): State<HttpState>) -> (StatusCode, String) {
    let troubles = served.health.troubles();
    if troubles.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n")
}
