//! One type for every packet of MQTT 3.1, 3.1.1 and 5.0.
//!
//! A field that a version does not know is at its default when a packet of that version is decoded,
//! and left out when one is encoded. Strings are UTF-8 slices of the received buffer.
//!
//! `Debug` of payloads, passwords and property values prints a length, never the thing.

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;
use bytestring::ByteString;

use crate::reason::{ConnectReturnCode, ReasonCode};

/// A packet identifier: 1 to 65,535 (MQTT 5.0, section 2.2.1).
pub type PacketId = NonZeroU16;

pub use crate::user_properties::UserProperties;

/// The protocol version a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V4,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

/// Any MQTT control packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A client asks to connect.
    Connect(Box<Connect>),
    /// The server answers.
    ConnAck(Box<ConnAck>),
    /// A message.
    Publish(Publish),
    /// QoS 1: received.
    PubAck(Ack),
    /// QoS 2, first answer: received.
    PubRec(Ack),
    /// QoS 2: release.
    PubRel(Ack),
    /// QoS 2: complete.
    PubComp(Ack),
    /// A client subscribes.
    Subscribe(Box<Subscribe>),
    /// The server answers, a code for each filter.
    SubAck(Box<SubAck>),
    /// A client unsubscribes.
    Unsubscribe(Box<Unsubscribe>),
    /// The server answers; codes for each filter in 5.0 only.
    UnsubAck(Box<UnsubAck>),
    /// Ping.
    PingReq,
    /// Pong.
    PingResp,
    /// The last packet of a connection.
    Disconnect(Box<Disconnect>),
    /// Extended authentication (5.0).
    Auth(Box<Auth>),
}

/// CONNECT (MQTT 3.1.1 and 5.0, section 3.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// What the rest of the connection is spoken in.
    pub version: Version,
    /// Clean Session in 3.1.1, Clean Start in 5.0.
    pub clean_start: bool,
    /// Seconds; 0 switches keep alive off.
    pub keep_alive_secs: u16,
    /// May be empty.
    pub client_id: ByteString,
    /// Written when the connection ends without a DISCONNECT.
    pub will: Option<Box<Will>>,
    /// The user name.
    pub user_name: Option<ByteString>,
    /// Any bytes.
    pub password: Option<Bytes>,
    /// 5.0 only.
    pub properties: ConnectProperties,
}

/// The properties of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// Seconds; absent means 0, `u32::MAX` means never.
    pub session_expiry_secs: Option<u32>,
    /// How many QoS 1 and 2 messages the client takes at once; absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Bytes, the fixed header included; never 0.
    pub maximum_packet_size: Option<u32>,
    /// Highest topic alias the client takes; absent means 0: none.
    pub topic_alias_maximum: Option<u16>,
    /// Absent means false.
    pub request_response_information: Option<bool>,
    /// Absent means true.
    pub request_problem_information: Option<bool>,
    /// User Properties.
    pub user: UserProperties,
    /// Name of an extended authentication method.
    pub authentication_method: Option<ByteString>,
    /// Data of that method.
    pub authentication_data: Option<Bytes>,
}

/// The will of a CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: ByteString,
    /// What.
    pub payload: Bytes,
    /// How.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Seconds between the end of the connection and the will (5.0); absent means 0.
    pub delay_secs: Option<u32>,
    /// As those of a PUBLISH; topic alias and subscription identifiers do not occur.
    pub properties: PublishProperties,
}

/// CONNACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the server has the client's session.
    pub session_present: bool,
    /// Of the kind the version speaks: [`encode`](crate::encode::encode) refuses the other one.
    pub code: ConnectCode,
    /// 5.0 only.
    pub properties: ConnAckProperties,
}

/// The outcome of a CONNECT, as 3.1.1 and as 5.0 say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectCode {
    /// A return code of MQTT 3.1 and 3.1.1.
    V3(ConnectReturnCode),
    /// A reason code of MQTT 5.0.
    V5(ReasonCode),
}

/// The properties of a CONNACK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAckProperties {
    /// Seconds, where the server's differs from what the client asked for.
    pub session_expiry_secs: Option<u32>,
    /// How many QoS 1 and 2 messages the server takes at once; absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Absent means QoS 2. Only 0 and 1 can be said.
    pub maximum_qos: Option<QoS>,
    /// Absent means true.
    pub retain_available: Option<bool>,
    /// Bytes; never 0.
    pub maximum_packet_size: Option<u32>,
    /// A client id made by the server.
    pub assigned_client_id: Option<ByteString>,
    /// Absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user: UserProperties,
    /// Absent means true.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent means true.
    pub subscription_ids_available: Option<bool>,
    /// Absent means true.
    pub shared_subscription_available: Option<bool>,
    /// Seconds the client must use instead of its own.
    pub server_keep_alive_secs: Option<u16>,
    /// A topic prefix for responses.
    pub response_information: Option<ByteString>,
    /// Another server.
    pub server_reference: Option<ByteString>,
    /// Name of an extended authentication method.
    pub authentication_method: Option<ByteString>,
    /// Data of that method.
    pub authentication_data: Option<Bytes>,
}

/// PUBLISH (section 3.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain.
    pub retain: bool,
    /// May hold `#` and `+`: the server's policy answers them with an error. Empty only in 5.0 with an alias.
    pub topic: ByteString,
    /// Present exactly when the QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// 5.0 only. `None` says the same as empty ones, and is what the decoder gives for those: most packets have
    /// none, and they would be the larger part of what is moved from hand to hand.
    pub properties: Option<Box<PublishProperties>>,
    /// A slice of the received buffer.
    pub payload: Bytes,
}

