use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::{Attempts, MAX_SOURCES, SOURCES_PER_BUCKET, TooManyFailures};
use crate::source::Source;
use crate::time::Time;

const WINDOW: Duration = Duration::from_secs(600);
const START: Time = Time::from_millis(1_000_000);

fn source(last: u8) -> Source {
    Source::of(IpAddr::from([10, 0, 0, last]))
}

fn fail(attempts: &mut Attempts, times: usize, user: &str, from: Source, now: Time) {
    for _ in 0..times {
        attempts.fail(user, from, now).unwrap();
    }
}

fn exhausted(attempts: &mut Attempts, from: Source, now: Time) -> bool {
    attempts.check(from, now).is_err()
}

#[test]
fn more_than_the_limit_is_refused_until_the_window_has_passed() {
    let mut attempts = Attempts::new(10, WINDOW);
    fail(&mut attempts, 10, "1", source(1), START);
    assert!(!exhausted(&mut attempts, source(1), START));
    fail(&mut attempts, 1, "1", source(1), START);
    assert!(exhausted(&mut attempts, source(1), START));
    let nearly = START + WINDOW - Duration::from_millis(1);
    assert!(exhausted(&mut attempts, source(1), nearly));
    assert!(!exhausted(&mut attempts, source(1), START + WINDOW));
}

#[test]
fn a_lockout_ends_when_so_many_failures_are_old_that_the_others_are_allowed() {
    let mut attempts = Attempts::new(10, WINDOW);
    let at = |secs| START + Duration::from_secs(secs);
    for secs in 0..11 {
        fail(&mut attempts, 1, "1", source(1), at(secs));
    }
    fail(&mut attempts, 5, "1", source(2), at(3));
    attempts.set_limits(3, WINDOW);
    let of = |attempts: &Attempts, last, now| {
        let lockout = attempts.lockout(source(last), now)?;
        Some((lockout.failures, lockout.is_locked, lockout.until))
    };
    assert_eq!(of(&attempts, 1, at(11)), Some((11, true, at(7) + WINDOW)));
    assert_eq!(of(&attempts, 2, at(11)), Some((5, true, at(3) + WINDOW)));
    assert_eq!(of(&attempts, 3, at(11)), None);
    let locked = |attempts: &Attempts, now| {
        let mut sources: Vec<_> = attempts.locked_out(now).map(|(source, _)| source).collect();
        sources.sort_unstable();
        sources
    };
    assert_eq!(locked(&attempts, at(11)), [source(1), source(2)]);
    let later = at(7) + WINDOW;
    assert_eq!(of(&attempts, 1, later), Some((3, false, at(8) + WINDOW)));
    assert_eq!(of(&attempts, 2, later), None);
    assert_eq!(locked(&attempts, later), []);
    assert!(!exhausted(&mut attempts, source(1), later));
    assert_eq!(of(&attempts, 1, at(11) + WINDOW), None);
}

#[test]
fn another_source_is_not_held_up() {
    let mut attempts = Attempts::new(10, WINDOW);
    fail(&mut attempts, 11, "1", source(1), START);
    assert!(attempts.fail("1", source(1), START).is_err());
    assert!(!exhausted(&mut attempts, source(2), START));
    assert!(attempts.succeed("1", source(2), START).is_ok());
    assert!(exhausted(&mut attempts, source(1), START));
}

#[test]
fn many_user_ids_at_one_source_count_together() {
    let mut attempts = Attempts::new(10, WINDOW);
    for n in 0..11 {
        fail(&mut attempts, 1, &n.to_string(), source(1), START);
    }
    assert!(exhausted(&mut attempts, source(1), START));
}

#[test]
fn a_success_clears_its_own_user_id_and_no_other() {
    let mut attempts = Attempts::new(10, WINDOW);
    for _ in 0..3 {
        fail(&mut attempts, 10, "1", source(1), START);
        attempts.succeed("1", source(1), START).unwrap();
    }
    // Somebody who has a token of their own logs in between their guesses.
    for _ in 0..11 {
        attempts.succeed("2", source(1), START).unwrap();
        fail(&mut attempts, 1, "1", source(1), START);
    }
    assert!(attempts.succeed("2", source(1), START).is_err());
    assert!(exhausted(&mut attempts, source(1), START));
}

