//! What the packet types can hold and a version of the standard cannot say.

use super::EncodeError;
use crate::MAX_VARINT;
use crate::packet::{Auth, ConnAck, Connect, ConnectCode, Packet, Publish, QoS, SubAck, Version};
use crate::reason::{Carrier, ReasonCode};

/// Errors with the first thing in `packet` that `version` cannot say.
pub(super) fn packet(packet: &Packet, version: Version) -> Result<(), EncodeError> {
    let is_v5 = version == Version::V5;
    match packet {
        Packet::Connect(connect) => check_connect(connect, version),
        Packet::ConnAck(connack) => check_connack(connack, version),
        Packet::Publish(publish) => self::publish(publish, version),
        Packet::PubAck(ack) | Packet::PubRec(ack) if is_v5 => reason(ack.reason, Carrier::PubAck),
        Packet::PubRel(ack) | Packet::PubComp(ack) if is_v5 => reason(ack.reason, Carrier::PubRel),
        Packet::Subscribe(subscribe) => {
            require(!subscribe.filters.is_empty(), "no topic filter")?;
            require(
                subscribe.filters.iter().all(|f| !f.filter.is_empty()),
                "empty topic filter",
            )?;
            match subscribe.subscription_id {
                Some(id) if is_v5 => subscription_id(id),
                _ => Ok(()),
            }
        }
        Packet::SubAck(suback) => check_suback(suback),
        Packet::Unsubscribe(unsubscribe) => {
            require(!unsubscribe.filters.is_empty(), "no topic filter")?;
            require(
                unsubscribe.filters.iter().all(|f| !f.is_empty()),
                "empty topic filter",
            )
        }
        Packet::UnsubAck(unsuback) if is_v5 => {
            require(!unsuback.codes.is_empty(), "no reason code")?;
            unsuback
                .codes
                .iter()
                .try_for_each(|&code| reason(code, Carrier::UnsubAck))
        }
        Packet::Disconnect(disconnect) if is_v5 => reason(disconnect.reason, Carrier::Disconnect),
        Packet::Auth(auth) => check_auth(auth, version),
        Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_) => Ok(()),
    }
}

#[inline]
pub(super) fn publish(publish: &Publish, version: Version) -> Result<(), EncodeError> {
    let has_id = publish.packet_id.is_some() || publish.qos == QoS::AtMostOnce;
    require(has_id, "no packet identifier")?;
    let properties = publish.properties.as_deref();
    let properties = properties.filter(|_| version == Version::V5);
    let has_alias = properties.is_some_and(|it| it.topic_alias.is_some());
    require(!publish.topic.is_empty() || has_alias, "empty topic")?;
    properties.map_or(Ok(()), |it| {
        let mut ids = it.subscription_ids.iter();
        ids.try_for_each(|&id| subscription_id(id))
    })
}

#[inline]
fn require(condition: bool, what: &'static str) -> Result<(), EncodeError> {
    if condition {
        Ok(())
    } else {
        Err(EncodeError::Invalid(what))
    }
}

fn reason(code: ReasonCode, carrier: Carrier) -> Result<(), EncodeError> {
    require(
        code.is_allowed_in(carrier),
        "reason code is not one of this packet's",
    )
}

fn subscription_id(id: u32) -> Result<(), EncodeError> {
    require(
        (1..=MAX_VARINT).contains(&id),
        "subscription identifier out of range",
    )
}

fn check_connect(connect: &Connect, version: Version) -> Result<(), EncodeError> {
    require(connect.version == version, "a CONNECT of another version")?;
    if let Some(will) = &connect.will {
        require(!will.topic.is_empty(), "empty will topic")?;
    }
    if version != Version::V5 {
        let password_has_user = connect.password.is_none() || connect.user_name.is_some();
        return require(password_has_user, "password without a user name");
    }
    let p = &connect.properties;
    require(p.maximum_packet_size != Some(0), "maximum packet size 0")?;
    let data_has_method = p.authentication_data.is_none() || p.authentication_method.is_some();
    require(data_has_method, "authentication data without a method")
}

fn check_connack(connack: &ConnAck, version: Version) -> Result<(), EncodeError> {
    match (connack.code, version) {
        (ConnectCode::V3(_), Version::V3 | Version::V4) => Ok(()),
        (ConnectCode::V5(code), Version::V5) => {
            reason(code, Carrier::ConnAck)?;
            let p = &connack.properties;
            require(p.maximum_packet_size != Some(0), "maximum packet size 0")?;
            require(p.maximum_qos != Some(QoS::ExactlyOnce), "maximum QoS 2")?;
            let data_has_method =
                p.authentication_data.is_none() || p.authentication_method.is_some();
            let refused = code != ReasonCode::Success;
            require(
                data_has_method || refused,
                "authentication data without a method",
            )
        }
        _ => Err(EncodeError::Invalid("a CONNACK code of another version")),
    }
}

/// The codes of 5.0 in every version: 3 says each failure as 0x80.
fn check_suback(suback: &SubAck) -> Result<(), EncodeError> {
    require(!suback.codes.is_empty(), "no reason code")?;
    suback
        .codes
        .iter()
        .try_for_each(|&code| reason(code, Carrier::SubAck))
}

fn check_auth(auth: &Auth, version: Version) -> Result<(), EncodeError> {
    require(version == Version::V5, "AUTH")?;
    reason(auth.reason, Carrier::Auth)?;
    let has_method = auth.authentication_method.is_some() || auth.is_bare();
    require(has_method, "no authentication method")
}
