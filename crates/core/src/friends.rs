//! A user's friends as they are shown to that user (PROTOCOL.md, section 10).
//!
//! A [`List`] is the JSON of each friend and nothing else, so that a long one takes no more memory than what is sent of it.
//! A database fills it, the router cuts it into parts.
//!
//! Invariants: what the other side has done has no place in a [`Friend`]; equal lists have equal digests; a list and its parts
//! stay within [`MAX_LIST_BYTES`], [`MAX_PARTS`], [`PART_FRIENDS`] and [`PART_BYTES`].

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use serde::Serialize;

use crate::time::Stamp;
use crate::user::{MAX_EPHEMERAL, MAX_EPHEMERAL_BYTES};

/// Friends in a part.
pub const PART_FRIENDS: usize = 500;
/// Bytes of a part. A friend who needs more by themselves is left out.
pub const PART_BYTES: usize = 64 * 1024;
/// Parts of a list. Friends who would come in later ones are left out.
pub const MAX_PARTS: usize = MAX_EPHEMERAL / 2;
/// Bytes of a list; it leaves room for what else is on its way at QoS 0. Friends beyond are left out.
pub const MAX_LIST_BYTES: usize = 6 * 1024 * 1024;
/// Bytes of names and keys after which an accounts database goes on at the next reading.
pub const PAGE_BYTES: usize = 1024 * 1024;
const _: () = assert!((MAX_LIST_BYTES as u64) < MAX_EPHEMERAL_BYTES);
/// Rows that a database looks at for a list. Friends in later ones are left out.
pub const MAX_ROWS: usize = 65_536;

const BEGIN: &str = r#"{"type":"friends","friends":["#;
/// Bytes of a part besides its friends, with numbers as long as they can be.
const ENVELOPE_BYTES: usize = 96;

/// A friend of a user, as that user is shown them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Friend<'a> {
    /// The friend's user id.
    pub user: &'a str,
    /// As the accounts database has it.
    pub name: Option<&'a str>,
    /// Whether the user to whom this is shown has blocked the friend.
    pub blocked: bool,
    /// As the accounts database has it.
    #[serde(rename = "publicKey")]
    pub public_key: Option<&'a str>,
}

/// The friends of one user.
#[derive(Default)]
pub struct List {
    json: Vec<u8>,
    /// Where the JSON of each friend ends.
    ends: Vec<usize>,
    /// A friend was left out.
    is_cut: bool,
}

impl List {
    /// Adds a friend, unless there is no room for them. Whether there may be room for another one.
    pub fn add(&mut self, friend: &Friend<'_>) -> bool {
        let begin = self.json.len();
        let is_short = |text: Option<&str>| text.is_none_or(|text| text.len() <= PART_BYTES);
        if !is_short(friend.name) || !is_short(friend.public_key) {
            self.is_cut = true;
            return true;
        }
        serde_json::to_writer(&mut self.json, friend).expect("texts always serialise");
        let is_full = self.json.len() > MAX_LIST_BYTES;
        if is_full || self.json.len() - begin > PART_BYTES - ENVELOPE_BYTES {
            self.json.truncate(begin);
            self.is_cut = true;
            return !is_full;
        }
        self.ends.push(self.json.len());
        true
    }

    /// There are more friends, who are left out.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Friends in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The JSON of each.
    pub fn friends(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        let places = begins.zip(&self.ends);
        places.map(|(begin, end)| &self.json[*begin..*end])
    }

    /// Whether a friend was left out for whom there was no room.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Differs from that of another list, but for a chance of 2^-64.
    pub(crate) fn digest(&self) -> u64 {
        // The JSON of a friend says where it ends.
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.json);
        hasher.finish()
    }

    /// The payloads that say it all, of at most `max_bytes` each. At least one; friends who fit into none are left out.
    pub(crate) fn parts(&self, max_bytes: usize, stamp: Stamp) -> Vec<Bytes> {
        let room = max_bytes.min(PART_BYTES).saturating_sub(ENVELOPE_BYTES);
        let mut parts = vec![Part::default()];
        for friend in self.friends() {
            if friend.len() > room {
                continue;
            }
            let is_last_full = parts.last().is_none_or(|part| part.is_full(friend, room));
            if is_last_full && parts.len() == MAX_PARTS {
                break;
            }
            if is_last_full {
                parts.push(Part::default());
            }
            if let Some(part) = parts.last_mut() {
                part.add(friend);
            }
        }
        let count = parts.len();
        let number = |(index, part): (usize, Part)| part.finish(index + 1, count, stamp);
        parts.into_iter().enumerate().map(number).collect()
    }
}

/// Some friends of a list.
#[derive(Default)]
struct Part {
    json: Vec<u8>,
    friends: usize,
}

