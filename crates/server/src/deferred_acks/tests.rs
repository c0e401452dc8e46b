#![cfg(target_os = "linux")]

use super::*;

use std::io;
use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

impl LowWater for TcpStream {
    fn low_water_mark(&self) -> Option<(RawFd, i32)> {
        Some((self.as_raw_fd(), ANSWER_BYTES))
    }
}

/// A PUBACK (MQTT 3.1.1, section 3.4).
pub(crate) const PUBACK: [u8; 4] = [0x40, 2, 0, 1];

/// Long enough to be sure that nothing comes any more.
const NEVER: Duration = Duration::from_millis(50);

/// Long enough for what must come.
const SURELY: Duration = Duration::from_secs(10);

const NOW: Time = Time::from_millis(1_000_000);

/// The client's end and the server's.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (client, server) = (client.unwrap(), accepted.unwrap().0);
    client.set_nodelay(true).unwrap();
    // The runtime takes a new socket for readable until it has tried.
    let tried = server.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(tried.kind(), io::ErrorKind::WouldBlock);
    (client, server)
}

/// A connection that wakes for something of its own.
struct Other;

impl LowWater for Other {}

/// One that has counted so many messages in the period before [`NOW`].
fn after_messages(count: u64) -> DeferredAcks {
    let deferred_acks = DeferredAcks::new(true);
    for _ in 0..count {
        deferred_acks.pace.count(NOW - Duration::from_millis(16));
    }
    deferred_acks
}

fn deferred_count(deferred_acks: &DeferredAcks) -> usize {
    deferred_acks.lock().sockets.len()
}

/// Whether the socket wakes within that time; what woke it is read.
async fn wakes(stream: &TcpStream, within: Duration) -> bool {
    let mut bytes = [0; 64];
    timeout(within, async {
        loop {
            stream.readable().await.unwrap();
            match stream.try_read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.unwrap(),
            }
        }
    })
    .await
    .is_ok()
}

#[tokio::test]
async fn nothing_is_deferred_when_it_is_switched_off() {
    let deferred_acks = DeferredAcks {
        enabled: false,
        ..after_messages(32)
    };
    let (_client, server) = pair().await;
    assert!(!deferred_acks.defer(&server, Instant::now(), NOW));
    assert_eq!(deferred_count(&deferred_acks), 0);
}

#[tokio::test]
async fn an_answer_waits_for_the_next_wake_up() {
    let deferred_acks = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(deferred_acks.defer(&server, Instant::now(), NOW));
    client.write_all(&PUBACK).await.unwrap();
    assert!(!wakes(&server, NEVER).await);

    deferred_acks.reap(&Other, Instant::now(), NOW);
    assert!(wakes(&server, SURELY).await);
    client.write_all(&PUBACK).await.unwrap();
    assert!(wakes(&server, SURELY).await, "the next answer waits too");
}

/// The longest there is: in MQTT 5.0, with a reason and no properties.
#[tokio::test]
async fn an_answer_with_a_reason_waits_too() {
    let deferred_acks = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(deferred_acks.defer(&server, Instant::now(), NOW));
    client.write_all(&[0x40, 4, 0, 1, 0x10, 0]).await.unwrap();
    assert!(!wakes(&server, NEVER).await);
}

#[tokio::test]
async fn an_answer_that_comes_after_the_next_wake_up_wakes() {
    let deferred_acks = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(deferred_acks.defer(&server, Instant::now(), NOW));
    tokio::time::sleep(ARRIVAL).await;
    deferred_acks.reap(&Other, Instant::now(), NOW);
    client.write_all(&PUBACK).await.unwrap();
    assert!(wakes(&server, SURELY).await);
}

/// It is read anyway, and may be locked by a client that has just sent to it.
#[tokio::test]
async fn a_task_that_wakes_does_not_touch_its_own_socket() {
    let deferred_acks = after_messages(32);
    let (mut client, own) = pair().await;
    let (mut other_client, other) = pair().await;
    for socket in [&own, &other, &own] {
        deferred_acks.defer(socket, Instant::now(), NOW);
    }
    client.write_all(&PUBACK).await.unwrap();
    other_client.write_all(&PUBACK).await.unwrap();
    tokio::time::sleep(ARRIVAL).await;
    deferred_acks.reap(&own, Instant::now(), NOW);
    assert!(wakes(&other, SURELY).await);
    assert!(!wakes(&own, NEVER).await);
    deferred_acks.reap(&other, Instant::now(), NOW);
    assert!(wakes(&own, SURELY).await);
    assert_eq!(deferred_count(&deferred_acks), 0);
}

#[tokio::test]
async fn the_oldest_come_first_and_the_youngest_are_left() {
    let deferred_acks = after_messages(32);
    let (_client, first) = pair().await;
    let (_client, second) = pair().await;
    deferred_acks.defer(&first, Instant::now(), NOW);
    deferred_acks.defer(&second, Instant::now(), NOW);
    let deferred_at = deferred_acks.lock().sockets[0].1;
    let mut due = Due::new();
    let just_before = deferred_at - Duration::from_nanos(1);
    deferred_acks.lock().take_until(just_before, None, &mut due);
    assert!(due.is_empty());
    deferred_acks.lock().take_until(deferred_at, None, &mut due);
    assert_eq!(due.as_slice(), [first.as_raw_fd()]);
}

#[tokio::test]
async fn a_larger_packet_wakes_at_once() {
    // The shortest PUBLISH to a topic of two characters; two answers, together.
    let publish = vec![0x30, 5, 0, 2, b'/', b'1', b'x'];
    for sent in [publish, [PUBACK, PUBACK].concat()] {
        let deferred_acks = after_messages(32);
        let (mut client, server) = pair().await;
        assert!(deferred_acks.defer(&server, Instant::now(), NOW));
        client.write_all(&sent).await.unwrap();
        assert!(wakes(&server, SURELY).await);
    }
}

