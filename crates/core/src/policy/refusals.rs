//! Every refusal there is, in the order of the protocol's tables.

use ConnectReturnCode::{BadUserNameOrPassword, NotAuthorized, ServerUnavailable};
use bytestring::ByteString;
use jam_wire::{ConnectReturnCode, ReasonCode};

/// Which check refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// Before anything else of a CONNECT.
    PreConnect,
    /// Whether the client is the user that it says.
    Authenticate,
    /// Whether it may write to the topic.
    AuthorizePublish,
    /// Whether it may read the topic.
    AuthorizeSubscribe,
}

impl Handler {
    /// The name in an error's JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreConnect => "preConnect",
            Self::Authenticate => "authenticate",
            Self::AuthorizePublish => "authorizePublish",
            Self::AuthorizeSubscribe => "authorizeSubscribe",
        }
    }

    /// The packet that is refused, for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PreConnect | Self::Authenticate => "connect",
            Self::AuthorizePublish => "publish",
            Self::AuthorizeSubscribe => "subscribe",
        }
    }
}

/// A row of the protocol's tables: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which handler refused.
    pub handler: Handler,
    /// The row's name in logs and metrics, unique among those of its [`Handler::label`]. It has nothing of the client's.
    pub slug: &'static str,
    /// For programs.
    pub category: ByteString,
    /// For people; fixed texts.
    pub message: &'static str,
    /// The return code of a CONNACK in 3.1 and 3.1.1; other packets there have one failure or none.
    pub return_code: ConnectReturnCode,
    /// The reason code in 5.0.
    pub reason: ReasonCode,
}

impl Refusal {
    /// The error as JSON, keys in the order of PROTOCOL.md, section 2.
    #[must_use]
    pub fn to_json(&self, message_id: Option<u16>) -> String {
        #[derive(serde::Serialize)]
        struct Error<'a> {
            r#type: &'static str,
            handler: &'static str,
            category: &'a str,
            message: &'static str,
            #[serde(rename = "messageId")]
            message_id: Option<u16>,
        }
        serde_json::to_string(&Error {
            r#type: "error",
            handler: self.handler.name(),
            category: &self.category,
            message: self.message,
            message_id,
        })
        .expect("strings and a number always serialise")
    }

    /// The place of its row in [`ROWS`].
    #[must_use]
    pub fn row(&self) -> usize {
        let is_it = |row: &Self| row.handler == self.handler && row.slug == self.slug;
        let found = ROWS.iter().position(is_it);
        found.expect("every refusal is a row: tests::every_row_has_a_name_of_its_own")
    }
}

const fn refusal(
    handler: Handler,
    slug: &'static str,
    category: &'static str,
    message: &'static str,
    return_code: ConnectReturnCode,
    reason: ReasonCode,
) -> Refusal {
    let category = ByteString::from_static(category);
    Refusal {
        handler,
        slug,
        category,
        message,
        return_code,
        reason,
    }
}

const fn publish(
    slug: &'static str,
    category: &'static str,
    message: &'static str,
    reason: ReasonCode,
) -> Refusal {
    let handler = Handler::AuthorizePublish;
    refusal(handler, slug, category, message, NotAuthorized, reason)
}

const fn subscribe(slug: &'static str, message: &'static str, reason: ReasonCode) -> Refusal {
    let handler = Handler::AuthorizeSubscribe;
    refusal(handler, slug, "", message, NotAuthorized, reason)
}

/// Section 3.
pub const SPAM: Refusal = refusal(
    Handler::PreConnect,
    "spam",
    "spam",
    "too many failed auth attempts",
    BadUserNameOrPassword,
    ReasonCode::ConnectionRateExceeded,
);
/// Section 3.
pub const ID_MISMATCH: Refusal = refusal(
    Handler::Authenticate,
    "id",
    "id",
    "client id and user id don't match",
    BadUserNameOrPassword,
    ReasonCode::ClientIdentifierNotValid,
);
/// Section 3.
pub const TOKEN_FORMAT: Refusal = refusal(
    Handler::Authenticate,
    "token_format",
    "api_token",
    "wrong api token format",
    BadUserNameOrPassword,
    ReasonCode::BadUserNameOrPassword,
);
/// Section 3.
pub const UNKNOWN_USER: Refusal = refusal(
    Handler::Authenticate,
    "unknown_user",
    "api_token",
    "unknown user id",
    NotAuthorized,
    ReasonCode::NotAuthorized,
);
/// Section 3.
pub const WRONG_TOKEN: Refusal = refusal(
    Handler::Authenticate,
    "wrong_token",
    "api_token",
    "wrong api token",
    NotAuthorized,
    ReasonCode::NotAuthorized,
);
/// The directory cannot say whether the account exists.
pub const CONNECT_WITHOUT_DIRECTORY: Refusal = refusal(
    Handler::Authenticate,
    "database",
    "api_token",
    "fatal database error",
    ServerUnavailable,
    ReasonCode::ServerUnavailable,
);
/// Section 3, one device at a time: what the first device is told.
pub const LOGOUT: Refusal = refusal(
    Handler::Authenticate,
    "logout",
    "logout",
    "a new device has connected",
    NotAuthorized,
    ReasonCode::SessionTakenOver,
);

