//! What stands after the fixed header of each packet: variable header and payload.
//!
//! The packets were checked; nothing here can fail.

use super::properties;
use super::sink::Sink;
use crate::packet::{
    Ack, Auth, ConnAck, Connect, ConnectCode, Disconnect, Filter, Packet, Publish, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version,
};
use crate::reason::ReasonCode;

pub(super) fn put<S: Sink>(packet: &Packet, version: Version, out: &mut S) {
    match packet {
        Packet::Connect(connect) => put_connect(connect, out),
        Packet::ConnAck(connack) => put_connack(connack, version, out),
        Packet::Publish(publish) => {
            publish_header(publish, version, out);
            out.raw(&publish.payload);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put_ack(ack, version, out);
        }
        Packet::Subscribe(subscribe) => put_subscribe(subscribe, version, out),
        Packet::SubAck(suback) => put_suback(suback, version, out),
        Packet::Unsubscribe(unsubscribe) => put_unsubscribe(unsubscribe, version, out),
        Packet::UnsubAck(unsuback) => put_unsuback(unsuback, version, out),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => put_disconnect(disconnect, version, out),
        Packet::Auth(auth) => put_auth(auth, out),
    }
}

/// Everything of a PUBLISH between its fixed header and its payload.
#[inline]
pub(super) fn publish_header<S: Sink>(publish: &Publish, version: Version, out: &mut S) {
    out.binary(publish.topic.as_bytes());
    if let Some(packet_id) = publish.packet_id.filter(|_| publish.qos as u8 > 0) {
        out.u16(packet_id.get());
    }
    if version == Version::V5 {
        match &publish.properties {
            Some(properties) => properties::put(&**properties, out),
            None => out.varint(0),
        }
    }
}

fn put_connect<S: Sink>(connect: &Connect, out: &mut S) {
    let (name, level) = match connect.version {
        Version::V3 => ("MQIsdp", 3),
        Version::V4 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let will_flags = connect.will.as_ref().map_or(0, |will| {
        u8::from(will.retain) << 5 | (will.qos as u8) << 3 | 0b100
    });
    let flags = u8::from(connect.user_name.is_some()) << 7
        | u8::from(connect.password.is_some()) << 6
        | will_flags
        | u8::from(connect.clean_start) << 1;
    out.binary(name.as_bytes());
    out.raw(&[level, flags]);
    out.u16(connect.keep_alive_secs);
    let is_v5 = connect.version == Version::V5;
    if is_v5 {
        properties::put(&connect.properties, out);
    }
    out.binary(connect.client_id.as_bytes());
    if let Some(will) = connect.will.as_deref() {
        if is_v5 {
            properties::put(will, out);
        }
        out.binary(will.topic.as_bytes());
        out.binary(&will.payload);
    }
    if let Some(user_name) = &connect.user_name {
        out.binary(user_name.as_bytes());
    }
    if let Some(password) = &connect.password {
        out.binary(password);
    }
}

fn put_connack<S: Sink>(connack: &ConnAck, version: Version, out: &mut S) {
    let code = u8::from(connack.code);
    let session_present = connack.session_present && code == 0 && version != Version::V3;
    out.raw(&[u8::from(session_present), code]);
    if let ConnectCode::V5(_) = connack.code {
        properties::put(&connack.properties, out);
    }
}

fn put_ack<S: Sink>(ack: &Ack, version: Version, out: &mut S) {
    out.u16(ack.packet_id.get());
    if super::says_success(ack, version) {
        return;
    }
    out.u8(ack.reason.into());
    if properties::len(&ack.properties) > 0 {
        properties::put(&ack.properties, out);
    }
}

fn put_subscribe<S: Sink>(subscribe: &Subscribe, version: Version, out: &mut S) {
    out.u16(subscribe.packet_id.get());
    if version == Version::V5 {
        properties::put(subscribe, out);
    }
    for filter in &subscribe.filters {
        out.binary(filter.filter.as_bytes());
        out.u8(options(filter, version));
    }
}

/// Section 3.8.3.1.
fn options(filter: &Filter, version: Version) -> u8 {
    let qos = filter.qos as u8;
    if version != Version::V5 {
        return qos;
    }
    (filter.retain_handling as u8) << 4
        | u8::from(filter.retain_as_published) << 3
        | u8::from(filter.no_local) << 2
        | qos
}

fn put_suback<S: Sink>(suback: &SubAck, version: Version, out: &mut S) {
    out.u16(suback.packet_id.get());
    if version == Version::V5 {
        properties::put(&suback.properties, out);
    }
    for &code in &suback.codes {
        let known = version == Version::V5 || !code.is_error();
        out.u8(if known {
            code
        } else {
            ReasonCode::UnspecifiedError
        }
        .into());
    }
}

fn put_unsubscribe<S: Sink>(unsubscribe: &Unsubscribe, version: Version, out: &mut S) {
    out.u16(unsubscribe.packet_id.get());
    if version == Version::V5 {
        properties::put(&unsubscribe.user, out);
    }
    for filter in &unsubscribe.filters {
        out.binary(filter.as_bytes());
    }
}

fn put_unsuback<S: Sink>(unsuback: &UnsubAck, version: Version, out: &mut S) {
    out.u16(unsuback.packet_id.get());
    if version == Version::V5 {
        properties::put(&unsuback.properties, out);
        for &code in &unsuback.codes {
            out.u8(code.into());
        }
    }
}

/// A reason is followed by the length of its properties, also when there are none: 3.14.2.2.1 allows to leave it out,
/// and rumqttc 0.25 then waits for it and never sees the packet.
fn put_disconnect<S: Sink>(disconnect: &Disconnect, version: Version, out: &mut S) {
    if version != Version::V5 {
        return;
    }
    if disconnect.reason != ReasonCode::Success || properties::len(disconnect) > 0 {
        out.u8(disconnect.reason.into());
        properties::put(disconnect, out);
    }
}

fn put_auth<S: Sink>(auth: &Auth, out: &mut S) {
    if !auth.is_bare() {
        out.u8(auth.reason.into());
        properties::put(auth, out);
    }
}
