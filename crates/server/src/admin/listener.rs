//! From the `admin` socket to requests: so many connections at once, and so much time for the head of a request.
//!
//! When all places are taken, the oldest connection that has shown no token so far makes way: silence shuts
//! nobody out (`tests::silent_connections_make_way`).
//!
//! A connection may be kept and used again. What an event stream needs is up to its route: a connection has no other end
//! than its client's, the server's, or silence where a request should be.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::admin_bounds::{MAX_CONNECTIONS, MAX_HEAD_BYTES, SEND_BUFFER_BYTES};

/// Between the beginning of a connection, or the end of a request, and the end of the next one's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request may still take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// A pause after an error of accept.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What a client does not take for so long ends its connection: it holds one of the places.
const TAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a connection has: the requests of it carry it.
#[derive(Debug)]
pub(super) struct AdminPlace {
    address: IpAddr,
    is_kept: AtomicBool,
    given_up: Notify,
}

impl AdminPlace {
    fn new(address: IpAddr) -> Self {
        Self {
            address: address.to_canonical(),
            is_kept: AtomicBool::new(false),
            given_up: Notify::new(),
        }
    }

    /// Whose it is.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// It has shown a token: it makes way for nobody.
    pub(super) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

/// Connections that may have to make way, the oldest first: at most [`MAX_CONNECTIONS`] and those that have just ended.
#[derive(Default)]
struct Displaceable(VecDeque<Weak<AdminPlace>>);

impl Displaceable {
    fn add(&mut self, place: &Arc<AdminPlace>) {
        if self.0.len() >= 2 * MAX_CONNECTIONS {
            self.0.retain(|place| place.strong_count() > 0);
        }
        self.0.push_back(Arc::downgrade(place));
    }

    /// Ends the oldest that has shown no token, if there is one.
    fn displace(&mut self) {
        while let Some(oldest) = self.0.pop_front() {
            if let Some(place) = oldest.upgrade()
                && !place.is_kept.load(Ordering::Relaxed)
            {
                place.given_up.notify_one();
                return;
            }
        }
    }
}

/// Serves until it is told to stop.
pub(crate) async fn serve(
    socket: TcpListener,
    router: axum::Router,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let mut displaceable = Displaceable::default();
    loop {
        while tasks.try_join_next().is_some() {}
        let next = async {
            let accepted = socket.accept().await;
            if places.available_permits() == 0 {
                displaceable.displace();
            }
            let permit = places.clone().acquire_owned().await.expect("never closed");
            (permit, accepted)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept on the admin address");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        set_options(&stream);
        let place = Arc::new(AdminPlace::new(peer.ip()));
        displaceable.add(&place);
        let (service, of_requests) = (TowerToHyperService::new(router.clone()), place.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(of_requests.clone());
            service.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "admin connection broken");
                },
                () = place.given_up.notified() => {
                    tracing::debug!("an admin connection without a token made way for another");
                }
            }
        });
    }
    // What is left ends with `tasks`, and with it what it has in hand of the server.
    let _ = tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await;
}

/// Without them, a reader of the event stream that never reads, or is gone without a word, would stay for ever; and an event
/// would wait for the acknowledgement of the one before.
fn set_options(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(TAKE_TIMEOUT));
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
}
