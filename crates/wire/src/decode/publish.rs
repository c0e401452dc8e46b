//! PUBLISH and its acknowledgements (sections 3.3 to 3.7).
//!
//! This is the path of every message: a PUBLISH costs two reference counts and one look at its
//! topic, an acknowledgement without properties neither.

use bytes::{Buf, BytesMut};

use super::reader::Reader;
use super::{DecodeError, Decoded, Header, Side, kind, properties, take};
use crate::packet::{Ack, Packet, PacketId, Publish, PublishProperties, QoS, Version};
use crate::reason::{Carrier, ReasonCode};

#[inline]
pub(super) fn publish(flags: u8, side: Side, version: Version, mut reader: Reader) -> Decoded {
    let dup = flags & 0b1000 != 0;
    let retain = flags & 0b0001 != 0;
    let qos = QoS::from_bits((flags >> 1) & 0b11).ok_or(DecodeError::Malformed("QoS is 3"))?;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::Malformed("DUP is set on QoS 0"));
    }
    let topic = reader.string()?;
    let topic_is_empty = topic.is_empty();
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    let finish = |properties: Option<Box<PublishProperties>>, reader: Reader| {
        let payload = reader.into_rest();
        Ok(Some(Packet::Publish(Publish {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        })))
    };
    if version == Version::V5 && !reader.skip_zero() {
        let properties = properties::publish(&mut reader, side)?;
        if topic_is_empty && properties.topic_alias.is_none() {
            return Err(DecodeError::Protocol("neither topic nor topic alias"));
        }
        return finish(Some(Box::new(properties)), reader);
    }
    if topic_is_empty {
        return Err(match version {
            Version::V5 => DecodeError::Protocol("neither topic nor topic alias"),
            Version::V3 | Version::V4 => DecodeError::Malformed("topic is empty"),
        });
    }
    finish(None, reader)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, as the header says.
#[inline]
pub(super) fn ack(header: Header, version: Version, buf: &mut BytesMut) -> Decoded {
    let ack = if header.remaining == 2 {
        let id = u16::from_be_bytes([buf[header.len], buf[header.len + 1]]);
        let packet_id = PacketId::new(id).ok_or(DecodeError::Protocol("packet identifier is 0"))?;
        buf.advance(header.len + 2);
        Ack::success(packet_id)
    } else {
        long_ack(header, version, take(header, buf))?
    };
    Ok(Some(match header.kind {
        kind::PUBACK => Packet::PubAck(ack),
        kind::PUBREC => Packet::PubRec(ack),
        kind::PUBREL => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    }))
}

/// An acknowledgement of another length than two: in 5.0 it has a reason code, and properties if it
/// is longer than three (section 3.4.2).
fn long_ack(header: Header, version: Version, mut reader: Reader) -> Result<Ack, DecodeError> {
    let packet_id = reader.packet_id()?;
    if version != Version::V5 {
        return Err(DecodeError::Malformed("bytes after the last field"));
    }
    let carrier = match header.kind {
        kind::PUBACK | kind::PUBREC => Carrier::PubAck,
        _ => Carrier::PubRel,
    };
    let reason = reason(reader.u8()?, carrier)?;
    let mut ack = Ack::with_reason(packet_id, reason);
    if !reader.is_empty() {
        ack.properties = properties::reason(&mut reader)?;
    }
    reader.finish()?;
    Ok(ack)
}

/// A reason code that the standard allows in that packet.
pub(super) fn reason(value: u8, carrier: Carrier) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_u8(value)
        .filter(|code| code.is_allowed_in(carrier))
        .ok_or(DecodeError::Malformed(
            "reason code is not one of this packet's",
        ))
}