#[tokio::test]
async fn the_end_wakes_at_once() {
    let deferred_acks = after_messages(32);
    let (client, server) = pair().await;
    assert!(deferred_acks.defer(&server, Instant::now(), NOW));
    drop(client);
    assert!(wakes(&server, SURELY).await);
}

#[tokio::test]
async fn a_tick_reaps() {
    let deferred_acks = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(deferred_acks.defer(&server, Instant::now(), NOW));
    client.write_all(&PUBACK).await.unwrap();
    tokio::time::sleep(LONGEST).await;
    deferred_acks.handle_tick();
    assert!(wakes(&server, SURELY).await);
    assert_eq!(deferred_count(&deferred_acks), 0);
}

#[tokio::test]
async fn after_two_ticks_that_reaped_nothing_is_deferred() {
    const MILLI: Duration = Duration::from_millis(1);
    let (_client, server) = pair().await;
    let mut deferred = Deferred::default();
    let time_out = |deferred: &mut Deferred, at| {
        let mut due = Due::new();
        deferred
            .sockets
            .push_back((server.as_raw_fd(), at - LONGEST));
        deferred.time_out(at, &mut due);
        assert_eq!(due.len(), 1);
    };
    let first = Instant::now() + LONGEST;
    time_out(&mut deferred, first);
    assert!(deferred.takes_more(first), "once is nothing");
    let second = first + LONGEST;
    time_out(&mut deferred, second);
    assert!(!deferred.takes_more(first + REST - MILLI));
    assert!(deferred.takes_more(first + REST));
    let third = first + REST + MILLI;
    time_out(&mut deferred, third);
    assert!(!deferred.takes_more(second + REST - MILLI));
    assert!(deferred.takes_more(second + REST));
    let much_later = third + 2 * REST;
    time_out(&mut deferred, much_later);
    assert!(deferred.takes_more(much_later), "once is nothing again");

    let deferred_acks = after_messages(32);
    deferred_acks.lock().rests_until = Some(Instant::now() + 3600 * REST);
    assert!(!deferred_acks.defer(&server, Instant::now(), NOW));
}

#[tokio::test]
async fn a_tick_that_finds_nothing_changes_nothing() {
    let deferred_acks = after_messages(32);
    let (_client, server) = pair().await;
    deferred_acks.defer(&server, Instant::now(), NOW);
    let mut due = Due::new();
    let deferred_at = deferred_acks.lock().sockets[0].1;
    let too_early = deferred_at + LONGEST - Duration::from_nanos(1);
    deferred_acks.lock().time_out(too_early, &mut due);
    assert!(due.is_empty() && deferred_acks.lock().takes_more(too_early));
}

#[tokio::test]
async fn it_has_a_bound() {
    let deferred_acks = after_messages(32);
    let (_client, server) = pair().await;
    for _ in 0..MOST + 10 {
        deferred_acks.defer(&server, Instant::now(), NOW);
    }
    assert_eq!(deferred_count(&deferred_acks), MOST);
}

/// Another socket that has its number by then wakes early at worst.
#[tokio::test]
async fn a_socket_that_is_gone_does_no_harm() {
    let deferred_acks = after_messages(32);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Other tests may take the number first.
    for _ in 0..1000 {
        let _first_client = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let first = listener.accept().await.unwrap().0;
        let number = first.as_raw_fd();
        assert!(deferred_acks.defer(&first, Instant::now(), NOW));
        drop(first);
        let second = listener.accept().await.unwrap().0;
        assert!(deferred_acks.defer(&second, Instant::now(), NOW));
        let is_reused = second.as_raw_fd() == number;
        tokio::time::sleep(ARRIVAL).await;
        deferred_acks.reap(&Other, Instant::now(), NOW);
        assert_eq!(deferred_count(&deferred_acks), 0);
        client.write_all(&PUBACK).await.unwrap();
        assert!(wakes(&second, SURELY).await);
        if is_reused {
            return;
        }
    }
    panic!("no number was used again");
}

#[tokio::test]
async fn nothing_is_deferred_at_another_pace() {
    let (_client, server) = pair().await;
    for (messages, is_deferred) in [(0, 0), (15, 0), (16, 1), (320, 1), (321, 0), (1_000_000, 0)] {
        let deferred_acks = after_messages(messages);
        deferred_acks.defer(&server, Instant::now(), NOW);
        assert_eq!(deferred_count(&deferred_acks), is_deferred, "{messages}");
    }
}

#[test]
fn the_pace_is_of_the_period_before() {
    let at = |millis| NOW + Duration::from_millis(millis);
    let pace = MessagePace::default();
    for _ in 0..16 {
        pace.count(NOW);
        assert!(!pace.is_right(NOW));
    }
    assert!(!pace.is_right(at(15)));
    assert!(pace.is_right(at(16)));
    pace.count(at(16));
    assert!(pace.is_right(at(16)));
    pace.count(at(15)); // by a thread whose time is a little older
    assert!(pace.is_right(at(16)));
    assert!(!pace.is_right(at(32)), "two messages in a period");
    assert!(!pace.is_right(at(16 * 1000)));
}

#[cfg(target_os = "linux")]
#[test]
fn old_systems_are_known_by_their_version() {
    for (release, works) in [
        ("6.18.44-fc-v595", true),
        ("5.0", true),
        ("4.18.0-553.el8.x86_64", true),
        ("4.17.19", false),
        ("3.10.0-1160.el7", false),
        ("4.4.0", false),
        ("", false),
        ("unknown", false),
    ] {
        assert_eq!(low_water::is_since(release), works, "{release}");
    }
}
