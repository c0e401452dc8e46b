//! The properties of MQTT 5.0 (section 2.2.2), written in the order of the standard's tables.

use bytes::Bytes;
use bytestring::ByteString;

use super::sink::{Counter, Sink};
use crate::packet::{
    Auth, ConnAckProperties, ConnectProperties, Disconnect, PublishProperties, QoS,
    ReasonProperties, Subscribe, UserProperties, Will,
};
use crate::property as id;

/// The properties of one packet, without the length that stands before them.
pub(super) trait Properties {
    fn put<S: Sink>(&self, out: &mut S);
}

/// The bytes of some properties, without the length that stands before them.
#[inline]
pub(super) fn len(properties: &impl Properties) -> usize {
    let mut counter = Counter::default();
    properties.put(&mut counter);
    counter.len
}

/// Writes properties after their length.
#[inline]
pub(super) fn put<S: Sink>(properties: &impl Properties, out: &mut S) {
    let len = len(properties);
    out.varint(len);
    if len > 0 {
        properties.put(out);
    }
}

fn string<S: Sink>(out: &mut S, id: u8, value: Option<&ByteString>) {
    if let Some(value) = value {
        out.u8(id);
        out.binary(value.as_bytes());
    }
}

fn binary<S: Sink>(out: &mut S, id: u8, value: Option<&Bytes>) {
    if let Some(value) = value {
        out.u8(id);
        out.binary(value);
    }
}

fn boolean<S: Sink>(out: &mut S, id: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.raw(&[id, u8::from(value)]);
    }
}

fn two_bytes<S: Sink>(out: &mut S, id: u8, value: Option<impl Into<u16>>) {
    if let Some(value) = value {
        out.u8(id);
        out.u16(value.into());
    }
}

fn four_bytes<S: Sink>(out: &mut S, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.u8(id);
        out.u32(value);
    }
}

fn subscription_id<S: Sink>(out: &mut S, value: u32) {
    out.u8(id::SUBSCRIPTION_ID);
    out.varint(usize::try_from(value).expect("32 bits fit a usize"));
}

fn user<S: Sink>(out: &mut S, properties: &UserProperties) {
    out.raw(properties.as_bytes());
}

impl Properties for ConnectProperties {
    fn put<S: Sink>(&self, out: &mut S) {
        four_bytes(out, id::SESSION_EXPIRY, self.session_expiry_secs);
        two_bytes(out, id::RECEIVE_MAXIMUM, self.receive_maximum);
        four_bytes(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        two_bytes(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        boolean(
            out,
            id::REQUEST_RESPONSE_INFORMATION,
            self.request_response_information,
        );
        boolean(
            out,
            id::REQUEST_PROBLEM_INFORMATION,
            self.request_problem_information,
        );
        user(out, &self.user);
        string(
            out,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_ref(),
        );
        binary(
            out,
            id::AUTHENTICATION_DATA,
            self.authentication_data.as_ref(),
        );
    }
}

impl Properties for ConnAckProperties {
    fn put<S: Sink>(&self, out: &mut S) {
        four_bytes(out, id::SESSION_EXPIRY, self.session_expiry_secs);
        two_bytes(out, id::RECEIVE_MAXIMUM, self.receive_maximum);
        let maximum_qos = self.maximum_qos.map(|qos| qos != QoS::AtMostOnce);
        boolean(out, id::MAXIMUM_QOS, maximum_qos);
        boolean(out, id::RETAIN_AVAILABLE, self.retain_available);
        four_bytes(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        string(
            out,
            id::ASSIGNED_CLIENT_ID,
            self.assigned_client_id.as_ref(),
        );
        two_bytes(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        string(out, id::REASON_STRING, self.reason_string.as_ref());
        user(out, &self.user);
        boolean(
            out,
            id::WILDCARD_AVAILABLE,
            self.wildcard_subscription_available,
        );
        boolean(
            out,
            id::SUBSCRIPTION_IDS_AVAILABLE,
            self.subscription_ids_available,
        );
        boolean(
            out,
            id::SHARED_AVAILABLE,
            self.shared_subscription_available,
        );
        two_bytes(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive_secs);
        string(
            out,
            id::RESPONSE_INFORMATION,
            self.response_information.as_ref(),
        );
        string(out, id::SERVER_REFERENCE, self.server_reference.as_ref());
        string(
            out,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_ref(),
        );
        binary(
            out,
            id::AUTHENTICATION_DATA,
            self.authentication_data.as_ref(),
        );
    }
}

/// What a PUBLISH and a will have in common.
fn message<S: Sink>(p: &PublishProperties, out: &mut S) {
    boolean(out, id::PAYLOAD_FORMAT, p.payload_is_utf8);
    four_bytes(out, id::MESSAGE_EXPIRY, p.message_expiry_secs);
    string(out, id::RESPONSE_TOPIC, p.response_topic.as_ref());
    binary(out, id::CORRELATION_DATA, p.correlation_data.as_ref());
    user(out, &p.user);
    string(out, id::CONTENT_TYPE, p.content_type.as_ref());
}

impl Properties for PublishProperties {
    fn put<S: Sink>(&self, out: &mut S) {
        two_bytes(out, id::TOPIC_ALIAS, self.topic_alias);
        message(self, out);
        for &id in &self.subscription_ids {
            subscription_id(out, id);
        }
    }
}

impl Properties for Will {
    fn put<S: Sink>(&self, out: &mut S) {
        four_bytes(out, id::WILL_DELAY, self.delay_secs);
        message(&self.properties, out);
    }
}

impl Properties for ReasonProperties {
    fn put<S: Sink>(&self, out: &mut S) {
        string(out, id::REASON_STRING, self.reason_string.as_ref());
        user(out, &self.user);
    }
}

impl Properties for Subscribe {
    fn put<S: Sink>(&self, out: &mut S) {
        if let Some(id) = self.subscription_id {
            subscription_id(out, id);
        }
        user(out, &self.user);
    }
}

impl Properties for UserProperties {
    fn put<S: Sink>(&self, out: &mut S) {
        user(out, self);
    }
}

impl Properties for Disconnect {
    fn put<S: Sink>(&self, out: &mut S) {
        four_bytes(out, id::SESSION_EXPIRY, self.session_expiry_secs);
        self.properties.put(out);
        string(out, id::SERVER_REFERENCE, self.server_reference.as_ref());
    }
}

impl Properties for Auth {
    fn put<S: Sink>(&self, out: &mut S) {
        string(
            out,
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_ref(),
        );
        binary(
            out,
            id::AUTHENTICATION_DATA,
            self.authentication_data.as_ref(),
        );
        self.properties.put(out);
    }
}
