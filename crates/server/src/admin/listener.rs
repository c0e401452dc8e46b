//! From the `admin` socket to requests: so many connections at once, and so much time for the head of a request.
//!
//! A connection may be kept and used again. What an event stream needs is up to its route: a connection has no other end
//! than its client's, the server's, or silence where a request should be.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
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

/// Serves until it is told to stop.
pub(crate) async fn serve(
    socket: TcpListener,
    router: axum::Router,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            (place, socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            Some(_) = tasks.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => {
                set_options(&stream);
                stream
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept on the admin address");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        let connection = graceful.watch(connection);
        tasks.spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection broken");
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
