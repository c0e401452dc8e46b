//! Values of any type as bytes.

use std::borrow::Cow;

use rusqlite::types::ValueRef;

/// NULL, the empty text and what nobody can send are no token.
pub(super) fn token(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if !bytes.is_empty() => Some(bytes.into()),
        ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
        _ => None,
    }
}
