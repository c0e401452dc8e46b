//! Every kind of disagreement with the two neighbours, and why ours is right.
//!
//! A kind reads `<who> <refuses|takes> <version> <packet>: <why the one that refuses does>`; numbers
//! in it are `N`, and `*` stands for any text. "Policy" is what the standard lets a server answer as
//! it likes, and this one answers with an error of its own instead of closing the connection.

/// Patterns of kinds, each with the clause that decides it.
pub(crate) const EXPLAINED: &[(&str, &str)] = &[
    // flowsdk 0.7.0 is stricter: 3.1 is not 3.1.1.
    (
        "flowsdk refuses V3 CONNECT: Buffer Too Short",
        "3.1 3.1: a server must allow for flags that promise a missing user name or password",
    ),
    (
        "flowsdk refuses V3 CONNECT: Parse Error: CONNECT reserved flag must be zero",
        "3.1 3.1: bit 0 of the connect flags is not used",
    ),
    (
        "flowsdk refuses V3 CONNECT: Parse Error: Will QoS*",
        "3.1 3.1: without the will flag, will QoS and will retain are disregarded",
    ),
    (
        "flowsdk refuses V3 CONNECT: Parse Error: Expected CONNECT packet*",
        "3.1 3.1: the flags of the fixed header are not used in a CONNECT",
    ),
    (
        "flowsdk refuses V3 CONNECT: Parse Error: Invalid MQTT fixed header flags",
        "3.1 3.1: the flags of the fixed header are not used in a CONNECT",
    ),
    (
        "flowsdk refuses V3 *: Parse Error: * packet has invalid fixed header flags",
        "3.1 3.2 to 3.14: DUP may be set where QoS is 1, the other flags are not used",
    ),
    (
        "flowsdk refuses V3 CONNACK: Parse Error: CONNACK session present flags*",
        "3.1 3.2: the first byte is reserved and not used",
    ),
    (
        "flowsdk refuses V3 CONNACK: Parse Error: Failed CONNACK cannot set Session Present",
        "3.1 3.2: the first byte is reserved and not used",
    ),
    (
        "flowsdk refuses V3 SUBSCRIBE: Parse Error: Invalid QoS level in payload",
        "3.1 3.8: the upper six bits are not used; a QoS of 3 is refused by both",
    ),
    // flowsdk 0.7.0 is stricter: more than the standard says.
    (
        "flowsdk refuses * CONNECT: Parse Error: Password cannot be empty",
        "3.1.3.5, 5 3.1.3.6: a password has 0 to 65,535 bytes",
    ),
    (
        "flowsdk refuses * CONNECT: Parse Error: Username cannot be empty",
        "1.5.3, 5 1.5.4: a string has 0 to 65,535 bytes",
    ),
    (
        "flowsdk refuses V5 CONNECT: Parse Error: Will topic or message cannot be empty",
        "5 3.1.3.4: the payload of a will is binary data, which may be empty; both refuse the topic",
    ),
    (
        "flowsdk refuses * CONNECT: Parse Error: Topic name cannot contain wildcards",
        "policy",
    ),
    (
        "flowsdk refuses * PUBLISH: Parse Error: Topic name cannot contain wildcards",
        "policy",
    ),
    (
        "flowsdk refuses V5 PUBLISH: Parse Error: PUBLISH Topic Name must not contain*",
        "policy",
    ),
    (
        "flowsdk refuses * *SUBSCRIBE: Parse Error: Multi-level wildcard*",
        "policy",
    ),
    (
        "flowsdk refuses * *SUBSCRIBE: Parse Error: Single-level wildcard*",
        "policy",
    ),
    (
        "flowsdk refuses V5 SUBSCRIBE: Parse Error: SUBSCRIBE No Local flag*",
        "policy",
    ),
    (
        "flowsdk refuses V5 SUBSCRIBE: Parse Error: Invalid shared subscription format*",
        "policy",
    ),
    (
        "flowsdk refuses V5 SUBSCRIBE: Parse Error: Shared subscription ShareName*",
        "policy",
    ),
    // flowsdk 0.7.0 does not look.
    (
        "flowsdk takes V5 CONNACK: protocol error: authentication data without a method",
        "5 4.12: a server that accepts names the method, if there is one",
    ),
    (
        "flowsdk takes V5 AUTH: protocol error: no authentication method",
        "5 3.15.2.2.2: it is a protocol error to omit the method",
    ),
    (
        "flowsdk takes V5 DISCONNECT: protocol error: session expiry in a server's DISCONNECT",
        "5 [MQTT-3.14.2-2]; it does not know which side it is on",
    ),
    (
        "flowsdk takes V5 PUBLISH: protocol error: subscription identifier from a client",
        "5 [MQTT-3.3.4-6]; it does not know which side it is on",
    ),
    // rmqtt-codec 0.3 is stricter: 3.1 is not 3.1.1.
    (
        "rmqtt refuses V3 CONNECT: Connect frame's reserved flag is set",
        "3.1 3.1: bit 0 of the connect flags is not used",
    ),
    (
        "rmqtt refuses V3 CONNECT: Invalid connect flags",
        "3.1 3.1: without the will flag, will QoS and will retain are disregarded",
    ),
    (
        "rmqtt refuses V3 CONNECT: Invalid length",
        "3.1 3.1: a server must allow for flags that promise a missing user name or password",
    ),
    (
        "rmqtt refuses V3 CONNACK: ConnectAck frame's reserved flag is set",
        "3.1 3.2: the first byte is reserved and not used",
    ),
    (
        "rmqtt refuses V3 *: Unsupported packet type",
        "3.1 3.1 to 3.14: DUP may be set where QoS is 1, the other flags are not used",
    ),
    (
        "rmqtt refuses V* CONNECT: Invalid client id",
        "policy: 4 [MQTT-3.1.3-8] is a CONNACK",
    ),
    // rmqtt-codec 0.3 does not look.
    (
        "rmqtt takes * CONNECT: protocol level N is not supported",
        "4 [MQTT-3.1.2-2]: level 3 is that of MQIsdp, levels 4 and 5 those of MQTT",
    ),
    (
        "rmqtt takes *: malformed packet: bytes after the last field",
        "4 [MQTT-3.1.3-1] and 3.x.3, 5 3.x.3: a packet ends where its fields end",
    ),
    (
        "rmqtt takes *: malformed packet: length is not in its shortest form",
        "4 2.2.3 table 2.4; 5 [MQTT-1.5.5-1]",
    ),
    (
        "rmqtt takes *: malformed packet: string holds U+N",
        "4 [MQTT-1.5.3-2]; 5 [MQTT-1.5.4-2]",
    ),
    (
        "rmqtt takes * PUBLISH: malformed packet: DUP is set on QoS N",
        "[MQTT-3.3.1-2]",
    ),
    (
        "rmqtt takes * CONNECT: malformed packet: password without a user name",
        "4 [MQTT-3.1.2-22]",
    ),
    (
        "rmqtt takes V5 CONNECT: malformed packet: will flags without a will",
        "5 [MQTT-3.1.2-11], [MQTT-3.1.2-13]",
    ),
    (
        "rmqtt takes * CONNECT: malformed packet: will topic is empty",
        "[MQTT-4.7.3-1]",
    ),
    (
        "rmqtt takes V5 CONNECT: protocol error: authentication data without a method",
        "5 3.1.2.11.10",
    ),
    (
        "rmqtt takes V5 *: protocol error: wildcard in the response topic",
        "5 [MQTT-3.3.2-14]",
    ),
    (
        "rmqtt takes V5 *: protocol error: response topic is empty",
        "5 [MQTT-4.7.3-1]",
    ),
    (
        "rmqtt takes V5 PUBLISH: protocol error: neither topic nor topic alias",
        "5 3.3.2.1",
    ),
    (
        "rmqtt takes V5 PUBLISH: protocol error: subscription identifier from a client",
        "5 [MQTT-3.3.4-6]; it does not know which side it is on",
    ),
    (
        "rmqtt takes * SUBACK: malformed packet: no code for any topic filter",
        "[MQTT-3.9.3-1]",
    ),
    (
        "rmqtt takes V5 UNSUBACK: malformed packet: no code for any topic filter",
        "5 [MQTT-3.11.3-1]: a code for each filter",
    ),
    (
        "rmqtt takes V4 SUBSCRIBE: malformed packet: reserved bits of the subscription options",
        "4 [MQTT-3.8.3-4]",
    ),
    (
        "rmqtt takes V5 *SUBSCRIBE: malformed packet: topic filter is empty",
        "[MQTT-4.7.3-1]",
    ),
    (
        "rmqtt takes * CONNACK: malformed packet: reserved connect return code",
        "4 3.2.2.3 table 3.1: 6 to 255 are reserved",
    ),
    (
        "rmqtt takes * CONNACK: protocol error: session present in a refusal",
        "4 [MQTT-3.2.2-4]; 5 [MQTT-3.2.2-6]",
    ),
    (
        "rmqtt takes V5 CONNACK: protocol error: authentication data without a method",
        "5 4.12: a server that accepts names the method, if there is one",
    ),
    (
        "rmqtt takes V5 CONNACK: protocol error: maximum packet size is N",
        "5 3.2.2.3.6",
    ),
    (
        "rmqtt takes V5 CONNACK: protocol error: property is neither N nor N",
        "5 3.2.2.3.4",
    ),
    (
        "rmqtt takes V5 AUTH: malformed packet: packet ends inside a field",
        "5 3.15.2.1: reason code and property length are left out together",
    ),
    (
        "rmqtt takes V5 AUTH: protocol error: no authentication method",
        "5 3.15.2.2.2: it is a protocol error to omit the method",
    ),
    (
        "rmqtt takes V5 DISCONNECT: malformed packet: reason code is not one of this packet's",
        "5 [MQTT-3.14.2-1]: 0x8C is not in the table",
    ),
    (
        "rmqtt takes V5 DISCONNECT: protocol error: session expiry in a server's DISCONNECT",
        "5 [MQTT-3.14.2-2]; it does not know which side it is on",
    ),
];

/// Whether `kind` is `pattern` with any text for each `*`.
pub(crate) fn matches(pattern: &str, kind: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|part| kind.strip_prefix(part)) else {
        return false;
    };
    let mut ends_open = true;
    for part in parts {
        ends_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || (ends_open && pattern.ends_with('*'))
}

#[test]
fn patterns() {
    assert!(matches("a * c", "a b c"));
    assert!(matches("a*", "abc"));
    assert!(matches("abc", "abc"));
    assert!(!matches("ab", "abc"));
    assert!(!matches("a *: x", "a b: y"));
}
