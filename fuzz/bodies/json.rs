//! Any bytes as a payload: its `from` and `id` are those that a second reader sees, which keeps every member of the top
//! level and unescapes every name.
//!
//! Both read with serde_json, so what is an object is looked at from another side: what no `Value` can be made of is one all
//! the same for three reasons only ([`VALUE_REFUSES`]).

use jam_core::payload::{self, MAX_ID, PayloadError};
use serde::Deserializer as _;
use serde::de::{Deserialize, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;

/// User ids, some of which JSON has to escape.
const SENDERS: [&str; 4] = ["1", "4711", "ü😀", "a\"b\\c\u{7f}"];

/// Why a `Value` cannot be made of what is an object all the same: a depth above 128, a lone surrogate, and a
/// number beyond 64-bit floating point.
const VALUE_REFUSES: [&str; 4] = [
    "recursion limit exceeded",
    "lone leading surrogate in hex escape",
    "unexpected end of hex escape",
    "number out of range",
];

/// The first byte chooses the sender; the rest is the payload.
pub(crate) fn run(data: &[u8]) {
    let [choice, payload @ ..] = data else {
        return;
    };
    let sender = SENDERS[usize::from(*choice) % SENDERS.len()];
    let verdict = payload::check_sender(payload, sender);
    let id = payload::message_id(payload);
    let Some(members) = members(payload) else {
        assert_eq!(verdict, Err(PayloadError::NotAnObject));
        assert_eq!(id, None, "an id of what is no object");
        return;
    };
    let expected = match named(&members, b"from")[..] {
        [from] if string(from).is_some_and(|it| it == sender.as_bytes()) => Ok(()),
        _ => Err(PayloadError::SenderMismatch),
    };
    assert_eq!(verdict, expected, "whose name it bears");
    let expected = match named(&members, b"id")[..] {
        [id] if id.get().len() <= MAX_ID && is_scalar(id) => Some(id.get()),
        _ => None,
    };
    assert_eq!(id, expected, "what its sender calls it");
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(payload) {
        let error = error.to_string();
        assert!(
            VALUE_REFUSES.iter().any(|it| error.starts_with(it)),
            "{error}"
        );
    }
}

/// The values of the top level with this name.
fn named<'a>(members: &[(Vec<u8>, &'a RawValue)], wanted: &[u8]) -> Vec<&'a RawValue> {
    let found = members.iter().filter(|(name, _)| name == wanted);
    found.map(|(_, value)| *value).collect()
}

/// A string or a number.
fn is_scalar(value: &RawValue) -> bool {
    value.get().starts_with(['"', '-']) || value.get().starts_with(|c: char| c.is_ascii_digit())
}

/// What a string says, lone surrogates included, as serde_json's bytes.
fn string(value: &RawValue) -> Option<Vec<u8>> {
    let mut parser = serde_json::Deserializer::from_str(value.get());
    let text = value
        .get()
        .starts_with('"')
        .then(|| parser.deserialize_bytes(Text))?;
    Some(text.expect("a string that was read before"))
}

/// The members of the top level, if the payload is an object in UTF-8.
fn members(payload: &[u8]) -> Option<Vec<(Vec<u8>, &RawValue)>> {
    let text = std::str::from_utf8(payload).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    serde_json::from_str::<Members<'_>>(text)
        .ok()
        .map(|it| it.0)
}

struct Members<'a>(Vec<(Vec<u8>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Text).map(Self)
    }
}

/// A string as bytes: a surrogate that is alone is encoded as any code point.
struct Text;

impl Visitor<'_> for Text {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }
}
