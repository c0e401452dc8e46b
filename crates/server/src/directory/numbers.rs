//! User ids as numbers of rows, as every jam database has them: which texts are ids, which ids begin with a prefix, which are on a page.

use std::ops::RangeInclusive;

use jam_core::ids::UserId;

use super::{AdministrationError, Page, PageRequest};

/// The canonical decimal form of an `i64`, which is the only form of an id in a jam database.
///
/// `None` for `01`, `+1`, `-0`, ` 1`, `1.0`, `1e0` and all that SQLite would also take for a number.
pub(super) fn row_id(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    canonical.then(|| text.parse().ok()).flatten()
}

/// The least id that may be in the page; `None` if no id comes after that of the request.
pub(super) fn first_of(page: &PageRequest) -> Result<Option<i64>, AdministrationError> {
    let Some(after) = page.place() else {
        return Ok(Some(i64::MIN));
    };
    let after = row_id(after.as_str()).ok_or_else(|| {
        let why = format!("no list of this accounts database goes on after \"{after}\"");
        AdministrationError::Refused(why)
    })?;
    Ok(after.checked_add(1))
}

/// Items to fetch: one more than the page holds, which shows whether there are more.
pub(super) fn one_more(page: &PageRequest) -> u16 {
    page.limit() + 1
}

/// A page of what was found, and where the next one begins.
pub(super) fn cut<T>(mut items: Vec<T>, page: &PageRequest, id: impl Fn(&T) -> &String) -> Page<T> {
    let limit = usize::from(page.limit());
    let has_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| has_more);
    let next = last.and_then(|last| UserId::parse(id(last)).ok());
    Page { items, next }
}

/// The numbers that begin with `prefix` in decimal, from the least.
pub(super) fn ranges(prefix: &str) -> Vec<RangeInclusive<i64>> {
    let first = match (prefix, row_id(prefix)) {
        ("", _) => return vec![i64::MIN..=i64::MAX],
        ("-", _) => return vec![i64::MIN..=-1],
        (_, None) => return Vec::new(),
        (_, Some(0)) => return vec![0..=0],
        (_, Some(first)) => i128::from(first),
    };
    let all = i128::from(i64::MIN)..=i128::from(i64::MAX);
    let mut ranges = Vec::new();
    // With each further digit ten times as many.
    let (mut low, mut high) = (first, first);
    while low <= *all.end() && high >= *all.start() {
        let number = |it: i128| i64::try_from(it.clamp(*all.start(), *all.end()));
        let (Ok(from), Ok(to)) = (number(low), number(high)) else {
            break;
        };
        ranges.push(from..=to);
        (low, high) = if first > 0 {
            (low * 10, high * 10 + 9)
        } else {
            (low * 10 - 9, high * 10)
        };
    }
    ranges.sort_unstable_by_key(|range| *range.start());
    ranges
}

/// The row that a new user is to have.
pub(super) fn id_of_new(user: &UserId) -> Result<i64, AdministrationError> {
    match row_id(user.as_str()) {
        Some(id) if id >= 1 => Ok(id),
        Some(id) => Err(AdministrationError::Refused(format!(
            "{id} is no id for a new user: 1 is the least"
        ))),
        None => Err(AdministrationError::Refused(format!(
            "\"{user}\" is no user id of this accounts database: its ids are decimal integers, such as 42"
        ))),
    }
}

/// A friendship or a block needs two different users.
pub(super) fn must_differ(a: &UserId, b: &UserId) -> Result<(), AdministrationError> {
    if a == b {
        return Err(AdministrationError::Refused(format!(
            "{a} and {b} are the same user; name two"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_form() {
        assert_eq!(row_id("+1"), None);
        assert_eq!(row_id(""), None);
        assert_eq!(row_id("-"), None);
        assert_eq!(row_id("-5"), Some(-5));
        assert_eq!(row_id("0"), Some(0));
        assert_eq!(row_id("9223372036854775807"), Some(i64::MAX));
    }

    #[test]
    fn ranges_hold_what_begins_with_a_prefix() {
        let numbers = [
            i64::MIN,
            -120,
            -13,
            -12,
            -2,
            -1,
            0,
            1,
            2,
            9,
            10,
            12,
            13,
            99,
            120,
            129,
            130,
            1_200,
            9_000_000_000_000_000_000,
            i64::MAX,
        ];
        for prefix in [
            "",
            "-",
            "-1",
            "-12",
            "-9",
            "0",
            "1",
            "12",
            "9",
            "92",
            "99",
            "01",
            "-0",
            "a",
            "%",
            " 1",
            "1 ",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
        ] {
            let ranges = ranges(prefix);
            assert!(ranges.len() <= 19);
            assert!(
                ranges.is_sorted_by(|a, b| a.end() < b.start()),
                "{ranges:?}"
            );
            for number in numbers {
                assert_eq!(
                    ranges.iter().any(|range| range.contains(&number)),
                    number.to_string().starts_with(prefix),
                    "{prefix} {number}"
                );
            }
        }
    }
}