#[test]
fn a_right_guess_over_the_limit_is_not_let_in() {
    let mut attempts = Attempts::new(10, WINDOW);
    fail(&mut attempts, 11, "1", source(1), START);
    assert!(attempts.succeed("1", source(1), START).is_err());
    assert!(exhausted(&mut attempts, source(1), START), "nor cleared");
}

#[test]
fn the_window_slides() {
    let mut attempts = Attempts::new(2, WINDOW);
    let half = WINDOW / 2;
    fail(&mut attempts, 2, "1", source(1), START);
    fail(&mut attempts, 1, "1", source(1), START + half);
    assert!(exhausted(&mut attempts, source(1), START + half));
    assert!(!exhausted(&mut attempts, source(1), START + WINDOW));
    fail(&mut attempts, 2, "1", source(1), START + WINDOW);
    assert!(exhausted(&mut attempts, source(1), START + WINDOW));
}

#[test]
fn a_network_washes_out_its_own_bucket() {
    let mut attempts = Attempts::new(0, WINDOW);
    let v6 = |high: u16, low: u16| Source::of(IpAddr::from([0x2001, high, 0, low, 0, 0, 0, 1]));
    // One guess from each of many networks, then a /48 guesses from all of its /64.
    let others = || (1..=200).map(|high| v6(high, 0));
    for other in others() {
        fail(&mut attempts, 1, "1", other, START);
    }
    let before = others().filter(|it| exhausted(&mut attempts, *it, START));
    let before = before.count();
    for low in 0..=u16::MAX {
        fail(
            &mut attempts,
            1,
            "1",
            v6(0, low),
            START + Duration::from_secs(1),
        );
    }
    let after = others().filter(|it| exhausted(&mut attempts, *it, START));
    let lost = before - after.count();
    assert!(
        lost <= 10,
        "{lost} of {before}: those that shared its bucket"
    );
}

#[test]
fn memory_is_bounded() {
    let mut attempts = Attempts::new(10, WINDOW);
    for n in 0..u32::try_from(4 * MAX_SOURCES).unwrap() {
        let from = Source::of(IpAddr::from((n << 6).to_be_bytes()));
        let now = START + Duration::from_millis(n.into());
        fail(&mut attempts, 1, "1", from, now);
    }
    let sizes = || attempts.buckets.iter().map(Vec::len);
    assert!(sizes().all(|size| size <= SOURCES_PER_BUCKET));
    assert!(sizes().sum::<usize>() > MAX_SOURCES * 3 / 4);
    let now = START + 2 * WINDOW;
    let answered = (0..100).take_while(|_| attempts.fail("1", source(1), now).is_ok());
    assert!(answered.count() < 100);
    let log = attempts.bucket(source(1)).iter();
    let log = log.filter(|log| log.source == source(1));
    assert_eq!(log.map(|log| log.failures.len()).sum::<usize>(), 11);
}

#[test]
fn a_failure_beyond_the_limit_is_refused_and_not_logged() {
    let mut attempts = Attempts::new(2, Duration::from_secs(600));
    let (source, now) = (Source::from(IpAddr::from([1, 1, 1, 1])), Time::default());
    for _ in 0..3 {
        assert_eq!(attempts.fail("1", source, now), Ok(()));
    }
    for _ in 0..100 {
        assert_eq!(attempts.fail("1", source, now), Err(TooManyFailures));
    }
    let logged: usize = attempts
        .buckets
        .iter()
        .flatten()
        .map(|log| log.failures.len())
        .sum();
    assert_eq!(logged, 3);
}

/// Of one network: the source that has been quiet for longest.
#[test]
fn who_failed_a_moment_ago_is_not_forgotten() {
    let mut attempts = Attempts::new(1, Duration::from_secs(600));
    let at = |secs| Time::default() + Duration::from_secs(secs);
    let source = |n: u16| {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1);
        Source::from(IpAddr::from(address))
    };
    let count = u16::try_from(SOURCES_PER_BUCKET).unwrap();
    for n in 0..count {
        assert_eq!(attempts.fail("1", source(n), at(n.into())), Ok(()));
        if n > 0 {
            assert_eq!(attempts.fail("1", source(n), at(n.into())), Ok(()));
        }
    }
    assert_eq!(attempts.fail("1", source(0), at(100)), Ok(()));
    assert_eq!(attempts.fail("1", source(count), at(101)), Ok(()));
    assert_eq!(attempts.check(source(0), at(101)), Err(TooManyFailures));
    assert_eq!(attempts.check(source(1), at(101)), Ok(()));
}
