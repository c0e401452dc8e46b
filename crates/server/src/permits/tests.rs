use std::net::IpAddr;
use std::time::Duration;

use super::*;

const HOME: Source = Source::V4([127, 0, 0, 1]);
const AWAY: Source = Source::V4([192, 0, 2, 1]);
const PROXY: Source = Source::V4([10, 0, 0, 1]);
const MOMENT: Duration = Duration::from_millis(20);

async fn take(
    permits: &Arc<ConnectionPermits>,
    source: Source,
) -> Result<ConnectionPermit, TooMany> {
    permits.take(permits.vacancy().await, source)
}

/// A permit whose client has authenticated.
async fn settled(permits: &Arc<ConnectionPermits>, source: Source) -> ConnectionPermit {
    let mut permit = take(permits, source).await.unwrap();
    permit.settle();
    permit
}

async fn is_full(permits: &ConnectionPermits) -> bool {
    tokio::time::timeout(MOMENT, permits.vacancy())
        .await
        .is_err()
}

#[tokio::test]
async fn limits_hold() {
    let permits = ConnectionPermits::new(3, 2);
    let _first = settled(&permits, HOME).await;
    let _second = settled(&permits, HOME).await;
    assert_eq!(take(&permits, HOME).await.unwrap_err(), TooMany);
    let _third = settled(&permits, AWAY).await;
    assert!(is_full(&permits).await);
    assert_eq!(permits.len(), 3);
}

#[tokio::test]
async fn dropping_frees() {
    let permits = ConnectionPermits::new(1, 1);
    for _ in 0..3 {
        drop(take(&permits, HOME).await.unwrap());
        drop(settled(&permits, HOME).await);
    }
    let held = settled(&permits, HOME).await;
    let all_free = tokio::time::timeout(MOMENT, permits.all_free()).await;
    assert!(all_free.is_err());
    drop(held);
    permits.all_free().await;
    let taken = permits.lock();
    assert!(taken.by_source.is_empty() && taken.half_open.is_empty());
}

#[tokio::test]
async fn an_ipv6_host_is_one_source() {
    let permits = ConnectionPermits::new(100, 2);
    let from = |text: &str| Source::of(text.parse::<IpAddr>().unwrap());
    let _first = settled(&permits, from("2001:db8::1")).await;
    let _second = settled(&permits, from("2001:db8::2")).await;
    assert!(take(&permits, from("2001:db8::3")).await.is_err());
    assert!(take(&permits, from("2001:db8:0:1::1")).await.is_ok());
}

#[tokio::test]
async fn who_has_authenticated_stays() {
    let permits = ConnectionPermits::new(3, 3);
    let stays = settled(&permits, HOME).await;
    let old = take(&permits, HOME).await.unwrap();
    let new = take(&permits, HOME).await.unwrap();
    assert!(is_full(&permits).await, "until the task has ended");
    assert!(old.is_displaced());
    assert!(!stays.is_displaced() && !new.is_displaced());
    drop(old);
    let last = settled(&permits, AWAY).await;
    let mut new = new;
    new.settle();
    assert!(is_full(&permits).await);
    assert!(!new.is_displaced());
    assert!(!last.is_displaced());
}

#[tokio::test]
async fn the_source_with_the_most_half_open_ones_makes_room() {
    let permits = ConnectionPermits::new(4, 4);
    let one = take(&permits, AWAY).await.unwrap();
    let many = [
        take(&permits, HOME).await.unwrap(),
        take(&permits, HOME).await.unwrap(),
        take(&permits, HOME).await.unwrap(),
    ];
    assert!(is_full(&permits).await);
    let [first, second, third] = many;
    assert!(first.is_displaced());
    assert!(!one.is_displaced() && !second.is_displaced());
    drop(first);
    // Now the two have two and one; the newcomer is of the one's.
    let newcomer = take(&permits, AWAY).await.unwrap();
    assert!(is_full(&permits).await);
    assert!(one.is_displaced(), "two each: the oldest");
    assert!(!newcomer.is_displaced() && !third.is_displaced());
}

#[tokio::test]
async fn half_open_ones_keep_nobody_of_their_source_out() {
    let permits = ConnectionPermits::new(100, 2);
    let _settled = settled(&permits, HOME).await;
    let silent = take(&permits, HOME).await.unwrap();
    let mut newcomer = take(&permits, HOME).await.unwrap();
    assert!(silent.is_displaced());
    newcomer.settle();
    assert_eq!(take(&permits, HOME).await.unwrap_err(), TooMany);
    drop(silent);
    assert_eq!(take(&permits, HOME).await.unwrap_err(), TooMany);
}

