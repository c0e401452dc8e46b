//! The properties of MQTT 5.0 (section 2.2.2).
//!
//! Invariants: an identifier that is unknown or belongs to another packet is malformed; one that
//! stands twice is a protocol error, User Property and a server's Subscription Identifier excepted;
//! so is a value outside its range.

use bytes::Bytes;
use bytestring::ByteString;

use super::reader::Reader;
use super::{DecodeError, Side};
use crate::packet::{
    Auth, ConnAckProperties, ConnectProperties, Disconnect, PublishProperties, QoS,
    ReasonProperties, UserProperty,
};
use crate::property as id;

const MISPLACED: DecodeError = DecodeError::Malformed("property is not one of this packet's");

/// Reads the length of the properties and hands each identifier with its reader to `property`,
/// which reads the value.
fn each(
    reader: &mut Reader,
    mut property: impl FnMut(u8, &mut Reader) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let len = reader.varint()?;
    if len == 0 {
        return Ok(());
    }
    let mut properties = reader.split(usize::try_from(len).expect("28 bits fit a usize"))?;
    while !properties.is_empty() {
        let id = properties.u8()?;
        property(id, &mut properties)?;
    }
    Ok(())
}

/// Sets what may stand once.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::Protocol("property stands twice")),
    }
}

fn boolean(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Protocol("property is neither 0 nor 1")),
    }
}

fn maximum_packet_size(reader: &mut Reader) -> Result<u32, DecodeError> {
    match reader.u32()? {
        0 => Err(DecodeError::Protocol("maximum packet size is 0")),
        size => Ok(size),
    }
}

fn subscription_id(reader: &mut Reader) -> Result<u32, DecodeError> {
    match reader.varint()? {
        0 => Err(DecodeError::Protocol("subscription identifier is 0")),
        id => Ok(id),
    }
}

fn user(reader: &mut Reader) -> Result<UserProperty, DecodeError> {
    Ok((reader.string()?, reader.string()?))
}

const RECEIVE_MAXIMUM: DecodeError = DecodeError::Protocol("receive maximum is 0");

/// Section 3.1.2.11.
pub(super) fn connect(reader: &mut Reader) -> Result<ConnectProperties, DecodeError> {
    let mut p = ConnectProperties::default();
    each(reader, |id, r| match id {
        id::SESSION_EXPIRY => once(&mut p.session_expiry_secs, r.u32()?),
        id::RECEIVE_MAXIMUM => once(&mut p.receive_maximum, r.non_zero_u16(RECEIVE_MAXIMUM)?),
        id::MAXIMUM_PACKET_SIZE => once(&mut p.maximum_packet_size, maximum_packet_size(r)?),
        id::TOPIC_ALIAS_MAXIMUM => once(&mut p.topic_alias_maximum, r.u16()?),
        id::REQUEST_RESPONSE_INFORMATION => once(&mut p.request_response_information, boolean(r)?),
        id::REQUEST_PROBLEM_INFORMATION => once(&mut p.request_problem_information, boolean(r)?),
        id::USER => {
            p.user.push(user(r)?);
            Ok(())
        }
        id::AUTHENTICATION_METHOD => once(&mut p.authentication_method, r.string()?),
        id::AUTHENTICATION_DATA => once(&mut p.authentication_data, r.binary()?),
        _ => Err(MISPLACED),
    })?;
    authentication(
        p.authentication_method.as_ref(),
        p.authentication_data.as_ref(),
    )?;
    Ok(p)
}

/// Authentication Data needs a method (sections 3.1.2.11.10 and 4.12).
pub(super) fn authentication(
    method: Option<&ByteString>,
    data: Option<&Bytes>,
) -> Result<(), DecodeError> {
    if data.is_some() && method.is_none() {
        return Err(DecodeError::Protocol(
            "authentication data without a method",
        ));
    }
    Ok(())
}

/// Section 3.2.2.3.
pub(super) fn connack(reader: &mut Reader) -> Result<ConnAckProperties, DecodeError> {
    let mut p = ConnAckProperties::default();
    each(reader, |id, r| match id {
        id::SESSION_EXPIRY => once(&mut p.session_expiry_secs, r.u32()?),
        id::RECEIVE_MAXIMUM => once(&mut p.receive_maximum, r.non_zero_u16(RECEIVE_MAXIMUM)?),
        id::MAXIMUM_QOS => {
            let qos = if boolean(r)? {
                QoS::AtLeastOnce
            } else {
                QoS::AtMostOnce
            };
            once(&mut p.maximum_qos, qos)
        }
        id::RETAIN_AVAILABLE => once(&mut p.retain_available, boolean(r)?),
        id::MAXIMUM_PACKET_SIZE => once(&mut p.maximum_packet_size, maximum_packet_size(r)?),
        id::ASSIGNED_CLIENT_ID => once(&mut p.assigned_client_id, r.string()?),
        id::TOPIC_ALIAS_MAXIMUM => once(&mut p.topic_alias_maximum, r.u16()?),
        id::REASON_STRING => once(&mut p.reason_string, r.string()?),
        id::USER => {
            p.user.push(user(r)?);
            Ok(())
        }
        id::WILDCARD_AVAILABLE => once(&mut p.wildcard_subscription_available, boolean(r)?),
        id::SUBSCRIPTION_IDS_AVAILABLE => once(&mut p.subscription_ids_available, boolean(r)?),
        id::SHARED_AVAILABLE => once(&mut p.shared_subscription_available, boolean(r)?),
        id::SERVER_KEEP_ALIVE => once(&mut p.server_keep_alive_secs, r.u16()?),
        id::RESPONSE_INFORMATION => once(&mut p.response_information, r.string()?),
        id::SERVER_REFERENCE => once(&mut p.server_reference, r.string()?),
        id::AUTHENTICATION_METHOD => once(&mut p.authentication_method, r.string()?),
        id::AUTHENTICATION_DATA => once(&mut p.authentication_data, r.binary()?),
        _ => Err(MISPLACED),
    })?;
    Ok(p)
}

