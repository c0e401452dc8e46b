//! Values of any type as bytes, and what is remembered of those that are not to be kept.

use std::borrow::Cow;

use jam_core::directory::Mark;
use ring::digest;
use rusqlite::types::ValueRef;

/// What is remembered of a value that is not to be kept: the beginning of the SHA-256 of its parts. The first says what it is,
/// so that equal values of different kinds or users have different marks.
pub(super) fn mark(parts: &[&[u8]]) -> Mark {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let (begin, _) = digest.as_ref().split_at(Mark::LEN);
    Mark::new(begin.try_into().expect("it was split there"))
}

/// NULL, the empty text and what nobody can send are no token.
pub(super) fn token(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if !bytes.is_empty() => Some(bytes.into()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
        _ => None,
    }
}
