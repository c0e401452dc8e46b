//! [`UserProperties`]: the User Properties of a packet (MQTT 5.0), as they stand in it.
//!
//! Invariant: the bytes are whole User Properties, their identifiers included, whose names and values are
//! UTF-8 without U+0000; so what a packet has of them takes the memory of its bytes, however many they are.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::EncodeError;
use crate::property::USER;

/// User Properties: names and values, in the order in which they were sent. A name may stand more than once.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UserProperties(Bytes);

impl UserProperties {
    /// What was checked to be User Properties.
    pub(crate) fn from_checked(encoded: Bytes) -> Self {
        Self(encoded)
    }

    /// As a packet has them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (_id, pair) = rest.split_first()?;
            rest = pair;
            Some((string(&mut rest), string(&mut rest)))
        })
    }

    /// The same, in memory of their own.
    #[must_use]
    pub fn to_detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Adds one at the end; copies what there is.
    ///
    /// # Errors
    /// If the name or the value is longer than 65,535 bytes.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        let mut encoded = BytesMut::with_capacity(self.0.len() + 5 + name.len() + value.len());
        encoded.put_slice(&self.0);
        put(name, value, &mut encoded)?;
        self.0 = encoded.freeze();
        Ok(())
    }

    /// Keeps those whose name and value `which` wants; copies only if it does not want all.
    pub fn retain(&mut self, mut which: impl FnMut(&str, &str) -> bool) {
        if self.iter().all(|(name, value)| which(name, value)) {
            return;
        }
        let mut encoded = BytesMut::with_capacity(self.0.len());
        for (name, value) in self.iter().filter(|(name, value)| which(name, value)) {
            put(name, value, &mut encoded).expect("what was encoded is not too long");
        }
        self.0 = encoded.freeze();
    }
}

fn put(name: &str, value: &str, encoded: &mut BytesMut) -> Result<(), EncodeError> {
    let len = |text: &str| {
        u16::try_from(text.len()).map_err(|_| EncodeError::StringTooLong { len: text.len() })
    };
    let (name_len, value_len) = (len(name)?, len(value)?);
    encoded.put_u8(USER);
    encoded.put_u16(name_len);
    encoded.put_slice(name.as_bytes());
    encoded.put_u16(value_len);
    encoded.put_slice(value.as_bytes());
    Ok(())
}

/// Takes the string at the front of what was checked.
fn string<'a>(rest: &mut &'a [u8]) -> &'a str {
    let checked = "the strings were checked";
    let (len, tail) = rest.split_first_chunk().expect(checked);
    let (text, tail) = tail.split_at(u16::from_be_bytes(*len).into());
    *rest = tail;
    std::str::from_utf8(text).expect(checked)
}

/// # Panics
/// If a name or a value is longer than 65,535 bytes.
impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for UserProperties {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let mut encoded = BytesMut::new();
        for (name, value) in pairs {
            put(name.as_ref(), value.as_ref(), &mut encoded)
                .expect("a string of 65,535 bytes at most");
        }
        Self(encoded.freeze())
    }
}

/// # Panics
/// If a name or a value is longer than 65,535 bytes.
impl<N: AsRef<str>, V: AsRef<str>, const COUNT: usize> From<[(N, V); COUNT]> for UserProperties {
    fn from(pairs: [(N, V); COUNT]) -> Self {
        pairs.into_iter().collect()
    }
}

/// Prints how long they are.
impl fmt::Debug for UserProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}