impl Part {
    fn is_full(&self, next: &[u8], room: usize) -> bool {
        self.friends == PART_FRIENDS || self.json.len() + next.len() + 1 > room
    }

    fn add(&mut self, friend: &[u8]) {
        if self.friends > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(friend);
        self.friends += 1;
    }

    fn finish(self, number: usize, count: usize, stamp: Stamp) -> Bytes {
        let end = format!(r#"],"part":{number},"parts":{count},"timestamp":"{stamp}"}}"#);
        debug_assert!(BEGIN.len() + end.len() <= ENVELOPE_BYTES);
        [BEGIN.as_bytes(), &self.json, end.as_bytes()]
            .concat()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp::from_millis(1_700_000_000_000);

    fn friend(user: &str) -> Friend<'_> {
        Friend {
            user,
            name: Some("ben"),
            blocked: false,
            public_key: None,
        }
    }

    fn list(count: usize) -> List {
        let mut list = List::default();
        for number in 0..count {
            assert!(list.add(&friend(&number.to_string())));
        }
        list
    }

    fn friends_of(part: &Bytes) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_slice(part).unwrap();
        let friends = json["friends"].as_array().unwrap();
        friends
            .iter()
            .map(|it| it["user"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_friend_is_in_one_part_in_their_order_whatever_the_size() {
        for count in [0, 1, 2, 499, 500, 501, 999, 1000, 1001, 5000] {
            let list = list(count);
            for max_bytes in [200, 300, 1_000, 10_000, PART_BYTES, usize::MAX] {
                let parts = list.parts(max_bytes, STAMP);
                let found: Vec<_> = parts.iter().map(friends_of).collect();
                if parts.len() < MAX_PARTS {
                    let expected: Vec<_> = (0..count).map(|it| it.to_string()).collect();
                    assert_eq!(found.concat(), expected);
                }
                assert!(parts.len() <= MAX_PARTS);
                for (part, friends) in parts.iter().zip(found) {
                    assert!(part.len() <= max_bytes.min(PART_BYTES));
                    assert!(friends.len() <= PART_FRIENDS);
                    assert!(!friends.is_empty() || count == 0);
                }
            }
        }
        assert_eq!(list(1000).parts(usize::MAX, STAMP).len(), 2);
    }

    #[test]
    fn a_friend_who_does_not_fit_is_left_out_and_the_others_are_not() {
        let mut list = list(1);
        let long = "x".repeat(PART_BYTES + 1);
        for name in [&long[..], &long[..PART_BYTES - 50], &"\0".repeat(20_000)] {
            assert!(list.add(&Friend {
                name: Some(name),
                ..friend("77")
            }));
            assert!(list.add(&Friend {
                public_key: Some(name),
                ..friend("88")
            }));
        }
        assert!(list.add(&friend("9")));
        assert!(list.is_cut());
        let parts = list.parts(usize::MAX, STAMP);
        assert_eq!(
            parts.iter().flat_map(friends_of).collect::<Vec<_>>(),
            ["0", "9"]
        );
        // Nobody fits: the list is empty, and it ends.
        assert_eq!(list.parts(50, STAMP).iter().flat_map(friends_of).count(), 0);
    }

    #[test]
    fn a_list_ends_before_it_takes_more_memory_than_it_may() {
        let mut list = List::default();
        let key = "x".repeat(10_000);
        let long = Friend {
            public_key: Some(&key),
            ..friend("1")
        };
        let added = (0..10_000).take_while(|_| list.add(&long)).count();
        assert!(list.is_cut());
        assert_eq!(added, list.len());
        assert!((MAX_LIST_BYTES - 10_100..=MAX_LIST_BYTES).contains(&list.json.len()));
        let parts = list.parts(usize::MAX, STAMP);
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        assert!(bytes < MAX_LIST_BYTES + parts.len() * ENVELOPE_BYTES);
    }

    #[test]
    fn lists_that_differ_in_anything_have_other_digests() {
        let of = |friends: &[Friend<'_>]| {
            let mut list = List::default();
            friends.iter().for_each(|it| assert!(list.add(it)));
            list.digest()
        };
        let (one, two) = (friend("1"), friend("2"));
        let name = |name| Friend { name, ..one };
        let key = |public_key| Friend { public_key, ..one };
        let all = [
            of(&[]),
            of(&[one]),
            of(&[one, two]),
            of(&[two]),
            of(&[name(None)]),
            of(&[name(Some("ann"))]),
            of(&[name(Some(""))]),
            of(&[key(Some(""))]),
            of(&[key(Some("k"))]),
            of(&[Friend {
                blocked: true,
                ..one
            }]),
        ];
        for (index, digest) in all.iter().enumerate() {
            assert!(!all[..index].contains(digest), "{index}");
        }
        assert_eq!(of(&[one, two]), of(&[one, two]));
    }
}
