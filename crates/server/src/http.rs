//! What the `http` address answers: `/mqtt`, `/healthz` and `/readyz` (`docs/operations.md`).
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
use axum::http::{HeaderValue, Request, StatusCode, header};
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

use crate::connection::{self, Shared};
use crate::health::Health;
use crate::heard::Heard;
use crate::metrics::ServerMetrics;
use crate::permits::{ConnectionPermit, End};
use crate::threads::Threads;
use crate::websocket::{self, WebSocketStream};

/// How many bytes the head of a request may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How long a request may still take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that the requests need.
#[derive(Clone)]
pub(crate) struct Http {
    router: axum::Router,
}

/// What the routes share.
#[derive(Clone)]
struct Served {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    health: Arc<Health>,
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
struct Origin {
    address: IpAddr,
    accepted: Time,
    /// What becomes of it after an upgrade.
    go_on: fn(Upgraded, Served, ConnectionPermit, IpAddr, Time),
    /// The connection's permit, until an upgrade takes it.
    permit: Arc<Mutex<Option<ConnectionPermit>>>,
}

impl Http {
    pub(crate) fn new(
        shared: Arc<Shared>,
        threads: Arc<Threads>,
        health: Arc<Health>,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        let router = axum::Router::new()
            .route("/mqtt", get(mqtt))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .fallback(async || StatusCode::NOT_FOUND)
            .layer(map_response(answer_once))
            .layer(from_fn_with_state(metrics, count))
            .with_state(Served {
                shared,
                threads,
                health,
            });
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
        let origin = Origin {
            address,
            accepted,
            go_on: go_on::<S>,
            permit: Arc::new(Mutex::new(Some(permit))),
        };
        let service = TowerToHyperService::new(self.router.layer(Extension(origin)));
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
async fn answer_once(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn mqtt(
    State(served): State<Served>,
    Extension(origin): Extension<Origin>,
    mut request: Request<Body>,
) -> Response {
    let (response, upgrade) = match websocket::accept(&mut request) {
        Ok(accepted) => accepted,
        Err(refused) => return *refused,
    };
    let permit = origin
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
                let Origin {
                    address, accepted, ..
                } = origin;
                (origin.go_on)(upgraded, served, permit, address, accepted);
            }
            Err(error) => tracing::debug!(%error, "HTTP connection broken"),
        }
    });
    response
}

/// Hands an upgraded connection over to a thread for connections.
fn go_on<S: Carrier>(
    upgraded: Upgraded,
    served: Served,
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

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let troubles = served.health.troubles();
    if troubles.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n")
}