/// Section 4.
pub const TOPIC_TOO_LONG: Refusal = publish(
    "topic_too_long",
    "topic",
    "topic is too long",
    ReasonCode::TopicNameInvalid,
);
/// Section 4.
pub const TOPIC_LEVELS: Refusal = publish(
    "topic_levels",
    "topic",
    "not enough topic levels",
    ReasonCode::TopicNameInvalid,
);
/// Section 4.
pub const TOPIC_WILDCARDS: Refusal = publish(
    "topic_wildcards",
    "topic",
    "wildcards are not allowed in topic",
    ReasonCode::TopicNameInvalid,
);
/// Section 4.
pub const TOPIC_FOREIGN: Refusal = publish(
    "topic_foreign",
    "topic",
    "can't publish to other user's channel except inbox",
    ReasonCode::NotAuthorized,
);
/// Section 4.
pub const PROPERTIES: Refusal = publish(
    "properties",
    "properties",
    "too many user properties",
    ReasonCode::QuotaExceeded,
);
/// Section 4.
pub const PAYLOAD_NOT_JSON: Refusal = publish(
    "payload_not_json",
    "payload",
    "payload is not valid json",
    ReasonCode::PayloadFormatInvalid,
);
/// Section 4.
pub const PAYLOAD_SENDER: Refusal = publish(
    "payload_sender",
    "payload",
    "payload sender id mismatch",
    ReasonCode::NotAuthorized,
);
/// Section 4.
pub const NOT_FRIENDS: Refusal = publish(
    "not_friends",
    "friends",
    "not friends with the receiver",
    ReasonCode::NotAuthorized,
);
/// Section 4.
pub const NOTIFICATION_TOKEN: Refusal = publish(
    "notification_token",
    "notification_token",
    "fatal database error",
    ReasonCode::ImplementationSpecificError,
);
/// The directory cannot say whether the two are friends.
pub const PUBLISH_WITHOUT_DIRECTORY: Refusal = publish(
    "database",
    "friends",
    "fatal database error",
    ReasonCode::ImplementationSpecificError,
);
/// Section 7.
pub const QUOTA: Refusal = publish(
    "inbox_full",
    "quota",
    "the receiver's inbox is full",
    ReasonCode::QuotaExceeded,
);

/// Section 8.
pub const RATE: Refusal = publish(
    "rate",
    "rate",
    "sending too fast",
    ReasonCode::QuotaExceeded,
);

/// The mailbox cannot be written to at the moment.
pub const STORE: Refusal = publish(
    "store",
    "mailbox",
    "the server cannot keep messages at the moment",
    ReasonCode::ImplementationSpecificError,
);

/// Section 5; the category is the filter, shortened.
pub const FILTER_TOO_LONG: Refusal = subscribe(
    "filter_too_long",
    "topic is too long",
    ReasonCode::TopicFilterInvalid,
);
/// Section 5; the category is the filter.
pub const FILTER_WILDCARDS: Refusal = subscribe(
    "filter_wildcards",
    "wildcards are not allowed in topic",
    ReasonCode::WildcardSubscriptionsNotSupported,
);
/// Section 5; the category is the filter.
pub const FILTER_LEVELS: Refusal = subscribe(
    "filter_levels",
    "not enough topic levels",
    ReasonCode::TopicFilterInvalid,
);
/// Section 5; the category is the filter.
pub const FILTER_FOREIGN: Refusal = subscribe(
    "filter_foreign",
    "not authorized",
    ReasonCode::NotAuthorized,
);

/// Every row, in the order of the protocol's tables.
pub static ROWS: [Refusal; 24] = [
    SPAM,
    ID_MISMATCH,
    TOKEN_FORMAT,
    UNKNOWN_USER,
    WRONG_TOKEN,
    CONNECT_WITHOUT_DIRECTORY,
    LOGOUT,
    TOPIC_TOO_LONG,
    TOPIC_LEVELS,
    TOPIC_WILDCARDS,
    TOPIC_FOREIGN,
    PROPERTIES,
    PAYLOAD_NOT_JSON,
    PAYLOAD_SENDER,
    NOT_FRIENDS,
    NOTIFICATION_TOKEN,
    PUBLISH_WITHOUT_DIRECTORY,
    QUOTA,
    RATE,
    STORE,
    FILTER_TOO_LONG,
    FILTER_WILDCARDS,
    FILTER_LEVELS,
    FILTER_FOREIGN,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A row that is not in the list has no counter: `Refusal::row` would not find it.
    #[test]
    fn every_row_has_a_name_of_its_own() {
        let names: BTreeSet<_> = ROWS
            .iter()
            .map(|row| (row.handler.label(), row.slug))
            .collect();
        assert_eq!(names.len(), ROWS.len());
        let words = |slug: &str| {
            slug.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        };
        assert!(ROWS.iter().all(|row| words(row.slug)));
        let consts = include_str!("refusals.rs").matches(": Refusal =").count();
        assert_eq!(
            consts - 1,
            ROWS.len(),
            "this line is one of them, and each row is in the list"
        );
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.row(), index);
        }
    }
}
