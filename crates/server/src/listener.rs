//! From a listening socket to a task for each connection.
//!
//! The main thread accepts, so that a thread that hangs keeps no newcomer waiting. It also serves what comes by HTTP; all
//! else goes to the threads for connections.
//!
//! Nothing is awaited here on behalf of a connection: a PROXY header and the TLS handshake are its task's,
//! within the time that CONNECT has. When all permits are taken, one accepted connection waits here for the next free one
//! and the others in the kernel's backlog. Invariants: an accept error never ends a listener and never
//! makes it spin; a task exists only with a permit.

use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jam_core::time::Time;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::connection::{self, Shared, Transport};
use crate::handshakes::{Handshake, Handshakes};
use crate::heard::Heard;
use crate::http::{Carrier, Http};
use crate::logging::LogPace;
use crate::metrics::{RefusedConnection, Traffic};
use crate::permits::{ConnectionPermit, ConnectionPermits};
use crate::proxy_protocol::{self, HeaderError};
use crate::threads::Threads;
use crate::tls::Tls;
use crate::watchdog::Asked;

/// Connections that the kernel holds for us: a storm of reconnects after a restart must find room.
const BACKLOG: i32 = 4096;

/// How long a connection is silent in both directions before the kernel asks whether the peer is there.
const DEAD_PEER_PROBE: Duration = Duration::from_secs(15 * 60);

/// The first pause after an accept error that will not pass by itself; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// See [`FIRST_PAUSE`].
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// While accepting fails, that is logged at most once in this time.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Accepting works again when a connection was accepted and no error came for so long; more than [`LAST_PAUSE`].
const ACCEPT_CALM: Duration = Duration::from_secs(2);

