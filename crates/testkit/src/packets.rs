//! Packets, payloads and errors as scenarios write them.

use bytes::Bytes;
use bytestring::ByteString;
use jam_wire::packet::{
    Connect, ConnectProperties, Filter, PacketId, Publish, PublishProperties, QoS, RetainHandling,
    Subscribe, Unsubscribe, UserProperties, Version, Will,
};

/// The token of every account that a [`Bench`](crate::Bench) makes.
#[must_use]
pub fn token(user: &str) -> String {
    format!("token of {user}")
}

/// A CONNECT of the user that the client id names, with the right token: clean, without keep alive or
/// will.
#[must_use]
pub fn connect(client_id: &str, version: Version) -> Connect {
    let user = client_id.split(':').next().unwrap_or_default();
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: client_id.into(),
        will: None,
        user_name: Some(user.into()),
        password: Some(token(user).into_bytes().into()),
        properties: ConnectProperties::default(),
    }
}

/// A will of QoS 0 without delay.
#[must_use]
pub fn will(topic: &str, payload: &str) -> Box<Will> {
    Box::new(Will {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtMostOnce,
        retain: false,
        delay_secs: None,
        properties: PublishProperties::default(),
    })
}

/// A PUBLISH.
#[must_use]
pub fn publish(topic: &str, payload: impl Into<Bytes>, qos: QoS, id: Option<PacketId>) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: id,
        properties: None,
        payload: payload.into(),
    }
}

/// A filter without 5.0's options.
#[must_use]
pub fn filter(topic: &str, qos: QoS) -> Filter {
    Filter {
        filter: topic.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

/// A SUBSCRIBE.
#[must_use]
pub fn subscribe(packet_id: PacketId, filters: Vec<Filter>) -> Subscribe {
    Subscribe {
        packet_id,
        subscription_id: None,
        user: UserProperties::default(),
        filters,
    }
}

/// An UNSUBSCRIBE.
#[must_use]
pub fn unsubscribe(packet_id: PacketId, filters: &[&str]) -> Unsubscribe {
    let filters = filters
        .iter()
        .map(|filter| ByteString::from(*filter))
        .collect();
    Unsubscribe {
        packet_id,
        user: UserProperties::default(),
        filters,
    }
}

/// A packet id.
///
/// # Panics
/// If it is 0.
#[must_use]
pub fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("a packet id is not 0")
}

/// A message as apps write it.
#[must_use]
pub fn message(from: &str, content: &str) -> Bytes {
    format!(r#"{{"from":"{from}","content":"{content}","type":0}}"#).into()
}

/// An error as PROTOCOL.md, section 2, spells it.
#[must_use]
pub fn error(handler: &str, category: &str, message: &str, message_id: Option<u16>) -> String {
    let id = message_id.map_or("null".to_string(), |id| id.to_string());
    format!(
        r#"{{"type":"error","handler":"{handler}","category":"{category}","message":"{message}","messageId":{id}}}"#
    )
}
