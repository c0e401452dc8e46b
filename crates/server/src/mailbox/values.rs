//! Values as any kind of store keeps them: packets of MQTT 5.0, and numbers.
//!
//! Invariants: content is kept as the packets that the standard defines, and by no format of our own;
//! what was written comes back equal (`tests::kept`); what cannot be read back is an error, never a
//! default.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use jam_core::directory::{Life, Mark};
use jam_core::ids::UserId;
use jam_core::message::Message;
use jam_core::store::{Append, OutboundState, Subscription};
use jam_core::time::Time;
use jam_wire::packet::{Packet, PacketId, Publish, QoS, Version, Will};
use jam_wire::{Decoder, EncodeError, encode_publish_header};

/// What stands in a store and is not what this program has written: what it would have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) &'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be right", self.0)
    }
}

impl std::error::Error for Wrong {}

/// A value that this program did not write.
pub(super) fn wrong(what: &'static str) -> Wrong {
    Wrong(what)
}

/// In `purge.sender`: retained messages, sessions and wills are to go too. No user id looks like this.
pub(super) const EVERYTHING: &str = "/";

/// The flags of a message: QoS in the two lowest bits.
const QOS: i64 = 0b0011;
/// It is in the inbox.
pub(super) const INBOX: i64 = 0b0100;
/// It is a retained message, for one who has subscribed.
const RETAINED: i64 = 0b1000;
/// The packet id in its PUBLISH is the one that it was published under.
const PACKET_ID: i64 = 0b1_0000;

/// What is kept of a message in a few bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) qos: QoS,
    pub(super) inbox: bool,
    pub(super) retained: bool,
    pub(super) packet_id: bool,
}

impl Flags {
    pub(super) fn of(append: &Append, qos: QoS) -> Self {
        Self {
            qos,
            inbox: append.inbox,
            retained: append.retained,
            packet_id: append.message.packet_id().is_some(),
        }
    }

    pub(super) fn to_number(self) -> i64 {
        let bit = |set: bool, bit: i64| if set { bit } else { 0 };
        self.qos as i64
            | bit(self.inbox, INBOX)
            | bit(self.retained, RETAINED)
            | bit(self.packet_id, PACKET_ID)
    }

    pub(super) fn from_number(flags: i64) -> Result<Self, Wrong> {
        let qos = match flags & QOS {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(wrong("QoS")),
        };
        if flags & !(QOS | INBOX | RETAINED | PACKET_ID) != 0 {
            return Err(wrong("flags"));
        }
        Ok(Self {
            qos,
            inbox: flags & INBOX != 0,
            retained: flags & RETAINED != 0,
            packet_id: flags & PACKET_ID != 0,
        })
    }
}

/// SQL's integers are signed: what is higher comes back as the highest.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn from_number(value: i64) -> Result<u64, Wrong> {
    u64::try_from(value).map_err(|_| wrong("a number"))
}

/// When something happens: milliseconds of the server's time, rounded up; NULL for never.
pub(super) fn expiry(time: Time) -> Option<i64> {
    (time != Time::NEVER).then(|| coming(time))
}

pub(super) fn from_expiry(value: Option<i64>) -> Result<Time, Wrong> {
    Ok(time(value)?.unwrap_or(Time::NEVER))
}

/// When something happens: milliseconds, rounded up; the highest integer for never; NULL for none.
pub(super) fn optional_time(time: Option<Time>) -> Option<i64> {
    time.map(coming)
}

/// A time to which something is added, or at which something happens: milliseconds, rounded up, so that nothing is
/// early after a restart; the highest integer for never.
pub(super) fn coming(time: Time) -> i64 {
    if time == Time::NEVER {
        return i64::MAX;
    }
    number(time.as_millis_up())
}

/// When a message was received: milliseconds, rounded down.
pub(super) fn received(time: Time) -> i64 {
    number(time.as_millis())
}

pub(super) fn time(value: Option<i64>) -> Result<Option<Time>, Wrong> {
    Ok(match value {
        None => None,
        Some(i64::MAX) => Some(Time::NEVER),
        Some(millis) => Some(Time::from_millis(from_number(millis)?)),
    })
}

/// Milliseconds; the highest integer is for ever.
pub(super) fn duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn from_duration(value: i64) -> Result<Duration, Wrong> {
    Ok(match value {
        i64::MAX => Duration::MAX,
        millis => Duration::from_millis(from_number(millis)?),
    })
}

pub(super) fn user(text: &str) -> Result<UserId, Wrong> {
    UserId::parse(text).map_err(|_| wrong("a user id"))
}

/// What is kept of a token; NULL for none.
pub(super) fn mark(bytes: Option<&[u8]>) -> Result<Option<Mark>, Wrong> {
    let Some(bytes) = bytes else { return Ok(None) };
    let bytes = bytes.try_into().map_err(|_| wrong("a mark"))?;
    Ok(Some(Mark::new(bytes)))
}

/// Of [`life`]: a byte that says whether the address is made up, then three marks, zeros for none.
const LIFE_BYTES: usize = 1 + 3 * Mark::LEN;

/// What is kept of the account that wrote a message.
pub(super) fn life(life: &Life) -> [u8; LIFE_BYTES] {
    let mut bytes = [0; LIFE_BYTES];
    bytes[0] = life.made_up.into();
    let marks = [life.email, life.name, life.password];
    for (place, mark) in bytes[1..].chunks_exact_mut(Mark::LEN).zip(marks) {
        place.copy_from_slice(&mark.map_or([0; Mark::LEN], |mark| mark.bytes()));
    }
    bytes
}

