//! Packets to bytes.
//!
//! Invariants: what cannot be said in the version is left out, or refused where leaving it out would
//! change the meaning; a refusal leaves the buffer as it was; what is written is what
//! [`Decoder`](crate::Decoder) takes back (checked by `tests/round_trip.rs`).
//!
//! The caller answers for what the types allow and the encoder does not look for: U+0000 in strings
//! and wildcards in topic names. Strings that were decoded hold no U+0000.

mod body;
mod check;
mod properties;
mod sink;

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::MAX_VARINT;
use crate::packet::{Ack, Packet, Publish, PublishProperties, QoS, Version};
use crate::reason::ReasonCode;
use sink::{Counter, varint, varint_len};

/// Why a packet cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// A string or binary field of more than 65,535 bytes (section 1.5).
    StringTooLong {
        /// Its bytes.
        len: usize,
    },
    /// More than 268,435,455 bytes after the fixed header (section 2.1.4 of 5.0).
    PacketTooLarge {
        /// The bytes after the fixed header.
        size: usize,
    },
    /// The standard has no such packet in this version: an AUTH in 3, a reason code that is not one
    /// of the packet's, a CONNACK code of the other kind, a QoS 1 PUBLISH without packet identifier.
    Invalid(&'static str),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StringTooLong { len } => write!(f, "string of {len} bytes is over 65535"),
            Self::PacketTooLarge { size } => write!(f, "packet of {size} bytes is over 268435455"),
            Self::Invalid(what) => write!(f, "not a packet of this version: {what}"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Appends `packet` to `buf`, as `version` writes it.
///
/// - Fields that the version does not know are left out.
/// - In 3 every failure in a SUBACK is 0x80.
/// - 5.0 acknowledgements take their shortest form (section 3.4.2).
/// - A CONNACK that refuses says that no session is present ([MQTT-3.2.2-4]; [MQTT-3.2.2-6] in 5.0).
/// - A QoS 0 PUBLISH has neither DUP nor a packet identifier ([MQTT-3.3.1-2], [MQTT-2.2.1-2]).
///
/// # Errors
///
/// [`EncodeError`]; `buf` is then unchanged. The code of a CONNACK must be of the version's kind: the
/// two sets of codes have no table between them.
pub fn encode(packet: &Packet, version: Version, buf: &mut BytesMut) -> Result<(), EncodeError> {
    match packet {
        Packet::Publish(publish) => {
            put_publish_header(publish, version, 0, buf)?;
            buf.put_slice(&publish.payload);
            return Ok(());
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)
            if says_success(ack, version) =>
        {
            let [high, low] = ack.packet_id.get().to_be_bytes();
            buf.put_slice(&[first_byte(packet), 2, high, low]);
            return Ok(());
        }
        _ => {}
    }
    let remaining = remaining(packet, version)?;
    put_fixed_header(first_byte(packet), remaining, 0, buf);
    body::put(packet, version, buf);
    Ok(())
}

/// The bytes that [`encode`] appends, the fixed header included.
///
/// # Errors
///
/// As [`encode`].
pub fn encoded_len(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    let remaining = remaining(packet, version)?;
    Ok(1 + varint_len(remaining) + remaining)
}

/// The bytes of the properties of a PUBLISH in 5.0, without the length that stands before them.
#[must_use]
pub fn properties_len(properties: &PublishProperties) -> usize {
    properties::len(properties)
}

/// Appends everything of a PUBLISH but its payload, so that a large one can be written to the socket
/// from where it is. The Remaining Length counts the payload.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_publish_header(
    publish: &Publish,
    version: Version,
    buf: &mut BytesMut,
) -> Result<(), EncodeError> {
    put_publish_header(publish, version, publish.payload.len(), buf)
}

/// `elsewhere` as in [`put_fixed_header`].
fn put_publish_header(
    publish: &Publish,
    version: Version,
    elsewhere: usize,
    buf: &mut BytesMut,
) -> Result<(), EncodeError> {
    check::publish(publish, version)?;
    let remaining = publish_remaining(publish, version)?;
    put_fixed_header(publish_first_byte(publish), remaining, elsewhere, buf);
    body::publish_header(publish, version, buf);
    Ok(())
}

/// Whether two bytes are all there is to say (sections 3.4.2 to 3.7.2).
#[inline]
fn says_success(ack: &Ack, version: Version) -> bool {
    version != Version::V5
        || (ack.reason == ReasonCode::Success
            && ack.properties.reason_string.is_none()
            && ack.properties.user.is_empty())
}

/// The Remaining Length of a packet that can be written.
fn remaining(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    check::packet(packet, version)?;
    if let Packet::Publish(publish) = packet {
        return publish_remaining(publish, version);
    }
    let mut counter = Counter::default();
    body::put(packet, version, &mut counter);
    in_bounds(&counter, 0)
}

fn publish_remaining(publish: &Publish, version: Version) -> Result<usize, EncodeError> {
    let mut counter = Counter::default();
    body::publish_header(publish, version, &mut counter);
    in_bounds(&counter, publish.payload.len())
}

fn in_bounds(counter: &Counter, payload: usize) -> Result<usize, EncodeError> {
    if let Some(len) = counter.too_long {
        return Err(EncodeError::StringTooLong { len });
    }
    let size = counter.len + payload;
    match u32::try_from(size) {
        Ok(in_range) if in_range <= MAX_VARINT => Ok(size),
        _ => Err(EncodeError::PacketTooLarge { size }),
    }
}

/// Reserves what the packet needs, less `elsewhere` bytes that may be written from another buffer.
fn put_fixed_header(first: u8, remaining: usize, elsewhere: usize, buf: &mut BytesMut) {
    let (length, length_len) = varint(remaining);
    buf.reserve(1 + length_len + remaining - elsewhere);
    let header = [first, length[0], length[1], length[2], length[3]];
    buf.put_slice(&header[..=length_len]);
}

fn publish_first_byte(publish: &Publish) -> u8 {
    let dup = publish.dup && publish.qos != QoS::AtMostOnce;
    0x30 | u8::from(dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain)
}

/// Packet type and flags (section 2.1 of 5.0).
fn first_byte(packet: &Packet) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::ConnAck(_) => 0x20,
        Packet::Publish(publish) => publish_first_byte(publish),
        Packet::PubAck(_) => 0x40,
        Packet::PubRec(_) => 0x50,
        Packet::PubRel(_) => 0x62,
        Packet::PubComp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::SubAck(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2,
        Packet::UnsubAck(_) => 0xB0,
        Packet::PingReq => 0xC0,
        Packet::PingResp => 0xD0,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}
