//! Whose name a message's payload bears (PROTOCOL.md, section 4, the rows `payload`), and what its sender
//! calls it (section 10).
//!
//! serde_json reads the payload and builds nothing: a name or a value of the top level is a slice of the text as it stands
//! there. An object nested to any depth is one (a byte of memory for each level), and so is one with lone surrogate
//! escapes, numbers of any size, and names that occur twice, other than `from`.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

#[cfg(test)]
mod tests;

/// Why a payload may not go to an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// It is not a JSON object in UTF-8.
    NotAnObject,
    /// Its `from` is missing, is no string, is not the sender, or stands in it twice at the top level.
    SenderMismatch,
}

/// Checks that `payload` is a JSON object whose one top-level `from` is the string `sender`.
///
/// # Errors
/// [`PayloadError::NotAnObject`] wins over [`PayloadError::SenderMismatch`], wherever in the payload
/// the two stand.
pub fn check_sender(payload: &[u8], sender: &str) -> Result<(), PayloadError> {
    match the_one(payload, "from")? {
        Some(from) if spells(from, sender) => Ok(()),
        _ => Err(PayloadError::SenderMismatch),
    }
}

/// Bytes of an id that a receipt repeats.
pub const MAX_ID: usize = 256;

/// The value of the top level's one `id`, as it stands there, if it is a string or a number of at most
/// [`MAX_ID`] bytes (PROTOCOL.md, section 10).
#[must_use]
pub fn message_id(payload: &[u8]) -> Option<&str> {
    let id = the_one(payload, "id").ok()??;
    let is_scalar = id.starts_with(|c: char| matches!(c, '"' | '-' | '0'..='9'));
    (is_scalar && id.len() <= MAX_ID).then_some(id)
}

/// The value of the one member of the top level with this name, as it stands there; `None` if there is no such member, or
/// more than one.
fn the_one<'a>(payload: &'a [u8], name: &str) -> Result<Option<&'a str>, PayloadError> {
    let text = std::str::from_utf8(payload).map_err(|_| PayloadError::NotAnObject)?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let found = parser.deserialize_map(TheOne(name));
    let found = found.map_err(|_| PayloadError::NotAnObject)?;
    parser.end().map_err(|_| PayloadError::NotAnObject)?;
    Ok(found)
}

/// Reads an object to its end and keeps the value of its one member with this name.
struct TheOne<'a>(&'a str);

impl<'de> Visitor<'de> for TheOne<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut count, mut found) = (0_usize, None);
        while let Some(name) = map.next_key::<&RawValue>()? {
            if spells(name.get(), self.0) {
                count += 1;
                found = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found.filter(|_| count == 1))
    }
}

/// Whether a JSON value is the string `text`, escapes resolved. A lone surrogate is no character of any text.
fn spells(value: &str, text: &str) -> bool {
    let inside = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inside.is_some_and(|inside| {
        let unescaped = || serde_json::from_str::<String>(value).is_ok_and(|it| it == text);
        inside == text || (inside.contains('\\') && unescaped())
    })
}
