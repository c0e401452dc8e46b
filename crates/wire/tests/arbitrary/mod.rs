//! Any packet that a version of MQTT can say, in the form in which the decoder returns it: what the
//! version does not know is at its default.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::num::NonZeroU16;

use bytes::Bytes;
use jam_wire::packet::*;
use jam_wire::reason::{Carrier, ConnectReturnCode, ReasonCode};
use jam_wire::{ByteString, MAX_VARINT};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V3, Version::V4, Version::V5])
}

fn string() -> impl Strategy<Value = ByteString> {
    // Any characters but U+0000; ASCII more often than not.
    prop_oneof![3 => "[ -~]{0,40}", 1 => "[^\0]{0,20}"].prop_map(ByteString::from)
}

fn non_empty() -> impl Strategy<Value = ByteString> {
    "[^\0]{1,30}".prop_map(ByteString::from)
}

fn without_wildcards() -> impl Strategy<Value = ByteString> {
    "[^\0#+]{1,30}".prop_map(ByteString::from)
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => 0..200_usize, 1 => 0..20_000_usize]
        .prop_flat_map(|len| vec(any::<u8>(), len))
        .prop_map(Bytes::from)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>()
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec((string(), string()), 0..3).prop_map(UserProperties::from_iter)
}

fn subscription_id() -> impl Strategy<Value = u32> {
    prop_oneof![1..=3_u32, 1..=MAX_VARINT]
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn code(carrier: Carrier) -> impl Strategy<Value = ReasonCode> {
    let allowed = ReasonCode::ALL
        .iter()
        .copied()
        .filter(move |code| code.is_allowed_in(carrier));
    select(allowed.collect::<Vec<_>>())
}

/// `value` in 5.0, the default in 3.
fn in_v5<T: Default + Clone + std::fmt::Debug + 'static>(
    version: Version,
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    match version {
        Version::V5 => value.boxed(),
        Version::V3 | Version::V4 => Just(T::default()).boxed(),
    }
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    let numbers = (
        of(any::<u32>()),
        of(any::<NonZeroU16>()),
        of(1..=u32::MAX),
        of(any::<u16>()),
    );
    let flags = (of(any::<bool>()), of(any::<bool>()));
    (numbers, flags, user(), of((string(), of(binary())))).prop_map(
        |((expiry, receive, size, alias), (response, problem), user, auth)| {
            let (authentication_method, authentication_data) = auth.unzip();
            ConnectProperties {
                session_expiry_secs: expiry,
                receive_maximum: receive,
                maximum_packet_size: size,
                topic_alias_maximum: alias,
                request_response_information: response,
                request_problem_information: problem,
                user,
                authentication_method,
                authentication_data: authentication_data.flatten(),
            }
        },
    )
}

/// What a PUBLISH and a will have in common.
fn message_properties() -> impl Strategy<Value = PublishProperties> {
    let numbers = (of(any::<bool>()), of(any::<u32>()));
    (
        numbers,
        of(without_wildcards()),
        of(binary()),
        user(),
        of(string()),
    )
        .prop_map(
            |(
                (payload_is_utf8, message_expiry_secs),
                response_topic,
                correlation_data,
                user,
                kind,
            )| {
                PublishProperties {
                    payload_is_utf8,
                    message_expiry_secs,
                    response_topic,
                    correlation_data,
                    user,
                    content_type: kind,
                    ..PublishProperties::default()
                }
            },
        )
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    let properties = in_v5(version, message_properties());
    let delay = in_v5(version, of(any::<u32>()));
    (
        non_empty(),
        binary(),
        qos(),
        any::<bool>(),
        delay,
        properties,
    )
        .prop_map(
            |(topic, payload, qos, retain, delay_secs, properties)| Will {
                topic,
                payload,
                qos,
                retain,
                delay_secs,
                properties,
            },
        )
}

