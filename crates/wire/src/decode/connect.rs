//! The packets that open and close a connection: CONNECT, CONNACK, DISCONNECT, AUTH (sections 3.1,
//! 3.2, 3.14, 3.15).
//!
//! 3.1 says less than 3.1.1 about what must be 0; where its text lets a client do as it likes, the
//! value is ignored.

use bytes::Bytes;
use bytestring::ByteString;

use super::publish::reason;
use super::reader::Reader;
use super::{DecodeError, Side, properties};
use crate::packet::{
    Auth, ConnAck, ConnAckProperties, Connect, ConnectCode, ConnectProperties, Disconnect,
    PublishProperties, QoS, ReasonProperties, Version, Will,
};
use crate::reason::{Carrier, ConnectReturnCode, ReasonCode};

/// Protocol name and level (sections 3.1.2.1 and 3.1.2.2).
pub(super) fn version(reader: &mut Reader) -> Result<Version, DecodeError> {
    let name = reader.string()?;
    let is_mqtt = match &*name {
        "MQTT" => true,
        "MQIsdp" => false,
        _ => return Err(DecodeError::Protocol("unknown protocol name")),
    };
    match (is_mqtt, reader.u8()?) {
        (true, 4) => Ok(Version::V4),
        (true, 5) => Ok(Version::V5),
        (false, 3) => Ok(Version::V3),
        (_, level) => Err(DecodeError::UnsupportedVersion(level)),
    }
}

/// The version of a CONNECT of which only the front is there.
pub(super) fn peek_version(body: &[u8]) -> Option<Version> {
    const LONGEST: usize = 2 + "MQIsdp".len() + 1;
    let front = Bytes::copy_from_slice(&body[..body.len().min(LONGEST)]);
    version(&mut Reader::new(front)).ok()
}

/// The bits of the connect flags (section 3.1.2.3).
mod bit {
    pub(super) const RESERVED: u8 = 0b0000_0001;
    pub(super) const CLEAN_START: u8 = 0b0000_0010;
    pub(super) const WILL: u8 = 0b0000_0100;
    pub(super) const WILL_QOS: u8 = 0b0001_1000;
    pub(super) const WILL_RETAIN: u8 = 0b0010_0000;
    pub(super) const PASSWORD: u8 = 0b0100_0000;
    pub(super) const USER_NAME: u8 = 0b1000_0000;
}

/// What follows the protocol level.
pub(super) fn connect(
    header_flags: u8,
    version: Version,
    mut reader: Reader,
) -> Result<Box<Connect>, DecodeError> {
    if header_flags != 0 && version != Version::V3 {
        return Err(DecodeError::Malformed("reserved flags of the fixed header"));
    }
    let flags = reader.u8()?;
    check_flags(flags, version)?;
    let keep_alive_secs = reader.u16()?;
    let properties = match version {
        Version::V5 => properties::connect(&mut reader)?,
        Version::V3 | Version::V4 => ConnectProperties::default(),
    };
    let client_id = reader.string()?;
    let will = match flags & bit::WILL {
        0 => None,
        _ => Some(Box::new(will(flags, version, &mut reader)?)),
    };
    // In 3.1 the flags may promise what the packet is too short for (its section 3.1).
    let has = |bit: u8, reader: &Reader| {
        flags & bit != 0 && !(version == Version::V3 && reader.is_empty())
    };
    let user_name = has(bit::USER_NAME, &reader)
        .then(|| reader.string())
        .transpose()?;
    let password = has(bit::PASSWORD, &reader)
        .then(|| reader.binary())
        .transpose()?;
    reader.finish()?;
    Ok(Box::new(Connect {
        version,
        clean_start: flags & bit::CLEAN_START != 0,
        keep_alive_secs,
        client_id,
        will,
        user_name,
        password,
        properties,
    }))
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if flags & bit::USER_NAME == 0 && flags & bit::PASSWORD != 0 && version != Version::V5 {
        return Err(DecodeError::Malformed("password without a user name"));
    }
    if version == Version::V3 {
        return Ok(());
    }
    if flags & bit::RESERVED != 0 {
        return Err(DecodeError::Malformed("reserved connect flag"));
    }
    if flags & bit::WILL == 0 && flags & (bit::WILL_QOS | bit::WILL_RETAIN) != 0 {
        return Err(DecodeError::Malformed("will flags without a will"));
    }
    Ok(())
}

fn will(flags: u8, version: Version, reader: &mut Reader) -> Result<Will, DecodeError> {
    let qos = QoS::from_bits((flags & bit::WILL_QOS) >> 3)
        .ok_or(DecodeError::Malformed("will QoS is 3"))?;
    let (delay_secs, properties) = match version {
        Version::V5 => properties::will(reader)?,
        Version::V3 | Version::V4 => (None, PublishProperties::default()),
    };
    let topic: ByteString = reader.string()?;
    if topic.is_empty() {
        return Err(DecodeError::Malformed("will topic is empty"));
    }
    let payload = reader.binary()?;
    let retain = flags & bit::WILL_RETAIN != 0;
    Ok(Will {
        topic,
        payload,
        qos,
        retain,
        delay_secs,
        properties,
    })
}

pub(super) fn connack(version: Version, mut reader: Reader) -> Result<ConnAck, DecodeError> {
    let flags = reader.u8()?;
    if flags > 1 && version != Version::V3 {
        return Err(DecodeError::Malformed("reserved connect acknowledge flags"));
    }
    let session_present = flags == 1 && version != Version::V3;
    let code = reader.u8()?;
    let code = match version {
        Version::V5 => ConnectCode::V5(reason(code, Carrier::ConnAck)?),
        Version::V3 | Version::V4 => ConnectCode::V3(
            ConnectReturnCode::from_u8(code)
                .ok_or(DecodeError::Malformed("reserved connect return code"))?,
        ),
    };
    let accepted = u8::from(code) == 0;
    if session_present && !accepted {
        return Err(DecodeError::Protocol("session present in a refusal"));
    }
    let properties = match version {
        Version::V5 => properties::connack(&mut reader)?,
        Version::V3 | Version::V4 => ConnAckProperties::default(),
    };
    if accepted {
        properties::authentication(
            properties.authentication_method.as_ref(),
            properties.authentication_data.as_ref(),
        )?;
    }
    reader.finish()?;
    Ok(ConnAck {
        session_present,
        code,
        properties,
    })
}

pub(super) fn disconnect(
    side: Side,
    version: Version,
    mut reader: Reader,
) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect::with_reason(ReasonCode::Success);
    if version == Version::V5 && !reader.is_empty() {
        disconnect.reason = reason(reader.u8()?, Carrier::Disconnect)?;
        if !reader.is_empty() {
            properties::disconnect(&mut reader, side, &mut disconnect)?;
        }
    }
    reader.finish()?;
    Ok(disconnect)
}

/// A length of 0 stands for Success and no properties; anything else names a method (sections
/// 3.15.2.1 and 3.15.2.2.2).
pub(super) fn auth(mut reader: Reader) -> Result<Auth, DecodeError> {
    let mut auth = Auth {
        reason: ReasonCode::Success,
        authentication_method: None,
        authentication_data: None,
        properties: ReasonProperties::default(),
    };
    if reader.is_empty() {
        return Ok(auth);
    }
    auth.reason = reason(reader.u8()?, Carrier::Auth)?;
    properties::auth(&mut reader, &mut auth)?;
    reader.finish()?;
    if auth.authentication_method.is_none() && !auth.is_bare() {
        return Err(DecodeError::Protocol("no authentication method"));
    }
    Ok(auth)
}