/// The properties of a PUBLISH.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PublishProperties {
    /// Whether the payload is UTF-8 text.
    pub payload_is_utf8: Option<bool>,
    /// Seconds.
    pub message_expiry_secs: Option<u32>,
    /// Stands for the topic.
    pub topic_alias: Option<NonZeroU16>,
    /// Where an answer goes.
    pub response_topic: Option<ByteString>,
    /// What an answer carries.
    pub correlation_data: Option<Bytes>,
    /// User Properties.
    pub user: UserProperties,
    /// 1 to 268,435,455; from server to client only.
    pub subscription_ids: Vec<u32>,
    /// For the apps.
    pub content_type: Option<ByteString>,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Of the PUBLISH.
    pub packet_id: PacketId,
    /// 5.0 only; [`ReasonCode::Success`] in 3.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: ReasonProperties,
}

/// A reason string and user properties: all that most answers of 5.0 may carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReasonProperties {
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User Properties.
    pub user: UserProperties,
}

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Of this packet.
    pub packet_id: PacketId,
    /// 1 to 268,435,455 (5.0).
    pub subscription_id: Option<u32>,
    /// User Properties (5.0).
    pub user: UserProperties,
    /// At least one.
    pub filters: Vec<Filter>,
}

/// A topic filter of a SUBSCRIBE with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Not empty; not checked for the syntax of wildcards.
    pub filter: ByteString,
    /// Highest QoS of what is sent.
    pub qos: QoS,
    /// Not to the connection that published it (5.0).
    pub no_local: bool,
    /// Keep RETAIN as it was published (5.0).
    pub retain_as_published: bool,
    /// What to do with retained messages (5.0).
    pub retain_handling: RetainHandling,
}

/// When a SUBSCRIBE brings retained messages (5.0, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub properties: ReasonProperties,
    /// One for each filter: 0x00 to 0x02 granted; in 3.1.1 every failure is 0x80.
    pub codes: Vec<ReasonCode>,
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Of this packet.
    pub packet_id: PacketId,
    /// User Properties (5.0).
    pub user: UserProperties,
    /// At least one, none empty.
    pub filters: Vec<ByteString>,
}

/// UNSUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 only.
    pub properties: ReasonProperties,
    /// One for each filter (5.0); empty in 3.
    pub codes: Vec<ReasonCode>,
}

/// DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// 5.0 only; [`ReasonCode::Success`] (0x00, normal disconnection) in 3.
    pub reason: ReasonCode,
    /// Seconds (5.0).
    pub session_expiry_secs: Option<u32>,
    /// Another server (5.0).
    pub server_reference: Option<ByteString>,
    /// 5.0 only.
    pub properties: ReasonProperties,
}

/// AUTH (5.0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// 0x00, 0x18 or 0x19.
    pub reason: ReasonCode,
    /// Name of the method.
    pub authentication_method: Option<ByteString>,
    /// Data of the method.
    pub authentication_data: Option<Bytes>,
    /// Reason string and user properties.
    pub properties: ReasonProperties,
}

/// The length of something that must not be printed.
struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|p| Hidden(p.len())))
            .field("properties", &self.properties)
            .finish()
    }
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload", &Hidden(self.payload.len()))
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("delay_secs", &self.delay_secs)
            .field("properties", &self.properties)
            .finish()
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("packet_id", &self.packet_id)
            .field("properties", &self.properties)
            .field("payload", &Hidden(self.payload.len()))
            .finish()
    }
}

impl fmt::Debug for PublishProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishProperties")
            .field("payload_is_utf8", &self.payload_is_utf8)
            .field("message_expiry_secs", &self.message_expiry_secs)
            .field("topic_alias", &self.topic_alias)
            .field("response_topic", &self.response_topic)
            .field(
                "correlation_data",
                &self.correlation_data.as_ref().map(|d| Hidden(d.len())),
            )
            .field("user", &self.user)
            .field("subscription_ids", &self.subscription_ids)
            .field("content_type", &self.content_type)
            .finish()
    }
}

impl Ack {
    /// An answer that says success and nothing else.
    #[must_use]
    pub fn success(packet_id: PacketId) -> Self {
        Self::with_reason(packet_id, ReasonCode::Success)
    }

    /// An answer with a reason and no properties.
    #[must_use]
    pub fn with_reason(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: ReasonProperties::default(),
        }
    }
}

impl Disconnect {
    /// A DISCONNECT with a reason and nothing else.
    #[must_use]
    pub fn with_reason(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_secs: None,
            server_reference: None,
            properties: ReasonProperties::default(),
        }
    }
}

impl QoS {
    /// From the two bits of a header; 3 is malformed.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

impl Auth {
    /// Whether this is what an AUTH of Remaining Length 0 says: Success, and nothing else.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.reason == ReasonCode::Success
            && self.authentication_method.is_none()
            && self.authentication_data.is_none()
            && self.properties == ReasonProperties::default()
    }
}

impl From<ConnectCode> for u8 {
    fn from(code: ConnectCode) -> u8 {
        match code {
            ConnectCode::V3(code) => code.into(),
            ConnectCode::V5(code) => code.into(),
        }
    }
}
