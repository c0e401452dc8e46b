use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use jam_core::UserLimits;
use jam_core::push::{PushAudience, PushRules};
use jam_core::router::Rules;
use jam_core::store::Recovered;
use jam_testkit::store::FaultyStore;
use jam_testkit::{FakeDirectory, packets};
use jam_wire::packet::{Packet, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::silence::STALLED_OUTPUT;
use super::*;
#[cfg(target_os = "linux")]
use crate::deferred_acks::tests::{PUBACK, pair};
use crate::permits::ConnectionPermits;

impl LowWater for tokio::io::DuplexStream {}

impl Transport for tokio::io::DuplexStream {}

pub(super) fn shared() -> Arc<Shared> {
    shared_with(Arc::default(), PushAudience::Off)
}

pub(crate) fn shared_with(directory: Arc<FakeDirectory>, audience: PushAudience) -> Arc<Shared> {
    let user = UserLimits {
        many_devices: false,
        max_messages: 10,
        max_bytes: 1_000,
        max_age: Duration::from_secs(60),
        push: PushRules {
            audience,
            deadline: Duration::from_secs(10),
            collapse: Duration::from_secs(30),
        },
    };
    let rules = Rules {
        user,
        session_expiry: Duration::from_secs(60),
        packet: 1024 * 1024,
        inflight: 8,
        longest_rival_wait: Duration::ZERO,
        publish_rate: None,
        connect_timeout: Duration::from_secs(10),
        failed_auth: 10,
        failed_auth_window: Duration::from_secs(600),
    };
    let router = Router::new(rules, directory.clone(), Arc::new(FaultyStore::default()));
    let clock = Clock::start(router.adjustments().clone(), None).0;
    router.restore(Recovered::default(), clock.now());
    Arc::new(Shared {
        clock: Arc::new(clock),
        router,
        directory,
        deferred_acks: Arc::new(DeferredAcks::new(true)),
        turns: Turns::default(),
        client_log: Arc::new(ClientLog::new(Duration::from_secs(600))),
        events: Arc::new(Events::off()),
    })
}

/// With the listener whose backlog its other end is in.
pub(super) async fn tcp_stream(
    permit: &ConnectionPermit,
) -> (Heard<TcpStream>, tokio::net::TcpListener) {
    let socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let stream = TcpStream::connect(socket.local_addr().unwrap())
        .await
        .unwrap();
    (Heard::new(stream, permit.wake_flag().clone()), socket)
}

pub(crate) async fn permit() -> (ConnectionPermit, IpAddr) {
    let permits = ConnectionPermits::new(1, 1);
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    (
        permits
            .take(permits.vacancy().await, address.into())
            .unwrap(),
        address,
    )
}

#[tokio::test]
async fn an_idle_connection_is_small() {
    let shared = shared();
    let (permit, address) = permit().await;
    let (stream, _listener) = tcp_stream(&permit).await;
    let task = serve(shared.clone(), permit, address, shared.clock.now(), stream);
    let size = size_of_val(&task);
    println!("task of a TCP connection: {size} bytes");
    println!(
        "  of which: driver {}, connection {}, decoder {}, sleep {}",
        size_of::<Driver<Heard<TcpStream>>>(),
        size_of::<Connection>(),
        size_of::<Decoder>(),
        size_of::<Sleep>()
    );
    // With what tokio adds, 136 bytes, this fills four of the 128 bytes that its tasks are made of.
    assert!(size <= 376, "{size} bytes");
}

/// It would go round and round if the timer that was never set were asked.
#[tokio::test]
async fn a_deadline_that_never_comes_is_waited_for() {
    let shared = shared();
    let (permit, address) = permit().await;
    let (stream, _peer) = tokio::io::duplex(64);
    let mut task = pin!(serve(shared, permit, address, Time::NEVER, stream));
    let is_pending = poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx).is_pending())).await;
    assert!(is_pending);
}

/// What a step decides when nothing comes: the timer is not to fire again for what has been decided.
#[tokio::test]
async fn output_that_goes_nowhere_ends_the_connection_after_its_time_and_no_sooner() {
    let shared = shared();
    let (permit, address) = permit().await;
    let (stream, _peer) = tokio::io::duplex(64);
    let now = Time::from_millis(1_000_000_000);
    let mut driver = Driver::new(shared, permit, address, Time::NEVER, stream);
    driver.rare().stalled_since = Some(now - STALLED_OUTPUT + Duration::from_millis(1));
    assert_eq!(driver.wait(now), Turn::Wait);
    assert_eq!(driver.deadline(), Some(now + Duration::from_millis(1)));
    assert!(!driver.is_ending());
    let now = now + Duration::from_millis(1);
    assert_eq!(driver.wait(now), Turn::Again);
    assert!(driver.is_ending());
    assert!(driver.deadline().is_some_and(|due| due > now));
}