/// Binds an address `HOST:PORT`; of those that a name has, the first that can be bound.
///
/// # Errors
/// If the name is unknown, or no address can be bound; of those errors the first.
pub(crate) async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut first_error = None;
    for address in tokio::net::lookup_host(address).await? {
        match bind_to(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| io::Error::other("the name has no address")))
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` serves IPv4 too, whatever the system's default
    }
    socket.set_reuse_address(true)?; // a restart does not wait for old connections to be forgotten
    socket.bind(&address.into())?;
    adopt(socket.into())
}

/// Has a socket listen that is bound, by the service manager perhaps.
///
/// # Errors
/// If the system does not let it.
pub(crate) fn adopt(socket: net::TcpListener) -> io::Result<TcpListener> {
    let options = SockRef::from(&socket);
    // Accepted sockets inherit this: a peer that vanished and had asked for no keep alive is noticed.
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(DEAD_PEER_PROBE))?;
    options.set_nonblocking(true)?;
    options.listen(BACKLOG)?;
    TcpListener::from_std(socket)
}

/// What a listening socket serves.
#[derive(Clone)]
pub(crate) enum Serves {
    /// MQTT.
    Mqtt,
    /// HTTP with MQTT over WebSocket, on the main thread until it is one.
    Http(Http),
}

/// A bound socket and what it needs to serve.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) permits: Arc<ConnectionPermits>,
    pub(crate) threads: Arc<Threads>,
    /// The networks from which PROXY headers are expected.
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) service: Service,
}

/// What is done with a connection, from its first byte on.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) serves: Serves,
    pub(crate) tls: Option<(Arc<Tls>, Arc<Handshakes>)>,
    pub(crate) shared: Arc<Shared>,
    /// For a PROXY header and the TLS handshake together.
    pub(crate) handshake_timeout: Duration,
    /// Where its connections are counted.
    pub(crate) traffic: Arc<Traffic>,
}

impl Listener {
    /// Accepts connections until `stop` is true or its sender is gone, then closes the socket. Answers what it is asked
    /// as long as it does.
    pub(crate) async fn run(self, asked: Asked, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.accept_all(asked) => {}
        }
    }

    async fn accept_all(&self, mut asked: Asked) {
        let mut pause = FIRST_PAUSE;
        let refusals = Arc::new(Refusals::default());
        let mut trouble = AcceptTrouble::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = trouble.over() => continue,
                Some(ping) = asked.recv() => {
                    let _ = ping.send(());
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    trouble.works = true;
                    let vacancy = self.vacancy(&mut asked).await;
                    self.admit(stream, vacancy, peer.ip().to_canonical(), &refusals);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if is_for_want_of_descriptors(&error) {
                        self.permits.make_room();
                    }
                    trouble.met(&error, Instant::now());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    /// A free permit, which may take as long as connections last.
    async fn vacancy(&self, asked: &mut Asked) -> SemaphorePermit<'_> {
        let mut vacancy = pin!(self.permits.vacancy());
        loop {
            tokio::select! {
                vacancy = &mut vacancy => return vacancy,
                Some(ping) = asked.recv() => drop(ping.send(())),
            }
        }
    }

    fn admit(
        &self,
        stream: TcpStream,
        vacancy: SemaphorePermit<'_>,
        peer: IpAddr,
        refusals: &Arc<Refusals>,
    ) {
        let is_proxy = self.proxies.iter().any(|network| network.contains(&peer));
        let permit = if is_proxy {
            Ok(self.permits.take_for_proxied(vacancy, peer.into()))
        } else {
            self.permits.take(vacancy, peer.into())
        };
        let Ok(permit) = permit else {
            self.service.traffic.refused(RefusedConnection::Address);
            refusals.too_many(peer);
            return;
        };
        permit.wake_flag().count_at(self.service.traffic.clone());
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection broken"); // reset while it waited in the backlog
            return;
        }
        let begun = match self.service.serves {
            Serves::Mqtt => self.threads.begin(stream),
            Serves::Http(_) => Ok((Handle::current(), stream)),
        };
        let (thread, stream) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(%error, "connection broken");
                return;
            }
        };
        let accepted = Accepted {
            thread,
            service: self.service.clone(),
            permit,
            address: peer,
            at: self.service.shared.clock.now(),
            deadline: Instant::now() + self.service.handshake_timeout,
        };
        if self.proxies.is_empty() {
            accepted.begin(stream);
        } else {
            let refusals = refusals.clone();
            let thread = accepted.thread.clone();
            thread.spawn(accepted.identify(stream, is_proxy, refusals));
        }
    }
}

/// A connection that has a permit.
struct Accepted {
    /// Where its socket is registered.
    thread: Handle,
    service: Service,
    permit: ConnectionPermit,
    address: IpAddr,
    at: Time,
    /// When a PROXY header, the TLS handshake and an HTTP request must have come.
    deadline: Instant,
}

impl Accepted {
    /// Finds out where the connection comes from, then begins.
    async fn identify(mut self, mut stream: TcpStream, is_proxy: bool, refusals: Arc<Refusals>) {
        let header = async {
            if is_proxy {
                proxy_protocol::read_header(&mut stream).await
            } else {
                proxy_protocol::expect_none(&stream).await.map(|()| None)
            }
        };
        let header = tokio::select! {
            header = tokio::time::timeout_at(self.deadline, header) => header,
            _ = self.permit.ended() => return,
        };
        match header {
            Ok(Ok(source)) => self.address = source.unwrap_or(self.address),
            Ok(Err(HeaderError::Io(error))) => {
                tracing::debug!(address = %self.address, %error, "connection broken");
                return;
            }
            Ok(Err(error)) => {
                self.service.traffic.refused(RefusedConnection::Malformed);
                refusals.bad_header(self.address, &error);
                return;
            }
            Err(_) => {
                self.service.traffic.refused(RefusedConnection::Timeout);
                return;
            }
        }
        if is_proxy && self.permit.attribute(self.address.into()).is_err() {
            self.service.traffic.refused(RefusedConnection::Address);
            refusals.too_many(self.address);
            return;
        }
        self.begin(stream);
    }

    fn begin(self, stream: TcpStream) {
        let stream = Heard::new(stream, self.permit.wake_flag().clone());
        match &self.service.tls {
            None => self.spawn(stream),
            Some((tls, handshakes)) => {
                stream.begin_handshake();
                let accept = Box::pin(tls.acceptor().accept(stream));
                let handshake = handshakes.run(self.address.into(), accept);
                self.thread.clone().spawn(self.shake_hands(handshake));
            }
        }
    }

    async fn shake_hands(self, handshake: Handshake<io::Result<TlsStream<Heard<TcpStream>>>>) {
        let address = self.address;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout_at(self.deadline, handshake) => shaken,
            _ = self.permit.ended() => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                stream.get_ref().0.end_handshake();
                self.spawn(stream);
            }
            Ok(Err(error)) => {
                self.service.traffic.refused(RefusedConnection::Tls);
                tracing::debug!(%address, %error, "no TLS handshake");
            }
            Err(_) => {
                self.service.traffic.refused(RefusedConnection::Timeout);
                tracing::debug!(%address, "the TLS handshake took too long");
            }
        }
    }

    /// The task that serves the connection. After a TLS handshake it is a new one, and the memory that
    /// the handshake took is given back.
    fn spawn<S>(self, stream: S)
    where
        S: Transport + Carrier,
    {
        let Self {
            thread,
            service,
            permit,
            address,
            at,
            deadline,
            ..
        } = self;
        match service.serves {
            Serves::Mqtt => {
                thread.spawn(connection::serve(
                    service.shared,
                    permit,
                    address,
                    at,
                    stream,
                ));
            }
            Serves::Http(http) => {
                thread.spawn(http.serve(permit, address, at, deadline, stream));
            }
        }
    }
}

/// Whether an accept error says something of that one connection only: the next may come at once.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Says of connections that are closed at once, now and then.
#[derive(Debug, Default)]
struct Refusals {
    too_many: LogPace,
    bad_header: LogPace,
}

impl Refusals {
    fn too_many(&self, address: IpAddr) {
        if self.too_many.is_due() {
            tracing::warn!(%address, "refused: limits.connections_per_address reached");
        }
    }

    fn bad_header(&self, address: IpAddr, error: &HeaderError) {
        if self.bad_header.is_due() {
            tracing::warn!(%address, "refused: {error}");
        }
    }
}

/// What is said of accept errors: that they begin, once in [`ACCEPT_LOG_INTERVAL`] that they go on, and that they
/// are over. One connection that is accepted between two errors is not the end of them.
#[derive(Debug, Default)]
struct AcceptTrouble {
    /// When it was last said that there are errors; `None`: there are none.
    said: Option<Instant>,
    last: Option<Instant>,
    /// Errors that have not been said.
    errors: u64,
    /// Whether a connection has been accepted since the last.
    works: bool,
}

impl AcceptTrouble {
    fn met(&mut self, error: &io::Error, now: Instant) {
        self.errors += 1;
        self.last = Some(now);
        self.works = false;
        if self
            .said
            .is_none_or(|said| now - said >= ACCEPT_LOG_INTERVAL)
        {
            let errors = std::mem::take(&mut self.errors);
            tracing::error!(%error, errors, "cannot accept connections");
            self.said = Some(now);
        }
    }

    /// Ready when accepting works again, which has been said then.
    async fn over(&mut self) {
        match self.last {
            Some(last) if self.works => tokio::time::sleep_until(last + ACCEPT_CALM).await,
            _ => std::future::pending().await,
        }
        tracing::info!("connections are accepted again");
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_both_families_are_bound() {
        for address in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
            let listener = bind(address).await.unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback());
        }
        assert!(bind("no-such-host.invalid:0").await.is_err());
    }

    #[tokio::test]
    async fn accept_errors_are_told_once_a_minute() {
        let mut trouble = AcceptTrouble::default();
        let error = io::Error::from_raw_os_error(24);
        let Some(began) = Instant::now().checked_sub(Duration::from_secs(100)) else {
            return; // the machine has just started
        };
        for n in 0..90 {
            trouble.met(&error, began + Duration::from_secs(n));
        }
        // Told at 0 and 60 s.
        assert_eq!(trouble.errors, 29);
        let over = tokio::time::timeout(Duration::from_millis(50), trouble.over()).await;
        assert!(over.is_err(), "nothing has been accepted yet");
        trouble.works = true;
        trouble.over().await;
        assert!(trouble.said.is_none() && trouble.errors == 0);
    }

    #[tokio::test]
    async fn the_wildcard_of_ipv6_serves_ipv4_too() {
        let listener = bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), IpAddr::from([127, 0, 0, 1]));
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