pub(crate) fn connect(version: Version) -> impl Strategy<Value = Packet> {
    let head = (any::<bool>(), any::<u16>(), string(), of(will(version)));
    let properties = in_v5(version, connect_properties());
    (head, of(string()), of(binary()), properties).prop_map(
        move |(
            (clean_start, keep_alive_secs, client_id, will),
            user_name,
            password,
            properties,
        )| {
            let password_may_be = version == Version::V5 || user_name.is_some();
            Packet::Connect(Box::new(Connect {
                version,
                clean_start,
                keep_alive_secs,
                client_id,
                will: will.map(Box::new),
                user_name,
                password: password.filter(|_| password_may_be),
                properties,
            }))
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties> {
    let numbers = (
        of(any::<u32>()),
        of(any::<NonZeroU16>()),
        of(1..=u32::MAX),
        of(any::<u16>()),
    );
    let flag = || of(any::<bool>());
    let flags = (flag(), flag(), flag(), flag(), flag(), of(any::<u16>()));
    let strings = (of(string()), of(string()), of(string()), of(string()));
    (
        numbers,
        flags,
        strings,
        user(),
        of((string(), of(binary()))),
    )
        .prop_map(|(numbers, flags, strings, user, auth)| {
            let (authentication_method, authentication_data) = auth.unzip();
            ConnAckProperties {
                session_expiry_secs: numbers.0,
                receive_maximum: numbers.1,
                maximum_packet_size: numbers.2,
                topic_alias_maximum: numbers.3,
                maximum_qos: flags
                    .0
                    .map(|b| if b { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
                retain_available: flags.1,
                wildcard_subscription_available: flags.2,
                subscription_ids_available: flags.3,
                shared_subscription_available: flags.4,
                server_keep_alive_secs: flags.5,
                assigned_client_id: strings.0,
                reason_string: strings.1,
                response_information: strings.2,
                server_reference: strings.3,
                user,
                authentication_method,
                authentication_data: authentication_data.flatten(),
            }
        })
}

fn connack(version: Version) -> impl Strategy<Value = Packet> {
    let code = match version {
        Version::V5 => code(Carrier::ConnAck).prop_map(ConnectCode::V5).boxed(),
        Version::V3 | Version::V4 => select(ConnectReturnCode::ALL)
            .prop_map(ConnectCode::V3)
            .boxed(),
    };
    (any::<bool>(), code, in_v5(version, connack_properties())).prop_map(
        move |(session_present, code, properties)| {
            let may_be_present = u8::from(code) == 0 && version != Version::V3;
            Packet::ConnAck(Box::new(ConnAck {
                session_present: session_present && may_be_present,
                code,
                properties,
            }))
        },
    )
}

/// `from_server`: with Subscription Identifiers, which a client must not send.
pub(crate) fn publish(version: Version, from_server: bool) -> impl Strategy<Value = Packet> {
    let alias = in_v5(version, of(any::<NonZeroU16>()));
    let ids = if from_server { 0..3 } else { 0..1 };
    let ids = in_v5(version, vec(subscription_id(), ids));
    let flags = (any::<bool>(), qos(), any::<bool>(), packet_id());
    (
        flags,
        string(),
        in_v5(version, message_properties()),
        alias,
        ids,
        payload(),
    )
        .prop_map(
            |(
                (dup, qos, retain, id),
                topic,
                mut properties,
                topic_alias,
                subscription_ids,
                payload,
            )| {
                properties.topic_alias = topic_alias;
                properties.subscription_ids = subscription_ids;
                let is_missing = topic.is_empty() && topic_alias.is_none();
                Packet::Publish(Publish {
                    dup: dup && qos != QoS::AtMostOnce,
                    qos,
                    retain,
                    topic: if is_missing {
                        ByteString::from_static("/")
                    } else {
                        topic
                    },
                    packet_id: Some(id).filter(|_| qos != QoS::AtMostOnce),
                    properties: (properties != PublishProperties::default())
                        .then(|| Box::new(properties)),
                    payload,
                })
            },
        )
}

fn reason_properties() -> impl Strategy<Value = ReasonProperties> {
    (of(string()), user()).prop_map(|(reason_string, user)| ReasonProperties {
        reason_string,
        user,
    })
}

fn ack(version: Version, carrier: Carrier) -> impl Strategy<Value = Ack> {
    let reason = match version {
        Version::V5 => code(carrier).boxed(),
        Version::V3 | Version::V4 => Just(ReasonCode::Success).boxed(),
    };
    let properties = in_v5(
        version,
        prop_oneof![Just(ReasonProperties::default()), reason_properties()],
    );
    (packet_id(), reason, properties).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

fn filter(version: Version) -> impl Strategy<Value = Filter> {
    let handling = select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    let options = in_v5(version, (any::<bool>(), any::<bool>(), handling));
    (non_empty(), qos(), options).prop_map(|(filter, qos, options)| Filter {
        filter,
        qos,
        no_local: options.0,
        retain_as_published: options.1,
        retain_handling: options.2,
    })
}

pub(crate) fn subscribe(version: Version) -> impl Strategy<Value = Packet> {
    let id = in_v5(version, of(subscription_id()));
    (
        packet_id(),
        id,
        in_v5(version, user()),
        vec(filter(version), 1..4),
    )
        .prop_map(|(packet_id, subscription_id, user, filters)| {
            Packet::Subscribe(Box::new(Subscribe {
                packet_id,
                subscription_id,
                user,
                filters,
            }))
        })
}

fn suback(version: Version) -> impl Strategy<Value = Packet> {
    let code = code(Carrier::SubAck).prop_map(move |code| match version {
        Version::V3 | Version::V4 if code.is_error() => ReasonCode::UnspecifiedError,
        _ => code,
    });
    (
        packet_id(),
        in_v5(version, reason_properties()),
        vec(code, 1..4),
    )
        .prop_map(|(packet_id, properties, codes)| {
            Packet::SubAck(Box::new(SubAck {
                packet_id,
                properties,
                codes,
            }))
        })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet> {
    (packet_id(), in_v5(version, user()), vec(non_empty(), 1..4)).prop_map(
        |(packet_id, user, filters)| {
            Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id,
                user,
                filters,
            }))
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet> {
    let codes = in_v5(version, vec(code(Carrier::UnsubAck), 1..4));
    (packet_id(), in_v5(version, reason_properties()), codes).prop_map(
        |(packet_id, properties, codes)| {
            Packet::UnsubAck(Box::new(UnsubAck {
                packet_id,
                properties,
                codes,
            }))
        },
    )
}

fn disconnect(version: Version, from_server: bool) -> impl Strategy<Value = Packet> {
    let reason = match version {
        Version::V5 => code(Carrier::Disconnect).boxed(),
        Version::V3 | Version::V4 => Just(ReasonCode::Success).boxed(),
    };
    let expiry = in_v5(version, of(any::<u32>()));
    let reference = in_v5(version, of(string()));
    (
        reason,
        expiry,
        reference,
        in_v5(version, reason_properties()),
    )
        .prop_map(move |(reason, expiry, server_reference, properties)| {
            Packet::Disconnect(Box::new(Disconnect {
                reason,
                session_expiry_secs: expiry.filter(|_| !from_server),
                server_reference,
                properties,
            }))
        })
}

fn auth() -> impl Strategy<Value = Packet> {
    (
        code(Carrier::Auth),
        of((string(), of(binary()))),
        reason_properties(),
    )
        .prop_map(|(reason, method, properties)| {
            let (method, data) = method.unzip();
            let auth = Auth {
                reason,
                authentication_method: method,
                authentication_data: data.flatten(),
                properties,
            };
            // Without a method an AUTH can say nothing but Success.
            Packet::Auth(Box::new(match auth.authentication_method {
                Some(_) => auth,
                None => Auth {
                    reason: ReasonCode::Success,
                    authentication_method: None,
                    authentication_data: None,
                    properties: ReasonProperties::default(),
                },
            }))
        })
}

/// Any packet of that version that stands after the CONNECT in that direction.
pub(crate) fn later(version: Version, from_server: bool) -> BoxedStrategy<Packet> {
    let both = prop_oneof![
        3 => publish(version, from_server),
        1 => ack(version, Carrier::PubAck).prop_map(Packet::PubAck),
        1 => ack(version, Carrier::PubAck).prop_map(Packet::PubRec),
        1 => ack(version, Carrier::PubRel).prop_map(Packet::PubRel),
        1 => ack(version, Carrier::PubRel).prop_map(Packet::PubComp),
        1 => disconnect(version, from_server),
    ];
    let one_way = match from_server {
        true => prop_oneof![
            connack(version),
            suback(version),
            unsuback(version),
            Just(Packet::PingResp),
        ]
        .boxed(),
        false => prop_oneof![
            connect(version),
            subscribe(version),
            unsubscribe(version),
            Just(Packet::PingReq),
        ]
        .boxed(),
    };
    match version {
        Version::V5 => prop_oneof![8 => both, 4 => one_way, 1 => auth()].boxed(),
        Version::V3 | Version::V4 => prop_oneof![2 => both, 1 => one_way].boxed(),
    }
}
