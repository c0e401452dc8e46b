#![cfg(target_os = "linux")]

use super::*;

use std::io;
use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

impl Coalesce for TcpStream {
    fn quiet(&self) -> Option<(RawFd, i32)> {
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

impl Coalesce for Other {}

/// One that has counted so many messages in the period before [`NOW`].
fn after_messages(count: u64) -> Coalescing {
    let coalescing = Coalescing::default();
    for _ in 0..count {
        coalescing.pace.count(NOW - Duration::from_millis(16));
    }
    coalescing
}

fn put_off_count(coalescing: &Coalescing) -> usize {
    coalescing.lock().sockets.len()
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
async fn an_answer_waits_for_the_next_wake_up() {
    let coalescing = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(coalescing.put_off(&server, Instant::now(), NOW));
    client.write_all(&PUBACK).await.unwrap();
    assert!(!wakes(&server, NEVER).await);

    coalescing.take_up(&Other, Instant::now(), NOW);
    assert!(wakes(&server, SURELY).await);
    client.write_all(&PUBACK).await.unwrap();
    assert!(wakes(&server, SURELY).await, "the next answer waits too");
}

#[tokio::test]
async fn an_answer_that_comes_after_the_next_wake_up_wakes() {
    let coalescing = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(coalescing.put_off(&server, Instant::now(), NOW));
    tokio::time::sleep(ARRIVAL).await;
    coalescing.take_up(&Other, Instant::now(), NOW);
    client.write_all(&PUBACK).await.unwrap();
    assert!(wakes(&server, SURELY).await);
}

/// It is read anyway, and may be locked by whoever has just sent to it.
#[tokio::test]
async fn whoever_wakes_does_not_touch_his_own_socket() {
    let coalescing = after_messages(32);
    let (mut client, own) = pair().await;
    let (mut other_client, other) = pair().await;
    for socket in [&own, &other, &own] {
        coalescing.put_off(socket, Instant::now(), NOW);
    }
    client.write_all(&PUBACK).await.unwrap();
    other_client.write_all(&PUBACK).await.unwrap();
    tokio::time::sleep(ARRIVAL).await;
    coalescing.take_up(&own, Instant::now(), NOW);
    assert!(wakes(&other, SURELY).await);
    assert!(!wakes(&own, NEVER).await);
    coalescing.take_up(&other, Instant::now(), NOW);
    assert!(wakes(&own, SURELY).await);
    assert_eq!(put_off_count(&coalescing), 0);
}

#[tokio::test]
async fn the_oldest_come_first_and_the_youngest_are_left() {
    let coalescing = after_messages(32);
    let (_client, first) = pair().await;
    let (_client, second) = pair().await;
    coalescing.put_off(&first, Instant::now(), NOW);
    coalescing.put_off(&second, Instant::now(), NOW);
    let put_off_at = coalescing.lock().sockets[0].1;
    let mut due = Due::new();
    let just_before = put_off_at - Duration::from_nanos(1);
    coalescing.lock().take_until(just_before, None, &mut due);
    assert!(due.is_empty());
    coalescing.lock().take_until(put_off_at, None, &mut due);
    assert_eq!(due.as_slice(), [first.as_raw_fd()]);
}

#[tokio::test]
async fn a_larger_packet_wakes_at_once() {
    let coalescing = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(coalescing.put_off(&server, Instant::now(), NOW));
    client.write_all(&PUBACK).await.unwrap();
    client.write_all(&PUBACK).await.unwrap(); // together they are more than one answer
    assert!(wakes(&server, SURELY).await);
}

#[tokio::test]
async fn the_end_wakes_at_once() {
    let coalescing = after_messages(32);
    let (client, server) = pair().await;
    assert!(coalescing.put_off(&server, Instant::now(), NOW));
    drop(client);
    assert!(wakes(&server, SURELY).await);
}

#[tokio::test]
async fn a_tick_takes_up() {
    let coalescing = after_messages(32);
    let (mut client, server) = pair().await;
    assert!(coalescing.put_off(&server, Instant::now(), NOW));
    client.write_all(&PUBACK).await.unwrap();
    tokio::time::sleep(LONGEST).await;
    coalescing.handle_tick();
    assert!(wakes(&server, SURELY).await);
    assert_eq!(put_off_count(&coalescing), 0);
}

#[tokio::test]
async fn after_two_ticks_that_took_up_nothing_is_put_off() {
    const MILLI: Duration = Duration::from_millis(1);
    let (_client, server) = pair().await;
    let mut late = Late::default();
    let time_out = |late: &mut Late, at| {
        let mut due = Due::new();
        late.sockets.push_back((server.as_raw_fd(), at - LONGEST));
        late.time_out(at, &mut due);
        assert_eq!(due.len(), 1);
    };
    let first = Instant::now() + LONGEST;
    time_out(&mut late, first);
    assert!(late.takes_more(first), "once is nothing");
    let second = first + LONGEST;
    time_out(&mut late, second);
    assert!(!late.takes_more(first + REST - MILLI));
    assert!(late.takes_more(first + REST));
    let third = first + REST + MILLI;
    time_out(&mut late, third);
    assert!(!late.takes_more(second + REST - MILLI));
    assert!(late.takes_more(second + REST));
    let much_later = third + 2 * REST;
    time_out(&mut late, much_later);
    assert!(late.takes_more(much_later), "once is nothing again");

    let coalescing = after_messages(32);
    coalescing.lock().rests_until = Some(Instant::now() + 3600 * REST);
    assert!(!coalescing.put_off(&server, Instant::now(), NOW));
}

#[tokio::test]
async fn a_tick_that_finds_nothing_changes_nothing() {
    let coalescing = after_messages(32);
    let (_client, server) = pair().await;
    coalescing.put_off(&server, Instant::now(), NOW);
    let mut due = Due::new();
    let put_off_at = coalescing.lock().sockets[0].1;
    let too_early = put_off_at + LONGEST - Duration::from_nanos(1);
    coalescing.lock().time_out(too_early, &mut due);
    assert!(due.is_empty() && coalescing.lock().takes_more(too_early));
}

#[tokio::test]
async fn it_has_a_bound() {
    let coalescing = after_messages(32);
    let (_client, server) = pair().await;
    for _ in 0..MOST + 10 {
        coalescing.put_off(&server, Instant::now(), NOW);
    }
    assert_eq!(put_off_count(&coalescing), MOST);
}

/// Whoever has its number then wakes early at worst.
#[tokio::test]
async fn a_socket_that_is_gone_does_no_harm() {
    let coalescing = after_messages(32);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Other tests may take the number first.
    for _ in 0..1000 {
        let _first_client = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let first = listener.accept().await.unwrap().0;
        let number = first.as_raw_fd();
        assert!(coalescing.put_off(&first, Instant::now(), NOW));
        drop(first);
        let second = listener.accept().await.unwrap().0;
        assert!(coalescing.put_off(&second, Instant::now(), NOW));
        let is_reused = second.as_raw_fd() == number;
        tokio::time::sleep(ARRIVAL).await;
        coalescing.take_up(&Other, Instant::now(), NOW);
        assert_eq!(put_off_count(&coalescing), 0);
        client.write_all(&PUBACK).await.unwrap();
        assert!(wakes(&second, SURELY).await);
        if is_reused {
            return;
        }
    }
    panic!("no number was used again");
}

#[tokio::test]
async fn nothing_is_put_off_at_another_pace() {
    let (_client, server) = pair().await;
    for (messages, is_put_off) in [(0, 0), (15, 0), (16, 1), (320, 1), (321, 0), (1_000_000, 0)] {
        let coalescing = after_messages(messages);
        coalescing.put_off(&server, Instant::now(), NOW);
        assert_eq!(put_off_count(&coalescing), is_put_off, "{messages}");
    }
}

#[test]
fn the_pace_is_of_the_period_before() {
    let at = |millis| NOW + Duration::from_millis(millis);
    let pace = Pace::default();
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
