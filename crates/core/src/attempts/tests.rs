use std::net::IpAddr;
use std::time::Duration;

use super::{Attempts, MAX_ADDRESSES};
use crate::ids::ClientId;
use crate::time::Time;

const WINDOW: Duration = Duration::from_secs(600);
const START: Time = Time::from_millis(1_000_000);

fn client(id: &str) -> ClientId {
    ClientId::new(id)
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn fail(attempts: &mut Attempts, times: usize, id: &str, from: IpAddr, now: Time) {
    for _ in 0..times {
        attempts.failed(&client(id), from, now);
    }
}

#[test]
fn more_than_the_limit_is_refused_until_the_window_has_passed() {
    let mut attempts = Attempts::new(10, WINDOW);
    fail(&mut attempts, 10, "1:a", address(1), START);
    assert!(!attempts.exhausted(&client("1:a"), address(1), START));
    fail(&mut attempts, 1, "1:a", address(1), START);
    assert!(attempts.exhausted(&client("1:a"), address(1), START));
    assert!(attempts.exhausted(
        &client("1:a"),
        address(1),
        START + WINDOW - Duration::from_millis(1)
    ));
    assert!(!attempts.exhausted(&client("1:a"), address(1), START + WINDOW));
}

#[test]
fn another_address_is_not_held_up() {
    let mut attempts = Attempts::new(10, WINDOW);
    fail(&mut attempts, 100, "1:a", address(1), START);
    assert!(!attempts.exhausted(&client("1:a"), address(2), START));
}

#[test]
fn many_client_ids_at_one_address_count_together() {
    let mut attempts = Attempts::new(10, WINDOW);
    for n in 0..11 {
        fail(&mut attempts, 1, &format!("{n}:a"), address(1), START);
    }
    assert!(attempts.exhausted(&client("1:a"), address(1), START));
}

#[test]
fn a_success_clears_the_address_and_its_own_client_id_and_no_other() {
    let mut attempts = Attempts::new(10, WINDOW);
    let other = client("3:b");
    fail(&mut attempts, 10, "1:a", address(1), START);
    attempts.succeeded(&client("1:a"), address(1));
    fail(&mut attempts, 10, "1:a", address(1), START);
    assert!(!attempts.exhausted(&client("1:a"), address(1), START));
    // Somebody who has a token of his own logs in between his guesses.
    attempts.succeeded(&client("2:mine"), address(1));
    fail(&mut attempts, 1, "1:a", address(1), START);
    assert!(attempts.exhausted(&client("1:a"), address(1), START));
    assert!(!attempts.exhausted(&other, address(1), START));
    fail(&mut attempts, 10, "3:b", address(1), START);
    assert!(attempts.exhausted(&client("4:c"), address(1), START));
}

#[test]
fn the_window_slides() {
    let mut attempts = Attempts::new(2, WINDOW);
    let half = WINDOW / 2;
    fail(&mut attempts, 2, "1:a", address(1), START);
    fail(&mut attempts, 1, "1:a", address(1), START + half);
    assert!(attempts.exhausted(&client("1:a"), address(1), START + half));
    assert!(!attempts.exhausted(&client("1:a"), address(1), START + WINDOW));
    fail(&mut attempts, 2, "1:a", address(1), START + WINDOW);
    assert!(attempts.exhausted(&client("1:a"), address(1), START + WINDOW));
}

#[test]
fn one_ipv6_host_is_one_source_and_mapped_ipv4_is_ipv4() {
    let mut attempts = Attempts::new(0, WINDOW);
    fail(
        &mut attempts,
        1,
        "1:a",
        "2001:db8::1".parse().unwrap(),
        START,
    );
    assert!(attempts.exhausted(&client("1:a"), "2001:db8::ffff:2".parse().unwrap(), START));
    assert!(!attempts.exhausted(&client("1:a"), "2001:db8:0:1::1".parse().unwrap(), START));
    fail(
        &mut attempts,
        1,
        "1:a",
        "::ffff:10.0.0.1".parse().unwrap(),
        START,
    );
    assert!(attempts.exhausted(&client("1:a"), address(1), START));
}

#[test]
fn memory_is_bounded() {
    let mut attempts = Attempts::new(10, WINDOW);
    for n in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 100 {
        let from = IpAddr::from(n.to_be_bytes());
        fail(
            &mut attempts,
            1,
            "1:a",
            from,
            START + Duration::from_millis(n.into()),
        );
    }
    assert_eq!(attempts.failures.len(), MAX_ADDRESSES);
    fail(&mut attempts, 1000, "1:a", address(1), START + WINDOW);
    assert!(attempts.failures[&address(1)].len() <= 4 * 11);
}
