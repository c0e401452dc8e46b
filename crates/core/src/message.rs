//! A message on its way: what its sender wrote and what the server knows of it.
//!
//! The payload is the very buffer that came from the sender's socket and is never changed (PROTOCOL.md,
//! section 4). Properties that are about one hop (topic alias, subscription identifiers, expiry) are
//! not kept; what receivers are told about them is worked out for each delivery.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use jam_wire::encode;
use jam_wire::packet::{PacketId, Publish, PublishProperties, QoS, Will};

use crate::directory::Life;
use crate::ids::UserId;
use crate::metrics::Channel;
use crate::time::Time;

/// What a message that is held in memory costs besides what it weighs, about: its own fields, and its entry in a log.
pub const ENTRY_BYTES: u64 = 256;

/// Payloads below this many bytes may be a small part of the buffer that they came in; larger ones came in a
/// buffer that was made for their packet.
const OWN_BUFFER_BYTES: usize = 64 * 1024;

/// The User Property by which 5.0 receivers learn who wrote; only the server sets it.
const FROM: &str = "from";

/// What was published, ready for any number of deliveries.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    packet_id: Option<PacketId>,
    pub(crate) sender: UserId,
    /// Which of the accounts that have had that id; `None` if that was not kept.
    pub(crate) sender_life: Option<Life>,
    pub(crate) received_at: Time,
    pub(crate) expires_at: Time,
    properties: Option<Box<PublishProperties>>,
}

/// How a message goes to one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) channel: Channel,
}

/// Copies what is a slice of the buffer that the CONNECT came in, for the will may outlive it by far.
pub(crate) fn detach_will(will: &mut Will) {
    will.topic = ByteString::from(AsRef::<str>::as_ref(&will.topic));
    will.payload = Bytes::copy_from_slice(&will.payload);
    detach_properties(&mut will.properties);
}

/// What a will weighs: as [`Message::weight`].
pub(crate) fn will_weight(will: &Will) -> u64 {
    weigh(&will.topic, Some(&will.properties), &will.payload)
}

fn weigh(topic: &str, properties: Option<&PublishProperties>, payload: &[u8]) -> u64 {
    let properties = properties.map_or(0, encode::properties_len);
    (topic.len() + properties + payload.len()) as u64
}

fn detach_properties(properties: &mut PublishProperties) {
    let own = |text: &ByteString| ByteString::from(AsRef::<str>::as_ref(text));
    properties.response_topic = properties.response_topic.as_ref().map(own);
    properties.content_type = properties.content_type.as_ref().map(own);
    properties.correlation_data = properties
        .correlation_data
        .as_ref()
        .map(|data| Bytes::copy_from_slice(data));
    properties.user = properties.user.to_detached();
}

impl Message {
    /// Takes what matters out of a PUBLISH, whose topic alias has been resolved.
    pub(crate) fn new(publish: Publish, sender: UserId, now: Time) -> Self {
        let (mut properties, mut expires_at) = (publish.properties, Time::NEVER);
        if let Some(it) = &mut properties {
            if let Some(secs) = it.message_expiry_secs.take() {
                expires_at = now + Duration::from_secs(secs.into());
            }
            it.topic_alias = None;
            it.subscription_ids.clear();
            it.user.retain(|name, _| name != FROM);
        }
        let properties = properties.filter(|it| **it != PublishProperties::default());
        Self {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            sender,
            sender_life: None,
            received_at: now,
            expires_at,
            properties,
        }
    }

    /// What has to be kept of the message besides its sender and its times: a PUBLISH of 5.0. Its packet
    /// id means something only if there is a [`Self::packet_id`].
    #[must_use]
    pub fn to_stored(&self) -> Publish {
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.clone(),
            packet_id: (self.qos != QoS::AtMostOnce)
                .then_some(self.packet_id.unwrap_or(PacketId::MIN)),
            properties: self.properties.clone(),
            payload: self.payload.clone(),
        }
    }

    /// The QoS that it was published with.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// The message that was kept as `stored`, whose packet id is left out if it means nothing.
    #[must_use]
    pub fn from_stored(
        stored: Publish,
        sender: UserId,
        sender_life: Option<Life>,
        received_at: Time,
        expires_at: Time,
    ) -> Self {
        Self {
            sender_life,
            received_at,
            expires_at,
            ..Self::new(stored, sender, received_at)
        }
    }

    /// Who wrote it.
    #[must_use]
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// Which of the accounts that have had the sender's id wrote it, if that is known.
    #[must_use]
    pub fn sender_life(&self) -> Option<Life> {
        self.sender_life
    }

    /// The account is told from others by this from now on.
    pub fn set_sender_life(&mut self, life: Life) {
        self.sender_life = Some(life);
    }

    /// What it was published under, if it came as a PUBLISH of QoS 1 or 2 and not as a will.
    #[must_use]
    pub fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }

    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &ByteString {
        &self.topic
    }

    /// When the server received it.
    #[must_use]
    pub fn received_at(&self) -> Time {
        self.received_at
    }

    /// When it expires, by its own Message Expiry Interval.
    #[must_use]
    pub fn expires_at(&self) -> Time {
        self.expires_at
    }

    /// Copies what is a slice of the sender's receive buffer, so that a message that has to wait does
    /// not hold more memory than its own.
    pub(crate) fn detach(&mut self) {
        self.payload = Bytes::copy_from_slice(&self.payload);
        self.topic = ByteString::from(AsRef::<str>::as_ref(&self.topic));
        if let Some(properties) = &mut self.properties {
            detach_properties(properties);
        }
    }

    /// The same message, in memory of its own if it may be a small part of the buffer that it came in.
    pub(crate) fn into_detached(self: Arc<Self>) -> Arc<Self> {
        if self.payload.len() >= OWN_BUFFER_BYTES {
            return self;
        }
        let mut detached = Self {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            sender: self.sender.clone(),
            properties: self.properties.clone(),
            ..*self
        };
        detached.detach();
        Arc::new(detached)
    }

    /// Bytes that count in every bound on messages (PROTOCOL.md, section 7.7): its topic, its properties as they are
    /// encoded, its payload.
    #[must_use]
    pub fn weight(&self) -> u64 {
        weigh(&self.topic, self.properties.as_deref(), &self.payload)
    }

    /// The packet for one device; `with_properties` for 5.0.
    pub(crate) fn to_publish(&self, terms: Terms, with_properties: bool, now: Time) -> Publish {
        let properties = with_properties.then(|| self.properties_for(terms, now));
        Publish {
            dup: terms.dup,
            qos: terms.qos,
            retain: terms.retain,
            topic: self.topic.clone(),
            packet_id: terms.packet_id,
            properties,
            payload: self.payload.clone(),
        }
    }

    fn properties_for(&self, terms: Terms, now: Time) -> Box<PublishProperties> {
        let mut properties = self.properties.clone().unwrap_or_default();
        properties
            .user
            .push(FROM, self.sender.as_str())
            .expect("a user id has at most 64 bytes");
        properties.subscription_ids.extend(terms.subscription_id);
        if self.expires_at != Time::NEVER {
            // Rounded down: the receiver must not take it for longer than it lasts.
            let left = self.expires_at.since(now).as_secs();
            properties.message_expiry_secs = Some(u32::try_from(left).unwrap_or(u32::MAX));
        }
        properties
    }
}