/// The runtime is busy, say, and has not looked at the socket since the bytes came.
#[tokio::test]
async fn what_has_arrived_at_the_last_moment_is_no_silence() {
    let shared = shared();
    let (permit, address) = permit().await;
    let (stream, listener) = tcp_stream(&permit).await;
    let (peer, _) = listener.accept().await.unwrap();
    let accepted = shared.clock.now();
    let mut driver = Driver::new(shared, permit, address, accepted, stream);
    let late = accepted + Duration::from_secs(10);
    let step = |driver: &mut Driver<_>| {
        let mut cx = Context::from_waker(Waker::noop());
        driver.poll_open(&mut cx, late, Instant::now())
    };
    assert_eq!(step(&mut driver), Turn::Again);
    assert!(driver.is_ending(), "nothing has come");
    driver.rare = None;

    assert_eq!(peer.try_write(&[0x10]).unwrap(), 1);
    step(&mut driver);
    assert!(!driver.is_ending());
    assert_eq!(driver.input.bytes(), [0x10]);
}

/// Whatever wakes it: its own read may have to wait for who has just sent to it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_wakes_reaps_what_others_have_deferred() {
    let shared = shared();
    let (permit, address) = permit().await;
    let (stream, _peer) = tokio::io::duplex(64);
    let mut task = pin!(serve(
        shared.clone(),
        permit,
        address,
        shared.clock.now(),
        stream
    ));

    // A machine that holds this up for 16 ms has another pace.
    for _ in 0..100 {
        let (client, other) = pair().await;
        let now = shared.clock.now();
        for at in [now - Duration::from_millis(16), now] {
            for _ in 0..32 {
                shared.deferred_acks.count_message(at);
            }
        }
        let long_ago = Instant::now() - Duration::from_millis(1);
        let is_deferred = shared.deferred_acks.defer(&other, long_ago, now);
        client.try_write(&PUBACK).unwrap();
        let is_pending = poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx).is_pending())).await;
        assert!(is_pending);
        let readable = tokio::time::timeout(Duration::from_millis(20), other.readable()).await;
        if is_deferred && readable.is_ok() {
            return;
        }
    }
    panic!("it was never read");
}

/// A client that logs in and then sends PINGREQs without end, and takes every answer.
struct Flood {
    connect: Vec<u8>,
    /// What it is written: once in a turn, or a few times.
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connect = std::mem::take(&mut self.connect);
        buf.put_slice(&connect);
        if connect.is_empty() {
            let pings = [0xC0, 0].repeat(buf.remaining() / 2);
            buf.put_slice(&pings);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl LowWater for Flood {}

impl Transport for Flood {}

fn login(user: &str) -> Vec<u8> {
    let connect = packets::connect(&format!("{user}:phone"), Version::V4);
    let mut bytes = BytesMut::new();
    jam_wire::encode(&Packet::Connect(Box::new(connect)), Version::V4, &mut bytes).unwrap();
    bytes.to_vec()
}

/// However many floods there are, somebody else waits for a few of their turns.
#[tokio::test]
async fn many_floods_let_others_in() {
    const FLOODS: usize = 500;
    let directory = Arc::new(FakeDirectory::default());
    for user in 0..=FLOODS {
        let user = (1000 + user).to_string();
        directory.set_account(&user, Some(&packets::token(&user)));
    }
    let shared = shared_with(directory, PushAudience::Off);
    let permits = ConnectionPermits::new(1000, 1000);
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    let permit = async || {
        permits
            .take(permits.vacancy().await, address.into())
            .unwrap()
    };
    let now = shared.clock.now();
    let mut tasks = JoinSet::new();
    let (stream, mut client) = tokio::io::duplex(1024);
    tasks.spawn(serve(shared.clone(), permit().await, address, now, stream));
    client.write_all(&login("1000")).await.unwrap();
    let mut conn_ack = [0; 4];
    client.read_exact(&mut conn_ack).await.unwrap();
    assert_eq!(conn_ack, [0x20, 2, 0, 0]);

    let writes = Arc::new(AtomicUsize::new(0));
    for user in 1..=FLOODS {
        let stream = Flood {
            connect: login(&(1000 + user).to_string()),
            writes: writes.clone(),
        };
        tasks.spawn(serve(shared.clone(), permit().await, address, now, stream));
    }
    while writes.load(Ordering::Relaxed) < 3 * FLOODS {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let before = writes.load(Ordering::Relaxed);
        client.write_all(&[0xC0, 0]).await.unwrap();
        client.read_exact(&mut [0; 2]).await.unwrap();
        let waited = writes.load(Ordering::Relaxed) - before;
        assert!(waited < FLOODS / 2, "{waited} turns of floods");
    }
}