#[tokio::test]
async fn who_authenticates_at_the_last_moment_stays_and_another_one_goes() {
    let permits = ConnectionPermits::new(2, 2);
    let mut first = take(&permits, HOME).await.unwrap();
    let second = take(&permits, HOME).await.unwrap();
    assert!(is_full(&permits).await);
    assert!(first.is_displaced());
    first.settle();
    assert!(!first.is_displaced());
    assert!(second.is_displaced());
    drop((first, second));
    permits.all_free().await;
    assert!(permits.lock().by_source.is_empty());
}

#[tokio::test]
async fn half_open_ones_are_bounded_whatever_the_limits() {
    let permits = ConnectionPermits::new(100_000, 100_000);
    let settled = settled(&permits, HOME).await;
    let one = take(&permits, AWAY).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 * MAX_HALF_OPEN {
        held.push(take(&permits, HOME).await.unwrap());
    }
    assert!(permits.lock().half_open.len() <= MAX_HALF_OPEN);
    assert!(held[0].is_displaced() && !held[2 * MAX_HALF_OPEN - 1].is_displaced());
    assert!(!settled.is_displaced() && !one.is_displaced());
}

#[tokio::test]
async fn who_comes_by_a_proxy_counts_where_it_comes_from() {
    let permits = ConnectionPermits::new(100, 2);
    let proxied = |source| {
        let permits = permits.clone();
        async move {
            let mut permit = permits.take_for_proxied(permits.vacancy().await, PROXY);
            permit
                .attribute(source)
                .map(|()| permit.settle())
                .map(|()| permit)
        }
    };
    let mut held = Vec::new();
    for last in 0..20 {
        let source = Source::V4([198, 51, 100, last]);
        held.push(proxied(source).await.unwrap());
        held.push(proxied(source).await.unwrap());
        assert_eq!(proxied(source).await.unwrap_err(), TooMany);
    }
    drop(held);
    permits.all_free().await;
    let taken = permits.lock();
    assert!(taken.by_source.is_empty() && taken.half_open.is_empty());
}

#[tokio::test]
async fn stopping_reaches_who_waits() {
    let permits = ConnectionPermits::new(2, 2);
    let permit = take(&permits, HOME).await.unwrap();
    let waiting = tokio::spawn(async move { permit.ended().await });
    tokio::task::yield_now().await;
    permits.stop();
    let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert_eq!(ended.unwrap().unwrap(), End::Stopping);
    permits.all_free().await;
}

/// It may have come when those who were there had been told.
#[tokio::test]
async fn who_comes_while_the_server_stops_is_told_too() {
    let permits = ConnectionPermits::new(2, 2);
    permits.stop();
    let late = take(&permits, HOME).await.unwrap();
    assert!(late.wake_flag().take());
}

#[test]
fn a_bell_is_answered_once() {
    let wake_flag = Arc::new(WakeFlag::default());
    assert!(!wake_flag.take());
    wake_flag.wake_by_ref();
    wake_flag.wake_by_ref();
    assert!(wake_flag.take());
    assert!(!wake_flag.take());
}

#[tokio::test]
async fn limits_that_change_hold_from_then_on() {
    let permits = ConnectionPermits::new(3, 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(settled(&permits, HOME).await);
    }
    permits.set_limits(1, 3);
    assert_eq!(permits.len(), 3, "who is there stays");
    held.truncate(1);
    assert!(is_full(&permits).await);
    permits.set_limits(2, 3);
    let other = settled(&permits, HOME).await;
    assert!(is_full(&permits).await);
    // Lower, and higher again, with one too many there.
    permits.set_limits(1, 1);
    permits.set_limits(3, 1);
    assert_eq!(permits.free.available_permits(), 1);
    assert_eq!(take(&permits, HOME).await.unwrap_err(), TooMany);
    drop(settled(&permits, AWAY).await);
    // A newcomer that was refused gives back a place that is one too many by then.
    let vacancy = permits.vacancy().await;
    permits.set_limits(2, 1);
    assert_eq!(permits.take(vacancy, HOME).unwrap_err(), TooMany);
    assert!(is_full(&permits).await);
    held.clear();
    drop(other);
    permits.all_free().await;
    permits.set_limits(5, 5);
    permits.all_free().await;
    assert_eq!(permits.free.available_permits(), 5);
}
