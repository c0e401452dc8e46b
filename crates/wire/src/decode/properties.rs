//! The properties of MQTT 5.0 (section 2.2.2).
//!
//! Invariants: an identifier that is unknown or belongs to another packet is malformed; one that
//! stands twice is a protocol error, User Property and a server's Subscription Identifier excepted;
//! so is a value outside its range.

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;

use super::reader::Reader;
use super::{DecodeError, Side};
use crate::packet::{
    Auth, ConnAckProperties, ConnectProperties, Disconnect, PublishProperties, QoS,
    ReasonProperties, UserProperties,
};
use crate::property as id;

const MISPLACED: DecodeError = DecodeError::Malformed("property is not one of this packet's");

/// Reads the length of the properties, takes the User Properties among them into `user`, and hands each other
/// identifier with its reader to `property`, which reads the value.
fn each(
    reader: &mut Reader,
    user: &mut UserProperties,
    mut property: impl FnMut(u8, &mut Reader) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let len = reader.varint()?;
    if len == 0 {
        return Ok(());
    }
    let mut properties = reader.split(usize::try_from(len).expect("28 bits fit a usize"))?;
    let mut users = Users::None;
    while !properties.is_empty() {
        if properties.is_next(id::USER) {
            users.add(properties.user_properties()?);
        } else {
            let id = properties.u8()?;
            property(id, &mut properties)?;
        }
    }
    *user = UserProperties::from_checked(users.into_bytes());
    Ok(())
}

/// User Properties, which usually stand together: then they are a slice of the packet, otherwise a copy.
enum Users {
    None,
    Together(Bytes),
    Apart(BytesMut),
}

impl Users {
    fn add(&mut self, more: Bytes) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::Together(more),
            Self::Together(before) => Self::Apart(BytesMut::from_iter(before.chain(more))),
            Self::Apart(mut all) => {
                all.extend_from_slice(&more);
                Self::Apart(all)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::Together(slice) => slice,
            Self::Apart(copy) => copy.freeze(),
        }
    }
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

const RECEIVE_MAXIMUM: DecodeError = DecodeError::Protocol("receive maximum is 0");

/// Section 3.1.2.11.
pub(super) fn connect(reader: &mut Reader) -> Result<ConnectProperties, DecodeError> {
    let mut p = ConnectProperties::default();
    let mut user = UserProperties::default();
    each(reader, &mut user, |id, r| match id {
        id::SESSION_EXPIRY => once(&mut p.session_expiry_secs, r.u32()?),
        id::RECEIVE_MAXIMUM => once(&mut p.receive_maximum, r.non_zero_u16(RECEIVE_MAXIMUM)?),
        id::MAXIMUM_PACKET_SIZE => once(&mut p.maximum_packet_size, maximum_packet_size(r)?),
        id::TOPIC_ALIAS_MAXIMUM => once(&mut p.topic_alias_maximum, r.u16()?),
        id::REQUEST_RESPONSE_INFORMATION => once(&mut p.request_response_information, boolean(r)?),
        id::REQUEST_PROBLEM_INFORMATION => once(&mut p.request_problem_information, boolean(r)?),
        id::AUTHENTICATION_METHOD => once(&mut p.authentication_method, r.string()?),
        id::AUTHENTICATION_DATA => once(&mut p.authentication_data, r.binary()?),
        _ => Err(MISPLACED),
    })?;
    authentication(
        p.authentication_method.as_ref(),
        p.authentication_data.as_ref(),
    )?;
    p.user = user;
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
    let mut user = UserProperties::default();
    each(reader, &mut user, |id, r| match id {
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
    p.user = user;
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
    let mut user = UserProperties::default();
    each(reader, &mut user, |id, r| match id {
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
    p.user = user;
    Ok(p)
}

/// Section 3.1.3.2: the delay, and the properties that the PUBLISH will have.
pub(super) fn will(reader: &mut Reader) -> Result<(Option<u32>, PublishProperties), DecodeError> {
    let mut delay_secs = None;
    let mut p = PublishProperties::default();
    let mut user = UserProperties::default();
    each(reader, &mut user, |id, r| match id {
        id::WILL_DELAY => once(&mut delay_secs, r.u32()?),
        _ => message(id, r, &mut p),
    })?;
    p.user = user;
    Ok((delay_secs, p))
}

fn reason_property(
    id: u8,
    r: &mut Reader,
    reason: &mut Option<ByteString>,
) -> Result<(), DecodeError> {
    match id {
        id::REASON_STRING => once(reason, r.string()?),
        _ => Err(MISPLACED),
    }
}

/// Sections 3.4.2.2, 3.5.2.2, 3.6.2.2, 3.7.2.2, 3.9.2.1 and 3.11.2.1.
pub(super) fn reason(reader: &mut Reader) -> Result<ReasonProperties, DecodeError> {
    let mut p = ReasonProperties::default();
    let ReasonProperties {
        reason_string,
        user,
    } = &mut p;
    each(reader, user, |id, r| reason_property(id, r, reason_string))?;
    Ok(p)
}

/// Section 3.8.2.1.
pub(super) fn subscribe(reader: &mut Reader) -> Result<(Option<u32>, UserProperties), DecodeError> {
    let mut subscription = None;
    let mut user = UserProperties::default();
    each(reader, &mut user, |id, r| match id {
        id::SUBSCRIPTION_ID => once(&mut subscription, subscription_id(r)?),
        _ => Err(MISPLACED),
    })?;
    Ok((subscription, user))
}

/// Section 3.10.2.1.
pub(super) fn unsubscribe(reader: &mut Reader) -> Result<UserProperties, DecodeError> {
    let mut user = UserProperties::default();
    each(reader, &mut user, |_, _| Err(MISPLACED))?;
    Ok(user)
}

/// Section 3.14.2.2. A server says no session expiry ([MQTT-3.14.2-2]).
pub(super) fn disconnect(
    reader: &mut Reader,
    side: Side,
    disconnect: &mut Disconnect,
) -> Result<(), DecodeError> {
    let ReasonProperties {
        reason_string,
        user,
    } = &mut disconnect.properties;
    each(reader, user, |id, r| match id {
        id::SESSION_EXPIRY if side == Side::Client => Err(DecodeError::Protocol(
            "session expiry in a server's DISCONNECT",
        )),
        id::SESSION_EXPIRY => once(&mut disconnect.session_expiry_secs, r.u32()?),
        id::SERVER_REFERENCE => once(&mut disconnect.server_reference, r.string()?),
        _ => reason_property(id, r, reason_string),
    })
}

/// Section 3.15.2.2.
pub(super) fn auth(reader: &mut Reader, auth: &mut Auth) -> Result<(), DecodeError> {
    let ReasonProperties {
        reason_string,
        user,
    } = &mut auth.properties;
    each(reader, user, |id, r| match id {
        id::AUTHENTICATION_METHOD => once(&mut auth.authentication_method, r.string()?),
        id::AUTHENTICATION_DATA => once(&mut auth.authentication_data, r.binary()?),
        _ => reason_property(id, r, reason_string),
    })
}
