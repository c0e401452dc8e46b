use std::net::IpAddr;
use std::time::Duration;

use super::*;

const HOME: Source = Source::V4([127, 0, 0, 1]);
const AWAY: Source = Source::V4([192, 0, 2, 1]);
const PROXY: Source = Source::V4([10, 0, 0, 1]);
const MOMENT: Duration = Duration::from_millis(20);

async fn take(slots: &Arc<Slots>, source: Source) -> Result<Slot, TooMany> {
    slots.take(slots.permit().await, source)
}

/// A slot whose client has authenticated.
async fn settled(slots: &Arc<Slots>, source: Source) -> Slot {
    let mut slot = take(slots, source).await.unwrap();
    slot.settle();
    slot
}

async fn is_full(slots: &Slots) -> bool {
    tokio::time::timeout(MOMENT, slots.permit()).await.is_err()
}

#[tokio::test]
async fn limits_hold() {
    let slots = Slots::new(3, 2);
    let _first = settled(&slots, HOME).await;
    let _second = settled(&slots, HOME).await;
    assert_eq!(take(&slots, HOME).await.unwrap_err(), TooMany);
    let _third = settled(&slots, AWAY).await;
    assert!(is_full(&slots).await);
    assert_eq!(slots.len(), 3);
}

#[tokio::test]
async fn dropping_frees() {
    let slots = Slots::new(1, 1);
    for _ in 0..3 {
        drop(take(&slots, HOME).await.unwrap());
        drop(settled(&slots, HOME).await);
    }
    let held = settled(&slots, HOME).await;
    let all_free = tokio::time::timeout(MOMENT, slots.all_free()).await;
    assert!(all_free.is_err());
    drop(held);
    slots.all_free().await;
    let taken = slots.lock();
    assert!(taken.by_source.is_empty() && taken.half_open.is_empty());
}

#[tokio::test]
async fn an_ipv6_host_is_one_source() {
    let slots = Slots::new(100, 2);
    let from = |text: &str| Source::of(text.parse::<IpAddr>().unwrap());
    let _first = settled(&slots, from("2001:db8::1")).await;
    let _second = settled(&slots, from("2001:db8::2")).await;
    assert!(take(&slots, from("2001:db8::3")).await.is_err());
    assert!(take(&slots, from("2001:db8:0:1::1")).await.is_ok());
}

#[tokio::test]
async fn who_has_authenticated_stays() {
    let slots = Slots::new(3, 3);
    let stays = settled(&slots, HOME).await;
    let old = take(&slots, HOME).await.unwrap();
    let new = take(&slots, HOME).await.unwrap();
    assert!(is_full(&slots).await, "until the task has ended");
    assert!(old.is_displaced());
    assert!(!stays.is_displaced() && !new.is_displaced());
    drop(old);
    let last = settled(&slots, AWAY).await;
    let mut new = new;
    new.settle();
    assert!(is_full(&slots).await);
    assert!(!new.is_displaced());
    assert!(!last.is_displaced());
}

#[tokio::test]
async fn the_source_with_the_most_half_open_ones_makes_room() {
    let slots = Slots::new(4, 4);
    let one = take(&slots, AWAY).await.unwrap();
    let many = [
        take(&slots, HOME).await.unwrap(),
        take(&slots, HOME).await.unwrap(),
        take(&slots, HOME).await.unwrap(),
    ];
    assert!(is_full(&slots).await);
    let [first, second, third] = many;
    assert!(first.is_displaced());
    assert!(!one.is_displaced() && !second.is_displaced());
    drop(first);
    // Now the two have two and one; the newcomer is of the one's.
    let newcomer = take(&slots, AWAY).await.unwrap();
    assert!(is_full(&slots).await);
    assert!(one.is_displaced(), "two each: the oldest");
    assert!(!newcomer.is_displaced() && !third.is_displaced());
}

#[tokio::test]
async fn half_open_ones_keep_nobody_of_their_source_out() {
    let slots = Slots::new(100, 2);
    let _settled = settled(&slots, HOME).await;
    let silent = take(&slots, HOME).await.unwrap();
    let mut newcomer = take(&slots, HOME).await.unwrap();
    assert!(silent.is_displaced());
    newcomer.settle();
    assert_eq!(take(&slots, HOME).await.unwrap_err(), TooMany);
    drop(silent);
    assert_eq!(take(&slots, HOME).await.unwrap_err(), TooMany);
}

#[tokio::test]
async fn who_authenticates_at_the_last_moment_stays_and_another_one_goes() {
    let slots = Slots::new(2, 2);
    let mut first = take(&slots, HOME).await.unwrap();
    let second = take(&slots, HOME).await.unwrap();
    assert!(is_full(&slots).await);
    assert!(first.is_displaced());
    first.settle();
    assert!(!first.is_displaced());
    assert!(second.is_displaced());
    drop((first, second));
    slots.all_free().await;
    assert!(slots.lock().by_source.is_empty());
}

#[tokio::test]
async fn half_open_ones_are_bounded_whatever_the_limits() {
    let slots = Slots::new(100_000, 100_000);
    let settled = settled(&slots, HOME).await;
    let one = take(&slots, AWAY).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 * MAX_HALF_OPEN {
        held.push(take(&slots, HOME).await.unwrap());
    }
    assert!(slots.lock().half_open.len() <= MAX_HALF_OPEN);
    assert!(held[0].is_displaced() && !held[2 * MAX_HALF_OPEN - 1].is_displaced());
    assert!(!settled.is_displaced() && !one.is_displaced());
}

#[tokio::test]
async fn who_comes_by_a_proxy_counts_where_it_comes_from() {
    let slots = Slots::new(100, 2);
    let proxied = |source| {
        let slots = slots.clone();
        async move {
            let mut slot = slots.take_for_proxied(slots.permit().await, PROXY);
            slot.attribute(source)
                .map(|()| slot.settle())
                .map(|()| slot)
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
    slots.all_free().await;
    let taken = slots.lock();
    assert!(taken.by_source.is_empty() && taken.half_open.is_empty());
}

#[tokio::test]
async fn stopping_reaches_who_waits() {
    let slots = Slots::new(2, 2);
    let slot = take(&slots, HOME).await.unwrap();
    let waiting = tokio::spawn(async move { slot.ended().await });
    tokio::task::yield_now().await;
    slots.stop();
    let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert_eq!(ended.unwrap().unwrap(), End::Stopping);
    slots.all_free().await;
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