/// What a PUBLISH and a will have in common.
fn message(id: u8, r: &mut Reader, p: &mut PublishProperties) -> Result<(), DecodeError> {
    match id {
        id::PAYLOAD_FORMAT => once(&mut p.payload_is_utf8, boolean(r)?),
        id::MESSAGE_EXPIRY => once(&mut p.message_expiry_secs, r.u32()?),
        id::CONTENT_TYPE => once(&mut p.content_type, r.string()?),
        id::RESPONSE_TOPIC => once(&mut p.response_topic, response_topic(r)?),
        id::CORRELATION_DATA => once(&mut p.correlation_data, r.binary()?),
        id::USER => {
            p.user.push(user(r)?);
            Ok(())
        }
        _ => Err(MISPLACED),
    }
}

/// A topic name: not empty, no wildcards ([MQTT-3.3.2-14], [MQTT-4.7.3-1]).
fn response_topic(reader: &mut Reader) -> Result<ByteString, DecodeError> {
    let topic = reader.string()?;
    if topic.is_empty() {
        return Err(DecodeError::Protocol("response topic is empty"));
    }
    if topic.contains(['#', '+']) {
        return Err(DecodeError::Protocol("wildcard in the response topic"));
    }
    Ok(topic)
}

/// Section 3.3.2.3. Only a server sends Subscription Identifiers ([MQTT-3.3.4-6]).
pub(super) fn publish(reader: &mut Reader, side: Side) -> Result<PublishProperties, DecodeError> {
    const ALIAS: DecodeError = DecodeError::Protocol("topic alias is 0");
    let mut p = PublishProperties::default();
    each(reader, |id, r| match id {
        id::TOPIC_ALIAS => once(&mut p.topic_alias, r.non_zero_u16(ALIAS)?),
        id::SUBSCRIPTION_ID if side == Side::Server => Err(DecodeError::Protocol(
            "subscription identifier from a client",
        )),
        id::SUBSCRIPTION_ID => {
            p.subscription_ids.push(subscription_id(r)?);
            Ok(())
        }
        _ => message(id, r, &mut p),
    })?;
    Ok(p)
}

/// Section 3.1.3.2: the delay, and the properties that the PUBLISH will have.
pub(super) fn will(reader: &mut Reader) -> Result<(Option<u32>, PublishProperties), DecodeError> {
    let mut delay_secs = None;
    let mut p = PublishProperties::default();
    each(reader, |id, r| match id {
        id::WILL_DELAY => once(&mut delay_secs, r.u32()?),
        _ => message(id, r, &mut p),
    })?;
    Ok((delay_secs, p))
}

fn reason_property(id: u8, r: &mut Reader, p: &mut ReasonProperties) -> Result<(), DecodeError> {
    match id {
        id::REASON_STRING => once(&mut p.reason_string, r.string()?),
        id::USER => {
            p.user.push(user(r)?);
            Ok(())
        }
        _ => Err(MISPLACED),
    }
}

/// Sections 3.4.2.2, 3.5.2.2, 3.6.2.2, 3.7.2.2, 3.9.2.1 and 3.11.2.1.
pub(super) fn reason(reader: &mut Reader) -> Result<ReasonProperties, DecodeError> {
    let mut p = ReasonProperties::default();
    each(reader, |id, r| reason_property(id, r, &mut p))?;
    Ok(p)
}

/// Section 3.8.2.1.
pub(super) fn subscribe(
    reader: &mut Reader,
) -> Result<(Option<u32>, Vec<UserProperty>), DecodeError> {
    let mut subscription = None;
    let mut users = Vec::new();
    each(reader, |id, r| match id {
        id::SUBSCRIPTION_ID => once(&mut subscription, subscription_id(r)?),
        id::USER => {
            users.push(user(r)?);
            Ok(())
        }
        _ => Err(MISPLACED),
    })?;
    Ok((subscription, users))
}

/// Section 3.10.2.1.
pub(super) fn unsubscribe(reader: &mut Reader) -> Result<Vec<UserProperty>, DecodeError> {
    let mut users = Vec::new();
    each(reader, |id, r| match id {
        id::USER => {
            users.push(user(r)?);
            Ok(())
        }
        _ => Err(MISPLACED),
    })?;
    Ok(users)
}

/// Section 3.14.2.2. A server says no session expiry ([MQTT-3.14.2-2]).
pub(super) fn disconnect(
    reader: &mut Reader,
    side: Side,
    disconnect: &mut Disconnect,
) -> Result<(), DecodeError> {
    each(reader, |id, r| match id {
        id::SESSION_EXPIRY if side == Side::Client => Err(DecodeError::Protocol(
            "session expiry in a server's DISCONNECT",
        )),
        id::SESSION_EXPIRY => once(&mut disconnect.session_expiry_secs, r.u32()?),
        id::SERVER_REFERENCE => once(&mut disconnect.server_reference, r.string()?),
        _ => reason_property(id, r, &mut disconnect.properties),
    })
}

/// Section 3.15.2.2.
pub(super) fn auth(reader: &mut Reader, auth: &mut Auth) -> Result<(), DecodeError> {
    each(reader, |id, r| match id {
        id::AUTHENTICATION_METHOD => once(&mut auth.authentication_method, r.string()?),
        id::AUTHENTICATION_DATA => once(&mut auth.authentication_data, r.binary()?),
        _ => reason_property(id, r, &mut auth.properties),
    })
}