pub(super) fn from_life(bytes: &[u8]) -> Result<Life, Wrong> {
    let bytes: &[u8; LIFE_BYTES] = bytes.try_into().map_err(|_| wrong("an account's life"))?;
    let mark_at = |at: usize| {
        let start = 1 + at * Mark::LEN;
        let bytes = &bytes[start..start + Mark::LEN];
        // A mark does not begin with zero.
        mark(Some(bytes).filter(|bytes| bytes[0] != 0))
    };
    Ok(Life {
        email: mark_at(0)?,
        name: mark_at(1)?,
        password: mark_at(2)?,
        made_up: bytes[0] != 0,
    })
}

pub(super) fn packet_id(value: i64) -> Result<PacketId, Wrong> {
    let id = u16::try_from(value).ok().and_then(PacketId::new);
    id.ok_or_else(|| wrong("a packet id"))
}

/// Puts the message into `buf`, which is emptied first, and says its QoS.
pub(super) fn encode_message(message: &Message, buf: &mut BytesMut) -> Result<QoS, EncodeError> {
    buf.clear();
    append_message(message, buf)?;
    Ok(message.qos())
}

/// Puts the message behind what is in `buf`.
pub(super) fn append_message(message: &Message, buf: &mut BytesMut) -> Result<(), EncodeError> {
    encode_publish(&message.to_stored(), buf)
}

fn encode_publish(publish: &Publish, buf: &mut BytesMut) -> Result<(), EncodeError> {
    encode_publish_header(publish, Version::V5, buf)?;
    buf.extend_from_slice(&publish.payload);
    Ok(())
}

/// `has_packet_id` is whether the packet id in `body` means something.
pub(super) fn decode_message(
    body: &[u8],
    has_packet_id: bool,
    (sender, sender_life): (UserId, Option<Life>),
    received_at: i64,
    expires_at: Option<i64>,
) -> Result<Arc<Message>, Wrong> {
    let mut publish = decode_publish(body)?;
    publish.packet_id = publish.packet_id.filter(|_| has_packet_id);
    Ok(Arc::new(Message::from_stored(
        publish,
        sender,
        sender_life,
        Time::from_millis(from_number(received_at)?),
        from_expiry(expires_at)?,
    )))
}

fn decode_publish(body: &[u8]) -> Result<Publish, Wrong> {
    let mut buf = BytesMut::from(body);
    match Decoder::client(Version::V5, usize::MAX).decode(&mut buf) {
        Ok(Some(Packet::Publish(publish))) if buf.is_empty() => Ok(publish),
        _ => Err(wrong("a stored PUBLISH")),
    }
}

/// The will as a PUBLISH; its delay is kept beside it.
pub(super) fn encode_will(will: &Will) -> Result<Vec<u8>, EncodeError> {
    let mut buf = BytesMut::new();
    let publish = Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic.clone(),
        packet_id: (will.qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: Some(Box::new(will.properties.clone())),
        payload: will.payload.clone(),
    };
    encode_publish(&publish, &mut buf)?;
    Ok(buf.into())
}

pub(super) fn decode_will(body: &[u8], delay_secs: Option<u32>) -> Result<Will, Wrong> {
    let publish = decode_publish(body)?;
    Ok(Will {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos,
        retain: publish.retain,
        delay_secs,
        properties: publish.properties.map(|it| *it).unwrap_or_default(),
    })
}

/// The bits of `subscription.options`, as a SUBSCRIBE of 5.0 has them: QoS in the two lowest.
const NO_LOCAL: u8 = 0b0100;
const RETAIN_AS_PUBLISHED: u8 = 0b1000;

/// Topic, options and Subscription Identifier.
pub(super) fn subscription_row(subscription: &Subscription) -> (&str, u8, Option<u32>) {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let options = subscription.qos as u8
        | bit(subscription.no_local, NO_LOCAL)
        | bit(subscription.retain_as_published, RETAIN_AS_PUBLISHED);
    (&subscription.topic, options, subscription.id)
}

pub(super) fn subscription(
    topic: &str,
    options: u8,
    id: Option<u32>,
) -> Result<Subscription, Wrong> {
    let qos = QoS::from_bits(options & 0b11).filter(|_| options < 0b1_0000);
    Ok(Subscription {
        topic: topic.into(),
        qos: qos.ok_or_else(|| wrong("the options of a subscription"))?,
        no_local: options & NO_LOCAL != 0,
        retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
        id,
    })
}

/// `in_flight.state`.
const AWAITS_PUBACK: i16 = 1;
const AWAITS_PUBREC: i16 = 2;
const AWAITS_PUBCOMP: i16 = 3;

/// What a packet id on its way to a device stands for: the state, and the message's number.
pub(super) fn in_flight(state: OutboundState) -> (i16, i64) {
    match state {
        OutboundState::AwaitsPubAck(seq) => (AWAITS_PUBACK, number(seq)),
        OutboundState::AwaitsPubRec(seq) => (AWAITS_PUBREC, number(seq)),
        OutboundState::AwaitsPubComp => (AWAITS_PUBCOMP, 0),
    }
}

pub(super) fn from_in_flight(state: i16, message: i64) -> Result<OutboundState, Wrong> {
    let seq = from_number(message)?;
    Ok(match state {
        AWAITS_PUBACK => OutboundState::AwaitsPubAck(seq),
        AWAITS_PUBREC => OutboundState::AwaitsPubRec(seq),
        AWAITS_PUBCOMP => OutboundState::AwaitsPubComp,
        _ => return Err(wrong("the state of a packet id")),
    })
}
