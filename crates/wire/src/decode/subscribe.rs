//! SUBSCRIBE, UNSUBSCRIBE and their answers (sections 3.8 to 3.11).

use super::publish::reason;
use super::reader::Reader;
use super::{DecodeError, MAX_FILTERS, properties};
use crate::packet::{
    Filter, QoS, ReasonProperties, RetainHandling, SubAck, Subscribe, UnsubAck, Unsubscribe,
    UserProperties, Version,
};
use crate::reason::{Carrier, ReasonCode};
use bytestring::ByteString;

pub(super) fn subscribe(version: Version, mut reader: Reader) -> Result<Subscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let (subscription_id, user) = match version {
        Version::V5 => properties::subscribe(&mut reader)?,
        Version::V3 | Version::V4 => (None, UserProperties::default()),
    };
    at_least_one(&reader)?;
    let mut filters = Vec::with_capacity(1);
    while !reader.is_empty() {
        room_for_one(&filters)?;
        let filter = topic_filter(&mut reader)?;
        filters.push(options(filter, version, reader.u8()?)?);
    }
    Ok(Subscribe {
        packet_id,
        subscription_id,
        user,
        filters,
    })
}

fn at_least_one(reader: &Reader) -> Result<(), DecodeError> {
    if reader.is_empty() {
        return Err(DecodeError::Protocol("no topic filter"));
    }
    Ok(())
}

fn room_for_one<T>(filters: &[T]) -> Result<(), DecodeError> {
    if filters.len() >= MAX_FILTERS {
        return Err(DecodeError::TooManyFilters);
    }
    Ok(())
}

fn topic_filter(reader: &mut Reader) -> Result<ByteString, DecodeError> {
    let filter = reader.string()?;
    if filter.is_empty() {
        return Err(DecodeError::Malformed("topic filter is empty"));
    }
    Ok(filter)
}

/// The options byte (section 3.8.3.1 of 5.0; 3.1 does not use the upper six bits).
fn options(filter: ByteString, version: Version, bits: u8) -> Result<Filter, DecodeError> {
    let reserved = match version {
        Version::V3 => 0,
        Version::V4 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if bits & reserved != 0 {
        return Err(DecodeError::Malformed(
            "reserved bits of the subscription options",
        ));
    }
    let qos = QoS::from_bits(bits & 0b11).ok_or(match version {
        Version::V5 => DecodeError::Protocol("QoS of a subscription is 3"),
        Version::V3 | Version::V4 => DecodeError::Malformed("QoS of a subscription is 3"),
    })?;
    let bits = if version == Version::V5 { bits } else { 0 };
    let retain_handling = match (bits >> 4) & 0b11 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(DecodeError::Protocol("retain handling is 3")),
    };
    Ok(Filter {
        filter,
        qos,
        no_local: bits & 0b0100 != 0,
        retain_as_published: bits & 0b1000 != 0,
        retain_handling,
    })
}

pub(super) fn suback(version: Version, mut reader: Reader) -> Result<SubAck, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        Version::V5 => properties::reason(&mut reader)?,
        Version::V3 | Version::V4 => ReasonProperties::default(),
    };
    let codes = match version {
        Version::V5 => codes(reader, |code| reason(code, Carrier::SubAck))?,
        Version::V3 | Version::V4 => codes(reader, |code| match code {
            0 => Ok(ReasonCode::Success),
            1 => Ok(ReasonCode::GrantedQoS1),
            2 => Ok(ReasonCode::GrantedQoS2),
            0x80 => Ok(ReasonCode::UnspecifiedError),
            _ => Err(DecodeError::Malformed("reserved subscribe return code")),
        })?,
    };
    Ok(SubAck {
        packet_id,
        properties,
        codes,
    })
}

/// The codes that are the payload of a SUBACK or UNSUBACK: at least one, as there is a filter for each.
fn codes(
    reader: Reader,
    code: impl Fn(u8) -> Result<ReasonCode, DecodeError>,
) -> Result<Vec<ReasonCode>, DecodeError> {
    let bytes = reader.into_rest();
    if bytes.is_empty() {
        return Err(DecodeError::Malformed("no code for any topic filter"));
    }
    bytes.iter().map(|&byte| code(byte)).collect()
}

pub(super) fn unsubscribe(
    version: Version,
    mut reader: Reader,
) -> Result<Unsubscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let user = match version {
        Version::V5 => properties::unsubscribe(&mut reader)?,
        Version::V3 | Version::V4 => UserProperties::default(),
    };
    at_least_one(&reader)?;
    let mut filters = Vec::with_capacity(1);
    while !reader.is_empty() {
        room_for_one(&filters)?;
        filters.push(topic_filter(&mut reader)?);
    }
    Ok(Unsubscribe {
        packet_id,
        user,
        filters,
    })
}

pub(super) fn unsuback(version: Version, mut reader: Reader) -> Result<UnsubAck, DecodeError> {
    let packet_id = reader.packet_id()?;
    if version != Version::V5 {
        reader.finish()?;
        return Ok(UnsubAck {
            packet_id,
            properties: ReasonProperties::default(),
            codes: Vec::new(),
        });
    }
    let properties = properties::reason(&mut reader)?;
    let codes = codes(reader, |code| reason(code, Carrier::UnsubAck))?;
    Ok(UnsubAck {
        packet_id,
        properties,
        codes,
    })
}
