//! Names: user ids, client ids and the topics that are made of them (PROTOCOL.md, section 1).
//!
//! A [`UserId`] is well-formed by construction; nothing else says that the account exists. A
//! [`ClientId`] belongs to the user id before its first `:`.
//!
//! Both are kept in place while they are short, as nearly all are, and shared from then on: a copy never
//! allocates, and holds no packet that the name came in.

use std::fmt;

use bytestring::ByteString;
use smol_str::SmolStr;

/// An opaque user id: 1 to 64 bytes of UTF-8 without `/ + # $ :` and NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(SmolStr);

/// Why a string is no user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidUserId;

impl fmt::Display for InvalidUserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a user id has 1 to {} bytes and none of / + # $ : NUL",
            UserId::MAX_LEN
        )
    }
}

impl std::error::Error for InvalidUserId {}

impl UserId {
    /// Bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks the form.
    ///
    /// # Errors
    /// If the string is empty, longer than [`Self::MAX_LEN`] bytes or holds one of `/ + # $ :` or NUL.
    pub fn parse(id: impl AsRef<str>) -> Result<Self, InvalidUserId> {
        let id = id.as_ref();
        let forbidden = |b: u8| matches!(b, b'/' | b'+' | b'#' | b'$' | b':' | 0);
        if id.is_empty() || id.len() > Self::MAX_LEN || id.bytes().any(forbidden) {
            return Err(InvalidUserId);
        }
        Ok(Self(SmolStr::new(id)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a string for a packet.
    #[must_use]
    pub fn to_byte_string(&self) -> ByteString {
        self.as_str().into()
    }

    /// What follows the user's own id in a topic that is one of theirs; nothing is allocated to find out.
    pub(crate) fn own_channel<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let topic = topic.strip_prefix('/')?.strip_prefix(self.as_str())?;
        topic.strip_prefix('/')
    }

    /// Whether this is the topic of this user's inbox.
    #[must_use]
    pub fn is_inbox(&self, topic: &str) -> bool {
        self.own_channel(topic) == Some("inbox")
    }

    /// The topic of this user's inbox: `/<user id>/inbox`.
    #[must_use]
    pub fn inbox(&self) -> ByteString {
        format!("/{}/inbox", self.0).into()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client id: `<user id>:<device id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(SmolStr);

impl ClientId {
    /// Bytes of a client that is let in ([`crate::policy::authenticate`]).
    pub const MAX_LEN: usize = 256;

    /// Any string is a client id.
    #[must_use]
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(SmolStr::new(id))
    }

    /// What stands before the first `:`, or everything.
    #[must_use]
    pub fn user_part(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the device channel; nothing is allocated to find out.
    #[must_use]
    pub fn is_device_channel(&self, topic: &str) -> bool {
        topic
            .strip_prefix('/')
            .and_then(|topic| topic.strip_prefix(self.user_part()))
            .and_then(|topic| topic.strip_prefix("/devices/"))
            .is_some_and(|client| client == self.as_str())
    }

    /// The device channel: `/<user id>/devices/<client id>`.
    #[must_use]
    pub fn device_channel(&self) -> ByteString {
        format!("/{}/devices/{}", self.user_part(), self.0).into()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
